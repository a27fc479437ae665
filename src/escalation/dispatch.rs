//! Attempts: each claimed delivery in a task of its own, its end back to the recorder.
//!
//! How many are under way to a sink is what its settings and its circuit allow; nothing is claimed
//! beyond, so that what waits stays where every replica can claim it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::Occurrence;
use super::Timestamp;
use super::circuit::{Circuit, CircuitSettings};
use super::recorder::FinishSender;
use super::sinks::{Delivery, Sink, Verdict};
use super::store::{Claimed, Finish, Outcome, Routes};
use crate::telemetry::{metrics, trace};

impl Routes for Delivery {
    fn sinks_for<'a>(&'a self, occurrence: &Occurrence) -> Vec<&'a str> {
        self.sinks().iter().filter(|sink| sink.wants(occurrence)).map(|sink| sink.name()).collect()
    }
}

/// One sink and what is under way to it.
#[derive(Debug)]
struct Desk {
    sink: Arc<Sink>,
    under_way: AtomicUsize,
    circuit: Mutex<Circuit>,
}

impl Desk {
    fn capacity(&self, now: Instant) -> usize {
        let circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = circuit.allows(self.sink.concurrency(), now);
        allowed.saturating_sub(self.under_way.load(Ordering::Relaxed))
    }

    /// Tells the circuit; an answer that is no is an answer.
    fn learn(&self, verdict: &Verdict) {
        let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Verdict::Retry { problem, .. } => {
                if circuit.failed(Instant::now()) {
                    let sink = self.sink.name();
                    tracing::warn!(sink, problem, "a sink fails again and again; it gets a pause");
                }
            }
            Verdict::Delivered { .. } | Verdict::Dead { .. } | Verdict::Gone { .. } => {
                circuit.succeeded();
            }
        }
    }
}

/// All sinks.
#[derive(Debug)]
pub(super) struct Desks {
    desks: BTreeMap<String, Desk>,
    closed: AtomicBool,
}

impl Desks {
    pub(super) fn new(delivery: &Delivery) -> Arc<Self> {
        let desks = delivery
            .sinks()
            .iter()
            .map(|sink| {
                let settings = CircuitSettings {
                    failures: sink.circuit_failures(),
                    pause: sink.circuit_pause(),
                };
                let desk = Desk {
                    sink: sink.clone(),
                    under_way: AtomicUsize::new(0),
                    circuit: Mutex::new(Circuit::new(settings)),
                };
                (sink.name().to_owned(), desk)
            })
            .collect();
        Arc::new(Self { desks, closed: AtomicBool::new(false) })
    }

    /// Attempts that can be under way at once.
    pub(super) fn concurrency(&self) -> usize {
        self.desks.values().map(|desk| desk.sink.concurrency()).sum()
    }

    /// For each sink that can take more, how many.
    pub(super) fn capacity(&self) -> Vec<(&str, usize)> {
        if self.closed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let now = Instant::now();
        self.desks
            .iter()
            .map(|(name, desk)| (name.as_str(), desk.capacity(now)))
            .filter(|(_, capacity)| *capacity > 0)
            .collect()
    }

    /// A delivery to `sink` has been claimed.
    pub(super) fn begin(&self, sink: &str) {
        if let Some(desk) = self.desks.get(sink) {
            desk.under_way.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nothing more is to be claimed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// One attempt is under way for as long as this lives.
struct UnderWay<'a>(&'a Desk);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Attempts what is claimed until nothing more can be, and what is under way has ended. An attempt ends
/// before its lease does.
pub(super) async fn run(
    desks: Arc<Desks>,
    mut claimed: mpsc::Receiver<Claimed>,
    finished: FinishSender,
) {
    let mut attempts = JoinSet::new();
    loop {
        // Both are cancel-safe: a queue and a set of tasks lose nothing.
        tokio::select! {
            next = claimed.recv() => match next {
                Some(claimed) => {
                    attempts.spawn(attempt(desks.clone(), claimed, finished.clone()));
                }
                None => break,
            },
            Some(ended) = attempts.join_next() => complain(ended),
        }
    }
    while let Some(ended) = attempts.join_next().await {
        complain(ended);
    }
}

fn complain(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        // Its lease runs out, and it is attempted again.
        tracing::error!(%error, "an attempt to deliver ended badly");
    }
}

async fn attempt(desks: Arc<Desks>, claimed: Claimed, finished: FinishSender) {
    let Some(desk) = desks.desks.get(&claimed.sink) else {
        return;
    };
    let under_way = UnderWay(desk);
    let (sink, at, began) = (&desk.sink, Timestamp::now(), Instant::now());
    // This process may have been frozen since it was claimed: by now it is another replica's.
    let left = claimed.until.saturating_duration_since(began);
    if left.is_zero() {
        tracing::info!(
            sink = sink.name(),
            "a lease was over before its attempt began; it is left to others"
        );
        return;
    }
    if claimed.attempt == 1 {
        metrics().delivery_departs(sink.name(), at.since(claimed.occurrence.at));
    }
    let limit = sink.timeout().min(left.mul_f32(0.9));
    let span = trace::delivery(
        sink.name(),
        claimed.occurrence.kind.name(),
        claimed.attempt,
        claimed.occurrence.traceparent.as_ref(),
    );
    let delivered = sink.deliver(&claimed.occurrence, claimed.attempt).instrument(span.clone());
    let verdict = tokio::time::timeout(limit, delivered).await.unwrap_or_else(|_| Verdict::Retry {
        problem: format!("no answer within {limit:?}"),
        after: None,
    });
    desk.learn(&verdict);
    let outcome = outcome(sink, verdict, claimed.attempt);
    trace::delivery_ended(&span, outcome.name());
    metrics().delivery_attempt(sink.name(), outcome.name(), began.elapsed());
    if let Outcome::Delivered { .. } = outcome {
        metrics().delivered(sink.name(), Timestamp::now().since(claimed.occurrence.at));
    }
    span.in_scope(|| tell(sink.name(), &claimed, &outcome));
    // The span ends with the attempt, not with its being noted.
    drop(span);
    // The place is free before the recorder looks for what could take it.
    drop(under_way);
    finished
        .send(Finish {
            sequence: claimed.occurrence.sequence,
            sink: claimed.sink,
            conversation: claimed.occurrence.escalation.conversation(),
            attempt: claimed.attempt,
            at,
            took: began.elapsed(),
            outcome,
        })
        .await;
}

fn outcome(sink: &Sink, verdict: Verdict, attempt: u32) -> Outcome {
    match verdict {
        Verdict::Delivered { detail } => Outcome::Delivered { detail },
        Verdict::Dead { problem } => Outcome::Dead { problem },
        Verdict::Gone { problem } => Outcome::Gone { problem },
        Verdict::Retry { problem, .. } if attempt >= sink.max_attempts() => {
            Outcome::Dead { problem: format!("given up after {attempt} attempts: {problem}") }
        }
        Verdict::Retry { problem, after } => {
            let wait = back_off(sink.first_backoff(), sink.longest_backoff(), attempt);
            Outcome::Retry { problem, wait: after.unwrap_or_default().max(wait) }
        }
    }
}

/// Time after attempt number `attempt`: doubles from `first` up to `longest`, and up to as much again at
/// random, so that deliveries that failed together do not come back together.
fn back_off(first: Duration, longest: Duration, attempt: u32) -> Duration {
    let waits = ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build();
    // Doubled 32 times, any wait has reached the longest.
    waits.take(attempt.clamp(1, 32) as usize).last().unwrap_or(longest)
}

fn tell(sink: &str, claimed: &Claimed, outcome: &Outcome) {
    let (event, id) = (claimed.occurrence.kind.name(), claimed.occurrence.escalation.id);
    let attempt = claimed.attempt;
    match outcome {
        Outcome::Delivered { detail } => {
            tracing::debug!(sink, event, %id, attempt, detail, "delivered");
        }
        Outcome::Retry { problem, wait } => {
            tracing::info!(sink, event, %id, attempt, problem, ?wait, "not delivered yet");
        }
        Outcome::Dead { problem } => {
            tracing::error!(sink, event, %id, attempt, problem, "will not be delivered");
        }
        Outcome::Gone { problem } => {
            tracing::error!(sink, event, %id, problem, "the endpoint wants no more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_never_the_same_for_all() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(60));
        for (attempt, least) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)] {
            let least = Duration::from_secs(least);
            let waits: Vec<Duration> = (0..20).map(|_| back_off(first, longest, attempt)).collect();
            assert!(waits.iter().all(|wait| (least..=least * 2).contains(wait)), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
        }
    }
}
