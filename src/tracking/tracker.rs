//! Estimates out of model outputs: calibration, smoothing over utterances, abstention.
//!
//! In: a model's outputs, one per step, and how much speech the utterance has had. Out: the rolling
//! [`Judgement`] and, at an utterance's end, its final one. A streaming model pools over the utterance by
//! itself, so its last output *is* the utterance's estimate. The rolling estimate carries the previous
//! utterance over into a new one, whose first steps know little: it fades with every step,
//! `carry^steps`, so that the estimate moves instead of jumping.

use serde::{Deserialize, Serialize};

use crate::emotion::{Emotion, Scores};
use crate::model::{Dimension, Manifest, Output};
use crate::state::Misfit;

/// How estimates are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrackerSettings {
    /// Hops of speech in an utterance before an estimate stops abstaining.
    pub min_speech_hops: u64,
    /// Confidence under which an estimate abstains, 0 to 1.
    pub min_confidence: f32,
    /// What is left of the previous utterance's weight after each step of a new one, 0 to 1.
    pub carry: f32,
}

/// How valence and arousal came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DimensionSource {
    /// From the emotion probabilities, see [`crate::emotion`].
    Emotions,
    /// The model's own.
    Model,
}

/// What speech sounds like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affect {
    /// Probabilities, for a model of emotions.
    pub scores: Option<Scores>,
    /// Valence, -1 to 1.
    pub valence: f32,
    /// Arousal, -1 to 1.
    pub arousal: f32,
    /// How the two came about.
    pub source: DimensionSource,
    /// Distress, 0 to 1.
    pub distress: f32,
}

impl Affect {
    fn from_scores(scores: Scores) -> Self {
        let (valence, arousal) = scores.circumplex();
        Self {
            scores: Some(scores),
            valence,
            arousal,
            source: DimensionSource::Emotions,
            distress: scores.distress(),
        }
    }

    fn from_dimensions(valence: f32, arousal: f32) -> Self {
        // Unpleasant and activated at once is what distress sounds like to such a model.
        let distress = (-valence).max(0.0) * (0.5 + 0.5 * arousal);
        Self {
            scores: None,
            valence,
            arousal,
            source: DimensionSource::Model,
            distress: distress.clamp(0.0, 1.0),
        }
    }

    /// The most probable emotion and its probability.
    pub fn top(&self) -> Option<(Emotion, f32)> {
        self.scores.as_ref().map(Scores::top)
    }

    /// The mean of `self` and `other`, `other` weighing `weight` in [0, 1].
    #[must_use]
    pub fn blend(&self, other: &Self, weight: f32) -> Self {
        match (&self.scores, &other.scores) {
            (Some(ours), Some(theirs)) => Self::from_scores(ours.blend(theirs, weight)),
            _ => Self::from_dimensions(
                self.valence + weight * (other.valence - self.valence),
                self.arousal + weight * (other.arousal - self.arousal),
            ),
        }
    }
}

/// Why an estimate abstains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abstain {
    /// Too little speech in this utterance.
    TooLittleSpeech,
    /// No emotion reaches the confidence asked for.
    Unsure,
    /// No model step yet.
    NoEvidence,
}

impl Abstain {
    /// Its name as a metric's label and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLittleSpeech => "too_little_speech",
            Self::Unsure => "unsure",
            Self::NoEvidence => "no_evidence",
        }
    }
}

/// An estimate's verdict.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The numbers, if there are any.
    pub affect: Option<Affect>,
    /// Set if it should not be acted on.
    pub abstains: Option<Abstain>,
}

/// An [`Affect`] without what follows from the rest of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Kernel {
    Scores(Scores),
    Dimensions { valence: f32, arousal: f32 },
}

impl Kernel {
    fn of(affect: &Affect) -> Self {
        let dimensions = || Self::Dimensions { valence: affect.valence, arousal: affect.arousal };
        affect.scores.map_or_else(dimensions, Self::Scores)
    }

    fn affect(self, manifest: &Manifest) -> Result<Affect, Misfit> {
        let of_emotions = matches!(manifest.output, Output::Logits(_));
        let fits = of_emotions == matches!(self, Self::Scores(_));
        Misfit::unless(fits, "estimate", "is of another kind of model")?;
        match self {
            Self::Scores(scores) => Ok(Affect::from_scores(scores)),
            Self::Dimensions { valence, arousal } => {
                Misfit::outside([&valence, &arousal], &(-1.0..=1.0), "estimate")?;
                Ok(Affect::from_dimensions(valence, arousal))
            }
        }
    }
}

/// What a [`Tracker`] carries from one step to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackerState {
    current: Option<Kernel>,
    carried: Option<(Kernel, f32)>,
    summary: Option<(Kernel, u64)>,
}

/// One lane's tracker.
#[derive(Debug, Clone)]
pub struct Tracker {
    settings: TrackerSettings,
    /// The current utterance's latest estimate.
    current: Option<Affect>,
    /// The rolling estimate that the current utterance found, and its weight now.
    carried: Option<(Affect, f32)>,
    /// Over the whole stream: mean over utterances, and the hops of speech that it rests on.
    summary: Option<(Affect, u64)>,
}

impl Tracker {
    /// Before any speech.
    pub fn new(settings: TrackerSettings) -> Self {
        Self { settings, current: None, carried: None, summary: None }
    }

    /// What must be kept for it to be gone on with.
    pub fn state(&self) -> TrackerState {
        TrackerState {
            current: self.current.as_ref().map(Kernel::of),
            carried: self.carried.as_ref().map(|(affect, weight)| (Kernel::of(affect), *weight)),
            summary: self.summary.as_ref().map(|(affect, hops)| (Kernel::of(affect), *hops)),
        }
    }

    /// Goes on, to the bit, where the tracker stood whose state it was, in a stream of `hops` hops.
    ///
    /// # Errors
    /// [`Misfit`] if it is of another kind of model, or is none that there can be.
    pub fn restore(
        &mut self,
        manifest: &Manifest,
        hops: u64,
        state: &TrackerState,
    ) -> Result<(), Misfit> {
        self.current = state.current.map(|kernel| kernel.affect(manifest)).transpose()?;
        self.carried = match state.carried {
            Some((kernel, weight)) => {
                Misfit::outside([&weight], &(0.0..=1.0), "weight of the estimate before")?;
                Some((kernel.affect(manifest)?, weight))
            }
            None => None,
        };
        self.summary = match state.summary {
            Some((kernel, speech_hops)) => {
                Misfit::beyond(speech_hops, hops, "summary")?;
                Some((kernel.affect(manifest)?, speech_hops))
            }
            None => None,
        };
        Ok(())
    }

    /// A new utterance begins.
    pub fn begin(&mut self) {
        self.carried = self.rolling().map(|affect| (affect, 1.0));
        self.current = None;
    }

    /// Takes the model's output after one more step. Returns false if it cannot be used.
    pub fn absorb(&mut self, manifest: &Manifest, output: &[f32]) -> bool {
        let Some(affect) = interpret(manifest, output) else {
            return false;
        };
        self.current = Some(affect);
        if let Some((_, weight)) = &mut self.carried {
            *weight *= self.settings.carry;
        }
        true
    }

    fn rolling(&self) -> Option<Affect> {
        match (&self.current, &self.carried) {
            (Some(current), Some((carried, weight))) => Some(current.blend(carried, *weight)),
            (Some(current), None) => Some(*current),
            (None, Some((carried, _))) => Some(*carried),
            (None, None) => None,
        }
    }

    /// The rolling estimate, `speech_hops` into the current utterance.
    pub fn estimate(&self, speech_hops: u64) -> Judgement {
        if self.current.is_none() {
            return Judgement { affect: self.rolling(), abstains: Some(Abstain::NoEvidence) };
        }
        self.judge(self.rolling(), speech_hops)
    }

    /// The utterance of `speech_hops` ends: its final estimate.
    pub fn end(&mut self, speech_hops: u64) -> Judgement {
        let Some(affect) = self.current else {
            return Judgement { affect: None, abstains: Some(Abstain::NoEvidence) };
        };
        let judgement = self.judge(Some(affect), speech_hops);
        self.summary = Some(match self.summary {
            Some((mean, hops)) => {
                let total = hops + speech_hops;
                let weight = if total == 0 { 0.0 } else { speech_hops as f32 / total as f32 };
                (mean.blend(&affect, weight), total)
            }
            None => (affect, speech_hops),
        });
        judgement
    }

    /// Mean over the utterances so far, weighted by their speech.
    pub fn summary(&self) -> Option<Affect> {
        self.summary.map(|(affect, _)| affect)
    }

    fn judge(&self, affect: Option<Affect>, speech_hops: u64) -> Judgement {
        let confidence = affect.as_ref().and_then(Affect::top).map_or(1.0, |(_, p)| p);
        let abstains = if speech_hops < self.settings.min_speech_hops {
            Some(Abstain::TooLittleSpeech)
        } else if confidence < self.settings.min_confidence {
            Some(Abstain::Unsure)
        } else {
            None
        };
        Judgement { affect, abstains }
    }
}

/// A model's output as affect: logits are calibrated by the manifest's temperature.
fn interpret(manifest: &Manifest, output: &[f32]) -> Option<Affect> {
    match &manifest.output {
        Output::Logits(labels) => {
            let mut calibrated = [0.0_f32; crate::emotion::EMOTIONS];
            let calibrated = calibrated.get_mut(..output.len())?;
            for (slot, logit) in calibrated.iter_mut().zip(output) {
                *slot = logit / manifest.temperature;
            }
            Scores::from_logits(labels, calibrated).map(Affect::from_scores)
        }
        Output::Dimensions(order) => {
            let value = |wanted: Dimension| {
                let index = order.iter().position(|d| *d == wanted)?;
                // Such models are trained on 0 to 1; we speak of -1 to 1.
                output.get(index).map(|x| (2.0 * x - 1.0).clamp(-1.0, 1.0))
            };
            Some(Affect::from_dimensions(value(Dimension::Valence)?, value(Dimension::Arousal)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: TrackerSettings =
        TrackerSettings { min_speech_hops: 10, min_confidence: 0.5, carry: 0.5 };

    fn manifest() -> Manifest {
        Manifest {
            name: "m".into(),
            version: String::new(),
            description: String::new(),
            input: crate::model::Input::Step { coefficients: 1 },
            input_name: "x".into(),
            states: Vec::new(),
            output: Output::Logits(vec![Emotion::Neutral, Emotion::Angry]),
            output_name: "y".into(),
            temperature: 2.0,
            sha256: String::new(),
            training_data: Vec::new(),
            protocol: String::new(),
            figures: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn abstains_until_there_is_evidence_and_speech_and_confidence() {
        let manifest = manifest();
        let mut tracker = Tracker::new(SETTINGS);
        assert_eq!(tracker.estimate(100).abstains, Some(Abstain::NoEvidence));
        tracker.begin();
        assert!(tracker.absorb(&manifest, &[0.0, 4.0]));
        assert_eq!(tracker.estimate(9).abstains, Some(Abstain::TooLittleSpeech));
        assert_eq!(tracker.estimate(10).abstains, None);
        assert!(tracker.absorb(&manifest, &[0.0, 0.0]));
        assert_eq!(tracker.estimate(10).abstains, None, "0.5 reaches the minimum of 0.5");
        let strict = TrackerSettings { min_confidence: 0.51, ..SETTINGS };
        let mut tracker = Tracker::new(strict);
        tracker.begin();
        assert!(tracker.absorb(&manifest, &[0.0, 0.0]));
        assert_eq!(tracker.estimate(10).abstains, Some(Abstain::Unsure));
    }

    #[test]
    fn temperature_divides_the_logits() {
        let mut tracker = Tracker::new(SETTINGS);
        tracker.begin();
        assert!(tracker.absorb(&manifest(), &[0.0, 4.0]));
        let (top, p) = tracker.end(20).affect.unwrap().top().unwrap();
        assert_eq!(top, Emotion::Angry);
        assert!((p - 1.0 / (1.0 + (-2.0_f32).exp())).abs() < 1e-6);
    }

    #[test]
    fn a_new_utterance_starts_from_the_last_and_leaves_it_step_by_step() {
        let manifest = manifest();
        let mut tracker = Tracker::new(SETTINGS);
        tracker.begin();
        assert!(tracker.absorb(&manifest, &[0.0, 40.0]));
        let _ = tracker.end(20);
        tracker.begin();
        let angry = |t: &Tracker| t.estimate(20).affect.unwrap().scores.unwrap().of(Emotion::Angry);
        assert!(angry(&tracker) > 0.99);
        let mut before = 1.0;
        for _ in 0..6 {
            assert!(tracker.absorb(&manifest, &[40.0, 0.0]));
            let now = angry(&tracker);
            assert!((now - before * 0.5).abs() < 1e-3);
            before = now;
        }
        let last = tracker.end(20).affect.unwrap().scores.unwrap();
        assert!(last.of(Emotion::Angry) < 1e-6, "an utterance's final estimate is its own");
        let summary = tracker.summary().unwrap().scores.unwrap();
        assert!((summary.of(Emotion::Angry) - 0.5).abs() < 1e-5);
    }
}
