//! `undertone corpus` and `undertone features`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use crate::commands::signals::INTERRUPTED;
use crate::config::Source;
use crate::corpus::examine::{self, Examination, Finding};
use crate::corpus::logmel::Spectra;
use crate::corpus::parallel::{Interrupted, Watch};
use crate::corpus::scan::Scan;
use crate::corpus::{Clip, explore, extract, manifest, scan};
use crate::features::MAX_COEFFICIENTS;
use crate::wire::parse::default_analysis;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find the clips of RAVDESS, TESS, SAVEE and CREMA-D in a folder, count them, and say what is wrong.
    ///
    /// Reads a manifest.csv if the folder has one, else the publishers' layouts: Actor_01/03-01-….wav,
    /// `OAF_angry/OAF_back_angry.wav`, `ALL/DC_a01.wav` or DC/a01.wav, `AudioWAV/1001_DFA_ANG_XX.wav`.
    ///
    /// Every clip is decoded, to find those that are the same sound under several names, and silent,
    /// damaged, unreadable and far too short ones.
    Scan(ScanArgs),
    /// Write a report with pictures on the corpora in a folder: one HTML file that needs no network.
    ///
    /// Clips by emotion, corpus and sex; durations and levels; waveform, spectrogram, mel spectrogram,
    /// chroma and MFCCs of one clip for each emotion; what is wrong.
    Explore(ExploreArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ScanArgs {
    /// The folder.
    folder: PathBuf,
    /// Do not read audio: find and count only.
    #[arg(long)]
    quick: bool,
    /// Write what was found to this manifest, without clips that are silent, damaged, unreadable or far too
    /// short, without all but the first of equal clips, and without any of equal clips whose labels
    /// contradict each other. Each is printed.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Leave nothing out of the manifest.
    #[arg(long, requires = "write")]
    keep_all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExploreArgs {
    /// The folder with the corpora.
    folder: PathBuf,
    /// The report.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct FeaturesArgs {
    /// The folder with the corpora.
    folder: PathBuf,
    /// Folder for features.npz and features.csv.
    #[arg(long, default_value = "training/data")]
    out: PathBuf,
    /// MFCCs per hop, 1 to 128.
    #[arg(long, default_value_t = extract::COEFFICIENTS)]
    coefficients: usize,
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    interruptible(move |stop| match command {
        Command::Scan(args) => scan(&args, stop),
        Command::Explore(args) => explore(&args, stop),
    })
}

/// Runs `work` and sets its flag on Ctrl-C. It stops between two clips and leaves nothing behind.
fn interruptible(
    work: impl FnOnce(&AtomicBool) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let flag = Arc::clone(&stop);
        let mut work = tokio::task::spawn_blocking(move || work(&flag));
        // Both can be dropped and polled again: the task runs by itself.
        tokio::select! {
            done = &mut work => done,
            _ = tokio::signal::ctrl_c() => {
                stop.store(true, Ordering::Relaxed);
                work.await
            }
        }
    })?;
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<Interrupted>() => {
            complain!("undertone: interrupted; nothing was written");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => Err(error),
    }
}

/// Only where somebody looks.
fn progress_bar(steps: usize, what: &'static str) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, {eta} left")?;
    Ok(ProgressBar::new(steps as u64).with_style(style).with_message(what))
}

fn scan(args: &ScanArgs, stop: &AtomicBool) -> anyhow::Result<()> {
    let found = scan::scan(&args.folder)?;
    put!("{}", scan::summary(&found.clips))?;
    for note in found.notes() {
        tell!("{note}")?;
    }
    let examination = if args.quick {
        tell!("audio was not read: duplicates, silence and damage were not looked for")?;
        None
    } else {
        let examination = examine(&found, &Spectra::open(&found.clips)?, stop)?;
        print_findings(&found, &examination)?;
        Some(examination)
    };
    if let Some(file) = &args.write {
        let examination = examination.as_ref().filter(|_| !args.keep_all);
        write_manifest(&found, examination, file)?;
    }
    Ok(())
}

fn examine(
    found: &Scan,
    spectra: &Spectra,
    stop: &AtomicBool,
) -> Result<Examination, anyhow::Error> {
    let bar = progress_bar(examine::files(found), "reading")?;
    let examination = examine::examine(found, spectra, &Watch::new(&|| bar.inc(1), stop));
    bar.finish_and_clear();
    Ok(examination?)
}

fn print_findings(found: &Scan, examination: &Examination) -> std::io::Result<()> {
    if examination.findings.is_empty() {
        tell!("nothing is wrong: no duplicates, no silent, damaged, unreadable or short clips")?;
    }
    for finding in &examination.findings {
        let names: Vec<&str> = clips(found, finding).map(|clip| clip.name.as_str()).collect();
        tell!("{}: {}; {}", names.join(", "), finding.problem(), finding.remedy())?;
    }
    Ok(())
}

fn clips<'a>(found: &'a Scan, finding: &'a Finding) -> impl Iterator<Item = &'a Clip> {
    finding.clips.iter().filter_map(|&index| found.clips.get(index))
}

/// Without what the examination, if there is one, is against.
fn write_manifest(
    found: &Scan,
    examination: Option<&Examination>,
    file: &Path,
) -> anyhow::Result<()> {
    let left_out = examination.map_or_else(BTreeMap::new, Examination::left_out);
    let mut kept = Vec::with_capacity(found.clips.len());
    for (index, clip) in found.clips.iter().enumerate() {
        match left_out.get(&index) {
            Some(finding) => tell!("left out: {} ({})", clip.name, finding.problem())?,
            None => kept.push(clip.clone()),
        }
    }
    manifest::write(&manifest::placed(&kept, file)?, file)?;
    tell!("wrote {} of {} clips to {}", kept.len(), found.clips.len(), file.display())?;
    Ok(())
}

fn explore(args: &ExploreArgs, stop: &AtomicBool) -> anyhow::Result<()> {
    let found = scan::scan(&args.folder)?;
    let spectra = Spectra::open(&found.clips)?;
    let examination = examine(&found, &spectra, stop)?;
    let bar = progress_bar(explore::steps(&found), "measuring")?;
    // The name alone: a report that is passed on need not tell of the machine's folders.
    let folder = std::path::absolute(&args.folder)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let progress = || bar.inc(1);
    let watch = Watch::new(&progress, stop);
    let page = explore::page(&name, &found, &examination, &spectra, &watch);
    bar.finish_and_clear();
    page?.write(&args.out)?;
    tell!("{} clips -> {}", found.clips.len(), args.out.display())?;
    Ok(())
}

pub(super) fn features(args: &FeaturesArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        (1..=MAX_COEFFICIENTS).contains(&args.coefficients),
        "--coefficients must be 1 to {MAX_COEFFICIENTS}"
    );
    let settings = args.source.resolve()?;
    let mut analysis = default_analysis(&settings.defaults());
    analysis.estimate_interval = None;
    let clips = scan::scan(&args.folder)?.clips;
    let bar = progress_bar(clips.len(), "extracting")?;
    let done = extract::extract(&clips, args.coefficients, &analysis, &args.out, || bar.inc(1))
        .with_context(|| format!("extracting to {}", args.out.display()))?;
    bar.finish_and_clear();
    tell!(
        "{} clips, {} steps of 256 ms -> {}",
        done.clips,
        done.steps,
        args.out.join("features.npz").display()
    )?;
    if let Some(first) = done.unheard.first() {
        let count = done.unheard.len();
        tell!("in {count} clips the service finds no utterance; they are whole, such as {first}")?;
    }
    for (clip, error) in &done.failed {
        complain!("undertone: {clip}: {error}");
    }
    Ok(if done.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
