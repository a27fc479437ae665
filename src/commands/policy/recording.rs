//! `undertone policy test`: a policy tried on recordings, without a server.
//!
//! Each recording takes the path that whole clips take in the service. Its readings are watched as those of
//! a live stream are, and what is decided is printed as a time line. Nothing is stored, nobody is told.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::find;
use crate::audio::ClipReader;
use crate::commands::load_models;
use crate::commands::output::stdout;
use crate::config::Source;
use crate::model::Model;
use crate::policy::{Action, Decision, Evidence, Measurement, Policy};
use crate::report::{Block, Course, Span, Strip};
use crate::session::clip;
use crate::session::rehearsal::{Moment, rehearse};
use crate::units::SamplePos;
use crate::wire::parse::{ClipSettings, default_analysis};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A time line for people.
    Text,
    /// One JSON object per recording and line.
    Json,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  undertone policy test care-call call.wav --plot call.svg
  undertone policy test ward.yaml recordings/*.flac --format json

Exit code 1 if the policy is bad or a recording could not be analysed; what is raised is no failure.")]
pub(in crate::commands) struct Args {
    /// The policy: a file, or the name of one that is built in.
    policy: String,
    /// The recordings: wav, flac, ogg (Vorbis), mp3, m4a (AAC, ALAC), aiff, mkv.
    #[arg(required = true)]
    audio: Vec<PathBuf>,
    /// A time line, or one JSON object per recording.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Draw what every rule looks at, over time, into this SVG file. For one recording.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Analyse each channel on its own.
    #[arg(long)]
    separate_channels: bool,
    /// Name of the model; the default one if not given.
    #[arg(long)]
    model_name: Option<String>,
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    ensure!(
        args.plot.is_none() || args.audio.len() == 1,
        "--plot draws one recording, and {} are given",
        args.audio.len()
    );
    let Some(policy) = find(&args.policy)? else {
        return Ok(ExitCode::FAILURE);
    };
    let policy = Arc::new(policy);
    let settings = args.source.resolve()?;
    let models = load_models(&settings)?;
    let name = args.model_name.as_deref().unwrap_or_default();
    let model = models
        .get(name)
        .with_context(|| format!("there is no model {name:?}; loaded are {}", models.names()))?;
    if policy.needs_emotions() && model.manifest.labels().is_empty() {
        complain!(
            "undertone: the model {} knows no emotions: some conditions never have a value",
            model.manifest.name
        );
    }
    let mut clip = clip::settings(default_analysis(&settings.defaults()), args.separate_channels);
    clip.analysis.estimate_interval = None;
    clip.analysis.readings = true;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut failed = false;
    for path in &args.audio {
        let trial = runtime.block_on(Trial::hold(&policy, model, path, &clip));
        match trial {
            Ok(trial) => {
                trial.print(args.format)?;
                if let Some(file) = &args.plot {
                    std::fs::write(file, trial.course().render())
                        .with_context(|| format!("cannot write {}", file.display()))?;
                }
            }
            Err(error) => {
                failed = true;
                complain!("undertone: {}: {error:#}", path.display());
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One recording, watched.
struct Trial {
    path: String,
    length: SamplePos,
    policy: Arc<Policy>,
    decisions: Vec<Decision>,
    moments: Vec<Moment>,
    suppressed: u64,
    notes: Vec<String>,
}

impl Trial {
    async fn hold(
        policy: &Arc<Policy>,
        model: &Arc<Model>,
        path: &Path,
        settings: &ClipSettings,
    ) -> anyhow::Result<Self> {
        let reader = ClipReader::open(path)?;
        let forever = Duration::from_secs(u64::from(u32::MAX));
        let report = clip::analyze(model.clone(), reader, settings, forever, |_| {}).await?;
        let rehearsal = rehearse(policy.clone(), &report, true);
        let mut notes = Vec::new();
        if report.corrupt_packets > 0 {
            notes.push(format!("{} packets could not be decoded", report.corrupt_packets));
        }
        if report.cut_short {
            notes.push("the file ends early".to_owned());
        }
        Ok(Self {
            path: path.display().to_string(),
            length: report.length,
            policy: policy.clone(),
            decisions: rehearsal.decisions,
            moments: rehearsal.moments,
            suppressed: rehearsal.suppressed,
            notes,
        })
    }

    fn raised(&self) -> usize {
        self.decisions.iter().filter(|decision| decision.action == Action::Raise).count()
    }

    fn print(&self, format: Format) -> std::io::Result<()> {
        let mut out = stdout();
        match format {
            Format::Json => {
                serde_json::to_writer(&mut out, &self.row())?;
                writeln!(out)
            }
            Format::Text => self.print_text(&mut out),
        }
    }

    fn print_text(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        writeln!(out, "{}", self.path)?;
        for decision in &self.decisions {
            writeln!(
                out,
                "{:>9}  {:<7}  {:<8}  {}{}",
                clock(decision.at.seconds()),
                word(decision.action),
                decision.severity,
                decision.rule,
                self.on_channel(decision.channel)
            )?;
            if decision.action != Action::Clear {
                writeln!(out, "           {}", decision.reason)?;
            }
            for condition in &decision.evidence.conditions {
                let value =
                    condition.value.map_or_else(|| "no value".to_owned(), |v| format!("{v:.2}"));
                let (on, off) = (condition.on, condition.off);
                writeln!(out, "           {} {value} (on {on}, off {off})", condition.what)?;
            }
        }
        let raised = self.raised();
        let mut summary = format!(
            "{} of audio, {raised} raised by {} {}",
            clock(self.length.seconds()),
            self.policy.name(),
            self.policy.version()
        );
        if self.suppressed > 0 {
            let more = format!(", {} more than its budget allows", self.suppressed);
            summary.push_str(&more);
        }
        for note in &self.notes {
            summary.push_str("; ");
            summary.push_str(note);
        }
        writeln!(out, "{summary}\n")
    }

    /// Said where there is more than one.
    fn on_channel(&self, channel: u32) -> String {
        let several = self.moments.iter().any(|moment| moment.channel != channel);
        if several { format!("  channel {channel}") } else { String::new() }
    }

    fn row(&self) -> Row<'_> {
        let happened = |decision| Happened::of(decision);
        Row {
            path: &self.path,
            seconds: self.length.seconds(),
            policy: self.policy.name(),
            version: self.policy.version(),
            raised: self.raised(),
            suppressed: self.suppressed,
            notes: &self.notes,
            decisions: self.decisions.iter().map(happened).collect(),
        }
    }

    /// The drawing: a block per channel and rule, a strip per condition.
    fn course(&self) -> Course {
        let title = format!("{} {} on {}", self.policy.name(), self.policy.version(), self.path);
        let mut course = Course::new(title, self.length.seconds());
        let mut channels: Vec<u32> = self.moments.iter().map(|moment| moment.channel).collect();
        channels.sort_unstable();
        channels.dedup();
        for channel in channels {
            let voice = self
                .moments
                .iter()
                .filter(|moment| moment.channel == channel && moment.has_voice)
                .map(|moment| (moment.from.seconds(), moment.at.seconds()));
            course = course.voice(voice);
            for index in 0..self.policy.rules().len() {
                course = course.block(self.block(channel, index));
            }
        }
        course
    }

    fn block(&self, channel: u32, index: usize) -> Block {
        let rule = self.policy.rules().get(index);
        let (name, title) = rule.map_or(("", ""), |rule| (rule.name(), rule.title()));
        let severity = rule.map_or("", |rule| rule.severity().name());
        let mut block =
            Block::new(format!("{title} ({name}){}", self.on_channel(channel)), severity);
        let of_channel = || self.moments.iter().filter(|moment| moment.channel == channel);
        let own = |moment: &Moment| -> Vec<Measurement> {
            let measurements = moment.measurements.iter().filter(|(rule, _)| *rule == index);
            measurements.map(|(_, measurement)| measurement.clone()).collect()
        };
        for (number, first) in of_channel().next().map(own).unwrap_or_default().iter().enumerate() {
            let points = of_channel().map(|moment| {
                let value = own(moment).get(number).and_then(|measurement| measurement.value);
                (moment.at.seconds(), value.map(f64::from))
            });
            let (on, off) = (f64::from(first.on), f64::from(first.off));
            block = block.strip(Strip::new(first.what.clone(), on, off, points));
        }
        let mut begun: Option<f64> = None;
        let own = |d: &&Decision| d.channel == channel && d.rule == name;
        for decision in self.decisions.iter().filter(own) {
            let at = decision.at.seconds();
            match decision.action {
                Action::Raise => begun = Some(at),
                Action::Update => {}
                Action::Clear => {
                    if let Some(from) = begun.take() {
                        block = block.span(Span { from, to: at, open: false });
                    }
                }
            }
        }
        match begun {
            Some(from) => block.span(Span { from, to: self.length.seconds(), open: true }),
            None => block,
        }
    }
}

/// What is printed of a recording as JSON.
#[derive(Debug, Serialize)]
struct Row<'a> {
    path: &'a str,
    seconds: f64,
    policy: &'a str,
    version: &'a str,
    raised: usize,
    suppressed: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    decisions: Vec<Happened<'a>>,
}

#[derive(Debug, Serialize)]
struct Happened<'a> {
    at_s: f64,
    action: &'static str,
    rule: &'a str,
    title: &'a str,
    severity: &'static str,
    channel: u32,
    onset_s: f64,
    reason: &'a str,
    evidence: &'a Evidence,
}

impl<'a> Happened<'a> {
    fn of(decision: &'a Decision) -> Self {
        Self {
            at_s: decision.at.seconds(),
            action: word(decision.action),
            rule: &decision.rule,
            title: &decision.title,
            severity: decision.severity.name(),
            channel: decision.channel,
            onset_s: decision.onset.seconds(),
            reason: &decision.reason,
            evidence: &decision.evidence,
        }
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Raise => "raised",
        Action::Update => "updated",
        Action::Clear => "cleared",
    }
}

/// Minutes, seconds and tenths: 03:07.5.
fn clock(seconds: f64) -> String {
    let tenths = (seconds * 10.0).round() as u64;
    format!("{:02}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_minutes_and_tenths_and_never_sixty_seconds() {
        assert_eq!(clock(0.0), "00:00.0");
        assert_eq!(clock(187.52), "03:07.5");
        assert_eq!(clock(59.97), "01:00.0");
        assert_eq!(clock(6_000.0), "100:00.0");
    }
}
