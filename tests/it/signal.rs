//! Sound made here: speech-like syllables that the voice detector takes for a voice, tones, bursts,
//! silence; in every encoding, and as WAVE files. Nothing is recorded.

use std::f64::consts::TAU;
use std::sync::LazyLock;

use undertone::audio::Encoding;
use undertone::audio::g711::{A_LAW, MU_LAW};

/// Syllables per second of [`speech`].
const SYLLABLES_PER_S: f64 = 4.0;
/// A phrase and the pause behind it, in seconds; the pause is longer than the default hang-over.
const PHRASE_S: f64 = 1.5;
const PAUSE_S: f64 = 1.0;
/// The first two formants of five vowels, in Hz (a, e, i, o, u of an adult voice).
const VOWELS: [[f64; 2]; 5] =
    [[730.0, 1090.0], [530.0, 1840.0], [270.0, 2290.0], [570.0, 840.0], [300.0, 870.0]];

/// A source of numbers in [-1, 1), the same for the same seed.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> f32 {
        // xorshift64*: Vigna 2016, "An experimental exploration of Marsaglia's xorshift generators".
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        bits as f32 / (1 << 23) as f32 - 1.0
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((f64::from(self.next()) + 1.0) / 2.0 * bound as f64) as usize % bound
    }
}

/// Phrases of syllables with pauses between them, beginning after 0.3 s: harmonics of a gliding pitch
/// under moving formants.
pub(crate) fn speech(seed: u64, seconds: f64, rate_hz: u32) -> Vec<f32> {
    let mut noise = Noise::new(seed);
    let pitch = 150.0 + 40.0 * f64::from(noise.next());
    let first_vowel = noise.below(VOWELS.len());
    let rate = f64::from(rate_hz);
    let mut phase = 0.0;
    let mut gains = Vec::new();
    (0..(seconds * rate) as usize)
        .map(|n| {
            let t = n as f64 / rate;
            let hiss = 3e-4 * noise.next();
            let in_phrase = (t - 0.3).rem_euclid(PHRASE_S + PAUSE_S);
            let hz = pitch * (1.0 + 0.12 * (TAU * 0.7 * t).sin() + 0.03 * (TAU * 5.0 * t).sin());
            phase = (phase + TAU * hz / rate) % TAU;
            if t < 0.3 || in_phrase >= PHRASE_S {
                return hiss;
            }
            let syllable = in_phrase * SYLLABLES_PER_S;
            if n % 64 == 0 || gains.is_empty() {
                gains = gains_of(hz, VOWELS[(first_vowel + syllable as usize) % VOWELS.len()]);
            }
            let envelope = 0.15 + 0.85 * (TAU / 2.0 * syllable.fract()).sin();
            hiss + (0.25 * envelope * harmonics(phase, &gains)) as f32
        })
        .collect()
}

/// The strength of each harmonic of `hz` up to 3.6 kHz under `formants`; the sum of squares is 1.
fn gains_of(hz: f64, formants: [f64; 2]) -> Vec<f64> {
    let resonance =
        |f: f64, formant: f64, width: f64| 1.0 / (1.0 + ((f - formant) / width).powi(2));
    let mut gains: Vec<f64> = (1..=(3_600.0 / hz) as usize)
        .map(|k| {
            let f = k as f64 * hz;
            resonance(f, formants[0], 90.0) + resonance(f, formants[1], 140.0) + 0.3 / k as f64
        })
        .collect();
    let norm = gains.iter().map(|gain| gain * gain).sum::<f64>().sqrt();
    gains.iter_mut().for_each(|gain| *gain /= norm);
    gains
}

/// The sum of `gains[k - 1] sin(k phase)`.
fn harmonics(phase: f64, gains: &[f64]) -> f64 {
    // sin(k x) from the two before it: 2 cos(x) sin((k - 1) x) - sin((k - 2) x).
    let turn = 2.0 * phase.cos();
    let (mut before, mut now, mut sum) = (0.0, phase.sin(), 0.0);
    for gain in gains {
        sum += gain * now;
        (before, now) = (now, turn * now - before);
    }
    sum
}

/// Nearly nothing: hiss at -70 dBFS.
pub(crate) fn silence(seed: u64, seconds: f64, rate_hz: u32) -> Vec<f32> {
    let mut noise = Noise::new(seed);
    (0..(seconds * f64::from(rate_hz)) as usize).map(|_| 3e-4 * noise.next()).collect()
}

/// Channels of the same length, interleaved.
pub(crate) fn interleave(channels: &[Vec<f32>]) -> Vec<f32> {
    (0..channels[0].len()).flat_map(|n| channels.iter().map(move |channel| channel[n])).collect()
}

/// Samples in [-1, 1] as a stream carries them.
pub(crate) fn encode(samples: &[f32], encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Linear16 => samples
            .iter()
            .flat_map(|x| ((x * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).to_le_bytes())
            .collect(),
        Encoding::Float32 => samples.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Encoding::MuLaw => samples.iter().map(|x| nearest(&MU_LAW_CODES, *x)).collect(),
        Encoding::ALaw => samples.iter().map(|x| nearest(&A_LAW_CODES, *x)).collect(),
    }
}

/// The values of a G.711 table with their codes, ascending.
type Codes = Vec<(f32, u8)>;
static MU_LAW_CODES: LazyLock<Codes> = LazyLock::new(|| codes(&MU_LAW));
static A_LAW_CODES: LazyLock<Codes> = LazyLock::new(|| codes(&A_LAW));

fn codes(table: &[f32; 256]) -> Codes {
    let mut codes: Codes = table.iter().copied().zip(0..=255).collect();
    codes.sort_by(|a, b| a.0.total_cmp(&b.0));
    codes
}

fn nearest(codes: &Codes, x: f32) -> u8 {
    let above = codes.partition_point(|(value, _)| *value < x).min(codes.len() - 1);
    let below = above.saturating_sub(1);
    let best = if (codes[above].0 - x).abs() < (x - codes[below].0).abs() { above } else { below };
    codes[best].1
}

/// A WAVE file of samples that are encoded already.
pub(crate) fn wav(encoding: Encoding, rate_hz: u32, channels: u16, data: &[u8]) -> Vec<u8> {
    // Format tags of RFC 2361.
    let (tag, bytes): (u16, u16) = match encoding {
        Encoding::Linear16 => (1, 2),
        Encoding::Float32 => (3, 4),
        Encoding::ALaw => (6, 1),
        Encoding::MuLaw => (7, 1),
    };
    let frame = channels * bytes;
    // All but integer PCM say how many bytes of extension follow: none.
    let extension: &[u8] = if tag == 1 { &[] } else { &[0, 0] };
    let head = 20 + 16 + extension.len() + 8;
    let mut file = Vec::with_capacity(head + data.len());
    file.extend(b"RIFF");
    file.extend(((head - 8 + data.len()) as u32).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend((16 + extension.len() as u32).to_le_bytes());
    file.extend(tag.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate_hz.to_le_bytes());
    file.extend((rate_hz * u32::from(frame)).to_le_bytes());
    file.extend(frame.to_le_bytes());
    file.extend((8 * bytes).to_le_bytes());
    file.extend(extension);
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}
