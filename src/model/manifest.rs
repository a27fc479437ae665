//! A model's manifest, `model.toml`: parsed and checked before the ONNX file is touched.
//!
//! Parse, don't validate: what comes out of [`Manifest::parse`] can be run; what cannot is refused with
//! the key and the remedy.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::emotion::Emotion;
use crate::units::{FRAME_SAMPLES, HOP_SAMPLES, MODEL_RATE_HZ, STEP_HOPS};

/// The newest manifest schema that this build reads.
pub const SCHEMA: u32 = 1;
/// Coefficients of the front end at most: its number of mel bands.
const MAX_COEFFICIENTS: usize = 128;
/// The longest window, in seconds: no encoder that we know was trained on longer ones.
const MAX_WINDOW_SECONDS: usize = 60;

/// How a model takes its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// One step of MFCCs and a carried state: `[batch, 16, coefficients]`.
    Step {
        /// MFCCs per hop.
        coefficients: usize,
    },
    /// A window of MFCCs: `[batch, hops, coefficients]`, zeros behind what has been heard so far.
    MfccWindow {
        /// Hops in the window.
        hops: usize,
        /// MFCCs per hop.
        coefficients: usize,
        /// Hops between two windows.
        stride_hops: usize,
    },
    /// A window of 16 kHz samples: `[batch, samples]`, zeros behind what has been heard so far.
    WaveformWindow {
        /// Samples in the window.
        samples: usize,
        /// Hops between two windows.
        stride_hops: usize,
    },
}

impl Input {
    /// Values of one stream's input.
    pub fn len(self) -> usize {
        match self {
            Self::Step { coefficients } => STEP_HOPS * coefficients,
            Self::MfccWindow { hops, coefficients, .. } => hops * coefficients,
            Self::WaveformWindow { samples, .. } => samples,
        }
    }

    /// Never: every input has values.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The tensor's dimensions behind the batch.
    pub fn dimensions(self) -> Vec<usize> {
        match self {
            Self::Step { coefficients } => vec![STEP_HOPS, coefficients],
            Self::MfccWindow { hops, coefficients, .. } => vec![hops, coefficients],
            Self::WaveformWindow { samples, .. } => vec![samples],
        }
    }

    /// MFCCs per hop that the front end must make; 0 for waveforms.
    pub fn coefficients(self) -> usize {
        match self {
            Self::Step { coefficients } | Self::MfccWindow { coefficients, .. } => coefficients,
            Self::WaveformWindow { .. } => 0,
        }
    }

    /// The name of the kind in a manifest.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Step { .. } => "streaming-mfcc",
            Self::MfccWindow { .. } => "window-mfcc",
            Self::WaveformWindow { .. } => "window-waveform",
        }
    }
}

/// One value that a model of dimensions puts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// Activation.
    Arousal,
    /// Control; read and not used.
    Dominance,
    /// Pleasantness.
    Valence,
}

/// What a model puts out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// One logit per label.
    Logits(Vec<Emotion>),
    /// Arousal, dominance, valence in the manifest's order, each in [0, 1] as such models are trained.
    Dimensions(Vec<Dimension>),
}

impl Output {
    /// Values per stream.
    pub fn len(&self) -> usize {
        match self {
            Self::Logits(labels) => labels.len(),
            Self::Dimensions(order) => order.len(),
        }
    }

    /// Never: an output has values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A state tensor that a streaming model carries: zeros at the start of an utterance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Name of the graph's input.
    pub input: String,
    /// Name of the graph's output that becomes the next input.
    pub output: String,
    /// Dimensions behind the batch.
    pub dimensions: Vec<usize>,
}

impl State {
    /// Values per stream.
    pub fn len(&self) -> usize {
        self.dimensions.iter().product()
    }

    /// Never: a state has values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A corpus that a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingData {
    /// Name of the corpus.
    pub corpus: String,
    /// Its licence.
    pub licence: String,
    /// False if the licence excludes commercial use.
    pub commercial_use: bool,
}

/// A checked manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Name, unique in a server.
    pub name: String,
    /// Version.
    pub version: String,
    /// One line.
    pub description: String,
    /// What goes in.
    pub input: Input,
    /// Name of the graph's feature input.
    pub input_name: String,
    /// The states carried between steps; empty for window kinds.
    pub states: Vec<State>,
    /// What comes out.
    pub output: Output,
    /// Name of the graph's output.
    pub output_name: String,
    /// Logits are divided by it before the softmax.
    pub temperature: f32,
    /// SHA-256 of the ONNX file, lower-case hex.
    pub sha256: String,
    /// Corpora and licences.
    pub training_data: Vec<TrainingData>,
    /// How the figures were measured.
    pub protocol: String,
    /// Measured figures by name.
    pub figures: BTreeMap<String, f64>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or not of the schema.
    #[error("model.toml: {0}")]
    Syntax(#[from] toml::de::Error),
    /// Of a schema that this build does not know.
    #[error("model.toml: schema is {actual}, this build reads up to {SCHEMA}; update undertone")]
    Schema {
        /// The schema found.
        actual: u32,
    },
    /// A key with a value that cannot be used.
    #[error("model.toml: {key}: {problem}")]
    Key {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

fn refuse(key: &'static str, problem: impl Into<String>) -> ManifestError {
    ManifestError::Key { key, problem: problem.into() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    schema: u32,
    name: String,
    version: String,
    kind: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    labels: Vec<String>,
    sha256: String,
    front_end: RawFrontEnd,
    input: RawTensor,
    #[serde(default)]
    state: Vec<RawState>,
    output: RawOutput,
    #[serde(default)]
    window: Option<RawWindow>,
    #[serde(default)]
    calibration: Option<RawCalibration>,
    #[serde(default)]
    training_data: Vec<TrainingData>,
    #[serde(default)]
    figures: BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFrontEnd {
    sample_rate_hz: u32,
    hop_samples: Option<usize>,
    frame_samples: Option<usize>,
    mel_bands: Option<usize>,
    coefficients: Option<usize>,
    reference_decay_db_per_s: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawDimension {
    Fixed(usize),
    Named(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    name: String,
    shape: Vec<RawDimension>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawState {
    input: String,
    output: String,
    shape: Vec<RawDimension>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    name: String,
    shape: Vec<RawDimension>,
    dimensions: Option<Vec<Dimension>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    stride_hops: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCalibration {
    temperature: f32,
}

/// The dimensions behind a leading "batch".
fn behind_batch(key: &'static str, shape: &[RawDimension]) -> Result<Vec<usize>, ManifestError> {
    let Some((RawDimension::Named(first), rest)) = shape.split_first() else {
        return Err(refuse(key, "must begin with \"batch\""));
    };
    if first != "batch" || rest.is_empty() {
        return Err(refuse(key, "must be \"batch\" and at least one number"));
    }
    rest.iter()
        .map(|dimension| match dimension {
            RawDimension::Fixed(n) if *n > 0 => Ok(*n),
            RawDimension::Fixed(_) | RawDimension::Named(_) => {
                Err(refuse(key, "dimensions behind \"batch\" must be numbers above 0"))
            }
        })
        .collect()
}

impl Manifest {
    /// Reads and checks a manifest's text.
    ///
    /// # Errors
    /// [`ManifestError`] with the key that is wrong.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let raw: RawManifest = toml::from_str(text)?;
        if raw.schema == 0 || raw.schema > SCHEMA {
            return Err(ManifestError::Schema { actual: raw.schema });
        }
        let name_fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if raw.name.is_empty() || raw.name.len() > 64 || !raw.name.chars().all(name_fits) {
            return Err(refuse("name", "must be 1 to 64 characters of A-Z a-z 0-9 - _ ."));
        }
        if raw.sha256.len() != 64 || !raw.sha256.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        {
            return Err(refuse("sha256", "must be 64 lower-case hex digits"));
        }
        check_front_end(&raw.front_end)?;
        let input = parse_input(&raw)?;
        let states = parse_states(&raw, input)?;
        let output = parse_output(&raw)?;
        let temperature = raw.calibration.as_ref().map_or(1.0, |c| c.temperature);
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(refuse("calibration.temperature", "must be a number above 0"));
        }
        let protocol = match raw.figures.get("protocol") {
            Some(toml::Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        let figures = raw
            .figures
            .iter()
            .filter_map(|(name, value)| {
                #[allow(clippy::cast_precision_loss, reason = "figures are small numbers")]
                let number = value.as_float().or_else(|| value.as_integer().map(|i| i as f64))?;
                Some((name.clone(), number))
            })
            .collect();
        Ok(Self {
            name: raw.name,
            version: raw.version,
            description: raw.description,
            input,
            input_name: raw.input.name,
            states,
            output,
            output_name: raw.output.name,
            temperature,
            sha256: raw.sha256,
            training_data: raw.training_data,
            protocol,
            figures,
        })
    }

    /// Values of all states of one stream.
    pub fn state_len(&self) -> usize {
        self.states.iter().map(State::len).sum()
    }

    /// The emotions that the model tells apart; empty for a model of dimensions.
    pub fn labels(&self) -> &[Emotion] {
        match &self.output {
            Output::Logits(labels) => labels,
            Output::Dimensions(_) => &[],
        }
    }

    /// The corpora whose licence excludes commercial use.
    pub fn non_commercial(&self) -> impl Iterator<Item = &TrainingData> {
        self.training_data.iter().filter(|data| !data.commercial_use)
    }
}

/// The front end is fixed: a manifest that expects another one was made for another service.
fn check_front_end(front_end: &RawFrontEnd) -> Result<(), ManifestError> {
    let fixed = [
        ("front_end.hop_samples", front_end.hop_samples, HOP_SAMPLES),
        ("front_end.frame_samples", front_end.frame_samples, FRAME_SAMPLES),
        ("front_end.mel_bands", front_end.mel_bands, MAX_COEFFICIENTS),
    ];
    if front_end.sample_rate_hz != MODEL_RATE_HZ {
        return Err(refuse("front_end.sample_rate_hz", format!("must be {MODEL_RATE_HZ}")));
    }
    for (key, actual, expected) in fixed {
        if actual.is_some_and(|actual| actual != expected) {
            return Err(refuse(key, format!("must be {expected}: the front end is fixed")));
        }
    }
    let decay = f64::from(crate::features::DECAY_DB_PER_SECOND);
    if front_end.reference_decay_db_per_s.is_some_and(|actual| (actual - decay).abs() > 1e-6) {
        return Err(refuse(
            "front_end.reference_decay_db_per_s",
            format!("must be {decay}: the front end is fixed"),
        ));
    }
    Ok(())
}

fn parse_input(raw: &RawManifest) -> Result<Input, ManifestError> {
    let shape = behind_batch("input.shape", &raw.input.shape)?;
    let stride = |raw: &RawManifest| match &raw.window {
        Some(window) if (1..=625).contains(&window.stride_hops) => Ok(window.stride_hops),
        Some(_) => Err(refuse("window.stride_hops", "must be 1 to 625 hops (10 s)")),
        None => Err(refuse("window", "window kinds need a table [window] with stride_hops")),
    };
    let coefficients = |found: usize| match raw.front_end.coefficients {
        Some(n) if n == found && (1..=MAX_COEFFICIENTS).contains(&n) => Ok(n),
        Some(n) => Err(refuse(
            "front_end.coefficients",
            format!("is {n}, input.shape has {found}; both must be equal, 1 to 128"),
        )),
        None => Err(refuse("front_end.coefficients", "is missing")),
    };
    match (raw.kind.as_str(), shape.as_slice()) {
        ("streaming-mfcc", &[STEP_HOPS, n]) => Ok(Input::Step { coefficients: coefficients(n)? }),
        ("window-mfcc", &[hops, n]) if hops <= MAX_WINDOW_SECONDS * 63 => Ok(Input::MfccWindow {
            hops,
            coefficients: coefficients(n)?,
            stride_hops: stride(raw)?,
        }),
        ("window-waveform", &[samples]) if samples <= MAX_WINDOW_SECONDS * 16_000 => {
            Ok(Input::WaveformWindow { samples, stride_hops: stride(raw)? })
        }
        ("streaming-mfcc", _) => {
            Err(refuse("input.shape", "must be [\"batch\", 16, coefficients]"))
        }
        ("window-mfcc", _) => {
            Err(refuse("input.shape", "must be [\"batch\", hops, coefficients], at most 60 s"))
        }
        ("window-waveform", _) => {
            Err(refuse("input.shape", "must be [\"batch\", samples], at most 60 s"))
        }
        (other, _) => Err(refuse(
            "kind",
            format!("is {other:?}; known are streaming-mfcc, window-mfcc, window-waveform"),
        )),
    }
}

fn parse_states(raw: &RawManifest, input: Input) -> Result<Vec<State>, ManifestError> {
    if !matches!(input, Input::Step { .. }) && !raw.state.is_empty() {
        return Err(refuse("state", "only streaming-mfcc models carry a state"));
    }
    raw.state
        .iter()
        .map(|state| {
            let dimensions = behind_batch("state.shape", &state.shape)?;
            // 1 MiB a stream is far beyond any streaming model and still bounded.
            if dimensions.iter().product::<usize>() > 1 << 18 {
                return Err(refuse("state.shape", "must have at most 262144 values"));
            }
            Ok(State { input: state.input.clone(), output: state.output.clone(), dimensions })
        })
        .collect()
}

fn parse_output(raw: &RawManifest) -> Result<Output, ManifestError> {
    let shape = behind_batch("output.shape", &raw.output.shape)?;
    let output = if let Some(order) = &raw.output.dimensions {
        let has = |wanted| order.iter().filter(|d| **d == wanted).count() == 1;
        if !(has(Dimension::Arousal) && has(Dimension::Valence)) {
            return Err(refuse("output.dimensions", "must name arousal and valence once each"));
        }
        Output::Dimensions(order.clone())
    } else {
        let mut labels = Vec::with_capacity(raw.labels.len());
        for name in &raw.labels {
            let label: Emotion =
                name.parse().map_err(|error| refuse("labels", format!("{error}")))?;
            if labels.contains(&label) {
                return Err(refuse("labels", format!("{name} stands twice")));
            }
            labels.push(label);
        }
        if labels.len() < 2 {
            return Err(refuse("labels", "must name at least two emotions"));
        }
        Output::Logits(labels)
    };
    if shape != [output.len()] {
        return Err(refuse("output.shape", format!("must be [\"batch\", {}]", output.len())));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
schema = 1
name = "tiny"
version = "0.1.0"
kind = "streaming-mfcc"
labels = ["neutral", "angry"]
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[front_end]
sample_rate_hz = 16000
coefficients = 40
[input]
name = "mfcc"
shape = ["batch", 16, 40]
[[state]]
input = "state"
output = "next_state"
shape = ["batch", 8]
[output]
name = "logits"
shape = ["batch", 2]
[figures]
protocol = "none"
ua = 0.5
"#;

    #[test]
    fn a_good_manifest_is_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.input, Input::Step { coefficients: 40 });
        assert_eq!(manifest.state_len(), 8);
        assert_eq!(manifest.labels(), [Emotion::Neutral, Emotion::Angry]);
        assert_eq!(manifest.figures.get("ua"), Some(&0.5));
        assert_eq!(manifest.protocol, "none");
    }

    #[test]
    fn each_defect_names_its_key() {
        for (from, to, key) in [
            ("\"tiny\"", "\"a b\"", "name"),
            ("streaming-mfcc", "magic", "kind"),
            ("\"batch\", 16, 40", "\"batch\", 15, 40", "input.shape"),
            ("\"batch\", 16, 40", "16, 40", "input.shape"),
            ("coefficients = 40", "coefficients = 39", "front_end.coefficients"),
            ("\"batch\", 8", "\"batch\", 0", "state.shape"),
            ("\"batch\", 2", "\"batch\", 3", "output.shape"),
            ("\"angry\"", "\"bored\"", "labels"),
            ("\"angry\"", "\"neutral\"", "labels"),
            ("16000", "8000", "front_end.sample_rate_hz"),
            ("000000\"", "00000X\"", "sha256"),
            ("[figures]", "[calibration]\ntemperature = 0.0\n[figures]", "calibration.temperature"),
            ("schema = 1", "schema = 2", "schema"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            let error = Manifest::parse(&text).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
