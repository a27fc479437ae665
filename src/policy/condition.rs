//! Whether a condition holds, in three values: it does, it does not, it cannot be said.
//!
//! A single condition that has had no value yet cannot be said. Once it has had one, it remembers: with too
//! little speech for a value it stays as it was, and between its two thresholds too. So it never becomes
//! unsaid again, and a pause neither raises nor clears anything by itself.
//!
//! Conditions put together follow SQL (Kleene's logic): `all` is off if one part is, on if all are, else
//! unsaid; `any` is on if one part is, off if all are off, else unsaid; `not` of the unsaid is unsaid. A rule
//! holds only if its `when` *does*, as a row is chosen in SQL only if its WHERE is true. Therefore `not` of
//! a condition that never had a value raises nothing; and a rule in force whose `when` becomes unsaid, as
//! `any` can when the part that held goes off and the other has not been measured yet, clears, for nothing
//! that was heard speaks for it any more.

use super::decision::Measurement;
use super::rules::{Expression, Leaf, Measure, Thresholds};
use super::signal::MICRO;
use super::timeline::Timeline;
use super::words;

/// On, off, or not to be said.
pub(super) type Truth = Option<bool>;

/// Whether `expression` holds, given its conditions.
pub(super) fn holds(expression: &Expression, leaves: &[Truth]) -> Truth {
    match expression {
        Expression::Leaf(index) => leaves.get(*index).copied().flatten(),
        Expression::Not(part) => holds(part, leaves).map(|on| !on),
        Expression::All(parts) => decided_by(parts, leaves, false),
        Expression::Any(parts) => decided_by(parts, leaves, true),
    }
}

/// `word` as soon as one part is; its opposite if all parts are that.
fn decided_by(parts: &[Expression], leaves: &[Truth], word: bool) -> Truth {
    let mut unsaid = false;
    for part in parts {
        match holds(part, leaves) {
            Some(on) if on == word => return Some(word),
            Some(_) => {}
            None => unsaid = true,
        }
    }
    (!unsaid).then_some(!word)
}

/// A value as a fraction of whole numbers, so that comparing is exact: numerator in millionths, denominator
/// greater than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    fn of(numerator: i128, denominator: i128) -> Option<Self> {
        (denominator > 0).then_some(Self { numerator, denominator })
    }

    /// Whether it lies at `threshold` or beyond it, upwards or downwards.
    fn reaches(self, threshold: i64, upwards: bool) -> bool {
        let threshold = i128::from(threshold) * self.denominator;
        if upwards { self.numerator >= threshold } else { self.numerator <= threshold }
    }

    fn value(self) -> f32 {
        (self.numerator as f64 / self.denominator as f64 / MICRO as f64) as f32
    }
}

fn ratio(measure: &Measure, timeline: &Timeline) -> Option<Ratio> {
    match *measure {
        Measure::Level { signal, window, min_speech } => {
            let sums = timeline.sums(window)?;
            let speech = sums.weight(signal);
            let sum = signal.of(&sums.values);
            (speech >= min_speech).then(|| Ratio::of(sum.into(), speech.into())).flatten()
        }
        Measure::Rise { signal, whole, newer, min_speech } => {
            let (whole, newer) = (timeline.sums(whole)?, timeline.sums(newer)?);
            let new_speech = newer.weight(signal);
            let old_speech = whole.weight(signal).checked_sub(new_speech)?;
            if new_speech < min_speech || old_speech < min_speech {
                return None;
            }
            let new_sum = i128::from(signal.of(&newer.values));
            let old_sum = i128::from(signal.of(&whole.values)) - new_sum;
            let (new_speech, old_speech) = (i128::from(new_speech), i128::from(old_speech));
            // new / new_speech - old / old_speech on one denominator.
            Ratio::of(new_sum * old_speech - old_sum * new_speech, new_speech * old_speech)
        }
        Measure::Share { signal, share, window, min_speech, .. } => {
            let speech = timeline.sums(window)?.weight(signal);
            let beyond = i128::from(timeline.beyond(share)?) * i128::from(MICRO);
            (speech >= min_speech).then(|| Ratio::of(beyond, speech.into())).flatten()
        }
        Measure::Silence { .. } => None,
    }
}

fn turned(thresholds: Thresholds, value: Ratio, before: Truth) -> bool {
    let threshold = if before == Some(true) { thresholds.off } else { thresholds.on };
    value.reaches(threshold, thresholds.rising())
}

/// Whether `leaf` holds now, `silent` samples after the last speech, having been `before`.
pub(super) fn leaf(leaf: &Leaf, timeline: &Timeline, silent: u64, before: Truth) -> Truth {
    match leaf.measure {
        Measure::Silence { samples } => Some(silent >= samples),
        _ => match ratio(&leaf.measure, timeline) {
            Some(value) => Some(turned(leaf.thresholds, value, before)),
            None => before,
        },
    }
}

/// The value of `leaf` now, for people.
pub(super) fn measurement(
    leaf: &Leaf,
    timeline: &Timeline,
    silent: u64,
    holds: Truth,
) -> Measurement {
    let value = match leaf.measure {
        Measure::Silence { .. } => Some(crate::units::SamplePos(silent).seconds() as f32),
        _ => ratio(&leaf.measure, timeline).map(Ratio::value),
    };
    let number = |micros: i64| (micros as f64 / MICRO as f64) as f32;
    Measurement {
        what: words::what(leaf),
        value,
        on: number(leaf.thresholds.on),
        off: number(leaf.thresholds.off),
        holds: holds == Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(index: usize) -> Expression {
        Expression::Leaf(index)
    }

    #[test]
    fn what_cannot_be_said_follows_sql() {
        let leaves = [Some(true), Some(false), None];
        let (on, off, unsaid) = (|| leaf(0), || leaf(1), || leaf(2));
        let truth = |expression| holds(&expression, &leaves);
        assert_eq!(truth(Expression::All(vec![on(), unsaid()])), None);
        assert_eq!(truth(Expression::All(vec![off(), unsaid()])), Some(false));
        assert_eq!(truth(Expression::All(vec![unsaid(), off()])), Some(false));
        assert_eq!(truth(Expression::All(vec![on(), on()])), Some(true));
        assert_eq!(truth(Expression::Any(vec![off(), unsaid()])), None);
        assert_eq!(truth(Expression::Any(vec![unsaid(), on()])), Some(true));
        assert_eq!(truth(Expression::Any(vec![off(), off()])), Some(false));
        assert_eq!(truth(Expression::Not(Box::new(unsaid()))), None);
        assert_eq!(truth(Expression::Not(Box::new(off()))), Some(true));
        assert_eq!(truth(leaf(9)), None);
    }
}
