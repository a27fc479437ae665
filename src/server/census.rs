//! Counts, every so often, what is in force and what is still to be delivered in the store.
//!
//! Replicas that share a store see the same; whoever sums over replicas takes the largest value instead. While
//! the store is down the last counts stand.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::escalation::sinks::Delivery;
use crate::escalation::{State, Store, StoreError};
use crate::telemetry::metrics;

/// Counts every `pause` until `stop`.
pub(super) async fn take(
    store: Store,
    delivery: Arc<Delivery>,
    pause: Duration,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Cut off while it waits or reads: nothing is written.
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        match stop.run_until_cancelled(count(&store, &delivery)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "the store could not be counted"),
            None => return,
        }
    }
}

async fn count(store: &Store, delivery: &Delivery) -> Result<(), StoreError> {
    for state in [State::Raised, State::Acknowledged] {
        metrics().escalations_in_force(state.name(), store.count(state).await?);
    }
    for sink in delivery.sinks() {
        metrics().outstanding(sink.name(), &store.outstanding(sink.name()).await?);
    }
    Ok(())
}
