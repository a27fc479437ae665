//! Sound under a condition: samples of 16 kHz in, the bytes of a stream out.
//!
//! What comes out is what a client would send, in the encoding and at the rate that it would send it
//! in, so that the service's own intake takes it from there. Kernels, each with its source:
//! - **active speech level**: the RMS over the frames of 16 ms whose power is within 20 dB of the loudest
//!   frame's. Pauses then do not count. (ITU-T P.56 with its envelope detector does the same more finely.)
//! - **pink noise**: white noise through five first-order sections, a pole at 20 Hz times 4^k and a zero
//!   an octave above each: 3 dB per octave on the whole (Keshner 1982, "1/f noise", Proc. IEEE 70(3)).
//! - **telephone**: fourth-order Butterworth high-pass at 300 Hz, a linear-phase low-pass that is down
//!   6 dB at 3,700 Hz (pass band to 3,400, 75 dB down from 4,000), every second sample, ITU-T G.711 mu-law.
//! - **room**: the direct sound and a tail of velvet noise, sparse random signs at 2,000 a second, under an
//!   exponential decay (Karjalainen and Järveläinen 2007, "Reverberation modeling using velvet noise").
//!   Convolution with it is a few hundred shifted additions, and the two energies are exact.
//!
//! Where a sum goes beyond full scale the whole of it is turned down: the ratios stay what they say, and
//! only `loud` clips.

#![allow(
    clippy::indexing_slicing,
    reason = "numeric kernels; every index is bounded by the length beside it"
)]

use std::f64::consts::{PI, TAU};
use std::sync::LazyLock;

use super::condition::{Condition, GAIN_DB};
use super::random::Random;
use crate::audio::{AudioFormat, Encoding};
use crate::units::{ChannelCount, HOP_SAMPLES, MODEL_RATE_HZ, SampleRate};

const RATE_HZ: f64 = MODEL_RATE_HZ as f64;
/// Frames this far below the loudest are no active speech, in dB.
pub(super) const ACTIVE_RANGE_DB: f64 = 20.0;
/// Time in which the room's tail falls by 60 dB, in seconds.
pub(super) const RT60_S: f64 = 0.5;
/// Energy of the direct sound over that of the tail, in dB: the speaker stands at the room's critical
/// distance, an arm's length or two from the microphone.
pub(super) const DIRECT_TO_REVERBERANT_DB: f64 = 0.0;
/// From the direct sound to the tail's beginning, in seconds: the first wall.
const FIRST_REFLECTION_S: f64 = 0.005;
/// Signs per second of the tail. From about 1,500 on the ear takes it for smooth noise.
const TAIL_DENSITY_HZ: f64 = 2_000.0;
/// The telephone's pass band, in Hz.
pub(super) const TELEPHONE_HZ: (f64, f64) = (300.0, 3_400.0);
/// Rate of the telephone line, in Hz.
pub(super) const TELEPHONE_RATE_HZ: u32 = 8_000;
/// Taps of the low-pass: a Blackman window's transition is 5.5 / length, here 600 Hz.
const LOW_PASS_TAPS: usize = 147;
/// Where the low-pass is down by 6 dB: the middle of its transition from 3,400 to 4,000 Hz.
const LOW_PASS_HZ: f64 = 3_700.0;

/// A stream that a client would send.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Its format; always mono.
    pub format: AudioFormat,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// `samples` of 16 kHz as they are sent under `condition`. `seed` names the clip: the same words give
/// the same noise.
///
/// # Errors
/// Never in practice: the two rates that it uses are within bounds.
pub fn degrade(samples: &[f32], condition: Condition, seed: &[&str]) -> Sent {
    let float = |samples: &[f32]| Sent {
        format: mono(Encoding::Float32, SampleRate::MODEL),
        bytes: samples.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    let words = |what| [seed, &[what]].concat();
    match condition {
        Condition::Clean => float(samples),
        Condition::Pink20 | Condition::Pink10 | Condition::Pink5 => {
            let snr_db = condition.snr_db().unwrap_or_default();
            float(&with_noise(samples, snr_db, Random::of(&words("pink"))))
        }
        Condition::Reverberation => float(&in_room(samples, Random::of(&words("room")))),
        Condition::Telephone => Sent {
            format: mono(Encoding::MuLaw, telephone_rate()),
            bytes: narrow_band(samples).into_iter().map(compress_mu_law).collect(),
        },
        Condition::Quiet => linear16(samples, -GAIN_DB),
        Condition::Loud => linear16(samples, GAIN_DB),
    }
}

fn mono(encoding: Encoding, rate: SampleRate) -> AudioFormat {
    AudioFormat { encoding, rate, channels: ChannelCount::MONO }
}

fn telephone_rate() -> SampleRate {
    // 8 kHz is the least rate of a stream.
    SampleRate::new(TELEPHONE_RATE_HZ).unwrap_or(SampleRate::MODEL)
}

/// Samples under a gain, as 16-bit integers; `as` saturates, which is what clipping is.
fn linear16(samples: &[f32], gain_db: f64) -> Sent {
    let gain = 10_f64.powf(gain_db / 20.0) * 32_768.0;
    let code = |x: &f32| (f64::from(*x) * gain).round() as i16;
    Sent {
        format: mono(Encoding::Linear16, SampleRate::MODEL),
        bytes: samples.iter().flat_map(|x| code(x).to_le_bytes()).collect(),
    }
}

pub(super) fn mean_square(samples: &[f32]) -> f64 {
    let sum: f64 = samples.iter().map(|x| f64::from(*x).powi(2)).sum();
    sum / samples.len().max(1) as f64
}

/// The mean of those `powers` that are within [`ACTIVE_RANGE_DB`] of the greatest.
pub(super) fn active_power(powers: &[f64]) -> f64 {
    let loudest = powers.iter().copied().fold(0.0, f64::max);
    let least = loudest * 10_f64.powf(-ACTIVE_RANGE_DB / 10.0);
    let active: Vec<f64> = powers.iter().copied().filter(|power| *power >= least).collect();
    active.iter().sum::<f64>() / active.len().max(1) as f64
}

fn active_speech_power(samples: &[f32]) -> f64 {
    let powers: Vec<f64> = samples.chunks(HOP_SAMPLES).map(mean_square).collect();
    active_power(&powers)
}

/// Pink noise of no particular level.
pub(super) fn pink(mut random: Random, samples: usize) -> Vec<f32> {
    const LOWEST_POLE_HZ: f64 = 20.0;
    const SECTIONS: usize = 5;
    /// The slowest section has a time constant of 8 ms; this is 64 ms.
    const SETTLING: usize = 1_024;
    let root = |hz: f64| (-TAU * hz / RATE_HZ).exp();
    let sections: [(f64, f64); SECTIONS] = std::array::from_fn(|k| {
        let pole_hz = LOWEST_POLE_HZ * 4_f64.powi(k as i32);
        (root(pole_hz), root(2.0 * pole_hz))
    });
    let (mut before, mut after) = ([0.0; SECTIONS], [0.0; SECTIONS]);
    let mut noise = Vec::with_capacity(samples);
    for n in 0..samples + SETTLING {
        let mut x = 2.0 * random.unit() - 1.0;
        for (k, (pole, zero)) in sections.iter().enumerate() {
            let y = x - zero * before[k] + pole * after[k];
            (before[k], after[k]) = (x, y);
            x = y;
        }
        if n >= SETTLING {
            noise.push(x as f32);
        }
    }
    noise
}

fn with_noise(samples: &[f32], snr_db: f64, random: Random) -> Vec<f32> {
    let noise = pink(random, samples.len());
    let wanted = active_speech_power(samples) * 10_f64.powf(-snr_db / 10.0);
    let gain = (wanted / mean_square(&noise).max(f64::MIN_POSITIVE)).sqrt() as f32;
    let mut sum: Vec<f32> = samples.iter().zip(&noise).map(|(x, n)| x + gain * n).collect();
    hold_below_full_scale(&mut sum);
    sum
}

fn hold_below_full_scale(samples: &mut [f32]) {
    let peak = samples.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
    if peak > 1.0 {
        samples.iter_mut().for_each(|x| *x /= peak);
    }
}

/// The tail's pulses: position in samples and value. Their energy is the direct sound's over
/// [`DIRECT_TO_REVERBERANT_DB`].
fn tail(mut random: Random) -> Vec<(usize, f32)> {
    let first = FIRST_REFLECTION_S * RATE_HZ;
    let grid = RATE_HZ / TAIL_DENSITY_HZ;
    let count = ((RT60_S - FIRST_REFLECTION_S) * TAIL_DENSITY_HZ) as usize;
    let mut pulses: Vec<(usize, f64)> = (0..count)
        .map(|k| {
            let at = (first + grid * (k as f64 + random.unit())) as usize;
            let sign = if random.unit() < 0.5 { -1.0 } else { 1.0 };
            (at, sign * 10_f64.powf(-3.0 * at as f64 / RATE_HZ / RT60_S))
        })
        .collect();
    let energy: f64 = pulses.iter().map(|(_, x)| x * x).sum();
    let gain = (10_f64.powf(-DIRECT_TO_REVERBERANT_DB / 10.0) / energy).sqrt();
    pulses.iter_mut().for_each(|(_, x)| *x *= gain);
    pulses.into_iter().map(|(at, x)| (at, x as f32)).collect()
}

/// The clip in a room, with the tail behind it, and the energy that it had.
fn in_room(samples: &[f32], random: Random) -> Vec<f32> {
    let pulses = tail(random);
    let longest = pulses.iter().map(|(at, _)| *at).max().unwrap_or_default();
    let mut sum = samples.to_vec();
    sum.resize(samples.len() + longest, 0.0);
    for (at, gain) in pulses {
        for (y, x) in sum[at..].iter_mut().zip(samples) {
            *y += gain * x;
        }
    }
    let energy = |samples: &[f32]| mean_square(samples) * samples.len() as f64;
    let gain = (energy(samples) / energy(&sum).max(f64::MIN_POSITIVE)).sqrt() as f32;
    sum.iter_mut().for_each(|x| *x *= gain);
    hold_below_full_scale(&mut sum);
    sum
}

/// Two zeros, two poles: `b0 b1 b2 a1 a2`, with `a0` = 1.
type Biquad = [f64; 5];

/// The two halves of a fourth-order Butterworth high-pass (bilinear transform; the qualities are those
/// of the Butterworth polynomial's two quadratic factors).
fn high_pass(hz: f64) -> [Biquad; 2] {
    [PI / 8.0, 3.0 * PI / 8.0].map(|angle| {
        let quality = 1.0 / (2.0 * angle.cos());
        let k = (PI * hz / RATE_HZ).tan();
        let norm = 1.0 / (1.0 + k / quality + k * k);
        [norm, -2.0 * norm, norm, 2.0 * (k * k - 1.0) * norm, (1.0 - k / quality + k * k) * norm]
    })
}

fn low_pass() -> &'static [f64; LOW_PASS_TAPS] {
    static TAPS: LazyLock<[f64; LOW_PASS_TAPS]> = LazyLock::new(|| {
        let middle = (LOW_PASS_TAPS / 2) as f64;
        let mut taps: [f64; LOW_PASS_TAPS] = std::array::from_fn(|n| {
            let t = n as f64 - middle;
            let x = TAU * LOW_PASS_HZ / RATE_HZ * t;
            let sinc = if t == 0.0 { 1.0 } else { x.sin() / x };
            // Blackman's window, whose ends would be zero: it is laid one tap wider on each side.
            let phase = TAU * (n + 1) as f64 / (LOW_PASS_TAPS + 1) as f64;
            sinc * (0.42 - 0.5 * phase.cos() + 0.08 * (2.0 * phase).cos())
        });
        let sum: f64 = taps.iter().sum();
        taps.iter_mut().for_each(|tap| *tap /= sum);
        taps
    });
    &TAPS
}

/// 300 to 3,400 Hz at 8 kHz. The low-pass is centred and shifts nothing.
fn narrow_band(samples: &[f32]) -> Vec<f32> {
    let mut filtered: Vec<f64> = samples.iter().map(|x| f64::from(*x)).collect();
    for [b0, b1, b2, a1, a2] in high_pass(TELEPHONE_HZ.0) {
        let (mut s1, mut s2) = (0.0, 0.0);
        for x in &mut filtered {
            // Transposed direct form II.
            let y = b0 * *x + s1;
            s1 = b1 * *x - a1 * y + s2;
            s2 = b2 * *x - a2 * y;
            *x = y;
        }
    }
    let half = LOW_PASS_TAPS / 2;
    let mut padded = vec![0.0; half];
    padded.extend(filtered);
    padded.resize(padded.len() + half, 0.0);
    let at_centre = |window: &[f64]| low_pass().iter().zip(window).map(|(h, x)| h * x).sum::<f64>();
    padded.windows(LOW_PASS_TAPS).step_by(2).map(|window| at_centre(window) as f32).collect()
}

/// What the telephone's two filters leave of the power at `hz`.
pub(super) fn telephone_power_gain(hz: f64) -> f64 {
    // The analogue Butterworth; the bilinear transform bends frequencies by less than 1 % below 1 kHz.
    let high_pass = 1.0 / (1.0 + (TELEPHONE_HZ.0 / hz.max(1.0)).powi(8));
    let middle = (LOW_PASS_TAPS / 2) as f64;
    let low_pass: f64 = low_pass()
        .iter()
        .enumerate()
        .map(|(n, tap)| tap * (TAU * hz / RATE_HZ * (n as f64 - middle)).cos())
        .sum();
    high_pass * low_pass * low_pass
}

/// The mu-law code of a sample (ITU-T G.711, Table 2): 14 bits, a bias of 33, sign, chord and step, all
/// bits inverted.
pub(super) fn compress_mu_law(sample: f32) -> u8 {
    const BIAS: u32 = 33;
    const GREATEST: u32 = 8_158;
    // `as` saturates, and takes NaN for 0; G.711's decision values bound from below.
    let magnitude = ((sample.abs() * 8_192.0) as u32).min(GREATEST) + BIAS;
    // 33 to 8,191 have their highest bit at 5 to 12.
    let chord = magnitude.ilog2() - 5;
    let step = (magnitude >> (chord + 1)) & 0x0f;
    let sign = if sample < 0.0 { 0x80 } else { 0 };
    !(sign | (chord << 4) as u8 | step as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::g711;

    const CLIP: &[&str] = &["corpus", "clip"];

    fn sine(hz: f64, samples: usize, amplitude: f32) -> Vec<f32> {
        (0..samples).map(|n| amplitude * (TAU * hz * n as f64 / RATE_HZ).sin() as f32).collect()
    }

    fn floats(sent: &Sent) -> Vec<f32> {
        assert_eq!(sent.format, mono(Encoding::Float32, SampleRate::MODEL));
        sent.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn integers(sent: &Sent) -> Vec<i16> {
        assert_eq!(sent.format, mono(Encoding::Linear16, SampleRate::MODEL));
        sent.bytes.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect()
    }

    /// Half a second of silence, a second of tone, half a second of silence.
    fn phrase(amplitude: f32) -> Vec<f32> {
        let pause = vec![0.0; 8_000];
        [pause.clone(), sine(500.0, 16_000, amplitude), pause].concat()
    }

    #[test]
    fn the_snr_is_what_it_says_measured_on_the_output() {
        for amplitude in [0.05, 0.9] {
            let clean = phrase(amplitude);
            let speech_power = f64::from(amplitude).powi(2) / 2.0;
            for (condition, snr_db) in
                [(Condition::Pink20, 20.0), (Condition::Pink10, 10.0), (Condition::Pink5, 5.0)]
            {
                let noisy = floats(&degrade(&clean, condition, CLIP));
                assert!(noisy.iter().all(|x| x.abs() <= 1.0), "{condition} clips");
                // What the whole was turned down by shows in the tone's amplitude, by correlation.
                let tone = sine(500.0, 16_000, 1.0);
                let dot: f64 = noisy[8_000..24_000]
                    .iter()
                    .zip(&tone)
                    .map(|(x, t)| f64::from(*x) * f64::from(*t))
                    .sum();
                let scale = dot / 8_000.0 / f64::from(amplitude);
                let noise: Vec<f32> =
                    noisy.iter().zip(&clean).map(|(y, x)| y - scale as f32 * x).collect();
                let measured = 10.0 * (speech_power * scale * scale / mean_square(&noise)).log10();
                assert!((measured - snr_db).abs() < 0.2, "{condition}: {measured} dB");
            }
        }
    }

    #[test]
    fn pauses_do_not_count_as_speech_and_quiet_hiss_neither() {
        let mut samples = phrase(0.5);
        for (n, x) in samples.iter_mut().enumerate() {
            *x += if n % 2 == 0 { 1e-3 } else { -1e-3 };
        }
        let level = 10.0 * active_speech_power(&samples).log10();
        assert!((level - 10.0 * 0.125_f64.log10()).abs() < 0.1, "{level}");
    }

    #[test]
    fn pink_noise_has_equal_power_in_every_octave() {
        let noise = pink(Random::of(CLIP), 64_000);
        // Power by octaves, by a plain discrete Fourier transform of blocks of 1,024.
        let octaves: Vec<f64> = [62.5, 125.0, 250.0, 500.0, 1_000.0, 2_000.0]
            .iter()
            .map(|low| {
                let bins = (low / 15.625) as usize..(2.0 * low / 15.625) as usize;
                bins.map(|bin| {
                    noise
                        .chunks_exact(1_024)
                        .map(|block| {
                            let angle = TAU * bin as f64 / 1_024.0;
                            let (re, im) =
                                block.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, x)| {
                                    let window = 0.5 - 0.5 * (TAU * n as f64 / 1_024.0).cos();
                                    let (sin, cos) = (angle * n as f64).sin_cos();
                                    let x = window * f64::from(*x);
                                    (re + x * cos, im + x * sin)
                                });
                            re * re + im * im
                        })
                        .sum::<f64>()
                })
                .sum()
            })
            .collect();
        let mean = octaves.iter().sum::<f64>() / octaves.len() as f64;
        for power in &octaves {
            let db = 10.0 * (power / mean).log10();
            assert!(db.abs() < 1.5, "{octaves:?}");
        }
    }

    #[test]
    fn conditions_are_deterministic_and_belong_to_the_clip() {
        let samples = phrase(0.3);
        for condition in Condition::ALL {
            let once = degrade(&samples, condition, CLIP);
            assert_eq!(once, degrade(&samples, condition, CLIP), "{condition}");
            let other = degrade(&samples, condition, &["corpus", "other"]);
            let random = condition.snr_db().is_some() || condition == Condition::Reverberation;
            assert_eq!(once != other, random, "{condition}");
        }
    }

    #[test]
    fn clean_is_the_samples_themselves() {
        let samples = phrase(0.3);
        assert_eq!(floats(&degrade(&samples, Condition::Clean, CLIP)), samples);
    }

    #[test]
    fn the_telephone_is_a_stream_of_mu_law_at_8_khz() {
        let sent = degrade(&sine(1_013.0, 16_000, 0.5), Condition::Telephone, CLIP);
        assert_eq!(sent.format.encoding, Encoding::MuLaw);
        assert_eq!(sent.format.rate.hz(), 8_000);
        assert_eq!(sent.bytes.len(), 8_000, "one second of one byte a sample");
        let decoded: Vec<f32> =
            sent.bytes.iter().map(|code| g711::MU_LAW[usize::from(*code)]).collect();
        // The tone passes with its level; its period does not divide 8 kHz, so all codes have a turn.
        let middle = &decoded[1_000..7_000];
        let (re, im) = middle.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, x)| {
            let (sin, cos) = (TAU * 1_013.0 * n as f64 / 8_000.0).sin_cos();
            (re + f64::from(*x) * cos, im + f64::from(*x) * sin)
        });
        let amplitude = 2.0 * f64::hypot(re, im) / middle.len() as f64;
        assert!((amplitude - 0.5).abs() < 0.005, "{amplitude}");
        // What else there is is quantisation noise, some 38 dB below.
        let noise = mean_square(middle) - amplitude * amplitude / 2.0;
        let snr_db = 10.0 * (amplitude * amplitude / 2.0 / noise).log10();
        assert!((35.0..48.0).contains(&snr_db), "{snr_db} dB");
    }

    #[test]
    fn the_telephone_passes_its_band_only_and_the_formula_agrees_with_the_filters() {
        for hz in [60.0, 150.0, 300.0, 500.0, 1_000.0, 3_000.0, 3_400.0, 3_700.0, 4_300.0, 6_000.0]
        {
            let narrow = narrow_band(&sine(hz, 32_000, 1.0));
            let power = 2.0 * mean_square(&narrow[4_000..12_000]);
            let gain = telephone_power_gain(hz);
            let db = 10.0 * power.max(1e-9).log10();
            match hz as u32 {
                60 | 150 => assert!(db < -20.0, "{hz} Hz: {db} dB"),
                500..=3_400 => assert!(db.abs() < 0.5, "{hz} Hz: {db} dB"),
                4_300.. => assert!(db < -60.0, "{hz} Hz: {db} dB"),
                _ => {}
            }
            assert!(
                (power - gain).abs() < 0.03 * power + 1e-6,
                "{hz} Hz: {power} measured, {gain} by the formula"
            );
        }
    }

    #[test]
    fn mu_law_codes_come_back_as_they_were_and_each_sample_gets_the_code_of_its_interval() {
        for code in 0..=255_u8 {
            let value = g711::MU_LAW[usize::from(code)];
            // There are two zeros; the negative one cannot be told.
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(compress_mu_law(value), expected, "{value}");
        }
        // Beyond 0.99 codes end; G.711's intervals are not all centred between neighbouring values.
        for k in -990..=990 {
            let sample = k as f32 / 1_000.0;
            let code = compress_mu_law(sample);
            let half_interval = f32::from(1_u16 << ((!code >> 4) & 7)) / 8_192.0;
            let error = (g711::MU_LAW[usize::from(code)] - sample).abs();
            assert!(error <= half_interval + 1.3e-4, "{sample}: {error} off");
        }
    }

    #[test]
    fn gains_are_twenty_decibels_and_loud_clips_at_full_scale() {
        let samples = sine(440.0, 1_600, 0.4);
        let quiet = integers(&degrade(&samples, Condition::Quiet, CLIP));
        for (code, x) in quiet.iter().zip(&samples) {
            assert!((f32::from(*code) - x * 3_276.8).abs() < 0.501);
        }
        let loud = integers(&degrade(&samples, Condition::Loud, CLIP));
        assert!(loud.contains(&i16::MAX) && loud.contains(&i16::MIN));
        for (code, x) in loud.iter().zip(&samples) {
            let expected = (x * 10.0).clamp(-1.0, 1.0) * 32_768.0;
            assert!((f32::from(*code) - expected).abs() <= 1.0, "{code}, not {expected}");
        }
    }

    #[test]
    fn the_room_decays_by_sixty_decibels_in_half_a_second_and_keeps_the_energy() {
        let mut click = vec![0.0; 100];
        click[0] = 0.5;
        let heard = floats(&degrade(&click, Condition::Reverberation, CLIP));
        let energy = |samples: &[f32]| mean_square(samples) * samples.len() as f64;
        assert!((energy(&heard) - 0.25).abs() < 1e-4);
        let (direct, tail) = heard.split_at(40);
        let ratio_db = 10.0 * (energy(direct) / energy(tail)).log10();
        assert!((ratio_db - DIRECT_TO_REVERBERANT_DB).abs() < 0.1, "{ratio_db} dB");
        // Schroeder's backward integral from 50 to 250 ms: 24 dB.
        let behind = |ms: usize| energy(&heard[16 * ms..]);
        let fall_db = 10.0 * (behind(50) / behind(250)).log10();
        assert!((fall_db - 24.0).abs() < 1.5, "{fall_db} dB");
        assert!(heard.len() >= 8_000 - 20, "the tail is not cut off");
    }

    #[test]
    fn silence_and_nothing_stay_finite() {
        for samples in [vec![], vec![0.0; 5_000]] {
            for condition in Condition::ALL {
                let sent = degrade(&samples, condition, CLIP);
                if sent.format.encoding == Encoding::Float32 {
                    assert!(floats(&sent).iter().all(|x| x.is_finite()), "{condition}");
                }
            }
        }
    }
}
