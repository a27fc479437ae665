//! One voice of a stream: hops of 16 kHz in, requests to the model and events out.
//!
//! In: 256 samples at a time. Out: [`Row`]s for the engine and, when they have come back, [`Event`]s. A
//! lane never waits: whoever drives it (a live session, a file, the extraction of training data) runs
//! the requests. For each hop call, in this order: [`Listener::hear`]; while [`Listener::request`]
//! gives a row, run it and hand it to [`Listener::absorb`]; [`Listener::settle`]. Several hops may be
//! taken at once by [`Listener::hear_all`], and then gone through by [`Listener::advance`].
//!
//! Always: what comes out depends on the samples alone, not on how they came in chunks nor on how long
//! the model took. Frame `i` is numbered like its first hop; its middle, `256 i + 512`, is the moment
//! that its voice activity is about.

mod saved;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use super::assembler::Assembler;
use super::history::History;
use crate::audio::level;
use crate::features::voice::VoiceDetector;
use crate::features::{BATCH_HOPS, FeatureStream, Frame, FrontEnd, Scratch};
use crate::model::{Input, Manifest, Row};
use crate::policy::Reading;
use crate::tracking::{Abstain, Segment, Segmenter, Tracker};
use crate::units::{FRAME_SAMPLES, HOP_SAMPLES, STEP_HOPS, SamplePos, duration_to_samples};
use crate::wire::event::{ChannelSummary, Estimate, Event, Utterance};
use crate::wire::parse::AnalysisSettings;

pub use saved::ListenerState;

/// Hops of a frame before the one that completes it.
const PAST_HOPS: u64 = (FRAME_SAMPLES / HOP_SAMPLES) as u64 - 1;

/// The front end's tables, one for the process.
pub(crate) static FRONT_END: LazyLock<FrontEnd> = LazyLock::new(FrontEnd::new);

thread_local! {
    /// Work buffers, one per worker thread: they would be most of a stream's memory otherwise.
    static SCRATCH: RefCell<Scratch> = RefCell::new(FRONT_END.scratch());
}

/// The utterance that is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    /// First frame with voice.
    onset: u64,
    /// Frames with voice so far.
    speech: u64,
    /// Frame behind the last one with voice.
    voice_end: u64,
}

/// What a hop is, apart from what the model makes of it.
#[derive(Debug, Clone, Copy)]
struct Heard {
    mean_square: f32,
    /// Of voice; `None` as long as there is no whole frame.
    probability: Option<f32>,
}

/// What was heard since the last estimate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Interval {
    hops: u32,
    voiced: u32,
    energy: f64,
}

/// One voice of a stream.
#[derive(Debug)]
pub struct Listener {
    channel: u32,
    manifest: Arc<Manifest>,
    lead_in_hops: u64,
    /// Samples between two estimates; 0 for none.
    interval: u64,
    features: FeatureStream,
    voice: VoiceDetector,
    segmenter: Segmenter,
    tracker: Tracker,
    history: History,
    /// Hops that have been computed but not heard yet.
    ahead: VecDeque<Heard>,
    assembler: Assembler,
    /// Hops heard.
    hops: u64,
    /// Next frame to feed to the model.
    cursor: u64,
    open: Option<Open>,
    /// First frame that the model heard of the utterance that is open or was last.
    heard_from: u64,
    ended: Option<Segment>,
    /// No utterance reaches back before this frame.
    not_before: u64,
    /// Frame behind the last one that the model has seen of the current utterance.
    evidence: u64,
    utterances: u32,
    since: Interval,
    /// What was heard since the last reading, if readings are wanted.
    reading: Option<Interval>,
    next_estimate: u64,
    speech_total: u64,
    last_voice: u64,
    /// Samples of the stream, once its end is known; positions stop there.
    length: Option<u64>,
}

impl Listener {
    /// A listener for the model that `manifest` describes; `channel` is what its events carry.
    pub fn new(channel: u32, manifest: Arc<Manifest>, settings: &AnalysisSettings) -> Self {
        let input = manifest.input;
        let width = match input {
            Input::WaveformWindow { .. } => HOP_SAMPLES,
            _ => input.coefficients(),
        };
        // An utterance is noticed `min_speech` hops after its onset and reaches `lead_in` before it;
        // a waveform's hop is there `PAST_HOPS` before its frame is.
        // Vectors are written up to a batch ahead.
        let way_back = settings.segmenter.min_speech_hops + settings.lead_in_hops + PAST_HOPS + 1;
        let capacity = way_back + BATCH_HOPS as u64;
        let interval = settings.estimate_interval.map_or(0, duration_to_samples);
        Self {
            channel,
            lead_in_hops: settings.lead_in_hops,
            interval,
            features: FeatureStream::new(),
            voice: VoiceDetector::new(),
            segmenter: Segmenter::new(settings.segmenter),
            tracker: Tracker::new(settings.tracker),
            history: History::new(width, capacity),
            ahead: VecDeque::new(),
            assembler: Assembler::new(input, manifest.state_len()),
            manifest,
            hops: 0,
            cursor: 0,
            open: None,
            heard_from: 0,
            ended: None,
            not_before: 0,
            evidence: 0,
            utterances: 0,
            since: Interval::default(),
            reading: settings.readings.then(Interval::default),
            next_estimate: interval,
            speech_total: 0,
            last_voice: 0,
            length: None,
        }
    }

    /// Takes the next hop.
    pub fn hear(&mut self, hop: &[f32; HOP_SAMPLES]) {
        self.hear_all(std::slice::from_ref(hop));
        self.advance();
    }

    /// Computes all about the next hops that does not depend on the model. They count as heard one by
    /// one, by [`Self::advance`].
    pub fn hear_all(&mut self, hops: &[[f32; HOP_SAMPLES]]) {
        let waveform = matches!(self.manifest.input, Input::WaveformWindow { .. });
        for hop in hops {
            if waveform {
                self.history.push().copy_from_slice(hop);
            }
            let heard = Heard { mean_square: level::mean_square(hop), probability: None };
            self.ahead.push_back(heard);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let frames = self.features.push_all(&FRONT_END, scratch, hops);
            if !waveform {
                for frame in frames {
                    FRONT_END.mfcc(&frame.relative, self.history.push());
                }
            }
            // The first hops of a stream complete no frame.
            let with_frame = self.ahead.iter_mut().rev().take(frames.len()).rev();
            for (heard, frame) in with_frame.zip(frames) {
                heard.probability = Some(self.voice.push(&frame.mel_db));
            }
        });
    }

    /// Goes on by one hop of those that [`Self::hear_all`] took.
    pub fn advance(&mut self) {
        let Some(heard) = self.ahead.pop_front() else {
            return;
        };
        self.since.hops += 1;
        self.since.energy += f64::from(heard.mean_square);
        if let Some(reading) = &mut self.reading {
            reading.hops += 1;
        }
        self.hops += 1;
        if let Some(probability) = heard.probability {
            self.heed(self.frames().saturating_sub(1), probability);
        }
    }

    /// Takes a frame that was made elsewhere: of a spectrogram without audio. Its level is unknown.
    pub fn hear_spectrum(&mut self, frame: &Frame) {
        self.since.hops += 1;
        if let Some(reading) = &mut self.reading {
            reading.hops += 1;
        }
        self.hops = frame.index + PAST_HOPS + 1;
        if !matches!(self.manifest.input, Input::WaveformWindow { .. }) {
            FRONT_END.mfcc(&frame.relative, self.history.push());
        }
        let probability = self.voice.push(&frame.mel_db);
        self.heed(frame.index, probability);
    }

    /// Frame number `frame` is voice with this probability.
    fn heed(&mut self, frame: u64, probability: f32) {
        match self.segmenter.push(frame, probability) {
            Some(Segment::Began { onset }) => self.begin(onset, frame),
            Some(ended @ Segment::Ended { .. }) => self.ended = Some(ended),
            None => {}
        }
        if self.segmenter.has_voice(frame) {
            self.since.voiced += 1;
            if let Some(reading) = &mut self.reading {
                reading.voiced += 1;
            }
            self.last_voice = frame;
            if let Some(open) = &mut self.open {
                open.speech += 1;
                open.voice_end = frame + 1;
            }
        }
    }

    fn begin(&mut self, onset: u64, frame: u64) {
        let lead_in = onset
            .saturating_sub(self.lead_in_hops)
            .max(self.not_before)
            .max(self.history.first())
            .min(frame);
        // The frame that brought the news counts its own voice after this.
        self.open = Some(Open { onset, speech: frame - onset, voice_end: frame });
        self.cursor = lead_in;
        self.heard_from = lead_in;
        self.evidence = lead_in;
        self.assembler.begin();
        self.tracker.begin();
    }

    /// Number behind the newest frame.
    fn frames(&self) -> u64 {
        self.hops.saturating_sub(PAST_HOPS)
    }

    /// The next row that the model must run before the lane can settle, if any.
    pub fn request(&mut self) -> Option<Row> {
        self.open.as_ref()?;
        while self.cursor < self.frames() {
            let index = self.cursor;
            let Some(vector) = self.history.get(index) else {
                // Cannot be: the history is as long as the longest way back. Better a gap than a stop.
                self.cursor = self.history.first().max(index + 1);
                continue;
            };
            self.cursor += 1;
            if self.assembler.feed(vector) {
                self.evidence = self.cursor;
                return self.assembler.request();
            }
        }
        None
    }

    /// Takes a row back from the engine. Returns false if its output cannot be used.
    pub fn absorb(&mut self, row: Row) -> bool {
        let fine = self.tracker.absorb(&self.manifest, &row.output);
        self.assembler.take_back(row);
        fine
    }

    /// What the hop has led to, once all its requests have been absorbed.
    pub fn settle(&mut self, events: &mut Vec<Event>) {
        // Before the utterance ends: what was heard since the last reading is part of it.
        if self.hops.is_multiple_of(STEP_HOPS as u64) && self.length.is_none() {
            self.read(events);
        }
        self.end_utterance(events);
        let position = self.hops * HOP_SAMPLES as u64;
        if self.interval == 0 || position < self.next_estimate || self.length.is_some() {
            return;
        }
        while self.next_estimate <= position {
            self.next_estimate += self.interval;
        }
        let since = std::mem::take(&mut self.since);
        if self.open.is_none() && since.voiced == 0 {
            return;
        }
        events.push(Event::Estimate(self.estimate(since)));
    }

    /// What a policy looks at: what was heard since the last time.
    fn read(&mut self, events: &mut Vec<Event>) {
        let Some(since) = self.reading.as_mut().map(std::mem::take).filter(|since| since.hops > 0)
        else {
            return;
        };
        let judgement = self.open.as_ref().map(|open| self.tracker.estimate(open.speech));
        events.push(Event::Reading(Reading {
            channel: self.channel,
            end: self.position(),
            hops: since.hops,
            voiced_hops: since.voiced,
            affect: judgement.and_then(|judgement| judgement.affect),
            // Being unsure which emotion it is does not make the probabilities worth less.
            trusted: judgement.is_some_and(|judgement| {
                matches!(judgement.abstains, None | Some(Abstain::Unsure))
            }),
        }));
    }

    fn estimate(&self, since: Interval) -> Estimate {
        let now = SamplePos::of_hop(self.hops);
        let from = SamplePos::of_hop(self.heard_from);
        let (start, speech, utterance) = match &self.open {
            Some(open) => (from, open.speech, self.utterances),
            // What the estimate rests on is the utterance before.
            None if self.utterances > 0 => (from, 0, self.utterances - 1),
            None => (now, 0, 0),
        };
        let hops = since.hops.max(1);
        Estimate {
            channel: self.channel,
            start,
            end: now,
            evidence_end: self.evidence_end(),
            judgement: self.tracker.estimate(speech),
            speech_ratio: since.voiced as f32 / hops as f32,
            level_dbfs: level::dbfs((since.energy / f64::from(hops)) as f32),
            speech_hops: speech,
            utterance,
        }
    }

    fn evidence_end(&self) -> SamplePos {
        match self.evidence.checked_sub(1) {
            Some(last) => self.clamp(SamplePos::end_of_frame(last)),
            None => SamplePos::default(),
        }
    }

    fn clamp(&self, position: SamplePos) -> SamplePos {
        SamplePos(position.0.min(self.length.unwrap_or(u64::MAX)))
    }

    /// The moment that frame `index` is about begins half a hop before its middle.
    fn moment(&self, index: u64) -> SamplePos {
        let half = (FRAME_SAMPLES - HOP_SAMPLES) as u64 / 2;
        self.clamp(SamplePos(index * HOP_SAMPLES as u64 + half))
    }

    fn end_utterance(&mut self, events: &mut Vec<Event>) {
        if self.ended.take().is_none() {
            return;
        }
        let Some(open) = self.open.take() else {
            return;
        };
        self.not_before = self.frames();
        self.speech_total += open.speech;
        events.push(Event::Utterance(Utterance {
            channel: self.channel,
            index: self.utterances,
            start: self.moment(open.onset),
            end: self.moment(open.voice_end),
            speech_hops: open.speech,
            judgement: self.tracker.end(open.speech),
        }));
        self.utterances += 1;
    }

    /// Ends the utterance that is open, if one is: the caller says that the turn does.
    pub fn close(&mut self, events: &mut Vec<Event>) {
        self.ended = self.segmenter.close();
        self.end_utterance(events);
    }

    /// The last reading, of what was heard since the one before. Comes before [`Self::finish`].
    pub fn end_readings(&mut self, events: &mut Vec<Event>) {
        self.read(events);
        self.reading = None;
    }

    /// Says how long the stream was, in samples at 16 kHz: all that is heard from now on is padding.
    pub fn finish(&mut self, length: u64) {
        self.length = Some(length);
    }

    /// Hops of silence that the lane still wants after [`Self::finish`]: the last frames' tails, then
    /// what a begun step lacks.
    pub fn wants_padding(&self, padded: u64) -> bool {
        padded < PAST_HOPS || (self.open.is_some() && self.assembler.lacking() > 0)
    }

    /// Hops since the last voice.
    pub fn silent_hops(&self) -> u64 {
        self.frames().saturating_sub(self.last_voice + 1)
    }

    /// All audio before it has been heard.
    pub fn position(&self) -> SamplePos {
        SamplePos::of_hop(self.hops)
    }

    /// The lane's events carry this channel.
    pub fn channel(&self) -> u32 {
        self.channel
    }

    /// Number of the utterance that is open or comes next.
    pub fn utterance(&self) -> u32 {
        self.utterances
    }

    /// What was heard on the whole.
    pub fn summary(&self, clipped: u64) -> ChannelSummary {
        ChannelSummary {
            channel: self.channel,
            speech_hops: self.speech_total,
            utterances: self.utterances,
            affect: self.tracker.summary(),
            clipped,
        }
    }
}
