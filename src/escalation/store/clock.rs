//! Whether the store's clock has been put forward or back.
//!
//! Leases, retries and sessions are kept by the date: the database's where replicas share one, this machine's
//! where the store is a file. Dates are put right by people and by NTP, and then all of these would be over
//! hours early, or hours late. So every look at the date is held against the time that has passed on this
//! process's own monotonic clock since the look before.
//!
//! In: pairs of a date and the moments between which it was read. Out: by how much the date has leapt.
//! A process that was frozen in the middle of a look has read it between two moments far apart, and nothing
//! is concluded from what could be either.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sqlx::AnyConnection;

use super::StoreError;
use super::rows::column;
use crate::escalation::life::Timestamp;

/// Leaps below are not worth the name: NTP slews that much without one, and a lease or a pause that is as
/// much too long or too short does no harm.
const LEAST_US: i64 = 5_000_000;

/// A date, and the moments between which it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) date: Timestamp,
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Look {
    /// The date: this machine's for a file of its own, the database's where replicas share one, so that their
    /// leases compare.
    ///
    /// # Errors
    /// [`StoreError`] if a database does not say.
    pub(super) async fn at(
        connection: &mut AnyConnection,
        is_sqlite: bool,
    ) -> Result<Self, StoreError> {
        let from = Instant::now();
        let date = if is_sqlite {
            Timestamp::now()
        } else {
            let date = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
            let row = sqlx::query(date).fetch_one(connection).await?;
            Timestamp(column(&row, 0)?)
        };
        Ok(Self { date, from, to: Instant::now() })
    }

    /// By how many microseconds the date has leapt since `before`: forward, or back (negative).
    fn leap_since(&self, before: &Self) -> Option<i64> {
        let us = |from: Instant, to: Instant| {
            i64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(i64::MAX)
        };
        let went = self.date.0.saturating_sub(before.date.0);
        let (least, most) = (us(before.to, self.from), us(before.from, self.to));
        let forward = went.saturating_sub(most);
        let back = least.saturating_sub(went);
        if forward > LEAST_US {
            Some(forward)
        } else if back > LEAST_US {
            Some(back.saturating_neg())
        } else {
            None
        }
    }
}

/// The last look, shared by all that write to one store from this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<Mutex<Looks>>);

#[derive(Debug, Default)]
struct Looks {
    last: Option<Look>,
    behind: Option<Behind>,
}

/// The date has been put back and has not made up for it yet.
#[derive(Debug, Clone, Copy)]
struct Behind {
    /// The earliest date since.
    from: Timestamp,
    by_us: i64,
}

impl Behind {
    /// After a leap of `leap_us` to `date`; none once all has been made up for.
    fn after(before: Option<Self>, leap_us: i64, date: Timestamp) -> Option<Self> {
        let by_us = before.map_or(0, |behind| behind.by_us).saturating_sub(leap_us);
        let from = before.map_or(date, |behind| behind.from.min(date));
        (by_us > LEAST_US).then_some(Self { from, by_us })
    }
}

impl Clock {
    /// By how many microseconds the date of `look` has leapt. It is told again until it is
    /// [`Clock::settle`]d, so that nothing is forgotten when a transaction fails.
    pub(super) fn leap(&self, look: &Look) -> Option<i64> {
        look.leap_since(&self.looks().last?)
    }

    /// The earliest date since the clock was put back, as long as it has not made up for that.
    pub(super) fn behind_since(&self) -> Option<Timestamp> {
        self.looks().behind.map(|behind| behind.from)
    }

    /// The date of `look` holds from now on.
    pub(super) fn settle(&self, look: Look) {
        let mut looks = self.looks();
        if let Some(leap_us) = looks.last.and_then(|last| look.leap_since(&last)) {
            looks.behind = Behind::after(looks.behind, leap_us, look.date);
        }
        looks.last = Some(look);
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const S: Duration = Duration::from_secs(1);

    fn look(start: Instant, [from, to]: [u32; 2], date_s: i64) -> Look {
        let date = Timestamp(1_700_000_000_000_000 + date_s * 1_000_000);
        Look { date, from: start + from * S, to: start + to * S }
    }

    #[test]
    fn a_leap_is_what_the_date_went_beyond_the_time_that_passed() {
        let start = Instant::now();
        let first = look(start, [0, 0], 0);
        for (date_s, leap_s) in [(100, None), (96, None), (104, None), (3700, Some(3600))] {
            let later = look(start, [100, 100], date_s);
            assert_eq!(later.leap_since(&first), leap_s.map(|s: i64| s * 1_000_000));
        }
        assert_eq!(look(start, [100, 100], -3500).leap_since(&first), Some(-3_600_000_000));
    }

    #[test]
    fn a_process_that_was_frozen_while_it_looked_concludes_nothing() {
        let start = Instant::now();
        // Frozen for a minute, before the date was read or behind it: nobody can know.
        let frozen = look(start, [10, 70], 10);
        assert_eq!(frozen.leap_since(&look(start, [0, 0], 0)), None);
        assert_eq!(look(start, [80, 80], 80).leap_since(&frozen), None);
        assert_eq!(look(start, [80, 80], 3680).leap_since(&frozen), Some(3_600_000_000));
    }

    #[test]
    fn a_leap_is_told_until_it_is_settled() {
        let (start, clock) = (Instant::now(), Clock::default());
        assert_eq!(clock.leap(&look(start, [0, 0], 0)), None, "there was no look before");
        clock.settle(look(start, [0, 0], 0));
        let later = look(start, [1, 1], 3601);
        assert_eq!([clock.leap(&later), clock.leap(&later)], [Some(3_600_000_000); 2]);
        clock.settle(later);
        assert_eq!(clock.leap(&look(start, [2, 2], 3602)), None);
    }

    #[test]
    fn a_clock_is_behind_from_when_it_is_put_back_until_it_has_made_up_for_it() {
        let (start, clock) = (Instant::now(), Clock::default());
        let behind_after = |second: u32, date_s: i64| {
            clock.settle(look(start, [second, second], date_s));
            clock.behind_since().map(|since| (since.0 - 1_700_000_000_000_000) / 1_000_000)
        };
        assert_eq!(behind_after(0, 0), None);
        assert_eq!(behind_after(1, 3601), None, "put forward");
        assert_eq!(behind_after(2, 2), Some(2));
        // What it was put forward by before is no matter: it may have been right then.
        assert_eq!(behind_after(3, -3597), Some(-3597));
        assert_eq!(behind_after(4, 4), Some(-3597), "half of it");
        assert_eq!(behind_after(5, 3605), None, "all of it");
    }
}
