//! The honest judge of models: labelled clips through the serving path, and what came of it.
//!
//! ```text
//! clips, a protocol                                     (corpus, protocol)
//!   -> each clip under each condition                   (condition, degrade, spectrogram)
//!   -> heard by each model that has not heard its voice (judge, hear: the code of a live stream)
//!   -> figures by corpus, fold and seed                 (metrics, figures, outcome)
//!   -> a table, evaluation.json, clips.csv, report.html (table, files, page)
//! ```
//!
//! Always:
//! 1. A fold run never meets a clip of another fold, a random run only clips on its list.
//! 2. No clip is left out because the service does not notice it: it is heard from end to end, and
//!    counted.
//! 3. What is random is seeded by corpus, clip and purpose, with a generator of our own: the same clips
//!    and models give the same figures, whatever the number of jobs and the length of chunks.
//!    Probabilities agree within 1e-5, since batches of another size may sum in another order.
//! 4. Figures of one corpus are never shown only as part of a mean over corpora.
//!
//! docs/evaluation.md has the definitions and the formats.

mod compose;
pub mod condition;
pub mod degrade;
pub mod figures;
pub mod files;
pub mod hear;
pub mod judge;
pub mod metrics;
pub mod outcome;
pub mod page;
pub mod protocol;
mod random;
pub mod rehearsal;
pub mod spectrogram;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

pub use condition::Condition;
pub use judge::{CHUNK, JudgeError, Plan, Verdicts, judge};
pub use outcome::Evaluation;
pub use protocol::{Protocol, ProtocolError, Run, Unheard};

use crate::corpus::{Clip, Corpus};
use crate::emotion::Emotion;
use random::Random;

/// Why clips and protocol do not fit each other.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A speaker in two folds.
    #[error(
        "speaker {speaker} is in the folds {first} and {second}: a fold model would meet a voice that it knows"
    )]
    SpeakerInTwoFolds {
        /// The speaker.
        speaker: String,
        /// One fold.
        first: u8,
        /// Another.
        second: u8,
    },
    /// A speaker that the models were trained with in another fold.
    #[error(
        "speaker {speaker} is in fold {here} here and was in fold {training} when the models were trained; use the manifest.csv of the training"
    )]
    OtherFolds {
        /// The speaker.
        speaker: String,
        /// The fold of the clips.
        here: u8,
        /// The fold of training.
        training: u8,
    },
    /// A name on a list of unheard clips that several clips have.
    #[error(
        "run {run}: its list names {clip}, and two clips have that name; which of them the model has heard cannot be told"
    )]
    Ambiguous {
        /// The run.
        run: String,
        /// The name.
        clip: String,
    },
    /// A run without a single clip.
    #[error("run {run}: none of the clips that it has not heard is among those given")]
    NothingToJudge {
        /// The run.
        run: String,
    },
    /// No clip is left.
    #[error("there are no clips of the corpora asked for")]
    NoClips,
}

/// The clips to be judged, and what follows from those that a filter leaves out.
#[derive(Debug)]
pub struct Selection {
    /// The clips.
    pub clips: Vec<Clip>,
    /// The emotions of each corpus, over all its clips.
    pub labels: BTreeMap<Corpus, BTreeSet<Emotion>>,
    /// Whether the speakers' folds were compared with those of training.
    pub speakers_checked: bool,
}

/// Picks the clips of `corpora` (of all if that is empty), at most `limit` of each, after checking that
/// they fit the protocol. A limited sample is picked by a hash of the names: fixed, and even over whatever
/// order the names have.
///
/// # Errors
/// [`SelectError`].
pub fn select(
    clips: Vec<Clip>,
    protocol: &Protocol,
    corpora: &[Corpus],
    limit: Option<usize>,
) -> Result<Selection, SelectError> {
    let mut labels: BTreeMap<Corpus, BTreeSet<Emotion>> = BTreeMap::new();
    let mut folds: BTreeMap<&str, u8> = BTreeMap::new();
    for clip in &clips {
        labels.entry(clip.corpus).or_default().insert(clip.emotion);
        let first = *folds.entry(&clip.speaker).or_insert(clip.fold);
        if first != clip.fold {
            return Err(SelectError::SpeakerInTwoFolds {
                speaker: clip.speaker.clone(),
                first,
                second: clip.fold,
            });
        }
    }
    let speakers_checked = protocol
        .check_speakers(&clips)
        .map_err(|(speaker, training, here)| SelectError::OtherFolds { speaker, here, training })?;
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> =
        clips.iter().map(|clip| clip.name.as_str()).filter(|name| !seen.insert(*name)).collect();
    for run in &protocol.runs {
        if let Unheard::Listed(names) = &run.unheard
            && let Some(clip) = twice.iter().find(|name| names.contains(**name))
        {
            return Err(SelectError::Ambiguous { run: run.name.clone(), clip: (*clip).to_owned() });
        }
    }
    let mut clips = clips;
    clips.retain(|clip| corpora.is_empty() || corpora.contains(&clip.corpus));
    if let Some(limit) = limit {
        clips = sample(clips, limit);
    }
    if clips.is_empty() {
        return Err(SelectError::NoClips);
    }
    // With a filter, a run may be left with nothing; without one its list belongs to other corpora.
    let unfiltered = corpora.is_empty() && limit.is_none();
    for run in protocol.runs.iter().filter(|run| unfiltered && run.is_random()) {
        if !clips.iter().any(|clip| run.judges(clip)) {
            return Err(SelectError::NothingToJudge { run: run.name.clone() });
        }
    }
    Ok(Selection { clips, labels, speakers_checked })
}

fn sample(clips: Vec<Clip>, limit: usize) -> Vec<Clip> {
    let mut ranked: Vec<(u64, Clip)> = clips
        .into_iter()
        .map(|clip| (Random::of(&[clip.corpus.name(), &clip.name, "sample"]).next(), clip))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut taken: BTreeMap<Corpus, usize> = BTreeMap::new();
    ranked.retain(|(_, clip)| {
        let count = taken.entry(clip.corpus).or_default();
        *count += 1;
        *count <= limit
    });
    let mut clips: Vec<Clip> = ranked.into_iter().map(|(_, clip)| clip).collect();
    clips.sort_by(|a, b| (a.corpus, &a.speaker, &a.name).cmp(&(b.corpus, &b.speaker, &b.name)));
    clips
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Sound;

    fn clip(corpus: Corpus, name: &str, speaker: &str, fold: u8) -> Clip {
        Clip {
            sound: Sound::File(format!("{name}.wav").into()),
            name: name.to_owned(),
            corpus,
            emotion: Emotion::Sad,
            intensity: String::new(),
            speaker: speaker.to_owned(),
            sex: String::new(),
            text: String::new(),
            fold,
        }
    }

    fn listed(names: &[&str]) -> Protocol {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let mut protocol = Protocol::of_model(None);
        protocol.runs[0].unheard = Unheard::Listed(names);
        protocol
    }

    #[test]
    fn a_fold_run_judges_the_clips_of_its_fold_only() {
        let mut run = Protocol::of_model(None).runs.remove(0);
        run.unheard = Unheard::Fold(3);
        for fold in 0..5 {
            assert_eq!(run.judges(&clip(Corpus::Tess, "a", "s", fold)), fold == 3);
        }
    }

    #[test]
    fn a_speaker_in_two_folds_is_refused_and_so_is_a_fold_that_training_did_not_have() {
        let clips = || vec![clip(Corpus::Tess, "a", "s", 0), clip(Corpus::Tess, "b", "s", 1)];
        let error = select(clips(), &Protocol::of_model(None), &[], None).unwrap_err();
        assert!(error.to_string().contains("speaker s"), "{error}");
        let mut protocol = Protocol::of_model(None);
        protocol.speakers = Some([("s".to_owned(), 2)].into());
        let error = select(clips()[..1].to_vec(), &protocol, &[], None).unwrap_err();
        assert!(error.to_string().contains("was in fold 2"), "{error}");
        protocol.speakers = Some([("s".to_owned(), 0)].into());
        assert!(select(clips()[..1].to_vec(), &protocol, &[], None).unwrap().speakers_checked);
    }

    #[test]
    fn a_list_that_names_two_clips_is_refused_and_one_of_other_corpora_too() {
        let clips =
            || vec![clip(Corpus::Savee, "a01", "DC", 0), clip(Corpus::Savee, "a01", "KL", 1)];
        let error = select(clips(), &listed(&["a01"]), &[], None).unwrap_err();
        assert!(matches!(error, SelectError::Ambiguous { .. }), "{error}");
        let error = select(clips(), &listed(&["zzz"]), &[], None).unwrap_err();
        assert!(matches!(error, SelectError::NothingToJudge { .. }), "{error}");
    }

    #[test]
    fn a_sample_is_fixed_and_at_most_so_many_of_each_corpus() {
        let clips: Vec<Clip> = (0..50)
            .flat_map(|k| {
                [
                    clip(Corpus::Tess, &format!("t{k}"), "t", 0),
                    clip(Corpus::Savee, &format!("s{k}"), "s", 0),
                ]
            })
            .collect();
        let pick = |clips: Vec<Clip>| {
            select(clips, &Protocol::of_model(None), &[], Some(7)).unwrap().clips
        };
        let once = pick(clips.clone());
        assert_eq!(once.len(), 14);
        let mut turned = clips;
        turned.reverse();
        assert_eq!(pick(turned), once);
    }
}
