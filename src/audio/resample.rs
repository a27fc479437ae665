//! Any rate to 16 kHz, for all lanes of a stream at once. The only user of rubato.
//!
//! Two of rubato's resamplers are used, chosen by the rate alone:
//! - **FFT** (`rubato::Fft`, overlap-add, synchronous), where the ratio is one of small whole numbers:
//!   8, 12, 22.05, 24, 32, 44.1, 48, 96 kHz and many more. Cheapest in time; all lanes share its tables.
//! - **sinc** (`rubato::Async`, a table of filters, linear interpolation between neighbours) at all
//!   other rates, for example 11,025 or 12,345 Hz, where blocks that fit both rates are too long for a
//!   live stream. Three to eight times the CPU time, at less delay; each lane has its own table.
//!
//! Both use the same filter: a sinc under a Blackman window (side lobes -75 dB), 6 ms long or, in the
//! FFT resampler, as long as its block. It is flat to 7 kHz (or that part of the lower Nyquist
//! frequency) and ends below 8 kHz, so that nothing folds back. 16 kHz is not resampled at all, see `line`.
//!
//! Blocks are of fixed length and begin at fixed places of the stream, so that the output depends on
//! the samples only, never on how they came in. The delay is taken out by zeros ahead of the stream and
//! by dropping as many blocks or samples as make both whole; that costs no latency. What does is the
//! filter's second half and the block: see [`Resampler::latency_frames`].
//!
//! rubato does not show what its resamplers carry, but all of it follows from the last input: from one block
//! in the FFT resampler, from the filter's length and the [`phase`] in the sinc resampler. So that much input
//! is kept, and saved. A new resampler that has been fed it goes on to the bit like the one before.

mod phase;

use phase::Phase;
use rubato::audioadapter_buffers::direct::SequentialSliceOfVecs;
use rubato::{
    Adjustable as _, Async, Fft, FixedAsync, FixedSync, Indexing, Resampler as _,
    SincInterpolationParameters, SincInterpolationType, WindowFunction,
};

use super::error::AudioError;
use crate::state::{Misfit, Numbers};
use crate::units::MODEL_RATE_HZ;

/// Length of the filter in samples at the lower of the two rates. With a Blackman window the
/// transition is 5.5 / length of that rate: 917 Hz at 16 kHz, so that 7 kHz passes and 8 kHz does not.
const FILTER_SAMPLES: usize = 96;

/// Longest block of the FFT resampler, in samples at 16 kHz (20 ms): what 22.05 kHz needs. The next rate
/// of the same family, 11.025 kHz, would need 40 ms.
const MAX_FFT_BLOCK: usize = 320;

/// Greatest prime factor of an FFT's length; beyond, the transform gets slow.
const MAX_PRIME_FACTOR: usize = 13;

/// Block of the sinc resampler, in samples at 16 kHz (4 ms): short for memory and delay, long enough
/// that moving the filter's history at each block does not count.
const SINC_BLOCK: usize = 64;

/// Resolution of the sinc table: with `RESOLUTION` entries per radian of the highest frequency that
/// passes, linear interpolation errs by (1 / `RESOLUTION`)^2 / 8, that is -69 dB.
const RESOLUTION: f64 = 19.0;

/// How far from its ratio, as a factor, the sinc resampler can be taken: see [`Phase::way_to`].
const MAX_RELATIVE_RATIO: f64 = 1.02;

/// The largest sample that is believed of a saved state, of 1.0: what an overdriven voice may ring to, twice.
const LOUDEST: f32 = 4.0;

/// What the messages call the saved input.
const INPUT: &str = "samples before the resampler";

/// Converts all lanes of a stream to 16 kHz.
pub(crate) struct Resampler {
    rate_hz: u32,
    kind: Kind,
    /// Zeros ahead of the stream, frames.
    ahead: usize,
    /// Per lane, the last frames of the blocks before, then the input of the next block: zeros ahead of the
    /// stream, then samples.
    staged: Vec<Vec<f32>>,
    /// Frames of the blocks before in `staged`.
    past: usize,
    /// Frames of the blocks before that are kept: all that the resampler's inner state follows from.
    kept: usize,
    /// Per lane, the output of one block.
    made: Vec<Vec<f32>>,
    /// Frames that the next block takes.
    needed: usize,
    /// Output samples that stand for times before the stream, and those of them still to be dropped.
    early: usize,
    surplus: usize,
    latency: usize,
}

enum Kind {
    Fft(Box<Fft<f32>>),
    Sinc(Vec<Async<f32>>, Phase),
}

impl Resampler {
    /// A resampler from `rate_hz` for `lanes` lanes, or `None` where there is nothing to convert.
    pub(crate) fn new(rate_hz: u32, lanes: usize) -> Result<Option<Self>, AudioError> {
        if rate_hz == MODEL_RATE_HZ {
            return Ok(None);
        }
        let built = match fft_block(rate_hz) {
            Some(frames) => Self::fft(rate_hz, lanes, frames),
            None => Self::sinc(rate_hz, lanes),
        };
        built.map(Some).map_err(|reason| AudioError::Resampler { rate_hz, reason })
    }

    fn fft(rate_hz: u32, lanes: usize, block: usize) -> Result<Self, String> {
        let fft = Fft::new_custom(
            rate_hz as usize,
            MODEL_RATE_HZ as usize,
            block,
            1,
            lanes,
            WindowFunction::Blackman,
            FixedSync::Both,
        )
        .map_err(|error| error.to_string())?;
        // rubato's filter peaks at `block / 2` input frames. With as many zeros ahead as fill this up
        // to a block, the delay is one block on both sides, exactly.
        let ahead = block - block / 2;
        Ok(Self {
            rate_hz,
            ahead,
            staged: staging(lanes, 2 * block, ahead),
            past: 0,
            // What one block adds to the next is all that is carried.
            kept: block,
            made: vec![vec![0.0; fft.output_frames_max()]; lanes],
            needed: block,
            early: fft.output_frames_max(),
            surplus: fft.output_frames_max(),
            latency: block + block / 2,
            kind: Kind::Fft(Box::new(fft)),
        })
    }

    fn sinc(rate_hz: u32, lanes: usize) -> Result<Self, String> {
        let step = f64::from(rate_hz) / f64::from(MODEL_RATE_HZ);
        let taps = (FILTER_SAMPLES as f64 * step.max(1.0)).ceil() as usize;
        let taps = taps.next_multiple_of(8);
        let phase = Phase::new(rate_hz, taps).ok_or("no exact ratio")?;
        let ratio = phase.ratio().ok_or("no exact ratio")?;
        let step = phase.step();
        let highest = 7.0 / 16.0 * step.recip().min(1.0) * std::f64::consts::TAU;
        let entries = (RESOLUTION * highest).ceil() as usize;
        let parameters = SincInterpolationParameters {
            sinc_len: taps,
            // The middle of the transition that rubato gives an FFT filter of this length.
            f_cutoff: Some(rubato::calculate_cutoff(FILTER_SAMPLES, WindowFunction::Blackman)),
            oversampling_factor: entries,
            interpolation: SincInterpolationType::Linear,
            window: WindowFunction::Blackman,
        };
        let resamplers = (0..lanes)
            .map(|_| {
                Async::new_sinc(
                    ratio,
                    MAX_RELATIVE_RATIO,
                    &parameters,
                    SINC_BLOCK,
                    1,
                    FixedAsync::Output,
                )
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        let first = resamplers.first().ok_or("no lane")?;
        let (ahead, surplus) = sinc_alignment(step, taps, entries);
        let needed = first.input_frames_next();
        let kept = phase.reach();
        Ok(Self {
            rate_hz,
            ahead,
            staged: staging(lanes, kept + first.input_frames_max().max(ahead), ahead),
            past: 0,
            kept,
            made: vec![vec![0.0; SINC_BLOCK]; lanes],
            needed,
            early: surplus,
            surplus,
            latency: taps / 2 + (SINC_BLOCK as f64 * step).ceil() as usize,
            kind: Kind::Sinc(resamplers, phase),
        })
    }

    /// The buffers that input is appended to, one per lane, and how many frames they have room for
    /// before [`advance`](Self::advance) must be called. At least 1.
    pub(crate) fn input(&mut self) -> (&mut [Vec<f32>], usize) {
        let room = self.needed.saturating_sub(self.waiting());
        (&mut self.staged, room)
    }

    /// Frames staged for the next block.
    fn waiting(&self) -> usize {
        self.staged.first().map_or(0, Vec::len).saturating_sub(self.past)
    }

    /// Converts what is staged if it makes a block, and appends it to `output`, one buffer per lane.
    pub(crate) fn advance(&mut self, output: &mut [Vec<f32>]) -> Result<(), AudioError> {
        while self.waiting() >= self.needed {
            let made = self
                .convert()
                .map_err(|reason| AudioError::Resampler { rate_hz: self.rate_hz, reason })?;
            let dropped = self.surplus.min(made);
            self.surplus -= dropped;
            for (lane, block) in output.iter_mut().zip(&self.made) {
                lane.extend_from_slice(block.get(dropped..made).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// One block; returns the number of output samples.
    fn convert(&mut self) -> Result<usize, String> {
        let (past, needed) = (self.past, self.needed);
        let (taken, made) = match &mut self.kind {
            Kind::Fft(fft) => run(&mut **fft, &self.staged, past, needed, &mut self.made)?,
            Kind::Sinc(resamplers, _) => {
                let mut counts = (0, 0);
                // One resampler per lane: with several channels in one, rubato adds in another order,
                // and a lane would depend on how many neighbours it has.
                for (lane, resampler) in resamplers.iter_mut().enumerate() {
                    let staged = self.staged.get(lane..=lane).unwrap_or_default();
                    let made = self.made.get_mut(lane..=lane).unwrap_or_default();
                    counts = run(resampler, staged, past, needed, made)?;
                }
                // All count alike, so that any of them knows what the next block takes.
                self.needed = resamplers.first().map_or(0, rubato::Resampler::input_frames_next);
                counts
            }
        };
        let done = past + taken;
        self.past = done.min(self.kept);
        for staged in &mut self.staged {
            staged.drain(..(done - self.past).min(staged.len()));
        }
        Ok(made)
    }

    /// Per lane, the input that the rest follows from; nothing before the first frame.
    pub(crate) fn state(&self) -> Vec<Numbers> {
        self.staged.iter().map(|lane| Numbers::of(lane)).collect()
    }

    /// Goes on, being new, where another one stood that had been given `frames` frames and had converted
    /// all blocks that they make. Returns the output samples that it had given.
    pub(crate) fn restore(&mut self, frames: u64, lanes: &[Numbers]) -> Result<u64, Misfit> {
        Misfit::unless(lanes.len() == self.staged.len(), INPUT, "are of another number of lanes")?;
        // Zeros that make a block are converted with the first frame, not before.
        let fed = if frames == 0 { 0 } else { self.ahead as u64 + frames };
        let (blocks, consumed) = self.progress(fed);
        let past = consumed.min(self.kept as u64);
        let waiting = if frames == 0 { self.ahead as u64 } else { fed - consumed };
        for (staged, saved) in self.staged.iter_mut().zip(lanes) {
            let samples = saved.checked((past + waiting) as usize, LOUDEST, INPUT)?;
            staged.clear();
            staged.extend(samples);
        }
        self.past = past as usize;
        if blocks > 0 {
            let unreached = Misfit { part: INPUT, problem: "cannot be gone on from" };
            self.catch_up(blocks).map_err(|_| unreached)?;
        }
        let made = blocks * self.made.first().map_or(0, Vec::len) as u64;
        self.surplus = (self.early as u64).saturating_sub(made) as usize;
        Ok(made.saturating_sub(self.early as u64))
    }

    /// Blocks that `fed` frames make, zeros ahead included, and the frames that they take.
    fn progress(&self, fed: u64) -> (u64, u64) {
        match &self.kind {
            Kind::Fft(_) => (fed / self.needed as u64, fed - fed % self.needed as u64),
            Kind::Sinc(_, phase) => {
                let blocks = phase.blocks(fed);
                (blocks, phase.consumed(blocks))
            }
        }
    }

    /// Brings new resamplers to where `blocks` blocks bring them, of which the last frames are staged.
    fn catch_up(&mut self, blocks: u64) -> Result<(), String> {
        match &mut self.kind {
            Kind::Fft(fft) => {
                run(&mut **fft, &self.staged, 0, self.needed, &mut self.made)?;
            }
            Kind::Sinc(resamplers, phase) => {
                let way = phase.way_to(blocks).ok_or("no way there")?;
                let ordinary = phase.ratio().ok_or("no exact ratio")?;
                for ((resampler, staged), made) in
                    resamplers.iter_mut().zip(&self.staged).zip(self.made.chunks_mut(1))
                {
                    let mut input = vec![0.0; way.frames.saturating_sub(self.past)];
                    input.extend(staged.iter().take(self.past));
                    let input = [input];
                    let mut at = 0;
                    for &ratio in &way.ratios {
                        let refused = |error: rubato::ResampleError| error.to_string();
                        resampler.set_resample_ratio(ratio, false).map_err(refused)?;
                        let needed = resampler.input_frames_next();
                        at += run(resampler, &input, at, needed, made)?.0;
                    }
                    if at != way.frames {
                        return Err(format!("{at} frames instead of {}", way.frames));
                    }
                    let refused = |error: rubato::ResampleError| error.to_string();
                    resampler.set_resample_ratio(ordinary, false).map_err(refused)?;
                    self.needed = resampler.input_frames_next();
                }
            }
        }
        Ok(())
    }

    /// Input frames that must follow a sample before its output is there, at most: half the filter
    /// and one block.
    pub(crate) fn latency_frames(&self) -> usize {
        self.latency
    }
}

/// One block of `needed` frames from the `first` one on; returns the frames taken and made.
fn run(
    resampler: &mut impl rubato::Resampler<f32>,
    input: &[Vec<f32>],
    first: usize,
    needed: usize,
    output: &mut [Vec<f32>],
) -> Result<(usize, usize), String> {
    let (lanes, room) = (input.len(), output.first().map_or(0, Vec::len));
    let input = SequentialSliceOfVecs::new(input, lanes, first + needed)
        .map_err(|error| error.to_string())?;
    let mut output =
        SequentialSliceOfVecs::new_mut(output, lanes, room).map_err(|error| error.to_string())?;
    let place = Indexing { input_offset: first, ..Indexing::default() };
    resampler
        .process_into_buffer(&input, &mut output, Some(&place))
        .map_err(|error| error.to_string())
}

fn staging(lanes: usize, capacity: usize, ahead: usize) -> Vec<Vec<f32>> {
    (0..lanes)
        .map(|_| {
            let mut staged = Vec::with_capacity(capacity);
            staged.resize(ahead, 0.0);
            staged
        })
        .collect()
}

/// Input frames of one block of the FFT resampler, if `rate_hz` suits it.
fn fft_block(rate_hz: u32) -> Option<usize> {
    let common = greatest_common_divisor(rate_hz, MODEL_RATE_HZ);
    let (unit_in, unit_out) = ((rate_hz / common) as usize, (MODEL_RATE_HZ / common) as usize);
    let units = FILTER_SAMPLES.div_ceil(unit_in.min(unit_out));
    let (frames, made) = (units * unit_in, units * unit_out);
    (made <= MAX_FFT_BLOCK && is_smooth(frames) && is_smooth(made)).then_some(frames)
}

/// Zeros to put ahead of a stream, and output samples to drop, so that the first one kept stands for
/// the first sample of the stream.
///
/// rubato's output `k` (from 0) is the signal at `(k + 1) * step - taps / 2 + 1 / entries` input
/// frames: its clock starts `taps - 1` frames early, and the sinc whose peak meets a sample stands last
/// in its table. Only whole zeros and whole outputs can be taken away, so that among a few outputs the
/// one is taken which comes closest; what remains is less than a tenth of a sample at 16 kHz (6 µs).
fn sinc_alignment(step: f64, taps: usize, entries: usize) -> (usize, usize) {
    let position = |k: usize| (k + 1) as f64 * step - taps as f64 / 2.0 + (entries as f64).recip();
    let earliest = ((taps as f64 / 2.0) / step).ceil() as usize;
    let miss = |k: usize| (position(k) - position(k).round()).abs();
    let mut best = earliest;
    for k in earliest..earliest + SINC_BLOCK {
        if miss(k) < miss(best) {
            best = k;
        }
    }
    (position(best).round() as usize, best)
}

fn is_smooth(number: usize) -> bool {
    let mut rest = number;
    for prime in 2..=MAX_PRIME_FACTOR {
        while rest > 1 && rest.is_multiple_of(prime) {
            rest /= prime;
        }
    }
    rest == 1
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "what is claimed is equality to the bit")]
mod tests;
