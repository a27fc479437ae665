//! From voice activity to utterances, and from model outputs to estimates. Pure: time is an argument.
//!
//! In: one probability of voice per hop, one output per model step. Out: the bounds of utterances, and
//! what a rolling estimate and an utterance's final estimate say. Nothing here waits, allocates per hop
//! or reads a clock, so what comes out depends on the audio alone.

pub mod segmenter;
pub mod tracker;

pub use segmenter::{Segment, Segmenter, SegmenterSettings, SegmenterState};
pub use tracker::{
    Abstain, Affect, DimensionSource, Judgement, Tracker, TrackerSettings, TrackerState,
};
