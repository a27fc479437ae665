//! `undertone escalations`: the store, read and answered from a terminal.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use uuid::Uuid;

use super::output::stdout;
use crate::config::{Settings, Source, Span};
use crate::escalation::store::{Attempt, Batch, Change, DeliveryRecord, DeliveryState, Writer};
use crate::escalation::{
    Escalation, Filter, Location, Occurrence, Recorded, State, Store, Timestamp,
};
use crate::identity::Tenant;
use crate::policy::Severity;
use crate::server::Prepared;

/// What to do with the escalations of a store.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List escalations, newest first.
    List(ListArgs),
    /// Show one: its evidence, what happened to it, and how that was delivered.
    Show(ShowArgs),
    /// Say that somebody has taken one on. A running server delivers it and tells its stream.
    Ack(AckArgs),
    /// Make dead letters due again, attempts counted anew.
    Replay(ReplayArgs),
    /// Write escalations with their history and deliveries as JSON lines, oldest first.
    Export(ExportArgs),
}

/// Which ones.
#[derive(Debug, Args)]
struct Which {
    /// Only in this state; may be given several times.
    #[arg(long = "state", value_name = "raised|acknowledged|cleared")]
    states: Vec<State>,
    /// At least this severity.
    #[arg(long, value_name = "advisory|low|medium|high")]
    severity: Option<Severity>,
    /// Only of this policy; may be given several times.
    #[arg(long = "policy", value_name = "NAME")]
    of_policies: Vec<String>,
    /// Only of this session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<Tenant>,
    /// Only with this label; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only those raised in the last so much time, such as 24h.
    #[arg(long, value_name = "TIME")]
    within: Option<Span>,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            tenant: self.tenant.clone(),
            states: self.states.clone(),
            min_severity: self.severity,
            policies: self.of_policies.clone(),
            session_id: self.session.clone(),
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            since: self.within.map(|within| Timestamp::now().before(within.0)),
            before: None,
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Escalations at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// List deliveries that did not arrive instead: dead letters, of all escalations.
    #[arg(long, conflicts_with_all = ["states", "severity", "of_policies", "session", "tenant", "labels", "within"])]
    dead: bool,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Its id.
    id: Uuid,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub(super) struct AckArgs {
    /// Its id.
    id: Uuid,
    /// Who takes it on, for the audit trail.
    #[arg(long, value_name = "NAME")]
    by: String,
    /// What they say.
    #[arg(long)]
    note: Option<String>,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Only those of this sink.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["escalation", "all"])]
    sink: Option<String>,
    /// Only those of this escalation.
    #[arg(long, value_name = "ID")]
    escalation: Option<Uuid>,
    /// All of them.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    which: Which,
    /// File to write [default: standard output]
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

/// Escalations read at once.
const PAGE: usize = 500;
/// Deliveries of one escalation: more than a conversation of a day makes for twenty sinks, and what fits into
/// memory.
const DELIVERIES: usize = 1_000_000;
/// Dead letters made due in one transaction: a server that delivers meanwhile waits for it.
const REPLAYED_AT_ONCE: usize = 500;

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::List(args) => list(args).await,
            Command::Show(args) => show(args).await,
            Command::Ack(args) => acknowledge(args).await,
            Command::Replay(args) => replay(args).await,
            Command::Export(args) => export(args).await,
        }
    })
}

fn open(source: &Source) -> anyhow::Result<(Settings, Store)> {
    let settings = source.resolve()?;
    let location = settings.store_location()?.context("escalation_store: is empty")?;
    if let Location::Sqlite(path) = &location
        && !path.exists()
    {
        bail!(
            "there is no store at {} yet; a server makes it, or say where it is with \
             --escalation-store",
            path.display()
        );
    }
    let store = Store::at(location, settings.store_timeout.0)?;
    Ok((settings, store))
}

async fn writer(store: &Store) -> anyhow::Result<Writer> {
    let owner = format!("command {}", Uuid::now_v7());
    store.writer(&owner).await.with_context(|| store.location().to_string())
}

async fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let (_, store) = open(&args.source)?;
    let mut out = stdout();
    if args.dead {
        let limit = args.limit as usize;
        // One more than is shown says whether there are more.
        let dead = store.deliveries(&[DeliveryState::Dead], None, limit.saturating_add(1)).await?;
        for record in dead.iter().take(limit) {
            print_delivery(&mut out, record, args.format)?;
        }
        if dead.len() > limit && args.format == Format::Text {
            complain!("there are more; --limit shows them");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let page = store.list(&args.which.filter(), None, args.limit as usize).await?;
    for escalation in &page.escalations {
        match args.format {
            Format::Json => writeln!(out, "{}", serde_json::to_string(escalation)?)?,
            Format::Text => print_line(&mut out, escalation)?,
        }
    }
    if page.next.is_some() && args.format == Format::Text {
        complain!("there are more; --limit shows them");
    }
    Ok(ExitCode::SUCCESS)
}

fn print_line(out: &mut impl Write, e: &Escalation) -> std::io::Result<()> {
    writeln!(
        out,
        "{}  {}  {:<8} {:<12}  {}/{}  session {}  {}",
        seconds(e.raised_at),
        e.id,
        e.severity.name(),
        e.state.name(),
        e.policy,
        e.rule,
        e.session_id,
        e.reason
    )
}

fn print_delivery(
    out: &mut impl Write,
    record: &DeliveryRecord,
    format: Format,
) -> anyhow::Result<()> {
    if format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(record)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{}  {:<12} to {:<20} {:<9} {} attempts  {}",
        record.escalation_id,
        record.kind,
        record.sink,
        record.state.name(),
        record.attempts,
        record.problem.as_deref().unwrap_or_default()
    )?;
    Ok(())
}

/// To the second: what people compare.
fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

async fn found(store: &Store, id: Uuid) -> anyhow::Result<Escalation> {
    store.get(id).await?.with_context(|| format!("there is no escalation {id}"))
}

async fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let (_, store) = open(&args.source)?;
    let escalation = found(&store, args.id).await?;
    let history = store.history(args.id).await?;
    let deliveries = all_deliveries(&store, args.id).await?;
    let attempts = store.attempts(args.id).await?;
    let mut out = stdout();
    if args.format == Format::Json {
        let all = whole(&escalation, &history, &deliveries, &attempts);
        writeln!(out, "{all}")?;
    } else {
        print_whole(&mut out, &escalation, &history, &deliveries, &attempts)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn whole(
    escalation: &Escalation,
    history: &[Occurrence],
    deliveries: &[DeliveryRecord],
    attempts: &[Attempt],
) -> serde_json::Value {
    json!({
        "escalation": escalation,
        "history": history,
        "deliveries": deliveries,
        "attempts": attempts,
    })
}

fn print_whole(
    out: &mut impl Write,
    e: &Escalation,
    history: &[Occurrence],
    deliveries: &[DeliveryRecord],
    attempts: &[Attempt],
) -> anyhow::Result<()> {
    writeln!(out, "{} ({}, {})", e.title, e.severity, e.state.name())?;
    writeln!(out, "  {}", e.reason)?;
    writeln!(out, "  id       {}", e.id)?;
    writeln!(out, "  session  {}, channel {}", e.session_id, e.channel)?;
    if e.tenant != Tenant::default() {
        writeln!(out, "  tenant   {}", e.tenant)?;
    }
    writeln!(out, "  policy   {} {}, rule {}", e.policy, e.policy_version, e.rule)?;
    writeln!(out, "  model    {} {}", e.model, e.model_version)?;
    for (label, value) in &e.labels {
        writeln!(out, "  label    {label} = {value}")?;
    }
    let evidence = &e.evidence;
    writeln!(
        out,
        "  evidence {:.1} s to {:.1} s of the stream, {:.1} s of speech; onset at {:.1} s",
        evidence.from_s, evidence.to_s, evidence.speech_s, e.onset_s
    )?;
    for condition in &evidence.conditions {
        let value = condition.value.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.2}"));
        let holds = if condition.holds { "holds" } else { "does not hold" };
        writeln!(
            out,
            "    {} is {value}: {holds} (on {}, off {})",
            condition.what, condition.on, condition.off
        )?;
    }
    writeln!(out, "history")?;
    for occurrence in history {
        let by = occurrence.actor.as_ref().map_or_else(String::new, |actor| format!(" by {actor}"));
        let note = occurrence.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
        let (number, kind) = (occurrence.sequence, occurrence.kind.name());
        writeln!(out, "  {} {kind}{by}{note}  (number {number})", seconds(occurrence.at))?;
    }
    writeln!(out, "deliveries")?;
    if deliveries.is_empty() {
        writeln!(out, "  none: no sink wanted it")?;
    }
    for record in deliveries {
        let problem = record.problem.as_ref().map_or_else(String::new, |p| format!(": {p}"));
        let (kind, sink, state) = (&record.kind, &record.sink, record.state.name());
        writeln!(out, "  {kind} to {sink}: {state}{problem}")?;
        let tries = attempts.iter().filter(|a| a.sequence == record.sequence && a.sink == *sink);
        for attempt in tries {
            writeln!(
                out,
                "    {} attempt {}, {:.0} ms: {}, {}",
                seconds(attempt.at),
                attempt.attempt,
                attempt.took_ms,
                attempt.outcome,
                attempt.detail
            )?;
        }
    }
    Ok(())
}

async fn acknowledge(args: &AckArgs) -> anyhow::Result<ExitCode> {
    let (settings, store) = open(&args.source)?;
    // The sinks that want it are those of the server: the same settings give the same delivery file.
    let prepared = Prepared::new(&settings)?;
    let change = Change::Acknowledged {
        id: args.id,
        tenant: None,
        session_id: None,
        actor: args.by.clone(),
        identity: None,
        note: args.note.clone(),
        at: Timestamp::now(),
    };
    let untold = untold(&store, args.id, &prepared).await?;
    let batch = Batch { changes: vec![&change], ..Batch::default() };
    let done = writer(&store).await?.write(&batch, prepared.delivery()).await?;
    match done.recorded.into_iter().next() {
        Some(Recorded::New(_)) => {
            tell!("acknowledged by {}", args.by)?;
            if !untold.is_empty() {
                complain!(
                    "{} will not be told of it: they were told that it was raised, and the settings of this \
                     command know no such sinks; give it the server's --delivery",
                    untold.join(", ")
                );
            }
        }
        Some(Recorded::Before(before)) => tell!(
            "already acknowledged by {} at {}",
            before.actor.unwrap_or_default(),
            seconds(before.at)
        )?,
        Some(Recorded::Unknown) | None => bail!("there is no escalation {}", args.id),
    }
    Ok(ExitCode::SUCCESS)
}

/// Sinks that have deliveries of the escalation and that these settings do not know: what happens to it now is
/// routed by these settings, and does not reach them.
async fn untold(store: &Store, id: Uuid, prepared: &Prepared) -> anyhow::Result<Vec<String>> {
    let told = all_deliveries(store, id).await?;
    let mut sinks: Vec<String> = told.into_iter().map(|record| record.sink).collect();
    sinks.sort_unstable();
    sinks.dedup();
    let known = prepared.delivery().sinks();
    sinks.retain(|sink| known.iter().all(|known| known.name() != sink));
    Ok(sinks)
}

/// All deliveries of an escalation: an update every few seconds over hours, to several sinks, makes many.
async fn all_deliveries(store: &Store, id: Uuid) -> anyhow::Result<Vec<DeliveryRecord>> {
    Ok(store.deliveries(&[], Some(id), DELIVERIES).await?)
}

async fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let (_, store) = open(&args.source)?;
    let mut writer = writer(&store).await?;
    let mut replayed = 0;
    loop {
        let sink = args.sink.as_deref();
        let some = writer.replay(sink, args.escalation, REPLAYED_AT_ONCE).await?;
        replayed += some;
        if some < REPLAYED_AT_ONCE as u64 {
            break;
        }
    }
    tell!("{replayed} deliveries are due again")?;
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let (_, store) = open(&args.source)?;
    if let Some(path) = &args.out {
        let partial = partial(path);
        let file = std::fs::File::create(&partial)
            .with_context(|| format!("cannot write {}", partial.display()))?;
        let mut out = BufWriter::new(file);
        let count = write_all(&store, &args.which.filter(), &mut out).await?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        // Whole or not at all.
        std::fs::rename(&partial, path)?;
        complain!("{count} escalations in {}", path.display());
    } else {
        let mut out = BufWriter::new(stdout());
        write_all(&store, &args.which.filter(), &mut out).await?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

async fn write_all(store: &Store, filter: &Filter, out: &mut impl Write) -> anyhow::Result<usize> {
    // Pages go from the newest back; their ids are turned round, and each is read whole on its own.
    let mut ids = Vec::new();
    let mut start = None;
    loop {
        let page = store.list(filter, start, PAGE).await?;
        ids.extend(page.escalations.iter().map(|escalation| escalation.id));
        start = page.next;
        if start.is_none() {
            break;
        }
    }
    for id in ids.iter().rev() {
        let Some(escalation) = store.get(*id).await? else {
            continue;
        };
        let history = store.history(*id).await?;
        let deliveries = all_deliveries(store, *id).await?;
        let attempts = store.attempts(*id).await?;
        writeln!(out, "{}", whole(&escalation, &history, &deliveries, &attempts))?;
    }
    Ok(ids.len())
}
