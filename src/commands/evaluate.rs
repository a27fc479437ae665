//! `undertone evaluate`: judges models on labelled clips, through the serving path.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::commands::signals::INTERRUPTED;
use crate::config::Source;
use crate::corpus::{Corpus, scan};
use crate::evaluation::{self, CHUNK, Condition, Evaluation, Plan, Protocol, Run};
use crate::model::{LoadSettings, Model};
use crate::wire::parse::default_analysis;

/// Streams in flight unless told otherwise: a run of so many rows costs little more per row than a larger one.
const JOBS: usize = 64;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A protocol is a folder of models that each left some clips out of their training; each is judged on those \
only. With --model, or with neither, one model is judged on everything, and nobody checks what it has heard.

Clips go through the code of a live stream in chunks of 100 ms, clean and under noise, on the telephone, in \
a room, too quiet and too loud. docs/evaluation.md has all definitions.

  undertone evaluate corpora --protocol training/runs/undertone-four --out evaluation
  undertone evaluate corpora --model models/mine --corpora ravdess,savee --conditions clean,telephone

Exit code 1 if a clip could not be judged, 130 if interrupted; nothing is written then.")]
pub(super) struct Args {
    /// Folder with manifest.csv, or with the corpora as their publishers lay them out.
    folder: PathBuf,
    /// Folder with protocol.json and the models that it names.
    #[arg(long, conflicts_with = "models")]
    protocol: Option<PathBuf>,
    /// Folder for evaluation.json, clips.csv and report.html.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Conditions to hear the clips under; all of them unless given. `clean` always is.
    #[arg(long, value_delimiter = ',')]
    conditions: Vec<Condition>,
    /// Corpora to judge on: ravdess, tess, savee, crema-d; all that there are unless given.
    #[arg(long, value_delimiter = ',')]
    corpora: Vec<Corpus>,
    /// Clips of each corpus at most, a fixed sample.
    #[arg(long)]
    limit: Option<usize>,
    /// Clips under way at once. What comes out does not depend on it.
    #[arg(long, default_value_t = JOBS)]
    jobs: usize,
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!((1..=4096).contains(&args.jobs), "--jobs must be 1 to 4096, not {}", args.jobs);
    let settings = args.source.resolve()?;
    let protocol = match (&args.protocol, settings.models.as_slice()) {
        (Some(folder), _) => Protocol::open(folder)?,
        (None, []) => Protocol::of_model(None),
        (None, [folder]) => Protocol::of_model(Some(folder.clone())),
        (None, [_, _, ..]) => anyhow::bail!("--model: give one; several need a --protocol"),
    };
    let clips = scan::scan(&args.folder)?.clips;
    let selection = evaluation::select(clips, &protocol, &args.corpora, args.limit)?;
    let mut load = settings.load();
    // Whoever comes later finds the batch under way; nobody waits for an answer here.
    load.engine.max_wait = Duration::ZERO;
    let plan = Arc::new(Plan {
        runs: open_models(&protocol, &load)?,
        clips: selection.clips,
        labels: selection.labels,
        conditions: conditions(&args.conditions),
        analysis: default_analysis(&settings.defaults()),
        jobs: args.jobs,
        chunk: CHUNK,
    });
    let bar = progress_bar(evaluation::judge::count(&plan))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let told = bar.clone();
    let judged = runtime.block_on(async {
        let judging = evaluation::judge(plan.clone(), move |count| told.inc(count));
        // Dropping the other branch stops its tasks; nothing has been written by then.
        tokio::select! {
            verdicts = judging => Some(verdicts),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    bar.finish_and_clear();
    let Some(verdicts) = judged else {
        complain!("undertone: interrupted; nothing was written");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let verdicts = verdicts?;
    let evaluation =
        Evaluation::of(&protocol, &plan, &verdicts, args.limit, selection.speakers_checked);
    put!("{}", evaluation::table::table(&evaluation))?;
    for failed in &evaluation.failed {
        complain!("undertone: {}: {}", failed.clip, failed.problem);
    }
    if let Some(folder) = &args.out {
        let written = evaluation::files::write(&evaluation, &plan, &verdicts, folder)?;
        let written: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
        tell!("\nwrote {}", written.join(", "))?;
    }
    Ok(if evaluation.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Those asked for in the order of all, `clean` among them: the others are measured against it.
fn conditions(asked: &[Condition]) -> Vec<Condition> {
    let wanted = |condition: &Condition| {
        asked.is_empty() || *condition == Condition::Clean || asked.contains(condition)
    };
    Condition::ALL.into_iter().filter(wanted).collect()
}

fn open_models(protocol: &Protocol, load: &LoadSettings) -> anyhow::Result<Vec<(Run, Arc<Model>)>> {
    let open = |run: &Run| {
        let model = match &run.folder {
            Some(folder) => Model::open(folder, load),
            None => Model::embedded(load),
        };
        let model = model.with_context(|| format!("run {}", run.name))?;
        Ok((run.clone(), Arc::new(model)))
    };
    protocol.runs.iter().map(open).collect()
}

fn progress_bar(verdicts: u64) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} hearings, {eta} left")?;
    Ok(ProgressBar::new(verdicts).with_style(style))
}
