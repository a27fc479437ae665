//! A listener's state, and going on from one.
//!
//! Saved between two chunks: all hops have been gone through, no row is under way. What was heard before an
//! utterance that is open has been fed to the model and is not needed again, nor is what is older than the
//! lead-in of one that may begin. So positions say how much of the history there is.

use serde::{Deserialize, Serialize};

use super::{Interval, Listener, Open, PAST_HOPS};
use crate::features::FeatureState;
use crate::features::FeatureStream;
use crate::features::voice::VoiceDetector;
use crate::model::Input;
use crate::session::assembler::AssemblerState;
use crate::state::{MAX_COUNT, Misfit, Numbers};
use crate::tracking::{SegmenterState, TrackerState};
use crate::units::{HOP_SAMPLES, STEP_HOPS};

/// What a [`Listener`] carries from one chunk to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerState {
    hops: u64,
    features: FeatureState,
    voice: VoiceDetector,
    segmenter: SegmenterState,
    tracker: TrackerState,
    history: Numbers,
    open: Option<Open>,
    /// Of the utterance that is open.
    assembler: Option<AssemblerState>,
    heard_from: u64,
    not_before: u64,
    evidence: u64,
    utterances: u32,
    since: Interval,
    reading: Option<Interval>,
    speech_total: u64,
    last_voice: u64,
}

impl ListenerState {
    /// Hops heard.
    pub(crate) fn hops(&self) -> u64 {
        self.hops
    }
}

impl Listener {
    /// What must be kept for the lane to be gone on with elsewhere: between two chunks, before
    /// [`finish`](Self::finish).
    pub fn state(&self) -> ListenerState {
        ListenerState {
            hops: self.hops,
            features: self.features.state(),
            voice: self.voice.clone(),
            segmenter: self.segmenter.state(),
            tracker: self.tracker.state(),
            history: self.history.state(self.needed_from()),
            open: self.open.clone(),
            assembler: self.open.as_ref().and_then(|_| self.assembler.state()),
            heard_from: self.heard_from,
            not_before: self.not_before,
            evidence: self.evidence,
            utterances: self.utterances,
            since: self.since,
            reading: self.reading,
            speech_total: self.speech_total,
            last_voice: self.last_voice,
        }
    }

    /// Goes on, being new and with the same model and settings, as the listener would have whose state it was.
    ///
    /// # Errors
    /// [`Misfit`], after which it is of no use.
    pub fn restore(&mut self, state: &ListenerState) -> Result<(), Misfit> {
        Misfit::beyond(state.hops, MAX_COUNT, "count of hops")?;
        self.hops = state.hops;
        self.restore_positions(state)?;
        self.features = FeatureStream::resume(state.hops, &state.features)?;
        state.voice.check_saved()?;
        self.voice = state.voice.clone();
        self.segmenter.restore(self.frames(), state.segmenter)?;
        self.tracker.restore(&self.manifest, state.hops, &state.tracker)?;
        self.restore_utterance(state)?;
        let end = match self.manifest.input {
            Input::WaveformWindow { .. } => state.hops,
            Input::Step { .. } | Input::MfccWindow { .. } => self.frames(),
        };
        self.history.restore(self.needed_from_before(end), end, &state.history)
    }

    fn restore_positions(&mut self, state: &ListenerState) -> Result<(), Misfit> {
        let frames = self.frames();
        for (position, part) in [
            (state.heard_from, "utterance's first frame"),
            (state.not_before, "end of the utterance before"),
            (state.evidence, "model's last frame"),
            (state.last_voice, "last voice"),
            (state.speech_total, "speech in all"),
            (state.utterances.into(), "number of utterances"),
        ] {
            Misfit::beyond(position, frames, part)?;
        }
        for interval in [Some(state.since), state.reading].into_iter().flatten() {
            let fits = u64::from(interval.hops) <= state.hops
                && interval.hops <= u32::MAX / 2
                && interval.voiced <= interval.hops
                && interval.energy.is_finite()
                && interval.energy >= 0.0;
            Misfit::unless(fits, "sums since the last estimate", "are none that there can be")?;
        }
        let wanted = state.reading.is_some() == self.reading.is_some();
        Misfit::unless(wanted, "reading", "is there against the settings, or lacks")?;
        let short = state.reading.is_none_or(|reading| reading.hops < STEP_HOPS as u32);
        Misfit::unless(short, "reading", "is overdue")?;
        self.heard_from = state.heard_from;
        self.not_before = state.not_before;
        self.evidence = state.evidence;
        self.utterances = state.utterances;
        self.since = state.since;
        self.reading = state.reading;
        self.speech_total = state.speech_total;
        self.last_voice = state.last_voice;
        // The first one behind what was heard.
        let position = state.hops * HOP_SAMPLES as u64;
        self.next_estimate = position
            .checked_div(self.interval)
            .map_or(0, |intervals| intervals.saturating_add(1).saturating_mul(self.interval));
        Ok(())
    }

    fn restore_utterance(&mut self, state: &ListenerState) -> Result<(), Misfit> {
        const PART: &str = "open utterance";
        let frames = self.frames();
        let open = state.open.is_some() == self.segmenter.in_utterance();
        Misfit::unless(open, PART, "does not fit the segmenter")?;
        if let Some(open) = &state.open {
            let fits = open.onset <= open.voice_end
                && open.voice_end <= frames
                && open.speech <= frames - open.onset;
            Misfit::unless(fits, PART, "ends before it begins, or after the stream")?;
            let lost = Misfit { part: PART, problem: "was saved while the model ran" };
            self.assembler.restore(state.assembler.as_ref().ok_or(lost)?)?;
        }
        self.open.clone_from(&state.open);
        // All that there is has been fed to the model.
        self.cursor = frames;
        Ok(())
    }

    /// The oldest vector of the history that will be asked for.
    fn needed_from(&self) -> u64 {
        self.needed_from_before(self.history.end())
    }

    fn needed_from_before(&self, end: u64) -> u64 {
        let frames = self.hops.saturating_sub(PAST_HOPS);
        let from = if self.open.is_some() {
            frames
        } else {
            let onset = self.segmenter.rising().unwrap_or(frames);
            onset.saturating_sub(self.lead_in_hops).max(self.not_before)
        };
        from.min(end)
    }
}
