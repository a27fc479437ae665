//! What is asked of sessions.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Check, MAX_LABELS, Violation};
use crate::escalation::Timestamp;
use crate::identity::Tenant;
use crate::wire::parse::escalations::{MAX_PAGE, PAGE};
use crate::wire::v1;

/// What the token of a place among those that have ended begins with.
pub const ENDED: &str = "ended:";

/// Which sessions to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsAsked {
    /// Whose.
    pub tenant: Option<Tenant>,
    /// With all of these labels.
    pub labels: BTreeMap<String, String>,
    /// How many at most.
    pub size: usize,
    /// Those too that have ended lately.
    pub ended: bool,
    /// Behind this one.
    pub behind: Option<Place>,
}

/// A session's place in the list: live ones first, then by when they were opened, or ended; later ones first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whether it has ended.
    pub ended: bool,
    /// When it was opened; of one that has ended, when that was.
    pub at: Reverse<Timestamp>,
    /// Whose it is.
    pub tenant: Tenant,
    /// Its name.
    pub id: String,
}

/// Checks what is asked of the list of sessions.
///
/// # Errors
/// Every violation found.
pub fn sessions(asked: &v1::ListSessionsRequest) -> Result<SessionsAsked, Vec<Violation>> {
    let mut check = Check::default();
    let tenant = tenant(&mut check, &asked.tenant);
    if asked.labels.len() > MAX_LABELS {
        check.refuse("labels", format!("must have at most {MAX_LABELS} entries"));
    }
    let size = match asked.page_size as usize {
        0 => PAGE,
        size => size,
    };
    if size > MAX_PAGE {
        check.refuse("page_size", format!("must be at most {MAX_PAGE}, not {size}"));
    }
    let behind = page_token(&asked.page_token);
    if behind.is_none() && !asked.page_token.is_empty() {
        check.refuse("page_token", "is not one that this service gave");
    }
    let labels = asked.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    check.pass(SessionsAsked { tenant, labels, size, ended: asked.include_ended, behind })
}

/// One session, and how much of what was heard is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAsked {
    /// Its name.
    pub id: String,
    /// Whose it is; the caller's own, if nothing is said.
    pub tenant: Option<Tenant>,
    /// How much of what was heard.
    pub history: Duration,
}

/// Checks which session is asked for.
///
/// # Errors
/// Every violation found.
pub fn session(
    id: String,
    tenant_name: &str,
    history: Option<prost_types::Duration>,
) -> Result<SessionAsked, Vec<Violation>> {
    let mut check = Check::default();
    if id.is_empty() {
        check.refuse("id", "is missing");
    }
    let tenant = tenant(&mut check, tenant_name);
    let history = match history.map(Duration::try_from) {
        None => Duration::ZERO,
        Some(Ok(history)) => history,
        Some(Err(_)) => {
            check.refuse("history", "must not be negative");
            Duration::ZERO
        }
    };
    check.pass(SessionAsked { id, tenant, history })
}

fn tenant(check: &mut Check, name: &str) -> Option<Tenant> {
    if name.is_empty() { None } else { check.take("tenant", name.parse::<Tenant>()) }
}

/// What [`crate::wire::render::sessions_token`] makes.
fn page_token(token: &str) -> Option<Place> {
    let (ended, token) = match token.strip_prefix(ENDED) {
        Some(token) => (true, token),
        None => (false, token),
    };
    // Names of tenants have no such sign, nor have those of sessions.
    let mut parts = token.splitn(3, '/');
    let at = Reverse(Timestamp(parts.next()?.parse().ok()?));
    let (tenant, id) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    Some(Place { ended, at, tenant, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::render;

    #[test]
    fn a_page_token_comes_back_as_it_was() {
        for ended in [false, true] {
            let (tenant, id) = ("ward_7".parse().unwrap(), "call:3.b".to_owned());
            let behind = Place { ended, at: Reverse(Timestamp(-7)), tenant, id };
            let page_token = render::sessions_token(&behind);
            let asked = v1::ListSessionsRequest { page_token, ..Default::default() };
            assert_eq!(sessions(&asked).unwrap().behind, Some(behind));
        }
    }

    #[test]
    fn every_field_that_cannot_be_used_is_named() {
        let asked = v1::ListSessionsRequest {
            tenant: "a b".to_owned(),
            labels: (0..33).map(|n| (n.to_string(), String::new())).collect(),
            page_size: 501,
            page_token: "5_1".to_owned(),
            include_ended: false,
        };
        let fields: Vec<_> = sessions(&asked).unwrap_err().iter().map(|v| v.field).collect();
        assert_eq!(fields, ["tenant", "labels", "page_size", "page_token"]);
        let negative = prost_types::Duration { seconds: -1, nanos: 0 };
        let fields = session(String::new(), "/", Some(negative)).unwrap_err();
        let fields: Vec<_> = fields.iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["id", "tenant", "history"]);
    }
}
