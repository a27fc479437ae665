//! What is left of an evaluation: `evaluation.json`, `clips.csv`, `report.html`.
//!
//! Each is written under another name first and renamed when it is whole, so that an evaluation that is
//! broken off leaves nothing half-written.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::condition::Condition;
use super::hear::{distress, top};
use super::judge::{Plan, Verdicts};
use super::outcome::Evaluation;
use super::page;
use crate::emotion::Emotion;

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// Writes all three into `folder`, which is made if need be, and gives their paths.
///
/// # Errors
/// [`WriteError`].
pub fn write(
    evaluation: &Evaluation,
    plan: &Plan,
    verdicts: &Verdicts,
    folder: &Path,
) -> Result<Vec<PathBuf>, WriteError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| WriteError { path: folder.to_owned(), source })?;
    let json = serde_json::to_vec_pretty(evaluation).map_err(std::io::Error::from);
    let files = [
        ("evaluation.json", json),
        ("clips.csv", rows(plan, verdicts)),
        ("report.html", Ok(page::page(evaluation).render().into_bytes())),
    ];
    let mut written = Vec::new();
    for (name, content) in files {
        let path = folder.join(name);
        let result = content.and_then(|content| replace(&path, &content));
        result.map_err(|source| WriteError { path: path.clone(), source })?;
        written.push(path);
    }
    Ok(written)
}

/// The file is the old one or the new one, never half of it.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = std::fs::File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

/// A row per clip and run, clean.
fn rows(plan: &Plan, verdicts: &Verdicts) -> std::io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut header = vec![
        "run",
        "seed",
        "fold",
        "corpus",
        "clip",
        "speaker",
        "sex",
        "intensity",
        "truth",
        "top",
    ];
    header.extend(Emotion::ALL.map(Emotion::name));
    header.extend(["distress", "speech_seconds", "answered", "unheard"]);
    writer.write_record(header)?;
    for verdict in verdicts.all.iter().filter(|v| v.condition == Condition::Clean) {
        let (Some(clip), Some((run, _))) =
            (plan.clips.get(verdict.clip), plan.runs.get(verdict.run))
        else {
            continue;
        };
        let last = verdict.heard.last();
        let number = |value: Option<u64>| value.map_or_else(String::new, |n| n.to_string());
        let mut row = vec![
            run.name.clone(),
            number(run.seed),
            number(run.fold().map(u64::from)),
            clip.corpus.name().to_owned(),
            clip.name.clone(),
            clip.speaker.clone(),
            clip.sex.clone(),
            clip.intensity.clone(),
            clip.emotion.name().to_owned(),
            top(&last.probabilities).0.name().to_owned(),
        ];
        row.extend(last.probabilities.iter().map(|p| format!("{p:.5}")));
        row.push(format!("{:.5}", distress(&last.probabilities)));
        row.push(format!("{:.3}", last.speech_s));
        row.push(verdict.heard.answered.to_string());
        row.push(verdict.heard.unheard.to_string());
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()))
}
