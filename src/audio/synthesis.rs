//! Test signals: sines, noise, clicks. Nothing recorded.

use std::f64::consts::TAU;

/// A sine of `hz` with phase 0 at the first sample.
pub(crate) fn sine(hz: f64, rate_hz: f64, samples: usize, amplitude: f32) -> Vec<f32> {
    (0..samples).map(|n| amplitude * (TAU * hz * n as f64 / rate_hz).sin() as f32).collect()
}

/// White noise within ±`amplitude`, the same for the same `seed`.
pub(crate) fn noise(seed: u64, samples: usize, amplitude: f32) -> Vec<f32> {
    let mut state = seed;
    (0..samples)
        .map(|_| {
            // Knuth's MMIX generator; the top bits are the good ones.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            amplitude * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        })
        .collect()
}

/// `noise` as bytes.
pub(crate) fn noise_bytes(seed: u64, bytes: usize) -> Vec<u8> {
    noise(seed, bytes, 1.0).into_iter().map(|x| (x * 127.0) as i8 as u8).collect()
}

/// Amplitude and phase (of the sine, in radians at sample 0) of `hz` in `samples`, by correlation
/// under a Hann window, so that it need not fit the length.
pub(crate) fn tone(samples: &[f32], hz: f64, rate_hz: f64) -> (f64, f64) {
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (n, &x) in samples.iter().enumerate() {
        let window = 0.5 - 0.5 * (TAU * n as f64 / samples.len() as f64).cos();
        let angle = TAU * hz * n as f64 / rate_hz;
        re += window * f64::from(x) * angle.sin();
        im += window * f64::from(x) * angle.cos();
        weight += window;
    }
    (2.0 * re.hypot(im) / weight, im.atan2(re))
}
