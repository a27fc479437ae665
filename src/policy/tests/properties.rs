//! Claims about any signal, any text.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Three rules of several kinds that all come and go within seconds.
const BUSY: &str = "
schema: undertone.policy/v1
name: busy
version: '1'
description: For tests.
budget: 4
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

fn busy(budget: u32) -> Watcher {
    watcher(&BUSY.replace("budget: 4", &format!("budget: {budget}")))
}

/// Stretches of silence or of speech with some distress, of up to 5 s.
fn signal() -> impl Strategy<Value = Vec<Option<f32>>> {
    let stretch = (prop::option::weighted(0.8, 0.0_f32..=1.0), 1_usize..20);
    prop::collection::vec(stretch, 1..40).prop_map(|stretches| {
        stretches.into_iter().flat_map(|(value, length)| vec![value; length]).collect()
    })
}

fn by_channel(decisions: Vec<Decision>) -> BTreeMap<u32, Vec<Decision>> {
    let mut channels: BTreeMap<u32, Vec<Decision>> = BTreeMap::new();
    for decision in decisions {
        channels.entry(decision.channel).or_default().push(decision);
    }
    channels
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_signal_that_never_goes_under_off_raises_once(
        values in prop::collection::vec(0.41_f32..=1.0, 20..400),
    ) {
        let mut watcher = busy(1000);
        let loud = vec![Some(0.9); 20];
        let rest = values.into_iter().map(Some);
        let signal: Vec<_> = loud.into_iter().chain(rest).collect();
        let decisions = watch(&mut watcher, &signal);
        let raises = decisions.iter().filter(|d| d.rule == "level" && d.action == Action::Raise);
        prop_assert_eq!(raises.count(), 1);
        prop_assert!(!decisions.iter().any(|d| d.rule == "level" && d.action == Action::Clear));
    }

    #[test]
    fn raises_keep_the_budget_and_take_turns_with_clears(signal in signal(), budget in 1_u32..6) {
        let mut watcher = busy(budget);
        let mut decisions = watch(&mut watcher, &signal);
        let end = SamplePos(signal.len() as u64 * TICK);
        watcher.finish(end, &mut decisions);
        let raises = decisions.iter().filter(|d| d.action == Action::Raise).count();
        prop_assert!(raises <= budget as usize);
        prop_assert_eq!(watcher.spent(), raises == budget as usize);
        prop_assert!(watcher.suppressed() == 0 || watcher.spent());
        let mut on: BTreeMap<String, SamplePos> = BTreeMap::new();
        let mut cleared: BTreeMap<String, SamplePos> = BTreeMap::new();
        for decision in &decisions {
            let Decision { action, rule, onset, at, .. } = decision;
            prop_assert!(onset <= at && *at <= end);
            prop_assert!(decision.evidence.conditions.iter().all(|c| c.value.is_none_or(f32::is_finite)));
            match action {
                Action::Raise => {
                    prop_assert!(on.insert(rule.clone(), *onset).is_none());
                    let cooldown = match rule.as_str() { "level" => 2, "mixed" => 1, _ => 3 };
                    if let Some(before) = cleared.get(rule) {
                        prop_assert!(at.0 - before.0 >= cooldown * 16_000);
                        prop_assert!(onset > before, "an onset names one escalation");
                    }
                }
                Action::Update => prop_assert_eq!(on.get(rule), Some(onset)),
                Action::Clear => {
                    prop_assert_eq!(on.remove(rule), Some(*onset));
                    cleared.insert(rule.clone(), *at);
                }
            }
        }
        let force: Vec<_> = watcher.in_force().map(|f| (f.rule.to_owned(), f.onset)).collect();
        prop_assert_eq!(force.into_iter().collect::<BTreeMap<_, _>>(), on);
    }

    #[test]
    fn how_channels_interleave_changes_nothing(
        signals in prop::collection::vec(signal(), 1..4),
        order in prop::collection::vec(0_usize..4, 0..2000),
    ) {
        let readings: Vec<Vec<Reading>> = (0..).zip(&signals).map(|(channel, signal)| {
            let numbered = (0..).zip(signal);
            numbered.map(|(i, value)| reading(channel, i, value.map(distress))).collect()
        }).collect();
        let mut one_by_one = Vec::new();
        let mut watcher = busy(1000);
        for reading in readings.iter().flatten() {
            watcher.observe(reading, &mut one_by_one);
        }
        let mut mixed = Vec::new();
        let mut watcher = busy(1000);
        let mut queues: Vec<_> = readings.iter().map(|queue| queue.iter()).collect();
        let rest = (0..queues.len()).flat_map(|queue| vec![queue; signals[queue].len()]);
        for queue in order.into_iter().chain(rest) {
            if let Some(reading) = queues.get_mut(queue).and_then(Iterator::next) {
                watcher.observe(reading, &mut mixed);
            }
        }
        prop_assert_eq!(by_channel(one_by_one), by_channel(mixed));
    }

    #[test]
    fn a_clone_goes_on_where_the_watcher_was(signal in signal(), cut in 0_usize..800) {
        let cut = cut.min(signal.len());
        let mut watcher = busy(4);
        let mut whole = Vec::new();
        let mut parted = Vec::new();
        let mut other = busy(4);
        for (index, value) in signal.iter().enumerate() {
            let reading = reading(0, index as u64, value.map(distress));
            watcher.observe(&reading, &mut whole);
            if index == cut {
                other = other.clone();
            }
            other.observe(&reading, &mut parted);
        }
        prop_assert_eq!(whole, parted);
    }

    #[test]
    fn sums_do_not_drift(signal in signal()) {
        // What came before is forgotten without a trace.
        let mut watcher = busy(1000);
        let long = hold(Some(0.123_456_7), 300.0);
        let _ = watch(&mut watcher, &[long, hold(None, 20.0)].concat());
        let mut fresh = busy(1000);
        let offset = (1200 + 100) * TICK;
        let mut late = Vec::new();
        for (index, value) in (0..).zip(&signal) {
            let next = reading(0, index, value.map(distress));
            fresh.observe(&next, &mut Vec::new());
            watcher.observe(&Reading { end: SamplePos(next.end.0 + offset), ..next }, &mut late);
        }
        let values = |watcher: &Watcher| -> Vec<_> {
            watcher.measurements(0).into_iter().filter(|(_, m)| !m.what.contains("seconds"))
                .map(|(rule, m)| (rule, m.what, m.value)).collect()
        };
        prop_assert_eq!(values(&watcher), values(&fresh));
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,400}") {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn a_policy_with_a_hole_is_read_or_refused_with_its_place(
        at in 0_usize..BUSY.len(), length in 0_usize..40, filling in "[ -~\n]{0,12}",
    ) {
        let end = (at + length).min(BUSY.len());
        let text = format!("{}{filling}{}", &BUSY[..at], &BUSY[end..]);
        match Policy::parse(&text) {
            Ok(policy) => prop_assert!(!policy.explain().is_empty()),
            Err(error) => {
                let lines = text.lines().count() as u32;
                prop_assert!(error.line <= lines + 1, "{}", error);
                prop_assert!(!error.message().is_empty());
            }
        }
    }
}
