//! Live sessions: one actor per stream.
//!
//! In: a stream of requests from wherever (gRPC, a test). Out: responses, in the order of the audio. The
//! only module that knows every stage: it parses, takes audio in, listens, asks the engine, and renders.
//!
//! Always:
//! 1. A session ends in exactly one of the ways of [`Outcome`]; its entry in the [`Registry`] goes with
//!    it, whoever drops it.
//! 2. Two queues, both bounded: the engine's, and the [`OUTBOX`] towards the client. A client
//!    that does not read is not read from either.
//! 3. A session can be saved between two requests, and be gone on with elsewhere as if nothing had been:
//!    see [`Resuming`].
//! 4. What a client is told depends on its audio, marks and turns only; not on chunk sizes, load or
//!    other clients. (Probabilities agree within 1e-5: see [`crate::model::engine`].)

pub mod actor;
pub mod admission;
mod alarm;
pub mod analysis;
mod assembler;
mod checkpoint;
pub mod clip;
mod context;
mod error;
mod history;
pub mod listener;
pub mod load;
mod opening;
pub mod recent;
pub mod registry;
pub mod rehearsal;
pub mod token;

pub use admission::{Admission, Permit};
pub use analysis::{Analysis, AnalysisError, AnalysisState, Listening};
pub use checkpoint::{ResumeError, Resuming};
pub use context::{Context, Escalating, Limits, OUTBOX, Outcome, Source, SourceError};
pub use error::SessionError;
pub use listener::Listener;
pub use registry::{Afterlife, Listed, Registry};
pub use token::{Keyring, KeyringError, TokenError};
