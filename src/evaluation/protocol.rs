//! Protocol folders: which models there are, and which clips each of them has not heard.
//!
//! In: a folder with `protocol.json` and a model package per run, as training writes it. Out: a
//! [`Protocol`]. docs/evaluation.md has the format. An error names the file and the field.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::corpus::Clip;
use crate::corpus::scan::FOLDS;

/// The newest schema of `protocol.json` that this build reads.
const SCHEMA: u32 = 1;
/// The file in a protocol folder.
const FILE: &str = "protocol.json";

/// A protocol, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// In words.
    pub description: String,
    /// Its runs, at least one.
    pub runs: Vec<Run>,
    /// The fold that each speaker was in when the models were trained, if the protocol says so.
    pub speakers: Option<BTreeMap<String, u8>>,
}

/// One run: a model and what it is judged on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its name; in a protocol the name of the model's folder.
    pub name: String,
    /// The model's folder; `None` for the embedded model.
    pub folder: Option<PathBuf>,
    /// The seed it was trained with; `None` where nobody says.
    pub seed: Option<u64>,
    /// What it is judged on.
    pub unheard: Unheard,
}

/// The clips that a run is judged on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unheard {
    /// Those of one fold: speakers that the model has not heard.
    Fold(u8),
    /// Those listed by name: clips that the model has not heard, of speakers that it has.
    Listed(BTreeSet<String>),
    /// All of them, heard or not: nobody has checked.
    Unchecked,
}

impl Run {
    /// The fold, for a run that has one.
    pub fn fold(&self) -> Option<u8> {
        match self.unheard {
            Unheard::Fold(fold) => Some(fold),
            Unheard::Listed(_) | Unheard::Unchecked => None,
        }
    }

    /// Whether it is a run of the random split.
    pub fn is_random(&self) -> bool {
        matches!(self.unheard, Unheard::Listed(_))
    }

    /// Whether it is judged on `clip`.
    pub fn judges(&self, clip: &Clip) -> bool {
        match &self.unheard {
            Unheard::Fold(fold) => clip.fold == *fold,
            Unheard::Listed(names) => names.contains(&clip.name),
            Unheard::Unchecked => true,
        }
    }
}

/// Why a protocol cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON, or not of the schema.
    #[error("{path}: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: serde_json::Error,
    },
    /// A field with a value that cannot be used.
    #[error("{path}: {field}: {problem}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, such as `runs[3].fold`.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProtocol {
    schema: u32,
    name: String,
    #[serde(default)]
    description: String,
    runs: Vec<RawRun>,
    #[serde(default)]
    speakers: Option<BTreeMap<String, u8>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRun {
    model: String,
    kind: RawKind,
    seed: u64,
    fold: Option<u8>,
    clips: Option<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Fold,
    Random,
}

impl Protocol {
    /// Reads the protocol in `folder`; models are not opened yet.
    ///
    /// # Errors
    /// [`ProtocolError`] with the file and the field.
    pub fn open(folder: &Path) -> Result<Self, ProtocolError> {
        let path = folder.join(FILE);
        let text = read(&path)?;
        let raw: RawProtocol = serde_json::from_str(&text)
            .map_err(|source| ProtocolError::Syntax { path: path.clone(), source })?;
        let refuse = |field: &str, problem: String| ProtocolError::Field {
            path: path.clone(),
            field: field.to_owned(),
            problem,
        };
        if raw.schema != SCHEMA {
            let problem = format!("is {}, this build reads {SCHEMA}", raw.schema);
            return Err(refuse("schema", problem));
        }
        if raw.runs.is_empty() {
            return Err(refuse("runs", "must name at least one run".to_owned()));
        }
        let mut seen = BTreeSet::new();
        let mut runs = Vec::with_capacity(raw.runs.len());
        for (index, run) in raw.runs.into_iter().enumerate() {
            let field = |name: &str| format!("runs[{index}].{name}");
            let stays_inside = Path::new(&run.model)
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            if run.model.is_empty() || !stays_inside {
                let problem = "must be the name of a folder beside protocol.json".to_owned();
                return Err(refuse(&field("model"), problem));
            }
            let unheard = match (run.kind, run.fold, run.clips) {
                (RawKind::Fold, Some(fold), None) if usize::from(fold) < FOLDS => {
                    Unheard::Fold(fold)
                }
                (RawKind::Fold, Some(fold), None) => {
                    let problem = format!("must be 0 to {}, not {fold}", FOLDS - 1);
                    return Err(refuse(&field("fold"), problem));
                }
                (RawKind::Fold, None, _) => {
                    return Err(refuse(
                        &field("fold"),
                        "is missing; a fold run has one".to_owned(),
                    ));
                }
                (RawKind::Fold, _, Some(_)) => {
                    return Err(refuse(&field("clips"), "belongs to random runs".to_owned()));
                }
                (RawKind::Random, _, None) => {
                    let problem =
                        "is missing: the file with the clips that the model has not heard";
                    return Err(refuse(&field("clips"), problem.to_owned()));
                }
                (RawKind::Random, Some(_), _) => {
                    return Err(refuse(&field("fold"), "belongs to fold runs".to_owned()));
                }
                (RawKind::Random, None, Some(list)) => {
                    let list = folder.join(list);
                    let names: BTreeSet<String> = read(&list)?
                        .lines()
                        .map(str::trim)
                        .filter(|line| !line.is_empty())
                        .map(str::to_owned)
                        .collect();
                    if names.is_empty() {
                        let problem = format!("{} lists no clips", list.display());
                        return Err(refuse(&field("clips"), problem));
                    }
                    Unheard::Listed(names)
                }
            };
            let place = (run.kind == RawKind::Random, run.fold, run.seed);
            if !seen.insert(place) {
                let problem = "another run has the same kind, fold and seed".to_owned();
                return Err(refuse(&field("seed"), problem));
            }
            runs.push(Run {
                folder: Some(folder.join(&run.model)),
                name: run.model,
                seed: Some(run.seed),
                unheard,
            });
        }
        Ok(Self { name: raw.name, description: raw.description, runs, speakers: raw.speakers })
    }

    /// One model by itself, judged on everything.
    pub fn of_model(folder: Option<PathBuf>) -> Self {
        let run = Run { name: "model".to_owned(), folder, seed: None, unheard: Unheard::Unchecked };
        Self { name: String::new(), description: String::new(), runs: vec![run], speakers: None }
    }

    /// Whether every clip's speaker is in the fold that the models were trained with: `None` where
    /// the protocol does not say, else the first one who is not, with the two folds.
    ///
    /// # Errors
    /// The speaker, the fold of training and the fold of the clip.
    pub fn check_speakers(&self, clips: &[Clip]) -> Result<bool, (String, u8, u8)> {
        let Some(speakers) = &self.speakers else {
            return Ok(false);
        };
        for clip in clips {
            match speakers.get(&clip.speaker) {
                Some(fold) if *fold != clip.fold => {
                    return Err((clip.speaker.clone(), *fold, clip.fold));
                }
                // A speaker that no model was trained with is in whichever fold.
                Some(_) | None => {}
            }
        }
        Ok(true)
    }
}

fn read(path: &Path) -> Result<String, ProtocolError> {
    std::fs::read_to_string(path)
        .map_err(|source| ProtocolError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(json: &str) -> Result<Protocol, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), json).unwrap();
        std::fs::create_dir(folder.path().join("random-seed-1")).unwrap();
        std::fs::write(folder.path().join("random-seed-1/clips.txt"), "a\n\n b \n").unwrap();
        std::fs::write(folder.path().join("empty.txt"), "\n").unwrap();
        Protocol::open(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_training_writes_is_read() {
        let protocol = open(
            r#"{"schema": 1, "name": "undertone-four", "description": "five folds", "runs": [
                {"model": "fold-0-seed-1", "kind": "fold", "fold": 0, "seed": 1},
                {"model": "random-seed-1", "kind": "random", "seed": 1,
                 "clips": "random-seed-1/clips.txt"}]}"#,
        )
        .unwrap();
        assert_eq!(protocol.name, "undertone-four");
        let [fold, random] = protocol.runs.as_slice() else { panic!() };
        assert_eq!((fold.fold(), fold.seed, fold.is_random()), (Some(0), Some(1), false));
        assert!(fold.folder.as_ref().unwrap().ends_with("fold-0-seed-1"));
        let names = ["a", "b"].map(str::to_owned).into();
        assert_eq!(random.unheard, Unheard::Listed(names));
    }

    #[test]
    fn errors_name_the_file_and_the_field() {
        let run = |run: &str| format!(r#"{{"schema": 1, "name": "x", "runs": [{run}]}}"#);
        for (json, says) in [
            ("{".to_owned(), "line 1"),
            (r#"{"schema": 2, "name": "x", "runs": []}"#.to_owned(), "schema: is 2"),
            (r#"{"schema": 1, "name": "x", "runs": []}"#.to_owned(), "runs: must"),
            (r#"{"schema": 1, "name": "x"}"#.to_owned(), "runs"),
            (run(r#"{"model": "m", "kind": "fold", "seed": 1}"#), "runs[0].fold: is missing"),
            (run(r#"{"model": "m", "kind": "fold", "fold": 5, "seed": 1}"#), "0 to 4, not 5"),
            (run(r#"{"model": "../m", "kind": "fold", "fold": 1, "seed": 1}"#), "runs[0].model"),
            (run(r#"{"model": "", "kind": "fold", "fold": 1, "seed": 1}"#), "runs[0].model"),
            (run(r#"{"model": "m", "kind": "random", "seed": 1}"#), "runs[0].clips: is missing"),
            (run(r#"{"model": "m", "kind": "random", "seed": 1, "clips": "no"}"#), "no"),
            (
                run(r#"{"model": "m", "kind": "random", "seed": 1, "clips": "empty.txt"}"#),
                "lists no clips",
            ),
            (run(r#"{"model": "m", "kind": "other", "seed": 1}"#), "other"),
            (
                run(r#"{"model": "m", "kind": "fold", "fold": 1, "seed": 1},
                       {"model": "n", "kind": "fold", "fold": 1, "seed": 1}"#),
                "runs[1].seed",
            ),
        ] {
            let error = open(&json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
            assert!(error.contains(FILE) || error.contains("/no"), "{error}");
        }
    }
}
