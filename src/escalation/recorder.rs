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
mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use calendar::Calendar;
use entry::lose;
use schema::Schema;
use work::Work;

use super::attendance::{Attendance, Attended};
use super::dispatch::{self, Desks};
use super::life::Timestamp;
use super::sinks::Delivery;
use super::store::{Change, Finish, Recorded, Store, StoreError};
use crate::identity::Tenant;
use crate::telemetry::trace::{self, TraceParent};

/// Changes and ends of deliveries on their way to the recorder. They are taken up as soon as the
/// transaction before is committed: a second's worth of the most that a machine can decide.
const QUEUE: usize = 1024;

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
