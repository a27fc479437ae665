//! `manifest.csv`: a row per clip, `path, clip, corpus, emotion, intensity, speaker, sex, text, fold`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Clip, Sound};

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not readable, or not CSV with these columns.
    #[error("{path}: {source}")]
    Csv {
        /// The file.
        path: String,
        /// Why, with the line.
        source: csv::Error,
    },
    /// A value that cannot be used.
    #[error("{path}, line {line}: {problem}")]
    Value {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    path: String,
    clip: String,
    corpus: String,
    emotion: String,
    intensity: String,
    speaker: String,
    sex: String,
    text: String,
    fold: u8,
}

/// Reads `file`; paths in it are relative to its folder. A path that ends in `.npz` is a spectrogram
/// file that holds the clip.
///
/// # Errors
/// [`ManifestError`] with the line.
pub fn read(file: &Path) -> Result<Vec<Clip>, ManifestError> {
    let path = file.display().to_string();
    let csv = |source| ManifestError::Csv { path: path.clone(), source };
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut reader = csv::Reader::from_path(file).map_err(csv)?;
    let mut clips = Vec::new();
    for (index, row) in reader.deserialize().enumerate() {
        let row: Row = row.map_err(csv)?;
        let line = index as u64 + 2;
        let value = |problem: String| ManifestError::Value { path: path.clone(), line, problem };
        if row.fold > 4 {
            return Err(value(format!("fold must be 0 to 4, not {}", row.fold)));
        }
        // Rows may name the clip inside the archive behind a `#`.
        let sound = match row.path.split_once(".npz") {
            Some((stem, _)) => Sound::LogMel(folder.join(format!("{stem}.npz"))),
            None => Sound::File(folder.join(&row.path)),
        };
        clips.push(Clip {
            sound,
            name: row.clip,
            corpus: row.corpus.parse().map_err(&value)?,
            emotion: row
                .emotion
                .parse()
                .map_err(|error: crate::emotion::UnknownEmotion| value(error.to_string()))?,
            intensity: row.intensity,
            speaker: row.speaker,
            sex: row.sex,
            text: row.text,
            fold: row.fold,
        });
    }
    Ok(clips)
}

/// `clips` with their paths as a manifest at `file` must give them to be read again: relative to its
/// folder where they lie below it, so that the folder can be moved, else absolute.
///
/// # Errors
/// [`ManifestError::Csv`] if there is no working directory to start from.
pub fn placed(clips: &[Clip], file: &Path) -> Result<Vec<Clip>, ManifestError> {
    let absolute = |path: &Path| {
        let csv = |error: std::io::Error| ManifestError::Csv {
            path: file.display().to_string(),
            source: error.into(),
        };
        std::path::absolute(path).map_err(csv)
    };
    let file = absolute(file)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let place = |path: &Path| -> Result<PathBuf, ManifestError> {
        let path = absolute(path)?;
        Ok(path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path))
    };
    clips
        .iter()
        .map(|clip| {
            let sound = match &clip.sound {
                Sound::File(path) => Sound::File(place(path)?),
                Sound::LogMel(path) => Sound::LogMel(place(path)?),
            };
            Ok(Clip { sound, ..clip.clone() })
        })
        .collect()
}

/// Writes `clips` with their paths as they are; see [`placed`].
///
/// # Errors
/// [`ManifestError::Csv`].
pub fn write(clips: &[Clip], file: &Path) -> Result<(), ManifestError> {
    let csv = |source| ManifestError::Csv { path: file.display().to_string(), source };
    let mut writer = csv::Writer::from_path(file).map_err(csv)?;
    for clip in clips {
        let (Sound::File(path) | Sound::LogMel(path)) = &clip.sound;
        writer
            .serialize(Row {
                path: path.display().to_string(),
                clip: clip.name.clone(),
                corpus: clip.corpus.to_string(),
                emotion: clip.emotion.to_string(),
                intensity: clip.intensity.clone(),
                speaker: clip.speaker.clone(),
                sex: clip.sex.clone(),
                text: clip.text.clone(),
                fold: clip.fold,
            })
            .map_err(csv)?;
    }
    writer.flush().map_err(|error| csv(error.into()))
}
