//! What it takes to go on with a session elsewhere: its state, sealed for its client to carry.
//!
//! In: a session between two requests. Out: a token, and from a token the session as it was. A token is
//! sealed for the identity that opened the stream (see [`super::token`]) and holds all that the session
//! has in mind: its configuration, the front end's and the model's state, what was heard of the open
//! utterance, the policy with its text and where each rule stands, and which escalations are in force.
//!
//! Always: nothing that a checkpoint covers can be lost any more. As long as an escalation waits for the
//! store, there is no checkpoint.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::alarm::AlarmState;
use super::analysis::AnalysisState;
use super::token::{Keyring, TokenError};
use crate::escalation::Timestamp;
use crate::identity::Identity;
use crate::policy::{Policy, WatcherState};

/// How sessions are gone on with.
#[derive(Debug, Clone)]
pub struct Resuming {
    /// The keys, as they are now.
    pub keys: watch::Receiver<Arc<Keyring>>,
    /// How long a token is taken.
    pub window: Duration,
    /// Shortest time between two checkpoints, by the audio.
    pub min_interval: Duration,
    /// Largest token, bytes.
    pub max_bytes: usize,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes of audio received.
    pub(super) bytes: u64,
    /// Requests taken, configurations not counted.
    pub(super) requests: u64,
    pub(super) chunks: u64,
    pub(super) estimates: u64,
    /// The last chunk's number.
    pub(super) sequence: Option<u64>,
    pub(super) captured_at_us: Option<i64>,
}

/// A policy at work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedPolicy {
    /// Its text, unless the client brought it: the session goes on under the policy that it began with, whatever
    /// has changed meanwhile.
    pub(super) text: Option<String>,
    pub(super) watcher: WatcherState,
    pub(super) alarm: AlarmState,
}

/// A session, saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The configuration that the client sent, encoded.
    pub(super) config: Vec<u8>,
    pub(super) session_id: String,
    pub(super) progress: Progress,
    pub(super) analysis: AnalysisState,
    pub(super) policy: Option<SavedPolicy>,
}

/// Why a session cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The token cannot be opened.
    #[error("config.resume_token: {0}")]
    Token(#[from] TokenError),
    /// The token holds nothing that can be gone on with.
    #[error("config.resume_token: it does not fit this server ({0}); open a new stream without it")]
    Content(String),
    /// The model is not here, or not the same.
    #[error("config.resume_token: {0}; open a new stream without it")]
    Model(String),
    /// The server gives no checkpoints.
    #[error("config.resume_token: this server goes on with no streams (resume_window is 0s)")]
    Off,
}

impl ResumeError {
    /// The stable reason: in `ErrorInfo`, and as a label of the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Token(TokenError::Expired { .. }) => "RESUME_TOKEN_EXPIRED",
            Self::Token(TokenError::UnknownKey { .. }) => "RESUME_KEY_UNKNOWN",
            Self::Token(TokenError::OtherVersion { .. }) | Self::Content(_) => {
                "RESUME_TOKEN_VERSION"
            }
            Self::Token(
                TokenError::NoToken | TokenError::Refused | TokenError::TooLarge { .. },
            ) => "RESUME_TOKEN_INVALID",
            Self::Token(TokenError::Random) => "NO_RANDOM_NUMBERS",
            Self::Model(_) => "RESUME_MODEL_CHANGED",
            Self::Off => "NO_CHECKPOINTS",
        }
    }
}

impl Resuming {
    /// Seals a session for its identity.
    ///
    /// # Errors
    /// [`TokenError::TooLarge`], [`TokenError::Random`].
    pub(super) fn seal(&self, identity: &Identity, saved: &Saved) -> Result<Bytes, TokenError> {
        // Writing to memory, of types that postcard knows, cannot fail.
        let content = postcard::to_stdvec(saved).unwrap_or_default();
        let keys = self.keys.borrow().clone();
        keys.seal(&context(identity), &content, now() + self.window.as_secs(), self.max_bytes)
    }

    /// Opens what was sealed for `identity`.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub(super) fn open(&self, identity: &Identity, token: &[u8]) -> Result<Saved, ResumeError> {
        let keys = self.keys.borrow().clone();
        let content = keys.open(&context(identity), token, now(), self.max_bytes)?;
        postcard::from_bytes(&content).map_err(|error| ResumeError::Content(error.to_string()))
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(Timestamp::now().unix_seconds()).unwrap_or_default()
}

/// Whom a token is for. No name of a tenant has a line break.
fn context(identity: &Identity) -> Vec<u8> {
    format!("{}\n{}", identity.tenant, identity.name).into_bytes()
}

impl SavedPolicy {
    /// The policy; `brought` is the text that came with the client's configuration.
    ///
    /// # Errors
    /// [`ResumeError::Content`] if this server reads it otherwise than the one before.
    pub(super) fn policy(&self, brought: &str) -> Result<Arc<Policy>, ResumeError> {
        Policy::parse(self.text.as_deref().unwrap_or(brought))
            .map(Arc::new)
            .map_err(|error| ResumeError::Content(format!("its policy: {error}")))
    }
}

#[cfg(test)]
mod tests;
