//! A stream's state, and going on from one.
//!
//! Out: an [`AnalysisState`], between two chunks. In: one that was decoded from bytes that a client brought. It
//! says itself what it is the state of: format, lanes, settings, model. What it may be is bounded by what the
//! service could have made it, so that neither damage nor malice can ask for memory or break a sum.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Analysis, Listening};
use crate::audio::{AudioError, AudioFormat, IntakeState, Lane};
use crate::model::{Manifest, Model};
use crate::session::listener::{Listener, ListenerState};
use crate::state::{MAX_COUNT, Misfit};
use crate::wire::parse::AnalysisSettings;

/// The longest stretch that any setting of an analysis may name, in hops: 20 s, twice the longest that a client or a
/// server may ask for.
const MAX_HOPS: u64 = 1_250;
/// The longest time between two estimates that is believed, likewise.
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// The longest time without voice before a warning that is believed.
const MAX_NO_SPEECH: Duration = Duration::from_hours(366 * 24);

/// Why a stream cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Its lanes do not fit its format.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// It was analysed by another model.
    #[error("the state is of the model {expected}, and here is {actual}")]
    OtherModel {
        /// The state's, with version and the beginning of its hash.
        expected: String,
        /// The one at hand.
        actual: String,
    },
    /// A part of it does not fit.
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

/// Which model a state is of: another one's would be nonsense to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    name: String,
    version: String,
    /// The first digits of the graph's hash.
    hash: String,
}

impl Mark {
    fn of(manifest: &Manifest) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            hash: manifest.sha256.chars().take(12).collect(),
        }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.name, self.version, self.hash)
    }
}

/// All that an [`Analysis`] carries from one chunk to the next, and what it is an analysis of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnalysisState {
    model: Mark,
    format: AudioFormat,
    lanes: Vec<Lane>,
    settings: AnalysisSettings,
    no_speech: Duration,
    intake: IntakeState,
    listeners: Vec<ListenerState>,
    clipped: Vec<u64>,
    warned: Vec<Option<u64>>,
}

impl AnalysisState {
    /// The name of the model that it must be resumed with.
    pub fn model(&self) -> &str {
        &self.model.name
    }

    /// The format of the stream.
    pub fn format(&self) -> AudioFormat {
        self.format
    }

    /// What of it is analysed.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// How it is analysed.
    pub fn settings(&self) -> &AnalysisSettings {
        &self.settings
    }
}

impl Analysis {
    /// What must be kept for the stream to be gone on with elsewhere: between two pushes, before
    /// [`finish`](Self::finish). That of an analysis that failed, or that was cancelled, is of no use, and mostly
    /// refused by [`resume`](Self::resume).
    pub fn state(&self) -> AnalysisState {
        AnalysisState {
            model: Mark::of(&self.listening.model.manifest),
            format: self.format,
            lanes: self.intake.lanes().to_vec(),
            settings: self.settings.clone(),
            no_speech: self.no_speech,
            intake: self.intake.state(),
            listeners: self.listening.listeners.iter().map(Listener::state).collect(),
            clipped: self.clipped.clone(),
            warned: self.warned.clone(),
        }
    }

    /// An analysis that goes on as the one would have whose state it was: all that follows is the same, numbers
    /// within 1e-5 because batches differ.
    ///
    /// # Errors
    /// [`ResumeError`] if the state is of another model, is damaged, or asks for what no stream may have.
    pub fn resume(model: Arc<Model>, state: &AnalysisState) -> Result<Self, ResumeError> {
        let here = Mark::of(&model.manifest);
        if here != state.model {
            let (expected, actual) = (state.model.to_string(), here.to_string());
            return Err(ResumeError::OtherModel { expected, actual });
        }
        check_settings(&state.settings, state.no_speech)?;
        let mut analysis =
            Self::new(model, state.format, &state.lanes, &state.settings, state.no_speech)?;
        analysis.intake.restore(&state.intake)?;
        analysis.bytes = analysis.intake.bytes();
        analysis.restore_warnings(state)?;
        let hops = analysis.intake.hops();
        analysis.listening.restore(hops, &state.listeners)?;
        Ok(analysis)
    }

    fn restore_warnings(&mut self, state: &AnalysisState) -> Result<(), Misfit> {
        let lanes = self.clipped.len();
        let fits = state.clipped.len() == lanes && state.warned.len() == lanes;
        Misfit::unless(fits, "clipping", "is of another number of lanes")?;
        for clipped in &state.clipped {
            Misfit::beyond(*clipped, MAX_COUNT, "count of clipped samples")?;
        }
        let seconds = self.bytes / self.second_bytes();
        for warned in state.warned.iter().flatten() {
            Misfit::beyond(*warned, seconds, "last warning of clipping")?;
        }
        self.clipped.clone_from(&state.clipped);
        self.warned.clone_from(&state.warned);
        Ok(())
    }
}

impl Listening {
    fn restore(&mut self, hops: u64, states: &[ListenerState]) -> Result<(), Misfit> {
        let fits =
            states.len() == self.listeners.len() && states.iter().all(|state| state.hops() == hops);
        Misfit::unless(fits, "lanes", "are others, or not as far as the stream")?;
        self.listeners.iter_mut().zip(states).try_for_each(|(lane, state)| lane.restore(state))
    }
}

/// Settings that no stream can have are refused before anything is made by them.
fn check_settings(settings: &AnalysisSettings, no_speech: Duration) -> Result<(), Misfit> {
    let AnalysisSettings { estimate_interval, segmenter, lead_in_hops, tracker, readings: _ } =
        settings;
    let share = |value: f32| (0.0..=1.0).contains(&value);
    let hops = |value: u64| value <= MAX_HOPS;
    let fits = share(segmenter.on)
        && share(segmenter.off)
        && segmenter.off <= segmenter.on
        && (1..=MAX_HOPS).contains(&segmenter.min_speech_hops)
        && (1..=MAX_HOPS).contains(&segmenter.hang_over_hops)
        && hops(*lead_in_hops)
        && hops(tracker.min_speech_hops)
        && share(tracker.min_confidence)
        && share(tracker.carry)
        && estimate_interval.is_none_or(|interval| interval <= MAX_INTERVAL)
        && no_speech <= MAX_NO_SPEECH;
    Misfit::unless(fits, "settings", "are none that a stream can have")
}
