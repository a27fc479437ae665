//! One endpoint's circuit: after failures in a row it is left alone for a while, then tried once.
//!
//! Pure: time is an argument. Deliveries that wait meanwhile use up no attempts.

use std::time::{Duration, Instant};

/// When a circuit opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open.
    pub pause: Duration,
}

/// A circuit.
#[derive(Debug, Clone)]
pub struct Circuit {
    settings: CircuitSettings,
    failures: u32,
    /// Set while it is open, and while one attempt tries whether it may close.
    open_until: Option<Instant>,
}

impl Circuit {
    /// Closed.
    pub fn new(settings: CircuitSettings) -> Self {
        Self { settings, failures: 0, open_until: None }
    }

    /// How many attempts may be under way at once at `now`, of `concurrency` while it is closed.
    pub fn allows(&self, concurrency: usize, now: Instant) -> usize {
        match self.open_until {
            None => concurrency,
            Some(until) if now < until => 0,
            Some(_) => concurrency.min(1),
        }
    }

    /// Whether it is open at `now`.
    pub fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// The endpoint answered.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.open_until = None;
    }

    /// The endpoint failed. Returns whether this has opened the circuit.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        // What was under way when it opened tells nothing new.
        if self.failures < self.settings.failures || self.is_open(now) {
            return false;
        }
        self.open_until = Some(now + self.settings.pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CircuitSettings =
        CircuitSettings { failures: 3, pause: Duration::from_secs(30) };

    #[test]
    fn it_opens_after_failures_in_a_row_and_tries_one_after_the_pause() {
        let start = Instant::now();
        let mut circuit = Circuit::new(SETTINGS);
        assert!(!circuit.failed(start));
        circuit.succeeded();
        assert!(!circuit.failed(start) && !circuit.failed(start));
        assert_eq!(circuit.allows(8, start), 8, "an answer in between starts the count anew");
        assert!(circuit.failed(start));
        assert_eq!(circuit.allows(8, start + Duration::from_secs(29)), 0);
        let later = start + Duration::from_secs(30);
        assert_eq!(circuit.allows(8, later), 1);
        assert!(circuit.failed(later), "one failure opens it again");
        assert_eq!(circuit.allows(8, later + Duration::from_secs(1)), 0);
        circuit.succeeded();
        assert_eq!(circuit.allows(8, later), 8);
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_prolong_the_pause() {
        let start = Instant::now();
        let mut circuit = Circuit::new(SETTINGS);
        for _ in 0..3 {
            circuit.failed(start);
        }
        assert!(!circuit.failed(start + Duration::from_secs(20)));
        assert_eq!(circuit.allows(8, start + Duration::from_secs(30)), 1);
    }
}
