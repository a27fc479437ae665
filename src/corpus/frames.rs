//! A clip as hops and frames: what the front end makes of it, for measuring and drawing.

use std::path::Path;

use super::logmel::Spectra;
use super::{Clip, ClipError, Sound};
use crate::audio::{AudioError, ClipHops, ClipReader, Lane};
use crate::features::voice::VoiceDetector;
use crate::features::{CausalReference, FeatureStream, Frame, FrontEnd, Scratch};
use crate::units::HOP_SAMPLES;

/// A frame counts as voice from this probability on.
const VOICE: f32 = 0.5;

/// The file's hops of 16 kHz, its channels mixed. Also its length in samples: the last hop is padded.
pub(super) fn hops(path: &Path) -> Result<(Vec<[f32; HOP_SAMPLES]>, usize), AudioError> {
    let reader = ClipReader::open(path)?;
    let lanes = [Lane::mix(reader.channels())];
    let mut clip = ClipHops::new(reader, &lanes)?;
    let mut hops = Vec::new();
    while let Some(hop) = clip.next_hop()? {
        hops.extend(hop.lane(0));
    }
    let samples = clip.received().end.0 as usize;
    Ok((hops, samples))
}

/// The frames of a file's hops: three fewer than there are hops.
pub(super) fn of_hops(
    hops: &[[f32; HOP_SAMPLES]],
    front: &FrontEnd,
    scratch: &mut Scratch,
) -> Vec<Frame> {
    let mut stream = FeatureStream::new();
    hops.iter().filter_map(|hop| stream.push(front, scratch, hop).cloned()).collect()
}

/// The frames of a spectrogram.
pub(super) fn of_rows(clip: &str, path: &Path, spectra: &Spectra) -> Result<Vec<Frame>, ClipError> {
    let rows = spectra.file(path).and_then(|file| file.rows(clip)).ok_or(ClipError::Missing)?;
    let mut reference = CausalReference::new();
    Ok(rows.zip(0..).map(|(row, i)| Frame::from_mel_db(i, row, &mut reference)).collect())
}

/// The share of a clip's frames in which the service's voice detector hears no voice, in [0, 1]; `None`
/// if it is shorter than a frame.
pub(super) fn pauses(
    clip: &Clip,
    spectra: &Spectra,
    front: &FrontEnd,
) -> Result<Option<f64>, ClipError> {
    let frames = match &clip.sound {
        Sound::File(path) => of_hops(&hops(path)?.0, front, &mut front.scratch()),
        Sound::LogMel(path) => of_rows(&clip.name, path, spectra)?,
    };
    let mut detector = VoiceDetector::new();
    let voiced = frames.iter().filter(|frame| detector.push(&frame.mel_db) >= VOICE).count();
    Ok((!frames.is_empty()).then(|| 1.0 - voiced as f64 / frames.len() as f64))
}
