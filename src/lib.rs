//! Live emotion from speech, for agents: a streaming gRPC service.
//!
//! # Layout, in reading order
//! Data flows down this list; a module uses only what stands above it. `session` and `server` are the
//! only rooms that see every stage. A test holds the source to it.
//!
//! | module | what |
//! |---|---|
//! | [`units`] | units as types, the clock |
//! | [`state`] | saved states: what all parts that can be saved share |
//! | [`secrets`] | where secrets come from |
//! | [`yaml`] | files that people write, and what is wrong with them (serde-saphyr) |
//! | [`emotion`] | emotions, scores, valence and arousal |
//! | [`identity`] | who calls, and what they may |
//! | [`telemetry`] | every metric and span |
//! | [`audio`] | bytes or files -> hops of 16 kHz mono (symphonia, rubato) |
//! | [`features`] | hops -> log-mel, voice activity, MFCCs (rustfft) |
//! | [`model`] | manifests, the batching engine, ONNX Runtime (ort) |
//! | [`tracking`] | voice activity -> utterances; outputs -> estimates; pure |
//! | [`policy`] | rules over tracked signals -> decisions; pure |
//! | [`escalation`] | their life, the store (sqlx), delivery to sinks (reqwest, async-nats) |
//! | [`wire`] | the protocol: generated code, parsing, rendering (prost) |
//! | [`session`] | one actor per stream; whole clips through the same path |
//! | [`config`] | flags, environment, file -> settings |
//! | [`mcp`] | the Model Context Protocol: tools for language models over the clients of the protocol (rmcp) |
//! | [`server`] | gRPC, HTTP, who calls, TLS, errors, draining (tonic, axum, rustls) |
//! | [`report`] | self-contained HTML: tables, charts, pictures (maud, png) |
//! | [`corpus`] | the four corpora: labels, manifests, features for training |
//! | [`evaluation`] | the honest judge of models: clips through the serving path, figures |
//! | [`archive`] | archives of recordings -> tables, resumably (`object_store`, parquet) |
//! | [`commands`] | the command line: thin |
//!
//! # Glossary
//! - **chunk**: what a client sends; any size, may split a sample.
//! - **sample**: one value of one channel. All positions are samples at 16 kHz since the stream's first.
//! - **hop**: 256 samples, 16 ms; the clock.
//! - **frame**: the 1,024 samples (64 ms) that one MFCC vector looks at; numbered like its first hop.
//! - **step**: 16 hops, 256 ms; what a streaming model consumes and what is batched over streams.
//! - **window**: the stretch that a window model looks at.
//! - **lane**: a set of channels analysed as one voice.
//! - **utterance**: speech between two pauses of at least the hang-over.
//! - **session**: one stream, from its configuration to its summary.
//! - **state**: all that a session carries from one chunk to the next, so that it can go on elsewhere.
//! - **resume token**: a session's state in bytes, sealed, which its client carries.
//! - **reading**: what a policy looks at, one per channel and step.
//! - **policy**: rules over readings; each **rule** raises, updates and clears escalations.
//! - **escalation**: a rule in force on a channel, from its onset on; kept and delivered.
//! - **occurrence**: one thing that happens to an escalation; numbered, and delivered under its own id.
//! - **sink**: where occurrences are delivered.
//! - **identity**: who calls, with a **tenant** (whose sessions and escalations), **roles** and a **quota**.
//! - **shard**: the share of an archive that one worker has; decided by each clip's path alone.
//! - **part**: what a worker writes at once: a file of clips and its twin, a file of their utterances.
//!
//! # Invariants
//! 1. What comes out depends on the audio alone: features to the bit, events and estimates for any
//!    chunking, probabilities within 1e-5 (batches of another size may sum in another order).
//! 2. Streamed equals offline: files and streams take the same path.
//! 3. Audio is never written and never logged.
//! 4. Every queue has a bound. A client that does not read is not read from.
//! 5. Bytes from a client never panic.
//! 6. Nobody is told of an occurrence before it is committed, but a stream's client while the store is
//!    down, who is told that it is not.
//! 7. A stream that goes on from its state, wherever, gives what it would have given, as in 1.
//! 8. Whenever the workers of an archive are killed, those that go on end with the same tables.

pub mod archive;
pub mod audio;
pub mod commands;
pub mod config;
pub mod corpus;
pub mod emotion;
pub mod escalation;
pub mod evaluation;
pub mod features;
pub mod identity;
pub mod mcp;
pub mod model;
pub mod policy;
pub mod report;
pub mod secrets;
pub mod server;
pub mod session;
pub mod state;
pub mod telemetry;
pub mod tracking;
pub mod units;
pub mod wire;
pub mod yaml;
