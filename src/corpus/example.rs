//! Pictures of one clip: waveform, spectrogram, mel spectrogram, chroma, MFCCs.
//!
//! All are of 16 kHz and come from the service's own front end: the frames of 64 ms every 16 ms, the
//! windowed power spectrum, the 128 mel bands and the cosine transform that a model's input is made of. A
//! frame is drawn in its middle.
//!
//! Chroma is the power spectrum folded to the twelve pitch classes, tuned to A4 = 440 Hz: each bin from
//! 62.5 Hz to 5 kHz gives its power to the semitones that its 15.6 Hz overlap, in proportion (below
//! middle C a bin is wider than a semitone, so low notes smear over neighbours). Each frame is scaled
//! to its strongest class; frames 50 dB or more below the loudest are left dark, since noise would be
//! scaled up with them. Models do not use it; it shows how a voice's pitch moves.

use std::path::Path;

use super::logmel::Spectra;
use super::{Clip, ClipError, Sound, frames};
use crate::features::{
    DEFAULT_COEFFICIENTS, Frame, FrontEnd, MEL_BANDS, SPECTRUM_BINS, band_of_hz,
};
use crate::report::{Axis, LineChart, Picture};
use crate::units::{FRAME_SAMPLES, HOP_SAMPLES, MODEL_RATE_HZ};

/// Columns of a waveform: what a figure has in pixels.
const COLUMNS: usize = 680;
/// What is drawn below the loudest point, dB.
const RANGE_DB: f64 = 80.0;
/// Chroma of frames this far below the loudest one is not drawn, dB.
const CHROMA_RANGE_DB: f32 = 50.0;
/// Natural size of the small figures, px.
const SIZE: (f64, f64) = (450.0, 230.0);
/// Pitch classes, in the order of MIDI notes: class 0 is C, 9 is A.
const PITCHES: [&str; 12] = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
/// Bins that chroma is folded from: 62.5 Hz to 5 kHz.
const CHROMA_BINS: std::ops::RangeInclusive<usize> = 4..=320;

/// The pictures of one clip.
#[derive(Debug)]
pub struct Drawn {
    /// `None` for a clip without audio.
    pub waveform: Option<LineChart>,
    /// Spectrogram and chroma (of audio only), mel spectrogram, MFCCs.
    pub pictures: Vec<Picture>,
}

/// Draws `clip`.
///
/// # Errors
/// [`ClipError`] if it cannot be read.
pub fn draw(clip: &Clip, spectra: &Spectra, front: &FrontEnd) -> Result<Drawn, ClipError> {
    match &clip.sound {
        Sound::File(path) => draw_file(clip, path, front),
        Sound::LogMel(path) => {
            let frames = frames::of_rows(&clip.name, path, spectra)?;
            // Rows are centred on their hops.
            let times = Times { first: 0.0, count: frames.len() };
            let pictures = vec![mel(clip, &frames, times), mfcc(clip, &frames, times, front)];
            Ok(Drawn { waveform: None, pictures })
        }
    }
}

fn draw_file(clip: &Clip, path: &Path, front: &FrontEnd) -> Result<Drawn, ClipError> {
    let (hops, length) = frames::hops(path)?;
    let mut scratch = front.scratch();
    let frames = frames::of_hops(&hops, front, &mut scratch);
    let samples = hops.as_flattened();
    let powers: Vec<[f32; SPECTRUM_BINS]> = (0..frames.len())
        .filter_map(|index| samples.get(index * HOP_SAMPLES..)?.first_chunk::<FRAME_SAMPLES>())
        .map(|frame| front.power_spectrum(frame, &mut scratch))
        .collect();
    let times = Times { first: FRAME_SAMPLES as f64 / 2.0, count: frames.len() };
    Ok(Drawn {
        waveform: Some(waveform(clip, samples.get(..length).unwrap_or(samples))),
        pictures: vec![
            spectrogram(clip, &powers, times),
            mel(clip, &frames, times),
            chroma(clip, &powers, times),
            mfcc(clip, &frames, times, front),
        ],
    })
}

/// When frames are: the first one's middle, in samples, and their number.
#[derive(Debug, Clone, Copy)]
struct Times {
    first: f64,
    count: usize,
}

impl Times {
    /// From half a hop before the first middle to half a hop behind the last.
    fn axis(self) -> Axis {
        let (hop, rate) = (HOP_SAMPLES as f64, f64::from(MODEL_RATE_HZ));
        let start = self.first - hop / 2.0;
        Axis::new("Time, s").range(start / rate, (start + hop * self.count as f64) / rate)
    }
}

fn waveform(clip: &Clip, samples: &[f32]) -> LineChart {
    let rate = f64::from(MODEL_RATE_HZ);
    let width = samples.len().div_ceil(COLUMNS).max(1);
    let envelope = samples.chunks(width).enumerate().map(|(column, chunk)| {
        let (low, high) = chunk
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)));
        let middle = (column * width) as f64 + chunk.len() as f64 / 2.0;
        (middle / rate, f64::from(low), f64::from(high))
    });
    let peak = samples.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
    // Symmetric about zero, and not magnified without end.
    let reach = (f64::from(peak) * 1.05).max(1e-3);
    LineChart::new(
        format!("Waveform of {}", clip.name),
        Axis::new("Time, s").range(0.0, samples.len().max(1) as f64 / rate),
        Axis::new("Amplitude").range(-reach, reach),
    )
    .series("samples", [])
    .band(envelope)
    .without_table()
    .size(920.0, 170.0)
}

/// A picture from columns of values, lowest first.
fn picture(
    (what, clip): (&str, &Clip),
    columns: usize,
    rows: usize,
    value: impl Fn(usize, usize) -> f32,
    [x, y, colour]: [Axis; 3],
) -> Picture {
    let values = (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row)));
    let values = values.map(|(column, row)| value(column, row)).collect();
    let alt = format!("{what} of a clip acted as {}: {} in colours over time.", clip.emotion, what);
    Picture::new(what, alt, (columns, values), x, y, colour).size(SIZE.0, SIZE.1)
}

fn at<const N: usize>(columns: &[[f32; N]], column: usize, row: usize) -> f32 {
    columns.get(column).and_then(|values| values.get(row)).copied().unwrap_or_default()
}

fn spectrogram(clip: &Clip, powers: &[[f32; SPECTRUM_BINS]], times: Times) -> Picture {
    let loudest = powers.iter().flatten().fold(f32::MIN_POSITIVE, |most, p| most.max(*p));
    let level = |column, row| 10.0 * (at(powers, column, row) / loudest).max(1e-10).log10();
    picture(
        ("Spectrogram", clip),
        powers.len(),
        SPECTRUM_BINS,
        level,
        [
            times.axis(),
            Axis::new("Frequency, kHz").range(0.0, f64::from(MODEL_RATE_HZ) / 2_000.0),
            Axis::new("dB, loudest is 0").range(-RANGE_DB, 0.0),
        ],
    )
}

fn mel(clip: &Clip, frames: &[Frame], times: Times) -> Picture {
    let bands: Vec<[f32; MEL_BANDS]> = frames.iter().map(|frame| frame.mel_db).collect();
    let loudest = bands.iter().flatten().fold(f32::NEG_INFINITY, |most, db| most.max(*db));
    let ticks = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
        .map(|khz| (band_of_hz(khz * 1_000.0) + 0.5, crate::report::short(khz)));
    picture(
        ("Mel spectrogram", clip),
        bands.len(),
        MEL_BANDS,
        |column, row| at(&bands, column, row) - loudest,
        [
            times.axis(),
            // The top of the highest filter lies half a band above the picture.
            Axis::new("Mel bands, kHz").range(0.0, MEL_BANDS as f64 + 0.5).ticks(ticks),
            Axis::new("dB, loudest is 0").range(-RANGE_DB, 0.0),
        ],
    )
}

fn chroma(clip: &Clip, powers: &[[f32; SPECTRUM_BINS]], times: Times) -> Picture {
    let shares = pitch_shares();
    let energies: Vec<f32> = powers.iter().map(|power| power.iter().sum()).collect();
    let loudest = energies.iter().copied().fold(0.0, f32::max);
    let least = loudest / 10_f32.powf(CHROMA_RANGE_DB / 10.0);
    let classes: Vec<[f32; 12]> = powers
        .iter()
        .zip(energies)
        .map(|(power, energy)| if energy > least { fold(power, &shares) } else { [0.0; 12] })
        .collect();
    let names = PITCHES.iter().enumerate().map(|(i, name)| (i as f64 + 0.5, (*name).to_owned()));
    picture(
        ("Chroma", clip),
        classes.len(),
        PITCHES.len(),
        |c, r| at(&classes, c, r),
        [
            times.axis(),
            Axis::new("Pitch class").range(0.0, 12.0).ticks(names),
            Axis::new("share of the strongest").range(0.0, 1.0),
        ],
    )
}

fn mfcc(clip: &Clip, frames: &[Frame], times: Times, front: &FrontEnd) -> Picture {
    let cepstra: Vec<[f32; DEFAULT_COEFFICIENTS]> = frames
        .iter()
        .map(|frame| {
            let mut coefficients = [0.0; DEFAULT_COEFFICIENTS];
            front.mfcc(&frame.relative, &mut coefficients);
            coefficients
        })
        .collect();
    // Coefficient 0 is the level; it would drown the others, and is left out.
    let rows = DEFAULT_COEFFICIENTS - 1;
    let mut sizes: Vec<f32> =
        cepstra.iter().flat_map(|c| c.iter().skip(1)).map(|c| c.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    // All but the largest fiftieth within the colours.
    let reach = sizes.get(sizes.len() * 49 / 50).map_or(1.0, |size| f64::from(size.max(1.0)));
    let ticks = [1, 10, 20, 30].map(|k| (f64::from(k) - 0.5, k.to_string()));
    picture(
        ("MFCCs", clip),
        cepstra.len(),
        rows,
        |c, r| at(&cepstra, c, r + 1),
        [
            times.axis(),
            Axis::new("Coefficient").range(0.0, rows as f64).ticks(ticks),
            Axis::new("dB").range(-reach, reach),
        ],
    )
}

/// For each bin of [`CHROMA_BINS`], the pitch classes that it overlaps and how much of it each has.
fn pitch_shares() -> Vec<Vec<(usize, f32)>> {
    let bin_hz = f64::from(MODEL_RATE_HZ) / FRAME_SAMPLES as f64;
    // MIDI's numbers: A4 is 69.
    let note = |hz: f64| 69.0 + 12.0 * (hz / 440.0).log2();
    CHROMA_BINS
        .map(|bin| {
            let low = note((bin as f64 - 0.5) * bin_hz);
            let high = note((bin as f64 + 0.5) * bin_hz);
            (low.round() as usize..=high.round() as usize)
                .map(|semitone| {
                    let centre = semitone as f64;
                    let overlap = high.min(centre + 0.5) - low.max(centre - 0.5);
                    (semitone % 12, (overlap / (high - low)).max(0.0) as f32)
                })
                .collect()
        })
        .collect()
}

fn fold(power: &[f32; SPECTRUM_BINS], shares: &[Vec<(usize, f32)>]) -> [f32; 12] {
    let mut classes = [0.0_f32; 12];
    for (shares, power) in shares.iter().zip(power.iter().skip(*CHROMA_BINS.start())) {
        for (class, share) in shares {
            if let Some(sum) = classes.get_mut(*class) {
                *sum += power * share;
            }
        }
    }
    let most = classes.iter().fold(f32::MIN_POSITIVE, |most, class| most.max(*class));
    classes.map(|class| class / most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_falls_into_its_pitch_class() {
        let front = FrontEnd::new();
        for (hz, class) in [(440.0, "A"), (880.0, "A"), (523.25, "C"), (1_479.98, "F♯")] {
            let radians: f64 = std::f64::consts::TAU * hz / 16_000.0;
            let frame: [f32; FRAME_SAMPLES] =
                std::array::from_fn(|n| (radians * n as f64).sin() as f32);
            let power = front.power_spectrum(&frame, &mut front.scratch());
            let classes = fold(&power, &pitch_shares());
            let strongest = classes.iter().position(|value| *value == 1.0).unwrap();
            assert_eq!(PITCHES[strongest], class, "{hz} Hz: {classes:?}");
        }
    }

    #[test]
    fn every_bin_gives_all_of_its_power_away() {
        for shares in pitch_shares() {
            let sum: f32 = shares.iter().map(|(_, share)| share).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{shares:?}");
        }
        assert_eq!(fold(&[0.0; SPECTRUM_BINS], &pitch_shares()), [0.0; 12]);
    }
}
