//! Results into tables: goes on where an earlier run stopped, and stops cleanly.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Args, Listener};
use crate::archive::{
    ClipRow, Ears, Ending, Found, Location, Origin, Output, Plan, Progress, RunSettings, Watch,
    find, run as work,
};
use crate::commands::signals::{INTERRUPTED, stop_on_signal};
use crate::config::Span;

/// What a second signal costs.
const LOST: &str = "interrupted again; what was not written is lost";
/// Failures that are told one by one; all of them stand in the table.
const TOLD: usize = 20;
/// Files between two words on how many there are.
const LISTED: usize = 100_000;

/// What goes into tables, and when.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tables")]
pub(super) struct TableArgs {
    /// Folder or URL below which results go as Parquet: `clips/`, one row per file, and `utterances/`. What is
    /// there already is gone on with.
    #[arg(long, value_name = "URL|PATH")]
    pub(super) output: Option<Location>,
    /// Try files again that could not be analysed.
    #[arg(long, requires = "output")]
    retry_failed: bool,
    /// Files that may fail before the exit code is 1.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "output")]
    allow_failures: usize,
    /// Rows of either table after which a part is written.
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "output")]
    part_rows: usize,
    /// Longest time until what was analysed is written: what a kill can cost.
    #[arg(long, value_name = "TIME", default_value = "5m", requires = "output")]
    part_interval: Span,
    /// Files in a row that cannot be read, after which the work ends: the store is away.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "output")]
    max_unreadable: u32,
    /// Time between two lines on the progress where standard error is no terminal; 0s for none.
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "output")]
    progress_interval: Span,
}

impl TableArgs {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.part_rows > 0, "--part-rows must be 1 or more, not 0");
        ensure!(self.max_unreadable > 0, "--max-unreadable must be 1 or more, not 0");
        ensure!(!self.part_interval.0.is_zero(), "--part-interval must be more than 0s");
        Ok(())
    }
}

pub(super) async fn run(
    args: &Args,
    output: &Location,
    listener: Listener,
) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone(), Some(LOST)));
    let ended = analyze(args, output, listener, &stop).await;
    signals.abort();
    ended
}

async fn analyze(
    args: &Args,
    output: &Location,
    listener: Listener,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let tables = &args.tables;
    let stores = args.stores.settings();
    let origin = Origin::new(&listener.model.manifest, &listener.clip);
    // A signal before the work has begun has nothing to write.
    let prepared = async {
        let mut output = Output::open(output, &stores, origin, args.shard).await?;
        let (earlier, torn) = output.earlier().await?;
        let torn_paths: std::collections::HashSet<&str> =
            torn.iter().flat_map(crate::archive::Torn::paths).collect();
        let wanted = |path: &str| args.shard.owns(path) || torn_paths.contains(path);
        let found = find(&args.paths, &stores, &wanted, tell_found).await?;
        anyhow::Ok((output, earlier, torn, found))
    };
    let prepared = tokio::select! {
        prepared = prepared => prepared?,
        () = stop.cancelled() => {
            complain!("undertone: interrupted before anything was analysed");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    let (mut output, earlier, torn, Found { clips, faults }) = prepared;
    for fault in &faults {
        complain!("undertone: {fault}");
    }
    let plan = Plan::new(clips, args.shard, &earlier, torn, tables.retry_failed);
    let before = (plan.done, plan.failed);
    let mut watcher = Watcher::new(plan.todo.len(), tables.progress_interval.0);
    let settings = RunSettings {
        bounds: args.bounds(listener.jobs),
        part_rows: tables.part_rows,
        part_interval: tables.part_interval.0,
        max_unreadable: tables.max_unreadable,
    };
    let ears = Arc::new(Ears::new(listener.model, listener.clip));
    let ended = work(plan, &mut output, earlier, ears, settings, stop, &mut watcher).await;
    let progress = watcher.finish();
    let ending = ended?;
    let failed = faults.len() + before.1 + progress.failed;
    summarize(&ending, &progress, before.0, failed, &output, began.elapsed())?;
    if ending.stopped {
        complain!("undertone: interrupted; the same command goes on from here");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if ending.torn > 0 {
        complain!("undertone: {} parts lack their utterances: run it again", ending.torn);
        return Ok(ExitCode::FAILURE);
    }
    if failed > tables.allow_failures {
        complain!(
            "undertone: {failed} failed, more than the {} of --allow-failures; the column `error` says why",
            tables.allow_failures
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_found(count: usize) {
    if count.is_multiple_of(LISTED) {
        complain!("undertone: {count} files found so far");
    }
}

fn summarize(
    ending: &Ending,
    progress: &Progress,
    done_before: usize,
    failed: usize,
    output: &Output,
    took: Duration,
) -> std::io::Result<()> {
    let took = humantime::format_duration(Duration::from_secs(took.as_secs_f64().ceil() as u64));
    tell!(
        "{} files: {} analysed now in {took}, {done_before} before; {failed} failed",
        done_before + progress.todo,
        progress.done
    )?;
    tell!(
        "{:.2} h of audio, {:.1} files/s, {:.0} times real time",
        progress.audio.as_secs_f64() / 3600.0,
        progress.rate(),
        progress.speed()
    )?;
    let mended = match ending.mended {
        0 => String::new(),
        mended => format!(", {mended} mended"),
    };
    tell!("{} parts written to {}{mended}", ending.parts, output.shown())
}

/// Shows how far it has come: a bar on a terminal, lines elsewhere.
struct Watcher {
    began: Instant,
    bar: ProgressBar,
    progress: Arc<Mutex<Progress>>,
    told: usize,
    /// Ends the lines when it goes.
    _lines: DropGuard,
}

impl Watcher {
    fn new(todo: usize, interval: Duration) -> Self {
        let began = Instant::now();
        let progress = Arc::new(Mutex::new(Progress { todo, ..Progress::default() }));
        let bar = bar(todo);
        let ends = CancellationToken::new();
        if bar.is_hidden() && !interval.is_zero() && todo > 0 {
            tokio::spawn(tell_progress(progress.clone(), began, interval, ends.clone()));
        }
        Self { began, bar, progress, told: 0, _lines: ends.drop_guard() }
    }

    fn finish(self) -> Progress {
        self.bar.finish_and_clear();
        snapshot(&self.progress, self.began)
    }
}

impl Watch for Watcher {
    fn clip(&mut self, row: &ClipRow) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.done += 1;
        match &row.outcome {
            Ok(heard) => progress.audio += Duration::from_secs_f64(heard.seconds),
            Err(failure) => {
                progress.failed += 1;
                self.told += 1;
                let (path, reason) = (&row.path, &failure.message);
                match self.told {
                    ..=TOLD => self.bar.suspend(|| complain!("undertone: {path}: {reason}")),
                    told if told == TOLD + 1 => self.bar.suspend(|| {
                        complain!("undertone: further failures stand in the table only");
                    }),
                    _ => {}
                }
            }
        }
        self.bar.inc(1);
    }
}

fn snapshot(progress: &Mutex<Progress>, began: Instant) -> Progress {
    let progress = *progress.lock().unwrap_or_else(PoisonError::into_inner);
    Progress { elapsed: began.elapsed(), ..progress }
}

async fn tell_progress(
    progress: Arc<Mutex<Progress>>,
    began: Instant,
    interval: Duration,
    ends: CancellationToken,
) {
    while tokio::time::timeout(interval, ends.cancelled()).await.is_err() {
        complain!("undertone: {}", snapshot(&progress, began));
    }
}

fn bar(todo: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} files, {per_sec}, {elapsed} so far, {eta} left",
    );
    let bar = ProgressBar::new(todo as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
