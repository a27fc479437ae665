//! The one who writes: a batch of changes, the ends of deliveries, and leases for the next ones, in one
//! transaction.

mod alive;
mod leap;
mod outbox;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection as _};
use uuid::Uuid;

use alive::End;
pub use alive::{Lost, SessionName};
pub use leap::Terms;

use super::clock::{Clock, Look};
use super::rows::{column, document, escalation, occurrence};
use super::{DeliveryState, StoreError};
use crate::escalation::life::{
    Escalation, Kind, Occurrence, Origin, State, Timestamp, occurrence_id,
};
use crate::identity::Tenant;
use crate::policy::{Action, Decision, Evidence};
use crate::telemetry::trace::TraceParent;
use crate::units::SamplePos;

/// Something that happens to escalations.
#[derive(Debug, Clone)]
pub enum Change {
    /// A policy has decided.
    Decided {
        /// Whose policy.
        origin: Arc<Origin>,
        /// What.
        decision: Box<Decision>,
        /// When.
        at: Timestamp,
    },
    /// The session has ended, with escalations in force.
    SessionEnded {
        /// Which.
        origin: Arc<Origin>,
        /// What it knows to be in force.
        open: Vec<Uuid>,
        /// When.
        at: Timestamp,
    },
    /// A session that had broken off goes on, with escalations in force.
    Resumed {
        /// Which.
        origin: Arc<Origin>,
        /// What is in force.
        open: Vec<Uuid>,
    },
    /// Somebody takes one on.
    Acknowledged {
        /// Which.
        id: Uuid,
        /// Only if it is this tenant's.
        tenant: Option<Tenant>,
        /// Only if it is this session's.
        session_id: Option<String>,
        /// Who, as they say.
        actor: String,
        /// Who, as the server knows them.
        identity: Option<String>,
        /// What they say.
        note: Option<String>,
        /// When.
        at: Timestamp,
    },
}

impl Change {
    /// What it makes of an escalation, in the words of [`Kind`]; "resumed" makes nothing of any.
    pub fn kind_name(&self) -> &'static str {
        let kind = match self {
            Self::Decided { decision, .. } => match decision.action {
                Action::Raise => Kind::Raised,
                Action::Update => Kind::Updated,
                Action::Clear => Kind::Cleared,
            },
            Self::SessionEnded { .. } => Kind::Updated,
            Self::Resumed { .. } => return "resumed",
            Self::Acknowledged { .. } => Kind::Acknowledged,
        };
        kind.name()
    }

    /// The policy and the rule that have decided, if one has.
    pub fn rule(&self) -> Option<(&str, &str)> {
        match self {
            Self::Decided { origin, decision, .. } => Some((&origin.policy, &decision.rule)),
            Self::SessionEnded { .. } | Self::Resumed { .. } | Self::Acknowledged { .. } => None,
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Recorded {
    /// It happened now.
    New(Vec<Occurrence>),
    /// It had happened before: a replay, or a second acknowledgement.
    Before(Box<Occurrence>),
    /// There is no such escalation.
    Unknown,
}

impl Recorded {
    /// What happened, now or before.
    pub fn occurrences(&self) -> &[Occurrence] {
        match self {
            Self::New(new) => new,
            Self::Before(before) => std::slice::from_ref(before.as_ref()),
            Self::Unknown => &[],
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It arrived.
    Delivered {
        /// In words.
        detail: String,
    },
    /// It did not, and is to be tried again after `wait`.
    Retry {
        /// Why not.
        problem: String,
        /// Time until the next attempt.
        wait: Duration,
    },
    /// It never will.
    Dead {
        /// Why not.
        problem: String,
    },
    /// The endpoint wants no more of anything.
    Gone {
        /// In its words.
        problem: String,
    },
}

impl Outcome {
    /// Its name in the store and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead",
            Self::Gone { .. } => "gone",
        }
    }

    /// In words.
    pub fn detail(&self) -> &str {
        match self {
            Self::Delivered { detail } => detail,
            Self::Retry { problem, .. } | Self::Dead { problem } | Self::Gone { problem } => {
                problem
            }
        }
    }
}

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Number of the occurrence.
    pub sequence: i64,
    /// The sink.
    pub sink: String,
    /// The session that it is about, see [`crate::escalation::conversation`].
    pub conversation: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// A delivery that this writer's owner is to attempt now.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What is to be delivered.
    pub occurrence: Occurrence,
    /// Where to.
    pub sink: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When the lease is over, by this process's own clock: the attempt must have ended by then.
    pub until: Instant,
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Changes, in their order.
    pub changes: Vec<&'a Change>,
    /// For each change, the span that records it; those that are missing have none.
    pub traces: Vec<Option<&'a TraceParent>>,
    /// Ends of attempts.
    pub finishes: Vec<&'a Finish>,
    /// For each sink, how many deliveries its owner can attempt now.
    pub capacity: Vec<(&'a str, usize)>,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long a session counts as alive that nobody speaks of.
    pub window: Duration,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Done {
    /// What became of each change.
    pub recorded: Vec<Recorded>,
    /// Deliveries to attempt.
    pub claimed: Vec<Claimed>,
    /// Number of the last occurrence.
    pub latest: i64,
}

/// Says which sinks want an occurrence.
pub trait Routes {
    /// Names of the sinks that want it.
    fn sinks_for<'a>(&'a self, occurrence: &Occurrence) -> Vec<&'a str>;
}

/// A connection that writes.
#[derive(Debug)]
pub struct Writer {
    connection: AnyConnection,
    is_sqlite: bool,
    owner: String,
    clock: Clock,
    /// What is given anew when the date leaps; none for who writes once and goes.
    terms: Option<Terms>,
}

/// Escalations of one name whose evidence differs: after so many, the name is taken for exhausted.
const MOST_AGAIN: u32 = 1000;
/// How far a replay's values may be from the first run's: batches of another size sum in another order.
const REPLAY_TOLERANCE: f32 = 1e-3;

impl Writer {
    pub(super) fn new(
        connection: AnyConnection,
        is_sqlite: bool,
        owner: String,
        clock: Clock,
    ) -> Self {
        Self { connection, is_sqlite, owner, clock, terms: None }
    }

    async fn begin(&mut self) -> Result<Pen<'_>, StoreError> {
        let begin = if self.is_sqlite {
            // Takes SQLite's write lock now; later it could fail half-way.
            self.connection.begin_with("BEGIN IMMEDIATE").await?
        } else {
            self.connection.begin().await?
        };
        let mut pen = Pen {
            transaction: begin,
            owner: &self.owner,
            latest: 0,
            committed: 0,
            now: Timestamp(0),
            clock: &self.clock,
            look: None,
            gone: None,
            window: Duration::ZERO,
            trace: None,
        };
        pen.lock(self.is_sqlite).await?;
        if let Some(terms) = &self.terms {
            pen.heed_leap(terms).await?;
        }
        Ok(pen)
    }

    /// Writes a batch, all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it is written, but for an error of the commit itself, after which it may
    /// be. To write it again does no harm.
    ///
    /// # Cancellation
    /// Not safe: drop the writer.
    pub async fn write(
        &mut self,
        batch: &Batch<'_>,
        routes: &impl Routes,
    ) -> Result<Done, StoreError> {
        let mut pen = self.begin().await?;
        pen.window = batch.window;
        let mut done = Done::default();
        for (index, change) in batch.changes.iter().enumerate() {
            pen.trace = batch.traces.get(index).copied().flatten();
            done.recorded.push(pen.change(change, routes).await?);
        }
        for finish in &batch.finishes {
            pen.finish(finish).await?;
        }
        for (sink, capacity) in &batch.capacity {
            pen.claim(sink, *capacity, batch.lease, &mut done.claimed).await?;
        }
        done.latest = pen.latest;
        pen.commit().await?;
        Ok(done)
    }

    /// Whether there is anything to attempt for any of `sinks`, or the date has leapt. Takes no lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_due(&mut self, sinks: &[&str]) -> Result<bool, StoreError> {
        let look = Look::at(&mut self.connection, self.is_sqlite).await?;
        if self.terms.is_some() && self.clock.leap(&look).is_some() {
            return Ok(true);
        }
        self.clock.settle(look);
        for sink in sinks {
            let due = sqlx::query(
                "SELECT sequence FROM deliveries \
                 WHERE sink = $1 AND state IN ('due', 'leased') AND next_at <= $2 LIMIT 1",
            )
            .bind((*sink).to_owned())
            .bind(look.date.0)
            .fetch_optional(&mut self.connection)
            .await?;
            if due.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sinks that something is still to be delivered to, and how much.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outstanding(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT sink, COUNT(*) FROM deliveries WHERE state IN ('waiting', 'due', 'leased') \
             GROUP BY sink ORDER BY sink",
        )
        .fetch_all(&mut self.connection)
        .await?;
        rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
    }

    /// Gives up the leases of this owner: it has started anew and attempts nothing. What was put in line at a
    /// date that is still to come is due: the clock has been put back since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release(&mut self) -> Result<u64, StoreError> {
        let pen = self.begin().await?;
        let Pen { mut transaction, owner, now, look, clock, .. } = pen;
        sqlx::query(
            "UPDATE deliveries SET next_at = $1 WHERE state = 'due' AND next_at > $1 AND created_at > $1",
        )
        .bind(now.0)
        .execute(&mut *transaction)
        .await?;
        let released = sqlx::query(
            "UPDATE deliveries SET state = 'due', next_at = $1, lease_owner = NULL \
             WHERE state = 'leased' AND lease_owner = $2",
        )
        .bind(now.0)
        .bind(owner.to_owned())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        if let Some(look) = look {
            clock.settle(look);
        }
        Ok(released.rows_affected())
    }

    /// Makes dead deliveries due again, attempts counted anew, at most `limit`; all of one sink, or of
    /// everything. Their endpoints are tried again even if they had said that they want no more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replay(
        &mut self,
        sink: Option<&str>,
        escalation: Option<Uuid>,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let mut pen = self.begin().await?;
        let dead = sqlx::query(
            "SELECT d.sequence, d.sink, d.session_id FROM deliveries d \
             JOIN occurrences o ON o.sequence = d.sequence \
             WHERE d.state = 'dead' AND ($1 = '' OR d.sink = $1) AND ($2 = '' OR o.escalation_id = $2) \
             ORDER BY d.sequence LIMIT $3",
        )
        .bind(sink.unwrap_or_default().to_owned())
        .bind(escalation.map(|id| id.to_string()).unwrap_or_default())
        .bind(limit as i64)
        .fetch_all(&mut *pen.transaction)
        .await?;
        let mut sinks = BTreeSet::new();
        for row in &dead {
            let (sequence, sink): (i64, String) = (column(row, 0)?, column(row, 1)?);
            let session_id: String = column(row, 2)?;
            let state = pen.place_in_line(&sink, &session_id).await?;
            sqlx::query(
                "UPDATE deliveries SET state = $1, attempts = 0, next_at = $2, problem = NULL, \
                 ended_at = NULL WHERE sequence = $3 AND sink = $4",
            )
            .bind(state.name())
            .bind(pen.now.0)
            .bind(sequence)
            .bind(sink.clone())
            .execute(&mut *pen.transaction)
            .await?;
            sinks.insert(sink);
        }
        for sink in sinks {
            sqlx::query("DELETE FROM gone WHERE sink = $1")
                .bind(sink)
                .execute(&mut *pen.transaction)
                .await?;
        }
        pen.commit().await?;
        Ok(dead.len() as u64)
    }

    /// Removes escalations to which nothing has happened for `retention` before `today`, or before the store's
    /// date if that is earlier, and of which nothing is still to be delivered, with their history, at most
    /// `limit`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire(
        &mut self,
        today: Timestamp,
        retention: Duration,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let mut pen = self.begin().await?;
        // What has been removed does not come back: of two clocks the slower one is believed.
        let cutoff = today.min(pen.now).before(retention);
        let old = sqlx::query(
            "SELECT e.id FROM escalations e WHERE e.updated_at < $1 AND NOT EXISTS (\
                SELECT 1 FROM occurrences o JOIN deliveries d ON d.sequence = o.sequence \
                WHERE o.escalation_id = e.id AND d.state IN ('waiting', 'due', 'leased')) \
             ORDER BY e.updated_at LIMIT $2",
        )
        .bind(cutoff.0)
        .bind(limit as i64)
        .fetch_all(&mut *pen.transaction)
        .await?;
        for row in &old {
            let id: String = column(row, 0)?;
            for statement in [
                "DELETE FROM attempts WHERE sequence IN \
                 (SELECT sequence FROM occurrences WHERE escalation_id = $1)",
                "DELETE FROM deliveries WHERE sequence IN \
                 (SELECT sequence FROM occurrences WHERE escalation_id = $1)",
                "DELETE FROM occurrences WHERE escalation_id = $1",
                "DELETE FROM labels WHERE escalation_id = $1",
                "DELETE FROM escalations WHERE id = $1",
            ] {
                sqlx::query(statement).bind(id.clone()).execute(&mut *pen.transaction).await?;
            }
        }
        pen.commit().await?;
        Ok(old.len() as u64)
    }
}

/// A transaction that holds the writers' lock.
struct Pen<'a> {
    transaction: sqlx::Transaction<'a, sqlx::Any>,
    owner: &'a str,
    latest: i64,
    /// Number of the last one that was there before.
    committed: i64,
    /// The database's clock where replicas share it, so that their leases compare.
    now: Timestamp,
    clock: &'a Clock,
    /// Where `now` is from.
    look: Option<Look>,
    /// Endpoints that want no more, once anybody has asked.
    gone: Option<HashSet<String>>,
    /// How long a session counts as alive that nobody speaks of.
    window: Duration,
    /// The span that records the change at hand.
    trace: Option<&'a TraceParent>,
}

impl Pen<'_> {
    async fn lock(&mut self, is_sqlite: bool) -> Result<(), StoreError> {
        let row = sqlx::query(
            "UPDATE counters SET value = value WHERE name = 'occurrence' RETURNING value",
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        self.latest = column(&row, 0)?;
        self.committed = self.latest;
        // Behind the lock: what waited for it must not see a time from before.
        let look = Look::at(&mut self.transaction, is_sqlite).await?;
        self.now = look.date;
        self.look = Some(look);
        Ok(())
    }

    async fn gone(&mut self) -> Result<&mut HashSet<String>, StoreError> {
        if self.gone.is_none() {
            let rows =
                sqlx::query("SELECT sink FROM gone").fetch_all(&mut *self.transaction).await?;
            let gone = rows.iter().map(|row| column(row, 0)).collect::<Result<_, _>>()?;
            self.gone = Some(gone);
        }
        Ok(self.gone.get_or_insert_default())
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        if self.latest != self.committed {
            sqlx::query("UPDATE counters SET value = $1 WHERE name = 'occurrence'")
                .bind(self.latest)
                .execute(&mut *self.transaction)
                .await?;
        }
        self.transaction.commit().await?;
        if let Some(look) = self.look {
            self.clock.settle(look);
        }
        Ok(())
    }

    async fn change(
        &mut self,
        change: &Change,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        match change {
            Change::Decided { origin, decision, at } => match decision.action {
                Action::Raise => self.raise(origin, decision, *at, routes).await,
                Action::Update | Action::Clear => self.follow(origin, decision, *at, routes).await,
            },
            Change::SessionEnded { origin, open, at } => {
                let session = (origin.tenant.as_str(), origin.session_id.as_str());
                let end = End::Known { open, at: *at };
                Ok(Recorded::New(self.end_session(session, end, routes).await?))
            }
            Change::Resumed { origin, open } => self.resume(origin, open, routes).await,
            Change::Acknowledged { id, tenant, session_id, actor, identity, note, at } => {
                let Some(found) = self.find(*id).await? else {
                    return Ok(Recorded::Unknown);
                };
                if session_id.as_ref().is_some_and(|session| *session != found.session_id)
                    || tenant.as_ref().is_some_and(|tenant| *tenant != found.tenant)
                {
                    return Ok(Recorded::Unknown);
                }
                let who = (actor.clone(), identity.clone());
                self.acknowledge(found, who, note.clone(), *at, routes).await
            }
        }
    }

    async fn raise(
        &mut self,
        origin: &Origin,
        decision: &Decision,
        at: Timestamp,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        self.keep([(&origin.tenant, origin.session_id.as_str())].into_iter(), self.window).await?;
        for again in 0..MOST_AGAIN {
            let id = origin.escalation_id(decision, again);
            let raised = occurrence_id(id, Kind::Raised, None);
            match self.occurrence(raised).await? {
                // A replay of the same audio. Else another conversation has used the session's name.
                Some(before) if is_replay(&before.escalation.evidence, &decision.evidence) => {
                    if let Some(stands) = self.find(id).await?.filter(|stands| stands.broke_off) {
                        self.reopen(stands, routes).await?;
                    }
                    return Ok(Recorded::Before(before.into()));
                }
                Some(_) => {}
                None => {
                    let escalation = Escalation::raised(id, origin, decision, at);
                    self.insert(&escalation, decision.onset, again).await?;
                    let (event, unsaid) = ((raised, Kind::Raised, at), (None, None, None));
                    let occurrence = self.append(event, unsaid, escalation, routes).await?;
                    return Ok(Recorded::New(vec![occurrence]));
                }
            }
        }
        Ok(Recorded::Unknown)
    }

    /// An update or the end of what was raised before.
    async fn follow(
        &mut self,
        origin: &Origin,
        decision: &Decision,
        at: Timestamp,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        let Some(mut escalation) = self.latest_at(origin, decision).await? else {
            return Ok(Recorded::Unknown);
        };
        let kind = if decision.action == Action::Clear { Kind::Cleared } else { Kind::Updated };
        let id = occurrence_id(escalation.id, kind, Some(decision.at));
        if let Some(before) = self.occurrence(id).await? {
            return Ok(Recorded::Before(before.into()));
        }
        escalation.reason.clone_from(&decision.reason);
        escalation.evidence = decision.evidence.clone();
        // Its session may have been taken for lost meanwhile.
        escalation.go_on();
        if kind == Kind::Cleared {
            escalation.state = State::Cleared;
            escalation.cleared_at = Some(at);
        }
        let occurrence =
            self.append((id, kind, at), (None, None, None), escalation, routes).await?;
        Ok(Recorded::New(vec![occurrence]))
    }

    async fn acknowledge(
        &mut self,
        mut escalation: Escalation,
        (actor, identity): (String, Option<String>),
        note: Option<String>,
        at: Timestamp,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        let id = occurrence_id(escalation.id, Kind::Acknowledged, None);
        if let Some(before) = self.occurrence(id).await? {
            return Ok(Recorded::Before(before.into()));
        }
        if escalation.state == State::Raised {
            escalation.state = State::Acknowledged;
        }
        escalation.acknowledged_at = Some(at);
        escalation.acknowledged_by = Some(actor.clone());
        let (event, said) = ((id, Kind::Acknowledged, at), (Some(actor), identity, note));
        let occurrence = self.append(event, said, escalation, routes).await?;
        Ok(Recorded::New(vec![occurrence]))
    }

    async fn find(&mut self, id: Uuid) -> Result<Option<Escalation>, StoreError> {
        let row = sqlx::query("SELECT document FROM escalations WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(|row| escalation(&column::<String>(&row, 0)?)).transpose()
    }

    /// The newest escalation of that origin, rule, channel and onset.
    async fn latest_at(
        &mut self,
        origin: &Origin,
        decision: &Decision,
    ) -> Result<Option<Escalation>, StoreError> {
        let row = sqlx::query(
            "SELECT document FROM escalations WHERE session_id = $1 AND policy = $2 AND rule = $3 \
             AND channel = $4 AND onset = $5 AND tenant = $6 ORDER BY again DESC LIMIT 1",
        )
        .bind(origin.session_id.clone())
        .bind(origin.policy.clone())
        .bind(decision.rule.clone())
        .bind(i64::from(decision.channel))
        .bind(samples(decision.onset))
        .bind(origin.tenant.as_str().to_owned())
        .fetch_optional(&mut *self.transaction)
        .await?;
        row.map(|row| escalation(&column::<String>(&row, 0)?)).transpose()
    }

    async fn occurrence(&mut self, id: Uuid) -> Result<Option<Occurrence>, StoreError> {
        let row = sqlx::query("SELECT document FROM occurrences WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(|row| occurrence(&column::<String>(&row, 0)?)).transpose()
    }

    async fn insert(
        &mut self,
        escalation: &Escalation,
        onset: SamplePos,
        again: u32,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO escalations (id, session_id, channel, policy, rule, onset, again, severity, \
             state, raised_at, updated_at, session_ended, document, tenant) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12, $13)",
        )
        .bind(escalation.id.to_string())
        .bind(escalation.session_id.clone())
        .bind(i64::from(escalation.channel))
        .bind(escalation.policy.clone())
        .bind(escalation.rule.clone())
        .bind(samples(onset))
        .bind(i64::from(again))
        .bind(escalation.severity as i64)
        .bind(escalation.state.name())
        .bind(escalation.raised_at.0)
        // By the store's date, as the end of the retention is.
        .bind(self.now.0)
        .bind(document(escalation)?)
        .bind(escalation.tenant.as_str().to_owned())
        .execute(&mut *self.transaction)
        .await?;
        for (label, value) in &escalation.labels {
            sqlx::query("INSERT INTO labels (escalation_id, label, value) VALUES ($1, $2, $3)")
                .bind(escalation.id.to_string())
                .bind(label.clone())
                .bind(value.clone())
                .execute(&mut *self.transaction)
                .await?;
        }
        Ok(())
    }

    /// Writes what happened, how the escalation stands after it, and whom it must reach.
    async fn append(
        &mut self,
        (id, kind, at): (Uuid, Kind, Timestamp),
        (actor, identity, note): (Option<String>, Option<String>, Option<String>),
        mut escalation: Escalation,
        routes: &impl Routes,
    ) -> Result<Occurrence, StoreError> {
        escalation.updated_at = at;
        self.latest += 1;
        let sequence = self.latest;
        let traceparent = self.trace.cloned();
        let occurrence =
            Occurrence { id, sequence, kind, at, actor, identity, note, traceparent, escalation };
        let escalation = &occurrence.escalation;
        // One that begins has been written as it stands.
        if kind != Kind::Raised {
            self.rewrite(escalation).await?;
        }
        sqlx::query(
            "INSERT INTO occurrences (sequence, id, escalation_id, kind, at, document) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(sequence)
        .bind(id.to_string())
        .bind(escalation.id.to_string())
        .bind(kind.name())
        .bind(at.0)
        .bind(document(&occurrence)?)
        .execute(&mut *self.transaction)
        .await?;
        for sink in routes.sinks_for(&occurrence) {
            self.enqueue(&occurrence, sink).await?;
        }
        Ok(occurrence)
    }

    async fn rewrite(&mut self, escalation: &Escalation) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE escalations SET state = $1, updated_at = $2, session_ended = $3, document = $4 \
             WHERE id = $5",
        )
        .bind(escalation.state.name())
        .bind(self.now.0)
        .bind(i64::from(escalation.session_ended_at.is_some()))
        .bind(document(escalation)?)
        .bind(escalation.id.to_string())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}

fn samples(position: SamplePos) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}

/// Whether two runs' evidence is that of the same audio: the same window and, within rounding, values.
fn is_replay(a: &Evidence, b: &Evidence) -> bool {
    let near = |a: Option<f32>, b: Option<f32>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= REPLAY_TOLERANCE,
        (None, None) => true,
        _ => false,
    };
    a.from_s == b.from_s
        && a.to_s == b.to_s
        && near(Some(a.speech_s as f32), Some(b.speech_s as f32))
        && near(a.distress, b.distress)
        && near(a.valence, b.valence)
        && near(a.arousal, b.arousal)
        && a.conditions.len() == b.conditions.len()
        && a.conditions.iter().zip(&b.conditions).all(|(a, b)| near(a.value, b.value))
}
