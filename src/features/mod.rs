//! Framing, log-mel and MFCCs: hops of 16 kHz mono in, one feature vector per hop out.
//!
//! ```text
//! hop, 256 samples in [-1, 1]
//!   -> frame, 1,024 samples, periodic Hann window        (this file, spectrum)
//!   -> power spectrum, 513 bins, 0 to 8 kHz              (spectrum)
//!   -> 128 mel bands, Slaney scale and area norm         (mel)
//!   -> 10 log10(max(power, 1e-10)), dB                   (decibel)
//!   -> relative to the causal reference, in [-80, 0] dB  (reference)
//!   -> DCT-II, orthonormal, first n coefficients         (cosine)
//! ```
//!
//! Frame `i` covers the samples `256 i .. 256 i + 1024`, so the first frame comes with the fourth
//! hop and no frame looks past the hop that completes it. Up to the reference this is
//! `librosa.feature.mfcc(sr=16000, n_fft=1024, hop_length=256, n_mels=128, n_mfcc=n, center=False)`
//! with `top_db=None`; golden vectors hold it to that. librosa's own `top_db` needs the maximum of
//! the whole clip, which no stream can know; [`CausalReference`] stands in for it.
//!
//! Three types, by lifetime. [`FrontEnd`] holds tables and the FFT plan: one per process, immutable,
//! shared. [`Scratch`] holds work buffers: one per worker thread. [`FeatureStream`] is what one
//! channel of one session owns: 3 KiB of past samples and a few numbers.
//!
//! What always holds:
//! 1. Features depend on the samples alone. Arithmetic runs on whole hops in one order, so chunks of
//!    any size give features identical to the bit (on one machine: another instruction set may fuse
//!    multiplications and additions, and may differ in the last bits).
//! 2. [`FeatureStream::push`] and [`FrontEnd::mfcc`] allocate nothing, nor does
//!    [`FeatureStream::push_all`] for up to [`BATCH_HOPS`] hops.
//! 3. Finite samples give finite features; `relative` is in [-80, 0].
//!
//! The transform is single precision: its noise lies some 160 dB below a frame's strongest line, so
//! that a band at the -80 dB floor is right to about 1e-3 dB, and weaker ones are never looked at.
//! The kernels are loops over arrays of fixed size, compiled for AVX2 and FMA as well as for the
//! baseline; [`pulp`] chooses at run time.

#![allow(
    clippy::inline_always,
    reason = "kernels must be compiled into the function that has the instruction set"
)]

mod cosine;
mod decibel;
mod mel;
mod reference;
mod spectrum;
pub mod voice;

use crate::state::{Misfit, Numbers};
use crate::units::{FRAME_SAMPLES, HOP_SAMPLES};
use cosine::CosineTransform;
use mel::MelFilterbank;
pub use mel::band_of_hz;
use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

pub use reference::{CausalReference, DECAY_DB_PER_SECOND, LOWEST_REFERENCE_DB, RANGE_DB};
use spectrum::{FrameSamples, PADDED_BINS, Spectrum, SpectrumScratch};

/// Mel bands of a frame.
pub const MEL_BANDS: usize = 128;
/// Coefficients in an MFCC vector unless a model asks for another number; the original project's.
pub const DEFAULT_COEFFICIENTS: usize = 40;
/// Most coefficients an MFCC vector can have: the transform of 128 values has no more.
pub const MAX_COEFFICIENTS: usize = MEL_BANDS;

/// Bins of a power spectrum: 0 Hz to 8 kHz, 15.625 Hz apart.
pub const SPECTRUM_BINS: usize = spectrum::BINS;

/// Hops that [`FeatureStream::push_all`] takes without allocating. More than a chunk of 100 ms has.
pub const BATCH_HOPS: usize = 8;

/// Hops before the current one that a frame reaches back to.
const PAST_HOPS: usize = 3;

/// Tables and the FFT plan: immutable, one per process, shared.
#[derive(Debug)]
pub struct FrontEnd {
    arch: Arch,
    spectrum: Spectrum,
    mel: MelFilterbank,
    cosine: CosineTransform,
}

/// Work buffers of one worker thread; nothing in them outlives a call.
#[derive(Debug)]
pub struct Scratch {
    spectrum: SpectrumScratch,
    powers: Vec<[f32; PADDED_BINS]>,
    frames: Vec<Frame>,
}

/// What one 64 ms frame gives before the cosine transform.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Frame number from 0; the frame begins with the hop of the same number.
    pub index: u64,
    /// Absolute log-mel, lowest band first, dB; never below -100.
    pub mel_db: [f32; MEL_BANDS],
    /// The causal reference after this frame, dB.
    pub reference_db: f32,
    /// Log-mel relative to the reference and floored, in [-80, 0] dB: what models see.
    pub relative: [f32; MEL_BANDS],
}

/// The front end's memory of one channel: the last three hops and the causal reference.
#[derive(Debug, Clone)]
pub struct FeatureStream {
    /// Hop `h` lies in slot `h % 3`.
    past: [[f32; HOP_SAMPLES]; PAST_HOPS],
    hops: u64,
    reference: CausalReference,
}

/// What a [`FeatureStream`] carries from one hop to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureState {
    /// The last hops, oldest first.
    past: Numbers,
    /// Level and age of the reference's peak.
    peak: (f32, u32),
}

/// The largest sample and level that are believed of a saved state: full scale is 1, and reaches 35 dB.
const MOST: f32 = 1e3;

impl FrontEnd {
    /// Computes the tables and plans the transform; some milliseconds, once per process.
    pub fn new() -> Self {
        Self {
            arch: Arch::new(),
            spectrum: Spectrum::new(),
            mel: MelFilterbank::new(),
            cosine: CosineTransform::new(),
        }
    }

    /// Work buffers that fit this front end.
    pub fn scratch(&self) -> Scratch {
        Scratch {
            spectrum: self.spectrum.scratch(),
            powers: vec![[0.0; PADDED_BINS]; BATCH_HOPS],
            frames: vec![Frame::default(); BATCH_HOPS],
        }
    }

    /// The first `coefficients.len()` MFCCs of a frame's relative log-mel, dB. There are
    /// [`MAX_COEFFICIENTS`]; elements beyond them become 0.
    pub fn mfcc(&self, relative: &[f32; MEL_BANDS], coefficients: &mut [f32]) {
        self.arch.dispatch(Cepstrum { cosine: &self.cosine, relative, coefficients });
    }

    /// The power spectrum of one frame under the periodic Hann window, from 0 Hz up: what the mel bands
    /// are summed from. For pictures of speech; models see none of it.
    pub fn power_spectrum(
        &self,
        frame: &[f32; FRAME_SAMPLES],
        scratch: &mut Scratch,
    ) -> [f32; SPECTRUM_BINS] {
        let mut power = [0.0; PADDED_BINS];
        if let ([a, b, c, d], _) = frame.as_chunks::<HOP_SAMPLES>() {
            self.power(&[a, b, c, d], &mut scratch.spectrum, &mut power);
        }
        power.first_chunk().copied().unwrap_or([0.0; SPECTRUM_BINS])
    }

    /// The power spectrum of `samples`.
    fn power(
        &self,
        samples: &FrameSamples<'_>,
        scratch: &mut SpectrumScratch,
        power: &mut [f32; PADDED_BINS],
    ) {
        self.arch.dispatch(Window { spectrum: &self.spectrum, samples, scratch });
        self.spectrum.transform(scratch);
        self.arch.dispatch(Power { spectrum: &self.spectrum, scratch, into: power });
    }
}

// The kernels between and around the FFT. What `WithSimd` runs is compiled once per instruction
// set, with everything that it inlines; hence types with an `inline(always)` method, not closures.

struct Window<'a> {
    spectrum: &'a Spectrum,
    samples: &'a FrameSamples<'a>,
    scratch: &'a mut SpectrumScratch,
}

impl WithSimd for Window<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.spectrum.window(self.samples, self.scratch);
    }
}

struct Power<'a> {
    spectrum: &'a Spectrum,
    scratch: &'a SpectrumScratch,
    into: &'a mut [f32; PADDED_BINS],
}

impl WithSimd for Power<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.spectrum.power(self.scratch, self.into);
    }
}

struct LogMel<'a> {
    mel: &'a MelFilterbank,
    powers: &'a [[f32; PADDED_BINS]],
    frames: &'a mut [Frame],
    reference: &'a mut CausalReference,
}

impl WithSimd for LogMel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (power, frame) in self.powers.iter().zip(self.frames) {
            self.mel.apply(simd, power, &mut frame.mel_db);
            decibel::power_to_db(&mut frame.mel_db);
            frame.relate(self.reference);
        }
    }
}

struct Cepstrum<'a> {
    cosine: &'a CosineTransform,
    relative: &'a [f32; MEL_BANDS],
    coefficients: &'a mut [f32],
}

impl WithSimd for Cepstrum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.cosine.transform(simd, self.relative, self.coefficients);
    }
}

impl Default for FrontEnd {
    fn default() -> Self {
        Self::new()
    }
}

impl Frame {
    /// A frame of a log-mel spectrum that was computed elsewhere, taken through the same reference
    /// and floor as live audio.
    pub fn from_mel_db(
        index: u64,
        mel_db: [f32; MEL_BANDS],
        reference: &mut CausalReference,
    ) -> Self {
        let mut frame = Self { index, mel_db, ..Self::default() };
        frame.relate(reference);
        frame
    }

    /// Fills what follows from `mel_db`.
    #[inline(always)]
    fn relate(&mut self, reference: &mut CausalReference) {
        let reference_db = reference.observe(loudest(&self.mel_db));
        let floor_db = reference_db - RANGE_DB;
        for (relative, &level) in self.relative.iter_mut().zip(&self.mel_db) {
            // `level - reference_db` may round to a hair under -80.
            let above = if level > floor_db { level - reference_db } else { -RANGE_DB };
            *relative = if above > -RANGE_DB { above } else { -RANGE_DB };
        }
        self.reference_db = reference_db;
    }
}

impl Default for Frame {
    fn default() -> Self {
        let silence = [0.0; MEL_BANDS];
        Self { index: 0, mel_db: silence, reference_db: 0.0, relative: silence }
    }
}

impl FeatureStream {
    /// A stream that has heard nothing.
    pub fn new() -> Self {
        Self { past: [[0.0; HOP_SAMPLES]; PAST_HOPS], hops: 0, reference: CausalReference::new() }
    }

    /// Takes the next hop and gives the frame that it completes: none for the first three hops, one
    /// for every later one. Samples are finite and in [-1, 1].
    pub fn push<'a>(
        &mut self,
        front: &FrontEnd,
        scratch: &'a mut Scratch,
        hop: &[f32; HOP_SAMPLES],
    ) -> Option<&'a Frame> {
        self.push_all(front, scratch, std::slice::from_ref(hop)).first()
    }

    /// Takes the next hops and gives the frames that they complete, the same to the bit as those of
    /// [`Self::push`] hop by hop. Stage by stage for all of them is faster: the tables and buffers of
    /// one stage fit the first-level cache, those of all stages do not.
    pub fn push_all<'a>(
        &mut self,
        front: &FrontEnd,
        scratch: &'a mut Scratch,
        hops: &[[f32; HOP_SAMPLES]],
    ) -> &'a [Frame] {
        let Scratch { spectrum, powers, frames } = scratch;
        if frames.len() < hops.len() {
            powers.resize(hops.len(), [0.0; PADDED_BINS]);
            frames.resize(hops.len(), Frame::default());
        }
        let mut places = powers.iter_mut().zip(frames.iter_mut());
        let mut count = 0;
        for hop in hops {
            if let Some(index) = self.hops.checked_sub(PAST_HOPS as u64)
                && let Some((power, frame)) = places.next()
            {
                let [a, b, c] = &self.past;
                // The oldest hop lies in the slot that this one will take.
                let samples = match self.hops % PAST_HOPS as u64 {
                    0 => [a, b, c, hop],
                    1 => [b, c, a, hop],
                    _ => [c, a, b, hop],
                };
                front.power(&samples, spectrum, power);
                frame.index = index;
                count += 1;
            }
            if let Some(slot) = self.past.get_mut((self.hops % PAST_HOPS as u64) as usize) {
                slot.copy_from_slice(hop);
            }
            self.hops += 1;
        }
        let frames = frames.get_mut(..count).unwrap_or_default();
        let reference = &mut self.reference;
        front.arch.dispatch(LogMel { mel: &front.mel, powers, frames: &mut *frames, reference });
        frames
    }

    /// Hops pushed so far.
    pub fn hops(&self) -> u64 {
        self.hops
    }

    /// What must be kept for the stream to be gone on with elsewhere, but for the number of its hops.
    pub fn state(&self) -> FeatureState {
        let kept = self.hops.min(PAST_HOPS as u64);
        let mut past = Vec::with_capacity(PAST_HOPS * HOP_SAMPLES);
        for hop in self.hops - kept..self.hops {
            past.extend(self.past.iter().skip((hop % PAST_HOPS as u64) as usize).take(1).flatten());
        }
        FeatureState { past: Numbers::of(&past), peak: self.reference.peak() }
    }

    /// A stream that goes on, to the bit, as the one would have whose state it was after `hops` hops.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn resume(hops: u64, state: &FeatureState) -> Result<Self, Misfit> {
        let kept = hops.min(PAST_HOPS as u64);
        let samples = state.past.checked(kept as usize * HOP_SAMPLES, MOST, "last hops")?;
        let (peak_db, age_hops) = state.peak;
        Misfit::outside([&peak_db], &(LOWEST_REFERENCE_DB..=MOST), "reference level")?;
        let mut stream =
            Self { hops, reference: CausalReference::from_peak(peak_db, age_hops), ..Self::new() };
        let (past, _) = samples.as_chunks::<HOP_SAMPLES>();
        for (hop, samples) in (hops - kept..hops).zip(past) {
            if let Some(slot) = stream.past.get_mut((hop % PAST_HOPS as u64) as usize) {
                *slot = *samples;
            }
        }
        Ok(stream)
    }

    /// The causal reference as it stands.
    pub fn reference(&self) -> CausalReference {
        self.reference
    }
}

impl Default for FeatureStream {
    fn default() -> Self {
        Self::new()
    }
}

/// The loudest band, dB. Eight running maxima, so that it vectorises.
fn loudest(mel_db: &[f32; MEL_BANDS]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (groups, _) = mel_db.as_chunks::<8>();
    for group in groups {
        for (lane, &level) in lanes.iter_mut().zip(group) {
            *lane = if level > *lane { level } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests;
