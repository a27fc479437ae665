//! PagerDuty Events API v2: an escalation is an alert, its id the `dedup_key`.
//!
//! Raised triggers, acknowledged acknowledges, cleared resolves. Updates are not sent: to PagerDuty a
//! second trigger that comes late, after the resolve, would be a new incident.

use serde_json::json;

use super::file::PagerDutyEntry;
use super::http::{Draft, Http};
use super::payload;
use super::secret::Secret;
use super::settings::{Common, HttpSettings};
use super::text::shortened;
use super::verdict::Verdict;
use crate::escalation::life::{Kind, Occurrence};
use crate::policy::Severity;
use crate::yaml::Fault;

/// Longest summary that PagerDuty takes, in characters.
const MAX_SUMMARY: usize = 1024;
/// Longest `source`, in characters.
const MAX_SOURCE: usize = 255;
/// Bad requests do not get better.
pub(super) const DEAD: &[u16] = &[400, 422];

#[derive(Debug)]
pub(super) struct PagerDuty {
    pub(super) http: Http,
    routing_key: Secret,
    source: String,
}

fn action(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Raised => Some("trigger"),
        Kind::Updated => None,
        Kind::Acknowledged => Some("acknowledge"),
        Kind::Cleared => Some("resolve"),
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Advisory => "info",
        Severity::Low => "warning",
        Severity::Medium => "error",
        Severity::High => "critical",
    }
}

impl PagerDuty {
    pub(super) fn new(entry: &PagerDutyEntry, common: &Common<'_>) -> Result<Self, Fault> {
        if entry.source.is_empty() || entry.source.chars().count() > MAX_SOURCE {
            let problem = format!("it must have 1 to {MAX_SOURCE} characters");
            let remedy = "name the service or the site";
            return Err(Fault::new(format!("{}.source", common.field), problem, remedy));
        }
        let settings = HttpSettings {
            url: &entry.url,
            allow_private: entry.allow_private,
            allow_http: entry.allow_http,
            ca: entry.ca.as_deref(),
            token: None,
            headers: None,
        };
        let routing_key = common.secret("routing_key", &entry.routing_key)?;
        let http = Http::new(&settings, "/v2/enqueue", common)?.keeping(routing_key.clone());
        Ok(Self { http, routing_key, source: entry.source.clone() })
    }

    /// Whether such an occurrence is sent at all.
    pub(super) fn takes(kind: Kind) -> bool {
        action(kind).is_some()
    }

    pub(super) fn draft(&self, occurrence: &Occurrence, text: &str) -> Result<Draft, Verdict> {
        self.event(occurrence, text, self.routing_key.reveal())
    }

    /// As [`Self::draft`], without the key.
    pub(super) fn shown(&self, occurrence: &Occurrence, text: &str) -> Result<Draft, Verdict> {
        self.event(occurrence, text, "[redacted]")
    }

    fn event(&self, occurrence: &Occurrence, text: &str, key: &str) -> Result<Draft, Verdict> {
        let escalation = &occurrence.escalation;
        let Some(action) = action(occurrence.kind) else {
            return Err(Verdict::dead("PagerDuty has no event for an update"));
        };
        let evidence = payload::json(&escalation.evidence).map_err(payload::unwritable)?;
        let event = json!({
            "routing_key": key,
            "event_action": action,
            "dedup_key": escalation.id,
            "client": "Undertone",
            "payload": {
                "summary": shortened(text, MAX_SUMMARY),
                "source": self.source,
                "severity": severity(escalation.severity),
                "timestamp": occurrence.at,
                "component": escalation.session_id,
                "group": escalation.policy,
                "class": escalation.rule,
                "custom_details": {
                    "occurrence_id": occurrence.id,
                    "sequence": occurrence.sequence,
                    "event": occurrence.kind,
                    "actor": occurrence.actor,
                    "note": occurrence.note,
                    "reason": escalation.reason,
                    "severity": escalation.severity,
                    "channel": escalation.channel,
                    "labels": escalation.labels,
                    "policy_version": escalation.policy_version,
                    "model": escalation.model,
                    "model_version": escalation.model_version,
                    "onset_s": escalation.onset_s,
                    "evidence": evidence,
                },
            },
        });
        let body = serde_json::to_vec(&event).map_err(payload::unwritable)?;
        Ok(Draft { content_type: "application/json", headers: Vec::new(), body })
    }
}
