//! The one who writes to the store, and the handle that sessions and services have of it.
//!
//! It has a thread of its own, with the attempts to deliver: a write is a dozen round trips to the database,
//! and on the workers of a thousand sessions each would wait its turn behind their audio.
//!
//! In: changes from sessions and people, ends of deliveries. Out: what became of each change, once it is
//! committed, and deliveries to attempt. What waits is written together: a commit costs the same for one
//! change as for a hundred.
//!
//! Always:
//! 1. Nobody is told that a change is recorded before it is committed.
//! 2. While the store is down, changes wait in memory, in their order, and their senders are told at once
//!    that they are not durable; they are told again when they have been committed. When too many wait, or
//!    the process ends first, each one lost is logged in full.
//! 3. A session never waits for longer than the store's time-out.

mod calendar;
mod entry;
mod schema;
mod upkeep;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use calendar::Calendar;
use entry::{Answer, Entry, What, discard, lose, note};
use schema::Schema;

use super::attendance::{Attendance, Attended};
use super::dispatch::{self, Desks};
use super::life::Timestamp;
use super::sinks::Delivery;
use super::store::{Batch, Change, Done, Finish, Recorded, Store, StoreError, Terms, Writer};
use crate::identity::Tenant;
use crate::telemetry::metrics;
use crate::telemetry::trace::{self, TraceParent};

/// Changes and ends of deliveries on their way to the recorder. They are taken up as soon as the
/// transaction before is committed: a second's worth of the most that a machine can decide.
const QUEUE: usize = 1024;
/// Changes in one transaction at most: some milliseconds of work.
const MOST_IN_BATCH: usize = 256;

/// How escalations are kept and delivered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecorderSettings {
    /// Longest time that a transaction may take.
    pub timeout: Duration,
    /// Changes that wait in memory at most while the store is down.
    pub backlog: usize,
    /// How long after the last thing that happened to it an escalation is kept; zero for ever.
    pub retention: Duration,
    /// Time between two looks for deliveries that are due.
    pub poll: Duration,
    /// How long a delivery is this replica's before another one may attempt it.
    pub lease: Duration,
    /// How long a session counts as alive that nobody speaks of any more.
    pub window: Duration,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// What is recorded is durable.
    Up,
    /// It is not.
    Down {
        /// Why.
        problem: String,
    },
}

impl Health {
    /// Whether what is recorded is durable.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up)
    }
}

/// What became of a change.
#[derive(Debug)]
pub enum Reply {
    /// It is committed.
    Durable(Recorded),
    /// The store is down: it waits in memory. The receiver tells when it has been committed.
    Waiting(oneshot::Receiver<Recorded>),
    /// It could not even wait; it is logged.
    Lost,
}

enum Job {
    Change { change: Change, trace: Option<TraceParent>, reply: oneshot::Sender<Reply> },
    Finish(Finish),
}

/// The sessions' and services' side.
#[derive(Debug, Clone)]
pub struct Recorder {
    jobs: mpsc::Sender<Job>,
    store: Store,
    health: watch::Receiver<Health>,
    latest: watch::Receiver<i64>,
    silences: watch::Receiver<u64>,
    attendance: Attendance,
}

/// The thread's side.
#[derive(Debug)]
pub struct Task {
    /// Closed when the thread has ended.
    ended: oneshot::Receiver<()>,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Task {
    /// Tells it to write what waits, let attempts under way end, and stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Cuts it off: what could not be written is logged.
    pub fn cut_off(&self) {
        self.cut.cancel();
    }

    /// Waits until it has ended.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn ended(&mut self) {
        // Nothing is ever sent: the sender goes with the thread.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

impl Recorder {
    /// Starts it; returns once the store is ready or has refused a first time. `owner` names this replica in
    /// leases.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another server has the file, [`StoreError::Thread`]. A store that cannot be
    /// reached is no error: it is tried again until it can.
    pub async fn start(
        store: Store,
        delivery: Arc<Delivery>,
        settings: RecorderSettings,
        owner: String,
    ) -> Result<(Self, Task), StoreError> {
        let file = match store.claim_file() {
            Ok(file) => file,
            Err(error @ StoreError::InUse { .. }) => return Err(error),
            // The folder may come, or become writable.
            Err(_) => None,
        };
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (health, watched) = watch::channel(Health::Up);
        let (latest, seen) = watch::channel(0);
        let (silences, heard) = watch::channel(0);
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let desks = Desks::new(&delivery);
        // As many as can be under way at once: handing them over never waits.
        let (claimed, to_attempt) = mpsc::channel(desks.concurrency().max(1));
        let finished = FinishSender(jobs.clone());
        let attempts = dispatch::run(desks.clone(), to_attempt, finished);
        let attendance = Attendance::default();
        let mut work = Work {
            attendance: attendance.clone(),
            spoken: Instant::now(),
            silences,
            sweep_from: Instant::now() + settings.window,
            calendar: Calendar::new(Timestamp::now(), Instant::now()),
            store: store.clone(),
            delivery,
            settings,
            owner,
            desks,
            file,
            schema: Schema::Unknown,
            writer: None,
            released: false,
            waiting: VecDeque::new(),
            down: None,
            health,
            latest,
            claimed,
        };
        let (ready, is_ready) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let (stopped, cut_off) = (stop.clone(), cut.clone());
        let working = async move {
            let attempts = tokio::spawn(attempts);
            work.write().await;
            // Whoever starts it may have gone.
            let _ = ready.send(());
            cut_off.run_until_cancelled(Box::pin(work.run(inbox, stopped, attempts))).await;
        };
        std::thread::Builder::new()
            .name("escalations".to_owned())
            .spawn(move || {
                match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime.block_on(working),
                    Err(error) => {
                        tracing::error!(%error, "the thread of escalations has no runtime");
                    }
                }
                drop(alive);
            })
            .map_err(StoreError::Thread)?;
        if is_ready.await.is_err() {
            return Err(StoreError::Thread(std::io::Error::other("it has ended")));
        }
        let recorder =
            Self { jobs, store, health: watched, latest: seen, silences: heard, attendance };
        Ok((recorder, Task { ended, stop, cut }))
    }

    /// Records a change; returns when it is committed, or is known not to be for now.
    pub async fn record(&self, change: Change) -> Reply {
        let span = trace::recording(change.kind_name(), change.rule());
        let reply = self.send(change, TraceParent::of(&span)).instrument(span.clone()).await;
        trace::recorded(
            &span,
            match reply {
                Reply::Durable(_) => "durable",
                Reply::Waiting(_) => "waiting",
                Reply::Lost => "lost",
            },
        );
        reply
    }

    async fn send(&self, change: Change, trace: Option<TraceParent>) -> Reply {
        let (reply, answer) = oneshot::channel();
        if let Err(refused) = self.jobs.send(Job::Change { change, trace, reply }).await {
            if let Job::Change { change, .. } = refused.0 {
                lose(&change, "the server is ending");
            }
            return Reply::Lost;
        }
        // The task answers every job or has ended, which it logs.
        answer.await.unwrap_or(Reply::Lost)
    }

    /// Says that a session with escalations in force is alive, until the guard is dropped.
    pub fn attend(&self, tenant: &Tenant, session_id: &str) -> Attended {
        self.attendance.attend((tenant.clone(), session_id.to_owned()))
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How the store is, now and as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// How often this replica could say nothing of its sessions for so long that others may have ended them, now
    /// and as it changes. Those that are alive say so again, see [`Change::Resumed`].
    pub fn silences(&self) -> watch::Receiver<u64> {
        self.silences.clone()
    }

    /// Number of the last occurrence that was committed here, now and as it changes.
    pub fn latest(&self) -> watch::Receiver<i64> {
        self.latest.clone()
    }
}

/// The way of the ends of deliveries.
#[derive(Debug, Clone)]
pub(super) struct FinishSender(mpsc::Sender<Job>);

impl FinishSender {
    pub(super) async fn send(&self, finish: Finish) {
        // Once the task has ended nobody can note it: the lease runs out and it is attempted again.
        let _ = self.0.send(Job::Finish(finish)).await;
    }
}

/// The store is down.
struct Down {
    until: Instant,
    waits: backon::ExponentialBackoff,
}

struct Work {
    attendance: Attendance,
    /// When it was last said which sessions are alive.
    spoken: Instant,
    silences: watch::Sender<u64>,
    /// No session is taken for lost before: those who serve it may have been kept from saying so.
    sweep_from: Instant,
    calendar: Calendar,
    store: Store,
    delivery: Arc<Delivery>,
    settings: RecorderSettings,
    owner: String,
    desks: Arc<Desks>,
    /// Keeps other servers from the file.
    file: Option<std::fs::File>,
    schema: Schema,
    writer: Option<Writer>,
    /// Whether this owner's leases of before have been given up.
    released: bool,
    waiting: VecDeque<Entry>,
    down: Option<Down>,
    health: watch::Sender<Health>,
    latest: watch::Sender<i64>,
    claimed: mpsc::Sender<super::store::Claimed>,
}

impl Work {
    async fn run(
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
    async fn write(&mut self) {
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
    fn see(&self, committed: i64) {
        self.latest.send_if_modified(|latest| {
            let changed = committed > *latest;
            *latest = committed.max(*latest);
            changed
        });
    }

    fn fail(&mut self, error: &StoreError) {
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
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(StoreError::TimedOut(limit)))
}
