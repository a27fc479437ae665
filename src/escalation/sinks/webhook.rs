//! Standard Webhooks: a signed POST of the occurrence.
//!
//! `webhook-id` is the occurrence's id: the same over retries and restarts, and the same in every sink,
//! so that a receiver behind two of them can tell. `webhook-timestamp` is the attempt's, and the
//! signature with it; the body is the same bytes every time.

use super::file::WebhookEntry;
use super::http::{Draft, Http};
use super::payload;
use super::settings::{Common, HttpSettings};
use super::signature::Signer;
use super::verdict::Verdict;
use crate::escalation::life::{Occurrence, Timestamp};
use crate::yaml::Fault;

/// Most secrets of a sink: more than a change of secrets ever needs.
const MAX_SECRETS: usize = 8;

#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) http: Http,
    signer: Signer,
}

impl Webhook {
    pub(super) fn new(entry: &WebhookEntry, common: &Common<'_>) -> Result<Self, Fault> {
        let settings = HttpSettings {
            url: &entry.url,
            allow_private: entry.allow_private,
            allow_http: entry.allow_http,
            ca: entry.ca.as_deref(),
            token: None,
            headers: Some(&entry.headers),
        };
        let signer = signer(entry, common)?;
        Ok(Self { http: Http::new(&settings, "", common)?, signer })
    }

    pub(super) fn draft(
        &self,
        occurrence: &Occurrence,
        text: &str,
        at: Timestamp,
    ) -> Result<Draft, Verdict> {
        let body = payload::envelope(occurrence, text).map_err(payload::unwritable)?;
        let id = occurrence.id.to_string();
        let seconds = at.unix_seconds();
        let signature = self.signer.sign(&id, seconds, &body);
        Ok(Draft {
            content_type: "application/json",
            headers: vec![
                ("webhook-id", id),
                ("webhook-timestamp", seconds.to_string()),
                ("webhook-signature", signature),
            ],
            body,
        })
    }
}

fn signer(entry: &WebhookEntry, common: &Common<'_>) -> Result<Signer, Fault> {
    let count = entry.secrets.len();
    if !(1..=MAX_SECRETS).contains(&count) {
        let problem = format!("{count} secrets; 1 to {MAX_SECRETS} are needed");
        let remedy = "name the current secret first, then those that are being replaced";
        return Err(Fault::new(format!("{}.secrets", common.field), problem, remedy));
    }
    let mut signer = Signer::new();
    for (index, named) in entry.secrets.iter().enumerate() {
        let name = format!("secrets[{index}]");
        signer.add(&common.secret(&name, named)?).map_err(|error| {
            let remedy = "make one with: echo whsec_$(openssl rand -base64 32)";
            Fault::new(format!("{}.{name}", common.field), error.to_string(), remedy)
        })?;
    }
    Ok(signer)
}
