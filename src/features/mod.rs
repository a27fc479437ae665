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
//! 2. [`FeatureStream::push`] and [`FrontEnd::mfcc`] allocate nothing.
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

use crate::units::HOP_SAMPLES;
use cosine::CosineTransform;
use mel::MelFilterbank;
use pulp::{Arch, Simd, WithSimd};
pub use reference::{CausalReference, DECAY_DB_PER_SECOND, LOWEST_REFERENCE_DB, RANGE_DB};
use spectrum::{FrameSamples, Spectrum, SpectrumScratch};

/// Mel bands of a frame.
pub const MEL_BANDS: usize = 128;
/// Coefficients in an MFCC vector unless a model asks for another number; the original project's.
pub const DEFAULT_COEFFICIENTS: usize = 40;
/// Most coefficients an MFCC vector can have: the transform of 128 values has no more.
pub const MAX_COEFFICIENTS: usize = MEL_BANDS;

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
    frame: Frame,
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
        Scratch { spectrum: self.spectrum.scratch(), frame: Frame::default() }
    }

    /// The first `coefficients.len()` MFCCs of a frame's relative log-mel, dB. There are
    /// [`MAX_COEFFICIENTS`]; elements beyond them become 0.
    pub fn mfcc(&self, relative: &[f32; MEL_BANDS], coefficients: &mut [f32]) {
        self.arch.dispatch(Cepstrum { cosine: &self.cosine, relative, coefficients });
    }

    /// Computes a frame of `samples`.
    fn frame<'a>(
        &self,
        index: u64,
        samples: &FrameSamples<'_>,
        reference: &mut CausalReference,
        scratch: &'a mut Scratch,
    ) -> &'a Frame {
        let Scratch { spectrum: buffers, frame } = scratch;
        self.arch.dispatch(Window { spectrum: &self.spectrum, samples, scratch: buffers });
        self.spectrum.transform(buffers);
        frame.index = index;
        self.arch.dispatch(LogMel { front: self, scratch: buffers, frame, reference });
        frame
    }
}

// The three kernels between and around the FFT. What `WithSimd` runs is compiled once per instruction
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

struct LogMel<'a> {
    front: &'a FrontEnd,
    scratch: &'a mut SpectrumScratch,
    frame: &'a mut Frame,
    reference: &'a mut CausalReference,
}

impl WithSimd for LogMel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let FrontEnd { spectrum, mel, .. } = self.front;
        mel.apply(simd, spectrum.power(self.scratch), &mut self.frame.mel_db);
        decibel::power_to_db(&mut self.frame.mel_db);
        self.frame.relate(self.reference);
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
        let index = self.hops.checked_sub(PAST_HOPS as u64);
        let frame = index.map(|index| {
            let [a, b, c] = &self.past;
            // The oldest hop lies in the slot that this one will take.
            let samples = match self.hops % PAST_HOPS as u64 {
                0 => [a, b, c, hop],
                1 => [b, c, a, hop],
                _ => [c, a, b, hop],
            };
            front.frame(index, &samples, &mut self.reference, scratch)
        });
        if let Some(slot) = self.past.get_mut((self.hops % PAST_HOPS as u64) as usize) {
            slot.copy_from_slice(hop);
        }
        self.hops += 1;
        frame
    }

    /// Hops pushed so far.
    pub fn hops(&self) -> u64 {
        self.hops
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
