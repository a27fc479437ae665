//! The life of an escalation: raised -> updated -> acknowledged -> cleared.
//!
//! An escalation is named by what it is about (session, policy, rule, channel, onset), so that a replay of
//! the same audio finds it there already. Each thing that happens to it is an [`Occurrence`] with a name
//! that follows from the escalation's, so that it too happens once.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::Tenant;
use crate::policy::{Decision, Evidence, Severity};
use crate::telemetry::trace::TraceParent;
use crate::units::SamplePos;

/// A moment of wall-clock time, microseconds since 1970 in UTC. In JSON as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Now.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// `self` and `duration` more.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// `self` less `duration`.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whole seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_micros(self.system()).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text).map(Self::from)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where an escalation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In force, and nobody has taken it on.
    Raised,
    /// In force, and somebody has taken it on.
    Acknowledged,
    /// Its condition holds no more.
    Cleared,
}

impl State {
    /// All.
    pub const ALL: [Self; 3] = [Self::Raised, Self::Acknowledged, Self::Cleared];

    /// The lower-case name used in JSON and the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Acknowledged => "acknowledged",
            Self::Cleared => "cleared",
        }
    }
}

/// What happened to an escalation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It began.
    Raised,
    /// It is still in force: values, or the end of its session.
    Updated,
    /// Somebody took it on.
    Acknowledged,
    /// Its condition holds no more.
    Cleared,
}

impl Kind {
    /// All, in the order of a life.
    pub const ALL: [Self; 4] = [Self::Raised, Self::Updated, Self::Acknowledged, Self::Cleared];

    /// The lower-case name used in JSON and the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Updated => "updated",
            Self::Acknowledged => "acknowledged",
            Self::Cleared => "cleared",
        }
    }
}

/// A name that is none of those known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {name:?}; known are {known}")]
pub struct UnknownName {
    /// What it should have been.
    pub what: &'static str,
    /// What it is.
    pub name: String,
    /// What it could be.
    pub known: &'static str,
}

impl FromStr for State {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| UnknownName {
            what: "state",
            name: name.to_owned(),
            known: "raised, acknowledged, cleared",
        })
    }
}

impl FromStr for Kind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownName {
            what: "event",
            name: name.to_owned(),
            known: "raised, updated, acknowledged, cleared",
        })
    }
}

/// An escalation as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Escalation {
    /// Its name, see [`escalation_id`].
    pub id: Uuid,
    /// Whose it is.
    #[serde(default)]
    pub tenant: Tenant,
    /// The session that it is about.
    pub session_id: String,
    /// The lane's first input channel.
    pub channel: u32,
    /// The session's labels: on whose behalf it listens.
    pub labels: BTreeMap<String, String>,
    /// The policy's name.
    pub policy: String,
    /// The policy's own version and the beginning of the hash of its text.
    pub policy_version: String,
    /// The rule's name.
    pub rule: String,
    /// The rule's title, for people.
    pub title: String,
    /// The rule's severity.
    pub severity: Severity,
    /// Where it stands.
    pub state: State,
    /// Why, in words, as of the last decision while it was in force.
    pub reason: String,
    /// The model that the estimates came from.
    pub model: String,
    /// Its version.
    pub model_version: String,
    /// Where its condition began to hold, seconds since the stream's first sample.
    pub onset_s: f64,
    /// What the last decision rests on.
    pub evidence: Evidence,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// When anything last happened to it.
    pub updated_at: Timestamp,
    /// When somebody took it on.
    pub acknowledged_at: Option<Timestamp>,
    /// Who did.
    pub acknowledged_by: Option<String>,
    /// When it was cleared.
    pub cleared_at: Option<Timestamp>,
    /// When the stream ended, if that was before it was cleared.
    pub session_ended_at: Option<Timestamp>,
    /// Whether it is cleared when its session ends.
    #[serde(default)]
    pub clears_at_end: bool,
    /// Whether its session was taken for lost: it broke off, and nobody has gone on with it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broke_off: bool,
}

/// What a session's escalations have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Whose session it is.
    pub tenant: Tenant,
    /// The session's name.
    pub session_id: String,
    /// On whose behalf it listens.
    pub labels: BTreeMap<String, String>,
    /// The policy's name.
    pub policy: String,
    /// Its version and hash.
    pub policy_version: String,
    /// The model's name.
    pub model: String,
    /// Its version.
    pub model_version: String,
}

impl Origin {
    /// The name of what `decision` is about, see [`escalation_id`].
    pub fn escalation_id(&self, decision: &Decision, again: u32) -> Uuid {
        let Decision { rule, channel, onset, .. } = decision;
        let conversation = conversation(&self.tenant, &self.session_id);
        escalation_id(&conversation, &self.policy, rule, *channel, *onset, again)
    }

    /// See [`conversation`].
    pub fn conversation(&self) -> String {
        conversation(&self.tenant, &self.session_id)
    }
}

/// A session's name, told from those of other tenants: no name has a slash.
pub fn conversation(tenant: &Tenant, session_id: &str) -> String {
    if tenant.as_str() == Tenant::DEFAULT {
        session_id.to_owned()
    } else {
        format!("{tenant}/{session_id}")
    }
}

impl Escalation {
    /// One that a policy has just raised.
    pub fn raised(id: Uuid, origin: &Origin, decision: &Decision, at: Timestamp) -> Self {
        Self {
            id,
            tenant: origin.tenant.clone(),
            session_id: origin.session_id.clone(),
            channel: decision.channel,
            labels: origin.labels.clone(),
            policy: origin.policy.clone(),
            policy_version: origin.policy_version.clone(),
            rule: decision.rule.clone(),
            title: decision.title.clone(),
            severity: decision.severity,
            state: State::Raised,
            reason: decision.reason.clone(),
            model: origin.model.clone(),
            model_version: origin.model_version.clone(),
            onset_s: decision.onset.seconds(),
            evidence: decision.evidence.clone(),
            raised_at: at,
            updated_at: at,
            acknowledged_at: None,
            acknowledged_by: None,
            cleared_at: None,
            session_ended_at: None,
            clears_at_end: decision.clears_at_end,
            broke_off: false,
        }
    }

    /// Its session goes on: what was made of its end holds no more.
    pub fn go_on(&mut self) {
        self.session_ended_at = None;
        if std::mem::take(&mut self.broke_off) && self.state == State::Cleared {
            self.state =
                if self.acknowledged_at.is_some() { State::Acknowledged } else { State::Raised };
            self.cleared_at = None;
        }
    }

    /// See [`conversation`].
    pub fn conversation(&self) -> String {
        conversation(&self.tenant, &self.session_id)
    }
}

/// One thing that happened to an escalation, and how it stood after it: what is delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Occurrence {
    /// Its name, the same over retries, restarts and replays: the idempotency key.
    pub id: Uuid,
    /// Its place in the order of everything that happened, counted from 1 without gaps.
    pub sequence: i64,
    /// What happened.
    pub kind: Kind,
    /// When.
    pub at: Timestamp,
    /// Who did it, for an acknowledgement: what they call themselves.
    pub actor: Option<String>,
    /// The identity that they had to the server, for an acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What they said, or why it was updated or cleared.
    pub note: Option<String>,
    /// The span in which it was recorded, if its trace was sampled: attempts to deliver it link to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceParent>,
    /// The escalation after it.
    pub escalation: Escalation,
}

/// The space of our names (RFC 9562, version 5): made once, at random.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b0f_7c1e_9a44_4d0b_8f3e_62d1_c7a9_e035);

/// The name of an escalation; `conversation` as [`conversation`] gives it. `again` is 0 but where another conversation of the same name had one at the
/// same place already, see [`super::store`].
pub fn escalation_id(
    conversation: &str,
    policy: &str,
    rule: &str,
    channel: u32,
    onset: SamplePos,
    again: u32,
) -> Uuid {
    // No part can hold the separator: session ids and names are checked, the rest are numbers.
    let mut name = format!("{conversation}\n{policy}\n{rule}\n{channel}\n{}", onset.0);
    if again > 0 {
        // Writing to a string cannot fail.
        let _ = write!(name, "\n{again}");
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// The name of what happened to `escalation`: an update is told from others by its position in the
/// stream, all else happens once.
pub fn occurrence_id(escalation: Uuid, kind: Kind, position: Option<SamplePos>) -> Uuid {
    let name = match (kind, position) {
        (Kind::Updated, Some(position)) => format!("updated\n{}", position.0),
        (Kind::Updated, None) => "session ended".to_owned(),
        (Kind::Raised | Kind::Acknowledged | Kind::Cleared, _) => kind.name().to_owned(),
    };
    Uuid::new_v5(&escalation, name.as_bytes())
}

/// The name of what may happen to its session more than once.
pub fn turn_id(escalation: Uuid, turn: Turn, at: Timestamp) -> Uuid {
    let what = match turn {
        Turn::Ended => "session ended",
        Turn::BrokeOff => "session broke off",
        Turn::WentOn => "session went on",
    };
    Uuid::new_v5(&escalation, format!("{what}\n{}", at.0).as_bytes())
}

/// What may happen to a session more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It ended, after it had ended and gone on.
    Ended,
    /// It was taken for lost.
    BrokeOff,
    /// It was gone on with after all.
    WentOn,
}
