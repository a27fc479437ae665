//! Frames of one rate in, hops of 16 kHz out: clipping, downmix and resampling of all lanes.
//!
//! Streams and files both run through here, so that a file gives the bits that a stream of the same
//! samples gives.

use serde::{Deserialize, Serialize};

use super::clipping::ClipDetector;
use super::error::AudioError;
use super::lanes::{self, Lane};
use super::pcm::Frames;
use super::resample::Resampler;
use crate::state::{MAX_COUNT, Misfit, Numbers};
use crate::units::{ChannelCount, HOP_SAMPLES, MAX_CHANNELS, MODEL_RATE_HZ, SamplePos};

/// Frames decoded at once: one hop at 16 kHz. The scratch buffer is on the stack.
const BLOCK_FRAMES: usize = HOP_SAMPLES;

/// Samples per lane that the buffer of finished samples keeps its room for: what is not yet a hop. A
/// stream waits for its next chunk most of the time; the room of a chunk is given back meanwhile, and
/// the next stream's chunk finds it warm in the cache.
const KEPT_SAMPLES: usize = HOP_SAMPLES;

/// The next 256 samples at 16 kHz of every lane.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    index: u64,
    start: usize,
    lanes: &'a [Vec<f32>],
}

impl<'a> Hop<'a> {
    /// Which hop of the stream it is, from 0. It begins at [`SamplePos::of_hop`] of this.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The samples of one lane, full scale 1.0; `None` if there is no such lane.
    pub fn lane(&self, lane: usize) -> Option<&'a [f32; HOP_SAMPLES]> {
        self.lanes.get(lane)?.get(self.start..)?.first_chunk()
    }

    /// The samples of every lane, in order.
    pub fn lanes(&self) -> impl Iterator<Item = &'a [f32; HOP_SAMPLES]> {
        let start = self.start;
        self.lanes.iter().filter_map(move |lane| lane.get(start..)?.first_chunk())
    }
}

/// The next hops of every lane, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Hops<'a> {
    start: usize,
    count: usize,
    lanes: &'a [Vec<f32>],
}

impl<'a> Hops<'a> {
    /// How many there are of each lane; at least one.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The samples of every lane, in order.
    pub fn lanes(&self) -> impl Iterator<Item = &'a [[f32; HOP_SAMPLES]]> {
        let range = self.start..self.start + self.count * HOP_SAMPLES;
        self.lanes.iter().filter_map(move |lane| Some(lane.get(range.clone())?.as_chunks().0))
    }
}

/// How much has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Whole frames at the stream's own rate.
    pub frames: u64,
    /// The end of them on the 16 kHz line, rounded up: the first sample that they say nothing about.
    pub end: SamplePos,
}

/// The largest sample that is believed to be ready, of 1.0: see `resample`.
const LOUDEST: f32 = 8.0;

/// What a line carries from one chunk to the next, once all its hops have been taken. How far it is with its
/// hops follows from the frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LineState {
    pub(crate) frames: u64,
    /// Of the channels that are in a lane.
    detectors: Vec<ClipDetector>,
    clipped: Vec<u64>,
    /// Per lane, the resampler's last input; nothing at 16 kHz.
    resampler: Vec<Numbers>,
    /// Per lane, what is not yet a hop.
    ready: Vec<Numbers>,
}

/// The way of all lanes of one stream or file.
pub(crate) struct HopLine {
    rate_hz: u32,
    lanes: Box<[Lane]>,
    /// Channels that are in a lane.
    used: Lane,
    detectors: [ClipDetector; MAX_CHANNELS as usize],
    /// Per lane, since last asked.
    clipped: Box<[u64]>,
    /// `None` at 16 kHz, where samples go straight to `ready`.
    resampler: Option<Resampler>,
    /// Per lane, samples at 16 kHz that have not been taken; those before `taken` have.
    ready: Vec<Vec<f32>>,
    taken: usize,
    /// Index of the next hop to hand out.
    next_hop: u64,
    frames: u64,
    finished: bool,
    /// The frame and channel of a sample that was not finite: the end of the stream.
    broken: Option<(u64, usize)>,
}

impl HopLine {
    pub(crate) fn new(
        rate_hz: u32,
        channels: ChannelCount,
        lanes: &[Lane],
    ) -> Result<Self, AudioError> {
        lanes::check(lanes, channels)?;
        Ok(Self {
            rate_hz,
            lanes: lanes.into(),
            used: lanes.iter().fold(Lane::default(), |used, lane| used.union(*lane)),
            detectors: [ClipDetector::default(); MAX_CHANNELS as usize],
            clipped: vec![0; lanes.len()].into(),
            resampler: Resampler::new(rate_hz, lanes.len())?,
            ready: lanes.iter().map(|_| Vec::with_capacity(KEPT_SAMPLES)).collect(),
            taken: 0,
            next_hop: 0,
            frames: 0,
            finished: false,
            broken: None,
        })
    }

    /// Takes frames in. All frames before a sample that is not finite are taken.
    pub(crate) fn push(&mut self, frames: &impl Frames) -> Result<(), AudioError> {
        if self.finished {
            return Err(AudioError::AfterFinish { frames: self.frames });
        }
        self.compact();
        self.make_room(frames.len());
        let mut first = 0;
        while first < frames.len() {
            self.still_whole()?;
            let room = match &mut self.resampler {
                Some(resampler) => resampler.input().1,
                None => BLOCK_FRAMES,
            };
            let wanted = (frames.len() - first).min(room).min(BLOCK_FRAMES);
            let count = self.finite_frames(frames, first, wanted);
            self.mix(frames, first, count);
            self.frames += count as u64;
            first += count;
            if let Some(resampler) = &mut self.resampler {
                resampler.advance(&mut self.ready)?;
            }
        }
        self.still_whole()
    }

    fn still_whole(&self) -> Result<(), AudioError> {
        match self.broken {
            Some((frame, channel)) => Err(AudioError::NonFinite { frame, channel }),
            None => Ok(()),
        }
    }

    /// Of `wanted` frames from `first` on, those before the first sample that is not finite. Remembers
    /// where that is. Channels in no lane are not looked at.
    fn finite_frames(&mut self, frames: &impl Frames, first: usize, wanted: usize) -> usize {
        if !frames.may_be_non_finite() {
            return wanted;
        }
        let mut scratch = [0.0; BLOCK_FRAMES];
        let mut count = wanted;
        for channel in self.used.channels() {
            let samples = scratch.get_mut(..count).unwrap_or_default();
            frames.read(first, channel, samples);
            if let Some(at) = samples.iter().position(|x| !x.is_finite()) {
                count = at;
                self.broken = Some((self.frames + at as u64, channel));
            }
        }
        count
    }

    /// Appends the mean of each lane's channels to the resampler's input, or to what is ready.
    fn mix(&mut self, frames: &impl Frames, first: usize, count: usize) {
        let mut scratch = [0.0; BLOCK_FRAMES];
        let buffers = match &mut self.resampler {
            Some(resampler) => resampler.input().0,
            None => &mut self.ready,
        };
        for channel in self.used.channels() {
            let samples = scratch.get_mut(..count).unwrap_or_default();
            frames.read(first, channel, samples);
            let clipped = self
                .detectors
                .get_mut(channel)
                .map_or(0, |detector| detector.check(samples, frames.full_scale()));
            let members = self.lanes.iter().zip(&mut self.clipped).zip(buffers.iter_mut());
            for ((lane, lane_clipped), buffer) in members {
                if !lane.contains(channel) {
                    continue;
                }
                *lane_clipped += u64::from(clipped);
                if lane.first() == Some(channel) {
                    buffer.extend_from_slice(samples);
                } else {
                    for (sum, sample) in tail(buffer, count).iter_mut().zip(samples.iter()) {
                        *sum += sample;
                    }
                }
            }
        }
        for (lane, buffer) in self.lanes.iter().zip(buffers) {
            if lane.len() > 1 {
                let channels = lane.len() as f32;
                for sample in tail(buffer, count) {
                    *sample /= channels;
                }
            }
        }
    }

    /// Whether 256 samples are ready.
    pub(crate) fn has_hop(&self) -> bool {
        self.ready_hops() > 0
    }

    fn ready_hops(&self) -> usize {
        let samples = self.ready.first().map_or(0, Vec::len);
        samples.saturating_sub(self.taken) / HOP_SAMPLES
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The next hop, if 256 samples are ready.
    pub(crate) fn next_hop(&mut self) -> Option<Hop<'_>> {
        if !self.has_hop() {
            self.compact();
            return None;
        }
        let hop = Hop { index: self.next_hop, start: self.taken, lanes: &self.ready };
        self.taken += HOP_SAMPLES;
        self.next_hop += 1;
        Some(hop)
    }

    /// The next hops, as many as are ready but at most `most`, if there is one.
    pub(crate) fn next_hops(&mut self, most: usize) -> Option<Hops<'_>> {
        let count = self.ready_hops().min(most);
        if count == 0 {
            self.compact();
            return None;
        }
        let hops = Hops { start: self.taken, count, lanes: &self.ready };
        self.taken += count * HOP_SAMPLES;
        self.next_hop += count as u64;
        Some(hops)
    }

    /// Ends the stream: flushes the resampler, cuts or fills to [`Received::end`], and pads the last
    /// hop with zeros. Has no effect the second time.
    pub(crate) fn finish(&mut self) -> Result<(), AudioError> {
        if self.finished {
            return Ok(());
        }
        self.compact();
        self.finished = true;
        let end = self.received().end.0;
        let start = self.next_hop * HOP_SAMPLES as u64;
        let missing = end.saturating_sub(start) as usize;
        if let Some(resampler) = &mut self.resampler {
            while self.ready.first().is_some_and(|lane| lane.len() < missing) {
                let (staged, room) = resampler.input();
                for lane in staged {
                    lane.resize(lane.len() + room, 0.0);
                }
                resampler.advance(&mut self.ready)?;
            }
        }
        for lane in &mut self.ready {
            lane.truncate(missing);
            lane.resize(missing.next_multiple_of(HOP_SAMPLES), 0.0);
        }
        Ok(())
    }

    pub(crate) fn received(&self) -> Received {
        let end = (u128::from(self.frames) * u128::from(MODEL_RATE_HZ))
            .div_ceil(u128::from(self.rate_hz));
        Received { frames: self.frames, end: SamplePos(u64::try_from(end).unwrap_or(u64::MAX)) }
    }

    /// Clipped samples per lane since this was last called.
    pub(crate) fn take_clipped(&mut self, lane: usize) -> u64 {
        self.clipped.get_mut(lane).map_or(0, std::mem::take)
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(crate) fn latency_frames(&self) -> usize {
        self.resampler.as_ref().map_or(0, Resampler::latency_frames)
    }

    /// What must be kept for the line to be gone on with. All hops must have been taken.
    pub(crate) fn state(&self) -> LineState {
        let used = self.used.channels();
        let ready = |lane: &Vec<f32>| Numbers::of(lane.get(self.taken..).unwrap_or_default());
        LineState {
            frames: self.frames,
            detectors: used.filter_map(|channel| self.detectors.get(channel).copied()).collect(),
            clipped: self.clipped.to_vec(),
            resampler: self.resampler.as_ref().map(Resampler::state).unwrap_or_default(),
            ready: self.ready.iter().map(ready).collect(),
        }
    }

    /// Goes on, being new, as the line would have whose state it was.
    pub(crate) fn restore(&mut self, state: &LineState) -> Result<(), Misfit> {
        Misfit::beyond(state.frames, MAX_COUNT, "count of frames")?;
        let fits = state.detectors.len() == self.used.len()
            && state.clipped.len() == self.clipped.len()
            && state.ready.len() == self.ready.len();
        Misfit::unless(fits, "line", "is of another number of lanes or channels")?;
        for (channel, detector) in self.used.channels().zip(&state.detectors) {
            detector.check_saved()?;
            if let Some(slot) = self.detectors.get_mut(channel) {
                *slot = *detector;
            }
        }
        for (slot, clipped) in self.clipped.iter_mut().zip(&state.clipped) {
            let most = state.frames.saturating_mul(MAX_CHANNELS.into());
            Misfit::beyond(*clipped, most, "count of clipped samples")?;
            *slot = *clipped;
        }
        let made = if let Some(resampler) = &mut self.resampler {
            resampler.restore(state.frames, &state.resampler)?
        } else {
            let none = state.resampler.is_empty();
            Misfit::unless(none, "line", "has a resampler that its rate does not need")?;
            state.frames
        };
        let over = (made % HOP_SAMPLES as u64) as usize;
        for (lane, saved) in self.ready.iter_mut().zip(&state.ready) {
            lane.extend(saved.checked(over, LOUDEST, "samples before the next hop")?);
        }
        self.frames = state.frames;
        self.next_hop = made / HOP_SAMPLES as u64;
        Ok(())
    }

    /// Hops handed out.
    pub(crate) fn hops(&self) -> u64 {
        self.next_hop
    }

    /// Room for what `frames` will make, at once instead of by doubling.
    fn make_room(&mut self, frames: usize) {
        let samples = frames as u64 * u64::from(MODEL_RATE_HZ) / u64::from(self.rate_hz);
        for lane in &mut self.ready {
            lane.reserve_exact(samples as usize);
        }
    }

    /// Removes what was taken, and gives back the room of the chunk.
    fn compact(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        for lane in &mut self.ready {
            lane.drain(..taken.min(lane.len()));
            if lane.capacity() > KEPT_SAMPLES && lane.len() < HOP_SAMPLES {
                lane.shrink_to(KEPT_SAMPLES);
            }
        }
    }

    /// Samples that the buffers have room for, over all lanes.
    #[cfg(test)]
    pub(crate) fn ready_capacity(&self) -> usize {
        self.ready.iter().map(Vec::capacity).sum()
    }
}

fn tail(buffer: &mut [f32], count: usize) -> &mut [f32] {
    let start = buffer.len().saturating_sub(count);
    buffer.get_mut(start..).unwrap_or_default()
}
