//! The rules' life on every channel of a session.
//!
//! ```text
//!            holds for dwell            off for clear_after
//!   waiting ----------------> in force ----------------> waiting, and quiet for cooldown
//!                 |                                  ^
//!                 | budget used up                   |
//!                 +-----------> swallowed -----------+
//! ```
//! The onset of an escalation is the end of the reading at which its condition began to hold: the start of
//! the dwell. That can lie in a cooldown, but never before the clearing that began it, so no two escalations
//! of a rule on a channel have the same. A raise that the budget swallows is counted once and then waits to
//! be off like one in force, but nobody is told.

mod saved;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::condition::{self, Truth};
use super::decision::{Action, Decision, Evidence, Measurement, Severity};
use super::reason::Facts;
use super::rules::{Policy, Rule};
use super::signal::{self, Signal};
use super::timeline::{Sums, Tick, Timeline};
use crate::emotion::Emotion;
use crate::tracking::Affect;
use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ, STEP_HOPS, SamplePos};

pub use saved::WatcherState;

/// What was heard on one channel in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The lane's first input channel.
    pub channel: u32,
    /// All audio before this has been heard; greater than that of the channel's reading before.
    pub end: SamplePos,
    /// Hops since the channel's reading before: 16, fewer in the last.
    pub hops: u32,
    /// Those with voice.
    pub voiced_hops: u32,
    /// The rolling estimate.
    pub affect: Option<Affect>,
    /// Whether the utterance has had enough speech. Being unsure which emotion it is does not count against
    /// it.
    pub trusted: bool,
}

impl Reading {
    fn voiced(&self) -> u8 {
        // At most 16, so that sums stay far from their limits whatever a caller says.
        u8::try_from(self.voiced_hops.min(self.hops).min(STEP_HOPS as u32)).unwrap_or_default()
    }

    /// The reading as evidence: it has voice, an estimate, and is trusted.
    fn tick(&self) -> Option<Tick> {
        let affect = self.affect.as_ref().filter(|_| self.trusted && self.voiced() > 0)?;
        Some(Tick {
            end: self.end.0,
            voiced: self.voiced(),
            scored: affect.scores.is_some(),
            values: signal::quantised(affect)?,
        })
    }
}

/// An escalation in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce<'a> {
    /// The rule's name.
    pub rule: &'a str,
    /// The lane's first input channel.
    pub channel: u32,
    /// Where its condition began to hold.
    pub onset: SamplePos,
    /// The rule's severity.
    pub severity: Severity,
}

/// Watches one session by one policy.
///
/// Readings of a channel come in order; those of several channels in any order, which makes a difference
/// only to who gets the last raise of the budget. One that does not move its channel forward is not looked
/// at.
#[derive(Debug, Clone)]
pub struct Watcher {
    policy: Arc<Policy>,
    channels: BTreeMap<u32, Channel>,
    raised: u32,
    suppressed: u64,
}

#[derive(Debug, Clone)]
struct Channel {
    /// All audio before this has been heard, in samples.
    end: u64,
    /// The end of the last reading with voice; before any, where the channel began.
    last_voice: u64,
    timeline: Timeline,
    /// In the order of [`Policy::leaves`].
    leaves: Vec<Truth>,
    /// In the order of [`Policy::rules`].
    phases: Vec<Phase>,
}

/// Where a rule stands on a channel; all positions are samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Since when `when` holds, and when the cooldown is over.
    Waiting { since: Option<u64>, quiet_until: u64 },
    /// Raised, or swallowed by the budget.
    On { onset: u64, told: u64, off_since: Option<u64>, swallowed: bool },
}

impl Watcher {
    /// Before the first reading.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { policy, channels: BTreeMap::new(), raised: 0, suppressed: 0 }
    }

    /// The policy that is watched by.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Takes one reading. What it leads to is added to `decisions`, in the order of the rules.
    pub fn observe(&mut self, reading: &Reading, decisions: &mut Vec<Decision>) {
        let policy = &self.policy;
        let channel = self
            .channels
            .entry(reading.channel)
            .or_insert_with(|| Channel::new(policy, reading.end, reading.hops));
        if !channel.hear(policy, reading) {
            return;
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            if !rule.looks_at(reading.channel) {
                continue;
            }
            let Some(phase) = channel.phases.get_mut(index) else { continue };
            let holds = condition::holds(&rule.when, &channel.leaves) == Some(true);
            let spent = self.raised >= policy.budget;
            let (action, onset) = match phase.step(rule, channel.end, holds, spent) {
                Step::Nothing => continue,
                Step::Swallow => {
                    self.suppressed += 1;
                    continue;
                }
                Step::Decide(action, onset) => (action, onset),
            };
            self.raised += u32::from(action == Action::Raise);
            let at = SamplePos(channel.end);
            decisions.push(channel.decision(policy, rule, reading.channel, action, onset, at));
        }
    }

    /// The session ends at `at`: rules in force that say so are cleared, channel by channel.
    pub fn finish(&mut self, at: SamplePos, decisions: &mut Vec<Decision>) {
        let policy = &self.policy;
        for (number, channel) in &mut self.channels {
            for (index, rule) in policy.rules.iter().enumerate().filter(|(_, r)| r.clears_at_end) {
                let Some(phase) = channel.phases.get_mut(index) else { continue };
                let Phase::On { onset, swallowed: false, .. } = *phase else { continue };
                let quiet_until = at.0.saturating_add(rule.cooldown);
                *phase = Phase::Waiting { since: None, quiet_until };
                let decision = channel.decision(policy, rule, *number, Action::Clear, onset, at);
                decisions.push(decision);
            }
        }
    }

    /// The escalations in force, channel by channel in the order of the rules.
    pub fn in_force(&self) -> impl Iterator<Item = InForce<'_>> {
        self.channels.iter().flat_map(|(number, channel)| {
            channel.phases.iter().zip(&self.policy.rules).filter_map(|(phase, rule)| match *phase {
                Phase::On { onset, swallowed: false, .. } => Some(InForce {
                    rule: &rule.name,
                    channel: *number,
                    onset: SamplePos(onset),
                    severity: rule.severity,
                }),
                _ => None,
            })
        })
    }

    /// Whether the budget is used up.
    pub fn spent(&self) -> bool {
        self.raised >= self.policy.budget
    }

    /// Raises that the budget swallowed.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Every condition as it stands on `channel`, with the number of its rule, in the order of the policy.
    /// Nothing for a channel that was not heard, and for rules that do not look at it.
    pub fn measurements(&self, channel: u32) -> Vec<(usize, Measurement)> {
        let mut all = Vec::new();
        if let Some(state) = self.channels.get(&channel) {
            for (index, rule) in self.policy.rules.iter().enumerate() {
                if rule.looks_at(channel) {
                    let measured = state.measurements(&self.policy, rule);
                    all.extend(measured.map(|measurement| (index, measurement)));
                }
            }
        }
        all
    }

    /// Ticks kept for `channel`.
    #[cfg(test)]
    pub(super) fn kept(&self, channel: u32) -> usize {
        self.channels.get(&channel).map_or(0, |channel| channel.timeline.kept())
    }
}

/// What a rule does at one reading.
enum Step {
    Nothing,
    Swallow,
    /// With the onset.
    Decide(Action, u64),
}

impl Phase {
    /// One reading further, to sample `now`.
    fn step(&mut self, rule: &Rule, now: u64, holds: bool, spent: bool) -> Step {
        match self {
            Self::Waiting { since, .. } if !holds => {
                *since = None;
                Step::Nothing
            }
            Self::Waiting { since, quiet_until } => {
                let onset = *since.get_or_insert(now);
                if now - onset < rule.dwell || now < *quiet_until {
                    return Step::Nothing;
                }
                *self = Self::On { onset, told: now, off_since: None, swallowed: spent };
                if spent { Step::Swallow } else { Step::Decide(Action::Raise, onset) }
            }
            Self::On { onset, told, off_since, swallowed } => {
                let (onset, swallowed) = (*onset, *swallowed);
                *off_since = if holds { None } else { off_since.or(Some(now)) };
                let cleared = off_since.is_some_and(|since| now - since >= rule.clear_after);
                let due = rule.update_every.is_some_and(|every| now - *told >= every);
                if cleared {
                    let quiet_until = now.saturating_add(rule.cooldown);
                    *self = Self::Waiting { since: None, quiet_until };
                } else if due {
                    *told = now;
                }
                match (cleared, due) {
                    _ if swallowed => Step::Nothing,
                    (true, _) => Step::Decide(Action::Clear, onset),
                    (false, true) => Step::Decide(Action::Update, onset),
                    (false, false) => Step::Nothing,
                }
            }
        }
    }
}

impl Channel {
    fn new(policy: &Policy, end: SamplePos, hops: u32) -> Self {
        let start = end.0.saturating_sub(u64::from(hops) * HOP_SAMPLES as u64);
        Self {
            // Nothing is heard yet; the first reading always moves forward.
            end: 0,
            last_voice: start,
            timeline: Timeline::new(policy),
            leaves: vec![None; policy.leaves.len()],
            phases: vec![Phase::Waiting { since: None, quiet_until: 0 }; policy.rules.len()],
        }
    }

    /// Takes a reading; false if it does not move forward.
    fn hear(&mut self, policy: &Policy, reading: &Reading) -> bool {
        let now = reading.end.0;
        if now <= self.end {
            return false;
        }
        self.end = now;
        if reading.voiced() > 0 {
            self.last_voice = now;
        }
        self.timeline.advance(policy, now, reading.tick());
        let silent = self.silent();
        for (truth, leaf) in self.leaves.iter_mut().zip(&policy.leaves) {
            *truth = condition::leaf(leaf, &self.timeline, silent, *truth);
        }
        true
    }

    /// Samples since the last speech.
    fn silent(&self) -> u64 {
        self.end.saturating_sub(self.last_voice)
    }

    fn measurements<'a>(
        &'a self,
        policy: &'a Policy,
        rule: &Rule,
    ) -> impl Iterator<Item = Measurement> + use<'a> {
        let leaves = policy.leaves.iter().zip(&self.leaves);
        let range = rule.leaves.clone();
        let own = leaves.skip(range.start).take(range.len());
        own.map(|(leaf, holds)| condition::measurement(leaf, &self.timeline, self.silent(), *holds))
    }

    fn decision(
        &self,
        policy: &Policy,
        rule: &Rule,
        number: u32,
        action: Action,
        onset: u64,
        at: SamplePos,
    ) -> Decision {
        let sums = self.timeline.sums(rule.longest).copied().unwrap_or_default();
        let mean = |signal| sums.mean(signal);
        let emotions = Emotion::ALL.map(|emotion| (emotion.name(), Signal::emotion(emotion)));
        let others = [
            ("distress", Signal::Distress),
            ("valence", Signal::Valence),
            ("arousal", Signal::Arousal),
        ];
        let groups = policy.groups.iter().map(|group| (group.name.as_str(), group.signal));
        let signals = others.into_iter().chain(emotions).chain(groups);
        let rate = u64::from(MODEL_RATE_HZ);
        let facts = Facts {
            means: signals.map(|(name, signal)| (name, mean(signal))).collect(),
            seconds: at.0.saturating_sub(onset) / rate,
            silence: self.silent() / rate,
            rule: &rule.name,
            severity: rule.severity.name(),
            channel: number,
        };
        Decision {
            action,
            rule: rule.name.clone(),
            title: rule.title.clone(),
            severity: rule.severity,
            clears_at_end: rule.clears_at_end,
            channel: number,
            onset: SamplePos(onset),
            at,
            reason: rule.reason.render(&facts, &rule.title),
            evidence: self.evidence(policy, rule, &sums),
        }
    }

    fn evidence(&self, policy: &Policy, rule: &Rule, sums: &Sums) -> Evidence {
        let length = policy.windows.get(rule.longest).copied().unwrap_or_default();
        let mean = |signal| sums.mean(signal).map(|value| value as f32);
        let emotion = |emotion: Emotion| {
            mean(Signal::emotion(emotion)).map(|value| (emotion.name().to_owned(), value))
        };
        Evidence {
            from_s: SamplePos(self.end.saturating_sub(length)).seconds(),
            to_s: SamplePos(self.end).seconds(),
            speech_s: SamplePos(sums.speech * HOP_SAMPLES as u64).seconds(),
            emotions: Emotion::ALL.into_iter().filter_map(emotion).collect(),
            distress: mean(Signal::Distress),
            valence: mean(Signal::Valence),
            arousal: mean(Signal::Arousal),
            conditions: self.measurements(policy, rule).collect(),
        }
    }
}
