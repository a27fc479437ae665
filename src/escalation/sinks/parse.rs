//! A delivery file's text -> sinks that can be used, or what is wrong with it and where.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::cloudevents::CloudEvents;
use super::fhir::Fhir;
use super::file::{Entry, File, Lasting, SCHEMA};
use super::nats::Nats;
use super::pagerduty::PagerDuty;
use super::settings::Common;
use super::sink::{Format, Limits, Sink};
use super::text::Text;
use super::webhook::Webhook;
use crate::secrets::Secrets;
use crate::yaml::{self, Fault, YamlError};

/// Most sinks of a file.
const MAX_SINKS: usize = 64;
/// Longest name of a sink, in bytes.
const MAX_NAME: usize = 40;

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Who is told of escalations, and how.
#[derive(Debug, Default)]
pub struct Delivery {
    sinks: Vec<Arc<Sink>>,
}

impl Delivery {
    /// Reads a delivery file and the secrets that it names. Nothing is connected to.
    ///
    /// # Errors
    /// [`YamlError`] with line, column, field and remedy.
    pub fn parse(text: &str, secrets: &dyn Secrets) -> Result<Self, YamlError> {
        let sinks = yaml::read(text, |file| sinks(file, secrets))?;
        Ok(Self { sinks: sinks.into_iter().map(Arc::new).collect() })
    }

    /// The sinks, in the file's order.
    pub fn sinks(&self) -> &[Arc<Sink>] {
        &self.sinks
    }

    /// The JSON Schema (2020-12) of delivery files, for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(File).to_value()
    }
}

fn sinks(file: &File, secrets: &dyn Secrets) -> Result<Vec<Sink>, Fault> {
    if file.schema != SCHEMA {
        let problem = format!("{:?} is no form of delivery file known here", file.schema);
        return Err(Fault::new("schema", problem, format!("write {SCHEMA}")));
    }
    if file.sinks.len() > MAX_SINKS {
        let problem = format!("{} sinks; {MAX_SINKS} are the most", file.sinks.len());
        return Err(Fault::new("sinks", problem, "leave some out"));
    }
    let mut names = BTreeSet::new();
    let mut sinks = Vec::with_capacity(file.sinks.len());
    for (index, entry) in file.sinks.iter().enumerate() {
        let path = format!("sinks[{index}]");
        check_name(&path, &entry.name)?;
        if !names.insert(&entry.name) {
            let problem = format!("there is a sink {:?} already", entry.name);
            return Err(Fault::new(format!("{path}.name"), problem, "give it a name of its own"));
        }
        sinks.push(sink(&path, entry, secrets)?);
    }
    Ok(sinks)
}

fn check_name(path: &str, name: &str) -> Result<(), Fault> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        let problem = format!("{name:?} is no name of a sink");
        let remedy = "use 1 to 40 of a to z, 0 to 9 and hyphens";
        return Err(Fault::new(format!("{path}.name"), problem, remedy));
    }
    Ok(())
}

fn sink(path: &str, entry: &Entry, secrets: &dyn Secrets) -> Result<Sink, Fault> {
    let limits = limits(path, entry)?;
    let text = Text::new(&entry.text).map_err(|problem| {
        let remedy = "use the fields of an occurrence, such as {{ escalation.title }}";
        Fault::new(format!("{path}.text"), problem, remedy)
    })?;
    let format = format(path, entry, secrets, &limits)?;
    Ok(Sink::new(entry.name.clone(), format, (&entry.route).into(), text, limits))
}

fn limits(path: &str, entry: &Entry) -> Result<Limits, Fault> {
    let field = |name: &str| format!("{path}.{name}");
    let (retry, circuit) = (&entry.retry, &entry.circuit);
    let timeout = within(&field("timeout"), entry.timeout, SECOND, 120 * SECOND)?;
    let first_backoff = within(&field("retry.first"), retry.first, TENTH, HOUR)?;
    Ok(Limits {
        timeout,
        // A default that is too long for a short time-out is cut, one that was written is not.
        connect_timeout: within(
            &field("connect_timeout"),
            entry.connect_timeout.unwrap_or(Lasting(CONNECT_TIMEOUT.min(timeout))),
            TENTH,
            timeout,
        )?,
        first_backoff,
        longest_backoff: within(&field("retry.longest"), retry.longest, first_backoff, DAY)?,
        longest_retry_after: within(
            &field("retry.retry_after"),
            retry.retry_after,
            Duration::ZERO,
            DAY,
        )?,
        max_attempts: counted(&field("retry.attempts"), retry.attempts, 1..=1000)?,
        concurrency: counted(&field("concurrency"), entry.concurrency, 1..=256)?,
        circuit_failures: counted(&field("circuit.failures"), circuit.failures, 1..=1000)?,
        circuit_pause: within(&field("circuit.pause"), circuit.pause, SECOND, HOUR)?,
    })
}

/// Time until a connection is made, unless the file says: ten round trips around the world.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// `lasting`, if it is within its range.
pub(super) fn within(
    field: &str,
    lasting: Lasting,
    least: Duration,
    most: Duration,
) -> Result<Duration, Fault> {
    if (least..=most).contains(&lasting.0) {
        return Ok(lasting.0);
    }
    let remedy = format!("set {} to {}", Lasting(least), Lasting(most));
    Err(Fault::new(field, format!("{lasting} is out of range"), remedy))
}

fn counted(field: &str, value: u32, range: RangeInclusive<u32>) -> Result<u32, Fault> {
    if range.contains(&value) {
        return Ok(value);
    }
    let remedy = format!("set {} to {}", range.start(), range.end());
    Err(Fault::new(field, format!("{value} is out of range"), remedy))
}

fn format(
    path: &str,
    entry: &Entry,
    secrets: &dyn Secrets,
    limits: &Limits,
) -> Result<Format, Fault> {
    let common = |name: &str| Common {
        field: format!("{path}.{name}"),
        secrets,
        timeout: limits.timeout,
        connect_timeout: limits.connect_timeout,
        retry_after: limits.longest_retry_after,
    };
    match (&entry.webhook, &entry.cloudevents, &entry.fhir, &entry.pagerduty, &entry.nats) {
        (Some(webhook), None, None, None, None) => {
            Ok(Format::Webhook(Webhook::new(webhook, &common("webhook"))?))
        }
        (None, Some(events), None, None, None) => {
            Ok(Format::CloudEvents(CloudEvents::new(events, &common("cloudevents"))?))
        }
        (None, None, Some(fhir), None, None) => Ok(Format::Fhir(Fhir::new(fhir, &common("fhir"))?)),
        (None, None, None, Some(pagerduty), None) => {
            Ok(Format::PagerDuty(PagerDuty::new(pagerduty, &common("pagerduty"))?))
        }
        (None, None, None, None, Some(nats)) => {
            Ok(Format::Nats(Box::new(Nats::new(nats, &common("nats"))?)))
        }
        _ => {
            let problem = "a sink is exactly one of webhook, cloudevents, fhir, pagerduty and nats";
            Err(Fault::new(path, problem, "give it one of them"))
        }
    }
}
