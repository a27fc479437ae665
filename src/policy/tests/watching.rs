//! Claims about the life of a rule.

use super::*;
use Action::{Clear, Raise, Update};

const LEVEL: &str = "
when: {level: {of: distress, over: 2s, on: 0.7, off: 0.5, min_speech: 1s}}
dwell: 1s
clear_after: 1s
cooldown: 10s
update_every: 0s
on_session_end: clear
";

fn level() -> Watcher {
    watcher(&one_rule(LEVEL))
}

#[test]
fn a_raise_waits_for_the_dwell_and_a_clear_for_the_pause() {
    let mut watcher = level();
    let signal = [hold(Some(0.9), 5.0), hold(Some(0.1), 5.0)].concat();
    let decisions = watch(&mut watcher, &signal);
    assert_eq!(actions(&decisions), [Raise, Clear]);
    // A second of speech is 63 hops, reached in the fourth reading; the dwell takes four more.
    assert_eq!(decisions[0].onset, SamplePos(4 * TICK));
    assert_eq!(decisions[0].at, SamplePos(8 * TICK));
    assert_eq!(decisions[1].onset, decisions[0].onset);
    assert_eq!(watcher.in_force().count(), 0);
    assert_eq!(decisions[0].severity.name(), "high");
    assert_eq!(decisions[0].reason, "why");
}

#[test]
fn too_short_a_peak_raises_nothing() {
    let mut watcher = level();
    let signal = [hold(Some(0.75), 1.0), hold(Some(0.0), 20.0)].concat();
    assert_eq!(watch(&mut watcher, &signal), []);
}

#[test]
fn nothing_is_raised_while_it_cools_down() {
    let mut watcher = level();
    let wave = [hold(Some(0.9), 4.0), hold(Some(0.0), 4.0)].concat();
    let decisions = watch(&mut watcher, &wave.repeat(5));
    let mut cleared = None;
    for decision in &decisions {
        match (decision.action, cleared) {
            (Raise, Some(SamplePos(cleared))) => assert!(decision.at.0 - cleared >= 160_000),
            (Clear, _) => cleared = Some(decision.at),
            _ => {}
        }
    }
    assert_eq!(actions(&decisions), [Raise, Clear, Raise, Clear, Raise, Clear]);
}

#[test]
fn what_holds_when_the_cooldown_ends_is_raised_then_with_its_true_onset() {
    let mut watcher = level();
    let signal = [hold(Some(0.9), 4.0), hold(Some(0.0), 4.0), hold(Some(0.9), 20.0)].concat();
    let decisions = watch(&mut watcher, &signal);
    assert_eq!(actions(&decisions), [Raise, Clear, Raise]);
    let (cleared, again) = (decisions[1].at.0, &decisions[2]);
    assert_eq!(again.at.0, cleared + 160_000_u64.div_ceil(TICK) * TICK);
    assert!(again.onset.0 > cleared && again.at.0 - again.onset.0 > 16_000);
}

#[test]
fn silence_neither_raises_nor_clears_a_level() {
    let mut watcher = level();
    let signal = [hold(Some(0.9), 5.0), hold(None, 300.0)].concat();
    assert_eq!(actions(&watch(&mut watcher, &signal)), [Raise]);
    assert_eq!(watcher.in_force().count(), 1);
    let shown = watcher.measurements(0);
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].1.value, shown[0].1.holds), (None, true));
    let mut watcher = level();
    let signal = [hold(Some(0.9), 0.75), hold(None, 300.0)].concat();
    assert_eq!(watch(&mut watcher, &signal), []);
}

#[test]
fn only_trusted_voice_with_an_estimate_is_evidence() {
    let good = reading(0, 0, Some(distress(0.9)));
    let none = Reading { affect: None, ..good.clone() };
    let doubtful = Reading { trusted: false, ..good.clone() };
    let quiet = Reading { voiced_hops: 0, ..good.clone() };
    let broken =
        Reading { affect: Some(Affect { valence: f32::NAN, ..distress(0.9) }), ..good.clone() };
    for (kind, raises) in [(&good, 1), (&none, 0), (&doubtful, 0), (&quiet, 0), (&broken, 0)] {
        let mut watcher = level();
        let mut decisions = Vec::new();
        for index in 1..=40 {
            watcher
                .observe(&Reading { end: SamplePos(index * TICK), ..kind.clone() }, &mut decisions);
        }
        assert_eq!(decisions.len(), raises, "{kind:?}");
    }
}

#[test]
fn a_reading_that_does_not_move_forward_is_not_looked_at() {
    let mut watcher = level();
    let mut decisions = Vec::new();
    for _ in 0..40 {
        watcher.observe(&reading(0, 7, Some(distress(0.9))), &mut decisions);
    }
    assert_eq!(decisions, []);
    assert_eq!(watcher.kept(0), 1);
}

#[test]
fn thresholds_themselves_turn() {
    // 0.7 as a 32-bit number lies under 0.7; both thresholds are reached all the same.
    let signal = [hold(Some(0.7), 5.0), hold(Some(0.5), 20.0)].concat();
    let mut watcher = level();
    assert_eq!(actions(&watch(&mut watcher, &signal)), [Raise], "0.5 is not under 0.5");
    let signal = [hold(Some(0.699_99), 5.0)].concat();
    assert_eq!(watch(&mut level(), &signal), []);
}

#[test]
fn updates_come_while_it_is_in_force_and_no_oftener_than_asked() {
    let body = LEVEL.replace("update_every: 0s", "update_every: 5s");
    let mut watcher = watcher(&one_rule(&body));
    let signal = [hold(Some(0.9), 20.0), hold(Some(0.0), 10.0)].concat();
    let decisions = watch(&mut watcher, &signal);
    assert_eq!(actions(&decisions), [Raise, Update, Update, Update, Clear]);
    for pair in decisions[..4].windows(2) {
        assert_eq!(pair[1].at.0 - pair[0].at.0, 80_000_u64.div_ceil(TICK) * TICK);
    }
}

#[test]
fn a_falling_condition_is_a_rising_one_upside_down() {
    let body = "when: {level: {of: distress, over: 2s, on: 0.2, off: 0.4, min_speech: 1s}}\n\
                clear_after: 0s\nupdate_every: 0s";
    let signal =
        [hold(Some(0.9), 4.0), hold(Some(0.1), 4.0), hold(Some(0.3), 9.0), hold(Some(0.9), 4.0)]
            .concat();
    let decisions = watch(&mut watcher(&one_rule(body)), &signal);
    assert_eq!(actions(&decisions), [Raise, Clear]);
    assert!(decisions[1].at.seconds() > 17.0, "0.3 lies between the two");
}

#[test]
fn a_rise_is_newer_half_less_older_half() {
    let body = "when: {rise: {of: distress, over: 8s, on: 0.3, off: 0.1, min_speech: 4s}}\n\
                clear_after: 0s\nupdate_every: 0s";
    let signal = [hold(Some(0.2), 10.0), hold(Some(0.8), 20.0)].concat();
    let mut watcher = watcher(&one_rule(body));
    let decisions = watch(&mut watcher, &signal);
    assert_eq!(actions(&decisions), [Raise, Clear]);
    // Half of the newer half must have risen by 0.6 for its mean to have risen by 0.3.
    assert!((decisions[0].at.seconds() - 12.0).abs() < 0.3, "{}", decisions[0].at);
    let measured = &decisions[0].evidence.conditions[0];
    assert_eq!(measured.what, "rise of distress over 8 s");
    assert!((0.3..0.35).contains(&measured.value.unwrap()), "{measured:?}");
    // Without an older half there is no rise.
    let signal = hold(Some(0.9), 20.0);
    assert_eq!(watch(&mut super::watcher(&one_rule(body)), &signal), []);
}

#[test]
fn a_share_is_of_the_speech_not_of_the_time() {
    let body = |bound: &str| {
        format!(
            "when: {{share: {{of: distress, {bound}, over: 8s, on: 0.6, off: 0.4, min_speech: 2s}}}}\n\
             update_every: 0s"
        )
    };
    // Two in three of what is said; half of the time nothing is.
    let cycle = [Some(0.5), None, Some(0.9), None, Some(0.2), None];
    let decisions = watch(&mut watcher(&one_rule(&body("at: 0.5"))), &cycle.repeat(20));
    assert_eq!(actions(&decisions), [Raise]);
    let decisions = watch(&mut watcher(&one_rule(&body("below: 0.5"))), &cycle.repeat(20));
    assert_eq!(actions(&decisions), [Raise]);
    let decisions = watch(&mut watcher(&one_rule(&body("at: 0.6"))), &cycle.repeat(20));
    assert_eq!(decisions, []);
}

#[test]
fn silence_holds_after_its_time_and_ends_with_any_voice() {
    let body = "when: {silence: {for: 4s}}\nclear_after: 0s\ncooldown: 0s\nupdate_every: 0s";
    let text = one_rule(body).replace("reason: why", "reason: '{{ silence }} s, {{ distress }}'");
    let mut watcher = watcher(&text);
    let signal = [hold(None, 6.0), hold(Some(0.1), 0.256), hold(None, 3.0)].concat();
    let decisions = watch(&mut watcher, &signal);
    assert_eq!(actions(&decisions), [Raise, Clear]);
    assert_eq!(decisions[0].at, SamplePos(64_000_u64.div_ceil(TICK) * TICK));
    assert_eq!(decisions[0].reason, "4 s, unknown");
    let evidence = &decisions[0].evidence;
    assert_eq!((evidence.speech_s, evidence.distress, evidence.emotions.len()), (0.0, None, 0));
    assert!((evidence.to_s - evidence.from_s - 4.0).abs() < 1e-9);
    // Voice ends it even where it is no evidence.
    let noise = Reading { voiced_hops: 1, affect: None, ..reading(0, 100, None) };
    let mut decisions = Vec::new();
    watcher.observe(&reading(0, 99, None), &mut decisions);
    watcher.observe(&noise, &mut decisions);
    assert_eq!(actions(&decisions), [Raise, Clear]);
}

#[test]
fn not_of_what_was_never_measured_raises_nothing_and_remembers_later() {
    let body = "when: {not: {level: {of: distress, over: 2s, on: 0.7, off: 0.5}}}\n\
                clear_after: 0s\nupdate_every: 0s";
    let mut watcher = watcher(&one_rule(body));
    assert_eq!(watch(&mut watcher, &hold(None, 60.0)), []);
    let mut watcher = super::watcher(&one_rule(body));
    let signal = [hold(Some(0.1), 2.0), hold(None, 60.0)].concat();
    assert_eq!(actions(&watch(&mut watcher, &signal)), [Raise], "a pause leaves it as it was");
}

#[test]
fn what_becomes_unsaid_clears() {
    let body = "when: {any: [{level: {of: distress, over: 2s, on: 0.7, off: 0.5}}, \
                {level: {of: angry, over: 10m, on: 0.7, off: 0.5}}]}\n\
                clear_after: 0s\nupdate_every: 0s";
    let signal = [hold(Some(0.9), 4.0), hold(Some(0.1), 4.0)].concat();
    assert_eq!(actions(&watch(&mut watcher(&one_rule(body)), &signal)), [Raise, Clear]);
}

#[test]
fn the_budget_swallows_raises_and_lets_those_in_force_clear() {
    let text = one_rule(LEVEL).replace("rules:", "budget: 1\nrules:").replace("10s", "0s");
    let mut watcher = watcher(&text);
    let wave = [hold(Some(0.9), 4.0), hold(Some(0.0), 4.0)].concat();
    let decisions = watch(&mut watcher, &wave.repeat(4));
    assert_eq!(actions(&decisions), [Raise, Clear]);
    assert!(watcher.spent());
    assert_eq!(watcher.suppressed(), 3, "each is counted once");
    let fresh = Watcher::new(Arc::clone(watcher.policy()));
    assert!(!fresh.spent() && fresh.suppressed() == 0);
}

#[test]
fn the_end_clears_what_says_so_and_once() {
    for (body, cleared) in [(LEVEL.to_owned(), 1), (LEVEL.replace(": clear", ": keep"), 0)] {
        let mut watcher = watcher(&one_rule(&body));
        let _ = watch(&mut watcher, &hold(Some(0.9), 5.0));
        let force: Vec<_> = watcher.in_force().map(|f| (f.rule.to_owned(), f.onset)).collect();
        assert_eq!(force, [("rule".to_owned(), SamplePos(4 * TICK))]);
        let mut decisions = Vec::new();
        watcher.finish(SamplePos(100_000), &mut decisions);
        watcher.finish(SamplePos(100_000), &mut decisions);
        assert_eq!(decisions.len(), cleared);
        assert_eq!(watcher.in_force().count(), 1 - cleared);
        if let [decision] = &decisions[..] {
            assert_eq!((decision.action, decision.at), (Clear, SamplePos(100_000)));
            assert!(decision.evidence.to_s < 100_000.0 / 16_000.0);
        }
    }
}

#[test]
fn a_rule_hears_its_channels_only() {
    let mut watcher = watcher(&one_rule(&format!("{LEVEL}channels: [1]")));
    let mut decisions = Vec::new();
    for index in 0..20 {
        for channel in 0..3 {
            watcher.observe(&reading(channel, index, Some(distress(0.9))), &mut decisions);
        }
    }
    let channels: Vec<u32> = decisions.iter().map(|decision| decision.channel).collect();
    assert_eq!(channels, [1]);
    assert_eq!(watcher.measurements(0), []);
    assert_eq!(watcher.measurements(1).len(), 1);
}

#[test]
fn a_decision_says_what_it_rests_on() {
    let body = "when: {level: {of: angry, over: 10s, on: 0.4, off: 0.2, min_speech: 1s}}";
    let text = one_rule(body).replace(
        "reason: why",
        "reason: '{{ rule }} {{ severity }} {{ channel }}: {{ angry | percent }}, {{ agitated }}, \
         {{ distress | percent }}, {{ seconds }} s'",
    );
    let signal = [hold(None, 2.048), hold(Some(0.8), 2.0)].concat();
    let decisions = watch(&mut watcher(&text), &signal);
    assert_eq!(decisions[0].reason, "rule high 0: 40 %, 0.4, 80 %, 0 s");
    let evidence = &decisions[0].evidence;
    assert_eq!((evidence.from_s, evidence.to_s, evidence.speech_s), (0.0, 3.072, 1.024));
    assert!((evidence.emotions["angry"] - 0.4).abs() < 1e-6);
    assert!((evidence.emotions["neutral"] - 0.6).abs() < 1e-6);
    assert_eq!(evidence.emotions.len(), 8);
    assert!((evidence.distress.unwrap() - 0.8).abs() < 1e-6);
    let measured = &evidence.conditions[0];
    assert_eq!(measured.what, "mean of angry over 10 s");
    assert_eq!((measured.on, measured.off, measured.holds), (0.4, 0.2, true));
}

#[test]
fn a_model_without_emotions_leaves_conditions_on_them_without_value() {
    let body = "when: {level: {of: angry, over: 2s, on: 0.4, off: 0.2}}";
    let policy = Policy::parse(&one_rule(body)).unwrap();
    assert!(policy.needs_emotions());
    let mut watcher = Watcher::new(Arc::new(policy));
    let mut decisions = Vec::new();
    for index in 0..40 {
        let affect = Affect { scores: None, ..distress(0.9) };
        watcher.observe(&reading(0, index, Some(affect)), &mut decisions);
    }
    assert_eq!(decisions, []);
    assert_eq!(watcher.measurements(0)[0].1.value, None);
}

#[test]
fn a_long_reason_is_cut_and_put_on_one_line() {
    let text = one_rule(LEVEL).replace("why", &format!("\"a\\nb {}\"", "ü".repeat(1000)));
    let decisions = watch(&mut watcher(&text), &hold(Some(0.9), 5.0));
    let reason = &decisions[0].reason;
    assert_eq!(reason.chars().count(), 500);
    assert!(reason.starts_with("a b ü") && reason.ends_with('…'));
}

#[test]
fn no_more_is_kept_than_the_longest_window_holds() {
    let mut watcher = level();
    let _ = watch(&mut watcher, &hold(Some(0.3), 600.0));
    assert_eq!(watcher.kept(0), 8, "2 s are 7.8 readings");
    let mut decisions = Vec::new();
    watcher.observe(&reading(0, 10_000, None), &mut decisions);
    assert_eq!(watcher.kept(0), 0);
}
