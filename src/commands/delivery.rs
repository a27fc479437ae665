//! `undertone delivery`: checks a delivery file, shows what would be sent, sends a sample.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use uuid::Uuid;

use crate::config::Environment;
use crate::escalation::sinks::{Delivery, Rendered, SAMPLE_TIME, Sink, Verdict, sample};
use crate::escalation::{Kind, Occurrence, Timestamp};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a delivery file and its secrets; print each sink and what it takes.
    ///
    /// Nothing is sent, no secret is printed. Exits with 64 if the file cannot be used.
    Check {
        /// The delivery file.
        file: PathBuf,
    },
    /// Print the request that a sample occurrence would make, or make it.
    ///
    /// The sink's route is not looked at.
    Sample(SampleArgs),
    /// Print the JSON Schema of delivery files, for editors.
    Schema,
}

#[derive(Debug, clap::Args)]
pub(super) struct SampleArgs {
    /// The delivery file.
    file: PathBuf,
    /// The sink's name.
    #[arg(long)]
    sink: String,
    /// What happened.
    #[arg(long, value_enum, default_value_t = Event::Raised)]
    event: Event,
    /// A label of the session; may be given several times, and replaces the sample's own.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// The session. With one of the same name, a raised, an acknowledged and a cleared sample belong
    /// together [default: sample, or a new one with --send]
    #[arg(long)]
    session: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Send it: people at the other end will see it.
    #[arg(long, conflicts_with = "json")]
    send: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Event {
    Raised,
    Updated,
    Acknowledged,
    Cleared,
}

impl From<Event> for Kind {
    fn from(event: Event) -> Self {
        match event {
            Event::Raised => Self::Raised,
            Event::Updated => Self::Updated,
            Event::Acknowledged => Self::Acknowledged,
            Event::Cleared => Self::Cleared,
        }
    }
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { file } => check(file),
        Command::Sample(args) => show_or_send(args),
        Command::Schema => {
            tell!("{}", serde_json::to_string_pretty(&Delivery::schema())?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn load(file: &Path) -> anyhow::Result<Delivery> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Delivery::parse(&text, &Environment).with_context(|| file.display().to_string())
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    for sink in load(file)?.sinks() {
        tell!("{} ({}): {}", sink.name(), sink.kind(), sink.target())?;
        tell!("  takes {}", sink.takes())?;
        tell!(
            "  {} per attempt; {} attempts, {} to {} apart; {} at once",
            humantime::format_duration(sink.timeout()),
            sink.max_attempts(),
            humantime::format_duration(sink.first_backoff()),
            humantime::format_duration(sink.longest_backoff()),
            sink.concurrency()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_or_send(args: &SampleArgs) -> anyhow::Result<ExitCode> {
    let delivery = load(&args.file)?;
    let sink =
        delivery.sinks().iter().find(|sink| sink.name() == args.sink).with_context(|| {
            let names: Vec<&str> = delivery.sinks().iter().map(|sink| sink.name()).collect();
            format!("there is no sink {:?}; the file has {}", args.sink, names.join(", "))
        })?;
    let occurrence = occurrence(args)?;
    if args.send {
        return send(sink, &occurrence);
    }
    match sink.render(&occurrence, occurrence.at) {
        Ok(rendered) => print(&rendered, args.json)?,
        Err(verdict) => anyhow::bail!("{}", in_words(&verdict)),
    }
    Ok(ExitCode::SUCCESS)
}

fn occurrence(args: &SampleArgs) -> anyhow::Result<Occurrence> {
    // One that is sent must not be taken for one that was sent before.
    let session = match (&args.session, args.send) {
        (Some(session), _) => session.clone(),
        (None, true) => format!("sample-{}", Uuid::now_v7()),
        (None, false) => "sample".to_owned(),
    };
    let at = if args.send { Timestamp::now() } else { SAMPLE_TIME };
    let mut occurrence = sample(args.event.into(), &session, at);
    for label in &args.labels {
        let (name, value) =
            label.split_once('=').with_context(|| format!("--label {label}: write NAME=VALUE"))?;
        occurrence.escalation.labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(occurrence)
}

fn send(sink: &Sink, occurrence: &Occurrence) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let verdict = runtime.block_on(sink.deliver(occurrence, 1));
    tell!("{}", in_words(&verdict))?;
    let delivered = matches!(verdict, Verdict::Delivered { .. });
    Ok(if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Delivered { detail } => format!("delivered: {detail}"),
        Verdict::Retry { problem, after: None } => format!("would be tried again: {problem}"),
        Verdict::Retry { problem, after: Some(after) } => {
            format!("would be tried again in {}: {problem}", humantime::format_duration(*after))
        }
        Verdict::Dead { problem } => format!("would never be taken: {problem}"),
        Verdict::Gone { problem } => format!("the receiver wants no more: {problem}"),
    }
}

fn print(rendered: &Rendered, json: bool) -> anyhow::Result<()> {
    if json {
        let headers: serde_json::Map<String, serde_json::Value> = rendered
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        let request = serde_json::json!({
            "method": rendered.method,
            "target": rendered.target,
            "headers": headers,
            "body": rendered.body,
        });
        tell!("{request}")?;
        return Ok(());
    }
    tell!("{} {}", rendered.method, rendered.target)?;
    for (name, value) in &rendered.headers {
        tell!("{name}: {value}")?;
    }
    let body: serde_json::Value = serde_json::from_str(&rendered.body)?;
    tell!("\n{}", serde_json::to_string_pretty(&body)?)?;
    Ok(())
}
