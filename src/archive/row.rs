//! What is known of a clip: a row of clips and one for each of its utterances.

use std::sync::Arc;

use super::find::Version;
use crate::emotion::{EMOTIONS, Emotion};
use crate::model::Manifest;
use crate::session::clip::ClipReport;
use crate::tracking::{Abstain, Affect};
use crate::units::{HOP_SAMPLES, SamplePos};
use crate::wire::event::{Event, Utterance as Ended};

/// How something sounds; without numbers where there was no speech.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Verdict {
    /// The most probable emotion, of a model of emotions.
    pub emotion: Option<Emotion>,
    /// Its probability.
    pub confidence: Option<f32>,
    /// Probabilities in the order of [`Emotion::ALL`]; those that the model knows.
    pub probabilities: [Option<f32>; EMOTIONS],
    /// Valence, -1 to 1.
    pub valence: Option<f32>,
    /// Arousal, -1 to 1.
    pub arousal: Option<f32>,
    /// Distress, 0 to 1.
    pub distress: Option<f32>,
}

impl Verdict {
    fn of(affect: Option<&Affect>, manifest: &Manifest) -> Self {
        let Some(affect) = affect else {
            return Self::default();
        };
        let top = affect.top();
        let known = |emotion: Emotion| manifest.labels().contains(&emotion);
        let of = |emotion| affect.scores.filter(|_| known(emotion)).map(|s| s.of(emotion));
        Self {
            emotion: top.map(|(emotion, _)| emotion),
            confidence: top.map(|(_, probability)| probability),
            probabilities: Emotion::ALL.map(of),
            valence: Some(affect.valence),
            arousal: Some(affect.arousal),
            distress: Some(affect.distress),
        }
    }

    /// The probability of one emotion.
    pub fn probability(&self, emotion: Emotion) -> Option<f32> {
        self.probabilities.get(emotion.index()).copied().flatten()
    }
}

/// What a clip sounds like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Heard {
    /// Its length.
    pub seconds: f64,
    /// Frames per second of the file.
    pub sample_rate_hz: u32,
    /// Channels of the file.
    pub channels: u32,
    /// Name of the container format.
    pub container: &'static str,
    /// Name of the codec.
    pub codec: &'static str,
    /// The whole; with separate channels the first one.
    pub verdict: Verdict,
    /// Share of it that is voice in utterances, 0 to 1; with separate channels of the first one.
    pub speech_ratio: f32,
    /// Its utterances.
    pub utterances: Vec<Utterance>,
    /// What was odd about it.
    pub note: Option<String>,
}

/// Speech between two pauses.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Utterance {
    /// Its number on its channel, counted from 0.
    pub index: u32,
    /// The first channel of those analysed as one voice.
    pub channel: u32,
    /// Where voice begins, seconds since the clip's first sample.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// Seconds of voice.
    pub speech_s: f64,
    /// How it sounds.
    pub verdict: Verdict,
    /// Why that should not be acted on.
    pub abstains: Option<&'static str>,
}

impl Utterance {
    fn of(ended: &Ended, manifest: &Manifest) -> Self {
        Self {
            index: ended.index,
            channel: ended.channel,
            start_s: ended.start.seconds(),
            end_s: ended.end.seconds(),
            speech_s: seconds(ended.speech_hops),
            verdict: Verdict::of(ended.judgement.affect.as_ref(), manifest),
            abstains: ended.judgement.abstains.map(Abstain::name),
        }
    }
}

fn seconds(hops: u64) -> f64 {
    SamplePos(hops * HOP_SAMPLES as u64).seconds()
}

impl Heard {
    /// What `report` says, all but what only the file's reader knows.
    pub(super) fn of(report: &ClipReport, manifest: &Manifest) -> Self {
        let first = report.channels.first();
        let utterances = report.events.iter().filter_map(|event| match event {
            Event::Utterance(ended) => Some(Utterance::of(ended, manifest)),
            Event::Estimate(_) | Event::Warning(_) | Event::Reading(_) => None,
        });
        let length = report.length.seconds();
        let speech = first.map_or(0.0, |summary| seconds(summary.speech_hops));
        let ratio = if length > 0.0 { (speech / length).min(1.0) } else { 0.0 };
        Self {
            seconds: length,
            verdict: Verdict::of(first.and_then(|s| s.affect.as_ref()), manifest),
            speech_ratio: ratio as f32,
            utterances: utterances.collect(),
            note: note(report),
            ..Self::default()
        }
    }
}

fn note(report: &ClipReport) -> Option<String> {
    let mut notes = Vec::new();
    if report.corrupt_packets > 0 {
        notes.push(format!("{} packets could not be decoded", report.corrupt_packets));
    }
    if report.cut_short {
        notes.push("the file ends early".to_owned());
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// What kind of thing stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// It could not be read; tried again by the next run.
    Unreadable,
    /// It is larger than objects may be.
    TooLarge,
    /// No audio, or of a kind that is not decoded.
    Unsupported,
    /// Audio, but broken.
    Damaged,
    /// A defect of ours.
    Internal,
}

impl FailureCode {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Unreadable, Self::TooLarge, Self::Unsupported, Self::Damaged, Self::Internal];

    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::Damaged => "damaged",
            Self::Internal => "internal",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// Why a clip was not analysed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub code: FailureCode,
    /// In words.
    pub message: String,
}

/// A row of clips.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipRow {
    /// The clip's path.
    pub path: Arc<str>,
    /// What was analysed.
    pub version: Version,
    /// When, microseconds since 1970 UTC; later than in any earlier row of the same path.
    pub analyzed_at_us: i64,
    /// What came of it.
    pub outcome: Result<Heard, Failure>,
}

impl ClipRow {
    /// Its utterances' rows.
    pub(super) fn utterances(&self) -> impl Iterator<Item = UtteranceRow> + '_ {
        let heard = self.outcome.iter().flat_map(|heard| &heard.utterances);
        heard.map(|utterance| UtteranceRow {
            path: self.path.clone(),
            analyzed_at_us: self.analyzed_at_us,
            utterance: utterance.clone(),
        })
    }
}

/// A row of utterances.
#[derive(Debug, Clone, PartialEq)]
pub struct UtteranceRow {
    /// The clip's path.
    pub path: Arc<str>,
    /// As in the clip's row.
    pub analyzed_at_us: i64,
    /// The utterance.
    pub utterance: Utterance,
}
