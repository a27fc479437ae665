//! What the recorder's thread does: it writes what waits, and hands deliveries over to be attempted.
//!
//! In: jobs. Out: replies, what is committed, how the store is, and deliveries that are claimed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::calendar::Calendar;
use super::entry::{Answer, Entry, What, discard, note};
use super::schema::Schema;
use super::{Health, Job, RecorderSettings, Reply};
use crate::escalation::attendance::Attendance;
use crate::escalation::dispatch::Desks;
use crate::escalation::sinks::Delivery;
use crate::escalation::store::{
    Batch, Change, Claimed, Done, Recorded, Store, StoreError, Terms, Writer,
};
use crate::telemetry::metrics;

/// Changes in one transaction at most: some milliseconds of work.
pub(super) const MOST_IN_BATCH: usize = 256;

/// The store is down.
pub(super) struct Down {
    until: Instant,
    waits: backon::ExponentialBackoff,
}

pub(super) struct Work {
    pub(super) attendance: Attendance,
    /// When it was last said which sessions are alive.
    pub(super) spoken: Instant,
    pub(super) silences: watch::Sender<u64>,
    /// No session is taken for lost before: those who serve it may have been kept from saying so.
    pub(super) sweep_from: Instant,
    pub(super) calendar: Calendar,
    pub(super) store: Store,
    pub(super) delivery: Arc<Delivery>,
    pub(super) settings: RecorderSettings,
    pub(super) owner: String,
    pub(super) desks: Arc<Desks>,
    /// Keeps other servers from the file.
    pub(super) file: Option<std::fs::File>,
    pub(super) schema: Schema,
    pub(super) writer: Option<Writer>,
    /// Whether this owner's leases of before have been given up.
    pub(super) released: bool,
    pub(super) waiting: VecDeque<Entry>,
    pub(super) down: Option<Down>,
    pub(super) health: watch::Sender<Health>,
    pub(super) latest: watch::Sender<i64>,
    pub(super) claimed: mpsc::Sender<Claimed>,
}

impl Work {
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Job>,
        stop: CancellationToken,
        attempts: JoinHandle<()>,
    ) {
        let mut tick = tokio::time::interval(self.settings.poll);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expiry = tokio::time::interval(self.expiry_period());
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Twice can go wrong before a session is taken for lost.
        let mut attend = tokio::time::interval(self.settings.window / 3);
        attend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Every branch is cancel-safe: a queue, a token and intervals lose nothing.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before the jobs, which may never pause: sessions that are not spoken of are ended.
                _ = attend.tick() => self.attend().await,
                _ = expiry.tick() => self.expire().await,
                job = inbox.recv() => match job {
                    Some(job) => self.take(job, &mut inbox).await,
                    None => break,
                },
                _ = tick.tick() => self.look().await,
            }
        }
        self.wind_up(inbox, attempts).await;
    }

    /// Takes a job and all that waits behind it.
    async fn take(&mut self, job: Job, inbox: &mut mpsc::Receiver<Job>) {
        self.waiting.push_back(job.into());
        while self.waiting.len() < MOST_IN_BATCH
            && let Ok(job) = inbox.try_recv()
        {
            self.waiting.push_back(job.into());
        }
        self.write().await;
    }

    /// Looks whether anything can be done that nobody has asked for.
    async fn look(&mut self) {
        metrics().store_waiting(self.waiting.len());
        if !self.waiting.is_empty() || self.down.is_some() || !self.released {
            self.write().await;
            return;
        }
        let capacity = self.desks.capacity();
        if capacity.is_empty() {
            return;
        }
        let Some(writer) = &mut self.writer else {
            return;
        };
        let sinks: Vec<&str> = capacity.iter().map(|(sink, _)| *sink).collect();
        match within(self.settings.timeout, writer.is_due(&sinks)).await {
            Ok(false) => {}
            Ok(true) => self.write().await,
            Err(error) => self.fail(&error),
        }
    }

    /// Writes what waits, unless the store is down and it is not time to try again.
    pub(super) async fn write(&mut self) {
        if self.down.as_ref().is_some_and(|down| Instant::now() < down.until) {
            self.tell_waiting();
            return;
        }
        while let Some(left) = self.write_some().await {
            if left == 0 {
                break;
            }
        }
        self.tell_waiting();
    }

    /// Writes the first of what waits. Returns how many are left, or `None` if it failed.
    async fn write_some(&mut self) -> Option<usize> {
        let count = self.waiting.len().min(MOST_IN_BATCH);
        match self.transact(count).await {
            Ok(()) => {}
            // There is one among them that the store will never take: written one by one, it shows.
            Err(error) if count > 0 && error.is_about_content() => self.write_singly(count).await?,
            Err(error) => {
                self.fail(&error);
                return None;
            }
        }
        Some(self.waiting.len())
    }

    /// Writes the first `count` one by one. Given up is only what the store says it cannot take while it
    /// takes all else; a store that is down, or whose disk is full, is waited for.
    async fn write_singly(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            let Err(error) = self.transact(1).await else {
                continue;
            };
            // An error of an empty batch is not about the entry.
            let other = if error.is_about_content() { self.transact(0).await.err() } else { None };
            if other.is_some() || !error.is_about_content() {
                self.fail(other.as_ref().unwrap_or(&error));
                return None;
            }
            if let Some(entry) = self.waiting.pop_front() {
                discard(entry, &format!("the store does not take it: {error}"));
            }
        }
        Some(())
    }

    /// Writes the first `count` of what waits in one transaction, and passes on what came of it.
    async fn transact(&mut self, count: usize) -> Result<(), StoreError> {
        let began = Instant::now();
        let limit = self.settings.timeout;
        match within(limit, self.attempt(count)).await {
            Ok(done) => {
                metrics().store_commit(began.elapsed());
                self.succeed(count, done).await;
                Ok(())
            }
            Err(error) => {
                // What a connection has been through cannot be known: the next attempt has a new one.
                self.writer = None;
                if matches!(error, StoreError::Database(_)) {
                    self.schema.doubt();
                }
                Err(error)
            }
        }
    }

    async fn attempt(&mut self, count: usize) -> Result<Done, StoreError> {
        if self.file.is_none() {
            // The folder may not have been there, or not writable, when the server started.
            self.file = self.store.claim_file()?;
        }
        // Before the time-out of the whole, which would say that the store does not answer.
        let limit = self.settings.timeout.mul_f32(0.8);
        self.schema.bring_up_to_date(&self.store, limit).await?;
        if self.writer.is_none() {
            let RecorderSettings { lease, window, .. } = self.settings;
            let writer = self.store.connect(&self.owner).await?;
            self.writer = Some(writer.on(Terms { lease, window }));
        }
        let Some(writer) = &mut self.writer else {
            return Ok(Done::default());
        };
        if !self.released {
            let released = writer.release().await?;
            self.released = true;
            if released > 0 {
                tracing::info!(released, "deliveries that were under way before are due again");
            }
            for (sink, deliveries) in writer.outstanding().await? {
                if self.delivery.sinks().iter().all(|known| known.name() != sink) {
                    tracing::warn!(
                        sink,
                        deliveries,
                        "the delivery file has no such sink: what is to be delivered to it waits until \
                         it has"
                    );
                }
            }
        }
        // Behind the ends of all attempts that wait: a lease may have run out meanwhile, and what has
        // arrived must not be claimed again.
        let is_end = |entry: &Entry| matches!(entry.what, What::Finish(_));
        let ends_are_left = self.waiting.iter().skip(count).any(is_end);
        let mut batch = Batch {
            capacity: if ends_are_left { Vec::new() } else { self.desks.capacity() },
            lease: self.settings.lease,
            window: self.settings.window,
            ..Batch::default()
        };
        for entry in self.waiting.iter().take(count) {
            match &entry.what {
                What::Change(change, trace) => {
                    batch.changes.push(change);
                    batch.traces.push(trace.as_ref());
                }
                What::Finish(finish) => batch.finishes.push(finish),
            }
        }
        writer.write(&batch, self.delivery.as_ref()).await
    }

    async fn succeed(&mut self, count: usize, done: Done) {
        if self.down.take().is_some() {
            self.sweep_from = Instant::now() + self.settings.window;
            tracing::info!(waiting = self.waiting.len(), "the escalation store is back");
        }
        self.health.send_if_modified(|health| {
            let changed = !health.is_up();
            *health = Health::Up;
            changed
        });
        metrics().store_up(true);
        let mut recorded = done.recorded.into_iter();
        for entry in self.waiting.drain(..count.min(self.waiting.len())) {
            if matches!(entry.what, What::Finish(_)) {
                continue;
            }
            let Some(recorded) = recorded.next() else {
                continue;
            };
            if let Recorded::New(occurrences) = &recorded {
                occurrences.iter().for_each(note);
            }
            // Whoever asked may have gone meanwhile.
            match entry.reply {
                Some(Answer::First(reply)) => {
                    let _ = reply.send(Reply::Durable(recorded));
                }
                Some(Answer::Later(reply)) => {
                    let _ = reply.send(recorded);
                }
                None => {}
            }
        }
        self.see(done.latest);
        for claimed in done.claimed {
            self.desks.begin(&claimed.sink);
            if self.claimed.send(claimed).await.is_err() {
                // The attempts have ended; the lease runs out.
                return;
            }
        }
    }

    /// Tells of the last occurrence that is committed.
    pub(super) fn see(&self, committed: i64) {
        self.latest.send_if_modified(|latest| {
            let changed = committed > *latest;
            *latest = committed.max(*latest);
            changed
        });
    }

    pub(super) fn fail(&mut self, error: &StoreError) {
        self.writer = None;
        if error.is_read_only() {
            self.store.let_go();
        }
        let problem = error.to_string();
        let now = Instant::now();
        if let Some(down) = &mut self.down {
            down.until = now + down.waits.next().unwrap_or(Duration::from_secs(1));
        } else {
            tracing::error!(
                store = %self.store.location(),
                problem,
                "the escalation store is down: escalations are not durable until it is back"
            );
            let mut waits = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(5))
                .with_jitter()
                .without_max_times()
                .build();
            let until = now + waits.next().unwrap_or(Duration::from_secs(1));
            self.down = Some(Down { until, waits });
        }
        self.health.send_replace(Health::Down { problem });
        metrics().store_up(false);
    }

    /// Tells those who have not been told that their changes wait. Those for whom there is no room are
    /// lost, and so are people's requests, which people repeat.
    fn tell_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        let mut changes = 0;
        for mut entry in self.waiting.drain(..) {
            if let What::Change(change, _) = &entry.what {
                changes += 1;
                let is_request = matches!(change, Change::Acknowledged { .. });
                if is_request {
                    if let Some(Answer::First(reply)) = entry.reply {
                        let _ = reply.send(Reply::Lost);
                    }
                    continue;
                }
                if changes > self.settings.backlog {
                    discard(entry, "the store is down and too many wait (escalation_backlog)");
                    continue;
                }
            }
            entry.reply = match entry.reply {
                Some(Answer::First(reply)) => {
                    let (later, receiver) = oneshot::channel();
                    let _ = reply.send(Reply::Waiting(receiver));
                    Some(Answer::Later(later))
                }
                told => told,
            };
            kept.push_back(entry);
        }
        self.waiting = kept;
    }

    /// The server ends: what has come is written, what is under way may end.
    async fn wind_up(mut self, mut inbox: mpsc::Receiver<Job>, attempts: JoinHandle<()>) {
        self.desks.close();
        while let Ok(job) = inbox.try_recv() {
            self.waiting.push_back(job.into());
        }
        // Sessions have ended: only the ends of attempts can still come.
        drop(std::mem::replace(&mut self.claimed, mpsc::channel(1).0));
        let mut attempts = attempts;
        loop {
            if let Some(down) = &mut self.down {
                down.until = Instant::now();
            }
            self.write().await;
            tokio::select! {
                biased;
                job = inbox.recv() => if let Some(job) = job {
                    self.waiting.push_back(job.into());
                } else {
                    break;
                },
                _ = &mut attempts => {
                    while let Ok(job) = inbox.try_recv() {
                        self.waiting.push_back(job.into());
                    }
                    self.write().await;
                    break;
                }
            }
        }
        for entry in self.waiting.drain(..) {
            discard(entry, "the server ends and the store is down");
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Cut off at the drain deadline.
        for entry in self.waiting.drain(..) {
            discard(entry, "the server ended before the store was back");
        }
    }
}

/// What `work` gives, if it does so within `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(StoreError::TimedOut(limit)))
}
