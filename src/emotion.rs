//! The vocabulary: emotions, probabilities over them, and what is derived from those.
//!
//! Valence and arousal of the default model are not heard directly: they are the expectation of fixed
//! per-emotion coordinates under the probabilities. The coordinates follow the circumplex model
//! (Russell 1980, "A circumplex model of affect", J. Pers. Soc. Psychol. 39) with neutral at the
//! origin; they are conventions, not measurements of a person. Small speech models know arousal well
//! and valence badly, and no table changes that.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of the eight emotions of the four corpora.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Emotion {
    /// Neutral.
    Neutral,
    /// Calm.
    Calm,
    /// Happiness.
    Happy,
    /// Sadness.
    Sad,
    /// Anger.
    Angry,
    /// Fear.
    Fear,
    /// Disgust.
    Disgust,
    /// Surprise.
    Surprise,
}

/// The number of emotions.
pub const EMOTIONS: usize = 8;

impl Emotion {
    /// All emotions, in the order of every array of scores.
    pub const ALL: [Self; EMOTIONS] = [
        Self::Neutral,
        Self::Calm,
        Self::Happy,
        Self::Sad,
        Self::Angry,
        Self::Fear,
        Self::Disgust,
        Self::Surprise,
    ];

    /// The lower-case name used in manifests, files and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Neutral => "neutral",
            Self::Calm => "calm",
            Self::Happy => "happy",
            Self::Sad => "sad",
            Self::Angry => "angry",
            Self::Fear => "fear",
            Self::Disgust => "disgust",
            Self::Surprise => "surprise",
        }
    }

    /// Its place in [`Emotion::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Valence and arousal, each in [-1, 1], on the circumplex.
    pub fn circumplex(self) -> (f32, f32) {
        match self {
            Self::Neutral => (0.0, 0.0),
            Self::Calm => (0.4, -0.6),
            Self::Happy => (0.8, 0.5),
            Self::Sad => (-0.7, -0.5),
            Self::Angry => (-0.6, 0.8),
            Self::Fear => (-0.7, 0.7),
            Self::Disgust => (-0.7, 0.2),
            Self::Surprise => (0.2, 0.8),
        }
    }

    /// How much of this emotion counts as distress, in [0, 1]: the states in which a carer would want
    /// to be called count whole, disgust half.
    pub fn distress(self) -> f32 {
        match self {
            Self::Sad | Self::Angry | Self::Fear => 1.0,
            Self::Disgust => 0.5,
            Self::Neutral | Self::Calm | Self::Happy | Self::Surprise => 0.0,
        }
    }
}

impl fmt::Display for Emotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is not one of the eight.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown emotion {0:?}; known are neutral, calm, happy, sad, angry, fear, disgust, surprise"
)]
pub struct UnknownEmotion(pub String);

impl FromStr for Emotion {
    type Err = UnknownEmotion;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|emotion| emotion.name() == name)
            .ok_or_else(|| UnknownEmotion(name.to_owned()))
    }
}

/// Probabilities over the eight emotions: finite, not negative, summing to 1. An emotion that a model
/// does not know has probability 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f32; EMOTIONS]", into = "[f32; EMOTIONS]")]
pub struct Scores([f32; EMOTIONS]);

/// How far from 1 the sum of probabilities may be that were saved: means of means round.
const SUM_TOLERANCE: f32 = 1e-2;

/// Numbers that are no probabilities over the emotions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("probabilities must be 0 to 1 and sum to 1")]
pub struct NoProbabilities;

impl TryFrom<[f32; EMOTIONS]> for Scores {
    type Error = NoProbabilities;

    fn try_from(scores: [f32; EMOTIONS]) -> Result<Self, NoProbabilities> {
        let sum: f32 = scores.iter().sum();
        let all = scores.iter().all(|score| (0.0..=1.0 + SUM_TOLERANCE).contains(score));
        let fits = all && (sum - 1.0).abs() <= SUM_TOLERANCE;
        fits.then_some(Self(scores)).ok_or(NoProbabilities)
    }
}

impl From<Scores> for [f32; EMOTIONS] {
    fn from(scores: Scores) -> Self {
        scores.0
    }
}

impl Scores {
    /// The softmax of `logits` over `labels`, computed about the largest logit so that it cannot
    /// overflow. `None` if a logit is not finite, or the two slices are empty or of unequal length.
    pub fn from_logits(labels: &[Emotion], logits: &[f32]) -> Option<Self> {
        if labels.is_empty()
            || labels.len() != logits.len()
            || logits.iter().any(|l| !l.is_finite())
        {
            return None;
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut scores = [0.0_f32; EMOTIONS];
        let mut sum = 0.0;
        for (label, logit) in labels.iter().zip(logits) {
            let weight = (logit - max).exp();
            if let Some(slot) = scores.get_mut(label.index()) {
                *slot += weight;
            }
            sum += weight;
        }
        for score in &mut scores {
            *score /= sum;
        }
        Some(Self(scores))
    }

    /// The mean of `self` and `other`, `other` weighing `weight` in [0, 1].
    #[must_use]
    pub fn blend(&self, other: &Self, weight: f32) -> Self {
        let mut scores = self.0;
        for (score, theirs) in scores.iter_mut().zip(other.0) {
            *score += weight * (theirs - *score);
        }
        Self(scores)
    }

    /// The probability of one emotion.
    pub fn of(&self, emotion: Emotion) -> f32 {
        self.0.get(emotion.index()).copied().unwrap_or_default()
    }

    /// Each emotion with its probability, in the order of [`Emotion::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Emotion, f32)> + '_ {
        Emotion::ALL.into_iter().zip(self.0)
    }

    /// The most probable emotion and its probability; of equals the first.
    pub fn top(&self) -> (Emotion, f32) {
        self.iter().fold((Emotion::Neutral, f32::NEG_INFINITY), |best, next| {
            if next.1 > best.1 { next } else { best }
        })
    }

    /// Expected valence and arousal, each in [-1, 1].
    pub fn circumplex(&self) -> (f32, f32) {
        self.iter().fold((0.0, 0.0), |(valence, arousal), (emotion, p)| {
            let (v, a) = emotion.circumplex();
            (valence + p * v, arousal + p * a)
        })
    }

    /// Expected distress, in [0, 1].
    pub fn distress(&self) -> f32 {
        self.iter().map(|(emotion, p)| p * emotion.distress()).sum::<f32>().clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scores_are_finite_and_sum_to_one(logits in prop::collection::vec(-1e30_f32..1e30, 8)) {
            let scores = Scores::from_logits(&Emotion::ALL, &logits).unwrap();
            let sum: f32 = scores.iter().map(|(_, p)| p).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5);
            prop_assert!(scores.iter().all(|(_, p)| p.is_finite() && p >= 0.0));
            let (valence, arousal) = scores.circumplex();
            prop_assert!(valence.abs() <= 1.0 && arousal.abs() <= 1.0);
        }
    }

    #[test]
    fn logits_that_are_not_finite_give_no_scores() {
        let mut logits = [0.0; EMOTIONS];
        logits[3] = f32::NAN;
        assert_eq!(Scores::from_logits(&Emotion::ALL, &logits), None);
        assert_eq!(Scores::from_logits(&Emotion::ALL, &[]), None);
    }

    #[test]
    fn names_round_trip() {
        for emotion in Emotion::ALL {
            assert_eq!(emotion.name().parse(), Ok(emotion));
        }
        assert!("bored".parse::<Emotion>().is_err());
    }
}
