//! Where the sinc resampler stands between two input samples: exactly, however long a stream is.
//!
//! rubato adds up the step from one output sample to the next in floating point. With a step that is a whole
//! number of 2^-40 input samples none of its sums is ever rounded, for positions stay below 2^12 samples. So
//! where it stands after any number of blocks follows from that number alone, does not drift, and can be gone
//! to by another resampler: [`Phase::way_to`]. The step errs by some 1e-12 of a sample, which makes less
//! than a sample in a day at any rate of a stream.
//!
//! rubato is told the ratio, not the step, and takes its reciprocal. Only ratios whose reciprocal is the step
//! to the bit are used; more than half are, so that there is one close to any.

use super::SINC_BLOCK;
use crate::units::MODEL_RATE_HZ;

/// Parts that an input sample has here.
const UNITS: i64 = 1 << 40;

/// A block's output samples divide this evenly: so many places between two samples can be gone to.
const PLACES: i64 = UNITS / SINC_BLOCK as i64;

/// Steps tried on either side of the one wanted. Of all rates from 1 to 800 kHz none needs more than 26,640.
const TRIES: i64 = 100_000;

/// Between two steps tried on the way to a place, units: neighbours are exact or not together, and there any step
/// within a hundredth will do.
const STRIDE: i64 = (1 << 20) + 7;

/// The places of a resampler of one rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    /// From one output to the next, in units.
    step: i64,
    /// The filter's length in input samples.
    taps: usize,
}

/// How a new resampler gets to another one's place.
#[derive(Debug, PartialEq)]
pub(super) struct Way {
    /// Ratios of the blocks to run, one behind the other.
    pub(super) ratios: Vec<f64>,
    /// Input frames that they take in all.
    pub(super) frames: usize,
}

impl Phase {
    /// For `rate_hz` and a filter of `taps` input samples. `None` if no step close by is exact, which has not
    /// been seen.
    pub(super) fn new(rate_hz: u32, taps: usize) -> Option<Self> {
        let rate = i64::from(MODEL_RATE_HZ);
        let nearest = (i64::from(rate_hz) * UNITS + rate / 2) / rate;
        let step = close_to(nearest, 1).find(|step| exact_ratio(*step).is_some())?;
        Some(Self { step, taps })
    }

    /// Input samples per output sample.
    pub(super) fn step(self) -> f64 {
        self.step as f64 / UNITS as f64
    }

    /// Output samples per input sample, as rubato wants it.
    pub(super) fn ratio(self) -> Option<f64> {
        exact_ratio(self.step)
    }

    /// Whole blocks that `fed` input frames make.
    pub(super) fn blocks(self, fed: u64) -> u64 {
        let behind = i128::from(fed.saturating_sub(1)) * i128::from(UNITS);
        u64::try_from(behind / i128::from(self.block())).unwrap_or_default()
    }

    /// Input frames that the first `blocks` blocks take.
    pub(super) fn consumed(self, blocks: u64) -> u64 {
        if blocks == 0 { 0 } else { taken(i128::from(blocks) * i128::from(self.block())) }
    }

    /// Input frames that an output looks at, up to the newest one.
    pub(super) fn reach(self) -> usize {
        // One for the second of the two neighbours, one because a place is rounded down.
        self.taps + 2
    }

    /// How a new resampler gets to the place of one that has run `blocks` blocks, having taken at least
    /// [`reach`](Self::reach) frames. The last two blocks make up the difference between them.
    pub(super) fn way_to(self, blocks: u64) -> Option<Way> {
        let enough = self.reach() as i64 * UNITS / self.block() + 1;
        let ordinary = enough.max(2);
        let place = (i128::from(blocks) * i128::from(self.step)).rem_euclid(i128::from(PLACES));
        let here = (i128::from(ordinary) * i128::from(self.step)).rem_euclid(i128::from(PLACES));
        let ahead = i64::try_from(place - here).ok()?;
        // The nearer way around.
        let ahead = match ahead {
            _ if ahead > PLACES / 2 => ahead - PLACES,
            _ if ahead < -PLACES / 2 => ahead + PLACES,
            _ => ahead,
        };
        let last = 2 * self.step + ahead;
        let (one, other) = close_to(last / 2, STRIDE)
            .find_map(|step| Some((exact_ratio(step)?, exact_ratio(last - step)?)))?;
        let mut ratios = vec![self.ratio()?; usize::try_from(ordinary - 2).ok()?];
        ratios.extend([one, other]);
        let way = i128::from(SINC_BLOCK as i64)
            * (i128::from(ordinary) * i128::from(self.step) + i128::from(ahead));
        Some(Way { ratios, frames: usize::try_from(taken(way)).ok()? })
    }

    /// Units of a block.
    fn block(self) -> i64 {
        self.step * SINC_BLOCK as i64
    }
}

/// Input frames that rubato takes for all outputs up to `way` units: it begins `taps - 1` frames before the first
/// input, and takes as many as the filter at the next output reaches, rounded up.
fn taken(way: i128) -> u64 {
    let units = i128::from(UNITS);
    u64::try_from((way + units + units - 1) / units).unwrap_or_default()
}

/// The ratio whose reciprocal is `step` units to the bit, if there is one.
fn exact_ratio(step: i64) -> Option<f64> {
    let step = step as f64 / UNITS as f64;
    let ratio = step.recip();
    (ratio.recip() == step).then_some(ratio)
}

/// `middle`, then numbers farther and farther from it.
fn close_to(middle: i64, stride: i64) -> impl Iterator<Item = i64> {
    let numbers = move |away: i64| [middle + away * stride, middle - away * stride];
    // Not so far that the ratio would leave its bounds.
    (0..TRIES.min(middle / 128 / stride)).flat_map(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_has_an_exact_step_and_a_stream_loses_less_than_a_sample_in_a_day() {
        // The second is of those that are hardest to find.
        for rate_hz in (3_000..=192_000).step_by(13).chain([115_209]) {
            let phase = Phase::new(rate_hz, 96).unwrap();
            assert!(phase.ratio().unwrap().recip() == phase.step(), "{rate_hz} Hz");
            let wanted = f64::from(rate_hz) / f64::from(MODEL_RATE_HZ);
            let error_per_day = (phase.step() - wanted).abs() * 16_000.0 * 86_400.0;
            assert!(rate_hz > 48_000 || error_per_day < 1.0, "{rate_hz} Hz: {error_per_day}");
        }
    }

    #[test]
    fn blocks_and_the_frames_that_they_take_agree() {
        let phase = Phase::new(11_025, 96).unwrap();
        for blocks in [1, 2, 3, 249, 250, 251, 1_000_000] {
            let frames = phase.consumed(blocks);
            assert_eq!(phase.blocks(frames), blocks);
            assert_eq!(phase.blocks(frames - 1), blocks - 1);
        }
        assert_eq!((phase.blocks(0), phase.consumed(0)), (0, 0));
    }

    #[test]
    fn there_is_a_way_to_every_place_and_its_ratios_are_close_to_the_ordinary_one() {
        for rate_hz in (8_000..=48_000).step_by(611) {
            let phase = Phase::new(rate_hz, 96 * 3).unwrap();
            for blocks in [1, 2, 3, 77, 1_000, 123_457, 1 << 36] {
                let way = phase.way_to(blocks).unwrap();
                assert!(way.frames >= phase.reach());
                for ratio in way.ratios {
                    assert!((ratio * phase.step() - 1.0).abs() < 0.015, "{rate_hz} Hz: {ratio}");
                }
            }
        }
    }
}
