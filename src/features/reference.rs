//! The causal reference: the level that a frame's features are relative to, known at the time.
//!
//! librosa makes features relative to the loudest band of a whole clip. A stream has no whole, so
//! Undertone's are relative to a running maximum that forgets slowly.
//!
//! - **State**: the level of the last peak, `p` dB, and its age, `a` hops. At the start of a stream
//!   `p` is [`LOWEST_REFERENCE_DB`] (-40 dB) and `a` is 0.
//! - **Rule**: with `m` the loudest of frame i's 128 bands in dB, the age grows by one hop; if `m`
//!   reaches `p` less the decay of that age, the frame is the new peak (`p = m`, `a = 0`). The
//!   reference is `r = max(p - decay * a, -40 dB)`, that is
//!   `r[i] = max(m[i], r[i-1] - 0.016 dB, -40 dB)`, written so that rounding does not pile up.
//! - **Decay**: [`DECAY_DB_PER_SECOND`] (1 dB per second, 0.016 dB per hop). Pauses of a conversation
//!   cost a few dB; a speaker who has moved away from the microphone is back in range in half a
//!   minute.
//! - **Floor**: bands more than [`RANGE_DB`] (80 dB) below the reference count as 80 dB below it.
//!
//! A frame's own bands count towards its reference, so no relative level is above 0 dB. Multiplying a
//! signal by a gain shifts `m` and `r` alike and leaves relative levels as they were, as long as the
//! loudest band stays above -40 dB.
//!
//! The lowest reference keeps digital silence (-100 dB in every band) and the noise of an idle line
//! from being read as loud: silence is 60 dB below it. Speech is above it even when very faint: bands
//! are powers of a windowed frame of 1,024 samples, so that a sine at full scale reaches 35 dB, white
//! noise at -75 dBFS stays around -60 dB, and speech at -60 dBFS (root mean square) still peaks
//! between -25 and -17 dB and keeps its vowels above -40 dB.

use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ};

/// Levels that features can tell apart, dB below the reference.
pub const RANGE_DB: f32 = 80.0;
/// How fast the reference falls when nothing reaches it, dB per second.
pub const DECAY_DB_PER_SECOND: f32 = 1.0;
/// The reference at the start of a stream, below which it never falls, dB.
pub const LOWEST_REFERENCE_DB: f32 = -40.0;

/// 62.5.
const HOPS_PER_SECOND: f32 = MODEL_RATE_HZ as f32 / HOP_SAMPLES as f32;

/// A slowly forgetting running maximum of one stream's level; see the module's rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CausalReference {
    peak_db: f32,
    age_hops: u32,
}

impl CausalReference {
    /// The reference of a stream that has heard nothing.
    pub fn new() -> Self {
        Self { peak_db: LOWEST_REFERENCE_DB, age_hops: 0 }
    }

    /// A reference as [`CausalReference::peak`] described it. A level that is not finite or is below
    /// the lowest counts as the lowest.
    pub fn from_peak(peak_db: f32, age_hops: u32) -> Self {
        let finite = peak_db.is_finite() && peak_db > LOWEST_REFERENCE_DB;
        Self { peak_db: if finite { peak_db } else { LOWEST_REFERENCE_DB }, age_hops }
    }

    /// Level of the last peak in dB, and its age in hops: the whole state.
    pub fn peak(self) -> (f32, u32) {
        (self.peak_db, self.age_hops)
    }

    /// Takes the loudest band of the next frame, in dB, and gives the reference that holds for that
    /// frame, in dB. A level that is not a number counts as silence.
    pub fn observe(&mut self, loudest_db: f32) -> f32 {
        self.age_hops = self.age_hops.saturating_add(1);
        if loudest_db >= self.db() {
            *self = Self { peak_db: loudest_db, age_hops: 0 };
        }
        self.db()
    }

    /// The reference as it stands, dB.
    pub fn db(self) -> f32 {
        let decay_db = self.age_hops as f32 * DECAY_DB_PER_SECOND / HOPS_PER_SECOND;
        (self.peak_db - decay_db).max(LOWEST_REFERENCE_DB)
    }
}

impl Default for CausalReference {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reference_starts_at_the_lowest_and_rises_at_once() {
        let mut reference = CausalReference::new();
        assert_eq!(reference.db(), LOWEST_REFERENCE_DB);
        assert_eq!(reference.observe(-39.5), -39.5);
        assert_eq!(reference.observe(12.25), 12.25);
        assert_eq!(reference.peak(), (12.25, 0));
    }

    #[test]
    fn decay_is_one_decibel_per_second_and_never_drifts() {
        let mut reference = CausalReference::from_peak(20.0, 0);
        for second in 1..=59 {
            let level = (0..125).map(|_| reference.observe(-100.0)).last().unwrap();
            // 62.5 hops are a second, 125 are two; exact, because nothing is accumulated.
            let expected = 20.0 - 2.0 * second as f32;
            assert_eq!(level, expected.max(LOWEST_REFERENCE_DB));
        }
    }

    #[test]
    fn silence_brings_the_reference_back_to_the_lowest_and_no_further() {
        let mut reference = CausalReference::from_peak(30.0, 0);
        for _ in 0..10_000 {
            reference.observe(-100.0);
        }
        assert_eq!(reference.db(), LOWEST_REFERENCE_DB);
        // The slightest sound above it is the new peak.
        assert_eq!(reference.observe(-39.9), -39.9);
    }

    #[test]
    fn age_does_not_wrap() {
        let mut reference = CausalReference::from_peak(30.0, u32::MAX);
        assert_eq!(reference.observe(-100.0), LOWEST_REFERENCE_DB);
    }

    #[test]
    fn state_that_makes_no_sense_counts_as_the_lowest() {
        for peak_db in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -41.0] {
            assert_eq!(CausalReference::from_peak(peak_db, 3).peak().0, LOWEST_REFERENCE_DB);
        }
        let mut reference = CausalReference::from_peak(5.0, 0);
        assert!((reference.observe(f32::NAN) - 4.984).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn closed_form_is_the_recursion(levels in prop::collection::vec(-100.0_f32..45.0, 1..500)) {
            let mut reference = CausalReference::new();
            let mut recursion = f64::from(LOWEST_REFERENCE_DB);
            for level in levels {
                let decayed = recursion - 1.0 / 62.5;
                recursion = f64::from(level).max(decayed).max(f64::from(LOWEST_REFERENCE_DB));
                let ours = f64::from(reference.observe(level));
                prop_assert!((ours - recursion).abs() < 1e-5);
                prop_assert!(ours >= f64::from(level));
            }
        }

        #[test]
        fn state_can_be_carried_over_at_any_hop(
            levels in prop::collection::vec(-100.0_f32..45.0, 2..200),
            cut in 0.0..1.0,
        ) {
            let cut = (levels.len() as f64 * cut) as usize;
            let mut whole = CausalReference::new();
            let mut parts = CausalReference::new();
            for (i, &level) in levels.iter().enumerate() {
                if i == cut {
                    let (peak_db, age_hops) = parts.peak();
                    parts = CausalReference::from_peak(peak_db, age_hops);
                }
                prop_assert_eq!(whole.observe(level).to_bits(), parts.observe(level).to_bits());
            }
        }
    }
}
