//! What a condition can look at, as whole millionths.
//!
//! Every value is rounded to a millionth when it comes in. Sums of whole numbers are exact, so a window's
//! sum can be kept by adding what enters and taking away what leaves, however long the stream is, and a
//! threshold of 0.7 is reached by the nearest 32-bit number to 0.7.

use crate::emotion::{EMOTIONS, Emotion, Scores};
use crate::tracking::Affect;

/// One, in the unit of all values.
pub(super) const MICRO: i64 = 1_000_000;
/// The values of a moment: the emotions in the order of [`Emotion::ALL`], distress, valence, arousal.
pub(super) const VALUES: usize = EMOTIONS + 3;

const DISTRESS: usize = EMOTIONS;
const VALENCE: usize = EMOTIONS + 1;
const AROUSAL: usize = EMOTIONS + 2;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// The sum of the probabilities of the emotions whose bit is set.
    Emotions(u8),
    /// Distress.
    Distress,
    /// Valence.
    Valence,
    /// Arousal.
    Arousal,
}

impl Signal {
    /// The probability of one emotion.
    pub(super) fn emotion(emotion: Emotion) -> Self {
        Self::Emotions(mask(emotion))
    }

    /// A signal by its name, but for groups.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "distress" => Some(Self::Distress),
            "valence" => Some(Self::Valence),
            "arousal" => Some(Self::Arousal),
            _ => name.parse().ok().map(Self::emotion),
        }
    }

    /// Its least value; the greatest is 1.
    pub(super) fn least(self) -> f64 {
        match self {
            Self::Emotions(_) | Self::Distress => 0.0,
            Self::Valence | Self::Arousal => -1.0,
        }
    }

    /// Its value, or its sum, out of all of a moment's, or of their sums.
    pub(super) fn of<T: Copy + Into<i64>>(self, values: &[T; VALUES]) -> i64 {
        let at = |index: usize| values.get(index).copied().map_or(0, Into::into);
        match self {
            Self::Emotions(mask) => {
                let chosen = values.iter().take(EMOTIONS).enumerate();
                chosen.filter(|(i, _)| mask >> i & 1 == 1).map(|(_, v)| (*v).into()).sum()
            }
            Self::Distress => at(DISTRESS),
            Self::Valence => at(VALENCE),
            Self::Arousal => at(AROUSAL),
        }
    }

    /// Whether more of `emotion` makes more of it, and it is about such emotions alone.
    pub(super) fn holds(self, emotion: Emotion) -> bool {
        match self {
            Self::Emotions(bits) => bits & mask(emotion) != 0,
            Self::Distress => emotion.distress() > 0.0,
            Self::Valence | Self::Arousal => false,
        }
    }

    /// Whether only a model of emotions has it.
    pub(super) fn needs_emotions(self) -> bool {
        matches!(self, Self::Emotions(_))
    }
}

/// The bit of one emotion.
pub(super) fn mask(emotion: Emotion) -> u8 {
    1 << emotion.index()
}

/// `affect` in millionths; `None` if anything in it is not finite.
pub(super) fn quantised(affect: &Affect) -> Option<[i32; VALUES]> {
    let mut values = [0_i32; VALUES];
    let scores = affect.scores.iter().flat_map(Scores::iter);
    let emotions = scores.map(|(emotion, p)| (emotion.index(), p));
    let others =
        [(DISTRESS, affect.distress), (VALENCE, affect.valence), (AROUSAL, affect.arousal)];
    for (index, value) in emotions.chain(others) {
        // No value is outside -1 to 1; the clamp keeps a defect elsewhere from reaching the sums.
        let value = f64::from(value).clamp(-1.0, 1.0);
        if !value.is_finite() {
            return None;
        }
        *values.get_mut(index)? = (value * MICRO as f64).round() as i32;
    }
    Some(values)
}

/// `values` in small numbers, given those of the tick before: most of what is saved of a channel. Emotions as
/// what they differ by, neutral as what it lacks to one, the rest as what it differs by from what follows from
/// the emotions.
pub(super) fn packed(values: &[i32; VALUES], before: &[i32; VALUES]) -> [i32; VALUES] {
    let mut packed = *values;
    for (slot, before) in packed.iter_mut().zip(before).take(EMOTIONS).skip(1) {
        *slot = slot.wrapping_sub(*before);
    }
    for (index, expected) in expected(values) {
        if let Some(slot) = packed.get_mut(index) {
            *slot = slot.wrapping_sub(expected);
        }
    }
    packed
}

/// The values that were [`packed`]; any, if they never were.
pub(super) fn unpacked(packed: &[i32; VALUES], before: &[i32; VALUES]) -> [i32; VALUES] {
    let mut values = *packed;
    for (slot, before) in values.iter_mut().zip(before).take(EMOTIONS).skip(1) {
        *slot = slot.wrapping_add(*before);
    }
    for (index, expected) in expected(&values) {
        if let Some(slot) = values.get_mut(index) {
            *slot = slot.wrapping_add(expected);
        }
    }
    values
}

/// About what the other values are, given the emotions but neutral: neutral first, for it is one of them.
fn expected(values: &[i32; VALUES]) -> [(usize, i32); 4] {
    let emotions = || Emotion::ALL.into_iter().zip(values).skip(1);
    let sum: i64 = emotions().map(|(_, value)| i64::from(*value)).sum();
    // Neutral is at the origin of all three, so that it does not count.
    let mean = |weight: fn(Emotion) -> f32| {
        let parts = emotions().map(|(emotion, p)| f64::from(weight(emotion)) * f64::from(*p));
        parts.sum::<f64>().round() as i32
    };
    [
        (Emotion::Neutral.index(), (MICRO - sum) as i32),
        (DISTRESS, mean(Emotion::distress)),
        (VALENCE, mean(|emotion| emotion.circumplex().0)),
        (AROUSAL, mean(|emotion| emotion.circumplex().1)),
    ]
}

/// A number of a policy in millionths.
pub(super) fn micros(value: f64) -> i64 {
    (value * MICRO as f64).round() as i64
}
