//! Loudness of a hop.
//!
//! 0 dBFS is the level of a full-scale *square* wave (mean square 1), as the audio interfaces of
//! agents and most meters in software count; a full-scale sine is -3.01 dBFS. (AES17 puts 0 dBFS at the
//! sine instead: add 3.01 dB to compare.)

/// The least level that is reported, in dBFS. 16-bit silence with one bit of dither lies near it.
pub const FLOOR_DBFS: f32 = -100.0;

/// The mean square of `samples`, full scale 1.0; 0 if there are none.
pub fn mean_square(samples: &[f32]) -> f32 {
    // Eight partial sums, so that the compiler can use vector instructions; always in this order, so
    // that the result is the same everywhere.
    let mut sums = [0.0_f32; 8];
    let (blocks, rest) = samples.as_chunks::<8>();
    for block in blocks {
        for (sum, sample) in sums.iter_mut().zip(block) {
            *sum += sample * sample;
        }
    }
    let total: f32 = sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
    if samples.is_empty() { 0.0 } else { total / samples.len() as f32 }
}

/// A mean square as a level in dBFS, no less than [`FLOOR_DBFS`].
pub fn dbfs(mean_square: f32) -> f32 {
    // `max` also turns the NaN of a negative input into the floor.
    (10.0 * mean_square.log10()).max(FLOOR_DBFS)
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the floor and full scale are exact")]
mod tests {
    use super::*;
    use crate::audio::synthesis::sine;

    #[test]
    fn full_scale_square_is_zero_and_sine_three_decibels_below() {
        let square: Vec<f32> = (0..256).map(|n| if n % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert_eq!(dbfs(mean_square(&square)), 0.0);
        let sine = sine(1_000.0, 16_000.0, 16_000, 1.0);
        assert!((dbfs(mean_square(&sine)) + 3.01).abs() < 0.01);
    }

    #[test]
    fn silence_is_the_floor() {
        assert_eq!(dbfs(mean_square(&[0.0; 256])), FLOOR_DBFS);
        assert_eq!(dbfs(mean_square(&[])), FLOOR_DBFS);
        assert_eq!(dbfs(-1.0), FLOOR_DBFS);
    }
}
