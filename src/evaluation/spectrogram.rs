//! Conditions where there is a spectrogram and no sound: approximations in the mel power domain.
//!
//! In and out: rows of 128 bands, one per 16 ms hop, in dB. Powers of independent sounds add, so noise is
//! added as the mel power of the same pink noise that sound would meet. What these cannot show: phases,
//! beats between speech and noise within a band, and the absolute level, which spectrograms that are
//! scaled per clip have lost. Gains are therefore no condition here.

#![allow(
    clippy::indexing_slicing,
    reason = "numeric kernels; every index is bounded by the number of bands"
)]

use std::sync::LazyLock;

use super::condition::Condition;
use super::degrade::{
    DIRECT_TO_REVERBERANT_DB, RT60_S, TELEPHONE_RATE_HZ, active_power, pink, telephone_power_gain,
};
use super::random::Random;
use crate::features::{FeatureStream, MEL_BANDS};
use crate::session::listener::FRONT_END;
use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ};

/// One hop's bands, in dB.
pub type Row = [f32; MEL_BANDS];
/// The same as powers.
type Powers = [f64; MEL_BANDS];

/// The least power of a band: the front end's own floor, -100 dB.
const FLOOR: f64 = 1e-10;
/// The signal over mu-law's quantisation noise, in dB: nearly constant over 30 dB of level.
const MU_LAW_SNR_DB: f64 = 38.0;
/// Hops in a second.
const HOPS_PER_S: f64 = MODEL_RATE_HZ as f64 / HOP_SAMPLES as f64;

/// `rows` under `condition`; `None` if a spectrogram cannot show it. `seed` as for sound.
pub fn degrade(rows: &[Row], condition: Condition, seed: &[&str]) -> Option<Vec<Row>> {
    let powers: Vec<Powers> =
        rows.iter().map(|row| row.map(|db| 10_f64.powf(f64::from(db) / 10.0))).collect();
    let powers = match condition {
        Condition::Clean => return Some(rows.to_vec()),
        Condition::Pink20 | Condition::Pink10 | Condition::Pink5 => {
            let words = [seed, &["pink"]].concat();
            with_noise(&powers, condition.snr_db()?, Random::of(&words))
        }
        Condition::Telephone => on_the_telephone(&powers),
        Condition::Reverberation => in_room(&powers),
        Condition::Quiet | Condition::Loud => return None,
    };
    let db = |power: f64| (10.0 * power.max(FLOOR).log10()) as f32;
    Some(powers.into_iter().map(|row| row.map(db)).collect())
}

/// Centre and width of each band, in Hz. The front end's filters are triangles of area 1 over
/// frequency, so a band's power is a density, and times its width the power in it.
struct Bands {
    centres_hz: Powers,
    widths_hz: Powers,
}

static BANDS: LazyLock<Bands> = LazyLock::new(|| {
    // Slaney's scale, see `features::mel`: 3 mel per 200 Hz up to 1 kHz, then 27 per factor of 6.4.
    let mel_to_hz = |mel: f64| {
        if mel < 15.0 { mel * 200.0 / 3.0 } else { 1_000.0 * 6.4_f64.powf((mel - 15.0) / 27.0) }
    };
    let nyquist_mel = 15.0 + 27.0 * 8_f64.ln() / 6.4_f64.ln();
    let corner = |k: usize| mel_to_hz(nyquist_mel * k as f64 / (MEL_BANDS + 1) as f64);
    Bands {
        centres_hz: std::array::from_fn(|band| corner(band + 1)),
        widths_hz: std::array::from_fn(|band| (corner(band + 2) - corner(band)) / 2.0),
    }
});

/// Power of a row over all bands.
fn total(row: &Powers) -> f64 {
    row.iter().zip(&BANDS.widths_hz).map(|(power, width)| power * width).sum()
}

fn with_noise(rows: &[Powers], snr_db: f64, random: Random) -> Vec<Powers> {
    let noise = mel_of_pink(random, rows.len());
    let noise_power = noise.iter().map(total).sum::<f64>() / noise.len().max(1) as f64;
    let totals: Vec<f64> = rows.iter().map(total).collect();
    let gain =
        active_power(&totals) * 10_f64.powf(-snr_db / 10.0) / noise_power.max(f64::MIN_POSITIVE);
    let mix = |row: &Powers, noise: &Powers| std::array::from_fn(|k| row[k] + gain * noise[k]);
    rows.iter().zip(&noise).map(|(row, noise)| mix(row, noise)).collect()
}

/// Pink noise through the front end: `frames` of mel powers.
fn mel_of_pink(random: Random, frames: usize) -> Vec<Powers> {
    // A frame looks at four hops, so three more are needed.
    let samples = pink(random, (frames + 3) * HOP_SAMPLES);
    let mut stream = FeatureStream::new();
    let mut scratch = FRONT_END.scratch();
    let (hops, _) = samples.as_chunks::<HOP_SAMPLES>();
    stream
        .push_all(&FRONT_END, &mut scratch, hops)
        .iter()
        .map(|frame| frame.mel_db.map(|db| 10_f64.powf(f64::from(db) / 10.0)))
        .collect()
}

fn on_the_telephone(rows: &[Powers]) -> Vec<Powers> {
    let line_hz = f64::from(TELEPHONE_RATE_HZ) / 2.0;
    let gains =
        BANDS.centres_hz.map(|hz| if hz < line_hz { telephone_power_gain(hz) } else { 0.0 });
    rows.iter()
        .map(|row| {
            let passed: Powers = std::array::from_fn(|k| row[k] * gains[k]);
            // White over the line's own band.
            let noise = total(&passed) * 10_f64.powf(-MU_LAW_SNR_DB / 10.0) / line_hz;
            let floor = |k: usize| if BANDS.centres_hz[k] < line_hz { noise } else { 0.0 };
            std::array::from_fn(|k| passed[k] + floor(k))
        })
        .collect()
}

/// Each band's power smeared by the tail's exponential decay, the tail itself behind the clip, and the
/// energy as before.
fn in_room(rows: &[Powers]) -> Vec<Powers> {
    let decay = 10_f64.powf(-6.0 / (RT60_S * HOPS_PER_S));
    // The tail's powers sum to the reverberant share.
    let share = 10_f64.powf(-DIRECT_TO_REVERBERANT_DB / 10.0) * (1.0 - decay);
    let behind = (RT60_S * HOPS_PER_S).ceil() as usize;
    let mut tail = [0.0; MEL_BANDS];
    let silence = std::iter::repeat_n(&[0.0; MEL_BANDS], behind);
    let mut heard: Vec<Powers> = rows
        .iter()
        .chain(silence)
        .map(|row| {
            tail = std::array::from_fn(|k| decay * tail[k] + share * row[k]);
            std::array::from_fn(|k| row[k] + tail[k])
        })
        .collect();
    let energy = |rows: &[Powers]| rows.iter().map(total).sum::<f64>();
    let gain = energy(rows) / energy(&heard).max(f64::MIN_POSITIVE);
    heard.iter_mut().flatten().for_each(|power| *power *= gain);
    heard
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &[&str] = &["corpus", "clip"];

    /// Ten hops at the floor, forty with power at 200 to 3,000 Hz, ten at the floor.
    fn phrase() -> Vec<Row> {
        let voiced: Row = std::array::from_fn(|k| {
            if (200.0..3_000.0).contains(&BANDS.centres_hz[k]) { -10.0 } else { -60.0 }
        });
        let quiet = vec![[-80.0; MEL_BANDS]; 10];
        [quiet.clone(), vec![voiced; 40], quiet].concat()
    }

    fn powers(row: &Row) -> Powers {
        row.map(|db| 10_f64.powf(f64::from(db) / 10.0))
    }

    #[test]
    fn bands_lie_where_the_front_end_puts_them() {
        // A sine at a band's centre is loudest in that band.
        for band in [10, 40, 80, 120] {
            let hz = BANDS.centres_hz[band];
            let samples: Vec<f32> = (0..1_024)
                .map(|n| (std::f64::consts::TAU * hz * f64::from(n) / 16_000.0).sin() as f32)
                .collect();
            let mut stream = FeatureStream::new();
            let mut scratch = FRONT_END.scratch();
            let (hops, _) = samples.as_chunks::<HOP_SAMPLES>();
            let frame = &stream.push_all(&FRONT_END, &mut scratch, hops)[0];
            let loudest =
                (0..MEL_BANDS).max_by(|a, b| frame.mel_db[*a].total_cmp(&frame.mel_db[*b]));
            assert!(loudest.unwrap().abs_diff(band) <= 1, "{band}: {loudest:?}");
        }
    }

    #[test]
    fn the_snr_is_what_it_says_measured_on_the_output() {
        let clean = phrase();
        let speech = total(&powers(&clean[20]));
        for (condition, snr_db) in [(Condition::Pink20, 20.0), (Condition::Pink5, 5.0)] {
            let noisy = degrade(&clean, condition, CLIP).unwrap();
            let noise: f64 = noisy
                .iter()
                .zip(&clean)
                .map(|(y, x)| total(&powers(y)) - total(&powers(x)))
                .sum::<f64>()
                / clean.len() as f64;
            let measured = 10.0 * (speech / noise).log10();
            assert!((measured - snr_db).abs() < 0.1, "{condition}: {measured}");
        }
    }

    #[test]
    fn the_telephone_keeps_its_band_and_adds_little_noise() {
        let clean = phrase();
        let heard = degrade(&clean, Condition::Telephone, CLIP).unwrap();
        for (k, hz) in BANDS.centres_hz.iter().enumerate() {
            let (x, y) = (clean[20][k], heard[20][k]);
            match *hz {
                hz if (450.0..2_900.0).contains(&hz) => assert!((x - y).abs() < 0.3, "{hz}: {y}"),
                hz if hz > 4_000.0 => assert!(y <= -99.9, "{hz}: {y}"),
                // In what is left only quantisation noise can be.
                hz if hz > 3_900.0 => assert!((-60.0..-40.0).contains(&y), "{hz}: {y}"),
                _ => {}
            }
        }
    }

    #[test]
    fn the_room_decays_by_sixty_decibels_in_half_a_second_and_keeps_the_energy() {
        let clean = phrase();
        let heard = degrade(&clean, Condition::Reverberation, CLIP).unwrap();
        let energy = |rows: &[Row]| rows.iter().map(|row| total(&powers(row))).sum::<f64>();
        let change = 10.0 * (energy(&heard) / energy(&clean)).log10();
        assert!(change.abs() < 0.01, "{change} dB");
        // From one hop behind the phrase to ten hops later: 160 of 500 ms, 19.2 dB.
        let fall = heard[51][40] - heard[61][40];
        assert!((fall - 19.2).abs() < 0.2, "{fall} dB");
    }

    #[test]
    fn conditions_are_deterministic_and_gains_do_not_apply() {
        let rows = phrase();
        for condition in Condition::ALL {
            let once = degrade(&rows, condition, CLIP);
            assert_eq!(once, degrade(&rows, condition, CLIP), "{condition}");
            let gain = matches!(condition, Condition::Quiet | Condition::Loud);
            assert_eq!(once.is_none(), gain, "{condition}");
        }
        assert_eq!(degrade(&[], Condition::Pink20, CLIP), Some(Vec::new()));
    }
}
