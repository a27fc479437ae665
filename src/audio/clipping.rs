//! Clipping: samples that were cut off before they came here.
//!
//! A sample counts as clipped if it lies beyond full scale (only FLOAT32 and decoded files can; it is
//! clamped to ±1), or if it belongs to a run of at least three consecutive samples at the same rail. A
//! single sample at the rail is what a normalised recording has at its peak and counts for nothing;
//! three in a row are a plateau. The rail is the greatest code of the encoding, so that the rule is the
//! same for G.711, where loud speech reaches the last code.

use serde::{Deserialize, Serialize};

use crate::state::Misfit;

/// Consecutive samples at one rail that make a plateau.
const PLATEAU_SAMPLES: u32 = 3;

/// Clamps and counts on one channel; a plateau may cross blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClipDetector {
    /// Which rail the run is at; 0 for none.
    rail: i8,
    /// Samples of the run so far, no more than `PLATEAU_SAMPLES`.
    run: u32,
    /// Samples of the run that have not been counted.
    uncounted: u32,
}

impl ClipDetector {
    /// Clamps `samples` to ±1 and counts the clipped ones; `full_scale` is the rail's magnitude.
    pub(crate) fn check(&mut self, samples: &mut [f32], full_scale: f32) -> u32 {
        // Nearly every block ends here: a maximum vectorises, the run below does not.
        if peak(samples) < full_scale {
            *self = Self::default();
            return 0;
        }
        samples.iter_mut().map(|sample| self.step(sample, full_scale)).sum()
    }

    /// Whether a run can stand so, as a saved detector must.
    pub(crate) fn check_saved(self) -> Result<(), Misfit> {
        let fits = (-1..=1).contains(&self.rail)
            && self.run <= PLATEAU_SAMPLES
            && self.uncounted < PLATEAU_SAMPLES;
        Misfit::unless(fits, "clip detector", "is in no state that there is")
    }

    fn step(&mut self, sample: &mut f32, full_scale: f32) -> u32 {
        if sample.abs() < full_scale {
            *self = Self::default();
            return 0;
        }
        let rail = if *sample > 0.0 { 1 } else { -1 };
        if rail != self.rail {
            *self = Self { rail, ..Self::default() };
        }
        self.run = (self.run + 1).min(PLATEAU_SAMPLES);
        let beyond = sample.abs() > 1.0;
        *sample = sample.clamp(-1.0, 1.0);
        if !beyond {
            self.uncounted += 1;
        }
        let plateau =
            if self.run == PLATEAU_SAMPLES { std::mem::take(&mut self.uncounted) } else { 0 };
        plateau + u32::from(beyond)
    }
}

/// The largest magnitude. Eight running maxima, or each comparison would wait for the one before.
fn peak(samples: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [0.0_f32; 8];
    let (groups, rest) = samples.as_chunks::<8>();
    for group in groups {
        for (lane, sample) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, sample.abs());
        }
    }
    lanes.into_iter().chain(rest.iter().map(|sample| sample.abs())).fold(0.0, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAIL: f32 = 32_767.0 / 32_768.0;

    fn count(samples: &[f32]) -> u32 {
        let mut whole = samples.to_vec();
        let counted = ClipDetector::default().check(&mut whole, RAIL);
        assert!(whole.iter().all(|x| x.abs() <= 1.0));
        // However it is cut, the count is the same.
        for size in 1..=samples.len() {
            let mut detector = ClipDetector::default();
            let sum: u32 =
                samples.to_vec().chunks_mut(size).map(|part| detector.check(part, RAIL)).sum();
            assert_eq!(sum, counted, "in blocks of {size}");
        }
        counted
    }

    #[test]
    fn peaks_are_no_clipping_and_plateaus_are() {
        assert_eq!(count(&[0.0, RAIL, 0.5, -1.0, -1.0, 0.0]), 0);
        assert_eq!(count(&[0.0, RAIL, RAIL, RAIL, 0.0]), 3);
        assert_eq!(count(&[RAIL, 1.0, RAIL, RAIL, 0.0, RAIL]), 4);
    }

    #[test]
    fn a_plateau_stays_at_one_rail() {
        assert_eq!(count(&[1.0, -1.0, 1.0, -1.0, 1.0]), 0);
        assert_eq!(count(&[1.0, 1.0, -1.0, -1.0, -1.0]), 3);
    }

    #[test]
    fn every_sample_beyond_full_scale_counts_once() {
        assert_eq!(count(&[0.0, 1.5, 0.0, -2.0, 0.0]), 2);
        assert_eq!(count(&[1.5, 1.0, 1.5, 1.0, 0.0]), 4);
        assert_eq!(count(&[1.5, 1.0, 0.0]), 1);
    }
}
