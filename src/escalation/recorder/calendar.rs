//! The date by which things are removed for good.
//!
//! What has been removed does not come back, so a clock that is put forward is not believed at once: for a day
//! the date goes on from where it was, by the time that passes. A day is what people need to see that a clock
//! is wrong; that something is kept a day too long when it was right costs nobody anything. A clock that is put
//! back is believed at once: it only keeps more. What the clock said when the process started cannot be doubted.

use std::time::{Duration, Instant};

use crate::escalation::Timestamp;

/// A clock that is ahead by no more has not been put forward: NTP slews.
const SLACK: Duration = Duration::from_secs(60);
/// How long a clock has to be ahead until it is believed.
const BELIEVED_AFTER: Duration = Duration::from_hours(24);

/// Dates, with some caution.
#[derive(Debug)]
pub(super) struct Calendar {
    /// A date that was believed, and when.
    date: Timestamp,
    at: Instant,
    /// Since when the clock is ahead of what followed from that.
    ahead_since: Option<Instant>,
}

impl Calendar {
    /// Today is `date`, as the clock says.
    pub(super) fn new(date: Timestamp, at: Instant) -> Self {
        Self { date, at, ahead_since: None }
    }

    /// The date to go by at the moment `at`, when the clock says `date`.
    pub(super) fn today(&mut self, date: Timestamp, at: Instant) -> Timestamp {
        let expected = self.date.after(at.saturating_duration_since(self.at));
        if date <= expected.after(SLACK) {
            *self = Self::new(date, at);
            return date;
        }
        let since = *self.ahead_since.get_or_insert_with(|| {
            let ahead = date.since(expected);
            tracing::warn!(?ahead, "the clock was put forward: for a day nothing is removed by it");
            at
        });
        if at.saturating_duration_since(since) < BELIEVED_AFTER {
            return expected;
        }
        *self = Self::new(date, at);
        date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_clock_that_is_put_forward_is_believed_a_day_later() {
        let (start, date) = (Instant::now(), Timestamp(1_700_000_000_000_000));
        let mut calendar = Calendar::new(date, start);
        let after = |hours: u32| date.after(hours * HOUR);
        assert_eq!(calendar.today(after(1), start + HOUR), after(1));
        // A hundred days ahead, from the second hour on.
        let wrong = |hours: u32| after(hours + 2400);
        for hour in 2..26 {
            assert_eq!(calendar.today(wrong(hour), start + hour * HOUR), after(hour), "{hour}");
        }
        assert_eq!(calendar.today(wrong(26), start + 26 * HOUR), wrong(26));
        assert_eq!(calendar.today(wrong(27), start + 27 * HOUR), wrong(27));
    }

    #[test]
    fn a_clock_that_is_put_right_within_the_day_has_removed_nothing() {
        let (start, date) = (Instant::now(), Timestamp(1_700_000_000_000_000));
        let mut calendar = Calendar::new(date, start);
        let after = |hours: u32| date.after(hours * HOUR);
        assert_eq!(calendar.today(after(500), start + HOUR), after(1));
        assert_eq!(calendar.today(after(2), start + 2 * HOUR), after(2));
        // The day begins anew.
        assert_eq!(calendar.today(after(523), start + 23 * HOUR), after(23));
        assert_eq!(calendar.today(after(546), start + 46 * HOUR), after(46));
    }

    #[test]
    fn a_clock_that_is_put_back_is_believed_at_once() {
        let (start, date) = (Instant::now(), Timestamp(1_700_000_000_000_000));
        let mut calendar = Calendar::new(date, start);
        let back = date.before(100 * HOUR);
        assert_eq!(calendar.today(back, start + HOUR), back);
        assert_eq!(calendar.today(back.after(HOUR), start + 2 * HOUR), back.after(HOUR));
    }
}
