//! The mel filter bank: 513 bins of power in, 128 bands out.
//!
//! Slaney's scale (M. Slaney 1998, "Auditory Toolbox", Interval Research TR 1998-010): linear to
//! 1 kHz with 3 mel per 200 Hz, logarithmic above with 27 mel per factor of 6.4. Triangular filters,
//! each with the area 1 over frequency in Hz; 128 of them between 0 Hz and 8 kHz.
//!
//! A filter touches 2 to 24 neighbouring bins of the 513, so each is stored as one run of weights,
//! filled up with zeros to groups of eight.

use pulp::Simd;

use super::MEL_BANDS;
use super::spectrum::{BINS, PADDED_BINS};
use crate::units::{FRAME_SAMPLES, MODEL_RATE_HZ};

/// Bins that are weighted together: the width of an AVX register.
const GROUP: usize = 8;
/// Groups of the widest filter.
const WIDEST: usize = 3;
/// Hz per mel below the break.
const HZ_PER_MEL: f64 = 200.0 / 3.0;
/// Where the scale turns from linear to logarithmic.
const BREAK_HZ: f64 = 1000.0;
/// Mel per factor of e above the break.
const MEL_PER_LN_HZ: f64 = 27.0 / 1.856_297_990_365_626_3; // ln 6.4

/// Neighbouring filters whose runs of weights have the same number of groups.
#[derive(Debug, Default)]
struct Class {
    /// First bin of each run.
    starts: Vec<usize>,
    /// All runs' weights, one after the other.
    weights: Vec<f32>,
}

/// The 128 filters, from the narrow ones at the bottom to the wide ones at the top: those of one,
/// two and three groups.
#[derive(Debug)]
pub(super) struct MelFilterbank {
    classes: [Class; WIDEST],
}

impl MelFilterbank {
    pub(super) fn new() -> Self {
        let mut classes: [Class; WIDEST] = Default::default();
        let mut groups = 1;
        for band in 0..MEL_BANDS {
            let filter: Vec<f32> = (0..BINS).map(|bin| weight(band, bin) as f32).collect();
            let start = filter.iter().position(|&w| w > 0.0).unwrap_or_default();
            let end = filter.iter().rposition(|&w| w > 0.0).map_or(start, |last| last + 1);
            let run = filter.get(start..end).unwrap_or_default();
            // A filter may be one bin narrower than the one below it; classes stay in order.
            groups = groups.max(run.len().div_ceil(GROUP));
            if let Some(class) = classes.get_mut(groups - 1) {
                class.starts.push(start);
                class.weights.extend(run);
                class.weights.resize(class.starts.len() * groups * GROUP, 0.0);
            }
        }
        Self { classes }
    }

    /// The power of each band.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(
        &self,
        simd: S,
        power: &[f32; PADDED_BINS],
        bands: &mut [f32; MEL_BANDS],
    ) {
        let [narrow, middle, wide] = &self.classes;
        let (low, rest) = bands.split_at_mut(narrow.starts.len());
        let (mid, high) = rest.split_at_mut(middle.starts.len());
        narrow.apply::<S, { GROUP }>(simd, power, low);
        middle.apply::<S, { 2 * GROUP }>(simd, power, mid);
        wide.apply::<S, { 3 * GROUP }>(simd, power, high);
    }
}

impl Class {
    /// The power of each band of this class, whose runs have `RUN` weights.
    #[inline(always)]
    fn apply<S: Simd, const RUN: usize>(
        &self,
        simd: S,
        power: &[f32; PADDED_BINS],
        bands: &mut [f32],
    ) {
        let (runs, _) = self.weights.as_chunks::<RUN>();
        for ((band, weights), &start) in bands.iter_mut().zip(runs).zip(&self.starts) {
            // `new` starts no run where it would leave the padded spectrum.
            let Some(bins) = power.get(start..start + RUN) else { continue };
            let (bins, _) = S::as_simd_f32s(bins);
            let (weights, _) = S::as_simd_f32s(weights);
            let mut sum = simd.splat_f32s(0.0);
            for (&bin, &weight) in bins.iter().zip(weights) {
                sum = simd.mul_add_e_f32s(bin, weight, sum);
            }
            *band = simd.reduce_sum_f32s(sum);
        }
    }
}

/// The weight of filter `band` at FFT bin `bin`.
fn weight(band: usize, bin: usize) -> f64 {
    let nyquist_mel = hz_to_mel(f64::from(MODEL_RATE_HZ) / 2.0);
    let corner = |i: usize| mel_to_hz(nyquist_mel * i as f64 / (MEL_BANDS + 1) as f64);
    let (left, centre, right) = (corner(band), corner(band + 1), corner(band + 2));
    let hz = bin as f64 * f64::from(MODEL_RATE_HZ) / FRAME_SAMPLES as f64;
    let rising = (hz - left) / (centre - left);
    let falling = (right - hz) / (right - centre);
    rising.min(falling).max(0.0) * 2.0 / (right - left)
}

/// Where `hz` lies among the bands: band `b` is centred on `b`, 0 Hz lies at -1 and 8 kHz at 128. For
/// the axes of pictures.
pub fn band_of_hz(hz: f64) -> f64 {
    let nyquist_mel = hz_to_mel(f64::from(MODEL_RATE_HZ) / 2.0);
    hz_to_mel(hz) / nyquist_mel * (MEL_BANDS + 1) as f64 - 1.0
}

fn hz_to_mel(hz: f64) -> f64 {
    if hz < BREAK_HZ {
        hz / HZ_PER_MEL
    } else {
        BREAK_HZ / HZ_PER_MEL + (hz / BREAK_HZ).ln() * MEL_PER_LN_HZ
    }
}

fn mel_to_hz(mel: f64) -> f64 {
    let break_mel = BREAK_HZ / HZ_PER_MEL;
    if mel < break_mel {
        mel * HZ_PER_MEL
    } else {
        BREAK_HZ * ((mel - break_mel) / MEL_PER_LN_HZ).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, WithSimd};

    struct Apply<'a>(&'a MelFilterbank, &'a [f32; PADDED_BINS]);

    impl WithSimd for Apply<'_> {
        type Output = [f32; MEL_BANDS];

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let mut bands = [0.0; MEL_BANDS];
            self.0.apply(simd, self.1, &mut bands);
            bands
        }
    }

    #[test]
    fn bands_are_the_dense_product() {
        let bank = MelFilterbank::new();
        let mut power = [0.0; PADDED_BINS];
        for (bin, value) in power.iter_mut().enumerate().take(BINS) {
            *value = ((bin * 7_919 + 13) % 997) as f32;
        }
        let bands = Arch::new().dispatch(Apply(&bank, &power));
        for (band, &value) in bands.iter().enumerate() {
            let exact: f64 = (0..BINS).map(|bin| weight(band, bin) * f64::from(power[bin])).sum();
            let error = (f64::from(value) - exact).abs();
            assert!(error <= 1e-6 * exact, "band {band}: {value}, exactly {exact}");
        }
    }

    #[test]
    fn every_band_hears_something_and_every_run_stays_within_the_spectrum() {
        let bank = MelFilterbank::new();
        let bands: usize = bank.classes.iter().map(|class| class.starts.len()).sum();
        assert_eq!(bands, MEL_BANDS);
        for (class, groups) in bank.classes.iter().zip(1..) {
            assert_eq!(class.weights.len(), class.starts.len() * groups * GROUP);
            for (start, run) in class.starts.iter().zip(class.weights.chunks(groups * GROUP)) {
                assert!(run[0] > 0.0);
                assert!(start + groups * GROUP <= PADDED_BINS);
            }
        }
    }

    #[test]
    fn filters_have_area_one() {
        let bin_hz = f64::from(MODEL_RATE_HZ) / FRAME_SAMPLES as f64;
        for band in 100..MEL_BANDS {
            let area: f64 = (0..BINS).map(|bin| weight(band, bin) * bin_hz).sum();
            assert!((area - 1.0).abs() < 0.01, "band {band}: {area}");
        }
    }

    #[test]
    fn scale_is_slaneys() {
        assert!((hz_to_mel(1_000.0) - 15.0).abs() < 1e-12);
        assert!((hz_to_mel(6_400.0) - 42.0).abs() < 1e-12);
        for hz in [0.0, 200.0, 999.0, 1_000.0, 1_001.0, 8_000.0] {
            assert!((mel_to_hz(hz_to_mel(hz)) - hz).abs() < 1e-9);
        }
    }
}
