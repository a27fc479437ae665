//! What a session is given: what all share, where requests come from, and how it may end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::checkpoint::Resuming;
use super::registry::Registry;
use crate::escalation::Recorder;
use crate::model::Models;
use crate::policy::{Library, Severity};
use crate::wire::event::Ingress;
use crate::wire::parse::Defaults;
use crate::wire::v1;

/// Responses on their way to one client: two seconds of the busiest sensible stream, eight channels
/// with estimates every second. When it is full, the session stops reading.
pub const OUTBOX: usize = 16;

/// What a stream may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest chunk, bytes.
    pub max_chunk_bytes: usize,
    /// Longest stream, by its audio.
    pub max_audio: Duration,
    /// Longest time without a message.
    pub idle_timeout: Duration,
    /// Longest time until the first one, the configuration.
    pub config_timeout: Duration,
    /// Longest time that the client may leave responses unread.
    pub send_timeout: Duration,
    /// How many times faster than real time audio may come after the burst; 0 for no limit.
    pub max_realtime_factor: f32,
    /// Audio that may come at any speed.
    pub burst: Duration,
    /// Silence after which a warning is sent.
    pub no_speech: Duration,
    /// Time that a draining server leaves its streams.
    pub drain_deadline: Duration,
    /// Time between two chunks whose stages are traced.
    pub stage_interval: Duration,
    /// How much of what was heard is kept for those who look at it.
    pub history: Duration,
}

/// How sessions raise escalations.
#[derive(Debug, Clone)]
pub struct Escalating {
    /// The policies that they can name.
    pub library: Arc<Library>,
    /// The policy of those that name none; empty for none.
    pub default_policy: String,
    /// Whether they may bring their own, and how severe its rules may be.
    pub inline: Option<Severity>,
    /// Where it is recorded what happens.
    pub recorder: Recorder,
}

/// What all sessions share.
#[derive(Debug, Clone)]
pub struct Context {
    /// The models.
    pub models: Models,
    /// What a session gets that does not say.
    pub defaults: Defaults,
    /// What it may do.
    pub limits: Limits,
    /// Who gets in.
    pub admission: Arc<Admission>,
    /// The live sessions.
    pub registry: Arc<Registry>,
    /// How they raise escalations; `None` where nothing is kept.
    pub escalating: Option<Escalating>,
    /// How they are gone on with elsewhere; `None` for not at all.
    pub resuming: Option<Resuming>,
    /// Cancelled when the server begins to end.
    pub draining: CancellationToken,
}

/// Why the requests ended badly.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The client has gone.
    #[error("the client has gone: {0}")]
    Vanished(String),
    /// A message that the transport refuses: not decodable.
    #[error("{0}")]
    Refused(String),
    /// A message that is too large for the transport.
    #[error("{0}")]
    TooLarge(String),
}

/// Where requests come from.
pub trait Source: Send {
    /// The next request; `None` when the client has half-closed.
    ///
    /// # Cancellation
    /// Must be safe: the session waits for other things at the same time.
    fn next(
        &mut self,
    ) -> impl Future<Output = Result<Option<v1::StreamEmotionRequest>, SourceError>> + Send;

    /// The way it comes in.
    fn ingress(&self) -> Ingress {
        Ingress::Grpc
    }
}

/// How a session ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client half-closed; everything was answered.
    Finished,
    /// The server ended; everything that had come was answered.
    Drained,
}
