//! The JSON that webhooks, CloudEvents and NATS carry: the occurrence as it is, with the message.
//!
//! It depends on the occurrence and the sink's text alone: every attempt sends the same bytes.

use serde::Serialize;

use super::verdict::Verdict;
use crate::escalation::life::{Kind, Occurrence, Timestamp};

/// The occurrence and its message.
#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    /// What happened and how the escalation stands.
    #[serde(flatten)]
    pub(super) occurrence: &'a Occurrence,
    /// The message for people.
    pub(super) text: &'a str,
}

#[derive(Debug, Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

/// The event's type: `escalation.raised` and the like.
pub(super) fn event_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Raised => "escalation.raised",
        Kind::Updated => "escalation.updated",
        Kind::Acknowledged => "escalation.acknowledged",
        Kind::Cleared => "escalation.cleared",
    }
}

/// The body of a webhook and of a NATS message.
///
/// # Errors
/// If the occurrence cannot be written as JSON, which none of its types gives cause for.
pub(super) fn envelope(occurrence: &Occurrence, text: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Envelope {
        r#type: event_type(occurrence.kind),
        timestamp: occurrence.at,
        data: Data { occurrence, text },
    })
}

/// The verdict on an occurrence that cannot be written.
#[expect(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
pub(super) fn unwritable(error: serde_json::Error) -> Verdict {
    Verdict::dead(format!("the occurrence cannot be written as JSON: {error}"))
}

/// `value` as JSON whose numbers read as they were written: 0.81 of single precision stays 0.81.
///
/// # Errors
/// If it cannot be written as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(&serde_json::to_string(value)?)
}
