//! What the front end promises as a whole. The golden vectors are in `tests/it/golden_mfcc.rs`.

use proptest::prelude::*;
use pulp::Arch;

use super::*;
use crate::units::FRAME_SAMPLES;

/// Noise of `hops` hops with an amplitude in [0, 1], the same for the same seed.
fn noise(hops: usize, amplitude: f32, seed: u32) -> Vec<[f32; HOP_SAMPLES]> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        amplitude * (state as f32 / u32::MAX as f32 * 2.0 - 1.0)
    };
    (0..hops).map(|_| std::array::from_fn(|_| next())).collect()
}

/// A voice-like signal: five harmonics whose loudness rises and falls.
fn harmonics(hops: usize, gain: f32) -> Vec<[f32; HOP_SAMPLES]> {
    let sample = |n: usize| {
        let t = n as f32 / 16_000.0;
        let envelope = 0.55 + 0.45 * (std::f32::consts::TAU * 3.0 * t).sin();
        let tones: f32 = (1..6_u8)
            .map(|k| (std::f32::consts::TAU * 140.0 * f32::from(k) * t).sin() / f32::from(k))
            .sum();
        gain * 0.3 * envelope * tones
    };
    (0..hops).map(|hop| std::array::from_fn(|n| sample(hop * HOP_SAMPLES + n))).collect()
}

fn frames(front: &FrontEnd, hops: &[[f32; HOP_SAMPLES]]) -> Vec<Frame> {
    let (mut stream, mut scratch) = (FeatureStream::new(), front.scratch());
    hops.iter().filter_map(|hop| stream.push(front, &mut scratch, hop).cloned()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn hops_at_once_give_the_frames_of_hops_one_by_one_to_the_bit() {
    let front = FrontEnd::new();
    let hops = noise(61, 0.3, 11);
    let one_by_one = frames(&front, &hops);
    for batch in [1, 2, 3, 5, BATCH_HOPS, 3 * BATCH_HOPS, hops.len()] {
        let (mut stream, mut scratch) = (FeatureStream::new(), front.scratch());
        let at_once: Vec<Frame> = hops
            .chunks(batch)
            .flat_map(|hops| stream.push_all(&front, &mut scratch, hops).to_vec())
            .collect();
        assert_eq!(at_once.len(), one_by_one.len());
        for (a, b) in at_once.iter().zip(&one_by_one) {
            assert_eq!((a.index, bits(&a.mel_db)), (b.index, bits(&b.mel_db)));
            assert_eq!(bits(&a.relative), bits(&b.relative));
            assert_eq!(a.reference_db.to_bits(), b.reference_db.to_bits());
        }
    }
}

#[test]
fn first_frame_comes_with_the_fourth_hop() {
    let front = FrontEnd::new();
    let (mut stream, mut scratch) = (FeatureStream::new(), front.scratch());
    for (i, hop) in noise(20, 0.1, 1).iter().enumerate() {
        let index = stream.push(&front, &mut scratch, hop).map(|frame| frame.index);
        assert_eq!(index, i.checked_sub(3).map(|index| index as u64));
    }
    assert_eq!(stream.hops(), 20);
}

#[test]
fn a_frame_looks_at_its_1024_samples_and_no_others() {
    let front = FrontEnd::new();
    let hops = noise(40, 0.3, 2);
    let whole = frames(&front, &hops);
    for start in 0..hops.len() - 3 {
        let alone = frames(&front, &hops[start..start + 4]);
        assert_eq!(bits(&alone[0].mel_db), bits(&whole[start].mel_db));
    }
    // One sample more or less changes the frames that cover it, and only those.
    let mut touched = hops.clone();
    touched[20][7] += 0.25;
    for (i, (before, after)) in whole.iter().zip(frames(&front, &touched)).enumerate() {
        let covers =
            (i * HOP_SAMPLES..i * HOP_SAMPLES + FRAME_SAMPLES).contains(&(20 * HOP_SAMPLES + 7));
        assert_eq!(before.mel_db != after.mel_db, covers, "frame {i}");
    }
}

#[test]
fn streams_that_share_scratch_do_not_hear_each_other() {
    let front = FrontEnd::new();
    let (one, other) = (noise(30, 0.5, 3), harmonics(30, 1.0));
    let (alone, other_alone) = (frames(&front, &one), frames(&front, &other));
    let mut scratch = front.scratch();
    let (mut a, mut b) = (FeatureStream::new(), FeatureStream::new());
    for i in 0..30 {
        let from_a = a.push(&front, &mut scratch, &one[i]).cloned();
        let from_b = b.push(&front, &mut scratch, &other[i]).cloned();
        assert_eq!(from_a.as_ref(), i.checked_sub(3).map(|i| &alone[i]));
        assert_eq!(from_b.as_ref(), i.checked_sub(3).map(|i| &other_alone[i]));
    }
}

#[test]
fn gain_does_not_change_relative_features() {
    let front = FrontEnd::new();
    let plain = frames(&front, &harmonics(60, 1.0));
    // Down to where the loudest band of every frame is still above the lowest reference.
    for (gain, tolerance_db) in [(0.25, 0.0), (3.0, 1e-3), (0.037, 1e-3), (0.01, 1e-3)] {
        let scaled = frames(&front, &harmonics(60, gain));
        assert!(scaled.iter().all(|frame| frame.reference_db > LOWEST_REFERENCE_DB));
        for (plain, scaled) in plain.iter().zip(&scaled) {
            for (a, b) in plain.relative.iter().zip(&scaled.relative) {
                // librosa's 1e-10 acts on the weakest bands of the faintest signal.
                let level_db = b + scaled.reference_db;
                // A power of two scales every product exactly; what is left is rounding in dB.
                let allowed = if tolerance_db == 0.0 { 2e-5 } else { tolerance_db };
                assert!((a - b).abs() <= allowed || level_db < -95.0, "gain {gain}: {a} and {b}");
            }
        }
    }
}

#[test]
fn digital_silence_is_60_db_below_the_lowest_reference() {
    let front = FrontEnd::new();
    for frame in frames(&front, &vec![[0.0; HOP_SAMPLES]; 5_000]) {
        assert_eq!(frame.reference_db, LOWEST_REFERENCE_DB);
        assert!(frame.mel_db.iter().all(|level| (level + 100.0).abs() < 1e-4));
        assert!(frame.relative.iter().all(|level| (level + 60.0).abs() < 1e-4));
    }
}

#[test]
fn silence_after_speech_is_at_the_floor() {
    let front = FrontEnd::new();
    let mut hops = harmonics(30, 1.0);
    hops.extend([[0.0; HOP_SAMPLES]; 30]);
    let last = frames(&front, &hops).pop().unwrap();
    assert_eq!(last.relative, [-RANGE_DB; MEL_BANDS]);
}

#[test]
fn noise_of_an_idle_line_is_not_read_as_loud() {
    // White noise at -75 dBFS (amplitude times 0.577 for a flat distribution).
    let amplitude = 10_f32.powf(-75.0 / 20.0) * 3_f32.sqrt();
    for frame in frames(&FrontEnd::new(), &noise(200, amplitude, 4)) {
        assert_eq!(frame.reference_db, LOWEST_REFERENCE_DB);
        let mean = frame.relative.iter().sum::<f32>() / MEL_BANDS as f32;
        assert!(mean < -18.0, "{mean}");
    }
}

#[test]
fn faint_speech_is_above_the_lowest_reference() {
    let hops = harmonics(60, 1.0);
    let square: f32 = hops.iter().flatten().map(|sample| sample * sample).sum();
    let rms = (square / (60 * HOP_SAMPLES) as f32).sqrt();
    let faint = frames(&FrontEnd::new(), &harmonics(60, 1e-3 / rms));
    let peak = faint.iter().map(|frame| frame.reference_db).fold(f32::MIN, f32::max);
    assert!(peak > -25.0, "speech at -60 dBFS peaks at {peak} dB");
}

#[test]
fn spectra_made_elsewhere_take_the_same_way() {
    let front = FrontEnd::new();
    let heard = frames(&front, &harmonics(30, 1.0));
    let mut reference = CausalReference::new();
    for frame in heard {
        let again = Frame::from_mel_db(frame.index, frame.mel_db, &mut reference);
        assert_eq!(again, frame);
    }
}

#[test]
fn a_hop_allocates_nothing() {
    let front = FrontEnd::new();
    let (mut stream, mut scratch) = (FeatureStream::new(), front.scratch());
    let hops = noise(50, 0.2, 5);
    let mut mfcc = [0.0; DEFAULT_COEFFICIENTS];
    let allocations = allocation_counter::measure(|| {
        for hop in &hops {
            if let Some(frame) = stream.push(&front, &mut scratch, hop) {
                front.mfcc(&frame.relative, &mut mfcc);
            }
        }
    });
    assert_eq!(allocations.count_total, 0);
    assert_ne!(mfcc, [0.0; DEFAULT_COEFFICIENTS]);
}

#[test]
fn a_stream_remembers_little_more_than_three_hops() {
    assert!(size_of::<FeatureStream>() <= 3 * HOP_SAMPLES * size_of::<f32>() + 64);
}

#[test]
fn instruction_sets_agree_to_within_rounding() {
    let best = FrontEnd::new();
    let baseline = FrontEnd { arch: Arch::Scalar, ..FrontEnd::new() };
    let hops = harmonics(60, 1.0);
    for (a, b) in frames(&best, &hops).iter().zip(frames(&baseline, &hops)) {
        let (mut ours, mut theirs) = ([0.0; 40], [0.0; 40]);
        best.mfcc(&a.relative, &mut ours);
        baseline.mfcc(&b.relative, &mut theirs);
        for (a, b) in ours.iter().zip(theirs) {
            assert!((a - b).abs() <= 1e-3, "{a} and {b}");
        }
    }
}

/// Any samples in [-1, 1]: noise of any loudness, held values, denormals, full-scale edges.
fn any_hop() -> impl Strategy<Value = [f32; HOP_SAMPLES]> {
    let value = prop_oneof![
        -1.0_f32..=1.0,
        Just(0.0_f32),
        Just(-0.0_f32),
        Just(1.0_f32),
        Just(-1.0_f32),
        Just(f32::MIN_POSITIVE),
        Just(1e-42_f32),
    ];
    prop_oneof![
        value.clone().prop_map(|held| [held; HOP_SAMPLES]),
        prop::collection::vec(value, HOP_SAMPLES)
            .prop_map(|samples| std::array::from_fn(|n| samples[n])),
        (any::<u32>(), 0.0_f32..=1.0).prop_map(|(seed, amplitude)| noise(1, amplitude, seed)[0]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn features_are_finite_and_within_their_range(hops in prop::collection::vec(any_hop(), 4..12)) {
        let front = FrontEnd::new();
        let mut mfcc = [0.0; MAX_COEFFICIENTS];
        for frame in frames(&front, &hops) {
            prop_assert!(frame.mel_db.iter().all(|level| (-100.001..60.0).contains(level)));
            prop_assert!(frame.relative.iter().all(|level| (-RANGE_DB..=0.0).contains(level)));
            prop_assert!(frame.reference_db >= LOWEST_REFERENCE_DB);
            front.mfcc(&frame.relative, &mut mfcc);
            prop_assert!(mfcc.iter().all(|coefficient| coefficient.is_finite()));
        }
    }

    #[test]
    fn a_stream_can_pause_anywhere_without_a_trace(
        hops in prop::collection::vec(any_hop(), 8..16),
        cut in 1_usize..8,
    ) {
        // One thread's scratch, then another's, as when a session moves between workers.
        let front = FrontEnd::new();
        let whole = frames(&front, &hops);
        let mut stream = FeatureStream::new();
        let mut first = front.scratch();
        let mut parts: Vec<Frame> =
            hops[..cut].iter().filter_map(|hop| stream.push(&front, &mut first, hop).cloned()).collect();
        let mut moved = stream.clone();
        let mut second = front.scratch();
        parts.extend(hops[cut..].iter().filter_map(|hop| moved.push(&front, &mut second, hop).cloned()));
        prop_assert_eq!(whole.len(), parts.len());
        for (a, b) in whole.iter().zip(&parts) {
            prop_assert_eq!(bits(&a.relative), bits(&b.relative));
            prop_assert_eq!(bits(&a.mel_db), bits(&b.mel_db));
        }
    }
}

#[test]
fn the_power_spectrum_of_a_tone_peaks_at_its_bin_and_its_band() {
    let front = FrontEnd::new();
    let hz = 64.0 * 15.625;
    let frame: [f32; FRAME_SAMPLES] =
        std::array::from_fn(|n| (std::f64::consts::TAU * hz * n as f64 / 16_000.0).sin() as f32);
    let power = front.power_spectrum(&frame, &mut front.scratch());
    // A full-scale sine under a Hann window: (1024 / 4)^2.
    assert!((power[64] / 65_536.0 - 1.0).abs() < 1e-5, "{}", power[64]);
    assert!(power.iter().all(|p| *p <= power[64]));
    assert!((band_of_hz(0.0) + 1.0).abs() < 1e-9 && (band_of_hz(8_000.0) - 128.0).abs() < 1e-9);
}
