//! What is said now and then, however often it happens: a client that is refused a hundred times a second is not
//! to fill the log.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Time between two lines about the same thing.
const PAUSE: Duration = Duration::from_secs(10);

/// One thing that is said at most every ten seconds, by whoever comes first. Made as a `static` beside what says it.
#[derive(Debug)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Not said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether to say it now. Then not again for a while.
    pub fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.is_none_or(|said| now.saturating_duration_since(said) >= PAUSE);
        if due {
            *said = Some(now);
        }
        due
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_then_nothing_for_ten_seconds() {
        let (seldom, start) = (Seldom::new(), Instant::now());
        let at = |s: u64| seldom.is_due_at(start + Duration::from_secs(s));
        assert_eq!([0, 1, 9, 10, 11, 30].map(at), [true, false, false, true, false, true]);
    }
}
