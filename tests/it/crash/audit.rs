//! What must be true in the end, whatever happened: of the store, of what clients were told, and of what
//! arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use undertone::escalation::store::DeliveryState;
use undertone::escalation::{
    Escalation, Filter, Kind, Occurrence, State, Store, Timestamp, occurrence_id,
};
use uuid::Uuid;

use super::load::Told;
use super::receiver::Seen;

/// How long the last deliveries may take once everybody is well.
const DRAIN: Duration = Duration::from_secs(60);

/// Waits until nothing is on its way any more.
pub(super) async fn drained(store: &Store) {
    let begin = std::time::Instant::now();
    loop {
        let totals = store.totals().await;
        if let Ok(totals) = &totals
            && totals.deliveries.keys().all(|state| state == "delivered")
        {
            return;
        }
        assert!(begin.elapsed() < DRAIN, "still on their way: {totals:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything that happened, in order.
pub(super) async fn occurrences(store: &Store) -> Vec<Occurrence> {
    let mut all = Vec::new();
    loop {
        let cursor = all.last().map_or(0, |last: &Occurrence| last.sequence);
        let page = store.after(cursor, 1_000).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn escalations(store: &Store) -> Vec<Escalation> {
    let mut all = Vec::new();
    let mut start: Option<(Timestamp, Uuid)> = None;
    loop {
        let page = store.list(&Filter::default(), start, 500).await.unwrap();
        all.extend(page.escalations);
        start = page.next;
        if start.is_none() {
            return all;
        }
    }
}

/// Checks all that is claimed. Prints what there was.
pub(super) async fn audit(what: &str, store: &Store, seen: &Seen, told: &Told) {
    let all = occurrences(store).await;
    let escalations = escalations(store).await;
    numbers_have_no_gaps(&all);
    nothing_was_raised_twice(&escalations);
    what_was_told_is_there(&all, told);
    finished_calls_are_whole(&escalations, told);
    everything_arrived(&all, seen);
    sessions_are_in_order(seen);
    let deliveries = store.deliveries(&[], None, 1_000_000).await.unwrap();
    assert_eq!(deliveries.len(), all.len(), "one sink, one delivery for each occurrence");
    assert!(deliveries.iter().all(|delivery| delivery.state == DeliveryState::Delivered));
    println!(
        "{what}: {} escalations, {} occurrences, {} arrived; {} requests, {} of them taken, {} of \
         those twice or more; clients: {} calls finished, {} cut, {} given up, {} events told \
         durable, {} found again in a replay, {} told not durable, {} acknowledged at the desk",
        escalations.len(),
        all.len(),
        seen.distinct(),
        seen.attempts,
        seen.arrivals.len(),
        seen.arrivals.len() - seen.distinct(),
        told.finished.len(),
        told.cut,
        told.given_up,
        told.durable.len(),
        told.again,
        told.not_durable,
        told.acknowledged.len(),
    );
}

fn numbers_have_no_gaps(all: &[Occurrence]) {
    for (place, occurrence) in all.iter().enumerate() {
        assert_eq!(occurrence.sequence, place as i64 + 1);
    }
}

fn nothing_was_raised_twice(escalations: &[Escalation]) {
    let mut known = BTreeMap::new();
    for escalation in escalations {
        let onset_us = (escalation.onset_s * 1e6) as i64;
        let place = (&escalation.session_id, &escalation.rule, escalation.channel, onset_us);
        let before = known.insert(place, escalation.id);
        assert_eq!(before, None, "raised twice: {escalation:?}");
    }
}

fn what_was_told_is_there(all: &[Occurrence], told: &Told) {
    let recorded: BTreeMap<String, String> = all
        .iter()
        .map(|occurrence| (occurrence.id.to_string(), occurrence.escalation.id.to_string()))
        .collect();
    for (id, escalation) in &told.durable {
        assert_eq!(recorded.get(id), Some(escalation), "told durable and lost: {id}");
    }
    for escalation in &told.acknowledged {
        let id = occurrence_id(escalation.parse().unwrap(), Kind::Acknowledged, None).to_string();
        assert_eq!(recorded.get(&id), Some(escalation), "acknowledged and lost");
    }
}

/// The same call raises and clears the same, however often its server died.
fn finished_calls_are_whole(escalations: &[Escalation], told: &Told) {
    let mut by_session: BTreeMap<&str, BTreeSet<(&str, i64, bool)>> = BTreeMap::new();
    for escalation in escalations {
        let is_cleared = escalation.state == State::Cleared;
        let onset_us = (escalation.onset_s * 1e6) as i64;
        let of = by_session.entry(&escalation.session_id).or_default();
        of.insert((&escalation.rule, onset_us, is_cleared));
    }
    let mut by_call: BTreeMap<usize, (&str, &BTreeSet<_>)> = BTreeMap::new();
    for (session, which) in &told.finished {
        let raised = by_session.get(session.as_str()).expect("a finished call has raised");
        assert!(raised.len() >= 8, "{session}: {raised:?}");
        let (other, expected) = by_call.entry(*which).or_insert((session, raised));
        assert_eq!(*expected, raised, "{other} and {session} were the same call");
    }
}

fn everything_arrived(all: &[Occurrence], seen: &Seen) {
    let mut bodies = BTreeMap::new();
    for arrival in &seen.arrivals {
        let first = bodies.entry(&arrival.id).or_insert(&arrival.body);
        assert_eq!(*first, &arrival.body, "one key, two bodies");
    }
    let recorded: BTreeSet<String> = all.iter().map(|one| one.id.to_string()).collect();
    let arrived: BTreeSet<String> = bodies.keys().map(|id| (*id).clone()).collect();
    let lost: Vec<&String> = recorded.difference(&arrived).collect();
    assert!(lost.is_empty(), "never arrived: {lost:?}");
    let unknown: Vec<&String> = arrived.difference(&recorded).collect();
    assert!(unknown.is_empty(), "arrived without having been committed: {unknown:?}");
    let by_id: BTreeMap<String, &Occurrence> =
        all.iter().map(|one| (one.id.to_string(), one)).collect();
    for first in seen.firsts() {
        assert_eq!(&first.occurrence(), by_id[&first.id], "what arrives is what is recorded");
    }
}

fn sessions_are_in_order(seen: &Seen) {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for first in seen.firsts() {
        let occurrence = first.occurrence();
        let before = last.insert(occurrence.escalation.session_id.clone(), occurrence.sequence);
        assert!(before < Some(occurrence.sequence), "out of order: {occurrence:?}");
    }
}
