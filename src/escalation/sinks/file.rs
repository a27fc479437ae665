//! A delivery file as it is written: its types, its defaults, and with them its JSON Schema.
//!
//! Unknown keys are refused. What a value may be beyond its type is checked in [`super::parse`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::escalation::life::Kind;
use crate::identity::Tenant;
use crate::policy::Severity;
use crate::secrets::Named;

/// The name of this form of the file.
pub(super) const SCHEMA: &str = "undertone.delivery/v1";

/// Who is told of escalations, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Delivery")]
pub(super) struct File {
    /// The form of this file: `undertone.delivery/v1`.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: String,
    /// Each gets every occurrence that its route lets through.
    #[schemars(length(max = 64))]
    pub(super) sinks: Vec<Entry>,
}

/// One sink: exactly one of `webhook`, `cloudevents`, `fhir`, `pagerduty` and `nats`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sink", extend("oneOf" = [
    {"required": ["webhook"]}, {"required": ["cloudevents"]}, {"required": ["fhir"]},
    {"required": ["pagerduty"]}, {"required": ["nats"]},
]))]
pub(super) struct Entry {
    /// Its name in the store, logs and metrics; a to z, 0 to 9 and hyphens, unique. A delivery that
    /// waits in the store waits for this name.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9-]+$"))]
    pub(super) name: String,
    /// A signed request (Standard Webhooks).
    pub(super) webhook: Option<WebhookEntry>,
    /// A CloudEvents 1.0 event over HTTP.
    pub(super) cloudevents: Option<CloudEventsEntry>,
    /// A FHIR R4 transaction: Communication and Observation.
    pub(super) fhir: Option<FhirEntry>,
    /// A PagerDuty event (Events API v2).
    pub(super) pagerduty: Option<PagerDutyEntry>,
    /// A message in a NATS JetStream stream.
    pub(super) nats: Option<NatsEntry>,
    /// What is let through; everything, if nothing is said.
    #[serde(default)]
    pub(super) route: RouteEntry,
    /// The message for people: a Jinja template over the occurrence.
    #[serde(default = "default_text")]
    #[schemars(length(max = 4096))]
    pub(super) text: String,
    /// Longest time that one attempt may take, 1 s to 2 min.
    #[serde(default = "default_timeout")]
    pub(super) timeout: Lasting,
    /// Longest time that a connection may take to be made, 100 ms to `timeout`; 5 s or `timeout`, the
    /// shorter, if nothing is said.
    pub(super) connect_timeout: Option<Lasting>,
    /// When a failed attempt is made again.
    #[serde(default)]
    pub(super) retry: RetryEntry,
    /// Attempts under way at once at most.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 256))]
    pub(super) concurrency: u32,
    /// When a sink that fails is left alone.
    #[serde(default)]
    pub(super) circuit: CircuitEntry,
}

fn default_text() -> String {
    "{% if kind != \"raised\" %}[{{ kind }}{% if actor %} by {{ actor }}{% endif %}] {% endif %}\
     {{ escalation.title }}: {{ escalation.reason }}"
        .to_owned()
}

fn default_timeout() -> Lasting {
    Lasting(Duration::from_secs(15))
}

fn default_concurrency() -> u32 {
    8
}

fn yes() -> bool {
    true
}

/// What a sink gets. Each condition that is given must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Route")]
pub(super) struct RouteEntry {
    /// The least severity.
    pub(super) min_severity: Option<Severity>,
    /// Names of tenants; any, if empty.
    #[schemars(with = "Vec<String>")]
    pub(super) tenants: Vec<Tenant>,
    /// Names of policies; any, if empty.
    pub(super) policies: Vec<String>,
    /// Labels that the session must have, with their values.
    pub(super) labels: BTreeMap<String, String>,
    /// What must have happened; anything, if empty.
    pub(super) events: Vec<Kind>,
}

/// When a failed attempt is made again: after `first`, then twice as long each time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Retry")]
pub(super) struct RetryEntry {
    /// Pause after the first failure, 100 ms to 1 h.
    pub(super) first: Lasting,
    /// Longest pause, `first` to 24 h.
    pub(super) longest: Lasting,
    /// Attempts in all, after which the delivery is dead, 1 to 1,000.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) attempts: u32,
    /// Longest pause that a receiver may ask for with Retry-After, up to 24 h.
    pub(super) retry_after: Lasting,
}

impl Default for RetryEntry {
    fn default() -> Self {
        Self {
            first: Lasting(Duration::from_secs(1)),
            longest: Lasting(Duration::from_secs(600)),
            // About two and a half hours with the pauses above.
            attempts: 24,
            retry_after: Lasting(Duration::from_secs(3600)),
        }
    }
}

/// When a sink that fails is left alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Circuit")]
pub(super) struct CircuitEntry {
    /// Failures in a row after which it is left alone, 1 to 1,000.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) failures: u32,
    /// For how long, 1 s to 1 h.
    pub(super) pause: Lasting,
}

impl Default for CircuitEntry {
    fn default() -> Self {
        Self { failures: 5, pause: Lasting(Duration::from_secs(30)) }
    }
}

/// A signed request (Standard Webhooks).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Webhook")]
pub(super) struct WebhookEntry {
    /// Where requests go.
    pub(super) url: Words,
    /// `whsec_` secrets, the current one first; every one of them signs.
    #[schemars(length(min = 1, max = 8))]
    pub(super) secrets: Vec<Named>,
    /// Further headers.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Words>,
    /// Whether the host may be on a private network, and the scheme http.
    #[serde(default)]
    pub(super) allow_private: bool,
    /// Whether the scheme may be http.
    #[serde(default)]
    pub(super) allow_http: bool,
    /// PEM file with certificates to trust besides the system's.
    pub(super) ca: Option<PathBuf>,
}

/// How an event is put into a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Attributes and data in one JSON object.
    #[default]
    Structured,
    /// Attributes as headers, data as body.
    Binary,
}

/// A CloudEvents 1.0 event over HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CloudEvents")]
pub(super) struct CloudEventsEntry {
    /// Where events go.
    pub(super) url: Words,
    /// How an event is put into a request.
    #[serde(default)]
    pub(super) mode: Mode,
    /// The attribute `source`: a URI reference.
    #[serde(default = "default_source")]
    pub(super) source: String,
    /// Bearer token.
    pub(super) token: Option<Named>,
    /// Further headers.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Words>,
    /// Whether the host may be on a private network, and the scheme http.
    #[serde(default)]
    pub(super) allow_private: bool,
    /// Whether the scheme may be http.
    #[serde(default)]
    pub(super) allow_http: bool,
    /// PEM file with certificates to trust besides the system's.
    pub(super) ca: Option<PathBuf>,
}

pub(super) fn default_source() -> String {
    "undertone".to_owned()
}

/// What becomes of an escalation of a session without a patient label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WithoutPatient {
    /// It is not sent: the delivery is dead at once and shows in the list of dead letters.
    #[default]
    Refuse,
    /// It is sent with a subject that is a text only and belongs to no record.
    Display,
}

/// A FHIR R4 transaction: Communication and Observation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Fhir")]
pub(super) struct FhirEntry {
    /// The server's base, which transactions are posted to.
    pub(super) url: Words,
    /// Bearer token.
    pub(super) token: Option<Named>,
    /// The session label with the patient.
    #[serde(default = "default_patient_label")]
    pub(super) patient_label: String,
    /// System of the patient label's values, if they are identifiers such as a record number. Without
    /// it they are the server's own ids.
    pub(super) patient_system: Option<String>,
    /// The session label with the encounter.
    #[serde(default = "default_encounter_label")]
    pub(super) encounter_label: String,
    /// System of the encounter label's values, if they are identifiers.
    pub(super) encounter_system: Option<String>,
    /// What becomes of an escalation of a session without a patient label.
    #[serde(default)]
    pub(super) without_patient: WithoutPatient,
    /// URI of the code system for what FHIR has no codes for.
    #[serde(default = "default_code_system")]
    pub(super) code_system: String,
    /// Further headers.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Words>,
    /// Whether the host may be on a private network, and the scheme http.
    #[serde(default)]
    pub(super) allow_private: bool,
    /// Whether the scheme may be http.
    #[serde(default)]
    pub(super) allow_http: bool,
    /// PEM file with certificates to trust besides the system's.
    pub(super) ca: Option<PathBuf>,
}

fn default_patient_label() -> String {
    "patient".to_owned()
}

fn default_encounter_label() -> String {
    "encounter".to_owned()
}

fn default_code_system() -> String {
    "urn:undertone:voice".to_owned()
}

/// A PagerDuty event (Events API v2).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PagerDuty")]
pub(super) struct PagerDutyEntry {
    /// The integration's key.
    pub(super) routing_key: Named,
    /// The service's base; `/v2/enqueue` is added.
    #[serde(default = "default_pagerduty")]
    pub(super) url: Words,
    /// What the event says that it comes from.
    #[serde(default = "default_source")]
    #[schemars(length(min = 1, max = 255))]
    pub(super) source: String,
    /// Whether the host may be on a private network, and the scheme http.
    #[serde(default)]
    pub(super) allow_private: bool,
    /// Whether the scheme may be http.
    #[serde(default)]
    pub(super) allow_http: bool,
    /// PEM file with certificates to trust besides the system's.
    pub(super) ca: Option<PathBuf>,
}

fn default_pagerduty() -> Words {
    Words::Plain("https://events.pagerduty.com".to_owned())
}

/// A message in a NATS JetStream stream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Nats")]
pub(super) struct NatsEntry {
    /// Addresses of the servers, such as <nats://10.0.0.7:4222>.
    #[schemars(length(min = 1, max = 16))]
    pub(super) servers: Vec<String>,
    /// The subject; `{severity}`, `{policy}`, `{rule}`, `{event}`, `{session}` and `{channel}` are
    /// replaced.
    #[serde(default = "default_subject")]
    pub(super) subject: String,
    /// The text of a credentials file.
    pub(super) credentials: Option<Named>,
    /// A token, in place of credentials.
    pub(super) token: Option<Named>,
    /// A user, in place of credentials; with `password`.
    pub(super) user: Option<String>,
    /// The user's password.
    pub(super) password: Option<Named>,
    /// Whether the connection must be encrypted, also if the server does not ask for it.
    #[serde(default)]
    pub(super) tls: bool,
    /// PEM file with the certificates to trust in place of the system's.
    pub(super) ca: Option<PathBuf>,
    /// The stream that must take the message; any, if nothing is said.
    pub(super) stream: Option<String>,
    /// Whether `stream` is made if there is no stream for the subject.
    #[serde(default)]
    pub(super) create_stream: bool,
    /// For how long a stream made so knows a message again, 1 min to 7 d.
    #[serde(default = "default_duplicate_window")]
    pub(super) duplicate_window: Lasting,
    /// Whether addresses that the servers tell of are used as well.
    #[serde(default = "yes")]
    pub(super) discover: bool,
}

fn default_subject() -> String {
    "undertone.escalations.{severity}.{policy}".to_owned()
}

fn default_duplicate_window() -> Lasting {
    Lasting(Duration::from_secs(3600))
}

/// A duration as people write it: `500ms`, `15s`, `10m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lasting(pub(super) Duration);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Lasting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lasting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            de::Error::custom("this is no duration; write one such as 500ms, 15s or 10m")
        })
    }
}

impl JsonSchema for Lasting {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A duration, such as 500ms, 15s, 10m or 1h.",
            "pattern": "^([0-9]+ ?[a-z]+ ?)+$",
        })
    }
}

/// A text, or the name of a secret that holds it.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename = "TextOrSecret", untagged)]
pub(super) enum Words {
    /// The text itself.
    Plain(String),
    /// The name of a secret.
    Secret(Named),
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => serializer.serialize_str(text),
            Self::Secret(_) => serializer.serialize_str("[redacted]"),
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor)
    }
}

struct WordsVisitor;

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, {env: NAME} or {file: PATH}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
        Ok(Words::Plain(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Words, E> {
        Ok(Words::Plain(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Words, E> {
        Ok(Words::Plain(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Words, E> {
        Ok(Words::Plain(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Words, E> {
        Ok(Words::Plain(value.to_string()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Words, A::Error> {
        Named::in_map(map).map(Words::Secret)
    }
}
