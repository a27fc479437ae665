//! Bytes in, hops of 16 kHz mono out.
//!
//! A stream comes in as chunks of interleaved samples in one of four encodings, at any rate from 8 to
//! 48 kHz, with 1 to 8 channels; a file comes in as a container. Both leave as *hops*: for every
//! *lane* 256 samples at 16 kHz, `f32`, full scale at ±1. A lane is what is analysed as one voice: the
//! mean of a set of the stream's channels. All lanes of a stream advance together.
//!
//! Invariants:
//! 1. The hops depend on the samples only, never on how they were cut into chunks: any chunking
//!    gives the same bits (property tests in [`intake`]). Hence a file and a stream of the same samples
//!    give the same bits as well, since both run through the same line.
//! 2. Input time `t` is output time `t`: the resampler's delay is taken out, so that the output sample
//!    `k` stands for the time `k / 16000` s after the stream's first sample.
//! 3. `n` input frames at `rate` Hz give exactly `ceil(n * 16000 / rate)` samples after `finish`, then
//!    zeros up to the end of the last hop.
//! 4. No sequence of bytes panics; no sample that leaves is NaN, infinite or, before resampling,
//!    outside ±1 (a resampled square wave may ring a few per cent above).
//! 5. Between chunks a stream holds only what is not yet a hop, however big its chunks are.
//!
//! In reading order: [`mod@format`] (what a stream says it sends), [`g711`] and `pcm` (bytes to samples),
//! [`lanes`], `clipping`, `resample` (any rate to 16 kHz; the only user of rubato), `line` (frames in,
//! hops out), [`intake`] (a stream's whole way), [`container`] (files; the only user of symphonia),
//! [`level`], [`error`].

pub mod container;
pub mod error;
pub mod format;
pub mod g711;
pub mod intake;
pub mod lanes;
pub mod level;

mod clipping;
mod line;
mod pcm;
mod resample;
#[cfg(test)]
mod synthesis;

pub use container::{ClipHops, ClipReader};
pub use error::{AudioError, ErrorKind};
pub use format::{AudioFormat, Encoding};
pub use intake::{Intake, IntakeState, Tail};
pub use lanes::Lane;
pub use line::{Hop, Hops, Received};
