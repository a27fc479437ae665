//! Looks at the process ten times a second, for [`Admission`].
//!
//! In: tokio's counters of its workers, the engines' gauges, the kernel's count of resident memory, and
//! how late its own turn came. Out: a [`Reading`] each time. Nothing is decided here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::model::Models;
use crate::session::Admission;
use crate::session::load::{PERIOD, Reading};
use crate::telemetry::process::resident_bytes;

/// Readings between two looks at the memory: it grows slowly, and the look is a system call.
const MEMORY_EVERY: u32 = 5;

/// Counts the time that workers spend on work that may wait: clips use what live streams leave, at two
/// milliseconds a turn, and are no reason to refuse a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Patient(Arc<AtomicU64>);

impl Patient {
    /// `work`, with its time counted.
    pub(super) fn measure<F: Future>(&self, work: F) -> Measured<F> {
        Measured { work: Box::pin(work), patient: self.clone() }
    }

    fn so_far(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }
}

/// A future whose time on a worker is counted.
#[derive(Debug)]
pub(super) struct Measured<F> {
    work: Pin<Box<F>>,
    patient: Patient,
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let began = std::time::Instant::now();
        let polled = this.work.as_mut().poll(context);
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        this.patient.0.fetch_add(took, Relaxed);
        polled
    }
}

/// Takes readings until `stop`.
pub(super) async fn sample(
    admission: Arc<Admission>,
    models: Models,
    patient: Patient,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    // Cut off between two readings: a reading does not wait.
    while let Some(due) = stop.run_until_cancelled(tick.tick()).await {
        let resident = if count.is_multiple_of(MEMORY_EVERY) {
            resident_bytes().and_then(|bytes| u64::try_from(bytes).ok())
        } else {
            None
        };
        count = count.wrapping_add(1);
        admission.note(read(&models, &patient, due, resident));
    }
}

fn read(models: &Models, patient: &Patient, due: Instant, resident: Option<u64>) -> Reading {
    let (now, at) = (std::time::Instant::now(), Instant::now());
    let metrics = Handle::current().metrics();
    let workers = metrics.num_workers();
    let busy = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
    let gauges = || models.iter().map(|model| model.engine.gauge());
    Reading {
        at,
        workers,
        workers_busy: Duration::saturating_sub(busy, patient.so_far()),
        engines_busy: gauges().map(|gauge| gauge.busy(now)).collect(),
        engine_lag: gauges().map(|gauge| gauge.take_lag(now)).max().unwrap_or_default(),
        late: at.saturating_duration_since(due),
        resident,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_may_wait_is_measured_while_it_works_and_not_while_it_waits() {
        let patient = Patient::default();
        let ms = Duration::from_millis;
        let work = patient.measure(async {
            std::thread::sleep(ms(20));
            tokio::time::sleep(ms(100)).await;
            7
        });
        assert_eq!(work.await, 7);
        let counted = patient.so_far();
        assert!(counted >= ms(20) && counted < ms(90), "{counted:?}");
    }
}
