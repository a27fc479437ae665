//! Spectrograms in place of audio: a `logmel.npz` with `frames` uint8 [n, 128], `offsets` int64
//! [clips + 1] and `clips` names.
//!
//! A row is one 16 ms hop, lowest band first, in dB relative to the clip's loudest band:
//! `v / 255 * 80 - 80`. Frames are centred on their hop, which shifts them by half a frame against live
//! ones; features must not depend on that, nor on the level.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek};
use std::path::Path;

use zip::ZipArchive;

use crate::features::MEL_BANDS;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct LogMelError {
    /// The file.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

/// The spectrograms of many clips.
#[derive(Debug)]
pub struct LogMel {
    frames: Vec<u8>,
    ranges: HashMap<String, (usize, usize)>,
}

impl LogMel {
    /// Reads the file into memory (130 MB for all of CREMA-D).
    ///
    /// # Errors
    /// [`LogMelError`].
    pub fn open(path: &Path) -> Result<Self, LogMelError> {
        let failed = |problem: String| LogMelError { path: path.display().to_string(), problem };
        let io = |error: std::io::Error| failed(error.to_string());
        let file = BufReader::new(File::open(path).map_err(io)?);
        let mut archive = ZipArchive::new(file).map_err(|error| failed(error.to_string()))?;
        let frames: Vec<u8> = array(&mut archive, "frames").map_err(io)?;
        let offsets: Vec<i64> = array(&mut archive, "offsets").map_err(io)?;
        let clips: Vec<String> = array(&mut archive, "clips").map_err(io)?;
        if offsets.len() != clips.len() + 1 || frames.len() % MEL_BANDS != 0 {
            return Err(failed("offsets, clips and frames do not fit each other".to_owned()));
        }
        let rows = frames.len() / MEL_BANDS;
        let mut ranges = HashMap::with_capacity(clips.len());
        for (name, bounds) in clips.into_iter().zip(offsets.windows(2)) {
            let &[start, end] = bounds else { continue };
            match (usize::try_from(start), usize::try_from(end)) {
                (Ok(start), Ok(end)) if start <= end && end <= rows => {
                    ranges.insert(name, (start, end));
                }
                _ => return Err(failed(format!("offsets of {name} lie outside the frames"))),
            }
        }
        Ok(Self { frames, ranges })
    }

    /// The rows of a clip, in dB.
    pub fn rows(&self, clip: &str) -> Option<impl Iterator<Item = [f32; MEL_BANDS]> + '_> {
        let (start, end) = *self.ranges.get(clip)?;
        let bytes = self.frames.get(start * MEL_BANDS..end * MEL_BANDS)?;
        let (rows, _) = bytes.as_chunks::<MEL_BANDS>();
        Some(rows.iter().map(|row| row.map(|v| f32::from(v) / 255.0 * 80.0 - 80.0)))
    }
}

fn array<T: npyz::Deserialize>(
    archive: &mut ZipArchive<impl std::io::Read + Seek>,
    name: &str,
) -> std::io::Result<Vec<T>> {
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy"))?.read_to_end(&mut bytes)?;
    npyz::NpyFile::new(bytes.as_slice())?.into_vec()
}
