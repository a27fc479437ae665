//! Spectrograms in place of audio: a `logmel.npz` with `frames` uint8 [n, 128], `offsets` int64
//! [clips + 1] and `clips` names.
//!
//! A row is one 16 ms hop, lowest band first, in dB relative to the clip's loudest band:
//! `v / 255 * 80 - 80`. Frames are centred on their hop, which shifts them by half a frame against live
//! ones; features must not depend on that, nor on the level.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::{Clip, Sound};
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
        if offsets.len() != clips.len() + 1 || !frames.len().is_multiple_of(MEL_BANDS) {
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
        let (rows, _) = self.bytes(clip)?.as_chunks::<MEL_BANDS>();
        Some(rows.iter().map(|row| row.map(|v| f32::from(v) / 255.0 * 80.0 - 80.0)))
    }

    /// The rows of a clip as they are stored.
    pub fn bytes(&self, clip: &str) -> Option<&[u8]> {
        let (start, end) = *self.ranges.get(clip)?;
        self.frames.get(start * MEL_BANDS..end * MEL_BANDS)
    }
}

/// All spectrogram files that a set of clips lies in.
#[derive(Debug)]
pub struct Spectra(HashMap<PathBuf, LogMel>);

impl Spectra {
    /// Reads the files of `clips`; none if all are audio.
    ///
    /// # Errors
    /// [`LogMelError`].
    pub fn open(clips: &[Clip]) -> Result<Self, LogMelError> {
        let mut files = HashMap::new();
        for clip in clips {
            if let Sound::LogMel(path) = &clip.sound
                && !files.contains_key(path)
            {
                files.insert(path.clone(), LogMel::open(path)?);
            }
        }
        Ok(Self(files))
    }

    /// The file at `path`, if one of the clips lies in it.
    pub fn file(&self, path: &Path) -> Option<&LogMel> {
        self.0.get(path)
    }
}

fn array<T: npyz::Deserialize + Clone>(
    archive: &mut ZipArchive<impl std::io::Read + Seek>,
    name: &str,
) -> std::io::Result<Vec<T>> {
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy"))?.read_to_end(&mut bytes)?;
    let array = npyz::NpyFile::new(bytes.as_slice())?;
    // NumPy writes a transposed array column by column, and says so.
    let columns = match (array.order(), array.shape()) {
        (npyz::Order::Fortran, [_, columns]) => Some(*columns as usize),
        _ => None,
    };
    let values: Vec<T> = array.into_vec()?;
    Ok(match columns {
        Some(columns) => rows_first(&values, columns),
        None => values,
    })
}

/// Row by row what stood column by column.
fn rows_first<T: Clone>(values: &[T], columns: usize) -> Vec<T> {
    let rows = values.len() / columns.max(1);
    let value = |row: usize, column: usize| values.get(column * rows + row).cloned();
    (0..rows).flat_map(|row| (0..columns).filter_map(move |column| value(row, column))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use npyz::WriterBuilder as _;
    use std::io::Write as _;

    fn npy<T: npyz::AutoSerialize>(order: npyz::Order, shape: &[u64], values: Vec<T>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let options = npyz::WriteOptions::<T>::new().default_dtype().order(order).shape(shape);
        let mut writer = options.writer(&mut bytes).begin_nd().unwrap();
        writer.extend(values).unwrap();
        writer.finish().unwrap();
        bytes
    }

    /// What `NumPy` writes for `np.array(["a", "b"])`.
    fn names() -> Vec<u8> {
        let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        header.extend(b"{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }");
        header.resize(127, b' ');
        header.push(b'\n');
        header.extend([b'a', 0, 0, 0, b'b', 0, 0, 0]);
        header
    }

    #[test]
    fn rows_are_the_same_whichever_way_numpy_laid_them_out() {
        let folder = tempfile::tempdir().unwrap();
        let value = |row: usize, band: usize| (row * 100 + band) as u8;
        let by_rows: Vec<u8> =
            (0..3).flat_map(|row| (0..MEL_BANDS).map(move |band| value(row, band))).collect();
        let by_columns: Vec<u8> =
            (0..MEL_BANDS).flat_map(|band| (0..3).map(move |row| value(row, band))).collect();
        for (order, frames) in [(npyz::Order::C, by_rows), (npyz::Order::Fortran, by_columns)] {
            let path = folder.path().join("logmel.npz");
            let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
            let offsets = npy(npyz::Order::C, &[3], vec![0_i64, 1, 3]);
            let frames = npy(order, &[3, MEL_BANDS as u64], frames);
            for (name, bytes) in [("frames", frames), ("offsets", offsets), ("clips", names())] {
                let options = zip::write::SimpleFileOptions::default();
                archive.start_file(format!("{name}.npy"), options).unwrap();
                archive.write_all(&bytes).unwrap();
            }
            archive.finish().unwrap();
            let spectra = LogMel::open(&path).unwrap();
            assert!(spectra.rows("c").is_none());
            let rows: Vec<_> = spectra.rows("b").unwrap().collect();
            assert_eq!(rows.len(), 2);
            for (row, bands) in (1..3).zip(rows) {
                for (band, db) in bands.into_iter().enumerate() {
                    assert_eq!(db, f32::from(value(row, band)) / 255.0 * 80.0 - 80.0);
                }
            }
        }
    }
}
