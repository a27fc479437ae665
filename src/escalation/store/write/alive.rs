//! Sessions that are alive, within the writer's transaction: kept, ended, found lost.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Kind, Pen, Recorded, Routes, StoreError, Writer, column, escalation};
use crate::escalation::life::{
    Escalation, Occurrence, Origin, State, Timestamp, Turn, occurrence_id, turn_id,
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
        let names = sessions.iter().map(|(tenant, session_id)| (tenant, session_id.as_str()));
        pen.keep(names, window).await?;
        pen.commit().await
    }

    /// Ends sessions that nobody keeps alive any more, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_lost(
        &mut self,
        limit: usize,
        routes: &impl Routes,
    ) -> Result<Lost, StoreError> {
        let mut pen = self.begin().await?;
        let lost = sqlx::query(
            "SELECT tenant, session_id FROM sessions WHERE alive_until < $1 \
             ORDER BY alive_until LIMIT $2",
        )
        .bind(pen.now.0)
        .bind(limit as i64)
        .fetch_all(&mut *pen.transaction)
        .await?;
        let mut ended = Lost { looked_at: lost.len(), ..Lost::default() };
        for row in &lost {
            let tenant: String = column(row, 0)?;
            let session_id: String = column(row, 1)?;
            let end = End::Lost { at: pen.now };
            match pen.end_session((&tenant, &session_id), end, routes).await {
                // What was in force has been cleared: it had only not been forgotten.
                Ok(occurrences) if occurrences.is_empty() => {}
                Ok(occurrences) => {
                    ended.sessions += 1;
                    ended.occurrences.extend(occurrences);
                }
                // It must not keep all others from being ended; the session is forgotten.
                Err(error @ StoreError::Document { .. }) => {
                    tracing::error!(tenant, session = session_id, %error, "a lost session cannot be ended");
                }
                Err(error) => return Err(error),
            }
        }
        ended.latest = pen.latest;
        pen.commit().await?;
        Ok(ended)
    }
}

/// How a session has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    /// It says so, and knows what is in force.
    Known { open: &'a [Uuid], at: Timestamp },
    /// Nobody has spoken of it any more.
    Lost { at: Timestamp },
}

impl End<'_> {
    /// Whether it is the end of what is about `escalation`. What comes late is not about another conversation
    /// of that name, but the date of what is in force proves nothing: the clock may have been put back.
    fn concerns(self, escalation: &Escalation) -> bool {
        match self {
            Self::Known { open, at } => escalation.raised_at <= at || open.contains(&escalation.id),
            Self::Lost { .. } => true,
        }
    }
}

/// Sessions that were taken for lost.
#[derive(Debug, Default)]
pub struct Lost {
    /// How many nobody had kept alive.
    pub looked_at: usize,
    /// How many of them had something in force.
    pub sessions: usize,
    /// What has happened to their escalations.
    pub occurrences: Vec<Occurrence>,
    /// Number of the last occurrence.
    pub latest: i64,
}

impl Pen<'_> {
    /// `window` from now on these sessions, each named once, count as alive.
    pub(super) async fn keep<'a>(
        &mut self,
        sessions: impl ExactSizeIterator<Item = (&'a Tenant, &'a str)>,
        window: Duration,
    ) -> Result<(), StoreError> {
        // One statement: each is a round trip under the lock of all writers.
        let rows =
            (0..sessions.len()).map(|row| format!("(${}, ${}, $1)", 2 * row + 2, 2 * row + 3));
        let rows = rows.collect::<Vec<_>>().join(", ");
        // Numbers of our own, nothing that anybody has sent.
        let statement = AssertSqlSafe(format!(
            "INSERT INTO sessions (tenant, session_id, alive_until) VALUES {rows} \
             ON CONFLICT (tenant, session_id) DO UPDATE SET alive_until = excluded.alive_until"
        ));
        let mut query = sqlx::query(statement).bind(self.now.after(window).0);
        for (tenant, session_id) in sessions {
            query = query.bind(tenant.as_str().to_owned()).bind(session_id.to_owned());
        }
        query.execute(&mut *self.transaction).await?;
        Ok(())
    }

    /// The session goes on here: it is alive, and what was made of its end holds no more for `open`, which
    /// it says are in force.
    pub(super) async fn resume(
        &mut self,
        origin: &Origin,
        open: &[Uuid],
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        self.keep([(&origin.tenant, origin.session_id.as_str())].into_iter(), self.window).await?;
        let mut occurrences = Vec::new();
        for id in open {
            let Some(escalation) = self.find(*id).await? else {
                continue;
            };
            let is_over = escalation.state == State::Cleared && !escalation.broke_off;
            if escalation.session_ended_at.is_some() && !is_over {
                occurrences.push(self.reopen(escalation, routes).await?);
            }
        }
        Ok(Recorded::New(occurrences))
    }

    /// Whoever was told that it ended with its session is told that it has not.
    pub(super) async fn reopen(
        &mut self,
        mut escalation: Escalation,
        routes: &impl Routes,
    ) -> Result<Occurrence, StoreError> {
        let at = self.now;
        escalation.go_on();
        let id = turn_id(escalation.id, Turn::WentOn, at);
        let note = Some("the session goes on, and it is still in force".to_owned());
        self.append((id, Kind::Updated, at), (None, None, note), escalation, routes).await
    }

    /// Ends what is in force in a session, by tenant and name. A policy clears by itself what ends with a
    /// session; of one that is lost it could not.
    pub(super) async fn end_session(
        &mut self,
        (tenant, session_id): (&str, &str),
        end: End<'_>,
        routes: &impl Routes,
    ) -> Result<Vec<Occurrence>, StoreError> {
        let (at, lost) = match end {
            End::Known { at, .. } => (at, false),
            End::Lost { at } => (at, true),
        };
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
            if !end.concerns(&escalation) {
                continue;
            }
            escalation.session_ended_at = Some(at);
            escalation.broke_off = lost;
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
            let id = if lost {
                turn_id(escalation.id, Turn::BrokeOff, at)
            } else {
                let once = occurrence_id(escalation.id, kind, None);
                let again = self.occurrence(once).await?.is_some();
                if again { turn_id(escalation.id, Turn::Ended, at) } else { once }
            };
            let note = Some(note.to_owned());
            occurrences
                .push(self.append((id, kind, at), (None, None, note), escalation, routes).await?);
        }
        Ok(occurrences)
    }
}
