//! Which occurrences a sink gets. Each condition that is given must hold.

use std::collections::BTreeMap;
use std::fmt;

use super::file::RouteEntry;
use crate::escalation::life::{Kind, Occurrence};
use crate::identity::Tenant;
use crate::policy::Severity;

#[derive(Debug)]
pub(super) struct Route {
    min_severity: Severity,
    tenants: Vec<Tenant>,
    policies: Vec<String>,
    labels: BTreeMap<String, String>,
    events: Vec<Kind>,
}

impl From<&RouteEntry> for Route {
    fn from(entry: &RouteEntry) -> Self {
        let all = || Kind::ALL.to_vec();
        Self {
            min_severity: entry.min_severity.unwrap_or(Severity::Advisory),
            tenants: entry.tenants.clone(),
            policies: entry.policies.clone(),
            labels: entry.labels.clone(),
            events: if entry.events.is_empty() { all() } else { entry.events.clone() },
        }
    }
}

impl Route {
    pub(super) fn admits(&self, occurrence: &Occurrence) -> bool {
        let escalation = &occurrence.escalation;
        self.admits_kind(occurrence.kind)
            && escalation.severity >= self.min_severity
            && (self.tenants.is_empty() || self.tenants.contains(&escalation.tenant))
            && (self.policies.is_empty() || self.policies.contains(&escalation.policy))
            && self.labels.iter().all(|(name, value)| escalation.labels.get(name) == Some(value))
    }

    pub(super) fn admits_kind(&self, kind: Kind) -> bool {
        self.events.contains(&kind)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "severity {} and up", self.min_severity)?;
        if !self.tenants.is_empty() {
            let names: Vec<&str> = self.tenants.iter().map(Tenant::as_str).collect();
            write!(f, "; tenant {}", names.join(" or "))?;
        }
        if !self.policies.is_empty() {
            write!(f, "; policy {}", self.policies.join(" or "))?;
        }
        for (name, value) in &self.labels {
            write!(f, "; {name} = {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escalation::sinks::sample::{SAMPLE_TIME, sample};

    fn admits(change: impl FnOnce(&mut RouteEntry)) -> bool {
        let mut entry = RouteEntry::default();
        change(&mut entry);
        Route::from(&entry).admits(&sample(Kind::Raised, "s", SAMPLE_TIME))
    }

    #[test]
    fn nothing_said_admits_everything() {
        assert!(admits(|_| {}));
    }

    #[test]
    fn every_condition_must_hold() {
        let ward = |value: &str| [("ward".to_owned(), value.to_owned())].into();
        assert!(admits(|route| route.min_severity = Some(Severity::High)));
        assert!(admits(|route| route.policies = vec!["other".into(), "care-call".into()]));
        assert!(admits(|route| route.labels = ward("7")));
        assert!(admits(|route| route.events = vec![Kind::Raised]));
        assert!(!admits(|route| route.policies = vec!["other".into()]));
        assert!(!admits(|route| route.labels = ward("8")));
        assert!(!admits(|route| route.events = vec![Kind::Cleared]));
        assert!(!admits(|route| {
            route.events = vec![Kind::Raised];
            route.labels = [("floor".to_owned(), "7".to_owned())].into();
        }));
    }
}
