//! The date has leapt: what is kept by it begins anew.

use std::time::Duration;

use super::{Pen, StoreError, Writer};

/// What is given anew when the date leaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long a session counts as alive that nobody speaks of.
    pub window: Duration,
}

impl Writer {
    /// Has it notice when the date leaps, and give leases and sessions `terms` anew then.
    #[must_use]
    pub fn on(self, terms: Terms) -> Self {
        Self { terms: Some(terms), ..self }
    }
}

impl Pen<'_> {
    /// If the date has leapt, leases and sessions begin anew with their whole length, what was to be tried
    /// later is tried now, and the retention of what happened while the clock was behind begins anew. All
    /// replicas may do so, each when it notices: what is set does not add up. A replica that is wrong about it
    /// (its machine was suspended) does no harm either: a lease lasts once more, an attempt comes early.
    pub(super) async fn heed_leap(&mut self, terms: &Terms) -> Result<(), StoreError> {
        let Some(leap) = self.look.and_then(|look| self.clock.leap(&look)) else {
            return Ok(());
        };
        let seconds = leap as f64 / 1e6;
        tracing::warn!(
            seconds,
            "the date has leapt: leases and sessions begin anew, and what waits for its next attempt is due"
        );
        // What was written down while the date was behind is not as old as it looks now, and would be removed.
        if let Some(since) = self.clock.behind_since().filter(|_| leap > 0) {
            sqlx::query(
                "UPDATE escalations SET updated_at = $1 WHERE updated_at BETWEEN $2 AND $1",
            )
            .bind(self.now.0)
            .bind(since.0)
            .execute(&mut *self.transaction)
            .await?;
        }
        for (statement, until) in [
            ("UPDATE deliveries SET next_at = $1 WHERE state = 'leased'", terms.lease),
            (
                "UPDATE deliveries SET next_at = $1 WHERE state = 'due' AND next_at > $1",
                Duration::ZERO,
            ),
            ("UPDATE sessions SET alive_until = $1", terms.window),
        ] {
            sqlx::query(statement)
                .bind(self.now.after(until).0)
                .execute(&mut *self.transaction)
                .await?;
        }
        Ok(())
    }
}
