//! What is done now and then: sessions that are alive are spoken of, those that are lost are ended, and what has
//! been kept long enough goes.

use std::time::{Duration, Instant};

use super::RecorderSettings;
use super::entry::note;
use super::work::{MOST_IN_BATCH, Work, within};
use crate::escalation::Timestamp;

/// Sessions that have broken off, ended in one transaction.
const LOST_IN_BATCH: usize = 50;
/// Escalations removed in one transaction at the end of their retention.
const EXPIRED_IN_BATCH: usize = 500;

impl Work {
    /// Tells the store which sessions are alive, and ends those that nobody has told it of for too long.
    pub(super) async fn attend(&mut self) {
        if self.down.is_some() {
            return;
        }
        let (limit, window) = (self.settings.timeout, self.settings.window);
        let alive = self.attendance.names();
        for some in alive.chunks(MOST_IN_BATCH) {
            let Some(writer) = &mut self.writer else {
                return;
            };
            if let Err(error) = within(limit, writer.keep_alive(some, window)).await {
                return self.fail(&error);
            }
        }
        // Frozen, or kept from the store, for so long that another replica may have ended its sessions: they
        // have to say that they have not. They are alive again by now, and are not ended a second time.
        if self.spoken.elapsed() >= window {
            self.silences.send_modify(|silences| *silences += 1);
        }
        self.spoken = Instant::now();
        if Instant::now() >= self.sweep_from {
            self.end_lost().await;
        }
    }

    async fn end_lost(&mut self) {
        let limit = self.settings.timeout;
        loop {
            let Some(writer) = &mut self.writer else {
                return;
            };
            let delivery = self.delivery.as_ref();
            let ended = writer.end_lost(LOST_IN_BATCH, delivery);
            let lost = match within(limit, ended).await {
                Ok(lost) => lost,
                Err(error) => return self.fail(&error),
            };
            if lost.sessions > 0 {
                let sessions = lost.sessions;
                tracing::info!(sessions, "sessions broke off and have not been gone on with");
            }
            lost.occurrences.iter().for_each(note);
            self.see(lost.latest);
            if lost.looked_at < LOST_IN_BATCH {
                return;
            }
        }
    }

    /// Time between two removals: an hour, or a twenty-fourth of a retention that is shorter than a day.
    pub(super) fn expiry_period(&self) -> Duration {
        let least = Duration::from_secs(1);
        (self.settings.retention / 24).clamp(least, Duration::from_hours(1))
    }

    /// Removes what has come to the end of its retention.
    pub(super) async fn expire(&mut self) {
        if self.settings.retention.is_zero() || self.down.is_some() {
            return;
        }
        let today = self.calendar.today(Timestamp::now(), Instant::now());
        loop {
            let Some(writer) = &mut self.writer else {
                return;
            };
            let RecorderSettings { timeout, retention, .. } = self.settings;
            let expired = writer.expire(today, retention, EXPIRED_IN_BATCH);
            match within(timeout, expired).await {
                Ok(0) => return,
                Ok(expired) => {
                    tracing::info!(expired, "escalations removed at the end of their retention");
                }
                Err(error) => return self.fail(&error),
            }
        }
    }
}
