//! The shape of an evaluation: what `evaluation.json` holds, and what tables and pages are made of.
//!
//! docs/evaluation.md describes each field for readers of the file. `figures` fills it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::metrics::{CalibrationBin, Confusion, Interval, Point};

/// Version of `evaluation.json`.
pub const SCHEMA: u32 = 1;
/// Seconds of speech heard at which UA is looked at.
pub const COURSE_S: [f64; 6] = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0];

/// Everything that came out.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of undertone.
    pub undertone: &'static str,
    /// What was run.
    pub protocol: ProtocolSummary,
    /// How.
    pub settings: SettingsSummary,
    /// The models, in the order of the runs.
    pub models: Vec<ModelSummary>,
    /// SHA-256 over labels and content of the clips.
    pub corpora_fingerprint: String,
    /// What a reader must know, in sentences.
    pub notes: Vec<String>,
    /// Figures of fold runs (or of the one model), per corpus.
    pub corpora: Vec<Part>,
    /// The same over all corpora together, if there are several.
    pub pooled: Option<Part>,
    /// Figures of random runs.
    pub random: Option<RandomSplit>,
    /// Clips that could not be read or heard.
    pub failed: Vec<FailedClip>,
}

/// What was run.
#[derive(Debug, Serialize)]
pub struct ProtocolSummary {
    /// `protocol` (folds) or `model` (one model on everything).
    pub kind: &'static str,
    /// Its name; empty for one model.
    pub name: String,
    /// In words.
    pub description: String,
    /// The folds that were run.
    pub folds: Vec<u8>,
    /// The seeds of fold runs.
    pub seeds: Vec<u64>,
    /// Whether the speakers' folds were compared with those of training.
    pub speakers_checked: bool,
}

/// How it was run.
#[derive(Debug, Serialize)]
pub struct SettingsSummary {
    /// Probability of voice that begins an utterance.
    pub voice_on: f32,
    /// Probability of voice under which silence is counted.
    pub voice_off: f32,
    /// Voice before an utterance begins, in seconds.
    pub voice_min_speech_s: f64,
    /// Silence before an utterance ends, in seconds.
    pub voice_hang_over_s: f64,
    /// Audio before an onset that the model hears too, in seconds.
    pub voice_lead_in_s: f64,
    /// Speech before an estimate stops abstaining, in seconds.
    pub min_speech_s: f64,
    /// Confidence under which an estimate abstains.
    pub min_confidence: f32,
    /// Length of the chunks that clips were sent in, in seconds.
    pub chunk_s: f64,
    /// The conditions.
    pub conditions: Vec<&'static str>,
    /// Bins of the calibration error.
    pub calibration_bins: usize,
    /// Resamples of the bootstrap.
    pub bootstrap_resamples: usize,
    /// Clips per corpus at most, if there was a limit.
    pub limit: Option<usize>,
}

/// One run's model.
#[derive(Debug, Serialize)]
pub struct ModelSummary {
    /// The run.
    pub run: String,
    /// `fold`, `random` or `model`.
    pub kind: &'static str,
    /// The fold that it has not heard.
    pub fold: Option<u8>,
    /// Its seed.
    pub seed: Option<u64>,
    /// Its name by its manifest.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its ONNX file.
    pub sha256: String,
    /// Its temperature.
    pub temperature: f32,
    /// Its labels.
    pub labels: Vec<&'static str>,
    /// The corpora that it was trained on, by its manifest.
    pub trained_on: Vec<String>,
    /// Clips that it was judged on.
    pub clips: usize,
}

/// A clip that could not be judged.
#[derive(Debug, Serialize)]
pub struct FailedClip {
    /// Its name.
    pub clip: String,
    /// Why.
    pub problem: String,
}

/// Whether the models were trained on a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Training {
    /// By all manifests it is in the training data.
    Trained,
    /// By none: a foreign corpus.
    Foreign,
    /// By some.
    Mixed,
    /// The manifests do not say what the models were trained on.
    Unknown,
}

/// What a corpus is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Material {
    /// Audio files.
    Audio,
    /// Spectrograms: conditions are approximated.
    Spectrograms,
    /// Both.
    Mixed,
}

/// One corpus, or all of them.
#[derive(Debug, Serialize)]
pub struct Part {
    /// Its name, or `pooled`.
    pub corpus: String,
    /// Clips judged.
    pub clips: usize,
    /// Speakers among them.
    pub speakers: usize,
    /// The emotions that it has.
    pub labels: Vec<&'static str>,
    /// Whether the models know it.
    pub training: Training,
    /// Audio or spectrograms.
    pub material: Material,
    /// Clips in which the service found no utterance; they were heard from end to end.
    pub unheard: usize,
    /// Clips whose emotion a model does not have among its labels: always wrong, and left out of NLL.
    pub unknown_emotion: usize,
    /// The model chooses among all its labels.
    pub open: Figures,
    /// Restricted to and renormalised over the labels that the corpus has.
    pub own_labels: Figures,
    /// Recall per emotion, open.
    pub recall: BTreeMap<&'static str, Summary>,
    /// Counts by truth (rows) and guess (columns), open, over all runs.
    pub confusion: Labelled,
    /// The reliability curve, open, over all runs.
    pub calibration: Vec<CalibrationBin>,
    /// UA by seconds of speech heard, open.
    pub course: Vec<CoursePoint>,
    /// By the speakers' sex, open.
    pub by_sex: BTreeMap<&'static str, SexFigures>,
    /// Accuracy when the service may say nothing.
    pub abstention: Abstention,
    /// Detection of distress.
    pub distress: Distress,
    /// UA under each condition.
    pub conditions: Vec<ConditionFigures>,
}

/// A confusion matrix with its order.
#[derive(Debug, Serialize)]
pub struct Labelled {
    /// The order of rows and columns.
    pub emotions: [&'static str; crate::emotion::EMOTIONS],
    /// The counts.
    pub counts: Confusion,
}

/// The five figures.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Balanced accuracy.
    pub ua: Option<Summary>,
    /// Accuracy.
    pub wa: Option<Summary>,
    /// Mean F1.
    pub macro_f1: Option<Summary>,
    /// Mean negative log-probability of the truth, in nats.
    pub nll: Option<Summary>,
    /// Expected calibration error, of each fold's clips by themselves.
    pub ece: Option<Summary>,
    /// Expected calibration error of the clips of all folds together, as the reliability curve shows it. A fold
    /// of few clips never looks quite calibrated, however good the model.
    pub ece_together: Option<Summary>,
    /// 95 % interval of the UA over all clips, by bootstrap over speakers.
    pub ua_interval: Option<Interval>,
}

/// A figure over runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Mean over seeds of the means over folds.
    pub mean: f64,
    /// Standard deviation over folds, each fold's value being the mean over seeds.
    pub spread_over_folds: Option<f64>,
    /// Standard deviation over seeds, each seed's value being the mean over folds.
    pub spread_over_seeds: Option<f64>,
    /// The fold that is worst, on the mean over seeds.
    pub worst_fold: Option<WorstFold>,
    /// Each fold's mean over seeds.
    pub by_fold: BTreeMap<u8, f64>,
    /// Each seed's mean over folds.
    pub by_seed: BTreeMap<u64, f64>,
}

/// The worst fold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorstFold {
    /// Which.
    pub fold: u8,
    /// Its value.
    pub value: f64,
}

/// UA at one moment.
#[derive(Debug, Serialize)]
pub struct CoursePoint {
    /// Seconds of speech heard.
    pub seconds: f64,
    /// UA; a clip without an estimate by then is wrong.
    pub ua: Summary,
    /// Of the final UA.
    pub share_of_final: Option<f64>,
    /// Share of the clips that have an estimate by then.
    pub clips_with_estimate: f64,
}

/// One sex.
#[derive(Debug, Serialize)]
pub struct SexFigures {
    /// Clips.
    pub clips: usize,
    /// Speakers.
    pub speakers: usize,
    /// UA, open.
    pub ua: Option<Summary>,
    /// Its 95 % interval by bootstrap over speakers.
    pub ua_interval: Option<Interval>,
}

/// Accuracy when the service may say nothing.
#[derive(Debug, Serialize)]
pub struct Abstention {
    /// Accuracy (y) against coverage (x), the least confident clips left out first.
    pub curve: Vec<Point>,
    /// The area under the curve.
    pub area: Option<Summary>,
    /// The service's own default rule: share of clips with an utterance that it does not abstain on.
    pub service_coverage: f64,
    /// Accuracy on those.
    pub service_accuracy: Option<f64>,
    /// UA on those.
    pub service_ua: Option<f64>,
}

/// Detection of distress.
#[derive(Debug, Serialize)]
pub struct Distress {
    /// Whether positives are clips of high intensity only; else the corpus has no intensities, and all
    /// clips of anger, fear, sadness and disgust are positives.
    pub by_intensity: bool,
    /// Positives.
    pub positives: usize,
    /// Against all other clips.
    pub against_rest: Option<Detection>,
    /// Against the clips of other emotions only.
    pub against_other_emotions: Option<Detection>,
}

/// How well positives are told from negatives.
#[derive(Debug, Serialize)]
pub struct Detection {
    /// Negatives.
    pub negatives: usize,
    /// Area under the ROC.
    pub auc: Summary,
    /// The ROC over all runs: false-alarm rate (x), hit rate (y).
    pub roc: Vec<Point>,
}

/// One condition.
#[derive(Debug, Serialize)]
pub struct ConditionFigures {
    /// Its name.
    pub condition: &'static str,
    /// Whether it was approximated in the mel power domain, at least for some clips.
    pub approximated: bool,
    /// UA, open; `None` where the condition does not apply (gains of spectrograms).
    pub ua: Option<Summary>,
    /// UA over own labels.
    pub own_labels_ua: Option<Summary>,
    /// Its change against the same clips under `clean`.
    pub ua_change: Option<f64>,
    /// Clips in which the service found no utterance.
    pub unheard: usize,
}

/// The random split.
#[derive(Debug, Serialize)]
pub struct RandomSplit {
    /// Why it flatters.
    pub note: &'static str,
    /// Its seeds.
    pub seeds: Vec<u64>,
    /// Over all clips.
    pub all: RandomFigures,
    /// Per corpus.
    pub corpora: BTreeMap<&'static str, RandomFigures>,
}

/// Accuracy and loss.
#[derive(Debug, Serialize)]
pub struct RandomFigures {
    /// Clips, mean over seeds.
    pub clips: usize,
    /// Accuracy.
    pub accuracy: Option<Summary>,
    /// UA.
    pub ua: Option<Summary>,
    /// NLL in nats.
    pub nll: Option<Summary>,
}
