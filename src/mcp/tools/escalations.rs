//! `list_escalations`, `explain_escalation`, `acknowledge_escalation`: what policies have raised.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Told, parse, within};
use crate::mcp::failure::Failure;
use crate::mcp::view::{Condition, Escalation, Evidence, Happening, Severity, State};
use crate::mcp::way::Calls;
use crate::mcp::words;
use crate::wire::v1;

/// Most escalations in one answer: a model reads no more with profit.
const MAX_ESCALATIONS: u32 = 100;
const DEFAULT_ESCALATIONS: u32 = 20;
/// Things that happened to one escalation that are told at most, the last ones: updates may go on for hours.
const MAX_HISTORY: usize = 100;

/// Which escalations to list: all that is given must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListArguments {
    /// Any of these states; raised and acknowledged are those in force. All if not given.
    states: Vec<State>,
    /// At least this severity.
    min_severity: Option<Severity>,
    /// Any of these policies. All if not given.
    policies: Vec<String>,
    /// Of this session.
    session_id: Option<String>,
    /// With all of these labels.
    labels: BTreeMap<String, String>,
    /// Raised then or later, RFC 3339, such as 2026-05-01T08:00:00Z.
    raised_since: Option<String>,
    /// Raised before that, RFC 3339.
    raised_before: Option<String>,
    /// Of this tenant, for those who see more than one.
    tenant: Option<String>,
    /// Most escalations in the answer, 1 to 100. 20 if not given.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
    /// `next_page_token` of the answer before, for those that follow.
    page_token: Option<String>,
}

/// Which escalation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainArguments {
    /// The escalation's id, a UUID, see `list_escalations`.
    escalation_id: String,
}

/// Which escalation, and who takes it on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcknowledgeArguments {
    /// The escalation's id, a UUID, see `list_escalations`.
    escalation_id: String,
    /// The person who takes it on, for the audit trail, 1 to 255 bytes.
    #[schemars(length(min = 1, max = 255))]
    actor: String,
    /// What they say, at most 1000 bytes.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

/// Escalations.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Listed {
    /// The same in words.
    words: String,
    /// What limits all of it.
    limits: &'static str,
    /// The escalations, newest first.
    escalations: Vec<Escalation>,
    /// For those that follow; null if these are all.
    next_page_token: Option<String>,
}

/// One escalation, and why.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct Explained {
    /// The same in words.
    words: String,
    /// What limits all of it.
    limits: &'static str,
    /// The escalation as it stands.
    escalation: Escalation,
    /// What the last decision rests on; null if that is not known.
    evidence: Option<Evidence>,
    /// What happened to it, in order, the last hundred.
    history: Vec<Happening>,
    /// What happened before those.
    history_left_out: usize,
}

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Acknowledged {
    /// The same in words.
    words: String,
    /// True if somebody had taken it on before: theirs stands, and nothing was changed.
    already: bool,
    /// The escalation after it.
    escalation: Escalation,
}

impl Told for Listed {
    fn words(&self) -> &str {
        &self.words
    }
}

impl Told for Explained {
    fn words(&self) -> &str {
        &self.words
    }
}

impl Told for Acknowledged {
    fn words(&self) -> &str {
        &self.words
    }
}

pub(super) async fn list(arguments: Option<JsonObject>, calls: &Calls) -> Result<Listed, Failure> {
    let arguments: ListArguments = parse(arguments)?;
    let limit =
        within("limit", arguments.limit.unwrap_or(DEFAULT_ESCALATIONS), 1, MAX_ESCALATIONS)?;
    let filter = v1::EscalationFilter {
        states: arguments.states.iter().map(|state| state.wire().into()).collect(),
        min_severity: arguments.min_severity.map_or(0, |severity| severity.wire().into()),
        policies: arguments.policies,
        session_id: arguments.session_id.unwrap_or_default(),
        labels: arguments.labels.into_iter().collect(),
        raised_since: time("raised_since", arguments.raised_since.as_deref())?,
        raised_before: time("raised_before", arguments.raised_before.as_deref())?,
        tenant: arguments.tenant.unwrap_or_default(),
    };
    let request = v1::ListEscalationsRequest {
        filter: Some(filter),
        page_size: limit,
        page_token: arguments.page_token.unwrap_or_default(),
    };
    Ok(Listed::new(&calls.list_escalations(request).await?))
}

fn time(name: &str, text: Option<&str>) -> Result<Option<prost_types::Timestamp>, Failure> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            let remedy = "RFC 3339, such as 2026-05-01T08:00:00Z";
            Failure::argument(name, format!("is {text:?}, which is no time"), remedy)
        })
    };
    text.map(parse).transpose()
}

pub(super) async fn explain(
    arguments: Option<JsonObject>,
    calls: &Calls,
) -> Result<Explained, Failure> {
    let ExplainArguments { escalation_id } = parse(arguments)?;
    Ok(Explained::new(&calls.escalation(escalation_id).await?))
}

pub(super) async fn acknowledge(
    arguments: Option<JsonObject>,
    calls: &Calls,
) -> Result<Acknowledged, Failure> {
    let AcknowledgeArguments { escalation_id, actor, note } = parse(arguments)?;
    let request = v1::AcknowledgeEscalationRequest {
        id: escalation_id,
        actor,
        note: note.unwrap_or_default(),
    };
    Ok(Acknowledged::new(&calls.acknowledge(request).await?))
}

impl Listed {
    fn new(response: &v1::ListEscalationsResponse) -> Self {
        let escalations: Vec<Escalation> =
            response.escalations.iter().map(Escalation::from).collect();
        let mut words = match escalations.len() {
            0 => "No such escalations that you can see.".to_owned(),
            1 => "One escalation:".to_owned(),
            count => format!("{count} escalations, newest first:"),
        };
        for escalation in &escalations {
            let _ = write!(words, "\n{}", words::escalation_line(escalation));
        }
        let token = &response.next_page_token;
        let next_page_token = (!token.is_empty()).then(|| token.clone());
        if next_page_token.is_some() {
            words.push_str("\nThere are more: call again with next_page_token as page_token.");
        }
        if !escalations.is_empty() {
            let _ = write!(words, "\n{}", words::LIMITS);
        }
        Self { words, limits: words::LIMITS, escalations, next_page_token }
    }
}

/// A condition in words.
fn condition(condition: &Condition) -> String {
    let value = match condition.value {
        Some(value) => format!("is {value:.2}"),
        None => "is unknown for want of speech".to_owned(),
    };
    let holds = if condition.holds { "holds" } else { "does not hold" };
    format!(
        "{} {value}; turns on at {:.2} and off at {:.2}: {holds}",
        condition.what, condition.on, condition.off
    )
}

/// What happened, in words.
fn happening(happening: &Happening) -> String {
    let mut words =
        format!("{} {}", happening.at.as_deref().unwrap_or("(no time)"), happening.kind);
    if let Some(actor) = &happening.actor {
        let _ = write!(words, " by {actor}");
    }
    if let Some(note) = &happening.note {
        let _ = write!(words, ": {note}");
    }
    words
}

impl Explained {
    pub(in crate::mcp) fn new(response: &v1::GetEscalationResponse) -> Self {
        let wire = response.escalation.clone().unwrap_or_default();
        let escalation = Escalation::from(&wire);
        let evidence = wire.evidence.as_ref().map(Evidence::from);
        let history_left_out = response.history.len().saturating_sub(MAX_HISTORY);
        let history: Vec<Happening> =
            response.history.iter().skip(history_left_out).map(Happening::from).collect();
        let mut words = format!(
            "{}\nRaised by the rule {} of the policy {} ({}), on channel {}; its condition has held since {:.1} s into \
             the audio.",
            words::escalation_line(&escalation),
            escalation.rule,
            escalation.policy,
            escalation.policy_version,
            escalation.channel,
            escalation.onset_s,
        );
        if let Some(evidence) = &evidence {
            let _ = write!(
                words,
                "\nThe last decision rests on {:.1} s of speech between {:.1} and {:.1} s",
                evidence.speech_s, evidence.from_s, evidence.to_s
            );
            if let Some(distress) = evidence.distress {
                let most = words::most_probable(&evidence.emotions);
                let _ = write!(words, ", on average {most}; distress {distress:.2} of 1");
            }
            words.push('.');
            for one in &evidence.conditions {
                let _ = write!(words, "\n- {}", condition(one));
            }
        }
        if !history.is_empty() {
            words.push_str("\nWhat happened:");
        }
        if history_left_out > 0 {
            let _ = write!(words, "\n- {history_left_out} earlier ones are left out");
        }
        for one in &history {
            let _ = write!(words, "\n- {}", happening(one));
        }
        let _ = write!(words, "\n{}", words::LIMITS);
        Self { words, limits: words::LIMITS, escalation, evidence, history, history_left_out }
    }

    /// In words, without what limits them: for those who say that themselves.
    pub(in crate::mcp) fn unlimited_words(&self) -> &str {
        self.words.strip_suffix(words::LIMITS).unwrap_or(&self.words).trim_end()
    }
}

impl Acknowledged {
    fn new(response: &v1::AcknowledgeEscalationResponse) -> Self {
        let escalation = Escalation::from(&response.escalation.clone().unwrap_or_default());
        let by = escalation.acknowledged_by.as_deref().unwrap_or("somebody");
        let at = escalation.acknowledged_at.as_deref().unwrap_or("an unknown time");
        let words = if response.already {
            format!("Nothing was changed: {by} had taken it on before, at {at}, and that stands.")
        } else {
            format!("Taken on by {by} at {at}, and recorded.")
        };
        let words = format!("{words}\n{}", words::escalation_line(&escalation));
        Self { words, already: response.already, escalation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_tells_each_condition_with_its_value_and_thresholds() {
        let of = |value, holds| v1::ConditionValue {
            what: "mean of distress over 10s".to_owned(),
            value,
            on: 0.6,
            off: 0.45,
            holds,
        };
        let evidence = v1::Evidence {
            distress: Some(0.7),
            emotions: [("sad".to_owned(), 0.5), ("fear".to_owned(), 0.5)].into(),
            conditions: vec![of(Some(0.7), true), of(None, false)],
            ..v1::Evidence::default()
        };
        let escalation = v1::Escalation {
            evidence: Some(evidence),
            severity: v1::Severity::High.into(),
            state: v1::EscalationState::Raised.into(),
            ..v1::Escalation::default()
        };
        let history = vec![v1::EscalationEvent {
            kind: v1::EscalationEventKind::Raised.into(),
            ..v1::EscalationEvent::default()
        }];
        let response = v1::GetEscalationResponse { escalation: Some(escalation), history };
        let Explained { words, .. } = Explained::new(&response);
        for part in [
            "mean of distress over 10s is 0.70; turns on at 0.60 and off at 0.45: holds",
            "is unknown for want of speech",
            "severity high (somebody must look now), in force, and nobody has taken it on",
            "fear with a probability of 0.50 (next: sad 0.50, hardly less)",
            "(no time) raised",
        ] {
            assert!(words.contains(part), "{part}\n{words}");
        }
    }

    #[test]
    fn a_second_acknowledgement_says_whose_stands() {
        let escalation =
            v1::Escalation { acknowledged_by: "Ann".to_owned(), ..v1::Escalation::default() };
        let of = |already| {
            let escalation = Some(escalation.clone());
            Acknowledged::new(&v1::AcknowledgeEscalationResponse { escalation, already }).words
        };
        assert!(of(false).starts_with("Taken on by Ann"));
        assert!(of(true).starts_with("Nothing was changed: Ann had taken it on"));
    }

    #[test]
    fn a_time_that_is_none_is_refused_by_its_name() {
        assert_eq!(time("raised_since", None).unwrap(), None);
        let parsed = time("raised_since", Some("1970-01-01T00:01:00Z")).unwrap().unwrap();
        assert_eq!(parsed.seconds, 60);
        let error = time("raised_since", Some("yesterday")).unwrap_err().to_string();
        assert!(error.contains("raised_since") && error.contains("RFC 3339"), "{error}");
    }
}
