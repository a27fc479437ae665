//! An evaluation put together: its figures, and what must be said with them.
//!
//! In: a protocol, its [`Plan`] and the verdicts. Out: an [`Evaluation`], which is also what
//! `evaluation.json` holds; docs/evaluation.md describes each of its fields.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::Condition;
use super::figures::{Book, FEWEST_SPEAKERS, RESAMPLES};
use super::judge::{Plan, Verdict, Verdicts};
use super::metrics::CALIBRATION_BINS;
use super::outcome::{
    Evaluation, FailedClip, Material, ModelSummary, Part, ProtocolSummary, SCHEMA, SettingsSummary,
    Training,
};
use super::protocol::{Protocol, Unheard};
use crate::corpus::Corpus;
use crate::corpus::scan::FOLDS;
use crate::units::{HOP_SAMPLES, MODEL_RATE_HZ};

impl Evaluation {
    /// The figures of `verdicts`. `limit` and `speakers_checked` are told on.
    pub fn of(
        protocol: &Protocol,
        plan: &Plan,
        verdicts: &Verdicts,
        limit: Option<usize>,
        speakers_checked: bool,
    ) -> Self {
        let book = Book::of(plan, &verdicts.all);
        let corpora: Vec<Part> =
            Corpus::ALL.into_iter().filter_map(|corpus| book.part(Some(corpus))).collect();
        let pooled = if corpora.len() > 1 { book.part(None) } else { None };
        let mut evaluation = Self {
            schema: SCHEMA,
            undertone: env!("CARGO_PKG_VERSION"),
            protocol: protocol_summary(protocol, plan, speakers_checked),
            settings: settings_summary(plan, limit),
            models: model_summaries(plan, &verdicts.all),
            corpora_fingerprint: verdicts.fingerprint.clone(),
            notes: Vec::new(),
            corpora,
            pooled,
            random: book.random(),
            failed: verdicts
                .failed
                .iter()
                .map(|(clip, problem)| FailedClip { clip: clip.clone(), problem: problem.clone() })
                .collect(),
        };
        evaluation.notes = evaluation.notes_on(plan);
        evaluation
    }

    fn notes_on(&self, plan: &Plan) -> Vec<String> {
        let mut notes = Vec::new();
        if self.protocol.kind == "model" {
            notes.push(
                "Nobody has checked whether the model heard these speakers, or these very clips, in \
                 training: figures on a corpus that it was trained on are no measure of new voices."
                    .to_owned(),
            );
        } else if !self.corpora.is_empty() {
            notes.push(
                "Each clip is judged by models that were trained without its fold, so without its \
                 speaker, as the protocol says."
                    .to_owned(),
            );
            if !self.protocol.speakers_checked {
                notes.push(
                    "The protocol does not list the speakers' folds; that the folds of these clips \
                     are those of training was not checked."
                        .to_owned(),
                );
            }
        }
        notes.extend(missing_folds(plan));
        if let Some(limit) = self.settings.limit {
            notes.push(format!("A sample of at most {limit} clips of each corpus was judged."));
        }
        for part in &self.corpora {
            let name = &part.corpus;
            if part.training == Training::Foreign {
                notes.push(format!(
                    "{name} is a foreign corpus: the models were not trained on it."
                ));
            }
            if part.training == Training::Unknown {
                notes.push(format!("Whether the models were trained on {name} is not known."));
            }
            if part.speakers < FEWEST_SPEAKERS {
                notes.push(format!(
                    "{name} has {} speakers here: too few for an interval, and little evidence about \
                     new ones.",
                    part.speakers
                ));
            }
            if part.material != Material::Audio {
                notes.push(format!(
                    "Of {name} there are spectrograms and no sound: conditions are approximated in \
                     the mel power domain, and gains do not apply, since their level is lost."
                ));
            }
            if part.unheard > 0 {
                notes.push(format!(
                    "In {} of {} clips of {name} the service finds no utterance; they were heard \
                     from end to end.",
                    part.unheard, part.clips
                ));
            }
            if part.unknown_emotion > 0 {
                notes.push(format!(
                    "{} clips of {name} have an emotion that a model does not know: they count as \
                     wrong and are left out of NLL.",
                    part.unknown_emotion
                ));
            }
        }
        if !self.failed.is_empty() {
            notes.push(format!("{} clips could not be judged.", self.failed.len()));
        }
        notes
    }
}

/// Says which folds were not run, for each seed.
fn missing_folds(plan: &Plan) -> Vec<String> {
    let mut folds: BTreeMap<u64, BTreeSet<u8>> = BTreeMap::new();
    for (run, _) in &plan.runs {
        if let (Some(seed), Some(fold)) = (run.seed, run.fold()) {
            folds.entry(seed).or_default().insert(fold);
        }
    }
    folds
        .into_iter()
        .filter(|(_, folds)| folds.len() < FOLDS)
        .map(|(seed, folds)| {
            let list: Vec<String> = folds.iter().map(u8::to_string).collect();
            format!(
                "Seed {seed}: folds {} only, of {FOLDS}; clips of the others are not judged.",
                list.join(", ")
            )
        })
        .collect()
}

fn protocol_summary(protocol: &Protocol, plan: &Plan, speakers_checked: bool) -> ProtocolSummary {
    let is_model = plan.runs.iter().any(|(run, _)| run.unheard == Unheard::Unchecked);
    let folds: BTreeSet<u8> = plan.runs.iter().filter_map(|(run, _)| run.fold()).collect();
    let seeds: BTreeSet<u64> = plan
        .runs
        .iter()
        .filter(|(run, _)| !run.is_random())
        .filter_map(|(run, _)| run.seed)
        .collect();
    ProtocolSummary {
        kind: if is_model { "model" } else { "protocol" },
        name: protocol.name.clone(),
        description: protocol.description.clone(),
        folds: folds.into_iter().collect(),
        seeds: seeds.into_iter().collect(),
        speakers_checked,
    }
}

fn settings_summary(plan: &Plan, limit: Option<usize>) -> SettingsSummary {
    let seconds = |hops: u64| hops as f64 * HOP_SAMPLES as f64 / f64::from(MODEL_RATE_HZ);
    let analysis = &plan.analysis;
    SettingsSummary {
        voice_on: analysis.segmenter.on,
        voice_off: analysis.segmenter.off,
        voice_min_speech_s: seconds(analysis.segmenter.min_speech_hops),
        voice_hang_over_s: seconds(analysis.segmenter.hang_over_hops),
        voice_lead_in_s: seconds(analysis.lead_in_hops),
        min_speech_s: seconds(analysis.tracker.min_speech_hops),
        min_confidence: analysis.tracker.min_confidence,
        chunk_s: plan.chunk.as_secs_f64(),
        conditions: plan.conditions.iter().map(|condition| condition.name()).collect(),
        calibration_bins: CALIBRATION_BINS,
        bootstrap_resamples: RESAMPLES,
        limit,
    }
}

fn model_summaries(plan: &Plan, verdicts: &[Verdict]) -> Vec<ModelSummary> {
    let mut clips = vec![0; plan.runs.len()];
    for verdict in verdicts.iter().filter(|verdict| verdict.condition == Condition::Clean) {
        if let Some(count) = clips.get_mut(verdict.run) {
            *count += 1;
        }
    }
    plan.runs
        .iter()
        .zip(clips)
        .map(|((run, model), clips)| ModelSummary {
            run: run.name.clone(),
            kind: match run.unheard {
                Unheard::Fold(_) => "fold",
                Unheard::Listed(_) => "random",
                Unheard::Unchecked => "model",
            },
            fold: run.fold(),
            seed: run.seed,
            name: model.manifest.name.clone(),
            version: model.manifest.version.clone(),
            sha256: model.manifest.sha256.clone(),
            temperature: model.manifest.temperature,
            labels: model.manifest.labels().iter().map(|label| label.name()).collect(),
            trained_on: model.manifest.training_data.iter().map(|d| d.corpus.clone()).collect(),
            clips,
        })
        .collect()
}
