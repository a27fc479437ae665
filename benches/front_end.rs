//! CPU time of the front end. Every figure that criterion prints as a time is time *per second of
//! audio*.
//!
//! `cargo bench --bench front_end` measures stage by stage, and the way from bytes to hops at several
//! rates. `front_end_vs_librosa.py` compares it with librosa on the same audio; for that, `front_end --repeat N FILE` takes a file of 32-bit floats
//! (little-endian, 16 kHz, mono) N times through log-mel, reference and 40 MFCCs, and prints the last
//! coefficient.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement, not a library"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use undertone::audio::{AudioFormat, Encoding, Intake, Lane};
use undertone::features::{DEFAULT_COEFFICIENTS, FeatureStream, FrontEnd, MEL_BANDS};
use undertone::units::{ChannelCount, FRAME_SAMPLES, HOP_SAMPLES, SampleRate};

/// Two seconds of audio: the shortest whole number of hops that is whole seconds.
const HOPS: usize = 125;
const SECONDS: u32 = 2;

/// Hops of a chunk of 100 ms, which the service takes at once.
const CHUNK_HOPS: usize = 6;

/// A voice-like sound with a little noise.
fn audio() -> Vec<[f32; HOP_SAMPLES]> {
    let mut state = 1_u32;
    let mut sample = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = state as f32 / u32::MAX as f32 - 0.5;
        let phase = n as f32 * 140.0 / 16_000.0;
        0.3 * (1.0 - 2.0 * phase.fract()) + 0.01 * noise
    };
    (0..HOPS).map(|hop| std::array::from_fn(|n| sample(hop * HOP_SAMPLES + n))).collect()
}

/// Time per second of audio of `pass`, which works through [`SECONDS`] of it.
fn per_audio_second(passes: u64, mut pass: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..passes {
        pass();
    }
    start.elapsed() / SECONDS
}

fn stages(criterion: &mut Criterion) {
    let front = FrontEnd::new();
    let mut scratch = front.scratch();
    let audio = audio();
    let mut mfcc = [0.0; DEFAULT_COEFFICIENTS];
    let mut group = criterion.benchmark_group("per_audio_second");

    let mut stream = FeatureStream::new();
    group.bench_function("log_mel_mfcc_40", |bencher| {
        bencher.iter_custom(|passes| {
            per_audio_second(passes, || {
                for hop in &audio {
                    if let Some(frame) = stream.push(&front, &mut scratch, hop) {
                        front.mfcc(&frame.relative, &mut mfcc);
                        black_box(&mfcc);
                    }
                }
            })
        });
    });
    group.bench_function("log_mel", |bencher| {
        bencher.iter_custom(|passes| {
            per_audio_second(passes, || {
                for hop in &audio {
                    black_box(stream.push(&front, &mut scratch, hop));
                }
            })
        });
    });
    group.bench_function("log_mel_by_chunks", |bencher| {
        bencher.iter_custom(|passes| {
            per_audio_second(passes, || {
                for hops in audio.chunks(CHUNK_HOPS) {
                    black_box(stream.push_all(&front, &mut scratch, hops));
                }
            })
        });
    });
    for coefficients in [13, DEFAULT_COEFFICIENTS, MEL_BANDS] {
        let mut mfcc = vec![0.0; coefficients];
        group.bench_function(format!("mfcc_{coefficients}"), |bencher| {
            bencher.iter_custom(|passes| {
                per_audio_second(passes, || {
                    for _ in 0..HOPS {
                        front.mfcc(black_box(&[-30.0; MEL_BANDS]), &mut mfcc);
                        black_box(&mfcc);
                    }
                })
            });
        });
    }
    // What of log_mel is the FFT itself: the lower bound of any front end on this transform.
    let fft = FftPlanner::<f32>::new().plan_fft_forward(FRAME_SAMPLES / 2);
    let mut input = vec![Complex::new(0.1, -0.2); fft.len()];
    let mut output = input.clone();
    let mut work = vec![Complex::default(); fft.get_outofplace_scratch_len()];
    group.bench_function("fft_512_complex", |bencher| {
        bencher.iter_custom(|passes| {
            per_audio_second(passes, || {
                for _ in 0..HOPS {
                    fft.process_outofplace_with_scratch(&mut input, &mut output, &mut work);
                    black_box(&output);
                }
            })
        });
    });
    group.finish();
}

/// From the bytes of a mono stream to its hops, resampling being most of it.
fn intake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("intake_per_audio_second");
    for rate_hz in [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000] {
        let format = AudioFormat {
            encoding: Encoding::Linear16,
            rate: SampleRate::new(rate_hz).expect("a rate of a stream"),
            channels: ChannelCount::MONO,
        };
        let mut intake = Intake::new(format, &[Lane::channel(0)]).expect("a format of a stream");
        let bytes: Vec<u8> = (0..rate_hz * SECONDS)
            .flat_map(|n| ((n * 8_000 / rate_hz % 200) as i16 * 100 - 10_000).to_le_bytes())
            .collect();
        group.bench_function(format!("{rate_hz}_hz"), |bencher| {
            bencher.iter_custom(|passes| {
                per_audio_second(passes, || {
                    for slice in bytes.chunks(format.bytes_per_hop()) {
                        intake.push(slice).expect("samples are taken");
                        while let Some(hop) = intake.next_hop() {
                            black_box(hop.lanes().count());
                        }
                    }
                })
            });
        });
    }
    group.finish();
}

fn repeat(passes: usize, file: &str) {
    let bytes = std::fs::read(file).expect("the audio file must be readable");
    let (floats, _) = bytes.as_chunks::<4>();
    let samples: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let (hops, _) = samples.as_chunks::<HOP_SAMPLES>();
    let front = FrontEnd::new();
    let mut scratch = front.scratch();
    let mut mfcc = [0.0; DEFAULT_COEFFICIENTS];
    for _ in 0..passes {
        let mut stream = FeatureStream::new();
        for hops in hops.chunks(CHUNK_HOPS) {
            for frame in stream.push_all(&front, &mut scratch, hops) {
                front.mfcc(&frame.relative, &mut mfcc);
                black_box(&mfcc);
            }
        }
    }
    println!("{}", mfcc.last().copied().unwrap_or_default());
}

criterion_group!(benches, stages, intake);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, passes, file, ..] = arguments.as_slice()
        && flag == "--repeat"
    {
        repeat(passes.parse().expect("--repeat takes a number and a file"), file);
    } else {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
