//! The course of a session: what was heard over its last minutes, in few enough points for a model to read, and what
//! can be said of them.
//!
//! In: estimates, at most one a second and channel, and the newest. Out: one course per channel. Pure.
//!
//! What always holds: estimates that abstain are counted and go into no mean; no more points come out than asked for;
//! of too few estimates no trend is told.

use schemars::JsonSchema;
use serde::Serialize;

use super::view::{Estimate, Likelihood, rounded};

/// Estimates, not counting those that abstain, under which nothing is said of a trend.
const MIN_ESTIMATES: usize = 6;
/// Time that they must cover for it, seconds.
const MIN_SPAN_S: f64 = 10.0;
/// Change of a mean over its whole range that counts as one: of distress 0.1, of valence and arousal 0.2. Half an hour
/// of neutral speech moves by less from third to third.
const MIN_CHANGE: f64 = 0.1;

/// Where a number goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    /// The last third's mean is above the first third's by a tenth of the range or more.
    Rising,
    /// It is below by as much.
    Falling,
    /// Neither.
    Steady,
    /// Too few estimates, or too short a time, to say.
    Unknown,
}

/// How one number went. Estimates that abstain are left out.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Trend {
    /// Where it goes.
    pub(super) direction: Direction,
    /// Its mean.
    pub(super) mean: f64,
    /// Its lowest value.
    pub(super) lowest: f64,
    /// Its highest value.
    pub(super) highest: f64,
    /// When it was highest, seconds since the first sample.
    pub(super) highest_at_s: f64,
    /// Its mean over the first third of the estimates.
    pub(super) at_first: f64,
    /// Its mean over the last third of the estimates.
    pub(super) at_last: f64,
}

/// A stretch of the course. Means are over the estimates that do not abstain; null if all do.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Point {
    /// The first estimate's end, seconds since the first sample.
    pub(super) from_s: f64,
    /// The last estimate's end, seconds since the first sample.
    pub(super) to_s: f64,
    /// Estimates in it.
    pub(super) estimates: usize,
    /// Those of them that abstain.
    pub(super) abstaining: usize,
    /// Mean distress, 0 to 1.
    pub(super) distress: Option<f64>,
    /// Mean valence, -1 to 1.
    pub(super) valence: Option<f64>,
    /// Mean arousal, -1 to 1.
    pub(super) arousal: Option<f64>,
    /// The emotion with the highest mean probability, and that.
    pub(super) most_probable: Option<Likelihood>,
}

/// The course of one channel.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Course {
    /// The audio channel, 0-based.
    pub(super) channel: u32,
    /// The first estimate's end, seconds since the first sample.
    pub(super) from_s: f64,
    /// The last estimate's end, seconds since the first sample.
    pub(super) to_s: f64,
    /// Estimates looked at: one a second at most, and the newest.
    pub(super) estimates: usize,
    /// Those of them that abstain.
    pub(super) abstaining: usize,
    /// Mean probability of each emotion over those that do not abstain, most probable first.
    pub(super) emotions: Vec<Likelihood>,
    /// Distress, 0 to 1; null if all estimates abstain.
    pub(super) distress: Option<Trend>,
    /// Valence, -1 to 1; null if all estimates abstain.
    pub(super) valence: Option<Trend>,
    /// Arousal, -1 to 1; null if all estimates abstain.
    pub(super) arousal: Option<Trend>,
    /// The course, in stretches of about equal length.
    pub(super) points: Vec<Point>,
}

/// The courses of all channels, with `max_points` in all of them together (but one each at least).
pub(super) fn courses(estimates: &[Estimate], max_points: usize) -> Vec<Course> {
    let mut channels: Vec<u32> = estimates.iter().map(|estimate| estimate.channel).collect();
    channels.sort_unstable();
    channels.dedup();
    let share = (max_points / channels.len().max(1)).max(1);
    let of = |channel| {
        let own: Vec<&Estimate> = estimates.iter().filter(|e| e.channel == channel).collect();
        course(channel, &own, share)
    };
    channels.into_iter().map(of).collect()
}

fn course(channel: u32, estimates: &[&Estimate], max_points: usize) -> Course {
    let usable: Vec<&Estimate> = usable(estimates);
    Course {
        channel,
        from_s: estimates.first().map_or(0.0, |estimate| estimate.to_s),
        to_s: estimates.last().map_or(0.0, |estimate| estimate.to_s),
        estimates: estimates.len(),
        abstaining: estimates.len() - usable.len(),
        emotions: mean_emotions(&usable),
        distress: trend(&usable, |estimate| estimate.sounds.distress, MIN_CHANGE),
        valence: trend(&usable, |estimate| estimate.sounds.valence, 2.0 * MIN_CHANGE),
        arousal: trend(&usable, |estimate| estimate.sounds.arousal, 2.0 * MIN_CHANGE),
        points: points(estimates, max_points),
    }
}

fn usable<'a>(estimates: &[&'a Estimate]) -> Vec<&'a Estimate> {
    estimates.iter().copied().filter(|estimate| !estimate.sounds.abstains).collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn mean_of(estimates: &[&Estimate], of: impl Fn(&Estimate) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = estimates.iter().filter_map(|estimate| of(estimate)).collect();
    mean(&values).map(rounded)
}

fn mean_emotions(estimates: &[&Estimate]) -> Vec<Likelihood> {
    let mut sums: Vec<Likelihood> = Vec::new();
    for likely in estimates.iter().flat_map(|estimate| &estimate.sounds.emotions) {
        match sums.iter_mut().find(|sum| sum.emotion == likely.emotion) {
            Some(sum) => sum.probability += likely.probability,
            None => sums.push(likely.clone()),
        }
    }
    for sum in &mut sums {
        sum.probability = rounded(sum.probability / estimates.len() as f64);
    }
    sums.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    sums
}

fn trend(
    estimates: &[&Estimate],
    of: impl Fn(&Estimate) -> Option<f64>,
    min_change: f64,
) -> Option<Trend> {
    let values: Vec<(f64, f64)> =
        estimates.iter().filter_map(|estimate| Some((estimate.to_s, of(estimate)?))).collect();
    let only = |values: &[(f64, f64)]| values.iter().map(|(_, value)| *value).collect::<Vec<_>>();
    let third = (values.len() / 3).max(1);
    let (first_s, _) = values.first()?;
    let (last_s, _) = values.last()?;
    let at_first = mean(&only(values.get(..third)?))?;
    let at_last = mean(&only(values.get(values.len() - third..)?))?;
    let lowest = values.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let (highest_at_s, highest) = *values.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let direction = if values.len() < MIN_ESTIMATES || last_s - first_s < MIN_SPAN_S {
        Direction::Unknown
    } else if at_last - at_first >= min_change {
        Direction::Rising
    } else if at_first - at_last >= min_change {
        Direction::Falling
    } else {
        Direction::Steady
    };
    Some(Trend {
        direction,
        mean: rounded(mean(&only(&values))?),
        lowest: rounded(lowest),
        highest: rounded(highest),
        highest_at_s,
        at_first: rounded(at_first),
        at_last: rounded(at_last),
    })
}

/// Stretches of equal length, of which those without estimates are left out.
fn points(estimates: &[&Estimate], max_points: usize) -> Vec<Point> {
    let (Some(first), Some(last)) = (estimates.first(), estimates.last()) else {
        return Vec::new();
    };
    let length = (last.to_s - first.to_s) / max_points as f64;
    let stretch = |estimate: &&&Estimate| {
        let at = if length > 0.0 { (estimate.to_s - first.to_s) / length } else { 0.0 };
        (at as usize).min(max_points - 1)
    };
    let chunks = estimates.chunk_by(|a, b| stretch(&a) == stretch(&b));
    chunks.filter_map(point).collect()
}

fn point(estimates: &[&Estimate]) -> Option<Point> {
    let usable = usable(estimates);
    Some(Point {
        from_s: estimates.first()?.to_s,
        to_s: estimates.last()?.to_s,
        estimates: estimates.len(),
        abstaining: estimates.len() - usable.len(),
        distress: mean_of(&usable, |estimate| estimate.sounds.distress),
        valence: mean_of(&usable, |estimate| estimate.sounds.valence),
        arousal: mean_of(&usable, |estimate| estimate.sounds.arousal),
        most_probable: mean_emotions(&usable).into_iter().next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;

    fn estimate(channel: u32, second: i64, distress: f32, abstains: bool) -> Estimate {
        let sad = v1::EmotionScore { emotion: v1::Emotion::Sad.into(), probability: distress };
        let rest =
            v1::EmotionScore { emotion: v1::Emotion::Neutral.into(), probability: 1.0 - distress };
        let affect = v1::Affect {
            scores: vec![sad, rest],
            distress,
            valence: -distress,
            ..v1::Affect::default()
        };
        Estimate::from(&v1::Estimate {
            channel,
            end: Some(prost_types::Duration { seconds: second, nanos: 0 }),
            affect: Some(affect),
            abstains,
            abstain_reason: if abstains { 2 } else { 0 },
            ..v1::Estimate::default()
        })
    }

    fn only(estimates: &[Estimate], max_points: usize) -> Course {
        let mut courses = courses(estimates, max_points);
        assert_eq!(courses.len(), 1);
        courses.remove(0)
    }

    #[test]
    fn a_number_that_goes_up_by_a_tenth_of_its_range_rises() {
        let rising: Vec<Estimate> =
            (0..60).map(|s| estimate(0, s, 0.2 + s as f32 * 0.006, false)).collect();
        let course = only(&rising, 10);
        let distress = course.distress.unwrap();
        assert_eq!(distress.direction, Direction::Rising);
        assert_eq!((distress.lowest, distress.highest_at_s), (0.2, 59.0));
        assert!((distress.at_last - distress.at_first - 0.24).abs() < 0.002, "{distress:?}");
        // Valence has twice the range.
        assert_eq!(course.valence.unwrap().direction, Direction::Falling);
        let steady: Vec<Estimate> =
            (0..60).map(|s| estimate(0, s, 0.2 + s as f32 * 0.001, false)).collect();
        assert_eq!(only(&steady, 10).distress.unwrap().direction, Direction::Steady);
    }

    #[test]
    fn of_too_little_no_trend_is_told() {
        let few: Vec<Estimate> =
            (0..5).map(|s| estimate(0, s * 10, s as f32 / 5.0, false)).collect();
        assert_eq!(only(&few, 10).distress.unwrap().direction, Direction::Unknown);
        let short: Vec<Estimate> = (0..9).map(|s| estimate(0, s, s as f32 / 9.0, false)).collect();
        assert_eq!(only(&short, 10).distress.unwrap().direction, Direction::Unknown);
    }

    #[test]
    fn estimates_that_abstain_are_counted_and_go_into_no_mean() {
        let mut all: Vec<Estimate> = (0..20).map(|s| estimate(0, s, 0.25, false)).collect();
        all.extend((20..40).map(|s| estimate(0, s, 1.0, true)));
        let course = only(&all, 4);
        assert_eq!((course.estimates, course.abstaining), (40, 20));
        assert_eq!(course.distress.unwrap().highest, 0.25);
        assert_eq!(course.emotions[0].emotion, "neutral");
        let last = course.points.last().unwrap();
        assert!(last.distress.is_none() && last.most_probable.is_none() && last.abstaining > 0);
        let silent: Vec<Estimate> = (0..3).map(|s| estimate(0, s, 1.0, true)).collect();
        assert!(only(&silent, 4).distress.is_none());
    }

    #[test]
    fn no_more_points_come_out_than_asked_for_and_none_is_lost() {
        for (count, max_points) in [(0, 5), (1, 5), (2, 1), (7, 7), (300, 30), (301, 2), (50, 500)]
        {
            let all: Vec<Estimate> = (0..count).map(|s| estimate(0, s, 0.5, false)).collect();
            for course in courses(&all, max_points) {
                assert!(course.points.len() <= max_points, "{count} {max_points}");
                let sum: usize = course.points.iter().map(|point| point.estimates).sum();
                assert_eq!(sum, all.len());
            }
        }
        let two: Vec<Estimate> = (0..100).map(|s| estimate(s as u32 % 2, s, 0.5, false)).collect();
        let courses = courses(&two, 10);
        assert_eq!(courses.iter().map(|course| course.channel).collect::<Vec<_>>(), [0, 1]);
        assert!(courses.iter().all(|course| course.points.len() == 5));
    }
}
