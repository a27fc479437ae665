//! Sessions that are alive, within the writer's transaction: kept, ended, found lost.

use std::time::Duration;

use super::{Kind, Pen, Recorded, Routes, StoreError, Writer, column, escalation};
use crate::escalation::life::{
    Occurrence, Origin, State, Timestamp, ended_again_id, occurrence_id,
};
use crate::identity::Tenant;

/// A session, by tenant and name.
pub type SessionName = (Tenant, String);

impl Writer {
    /// Says that `sessions` are alive for `window` from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_alive(
        &mut self,
        sessions: &[SessionName],
        window: Duration,
    ) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let mut pen = self.begin().await?;
        for (tenant, session_id) in sessions {
            pen.keep(tenant, session_id, window).await?;
        }
        pen.commit().await
    }

    /// Ends sessions that nobody keeps alive any more, at most `limit`. Returns how many, and what has
    /// happened to their escalations.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_lost(
        &mut self,
        limit: usize,
        routes: &impl Routes,
    ) -> Result<(usize, Vec<Occurrence>, i64), StoreError> {
        let mut pen = self.begin().await?;
        let lost = sqlx::query(
            "SELECT tenant, session_id FROM sessions WHERE alive_until < $1 \
             ORDER BY alive_until LIMIT $2",
        )
        .bind(pen.now.0)
        .bind(limit as i64)
        .fetch_all(&mut *pen.transaction)
        .await?;
        let mut occurrences = Vec::new();
        for row in &lost {
            let tenant: String = column(row, 0)?;
            let session_id: String = column(row, 1)?;
            let now = pen.now;
            let ended = pen.end_session(&tenant, &session_id, now, true, routes).await?;
            occurrences.extend(ended);
        }
        let latest = pen.latest;
        pen.commit().await?;
        Ok((lost.len(), occurrences, latest))
    }
}

impl Pen<'_> {
    /// `window` from now on the session counts as alive.
    pub(super) async fn keep(
        &mut self,
        tenant: &Tenant,
        session_id: &str,
        window: Duration,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO sessions (tenant, session_id, alive_until) VALUES ($1, $2, $3) \
             ON CONFLICT (tenant, session_id) DO UPDATE SET alive_until = excluded.alive_until",
        )
        .bind(tenant.as_str().to_owned())
        .bind(session_id.to_owned())
        .bind(self.now.after(window).0)
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }

    /// The session goes on here: it is alive, and what was said to have ended with it has not.
    pub(super) async fn resume(
        &mut self,
        origin: &Origin,
        window: Duration,
    ) -> Result<Recorded, StoreError> {
        self.keep(&origin.tenant, &origin.session_id, window).await?;
        let ended = sqlx::query(
            "SELECT document FROM escalations WHERE tenant = $1 AND session_id = $2 \
             AND state <> 'cleared' AND session_ended = 1",
        )
        .bind(origin.tenant.as_str().to_owned())
        .bind(origin.session_id.clone())
        .fetch_all(&mut *self.transaction)
        .await?;
        for row in &ended {
            let mut escalation = escalation(&column::<String>(row, 0)?)?;
            escalation.session_ended_at = None;
            self.rewrite(&escalation).await?;
        }
        Ok(Recorded::New(Vec::new()))
    }

    /// Ends what is in force in a session. A policy clears by itself what ends with a session; of one that
    /// is `lost` it could not.
    pub(super) async fn end_session(
        &mut self,
        tenant: &str,
        session_id: &str,
        at: Timestamp,
        lost: bool,
        routes: &impl Routes,
    ) -> Result<Vec<Occurrence>, StoreError> {
        sqlx::query("DELETE FROM sessions WHERE tenant = $1 AND session_id = $2")
            .bind(tenant.to_owned())
            .bind(session_id.to_owned())
            .execute(&mut *self.transaction)
            .await?;
        let open = sqlx::query(
            "SELECT document FROM escalations WHERE tenant = $1 AND session_id = $2 \
             AND state <> 'cleared' AND session_ended = 0 ORDER BY raised_at, id",
        )
        .bind(tenant.to_owned())
        .bind(session_id.to_owned())
        .fetch_all(&mut *self.transaction)
        .await?;
        let mut occurrences = Vec::new();
        for row in &open {
            let mut escalation = escalation(&column::<String>(row, 0)?)?;
            escalation.session_ended_at = Some(at);
            let note = if lost {
                "the session broke off while it was in force, and nobody has gone on with it"
            } else {
                "the session ended while it was in force"
            };
            let kind = if lost && escalation.clears_at_end {
                escalation.state = State::Cleared;
                escalation.cleared_at = Some(at);
                Kind::Cleared
            } else {
                Kind::Updated
            };
            let mut id = occurrence_id(escalation.id, kind, None);
            if kind == Kind::Updated && self.occurrence(id).await?.is_some() {
                id = ended_again_id(escalation.id, at);
            }
            let note = Some(note.to_owned());
            occurrences
                .push(self.append((id, kind, at), (None, None, note), escalation, routes).await?);
        }
        Ok(occurrences)
    }
}
