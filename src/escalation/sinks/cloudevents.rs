//! CloudEvents 1.0 over HTTP, structured or binary (HTTP protocol binding 1.0.2).
//!
//! `id` is the occurrence's id and `source` a setting; the two together name an event, so a receiver
//! knows one again that comes twice.

use serde::Serialize;

use super::file::{CloudEventsEntry, Mode};
use super::http::{Draft, Http};
use super::payload::{self, Data};
use super::settings::{Common, HttpSettings};
use super::verdict::Verdict;
use crate::escalation::life::{Kind, Occurrence, Timestamp};
use crate::yaml::Fault;

#[derive(Debug)]
pub(super) struct CloudEvents {
    pub(super) http: Http,
    mode: Mode,
    source: String,
}

/// An event in structured mode.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: &'static str,
    subject: String,
    time: Timestamp,
    datacontenttype: &'static str,
    data: Data<'a>,
}

/// The event's type. Its last part goes up when the data changes so that a receiver must know.
fn event_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Raised => "dev.undertone.escalation.raised.v1",
        Kind::Updated => "dev.undertone.escalation.updated.v1",
        Kind::Acknowledged => "dev.undertone.escalation.acknowledged.v1",
        Kind::Cleared => "dev.undertone.escalation.cleared.v1",
    }
}

impl CloudEvents {
    pub(super) fn new(entry: &CloudEventsEntry, common: &Common<'_>) -> Result<Self, Fault> {
        // Printable ASCII without what the HTTP binding would have to escape.
        let allowed = |c: char| c.is_ascii_graphic() && !"\"%<>\\^`{|}".contains(c);
        if entry.source.is_empty() || !entry.source.chars().all(allowed) {
            let field = format!("{}.source", common.field);
            let remedy = "write a URI reference of plain ASCII, such as /wards/7";
            return Err(Fault::new(field, "this is no URI reference", remedy));
        }
        let settings = HttpSettings {
            url: &entry.url,
            allow_private: entry.allow_private,
            allow_http: entry.allow_http,
            ca: entry.ca.as_deref(),
            token: entry.token.as_ref(),
            headers: Some(&entry.headers),
        };
        let http = Http::new(&settings, "", common)?;
        Ok(Self { http, mode: entry.mode, source: entry.source.clone() })
    }

    pub(super) fn draft(&self, occurrence: &Occurrence, text: &str) -> Result<Draft, Verdict> {
        match self.mode {
            Mode::Structured => self.structured(occurrence, text),
            Mode::Binary => self.binary(occurrence, text),
        }
        .map_err(payload::unwritable)
    }

    fn structured(&self, occurrence: &Occurrence, text: &str) -> Result<Draft, serde_json::Error> {
        let body = serde_json::to_vec(&Event {
            specversion: "1.0",
            id: occurrence.id.to_string(),
            source: &self.source,
            r#type: event_type(occurrence.kind),
            subject: occurrence.escalation.id.to_string(),
            time: occurrence.at,
            datacontenttype: "application/json",
            data: Data { occurrence, text },
        })?;
        let content_type = "application/cloudevents+json; charset=utf-8";
        Ok(Draft { content_type, headers: Vec::new(), body })
    }

    fn binary(&self, occurrence: &Occurrence, text: &str) -> Result<Draft, serde_json::Error> {
        Ok(Draft {
            content_type: "application/json",
            headers: vec![
                ("ce-specversion", "1.0".to_owned()),
                ("ce-id", occurrence.id.to_string()),
                ("ce-source", self.source.clone()),
                ("ce-type", event_type(occurrence.kind).to_owned()),
                ("ce-subject", occurrence.escalation.id.to_string()),
                ("ce-time", occurrence.at.to_string()),
            ],
            body: serde_json::to_vec(&Data { occurrence, text })?,
        })
    }
}
