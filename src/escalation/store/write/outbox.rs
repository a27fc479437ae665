//! What has to reach whom, within the writer's transaction: deliveries in line, claimed, ended.

use std::time::{Duration, Instant};

use sqlx::Row as _;

use super::{Claimed, DeliveryState, Finish, Outcome, Pen, StoreError, column, occurrence};
use crate::escalation::life::Occurrence;

impl Pen<'_> {
    pub(super) async fn enqueue(
        &mut self,
        occurrence: &Occurrence,
        sink: &str,
    ) -> Result<(), StoreError> {
        let conversation = occurrence.escalation.conversation();
        let (state, problem) = if self.gone().await?.contains(sink) {
            let problem = "the endpoint has answered 410 before; replay once it is back";
            (DeliveryState::Dead, Some(problem.to_owned()))
        } else {
            (self.place_in_line(sink, &conversation).await?, None)
        };
        let ended = (state == DeliveryState::Dead).then_some(self.now.0);
        sqlx::query(
            "INSERT INTO deliveries (sequence, sink, session_id, state, attempts, next_at, problem, \
             created_at, ended_at) VALUES ($1, $2, $3, $4, 0, $5, $6, $5, $7)",
        )
        .bind(occurrence.sequence)
        .bind(sink.to_owned())
        .bind(conversation)
        .bind(state.name())
        .bind(self.now.0)
        .bind(problem)
        .bind(ended)
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// Due, unless an earlier one of the session is on its way to the sink.
    pub(super) async fn place_in_line(
        &mut self,
        sink: &str,
        conversation: &str,
    ) -> Result<DeliveryState, StoreError> {
        let ahead = sqlx::query(
            "SELECT sequence FROM deliveries WHERE sink = $1 AND session_id = $2 \
             AND state IN ('waiting', 'due', 'leased') LIMIT 1",
        )
        .bind(sink.to_owned())
        .bind(conversation.to_owned())
        .fetch_optional(&mut *self.transaction)
        .await?;
        Ok(if ahead.is_some() { DeliveryState::Waiting } else { DeliveryState::Due })
    }

    pub(super) async fn finish(&mut self, finish: &Finish) -> Result<(), StoreError> {
        let (state, next_at, ended) = match &finish.outcome {
            Outcome::Delivered { .. } => (DeliveryState::Delivered, self.now, Some(self.now.0)),
            Outcome::Retry { wait, .. } => (DeliveryState::Due, self.now.after(*wait), None),
            Outcome::Dead { .. } | Outcome::Gone { .. } => {
                (DeliveryState::Dead, self.now, Some(self.now.0))
            }
        };
        // Whoever has let a lease run out has no say any more, unless it arrived; not even if the next
        // lease is its own, whose attempt is under way.
        let written = sqlx::query(
            "UPDATE deliveries SET state = $1, next_at = $2, lease_owner = NULL, problem = $3, \
             ended_at = $4 WHERE sequence = $5 AND sink = $6 AND state <> 'delivered' \
             AND ($1 = 'delivered' OR (state = 'leased' AND lease_owner = $7 AND attempts = $8))",
        )
        .bind(state.name())
        .bind(next_at.0)
        .bind((state != DeliveryState::Delivered).then(|| finish.outcome.detail().to_owned()))
        .bind(ended)
        .bind(finish.sequence)
        .bind(finish.sink.clone())
        .bind(self.owner.to_owned())
        .bind(i64::from(finish.attempt))
        .execute(&mut *self.transaction)
        .await?;
        if written.rows_affected() == 0 {
            return Ok(());
        }
        self.note_attempt(finish).await?;
        if let Outcome::Gone { problem } = &finish.outcome {
            self.give_up(&finish.sink, problem).await?;
        }
        if state != DeliveryState::Due {
            self.promote(&finish.sink, &finish.conversation).await?;
        }
        Ok(())
    }

    async fn note_attempt(&mut self, finish: &Finish) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO attempts (sequence, sink, attempt, at, took, outcome, detail) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(finish.sequence)
        .bind(finish.sink.clone())
        .bind(i64::from(finish.attempt))
        .bind(finish.at.0)
        .bind(i64::try_from(finish.took.as_micros()).unwrap_or(i64::MAX))
        .bind(finish.outcome.name())
        .bind(finish.outcome.detail().to_owned())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// The endpoint has gone: all that is on its way to it is dead.
    async fn give_up(&mut self, sink: &str, problem: &str) -> Result<(), StoreError> {
        if !self.gone().await?.insert(sink.to_owned()) {
            return Ok(());
        }
        sqlx::query("INSERT INTO gone (sink, at, problem) VALUES ($1, $2, $3)")
            .bind(sink.to_owned())
            .bind(self.now.0)
            .bind(problem.to_owned())
            .execute(&mut *self.transaction)
            .await?;
        sqlx::query(
            "UPDATE deliveries SET state = 'dead', problem = $1, ended_at = $2 \
             WHERE sink = $3 AND state IN ('waiting', 'due')",
        )
        .bind(problem.to_owned())
        .bind(self.now.0)
        .bind(sink.to_owned())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// The earliest one that waits becomes due, unless another one is on its way.
    async fn promote(&mut self, sink: &str, conversation: &str) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE deliveries SET state = 'due', next_at = $1 WHERE sink = $2 AND state = 'waiting' \
             AND sequence = (SELECT MIN(w.sequence) FROM deliveries w WHERE w.sink = $2 \
                AND w.session_id = $3 AND w.state = 'waiting') \
             AND NOT EXISTS (SELECT 1 FROM deliveries b WHERE b.sink = $2 AND b.session_id = $3 \
                AND b.state IN ('due', 'leased'))",
        )
        .bind(self.now.0)
        .bind(sink.to_owned())
        .bind(conversation.to_owned())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    pub(super) async fn claim(
        &mut self,
        sink: &str,
        capacity: usize,
        lease: Duration,
        claimed: &mut Vec<Claimed>,
    ) -> Result<(), StoreError> {
        if capacity == 0 {
            return Ok(());
        }
        let until = Instant::now() + lease;
        let due = sqlx::query(
            "SELECT d.sequence, d.attempts, o.document FROM deliveries d \
             JOIN occurrences o ON o.sequence = d.sequence \
             WHERE d.sink = $1 AND d.state IN ('due', 'leased') AND d.next_at <= $2 \
             ORDER BY d.next_at, d.sequence LIMIT $3",
        )
        .bind(sink.to_owned())
        .bind(self.now.0)
        .bind(capacity as i64)
        .fetch_all(&mut *self.transaction)
        .await?;
        for row in &due {
            let (sequence, attempts): (i64, i64) = (column(row, 0)?, column(row, 1)?);
            let occurrence = occurrence(row.try_get::<&str, usize>(2)?)?;
            sqlx::query(
                "UPDATE deliveries SET state = 'leased', lease_owner = $1, next_at = $2, \
                 attempts = attempts + 1 WHERE sequence = $3 AND sink = $4",
            )
            .bind(self.owner.to_owned())
            .bind(self.now.after(lease).0)
            .bind(sequence)
            .bind(sink.to_owned())
            .execute(&mut *self.transaction)
            .await?;
            let attempt = u32::try_from(attempts + 1).unwrap_or(u32::MAX);
            claimed.push(Claimed { occurrence, sink: sink.to_owned(), attempt, until });
        }
        Ok(())
    }
}
