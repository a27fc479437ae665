//! Why a session ends badly.

use std::time::Duration;

use super::admission;
use super::analysis::AnalysisError;
use super::checkpoint::ResumeError;
use super::context::SourceError;
use crate::wire::parse::Violation;

/// Why a session ended badly. Each carries what the client needs to put it right.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A request with fields that cannot be used.
    #[error("invalid request")]
    Invalid(Vec<Violation>),
    /// Something came before the configuration.
    #[error("the first message must be `config`, not `{actual}`")]
    ConfigMissing {
        /// What came.
        actual: &'static str,
    },
    /// A second configuration.
    #[error("`config` came twice; open a new stream for another configuration")]
    ConfigTwice,
    /// No such model.
    #[error("there is no model {name:?}; loaded are {known}")]
    NoModel {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No such policy.
    #[error("there is no policy {name:?}; known are {known}")]
    NoPolicy {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The server keeps no escalations.
    #[error(
        "this server has no escalation store, so streams have no policies; set escalation_store"
    )]
    NoStore,
    /// The server takes no policies of clients.
    #[error("this server takes no policies of clients (inline_policies); name one of {known}")]
    NoInline {
        /// The names there are.
        known: String,
    },
    /// The session cannot be gone on with.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The session's client goes on with it in another stream.
    #[error("the session {0:?} goes on in another stream")]
    Replaced(String),
    /// A live session has that name.
    #[error("a live session is named {0:?}; choose another session_id")]
    IdTaken(String),
    /// The server is full.
    #[error("the server serves {limit} streams and takes no more now")]
    Full {
        /// How many.
        limit: usize,
    },
    /// A quota is used up, or the server has no room.
    #[error(transparent)]
    Refused(#[from] admission::Refused),
    /// The server is about to end.
    #[error("the server is draining; connect elsewhere")]
    Draining,
    /// A chunk that is too large.
    #[error("audio.data has {actual} bytes, at most {limit} are taken; send smaller chunks")]
    ChunkTooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes sent.
        actual: usize,
    },
    /// The stream is longer than streams may be.
    #[error("the stream has reached its longest length, {limit:?} of audio; open a new one")]
    TooLong {
        /// Audio allowed.
        limit: Duration,
    },
    /// Audio comes too fast.
    #[error(
        "audio came more than {factor} times faster than real time for longer than {burst:?}; pace it"
    )]
    TooFast {
        /// How many times faster than real time it may come.
        factor: f32,
        /// Audio that may come at any speed.
        burst: Duration,
        /// When the audio sent so far would be allowed.
        retry: Duration,
    },
    /// Nothing came for too long.
    #[error("no message for {limit:?}; send audio, silence if need be, or half-close the stream")]
    Idle {
        /// Time allowed.
        limit: Duration,
    },
    /// The client does not read.
    #[error("responses were not read for {limit:?}")]
    Unread {
        /// Time allowed.
        limit: Duration,
    },
    /// The client has gone.
    #[error("the client has gone")]
    Vanished,
    /// A message that the transport refuses.
    #[error("{0}")]
    Transport(String),
    /// A message that is too large for the transport.
    #[error("{0}; send smaller chunks")]
    TooLarge(String),
    /// The audio or the engine failed.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
}

impl SessionError {
    /// Why a stream was not gone on with, as a label of the metrics.
    pub(super) fn resume_refusal(&self) -> &'static str {
        match self {
            Self::Resume(error) => error.reason(),
            _ => "refused",
        }
    }
}

impl From<SourceError> for SessionError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Vanished(_) => Self::Vanished,
            SourceError::Refused(reason) => Self::Transport(reason),
            SourceError::TooLarge(reason) => Self::TooLarge(reason),
        }
    }
}

/// One field of a request cannot be used.
pub(super) fn invalid(field: &'static str, problem: &str) -> SessionError {
    SessionError::Invalid(vec![Violation { field, problem: problem.to_owned() }])
}
