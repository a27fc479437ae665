//! How busy an engine is: counters that its thread writes and a sampler reads.
//!
//! In: when runs begin and end, and how long requests waited. Out: busy time so far and the longest
//! wait since the last look. Atomics without locks: a run costs four stores.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One engine's counters, in microseconds.
#[derive(Debug)]
pub struct Gauge {
    epoch: Instant,
    busy: AtomicU64,
    /// When the run under way began; 0 between runs.
    began: AtomicU64,
    longest_wait: AtomicU64,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            busy: AtomicU64::new(0),
            began: AtomicU64::new(0),
            longest_wait: AtomicU64::new(0),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Gauge {
    /// A run begins.
    pub(super) fn begin(&self, now: Instant) {
        let at = micros(now.saturating_duration_since(self.epoch));
        self.began.store(at.max(1), Relaxed);
    }

    /// It has ended after `took`.
    pub(super) fn end(&self, took: Duration) {
        self.began.store(0, Relaxed);
        self.busy.fetch_add(micros(took), Relaxed);
    }

    /// A request waited for its run.
    pub(super) fn waited(&self, wait: Duration) {
        self.longest_wait.fetch_max(micros(wait), Relaxed);
    }

    /// How long the run under way has taken so far.
    fn under_way(&self, now: Instant) -> u64 {
        match self.began.load(Relaxed) {
            0 => 0,
            began => micros(now.saturating_duration_since(self.epoch)).saturating_sub(began),
        }
    }

    /// Time spent in runs so far, the one under way included.
    pub fn busy(&self, now: Instant) -> Duration {
        Duration::from_micros(self.busy.load(Relaxed).saturating_add(self.under_way(now)))
    }

    /// The longest wait since the last look, or the age of the run under way if that is longer: who asks
    /// now waits for its end.
    pub fn take_lag(&self, now: Instant) -> Duration {
        let waited = self.longest_wait.swap(0, Relaxed);
        Duration::from_micros(waited.max(self.under_way(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_under_way_counts_as_busy_and_as_lag() {
        let gauge = Gauge::default();
        let ms = Duration::from_millis;
        let start = gauge.epoch + ms(10);
        gauge.waited(ms(3));
        assert_eq!(gauge.take_lag(start), ms(3));
        assert_eq!(gauge.take_lag(start), ms(0));
        gauge.begin(start);
        assert_eq!(gauge.busy(start + ms(200)), ms(200));
        assert_eq!(gauge.take_lag(start + ms(200)), ms(200));
        gauge.end(ms(250));
        assert_eq!(gauge.busy(start + ms(900)), ms(250));
        assert_eq!(gauge.take_lag(start + ms(900)), ms(0));
    }
}
