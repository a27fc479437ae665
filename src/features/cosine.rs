//! The DCT-II that turns log-mel levels into cepstral coefficients.
//!
//! Orthonormal: c\[k\] = s\[k\] Σ x\[j\] cos(π k (2j + 1) / 256) over the 128 bands, with s\[0\] = √(1/128)
//! and s\[k\] = √(2/128). Few coefficients are wanted, so a matrix product beats a fast transform.
//!
//! The cosines of even k are symmetric about the middle band and those of odd k antisymmetric. Even
//! coefficients need only the sums x\[j\] + x[127 - j] and odd ones the differences, which halves the
//! work. Coefficients are computed sixteen at a time, eight even and eight odd, one per vector lane.

use std::f64::consts::PI;

use pulp::Simd;

use super::{MAX_COEFFICIENTS, MEL_BANDS};

/// Sums, and differences, of mirrored bands.
const HALF: usize = MEL_BANDS / 2;
/// Even, and odd, coefficients of a block: the width of an AVX register.
const LANES: usize = 8;
/// Coefficients of a block.
const BLOCK: usize = 2 * LANES;

/// Weights of eight even and eight odd coefficients, by mirrored pair of bands.
#[derive(Debug)]
struct Block {
    even: [[f32; LANES]; HALF],
    odd: [[f32; LANES]; HALF],
}

/// The transform's matrix.
#[derive(Debug)]
pub(super) struct CosineTransform {
    blocks: Vec<Block>,
}

impl CosineTransform {
    pub(super) fn new() -> Self {
        let weight = |k: usize, j: usize| {
            let scale = if k == 0 { 1.0 } else { 2.0 } / MEL_BANDS as f64;
            // The angle's multiple of 1/256 turn is exact; only the cosine is rounded.
            let turn = (k * (2 * j + 1)) % (4 * MEL_BANDS);
            (scale.sqrt() * (PI * turn as f64 / (2 * MEL_BANDS) as f64).cos()) as f32
        };
        let rows = |first: usize| {
            std::array::from_fn(|j| std::array::from_fn(|lane| weight(first + 2 * lane, j)))
        };
        let block = |first: usize| Block { even: rows(first), odd: rows(first + 1) };
        Self { blocks: (0..MAX_COEFFICIENTS).step_by(BLOCK).map(block).collect() }
    }

    /// The first `coefficients.len()` coefficients of `bands`; elements beyond the 128th become 0.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "all bounds are constants; loops over lanes")]
    pub(super) fn transform<S: Simd>(
        &self,
        simd: S,
        bands: &[f32; MEL_BANDS],
        coefficients: &mut [f32],
    ) {
        let mut sums = [0.0_f32; HALF];
        let mut differences = [0.0_f32; HALF];
        for j in 0..HALF {
            let (band, mirrored) = (bands[j], bands[MEL_BANDS - 1 - j]);
            sums[j] = band + mirrored;
            differences[j] = band - mirrored;
        }
        let mut blocks = self.blocks.iter();
        for out in coefficients.chunks_mut(BLOCK) {
            let Some(block) = blocks.next() else {
                out.fill(0.0);
                continue;
            };
            let mut even = [0.0_f32; LANES];
            let mut odd = [0.0_f32; LANES];
            product(simd, &sums, &block.even, &mut even);
            product(simd, &differences, &block.odd, &mut odd);
            let (pairs, last) = out.as_chunks_mut::<2>();
            for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
                *pair = [even, odd];
            }
            if let [value] = last {
                *value = even[pairs.len()];
            }
        }
    }
}

/// `out[lane] = Σ factors[j] weights[j][lane]`, in four partial sums: an addition need not wait for
/// the one before.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "all bounds are constants")]
fn product<S: Simd>(
    simd: S,
    factors: &[f32; HALF],
    weights: &[[f32; LANES]; HALF],
    out: &mut [f32; LANES],
) {
    let (out, _) = S::as_mut_simd_f32s(out);
    for (v, out) in out.iter_mut().enumerate() {
        let mut partial = [simd.splat_f32s(0.0); 4];
        for j in (0..HALF).step_by(4) {
            for (i, partial) in partial.iter_mut().enumerate() {
                let (weights, _) = S::as_simd_f32s(&weights[j + i]);
                let factor = simd.splat_f32s(factors[j + i]);
                *partial = simd.mul_add_e_f32s(factor, weights[v], *partial);
            }
        }
        let [a, b, c, d] = partial;
        *out = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
    }
}

#[cfg(test)]
mod tests {
    use super::super::FrontEnd;
    use super::*;

    /// 128 levels between -80 and 0 dB, without pattern.
    fn levels() -> [f32; MEL_BANDS] {
        std::array::from_fn(|j| -80.0 * ((j * 7_919 + 13) % 997) as f32 / 997.0)
    }

    fn exact(bands: &[f32; MEL_BANDS], k: usize) -> f64 {
        let scale: f64 = if k == 0 { 1.0 } else { 2.0 };
        let angle = |j: usize| PI * k as f64 * (2.0 * j as f64 + 1.0) / 256.0;
        let sum: f64 = (0..MEL_BANDS).map(|j| f64::from(bands[j]) * angle(j).cos()).sum();
        (scale / 128.0).sqrt() * sum
    }

    #[test]
    fn coefficients_are_those_of_the_definition() {
        let (front, bands) = (FrontEnd::new(), levels());
        let mut coefficients = [0.0; MAX_COEFFICIENTS];
        front.mfcc(&bands, &mut coefficients);
        for (k, &coefficient) in coefficients.iter().enumerate() {
            let error = (f64::from(coefficient) - exact(&bands, k)).abs();
            assert!(error <= 2e-4, "c[{k}] is off by {error}");
        }
    }

    #[test]
    fn fewer_coefficients_are_the_first_of_many_to_the_bit() {
        let (front, bands) = (FrontEnd::new(), levels());
        let mut all = [0.0; MAX_COEFFICIENTS];
        front.mfcc(&bands, &mut all);
        for n in 0..=MAX_COEFFICIENTS {
            let mut some = vec![f32::NAN; n];
            front.mfcc(&bands, &mut some);
            assert_eq!(some, all[..n]);
        }
    }

    #[test]
    fn there_are_no_more_coefficients_than_bands() {
        let mut coefficients = [f32::NAN; MAX_COEFFICIENTS + 21];
        FrontEnd::new().mfcc(&levels(), &mut coefficients);
        assert!(coefficients[..MAX_COEFFICIENTS].iter().all(|c| c.is_finite()));
        assert_eq!(coefficients[MAX_COEFFICIENTS..], [0.0; 21]);
    }
}
