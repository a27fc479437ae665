//! Figures of one set of judged clips. Pure; the definitions are those of training's own.
//!
//! **UA** is unweighted average recall, that is balanced accuracy, over the emotions that occur in the
//! truth; **WA** plain accuracy; **macro-F1** the mean F1 over the emotions that occur in the truth;
//! **NLL** the mean negative log-probability of the truth, in nats; **ECE** the expected calibration
//! error of the top emotion over bins of equal width. Every figure of no clips is `None`.

#![allow(
    clippy::indexing_slicing,
    reason = "arrays of fixed size, indexed by emotions and bins that are bounded by it"
)]

use serde::Serialize;

use super::hear::{LEAST, Probabilities, top};
use super::random::Random;
use crate::emotion::{EMOTIONS, Emotion};

/// Bins of the calibration error and of the reliability curve.
pub const CALIBRATION_BINS: usize = 15;
/// Points of a curve that is written out.
const CURVE_POINTS: usize = 100;

/// One clip, judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// What was acted.
    pub truth: Emotion,
    /// What the model says.
    pub probabilities: Probabilities,
    /// Whether the model has the true emotion among its labels at all.
    pub known: bool,
}

impl Case {
    fn guess(&self) -> Emotion {
        top(&self.probabilities).0
    }

    fn confidence(&self) -> f64 {
        top(&self.probabilities).1
    }

    /// Whether the top emotion is the true one.
    pub fn is_right(&self) -> bool {
        self.guess() == self.truth
    }
}

/// Counts by truth (rows) and guess (columns), in the order of [`Emotion::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Confusion(pub [[u64; EMOTIONS]; EMOTIONS]);

impl Confusion {
    /// Of `cases`.
    pub fn of(cases: &[Case]) -> Self {
        let mut counts = Self::default();
        for case in cases {
            counts.0[case.truth.index()][case.guess().index()] += 1;
        }
        counts
    }

    fn row(&self, truth: usize) -> u64 {
        self.0[truth].iter().sum()
    }

    fn column(&self, guess: usize) -> u64 {
        self.0.iter().map(|row| row[guess]).sum()
    }

    /// Recall of an emotion; `None` if it does not occur.
    pub fn recall(&self, emotion: Emotion) -> Option<f64> {
        let index = emotion.index();
        let all = self.row(index);
        (all > 0).then(|| self.0[index][index] as f64 / all as f64)
    }

    /// UA.
    pub fn ua(&self) -> Option<f64> {
        mean(Emotion::ALL.into_iter().filter_map(|emotion| self.recall(emotion)))
    }

    /// WA.
    pub fn wa(&self) -> Option<f64> {
        let all: u64 = (0..EMOTIONS).map(|truth| self.row(truth)).sum();
        let hits: u64 = (0..EMOTIONS).map(|truth| self.0[truth][truth]).sum();
        (all > 0).then(|| hits as f64 / all as f64)
    }

    /// Macro-F1.
    pub fn macro_f1(&self) -> Option<f64> {
        mean((0..EMOTIONS).filter(|k| self.row(*k) > 0).map(|k| {
            // The row is not empty, so neither is the sum.
            2.0 * self.0[k][k] as f64 / (self.row(k) + self.column(k)) as f64
        }))
    }
}

/// The mean, of anything at all.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0), |(sum, n), x| (sum + x, n + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// The standard deviation of a sample (n - 1); of fewer than two values there is none.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let centre = mean(values.iter().copied())?;
    let squares: f64 = values.iter().map(|x| (x - centre).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// NLL over the clips whose emotion the model has among its labels; of the others it would be infinite.
pub fn nll(cases: &[Case]) -> Option<f64> {
    let known = cases.iter().filter(|case| case.known);
    mean(known.map(|case| -case.probabilities[case.truth.index()].max(LEAST).ln()))
}

/// One bin of confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CalibrationBin {
    /// Least confidence of the bin.
    pub from: f64,
    /// Its upper end.
    pub to: f64,
    /// Clips in it.
    pub clips: usize,
    /// Their mean confidence.
    pub confidence: Option<f64>,
    /// The share of them whose top emotion is right.
    pub accuracy: Option<f64>,
}

/// The reliability curve.
pub fn calibration(cases: &[Case]) -> Vec<CalibrationBin> {
    let mut sums = [(0_usize, 0.0, 0_usize); CALIBRATION_BINS];
    for case in cases {
        let confidence = case.confidence();
        let bin = ((confidence * CALIBRATION_BINS as f64) as usize).min(CALIBRATION_BINS - 1);
        let (clips, sum, right) = &mut sums[bin];
        *clips += 1;
        *sum += confidence;
        *right += usize::from(case.is_right());
    }
    let edge = |bin: usize| bin as f64 / CALIBRATION_BINS as f64;
    let share = |sum: f64, clips: usize| (clips > 0).then(|| sum / clips as f64);
    sums.iter()
        .enumerate()
        .map(|(bin, (clips, sum, right))| CalibrationBin {
            from: edge(bin),
            to: edge(bin + 1),
            clips: *clips,
            confidence: share(*sum, *clips),
            accuracy: share(*right as f64, *clips),
        })
        .collect()
}

/// ECE.
pub fn calibration_error(cases: &[Case]) -> Option<f64> {
    let weighted = calibration(cases)
        .into_iter()
        .filter_map(|bin| Some(bin.clips as f64 * (bin.confidence? - bin.accuracy?).abs()));
    (!cases.is_empty()).then(|| weighted.sum::<f64>() / cases.len() as f64)
}

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Across.
    pub x: f64,
    /// Up.
    pub y: f64,
}

/// Of a curve at most [`CURVE_POINTS`] points, evenly spread, the first and the last among them.
fn thin(points: &[Point]) -> Vec<Point> {
    if points.len() <= CURVE_POINTS {
        return points.to_vec();
    }
    (0..CURVE_POINTS).map(|k| points[k * (points.len() - 1) / (CURVE_POINTS - 1)]).collect()
}

/// Accuracy (y) against coverage (x) when the least confident clips are left out, and the area under it.
/// Clips of equal confidence go together.
pub fn coverage(cases: &[Case]) -> Option<(Vec<Point>, f64)> {
    let mut ranked: Vec<(f64, bool)> =
        cases.iter().map(|case| (case.confidence(), case.is_right())).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut points = Vec::new();
    let mut right = 0;
    for (index, (confidence, is_right)) in ranked.iter().enumerate() {
        right += usize::from(*is_right);
        let covered = index + 1;
        if ranked.get(covered).is_none_or(|(next, _)| next < confidence) {
            let x = covered as f64 / ranked.len() as f64;
            points.push(Point { x, y: right as f64 / covered as f64 });
        }
    }
    // Each point stands for the clips that it adds.
    let area = points
        .iter()
        .fold((0.0, 0.0), |(area, before), point| (area + (point.x - before) * point.y, point.x));
    (!points.is_empty()).then(|| (thin(&points), area.0))
}

/// The ROC (x: false alarms among the negatives, y: hits among the positives) of scores with whether
/// each is a positive, and the area under it; equal scores go together. `None` without both kinds.
pub fn roc(scores: &[(f64, bool)]) -> Option<(Vec<Point>, f64)> {
    let positives = scores.iter().filter(|(_, positive)| *positive).count();
    let negatives = scores.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut ranked = scores.to_vec();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut points = vec![Point { x: 0.0, y: 0.0 }];
    let (mut hits, mut alarms) = (0, 0);
    for (index, (score, positive)) in ranked.iter().enumerate() {
        hits += usize::from(*positive);
        alarms += usize::from(!positive);
        if ranked.get(index + 1).is_none_or(|(next, _)| next < score) {
            let x = alarms as f64 / negatives as f64;
            points.push(Point { x, y: hits as f64 / positives as f64 });
        }
    }
    let area =
        points.windows(2).map(|pair| (pair[1].x - pair[0].x) * (pair[1].y + pair[0].y) / 2.0);
    let area = area.sum();
    Some((thin(&points), area))
}

/// Hits and clips by emotion: all that a UA needs of one speaker.
pub type Tally = [(u64, u64); EMOTIONS];

/// UA of the sum of tallies.
pub fn ua_of<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Option<f64> {
    let mut sum: Tally = Default::default();
    for tally in tallies {
        for ((hits, clips), (more_hits, more_clips)) in sum.iter_mut().zip(tally) {
            *hits += more_hits;
            *clips += more_clips;
        }
    }
    mean(sum.iter().filter(|(_, clips)| *clips > 0).map(|(hits, n)| *hits as f64 / *n as f64))
}

/// The tally of some cases.
pub fn tally(cases: &[Case]) -> Tally {
    let mut tally = Tally::default();
    for case in cases {
        let (hits, clips) = &mut tally[case.truth.index()];
        *clips += 1;
        *hits += u64::from(case.is_right());
    }
    tally
}

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The 95 % interval of UA by the percentile bootstrap over speakers (Efron and Tibshirani 1993, ch. 13):
/// clips of one speaker go together, since they are not independent. `speakers` has a tally per seed for
/// each speaker; a resample's UA is the mean over the seeds. `None` without speakers.
pub(crate) fn bootstrap(
    speakers: &[Vec<Tally>],
    resamples: usize,
    mut random: Random,
) -> Option<Interval> {
    let seeds = speakers.iter().map(Vec::len).max().filter(|seeds| *seeds > 0)?;
    let mut values: Vec<f64> = (0..resamples)
        .filter_map(|_| {
            let drawn: Vec<usize> = speakers.iter().map(|_| random.below(speakers.len())).collect();
            mean((0..seeds).filter_map(|seed| {
                ua_of(drawn.iter().filter_map(|speaker| speakers[*speaker].get(seed)))
            }))
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let quantile =
        |q: f64| values.get((q * (values.len().saturating_sub(1)) as f64).round() as usize);
    Some(Interval { low: *quantile(0.025)?, high: *quantile(0.975)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Emotion::{Angry, Calm, Happy, Neutral, Sad};

    /// A case whose model gives `guess` the probability `p` and shares the rest out.
    fn case(truth: Emotion, guess: Emotion, p: f64) -> Case {
        let mut probabilities = [(1.0 - p) / 7.0; EMOTIONS];
        probabilities[guess.index()] = p;
        Case { truth, probabilities, known: true }
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        // Neutral: 3 of 4 right, one taken for sad; sad: 1 of 2 right, one taken for angry, which does
        // not occur.
        let cases = [
            case(Neutral, Neutral, 0.9),
            case(Neutral, Neutral, 0.9),
            case(Neutral, Neutral, 0.5),
            case(Neutral, Sad, 0.5),
            case(Sad, Sad, 0.9),
            case(Sad, Angry, 0.9),
        ];
        let counts = Confusion::of(&cases);
        let near = |value: Option<f64>, expected: f64| {
            assert!((value.unwrap() - expected).abs() < 1e-12, "{value:?}, not {expected}");
        };
        near(counts.recall(Neutral), 0.75);
        assert_eq!(counts.recall(Angry), None);
        near(counts.ua(), 0.625);
        near(counts.wa(), 4.0 / 6.0);
        // F1: neutral 2*3/(4+3), sad 2*1/(2+2).
        near(counts.macro_f1(), 3.0 / 7.0 + 0.25);
        let wrong: f64 = -(0.5_f64 / 7.0).ln() - (0.1_f64 / 7.0).ln();
        near(nll(&cases), (wrong - 3.0 * 0.9_f64.ln() - 0.5_f64.ln()) / 6.0);
        // Bins: four at 0.9 with 3 right, two at 0.5 with 1 right.
        near(calibration_error(&cases), (4.0 * 0.15 + 2.0 * 0.0) / 6.0);
        let (points, area) = coverage(&cases).unwrap();
        assert_eq!(points.len(), 2);
        near(Some(points[0].y), 0.75);
        near(Some(points[1].y), 4.0 / 6.0);
        near(Some(area), 4.0 / 6.0 * 0.75 + 2.0 / 6.0 * 4.0 / 6.0);
    }

    #[test]
    fn a_perfect_predictor_gets_one_and_a_constant_one_gets_chance() {
        let perfect: Vec<Case> = Emotion::ALL.into_iter().map(|e| case(e, e, 1.0)).collect();
        let counts = Confusion::of(&perfect);
        assert_eq!(
            (counts.ua(), counts.wa(), counts.macro_f1()),
            (Some(1.0), Some(1.0), Some(1.0))
        );
        assert_eq!((nll(&perfect), calibration_error(&perfect)), (Some(0.0), Some(0.0)));
        let constant: Vec<Case> =
            (0..90).map(|k| case(if k < 80 { Neutral } else { Happy }, Neutral, 0.6)).collect();
        let counts = Confusion::of(&constant);
        assert_eq!(counts.ua(), Some(0.5), "balance does not help a constant");
        assert_eq!(counts.wa(), Some(80.0 / 90.0));
    }

    #[test]
    fn a_calibrated_predictor_has_a_small_calibration_error() {
        let mut random = Random::of(&["calibrated"]);
        let cases: Vec<Case> = (0..20_000)
            .map(|_| {
                let p = 0.2 + 0.75 * random.unit();
                let truth = if random.unit() < p { Sad } else { Calm };
                case(truth, Sad, p)
            })
            .collect();
        let error = calibration_error(&cases).unwrap();
        assert!(error < 0.02, "{error}");
        let boastful: Vec<Case> = cases.iter().map(|c| case(c.truth, Sad, 0.99)).collect();
        assert!(calibration_error(&boastful).unwrap() > 0.3);
    }

    #[test]
    fn the_order_of_clips_does_not_matter() {
        let mut random = Random::of(&["order"]);
        let pick = |random: &mut Random| Emotion::ALL[random.below(EMOTIONS)];
        let mut cases: Vec<Case> = (0..300)
            .map(|_| {
                let (truth, guess) = (pick(&mut random), pick(&mut random));
                case(truth, guess, 0.2 + 0.1 * random.below(8) as f64)
            })
            .collect();
        let figures = |cases: &[Case]| {
            let counts = Confusion::of(cases);
            let scores: Vec<(f64, bool)> =
                cases.iter().map(|c| (c.probabilities[3], c.truth == Sad)).collect();
            [
                counts.ua(),
                counts.macro_f1(),
                nll(cases),
                calibration_error(cases),
                coverage(cases).map(|c| c.1),
                roc(&scores).map(|c| c.1),
            ]
            .map(|value| (value.unwrap() * 1e9).round())
        };
        let before = figures(&cases);
        for k in (1..cases.len()).rev() {
            cases.swap(k, random.below(k + 1));
        }
        assert_eq!(figures(&cases), before);
    }

    #[test]
    fn an_emotion_that_the_model_does_not_know_is_wrong_but_not_infinitely_so() {
        let mut stranger = case(Calm, Neutral, 0.9);
        stranger.known = false;
        let cases = [case(Sad, Sad, 0.5), stranger];
        assert_eq!(nll(&cases), Some(-(0.5_f64.ln())));
        assert_eq!(Confusion::of(&cases).ua(), Some(0.5));
        assert_eq!(nll(&[stranger]), None);
    }

    #[test]
    fn the_area_under_the_roc_is_the_chance_that_a_positive_is_above_a_negative() {
        let scores = [(0.9, true), (0.8, false), (0.7, true), (0.7, false), (0.1, false)];
        // Pairs: 0.9 beats all three; 0.7 loses to 0.8, ties with 0.7, beats 0.1.
        let (points, area) = roc(&scores).unwrap();
        assert!((area - (3.0 + 0.0 + 0.5 + 1.0) / 6.0).abs() < 1e-12, "{area}");
        assert_eq!(points.first(), Some(&Point { x: 0.0, y: 0.0 }));
        assert_eq!(points.last(), Some(&Point { x: 1.0, y: 1.0 }));
        assert!(roc(&[(0.5, true)]).is_none());
        let ties: Vec<(f64, bool)> = (0..10).map(|k| (0.5, k < 3)).collect();
        assert_eq!(roc(&ties).unwrap().1, 0.5);
    }

    #[test]
    fn long_curves_keep_their_ends() {
        let scores: Vec<(f64, bool)> = (0..1_000).map(|k| (f64::from(k), k % 3 == 0)).collect();
        let (points, _) = roc(&scores).unwrap();
        assert_eq!(points.len(), CURVE_POINTS);
        assert_eq!(points.last(), Some(&Point { x: 1.0, y: 1.0 }));
    }

    #[test]
    fn deviations_are_those_of_a_sample() {
        assert_eq!(deviation(&[1.0, 3.0]), Some(2.0_f64.sqrt()));
        assert_eq!(deviation(&[1.0]), None);
        assert_eq!(mean([]), None);
    }

    #[test]
    fn the_bootstrap_is_wider_when_speakers_differ_than_when_they_do_not() {
        let tally_of = |hits: u64| {
            let mut tally = Tally::default();
            tally[0] = (hits, 10);
            tally[1] = (hits, 10);
            vec![tally]
        };
        let alike: Vec<_> = (0..20).map(|_| tally_of(5)).collect();
        let unlike: Vec<_> = (0..20).map(|k| tally_of(if k % 2 == 0 { 2 } else { 8 })).collect();
        let interval = |speakers: &[Vec<Tally>]| {
            bootstrap(speakers, 1_000, Random::of(&["bootstrap"])).unwrap()
        };
        assert_eq!(interval(&alike), Interval { low: 0.5, high: 0.5 });
        let wide = interval(&unlike);
        // 20 speakers at 0.2 or 0.8: the standard error is 0.3 / sqrt(20) = 0.067.
        assert!((0.34..0.40).contains(&wide.low), "{wide:?}");
        assert!((0.60..0.66).contains(&wide.high), "{wide:?}");
        assert_eq!(interval(&unlike), wide, "seeded");
        assert_eq!(bootstrap(&[], 10, Random::of(&[])), None);
    }
}
