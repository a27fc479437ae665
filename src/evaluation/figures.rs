//! Verdicts into figures: per corpus, by fold and seed, under every condition.
//!
//! In: a [`Plan`] and its verdicts. Out: the [`Part`]s of an evaluation, which `compose` puts together.
//! Figures over fold runs and over random runs never
//! mix. Scalars are means over seeds of means over folds; curves and matrices are over the clips of all
//! runs together, so with several seeds each clip counts once per seed.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::Condition;
use super::hear::{Probabilities, distress};
use super::judge::{Plan, Verdict};
use super::metrics::{
    Case, Confusion, Interval, Tally, bootstrap, calibration, calibration_error, coverage,
    deviation, mean, nll, roc, tally, ua_of,
};
use super::outcome::{
    Abstention, COURSE_S, ConditionFigures, CoursePoint, Detection, Distress, Figures, Labelled,
    Material, Part, RandomFigures, RandomSplit, SexFigures, Summary, Training, WorstFold,
};
use super::random::Random;
use crate::corpus::{Clip, Corpus, Sound};
use crate::emotion::Emotion;

/// Resamples of the bootstrap.
pub const RESAMPLES: usize = 2_000;
/// Speakers under which a bootstrap over them says nothing.
pub(super) const FEWEST_SPEAKERS: usize = 5;
/// Emotions of which a carer would want to know.
const DISTRESS: [Emotion; 4] = [Emotion::Angry, Emotion::Fear, Emotion::Sad, Emotion::Disgust];
/// What the corpora call their highest intensity.
const HIGH_INTENSITY: [&str; 2] = ["strong", "high"];

const RANDOM_NOTE: &str = "A random split flatters: the same speakers, and in TESS even the same \
     words, are on both sides, so the model is asked about voices that it knows.";

/// Among which labels the model chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Open,
    Own,
}

/// One run's verdicts on some clips.
struct Cell<'a> {
    seed: Option<u64>,
    fold: Option<u8>,
    verdicts: Vec<&'a Verdict>,
}

/// Which value of a figure is bad.
#[derive(Debug, Clone, Copy)]
enum Worst {
    Least,
    Greatest,
}

fn summarise(
    cells: &[Cell<'_>],
    worst: Worst,
    metric: impl Fn(&[&Verdict]) -> Option<f64>,
) -> Option<Summary> {
    /// Seed, fold, value.
    type Value = (Option<u64>, Option<u8>, f64);
    let values: Vec<Value> = cells
        .iter()
        .filter_map(|cell| Some((cell.seed, cell.fold, metric(&cell.verdicts)?)))
        .collect();
    let means = |key: fn(&Value) -> Option<u64>| {
        let keys: BTreeSet<Option<u64>> = values.iter().map(key).collect();
        let of = |wanted| values.iter().filter(move |v| key(v) == wanted).map(|v| v.2);
        keys.into_iter().filter_map(|k| Some((k, mean(of(k))?))).collect::<Vec<_>>()
    };
    let by_seed = means(|value| value.0);
    let by_fold = means(|value| value.1.map(u64::from));
    let spread = |of: &[(Option<u64>, f64)]| {
        deviation(&of.iter().map(|(_, value)| *value).collect::<Vec<_>>())
    };
    let by_fold_only: BTreeMap<u8, f64> =
        by_fold.iter().filter_map(|(fold, value)| Some(((*fold)? as u8, *value))).collect();
    let extreme = by_fold_only.iter().max_by(|a, b| match worst {
        Worst::Least => b.1.total_cmp(a.1),
        Worst::Greatest => a.1.total_cmp(b.1),
    });
    Some(Summary {
        mean: mean(by_seed.iter().map(|(_, value)| *value))?,
        spread_over_folds: spread(&by_fold),
        spread_over_seeds: spread(&by_seed),
        worst_fold: extreme
            .filter(|_| by_fold_only.len() > 1)
            .map(|(fold, value)| WorstFold { fold: *fold, value: *value }),
        by_seed: by_seed.into_iter().filter_map(|(seed, value)| Some((seed?, value))).collect(),
        by_fold: by_fold_only,
    })
}

/// Looks verdicts up and reads them.
pub(super) struct Book<'a> {
    plan: &'a Plan,
    verdicts: &'a [Verdict],
    /// Corpora that say how intense a clip is.
    with_intensity: BTreeSet<Corpus>,
}

impl<'a> Book<'a> {
    /// The book of `plan`'s verdicts.
    pub(super) fn of(plan: &'a Plan, verdicts: &'a [Verdict]) -> Self {
        let with_intensity = plan
            .clips
            .iter()
            .filter(|clip| HIGH_INTENSITY.contains(&clip.intensity.as_str()))
            .map(|clip| clip.corpus)
            .collect();
        Self { plan, verdicts, with_intensity }
    }

    fn clip(&self, verdict: &Verdict) -> Option<&'a Clip> {
        self.plan.clips.get(verdict.clip)
    }

    /// The verdicts of fold runs (or of the one model), or those of random runs, run by run.
    fn cells(&self, random: bool, corpus: Option<Corpus>, condition: Condition) -> Vec<Cell<'a>> {
        let mut cells = Vec::new();
        for (index, (run, _)) in self.plan.runs.iter().enumerate() {
            if run.is_random() != random {
                continue;
            }
            let verdicts: Vec<&Verdict> = self
                .verdicts
                .iter()
                .filter(|verdict| verdict.run == index && verdict.condition == condition)
                .filter(|verdict| {
                    corpus.is_none_or(|c| self.clip(verdict).is_some_and(|clip| clip.corpus == c))
                })
                .collect();
            if !verdicts.is_empty() {
                cells.push(Cell { seed: run.seed, fold: run.fold(), verdicts });
            }
        }
        cells
    }

    fn probabilities(&self, clip: &Clip, open: &Probabilities, view: View) -> Probabilities {
        let Some(labels) = self.plan.labels.get(&clip.corpus).filter(|_| view == View::Own) else {
            return *open;
        };
        let mut own = *open;
        for (emotion, p) in Emotion::ALL.into_iter().zip(&mut own) {
            if !labels.contains(&emotion) {
                *p = 0.0;
            }
        }
        let sum: f64 = own.iter().sum();
        if sum > 0.0 {
            own.iter_mut().for_each(|p| *p /= sum);
        }
        own
    }

    fn case(&self, verdict: &Verdict, open: &Probabilities, view: View) -> Option<Case> {
        let clip = self.clip(verdict)?;
        let (_, model) = self.plan.runs.get(verdict.run)?;
        Some(Case {
            truth: clip.emotion,
            probabilities: self.probabilities(clip, open, view),
            known: model.manifest.labels().contains(&clip.emotion),
        })
    }

    fn cases(&self, verdicts: &[&Verdict], view: View) -> Vec<Case> {
        verdicts
            .iter()
            .filter_map(|verdict| self.case(verdict, &verdict.heard.last().probabilities, view))
            .collect()
    }

    fn confusion(&self, verdicts: &[&Verdict], view: View) -> Confusion {
        Confusion::of(&self.cases(verdicts, view))
    }

    fn figures(&self, cells: &[Cell<'_>], view: View) -> Figures {
        let low = |metric: &dyn Fn(&Confusion) -> Option<f64>| {
            summarise(cells, Worst::Least, |v| metric(&self.confusion(v, view)))
        };
        Figures {
            ua: low(&Confusion::ua),
            wa: low(&Confusion::wa),
            macro_f1: low(&Confusion::macro_f1),
            nll: summarise(cells, Worst::Greatest, |v| nll(&self.cases(v, view))),
            ece: summarise(cells, Worst::Greatest, |v| calibration_error(&self.cases(v, view))),
            ece_together: summarise(&by_seed(cells), Worst::Greatest, |v| {
                calibration_error(&self.cases(v, view))
            }),
            ua_interval: self.interval(cells, view),
        }
    }

    fn interval(&self, cells: &[Cell<'_>], view: View) -> Option<Interval> {
        let seeds: BTreeSet<Option<u64>> = cells.iter().map(|cell| cell.seed).collect();
        let mut speakers: BTreeMap<&str, Vec<Tally>> = BTreeMap::new();
        for (place, seed) in seeds.iter().enumerate() {
            let mut of_seed: BTreeMap<&str, Vec<&Verdict>> = BTreeMap::new();
            for cell in cells.iter().filter(|cell| cell.seed == *seed) {
                for verdict in &cell.verdicts {
                    if let Some(clip) = self.clip(verdict) {
                        of_seed.entry(&clip.speaker).or_default().push(verdict);
                    }
                }
            }
            for (speaker, verdicts) in of_seed {
                let tallies = speakers.entry(speaker).or_default();
                tallies.resize(place, Tally::default());
                tallies.push(tally(&self.cases(&verdicts, view)));
            }
        }
        if speakers.len() < FEWEST_SPEAKERS {
            return None;
        }
        let speakers: Vec<Vec<Tally>> = speakers.into_values().collect();
        bootstrap(&speakers, RESAMPLES, Random::of(&["bootstrap"]))
    }

    fn course(&self, cells: &[Cell<'_>], last: Option<&Summary>) -> Vec<CoursePoint> {
        let all: Vec<&Verdict> = together(cells);
        COURSE_S
            .into_iter()
            .filter_map(|seconds| {
                let ua = summarise(cells, Worst::Least, |verdicts| {
                    let tallies: Vec<Tally> = verdicts
                        .iter()
                        .filter_map(|verdict| self.tally_after(verdict, seconds))
                        .collect();
                    ua_of(&tallies)
                })?;
                let with = all.iter().filter(|v| v.heard.after(seconds).is_some()).count();
                let share = last.filter(|last| last.mean > 0.0).map(|last| ua.mean / last.mean);
                Some(CoursePoint {
                    seconds,
                    share_of_final: share,
                    clips_with_estimate: with as f64 / all.len().max(1) as f64,
                    ua,
                })
            })
            .collect()
    }

    /// A clip without an estimate by then is wrong: whoever asks gets nothing.
    fn tally_after(&self, verdict: &Verdict, seconds: f64) -> Option<Tally> {
        let Some(moment) = verdict.heard.after(seconds) else {
            let mut tally = Tally::default();
            if let Some((_, clips)) = tally.get_mut(self.clip(verdict)?.emotion.index()) {
                *clips = 1;
            }
            return Some(tally);
        };
        Some(tally(&[self.case(verdict, &moment.probabilities, View::Open)?]))
    }

    fn by_sex(&self, cells: &[Cell<'_>]) -> BTreeMap<&'static str, SexFigures> {
        let mut sexes = BTreeMap::new();
        for (sex, name) in [("F", "female"), ("M", "male")] {
            let cells = narrowed(cells, |v| self.clip(v).is_some_and(|clip| clip.sex == sex));
            if cells.is_empty() {
                continue;
            }
            let figures = SexFigures {
                clips: clips_of(&cells).len(),
                speakers: self.speakers(&cells),
                ua: summarise(&cells, Worst::Least, |v| self.confusion(v, View::Open).ua()),
                ua_interval: self.interval(&cells, View::Open),
            };
            sexes.insert(name, figures);
        }
        sexes
    }

    fn speakers(&self, cells: &[Cell<'_>]) -> usize {
        let clips = clips_of(cells);
        let clips = clips.into_iter().filter_map(|index| self.plan.clips.get(index));
        clips.map(|clip| clip.speaker.as_str()).collect::<BTreeSet<_>>().len()
    }

    fn abstention(&self, cells: &[Cell<'_>]) -> Abstention {
        let all = together(cells);
        let answered: Vec<&Verdict> = all.iter().copied().filter(|v| v.heard.answered).collect();
        let of_answered = self.confusion(&answered, View::Open);
        Abstention {
            curve: coverage(&self.cases(&all, View::Open)).map(|c| c.0).unwrap_or_default(),
            area: summarise(cells, Worst::Least, |v| {
                coverage(&self.cases(v, View::Open)).map(|(_, area)| area)
            }),
            service_coverage: answered.len() as f64 / all.len().max(1) as f64,
            service_accuracy: of_answered.wa(),
            service_ua: of_answered.ua(),
        }
    }

    fn is_positive(&self, clip: &Clip) -> bool {
        let intense = HIGH_INTENSITY.contains(&clip.intensity.as_str())
            || !self.with_intensity.contains(&clip.corpus);
        DISTRESS.contains(&clip.emotion) && intense
    }

    fn distress(&self, cells: &[Cell<'_>]) -> Distress {
        let clips: Vec<&Clip> =
            clips_of(cells).into_iter().filter_map(|index| self.plan.clips.get(index)).collect();
        let detection = |keep: &dyn Fn(&Clip) -> bool| {
            let scores = |verdicts: &[&Verdict]| -> Vec<(f64, bool)> {
                verdicts
                    .iter()
                    .filter_map(|verdict| {
                        let clip = self.clip(verdict).filter(|clip| keep(clip))?;
                        let score = distress(&verdict.heard.last().probabilities);
                        Some((score, self.is_positive(clip)))
                    })
                    .collect()
            };
            Some(Detection {
                negatives: clips.iter().filter(|c| keep(c) && !self.is_positive(c)).count(),
                auc: summarise(cells, Worst::Least, |v| roc(&scores(v)).map(|(_, area)| area))?,
                roc: roc(&scores(&together(cells)))?.0,
            })
        };
        Distress {
            by_intensity: clips.iter().any(|clip| self.with_intensity.contains(&clip.corpus)),
            positives: clips.iter().filter(|clip| self.is_positive(clip)).count(),
            against_rest: detection(&|_| true),
            against_other_emotions: detection(&|clip| {
                self.is_positive(clip) || !DISTRESS.contains(&clip.emotion)
            }),
        }
    }

    fn condition(
        &self,
        corpus: Option<Corpus>,
        clean: &[Cell<'_>],
        condition: Condition,
    ) -> ConditionFigures {
        let cells = self.cells(false, corpus, condition);
        let clips = clips_of(&cells);
        let ua = |cells: &[Cell<'_>], view| {
            summarise(cells, Worst::Least, |v| self.confusion(v, view).ua())
        };
        let clean = narrowed(clean, |verdict| clips.contains(&verdict.clip));
        let (now, before) = (ua(&cells, View::Open), ua(&clean, View::Open));
        let on_rows = |index: &usize| {
            let clip = self.plan.clips.get(*index);
            clip.is_some_and(|clip| matches!(clip.sound, Sound::LogMel(_)))
        };
        ConditionFigures {
            condition: condition.name(),
            approximated: condition != Condition::Clean && clips.iter().any(on_rows),
            ua_change: now
                .as_ref()
                .zip(before.as_ref())
                .map(|(now, before)| now.mean - before.mean),
            own_labels_ua: ua(&cells, View::Own),
            ua: now,
            unheard: unheard(&cells),
        }
    }

    pub(super) fn part(&self, corpus: Option<Corpus>) -> Option<Part> {
        let cells = self.cells(false, corpus, Condition::Clean);
        if cells.is_empty() {
            return None;
        }
        let clips: Vec<&Clip> =
            clips_of(&cells).into_iter().filter_map(|index| self.plan.clips.get(index)).collect();
        let labels: BTreeSet<Emotion> = clips
            .iter()
            .filter_map(|clip| self.plan.labels.get(&clip.corpus))
            .flatten()
            .copied()
            .collect();
        let rows = clips.iter().filter(|clip| matches!(clip.sound, Sound::LogMel(_))).count();
        let all = together(&cells);
        let open = self.figures(&cells, View::Open);
        let unknown: BTreeSet<usize> = all
            .iter()
            .filter(|v| {
                let case = self.case(v, &v.heard.last().probabilities, View::Open);
                case.is_some_and(|case| !case.known)
            })
            .map(|v| v.clip)
            .collect();
        let recall = |emotion: &Emotion| {
            let of = |v: &[&Verdict]| self.confusion(v, View::Open).recall(*emotion);
            Some((emotion.name(), summarise(&cells, Worst::Least, of)?))
        };
        Some(Part {
            corpus: corpus.map_or("pooled", Corpus::name).to_owned(),
            clips: clips.len(),
            speakers: self.speakers(&cells),
            labels: labels.iter().map(|label| label.name()).collect(),
            training: self.training(&clips),
            material: match rows {
                0 => Material::Audio,
                rows if rows == clips.len() => Material::Spectrograms,
                _ => Material::Mixed,
            },
            unheard: unheard(&cells),
            unknown_emotion: unknown.len(),
            recall: labels.iter().filter_map(recall).collect(),
            confusion: Labelled {
                emotions: Emotion::ALL.map(Emotion::name),
                counts: self.confusion(&all, View::Open),
            },
            calibration: calibration(&self.cases(&all, View::Open)),
            course: self.course(&cells, open.ua.as_ref()),
            by_sex: self.by_sex(&cells),
            abstention: self.abstention(&cells),
            distress: self.distress(&cells),
            conditions: self
                .plan
                .conditions
                .iter()
                .map(|condition| self.condition(corpus, &cells, *condition))
                .collect(),
            own_labels: self.figures(&cells, View::Own),
            open,
        })
    }

    fn training(&self, clips: &[&Clip]) -> Training {
        let corpora: BTreeSet<Corpus> = clips.iter().map(|clip| clip.corpus).collect();
        let judges: Vec<_> = self.plan.runs.iter().filter(|(run, _)| !run.is_random()).collect();
        if judges.iter().any(|(_, model)| model.manifest.training_data.is_empty()) {
            return Training::Unknown;
        }
        let known = corpora.iter().flat_map(|corpus| {
            judges.iter().map(|(_, model)| {
                let mut data = model.manifest.training_data.iter();
                data.any(|data| data.corpus.to_ascii_lowercase() == corpus.name())
            })
        });
        let known: BTreeSet<bool> = known.collect();
        match (known.contains(&true), known.contains(&false)) {
            (true, false) => Training::Trained,
            (false, _) => Training::Foreign,
            (true, true) => Training::Mixed,
        }
    }

    pub(super) fn random(&self) -> Option<RandomSplit> {
        let figures = |cells: &[Cell<'_>]| RandomFigures {
            clips: together(cells).len() / cells.len().max(1),
            accuracy: summarise(cells, Worst::Least, |v| self.confusion(v, View::Open).wa()),
            ua: summarise(cells, Worst::Least, |v| self.confusion(v, View::Open).ua()),
            nll: summarise(cells, Worst::Greatest, |v| nll(&self.cases(v, View::Open))),
        };
        let all = self.cells(true, None, Condition::Clean);
        if all.is_empty() {
            return None;
        }
        let of_corpus = |corpus: Corpus| {
            let cells = self.cells(true, Some(corpus), Condition::Clean);
            (!cells.is_empty()).then(|| (corpus.name(), figures(&cells)))
        };
        Some(RandomSplit {
            note: RANDOM_NOTE,
            seeds: all.iter().filter_map(|cell| cell.seed).collect(),
            all: figures(&all),
            corpora: Corpus::ALL.into_iter().filter_map(of_corpus).collect(),
        })
    }
}

fn clips_of(cells: &[Cell<'_>]) -> BTreeSet<usize> {
    cells.iter().flat_map(|cell| &cell.verdicts).map(|verdict| verdict.clip).collect()
}

fn together<'a>(cells: &[Cell<'a>]) -> Vec<&'a Verdict> {
    cells.iter().flat_map(|cell| cell.verdicts.iter().copied()).collect()
}

/// One cell per seed, of the verdicts of all its folds.
fn by_seed<'a>(cells: &[Cell<'a>]) -> Vec<Cell<'a>> {
    let mut seeds: BTreeMap<Option<u64>, Vec<&'a Verdict>> = BTreeMap::new();
    for cell in cells {
        seeds.entry(cell.seed).or_default().extend(&cell.verdicts);
    }
    seeds.into_iter().map(|(seed, verdicts)| Cell { seed, fold: None, verdicts }).collect()
}

fn narrowed<'a>(cells: &[Cell<'a>], keep: impl Fn(&Verdict) -> bool) -> Vec<Cell<'a>> {
    cells
        .iter()
        .map(|cell| Cell {
            verdicts: cell.verdicts.iter().copied().filter(|v| keep(v)).collect(),
            ..*cell
        })
        .filter(|cell| !cell.verdicts.is_empty())
        .collect()
}

/// What the service hears does not depend on the model: a clip counts once, not once per run.
fn unheard(cells: &[Cell<'_>]) -> usize {
    let clips: BTreeSet<usize> = together(cells)
        .into_iter()
        .filter(|verdict| verdict.heard.unheard)
        .map(|verdict| verdict.clip)
        .collect();
    clips.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(seed: u64, fold: u8) -> Cell<'static> {
        Cell { seed: Some(seed), fold: Some(fold), verdicts: Vec::new() }
    }

    #[test]
    fn a_summary_is_the_mean_over_seeds_of_means_over_folds() {
        let cells = [cell(1, 0), cell(1, 1), cell(2, 0), cell(2, 1)];
        let values = std::cell::RefCell::new([0.4, 0.6, 0.5, 0.9].into_iter());
        let summary = summarise(&cells, Worst::Least, |_| values.borrow_mut().next()).unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a}, not {b}");
        near(summary.mean, 0.6);
        // Folds: 0.45 and 0.75; seeds: 0.5 and 0.7.
        near(summary.spread_over_folds.unwrap(), 0.3 / 2.0_f64.sqrt());
        near(summary.spread_over_seeds.unwrap(), 0.2 / 2.0_f64.sqrt());
        let worst = summary.worst_fold.unwrap();
        assert_eq!(worst.fold, 0);
        near(worst.value, 0.45);
        let loss = std::cell::RefCell::new([1.0, 2.0].into_iter());
        let summary =
            summarise(&cells[..2], Worst::Greatest, |_| loss.borrow_mut().next()).unwrap();
        assert_eq!(summary.worst_fold.unwrap().fold, 1, "of a loss the greatest is the worst");
        assert_eq!(summary.spread_over_seeds, None, "one seed has no spread");
    }

    #[test]
    fn a_fold_without_a_value_is_no_fold() {
        let cells = [cell(1, 0), cell(1, 3)];
        let values = std::cell::RefCell::new([Some(0.4), None].into_iter());
        let summary =
            summarise(&cells, Worst::Least, |_| values.borrow_mut().next().flatten()).unwrap();
        assert_eq!(summary.mean, 0.4);
        assert_eq!((summary.worst_fold, summary.spread_over_folds), (None, None));
        assert!(summarise(&cells, Worst::Least, |_| None).is_none());
    }
}
