//! Scripts played to models, and policies that watch.
//!
//! A speaker is one task: their clips are decoded once, each conversation is composed, played through the
//! listener of a live stream to each model that has not heard the speaker, and watched by every policy.
//! What is kept of it is what was raised. Outcomes are in the order of speakers and numbers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::script::Script;
use super::voice::{self, Speaker, Voice};
use crate::audio::Lane;
use crate::corpus::ClipError;
use crate::corpus::logmel::Spectra;
use crate::evaluation::hear::hear_rows;
use crate::evaluation::protocol::Run;
use crate::evaluation::random::Random;
use crate::features::BATCH_HOPS;
use crate::model::{EngineError, Model};
use crate::policy::{Action, Policy, Reading, Severity, Watcher};
use crate::session::Listening;
use crate::units::{HOP_SAMPLES, SamplePos};
use crate::wire::event::Event;
use crate::wire::parse::AnalysisSettings;

/// What is rehearsed, and how.
#[derive(Debug)]
pub struct Plan {
    /// Who speaks.
    pub speakers: Vec<Speaker>,
    /// Their spectrograms, where there is no audio.
    pub spectra: Spectra,
    /// Who hears: a run hears the speakers that it judges.
    pub runs: Vec<(Run, Arc<Model>)>,
    /// Who watches.
    pub policies: Vec<Arc<Policy>>,
    /// How is heard.
    pub analysis: AnalysisSettings,
    /// Conversations of each speaker.
    pub sessions: usize,
    /// What everything random follows from.
    pub seed: u64,
    /// Speakers under way at once.
    pub jobs: usize,
    /// Where the sound is kept, if anywhere.
    pub keep: Option<PathBuf>,
}

/// An escalation that was raised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raise {
    /// Index of the rule in its policy.
    pub rule: usize,
    /// Its severity.
    pub severity: Severity,
    /// When it was raised, seconds.
    pub at_s: f64,
}

/// What came of one conversation, heard by one model.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Index of the speaker.
    pub speaker: usize,
    /// The conversation.
    pub script: Script,
    /// By policy, what was raised.
    pub raised: Vec<Vec<Raise>>,
}

/// Why a rehearsal stops.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// A clip that cannot be read.
    #[error("{speaker}: {source}")]
    Clip {
        /// Whose.
        speaker: String,
        /// Why.
        source: ClipError,
    },
    /// The model cannot be run.
    #[error("{speaker}: {source}")]
    Engine {
        /// Who was heard.
        speaker: String,
        /// Why.
        source: EngineError,
    },
    /// Sound that cannot be kept.
    #[error("{path}: {source}")]
    Keep {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A task was lost.
    #[error("a task has failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Rehearses. `progress` is called after each speaker.
///
/// # Errors
/// [`RehearsalError`], the first one.
///
/// # Cancellation
/// Dropping the future stops all tasks; nothing but kept sound is left.
pub async fn rehearse(
    plan: Arc<Plan>,
    progress: impl Fn(),
) -> Result<Vec<Outcome>, RehearsalError> {
    let mut waiting = 0..plan.speakers.len();
    let mut tasks = JoinSet::new();
    let mut outcomes = Vec::new();
    loop {
        while tasks.len() < plan.jobs.max(1)
            && let Some(index) = waiting.next()
        {
            let plan = plan.clone();
            tasks.spawn(async move { one_speaker(&plan, index).await });
        }
        let Some(done) = tasks.join_next().await else {
            break;
        };
        outcomes.extend(done??);
        progress();
    }
    // Stable: those of one speaker are in order already.
    outcomes.sort_by_key(|outcome: &Outcome| outcome.speaker);
    Ok(outcomes)
}

async fn one_speaker(plan: &Plan, index: usize) -> Result<Vec<Outcome>, RehearsalError> {
    let mut outcomes = Vec::new();
    let Some(speaker) = plan.speakers.get(index) else {
        return Ok(outcomes);
    };
    let judges = plan.runs.iter().filter(|(run, _)| {
        speaker.clips.first().is_some_and(|clip| !run.is_random() && run.judges(clip))
    });
    let judges: Vec<&Arc<Model>> = judges.map(|(_, model)| model).collect();
    if judges.is_empty() {
        return Ok(outcomes);
    }
    let voice = Voice::open(speaker, &plan.spectra)
        .map_err(|source| RehearsalError::Clip { speaker: speaker.name.clone(), source })?;
    for number in 0..plan.sessions {
        let script = Script::compose(voice.lines(), plan.seed, &speaker.name, number);
        let Some(script) = script else { continue };
        let room = Random::of(&["room", &plan.seed.to_string(), &speaker.name]);
        keep(plan, speaker, number, &script, &voice, &room)?;
        for model in &judges {
            let readings =
                hear(model, &script, &voice, room.clone(), &plan.analysis).await.map_err(
                    |source| RehearsalError::Engine { speaker: speaker.name.clone(), source },
                )?;
            let end = SamplePos(script.hops * HOP_SAMPLES as u64);
            let watch = |policy: &Arc<Policy>| watch(policy, &readings, end);
            let raised = plan.policies.iter().map(watch).collect();
            outcomes.push(Outcome { speaker: index, script: script.clone(), raised });
        }
    }
    Ok(outcomes)
}

fn keep(
    plan: &Plan,
    speaker: &Speaker,
    number: usize,
    script: &Script,
    voice: &Voice,
    room: &Random,
) -> Result<(), RehearsalError> {
    let (Some(folder), Voice::Sound { clips, .. }) = (&plan.keep, voice) else {
        return Ok(());
    };
    let hops: Vec<voice::Hop> = voice::hops(script, clips, room.clone()).collect();
    voice::keep(folder, &format!("{}-{number}", speaker.name), script, &hops)
        .map_err(|source| RehearsalError::Keep { path: folder.clone(), source })
}

/// The readings of a conversation.
async fn hear(
    model: &Arc<Model>,
    script: &Script,
    voice: &Voice,
    room: Random,
    analysis: &AnalysisSettings,
) -> Result<Vec<Reading>, EngineError> {
    let mut settings = analysis.clone();
    settings.readings = true;
    settings.estimate_interval = None;
    let mut readings = Vec::new();
    let mut note = |events: &mut Vec<Event>| {
        readings.extend(events.drain(..).filter_map(|event| match event {
            Event::Reading(reading) => Some(reading),
            Event::Estimate(_) | Event::Utterance(_) | Event::Warning(_) => None,
        }));
    };
    match voice {
        Voice::Rows { clips, .. } => {
            hear_rows(model, voice::rows(script, clips), &settings, &mut note).await?;
        }
        Voice::Sound { clips, .. } => {
            // Warnings about silence are nobody's business here.
            let never = Duration::from_secs(u64::from(u32::MAX));
            let lanes = [Lane::channel(0)];
            let mut listening = Listening::new(model.clone(), &lanes, &settings, never);
            let mut events = Vec::new();
            let mut hops = voice::hops(script, clips, room);
            loop {
                let batch: Vec<voice::Hop> = hops.by_ref().take(BATCH_HOPS).collect();
                if batch.is_empty() {
                    break;
                }
                listening.hear(std::iter::once(batch.as_slice()));
                for _ in 0..batch.len() {
                    listening.advance(&mut events).await?;
                }
                note(&mut events);
            }
            listening.finish(script.hops * HOP_SAMPLES as u64, &mut events).await?;
            note(&mut events);
        }
    }
    Ok(readings)
}

/// What `policy` raises over `readings`.
fn watch(policy: &Arc<Policy>, readings: &[Reading], end: SamplePos) -> Vec<Raise> {
    let mut watcher = Watcher::new(policy.clone());
    let mut decisions = Vec::new();
    for reading in readings {
        watcher.observe(reading, &mut decisions);
    }
    watcher.finish(end, &mut decisions);
    let raises = decisions.iter().filter(|decision| decision.action == Action::Raise);
    let rule = |name: &str| policy.rules().iter().position(|rule| rule.name() == name);
    raises
        .filter_map(|decision| {
            Some(Raise {
                rule: rule(&decision.rule)?,
                severity: decision.severity,
                at_s: decision.at.seconds(),
            })
        })
        .collect()
}
