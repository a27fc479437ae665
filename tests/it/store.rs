//! The escalation store: the same claims against SQLite and PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, Executor as _};
use undertone::escalation::store::{
    Batch, Change, Claimed, DeliveryState, Done, Finish, Outcome, Recorded, Routes, Writer,
};
use undertone::escalation::{
    Filter, Health, Kind, Location, Occurrence, Origin, Recorder, RecorderSettings, Reply, State,
    Store, Task, Timestamp,
};
use undertone::identity::Tenant;
use undertone::policy::{Action, Decision, Evidence, Measurement, Severity};
use undertone::units::SamplePos;
use uuid::Uuid;

use crate::database::{Kind as Database, Place, on_both};
use crate::support::until;

on_both! {
    an_escalation_lives_from_raised_to_cleared_and_its_history_is_whole,
    a_replay_finds_what_happened_and_nothing_happens_twice,
    another_conversation_of_the_same_name_raises_its_own,
    a_list_keeps_to_its_filter_and_its_pages_meet,
    a_session_reaches_a_sink_in_order_and_one_at_a_time,
    two_replicas_never_attempt_the_same_delivery_side_by_side,
    a_lease_that_has_run_out_goes_to_another,
    the_end_of_an_attempt_says_nothing_about_the_next,
    what_is_dead_stays_so_until_it_is_replayed,
    an_endpoint_that_has_gone_gets_nothing_until_it_is_replayed,
    numbers_become_visible_in_order_whoever_writes,
    what_is_old_goes_but_not_while_it_waits_to_be_delivered,
    the_end_of_a_session_leaves_what_is_in_force,
    a_session_that_comes_back_after_all_has_its_escalations_again,
    the_end_of_a_session_says_nothing_about_a_later_one_of_its_name,
    sessions_that_are_spoken_of_together_are_alive,
    a_build_works_on_a_schema_that_is_newer_than_its_own,
    what_has_not_arrived_is_counted_by_sink,
}

const LEASE: Duration = Duration::from_secs(60);

/// Sinks that want everything.
struct To(Vec<&'static str>);

impl Routes for To {
    fn sinks_for<'a>(&'a self, _: &Occurrence) -> Vec<&'a str> {
        self.0.clone()
    }
}

fn origin(session: &str) -> Arc<Origin> {
    Arc::new(Origin {
        tenant: Tenant::default(),
        session_id: session.to_owned(),
        labels: [("ward".to_owned(), "7".to_owned())].into(),
        policy: "care-call".to_owned(),
        policy_version: "1+0a0b0c0d".to_owned(),
        model: "tiny".to_owned(),
        model_version: "1".to_owned(),
    })
}

fn decision(action: Action, onset: u64, at: u64, distress: f32) -> Decision {
    let evidence = Evidence {
        from_s: 0.0,
        to_s: SamplePos(at).seconds(),
        speech_s: 4.0,
        emotions: [("angry".to_owned(), distress)].into(),
        distress: Some(distress),
        valence: Some(-0.4),
        arousal: Some(0.5),
        conditions: vec![Measurement {
            what: "mean of distress over 10s".to_owned(),
            value: Some(distress),
            on: 0.7,
            off: 0.5,
            holds: action != Action::Clear,
        }],
    };
    Decision {
        action,
        rule: "distress".to_owned(),
        title: "Distress".to_owned(),
        severity: Severity::High,
        clears_at_end: false,
        channel: 0,
        onset: SamplePos(onset),
        at: SamplePos(at),
        reason: format!("distress is at {distress}"),
        evidence,
    }
}

fn decided(session: &str, decision: Decision) -> Change {
    Change::Decided { origin: origin(session), decision: decision.into(), at: Timestamp::now() }
}

fn raise(session: &str, onset: u64) -> Change {
    decided(session, decision(Action::Raise, onset, onset + 16_000, 0.8))
}

fn acknowledge(id: Uuid, actor: &str) -> Change {
    let (actor, at) = (actor.to_owned(), Timestamp::now());
    Change::Acknowledged {
        id,
        tenant: None,
        session_id: None,
        actor,
        identity: None,
        note: Some("on my way".into()),
        at,
    }
}

async fn write(writer: &mut Writer, changes: &[Change], to: &To) -> Vec<Recorded> {
    let batch = Batch { changes: changes.iter().collect(), ..Batch::default() };
    writer.write(&batch, to).await.unwrap().recorded
}

async fn claim(writer: &mut Writer, sink: &str, capacity: usize) -> Vec<Claimed> {
    let batch = Batch { capacity: vec![(sink, capacity)], lease: LEASE, ..Batch::default() };
    writer.write(&batch, &To(Vec::new())).await.unwrap().claimed
}

async fn finish(writer: &mut Writer, claimed: &Claimed, outcome: Outcome) -> Done {
    let finish = Finish {
        sequence: claimed.occurrence.sequence,
        sink: claimed.sink.clone(),
        conversation: claimed.occurrence.escalation.conversation(),
        attempt: claimed.attempt,
        at: Timestamp::now(),
        took: Duration::from_millis(12),
        outcome,
    };
    let batch = Batch { finishes: vec![&finish], ..Batch::default() };
    writer.write(&batch, &To(Vec::new())).await.unwrap()
}

fn delivered() -> Outcome {
    Outcome::Delivered { detail: "HTTP 204".to_owned() }
}

fn id_of(recorded: &Recorded) -> Uuid {
    recorded.occurrences()[0].escalation.id
}

async fn an_escalation_lives_from_raised_to_cleared_and_its_history_is_whole(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(vec!["ward", "desk"]);
    let raised = write(&mut writer, &[raise("s", 1_000)], &to).await;
    let id = id_of(&raised[0]);
    let update = decision(Action::Update, 1_000, 40_000, 0.9);
    let clear = decision(Action::Clear, 1_000, 90_000, 0.2);
    let changes = [decided("s", update), acknowledge(id, "Ada"), decided("s", clear)];
    write(&mut writer, &changes, &to).await;

    let found = store.get(id).await.unwrap().unwrap();
    assert_eq!(found.state, State::Cleared);
    assert_eq!(found.acknowledged_by.as_deref(), Some("Ada"));
    assert_eq!(found.reason, "distress is at 0.9", "the last one while it was in force");
    assert_eq!(found.labels["ward"], "7");
    let history = store.history(id).await.unwrap();
    let kinds: Vec<Kind> = history.iter().map(|o| o.kind).collect();
    assert_eq!(kinds, Kind::ALL);
    assert_eq!(history[0].escalation.state, State::Raised, "each as it stood then");
    assert_eq!(history[2].note.as_deref(), Some("on my way"));
    assert_eq!(history.iter().map(|o| o.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(store.deliveries(&[], Some(id), 100).await.unwrap().len(), 8);
    assert_eq!(store.latest().await.unwrap(), 4);
    assert_eq!(store.after(2, 10).await.unwrap(), history[2..]);
    let totals = store.totals().await.unwrap();
    assert_eq!(totals.escalations, BTreeMap::from([("cleared".to_owned(), 1)]));
}

async fn a_replay_finds_what_happened_and_nothing_happens_twice(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(vec!["ward"]);
    let life = |wobble: f32| {
        [
            decided("s", decision(Action::Raise, 1_000, 20_000, 0.8 + wobble)),
            decided("s", decision(Action::Update, 1_000, 40_000, 0.9 + wobble)),
            decided("s", decision(Action::Clear, 1_000, 90_000, 0.2 + wobble)),
        ]
    };
    let first = write(&mut writer, &life(0.0), &to).await;
    let id = id_of(&first[0]);
    write(&mut writer, &[acknowledge(id, "Ada")], &to).await;
    // Another server, after a restart; other batches sum in another order.
    let mut writer = store.writer("b").await.unwrap();
    for (again, before) in write(&mut writer, &life(4e-6), &to).await.iter().zip(&first) {
        let Recorded::Before(again) = again else { panic!("{again:?}") };
        assert_eq!(**again, before.occurrences()[0]);
    }
    let again = write(&mut writer, &[acknowledge(id, "Eve")], &to).await;
    let Recorded::Before(again) = &again[0] else { panic!("{again:?}") };
    assert_eq!(again.actor.as_deref(), Some("Ada"), "the first one stands");
    assert_eq!(store.latest().await.unwrap(), 4);
    assert_eq!(store.deliveries(&[], None, 100).await.unwrap().len(), 4);
    let unknown = write(&mut writer, &[acknowledge(Uuid::nil(), "Ada")], &to).await;
    assert_eq!(unknown, [Recorded::Unknown]);
}

async fn another_conversation_of_the_same_name_raises_its_own(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(Vec::new());
    let monday = decided("patient-7", decision(Action::Raise, 1_000, 20_000, 0.8));
    let tuesday = decided("patient-7", decision(Action::Raise, 1_000, 20_000, 0.71));
    let first = write(&mut writer, std::slice::from_ref(&monday), &to).await;
    let second = write(&mut writer, std::slice::from_ref(&tuesday), &to).await;
    assert!(matches!(&second[0], Recorded::New(_)), "a reused name must not swallow it");
    assert_ne!(id_of(&first[0]), id_of(&second[0]));
    // What follows belongs to the newer one, and both are found again.
    let clear = decided("patient-7", decision(Action::Clear, 1_000, 90_000, 0.2));
    let cleared = write(&mut writer, &[clear], &to).await;
    assert_eq!(id_of(&cleared[0]), id_of(&second[0]));
    let again = write(&mut writer, &[monday, tuesday], &to).await;
    assert_eq!(again.iter().map(id_of).collect::<Vec<_>>(), [id_of(&first[0]), id_of(&second[0])]);
    assert!(again.iter().all(|recorded| matches!(recorded, Recorded::Before(_))));
}

async fn a_list_keeps_to_its_filter_and_its_pages_meet(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(Vec::new());
    let changes: Vec<Change> = (0..25).map(|i| raise(&format!("s{}", i % 5), 1_000 * i)).collect();
    let recorded = write(&mut writer, &changes, &to).await;
    write(&mut writer, &[acknowledge(id_of(&recorded[3]), "Ada")], &to).await;

    let mut seen = Vec::new();
    let mut start = None;
    loop {
        let page = store.list(&Filter::default(), start, 7).await.unwrap();
        assert!(page.escalations.len() <= 7);
        seen.extend(page.escalations.iter().map(|e| (e.raised_at, e.id)));
        start = page.next;
        if start.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 25, "none twice");
    assert!(seen.windows(2).all(|pair| pair[0].0 >= pair[1].0), "newest first");

    let count =
        async |filter: Filter| store.list(&filter, None, 100).await.unwrap().escalations.len();
    let label = |value: &str| BTreeMap::from([("ward".to_owned(), value.to_owned())]);
    assert_eq!(count(Filter::session("s2")).await, 5);
    assert_eq!(count(Filter { states: vec![State::Acknowledged], ..Filter::default() }).await, 1);
    let both = vec![State::Acknowledged, State::Raised];
    assert_eq!(count(Filter { states: both, ..Filter::default() }).await, 25);
    assert_eq!(count(Filter { labels: label("7"), ..Filter::default() }).await, 25);
    assert_eq!(count(Filter { labels: label("8' OR 1=1 --"), ..Filter::default() }).await, 0);
    assert_eq!(count(Filter { policies: vec!["other".into()], ..Filter::default() }).await, 0);
    let high = Some(Severity::High);
    assert_eq!(count(Filter { min_severity: high, ..Filter::default() }).await, 25);
    let later = Some(Timestamp::now().after(Duration::from_secs(60)));
    assert_eq!(count(Filter { since: later, ..Filter::default() }).await, 0);
    assert_eq!(count(Filter { before: later, ..Filter::default() }).await, 25);
    // What a watch says of each is what the list says.
    let filter = Filter { labels: label("7"), ..Filter::session("s2") };
    let listed = count(filter.clone()).await;
    let all = store.list(&Filter::default(), None, 100).await.unwrap().escalations;
    assert_eq!(all.iter().filter(|e| filter.wants(e)).count(), listed);
}

async fn a_session_reaches_a_sink_in_order_and_one_at_a_time(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(vec!["ward", "desk"]);
    let changes: Vec<Change> =
        (0..3).flat_map(|i| [raise("one", 1_000 * i), raise("two", 1_000 * i)]).collect();
    write(&mut writer, &changes, &to).await;
    let first = claim(&mut writer, "ward", 10).await;
    assert_eq!(first.len(), 2, "one of each session");
    assert_eq!(claim(&mut writer, "ward", 10).await.len(), 0, "the others wait for them");
    assert_eq!(claim(&mut writer, "desk", 1).await.len(), 1, "sinks do not wait for each other");
    let wait = Duration::ZERO;
    let retry = Outcome::Retry { problem: "HTTP 503".to_owned(), wait };
    finish(&mut writer, &first[0], retry).await;
    let again = claim(&mut writer, "ward", 10).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].occurrence, first[0].occurrence, "the same before any later one");
    assert_eq!(again[0].attempt, 2);
    let mut arrived = Vec::new();
    let mut under_way = vec![again[0].clone(), first[1].clone()];
    while let Some(claimed) = under_way.pop() {
        arrived
            .push((claimed.occurrence.escalation.session_id.clone(), claimed.occurrence.sequence));
        finish(&mut writer, &claimed, delivered()).await;
        under_way.extend(claim(&mut writer, "ward", 10).await);
    }
    for session in ["one", "two"] {
        let of: Vec<i64> = arrived.iter().filter(|(s, _)| s == session).map(|(_, n)| *n).collect();
        assert_eq!(of.len(), 3);
        assert!(of.is_sorted(), "{of:?}");
    }
    let attempts = store.attempts(first[0].occurrence.escalation.id).await.unwrap();
    let outcomes: Vec<&str> = attempts.iter().map(|a| a.outcome.as_str()).collect();
    assert_eq!(outcomes, ["retry", "delivered"]);
}

async fn two_replicas_never_attempt_the_same_delivery_side_by_side(place: &Place) {
    let store = place.store();
    let mut a = store.writer("a").await.unwrap();
    let mut b = store.writer("b").await.unwrap();
    let changes: Vec<Change> = (0..60).map(|i| raise(&format!("s{i}"), 0)).collect();
    write(&mut a, &changes, &To(vec!["ward"])).await;
    let grab = async |writer: &mut Writer| {
        let mut got = Vec::new();
        for _ in 0..20 {
            got.extend(claim(writer, "ward", 3).await.iter().map(|c| c.occurrence.sequence));
        }
        got
    };
    let (of_a, of_b) = tokio::join!(grab(&mut a), grab(&mut b));
    let all: BTreeSet<i64> = of_a.iter().chain(&of_b).copied().collect();
    assert_eq!(of_a.len() + of_b.len(), 60);
    assert_eq!(all.len(), 60, "each was claimed once");
}

async fn a_lease_that_has_run_out_goes_to_another(place: &Place) {
    let store = place.store();
    let mut a = store.writer("a").await.unwrap();
    let mut b = store.writer("b").await.unwrap();
    write(&mut a, &[raise("s", 0)], &To(vec!["ward"])).await;
    let short = Batch {
        capacity: vec![("ward", 1)],
        lease: Duration::from_millis(200),
        ..Batch::default()
    };
    let lost = a.write(&short, &To(Vec::new())).await.unwrap().claimed;
    assert_eq!(claim(&mut b, "ward", 1).await.len(), 0, "it is a's as long as the lease lasts");
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(b.is_due(&["ward"]).await.unwrap());
    let taken = claim(&mut b, "ward", 1).await;
    assert_eq!(taken[0].occurrence.id, lost[0].occurrence.id, "the same idempotency key");
    assert_eq!(taken[0].attempt, 2);
    // a comes back late: it has no say, unless it arrived.
    finish(&mut a, &lost[0], Outcome::Dead { problem: "late".to_owned() }).await;
    let state = async || store.deliveries(&[], None, 1).await.unwrap()[0].state;
    assert_eq!(state().await, DeliveryState::Leased);
    finish(&mut a, &lost[0], delivered()).await;
    assert_eq!(state().await, DeliveryState::Delivered);
    finish(&mut b, &taken[0], Outcome::Dead { problem: "twice".to_owned() }).await;
    assert_eq!(state().await, DeliveryState::Delivered, "what arrived stays so");
    // A replica that starts anew under its old name gives its leases up.
    write(&mut a, &[raise("t", 0)], &To(vec!["ward"])).await;
    assert_eq!(claim(&mut a, "ward", 1).await.len(), 1);
    let mut a = store.writer("a").await.unwrap();
    assert_eq!(a.release().await.unwrap(), 1);
    assert_eq!(claim(&mut a, "ward", 1).await.len(), 1);
}

/// An end waited for the store longer than its lease. It was once taken for that of the next attempt, which
/// was under way, and a third one began beside it.
async fn the_end_of_an_attempt_says_nothing_about_the_next(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    write(&mut writer, &[raise("s", 0)], &To(vec!["ward"])).await;
    let over = Batch { capacity: vec![("ward", 1)], lease: Duration::ZERO, ..Batch::default() };
    let first = writer.write(&over, &To(Vec::new())).await.unwrap().claimed;
    let second = claim(&mut writer, "ward", 1).await;
    assert_eq!(second[0].attempt, 2);
    let retry = || Outcome::Retry { problem: "HTTP 503".to_owned(), wait: Duration::ZERO };
    finish(&mut writer, &first[0], retry()).await;
    assert_eq!(claim(&mut writer, "ward", 1).await.len(), 0, "the second is under way");
    finish(&mut writer, &second[0], retry()).await;
    assert_eq!(claim(&mut writer, "ward", 1).await[0].attempt, 3);
}

async fn what_is_dead_stays_so_until_it_is_replayed(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let changes = [raise("s", 0), raise("s", 1_000)];
    let recorded = write(&mut writer, &changes, &To(vec!["ward"])).await;
    let first = claim(&mut writer, "ward", 5).await;
    let dead = Outcome::Dead { problem: "HTTP 400: no such patient".to_owned() };
    finish(&mut writer, &first[0], dead.clone()).await;
    let second = claim(&mut writer, "ward", 5).await;
    assert_eq!(second[0].occurrence.sequence, 2, "the next one goes on");
    finish(&mut writer, &second[0], dead).await;
    assert!(claim(&mut writer, "ward", 5).await.is_empty());
    let letters = store.deliveries(&[DeliveryState::Dead], None, 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].problem.as_deref(), Some("HTTP 400: no such patient"));
    assert_eq!(writer.replay(Some("desk"), None, 10).await.unwrap(), 0);
    let one = Some(id_of(&recorded[1]));
    assert_eq!(writer.replay(None, one, 10).await.unwrap(), 1);
    assert_eq!(writer.replay(Some("ward"), None, 10).await.unwrap(), 1);
    let again = claim(&mut writer, "ward", 5).await;
    assert_eq!(again.len(), 1, "still one of a session at a time");
    assert_eq!(again[0].attempt, 1, "attempts are counted anew");
    assert_eq!(again[0].occurrence.id, second[0].occurrence.id, "under the same key");
    finish(&mut writer, &again[0], delivered()).await;
    assert_eq!(claim(&mut writer, "ward", 5).await.len(), 1);
}

async fn an_endpoint_that_has_gone_gets_nothing_until_it_is_replayed(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(vec!["ward", "desk"]);
    write(&mut writer, &[raise("s", 0), raise("s", 1_000), raise("t", 0)], &to).await;
    let first = claim(&mut writer, "ward", 1).await;
    finish(&mut writer, &first[0], Outcome::Gone { problem: "HTTP 410".to_owned() }).await;
    assert!(claim(&mut writer, "ward", 5).await.is_empty());
    write(&mut writer, &[raise("u", 0)], &to).await;
    assert!(claim(&mut writer, "ward", 5).await.is_empty());
    assert_eq!(claim(&mut writer, "desk", 5).await.len(), 3, "others go on");
    assert_eq!(store.deliveries(&[DeliveryState::Dead], None, 10).await.unwrap().len(), 4);
    assert_eq!(writer.replay(Some("ward"), None, 10).await.unwrap(), 4);
    assert_eq!(claim(&mut writer, "ward", 5).await.len(), 3);
    write(&mut writer, &[raise("v", 0)], &to).await;
    assert_eq!(claim(&mut writer, "ward", 5).await.len(), 1, "it is in use again");
}

async fn numbers_become_visible_in_order_whoever_writes(place: &Place) {
    let store = place.store();
    // The schema first, so that the writers do not wait for each other's migration.
    drop(store.writer("first").await.unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for owner in 0..3 {
        let store = store.clone();
        writers.spawn(async move {
            let mut writer = store.writer(&format!("w{owner}")).await.unwrap();
            for i in 0..40 {
                let changes =
                    [raise(&format!("{owner}-{i}"), 0), raise(&format!("{owner}-{i}"), 9)];
                write(&mut writer, &changes, &To(vec!["ward"])).await;
            }
        });
    }
    let mut seen: Vec<i64> = Vec::new();
    while seen.len() < 240 {
        let page = store.after(seen.last().copied().unwrap_or(0), 50).await.unwrap();
        seen.extend(page.iter().map(|o| o.sequence));
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, (1..=240).collect::<Vec<i64>>(), "a cursor passes over nothing");
    while let Some(joined) = writers.join_next().await {
        joined.unwrap();
    }
}

async fn what_is_old_goes_but_not_while_it_waits_to_be_delivered(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let waits = write(&mut writer, &[raise("waits", 0)], &To(vec!["ward"])).await;
    let goes = write(&mut writer, &[raise("goes", 0), raise("goes", 7)], &To(vec!["desk"])).await;
    for _ in 0..2 {
        let claimed = claim(&mut writer, "desk", 5).await;
        finish(&mut writer, &claimed[0], delivered()).await;
    }
    let minute = Duration::from_secs(60);
    assert_eq!(writer.expire(Timestamp::now(), minute, 10).await.unwrap(), 0);
    let later = Timestamp::now().after(60 * minute);
    assert_eq!(writer.expire(later, minute, 10).await.unwrap(), 0, "the store's date is another");
    assert_eq!(writer.expire(later, Duration::ZERO, 1).await.unwrap(), 1, "some at a time");
    assert_eq!(writer.expire(later, Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(writer.expire(later, Duration::ZERO, 10).await.unwrap(), 0);
    assert!(store.get(id_of(&waits[0])).await.unwrap().is_some());
    assert!(store.get(id_of(&goes[0])).await.unwrap().is_none());
    assert!(store.history(id_of(&goes[0])).await.unwrap().is_empty());
    // Numbers are not given again.
    write(&mut writer, &[raise("new", 0)], &To(Vec::new())).await;
    assert_eq!(store.latest().await.unwrap(), 4);
}

async fn the_end_of_a_session_leaves_what_is_in_force(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(vec!["ward"]);
    let changes = [
        raise("s", 0),
        raise("s", 1_000),
        decided("s", decision(Action::Clear, 1_000, 90_000, 0.1)),
        raise("other", 0),
    ];
    let recorded = write(&mut writer, &changes, &to).await;
    let end = Change::SessionEnded { origin: origin("s"), open: Vec::new(), at: Timestamp::now() };
    let ended = write(&mut writer, std::slice::from_ref(&end), &to).await;
    let [occurrence] = ended[0].occurrences() else { panic!("{ended:?}") };
    assert_eq!(occurrence.kind, Kind::Updated);
    assert_eq!(occurrence.escalation.id, id_of(&recorded[0]));
    assert_eq!(occurrence.escalation.state, State::Raised);
    assert!(occurrence.escalation.session_ended_at.is_some());
    let again = write(&mut writer, &[end], &to).await;
    assert_eq!(again, [Recorded::New(Vec::new())]);
}

async fn a_session_that_comes_back_after_all_has_its_escalations_again(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(vec!["ward"]);
    let clears = Decision { clears_at_end: true, ..decision(Action::Raise, 2_000, 20_000, 0.8) };
    let clears = decided("s", clears);
    let recorded = write(&mut writer, &[raise("s", 1_000), clears.clone()], &to).await;
    let [kept, cleared] = [id_of(&recorded[0]), id_of(&recorded[1])];
    // Nobody speaks of it: these batches keep a session alive for no time at all.
    let lost = writer.end_lost(10, &to).await.unwrap();
    assert_eq!((lost.looked_at, lost.sessions), (1, 1));
    let kinds = lost.occurrences.iter().map(|one| (one.escalation.id, one.kind));
    let expected = BTreeMap::from([(kept, Kind::Updated), (cleared, Kind::Cleared)]);
    assert_eq!(kinds.collect::<BTreeMap<_, _>>(), expected);

    // Its audio comes again: what was raised is, and stands as raised.
    let again = write(&mut writer, &[clears], &to).await;
    assert!(matches!(&again[0], Recorded::Before(before) if before.kind == Kind::Raised));
    let found = store.get(cleared).await.unwrap().unwrap();
    assert_eq!((found.state, found.session_ended_at), (State::Raised, None));
    let history = store.history(cleared).await.unwrap();
    assert!(history.last().unwrap().note.as_ref().unwrap().contains("goes on"));

    // Or it is gone on with from its state.
    let resumed = Change::Resumed { origin: origin("s"), open: vec![kept, cleared] };
    let told = write(&mut writer, std::slice::from_ref(&resumed), &to).await;
    let [occurrence] = told[0].occurrences() else { panic!("{told:?}") };
    assert_eq!((occurrence.escalation.id, occurrence.kind), (kept, Kind::Updated));
    assert_eq!(store.get(kept).await.unwrap().unwrap().session_ended_at, None);

    // What its policy clears is cleared, and stays so.
    let clear = decided("s", decision(Action::Clear, 2_000, 90_000, 0.1));
    let told = write(&mut writer, &[clear, resumed], &to).await;
    assert!(matches!(&told[0], Recorded::New(new) if new[0].kind == Kind::Cleared), "{told:?}");
    assert_eq!(store.get(cleared).await.unwrap().unwrap().state, State::Cleared);
    // It may break off as often as it likes.
    let lost = writer.end_lost(10, &to).await.unwrap();
    let [occurrence] = &lost.occurrences[..] else { panic!("{lost:?}") };
    assert_eq!((occurrence.escalation.id, occurrence.kind), (kept, Kind::Updated));
    // Once nothing is in force there is nothing to end.
    let clear = decided("s", decision(Action::Clear, 1_000, 95_000, 0.1));
    write(&mut writer, &[raise("s", 1_000), clear], &to).await;
    let lost = writer.end_lost(10, &to).await.unwrap();
    assert_eq!((lost.looked_at, lost.sessions), (1, 0));
}

async fn the_end_of_a_session_says_nothing_about_a_later_one_of_its_name(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    let to = To(Vec::new());
    let end = |open| Change::SessionEnded {
        origin: origin("s"),
        open,
        at: Timestamp::now().before(Duration::from_secs(60)),
    };
    let recorded = write(&mut writer, &[raise("s", 0), end(Vec::new())], &to).await;
    assert_eq!(recorded[1], Recorded::New(Vec::new()));
    let id = id_of(&recorded[0]);
    assert_eq!(store.get(id).await.unwrap().unwrap().session_ended_at, None);
    // What it names is its own, whatever the date was when that was raised.
    write(&mut writer, &[end(vec![id])], &to).await;
    assert!(store.get(id).await.unwrap().unwrap().session_ended_at.is_some());
}

async fn sessions_that_are_spoken_of_together_are_alive(place: &Place) {
    let mut writer = place.store().writer("a").await.unwrap();
    let to = To(Vec::new());
    let name = |number: usize| format!("session {number}");
    let raised: Vec<Change> = (0..200).map(|number| raise(&name(number), 0)).collect();
    write(&mut writer, &raised, &to).await;
    let alive: Vec<_> = (1..200).map(|number| (Tenant::default(), name(number))).collect();
    for _ in 0..2 {
        writer.keep_alive(&alive, Duration::from_secs(60)).await.unwrap();
    }
    let lost = writer.end_lost(500, &to).await.unwrap();
    let [occurrence] = &lost.occurrences[..] else { panic!("{} ended", lost.sessions) };
    assert_eq!(occurrence.escalation.session_id, name(0));
}

async fn a_build_works_on_a_schema_that_is_newer_than_its_own(place: &Place) {
    let store = place.store();
    store.migrate().await.unwrap();
    let mut connection = sqlx::AnyConnection::connect(&place.url).await.unwrap();
    let checksum = match place.kind {
        Database::Sqlite => "x'00'",
        Database::Postgres => r"'\x00'",
    };
    for statement in [
        "ALTER TABLE escalations ADD COLUMN later TEXT NOT NULL DEFAULT ''".to_owned(),
        format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (999, 'of a later build', true, {checksum}, 1)"
        ),
    ] {
        connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    let mut writer = store.writer("a").await.unwrap();
    let recorded = write(&mut writer, &[raise("s", 0)], &To(vec!["ward"])).await;
    assert!(matches!(&recorded[0], Recorded::New(_)));
    assert!(store.get(id_of(&recorded[0])).await.unwrap().is_some());
}

/// Somebody else is at the schema; what sessions decide meanwhile waits, and none of them does.
#[tokio::test]
async fn a_schema_that_cannot_be_changed_yet_holds_no_session_up() {
    let place = Place::new(Database::Postgres).await;
    let mut other = sqlx::PgConnection::connect(&place.url).await.unwrap();
    let mut other = other.begin().await.unwrap();
    other.execute("CREATE TABLE escalations (id TEXT)").await.unwrap();
    let timeout = Duration::from_secs(1);
    let store = Store::at(place.location(), timeout).unwrap();
    let (recorder, _task) = recorder_with(store, timeout).await;
    assert!(!recorder.health().borrow().is_up());
    let began = std::time::Instant::now();
    let Reply::Waiting(committed) = recorder.record(raise("s", 0)).await else {
        panic!("it cannot be durable yet")
    };
    // However often it has been tried meanwhile.
    tokio::time::sleep(2 * timeout).await;
    assert!(began.elapsed() < Duration::from_secs(20));
    other.rollback().await.unwrap();
    let committed = committed.await.unwrap();
    assert!(matches!(committed, Recorded::New(_)), "{committed:?}");
    assert!(recorder.health().borrow().is_up());
}

async fn recorder(store: Store) -> (Recorder, Task) {
    recorder_with(store, Duration::from_secs(10)).await
}

async fn recorder_with(store: Store, timeout: Duration) -> (Recorder, Task) {
    let settings = RecorderSettings {
        timeout,
        backlog: 100,
        retention: Duration::ZERO,
        poll: Duration::from_millis(20),
        lease: LEASE,
        window: Duration::from_secs(60),
    };
    Recorder::start(store, Arc::default(), settings, "a".to_owned()).await.unwrap()
}

#[tokio::test]
async fn what_the_store_never_takes_is_given_up_and_holds_nothing_up() {
    let place = Place::new(Database::Postgres).await;
    let (recorder, _task) = recorder(place.store()).await;
    // PostgreSQL's texts cannot hold it. Sessions are not named so: wire::parse sees to that.
    let (good, bad) = (raise("good", 0), raise("b\0d", 0));
    let [first, lost, last] = [good.clone(), bad, good].map(|change| recorder.record(change));
    let (first, lost, last) = tokio::join!(first, lost, last);
    assert!(matches!(first, Reply::Durable(Recorded::New(_))), "{first:?}");
    assert!(matches!(lost, Reply::Lost), "{lost:?}");
    assert!(matches!(last, Reply::Durable(Recorded::Before(_))), "{last:?}");
    assert!(recorder.health().borrow().is_up());
}

/// The folder came only after both had started, so that neither could lock the file then.
#[tokio::test]
async fn of_two_servers_with_one_file_only_one_ever_writes() {
    let place = Place::new(Database::Sqlite).await;
    let folder = place.folder.path().join("later");
    let store = || {
        let location = Location::Sqlite(folder.join("undertone.db"));
        Store::at(location, Duration::from_secs(10)).unwrap()
    };
    let servers = [recorder(store()).await, recorder(store()).await];
    let problem = |server: usize| match &*servers[server].0.health().borrow() {
        Health::Up => None,
        Health::Down { problem } => Some(problem.clone()),
    };
    until("both are down", async || problem(0).is_some() && problem(1).is_some()).await;
    std::fs::create_dir(&folder).unwrap();
    until("one is up", async || problem(0).is_none() || problem(1).is_none()).await;
    let in_use = |server| problem(server).is_some_and(|problem| problem.contains("is in use"));
    until("the other one knows", async || in_use(0) || in_use(1)).await;
    assert!(problem(0).is_none() || problem(1).is_none());
}

async fn what_has_not_arrived_is_counted_by_sink(place: &Place) {
    let store = place.store();
    let mut writer = store.writer("a").await.unwrap();
    assert!(store.outstanding().await.unwrap().is_empty());
    let recorded = write(&mut writer, &[raise("one", 0)], &To(vec!["board", "ward"])).await;
    let Recorded::New(raised) = &recorded[0] else { panic!("{recorded:?}") };
    let id = raised[0].escalation.id;
    write(&mut writer, &[raise("two", 0), acknowledge(id, "nurse")], &To(vec!["board"])).await;
    let found = store.outstanding().await.unwrap();
    let counts = |sink: &str| (found[sink].waiting, found[sink].due, found[sink].dead);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(counts("board"), (1, 2, 0));
    assert_eq!(counts("ward"), (0, 1, 0));
    assert!(found["ward"].oldest < Duration::from_secs(60), "{found:?}");
}

#[tokio::test]
async fn what_is_more_than_may_wait_is_told_to_be_lost_and_all_else_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let later = folder.path().join("later");
    let location = Location::Sqlite(later.join("undertone.db"));
    let store = Store::at(location, Duration::from_secs(10)).unwrap();
    let (recorder, _task) = recorder(store).await;
    let (mut waiting, mut lost) = (Vec::new(), 0);
    for number in 0..110 {
        match recorder.record(raise(&format!("s{number}"), 0)).await {
            Reply::Waiting(later) => waiting.push(later),
            Reply::Lost => lost += 1,
            Reply::Durable(recorded) => panic!("there is no folder: {recorded:?}"),
        }
    }
    assert_eq!((waiting.len(), lost), (100, 10));
    std::fs::create_dir(&later).unwrap();
    for waited in waiting {
        assert!(matches!(waited.await.unwrap(), Recorded::New(_)));
    }
}
