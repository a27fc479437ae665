//! A whole clip, through the same listeners as a live stream.

use std::sync::Arc;
use std::time::Duration;

use super::analysis::{AnalysisError, Listening};
use crate::audio::{AudioError, ClipHops, ClipReader, Lane};
use crate::features::BATCH_HOPS;
use crate::model::Model;
use crate::units::SamplePos;
use crate::wire::event::{ChannelSummary, Event};
use crate::wire::parse::{AnalysisSettings, ClipSettings};

/// What a clip sounds like.
#[derive(Debug)]
pub struct ClipReport {
    /// Its length.
    pub length: SamplePos,
    /// Estimates (if asked for) and utterances, in order.
    pub events: Vec<Event>,
    /// One per lane.
    pub channels: Vec<ChannelSummary>,
    /// Packets that could not be decoded and were passed over.
    pub corrupt_packets: u64,
    /// Whether the file ended before its container said it would.
    pub cut_short: bool,
}

/// Why a clip cannot be analysed.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// As for a stream.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// Longer than clips may be.
    #[error("the clip is longer than {limit:?}; stream it instead, or raise max_clip_length")]
    TooLong {
        /// Audio allowed.
        limit: Duration,
    },
}

impl From<AudioError> for ClipError {
    fn from(error: AudioError) -> Self {
        Self::Analysis(error.into())
    }
}

/// Hops between two chances for other tasks: about 2 ms of work.
const HOPS_PER_TURN: usize = 256;

/// Analyses what `reader` gives, up to `max_length` of audio. `progress` is told how far it has come, also of a clip
/// that fails later.
///
/// # Errors
/// [`ClipError`].
///
/// # Cancellation
/// Dropping the future stops the work; nothing is kept.
pub async fn analyze(
    model: Arc<Model>,
    reader: ClipReader,
    settings: &ClipSettings,
    max_length: Duration,
    mut progress: impl FnMut(SamplePos) + Send,
) -> Result<ClipReport, ClipError> {
    let lanes = if settings.separate_channels {
        Lane::separate(reader.channels())
    } else {
        vec![Lane::mix(reader.channels())]
    };
    // A recording's silences are no news: no warnings about them.
    let never = Duration::from_secs(u64::from(u32::MAX));
    let mut listening = Listening::new(model, &lanes, &settings.analysis, never);
    let mut clip = ClipHops::new(reader, &lanes)?;
    let mut events = Vec::new();
    let mut in_turn = 0;
    while let Some(hops) = clip.next_hops(BATCH_HOPS)? {
        let count = hops.len();
        listening.hear(hops.lanes());
        for _ in 0..count {
            listening.advance(&mut events).await.map_err(AnalysisError::from)?;
        }
        let end = clip.received().end;
        progress(end);
        if end.duration() > max_length {
            return Err(ClipError::TooLong { limit: max_length });
        }
        in_turn += count;
        if in_turn >= HOPS_PER_TURN {
            in_turn = 0;
            tokio::task::yield_now().await;
        }
    }
    let length = clip.received().end;
    listening.finish(length.0, &mut events).await.map_err(AnalysisError::from)?;
    let clipped: Vec<u64> = (0..lanes.len()).map(|lane| clip.take_clipped(lane)).collect();
    Ok(ClipReport {
        length,
        events,
        channels: listening.summaries(&clipped),
        corrupt_packets: clip.reader().corrupt_packets(),
        cut_short: clip.reader().is_cut_short(),
    })
}

/// Settings of a clip analysed with `analysis`.
pub fn settings(analysis: AnalysisSettings, separate_channels: bool) -> ClipSettings {
    ClipSettings { analysis, separate_channels }
}
