//! What a policy decides, and what it rests that on.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::SamplePos;

/// How much an escalation asks of those who get it. Ordered: `Advisory` is the least.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nobody needs to act.
    Advisory,
    /// Somebody should look when they next can.
    Low,
    /// Somebody should look soon.
    Medium,
    /// Somebody must look now.
    High,
}

impl Severity {
    /// All, least first.
    pub const ALL: [Self; 4] = [Self::Advisory, Self::Low, Self::Medium, Self::High];

    /// The lower-case name used in policies, JSON and the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Advisory => "advisory",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown severity {0:?}; known are advisory, low, medium, high")]
pub struct UnknownSeverity(pub String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.name() == name)
            .ok_or_else(|| UnknownSeverity(name.to_owned()))
    }
}

/// What happens in the life of an escalation by a policy's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It begins.
    Raise,
    /// It is still in force, and this is how it stands.
    Update,
    /// Its condition has been off for long enough.
    Clear,
}

/// One condition's value when a decision was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was measured, in words: "mean of distress over 10 s".
    pub what: String,
    /// Its value; `None` as long as too little speech was heard.
    pub value: Option<f32>,
    /// Where the condition turns on.
    pub on: f32,
    /// Where it turns off.
    pub off: f32,
    /// Whether it held.
    pub holds: bool,
}

/// What a decision rests on. No audio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Start of the longest window looked at, seconds since the stream's first sample.
    pub from_s: f64,
    /// Its end: all audio before it has been analysed.
    pub to_s: f64,
    /// Speech that counted within it, seconds.
    pub speech_s: f64,
    /// Mean probability of each emotion over that speech; empty for a model without emotions.
    pub emotions: BTreeMap<String, f32>,
    /// Mean distress, 0 to 1; `None` without speech.
    pub distress: Option<f32>,
    /// Mean valence, -1 to 1.
    pub valence: Option<f32>,
    /// Mean arousal, -1 to 1.
    pub arousal: Option<f32>,
    /// Every condition of the rule.
    pub conditions: Vec<Measurement>,
}

/// A policy's decision about one rule on one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What happens.
    pub action: Action,
    /// The rule's name.
    pub rule: String,
    /// The rule's title, for people.
    pub title: String,
    /// The rule's severity.
    pub severity: Severity,
    /// Whether it is cleared when the session ends.
    pub clears_at_end: bool,
    /// The lane's first input channel.
    pub channel: u32,
    /// Where the condition began to hold: with session, policy, rule and channel it names the escalation.
    pub onset: SamplePos,
    /// Where in the stream the decision was made.
    pub at: SamplePos,
    /// Why, in words with the values in them.
    pub reason: String,
    /// What it rests on.
    pub evidence: Evidence,
}
