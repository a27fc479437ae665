use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The thresholds between which the service's segmentation has its hysteresis, by default.
const ON: f32 = 0.6;
const OFF: f32 = 0.35;

/// Frames of a synthetic sound and the reference's probabilities for them, from
/// `tests/golden/voice_frames.npz`, which `training/voice/golden.py` makes.
fn golden(sound: &str) -> (Vec<[f32; BANDS]>, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/voice_frames.npz");
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut array = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let (frames, expected) =
        (array(&format!("{sound}_frames")), array(&format!("{sound}_probability")));
    let frames: Vec<u8> = npyz::NpyFile::new(frames.as_slice()).unwrap().into_vec().unwrap();
    let expected = npyz::NpyFile::new(expected.as_slice()).unwrap().into_vec().unwrap();
    let to_db = |half_db: u8| f32::from(half_db) / 2.0 - 100.0;
    (frames.as_chunks::<BANDS>().0.iter().map(|frame| frame.map(to_db)).collect(), expected)
}

fn probabilities(frames: &[[f32; BANDS]]) -> Vec<f32> {
    let mut detector = VoiceDetector::new();
    frames.iter().map(|frame| detector.push(frame)).collect()
}

fn share_above(probabilities: &[f32], threshold: f32) -> f32 {
    let above = probabilities.iter().filter(|&&p| p > threshold).count();
    above as f32 / probabilities.len() as f32
}

#[test]
fn agrees_with_the_reference() {
    for sound in ["syllables", "white", "hum", "silence"] {
        let (frames, expected) = golden(sound);
        for (hop, (p, expected)) in probabilities(&frames).iter().zip(&expected).enumerate() {
            // The sums of single precision run in another order, and a recurrent net carries that on.
            assert!((p - expected).abs() < 1e-3, "{sound}, hop {hop}: {p} instead of {expected}");
        }
    }
}

#[test]
fn hears_a_voice_in_vowels() {
    let (frames, _) = golden("syllables");
    let heard = probabilities(&frames);
    // The half second of near silence before them, less the window that already sees the first.
    assert!(share_above(&heard[..24], OFF) == 0.0, "{:?}", &heard[..24]);
    // A voice begins an utterance at once and keeps it open: between syllables it may dip below ON.
    assert!(share_above(&heard[36..44], ON) > 0.8, "{:?}", &heard[36..44]);
    assert!(share_above(&heard[32..], ON) > 0.6, "{:?}", &heard[32..]);
    assert!(share_above(&heard[32..], OFF) > 0.8, "{:?}", &heard[32..]);
}

#[test]
fn hears_no_voice_in_noise_hum_or_silence() {
    for sound in ["white", "hum", "silence"] {
        let heard = probabilities(&golden(sound).0);
        assert!(share_above(&heard, OFF) == 0.0, "{sound}: {heard:?}");
    }
}

#[test]
fn digital_silence_is_not_speech_even_after_speech() {
    let mut detector = VoiceDetector::new();
    for frame in &golden("syllables").0 {
        detector.push(frame);
    }
    let silence = [-100.0; BANDS];
    let after: Vec<f32> = (0..200).map(|_| detector.push(&silence)).collect();
    assert!(share_above(&after[20..], 0.1) == 0.0, "{after:?}");
}

#[test]
fn an_hour_of_silence_leaves_it_able_to_hear() {
    let (frames, _) = golden("syllables");
    let mut detector = VoiceDetector::new();
    for _ in 0..225_000 {
        detector.push(&[-100.0; BANDS]);
    }
    let heard: Vec<f32> = frames.iter().map(|frame| detector.push(frame)).collect();
    assert!(share_above(&heard[32..], ON) > 0.8, "{heard:?}");
}

#[test]
fn every_vector_width_gives_the_same_bits() {
    let (frames, _) = golden("syllables");
    let (mut dispatched, mut baseline) = (VoiceDetector::new(), VoiceDetector::new());
    for frame in &frames {
        assert_eq!(dispatched.push(frame).to_bits(), baseline.hear(frame).to_bits());
    }
    assert_eq!(dispatched, baseline);
}

#[test]
fn a_detector_is_small() {
    assert!(size_of::<VoiceDetector>() < 400);
}

#[test]
fn tanh_is_right_to_1e_4() {
    for i in -1000..=1000 {
        let x = i as f32 / 100.0;
        assert!((tanh(x) - x.tanh()).abs() < 1e-4, "{x}");
    }
}

fn frames(value: impl Strategy<Value = f32>) -> impl Strategy<Value = Vec<[f32; BANDS]>> {
    let frame = prop::collection::vec(value, BANDS).prop_map(|v| v.try_into().unwrap());
    prop::collection::vec(frame, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_gives_a_probability(frames in frames(any::<f32>())) {
        let mut detector = VoiceDetector::new();
        for frame in &frames {
            let p = detector.push(frame);
            prop_assert!((0.0..=1.0).contains(&p), "{p}");
            prop_assert!(detector.state.iter().all(|h| h.is_finite()));
        }
    }

    #[test]
    fn gain_does_not_count(frames in frames(-50.0_f32..20.0), gain_db in -34.0_f32..60.0) {
        let louder: Vec<_> = frames.iter().map(|frame| frame.map(|db| db + gain_db)).collect();
        for (a, b) in probabilities(&frames).iter().zip(probabilities(&louder)) {
            prop_assert!((a - b).abs() < 1e-3, "{a} and {b}");
        }
    }

    #[test]
    fn the_same_frames_give_the_same_bits(frames in frames(-100.0_f32..40.0)) {
        prop_assert_eq!(probabilities(&frames), probabilities(&frames));
    }
}
