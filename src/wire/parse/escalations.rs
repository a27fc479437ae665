//! Theirs to ours: acknowledgements, and what is asked about escalations.

use uuid::Uuid;

use super::{Check, MAX_LABELS, Violation, v1};
use crate::escalation::{Filter, State, Timestamp};
use crate::policy::Severity;

/// Longest name of whoever acknowledges, bytes.
const MAX_ACTOR: usize = 255;
/// Longest note of an acknowledgement, bytes.
const MAX_NOTE: usize = 1000;

/// Somebody takes on an escalation, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Which.
    pub id: Uuid,
    /// Who.
    pub actor: String,
    /// What they say.
    pub note: Option<String>,
}

/// Checks an acknowledgement; `fields` are the names of its id, actor and note.
///
/// # Errors
/// Every violation found.
pub fn acknowledgement(
    (id, actor, note): (&str, &str, &str),
    fields: [&'static str; 3],
) -> Result<Acknowledgement, Vec<Violation>> {
    let mut check = Check::default();
    let [id_field, actor_field, note_field] = fields;
    let parsed = escalation_id(&mut check, id_field, id);
    if actor.trim().is_empty() || actor.len() > MAX_ACTOR {
        check.refuse(actor_field, format!("must say who, in 1 to {MAX_ACTOR} bytes"));
    }
    if note.len() > MAX_NOTE {
        check.refuse(note_field, format!("has {} bytes, at most {MAX_NOTE} are kept", note.len()));
    }
    match parsed {
        Some(id) if check.0.is_empty() => Ok(Acknowledgement {
            id,
            actor: actor.to_owned(),
            note: (!note.is_empty()).then(|| note.to_owned()),
        }),
        _ => Err(check.0),
    }
}

fn escalation_id(check: &mut Check, field: &'static str, id: &str) -> Option<Uuid> {
    let problem = "must be an escalation's id, a UUID";
    check.take(field, id.parse::<Uuid>().map_err(|_| problem))
}

/// An escalation's id.
///
/// # Errors
/// What is wrong with it.
pub fn one_escalation(field: &'static str, id: &str) -> Result<Uuid, Vec<Violation>> {
    let mut check = Check::default();
    escalation_id(&mut check, field, id).ok_or(check.0)
}

/// Most policies that a filter may name.
const MAX_POLICIES: usize = 64;

/// Checks a filter.
///
/// # Errors
/// Every violation found.
pub fn filter(filter: Option<&v1::EscalationFilter>) -> Result<Filter, Vec<Violation>> {
    let Some(asked) = filter else {
        return Ok(Filter::default());
    };
    let mut check = Check::default();
    let mut states = Vec::new();
    for state in &asked.states {
        match v1::EscalationState::try_from(*state) {
            Ok(v1::EscalationState::Raised) => states.push(State::Raised),
            Ok(v1::EscalationState::Acknowledged) => states.push(State::Acknowledged),
            Ok(v1::EscalationState::Cleared) => states.push(State::Cleared),
            Ok(v1::EscalationState::Unspecified) | Err(_) => {
                check.refuse("filter.states", "must be RAISED, ACKNOWLEDGED or CLEARED");
            }
        }
    }
    let min_severity = match v1::Severity::try_from(asked.min_severity) {
        Ok(v1::Severity::Unspecified) => None,
        Ok(v1::Severity::Advisory) => Some(Severity::Advisory),
        Ok(v1::Severity::Low) => Some(Severity::Low),
        Ok(v1::Severity::Medium) => Some(Severity::Medium),
        Ok(v1::Severity::High) => Some(Severity::High),
        Err(_) => {
            check.refuse("filter.min_severity", "is no Severity");
            None
        }
    };
    // PostgreSQL's texts cannot hold it, and no name has one.
    let texts = asked.policies.iter().chain(asked.labels.keys()).chain(asked.labels.values());
    if texts.chain([&asked.session_id]).any(|text| text.contains('\0')) {
        check.refuse("filter", "has a text with the character U+0000");
    }
    if asked.policies.len() > MAX_POLICIES {
        check.refuse("filter.policies", format!("must have at most {MAX_POLICIES} entries"));
    }
    if asked.labels.len() > MAX_LABELS {
        check.refuse("filter.labels", format!("must have at most {MAX_LABELS} entries"));
    }
    let tenant = match asked.tenant.as_str() {
        "" => None,
        name => check.take("filter.tenant", name.parse()),
    };
    let mut moment = |field, time: Option<prost_types::Timestamp>| {
        let time = time.map(std::time::SystemTime::try_from).transpose();
        check.take(field, time.map_err(|_| "is out of range")).flatten().map(Timestamp::from)
    };
    let since = moment("filter.raised_since", asked.raised_since);
    let before = moment("filter.raised_before", asked.raised_before);
    if !check.0.is_empty() {
        return Err(check.0);
    }
    Ok(Filter {
        states,
        min_severity,
        policies: asked.policies.clone(),
        tenant,
        session_id: Some(asked.session_id.clone()).filter(|id| !id.is_empty()),
        labels: asked.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        since,
        before,
    })
}

/// Escalations on a page for who does not say.
pub(super) const PAGE: usize = 50;
/// Most escalations on a page.
pub(super) const MAX_PAGE: usize = 500;

/// A page's size and where it begins.
pub type PageStart = (usize, Option<(Timestamp, Uuid)>);

/// Checks a page's size and token.
///
/// # Errors
/// Every violation found.
pub fn page(size: u32, token: &str) -> Result<PageStart, Vec<Violation>> {
    let mut check = Check::default();
    let size = match size as usize {
        0 => PAGE,
        size if size <= MAX_PAGE => size,
        size => {
            check.refuse("page_size", format!("must be at most {MAX_PAGE}, not {size}"));
            PAGE
        }
    };
    let start = if token.is_empty() { None } else { page_token(token) };
    if start.is_none() && !token.is_empty() {
        check.refuse("page_token", "is not one that this service gave");
    }
    if check.0.is_empty() { Ok((size, start)) } else { Err(check.0) }
}

fn page_token(token: &str) -> Option<(Timestamp, Uuid)> {
    let (at, id) = token.split_once('_')?;
    Some((Timestamp(at.parse().ok()?), id.parse().ok()?))
}

/// Checks a watch's cursor: the number of the last occurrence seen, or `None` for one from now on.
///
/// # Errors
/// Every violation found.
pub fn cursor(text: &str, from_start: bool) -> Result<Option<i64>, Vec<Violation>> {
    let mut check = Check::default();
    if from_start && !text.is_empty() {
        check.refuse("from_start", "cannot be set together with cursor");
    }
    let sequence = match text {
        "" => from_start.then_some(0),
        text => {
            let number = text.parse().ok().filter(|number: &i64| *number >= 0);
            check.take("cursor", number.ok_or("is not one that this service gave"))
        }
    };
    if check.0.is_empty() { Ok(sequence) } else { Err(check.0) }
}
