//! What a model gets to see: the protocol's messages as plain JSON, units in the names, each estimate with words that
//! say how far it goes.
//!
//! In: messages of the service. Out: values with JSON schemas. Numbers are rounded to what they are good for: a
//! probability to 0.001, a time to 0.01 s. A label never stands alone: an impression has all probabilities, whether it
//! abstains and why, what it rests on, and the same in words.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words;
use crate::wire::v1;

/// Why nothing should be made of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Abstention {
    /// Less speech was heard in this utterance than the configured minimum.
    TooLittleSpeech,
    /// No emotion reaches the configured minimum confidence.
    Unsure,
    /// Nothing was heard that could be judged.
    NoEvidence,
}

/// The probability of one emotion.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Likelihood {
    /// The emotion, as acted and labelled in the corpora that the model learnt from.
    pub(super) emotion: String,
    /// Calibrated probability, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) probability: f64,
}

/// What one stretch of speech sounds like. Not what the person feels.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Impression {
    /// The same in words, with what limits it. Repeat these rather than a label.
    pub(super) words: String,
    /// True if the numbers should not be acted on.
    pub(super) abstains: bool,
    /// Why it abstains; null if it does not.
    pub(super) abstains_because: Option<Abstention>,
    /// Every emotion that the model knows, most probable first; the probabilities sum to 1. Also there where it
    /// abstains. Empty for a model without emotions, or if nothing was heard.
    pub(super) emotions: Vec<Likelihood>,
    /// Distress, 0 to 1: the probability of sadness, anger and fear, and half that of disgust. Null if nothing was heard.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) distress: Option<f64>,
    /// Pleasantness, -1 (unpleasant) to 1 (pleasant). Weakly known from voice alone. Null if nothing was heard.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub(super) valence: Option<f64>,
    /// Activation, -1 (deactivated) to 1 (activated). Null if nothing was heard.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub(super) arousal: Option<f64>,
    /// True if valence and arousal only summarise the probabilities, and are no further evidence.
    pub(super) dimensions_derived: bool,
    /// Seconds of speech that it rests on.
    #[schemars(range(min = 0.0))]
    pub(super) speech_s: f64,
}

/// A rolling estimate: what a person sounds like. Times are seconds since the first sample of the audio.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Estimate {
    /// The audio channel, 0-based.
    pub(super) channel: u32,
    /// Where the evidence begins, seconds.
    pub(super) from_s: f64,
    /// All audio before this moment has been analysed, seconds.
    pub(super) to_s: f64,
    /// The last moment that the emotion rests on, seconds.
    pub(super) evidence_to_s: f64,
    /// 0-based number of the utterance that it rests on.
    pub(super) utterance: u32,
    /// Share of the time with voice since the estimate before, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) speech_ratio: f64,
    /// Mean level since the estimate before, dB relative to full scale; -100 is the lowest.
    pub(super) level_dbfs: f64,
    /// What it sounds like.
    pub(super) sounds: Impression,
}

/// Speech between two pauses.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Utterance {
    /// The audio channel, 0-based.
    pub(super) channel: u32,
    /// 0-based number in its channel.
    pub(super) index: u32,
    /// Where voice begins, seconds since the first sample.
    pub(super) from_s: f64,
    /// Where voice ends, seconds since the first sample.
    pub(super) to_s: f64,
    /// What it sounds like as a whole.
    pub(super) sounds: Impression,
}

/// How much an escalation asks of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// Worth knowing; nobody needs to act.
    Advisory,
    /// Somebody should look when they next can.
    Low,
    /// Somebody should look soon.
    Medium,
    /// Somebody must look now.
    High,
}

/// Where an escalation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// In force, and nobody has taken it on.
    Raised,
    /// In force, and somebody has taken it on.
    Acknowledged,
    /// Its condition holds no more.
    Cleared,
}

/// A live session.
#[expect(clippy::struct_field_names, reason = "tools take it by this name")]
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Session {
    /// Its name.
    pub(super) session_id: String,
    /// Whose it is.
    pub(super) tenant: String,
    /// The identity that opened it.
    pub(super) identity: String,
    /// On whose behalf it listens, and other notes.
    pub(super) labels: BTreeMap<String, String>,
    /// The model's name, see `undertone://models`.
    pub(super) model: String,
    /// The policy's name, see `undertone://policies`; null if nothing can be raised.
    pub(super) policy: Option<String>,
    /// The way its audio comes in: grpc, websocket, twilio or audiohook.
    pub(super) ingress: String,
    /// When it was opened, RFC 3339.
    pub(super) opened_at: Option<String>,
    /// When it ended, RFC 3339; null while it is live.
    pub(super) ended_at: Option<String>,
    /// Audio received, seconds.
    #[schemars(range(min = 0.0))]
    pub(super) audio_s: f64,
    /// Estimates made so far.
    pub(super) estimates: u64,
    /// The highest severity of its escalations in force; null if there are none.
    pub(super) severity: Option<Severity>,
    /// The ids of its escalations in force.
    pub(super) escalation_ids: Vec<String>,
    /// The last estimate of each channel that has one.
    pub(super) latest: Vec<Estimate>,
}

/// One condition of a rule when the policy decided.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Condition {
    /// What was measured, in words.
    pub(super) what: String,
    /// Its value; null as long as too little speech was heard.
    pub(super) value: Option<f64>,
    /// Where the condition turns on.
    pub(super) on: f64,
    /// Where it turns off.
    pub(super) off: f64,
    /// Whether it held.
    pub(super) holds: bool,
}

/// What a decision rests on: means over the speech of a stretch of audio.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Evidence {
    /// Start of the longest window looked at, seconds since the first sample.
    pub(super) from_s: f64,
    /// Its end, seconds since the first sample.
    pub(super) to_s: f64,
    /// Speech that counted within it, seconds.
    pub(super) speech_s: f64,
    /// Mean probability of each emotion, most probable first.
    pub(super) emotions: Vec<Likelihood>,
    /// Mean distress, 0 to 1; null without speech.
    pub(super) distress: Option<f64>,
    /// Mean valence, -1 to 1; null without speech.
    pub(super) valence: Option<f64>,
    /// Mean arousal, -1 to 1; null without speech.
    pub(super) arousal: Option<f64>,
    /// Every condition of the rule.
    pub(super) conditions: Vec<Condition>,
}

/// An escalation as it stands.
#[expect(clippy::struct_field_names, reason = "tools take it by this name")]
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Escalation {
    /// Its id, a UUID.
    pub(super) escalation_id: String,
    /// The session that it is about.
    pub(super) session_id: String,
    /// Whose it is.
    pub(super) tenant: String,
    /// The audio channel, 0-based.
    pub(super) channel: u32,
    /// The session's labels.
    pub(super) labels: BTreeMap<String, String>,
    /// The policy that raised it.
    pub(super) policy: String,
    /// That policy's version.
    pub(super) policy_version: String,
    /// The rule's name.
    pub(super) rule: String,
    /// The rule's title, for people.
    pub(super) title: String,
    /// How much it asks of people; null if a newer server has one that is not known here.
    pub(super) severity: Option<Severity>,
    /// Where it stands; null if a newer server has one that is not known here.
    pub(super) state: Option<State>,
    /// Why, in words with the values in them, as of the last decision while it was in force.
    pub(super) reason: String,
    /// The model that the estimates came from.
    pub(super) model: String,
    /// Where its condition began to hold, seconds since the first sample.
    pub(super) onset_s: f64,
    /// When it was raised, RFC 3339.
    pub(super) raised_at: Option<String>,
    /// When anything last happened to it, RFC 3339.
    pub(super) updated_at: Option<String>,
    /// When somebody took it on, RFC 3339; null if nobody has.
    pub(super) acknowledged_at: Option<String>,
    /// Who did; null if nobody has.
    pub(super) acknowledged_by: Option<String>,
    /// When it was cleared, RFC 3339; null if it was not.
    pub(super) cleared_at: Option<String>,
    /// When the session ended, if that was while it was in force, RFC 3339.
    pub(super) session_ended_at: Option<String>,
}

/// One thing that happened to an escalation.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Happening {
    /// raised, updated, acknowledged or cleared.
    pub(super) kind: String,
    /// When, RFC 3339.
    pub(super) at: Option<String>,
    /// Who did it, for an acknowledgement.
    pub(super) actor: Option<String>,
    /// What they said, or why it was updated or cleared.
    pub(super) note: Option<String>,
}

/// `value` to a thousandth: no probability is known better.
pub(super) fn rounded(value: f64) -> f64 {
    let rounded = (value * 1000.0).round() / 1000.0;
    // JSON has no other numbers, and -0 reads oddly.
    if rounded.is_finite() { rounded + 0.0 } else { 0.0 }
}

/// Seconds to a hundredth; what is missing is zero.
pub(super) fn seconds(time: Option<&prost_types::Duration>) -> f64 {
    let seconds = time.map_or(0.0, |time| time.seconds as f64 + f64::from(time.nanos) / 1e9);
    (seconds * 100.0).round() / 100.0
}

/// As RFC 3339 has it.
pub(super) fn moment(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.map(ToString::to_string)
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The last word of the name of a value of an enumeration, such as `EMOTION_SAD`.
fn last(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

pub(super) fn emotion(emotion: v1::Emotion) -> String {
    last(emotion.as_str_name(), "EMOTION_")
}

/// Most probable first; of equals in the order given.
fn ordered(mut emotions: Vec<Likelihood>) -> Vec<Likelihood> {
    emotions.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    emotions
}

impl Abstention {
    fn of(abstains: bool, reason: v1::AbstainReason) -> Option<Self> {
        match reason {
            v1::AbstainReason::TooLittleSpeech => Some(Self::TooLittleSpeech),
            v1::AbstainReason::Unsure => Some(Self::Unsure),
            v1::AbstainReason::NoEvidence => Some(Self::NoEvidence),
            // A reason of a newer server.
            v1::AbstainReason::Unspecified => abstains.then_some(Self::Unsure),
        }
    }
}

impl Impression {
    pub(super) fn new(
        affect: Option<&v1::Affect>,
        abstains_because: Option<Abstention>,
        speech_s: f64,
    ) -> Self {
        // Without numbers there is nothing to act on, whoever says so.
        let abstains_because = match affect {
            None => abstains_because.or(Some(Abstention::NoEvidence)),
            Some(_) => abstains_because,
        };
        let emotions = affect.map_or_else(Vec::new, |affect| {
            let score = |score: &v1::EmotionScore| Likelihood {
                emotion: emotion(score.emotion()),
                probability: rounded(score.probability.into()),
            };
            ordered(affect.scores.iter().map(score).collect())
        });
        let number = |of: fn(&v1::Affect) -> f32| affect.map(|affect| rounded(of(affect).into()));
        let mut impression = Self {
            words: String::new(),
            abstains: abstains_because.is_some(),
            abstains_because,
            emotions,
            distress: number(|affect| affect.distress),
            valence: number(|affect| affect.valence),
            arousal: number(|affect| affect.arousal),
            dimensions_derived: affect.is_some_and(|affect| {
                affect.dimension_source() == v1::DimensionSource::DerivedFromEmotions
            }),
            speech_s,
        };
        impression.words = words::impression(&impression);
        impression
    }
}

impl From<&v1::Estimate> for Estimate {
    fn from(estimate: &v1::Estimate) -> Self {
        let because = Abstention::of(estimate.abstains, estimate.abstain_reason());
        let speech_s = seconds(estimate.speech.as_ref());
        Self {
            channel: estimate.channel,
            from_s: seconds(estimate.start.as_ref()),
            to_s: seconds(estimate.end.as_ref()),
            evidence_to_s: seconds(estimate.evidence_end.as_ref()),
            utterance: estimate.utterance,
            speech_ratio: rounded(estimate.speech_ratio.into()),
            level_dbfs: (f64::from(estimate.level_dbfs) * 10.0).round() / 10.0,
            sounds: Impression::new(estimate.affect.as_ref(), because, speech_s),
        }
    }
}

impl From<&v1::Utterance> for Utterance {
    fn from(utterance: &v1::Utterance) -> Self {
        let because = Abstention::of(utterance.abstains, utterance.abstain_reason());
        let speech_s = seconds(utterance.speech.as_ref());
        Self {
            channel: utterance.channel,
            index: utterance.index,
            from_s: seconds(utterance.start.as_ref()),
            to_s: seconds(utterance.end.as_ref()),
            sounds: Impression::new(utterance.affect.as_ref(), because, speech_s),
        }
    }
}

impl Severity {
    pub(super) fn of(severity: v1::Severity) -> Option<Self> {
        match severity {
            v1::Severity::Unspecified => None,
            v1::Severity::Advisory => Some(Self::Advisory),
            v1::Severity::Low => Some(Self::Low),
            v1::Severity::Medium => Some(Self::Medium),
            v1::Severity::High => Some(Self::High),
        }
    }

    pub(super) fn wire(self) -> v1::Severity {
        match self {
            Self::Advisory => v1::Severity::Advisory,
            Self::Low => v1::Severity::Low,
            Self::Medium => v1::Severity::Medium,
            Self::High => v1::Severity::High,
        }
    }
}

impl State {
    fn of(state: v1::EscalationState) -> Option<Self> {
        match state {
            v1::EscalationState::Unspecified => None,
            v1::EscalationState::Raised => Some(Self::Raised),
            v1::EscalationState::Acknowledged => Some(Self::Acknowledged),
            v1::EscalationState::Cleared => Some(Self::Cleared),
        }
    }

    pub(super) fn wire(self) -> v1::EscalationState {
        match self {
            Self::Raised => v1::EscalationState::Raised,
            Self::Acknowledged => v1::EscalationState::Acknowledged,
            Self::Cleared => v1::EscalationState::Cleared,
        }
    }
}

impl From<&v1::Session> for Session {
    fn from(session: &v1::Session) -> Self {
        Self {
            session_id: session.id.clone(),
            tenant: session.tenant.clone(),
            identity: session.identity.clone(),
            labels: session.labels.clone().into_iter().collect(),
            model: session.model.clone(),
            policy: text(&session.policy),
            ingress: last(session.ingress().as_str_name(), "INGRESS_"),
            opened_at: moment(session.opened_at.as_ref()),
            ended_at: moment(session.ended_at.as_ref()),
            audio_s: seconds(session.audio.as_ref()),
            estimates: session.estimates,
            severity: Severity::of(session.escalation_severity()),
            escalation_ids: session.escalation_ids.clone(),
            latest: session.latest.iter().map(Estimate::from).collect(),
        }
    }
}

impl From<&v1::Evidence> for Evidence {
    fn from(evidence: &v1::Evidence) -> Self {
        let likely = |(name, probability): (&String, &f32)| Likelihood {
            emotion: name.clone(),
            probability: rounded((*probability).into()),
        };
        let mut emotions: Vec<Likelihood> = evidence.emotions.iter().map(likely).collect();
        // A map has no order of its own.
        emotions.sort_by(|a, b| a.emotion.cmp(&b.emotion));
        let number = |value: Option<f32>| value.map(|value| rounded(value.into()));
        let condition = |condition: &v1::ConditionValue| Condition {
            what: condition.what.clone(),
            value: number(condition.value),
            on: rounded(condition.on.into()),
            off: rounded(condition.off.into()),
            holds: condition.holds,
        };
        Self {
            from_s: seconds(evidence.start.as_ref()),
            to_s: seconds(evidence.end.as_ref()),
            speech_s: seconds(evidence.speech.as_ref()),
            emotions: ordered(emotions),
            distress: number(evidence.distress),
            valence: number(evidence.valence),
            arousal: number(evidence.arousal),
            conditions: evidence.conditions.iter().map(condition).collect(),
        }
    }
}

impl From<&v1::Escalation> for Escalation {
    fn from(escalation: &v1::Escalation) -> Self {
        Self {
            escalation_id: escalation.id.clone(),
            session_id: escalation.session_id.clone(),
            tenant: escalation.tenant.clone(),
            channel: escalation.channel,
            labels: escalation.labels.clone().into_iter().collect(),
            policy: escalation.policy.clone(),
            policy_version: escalation.policy_version.clone(),
            rule: escalation.rule.clone(),
            title: escalation.title.clone(),
            severity: Severity::of(escalation.severity()),
            state: State::of(escalation.state()),
            reason: escalation.reason.clone(),
            model: format!("{} {}", escalation.model, escalation.model_version),
            onset_s: seconds(escalation.onset.as_ref()),
            raised_at: moment(escalation.raised_at.as_ref()),
            updated_at: moment(escalation.updated_at.as_ref()),
            acknowledged_at: moment(escalation.acknowledged_at.as_ref()),
            acknowledged_by: text(&escalation.acknowledged_by),
            cleared_at: moment(escalation.cleared_at.as_ref()),
            session_ended_at: moment(escalation.session_ended_at.as_ref()),
        }
    }
}

impl From<&v1::EscalationEvent> for Happening {
    fn from(event: &v1::EscalationEvent) -> Self {
        Self {
            kind: last(event.kind().as_str_name(), "ESCALATION_EVENT_KIND_"),
            at: moment(event.at.as_ref()),
            actor: text(&event.actor),
            note: text(&event.note),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affect(scores: &[(v1::Emotion, f32)]) -> v1::Affect {
        let score = |&(emotion, probability): &(v1::Emotion, f32)| v1::EmotionScore {
            emotion: emotion.into(),
            probability,
        };
        v1::Affect { scores: scores.iter().map(score).collect(), ..v1::Affect::default() }
    }

    #[test]
    fn all_probabilities_are_given_most_probable_first_also_where_it_abstains() {
        let affect = affect(&[
            (v1::Emotion::Neutral, 0.2),
            (v1::Emotion::Sad, 0.3001),
            (v1::Emotion::Fear, 0.1),
        ]);
        let estimate = v1::Estimate {
            affect: Some(affect),
            abstains: true,
            abstain_reason: v1::AbstainReason::Unsure.into(),
            ..v1::Estimate::default()
        };
        let estimate = Estimate::from(&estimate);
        let names: Vec<&str> =
            estimate.sounds.emotions.iter().map(|e| e.emotion.as_str()).collect();
        assert_eq!(names, ["sad", "neutral", "fear"]);
        assert_eq!(estimate.sounds.emotions[0].probability, 0.3);
        assert_eq!(estimate.sounds.abstains_because, Some(Abstention::Unsure));
    }

    #[test]
    fn without_numbers_it_abstains_whatever_the_message_says() {
        let estimate = Estimate::from(&v1::Estimate::default());
        assert!(estimate.sounds.abstains && estimate.sounds.distress.is_none());
        assert_eq!(estimate.sounds.abstains_because, Some(Abstention::NoEvidence));
    }

    #[test]
    fn numbers_are_such_as_json_has() {
        assert_eq!(rounded(f64::NAN), 0.0);
        assert_eq!(rounded(0.123_456), 0.123);
        assert!(rounded(-0.000_1).is_sign_positive());
        assert_eq!(seconds(Some(&prost_types::Duration { seconds: 3, nanos: 255_999_999 })), 3.26);
    }
}
