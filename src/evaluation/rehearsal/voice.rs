//! A speaker's clips, ready to be said.
//!
//! Clips are audio, or rows of a spectrogram where there is no audio (CREMA-D). Levels stay as they were
//! recorded: that somebody angry is louder is part of how anger sounds. Spectrograms are scaled per clip, so
//! theirs is lost. Gaps are not digital silence but very quiet noise, as of any room; in spectrograms, their
//! own floor.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use super::script::{Line, Part, Script};
use crate::audio::{AudioError, ClipHops, ClipReader, Lane};
use crate::corpus::logmel::Spectra;
use crate::corpus::{Clip, ClipError, Corpus, Sound};
use crate::emotion::Emotion;
use crate::evaluation::random::Random;
use crate::evaluation::spectrogram::Row;
use crate::features::{BATCH_HOPS, MEL_BANDS};
use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ};

/// One hop of sound.
pub(super) type Hop = [f32; HOP_SAMPLES];

/// Amplitude of the noise in gaps: uniform within it, 85 dB below full scale.
const ROOM: f64 = 1e-4;
/// The floor of CREMA-D's spectrograms, dB below a clip's loudest band.
const FLOOR_DB: f32 = -80.0;
/// What is said in talk and stretches.
const SAID: [Emotion; 6] =
    [Emotion::Neutral, Emotion::Calm, Emotion::Angry, Emotion::Fear, Emotion::Sad, Emotion::Happy];

/// A speaker and the clips of theirs that are needed.
#[derive(Debug, Clone)]
pub struct Speaker {
    /// Unique over the corpora.
    pub name: String,
    /// The corpus.
    pub corpus: Corpus,
    /// 0 to 4.
    pub fold: u8,
    /// Those that can be said.
    pub clips: Vec<Clip>,
}

/// The speakers of `clips`, by corpus and name.
pub fn speakers(clips: &[Clip]) -> Vec<Speaker> {
    let mut speakers: BTreeMap<(Corpus, &str), Speaker> = BTreeMap::new();
    for clip in clips.iter().filter(|clip| SAID.contains(&clip.emotion)) {
        let speaker = speakers.entry((clip.corpus, &clip.speaker)).or_insert_with(|| Speaker {
            name: clip.speaker.clone(),
            corpus: clip.corpus,
            fold: clip.fold,
            clips: Vec::new(),
        });
        speaker.clips.push(clip.clone());
    }
    speakers.into_values().collect()
}

/// A speaker's clips, decoded.
pub(super) enum Voice {
    Sound { lines: Vec<Line>, clips: Vec<Vec<Hop>> },
    Rows { lines: Vec<Line>, clips: Vec<Vec<Row>> },
}

impl Voice {
    /// Decodes them; those of another material than the first one's are left out.
    pub(super) fn open(speaker: &Speaker, spectra: &Spectra) -> Result<Self, ClipError> {
        let is_rows =
            speaker.clips.first().is_some_and(|clip| matches!(clip.sound, Sound::LogMel(_)));
        let (mut lines, mut sound, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for clip in &speaker.clips {
            let hops = match &clip.sound {
                Sound::File(path) if !is_rows => {
                    sound.push(decode(path)?);
                    sound.last().map_or(0, Vec::len)
                }
                Sound::LogMel(path) if is_rows => {
                    let of_clip = spectra.file(path).and_then(|file| file.rows(&clip.name));
                    rows.push(of_clip.ok_or(ClipError::Missing)?.collect());
                    rows.last().map_or(0, Vec::len)
                }
                Sound::File(_) | Sound::LogMel(_) => continue,
            };
            lines.push(Line { emotion: clip.emotion, hops: hops as u64 });
        }
        Ok(if is_rows {
            Self::Rows { lines, clips: rows }
        } else {
            Self::Sound { lines, clips: sound }
        })
    }

    pub(super) fn lines(&self) -> &[Line] {
        match self {
            Self::Sound { lines, .. } | Self::Rows { lines, .. } => lines,
        }
    }
}

fn decode(path: &Path) -> Result<Vec<Hop>, AudioError> {
    let reader = ClipReader::open(path)?;
    let lanes = [Lane::mix(reader.channels())];
    let mut clip = ClipHops::new(reader, &lanes)?;
    let mut hops = Vec::new();
    while let Some(next) = clip.next_hops(BATCH_HOPS)? {
        next.lanes().for_each(|lane| hops.extend_from_slice(lane));
    }
    Ok(hops)
}

/// The hops of `script`, said with `clips`.
pub(super) fn hops<'a>(
    script: &'a Script,
    clips: &'a [Vec<Hop>],
    mut room: Random,
) -> impl Iterator<Item = Hop> + 'a {
    script.parts.iter().flat_map(move |part| match part {
        Part::Clip(index) => clips.get(*index).cloned().unwrap_or_default(),
        Part::Gap(hops) => {
            let mut noise = || ((2.0 * room.unit() - 1.0) * ROOM) as f32;
            (0..*hops).map(|_| std::array::from_fn(|_| noise())).collect()
        }
    })
}

/// The rows of `script`, said with `clips`.
pub(super) fn rows<'a>(
    script: &'a Script,
    clips: &'a [Vec<Row>],
) -> impl Iterator<Item = Row> + 'a {
    script.parts.iter().flat_map(move |part| match part {
        Part::Clip(index) => clips.get(*index).cloned().unwrap_or_default(),
        Part::Gap(hops) => vec![[FLOOR_DB; MEL_BANDS]; *hops as usize],
    })
}

/// Writes the sound as `NAME.wav` (16 bits, mono, 16 kHz) and where its stretches are as `NAME.txt`: from,
/// to and feeling a line, divided by tabs, as Audacity reads labels.
pub(super) fn keep(
    folder: &Path,
    name: &str,
    script: &Script,
    hops: &[Hop],
) -> std::io::Result<()> {
    let bytes = (hops.len() * HOP_SAMPLES * 2) as u32;
    let file = std::fs::File::create(folder.join(format!("{name}.wav")))?;
    let mut file = std::io::BufWriter::new(file);
    // RIFF, a format chunk of 16 bytes: PCM, one channel; then the samples.
    file.write_all(b"RIFF")?;
    file.write_all(&(36 + bytes).to_le_bytes())?;
    file.write_all(b"WAVEfmt \x10\0\0\0\x01\0\x01\0")?;
    file.write_all(&MODEL_RATE_HZ.to_le_bytes())?;
    file.write_all(&(2 * MODEL_RATE_HZ).to_le_bytes())?;
    file.write_all(b"\x02\0\x10\0data")?;
    file.write_all(&bytes.to_le_bytes())?;
    for sample in hops.as_flattened() {
        let sample = (f64::from(*sample) * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16;
        file.write_all(&sample.to_le_bytes())?;
    }
    file.flush()?;
    let mut labels = String::new();
    for stretch in &script.stretches {
        use std::fmt::Write as _;
        let (from, to) = (stretch.from_s(), stretch.to_s());
        let _ = writeln!(labels, "{from:.3}\t{to:.3}\t{}", stretch.kind.emotion);
    }
    std::fs::write(folder.join(format!("{name}.txt")), labels)
}
