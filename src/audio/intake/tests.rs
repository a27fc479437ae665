//! Claims about the way from bytes to hops.

use proptest::prelude::*;

use super::*;
use crate::audio::Encoding;
use crate::audio::container::{ClipHops, ClipReader};
use crate::audio::error::{AudioError, ErrorKind};
use crate::audio::synthesis::{noise, noise_bytes};
use crate::units::{ChannelCount, HOP_SAMPLES, SamplePos, SampleRate};

fn format(encoding: Encoding, hz: u32, channels: u32) -> AudioFormat {
    AudioFormat {
        encoding,
        rate: SampleRate::new(hz).unwrap(),
        channels: ChannelCount::new(channels).unwrap(),
    }
}

/// All lanes one behind the other, hop by hop.
fn take(intake: &mut Intake, hops: &mut Vec<f32>) {
    while let Some(hop) = intake.next_hop() {
        for samples in hop.lanes() {
            hops.extend_from_slice(samples);
        }
    }
}

fn run<'a>(
    format: AudioFormat,
    lanes: &[Lane],
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<f32>, Tail, u64) {
    let mut intake = Intake::new(format, lanes).unwrap();
    let mut hops = Vec::new();
    for chunk in chunks {
        intake.push(chunk).unwrap();
        take(&mut intake, &mut hops);
    }
    let tail = intake.finish().unwrap();
    take(&mut intake, &mut hops);
    (hops, tail, intake.take_clipped(0))
}

fn float_bytes(samples: &[f32]) -> Vec<u8> {
    samples.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn any_format() -> impl Strategy<Value = AudioFormat> {
    let encoding = prop_oneof![
        Just(Encoding::Linear16),
        Just(Encoding::Float32),
        Just(Encoding::MuLaw),
        Just(Encoding::ALaw)
    ];
    let hz = prop_oneof![
        prop::sample::select(vec![8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]),
        8_000_u32..=48_000
    ];
    (encoding, hz, 1_u32..=8).prop_map(|(encoding, hz, channels)| format(encoding, hz, channels))
}

/// Bytes that are finite samples in every encoding.
fn audio(format: AudioFormat, seed: u64, frames: usize) -> Vec<u8> {
    match format.encoding {
        Encoding::Float32 => float_bytes(&noise(seed, frames * format.channels.get(), 1.1)),
        _ => noise_bytes(seed, frames * format.bytes_per_frame()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chunking_gives_the_same_bits(
        format in any_format(),
        seed: u64,
        frames in 0_usize..3_000,
        rest in 0_usize..32,
        masks in prop::collection::vec(1_u8..=255, 1..4),
        sizes in prop::collection::vec(1_usize..700, 1..40),
    ) {
        let channels = format.channels.get();
        let lanes: Vec<Lane> = masks
            .iter()
            .map(|mask| (0..channels).filter(|c| mask >> c & 1 == 1).collect::<Vec<_>>())
            .map(|set| if set.is_empty() { Lane::channel(0) } else { Lane::of(&set) })
            .collect();
        let mut bytes = audio(format, seed, frames);
        bytes.extend(std::iter::repeat_n(0, rest % format.bytes_per_frame()));
        let whole = run(format, &lanes, [bytes.as_slice()]);
        prop_assert_eq!(whole.1.unfinished_bytes, rest % format.bytes_per_frame());
        prop_assert_eq!(whole.1.received.frames, frames as u64);
        let end = (frames as u64 * 16_000).div_ceil(u64::from(format.rate.hz()));
        prop_assert_eq!(whole.1.received.end, SamplePos(end));
        let hops = end.div_ceil(HOP_SAMPLES as u64) as usize;
        prop_assert_eq!(whole.0.len(), hops * HOP_SAMPLES * lanes.len());
        prop_assert!(whole.0.iter().all(|x| x.is_finite()));

        let mut cut = Vec::new();
        let mut left = bytes.as_slice();
        for &size in sizes.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (chunk, behind) = left.split_at(size.min(left.len()));
            cut.push(chunk);
            left = behind;
        }
        prop_assert!(run(format, &lanes, cut) == whole);
    }

    #[test]
    fn an_intake_that_is_gone_on_from_gives_the_same_bits(
        format in any_format(),
        seed: u64,
        frames in 0_usize..3_000,
        at in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let lanes = [Lane::channel(0), Lane::mix(format.channels)];
        let bytes = audio(format, seed, frames);
        let whole = run(format, &lanes, [bytes.as_slice()]);
        let (mut first, mut last) = (at.index(bytes.len() + 1), again.index(bytes.len() + 1));
        if first > last {
            (first, last) = (last, first);
        }
        let mut intake = Intake::new(format, &lanes).unwrap();
        let mut hops = Vec::new();
        for (part, more) in
            [(&bytes[..first], true), (&bytes[first..last], true), (&bytes[last..], false)]
        {
            intake.push(part).unwrap();
            take(&mut intake, &mut hops);
            if more {
                let saved = postcard::to_stdvec(&intake.state()).unwrap();
                let mut other = Intake::new(format, &lanes).unwrap();
                other.restore(&postcard::from_bytes(&saved).unwrap()).unwrap();
                prop_assert_eq!(other.hops(), intake.hops());
                prop_assert_eq!(other.bytes(), intake.bytes());
                intake = other;
            }
        }
        let tail = intake.finish().unwrap();
        take(&mut intake, &mut hops);
        prop_assert!((hops, tail, intake.take_clipped(0)) == whole);
    }

    #[test]
    fn no_bytes_panic(
        format in any_format(),
        bytes in prop::collection::vec(any::<u8>(), 0..4_000),
        size in 1_usize..5_000,
    ) {
        let mut intake = Intake::new(format, &[Lane::mix(format.channels)]).unwrap();
        let mut failure = None;
        for chunk in bytes.chunks(size) {
            if let Err(error) = intake.push(chunk) {
                failure = Some(error);
            }
            while let Some(hop) = intake.next_hop() {
                prop_assert!(hop.lanes().flatten().all(|x| x.is_finite()));
            }
        }
        prop_assert!(failure.is_none() || format.encoding == Encoding::Float32);
        intake.finish().unwrap();
    }

    #[test]
    fn a_file_gives_the_bits_of_a_stream(
        hz in prop_oneof![Just(16_000_u32), Just(44_100), 8_000_u32..=48_000],
        channels in 1_u32..=2,
        frames in 1_usize..4_000,
        seed: u64,
    ) {
        let format = format(Encoding::Float32, hz, channels);
        let lanes = Lane::separate(format.channels);
        let samples = float_bytes(&noise(seed, frames * channels as usize, 1.0));
        let streamed = run(format, &lanes, samples.chunks(999)).0;
        let reader = ClipReader::from_bytes(wav(format, &samples).into(), None).unwrap();
        let mut clip = ClipHops::new(reader, &lanes).unwrap();
        let mut decoded = Vec::new();
        while let Some(hop) = clip.next_hop().unwrap() {
            for lane in hop.lanes() {
                decoded.extend_from_slice(lane);
            }
        }
        prop_assert!(decoded == streamed);
    }
}

/// A WAVE file of 32-bit float samples.
fn wav(format: AudioFormat, samples: &[u8]) -> Vec<u8> {
    let channels = format.channels.get() as u16;
    let frame = channels * 4;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + samples.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend(3_u16.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(format.rate.hz().to_le_bytes());
    file.extend((format.rate.hz() * u32::from(frame)).to_le_bytes());
    file.extend(frame.to_le_bytes());
    file.extend(32_u16.to_le_bytes());
    file.extend(b"data");
    file.extend((samples.len() as u32).to_le_bytes());
    file.extend(samples);
    file
}

#[test]
fn single_bytes_give_the_same_bits() {
    for format in [
        format(Encoding::Float32, 44_100, 3),
        format(Encoding::Linear16, 16_000, 2),
        format(Encoding::ALaw, 8_000, 1),
    ] {
        let bytes = audio(format, 5, 900);
        let lanes = [Lane::mix(format.channels)];
        assert!(run(format, &lanes, bytes.chunks(1)) == run(format, &lanes, [&bytes[..]]));
    }
}

#[test]
fn sixteen_kilohertz_passes_untouched() {
    let samples = noise(3, 1_000, 0.99);
    let bytes = float_bytes(&samples);
    let format = format(Encoding::Float32, 16_000, 1);
    let (hops, tail, clipped) = run(format, &[Lane::channel(0)], [&bytes[..]]);
    assert_eq!(hops[..1_000], samples);
    assert!(hops[1_000..].iter().all(|&x| x == 0.0));
    assert_eq!((hops.len(), tail.unfinished_bytes, clipped), (1_024, 0, 0));
}

#[test]
fn a_lane_is_the_mean_of_its_channels_and_others_are_not_heard() {
    let frames = 512;
    let samples: Vec<f32> =
        (0..frames).flat_map(|n| [0.5, if n % 2 == 0 { 0.25 } else { -0.25 }, 0.9]).collect();
    let format = format(Encoding::Float32, 16_000, 3);
    let lanes = [Lane::of(&[0, 1]), Lane::channel(1)];
    let (hops, ..) = run(format, &lanes, [&float_bytes(&samples)[..]]);
    assert_eq!(hops[..4], [0.375, 0.125, 0.375, 0.125]);
    assert_eq!(hops[HOP_SAMPLES..HOP_SAMPLES + 2], [0.25, -0.25]);
}

#[test]
fn a_sample_that_is_no_number_ends_the_stream_where_it_is() {
    let mut samples = noise(1, 2 * 700, 0.5);
    samples[2 * 600 + 1] = f32::NAN;
    let bytes = float_bytes(&samples);
    let format = format(Encoding::Float32, 16_000, 2);
    for size in [1, 333, bytes.len()] {
        let mut intake = Intake::new(format, &Lane::separate(format.channels)).unwrap();
        let mut errors = bytes.chunks(size).filter_map(|chunk| intake.push(chunk).err());
        let error = errors.next().unwrap();
        assert!(matches!(error, AudioError::NonFinite { frame: 600, channel: 1 }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(intake.push(&[0; 8]).is_err(), "it stays broken");
        assert_eq!(intake.received().frames, 600);
        assert_eq!(intake.next_hop().unwrap().lane(0).unwrap()[0], samples[0]);
    }
    // On a channel that nobody listens to it does not count.
    let mut intake = Intake::new(format, &[Lane::channel(0)]).unwrap();
    intake.push(&bytes).unwrap();
}

#[test]
fn clipping_is_counted_per_lane_and_once() {
    let format = format(Encoding::Linear16, 8_000, 2);
    let frames: Vec<u8> = (0..100)
        .flat_map(|n| [if (10..20).contains(&n) { i16::MAX } else { 0 }, 100])
        .flat_map(i16::to_le_bytes)
        .collect();
    let mut intake = Intake::new(format, &Lane::separate(format.channels)).unwrap();
    for chunk in frames.chunks(7) {
        intake.push(chunk).unwrap();
    }
    assert_eq!((intake.take_clipped(0), intake.take_clipped(1)), (10, 0));
    assert_eq!(intake.take_clipped(0), 0);
    assert_eq!(intake.take_clipped(99), 0);
}

#[test]
fn audio_after_the_end_is_refused() {
    let mut intake = Intake::new(format(Encoding::MuLaw, 8_000, 1), &[Lane::channel(0)]).unwrap();
    intake.push(&[0xff; 80]).unwrap();
    let tail = intake.finish().unwrap();
    assert_eq!(tail.received.end, SamplePos(160));
    assert_eq!(intake.finish().unwrap(), tail);
    assert!(matches!(intake.push(&[0]), Err(AudioError::AfterFinish { frames: 80 })));
    assert!(intake.next_hop().is_some());
    assert!(intake.next_hop().is_none());
}

#[test]
fn a_megabyte_leaves_no_megabytes_behind() {
    let format = format(Encoding::MuLaw, 8_000, 1);
    let mut intake = Intake::new(format, &[Lane::channel(0)]).unwrap();
    intake.push(&vec![0xff; 1 << 20]).unwrap();
    let mut hops = 0;
    while intake.next_hop().is_some() {
        hops += 1;
    }
    assert_eq!(hops, (2 << 20) / 256 - 1, "all but what the resampler holds back");
    assert!(intake.line.ready_capacity() <= HOP_SAMPLES);
}

#[test]
fn what_was_received_is_in_the_hops_but_for_the_latency() {
    for hz in [8_000, 16_000, 22_050, 24_000, 44_100, 48_000] {
        let format = format(Encoding::Linear16, hz, 1);
        let mut intake = Intake::new(format, &[Lane::channel(0)]).unwrap();
        let mut hops = 0;
        for _ in 0..3_000 {
            intake.push(&[0; 34]).unwrap();
            while intake.next_hop().is_some() {
                hops += 1;
            }
            let owed = intake.received().end.0 - hops * HOP_SAMPLES as u64;
            assert!(owed <= HOP_SAMPLES as u64 + intake.latency_samples(), "{hz} Hz: {owed}");
        }
    }
}
