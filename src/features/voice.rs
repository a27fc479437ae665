//! Voice activity: how likely it is that somebody speaks, hop by hop.
//!
//! In: the 128 mel bands of one frame in absolute dB (`10 log10(max(power, 1e-10))`), as the front
//! end computes them for the MFCCs anyway. Out: the probability of speech, in `[0, 1]`, one per
//! hop, for the middle of the frame. No samples are kept and nothing is looked ahead at.
//!
//! # How it hears
//! The bands are averaged by fours to 32 *pools*. Trackers that only look back follow each pool's
//! noise floor, and the whole frame's recent and slow level and its running maximum. The network is
//! shown differences only: the spectrum's shape about its mean, each pool above its noise floor,
//! the level against its trackers, and the *ripple* of the lowest bands. Those lie 23.6 Hz apart,
//! so the harmonics of a voice stand in them like the teeth of a comb; the ripple's autocorrelation
//! shows their spacing, 71 to 425 Hz. A layer of 16 rectified units and a gated recurrent layer of
//! 16 (Cho et al. 2014, with the reset after the product) turn the 88 numbers into one.
//!
//! # Why not a detector off the shelf
//! earshot 1.2.2, a good one in pure Rust, computes a spectrum of its own: 0.66 ms of CPU time per
//! second of audio at best on a busy two-core machine, 1.1 ms as a rule, where the whole service is
//! meant to take 0.5 ms. This one uses the spectrum that is there, took 0.024 ms in the same run,
//! and can be run over a corpus that exists as spectrograms only. `training/voice/study.md`
//! compares how well they hear, and says where earshot is the better one.
//!
//! # What it learned from
//! The spectrograms of CREMA-D (ODbL 1.0, which asks for attribution) and synthetic noise, with
//! `training/voice/train.py`; no data with a non-commercial licence.
//!
//! # Invariants
//! 1. Any input, finite or not, gives a probability in `[0, 1]`, and the state stays finite.
//! 2. Gain does not count: the same sound at another level gives the same probabilities, within
//!    rounding, as long as its bands stay within [`QUIETEST_DB`] and [`LOUDEST_DB`].
//! 3. The same frames give the same bits at any vector width: sums have one order, nothing is
//!    fused.
//! 4. Nothing is allocated; a detector is less than 400 bytes.

#![allow(
    clippy::inline_always,
    reason = "the kernels must take on the instruction set that `VoiceDetector::push` chooses"
)]

use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

use crate::state::Misfit;

/// What a detector takes for digital silence, in dB of one mel band: what the rounding to 16 bits
/// leaves behind lies below, at about -92 dB.
pub const QUIETEST_DB: f32 = -85.0;
/// The top of the range in dB of one mel band: a full-scale sine lies 65 dB below.
pub const LOUDEST_DB: f32 = 100.0;

/// Mel bands of a frame.
const BANDS: usize = 128;
/// Bands averaged to one pool.
const POOL_BANDS: usize = 4;
/// Pools of a frame.
const POOLS: usize = BANDS / POOL_BANDS;
/// Bands whose ripple is looked at: up to about 1 kHz, where the mel scale is linear.
const RIPPLE_BANDS: usize = 40;
/// Bands of the moving mean about which the ripple is taken.
const TREND_BANDS: usize = 7;
/// The shortest period of the ripple that is looked for, in bands: 71 Hz.
const FIRST_LAG: usize = 3;
/// Periods looked for, one band apart.
const LAGS: usize = 16;
/// The ripple and zeros behind it, for the longest period to reach into.
const RIPPLE_PADDED: usize = RIPPLE_BANDS + FIRST_LAG + LAGS;
/// Inputs about the whole frame's level.
const SCALARS: usize = 8;
/// Inputs of the network: shape, level above the noise floor, ripple, level.
const INPUTS: usize = 2 * POOLS + LAGS + SCALARS;
/// Units of the first layer.
const DENSE: usize = 16;
/// Units of the recurrent layer.
const STATE: usize = 16;
/// Reset, update and new gate of every recurrent unit.
const GATES: usize = 3 * STATE;

/// Weight of the new frame in the smoothed pools that the noise floor follows.
const SMOOTH: f32 = 0.4;
/// How fast a noise floor may rise, in dB per hop (5 dB/s): more slowly than words come and go.
const FLOOR_RISE_DB: f32 = 0.08;
/// Weight of the new frame in the fast mean level (about 50 ms).
const FAST: f32 = 0.3;
/// Weight of the new frame in the slow mean level (about 1.3 s).
const SLOW: f32 = 0.0125;
/// Fall of the running maximum of the level, in dB per hop (1 dB/s).
const PEAK_FALL_DB: f32 = 0.016;

/// The network's numbers as `training/voice/train.py` wrote them, laid out so that one input's
/// weights for all units lie side by side.
struct Weights {
    dense: [[f32; DENSE]; INPUTS],
    dense_bias: [f32; DENSE],
    gru_input: [[f32; GATES]; DENSE],
    gru_state: [[f32; GATES]; STATE],
    gru_input_bias: [f32; GATES],
    gru_state_bias: [f32; GATES],
    out: [f32; STATE],
    out_bias: [f32; 1],
}

/// The weights file: the tables of [`Weights`] in their order, little-endian `f32`. Its size is
/// checked when it is compiled in.
static FILE: &[u8; size_of::<Weights>()] = include_bytes!("voice.weights");

static WEIGHTS: Weights = {
    let (dense, at) = matrix::<DENSE, INPUTS>(0);
    let (dense_bias, at) = row::<DENSE>(at);
    let (gru_input, at) = matrix::<GATES, DENSE>(at);
    let (gru_state, at) = matrix::<GATES, STATE>(at);
    let (gru_input_bias, at) = row::<GATES>(at);
    let (gru_state_bias, at) = row::<GATES>(at);
    let (out, at) = row::<STATE>(at);
    let (out_bias, _) = row::<1>(at);
    Weights {
        dense,
        dense_bias,
        gru_input,
        gru_state,
        gru_input_bias,
        gru_state_bias,
        out,
        out_bias,
    }
};

#[allow(clippy::indexing_slicing, reason = "runs at compile time, where a slip is a build error")]
const fn row<const N: usize>(mut at: usize) -> ([f32; N], usize) {
    let mut values = [0.0; N];
    let mut i = 0;
    while i < N {
        values[i] = f32::from_le_bytes([FILE[at], FILE[at + 1], FILE[at + 2], FILE[at + 3]]);
        at += 4;
        i += 1;
    }
    (values, at)
}

#[allow(clippy::indexing_slicing, reason = "runs at compile time, where a slip is a build error")]
const fn matrix<const N: usize, const ROWS: usize>(mut at: usize) -> ([[f32; N]; ROWS], usize) {
    let mut rows = [[0.0; N]; ROWS];
    let mut i = 0;
    while i < ROWS {
        (rows[i], at) = row(at);
        i += 1;
    }
    (rows, at)
}

/// The detector of one channel of one stream.
///
/// ```
/// use undertone::features::{MEL_BANDS, voice::VoiceDetector};
///
/// let mut detector = VoiceDetector::new();
/// let silence = [-100.0; MEL_BANDS];
/// assert!(detector.push(&silence) < 0.5);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoiceDetector {
    /// The trackers, once there was a frame to start them from.
    trackers: Option<Trackers>,
    /// Outputs of the recurrent units, in [-1, 1].
    state: [f32; STATE],
}

/// What is remembered of the levels so far, in dB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trackers {
    /// Noise floor of each pool: rises slowly, falls at once.
    floor: [f32; POOLS],
    /// Each pool, smoothed over some 40 ms.
    smooth: [f32; POOLS],
    /// Mean level of the last 50 ms.
    fast: f32,
    /// Mean level of the last seconds.
    slow: f32,
    /// Running maximum of the level.
    peak: f32,
}

/// One call of [`VoiceDetector::push`], to be compiled once per instruction set. A closure would
/// not do: its call is not always inlined into the function that has the instruction set.
struct Hearing<'a> {
    detector: &'a mut VoiceDetector,
    mel_db: &'a [f32; BANDS],
}

impl WithSimd for Hearing<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        self.detector.hear(self.mel_db)
    }
}

impl Default for VoiceDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl VoiceDetector {
    /// A detector that has heard nothing yet.
    pub const fn new() -> Self {
        Self { trackers: None, state: [0.0; STATE] }
    }

    /// Takes the next frame, in absolute dB per mel band, and gives the probability of speech in
    /// its middle, in `[0, 1]`.
    pub fn push(&mut self, mel_db: &[f32; BANDS]) -> f32 {
        Arch::new().dispatch(Hearing { detector: self, mel_db })
    }

    /// Checks a detector that was saved: all of it is state.
    ///
    /// # Errors
    /// [`Misfit`] if it is none that hearing could have made.
    pub fn check_saved(&self) -> Result<(), Misfit> {
        // A little more than there is, for rounding.
        Misfit::outside(&self.state, &(-1.01..=1.01), "voice detector")?;
        let Some(Trackers { floor, smooth, fast, slow, peak }) = &self.trackers else {
            return Ok(());
        };
        let levels = floor.iter().chain(smooth).chain([fast, slow, peak]);
        Misfit::outside(levels, &(QUIETEST_DB - 1.0..=LOUDEST_DB + 1.0), "voice detector")
    }

    #[inline(always)]
    fn hear(&mut self, mel_db: &[f32; BANDS]) -> f32 {
        // `larger` before `smaller`: not a number becomes silence.
        let bands = each(mel_db, |db| smaller(larger(db, QUIETEST_DB), LOUDEST_DB));
        let inputs = self.inputs(&bands);
        let mut dense = WEIGHTS.dense_bias;
        multiply::<4, _, _>(&mut dense, &WEIGHTS.dense, &inputs);
        let dense = each(&dense, |x| larger(x, 0.0));
        let mut from_input = WEIGHTS.gru_input_bias;
        multiply::<1, _, _>(&mut from_input, &WEIGHTS.gru_input, &dense);
        let mut from_state = WEIGHTS.gru_state_bias;
        multiply::<1, _, _>(&mut from_state, &WEIGHTS.gru_state, &self.state);
        recur(&mut self.state, &from_input, &from_state);
        let [bias] = WEIGHTS.out_bias;
        let products: [f32; STATE] = zip(&self.state, &WEIGHTS.out, |h, w| h * w);
        sigmoid(bias + sum(&products)).clamp(0.0, 1.0)
    }

    /// What the network is shown of a frame; moves the trackers on.
    #[inline(always)]
    fn inputs(&mut self, bands: &[f32; BANDS]) -> [f32; INPUTS] {
        let mut pools = [0.0; POOLS];
        for (pool, bands) in pools.iter_mut().zip(bands.as_chunks::<POOL_BANDS>().0) {
            let [a, b, c, d] = *bands;
            *pool = (a + b + c + d) * (1.0 / POOL_BANDS as f32);
        }
        let level = sum(&pools) * (1.0 / POOLS as f32);
        let trackers = self.trackers.get_or_insert(Trackers {
            floor: pools,
            smooth: pools,
            fast: level,
            slow: level,
            peak: level,
        });
        let (fast, slow) = (trackers.fast, trackers.slow);
        let flux = sum(&zip(&pools, &trackers.smooth, |pool, smooth| (pool - smooth).abs()));
        trackers.follow(&pools, level);
        let ripple = Ripple::of(bands);
        let highest = largest(&pools);
        let above_floor = zip(&pools, &trackers.floor, |pool, floor| pool - floor);
        let scalars = [
            (level - trackers.peak) / 20.0,
            sum(&above_floor) * (1.0 / POOLS as f32) / 10.0,
            (highest - level) / 20.0,
            ripple.rms_db / 10.0,
            largest(&ripple.correlation),
            (level - fast) / 10.0,
            (level - slow) / 20.0,
            flux * (1.0 / POOLS as f32) / 5.0,
        ];
        let mut inputs = [0.0; INPUTS];
        let (shape, rest) = inputs.split_at_mut(POOLS);
        let (above, rest) = rest.split_at_mut(POOLS);
        let (correlation, level_inputs) = rest.split_at_mut(LAGS);
        shape.copy_from_slice(&each(&pools, |pool| (pool - level) * (1.0 / 15.0)));
        above.copy_from_slice(&each(&above_floor, |db| db * (1.0 / 15.0)));
        correlation.copy_from_slice(&ripple.correlation);
        level_inputs.copy_from_slice(&scalars);
        inputs
    }
}

impl Trackers {
    #[inline(always)]
    fn follow(&mut self, pools: &[f32; POOLS], level: f32) {
        self.smooth = zip(&self.smooth, pools, |smooth, pool| smooth + SMOOTH * (pool - smooth));
        self.floor =
            zip(&self.floor, &self.smooth, |floor, smooth| smaller(floor + FLOOR_RISE_DB, smooth));
        self.fast += FAST * (level - self.fast);
        self.slow += SLOW * (level - self.slow);
        self.peak = (self.peak - PEAK_FALL_DB).max(level);
    }
}

/// The ripple of the lowest bands about their moving mean.
struct Ripple {
    rms_db: f32,
    /// Autocorrelation at each lag over the power; fades out where the ripple is 1 dB or less.
    correlation: [f32; LAGS],
}

impl Ripple {
    #[allow(clippy::indexing_slicing, reason = "constant bounds, in a kernel that must vectorise")]
    #[inline(always)]
    fn of(bands: &[f32; BANDS]) -> Self {
        let mut trend = [0.0; RIPPLE_BANDS];
        for shift in 0..TREND_BANDS {
            for (sum, band) in trend.iter_mut().zip(&bands[shift..shift + RIPPLE_BANDS]) {
                *sum += band;
            }
        }
        let mut ripple = [0.0; RIPPLE_PADDED];
        let middle = &bands[TREND_BANDS / 2..];
        for ((ripple, band), sum) in ripple.iter_mut().zip(middle).zip(&trend) {
            *ripple = band - sum * (1.0 / TREND_BANDS as f32);
        }
        let mut power = [0.0; 8];
        for chunk in ripple.as_chunks::<8>().0 {
            power = zip(&power, chunk, |sum, x| sum + x * x);
        }
        let power = sum(&power);
        // Two running sums, for even and odd bands: see `multiply`.
        let mut sums = [[0.0; LAGS]; 2];
        for k in 0..RIPPLE_BANDS / 2 {
            for (half, sum) in sums.iter_mut().enumerate() {
                let first = 2 * k + half;
                for lag in 0..LAGS {
                    sum[lag] += ripple[first] * ripple[first + FIRST_LAG + lag];
                }
            }
        }
        let correlation = zip(&sums[0], &sums[1], |even, odd| even + odd);
        let scale = 1.0 / (power + RIPPLE_BANDS as f32);
        Self {
            rms_db: (power * (1.0 / RIPPLE_BANDS as f32)).sqrt(),
            correlation: each(&correlation, |sum| sum * scale),
        }
    }
}

/// Adds `inputs` times `rows` to `sums`: `CHAINS` running sums, an input to each in turn, then
/// those. One sum alone would wait for each addition before the next; too many do not fit the
/// registers.
#[inline(always)]
fn multiply<const CHAINS: usize, const N: usize, const ROWS: usize>(
    sums: &mut [f32; N],
    rows: &[[f32; N]; ROWS],
    inputs: &[f32; ROWS],
) {
    const { assert!(ROWS.is_multiple_of(CHAINS), "the remainder would be left out") };
    let mut chains = [[0.0; N]; CHAINS];
    for (rows, inputs) in rows.as_chunks::<CHAINS>().0.iter().zip(inputs.as_chunks::<CHAINS>().0) {
        for ((chain, row), &input) in chains.iter_mut().zip(rows).zip(inputs) {
            for (sum, weight) in chain.iter_mut().zip(row) {
                *sum += input * weight;
            }
        }
    }
    for chain in &chains {
        *sums = zip(sums, chain, |sum, part| sum + part);
    }
}

/// One step of the gated recurrent units.
#[allow(clippy::indexing_slicing, reason = "constant bounds, in a kernel that must vectorise")]
#[inline(always)]
fn recur(state: &mut [f32; STATE], from_input: &[f32; GATES], from_state: &[f32; GATES]) {
    for unit in 0..STATE {
        let reset = sigmoid(from_input[unit] + from_state[unit]);
        let keep = sigmoid(from_input[STATE + unit] + from_state[STATE + unit]);
        let new = tanh(from_input[2 * STATE + unit] + reset * from_state[2 * STATE + unit]);
        state[unit] = new + keep * (state[unit] - new);
    }
}

/// `tanh` by the seventh convergent of Lambert's continued fraction, to within 1e-4; unlike the
/// library's it vectorises and gives the same bits everywhere.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // The convergent reaches 1 here.
    let x = smaller(larger(x, -4.97), 4.97);
    let y = x * x;
    let above = x * (135_135.0 + y * (17_325.0 + y * (378.0 + y)));
    let below = 135_135.0 + y * (62_370.0 + y * (3_150.0 + y * 28.0));
    above / below
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    0.5 + 0.5 * tanh(0.5 * x)
}

#[inline(always)]
fn zip<const N: usize>(a: &[f32; N], b: &[f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    let mut out = *a;
    for (out, &b) in out.iter_mut().zip(b) {
        *out = f(*out, b);
    }
    out
}

#[inline(always)]
fn each<const N: usize>(a: &[f32; N], f: impl Fn(f32) -> f32) -> [f32; N] {
    let mut out = *a;
    for x in &mut out {
        *x = f(*x);
    }
    out
}

/// The larger of two, the second if one is not a number: one instruction, where `f32::max` is four.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two, the second if one is not a number.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The largest of a multiple of eight numbers.
#[inline(always)]
fn largest<const N: usize>(values: &[f32; N]) -> f32 {
    const { assert!(N.is_multiple_of(8), "the remainder would be left out") };
    let mut eight = [f32::NEG_INFINITY; 8];
    for chunk in values.as_chunks::<8>().0 {
        eight = zip(&eight, chunk, larger);
    }
    let [a, b, c, d, e, f, g, h] = eight;
    larger(larger(larger(a, e), larger(c, g)), larger(larger(b, f), larger(d, h)))
}

/// The sum of a multiple of eight numbers in one fixed order: eight running sums, then those.
#[inline(always)]
fn sum<const N: usize>(values: &[f32; N]) -> f32 {
    const { assert!(N.is_multiple_of(8), "the remainder would be left out") };
    let mut eight = [0.0; 8];
    for chunk in values.as_chunks::<8>().0 {
        eight = zip(&eight, chunk, |a, b| a + b);
    }
    let [a, b, c, d, e, f, g, h] = eight;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests;
