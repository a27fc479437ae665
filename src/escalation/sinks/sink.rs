//! One receiver of occurrences: what it wants, how it is reached, how long it is tried.

use std::time::Duration;

use super::cloudevents::CloudEvents;
use super::fhir::{self, Fhir};
use super::http::{Draft, Http};
use super::nats::Nats;
use super::pagerduty::{self, PagerDuty};
use super::payload;
use super::route::Route;
use super::text::Text;
use super::verdict::Verdict;
use super::webhook::Webhook;
use crate::escalation::life::{Kind, Occurrence, Timestamp};

/// How a sink is told.
#[derive(Debug)]
pub(super) enum Format {
    Webhook(Webhook),
    CloudEvents(CloudEvents),
    Fhir(Fhir),
    PagerDuty(PagerDuty),
    Nats(Box<Nats>),
}

/// Times and counts of a sink, all within their ranges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) first_backoff: Duration,
    pub(super) longest_backoff: Duration,
    pub(super) longest_retry_after: Duration,
    pub(super) max_attempts: u32,
    pub(super) concurrency: u32,
    pub(super) circuit_failures: u32,
    pub(super) circuit_pause: Duration,
}

/// One receiver of occurrences.
#[derive(Debug)]
pub struct Sink {
    name: String,
    format: Format,
    route: Route,
    text: Text,
    limits: Limits,
}

/// A request as it would be made, for people: secrets are redacted, the signature is real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// `POST`, or `PUBLISH` for NATS.
    pub method: &'static str,
    /// The URL without its query, or the subject.
    pub target: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body: JSON.
    pub body: String,
}

impl Sink {
    pub(super) fn new(
        name: String,
        format: Format,
        route: Route,
        text: Text,
        limits: Limits,
    ) -> Self {
        Self { name, format, route, text, limits }
    }

    /// Its name: unique, and what the store knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind, as the key in the file.
    pub fn kind(&self) -> &'static str {
        match &self.format {
            Format::Webhook(_) => "webhook",
            Format::CloudEvents(_) => "cloudevents",
            Format::Fhir(_) => "fhir",
            Format::PagerDuty(_) => "pagerduty",
            Format::Nats(_) => "nats",
        }
    }

    /// Where it is, as it may be shown: no secret, no query of a URL.
    pub fn target(&self) -> String {
        match &self.format {
            Format::Nats(nats) => nats.shown(),
            Format::Webhook(_)
            | Format::CloudEvents(_)
            | Format::Fhir(_)
            | Format::PagerDuty(_) => {
                self.http().map_or_else(String::new, |http| http.address().to_string())
            }
        }
    }

    /// What it takes, in words.
    pub fn takes(&self) -> String {
        let kinds: Vec<&str> =
            Kind::ALL.into_iter().filter(|kind| self.wants_kind(*kind)).map(Kind::name).collect();
        let kinds = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        format!("{kinds}; {}", self.route)
    }

    /// Whether `occurrence` is for it: its route lets it through, and its format has a form for it.
    pub fn wants(&self, occurrence: &Occurrence) -> bool {
        self.wants_kind(occurrence.kind) && self.route.admits(occurrence)
    }

    fn wants_kind(&self, kind: Kind) -> bool {
        let has_form = match &self.format {
            Format::PagerDuty(_) => PagerDuty::takes(kind),
            Format::Webhook(_) | Format::CloudEvents(_) | Format::Fhir(_) | Format::Nats(_) => true,
        };
        has_form && self.route.admits_kind(kind)
    }

    /// Longest time of one attempt.
    pub fn timeout(&self) -> Duration {
        self.limits.timeout
    }

    /// Attempts in all, after which a delivery is dead.
    pub fn max_attempts(&self) -> u32 {
        self.limits.max_attempts
    }

    /// Pause after the first failure; twice as long after each further one.
    pub fn first_backoff(&self) -> Duration {
        self.limits.first_backoff
    }

    /// Longest pause between two attempts, but for what a receiver asks for.
    pub fn longest_backoff(&self) -> Duration {
        self.limits.longest_backoff
    }

    /// Attempts under way at once at most.
    pub fn concurrency(&self) -> usize {
        self.limits.concurrency as usize
    }

    /// Failures in a row after which the sink is left alone.
    pub fn circuit_failures(&self) -> u32 {
        self.limits.circuit_failures
    }

    /// For how long it is left alone.
    pub fn circuit_pause(&self) -> Duration {
        self.limits.circuit_pause
    }

    /// Makes one attempt, the `attempt`th, counted from 1. Takes no longer than [`Self::timeout`].
    ///
    /// # Cancellation
    /// May be dropped at any time; the receiver may have taken the occurrence then, and will know it
    /// again by its id.
    pub async fn deliver(&self, occurrence: &Occurrence, attempt: u32) -> Verdict {
        let timeout = self.limits.timeout;
        let verdict = tokio::time::timeout(timeout, self.attempt(occurrence, attempt)).await;
        verdict.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(timeout);
            Verdict::retry(format!("no answer within {timeout}"))
        })
    }

    async fn attempt(&self, occurrence: &Occurrence, attempt: u32) -> Verdict {
        if let Format::Nats(nats) = &self.format {
            return nats.deliver(occurrence, &self.text.render(occurrence), attempt).await;
        }
        let Some(http) = self.http() else {
            return Verdict::dead("the sink has no address");
        };
        match self.draft(occurrence, Timestamp::now(), Show::Secrets) {
            Ok(draft) => http.send(draft, attempt, self.dead_statuses()).await,
            Err(verdict) => verdict,
        }
    }

    /// The request that the first attempt would make `at` a time.
    ///
    /// # Errors
    /// The verdict where there is none to make.
    pub fn render(&self, occurrence: &Occurrence, at: Timestamp) -> Result<Rendered, Verdict> {
        if let Format::Nats(nats) = &self.format {
            let body = payload::envelope(occurrence, &self.text.render(occurrence));
            return Ok(Rendered {
                method: "PUBLISH",
                target: nats.subject(occurrence),
                headers: vec![
                    ("Nats-Msg-Id".to_owned(), occurrence.id.to_string()),
                    ("content-type".to_owned(), "application/json".to_owned()),
                ],
                body: utf8(body.map_err(payload::unwritable)?),
            });
        }
        let draft = self.draft(occurrence, at, Show::NoSecrets)?;
        Ok(Rendered {
            method: "POST",
            target: self.target(),
            headers: self.http().map_or_else(Vec::new, |http| http.shown_headers(&draft)),
            body: utf8(draft.body),
        })
    }

    fn draft(&self, occurrence: &Occurrence, at: Timestamp, show: Show) -> Result<Draft, Verdict> {
        let text = self.text.render(occurrence);
        match (&self.format, show) {
            (Format::Webhook(webhook), _) => webhook.draft(occurrence, &text, at),
            (Format::CloudEvents(events), _) => events.draft(occurrence, &text),
            (Format::Fhir(fhir), _) => fhir.draft(occurrence, &text),
            (Format::PagerDuty(pagerduty), Show::Secrets) => pagerduty.draft(occurrence, &text),
            (Format::PagerDuty(pagerduty), Show::NoSecrets) => pagerduty.shown(occurrence, &text),
            (Format::Nats(_), _) => Err(Verdict::dead("a NATS message is no request")),
        }
    }

    fn http(&self) -> Option<&Http> {
        match &self.format {
            Format::Webhook(webhook) => Some(&webhook.http),
            Format::CloudEvents(events) => Some(&events.http),
            Format::Fhir(fhir) => Some(&fhir.http),
            Format::PagerDuty(pagerduty) => Some(&pagerduty.http),
            Format::Nats(_) => None,
        }
    }

    /// Statuses after which there is no use in trying again. Other receivers' mistakes may be mended.
    fn dead_statuses(&self) -> &'static [u16] {
        match &self.format {
            Format::Fhir(_) => fhir::DEAD,
            Format::PagerDuty(_) => pagerduty::DEAD,
            Format::Webhook(_) | Format::CloudEvents(_) | Format::Nats(_) => &[],
        }
    }
}

/// Whether secrets of the body are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    Secrets,
    NoSecrets,
}

/// JSON is UTF-8.
fn utf8(body: Vec<u8>) -> String {
    String::from_utf8(body).unwrap_or_default()
}
