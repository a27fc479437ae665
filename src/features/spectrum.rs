//! A frame's samples in, its power spectrum out: Hann window, FFT, squared magnitude.
//!
//! The 1,024 real samples are read as 512 complex ones (even samples real, odd samples imaginary),
//! transformed at that half size, and the two interleaved spectra are taken apart while the power is
//! computed. With Z the transform of the packed frame, W = exp(-2πi k / 1024) and k = 0..=256:
//!
//! ```text
//! E = (Z[k] + conj Z[512 - k]) / 2        spectrum of the even samples
//! O = (Z[k] - conj Z[512 - k]) / 2i       spectrum of the odd samples
//! X[k] = E + W O,   X[512 - k] = conj(E - W O)
//! ```
//!
//! (Sorensen et al. 1987, "Real-valued fast Fourier transform algorithms", IEEE Trans. ASSP 35.)
//! The sum is formed before it is squared. |E|² + |O|² ± 2 Re(E conj(W O)) would save multiplications
//! and lose half of the digits of every bin that is weak beside its mirror.
//!
//! The halves are folded into the window, which is exact: 0.5 is a power of two.

use std::f64::consts::TAU;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use crate::units::{FRAME_SAMPLES, HOP_SAMPLES};

/// Complex points of the packed frame.
const PACKED: usize = FRAME_SAMPLES / 2;
/// Bins whose power is computed together with that of their mirror.
const PAIRS: usize = PACKED / 2;
/// Bins of the power spectrum: 0 Hz to 8 kHz, 15.625 Hz apart.
pub(super) const BINS: usize = PACKED + 1;
/// Room behind the last bin, always zero, so that the mel kernel may read in groups of eight.
pub(super) const PADDED_BINS: usize = BINS + 15;

/// The four hops of a frame, oldest first.
pub(super) type FrameSamples<'a> = [&'a [f32; HOP_SAMPLES]; FRAME_SAMPLES / HOP_SAMPLES];

/// Window, FFT plan and twiddle factors.
pub(super) struct Spectrum {
    /// Half of the periodic Hann window, by hop of the frame.
    window: [[f32; HOP_SAMPLES]; FRAME_SAMPLES / HOP_SAMPLES],
    fft: Arc<dyn Fft<f32>>,
    /// Real and imaginary part of W for k = 1..=256.
    twiddle_re: [f32; PAIRS],
    twiddle_im: [f32; PAIRS],
}

/// Work buffers of one transform.
#[derive(Debug)]
pub(super) struct SpectrumScratch {
    packed: Box<[Complex<f32>; PACKED]>,
    transformed: Box<[Complex<f32>; PACKED]>,
    fft: Vec<Complex<f32>>,
}

impl Spectrum {
    pub(super) fn new() -> Self {
        let step = TAU / FRAME_SAMPLES as f64;
        let hann = |n: usize| (0.25 * (1.0 - (step * n as f64).cos())) as f32;
        let angle = |i: usize| step * (i + 1) as f64;
        Self {
            window: std::array::from_fn(|hop| std::array::from_fn(|n| hann(hop * HOP_SAMPLES + n))),
            fft: FftPlanner::new().plan_fft_forward(PACKED),
            twiddle_re: std::array::from_fn(|i| angle(i).cos() as f32),
            twiddle_im: std::array::from_fn(|i| -angle(i).sin() as f32),
        }
    }

    pub(super) fn scratch(&self) -> SpectrumScratch {
        let zero = Complex::new(0.0, 0.0);
        SpectrumScratch {
            packed: Box::new([zero; PACKED]),
            transformed: Box::new([zero; PACKED]),
            fft: vec![zero; self.fft.get_outofplace_scratch_len()],
        }
    }

    /// Applies the window and packs pairs of samples into complex points.
    #[inline(always)]
    pub(super) fn window(&self, samples: &FrameSamples<'_>, scratch: &mut SpectrumScratch) {
        let (quarters, _) = scratch.packed.as_chunks_mut::<{ HOP_SAMPLES / 2 }>();
        for ((quarter, hop), window) in quarters.iter_mut().zip(samples).zip(&self.window) {
            let (pairs, _) = hop.as_chunks::<2>();
            let (weights, _) = window.as_chunks::<2>();
            for ((point, pair), weight) in quarter.iter_mut().zip(pairs).zip(weights) {
                *point = Complex::new(pair[0] * weight[0], pair[1] * weight[1]);
            }
        }
    }

    /// Transforms the packed frame.
    pub(super) fn transform(&self, scratch: &mut SpectrumScratch) {
        self.fft.process_outofplace_with_scratch(
            scratch.packed.as_mut_slice(),
            scratch.transformed.as_mut_slice(),
            &mut scratch.fft,
        );
    }

    /// Takes the packed spectrum apart and squares it. What lies behind the spectrum in `power` stays.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "all bounds are constants; a loop over pairs")]
    pub(super) fn power(&self, scratch: &SpectrumScratch, power: &mut [f32; PADDED_BINS]) {
        let z = &*scratch.transformed;
        // Mirrored halves of the output, written forwards and backwards.
        let mut low = [0.0_f32; PAIRS];
        let mut high = [0.0_f32; PAIRS];
        for i in 0..PAIRS {
            let a = z[i + 1];
            let b = z[PACKED - 1 - i];
            let (even_re, even_im) = (a.re + b.re, a.im - b.im);
            let (odd_re, odd_im) = (a.im + b.im, b.re - a.re);
            let (w_re, w_im) = (self.twiddle_re[i], self.twiddle_im[i]);
            let turned_re = w_re * odd_re - w_im * odd_im;
            let turned_im = w_re * odd_im + w_im * odd_re;
            let (sum_re, sum_im) = (even_re + turned_re, even_im + turned_im);
            let (difference_re, difference_im) = (even_re - turned_re, even_im - turned_im);
            low[i] = sum_re * sum_re + sum_im * sum_im;
            high[PAIRS - 1 - i] = difference_re * difference_re + difference_im * difference_im;
        }
        // Bin 256 is its own mirror and stands in both halves.
        power[PAIRS..PACKED].copy_from_slice(&high);
        power[1..=PAIRS].copy_from_slice(&low);
        let (first, last) = (2.0 * (z[0].re + z[0].im), 2.0 * (z[0].re - z[0].im));
        power[0] = first * first;
        power[PACKED] = last * last;
    }
}

impl std::fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spectrum").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Power of one bin by the definition, in double precision.
    fn exact(samples: &[f32], bin: usize) -> f64 {
        let step = TAU / FRAME_SAMPLES as f64;
        let (mut re, mut im) = (0.0, 0.0);
        for (n, &sample) in samples.iter().enumerate() {
            let windowed = 0.5 * (1.0 - (step * n as f64).cos()) * f64::from(sample);
            // The product is taken round the circle first: large angles lose digits.
            let angle = step * ((n * bin) % FRAME_SAMPLES) as f64;
            re += windowed * angle.cos();
            im -= windowed * angle.sin();
        }
        re * re + im * im
    }

    fn ours(samples: &[f32]) -> Vec<f32> {
        let spectrum = Spectrum::new();
        let mut scratch = spectrum.scratch();
        let (hops, _) = samples.as_chunks::<HOP_SAMPLES>();
        spectrum.window(&[&hops[0], &hops[1], &hops[2], &hops[3]], &mut scratch);
        spectrum.transform(&mut scratch);
        let mut power = [0.0; PADDED_BINS];
        spectrum.power(&scratch, &mut power);
        power.to_vec()
    }

    /// Amplitude of the error of the worst bin, dB relative to the strongest bin.
    fn noise_db(samples: &[f32]) -> f64 {
        let exact: Vec<f64> = (0..BINS).map(|bin| exact(samples, bin)).collect();
        let strongest = exact.iter().copied().fold(0.0, f64::max);
        let worst = ours(samples)
            .iter()
            .zip(&exact)
            .map(|(&ours, exact)| (f64::from(ours).sqrt() - exact.sqrt()).abs())
            .fold(0.0, f64::max);
        20.0 * (worst / strongest.sqrt()).log10()
    }

    #[test]
    fn single_precision_costs_less_than_130_db_below_the_strongest_bin() {
        let sine = |hz: f64| -> Vec<f32> {
            (0..FRAME_SAMPLES).map(|n| (TAU * hz * n as f64 / 16_000.0).sin() as f32).collect()
        };
        let noise: Vec<f32> =
            (0..FRAME_SAMPLES).map(|n| ((n * 7_919 + 13) % 9_973) as f32 / 9_973.0 - 0.5).collect();
        for samples in [sine(441.0), sine(3_999.0), sine(7_990.0), noise] {
            let noise_db = noise_db(&samples);
            println!("{noise_db:.1} dB");
            assert!(noise_db <= -130.0, "{noise_db}");
        }
    }

    #[test]
    fn edges_and_middle_of_the_spectrum_are_in_place() {
        let alternating: Vec<f32> = (0..FRAME_SAMPLES).map(|n| [1.0, -1.0][n % 2]).collect();
        let quarter: Vec<f32> = (0..FRAME_SAMPLES).map(|n| [1.0, 0.0, -1.0, 0.0][n % 4]).collect();
        for (samples, bin, power) in [
            (vec![1.0; FRAME_SAMPLES], 0, 512.0 * 512.0),
            (quarter, 256, 256.0 * 256.0),
            (alternating, 512, 512.0 * 512.0),
        ] {
            let spectrum = ours(&samples);
            assert!((spectrum[bin] - power).abs() <= 1e-6 * power, "bin {bin}: {}", spectrum[bin]);
            // A periodic Hann window leaks into the two neighbours only.
            for (other, &leaked) in spectrum.iter().enumerate() {
                assert!(other.abs_diff(bin) <= 1 || leaked <= 1e-12 * power, "{bin} into {other}");
            }
        }
    }
}
