//! `undertone analyze`: files and folders, without a server.
//!
//! One line or object per file and a summary at the end. A file that cannot be analysed is reported and
//! the rest go on; the exit code is 1 then.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::load_models;
use super::output::stdout;
use crate::audio::ClipReader;
use crate::config::Source;
use crate::model::Model;
use crate::session::clip::{self, ClipReport};
use crate::tracking::{Abstain, Affect};
use crate::units::{HOP_SAMPLES, SamplePos};
use crate::wire::event::Event;
use crate::wire::parse::{ClipSettings, default_analysis};

/// What counts as an audio file inside a folder. A file that is named itself is always tried.
const EXTENSIONS: [&str; 15] = [
    "wav", "flac", "ogg", "oga", "mp3", "m4a", "mp4", "m4b", "aac", "aiff", "aif", "mkv", "mka",
    "webm", "caf",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Files: wav, flac, ogg (Vorbis), mp3, m4a (AAC, ALAC), aiff, mkv. \
                  Exit code 1 if a file could not be analysed; the others are.")]
pub(super) struct Args {
    /// Audio files, or folders to look for them in.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// A table, or one JSON object per line with `path, seconds, emotion, probabilities, confidence,
    /// valence, arousal, distress, utterances`.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Name of the model; the default one if not given.
    #[arg(long)]
    model_name: Option<String>,
    /// Analyse each channel on its own; the first one's summary is the file's.
    #[arg(long)]
    separate_channels: bool,
    /// Files analysed side by side; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Serialize)]
struct Row {
    path: String,
    seconds: f64,
    emotion: Option<&'static str>,
    probabilities: BTreeMap<&'static str, f32>,
    confidence: Option<f32>,
    valence: Option<f32>,
    arousal: Option<f32>,
    distress: Option<f32>,
    utterances: Vec<UtteranceRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize)]
struct UtteranceRow {
    channel: u32,
    start: f64,
    end: f64,
    speech: f64,
    emotion: Option<&'static str>,
    confidence: Option<f32>,
    abstains: Option<&'static str>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = args.source.resolve()?;
    let models = load_models(&settings)?;
    let name = args.model_name.as_deref().unwrap_or_default();
    let model = models
        .get(name)
        .cloned()
        .with_context(|| format!("there is no model {name:?}; loaded are {}", models.names()))?;
    let mut clip = clip::settings(default_analysis(&settings.defaults()), args.separate_channels);
    clip.analysis.estimate_interval = None;
    let (files, mut failed) = find_files(&args.paths);
    let jobs = if args.jobs == 0 { num_cpus::get() } else { args.jobs };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bar = progress_bar(files.len(), args.format);
    if args.format == Format::Table {
        tell!(
            "{:>8}  {:<9} {:>5}  {:>7} {:>7} {:>8}  {:>4}  path",
            "seconds",
            "emotion",
            "conf.",
            "valence",
            "arousal",
            "distress",
            "utt."
        )?;
    }
    failed += runtime.block_on(async {
        let mut failed = 0;
        let mut running = std::collections::VecDeque::new();
        let mut files = files.into_iter();
        loop {
            // Results come in the order of the files, however long each takes.
            while running.len() < jobs
                && let Some(path) = files.next()
            {
                let (model, clip) = (model.clone(), clip.clone());
                running.push_back(tokio::spawn(async move {
                    (analyze(model, &path, &clip).await, path)
                }));
            }
            let Some(next) = running.pop_front() else {
                break;
            };
            let (row, path) = next.await?;
            match row {
                Ok(row) => bar.suspend(|| print(&row, args.format))?,
                Err(error) => {
                    failed += 1;
                    bar.suspend(|| complain!("undertone: {}: {error:#}", path.display()));
                }
            }
            bar.inc(1);
        }
        anyhow::Ok(failed)
    })?;
    bar.finish_and_clear();
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Only where somebody looks, and where it does not mix with the results.
fn progress_bar(files: usize, format: Format) -> ProgressBar {
    let hidden = files < 2
        || !std::io::stderr().is_terminal()
        || (format == Format::Table && std::io::stdout().is_terminal() && files < 8);
    if hidden {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} files, {eta} left");
    ProgressBar::new(files as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The files named, and those in the folders named, in order; how many paths there were nothing at.
fn find_files(paths: &[PathBuf]) -> (Vec<PathBuf>, usize) {
    let mut files = Vec::new();
    let mut failed = 0;
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        for entry in walkdir::WalkDir::new(path).sort_by_file_name() {
            match entry {
                Ok(entry) if entry.file_type().is_file() && is_audio(entry.path()) => {
                    files.push(entry.into_path());
                }
                Ok(_) => {}
                Err(error) => {
                    failed += 1;
                    complain!("undertone: {error}");
                }
            }
        }
        if files.len() == before {
            failed += 1;
            complain!("undertone: {}: no audio files in this folder", path.display());
        }
    }
    (files, failed)
}

fn is_audio(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

async fn analyze(model: Arc<Model>, path: &Path, settings: &ClipSettings) -> anyhow::Result<Row> {
    let reader = ClipReader::open(path)?;
    let forever = Duration::from_secs(u64::from(u32::MAX));
    let report = clip::analyze(model.clone(), reader, settings, forever, |_| {}).await?;
    Ok(row(path, &model, &report))
}

fn emotion(affect: Option<&Affect>) -> (Option<&'static str>, Option<f32>) {
    let top = affect.and_then(Affect::top);
    (top.map(|(emotion, _)| emotion.name()), top.map(|(_, p)| p))
}

fn seconds(hops: u64) -> f64 {
    SamplePos(hops * HOP_SAMPLES as u64).seconds()
}

fn row(path: &Path, model: &Model, report: &ClipReport) -> Row {
    let affect = report.channels.first().and_then(|summary| summary.affect);
    let (top, confidence) = emotion(affect.as_ref());
    let scores = affect.and_then(|affect| affect.scores);
    let probabilities = scores.map_or_else(BTreeMap::new, |scores| {
        model.manifest.labels().iter().map(|label| (label.name(), scores.of(*label))).collect()
    });
    let utterances = report
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Utterance(u) => {
                let (emotion, confidence) = emotion(u.judgement.affect.as_ref());
                Some(UtteranceRow {
                    channel: u.channel,
                    start: u.start.seconds(),
                    end: u.end.seconds(),
                    speech: seconds(u.speech_hops),
                    emotion,
                    confidence,
                    abstains: u.judgement.abstains.map(Abstain::name),
                })
            }
            Event::Estimate(_) | Event::Warning(_) | Event::Reading(_) => None,
        })
        .collect();
    let mut notes = Vec::new();
    if report.corrupt_packets > 0 {
        notes.push(format!("{} packets could not be decoded", report.corrupt_packets));
    }
    if report.cut_short {
        notes.push("the file ends early".to_owned());
    }
    Row {
        path: path.display().to_string(),
        seconds: report.length.seconds(),
        emotion: top,
        probabilities,
        confidence,
        valence: affect.map(|a| a.valence),
        arousal: affect.map(|a| a.arousal),
        distress: affect.map(|a| a.distress),
        utterances,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

fn print(row: &Row, format: Format) -> std::io::Result<()> {
    let mut out = stdout();
    if format == Format::Json {
        serde_json::to_writer(&mut out, row)?;
        return writeln!(out);
    }
    let number = |value: Option<f32>, plus: bool| match value {
        Some(value) if plus => format!("{value:+.2}"),
        Some(value) => format!("{value:.2}"),
        None => "-".to_owned(),
    };
    writeln!(
        out,
        "{:>8.2}  {:<9} {:>5}  {:>7} {:>7} {:>8}  {:>4}  {}{}",
        row.seconds,
        row.emotion.unwrap_or("no speech"),
        number(row.confidence, false),
        number(row.valence, true),
        number(row.arousal, true),
        number(row.distress, false),
        row.utterances.len(),
        row.path,
        row.note.as_ref().map_or_else(String::new, |note| format!("  ({note})")),
    )
}
