//! What is said when: the plan of one composed conversation.
//!
//! In: how long each clip of a speaker is, a seed, a number. Out: a [`Script`], clips and gaps in order,
//! and where its stretches of feeling are. Pure; lengths are hops of 16 ms.
//!
//! A conversation is 10 minutes: talk (clips that were acted neutral or calm), a stretch of clips of one
//! feeling, talk, another stretch of another feeling, talk to the end. Two of [`SESSIONS`] have a single
//! long stretch instead, for rules that look back over minutes. Everything random is drawn as follows.
//!
//! | what | from |
//! |---|---|
//! | talk before the first stretch | uniform, 90 to 180 s |
//! | a stretch | uniform, 20 to 60 s; a long one, 180 to 240 s |
//! | talk between two stretches | uniform, 150 to 240 s |
//! | the gap behind each clip | 0.2 s and an exponential of mean 0.8 s, at most 4 s |
//! | clips | all of a pool in random order before any comes again |
//!
//! A phase ends with the clip and gap in which its time is up.

use crate::emotion::Emotion;
use crate::evaluation::random::Random;
use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ};

/// Hops in a second.
pub(super) const HOPS_PER_S: f64 = MODEL_RATE_HZ as f64 / HOP_SAMPLES as f64;
/// Length of a conversation, seconds.
const LENGTH_S: f64 = 600.0;
/// Talk before the first stretch, seconds.
const BEFORE_S: (f64, f64) = (90.0, 180.0);
/// Talk between two stretches, seconds.
const BETWEEN_S: (f64, f64) = (150.0, 240.0);
/// A stretch, seconds.
const SHORT_S: (f64, f64) = (20.0, 60.0);
/// A long one, seconds.
const LONG_S: (f64, f64) = (180.0, 240.0);
/// The shortest gap, the mean of what comes on top, and the longest gap, seconds.
const GAP_S: (f64, f64, f64) = (0.2, 0.8, 4.0);

/// What a stretch is: a feeling, and whether it is one of the long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// What was acted.
    pub emotion: Emotion,
    /// 3 to 4 minutes instead of 20 to 60 seconds.
    pub long: bool,
}

impl Kind {
    /// All that are rehearsed. Happiness is no reason to escalate: it is there to see whether it passes
    /// for one.
    pub const ALL: [Self; 6] = [
        Self::short(Emotion::Angry),
        Self::short(Emotion::Fear),
        Self::short(Emotion::Sad),
        Self::short(Emotion::Happy),
        Self::long(Emotion::Sad),
        Self::long(Emotion::Angry),
    ];

    const fn short(emotion: Emotion) -> Self {
        Self { emotion, long: false }
    }

    const fn long(emotion: Emotion) -> Self {
        Self { emotion, long: true }
    }

    /// Its length in words.
    pub fn length(self) -> &'static str {
        if self.long { "3 to 4 min" } else { "20 to 60 s" }
    }
}

/// Conversations of each speaker: every feeling four times, as often first as second, and two long ones.
/// So are the first six, with every feeling twice.
pub const SESSIONS: [&[Kind]; 10] = {
    const A: Kind = Kind::short(Emotion::Angry);
    const F: Kind = Kind::short(Emotion::Fear);
    const S: Kind = Kind::short(Emotion::Sad);
    const H: Kind = Kind::short(Emotion::Happy);
    [
        &[A, S],
        &[F, H],
        &[S, A],
        &[H, F],
        &[Kind::long(Emotion::Sad)],
        &[Kind::long(Emotion::Angry)],
        &[A, F],
        &[S, H],
        &[F, S],
        &[H, A],
    ]
};

/// A clip that can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// What was acted.
    pub(super) emotion: Emotion,
    /// Its length.
    pub(super) hops: u64,
}

/// What comes next in a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One of the speaker's clips, by its number.
    Clip(usize),
    /// Nobody speaks for so many hops.
    Gap(u64),
}

/// A stretch of feeling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// What it is.
    pub kind: Kind,
    /// Its first hop.
    pub from: u64,
    /// The hop behind its last clip.
    pub to: u64,
}

impl Stretch {
    /// Where it begins, seconds.
    pub fn from_s(&self) -> f64 {
        self.from as f64 / HOPS_PER_S
    }

    /// Where it ends, seconds.
    pub fn to_s(&self) -> f64 {
        self.to as f64 / HOPS_PER_S
    }
}

/// One composed conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What is said, in order.
    pub parts: Vec<Part>,
    /// The stretches, in order.
    pub stretches: Vec<Stretch>,
    /// Its length.
    pub hops: u64,
    /// Clips said in all.
    pub said: usize,
    /// Different ones among them.
    pub different: usize,
}

impl Script {
    /// Its length, seconds.
    pub fn seconds(&self) -> f64 {
        self.hops as f64 / HOPS_PER_S
    }

    /// Conversation `number` (of [`SESSIONS`], round and round) of the speaker who has `lines`; `None` if
    /// the speaker lacks a feeling that it needs, or neutral and calm talk.
    pub(super) fn compose(lines: &[Line], seed: u64, speaker: &str, number: usize) -> Option<Self> {
        let kinds = SESSIONS.get(number % SESSIONS.len())?;
        let words = ["rehearsal", &seed.to_string(), speaker, &number.to_string()];
        let mut writer = Writer { lines, random: Random::of(&words), script: Self::empty() };
        let mut talk = Pool::of(lines, |e| matches!(e, Emotion::Neutral | Emotion::Calm))?;
        let mut before = BEFORE_S;
        for kind in *kinds {
            let talking = writer.between(before);
            writer.say(&mut talk, talking);
            let mut feeling = Pool::of(lines, |emotion| emotion == kind.emotion)?;
            let lasting = writer.between(if kind.long { LONG_S } else { SHORT_S });
            let from = writer.script.hops;
            let to = writer.say(&mut feeling, lasting);
            writer.script.stretches.push(Stretch { kind: *kind, from, to });
            before = BETWEEN_S;
        }
        let rest = LENGTH_S - writer.script.seconds();
        writer.say(&mut talk, rest);
        let mut script = writer.script;
        let clips = script.parts.iter().filter_map(|part| match part {
            Part::Clip(index) => Some(*index),
            Part::Gap(_) => None,
        });
        let mut clips: Vec<usize> = clips.collect();
        script.said = clips.len();
        clips.sort_unstable();
        clips.dedup();
        script.different = clips.len();
        Some(script)
    }

    fn empty() -> Self {
        Self { parts: Vec::new(), stretches: Vec::new(), hops: 0, said: 0, different: 0 }
    }
}

/// Clips to be drawn from: all of them before any comes again.
struct Pool {
    all: Vec<usize>,
    left: Vec<usize>,
}

impl Pool {
    fn of(lines: &[Line], wanted: impl Fn(Emotion) -> bool) -> Option<Self> {
        let wanted = lines.iter().enumerate().filter(|(_, line)| wanted(line.emotion));
        let all: Vec<usize> = wanted.map(|(index, _)| index).collect();
        (!all.is_empty()).then_some(Self { all, left: Vec::new() })
    }

    fn draw(&mut self, random: &mut Random) -> Option<usize> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        let at = random.below(self.left.len());
        (at < self.left.len()).then(|| self.left.swap_remove(at))
    }
}

struct Writer<'a> {
    lines: &'a [Line],
    random: Random,
    script: Script,
}

impl Writer<'_> {
    fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        low + (high - low) * self.random.unit()
    }

    /// Clips and gaps until `seconds` are up; where the last clip ends.
    fn say(&mut self, pool: &mut Pool, seconds: f64) -> u64 {
        let until = self.script.hops + (seconds.max(0.0) * HOPS_PER_S) as u64;
        let mut end = self.script.hops;
        while self.script.hops < until
            && let Some(index) = pool.draw(&mut self.random)
            && let Some(line) = self.lines.get(index)
        {
            let (least, mean, most) = GAP_S;
            let gap = (least - mean * (1.0 - self.random.unit()).ln()).min(most);
            let gap = (gap * HOPS_PER_S) as u64;
            self.script.parts.extend([Part::Clip(index), Part::Gap(gap)]);
            end = self.script.hops + line.hops;
            self.script.hops = end + gap;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clips of each emotion, 1.6 to 3.2 s long.
    fn lines() -> Vec<Line> {
        let all = Emotion::ALL.into_iter().flat_map(|emotion| [emotion; 3]);
        all.enumerate().map(|(i, emotion)| Line { emotion, hops: 100 + 4 * i as u64 }).collect()
    }

    fn compose(number: usize) -> Script {
        Script::compose(&lines(), 1, "somebody", number).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_script_and_another_one_another() {
        assert_eq!(compose(3), compose(3));
        assert_ne!(compose(3), Script::compose(&lines(), 2, "somebody", 3).unwrap());
        assert_ne!(compose(3), Script::compose(&lines(), 1, "somebody else", 3).unwrap());
        assert_ne!(compose(3).parts, compose(13).parts, "the second round is another one");
    }

    #[test]
    fn stretches_are_where_they_are_said_to_be_and_hold_their_feeling_alone() {
        let lines = lines();
        for (number, expected) in SESSIONS.iter().enumerate() {
            let script = compose(number);
            let kinds: Vec<Kind> = script.stretches.iter().map(|stretch| stretch.kind).collect();
            assert_eq!(kinds, *expected);
            let mut at = 0;
            for part in &script.parts {
                match *part {
                    Part::Gap(hops) => at += hops,
                    Part::Clip(index) => {
                        let end = at + lines[index].hops;
                        let within = script.stretches.iter().find(|s| s.from <= at && end <= s.to);
                        let emotion = lines[index].emotion;
                        match within {
                            Some(stretch) => assert_eq!(emotion, stretch.kind.emotion),
                            None => assert!(matches!(emotion, Emotion::Neutral | Emotion::Calm)),
                        }
                        at = end;
                    }
                }
            }
            assert_eq!(at, script.hops);
        }
    }

    #[test]
    fn lengths_are_those_that_the_table_says() {
        for number in 0..40 {
            let script = compose(number);
            assert!((600.0..608.0).contains(&script.seconds()), "{}", script.seconds());
            for stretch in &script.stretches {
                let (low, high) = if stretch.kind.long { LONG_S } else { SHORT_S };
                let seconds = stretch.to_s() - stretch.from_s();
                // From a gap less to a clip more than was drawn.
                assert!((low - 4.0..high + 4.0).contains(&seconds), "{seconds}");
            }
            let [first, ..] = script.stretches[..] else { panic!() };
            assert!((90.0..188.0).contains(&first.from_s()));
            if let [first, second] = script.stretches[..] {
                assert!((150.0..252.0).contains(&(second.from_s() - first.to_s())));
            }
        }
    }

    #[test]
    fn no_clip_of_a_pool_comes_again_before_all_have_come() {
        let script = compose(0);
        let lines = lines();
        let talk = script.parts.iter().filter_map(|part| match part {
            Part::Clip(i) if matches!(lines[*i].emotion, Emotion::Neutral | Emotion::Calm) => {
                Some(*i)
            }
            _ => None,
        });
        let talk: Vec<usize> = talk.collect();
        for round in talk.chunks_exact(6) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3, 4, 5]);
        }
        assert_eq!(script.different, 12, "six of talk, three of each feeling");
    }

    #[test]
    fn every_feeling_is_there_as_often_as_the_others_and_as_often_first_as_second() {
        for (sessions, times) in [(&SESSIONS[..], 2), (&SESSIONS[..6], 1)] {
            for emotion in [Emotion::Angry, Emotion::Fear, Emotion::Sad, Emotion::Happy] {
                let kind = Kind::short(emotion);
                let first = sessions.iter().filter(|kinds| kinds[0] == kind).count();
                let second = sessions.iter().filter(|kinds| kinds.get(1) == Some(&kind)).count();
                assert_eq!((first, second), (times, times), "{emotion}");
            }
        }
    }

    #[test]
    fn a_speaker_who_lacks_the_feeling_or_any_calm_talk_has_no_script() {
        let without = |left_out: &[Emotion]| {
            let mut lines = lines();
            lines.retain(|line| !left_out.contains(&line.emotion));
            Script::compose(&lines, 1, "somebody", 0)
        };
        assert!(without(&[Emotion::Angry]).is_none());
        assert!(without(&[Emotion::Fear]).is_some(), "it is not in the first one");
        assert!(without(&[Emotion::Calm]).is_some());
        assert!(without(&[Emotion::Neutral, Emotion::Calm]).is_none());
    }
}
