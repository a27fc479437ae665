//! Claims about watchers that go on from a state.

use proptest::prelude::*;

use super::*;
use crate::policy::WatcherState;

/// Rules of every kind that come and go within seconds.
const LIVELY: &str = "
schema: undertone.policy/v1
name: lively
version: '1'
description: For tests.
budget: 6
rules:
  - name: level
    title: Level
    severity: high
    when: {level: {of: distress, over: 2s, on: 0.6, off: 0.4}}
    dwell: 500ms
    clear_after: 1s
    cooldown: 2s
    update_every: 1s
    reason: '{{ distress | percent }}'
  - name: mixed
    title: Mixed
    severity: low
    when:
      any:
        - all: [{rise: {of: angry, over: 4s, on: 0.1, off: 0}}, {not: {silence: {for: 1s}}}]
        - share: {of: distress, below: 0.3, over: 3s, on: 0.7, off: 0.5, min_speech: 1s}
    clear_after: 0s
    cooldown: 1s
    reason: mixed
  - name: silence
    title: Silence
    severity: medium
    when: {silence: {for: 2s}}
    clear_after: 0s
    cooldown: 3s
    channels: [0, 2]
    on_session_end: clear
    reason: silence
";

/// What two channels lead to, `state` being saved and gone on from before each reading that `cuts` names.
fn watch_on(signal: &[Option<f32>], cuts: &[usize]) -> (Vec<Decision>, WatcherState) {
    let mut watcher = watcher(LIVELY);
    let mut decisions = Vec::new();
    for (index, value) in signal.iter().enumerate() {
        if cuts.contains(&index) {
            let bytes = postcard::to_stdvec(&watcher.state()).unwrap();
            let policy = Policy::parse(watcher.policy().text()).unwrap();
            let state = postcard::from_bytes(&bytes).unwrap();
            watcher = Watcher::resume(Arc::new(policy), &state).unwrap();
        }
        for channel in [0, 3] {
            // The second channel is heard a second later, and is calmer.
            let value = if channel == 0 { *value } else { value.map(|value| 0.7 * value) };
            let affect = value.map(distress);
            watcher.observe(&reading(channel, index as u64, affect), &mut decisions);
        }
    }
    let state = watcher.state();
    watcher.finish(SamplePos(signal.len() as u64 * TICK), &mut decisions);
    (decisions, state)
}

fn signal() -> impl Strategy<Value = Vec<Option<f32>>> {
    let stretch = (prop::option::weighted(0.8, 0.0_f32..=1.0), 1_usize..20);
    prop::collection::vec(stretch, 1..40).prop_map(|stretches| {
        stretches.into_iter().flat_map(|(value, length)| vec![value; length]).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_watcher_that_is_gone_on_from_decides_the_same(
        signal in signal(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(signal.len())).collect();
        let (whole, end) = watch_on(&signal, &[]);
        let (parts, also_end) = watch_on(&signal, &cuts);
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(end, also_end);
    }

    #[test]
    fn no_damage_to_a_state_panics(
        signal in signal(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..=255), 1..4),
    ) {
        let (_, state) = watch_on(&signal, &[]);
        let mut bytes = postcard::to_stdvec(&state).unwrap();
        for (at, by) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= by;
        }
        let policy = Arc::new(Policy::parse(LIVELY).unwrap());
        if let Ok(state) = postcard::from_bytes::<WatcherState>(&bytes)
            && let Ok(mut watcher) = Watcher::resume(policy, &state)
        {
            let mut decisions = Vec::new();
            for index in 0..100 {
                let affect = (index % 9 < 5).then(|| distress(0.8));
                watcher.observe(&reading(0, signal.len() as u64 + index, affect), &mut decisions);
            }
            watcher.finish(SamplePos(1 << 40), &mut decisions);
        }
    }
}

#[test]
fn a_state_of_another_policy_is_refused() {
    let (_, state) = watch_on(&hold(Some(0.9), 20.0), &[]);
    for other in [LIVELY.replace("budget: 6", "budget: 1"), one_rule("when: {silence: {for: 2s}}")]
    {
        let policy = Arc::new(Policy::parse(&other).unwrap());
        assert!(Watcher::resume(policy, &state).is_err());
    }
}

#[test]
fn the_text_of_a_policy_is_kept_to_the_byte() {
    let text = format!("# a comment\n{LIVELY}\n");
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.text(), text);
    assert_eq!(Policy::parse(policy.text()).unwrap().version(), policy.version());
}
