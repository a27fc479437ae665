//! Power to decibels: 10 log10(max(power, 1e-10)), for 128 bands at once.
//!
//! `f32::log10` is a call per value and does not vectorise, so the logarithm is computed here. A
//! positive float is 2^e m with m in [√½, √2), and with s = (m - 1) / (m + 1), |s| < 0.1716,
//!
//! ```text
//! ln m = 2 (s + s³/3 + s⁵/5 + s⁷/7 + s⁹/9 + ...)
//! ```
//!
//! whose first term left out is below 1e-9. The error is that of rounding the result: at most 1e-5 dB
//! over all floats (tested against double precision).

/// Powers below this count as this: librosa's `amin`. -100 dB.
pub(super) const LEAST_POWER: f32 = 1e-10;

/// Bits of √½, the lower end of the reduced mantissa.
const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
/// Bits of 1.0, whose exponent is 0.
const ONE_BITS: u32 = 0x3f80_0000;
const MANTISSA_BITS: u32 = 23;
const MANTISSA_MASK: u32 = (1 << MANTISSA_BITS) - 1;

/// 10 log10(2), cut after 13 bits so that its product with any exponent is exact ...
const DB_PER_OCTAVE_HIGH: f32 = 3.009_765_6;
/// ... and what was cut off.
const DB_PER_OCTAVE_LOW: f32 = 5.343_315e-4;
/// 10 / ln(10).
const DB_PER_NEPER: f32 = 4.342_944_8;

/// Replaces each power by its level in dB. Not a number counts as no power.
#[inline(always)]
pub(super) fn power_to_db<const N: usize>(values: &mut [f32; N]) {
    for value in values {
        *value = level_db(*value);
    }
}

#[inline(always)]
fn level_db(power: f32) -> f32 {
    let power = if power > LEAST_POWER { power } else { LEAST_POWER };
    // Adding the distance from √½ to 1 carries mantissas from √2 up into the exponent.
    let bits = power.to_bits().wrapping_add(ONE_BITS - SQRT_HALF_BITS);
    let exponent = ((bits >> MANTISSA_BITS) as i32 - 127) as f32;
    let mantissa = f32::from_bits((bits & MANTISSA_MASK) + SQRT_HALF_BITS);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let tail = s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0))));
    let ln = 2.0 * (s + s * tail);
    exponent * DB_PER_OCTAVE_HIGH + (exponent * DB_PER_OCTAVE_LOW + ln * DB_PER_NEPER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error over `powers`, dB.
    fn largest_error_db(powers: impl Iterator<Item = f32>) -> f64 {
        powers
            .map(|power| {
                let exact = 10.0 * f64::from(power).log10();
                (f64::from(level_db(power)) - exact).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn levels_are_right_to_a_hundred_thousandth_of_a_decibel() {
        // Every 1,009th float (a prime) from 1e-10 to 1e12, then to the greatest float.
        let usual = (LEAST_POWER.to_bits()..1e12_f32.to_bits()).step_by(1009).map(f32::from_bits);
        let error = largest_error_db(usual);
        assert!(error <= 1e-5, "{error}");
        let huge = (1e12_f32.to_bits()..f32::MAX.to_bits()).step_by(1009).map(f32::from_bits);
        // Levels up to 385 dB have coarser units in the last place.
        let error = largest_error_db(huge);
        assert!(error <= 2e-5, "{error}");
    }

    #[test]
    fn whole_tens_are_whole_to_the_last_bit_or_two() {
        for tens in -10..=12 {
            let level = level_db(10_f32.powi(tens));
            assert!((level - 10.0 * tens as f32).abs() <= 8e-6, "{tens}: {level}");
        }
        assert_eq!(level_db(1.0), 0.0);
    }

    #[test]
    fn no_power_and_no_number_are_minus_100_db() {
        for power in [0.0, -0.0, -1.0, 1e-11, 1e-40, f32::NAN, f32::NEG_INFINITY] {
            assert!((level_db(power) + 100.0).abs() <= 8e-6, "{power}");
        }
    }

    #[test]
    fn levels_never_fall_as_power_rises() {
        let mut last = f32::NEG_INFINITY;
        for bits in (LEAST_POWER.to_bits()..1e6_f32.to_bits()).step_by(50_021) {
            let level = level_db(f32::from_bits(bits));
            assert!(level >= last);
            last = level;
        }
    }
}
