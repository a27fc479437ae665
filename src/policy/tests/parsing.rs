//! Claims about what is read, what is refused, and what people are told of it.

use super::*;

const LEVEL: &str = "when: {level: {of: distress, over: 10s, on: 0.7, off: 0.5}}";

/// Line, column and message of what is wrong with `text`.
fn fault(text: &str) -> (u32, u32, String) {
    let error = Policy::parse(text).expect_err("it must be refused");
    (error.line, error.column, error.message())
}

/// The message about a rule with `body`, which must point at `at` in the text.
fn refused(body: &str, at: &str) -> String {
    let text = one_rule(body);
    let (line, column, message) = fault(&text);
    let found: String = text
        .lines()
        .nth(line as usize - 1)
        .unwrap_or_else(|| panic!("line {line}: {message}"))
        .chars()
        .skip(column as usize - 1)
        .collect();
    assert!(found.starts_with(at), "{message}: points at {found:?}");
    message
}

#[test]
fn a_small_policy_is_read_with_its_defaults() {
    let text = one_rule(LEVEL);
    let policy = Policy::parse(&text).unwrap();
    assert_eq!((policy.name(), policy.budget()), ("test", 10));
    assert!(!policy.needs_emotions());
    let rule = &policy.rules()[0];
    assert_eq!((rule.dwell, rule.clear_after), (0, 5 * 16_000));
    assert_eq!((rule.cooldown, rule.update_every), (60 * 16_000, Some(60 * 16_000)));
}

#[test]
fn the_version_names_the_text() {
    let text = one_rule(LEVEL);
    let one = Policy::parse(&text).unwrap();
    let other = Policy::parse(&format!("{text}# a comment\n")).unwrap();
    assert!(one.version().starts_with("1+") && one.version().len() == 10, "{}", one.version());
    assert_ne!(one.version(), other.version());
}

#[test]
fn a_fault_of_sense_is_told_with_its_path_and_place() {
    let body = "when:\n  level:\n    of: distress\n    over: 10s\n    on: 0.7\n    off: 0.7";
    let error = Policy::parse(&one_rule(body)).unwrap_err();
    let wanted = "line 17, column 14: rules[0].when.level.off: must differ from on (0.7), or the \
                  condition would flap";
    assert_eq!(error.to_string(), wanted);
    let excerpt = "   16 |         on: 0.7\n   17 |         off: 0.7\n      |              ^\n";
    assert_eq!(error.excerpt(), excerpt);
}

#[test]
fn faults_of_sense_point_at_the_value() {
    let level = |rest: &str| format!("when: {{level: {{of: distress, over: 10s, {rest}}}}}");
    let message = refused(&level("on: 1.5, off: 0.5"), "1.5");
    assert_eq!(message, "rules[0].when.level.on: must be 0 to 1, not 1.5");
    refused(&level("on: .nan, off: 0.5"), ".nan");
    refused(&level("on: 0.5, off: -0.1"), "-0.1");
    let message = refused(&level("on: 0.7, off: 0.5, min_speech: 11s"), "11s");
    assert_eq!(message, "rules[0].when.level.min_speech: must be 0 s to 10 s, not 11 s");
    let message = refused("when: {level: {of: joy, over: 10s, on: 0.7, off: 0.5}}", "joy");
    assert!(message.contains("unknown signal \"joy\"; known are distress, "), "{message}");
    assert!(message.ends_with("surprise, agitated"), "{message}");
    refused("when: {level: {of: fear, over: 900ms, on: 0.7, off: 0.5}}", "900ms");
    refused("when: {level: {of: fear, over: 11m, on: 0.7, off: 0.5}}", "11m");
    let message = refused("when: {silence: {for: soon}}", "soon");
    assert!(message.contains("\"soon\" is no duration"), "{message}");
    refused("when: {share: {of: fear, over: 9s, on: 0.7, off: 0.5}}", "{of: fear");
    refused(
        "when: {share: {of: fear, at: 0.5, below: 0.1, over: 9s, on: 0.7, off: 0.5}}",
        "{of: fear",
    );
    refused("when: {share: {of: valence, below: -1.1, over: 9s, on: 0.7, off: 0.5}}", "-1.1");
    refused("when: {rise: {of: fear, over: 9s, on: 1.1, off: 0.5}}", "1.1");
    refused("when: {all: []}", "[]");
    refused(&format!("{LEVEL}\ndwell: 25h"), "25h");
    refused(&format!("{LEVEL}\nchannels: [0, 8]"), "8]");
    refused(&format!("{LEVEL}\nchannels: [1, 1]"), "1]");
    refused(&format!("{LEVEL}\nchannels: []"), "[]");
}

#[test]
fn a_rise_of_valence_ranges_over_two() {
    let rise = |on| format!("when: {{rise: {{of: valence, over: 9s, on: {on}, off: -0.5}}}}");
    Policy::parse(&one_rule(&rise("-2"))).unwrap();
    refused(&rise("-2.1"), "-2.1");
}

#[test]
fn faults_of_shape_are_told_with_their_place() {
    refused(&format!("{LEVEL}\nseverity2: high"), "severity2");
    refused("when: {level: {of: fear, over: 9s, on: 0.7, off: 0.5, also: 1}}", "also");
    refused("when: {silence: {for: 45s, of: fear}}", "of: fear");
    refused("when: {unless: {for: 45s}}", "unless");
    let message = refused("when: {level: {of: fear, over: 9s, on: 0.7}}", "on: 0.7");
    assert!(message.contains("off"), "{message}");
    refused("when: {level: {of: fear, over: 9s, on: much, off: 0.5}}", "much");
    refused(&format!("{LEVEL}\ndwell: 1s\ndwell: 2s"), "dwell: 2s");
    let text = one_rule(LEVEL).replace("severity: high", "severity: dire");
    let (line, _, message) = fault(&text);
    assert_eq!(line, 10, "{message}");
    assert!(message.contains("dire") && message.contains("advisory"), "{message}");
}

#[test]
fn what_would_hide_or_grow_is_refused() {
    let (line, _, message) = fault(&one_rule("when: &a {silence: {for: 45s}}"));
    assert!(line == 12 || line == 0, "{line}: {message}");
    fault(&one_rule("when: *a"));
    fault(&one_rule("<<: {dwell: 1s}\nwhen: {silence: {for: 45s}}"));
    fault(&one_rule("when: !x {silence: {for: 45s}}"));
    fault(&format!("{}---\na: 1\n", one_rule(LEVEL)));
    let long = format!("{}#{}\n", one_rule(LEVEL), "x".repeat(64 * 1024));
    assert_eq!(fault(&long).0, 0);
    assert!(Policy::parse(&long).unwrap_err().to_string().starts_with("the file has 6"));
}

#[test]
fn names_are_checked() {
    let text = one_rule(LEVEL);
    for (from, to) in [
        ("name: test", "name: Test"),
        ("name: test", "name: ''"),
        ("version: \"1\"", "version: 1+1"),
        ("undertone.policy/v1", "undertone.policy/v2"),
        ("description: For tests.", "description: ''"),
        ("agitated:", "distress:"),
        ("agitated:", "seconds:"),
        ("agitated:", "if:"),
        ("agitated:", "low-mood:"),
        ("[angry, fear]", "[angry, angry]"),
        ("[angry, fear]", "[angry, rage]"),
        ("[angry, fear]", "[]"),
        ("title: A rule", "title: \"A\\nrule\""),
        ("rules:", "budget: 0\nrules:"),
        ("rules:", "budget: 1001\nrules:"),
    ] {
        assert!(text.contains(from), "{from}");
        let (line, column, message) = fault(&text.replacen(from, to, 1));
        assert!(line > 0 && column > 0, "{to}: {message}");
    }
    let mut twice = text.clone();
    twice.push_str(text.split_once("rules:\n").unwrap().1);
    let (line, _, message) = fault(&twice);
    assert_eq!((line, message.as_str()), (13, "rules[1].name: \"rule\" stands here twice"));
}

#[test]
fn there_are_bounds_to_depth_and_number() {
    let leaf = "{silence: {for: 45s}}";
    let nested = |n: usize| format!("when: {}{leaf}{}", "{not: ".repeat(n), "}".repeat(n));
    Policy::parse(&one_rule(&nested(7))).unwrap();
    assert!(refused(&nested(8), leaf).contains("8 deep"));
    fault(&one_rule(&nested(5000)));
    let many = |n: usize| format!("when: {{any: [{}]}}", vec![leaf; n].join(", "));
    Policy::parse(&one_rule(&many(64))).unwrap();
    fault(&one_rule(&many(65)));
    let halves = vec![format!("{{any: [{}]}}", vec![leaf; 33].join(", ")); 2].join(", ");
    let message = fault(&one_rule(&format!("when: {{all: [{halves}]}}"))).2;
    assert!(message.contains("1 to 64 conditions, not 66"), "{message}");
}

#[test]
fn a_reason_may_say_values_and_choose_and_nothing_else() {
    let reason =
        |reason: &str| one_rule(LEVEL).replace("reason: why", &format!("reason: {reason}"));
    for good in [
        "'{{ distress | percent }} {{ agitated }} {{ fear | round(1) if fear else 0 }} {{ valence | round }} {{ rule }}'",
        "'{% if valence is none %}{{ silence }}{% else %}{{ channel }}{% endif %}'",
        "Plain.",
    ] {
        Policy::parse(&reason(good)).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    let (line, column, message) = fault(&reason("'{{ distres }} {{ x }}'"));
    assert_eq!((line, column), (11, 13));
    assert!(message.starts_with("rules[0].reason: unknown distres, x; known are distress, "));
    assert!(message.ends_with("agitated, seconds, silence, rule, severity, channel"), "{message}");
    for bad in [
        "'{{ distress '",
        "'{{ distress | dance }}'",
        "'{{ \"x\" * 99999999 }}'",
        "'{% for x in [1, 2] %}{{ x }}{% endfor %}'",
        "'{% set a = 1 %}{{ a }}'",
        "'{% macro a() %}{% endmacro %}'",
        "'{{ range(9) }}'",
        "'{{ distress + 1 }}'",
        "'{{ rule | percent }}'",
        "''",
    ] {
        assert_eq!(fault(&reason(bad)).0, 11, "{bad}");
    }
}

#[test]
fn rules_are_explained_in_plain_sentences() {
    let explain = |body: &str| Policy::parse(&one_rule(body)).unwrap().explain();
    let level = "when: {level: {of: distress, over: 10s, on: 0.65, off: 0.45}}\n\
                 dwell: 3s\ncooldown: 2m\nupdate_every: 0s";
    assert_eq!(
        explain(level),
        "A rule (rule): raises a HIGH escalation once the mean of distress over the last 10 s has \
         been at 0.65 or more for 3 s; clears it once it has been under 0.45 for 5 s; then stays \
         quiet for 2 min. Tells nothing in between.\n\n\
         At most 10 escalations are raised in a session.\n"
    );
    let silence = "when: {silence: {for: 45s}}\nclear_after: 0s\nchannels: [1]\n\
                   on_session_end: clear";
    assert!(
        explain(silence).starts_with(
            "A rule (rule): raises a HIGH escalation once nobody has spoken for 45 s; clears it \
             once somebody speaks again; then stays quiet for 1 min. Tells how it stands every \
             1 min in between. Listens to channel 1 only. The end of the session clears it."
        ),
        "{}",
        explain(silence)
    );
    let both = "when: {all: [{level: {of: valence, over: 9s, on: -0.5, off: 0}}, \
                {not: {any: [{silence: {for: 5s}}, \
                {share: {of: agitated, at: 0.5, over: 30s, on: 0.6, off: 0.4}}]}}]}\ndwell: 2s";
    assert!(
        explain(both).starts_with(
            "A rule (rule): raises a HIGH escalation once this has been so for 2 s: the mean of valence over the \
             last 9 s is at -0.5 or less (until above 0) and it is not so that [nobody has spoken \
             for 5 s or the share of speech with agitated at 0.5 or more in the last 30 s is at \
             0.6 or more (until under 0.4)]; clears it once that has not been so for 5 s"
        ),
        "{}",
        explain(both)
    );
}
