//! What the streams of a load test say: one stretch of audio, encoded and cut once, shared by all.
//!
//! In: nothing, or a file. Out: chunks of equal length that every stream walks round and round, each
//! from a place of its own, so that at any moment some speak and some pause.

use std::f32::consts::{PI, TAU};
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};

use crate::audio::{ClipHops, ClipReader, Lane, g711};
use crate::commands::client::{Encoding, to_linear16};
use crate::units::{MODEL_RATE_HZ, SampleRate};
use crate::wire::v1;

/// Length of the built-in signal before it repeats, in seconds. Many times longer than what the server
/// remembers of a stream.
const LOOP_SECONDS: u32 = 40;
/// Most of a file that is used, in seconds: 15 MB at 16 kHz.
const FILE_SECONDS: usize = 480;

/// Mono audio, encoded and cut.
#[derive(Debug)]
pub(super) struct LoopedAudio {
    encoding: Encoding,
    rate_hz: u32,
    frames_per_chunk: u32,
    chunks: Vec<Bytes>,
}

impl LoopedAudio {
    /// The built-in signal: sounds that a voice detector takes for speech, syllables of harmonics under
    /// formants with pauses between the phrases. Nobody's voice.
    pub(super) fn built_in(
        encoding: Encoding,
        rate_hz: u32,
        chunk_ms: u32,
    ) -> anyhow::Result<Self> {
        let samples = Voice::new(rate_hz).speak((LOOP_SECONDS * rate_hz) as usize);
        Self::cut(encoding, rate_hz, chunk_ms, &samples)
    }

    /// A file, its channels mixed, at its own rate where a stream may have it.
    pub(super) fn file(path: &Path, encoding: Encoding, chunk_ms: u32) -> anyhow::Result<Self> {
        let named = |error| anyhow!("{}: {error}", path.display());
        let (samples, rate_hz) = decode(path).map_err(named)?;
        Self::cut(encoding, rate_hz, chunk_ms, &samples).map_err(named)
    }

    fn cut(
        encoding: Encoding,
        rate_hz: u32,
        chunk_ms: u32,
        samples: &[f32],
    ) -> anyhow::Result<Self> {
        let frames_per_chunk = (rate_hz * chunk_ms).div_euclid(1000).max(1);
        // The last chunk is dropped unless it is whole: all chunks last equally long.
        let chunks: Vec<Bytes> = samples
            .chunks_exact(frames_per_chunk as usize)
            .map(|samples| encode(encoding, samples))
            .collect();
        ensure!(!chunks.is_empty(), "is shorter than one chunk of {chunk_ms} ms");
        Ok(Self { encoding, rate_hz, frames_per_chunk, chunks })
    }

    /// The chunks before they repeat.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Chunk `index`, round and round.
    pub(super) fn chunk(&self, index: u64) -> Bytes {
        let index = index as usize % self.chunks.len().max(1);
        self.chunks.get(index).cloned().unwrap_or_default()
    }

    /// How long one chunk sounds.
    pub(super) fn chunk_duration(&self) -> Duration {
        self.duration(1)
    }

    /// How long `chunks` chunks sound.
    pub(super) fn duration(&self, chunks: u64) -> Duration {
        let frames = u128::from(chunks) * u128::from(self.frames_per_chunk);
        let nanos = frames * 1_000_000_000 / u128::from(self.rate_hz);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The chunk that completes the audio up to `end`: the estimate that ends there cannot have been
    /// made before it was sent.
    pub(super) fn completed_by(&self, end: Duration) -> u64 {
        let frames = (end.as_nanos() * u128::from(self.rate_hz)).div_ceil(1_000_000_000);
        let chunks = frames.div_ceil(u128::from(self.frames_per_chunk));
        u64::try_from(chunks).unwrap_or(u64::MAX).saturating_sub(1)
    }

    /// What a stream of it says about its audio.
    pub(super) fn format(&self) -> v1::AudioFormat {
        v1::AudioFormat {
            encoding: self.encoding.wire().into(),
            sample_rate_hz: self.rate_hz,
            channel_count: 1,
            ..v1::AudioFormat::default()
        }
    }
}

fn decode(path: &Path) -> anyhow::Result<(Vec<f32>, u32)> {
    let mut reader = ClipReader::open(path)?;
    let channels = reader.channels();
    let mut samples = Vec::new();
    if SampleRate::new(reader.rate_hz()).is_err() {
        let mut hops = ClipHops::new(reader, &[Lane::mix(channels)])?;
        while let Some(hop) = hops.next_hop()? {
            if samples.len() >= FILE_SECONDS * MODEL_RATE_HZ as usize {
                break;
            }
            hop.lanes().for_each(|lane| samples.extend_from_slice(lane));
        }
        return Ok((samples, MODEL_RATE_HZ));
    }
    let rate_hz = reader.rate_hz();
    while let Some(packet) = reader.next_packet()? {
        if samples.len() >= FILE_SECONDS * rate_hz as usize {
            break;
        }
        let frames = packet.chunks_exact(channels.get());
        samples.extend(frames.map(|frame| frame.iter().sum::<f32>() / channels.get() as f32));
    }
    Ok((samples, rate_hz))
}

fn encode(encoding: Encoding, samples: &[f32]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(samples.len() * encoding.sample_bytes());
    for &sample in samples {
        match encoding {
            Encoding::Linear16 => bytes.put_i16_le(to_linear16(sample)),
            Encoding::Float32 => bytes.put_f32_le(sample),
            Encoding::Mulaw => bytes.put_u8(nearest(&g711::MU_LAW, sample)),
            Encoding::Alaw => bytes.put_u8(nearest(&g711::A_LAW, sample)),
        }
    }
    bytes.freeze()
}

/// The code of `table` whose value is nearest to `sample`.
fn nearest(table: &[f32; 256], sample: f32) -> u8 {
    let distance = |value: &f32| (value - sample).abs();
    let codes = (0..=u8::MAX).zip(table);
    codes.min_by(|(_, a), (_, b)| distance(a).total_cmp(&distance(b))).map_or(0, |(code, _)| code)
}

/// Formants of a vowel: centre and width in Hz, and level, of the first three (after Peterson & Barney
/// 1952, "Control methods used in a study of the vowels", J. Acoust. Soc. Am. 24, adult means).
type Vowel = [(f32, f32, f32); 3];

const VOWELS: [Vowel; 5] = [
    [(730.0, 90.0, 1.0), (1090.0, 110.0, 0.6), (2440.0, 170.0, 0.15)],
    [(530.0, 80.0, 1.0), (1840.0, 120.0, 0.4), (2480.0, 170.0, 0.2)],
    [(270.0, 70.0, 1.0), (2290.0, 140.0, 0.25), (3010.0, 200.0, 0.15)],
    [(570.0, 80.0, 1.0), (840.0, 100.0, 0.7), (2410.0, 170.0, 0.1)],
    [(300.0, 70.0, 1.0), (870.0, 100.0, 0.4), (2240.0, 170.0, 0.1)],
];

/// Harmonics that are sounded at most: up to 4 kHz at the lowest pitch.
const HARMONICS: usize = 40;

/// Level of the speech: some -20 dBFS within syllables, as a good headset gives.
const LOUDNESS: f32 = 0.25;
/// Level of the room: about -70 dBFS.
const ROOM: f32 = 0.000_5;

/// Sounds like speech to a voice detector.
struct Voice {
    rate_hz: f32,
    random: fastrand::Rng,
    samples: Vec<f32>,
}

impl Voice {
    fn new(rate_hz: u32) -> Self {
        // The same signal in every run.
        Self { rate_hz: rate_hz as f32, random: fastrand::Rng::with_seed(42), samples: Vec::new() }
    }

    /// `length` samples: phrases until no whole one fits, then the room.
    fn speak(mut self, length: usize) -> Vec<f32> {
        loop {
            let before = self.samples.len();
            self.phrase();
            let pause = self.between(0.5, 1.1);
            self.samples.resize(self.samples.len() + (pause * self.rate_hz) as usize, 0.0);
            if self.samples.len() > length {
                self.samples.truncate(before);
                break;
            }
        }
        self.samples.resize(length, 0.0);
        for sample in &mut self.samples {
            *sample += ROOM * (2.0 * self.random.f32() - 1.0);
        }
        self.samples
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.random.f32()
    }

    /// Four to eleven syllables with falling pitch.
    fn phrase(&mut self) {
        let syllables = self.random.usize(4..=11);
        let pitch = self.between(110.0, 210.0);
        for index in 0..syllables {
            let fall = 1.0 - 0.25 * index as f32 / syllables as f32;
            let accent = self.between(0.92, 1.12);
            if self.random.f32() < 0.5 {
                self.consonant();
            }
            self.syllable(pitch * fall * accent);
        }
    }

    /// A hiss of 40 to 80 ms.
    fn consonant(&mut self) {
        let length = (self.between(0.04, 0.08) * self.rate_hz) as usize;
        let mut last = 0.0;
        for n in 0..length {
            let noise = 2.0 * self.random.f32() - 1.0;
            let envelope = (PI * n as f32 / length as f32).sin();
            // The difference takes the low frequencies out.
            self.samples.push(0.15 * LOUDNESS * envelope * (noise - last));
            last = noise;
        }
    }

    /// A vowel of 120 to 260 ms whose pitch glides about `pitch_hz`.
    fn syllable(&mut self, pitch_hz: f32) {
        let vowel = VOWELS.get(self.random.usize(..VOWELS.len())).unwrap_or(&VOWELS[0]);
        let top_hz = (self.rate_hz * 0.45).min(4_000.0);
        let mut levels = [0.0; HARMONICS];
        for (level, harmonic) in levels.iter_mut().zip(1_u16..) {
            let hz = f32::from(harmonic) * pitch_hz;
            if hz < top_hz {
                *level = formants(vowel, hz);
            }
        }
        let power: f32 = levels.iter().map(|level| level * level).sum();
        let loudness = LOUDNESS * self.between(0.6, 1.0) / power.sqrt().max(1e-6);
        let length = (self.between(0.12, 0.26) * self.rate_hz) as usize;
        let glide = self.between(-0.08, 0.08);
        let mut phase = self.random.f32();
        for n in 0..length {
            let at = n as f32 / length as f32;
            phase = (phase + pitch_hz * (1.0 + glide * at) / self.rate_hz).fract();
            let envelope = (PI * at).sin().sqrt();
            self.samples.push(loudness * envelope * harmonics(phase, &levels));
        }
    }
}

fn formants(vowel: &Vowel, hz: f32) -> f32 {
    vowel.iter().map(|(centre, width, level)| level / (1.0 + ((hz - centre) / width).powi(2))).sum()
}

/// The sum of `levels[h - 1] * sin(h x)`, by Chebyshev's recurrence: two trigonometric functions for
/// all of them.
fn harmonics(phase: f32, levels: &[f32; HARMONICS]) -> f32 {
    let (sin, cos) = (TAU * phase).sin_cos();
    let (mut before, mut now, mut sum) = (0.0, sin, 0.0);
    for level in levels {
        sum += level * now;
        (before, now) = (now, 2.0 * cos * now - before);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::voice::VoiceDetector;
    use crate::features::{FeatureStream, FrontEnd};
    use crate::units::HOP_SAMPLES;

    #[test]
    fn the_built_in_signal_is_heard_as_speech_for_about_two_thirds_of_the_time() {
        let samples = Voice::new(16_000).speak(16_000 * LOOP_SECONDS as usize);
        assert!(samples.iter().all(|sample| sample.abs() < 0.99));
        let front_end = FrontEnd::new();
        let mut scratch = front_end.scratch();
        let (mut stream, mut detector) = (FeatureStream::new(), VoiceDetector::new());
        let (mut hops, mut voiced) = (0.0, 0.0);
        for hop in samples.as_chunks::<HOP_SAMPLES>().0 {
            if let Some(frame) = stream.push(&front_end, &mut scratch, hop) {
                hops += 1.0;
                voiced += f32::from(u8::from(detector.push(&frame.mel_db) >= 0.5));
            }
        }
        let ratio = voiced / hops;
        assert!((0.58..0.75).contains(&ratio), "{ratio}");
    }

    #[test]
    fn an_estimate_is_held_against_the_chunk_that_completed_its_audio() {
        let audio = LoopedAudio::cut(Encoding::Linear16, 16_000, 100, &[0.0; 16_000]).unwrap();
        let at = |ms| audio.completed_by(Duration::from_millis(ms));
        assert_eq!(audio.len(), 10);
        assert_eq!((at(0), at(1), at(100), at(101), at(512)), (0, 0, 0, 1, 5));
        // 512 ms are 4,096 frames of 8 kHz, in chunks of 800.
        let audio = LoopedAudio::cut(Encoding::Mulaw, 8_000, 100, &[0.0; 8_000]).unwrap();
        assert_eq!(audio.completed_by(Duration::from_millis(512)), 5);
    }

    #[test]
    fn chunks_that_last_no_whole_milliseconds_do_not_drift() {
        // 100 ms of 11,025 Hz are 1,102.5 frames: chunks have 1,102.
        let audio = LoopedAudio::cut(Encoding::Linear16, 11_025, 100, &[0.0; 11_025]).unwrap();
        let hour = audio.duration(36_000);
        assert_eq!(hour.as_nanos(), 36_000 * 1_102 * 1_000_000_000 / 11_025);
        assert_eq!(audio.completed_by(hour), 35_999);
    }

    #[test]
    fn g711_codes_survive_encoding() {
        for code in 0..=u8::MAX {
            let value = g711::MU_LAW[usize::from(code)];
            assert_eq!(g711::MU_LAW[usize::from(nearest(&g711::MU_LAW, value))], value);
            let value = g711::A_LAW[usize::from(code)];
            assert_eq!(g711::A_LAW[usize::from(nearest(&g711::A_LAW, value))], value);
        }
    }
}
