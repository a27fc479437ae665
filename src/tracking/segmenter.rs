//! Utterances out of voice activity: two thresholds, a minimum of voice to begin, a hang-over to end.
//!
//! In: the probability of voice of each hop. Out: where utterances begin and end. An utterance begins
//! when the probability has reached `on` and not fallen below `off` for `min_speech` hops; it ends when
//! it has been below `off` for `hang_over` hops. The hops between the thresholds belong to whatever is
//! going on: that is the hysteresis.

use serde::{Deserialize, Serialize};

use crate::state::Misfit;

/// When an utterance begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SegmenterSettings {
    /// Probability from which voice begins, 0 to 1.
    pub on: f32,
    /// Probability below which silence is counted, at most `on`.
    pub off: f32,
    /// Hops of voice before an utterance begins, at least 1.
    pub min_speech_hops: u64,
    /// Hops of silence before it ends, at least 1.
    pub hang_over_hops: u64,
}

/// A bound of an utterance. Hops are numbered from the stream's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// An utterance has begun, at `onset`: `min_speech` hops ago.
    Began {
        /// First hop with voice.
        onset: u64,
    },
    /// The utterance has ended.
    Ended {
        /// First hop behind the last one with voice.
        end: u64,
    },
}

/// What a [`Segmenter`] carries from one hop to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmenterState(Phase);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Silence,
    /// Voice since `onset`, not long enough yet.
    Rising {
        onset: u64,
    },
    /// Inside an utterance; `last_voice` is the last hop with voice.
    Speech {
        last_voice: u64,
    },
}

/// One lane's segmenter.
#[derive(Debug, Clone)]
pub struct Segmenter {
    settings: SegmenterSettings,
    phase: Phase,
}

impl Segmenter {
    /// In silence.
    pub fn new(settings: SegmenterSettings) -> Self {
        Self { settings, phase: Phase::Silence }
    }

    /// What must be kept for it to be gone on with.
    pub fn state(&self) -> SegmenterState {
        SegmenterState(self.phase)
    }

    /// Goes on where the segmenter stood whose state it was when `hops` hops had been pushed.
    ///
    /// # Errors
    /// [`Misfit`] if none with these settings can have stood there.
    pub fn restore(&mut self, hops: u64, state: SegmenterState) -> Result<(), Misfit> {
        let fits = match state.0 {
            Phase::Silence => true,
            Phase::Rising { onset } => onset < hops && hops - onset < self.settings.min_speech_hops,
            Phase::Speech { last_voice } => {
                last_voice < hops && hops - last_voice <= self.settings.hang_over_hops
            }
        };
        Misfit::unless(fits, "segmenter", "does not fit its settings and the stream's length")?;
        self.phase = state.0;
        Ok(())
    }

    /// First hop with voice, if there is some but not enough for an utterance yet.
    pub fn rising(&self) -> Option<u64> {
        match self.phase {
            Phase::Rising { onset } => Some(onset),
            Phase::Silence | Phase::Speech { .. } => None,
        }
    }

    /// Takes the probability of voice of hop number `hop`. Hops come in order, one by one.
    pub fn push(&mut self, hop: u64, probability: f32) -> Option<Segment> {
        let voice = match self.phase {
            Phase::Silence => probability >= self.settings.on,
            Phase::Rising { .. } | Phase::Speech { .. } => probability >= self.settings.off,
        };
        match (self.phase, voice) {
            (Phase::Silence | Phase::Rising { .. }, false) => {
                self.phase = Phase::Silence;
                None
            }
            (Phase::Silence, true) => self.rise(hop, hop),
            (Phase::Rising { onset }, true) => self.rise(onset, hop),
            (Phase::Speech { .. }, true) => {
                self.phase = Phase::Speech { last_voice: hop };
                None
            }
            (Phase::Speech { last_voice }, false) => {
                (hop - last_voice >= self.settings.hang_over_hops).then(|| {
                    self.phase = Phase::Silence;
                    Segment::Ended { end: last_voice + 1 }
                })
            }
        }
    }

    fn rise(&mut self, onset: u64, hop: u64) -> Option<Segment> {
        if hop + 1 - onset >= self.settings.min_speech_hops {
            self.phase = Phase::Speech { last_voice: hop };
            Some(Segment::Began { onset })
        } else {
            self.phase = Phase::Rising { onset };
            None
        }
    }

    /// Ends an utterance that is open, now: the stream ends or the caller says that the turn does.
    pub fn close(&mut self) -> Option<Segment> {
        match std::mem::replace(&mut self.phase, Phase::Silence) {
            Phase::Speech { last_voice } => Some(Segment::Ended { end: last_voice + 1 }),
            Phase::Silence | Phase::Rising { .. } => None,
        }
    }

    /// Whether an utterance is open.
    pub fn in_utterance(&self) -> bool {
        matches!(self.phase, Phase::Speech { .. })
    }

    /// Whether hop number `hop`, the last one pushed, had voice.
    pub fn has_voice(&self, hop: u64) -> bool {
        match self.phase {
            Phase::Silence => false,
            Phase::Rising { .. } => true,
            Phase::Speech { last_voice } => last_voice == hop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: SegmenterSettings =
        SegmenterSettings { on: 0.6, off: 0.3, min_speech_hops: 3, hang_over_hops: 5 };

    fn run(settings: SegmenterSettings, probabilities: &[f32]) -> Vec<(u64, Segment)> {
        let mut segmenter = Segmenter::new(settings);
        let mut bounds = Vec::new();
        for (hop, p) in (0..).zip(probabilities) {
            bounds.extend(segmenter.push(hop, *p).map(|segment| (hop, segment)));
        }
        bounds.extend(segmenter.close().map(|s| (probabilities.len() as u64, s)));
        bounds
    }

    #[test]
    fn an_utterance_begins_at_its_onset_and_ends_at_its_last_voice() {
        let mut p = vec![0.0; 4];
        p.extend([0.9; 10]);
        p.extend([0.1; 9]);
        assert_eq!(
            run(SETTINGS, &p),
            [(6, Segment::Began { onset: 4 }), (18, Segment::Ended { end: 14 })]
        );
    }

    #[test]
    fn a_click_shorter_than_the_minimum_is_no_utterance() {
        assert_eq!(run(SETTINGS, &[0.0, 0.9, 0.9, 0.0, 0.9, 0.0, 0.0]), []);
    }

    #[test]
    fn a_pause_shorter_than_the_hang_over_does_not_end_it() {
        let mut p = vec![0.9; 5];
        p.extend([0.1; 4]);
        p.extend([0.9; 5]);
        assert_eq!(
            run(SETTINGS, &p),
            [(2, Segment::Began { onset: 0 }), (14, Segment::Ended { end: 14 })]
        );
    }

    #[test]
    fn between_the_thresholds_nothing_changes() {
        assert_eq!(run(SETTINGS, &[0.5; 50]), [], "0.5 is below on: silence stays silence");
        let mut p = vec![0.9; 3];
        p.extend([0.5; 50]);
        assert_eq!(run(SETTINGS, &p).len(), 2, "0.5 is above off: speech stays speech");
    }

    proptest! {
        #[test]
        fn utterances_do_not_overlap_and_keep_their_minimum(
            p in prop::collection::vec(0.0_f32..=1.0, 0..400),
            min_speech_hops in 1_u64..6,
            hang_over_hops in 1_u64..12,
        ) {
            let settings = SegmenterSettings { min_speech_hops, hang_over_hops, ..SETTINGS };
            let mut open = None;
            let mut last_end = 0;
            for (_, bound) in run(settings, &p) {
                match bound {
                    Segment::Began { onset } => {
                        prop_assert!(open.is_none() && onset >= last_end);
                        open = Some(onset);
                    }
                    Segment::Ended { end } => {
                        let onset = open.take().expect("ends only what began");
                        prop_assert!(end - onset >= min_speech_hops);
                        last_end = end;
                    }
                }
            }
            prop_assert!(open.is_none());
        }
    }
}
