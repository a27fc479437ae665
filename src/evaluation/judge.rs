//! Many clips, several models, all conditions: who is heard by whom, side by side.
//!
//! In: a [`Plan`]. Out: a [`Verdict`] per clip, run and condition. Each clip is one task: it is decoded
//! once, put under each condition once, and heard by each run that judges it. As many tasks are under way
//! as streams are asked for, so that the engines batch; clips of one fold come together, so that few
//! engines are busy at a time and their batches are large. Verdicts are in the order of the plan,
//! whatever the order in which they came.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::condition::Condition;
use super::hear::{HearError, Heard, Sound, hear};
use super::protocol::Run;
use super::{degrade, spectrogram};
use crate::audio::{AudioError, ClipHops, ClipReader, Lane};
use crate::corpus::logmel::{LogMel, LogMelError};
use crate::corpus::{self, Clip, Corpus};
use crate::emotion::Emotion;
use crate::features::BATCH_HOPS;
use crate::model::{EngineError, Model, Output};
use crate::session::AnalysisError;
use crate::wire::parse::AnalysisSettings;

/// Length of the chunks that clips are sent in.
pub const CHUNK: Duration = Duration::from_millis(100);

/// What is to be judged, and how.
#[derive(Debug)]
pub struct Plan {
    /// The clips.
    pub clips: Vec<Clip>,
    /// Which emotions each corpus has, over all its clips, also those that a limit leaves out.
    pub labels: BTreeMap<Corpus, BTreeSet<Emotion>>,
    /// The runs, each with its model.
    pub runs: Vec<(Run, Arc<Model>)>,
    /// What fold runs hear; runs of a random split hear the clean clips only.
    pub conditions: Vec<Condition>,
    /// How clips are analysed.
    pub analysis: AnalysisSettings,
    /// Clips under way at once.
    pub jobs: usize,
    /// Length of the chunks that they are sent in.
    pub chunk: Duration,
}

/// What one run makes of one clip under one condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Index of the clip.
    pub clip: usize,
    /// Index of the run.
    pub run: usize,
    /// The condition.
    pub condition: Condition,
    /// What was heard.
    pub heard: Heard,
}

/// All verdicts, and what went wrong.
#[derive(Debug)]
pub struct Verdicts {
    /// In order of clip, condition and run.
    pub all: Vec<Verdict>,
    /// Clips that could not be read or heard, with the reason.
    pub failed: Vec<(String, String)>,
    /// SHA-256 over labels and content of every clip that was judged, in hex: the same corpora give the same.
    pub fingerprint: String,
}

/// Why judging stops. A clip that cannot be read does not stop it.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// A spectrogram file that cannot be used.
    #[error(transparent)]
    LogMel(#[from] LogMelError),
    /// A model without emotions.
    #[error("model {0} puts out arousal and valence, no emotions; evaluate needs labels")]
    NoLabels(String),
    /// The engine has failed.
    #[error("{clip}: {source}")]
    Engine {
        /// The clip that was being heard.
        clip: String,
        /// Why.
        source: EngineError,
    },
    /// A task was lost.
    #[error("a task has failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Why one clip cannot be judged.
#[derive(Debug, thiserror::Error)]
enum ClipError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Audio(#[from] AudioError),
    #[error("no such clip in the spectrogram file")]
    Missing,
    #[error(transparent)]
    Hear(#[from] HearError),
}

/// A clip as it was found: decoded, and a digest of its content.
enum Original {
    Samples(Vec<f32>),
    Rows(Vec<spectrogram::Row>),
}

/// Verdicts that a plan asks for, at most: conditions that a spectrogram cannot show are among them.
pub fn count(plan: &Plan) -> u64 {
    let of = |run: &Run| if run.is_random() { 1 } else { plan.conditions.len() as u64 };
    let judged = |clip: &Clip| -> u64 {
        plan.runs.iter().filter(|(run, _)| run.judges(clip)).map(|(run, _)| of(run)).sum()
    };
    plan.clips.iter().map(judged).sum()
}

/// Judges. `progress` is told how many verdicts more there are, from several threads.
///
/// # Errors
/// [`JudgeError`]; clips that cannot be read are in [`Verdicts::failed`].
///
/// # Cancellation
/// Dropping the future stops all tasks; nothing is kept.
pub async fn judge(
    plan: Arc<Plan>,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Verdicts, JudgeError> {
    for (_, model) in &plan.runs {
        if !matches!(model.manifest.output, Output::Logits(_)) {
            return Err(JudgeError::NoLabels(model.manifest.name.clone()));
        }
    }
    let spectra = Arc::new(open_spectra(&plan.clips)?);
    let progress: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(progress);
    let mut order: Vec<usize> = (0..plan.clips.len()).collect();
    order.sort_by_key(|index| plan.clips.get(*index).map(|clip| clip.fold));
    let mut waiting = order.into_iter();
    let mut tasks = JoinSet::new();
    let mut done: BTreeMap<usize, Result<Outcome, ClipError>> = BTreeMap::new();
    loop {
        while tasks.len() < plan.jobs.max(1)
            && let Some(index) = waiting.next()
        {
            let (plan, spectra, progress) = (plan.clone(), spectra.clone(), progress.clone());
            tasks.spawn(async move {
                (index, judge_clip(&plan, index, &spectra, progress.as_ref()).await)
            });
        }
        let Some(next) = tasks.join_next().await else {
            break;
        };
        let (index, outcome) = next?;
        // A model that cannot be run is no fault of the clip, and no other clip would fare better.
        if let Err(ClipError::Hear(HearError::Analysis(AnalysisError::Engine(source)))) = outcome {
            let clip = plan.clips.get(index).map_or_else(String::new, |clip| clip.name.clone());
            return Err(JudgeError::Engine { clip, source });
        }
        done.insert(index, outcome);
    }
    Ok(collect(&plan, done))
}

fn collect(plan: &Plan, done: BTreeMap<usize, Result<Outcome, ClipError>>) -> Verdicts {
    let mut verdicts = Verdicts { all: Vec::new(), failed: Vec::new(), fingerprint: String::new() };
    let mut digests = Vec::new();
    for (index, outcome) in done {
        let Some(clip) = plan.clips.get(index) else {
            continue;
        };
        match outcome {
            // No run judges it.
            Ok(outcome) if outcome.digest.is_empty() => {}
            Ok(outcome) => {
                let label = [
                    clip.corpus.name(),
                    &clip.name,
                    clip.emotion.name(),
                    &clip.intensity,
                    &clip.speaker,
                    &clip.sex,
                    &clip.fold.to_string(),
                ];
                digests.push(format!("{},{}\n", label.join(","), outcome.digest));
                verdicts.all.extend(outcome.verdicts);
            }
            Err(error) => verdicts.failed.push((clip.name.clone(), error.to_string())),
        }
    }
    digests.sort_unstable();
    verdicts.fingerprint = hex(&Sha256::digest(digests.concat()));
    verdicts
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn open_spectra(clips: &[Clip]) -> Result<HashMap<PathBuf, LogMel>, LogMelError> {
    let mut spectra = HashMap::new();
    for clip in clips {
        if let corpus::Sound::LogMel(path) = &clip.sound
            && !spectra.contains_key(path)
        {
            spectra.insert(path.clone(), LogMel::open(path)?);
        }
    }
    Ok(spectra)
}

struct Outcome {
    verdicts: Vec<Verdict>,
    digest: String,
}

async fn judge_clip(
    plan: &Plan,
    index: usize,
    spectra: &HashMap<PathBuf, LogMel>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Outcome, ClipError> {
    let mut outcome = Outcome { verdicts: Vec::new(), digest: String::new() };
    let Some(clip) = plan.clips.get(index) else {
        return Ok(outcome);
    };
    let judges: Vec<(usize, &(Run, Arc<Model>))> =
        plan.runs.iter().enumerate().filter(|(_, (run, _))| run.judges(clip)).collect();
    if judges.is_empty() {
        return Ok(outcome);
    }
    let (original, digest) = open(clip, spectra)?;
    outcome.digest = digest;
    let all_random = judges.iter().all(|(_, (run, _))| run.is_random());
    for condition in plan.conditions.iter().copied() {
        if all_random && condition != Condition::Clean {
            continue;
        }
        let seed = [clip.corpus.name(), clip.name.as_str()];
        let sound = match &original {
            Original::Samples(samples) => {
                Some(Sound::Sent(degrade::degrade(samples, condition, &seed)))
            }
            Original::Rows(rows) => spectrogram::degrade(rows, condition, &seed).map(Sound::Rows),
        };
        for (run, (judge, model)) in &judges {
            if judge.is_random() && condition != Condition::Clean {
                continue;
            }
            if let Some(sound) = &sound {
                let heard = hear(model, sound, plan.chunk, &plan.analysis).await?;
                outcome.verdicts.push(Verdict { clip: index, run: *run, condition, heard });
            }
            progress(1);
        }
    }
    Ok(outcome)
}

/// Decodes a clip, and digests what is in its file.
fn open(clip: &Clip, spectra: &HashMap<PathBuf, LogMel>) -> Result<(Original, String), ClipError> {
    match &clip.sound {
        corpus::Sound::File(path) => {
            let bytes = std::fs::read(path)?;
            let digest = hex(&Sha256::digest(&bytes));
            let extension = path.extension().and_then(|extension| extension.to_str());
            let reader = ClipReader::from_bytes(bytes.into(), extension)?;
            let lanes = [Lane::mix(reader.channels())];
            let mut hops = ClipHops::new(reader, &lanes)?;
            let mut samples = Vec::new();
            while let Some(next) = hops.next_hops(BATCH_HOPS)? {
                next.lanes().for_each(|lane| samples.extend_from_slice(lane.as_flattened()));
            }
            // The last hop is filled up with zeros.
            samples.truncate(hops.received().end.0 as usize);
            Ok((Original::Samples(samples), digest))
        }
        corpus::Sound::LogMel(path) => {
            let rows = spectra.get(path).and_then(|file| file.rows(&clip.name));
            let rows: Vec<spectrogram::Row> = rows.ok_or(ClipError::Missing)?.collect();
            let mut digest = Sha256::new();
            for band in rows.iter().flatten() {
                digest.update(band.to_le_bytes());
            }
            Ok((Original::Rows(rows), hex(&digest.finalize())))
        }
    }
}
