//! `undertone policy rehearse`: policies watched over composed conversations, and how they fare.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::find;
use crate::config::Source;
use crate::corpus::logmel::Spectra;
use crate::corpus::scan;
use crate::evaluation::rehearsal::{self, Figures, Plan, SESSIONS};
use crate::evaluation::{self, Protocol, Run};
use crate::model::Model;
use crate::policy;
use crate::wire::parse::default_analysis;

/// Exit code when interrupted: 128 and SIGINT.
const INTERRUPTED: u8 = 130;
/// Speakers between two lines of progress where nobody looks at a bar.
const LOG_EVERY: usize = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Conversations of 10 minutes are put together from the clips of one speaker: neutral and calm talk, and \
stretches of anger, fear, sadness and happiness. Each is heard by models that were trained without the \
speaker (--protocol), or by one model that may have been (--model). What is found, how late, and how often \
something is raised for nothing, per hour of talk, is printed as Markdown. docs/policies.md has the rules.

  undertone policy rehearse corpora --protocol models/mine/protocol --policy ward.yaml

Exit code 130 if interrupted.")]
pub(in crate::commands) struct Args {
    /// Folder with manifest.csv, or with the corpora as their publishers lay them out.
    folder: PathBuf,
    /// Policies: files, or names of ones that are built in. All that are built in unless given.
    #[arg(long = "policy", value_name = "POLICY")]
    chosen: Vec<String>,
    /// Folder with protocol.json and the models that it names.
    #[arg(long, conflicts_with = "models")]
    protocol: Option<PathBuf>,
    /// Only the protocol's models of this seed.
    #[arg(long)]
    model_seed: Option<u64>,
    /// Only speakers of these folds.
    #[arg(long, value_delimiter = ',')]
    folds: Vec<u8>,
    /// Folds on whose speakers the thresholds were chosen: they are reported apart.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    chosen_on: Vec<u8>,
    /// Conversations of each speaker. After ten of them the feelings begin anew, with other talk.
    #[arg(long, default_value_t = SESSIONS.len())]
    sessions: usize,
    /// What everything random follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File for the figures as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder for the conversations that have sound, and where their stretches are. Mind the corpora's
    /// licences.
    #[arg(long)]
    keep_audio: Option<PathBuf>,
    /// Speakers under way at once. What comes out does not depend on it.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!((1..=1000).contains(&args.sessions), "--sessions must be 1 to 1000");
    ensure!((1..=256).contains(&args.jobs), "--jobs must be 1 to 256, not {}", args.jobs);
    let settings = args.source.resolve()?;
    let protocol = match (&args.protocol, settings.models.as_slice()) {
        (Some(folder), _) => Protocol::open(folder)?,
        (None, []) => Protocol::of_model(None),
        (None, [folder]) => Protocol::of_model(Some(folder.clone())),
        (None, [_, _, ..]) => anyhow::bail!("--model: give one; several need a --protocol"),
    };
    let built_in = policy::embedded().iter().map(|(name, _)| (*name).to_owned());
    let names = if args.chosen.is_empty() { built_in.collect() } else { args.chosen.clone() };
    let mut policies = Vec::new();
    for name in &names {
        match find(name)? {
            Some(policy) => policies.push(Arc::new(policy)),
            None => return Ok(ExitCode::FAILURE),
        }
    }
    let mut clips =
        evaluation::select(scan::scan(&args.folder)?.clips, &protocol, &[], None)?.clips;
    clips.retain(|clip| args.folds.is_empty() || args.folds.contains(&clip.fold));
    if let Some(folder) = &args.keep_audio {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut load = settings.load();
    // Whoever comes later finds the batch under way; nobody waits for an answer here.
    load.engine.max_wait = Duration::ZERO;
    let wanted = |run: &&Run| {
        !run.is_random()
            && (args.model_seed.is_none() || run.seed.is_none() || run.seed == args.model_seed)
            && run.fold().is_none_or(|fold| args.folds.is_empty() || args.folds.contains(&fold))
    };
    let open = |run: &Run| {
        let model = match &run.folder {
            Some(folder) => Model::open(folder, &load),
            None => Model::embedded(&load),
        };
        anyhow::Ok((run.clone(), Arc::new(model.with_context(|| format!("run {}", run.name))?)))
    };
    let plan = Arc::new(Plan {
        speakers: rehearsal::speakers(&clips),
        spectra: Spectra::open(&clips)?,
        runs: protocol.runs.iter().filter(wanted).map(open).collect::<anyhow::Result<_>>()?,
        policies,
        analysis: default_analysis(&settings.defaults()),
        sessions: args.sessions,
        seed: args.seed,
        jobs: args.jobs,
        keep: args.keep_audio.clone(),
    });
    play(args, &protocol.name, &plan)
}

fn play(args: &Args, protocol: &str, plan: &Arc<Plan>) -> anyhow::Result<ExitCode> {
    let speakers = plan.speakers.len();
    let bar = super::progress_bar(speakers as u64, "speakers")?;
    let done = std::cell::Cell::new(0_usize);
    let tell = || {
        bar.inc(1);
        done.set(done.get() + 1);
        // A log is no place for a bar, and says every now and then how far it is.
        if bar.is_hidden() && done.get().is_multiple_of(LOG_EVERY) {
            complain!("{} of {speakers} speakers", done.get());
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let heard = runtime.block_on(async {
        // Dropping the other branch stops its tasks.
        tokio::select! {
            heard = rehearsal::rehearse(plan.clone(), tell) => Some(heard),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    bar.finish_and_clear();
    let Some(heard) = heard else {
        complain!("undertone: interrupted");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let figures = Figures::of(plan, protocol, &heard?, &args.chosen_on);
    put!("{}", rehearsal::markdown(&figures))?;
    if let Some(file) = &args.out {
        let mut json = serde_json::to_vec_pretty(&figures)?;
        json.push(b'\n');
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
