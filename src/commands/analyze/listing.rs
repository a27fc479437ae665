//! Results on standard output: a line or an object per clip, in the order of the clips.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::super::output::stdout;
use super::{Args, Format, Listener};
use crate::archive::{Clip, Ears, Fetcher, Found, Heard, Utterance, find};
use crate::emotion::Emotion;

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

pub(super) async fn run(args: &Args, listener: Listener) -> anyhow::Result<ExitCode> {
    let (stores, shard) = (args.stores.settings(), args.shard);
    let Found { clips, faults } =
        find(&args.paths, &stores, &|path| shard.owns(path), |_| {}).await?;
    for fault in &faults {
        complain!("undertone: {fault}");
    }
    let mut failed = faults.len();
    let bar = progress_bar(clips.len(), args.format);
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
    let ears = Arc::new(Ears::new(listener.model, listener.clip));
    let fetcher = Arc::new(Fetcher::new(ears, args.bounds(listener.jobs)));
    let mut running = VecDeque::new();
    let mut clips = clips.into_iter();
    loop {
        // Results come in the order of the clips, however long each takes.
        while running.len() < fetcher.ahead()
            && let Some(clip) = clips.next()
        {
            let fetcher = fetcher.clone();
            running.push_back(tokio::spawn(async move { fetcher.hear(clip).await }));
        }
        let Some(next) = running.pop_front() else {
            break;
        };
        let done = next.await??;
        match done.outcome {
            Ok(heard) => bar.suspend(|| print(&row(&done.clip, &heard), args.format))?,
            Err(failure) => {
                failed += 1;
                let shown = done.clip.shown();
                bar.suspend(|| complain!("undertone: {shown}: {}", failure.message));
            }
        }
        bar.inc(1);
    }
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

fn row(clip: &Clip, heard: &Heard) -> Row {
    let verdict = &heard.verdict;
    let known = |emotion: Emotion| Some((emotion.name(), verdict.probability(emotion)?));
    Row {
        path: clip.shown(),
        seconds: heard.seconds,
        emotion: verdict.emotion.map(Emotion::name),
        probabilities: Emotion::ALL.into_iter().filter_map(known).collect(),
        confidence: verdict.confidence,
        valence: verdict.valence,
        arousal: verdict.arousal,
        distress: verdict.distress,
        utterances: heard.utterances.iter().map(utterance).collect(),
        note: heard.note.clone(),
    }
}

fn utterance(utterance: &Utterance) -> UtteranceRow {
    UtteranceRow {
        channel: utterance.channel,
        start: utterance.start_s,
        end: utterance.end_s,
        speech: utterance.speech_s,
        emotion: utterance.verdict.emotion.map(Emotion::name),
        confidence: utterance.verdict.confidence,
        abstains: utterance.abstains,
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
