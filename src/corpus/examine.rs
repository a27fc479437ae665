//! Reads every clip and finds what is wrong: duplicates, silence, files that cannot be read.
//!
//! In: a [`Scan`]. Out: [`Heard`] per clip (length, level, fingerprint) and [`Finding`]s, each with the
//! clips it is about, what is wrong, the remedy, and which of the clips are better left out of training.
//!
//! Two clips are duplicates if their decoded samples, rate and channels are equal, whatever container
//! they lie in; clips of a spectrogram file, if their rows are. Compared are SHA-256 fingerprints. Silence
//! is left out of that: nothing is equal to nothing.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::logmel::{LogMelError, Spectra};
use super::parallel::{self, Interrupted, Watch};
use super::scan::Scan;
use super::{Clip, ClipError, Sound};
use crate::audio::ClipReader;
use crate::audio::level::{dbfs, mean_square};
use crate::features::MEL_BANDS;
use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ, STEP_HOPS};

/// A clip whose loudest hop lies below this is silent, dBFS. The quietest clip of RAVDESS, a corpus
/// recorded low, reaches -54 dBFS; the rounding of 16-bit samples lies near -100 dBFS.
pub const SILENT_DBFS: f32 = -70.0;

/// A clip shorter than this has not one step for a model to hear, s.
pub const SHORTEST_S: f64 = (STEP_HOPS * HOP_SAMPLES) as f64 / MODEL_RATE_HZ as f64;

/// Why an examination does not come to its end. A clip that cannot be read does not stop it.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// A spectrogram file that cannot be used.
    #[error(transparent)]
    LogMel(#[from] LogMelError),
    /// Somebody stopped it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What reading a clip told.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Length, s; of a spectrogram, of its hops.
    pub seconds: f64,
    /// Level of the whole clip and of its loudest hop, dBFS; `None` for a spectrogram, which has none.
    pub level: Option<Level>,
    /// Nothing is to be heard.
    pub silent: bool,
    /// What was lost on the way.
    pub damage: Option<String>,
    fingerprint: [u8; 32],
}

/// Levels, dBFS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Of the whole clip.
    pub mean_dbfs: f32,
    /// Of its loudest 16 ms.
    pub loudest_dbfs: f32,
}

/// What is wrong with one clip or several.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// It cannot be decoded.
    Unreadable(String),
    /// Parts of it are missing.
    Damaged(String),
    /// Nothing is to be heard in it.
    Silent,
    /// It has less than a step.
    Short {
        /// Its length, s.
        seconds: f64,
    },
    /// The same sound under several names.
    Duplicate {
        /// Labels that are not the same.
        differing: Vec<&'static str>,
    },
    /// Another file of the same name has another content.
    NameTwice {
        /// That file.
        other: String,
    },
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The clips it is about, by their places in the scan; in order.
    pub clips: Vec<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// What came out.
#[derive(Debug)]
pub struct Examination {
    /// Each clip of the scan; `None` if it cannot be read.
    pub heard: Vec<Option<Heard>>,
    /// What is wrong, in order of the first clip.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// What is wrong, in words.
    pub fn problem(&self) -> String {
        match &self.problem {
            Problem::Unreadable(reason) => format!("cannot be read: {reason}"),
            Problem::Damaged(what) => format!("damaged: {what}"),
            Problem::Silent => "silent".to_owned(),
            Problem::Short { seconds } => {
                format!("{seconds:.3} s long, shorter than the {SHORTEST_S:.3} s of one step")
            }
            Problem::Duplicate { differing } if differing.is_empty() => {
                "the same sound, the same labels".to_owned()
            }
            Problem::Duplicate { differing } => {
                let verb = if self.contradicts() { "contradict each other" } else { "differ" };
                format!("the same sound, but the labels {verb}: {}", differing.join(", "))
            }
            Problem::NameTwice { other } => format!("another file of this name differs: {other}"),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match &self.problem {
            Problem::Unreadable(_) | Problem::Damaged(_) => {
                "fetch it again from its publisher, or leave it out"
            }
            Problem::Silent | Problem::Short { .. } => "leave it out",
            Problem::Duplicate { .. } if self.contradicts() => {
                "leave all of them out: nothing tells which label is right"
            }
            Problem::Duplicate { .. } => "keep the first",
            Problem::NameTwice { .. } => "remove one of the two files; the first is used",
        }
    }

    /// Those of its clips that training is better off without.
    pub fn left_out(&self) -> &[usize] {
        match &self.problem {
            Problem::Duplicate { .. } if !self.contradicts() => {
                self.clips.get(1..).unwrap_or_default()
            }
            Problem::NameTwice { .. } => &[],
            _ => &self.clips,
        }
    }

    /// Whether one of its labels must be wrong in a way that matters: what was acted, or by whom (folds
    /// are dealt out by speaker).
    fn contradicts(&self) -> bool {
        match &self.problem {
            Problem::Duplicate { differing } => {
                differing.iter().any(|label| matches!(*label, "emotion" | "speaker"))
            }
            _ => false,
        }
    }
}

impl Examination {
    /// Every clip that is better left out, with the first reason.
    pub fn left_out(&self) -> BTreeMap<usize, &Finding> {
        let mut out = BTreeMap::new();
        for finding in &self.findings {
            for &clip in finding.left_out() {
                out.entry(clip).or_insert(finding);
            }
        }
        out
    }
}

/// The number of files that [`examine`] reads, which is how often it tells of progress.
pub fn files(scan: &Scan) -> usize {
    scan.clips.len() + scan.copies.len()
}

/// Reads all clips of `scan`; `spectra` are those of its clips.
///
/// # Errors
/// [`Interrupted`].
pub fn examine(
    scan: &Scan,
    spectra: &Spectra,
    watch: &Watch<'_>,
) -> Result<Examination, Interrupted> {
    let results = parallel::map(&scan.clips, watch, |clip| hear(clip, spectra))?;
    let mut heard = Vec::with_capacity(results.len());
    let mut findings = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        let problem = match &result {
            Err(error) => Some(Problem::Unreadable(error.to_string())),
            Ok(clip) => problem(clip),
        };
        findings.extend(problem.map(|problem| Finding { clips: vec![index], problem }));
        heard.push(result.ok());
    }
    findings.extend(duplicates(&scan.clips, &heard));
    let differing = parallel::map(&scan.copies, watch, |(original, copy)| {
        let Some(Clip { sound: Sound::File(first), .. }) = scan.clips.get(*original) else {
            return None;
        };
        (!same_bytes(first, copy)).then(|| Finding {
            clips: vec![*original],
            problem: Problem::NameTwice { other: copy.display().to_string() },
        })
    })?;
    findings.extend(differing.into_iter().flatten());
    findings.sort_by_key(|finding| finding.clips.first().copied());
    Ok(Examination { heard, findings })
}

fn problem(heard: &Heard) -> Option<Problem> {
    if let Some(what) = &heard.damage {
        Some(Problem::Damaged(what.clone()))
    } else if heard.silent {
        Some(Problem::Silent)
    } else {
        let seconds = heard.seconds;
        (seconds < SHORTEST_S).then_some(Problem::Short { seconds })
    }
}

fn duplicates(clips: &[Clip], heard: &[Option<Heard>]) -> Vec<Finding> {
    let mut places = BTreeMap::<[u8; 32], Vec<usize>>::new();
    for (index, heard) in heard.iter().enumerate() {
        if let Some(heard) = heard.as_ref().filter(|heard| !heard.silent) {
            places.entry(heard.fingerprint).or_default().push(index);
        }
    }
    let groups = places.into_values().filter(|group| group.len() > 1);
    groups
        .map(|group| {
            let same: Vec<&Clip> = group.iter().filter_map(|&index| clips.get(index)).collect();
            Finding { clips: group, problem: Problem::Duplicate { differing: differing(&same) } }
        })
        .collect()
}

/// The labels in which `clips` are not all the same.
fn differing(clips: &[&Clip]) -> Vec<&'static str> {
    type Label = fn(&Clip) -> &str;
    let labels: [(&'static str, Label); 6] = [
        ("corpus", |clip| clip.corpus.name()),
        ("emotion", |clip| clip.emotion.name()),
        ("speaker", |clip| &clip.speaker),
        ("sex", |clip| &clip.sex),
        ("intensity", |clip| &clip.intensity),
        ("text", |clip| &clip.text),
    ];
    let differs =
        |label: Label| clips.windows(2).any(|pair| matches!(pair, [a, b] if label(a) != label(b)));
    labels.into_iter().filter(|(_, label)| differs(*label)).map(|(name, _)| name).collect()
}

fn same_bytes(one: &Path, other: &Path) -> bool {
    let length = |path: &Path| path.metadata().map(|metadata| metadata.len()).ok();
    // Files that cannot be read are not known to be the same.
    length(one).is_some_and(|bytes| length(other) == Some(bytes))
        && matches!((std::fs::read(one), std::fs::read(other)), (Ok(a), Ok(b)) if a == b)
}

fn hear(clip: &Clip, spectra: &Spectra) -> Result<Heard, ClipError> {
    match &clip.sound {
        Sound::File(path) => hear_file(path),
        Sound::LogMel(path) => {
            let rows = spectra.file(path).and_then(|file| file.bytes(&clip.name));
            Ok(hear_rows(rows.ok_or(ClipError::Missing)?))
        }
    }
}

fn hear_file(path: &Path) -> Result<Heard, ClipError> {
    let mut reader = ClipReader::open(path)?;
    let (rate_hz, channels) = (reader.rate_hz(), reader.channels().get());
    let hop = (channels * (rate_hz as usize * HOP_SAMPLES).div_ceil(MODEL_RATE_HZ as usize)).max(1);
    let mut hash = Sha256::new();
    hash.update(b"samples");
    hash.update(rate_hz.to_le_bytes());
    hash.update(channels.to_le_bytes());
    let (mut bytes, mut pending) = (Vec::new(), Vec::new());
    let (mut energy, mut loudest) = (0.0_f64, 0.0_f32);
    while let Some(samples) = reader.next_packet()? {
        bytes.clear();
        // Adding zero makes -0 and 0 the same.
        bytes.extend(samples.iter().flat_map(|sample| (sample + 0.0).to_le_bytes()));
        hash.update(&bytes);
        energy += f64::from(mean_square(samples)) * samples.len() as f64;
        pending.extend_from_slice(samples);
        let mut hops = pending.chunks_exact(hop);
        loudest = hops.by_ref().map(mean_square).fold(loudest, f32::max);
        let rest = hops.remainder().len();
        pending.drain(..pending.len() - rest);
    }
    loudest = loudest.max(mean_square(&pending));
    let frames = reader.frames();
    let samples = (frames as f64 * channels as f64).max(1.0);
    let level = Level { mean_dbfs: dbfs((energy / samples) as f32), loudest_dbfs: dbfs(loudest) };
    let damage = match (reader.corrupt_packets(), reader.is_cut_short()) {
        (0, false) => None,
        (0, true) => Some("it ends before its container says it would".to_owned()),
        (lost, _) => Some(format!("{lost} packets cannot be decoded")),
    };
    Ok(Heard {
        seconds: frames as f64 / f64::from(rate_hz),
        level: Some(level),
        silent: level.loudest_dbfs < SILENT_DBFS,
        damage,
        fingerprint: hash.finalize().into(),
    })
}

/// Rows are relative to the clip's loudest band, which tells of no level; but digital silence is as loud
/// everywhere.
fn hear_rows(rows: &[u8]) -> Heard {
    let mut hash = Sha256::new();
    hash.update(b"rows");
    hash.update(rows);
    let hops = rows.len() / MEL_BANDS;
    Heard {
        seconds: (hops * HOP_SAMPLES) as f64 / f64::from(MODEL_RATE_HZ),
        level: None,
        silent: rows.iter().min() == rows.iter().max(),
        damage: None,
        fingerprint: hash.finalize().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::corpus::scan::scan;

    /// White noise, the same for the same `seed`.
    fn noise(seed: u64, samples: usize, amplitude: f32) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..samples).map(|_| amplitude * (random.f32() * 2.0 - 1.0)).collect()
    }

    /// 16-bit mono WAVE at 16 kHz.
    fn wave(samples: &[f32]) -> Vec<u8> {
        let bytes = 2 * samples.len() as u32;
        let mut file = b"RIFF".to_vec();
        file.extend((36 + bytes).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        file.extend(16_000_u32.to_le_bytes());
        file.extend(32_000_u32.to_le_bytes());
        file.extend(b"\x02\0\x10\0data");
        file.extend(bytes.to_le_bytes());
        file.extend(samples.iter().flat_map(|x| ((x * 32_767.0) as i16).to_le_bytes()));
        file
    }

    fn corpus(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Scan) {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let found = scan(root.path()).unwrap();
        (root, found)
    }

    fn examined(scan: &Scan) -> Examination {
        let spectra = Spectra::open(&scan.clips).unwrap();
        examine(scan, &spectra, &Watch::new(&|| (), &AtomicBool::new(false))).unwrap()
    }

    /// The findings as (names of the clips, problem, how many are left out).
    fn told(scan: &Scan) -> Vec<(Vec<String>, String, usize)> {
        let name = |&clip: &usize| scan.clips[clip].name.clone();
        examined(scan)
            .findings
            .iter()
            .map(|f| (f.clips.iter().map(name).collect(), f.problem(), f.left_out().len()))
            .collect()
    }

    #[test]
    fn one_of_two_agreeing_duplicates_stays_and_of_contradicting_ones_none() {
        let sound = |seed| wave(&noise(seed, 16_000, 0.3));
        let (_root, scan) = corpus(&[
            ("03-01-03-01-02-01-07.wav", sound(1)),
            ("03-01-03-01-02-02-07.wav", sound(1)),
            ("1001_DFA_ANG_XX.wav", sound(2)),
            ("1001_DFA_SAD_XX.wav", sound(2)),
            ("1002_DFA_SAD_XX.wav", sound(3)),
            ("1003_DFA_SAD_XX.wav", sound(3)),
            ("1004_DFA_SAD_LO.wav", sound(4)),
            ("1004_DFA_SAD_HI.wav", sound(4)),
            ("OAF_dog_sad.wav", sound(5)),
        ]);
        let told = told(&scan);
        assert_eq!(told.len(), 4, "{told:#?}");
        let [ravdess, emotion, speaker, intensity] = told.as_slice() else { panic!() };
        assert_eq!(ravdess.0, ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]);
        assert!(ravdess.1.contains("same labels") && ravdess.2 == 1, "{ravdess:?}");
        assert!(emotion.1.contains("contradict each other: emotion"), "{emotion:?}");
        assert!(speaker.1.contains("contradict each other: speaker"), "{speaker:?}");
        assert_eq!((emotion.2, speaker.2), (2, 2));
        assert!(intensity.1.contains("differ: intensity") && intensity.2 == 1, "{intensity:?}");
    }

    #[test]
    fn the_container_does_not_hide_a_duplicate_and_the_rate_makes_another_sound() {
        let mono = wave(&noise(1, 16_000, 0.3));
        // A chunk that decoders skip, and the same samples said to be at 8 kHz.
        let mut padded = mono[..36].to_vec();
        padded.extend(b"LIST\x04\0\0\0abcd");
        padded.extend(&mono[36..]);
        let length = padded.len() as u32 - 8;
        padded[4..8].copy_from_slice(&length.to_le_bytes());
        let mut slow = mono.clone();
        slow[24..32].copy_from_slice(&[0x40, 0x1f, 0, 0, 0x80, 0x3e, 0, 0]);
        let (_root, scan) = corpus(&[
            ("OAF_back_sad.wav", mono),
            ("OAF_bar_sad.wav", padded),
            ("OAF_base_sad.wav", slow),
        ]);
        let told = told(&scan);
        assert_eq!(told.len(), 1, "{told:#?}");
        assert_eq!(told[0].0, ["OAF_back_sad", "OAF_bar_sad"]);
        assert!(told[0].1.contains("differ: text"), "{told:?}");
    }

    #[test]
    fn silent_short_damaged_and_unreadable_files_are_told_with_the_reason() {
        let whole = wave(&noise(1, 64_000, 0.3));
        let (_root, scan) = corpus(&[
            ("DC_a01.wav", wave(&[0.0; 16_000])),
            ("DC_a02.wav", wave(&noise(2, 16_000, 0.0002))),
            ("DC_a03.wav", wave(&noise(3, 4_000, 0.3))),
            ("DC_a04.wav", b"RIFF\x04\0\0\0WAVEnothing".to_vec()),
            ("DC_a05.wav", Vec::new()),
            ("DC_a06.wav", whole[..64_000].to_vec()),
            ("DC_a07.wav", wave(&noise(4, 4_096, 0.01))),
        ]);
        let told = told(&scan);
        let texts: Vec<&str> = told.iter().map(|finding| finding.1.as_str()).collect();
        assert_eq!(texts[..2], ["silent", "silent"], "{told:#?}");
        assert!(texts[2].starts_with("0.250 s long"), "{told:#?}");
        assert!(texts[3].starts_with("cannot be read") && texts[4].starts_with("cannot be read"));
        assert!(texts[5].starts_with("damaged: it ends before"), "{told:#?}");
        assert_eq!(told.len(), 6, "a quiet clip of exactly one step is none of this: {told:#?}");
        assert!(told.iter().all(|finding| finding.2 == 1));
    }

    #[test]
    fn a_second_file_of_the_same_name_is_compared() {
        let files = |other: u64| {
            [
                ("OAF_angry/OAF_back_angry.wav", wave(&noise(1, 16_000, 0.3))),
                ("TESS/OAF_angry/OAF_back_angry.wav", wave(&noise(other, 16_000, 0.3))),
            ]
        };
        let (_root, same) = corpus(&files(1));
        assert_eq!(told(&same), []);
        let (_root, different) = corpus(&files(2));
        let told = told(&different);
        assert_eq!(told.len(), 1);
        assert!(told[0].1.contains("another file of this name") && told[0].2 == 0, "{told:?}");
    }

    #[test]
    fn levels_and_lengths_are_those_of_the_file() {
        let square: Vec<f32> = (0..8_000).map(|n| if n % 2 == 0 { 0.5 } else { -0.5 }).collect();
        let (_root, scan) = corpus(&[("KL_n01.wav", wave(&[square, vec![0.0; 8_000]].concat()))]);
        let heard = examined(&scan).heard[0].clone().unwrap();
        assert_eq!(heard.seconds, 1.0);
        let level = heard.level.unwrap();
        assert!((level.loudest_dbfs + 6.02).abs() < 0.01, "{level:?}");
        assert!((level.mean_dbfs + 9.03).abs() < 0.01, "{level:?}");
    }

    #[test]
    fn rows_that_are_the_same_throughout_are_silence() {
        assert!(hear_rows(&[255; 20 * MEL_BANDS]).silent);
        assert!(hear_rows(&[]).silent);
        let mut rows = vec![0; 20 * MEL_BANDS];
        rows[7] = 255;
        let heard = hear_rows(&rows);
        assert!(!heard.silent && heard.seconds == 0.32);
        assert_ne!(heard.fingerprint, hear_rows(&rows[..19 * MEL_BANDS]).fingerprint);
    }
}
