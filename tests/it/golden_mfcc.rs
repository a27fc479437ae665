//! The front end against librosa's, in double precision: `tests/golden/make_mfcc.py` made the vectors
//! and says what each array is.
//!
//! Tolerance: 1e-3 dB on every MFCC. The front end computes in single precision; a coefficient sums
//! 128 levels of up to 80 dB, so the rounding of the sum alone may reach 2e-4.
//!
//! librosa's floor, 80 dB below the clip's maximum, has no counterpart here, so its vectors are made
//! without it (`top_db=None`), and are compared in two ways.
//! - *Absolute*, in every frame without a band under Undertone's floor: the transform of `mel_db`
//!   against `librosa.feature.mfcc`. Bands further below the reference than 80 dB are not compared
//!   there: single precision blurs them, and nothing ever reads them.
//! - *Relative*, in all frames: what models see, against librosa's `mel_db` taken through the rule of
//!   the causal reference in double precision.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use undertone::features::{FeatureStream, Frame, FrontEnd, MEL_BANDS};
use undertone::units::{FRAME_SAMPLES, HOP_SAMPLES};

const TOLERANCE_DB: f32 = 1e-3;
const COEFFICIENTS: usize = 40;
/// Signals, their frames, and how many of those have bands under the floor: those with lines or
/// formants over next to no noise, and those with digital silence.
const SIGNALS: [(&str, usize, usize); 8] = [
    ("chirp", 72, 72),
    ("noise", 59, 0),
    ("am_tone", 59, 59),
    ("impulses", 59, 43),
    ("quiet_noise", 59, 0),
    ("vowel", 84, 84),
    ("sentence_calm", 122, 60),
    ("sentence_high", 95, 16),
];

struct Golden {
    arrays: BTreeMap<String, Vec<u8>>,
}

impl Golden {
    fn open() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mfcc.npz");
        let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
        let arrays = (0..archive.len())
            .map(|index| {
                let mut entry = archive.by_index(index).unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.name().unwrap().trim_end_matches(".npy").to_owned(), bytes)
            })
            .collect();
        Self { arrays }
    }

    fn array<T: npyz::Deserialize>(&self, signal: &str, key: &str) -> Vec<T> {
        let bytes = &self.arrays[&format!("{signal}.{key}")];
        npyz::NpyFile::new(bytes.as_slice()).unwrap().into_vec().unwrap()
    }

    fn rows<const N: usize>(&self, signal: &str, key: &str) -> Vec<[f32; N]> {
        self.array::<f32>(signal, key).as_chunks::<N>().0.to_vec()
    }

    /// The front end's frames of a signal.
    fn frames(&self, front: &FrontEnd, signal: &str) -> Vec<Frame> {
        let samples: Vec<f32> = self
            .array::<i16>(signal, "samples")
            .into_iter()
            .map(|sample| f32::from(sample) / 32_768.0)
            .collect();
        let (mut stream, mut scratch) = (FeatureStream::new(), front.scratch());
        let (hops, _) = samples.as_chunks::<HOP_SAMPLES>();
        hops.iter().filter_map(|hop| stream.push(front, &mut scratch, hop)).collect()
    }
}

fn largest_difference<'a>(pairs: impl IntoIterator<Item = (&'a [f32], &'a [f32])>) -> f32 {
    pairs
        .into_iter()
        .flat_map(|(ours, theirs)| ours.iter().zip(theirs))
        .map(|(ours, theirs)| (ours - theirs).abs())
        .fold(0.0, f32::max)
}

#[test]
fn vectors_cover_frames_with_and_without_bands_under_the_floor() {
    let golden = Golden::open();
    for (signal, frames, floored) in SIGNALS {
        let flags = golden.array::<u8>(signal, "floored");
        assert_eq!(flags.len(), frames, "{signal}");
        assert_eq!(flags.iter().copied().map(usize::from).sum::<usize>(), floored, "{signal}");
        let samples = golden.array::<i16>(signal, "samples").len();
        assert_eq!(frames, (samples - FRAME_SAMPLES) / HOP_SAMPLES + 1, "{signal}");
    }
}

#[test]
fn absolute_mfccs_are_librosas_where_no_band_is_under_the_floor() {
    let (golden, front) = (Golden::open(), FrontEnd::new());
    for (signal, _, _) in SIGNALS {
        let floored = golden.array::<u8>(signal, "floored");
        let expected = golden.rows::<COEFFICIENTS>(signal, "mfcc");
        let mut ours = vec![[0.0; COEFFICIENTS]; expected.len()];
        let frames = golden.frames(&front, signal);
        assert_eq!(frames.len(), expected.len(), "{signal}");
        for (frame, mfcc) in frames.iter().zip(&mut ours) {
            front.mfcc(&frame.mel_db, mfcc);
        }
        let clear = (0..expected.len()).filter(|&i| floored[i] == 0);
        let error = largest_difference(clear.map(|i| (&ours[i][..], &expected[i][..])));
        println!("{signal}: absolute MFCC within {error:.1e} dB");
        assert!(error <= TOLERANCE_DB, "{signal}: {error}");
    }
}

#[test]
fn relative_mfccs_are_librosas_levels_under_the_causal_reference() {
    let (golden, front) = (Golden::open(), FrontEnd::new());
    for (signal, _, _) in SIGNALS {
        let expected = golden.rows::<COEFFICIENTS>(signal, "relative_mfcc");
        let reference = golden.array::<f32>(signal, "reference_db");
        let frames = golden.frames(&front, signal);
        let mut ours = vec![[0.0; COEFFICIENTS]; expected.len()];
        for (frame, mfcc) in frames.iter().zip(&mut ours) {
            front.mfcc(&frame.relative, mfcc);
        }
        let references: Vec<f32> = frames.iter().map(|frame| frame.reference_db).collect();
        let reference_error = largest_difference([(&references[..], &reference[..])]);
        let rows = ours.iter().zip(&expected);
        let error = largest_difference(rows.map(|(ours, theirs)| (&ours[..], &theirs[..])));
        println!("{signal}: relative MFCC within {error:.1e} dB, reference {reference_error:.1e}");
        assert!(error <= TOLERANCE_DB, "{signal}: {error}");
        assert!(reference_error <= 1e-4, "{signal}: {reference_error}");
    }
}

#[test]
fn levels_above_the_floor_are_librosas() {
    let (golden, front) = (Golden::open(), FrontEnd::new());
    for (signal, _, _) in SIGNALS {
        let expected = golden.rows::<MEL_BANDS>(signal, "mel_db");
        let mut error = 0.0_f32;
        for (frame, theirs) in golden.frames(&front, signal).iter().zip(&expected) {
            for (ours, theirs) in frame.mel_db.iter().zip(theirs) {
                if *theirs > frame.reference_db - undertone::features::RANGE_DB {
                    error = error.max((ours - theirs).abs());
                }
            }
        }
        println!("{signal}: levels within {error:.1e} dB");
        // A band at the floor is some 80 dB above the transform's noise: 1e-4 in amplitude.
        assert!(error <= TOLERANCE_DB, "{signal}: {error}");
    }
}
