//! The one who writes: a batch of changes, the ends of deliveries, and leases for the next ones, in one
//! transaction.

mod alive;
mod batch;
mod change;
mod leap;
mod outbox;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sqlx::{AnyConnection, Connection as _};
use uuid::Uuid;

pub use alive::{Lost, SessionName};
pub use batch::{Batch, Change, Claimed, Done, Finish, Outcome, Recorded, Routes};
pub use leap::Terms;

use super::clock::{Clock, Look};
use super::rows::{column, escalation, occurrence};
use super::{DeliveryState, StoreError};
use crate::escalation::life::{Kind, Timestamp};
use crate::telemetry::trace::TraceParent;

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
}
