//! What a live session has heard in its last minutes, for those who look at it from outside.
//!
//! In: estimates and utterances as the client is told them. Out: the newest estimate of each channel, whole; of
//! those before it one a second and channel, with 16 bits a number; utterances. It is memory alone, bounded by
//! `session_history`, and goes with the session; nothing of it is kept elsewhere.
//!
//! Always: who looks never holds up the session. The lock is held while an estimate is put in or copied out,
//! and whoever follows is told that there is news, not the news: one who is slow misses estimates.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::emotion::{EMOTIONS, Emotion, Scores};
use crate::policy::Severity;
use crate::tracking::{Abstain, Affect, DimensionSource, Judgement};
use crate::units::{SamplePos, duration_to_samples};
use crate::wire::event::{Estimate, Utterance};

/// Of the estimates of one channel, one is kept in such a time, in samples at 16 kHz.
const GRAIN: u64 = 16_000;
/// Room that is made at once: a minute of one channel.
const ROOM: usize = 60;

/// The newest estimate of a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    /// As the client got it.
    pub estimate: Estimate,
    /// The escalations of the channel that were in force.
    pub in_force: InForce,
}

/// The escalations in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// The highest severity.
    pub severity: Option<Severity>,
    /// Their ids, as they were raised.
    pub ids: Vec<Uuid>,
}

/// What is new since somebody last looked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// The newest estimate of each channel that has a new one, by channel.
    pub latest: Vec<Latest>,
    /// Utterances, in order.
    pub utterances: Vec<Utterance>,
    /// Whether other escalations are in force.
    pub in_force: bool,
}

/// Up to where somebody has looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// What was heard.
#[derive(Debug)]
pub struct Recent {
    labels: Box<[Emotion]>,
    /// How much is kept, in samples at 16 kHz.
    keep: u64,
    heard: Mutex<Heard>,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Heard {
    /// How many things were put in: the number of the last one.
    count: u64,
    /// By channel; each with the number of its estimate.
    latest: Vec<(u64, Latest)>,
    /// In order of their end.
    points: VecDeque<Point>,
    /// In order of their end, each with its number.
    utterances: VecDeque<(u64, Utterance)>,
    /// Of all channels, and the number of its last change.
    in_force: (u64, InForce),
}

impl Recent {
    /// For a session whose model knows the emotions `labels`, of which `keep` is kept.
    pub fn new(labels: &[Emotion], keep: Duration) -> Self {
        let keep = duration_to_samples(keep);
        Self { labels: labels.into(), keep, heard: Mutex::default(), news: watch::Sender::new(()) }
    }

    /// The emotions that the model knows.
    pub fn labels(&self) -> &[Emotion] {
        &self.labels
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // What is in there is whole after each statement.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session's client gets an estimate.
    pub fn estimate(&self, latest: Latest) {
        let estimate = latest.estimate.clone();
        let mut heard = self.heard();
        heard.count += 1;
        let number = heard.count;
        let here = |(_, one): &&mut (u64, Latest)| one.estimate.channel == estimate.channel;
        let before = heard
            .latest
            .iter_mut()
            .find(here)
            .map(|slot| std::mem::replace(slot, (number, latest.clone())).1.estimate.end);
        if before.is_none() {
            heard.latest.push((number, latest));
            heard.latest.sort_by_key(|(_, latest)| latest.estimate.channel);
        }
        let is_next = before.is_none_or(|before| before.0 / GRAIN < estimate.end.0 / GRAIN);
        if is_next && self.keep > 0 {
            heard.forget(estimate.end, self.keep);
            if heard.points.len() == heard.points.capacity() {
                // Not doubled: half of it would never be used.
                heard.points.reserve_exact(ROOM);
            }
            heard.points.push_back(Point::of(&estimate));
        }
        drop(heard);
        self.news.send_replace(());
    }

    /// These escalations are in force now.
    pub fn in_force(&self, now: InForce) {
        let mut heard = self.heard();
        if heard.in_force.1 == now {
            return;
        }
        heard.count += 1;
        heard.in_force = (heard.count, now);
        drop(heard);
        self.news.send_replace(());
    }

    /// The escalations in force.
    pub fn escalations(&self) -> InForce {
        self.heard().in_force.1.clone()
    }

    /// An utterance has ended.
    pub fn utterance(&self, utterance: &Utterance) {
        let mut heard = self.heard();
        heard.count += 1;
        let number = heard.count;
        if self.keep > 0 {
            heard.forget(utterance.end, self.keep);
            heard.utterances.push_back((number, utterance.clone()));
        }
        drop(heard);
        self.news.send_replace(());
    }

    /// The newest estimate of each channel, by channel.
    pub fn latest(&self) -> Vec<Latest> {
        self.heard().latest.iter().map(|(_, latest)| latest.clone()).collect()
    }

    /// What was heard in the last `span` of the audio, as far as it is kept, with the newest of each channel, and
    /// up to where that is.
    pub fn history(&self, span: Duration) -> (Vec<Estimate>, Vec<Utterance>, Mark) {
        let heard = self.heard();
        let from = heard.end().0.saturating_sub(duration_to_samples(span));
        let kept = heard.points.iter().filter(|point| point.end.0 > from);
        let mut estimates: Vec<Estimate> = kept.map(Point::estimate).collect();
        if self.keep > 0 {
            let newest = heard.latest.iter().map(|(_, latest)| &latest.estimate);
            for one in newest.filter(|one| one.end.0 > from) {
                let mut kept = estimates.iter().rev().filter(|kept| kept.channel == one.channel);
                if kept.next().is_none_or(|kept| kept.end < one.end) {
                    estimates.push(one.clone());
                }
            }
            estimates.sort_by_key(|estimate| estimate.end);
        }
        let utterances = heard.utterances.iter().filter(|(_, utterance)| utterance.end.0 > from);
        let utterances = utterances.map(|(_, utterance)| utterance.clone()).collect();
        (estimates, utterances, Mark(heard.count))
    }

    /// Follows what is heard from now on.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// What is new since `mark`, which is moved on.
    pub fn since(&self, mark: &mut Mark) -> News {
        let heard = self.heard();
        let before = std::mem::replace(&mut mark.0, heard.count);
        let latest = heard.latest.iter().filter(|(number, _)| *number > before);
        let utterances = heard.utterances.iter().filter(|(number, _)| *number > before);
        News {
            latest: latest.map(|(_, latest)| latest.clone()).collect(),
            utterances: utterances.map(|(_, utterance)| utterance.clone()).collect(),
            in_force: heard.in_force.0 > before,
        }
    }
}

impl Heard {
    /// Up to where was heard.
    fn end(&self) -> SamplePos {
        let estimates = self.latest.iter().map(|(_, latest)| latest.estimate.end);
        let utterances = self.utterances.back().map(|(_, utterance)| utterance.end);
        estimates.chain(utterances).max().unwrap_or_default()
    }

    fn forget(&mut self, now: SamplePos, keep: u64) {
        let from = now.0.saturating_sub(keep);
        while self.points.front().is_some_and(|point| point.end.0 <= from) {
            self.points.pop_front();
        }
        while self.utterances.front().is_some_and(|(_, utterance)| utterance.end.0 <= from) {
            self.utterances.pop_front();
        }
    }
}

/// An estimate in 60 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    end: SamplePos,
    /// Samples that the utterance began before `end`.
    began: u32,
    /// Samples that the evidence ends before `end`.
    evidence: u32,
    speech_hops: u32,
    utterance: u32,
    affect: Numbers,
    valence: i16,
    arousal: i16,
    distress: u16,
    speech_ratio: u16,
    /// Hundredths of a decibel.
    level: i16,
    channel: u8,
    abstains: Option<Abstain>,
}

/// What an estimate's numbers are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    None,
    Emotions([u16; EMOTIONS]),
    Dimensions,
}

/// A number from 0 to 1.
fn share(value: f32) -> u16 {
    (value.clamp(0.0, 1.0) * f32::from(u16::MAX)).round() as u16
}

fn of_share(value: u16) -> f32 {
    f32::from(value) / f32::from(u16::MAX)
}

/// A number from -1 to 1.
fn signed(value: f32) -> i16 {
    (value.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16
}

fn of_signed(value: i16) -> f32 {
    f32::from(value) / f32::from(i16::MAX)
}

impl Point {
    fn of(estimate: &Estimate) -> Self {
        let back = |position: SamplePos| {
            u32::try_from(estimate.end.0.saturating_sub(position.0)).unwrap_or(u32::MAX)
        };
        let affect = estimate.judgement.affect;
        let of_affect = |number: fn(&Affect) -> f32| affect.as_ref().map_or(0.0, number);
        Self {
            end: estimate.end,
            began: back(estimate.start),
            evidence: back(estimate.evidence_end),
            speech_hops: u32::try_from(estimate.speech_hops).unwrap_or(u32::MAX),
            utterance: estimate.utterance,
            affect: match affect {
                None => Numbers::None,
                Some(Affect { scores: None, .. }) => Numbers::Dimensions,
                Some(Affect { scores: Some(scores), .. }) => {
                    Numbers::Emotions(<[f32; EMOTIONS]>::from(scores).map(share))
                }
            },
            valence: signed(of_affect(|affect| affect.valence)),
            arousal: signed(of_affect(|affect| affect.arousal)),
            distress: share(of_affect(|affect| affect.distress)),
            speech_ratio: share(estimate.speech_ratio),
            level: (estimate.level_dbfs * 100.0).round() as i16,
            channel: u8::try_from(estimate.channel).unwrap_or(u8::MAX),
            abstains: estimate.judgement.abstains,
        }
    }

    fn estimate(&self) -> Estimate {
        let before = |samples: u32| SamplePos(self.end.0.saturating_sub(samples.into()));
        let numbers = |scores, source| Affect {
            scores,
            valence: of_signed(self.valence),
            arousal: of_signed(self.arousal),
            source,
            distress: of_share(self.distress),
        };
        let affect = match self.affect {
            Numbers::None => None,
            Numbers::Dimensions => Some(numbers(None, DimensionSource::Model)),
            Numbers::Emotions(scores) => {
                // They were probabilities, and rounding moves their sum by 1e-4 at most.
                let scores = Scores::try_from(scores.map(of_share)).ok();
                Some(numbers(scores, DimensionSource::Emotions))
            }
        };
        Estimate {
            channel: self.channel.into(),
            start: before(self.began),
            end: self.end,
            evidence_end: before(self.evidence),
            judgement: Judgement { affect, abstains: self.abstains },
            speech_ratio: of_share(self.speech_ratio),
            level_dbfs: f32::from(self.level) / 100.0,
            speech_hops: self.speech_hops.into(),
            utterance: self.utterance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recent(keep_s: u64) -> Recent {
        Recent::new(&Emotion::ALL, Duration::from_secs(keep_s))
    }

    fn estimate(channel: u32, end_ms: u64, scores: [f32; EMOTIONS]) -> Estimate {
        let scores = Scores::try_from(scores).unwrap();
        let (valence, arousal) = scores.circumplex();
        let affect = Affect {
            scores: Some(scores),
            valence,
            arousal,
            source: DimensionSource::Emotions,
            distress: scores.distress(),
        };
        let end = SamplePos(end_ms * 16);
        Estimate {
            channel,
            start: SamplePos(end.0 / 2),
            end,
            evidence_end: SamplePos(end.0.saturating_sub(256)),
            judgement: Judgement { affect: Some(affect), abstains: Some(Abstain::Unsure) },
            speech_ratio: 0.37,
            level_dbfs: -23.456,
            speech_hops: 17,
            utterance: 3,
        }
    }

    const CALM: [f32; EMOTIONS] = [0.2, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];

    fn say(recent: &Recent, channel: u32, end_ms: u64) {
        let estimate = estimate(channel, end_ms, CALM);
        recent.estimate(Latest { estimate, in_force: InForce::default() });
    }

    fn utterance(end_ms: u64) -> Utterance {
        Utterance {
            channel: 0,
            index: 0,
            start: SamplePos(0),
            end: SamplePos(end_ms * 16),
            speech_hops: 9,
            judgement: Judgement { affect: None, abstains: None },
        }
    }

    fn ends(recent: &Recent, span_s: u64) -> Vec<u64> {
        let (estimates, ..) = recent.history(Duration::from_secs(span_s));
        estimates.iter().map(|estimate| estimate.end.0 / 16).collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_said_to_sixteen_bits(
            weights in prop::array::uniform8(0.001_f32..1.0), end_ms in 1_u64..1_000_000_000,
        ) {
            let sum: f32 = weights.iter().sum();
            let estimate = estimate(2, end_ms, weights.map(|weight| weight / sum));
            let kept = Point::of(&estimate).estimate();
            let (one, other) = (kept.judgement.affect.unwrap(), estimate.judgement.affect.unwrap());
            for emotion in Emotion::ALL {
                let (one, other) = (one.scores.unwrap().of(emotion), other.scores.unwrap().of(emotion));
                prop_assert!((one - other).abs() <= 1.0 / 65_535.0);
            }
            for (one, other) in [
                (one.valence, other.valence),
                (one.arousal, other.arousal),
                (one.distress, other.distress),
                (kept.speech_ratio, estimate.speech_ratio),
            ] {
                prop_assert!((one - other).abs() <= 1.0 / 32_767.0);
            }
            prop_assert!((kept.level_dbfs - estimate.level_dbfs).abs() <= 0.005 + 1e-5);
            let exact = |e: &Estimate| {
                (e.channel, e.end, e.evidence_end, e.speech_hops, e.utterance, e.judgement.abstains)
            };
            prop_assert_eq!(exact(&kept), exact(&estimate));
        }
    }

    #[test]
    fn of_each_channel_one_estimate_a_second_is_kept_and_the_newest_whole() {
        let recent = recent(300);
        for end_ms in (500..=3_000).step_by(500) {
            say(&recent, 1, end_ms);
            say(&recent, 0, end_ms);
        }
        assert_eq!(ends(&recent, 300), [500, 500, 1_000, 1_000, 2_000, 2_000, 3_000, 3_000]);
        let latest = recent.latest();
        assert_eq!(latest.iter().map(|l| l.estimate.channel).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(latest[0].estimate, estimate(0, 3_000, CALM));
    }

    #[test]
    fn a_history_ends_with_the_newest_of_each_channel() {
        let recent = recent(300);
        for (channel, end_ms) in [(0, 500), (1, 600), (0, 700), (1, 800), (0, 900), (1, 1_100)] {
            say(&recent, channel, end_ms);
        }
        assert_eq!(ends(&recent, 300), [500, 600, 900, 1_100]);
        let (estimates, ..) = recent.history(Duration::from_secs(300));
        let channels: Vec<u32> = estimates.iter().map(|estimate| estimate.channel).collect();
        assert_eq!(channels, [0, 1, 0, 1]);
        assert_eq!(estimates[2], estimate(0, 900, CALM));
    }

    #[test]
    fn what_is_older_than_is_kept_is_gone_and_what_is_asked_for_is_given() {
        let recent = recent(10);
        recent.utterance(&utterance(900));
        for end_s in 1..=30 {
            say(&recent, 0, end_s * 1_000);
        }
        assert_eq!(ends(&recent, 300).first(), Some(&21_000));
        assert_eq!(ends(&recent, 2), [29_000, 30_000]);
        recent.utterance(&utterance(29_500));
        let (_, utterances, _) = recent.history(Duration::from_secs(300));
        assert_eq!(utterances, [utterance(29_500)]);
        assert!(recent.heard().points.capacity() <= ROOM);
    }

    #[test]
    fn nothing_is_kept_but_the_newest_where_nothing_shall_be() {
        let recent = recent(0);
        say(&recent, 0, 1_000);
        recent.utterance(&utterance(900));
        assert_eq!(recent.latest().len(), 1);
        assert_eq!(recent.history(Duration::from_secs(9)).0, []);
        assert_eq!(recent.history(Duration::from_secs(9)).1, []);
    }

    #[test]
    fn who_follows_hears_of_each_thing_once_and_misses_estimates_when_slow() {
        let recent = recent(300);
        say(&recent, 0, 500);
        let (estimates, _, mut mark) = recent.history(Duration::from_secs(300));
        assert_eq!(estimates.len(), 1);
        assert_eq!(recent.since(&mut mark), News::default());
        let mut follower = recent.follow();
        follower.borrow_and_update();
        say(&recent, 0, 1_000);
        recent.utterance(&utterance(1_000));
        say(&recent, 0, 1_500);
        assert!(follower.has_changed().unwrap());
        let news = recent.since(&mut mark);
        assert_eq!((news.latest.len(), news.utterances.len(), news.in_force), (1, 1, false));
        assert_eq!(news.latest[0].estimate.end, SamplePos(24_000));
        assert_eq!(recent.since(&mut mark), News::default());
        let in_force = InForce { severity: Some(Severity::High), ids: vec![Uuid::nil()] };
        recent.in_force(in_force.clone());
        assert!(recent.since(&mut mark).in_force);
        recent.in_force(in_force);
        assert!(!recent.since(&mut mark).in_force, "nothing has changed");
    }

    #[test]
    fn a_kept_estimate_is_small() {
        assert!(size_of::<Point>() <= 64, "{}", size_of::<Point>());
    }
}
