//! Finds the clips of a folder: by its `manifest.csv`, else by the publishers' file names.
//!
//! Where there is no manifest, folds are dealt out so that a speaker is in one fold only: the speakers
//! of each corpus, in order of their names, go round the five folds. RAVDESS' actors then stand in folds
//! of about equal size with both sexes in each.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::{Clip, Corpus, Sound, labels, manifest};
use crate::emotion::Emotion;

/// Number of folds.
pub const FOLDS: usize = 5;
/// What counts as audio.
const EXTENSIONS: [&str; 6] = ["wav", "flac", "ogg", "mp3", "m4a", "aiff"];

/// Where CREMA-D tells its speakers' sex.
const DEMOGRAPHICS: &str = "VideoDemographics.csv";

/// Why a folder cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A manifest that cannot be used.
    #[error(transparent)]
    Manifest(#[from] manifest::ManifestError),
    /// A folder that cannot be walked.
    #[error(transparent)]
    Walk(#[from] walkdir::Error),
    /// Nothing there.
    #[error(
        "{0}: no clips of RAVDESS, TESS, SAVEE or CREMA-D, and no manifest.csv; give the folder that holds the corpora"
    )]
    Nothing(PathBuf),
}

/// What was found.
#[derive(Debug)]
pub struct Scan {
    /// The clips, in order of their paths.
    pub clips: Vec<Clip>,
    /// Audio files whose names no corpus gives.
    pub strangers: Vec<PathBuf>,
    /// Files left out since a clip of the same name was found before: that clip's place among
    /// [`Self::clips`], and the file.
    pub copies: Vec<(usize, PathBuf)>,
}

impl Scan {
    /// What a user should know of what was found: a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut unknown = BTreeMap::<Corpus, BTreeSet<&str>>::new();
        for clip in self.clips.iter().filter(|clip| clip.sex.is_empty()) {
            unknown.entry(clip.corpus).or_default().insert(&clip.speaker);
        }
        for (corpus, speakers) in unknown {
            let remedy = match corpus {
                Corpus::CremaD => format!(
                    "; CREMA-D tells it in {DEMOGRAPHICS}, which is not there or does not name them: \
                     put it into the folder (or, with a manifest.csv, fill its column sex)"
                ),
                _ => "; fill the column sex of manifest.csv".to_owned(),
            };
            notes.push(format!(
                "{corpus}: the sex of {} speakers is unknown{remedy}",
                speakers.len()
            ));
        }
        if let Some(first) = self.strangers.first() {
            notes.push(format!(
                "{} audio files are of no known corpus, such as {}",
                self.strangers.len(),
                first.display()
            ));
        }
        if let Some((_, first)) = self.copies.first() {
            notes.push(format!(
                "{} files repeat the name of a clip found before and are left out, such as {}",
                self.copies.len(),
                first.display()
            ));
        }
        notes
    }
}

/// Scans `folder`.
///
/// # Errors
/// [`ScanError`].
pub fn scan(folder: &Path) -> Result<Scan, ScanError> {
    let file = folder.join("manifest.csv");
    if file.is_file() {
        let clips = manifest::read(&file)?;
        return Ok(Scan { clips, strangers: Vec::new(), copies: Vec::new() });
    }
    let mut clips = Vec::new();
    let mut strangers = Vec::new();
    let mut copies = Vec::new();
    let mut seen = HashMap::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path();
        let part = |part: Option<&std::ffi::OsStr>| {
            part.and_then(|p| p.to_str()).unwrap_or_default().to_owned()
        };
        let extension = part(path.extension()).to_ascii_lowercase();
        if !entry.file_type().is_file() || !EXTENSIONS.contains(&extension.as_str()) {
            continue;
        }
        let stem = part(path.file_stem());
        let parent = part(path.parent().and_then(Path::file_name));
        let Some(label) = labels::read(&stem, &parent) else {
            strangers.push(path.to_owned());
            continue;
        };
        // TESS is published with a second copy of everything in a folder inside.
        match seen.entry((label.corpus, label.speaker.clone(), stem.clone())) {
            Entry::Occupied(first) => {
                copies.push((*first.get(), path.to_owned()));
                continue;
            }
            Entry::Vacant(entry) => entry.insert(clips.len()),
        };
        clips.push(Clip {
            sound: Sound::File(path.to_owned()),
            name: stem,
            corpus: label.corpus,
            emotion: label.emotion,
            intensity: label.intensity.to_owned(),
            speaker: label.speaker,
            sex: label.sex.to_owned(),
            text: label.text,
            fold: 0,
        });
    }
    if clips.is_empty() {
        return Err(ScanError::Nothing(folder.to_owned()));
    }
    let sexes = crema_d_sexes(folder);
    for clip in &mut clips {
        if let Some(sex) = sexes.get(&clip.speaker) {
            clip.sex.clone_from(sex);
        }
    }
    deal_folds(&mut clips);
    Ok(Scan { clips, strangers, copies })
}

/// CREMA-D's `VideoDemographics.csv`, if it lies in `folder` or in one below: sex by speaker.
fn crema_d_sexes(folder: &Path) -> BTreeMap<String, String> {
    let found = walkdir::WalkDir::new(folder)
        .max_depth(3)
        .into_iter()
        .filter_map(Result::ok)
        .find(|entry| entry.file_name() == DEMOGRAPHICS);
    let Some(mut reader) = found.and_then(|entry| csv::Reader::from_path(entry.path()).ok()) else {
        return BTreeMap::new();
    };
    let rows = reader.records().filter_map(Result::ok);
    rows.filter_map(|row| {
        let sex = match row.get(2)? {
            "Male" => "M",
            "Female" => "F",
            _ => return None,
        };
        Some((format!("crema-d-{}", row.get(0)?), sex.to_owned()))
    })
    .collect()
}

/// Deals the speakers of each corpus out over the folds.
fn deal_folds(clips: &mut [Clip]) {
    let speakers: BTreeSet<(Corpus, String)> =
        clips.iter().map(|clip| (clip.corpus, clip.speaker.clone())).collect();
    let mut next = BTreeMap::<Corpus, usize>::new();
    let folds: BTreeMap<String, u8> = speakers
        .into_iter()
        .map(|(corpus, speaker)| {
            let turn = next.entry(corpus).or_default();
            let fold = *turn % FOLDS;
            *turn += 1;
            (speaker, fold as u8)
        })
        .collect();
    for clip in clips {
        clip.fold = folds.get(&clip.speaker).copied().unwrap_or_default();
    }
}

/// Speakers of one sex: `F`, `M` or empty.
pub fn speakers<'a>(clips: impl IntoIterator<Item = &'a Clip>, sex: &str) -> usize {
    let of = clips.into_iter().filter(|clip| clip.sex == sex);
    of.map(|clip| clip.speaker.as_str()).collect::<BTreeSet<_>>().len()
}

/// Clips per corpus and emotion, and speakers per corpus: female, male, of unknown sex.
pub fn summary(clips: &[Clip]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("{:<9} {:>8} {:>3} {:>3} {:>3}", "corpus", "speakers", "F", "M", "?");
    for emotion in Emotion::ALL {
        let _ = write!(text, " {:>8}", emotion.name());
    }
    text.push_str("      all\n");
    for corpus in Corpus::ALL {
        let of: Vec<&Clip> = clips.iter().filter(|clip| clip.corpus == corpus).collect();
        if of.is_empty() {
            continue;
        }
        let [f, m, unknown] = ["F", "M", ""].map(|sex| speakers(of.iter().copied(), sex));
        let all = f + m + unknown;
        let _ = write!(text, "{:<9} {all:>8} {f:>3} {m:>3} {unknown:>3}", corpus.name());
        for emotion in Emotion::ALL {
            let count = of.iter().filter(|clip| clip.emotion == emotion).count();
            let _ = write!(text, " {count:>8}");
        }
        let _ = writeln!(text, " {:>8}", of.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
    }

    #[test]
    fn the_publishers_layouts_are_found() {
        let root = tempfile::tempdir().unwrap();
        touch(
            root.path(),
            &[
                "ravdess/Actor_01/03-01-01-01-01-01-01.wav",
                "ravdess/Actor_02/03-01-05-02-01-01-02.wav",
                "TESS/OAF_angry/OAF_back_angry.wav",
                "TESS/TESS/OAF_angry/OAF_back_angry.wav",
                "TESS/YAF_pleasant_surprised/YAF_dog_ps.wav",
                "SAVEE/ALL/DC_a01.wav",
                "SAVEE2/KL/sa02.wav",
                "CREMA-D/AudioWAV/1001_DFA_ANG_XX.wav",
                "CREMA-D/AudioWAV/1002_DFA_NEU_XX.wav",
                "notes/holiday.wav",
                "readme.txt",
            ],
        );
        std::fs::write(
            root.path().join("CREMA-D/VideoDemographics.csv"),
            "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,x,y\n1002,21,Female,x,y\n",
        )
        .unwrap();
        let scan = scan(root.path()).unwrap();
        assert_eq!(scan.clips.len(), 8);
        assert_eq!(scan.strangers.len(), 1);
        assert_eq!(scan.copies.len(), 1, "TESS' folder within the folder");
        let original = &scan.clips[scan.copies[0].0];
        assert_eq!(original.name, "OAF_back_angry");
        let sex = |speaker: &str| &scan.clips.iter().find(|c| c.speaker == speaker).unwrap().sex;
        assert_eq!(sex("crema-d-1001"), "M");
        assert_eq!(sex("crema-d-1002"), "F");
        let text = summary(&scan.clips);
        assert!(text.contains("savee") && text.contains("crema-d"), "{text}");
    }

    #[test]
    fn a_written_manifest_reads_the_same_and_keeps_speakers_in_one_fold() {
        let root = tempfile::tempdir().unwrap();
        let names: Vec<String> = (1..=24)
            .flat_map(|actor| [1, 5].map(|e| format!("Actor/03-01-0{e}-01-01-01-{actor:02}.wav")))
            .collect();
        touch(root.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
        let found = scan(root.path()).unwrap().clips;
        let file = root.path().join("manifest.csv");
        manifest::write(&found, &file).unwrap();
        assert_eq!(scan(root.path()).unwrap().clips, found);
        let folds: BTreeSet<(&str, u8)> =
            found.iter().map(|clip| (clip.speaker.as_str(), clip.fold)).collect();
        assert_eq!(folds.len(), 24, "each speaker has one fold");
        assert_eq!(folds.iter().map(|(_, fold)| fold).collect::<BTreeSet<_>>().len(), FOLDS);
    }

    #[test]
    fn crema_d_without_its_demographics_says_so() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), &["AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_DFA_NEU_XX.wav"]);
        let notes = scan(root.path()).unwrap().notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("sex of 2 speakers is unknown"), "{notes:?}");
        assert!(notes[0].contains("VideoDemographics.csv"), "{notes:?}");
    }

    #[test]
    fn a_manifest_can_lie_anywhere_and_is_read_again_from_there() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), &["corpora/ALL/DC_a01.wav", "elsewhere/x"]);
        let found = scan(&root.path().join("corpora")).unwrap().clips;
        for (place, relative) in [("corpora", true), ("elsewhere", false)] {
            let file = root.path().join(place).join("manifest.csv");
            manifest::write(&manifest::placed(&found, &file).unwrap(), &file).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(text.contains("\nALL/DC_a01.wav,"), relative, "{text}");
            assert_eq!(manifest::read(&file).unwrap(), found, "{place}");
        }
    }

    #[test]
    fn an_empty_folder_says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        assert!(scan(root.path()).unwrap_err().to_string().contains("RAVDESS"));
    }
}
