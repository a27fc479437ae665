//! One stream's audio, analysed: bytes in, events out.
//!
//! The one path that live streams, whole clips and files go through, so that streamed equals offline.
//! Requests to the engine are awaited where they arise: a stream has one under way at a time, the next
//! slice is not looked at before, and a client that sends faster is held up by flow control.

mod saved;

use std::sync::Arc;

use super::listener::Listener;
use crate::audio::{AudioError, AudioFormat, Intake, Lane};
use crate::features::BATCH_HOPS;
use crate::model::{EngineError, Model};
use crate::telemetry::stage::{self, Stage};
use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ, SamplePos, duration_to_hops};
use crate::wire::event::{ChannelSummary, Event, Warning, WarningReason};
use crate::wire::parse::AnalysisSettings;

pub use saved::{AnalysisState, ResumeError};

/// Hops of a chunk that are taken in at once: what a slice makes waits as samples, so slices bound
/// memory.
const SLICE_HOPS: usize = 16;
/// Seconds between two clipping warnings of a lane: an overdriven input clips all the time.
const CLIPPING_PAUSE_S: u64 = 10;

/// Why an analysis cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// The audio cannot be used.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The model cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Hops on their way through the listeners: all that does not care where the audio comes from.
pub struct Listening {
    model: Arc<Model>,
    listeners: Vec<Listener>,
    no_speech_hops: u64,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("lanes", &self.listeners.len()).finish_non_exhaustive()
    }
}

impl Listening {
    /// Listeners for `lanes`. A warning comes after each `no_speech` without voice.
    pub fn new(
        model: Arc<Model>,
        lanes: &[Lane],
        settings: &AnalysisSettings,
        no_speech: std::time::Duration,
    ) -> Self {
        let listeners = lanes
            .iter()
            .map(|lane| {
                let channel = lane.channels().next().unwrap_or_default() as u32;
                Listener::new(channel, model.manifest.clone(), settings)
            })
            .collect();
        Self { model, listeners, no_speech_hops: duration_to_hops(no_speech).max(1) }
    }

    /// Takes the next hops of every lane. Each has to be gone on by, see [`Self::advance`].
    pub fn hear<'a>(&mut self, lanes: impl Iterator<Item = &'a [[f32; HOP_SAMPLES]]>) {
        for (listener, hops) in self.listeners.iter_mut().zip(lanes) {
            listener.hear_all(hops);
        }
    }

    /// Goes on by one hop in every lane.
    ///
    /// # Errors
    /// [`EngineError`].
    ///
    /// # Cancellation
    /// Not safe: a listener whose row is under way cannot go on. Drop the whole analysis.
    pub async fn advance(&mut self, events: &mut Vec<Event>) -> Result<(), EngineError> {
        for listener in &mut self.listeners {
            listener.advance();
            run_requests(&self.model, listener).await?;
            listener.settle(events);
            let silent = listener.silent_hops();
            if silent > 0 && silent.is_multiple_of(self.no_speech_hops) {
                let seconds = silent as f64 * HOP_SAMPLES as f64 / f64::from(MODEL_RATE_HZ);
                events.push(Event::Warning(Warning {
                    reason: WarningReason::NoSpeech,
                    message: format!("no voice for {seconds:.0} s; is the microphone open?"),
                    position: listener.position(),
                    channel: Some(listener.channel()),
                }));
            }
        }
        Ok(())
    }

    /// The stream was `length` samples at 16 kHz long: hears out the last frames and a begun step
    /// against silence, then ends what is open.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn finish(
        &mut self,
        length: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), EngineError> {
        const SILENCE: [f32; HOP_SAMPLES] = [0.0; HOP_SAMPLES];
        for listener in &mut self.listeners {
            listener.end_readings(events);
            listener.finish(length);
            let mut padded = 0;
            while listener.wants_padding(padded) {
                padded += 1;
                listener.hear(&SILENCE);
                run_requests(&self.model, listener).await?;
                listener.settle(events);
            }
            listener.close(events);
        }
        Ok(())
    }

    /// Ends the utterances that are open: the caller knows that the turn has changed.
    pub fn turn(&mut self, events: &mut Vec<Event>) {
        for listener in &mut self.listeners {
            listener.close(events);
        }
    }

    /// Each lane's summary; `clipped` samples per lane.
    pub fn summaries(&self, clipped: &[u64]) -> Vec<ChannelSummary> {
        self.listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| {
                listener.summary(clipped.get(index).copied().unwrap_or_default())
            })
            .collect()
    }
}

async fn run_requests(model: &Model, listener: &mut Listener) -> Result<(), EngineError> {
    while let Some(row) = listener.request() {
        let row = model.engine.infer(row).await?;
        if !listener.absorb(row) {
            let model = model.manifest.name.as_str().into();
            return Err(EngineError::NotFinite { model });
        }
    }
    Ok(())
}

/// A stream of raw audio, analysed.
pub struct Analysis {
    format: AudioFormat,
    settings: AnalysisSettings,
    no_speech: std::time::Duration,
    intake: Intake,
    listening: Listening,
    /// Bytes received.
    bytes: u64,
    clipped: Vec<u64>,
    /// Second of the last clipping warning, per lane.
    warned: Vec<Option<u64>>,
}

impl std::fmt::Debug for Analysis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Analysis").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Analysis {
    /// Nothing heard yet.
    ///
    /// # Errors
    /// [`AudioError`] if the lanes do not fit the format.
    pub fn new(
        model: Arc<Model>,
        format: AudioFormat,
        lanes: &[Lane],
        settings: &AnalysisSettings,
        no_speech: std::time::Duration,
    ) -> Result<Self, AudioError> {
        Ok(Self {
            format,
            settings: settings.clone(),
            no_speech,
            intake: Intake::new(format, lanes)?,
            listening: Listening::new(model, lanes, settings, no_speech),
            bytes: 0,
            clipped: vec![0; lanes.len()],
            warned: vec![None; lanes.len()],
        })
    }

    /// Analyses a chunk of any size. Events come in the order of the audio.
    ///
    /// # Errors
    /// [`AnalysisError`]; nothing can be pushed after one.
    ///
    /// # Cancellation
    /// Not safe, see [`Listening::advance`].
    pub async fn push(
        &mut self,
        chunk: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), AnalysisError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (slice, behind) = rest.split_at(self.slice_len().min(rest.len()));
            rest = behind;
            let began = stage::begin();
            self.intake.push(slice)?;
            stage::end(Stage::Features, began);
            self.bytes += slice.len() as u64;
            self.drain(events).await?;
            if self.bytes.is_multiple_of(self.second_bytes()) {
                self.check_clipping(events);
            }
        }
        Ok(())
    }

    /// Bytes up to the next slice's end. Slices end at whole seconds, where clipping is looked at:
    /// warnings must not depend on where chunks end.
    fn slice_len(&self) -> usize {
        let to_second = self.second_bytes() - self.bytes % self.second_bytes();
        (self.format.bytes_per_hop() * SLICE_HOPS).min(to_second as usize)
    }

    fn second_bytes(&self) -> u64 {
        u64::from(self.format.rate.hz()) * self.format.bytes_per_frame() as u64
    }

    async fn drain(&mut self, events: &mut Vec<Event>) -> Result<(), EngineError> {
        while let Some(hops) = self.intake.next_hops(BATCH_HOPS) {
            let began = stage::begin();
            self.listening.hear(hops.lanes());
            stage::end(Stage::Features, began);
            for _ in 0..hops.len() {
                self.listening.advance(events).await?;
            }
        }
        Ok(())
    }

    fn check_clipping(&mut self, events: &mut Vec<Event>) {
        let second = self.bytes / self.second_bytes();
        let lanes = self.clipped.iter_mut().zip(&mut self.warned).zip(&self.listening.listeners);
        for (index, ((total, warned), listener)) in lanes.enumerate() {
            let clipped = self.intake.take_clipped(index);
            *total += clipped;
            if clipped == 0 || warned.is_some_and(|at| second < at + CLIPPING_PAUSE_S) {
                continue;
            }
            *warned = Some(second);
            events.push(Event::Warning(Warning {
                reason: WarningReason::Clipping,
                message: format!(
                    "{clipped} samples of the last second stand at full scale; turn the input down"
                ),
                position: SamplePos(second * u64::from(MODEL_RATE_HZ)),
                channel: Some(listener.channel()),
            }));
        }
    }

    /// Ends the utterances that are open.
    pub fn turn(&mut self, events: &mut Vec<Event>) {
        self.listening.turn(events);
    }

    /// The stream ends: flushes everything.
    ///
    /// # Errors
    /// [`AnalysisError`].
    pub async fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), AnalysisError> {
        let tail = self.intake.finish()?;
        self.drain(events).await?;
        let end = self.position();
        self.listening.finish(end.0, events).await?;
        for (lane, total) in self.clipped.iter_mut().enumerate() {
            *total += self.intake.take_clipped(lane);
        }
        if tail.unfinished_bytes > 0 {
            events.push(Event::Warning(Warning {
                reason: WarningReason::TrailingBytes,
                message: format!(
                    "the stream ended with {} bytes of an unfinished frame of {} bytes; do encoding and channel_count fit?",
                    tail.unfinished_bytes,
                    self.format.bytes_per_frame()
                ),
                position: end,
                channel: None,
            }));
        }
        Ok(())
    }

    /// All audio received, on the 16 kHz line.
    pub fn position(&self) -> SamplePos {
        self.intake.received().end
    }

    /// Each lane's summary.
    pub fn summaries(&self) -> Vec<ChannelSummary> {
        self.listening.summaries(&self.clipped)
    }
}
