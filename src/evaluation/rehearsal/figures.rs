//! What a rehearsal says of each policy.
//!
//! A stretch is *found* if a rule that is about its feeling is raised within it or up to 10 s behind it. A
//! raise outside all stretches and the 10 s behind each is a *false alarm*; they are counted per hour of
//! that time, gaps included. A raise within a stretch by a rule that is not about its feeling is *mistaken*
//! and counted by itself: somebody is upset, and the rule has the wrong word for it; or, in happiness,
//! somebody is not.
//!
//! Speakers, not conversations, are what is drawn anew for the intervals: conversations of one voice are
//! made of the same clips.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;

use super::play::{Outcome, Plan, Raise};
use super::script::{Kind, Script, Stretch};
use crate::corpus::Corpus;
use crate::evaluation::random::Random;
use crate::policy::{Policy, Rule, Severity};

/// How long after a stretch an escalation still finds it, seconds.
pub(super) const GRACE_S: f64 = 10.0;
/// Resamples of each interval.
const RESAMPLES: usize = 1000;

/// A whole rehearsal; written as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// 1.
    pub schema: u32,
    /// Version of the program.
    pub undertone: &'static str,
    /// How it was done.
    pub settings: Settings,
    /// One for each policy.
    pub policies: Vec<PolicyFigures>,
}

/// How a rehearsal was done.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Name of the protocol.
    pub protocol: String,
    /// The runs that heard: `fold-0-seed-1`.
    pub runs: Vec<String>,
    /// What everything random follows from.
    pub seed: u64,
    /// Seconds after a stretch that still count as it.
    pub grace_s: f64,
    /// Folds on whose speakers the thresholds were chosen.
    pub chosen_on: Vec<u8>,
    /// Conversations heard, over all models.
    pub sessions: usize,
    /// Hours of them.
    pub hours: f64,
    /// Speakers by corpus.
    pub speakers: BTreeMap<&'static str, usize>,
    /// Median over conversations of how often a clip is said in one.
    pub times_a_clip_is_said: f64,
}

/// What came of one policy.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyFigures {
    /// Its name.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// On the speakers on whom nothing was chosen, on the others, and on each corpus of the former.
    pub parts: Vec<Found>,
}

/// What came of one policy on some of the speakers.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// `blind`, `chosen_on`, or the corpus.
    pub part: String,
    /// Speakers.
    pub speakers: usize,
    /// Conversations.
    pub sessions: usize,
    /// Hours of talk: all but stretches and the grace behind them.
    pub talk_hours: f64,
    /// Speakers in whose talk there was no false alarm of any severity.
    pub speakers_without_alarm: usize,
    /// By kind of stretch.
    pub kinds: Vec<KindFigures>,
    /// False alarms in talk by severity, and of medium and high together.
    pub alarms: BTreeMap<&'static str, Alarms>,
    /// By rule.
    pub rules: Vec<RuleFigures>,
}

/// What came of the stretches of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct KindFigures {
    /// What was acted.
    pub feeling: &'static str,
    /// How long, in words.
    pub length: &'static str,
    /// Stretches.
    pub stretches: usize,
    /// Whether any rule is about it.
    pub asked_for: bool,
    /// Those found.
    pub found: usize,
    /// Their share.
    pub rate: Option<f64>,
    /// A 95 % interval of it, over speakers.
    pub interval: Option<(f64, f64)>,
    /// From the beginning of the stretch to the escalation, seconds: the median of those found.
    pub delay_median_s: Option<f64>,
    /// 90 % of those found take no longer.
    pub delay_90_s: Option<f64>,
    /// Raises by rules that are not about it.
    pub mistaken: usize,
}

/// How often something was raised for nothing.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Alarms {
    /// How often.
    pub count: usize,
    /// Per hour of talk.
    pub per_hour: Option<f64>,
    /// A 95 % interval of it, over speakers.
    pub interval: Option<(f64, f64)>,
}

/// What came of one rule.
#[derive(Debug, Clone, Serialize)]
pub struct RuleFigures {
    /// Its name.
    pub rule: String,
    /// Its severity.
    pub severity: &'static str,
    /// False alarms in talk.
    pub alarms: usize,
    /// Per hour of talk.
    pub per_hour: Option<f64>,
    /// By feeling and length of stretch: in how many it was raised, of how many.
    pub raised_in: BTreeMap<String, (usize, usize)>,
}

impl Figures {
    /// The figures of `outcomes`. Thresholds were chosen on the folds `chosen_on`.
    pub fn of(plan: &Plan, protocol: &str, outcomes: &[Outcome], chosen_on: &[u8]) -> Self {
        let hours = outcomes.iter().map(|outcome| outcome.script.seconds()).sum::<f64>() / 3600.0;
        let mut speakers = BTreeMap::new();
        for speaker in heard(plan, outcomes) {
            let corpus = plan.speakers.get(speaker).map_or("", |speaker| speaker.corpus.name());
            *speakers.entry(corpus).or_default() += 1;
        }
        let times = |outcome: &Outcome| {
            let (said, different) = (outcome.script.said, outcome.script.different);
            said as f64 / different.max(1) as f64
        };
        let settings = Settings {
            protocol: protocol.to_owned(),
            runs: plan.runs.iter().map(|(run, _)| run.name.clone()).collect(),
            seed: plan.seed,
            grace_s: GRACE_S,
            chosen_on: chosen_on.to_vec(),
            sessions: outcomes.len(),
            hours,
            speakers,
            times_a_clip_is_said: quantile(outcomes.iter().map(times).collect(), 0.5)
                .unwrap_or_default(),
        };
        let policies = plan.policies.iter().enumerate();
        let policies = policies
            .map(|(index, policy)| PolicyFigures {
                policy: policy.name().to_owned(),
                version: policy.version().to_owned(),
                parts: parts(plan, policy, index, outcomes, chosen_on),
            })
            .collect();
        Self { schema: 1, undertone: env!("CARGO_PKG_VERSION"), settings, policies }
    }
}

fn heard(plan: &Plan, outcomes: &[Outcome]) -> BTreeSet<usize> {
    let known = |speaker: &usize| plan.speakers.get(*speaker).is_some();
    outcomes.iter().map(|outcome| outcome.speaker).filter(known).collect()
}

fn parts(
    plan: &Plan,
    policy: &Policy,
    index: usize,
    outcomes: &[Outcome],
    chosen_on: &[u8],
) -> Vec<Found> {
    let speaker = |outcome: &Outcome| plan.speakers.get(outcome.speaker);
    let is_blind = |outcome: &Outcome| {
        speaker(outcome).is_some_and(|speaker| !chosen_on.contains(&speaker.fold))
    };
    let view = |name: &str, wanted: &dyn Fn(&Outcome) -> bool| {
        let chosen: Vec<&Outcome> = outcomes.iter().filter(|outcome| wanted(outcome)).collect();
        (!chosen.is_empty()).then(|| View::new(policy, index, &chosen).found(name))
    };
    let mut parts = Vec::new();
    parts.extend(view("blind", &is_blind));
    parts.extend(view("chosen_on", &|outcome| !is_blind(outcome)));
    for corpus in Corpus::ALL {
        let of_it = |outcome: &Outcome| {
            is_blind(outcome) && speaker(outcome).is_some_and(|speaker| speaker.corpus == corpus)
        };
        parts.extend(view(corpus.name(), &of_it));
    }
    parts
}

/// Whether `at_s` lies in the stretch or the grace behind it.
fn covers(stretch: &Stretch, at_s: f64) -> bool {
    (stretch.from_s()..=stretch.to_s() + GRACE_S).contains(&at_s)
}

fn is_in_talk(script: &Script, raise: &Raise) -> bool {
    !script.stretches.iter().any(|stretch| covers(stretch, raise.at_s))
}

/// Seconds of talk.
fn talk_s(script: &Script) -> f64 {
    let end = script.seconds();
    let covered = |stretch: &Stretch| (stretch.to_s() + GRACE_S).min(end) - stretch.from_s();
    end - script.stretches.iter().map(covered).sum::<f64>()
}

/// What one speaker adds to a rate: what counts, of how much.
type Share = (f64, f64);

/// Some outcomes, seen by one policy.
struct View<'a> {
    policy: &'a Policy,
    index: usize,
    by_speaker: Vec<Vec<&'a Outcome>>,
}

impl<'a> View<'a> {
    fn new(policy: &'a Policy, index: usize, outcomes: &[&'a Outcome]) -> Self {
        let mut by_speaker: BTreeMap<usize, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            by_speaker.entry(outcome.speaker).or_default().push(outcome);
        }
        Self { policy, index, by_speaker: by_speaker.into_values().collect() }
    }

    fn outcomes(&self) -> impl Iterator<Item = &'a Outcome> {
        self.by_speaker.iter().flatten().copied()
    }

    fn raises(&self, outcome: &'a Outcome) -> &'a [Raise] {
        outcome.raised.get(self.index).map_or(&[], Vec::as_slice)
    }

    fn is_about(&self, raise: &Raise, kind: Kind) -> bool {
        let rule = self.policy.rules().get(raise.rule);
        rule.is_some_and(|rule| self.policy.is_about(rule, kind.emotion))
    }

    fn found(&self, part: &str) -> Found {
        let hours = self.outcomes().map(|outcome| talk_s(&outcome.script)).sum::<f64>() / 3600.0;
        let mut alarms = BTreeMap::new();
        for severity in Severity::ALL {
            alarms.insert(severity.name(), self.alarms(severity..severity, hours));
        }
        alarms.insert("medium_or_high", self.alarms(Severity::Medium..Severity::High, hours));
        let quiet = self.by_speaker.iter().filter(|outcomes| {
            outcomes.iter().all(|outcome| self.false_alarms(outcome).next().is_none())
        });
        Found {
            part: part.to_owned(),
            speakers: self.by_speaker.len(),
            sessions: self.outcomes().count(),
            talk_hours: hours,
            speakers_without_alarm: quiet.count(),
            kinds: Kind::ALL.iter().filter_map(|kind| self.kind(*kind)).collect(),
            alarms,
            rules: self
                .policy
                .rules()
                .iter()
                .enumerate()
                .map(|(index, rule)| self.rule(index, rule, hours))
                .collect(),
        }
    }

    fn false_alarms(&self, outcome: &'a Outcome) -> impl Iterator<Item = &'a Raise> {
        self.raises(outcome).iter().filter(|raise| is_in_talk(&outcome.script, raise))
    }

    /// Of the severities from the start to the end of `severities`, both included.
    fn alarms(&self, severities: Range<Severity>, hours: f64) -> Alarms {
        let counts = |raise: &&Raise| (severities.start..=severities.end).contains(&raise.severity);
        let of_speaker = |outcomes: &Vec<&'a Outcome>| -> Share {
            let one = |outcome: &&'a Outcome| self.false_alarms(outcome).filter(counts).count();
            let count: usize = outcomes.iter().map(one).sum();
            let talk: f64 = outcomes.iter().map(|outcome| talk_s(&outcome.script)).sum();
            (count as f64, talk / 3600.0)
        };
        let shares: Vec<Share> = self.by_speaker.iter().map(of_speaker).collect();
        let count = shares.iter().map(|share| share.0).sum::<f64>();
        Alarms {
            count: count as usize,
            per_hour: (hours > 0.0).then(|| count / hours),
            interval: interval(&shares),
        }
    }

    fn kind(&self, kind: Kind) -> Option<KindFigures> {
        let (mut delays, mut mistaken, mut shares) = (Vec::new(), 0, Vec::new());
        for outcomes in &self.by_speaker {
            let mut share: Share = (0.0, 0.0);
            for outcome in outcomes {
                let of_kind = outcome.script.stretches.iter().filter(|s| s.kind == kind);
                for stretch in of_kind {
                    let within = || {
                        let raises = self.raises(outcome).iter();
                        raises.filter(|raise| covers(stretch, raise.at_s))
                    };
                    share.1 += 1.0;
                    mistaken += within().filter(|raise| !self.is_about(raise, kind)).count();
                    if let Some(first) = within().find(|raise| self.is_about(raise, kind)) {
                        share.0 += 1.0;
                        delays.push(first.at_s - stretch.from_s());
                    }
                }
            }
            shares.push(share);
        }
        let stretches = shares.iter().map(|share| share.1).sum::<f64>();
        if stretches == 0.0 {
            return None;
        }
        let about = |rule: &Rule| self.policy.is_about(rule, kind.emotion);
        Some(KindFigures {
            feeling: kind.emotion.name(),
            length: kind.length(),
            stretches: stretches as usize,
            asked_for: self.policy.rules().iter().any(about),
            found: delays.len(),
            rate: Some(delays.len() as f64 / stretches),
            interval: interval(&shares),
            delay_median_s: quantile(delays.clone(), 0.5),
            delay_90_s: quantile(delays, 0.9),
            mistaken,
        })
    }

    fn rule(&self, index: usize, rule: &Rule, hours: f64) -> RuleFigures {
        let own = |raise: &&Raise| raise.rule == index;
        let alarms: usize =
            self.outcomes().map(|outcome| self.false_alarms(outcome).filter(own).count()).sum();
        let mut raised_in: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for outcome in self.outcomes() {
            for stretch in &outcome.script.stretches {
                let name = format!("{}, {}", stretch.kind.emotion, stretch.kind.length());
                let (raised, all) = raised_in.entry(name).or_default();
                let mut raises = self.raises(outcome).iter().filter(own);
                *raised += usize::from(raises.any(|raise| covers(stretch, raise.at_s)));
                *all += 1;
            }
        }
        RuleFigures {
            rule: rule.name().to_owned(),
            severity: rule.severity().name(),
            alarms,
            per_hour: (hours > 0.0).then(|| alarms as f64 / hours),
            raised_in,
        }
    }
}

/// The least of `values` that at least `share` of them do not exceed.
fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

/// A 95 % interval of the ratio of sums: percentile bootstrap over speakers. None for fewer than five.
fn interval(speakers: &[Share]) -> Option<(f64, f64)> {
    if speakers.len() < crate::evaluation::figures::FEWEST_SPEAKERS {
        return None;
    }
    let mut random = Random::of(&["rehearsal", "interval"]);
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let mut sum = (0.0, 0.0);
        for _ in speakers {
            let (count, of) = speakers.get(random.below(speakers.len())).copied()?;
            sum = (sum.0 + count, sum.1 + of);
        }
        if sum.1 > 0.0 {
            ratios.push(sum.0 / sum.1);
        }
    }
    Some((quantile(ratios.clone(), 0.025)?, quantile(ratios, 0.975)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emotion::Emotion;
    use crate::evaluation::rehearsal::script::HOPS_PER_S;

    const POLICY: &str = "\
schema: undertone.policy/v1
name: two-rules
version: \"1\"
description: For a test.
rules:
  - name: anger
    title: Anger
    severity: high
    when: {level: {of: angry, over: 10s, on: 0.7, off: 0.5}}
    reason: anger
  - name: not-pleasant
    title: Not pleasant
    severity: low
    when: {level: {of: valence, over: 10s, on: -0.7, off: -0.5}}
    reason: unpleasant
";

    fn outcome(speaker: usize, raised: &[(usize, f64)]) -> Outcome {
        let hops = |seconds: f64| (seconds * HOPS_PER_S) as u64;
        let stretch = |emotion, from: f64| Stretch {
            kind: Kind { emotion, long: false },
            from: hops(from),
            to: hops(from + 30.0),
        };
        let script = Script {
            parts: Vec::new(),
            stretches: vec![stretch(Emotion::Angry, 100.0), stretch(Emotion::Happy, 300.0)],
            hops: hops(600.0),
            said: 20,
            different: 10,
        };
        let severity = |rule: usize| [Severity::High, Severity::Low][rule];
        let raise = |&(rule, at_s)| Raise { rule, severity: severity(rule), at_s };
        Outcome { speaker, script, raised: vec![raised.iter().map(raise).collect()] }
    }

    fn found(outcomes: &[Outcome]) -> Found {
        let policy = Policy::parse(POLICY).unwrap();
        View::new(&policy, 0, &outcomes.iter().collect::<Vec<_>>()).found("all")
    }

    #[test]
    fn a_stretch_is_found_by_a_rule_about_it_within_it_or_ten_seconds_behind() {
        let found = found(&[
            outcome(0, &[(0, 112.0), (0, 125.0)]),
            outcome(1, &[(0, 138.0)]),
            outcome(2, &[(0, 141.0)]),
            outcome(3, &[(1, 110.0)]),
        ]);
        let angry = &found.kinds[0];
        assert_eq!((angry.found, angry.stretches, angry.mistaken), (2, 4, 1));
        assert_eq!((angry.rate, angry.interval), (Some(0.5), None), "four speakers are too few");
        assert!((angry.delay_median_s.unwrap() - 12.0).abs() < 0.1);
        assert!((angry.delay_90_s.unwrap() - 38.0).abs() < 0.1);
        assert!(angry.asked_for && !found.kinds[1].asked_for);
        assert_eq!(found.speakers_without_alarm, 3, "41 s behind the beginning is talk again");
    }

    #[test]
    fn false_alarms_are_counted_per_hour_of_talk_and_by_severity() {
        let found =
            found(&[outcome(0, &[(0, 50.0), (1, 60.0), (0, 310.0)]), outcome(1, &[(0, 500.0)])]);
        // 600 s less two stretches of 40 s, twice.
        assert!((found.talk_hours - 2.0 * 520.0 / 3600.0).abs() < 1e-4, "{}", found.talk_hours);
        assert_eq!(found.alarms["high"].count, 2);
        assert_eq!(found.alarms["low"].count, 1);
        assert_eq!(found.alarms["medium_or_high"].count, 2);
        let rate = found.alarms["high"].per_hour.unwrap();
        assert!((rate - 2.0 / found.talk_hours).abs() < 1e-9);
        assert_eq!(found.kinds[1].mistaken, 1, "anger was raised in happiness");
        assert_eq!(found.rules[0].raised_in["happy, 20 to 60 s"], (1, 2));
    }

    #[test]
    fn intervals_hold_the_value_and_follow_from_the_speakers_alone() {
        let shares: Vec<Share> = (0..20).map(|k| (f64::from(k % 3), 1.0)).collect();
        let (low, high) = interval(&shares).unwrap();
        assert!(low < 0.95 && 0.95 < high && 0.4 < low && high < 1.5, "{low} {high}");
        assert_eq!(interval(&shares), interval(&shares));
        assert_eq!(interval(&shares[..4]), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values = || vec![3.0, 1.0, 2.0, 4.0];
        assert_eq!(quantile(values(), 0.5), Some(2.0));
        assert_eq!(quantile(values(), 0.9), Some(4.0));
        assert_eq!(quantile(Vec::new(), 0.5), None);
    }
}
