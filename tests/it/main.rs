//! The service as a whole: real audio paths, real models, real servers on loopback.
//!
//! | module | claims about |
//! |---|---|
//! | [`support`], [`signal`], [`resumer`] | nothing: what the tests share |
//! | [`architecture`] | the house rules |
//! | [`models`] | loading, refusing and running models of every kind |
//! | [`clock`] | where in time things are |
//! | [`chunking`] | what comes out depends on the audio alone |
//! | [`conversation`] | what a client is told, in which order |
//! | [`clips`] | whole files |
//! | [`limits`] | what a client may not do |
//! | [`admission`] | quotas, and a server without room |
//! | [`hostile`], [`raw`] | clients that mean harm |
//! | [`clients`] | clients that vanish or do not read |
//! | [`engine`] | engines that die, servers that stop |
//! | [`identity`], [`tokens`], [`tls`], [`pki`] | who calls, what they may, over what |
//! | [`protocol`] | health, reflection, gRPC-Web, a documented protocol |
//! | [`process`], [`health`], [`otlp`], [`pipes`], [`privacy`] | the real binary |
//! | [`operators`] | alerts, dashboard, runbook, the metrics they speak of |
//! | [`archives`], [`bucket`] | `undertone analyze` on folders and object storage |
//! | [`evaluate`] | judging models on labelled clips |
//! | [`corpora`] | corpora from the command line |
//! | [`escalations`] | policies, the service, the store going away and coming back |
//! | [`operations`] | `undertone escalations` beside a running server |
//! | [`policies`] | policies tried on recordings and rehearsed |
//! | [`store`] | the escalation store, SQLite and PostgreSQL |
//! | [`sinks`], [`sinks_tls`] | what arrives where escalations are delivered |
//! | [`crash`] | escalations arrive, whatever dies or fails |
//! | [`resume`] | streams that break off and go on |
//! | [`stream_command`] | `undertone stream` with servers that end |
//! | [`resume_state`] | streams that go on from a state |
//! | [`websocket`], [`telephony`], [`socket`] | audio over WebSocket: our own protocol, Twilio, AudioHook |
//! | [`connect`] | calls as JSON over HTTP, the console |
//! | [`tenants`] | who sees whose sessions and escalations |
//! | [`sessions`] | live sessions, for those who did not open them |
//! | [`fuzzing`] | any sequence of messages |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unnecessary_wraps,
    clippy::manual_midpoint,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::assigning_clones,
    clippy::redundant_closure_for_method_calls,
    reason = "a test that cannot go on must fail, here and with what it saw"
)]

mod admission;
mod architecture;
mod archives;
mod bucket;
mod chunking;
mod clients;
mod clips;
mod clock;
mod connect;
mod conversation;
mod corpora;
mod crash;
mod database;
mod engine;
mod escalations;
mod evaluate;
mod fuzzing;
mod health;
mod hostile;
mod identity;
mod limits;
mod models;
mod operations;
mod operators;
mod otlp;
mod pipes;
mod pki;
mod policies;
mod privacy;
mod process;
mod protocol;
mod raw;
mod resume;
mod resume_state;
mod resumer;
mod sessions;
mod signal;
mod sinks;
mod sinks_tls;
mod socket;
mod store;
mod stream_command;
mod support;
mod telephony;
mod tenants;
mod tls;
mod tokens;
mod websocket;
