//! Counts, every so often, what is in force and what is still to be delivered in the store.
//!
//! A sink that was renamed or taken out of the delivery file is counted as long as something waits for it: nobody
//! makes those deliveries, and whoever is on call has to learn of it.
//!
//! Replicas that share a store see the same; whoever sums over replicas takes the largest value instead. While
//! the store is down the last counts stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::escalation::sinks::Delivery;
use crate::escalation::{State, Store, StoreError};
use crate::telemetry::{Outstanding, metrics};

/// Counts every `pause` until `stop`.
pub(super) async fn take(
    store: Store,
    delivery: Arc<Delivery>,
    pause: Duration,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sinks = Sinks::default();
    for sink in delivery.sinks() {
        metrics().sink(sink.name());
        sinks.0.insert(sink.name().to_owned(), Outstanding::default());
    }
    // Cut off while it waits or reads: nothing is written.
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        match stop.run_until_cancelled(count(&store, &mut sinks)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "the store could not be counted"),
            None => return,
        }
    }
}

async fn count(store: &Store, sinks: &mut Sinks) -> Result<(), StoreError> {
    for state in [State::Raised, State::Acknowledged] {
        metrics().escalations_in_force(state.name(), store.count(state).await?);
    }
    sinks.update(store.outstanding().await?);
    for (sink, outstanding) in &sinks.0 {
        metrics().outstanding(sink, outstanding);
    }
    Ok(())
}

/// All sinks that were ever counted: a gauge keeps its last value, so that one of which nothing is left has to
/// be said to have nothing.
#[derive(Debug, Default)]
struct Sinks(BTreeMap<String, Outstanding>);

impl Sinks {
    fn update(&mut self, found: BTreeMap<String, Outstanding>) {
        self.0.values_mut().for_each(|outstanding| *outstanding = Outstanding::default());
        self.0.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_of_which_nothing_is_left_has_nothing_outstanding() {
        let some = |due| Outstanding { due, ..Outstanding::default() };
        let mut sinks = Sinks::default();
        sinks.update([("renamed".to_owned(), some(3)), ("ward".to_owned(), some(1))].into());
        sinks.update([("ward".to_owned(), some(2))].into());
        let expected = [("renamed".to_owned(), some(0)), ("ward".to_owned(), some(2))];
        assert_eq!(sinks.0, BTreeMap::from(expected));
    }
}
