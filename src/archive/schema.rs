//! The two tables, column by column: names, types, units. `docs/archives.md` says the same; a test compares.
//!
//! Flat columns only, in snake case, each unit in the name or in the description. What is not known is null,
//! never a number that stands for it.

use super::origin::Origin;
use super::row::{ClipRow, Failure, Heard, Utterance, UtteranceRow, Verdict};
use crate::emotion::Emotion;

/// Version of both tables: goes up when a column changes its meaning, its type or its name.
pub const SCHEMA: u32 = 1;

/// A column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// Single precision.
    Float,
    /// Double precision.
    Double,
    /// Microseconds since 1970, UTC.
    Time,
}

impl Kind {
    /// Its name in SQL, as DuckDB writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "VARCHAR",
            Self::Int => "INTEGER",
            Self::Long => "BIGINT",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Time => "TIMESTAMPTZ",
        }
    }
}

/// A value on its way into a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// For [`Kind::Text`].
    Text(&'a str),
    /// For [`Kind::Int`].
    Int(i32),
    /// For [`Kind::Long`] and [`Kind::Time`].
    Long(i64),
    /// For [`Kind::Float`].
    Float(f32),
    /// For [`Kind::Double`].
    Double(f64),
}

/// One column of a table of `R`.
#[derive(Debug)]
pub struct Column<R> {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether every row has a value.
    pub required: bool,
    /// What it holds, with its unit.
    pub doc: &'static str,
    /// The value of a row.
    pub of: for<'a> fn(&'a R, &'a Origin) -> Option<Value<'a>>,
}

fn heard(row: &ClipRow) -> Option<&Heard> {
    row.outcome.as_ref().ok()
}

fn failure(row: &ClipRow) -> Option<&Failure> {
    row.outcome.as_ref().err()
}

fn said(row: &UtteranceRow) -> &Utterance {
    &row.utterance
}

macro_rules! columns {
    ($($name:literal $kind:ident $required:literal $doc:literal $of:expr;)*) => {
        &[$(Column { name: $name, kind: Kind::$kind, required: $required, doc: $doc, of: $of }),*]
    };
}

/// What both tables say of how something sounds, where `$verdict` finds it.
macro_rules! with_verdict {
    ([$($before:tt)*] $verdict:ident [$($after:tt)*]) => {
        columns! {
            $($before)*
            "emotion" Text false "most probable emotion; null without speech, or if the model knows none"
                |r, _| Some(Value::Text($verdict(r)?.emotion?.name()));
            "confidence" Float false "its probability, 0 to 1"
                |r, _| $verdict(r)?.confidence.map(Value::Float);
            "p_neutral" Float false "probability, 0 to 1; the eight sum to 1, null are those that the model does not know"
                |r, _| $verdict(r)?.probability(Emotion::Neutral).map(Value::Float);
            "p_calm" Float false "the same"
                |r, _| $verdict(r)?.probability(Emotion::Calm).map(Value::Float);
            "p_happy" Float false "the same"
                |r, _| $verdict(r)?.probability(Emotion::Happy).map(Value::Float);
            "p_sad" Float false "the same"
                |r, _| $verdict(r)?.probability(Emotion::Sad).map(Value::Float);
            "p_angry" Float false "the same"
                |r, _| $verdict(r)?.probability(Emotion::Angry).map(Value::Float);
            "p_fear" Float false "the same"
                |r, _| $verdict(r)?.probability(Emotion::Fear).map(Value::Float);
            "p_disgust" Float false "the same"
                |r, _| $verdict(r)?.probability(Emotion::Disgust).map(Value::Float);
            "p_surprise" Float false "the same"
                |r, _| $verdict(r)?.probability(Emotion::Surprise).map(Value::Float);
            "valence" Float false "-1 (unpleasant) to 1 (pleasant)"
                |r, _| $verdict(r)?.valence.map(Value::Float);
            "arousal" Float false "-1 (calm) to 1 (activated)"
                |r, _| $verdict(r)?.arousal.map(Value::Float);
            "distress" Float false "0 to 1"
                |r, _| $verdict(r)?.distress.map(Value::Float);
            $($after)*
        }
    };
}

fn of_clip(row: &ClipRow) -> Option<&Verdict> {
    heard(row).map(|heard| &heard.verdict)
}

// By value it could not be used where a clip's is.
#[expect(clippy::unnecessary_wraps, reason = "the same shape as for a clip")]
fn of_utterance(row: &UtteranceRow) -> Option<&Verdict> {
    Some(&said(row).verdict)
}

/// One row per clip that was analysed or could not be.
pub static CLIPS: &[Column<ClipRow>] = with_verdict!([
    "path" Text true "scheme://bucket/key with the key as it is, or an absolute path"
        |r, _| Some(Value::Text(&r.path));
    "bytes" Long true "size of the object"
        |r, _| Some(Value::Long(r.version.bytes as i64));
    "etag" Text false "the store's tag for its content; null for files"
        |r, _| r.version.etag.as_deref().map(Value::Text);
    "last_modified" Time true "when it was last changed"
        |r, _| Some(Value::Long(r.version.modified_us));
    "analyzed_at" Time true "when it was analysed; of two rows with one path the later holds"
        |r, _| Some(Value::Long(r.analyzed_at_us));
    "seconds" Double false "length of the audio; null if it could not be analysed, as all that follows"
        |r, _| Some(Value::Double(heard(r)?.seconds));
    "sample_rate_hz" Int false "sample rate of the file, Hz"
        |r, _| Some(Value::Int(heard(r)?.sample_rate_hz as i32));
    "channels" Int false "channels of the file"
        |r, _| Some(Value::Int(heard(r)?.channels as i32));
    "container" Text false "container format, such as wave or isomp4"
        |r, _| Some(Value::Text(heard(r)?.container));
    "codec" Text false "codec, such as pcm_s16le or aac"
        |r, _| Some(Value::Text(heard(r)?.codec));
] of_clip [
    "speech_ratio" Float false "share of the clip that is voice, 0 to 1"
        |r, _| Some(Value::Float(heard(r)?.speech_ratio));
    "utterances" Int false "how many rows it has in utterances"
        |r, _| Some(Value::Int(heard(r)?.utterances.len() as i32));
    "note" Text false "what was odd: packets that could not be decoded, an early end"
        |r, _| heard(r)?.note.as_deref().map(Value::Text);
    "error_code" Text false "unreadable, too_large, unsupported, damaged or internal; null if it was analysed"
        |r, _| Some(Value::Text(failure(r)?.code.name()));
    "error" Text false "why it could not be analysed"
        |r, _| Some(Value::Text(&failure(r)?.message));
    "model_name" Text true "the model"
        |_, o| Some(Value::Text(&o.model.name));
    "model_version" Text true "its version"
        |_, o| Some(Value::Text(&o.model.version));
    "model_sha256" Text true "SHA-256 of its ONNX file, hex"
        |_, o| Some(Value::Text(&o.model.sha256));
]);

/// One row per utterance.
pub static UTTERANCES: &[Column<UtteranceRow>] = with_verdict!([
    "path" Text true "as in clips"
        |r, _| Some(Value::Text(&r.path));
    "analyzed_at" Time true "as in clips: with the path it names the clip's row"
        |r, _| Some(Value::Long(r.analyzed_at_us));
    "channel" Int true "first channel of those analysed as one voice, counted from 0"
        |r, _| Some(Value::Int(said(r).channel as i32));
    "utterance" Int true "number on its channel, counted from 0"
        |r, _| Some(Value::Int(said(r).index as i32));
    "start_s" Double true "where voice begins, seconds since the first sample"
        |r, _| Some(Value::Double(said(r).start_s));
    "end_s" Double true "where voice ends, seconds since the first sample"
        |r, _| Some(Value::Double(said(r).end_s));
    "speech_s" Double true "voice in it, seconds"
        |r, _| Some(Value::Double(said(r).speech_s));
] of_utterance [
    "abstains" Text false "too_little_speech, unsure or no_evidence: why not to act on it; null otherwise"
        |r, _| said(r).abstains.map(Value::Text);
]);
