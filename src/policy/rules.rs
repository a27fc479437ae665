//! A checked policy: what the watcher runs on.
//!
//! Made by [`Policy::parse`] alone. Durations are samples, thresholds whole millionths, signals and windows
//! numbers: nothing is looked up by name while it is watched.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::check;
use super::decision::Severity;
use super::document;
use super::fault::{Fault, PolicyError, Problem};
use super::reason::Reason;
use super::signal::Signal;
use crate::emotion::Emotion;

/// Largest file taken, bytes: hundreds of lines per rule, and nothing that a person would not read.
pub const MAX_BYTES: usize = 64 * 1024;

/// A checked policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What it was read from.
    pub(super) text: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) description: String,
    pub(super) budget: u32,
    pub(super) groups: Vec<Group>,
    pub(super) rules: Vec<Rule>,
    /// The conditions of all rules, rule by rule, in the order in which they stand.
    pub(super) leaves: Vec<Leaf>,
    /// Lengths of all windows, in samples, each once.
    pub(super) windows: Vec<u64>,
    /// What the conditions of kind `share` count.
    pub(super) shares: Vec<Share>,
}

impl Policy {
    /// Reads and checks a policy's YAML.
    ///
    /// # Errors
    /// [`PolicyError`] at the first fault: larger than [`MAX_BYTES`], no YAML, unknown or missing keys, or
    /// values that make no sense.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_BYTES {
            let problem = Problem::TooLarge { bytes: text.len(), limit: MAX_BYTES };
            let problem = Box::new(problem);
            return Err(Fault { line: 0, column: 0, path: String::new(), problem }.within(text));
        }
        let checked = document::read(text).and_then(|document| check::policy(&document));
        let mut policy = checked.map_err(|fault| fault.within(text))?;
        text.clone_into(&mut policy.text);
        let hash = Sha256::digest(text.as_bytes());
        policy.version.push('+');
        for byte in hash.iter().take(4) {
            let _ = write!(policy.version, "{byte:02x}");
        }
        Ok(policy)
    }

    /// The text that it was read from: parsed again, it makes the same policy.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its name: a-z, 0-9 and hyphens.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own version, a plus sign, and the first eight hexadecimal digits of its text's SHA-256: two
    /// texts never pass for the same policy.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it is for.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Most raises in one session, over all rules and channels.
    pub fn budget(&self) -> u32 {
        self.budget
    }

    /// The rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a condition looks at an emotion or a group of them. With a model that knows only valence and
    /// arousal such a condition never has a value.
    pub fn needs_emotions(&self) -> bool {
        self.leaves.iter().any(|leaf| match leaf.measure {
            Measure::Level { signal, .. }
            | Measure::Rise { signal, .. }
            | Measure::Share { signal, .. } => signal.needs_emotions(),
            Measure::Silence { .. } => false,
        })
    }

    /// Whether `rule` can be turned on by a voice that sounds like `emotion`: one of its conditions asks for
    /// much of it, by itself, in a group, or as a part of distress. Valence and arousal say too little about
    /// any one emotion to count.
    pub fn is_about(&self, rule: &Rule, emotion: Emotion) -> bool {
        let own = self.leaves.iter().skip(rule.leaves.start).take(rule.leaves.len());
        let asks_for_much = |leaf: &&Leaf| {
            let at_least = !matches!(leaf.measure, Measure::Share { bound: Bound::AtMost(_), .. });
            leaf.thresholds.rising() && at_least
        };
        own.filter(asks_for_much).any(|leaf| match leaf.measure {
            Measure::Level { signal, .. }
            | Measure::Rise { signal, .. }
            | Measure::Share { signal, .. } => signal.holds(emotion),
            Measure::Silence { .. } => false,
        })
    }

    /// Every rule in a sentence or two that need no knowledge of the format, one paragraph each, and the
    /// budget.
    pub fn explain(&self) -> String {
        super::words::explain(self)
    }
}

/// A named set of emotions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) signal: Signal,
}

/// A checked rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) severity: Severity,
    pub(super) when: Expression,
    /// Its conditions in [`Policy::leaves`].
    pub(super) leaves: Range<usize>,
    /// Samples that `when` must hold before it is raised.
    pub(super) dwell: u64,
    /// Samples that it must have been off before it clears.
    pub(super) clear_after: u64,
    /// Samples after clearing without another raise.
    pub(super) cooldown: u64,
    /// Samples between updates; `None` for no updates.
    pub(super) update_every: Option<u64>,
    /// The channels it looks at; `None` for all.
    pub(super) channels: Option<Vec<u32>>,
    /// Whether the end of the session clears it.
    pub(super) clears_at_end: bool,
    pub(super) reason: Reason,
    /// The longest window of its conditions, in [`Policy::windows`].
    pub(super) longest: usize,
}

impl Rule {
    /// Its name, unique in the policy: a-z, 0-9 and hyphens.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its title, for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// How much its escalations ask of those who get them.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    pub(super) fn looks_at(&self, channel: u32) -> bool {
        self.channels.as_ref().is_none_or(|channels| channels.contains(&channel))
    }
}

/// Conditions put together.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    /// One condition, in [`Policy::leaves`].
    Leaf(usize),
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    pub(super) measure: Measure,
    pub(super) thresholds: Thresholds,
    /// What it looks at, as the policy calls it; empty for silence.
    pub(super) signal: String,
    /// How far back it looks.
    pub(super) over: Duration,
}

/// What a condition measures. Windows are numbers in [`Policy::windows`], speech is in hops.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Measure {
    /// The mean over a window.
    Level { signal: Signal, window: usize, min_speech: u64 },
    /// The mean over the newer half of a window less that over the older one; each needs `min_speech`.
    Rise { signal: Signal, whole: usize, newer: usize, min_speech: u64 },
    /// The share of a window's speech that lies beyond a bound; `share` is in [`Policy::shares`].
    Share { signal: Signal, share: usize, window: usize, min_speech: u64, bound: Bound },
    /// Samples without speech.
    Silence { samples: u64 },
}

/// What a condition of kind `share` counts: the speech of a window at or beyond a bound.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    pub(super) signal: Signal,
    pub(super) window: usize,
    pub(super) bound: Bound,
}

/// A bound of a value, in millionths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    /// As much or more.
    AtLeast(i64),
    /// As much or less.
    AtMost(i64),
}

impl Bound {
    pub(super) fn covers(self, value: i64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// Where a condition turns on and off, in millionths; never equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Thresholds {
    pub(super) on: i64,
    pub(super) off: i64,
}

impl Thresholds {
    /// Whether it turns on upwards.
    pub(super) fn rising(self) -> bool {
        self.on > self.off
    }
}
