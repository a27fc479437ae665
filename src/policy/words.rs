//! Conditions and rules in plain sentences.

use std::fmt::Write as _;
use std::time::Duration;

use super::rules::{Bound, Expression, Leaf, Measure, Policy, Rule};
use super::signal::MICRO;
use crate::units::samples_to_duration;

/// A duration as people say it: 500 ms, 2.5 s, 90 s, 2 min, 1 h.
pub(super) fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0 s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{} h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{} min", millis / 60_000),
        _ if millis >= 1000 => format!("{} s", millis as f64 / 1000.0),
        _ => format!("{millis} ms"),
    }
}

/// A number of millionths, without needless zeros.
fn number(micros: i64) -> String {
    format!("{}", micros as f64 / MICRO as f64)
}

/// What a condition measures: "mean of distress over 10 s".
pub(super) fn what(leaf: &Leaf) -> String {
    let (signal, over) = (&leaf.signal, span(leaf.over));
    match leaf.measure {
        Measure::Level { .. } => format!("mean of {signal} over {over}"),
        Measure::Rise { .. } => format!("rise of {signal} over {over}"),
        Measure::Share { bound, .. } => {
            format!("share of speech with {signal} {} over {over}", beyond(bound))
        }
        Measure::Silence { .. } => "seconds without speech".to_owned(),
    }
}

/// The same for a sentence: "the mean of distress over the last 10 s".
fn subject(leaf: &Leaf) -> String {
    let (signal, over) = (&leaf.signal, span(leaf.over));
    match leaf.measure {
        Measure::Level { .. } => format!("the mean of {signal} over the last {over}"),
        Measure::Rise { .. } => {
            format!("the rise of {signal} from the older to the newer half of the last {over}")
        }
        Measure::Share { bound, .. } => {
            format!("the share of speech with {signal} {} in the last {over}", beyond(bound))
        }
        Measure::Silence { .. } => String::new(),
    }
}

fn beyond(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(value) => format!("at {} or more", number(value)),
        Bound::AtMost(value) => format!("at {} or less", number(value)),
    }
}

fn begins(leaf: &Leaf) -> String {
    let side = if leaf.thresholds.rising() { "more" } else { "less" };
    format!("at {} or {side}", number(leaf.thresholds.on))
}

fn ends(leaf: &Leaf) -> String {
    let side = if leaf.thresholds.rising() { "under" } else { "above" };
    format!("{side} {}", number(leaf.thresholds.off))
}

fn is_silence(leaf: &Leaf) -> bool {
    matches!(leaf.measure, Measure::Silence { .. })
}

/// A condition as a clause: "the mean of distress over the last 10 s is at 0.7 or more (until under 0.5)".
fn clause(leaf: &Leaf) -> String {
    if is_silence(leaf) {
        return format!("nobody has spoken for {}", span(leaf.over));
    }
    format!("{} is {} (until {})", subject(leaf), begins(leaf), ends(leaf))
}

fn clauses(policy: &Policy, expression: &Expression, inner: bool) -> String {
    let join = |parts: &[Expression], word: &str| {
        let parts: Vec<String> = parts.iter().map(|part| clauses(policy, part, true)).collect();
        let text = parts.join(word);
        if inner && parts.len() > 1 { format!("[{text}]") } else { text }
    };
    match expression {
        Expression::All(parts) => join(parts, " and "),
        Expression::Any(parts) => join(parts, " or "),
        Expression::Not(part) => format!("it is not so that {}", clauses(policy, part, true)),
        Expression::Leaf(index) => policy.leaves.get(*index).map(clause).unwrap_or_default(),
    }
}

/// The condition that a rule consists of, if it is only one.
fn only<'a>(policy: &'a Policy, rule: &Rule) -> Option<&'a Leaf> {
    match rule.when {
        Expression::Leaf(index) => policy.leaves.get(index),
        _ => None,
    }
}

fn raise_and_clear(policy: &Policy, rule: &Rule) -> (String, String) {
    let dwell = span(samples_to_duration(rule.dwell));
    let off_for = span(samples_to_duration(rule.clear_after));
    let (dwells, lingers) = (rule.dwell > 0, rule.clear_after > 0);
    match only(policy, rule) {
        Some(leaf) if is_silence(leaf) => {
            let more = if dwells { format!(", and for {dwell} more") } else { String::new() };
            let again = "somebody speaks again".to_owned();
            let again =
                if lingers { format!("the silence has been over for {off_for}") } else { again };
            (format!("{}{more}", clause(leaf)), again)
        }
        Some(leaf) => {
            let (on, off) = (begins(leaf), ends(leaf));
            let raise = if dwells {
                format!("{} has been {on} for {dwell}", subject(leaf))
            } else {
                format!("{} is {on}", subject(leaf))
            };
            let clear = if lingers {
                format!("it has been {off} for {off_for}")
            } else {
                format!("it is {off}")
            };
            (raise, clear)
        }
        None => {
            let text = clauses(policy, &rule.when, false);
            let raise = if dwells { format!("this has been so for {dwell}: {text}") } else { text };
            let clear = if lingers {
                format!("that has not been so for {off_for}")
            } else {
                "that is so no more".to_owned()
            };
            (raise, clear)
        }
    }
}

fn rule(policy: &Policy, rule: &Rule) -> String {
    let (raise, clear) = raise_and_clear(policy, rule);
    let severity = rule.severity.name().to_uppercase();
    let article = if severity.starts_with('A') { "an" } else { "a" };
    let mut text = format!(
        "{} ({}): raises {article} {severity} escalation once {raise}; clears it once {clear}",
        rule.title, rule.name
    );
    if rule.cooldown > 0 {
        let quiet = span(samples_to_duration(rule.cooldown));
        let _ = write!(text, "; then stays quiet for {quiet}");
    }
    text.push('.');
    match rule.update_every {
        Some(every) => {
            let every = span(samples_to_duration(every));
            let _ = write!(text, " Tells how it stands every {every} in between.");
        }
        None => text.push_str(" Tells nothing in between."),
    }
    if let Some(channels) = &rule.channels {
        let numbers: Vec<String> = channels.iter().map(ToString::to_string).collect();
        let noun = if numbers.len() == 1 { "channel" } else { "channels" };
        let _ = write!(text, " Listens to {noun} {} only.", numbers.join(", "));
    }
    if rule.clears_at_end {
        text.push_str(" The end of the session clears it.");
    }
    text
}

/// Every rule in a sentence or two, one paragraph each, and the budget.
pub(super) fn explain(policy: &Policy) -> String {
    let mut text = String::new();
    for one in &policy.rules {
        text.push_str(&rule(policy, one));
        text.push_str("\n\n");
    }
    let noun = if policy.budget == 1 { "escalation is" } else { "escalations are" };
    let _ = writeln!(text, "At most {} {noun} raised in a session.", policy.budget);
    text
}
