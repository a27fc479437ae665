//! The service as a whole: real audio paths, real models, real servers on loopback.
//!
//! | module | claims about |
//! |---|---|
//! | [`support`], [`signal`] | nothing: what the tests share |
//! | [`models`] | loading, refusing and running models of every kind |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail, here and with what it saw"
)]

mod models;
mod signal;
mod support;
