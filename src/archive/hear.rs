//! Hearing: a clip's bytes -> what it sounds like, by the code of a live stream.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::find::{Clip, Source};
use super::row::{Failure, FailureCode, Heard};
use crate::audio::{AudioError, ClipReader, ErrorKind};
use crate::model::Model;
use crate::session::AnalysisError;
use crate::session::clip::{self, ClipError};
use crate::wire::parse::ClipSettings;

/// A clip's bytes.
#[derive(Debug, Clone)]
pub enum Audio {
    /// In a file, which is read as it is decoded.
    File(PathBuf),
    /// In memory.
    Memory(Bytes),
}

/// Why a clip was not heard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HearError {
    /// It is the clip: the others can be.
    #[error("{}", .0.message)]
    Clip(Failure),
    /// It is the model: none can be.
    #[error("{0}")]
    Engine(String),
}

/// What hears clips. A test brings its own.
pub trait Hear: Send + Sync + 'static {
    /// Hears one.
    ///
    /// # Errors
    /// [`HearError`].
    ///
    /// # Cancellation
    /// Dropping the future stops the work.
    fn hear(
        &self,
        clip: &Clip,
        audio: Audio,
    ) -> impl Future<Output = Result<Heard, HearError>> + Send;
}

/// A model, listening.
#[derive(Debug, Clone)]
pub struct Ears {
    model: Arc<Model>,
    settings: ClipSettings,
}

impl Ears {
    /// Hears with `model` under `settings`.
    pub fn new(model: Arc<Model>, settings: ClipSettings) -> Self {
        Self { model, settings }
    }
}

impl Hear for Ears {
    async fn hear(&self, clip: &Clip, audio: Audio) -> Result<Heard, HearError> {
        let reader = match audio {
            Audio::File(path) => ClipReader::open(path),
            Audio::Memory(bytes) => ClipReader::from_bytes(bytes, extension(clip)),
        };
        let reader = reader.map_err(|error| of_audio(&error))?;
        let (rate_hz, channels) = (reader.rate_hz(), reader.channels().get());
        let (container, codec) = (reader.container(), reader.codec());
        let forever = Duration::from_secs(u64::from(u32::MAX));
        let report = clip::analyze(self.model.clone(), reader, &self.settings, forever, |_| {})
            .await
            .map_err(|error| match error {
                ClipError::Analysis(AnalysisError::Audio(error)) => of_audio(&error),
                error => HearError::Engine(error.to_string()),
            })?;
        Ok(Heard {
            sample_rate_hz: rate_hz,
            channels: channels as u32,
            container,
            codec,
            ..Heard::of(&report, &self.model.manifest)
        })
    }
}

fn extension(clip: &Clip) -> Option<&str> {
    match &clip.source {
        Source::Object(_, key) => key.extension(),
        Source::File(path) => Path::extension(path)?.to_str(),
    }
}

fn of_audio(error: &AudioError) -> HearError {
    let code = match error.kind() {
        ErrorKind::Format => FailureCode::Unsupported,
        ErrorKind::Data => FailureCode::Damaged,
        ErrorKind::Io => FailureCode::Unreadable,
        ErrorKind::Order | ErrorKind::Internal => FailureCode::Internal,
    };
    HearError::Clip(Failure { code, message: error.to_string() })
}
