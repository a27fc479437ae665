//! Who calls, and what they may: the vocabulary of identities.
//!
//! An [`Identity`] is what authentication makes of a call (see `server`): a name for logs and quotas, the
//! tenant whose sessions and escalations it sees, and roles. Pure: nothing here knows how identities are
//! proved.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whose sessions and escalations: what one tenant does no other one sees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a tenant: 1 to 64 characters of A-Z a-z 0-9 . _ -")]
pub struct BadTenant(String);

impl Tenant {
    /// The tenant of those who say none: every caller's where no identities are configured.
    pub const DEFAULT: &str = "default";

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for Tenant {
    type Err = BadTenant;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(BadTenant(name.to_owned()));
        }
        Ok(Self(name.into()))
    }
}

impl TryFrom<String> for Tenant {
    type Error = BadTenant;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Open streams: `StreamEmotion`.
    Stream,
    /// Have clips analysed: `AnalyzeAudio`.
    Analyze,
    /// List, read and follow escalations and live sessions.
    Watch,
    /// Acknowledge escalations outside the stream that raised them.
    Acknowledge,
    /// All of these, and `GET /sessions`.
    Admin,
}

impl Role {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::Stream, Self::Analyze, Self::Watch, Self::Acknowledge, Self::Admin];

    /// The lower-case name used in files and tokens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Analyze => "analyze",
            Self::Watch => "watch",
            Self::Acknowledge => "acknowledge",
            Self::Admin => "admin",
        }
    }
}

/// What an identity may use at most; `None` is what the server gives everybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Streams open at once.
    pub streams: Option<u32>,
    /// Audio in one minute, over all streams and clips.
    pub audio_per_minute: Option<Duration>,
    /// Largest `AnalyzeAudio` request, bytes.
    pub clip_bytes: Option<u32>,
    /// Largest chunk of a stream, bytes.
    pub chunk_bytes: Option<u32>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name, unique within the server: for logs, the audit trail and quotas.
    pub name: Arc<str>,
    /// Whose sessions and escalations it makes and sees.
    pub tenant: Tenant,
    /// Whether it sees those of all other tenants too: for operators.
    pub all_tenants: bool,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// What it may use.
    pub quota: Quota,
}

impl Identity {
    /// The caller where no identities are configured: may do everything.
    pub fn anonymous() -> Arc<Self> {
        Arc::new(Self {
            name: "anonymous".into(),
            tenant: Tenant::default(),
            all_tenants: true,
            roles: BTreeSet::from([Role::Admin]),
            quota: Quota::default(),
        })
    }

    /// Whether it may act as `role`.
    pub fn may(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::Admin)
    }

    /// Whether it sees what is `tenant`'s.
    pub fn sees(&self, tenant: &Tenant) -> bool {
        self.all_tenants || self.tenant == *tenant
    }

    /// The one tenant whose things it sees; `None` for all.
    pub fn reach(&self) -> Option<&Tenant> {
        (!self.all_tenants).then_some(&self.tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_a_short_plain_name() {
        assert_eq!("ward-7.b_2".parse::<Tenant>().unwrap().as_str(), "ward-7.b_2");
        for wrong in ["", "*", "a b", "a/b", "a\nb", &"x".repeat(65)] {
            assert!(wrong.parse::<Tenant>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_admin_may_all_but_sees_its_own_tenant_only() {
        let own: Tenant = "a".parse().unwrap();
        let admin = Identity {
            tenant: own.clone(),
            all_tenants: false,
            ..Identity::anonymous().as_ref().clone()
        };
        assert!(Role::ALL.into_iter().all(|role| admin.may(role)));
        assert!(admin.sees(&own) && !admin.sees(&Tenant::default()));
        let watcher = Identity { roles: BTreeSet::from([Role::Watch]), ..admin };
        assert!(watcher.may(Role::Watch) && !watcher.may(Role::Stream));
    }
}
