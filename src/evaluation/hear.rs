//! One clip, heard by one model: through the same code as a live stream.
//!
//! In: what a client would send, or the rows of a spectrogram. Out: [`Heard`], what the service makes of
//! it. Sound goes through [`Analysis`], in chunks of 100 ms as a client would send them; rows go straight
//! to a [`Listener`], the code behind it. Rolling estimates are asked for at every hop, so that none of
//! the model's steps is missed.
//!
//! A clip is the labelled unit, the service's is the utterance. A clip's probabilities are its
//! utterances' final estimates, averaged as logarithms, weighted by their speech and renormalised; while
//! an utterance is open its latest estimate stands for it. The carry-over of a rolling estimate from one
//! utterance to the next is off: it is for the eye, and would count an utterance twice.

use std::sync::Arc;
use std::time::Duration;

use super::degrade::Sent;
use super::spectrogram::Row as Bands;
use crate::audio::Lane;
use crate::emotion::{EMOTIONS, Emotion, Scores};
use crate::features::{CausalReference, Frame, MEL_BANDS};
use crate::model::{EngineError, Model};
use crate::session::analysis::AnalysisError;
use crate::session::{Analysis, Listener};
use crate::units::{HOP_SAMPLES, SamplePos};
use crate::wire::event::Event;
use crate::wire::parse::AnalysisSettings;

/// Time between two rolling estimates: one hop.
const EVERY_HOP: Duration = Duration::from_millis(16);
/// Probabilities under this count as this: their logarithms are averaged and scored.
pub(super) const LEAST: f64 = 1e-12;

/// What is heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Sound {
    /// A stream.
    Sent(Sent),
    /// A spectrogram.
    Rows(Vec<Bands>),
}

/// Probabilities in the order of [`Emotion::ALL`].
pub type Probabilities = [f64; EMOTIONS];

/// What a clip's estimate was at some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Seconds of speech heard by then.
    pub speech_s: f64,
    /// The estimate.
    pub probabilities: Probabilities,
}

/// What the service makes of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// After each step of the model, in order; the last is the clip's. Never empty.
    pub course: Vec<Moment>,
    /// Whether at least one utterance's final estimate does not abstain, by the service's own rule.
    pub answered: bool,
    /// Whether the service found no utterance, so that the clip was heard from end to end.
    pub unheard: bool,
}

impl Heard {
    /// The clip's estimate.
    pub fn last(&self) -> Moment {
        let none = Moment { speech_s: 0.0, probabilities: [0.0; EMOTIONS] };
        self.course.last().copied().unwrap_or(none)
    }

    /// The latest estimate that `speech_s` seconds of speech had given; of a clip with less, its last.
    pub fn after(&self, speech_s: f64) -> Option<Moment> {
        // Half a hop of tolerance: seconds are whole hops.
        let end = speech_s + EVERY_HOP.as_secs_f64() / 2.0;
        self.course.iter().take_while(|moment| moment.speech_s <= end).last().copied()
    }
}

/// Why a clip cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum HearError {
    /// As for a stream.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// Not even one step, though everything counted as speech.
    #[error("the clip is too short for a single estimate")]
    TooShort,
}

impl From<EngineError> for HearError {
    fn from(error: EngineError) -> Self {
        Self::Analysis(error.into())
    }
}

/// Hears `sound` under `settings`. If the service finds no utterance in it, it is heard again with
/// everything counted as speech: leaving such clips out would flatter every figure.
///
/// # Errors
/// [`HearError`].
///
/// # Cancellation
/// Dropping the future stops the work; nothing is kept.
pub async fn hear(
    model: &Arc<Model>,
    sound: &Sound,
    chunk: Duration,
    settings: &AnalysisSettings,
) -> Result<Heard, HearError> {
    let mut settings = settings.clone();
    settings.estimate_interval = Some(EVERY_HOP);
    settings.tracker.carry = 0.0;
    let found = hear_once(model, sound, chunk, &settings).await?;
    if !found.course.is_empty() {
        let answered = found.answered;
        return Ok(Heard { course: found.course, answered, unheard: false });
    }
    settings.segmenter.on = 0.0;
    settings.segmenter.off = 0.0;
    settings.segmenter.min_speech_hops = 1;
    let course = hear_once(model, sound, chunk, &settings).await?.course;
    if course.is_empty() {
        return Err(HearError::TooShort);
    }
    Ok(Heard { course, answered: false, unheard: true })
}

async fn hear_once(
    model: &Arc<Model>,
    sound: &Sound,
    chunk: Duration,
    settings: &AnalysisSettings,
) -> Result<Clerk, HearError> {
    let mut clerk = Clerk::default();
    match sound {
        Sound::Sent(sent) => hear_stream(model, sent, chunk, settings, &mut clerk).await?,
        Sound::Rows(rows) => {
            let mut note = |events: &mut Vec<Event>| clerk.note(events);
            hear_rows(model, rows.iter().copied(), settings, &mut note).await?;
        }
    }
    Ok(clerk)
}

async fn hear_stream(
    model: &Arc<Model>,
    sent: &Sent,
    chunk: Duration,
    settings: &AnalysisSettings,
    clerk: &mut Clerk,
) -> Result<(), AnalysisError> {
    // Warnings about silence are nobody's business here.
    let never = Duration::from_secs(u64::from(u32::MAX));
    let lanes = [Lane::channel(0)];
    let mut analysis = Analysis::new(model.clone(), sent.format, &lanes, settings, never)?;
    let frames = (f64::from(sent.format.rate.hz()) * chunk.as_secs_f64()) as usize;
    let bytes = frames.max(1) * sent.format.bytes_per_frame();
    let mut events = Vec::new();
    for chunk in sent.bytes.chunks(bytes) {
        analysis.push(chunk, &mut events).await?;
        clerk.note(&mut events);
    }
    analysis.finish(&mut events).await?;
    clerk.note(&mut events);
    Ok(())
}

/// Rows are frames already; the silence behind them is at the floor. As when training features are
/// extracted, see [`crate::corpus::extract`]. `note` is given what each row has led to and takes it away.
pub(super) async fn hear_rows(
    model: &Arc<Model>,
    mut rows: impl Iterator<Item = Bands> + Send,
    settings: &AnalysisSettings,
    note: &mut (dyn FnMut(&mut Vec<Event>) + Send),
) -> Result<(), EngineError> {
    const SILENCE: Bands = [-100.0; MEL_BANDS];
    let mut listener = Listener::new(0, model.manifest.clone(), settings);
    let mut reference = CausalReference::new();
    let mut events = Vec::new();
    let mut index = 0;
    // The spectrogram's last rows cover the clip's end already: what is padded is begun steps only.
    let mut padded = u64::MAX / 2;
    loop {
        let row = if let Some(row) = rows.next() {
            row
        } else {
            listener.finish(u64::MAX);
            if !listener.wants_padding(padded) {
                break;
            }
            padded += 1;
            SILENCE
        };
        listener.hear_spectrum(&Frame::from_mel_db(index, row, &mut reference));
        index += 1;
        while let Some(row) = listener.request() {
            let row = model.engine.infer(row).await?;
            if !listener.absorb(row) {
                return Err(EngineError::NotFinite { model: model.manifest.name.as_str().into() });
            }
        }
        listener.settle(&mut events);
        note(&mut events);
    }
    listener.close(&mut events);
    note(&mut events);
    Ok(())
}

/// Takes down what the service says of a clip.
#[derive(Debug, Default)]
struct Clerk {
    /// Sum over the ended utterances of speech times log-probabilities, and of their speech, in hops.
    ended: (Probabilities, f64),
    /// Utterance and end of the evidence of the last estimate noted.
    noted: Option<(u32, SamplePos)>,
    course: Vec<Moment>,
    answered: bool,
}

impl Clerk {
    fn note(&mut self, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            match event {
                Event::Estimate(estimate) => {
                    let key = (estimate.utterance, estimate.evidence_end);
                    // Between two steps, and between two utterances, there is nothing new.
                    let is_new = self.noted != Some(key) && estimate.speech_hops > 0;
                    let scores = estimate.judgement.affect.and_then(|affect| affect.scores);
                    let stepped =
                        estimate.judgement.abstains != Some(crate::tracking::Abstain::NoEvidence);
                    if let (true, true, Some(scores)) = (is_new, stepped, scores) {
                        self.noted = Some(key);
                        self.push(self.with(&scores, estimate.speech_hops));
                    }
                }
                Event::Utterance(utterance) => {
                    let scores = utterance.judgement.affect.and_then(|affect| affect.scores);
                    if let Some(scores) = scores {
                        self.ended = self.with(&scores, utterance.speech_hops);
                        self.push(self.ended);
                        self.answered |= utterance.judgement.abstains.is_none();
                    }
                }
                Event::Warning(_) | Event::Reading(_) => {}
            }
        }
    }

    /// The sums with one more utterance.
    fn with(&self, scores: &Scores, speech_hops: u64) -> (Probabilities, f64) {
        let (mut sums, speech) = self.ended;
        // An utterance of a single frame still is one.
        let weight = speech_hops.max(1) as f64;
        for (sum, (_, p)) in sums.iter_mut().zip(scores.iter()) {
            *sum += weight * f64::from(p).max(LEAST).ln();
        }
        (sums, speech + weight)
    }

    fn push(&mut self, (sums, speech): (Probabilities, f64)) {
        let logs = sums.map(|sum| sum / speech);
        let most = logs.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let weights = logs.map(|log| (log - most).exp());
        let sum: f64 = weights.iter().sum();
        self.course.push(Moment {
            speech_s: speech * EVERY_HOP.as_secs_f64(),
            probabilities: weights.map(|weight| weight / sum),
        });
    }
}

const _: () = assert!(EVERY_HOP.as_millis() * 16 == HOP_SAMPLES as u128, "one hop is 16 ms");

/// The most probable emotion and its probability; of equals the first.
pub fn top(probabilities: &Probabilities) -> (Emotion, f64) {
    Emotion::ALL.into_iter().zip(probabilities).fold(
        (Emotion::Neutral, f64::NEG_INFINITY),
        |best, (emotion, p)| if *p > best.1 { (emotion, *p) } else { best },
    )
}

/// Expected distress, as the service has it.
pub fn distress(probabilities: &Probabilities) -> f64 {
    let weighted = Emotion::ALL.into_iter().zip(probabilities);
    weighted.map(|(emotion, p)| p * f64::from(emotion.distress())).sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracking::{Affect, DimensionSource, Judgement};
    use crate::wire::event::Utterance;

    fn utterance(logits: [f32; 2], speech_hops: u64) -> Event {
        let scores = Scores::from_logits(&[Emotion::Neutral, Emotion::Angry], &logits);
        let affect = Affect {
            scores,
            valence: 0.0,
            arousal: 0.0,
            source: DimensionSource::Emotions,
            distress: 0.0,
        };
        Event::Utterance(Utterance {
            channel: 0,
            index: 0,
            start: SamplePos(0),
            end: SamplePos(0),
            speech_hops,
            judgement: Judgement { affect: Some(affect), abstains: None },
        })
    }

    #[test]
    fn a_clip_is_the_mean_of_its_utterances_in_the_log_domain_by_their_speech() {
        let mut clerk = Clerk::default();
        // Log-odds of angry: +3 over 30 hops, -1 over 10: the mean is +2.
        clerk.note(&mut vec![utterance([0.0, 3.0], 30), utterance([1.0, 0.0], 10)]);
        let [first, last] = clerk.course.as_slice() else { panic!() };
        let odds = |m: &Moment| (m.probabilities[4] / m.probabilities[0]).ln();
        assert!((odds(first) - 3.0).abs() < 1e-5);
        assert!((odds(last) - 2.0).abs() < 1e-5);
        assert!((last.speech_s - 40.0 * 0.016).abs() < 1e-9);
        assert!((last.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(clerk.answered);
    }

    #[test]
    fn a_shorter_clip_counts_with_its_last_estimate_and_before_the_first_there_is_none() {
        let moment = |speech_s| Moment { speech_s, probabilities: [speech_s; EMOTIONS] };
        let course = vec![moment(0.2), moment(0.4), moment(0.6)];
        let heard = Heard { course, answered: true, unheard: false };
        assert_eq!(heard.after(0.1), None);
        assert_eq!(heard.after(0.2), Some(moment(0.2)));
        assert_eq!(heard.after(0.5), Some(moment(0.4)));
        assert_eq!(heard.after(3.0), Some(moment(0.6)));
    }
}
