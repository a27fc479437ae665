//! Document -> policy: every name found, every range held, every duration in samples.
//!
//! What passes can be watched without another look at it. The first fault ends it, at its place in the text.

use std::collections::BTreeSet;
use std::time::Duration;

use super::document::{At, Condition, Document, MeanText, RuleText, SCHEMA, SessionEnd, ShareText};
use super::fault::{Fault, Problem};
use super::reason::Reason;
use super::rules::{Bound, Expression, Group, Leaf, Measure, Policy, Rule, Share, Thresholds};
use super::signal::{MICRO, Signal, mask, micros};
use crate::emotion::Emotion;
use crate::units::{MAX_CHANNELS, duration_to_hops, duration_to_samples};

/// Most rules of a policy.
const MAX_RULES: usize = 64;
/// Most conditions of a rule.
const MAX_CONDITIONS: usize = 64;
/// Most levels of conditions within conditions.
const MAX_DEPTH: usize = 8;
/// Most groups of a policy.
const MAX_GROUPS: usize = 32;
/// Raises per session that a policy may allow itself: beyond it nothing is bounded.
const MAX_BUDGET: u64 = 1000;
/// Raises per session if the policy says nothing: what a person can still look into.
const DEFAULT_BUDGET: u32 = 10;
const DEFAULT_DWELL: Duration = Duration::ZERO;
const DEFAULT_CLEAR_AFTER: Duration = Duration::from_secs(5);
const DEFAULT_COOLDOWN: Duration = Duration::from_secs(60);
const DEFAULT_UPDATE_EVERY: Duration = Duration::from_secs(60);

/// Windows: from a few steps of the model to what one channel is kept of.
const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));
/// Waits: anything that a session can last.
const WAIT: (Duration, Duration) = (Duration::ZERO, Duration::from_hours(24));

/// Checks a document.
pub(super) fn policy(document: &Document) -> Result<Policy, Fault> {
    if document.schema.value != SCHEMA {
        let found = document.schema.value.clone();
        return Err(document.schema.fault("schema", Problem::Schema { found, known: SCHEMA }));
    }
    let mut checker = Checker {
        policy: Policy {
            text: String::new(),
            name: name(&document.name, "name")?,
            version: version(&document.version)?,
            description: sized(&document.description, "description", 2000)?,
            budget: budget(document.budget.as_ref())?,
            groups: groups(document)?,
            rules: Vec::new(),
            leaves: Vec::new(),
            windows: Vec::new(),
            shares: Vec::new(),
        },
    };
    count(&document.rules, "rules", "rules", MAX_RULES)?;
    let mut names = BTreeSet::new();
    for (index, rule) in document.rules.value.iter().enumerate() {
        let path = format!("rules[{index}]");
        let rule = checker.rule(&rule.value, &path)?;
        if !names.insert(rule.name.clone()) {
            let Some(at) = document.rules.value.get(index) else { continue };
            let problem = Problem::Twice { name: rule.name };
            return Err(at.value.name.fault(format!("{path}.name"), problem));
        }
        checker.policy.rules.push(rule);
    }
    Ok(checker.policy)
}

fn name(text: &At<String>, path: impl Into<String>) -> Result<String, Fault> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=63).contains(&text.value.len()) && text.value.chars().all(known) {
        return Ok(text.value.clone());
    }
    let wanted = "1 to 63 of a-z, 0-9 and hyphen";
    Err(text.fault(path, Problem::Name { found: text.value.clone(), wanted }))
}

fn version(text: &At<String>) -> Result<String, Fault> {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if (1..=32).contains(&text.value.len()) && text.value.chars().all(known) {
        return Ok(text.value.clone());
    }
    let wanted = "1 to 32 letters, digits, dots, hyphens and underscores";
    Err(text.fault("version", Problem::Name { found: text.value.clone(), wanted }))
}

fn sized(text: &At<String>, path: impl Into<String>, max: usize) -> Result<String, Fault> {
    let trimmed = text.value.trim();
    let actual = trimmed.chars().count();
    if (1..=max).contains(&actual) {
        return Ok(trimmed.to_owned());
    }
    Err(text.fault(path, Problem::Length { min: 1, max, actual }))
}

/// A title stands in one line of a pager.
fn title(text: &At<String>, path: String) -> Result<String, Fault> {
    let title = sized(text, path.as_str(), 100)?;
    if title.chars().any(char::is_control) {
        return Err(text.fault(path, Problem::Name { found: title, wanted: "one line" }));
    }
    Ok(title)
}

fn budget(budget: Option<&At<u64>>) -> Result<u32, Fault> {
    let Some(at) = budget else { return Ok(DEFAULT_BUDGET) };
    match u32::try_from(at.value) {
        Ok(raises) if (1..=MAX_BUDGET).contains(&at.value) => Ok(raises),
        _ => {
            let (max, actual) = (MAX_BUDGET as f64, at.value as f64);
            Err(at.fault("budget", Problem::Range { min: 1.0, max, actual }))
        }
    }
}

fn count<T>(
    list: &At<Vec<T>>,
    path: impl Into<String>,
    what: &'static str,
    max: usize,
) -> Result<(), Fault> {
    let actual = list.value.len();
    if (1..=max).contains(&actual) {
        return Ok(());
    }
    Err(list.fault(path, Problem::Count { what, min: 1, max, actual }))
}

fn groups(document: &Document) -> Result<Vec<Group>, Fault> {
    let mut groups = Vec::new();
    for (name, emotions) in document.groups.iter().flatten() {
        let path = format!("groups.{name}");
        if groups.len() == MAX_GROUPS {
            let actual = document.groups.as_ref().map_or(0, std::collections::BTreeMap::len);
            let problem = Problem::Count { what: "groups", min: 0, max: MAX_GROUPS, actual };
            return Err(emotions.fault("groups", problem));
        }
        check_group_name(name, emotions, &path)?;
        count(emotions, path.as_str(), "emotions", Emotion::ALL.len())?;
        let mut bits = 0;
        for (index, emotion) in emotions.value.iter().enumerate() {
            let place = format!("{path}[{index}]");
            let bit = match emotion.value.parse() {
                Ok(known) => mask(known),
                Err(unknown) => return Err(emotion.fault(place, Problem::Emotion(unknown))),
            };
            if bits & bit != 0 {
                let problem = Problem::Twice { name: emotion.value.clone() };
                return Err(emotion.fault(place, problem));
            }
            bits |= bit;
        }
        groups.push(Group { name: name.clone(), signal: Signal::Emotions(bits) });
    }
    Ok(groups)
}

/// A group's name is a signal's and a template variable's too, so it is spelt like one and hides none.
fn check_group_name<T>(name: &str, at: &At<T>, path: &str) -> Result<(), Fault> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let spelt = (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(known);
    if !spelt {
        let wanted = "a letter of a-z and up to 31 of a-z, 0-9 and underscore";
        return Err(at.fault(path, Problem::Name { found: name.to_owned(), wanted }));
    }
    if Signal::named(name).is_some() || super::reason::reserved(name) {
        return Err(at.fault(path, Problem::Taken { name: name.to_owned() }));
    }
    Ok(())
}

fn parsed(
    text: &At<String>,
    path: impl Into<String>,
    (min, max): (Duration, Duration),
) -> Result<Duration, Fault> {
    let duration = match humantime::parse_duration(text.value.trim()) {
        Ok(duration) => duration,
        Err(error) => {
            let (text_, reason) = (text.value.clone(), error.to_string());
            return Err(text.fault(path, Problem::Duration { text: text_, reason }));
        }
    };
    if (min..=max).contains(&duration) {
        return Ok(duration);
    }
    let [min, max, actual] = [min, max, duration].map(super::words::span);
    Err(text.fault(path, Problem::DurationRange { min, max, actual }))
}

fn wait(text: Option<&At<String>>, path: String, default: Duration) -> Result<u64, Fault> {
    let duration = text.map_or(Ok(default), |text| parsed(text, path, WAIT))?;
    Ok(duration_to_samples(duration))
}

/// The least speech in a window of `over` for it to have a value.
fn min_speech(text: Option<&At<String>>, over: Duration, path: &str) -> Result<Duration, Fault> {
    text.map_or(Ok(over / 4), |text| {
        parsed(text, format!("{path}.min_speech"), (Duration::ZERO, over))
    })
}

/// Hops of speech that stand for `duration`. Without any there is no mean.
fn speech_hops(duration: Duration) -> u64 {
    duration_to_hops(duration).max(1)
}

fn ranged(number: &At<f64>, path: impl Into<String>, min: f64, max: f64) -> Result<i64, Fault> {
    // Not a number lies in no range.
    if (min..=max).contains(&number.value) {
        return Ok(micros(number.value));
    }
    Err(number.fault(path, Problem::Range { min, max, actual: number.value }))
}

fn thresholds(
    on: &At<f64>,
    off: &At<f64>,
    path: &str,
    min: f64,
    max: f64,
) -> Result<Thresholds, Fault> {
    let thresholds = Thresholds {
        on: ranged(on, format!("{path}.on"), min, max)?,
        off: ranged(off, format!("{path}.off"), min, max)?,
    };
    if thresholds.on == thresholds.off {
        return Err(off.fault(format!("{path}.off"), Problem::NoHysteresis { value: on.value }));
    }
    Ok(thresholds)
}

/// The policy as far as it is checked.
struct Checker {
    policy: Policy,
}

impl Checker {
    fn rule(&mut self, rule: &RuleText, path: &str) -> Result<Rule, Fault> {
        let place = |field: &str| format!("{path}.{field}");
        let update_every =
            wait(rule.update_every.as_ref(), place("update_every"), DEFAULT_UPDATE_EVERY)?;
        let first = self.policy.leaves.len();
        let when = self.expression(&rule.when, &place("when"), 1)?;
        let leaves = first..self.policy.leaves.len();
        if leaves.len() > MAX_CONDITIONS {
            let (max, actual) = (MAX_CONDITIONS, leaves.len());
            let problem = Problem::Count { what: "conditions", min: 1, max, actual };
            return Err(rule.when.fault(place("when"), problem));
        }
        let longest = self.longest(first);
        Ok(Rule {
            name: name(&rule.name, place("name"))?,
            title: title(&rule.title, place("title"))?,
            severity: rule.severity.value,
            when,
            leaves,
            dwell: wait(rule.dwell.as_ref(), place("dwell"), DEFAULT_DWELL)?,
            clear_after: wait(
                rule.clear_after.as_ref(),
                place("clear_after"),
                DEFAULT_CLEAR_AFTER,
            )?,
            cooldown: wait(rule.cooldown.as_ref(), place("cooldown"), DEFAULT_COOLDOWN)?,
            update_every: (update_every > 0).then_some(update_every),
            channels: channels(rule.channels.as_ref(), &place("channels"))?,
            clears_at_end: rule.on_session_end == Some(SessionEnd::Clear),
            reason: self.reason(&rule.reason, place("reason"))?,
            longest,
        })
    }

    fn reason(&self, text: &At<String>, path: String) -> Result<Reason, Fault> {
        let template = sized(text, path.as_str(), 2000)?;
        Reason::parse(&template, &self.policy.groups).map_err(|problem| text.fault(path, problem))
    }

    /// The window that the evidence of a rule whose conditions begin with `first` covers.
    fn longest(&mut self, first: usize) -> usize {
        let leaves = self.policy.leaves.iter().skip(first);
        let longest = leaves.map(|leaf| leaf.over).max().unwrap_or(WINDOW.0);
        self.window(longest)
    }

    fn window(&mut self, over: Duration) -> usize {
        let samples = duration_to_samples(over);
        let windows = &mut self.policy.windows;
        windows.iter().position(|length| *length == samples).unwrap_or_else(|| {
            windows.push(samples);
            windows.len() - 1
        })
    }

    fn expression(
        &mut self,
        condition: &At<Condition>,
        path: &str,
        depth: usize,
    ) -> Result<Expression, Fault> {
        if depth > MAX_DEPTH {
            return Err(condition.fault(path, Problem::Deep { limit: MAX_DEPTH }));
        }
        let leaf = match &condition.value {
            Condition::All(parts) => {
                return self.expressions(parts, &format!("{path}.all"), depth).map(Expression::All);
            }
            Condition::Any(parts) => {
                return self.expressions(parts, &format!("{path}.any"), depth).map(Expression::Any);
            }
            Condition::Not(part) => {
                let part = self.expression(part, &format!("{path}.not"), depth + 1)?;
                return Ok(Expression::Not(Box::new(part)));
            }
            Condition::Level(text) => self.level(&text.value, &format!("{path}.level"))?,
            Condition::Rise(text) => self.rise(&text.value, &format!("{path}.rise"))?,
            Condition::Share(text) => self.share(text, &format!("{path}.share"))?,
            Condition::Silence(text) => {
                silence(&text.value.length, &format!("{path}.silence.for"))?
            }
        };
        self.policy.leaves.push(leaf);
        Ok(Expression::Leaf(self.policy.leaves.len() - 1))
    }

    fn expressions(
        &mut self,
        parts: &At<Vec<At<Condition>>>,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Expression>, Fault> {
        count(parts, path, "conditions", MAX_CONDITIONS)?;
        let numbered = parts.value.iter().enumerate();
        numbered
            .map(|(i, part)| self.expression(part, &format!("{path}[{i}]"), depth + 1))
            .collect()
    }

    fn signal(&self, name: &At<String>, path: &str) -> Result<Signal, Fault> {
        let groups = &self.policy.groups;
        let group = || groups.iter().find(|group| group.name == name.value).map(|g| g.signal);
        Signal::named(&name.value).or_else(group).ok_or_else(|| {
            let mut known = vec!["distress", "valence", "arousal"];
            known.extend(Emotion::ALL.map(Emotion::name));
            known.extend(groups.iter().map(|group| group.name.as_str()));
            let known = known.join(", ");
            name.fault(format!("{path}.of"), Problem::Signal { name: name.value.clone(), known })
        })
    }

    fn level(&mut self, text: &MeanText, path: &str) -> Result<Leaf, Fault> {
        let signal = self.signal(&text.of, path)?;
        let over = parsed(&text.over, format!("{path}.over"), WINDOW)?;
        let min_speech = speech_hops(min_speech(text.min_speech.as_ref(), over, path)?);
        let thresholds = thresholds(&text.on, &text.off, path, signal.least(), 1.0)?;
        let measure = Measure::Level { signal, window: self.window(over), min_speech };
        Ok(Leaf { measure, thresholds, signal: text.of.value.clone(), over })
    }

    fn rise(&mut self, text: &MeanText, path: &str) -> Result<Leaf, Fault> {
        let signal = self.signal(&text.of, path)?;
        let over = parsed(&text.over, format!("{path}.over"), WINDOW)?;
        let min_speech = speech_hops(min_speech(text.min_speech.as_ref(), over, path)? / 2);
        let range = 1.0 - signal.least();
        let thresholds = thresholds(&text.on, &text.off, path, -range, range)?;
        let (whole, newer) = (self.window(over), self.window(over / 2));
        let measure = Measure::Rise { signal, whole, newer, min_speech };
        Ok(Leaf { measure, thresholds, signal: text.of.value.clone(), over })
    }

    fn share(&mut self, text: &At<ShareText>, path: &str) -> Result<Leaf, Fault> {
        let (at, text) = (text, &text.value);
        let signal = self.signal(&text.of, path)?;
        let over = parsed(&text.over, format!("{path}.over"), WINDOW)?;
        let min_speech = speech_hops(min_speech(text.min_speech.as_ref(), over, path)?);
        let bound = |number, field| ranged(number, format!("{path}.{field}"), signal.least(), 1.0);
        let bound = match (&text.at, &text.below) {
            (Some(number), None) => Bound::AtLeast(bound(number, "at")?),
            (None, Some(number)) => Bound::AtMost(bound(number, "below")?),
            _ => return Err(at.fault(path, Problem::ShareBound)),
        };
        let thresholds = thresholds(&text.on, &text.off, path, 0.0, 1.0)?;
        let window = self.window(over);
        self.policy.shares.push(Share { signal, window, bound });
        let share = self.policy.shares.len() - 1;
        let measure = Measure::Share { signal, share, window, min_speech, bound };
        Ok(Leaf { measure, thresholds, signal: text.of.value.clone(), over })
    }
}

fn silence(length: &At<String>, path: &str) -> Result<Leaf, Fault> {
    let over = parsed(length, path, WINDOW)?;
    let samples = duration_to_samples(over);
    // In millionths of a second, for those who are shown where it turns.
    let on = i64::try_from(over.as_micros()).unwrap_or(i64::MAX).max(MICRO);
    let thresholds = Thresholds { on, off: 0 };
    Ok(Leaf { measure: Measure::Silence { samples }, thresholds, signal: String::new(), over })
}

fn channels(list: Option<&At<Vec<At<u32>>>>, path: &str) -> Result<Option<Vec<u32>>, Fault> {
    let Some(list) = list else { return Ok(None) };
    count(list, path, "channels", MAX_CHANNELS.into())?;
    let mut channels: Vec<u32> = Vec::new();
    for (index, channel) in list.value.iter().enumerate() {
        let place = format!("{path}[{index}]");
        if channel.value >= MAX_CHANNELS.into() {
            let (max, actual) = (f64::from(MAX_CHANNELS - 1), f64::from(channel.value));
            return Err(channel.fault(place, Problem::Range { min: 0.0, max, actual }));
        }
        if channels.contains(&channel.value) {
            let problem = Problem::Twice { name: channel.value.to_string() };
            return Err(channel.fault(place, problem));
        }
        channels.push(channel.value);
    }
    Ok(Some(channels))
}
