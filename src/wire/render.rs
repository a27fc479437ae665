//! Ours to theirs.

use std::time::Duration;

use super::event::{
    ChannelSummary, Estimate, Ingress, MarkReached, Utterance, Warning, WarningReason,
};
use super::parse::{ENDED, Place, StreamSettings};
use super::v1;
use crate::audio::Encoding;
use crate::emotion::Emotion;
use crate::escalation::{Escalation, Kind, Occurrence, State, Timestamp};
use crate::model::{Input, Manifest};
use crate::policy::{Action, Decision, Evidence, Policy, Severity};
use crate::tracking::{Abstain, Affect, DimensionSource, Judgement};
use crate::units::{HOP_SAMPLES, SamplePos, samples_to_duration};

/// A duration for the wire. Ours are all far below the protocol's 10,000 years.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

fn position(position: SamplePos) -> prost_types::Duration {
    duration(position.duration())
}

fn hops(hops: u64) -> prost_types::Duration {
    duration(samples_to_duration(hops.saturating_mul(HOP_SAMPLES as u64)))
}

/// An emotion.
pub fn emotion(emotion: Emotion) -> v1::Emotion {
    match emotion {
        Emotion::Neutral => v1::Emotion::Neutral,
        Emotion::Calm => v1::Emotion::Calm,
        Emotion::Happy => v1::Emotion::Happy,
        Emotion::Sad => v1::Emotion::Sad,
        Emotion::Angry => v1::Emotion::Angry,
        Emotion::Fear => v1::Emotion::Fear,
        Emotion::Disgust => v1::Emotion::Disgust,
        Emotion::Surprise => v1::Emotion::Surprise,
    }
}

/// What speech sounds like, over the labels of the model.
pub fn affect(affect: &Affect, labels: &[Emotion]) -> v1::Affect {
    let top = affect.top();
    v1::Affect {
        scores: affect.scores.as_ref().map_or_else(Vec::new, |scores| {
            labels
                .iter()
                .map(|label| v1::EmotionScore {
                    emotion: emotion(*label).into(),
                    probability: scores.of(*label),
                })
                .collect()
        }),
        top: top.map_or(v1::Emotion::Unspecified, |(top, _)| emotion(top)).into(),
        confidence: top.map_or(0.0, |(_, p)| p),
        valence: affect.valence,
        arousal: affect.arousal,
        dimension_source: match affect.source {
            DimensionSource::Emotions => v1::DimensionSource::DerivedFromEmotions,
            DimensionSource::Model => v1::DimensionSource::Model,
        }
        .into(),
        distress: affect.distress,
    }
}

fn abstain_reason(judgement: &Judgement) -> i32 {
    match judgement.abstains {
        None => v1::AbstainReason::Unspecified,
        Some(Abstain::TooLittleSpeech) => v1::AbstainReason::TooLittleSpeech,
        Some(Abstain::Unsure) => v1::AbstainReason::Unsure,
        Some(Abstain::NoEvidence) => v1::AbstainReason::NoEvidence,
    }
    .into()
}

/// A rolling estimate.
pub fn estimate(e: &Estimate, labels: &[Emotion]) -> v1::Estimate {
    v1::Estimate {
        channel: e.channel,
        start: Some(position(e.start)),
        end: Some(position(e.end)),
        evidence_end: Some(position(e.evidence_end)),
        affect: e.judgement.affect.as_ref().map(|a| affect(a, labels)),
        abstains: e.judgement.abstains.is_some(),
        abstain_reason: abstain_reason(&e.judgement),
        speech_ratio: e.speech_ratio,
        level_dbfs: e.level_dbfs,
        speech: Some(hops(e.speech_hops)),
        utterance: e.utterance,
        escalation_severity: v1::Severity::Unspecified.into(),
        escalation_ids: Vec::new(),
    }
}

/// The highest severity of the escalations in force.
pub fn highest(highest: Option<Severity>) -> v1::Severity {
    highest.map_or(v1::Severity::Unspecified, severity)
}

/// Adds the escalations in force.
pub fn in_force(estimate: &mut v1::Estimate, highest: Option<Severity>, ids: &[uuid::Uuid]) {
    estimate.escalation_severity = self::highest(highest).into();
    estimate.escalation_ids = ids.iter().map(ToString::to_string).collect();
}

/// The end of an utterance.
pub fn utterance(u: &Utterance, labels: &[Emotion]) -> v1::Utterance {
    v1::Utterance {
        channel: u.channel,
        index: u.index,
        start: Some(position(u.start)),
        end: Some(position(u.end)),
        speech: Some(hops(u.speech_hops)),
        affect: u.judgement.affect.as_ref().map(|a| affect(a, labels)),
        abstains: u.judgement.abstains.is_some(),
        abstain_reason: abstain_reason(&u.judgement),
    }
}

/// A warning.
pub fn warning(w: &Warning) -> v1::Warning {
    v1::Warning {
        reason: match w.reason {
            WarningReason::SequenceGap => v1::warning::Reason::SequenceGap,
            WarningReason::Clipping => v1::warning::Reason::Clipping,
            WarningReason::NoSpeech => v1::warning::Reason::NoSpeech,
            WarningReason::TrailingBytes => v1::warning::Reason::TrailingBytes,
            WarningReason::EscalationsNotDurable => v1::warning::Reason::EscalationsNotDurable,
            WarningReason::EscalationsDurable => v1::warning::Reason::EscalationsDurable,
            WarningReason::EscalationLost => v1::warning::Reason::EscalationLost,
            WarningReason::BudgetSpent => v1::warning::Reason::BudgetSpent,
            WarningReason::NotAcknowledged => v1::warning::Reason::NotAcknowledged,
        }
        .into(),
        message: w.message.clone(),
        position: Some(position(w.position)),
        channel: w.channel,
    }
}

/// The echo of a mark.
pub fn mark(m: &MarkReached) -> v1::MarkReached {
    v1::MarkReached { name: m.name.clone(), position: Some(position(m.position)) }
}

/// One lane's summary.
pub fn channel_summary(s: &ChannelSummary, labels: &[Emotion]) -> v1::ChannelSummary {
    v1::ChannelSummary {
        channel: s.channel,
        speech: Some(hops(s.speech_hops)),
        utterances: s.utterances,
        affect: s.affect.as_ref().map(|a| affect(a, labels)),
        clipped_samples: s.clipped,
    }
}

/// A loaded model.
pub fn model(manifest: &Manifest, is_default: bool) -> v1::Model {
    v1::Model {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        kind: match manifest.input {
            Input::Step { .. } => v1::ModelKind::StreamingMfcc,
            Input::MfccWindow { .. } => v1::ModelKind::WindowMfcc,
            Input::WaveformWindow { .. } => v1::ModelKind::WindowWaveform,
        }
        .into(),
        description: manifest.description.clone(),
        labels: manifest.labels().iter().map(|label| emotion(*label).into()).collect(),
        training_data: manifest
            .training_data
            .iter()
            .map(|data| v1::TrainingData {
                corpus: data.corpus.clone(),
                licence: data.licence.clone(),
                commercial_use: data.commercial_use,
            })
            .collect(),
        figures: manifest.figures.iter().map(|(name, value)| (name.clone(), *value)).collect(),
        protocol: manifest.protocol.clone(),
        sha256: manifest.sha256.clone(),
        is_default,
    }
}

/// A moment.
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_seconds(),
        nanos: i32::try_from(at.0.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
    }
}

/// A severity.
pub fn severity(severity: Severity) -> v1::Severity {
    match severity {
        Severity::Advisory => v1::Severity::Advisory,
        Severity::Low => v1::Severity::Low,
        Severity::Medium => v1::Severity::Medium,
        Severity::High => v1::Severity::High,
    }
}

fn evidence(evidence: &Evidence) -> v1::Evidence {
    let seconds = |seconds: f64| Some(duration(Duration::from_secs_f64(seconds.max(0.0))));
    v1::Evidence {
        start: seconds(evidence.from_s),
        end: seconds(evidence.to_s),
        speech: seconds(evidence.speech_s),
        emotions: evidence.emotions.iter().map(|(name, p)| (name.clone(), *p)).collect(),
        distress: evidence.distress,
        valence: evidence.valence,
        arousal: evidence.arousal,
        conditions: evidence
            .conditions
            .iter()
            .map(|condition| v1::ConditionValue {
                what: condition.what.clone(),
                value: condition.value,
                on: condition.on,
                off: condition.off,
                holds: condition.holds,
            })
            .collect(),
    }
}

/// An escalation.
pub fn escalation(e: &Escalation) -> v1::Escalation {
    v1::Escalation {
        id: e.id.to_string(),
        session_id: e.session_id.clone(),
        channel: e.channel,
        labels: e.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        policy: e.policy.clone(),
        policy_version: e.policy_version.clone(),
        rule: e.rule.clone(),
        title: e.title.clone(),
        severity: severity(e.severity).into(),
        state: match e.state {
            State::Raised => v1::EscalationState::Raised,
            State::Acknowledged => v1::EscalationState::Acknowledged,
            State::Cleared => v1::EscalationState::Cleared,
        }
        .into(),
        reason: e.reason.clone(),
        model: e.model.clone(),
        model_version: e.model_version.clone(),
        onset: Some(duration(Duration::from_secs_f64(e.onset_s.max(0.0)))),
        evidence: Some(evidence(&e.evidence)),
        raised_at: Some(timestamp(e.raised_at)),
        updated_at: Some(timestamp(e.updated_at)),
        acknowledged_at: e.acknowledged_at.map(timestamp),
        acknowledged_by: e.acknowledged_by.clone().unwrap_or_default(),
        cleared_at: e.cleared_at.map(timestamp),
        session_ended_at: e.session_ended_at.map(timestamp),
        tenant: e.tenant.to_string(),
    }
}

/// What a policy has decided, as an escalation that is nobody's: without an id, labels and times.
pub fn decision(d: &Decision, policy: &Policy, model: &Manifest) -> v1::Escalation {
    v1::Escalation {
        channel: d.channel,
        policy: policy.name().to_owned(),
        policy_version: policy.version().to_owned(),
        rule: d.rule.clone(),
        title: d.title.clone(),
        severity: severity(d.severity).into(),
        state: match d.action {
            Action::Raise | Action::Update => v1::EscalationState::Raised,
            Action::Clear => v1::EscalationState::Cleared,
        }
        .into(),
        reason: d.reason.clone(),
        model: model.name.clone(),
        model_version: model.version.clone(),
        onset: Some(position(d.onset)),
        evidence: Some(evidence(&d.evidence)),
        ..v1::Escalation::default()
    }
}

/// What happened to an escalation; `durable` if it is committed.
pub fn escalation_event(o: &Occurrence, durable: bool) -> v1::EscalationEvent {
    v1::EscalationEvent {
        id: if durable { o.id.to_string() } else { String::new() },
        kind: match o.kind {
            Kind::Raised => v1::EscalationEventKind::Raised,
            Kind::Updated => v1::EscalationEventKind::Updated,
            Kind::Acknowledged => v1::EscalationEventKind::Acknowledged,
            Kind::Cleared => v1::EscalationEventKind::Cleared,
        }
        .into(),
        at: Some(timestamp(o.at)),
        actor: o.actor.clone().unwrap_or_default(),
        note: o.note.clone().unwrap_or_default(),
        escalation: Some(escalation(&o.escalation)),
        identity: o.identity.clone().unwrap_or_default(),
        durable,
    }
}

/// The way a session's audio comes in.
pub fn ingress(ingress: Ingress) -> v1::Ingress {
    match ingress {
        Ingress::Grpc => v1::Ingress::Grpc,
        Ingress::WebSocket => v1::Ingress::Websocket,
        Ingress::Twilio => v1::Ingress::Twilio,
        Ingress::AudioHook => v1::Ingress::Audiohook,
    }
}

/// Where the next page of sessions begins: behind this one.
pub fn sessions_token(last: &Place) -> String {
    let Place { ended, at, tenant, id } = last;
    let ended = if *ended { ENDED } else { "" };
    format!("{ended}{}/{tenant}/{id}", at.0.0)
}

/// Where the next page begins.
pub fn page_token(start: (Timestamp, uuid::Uuid)) -> String {
    format!("{}_{}", start.0.0, start.1)
}

/// A policy.
pub fn policy(policy: &Policy, is_default: bool) -> v1::Policy {
    v1::Policy {
        name: policy.name().to_owned(),
        version: policy.version().to_owned(),
        description: policy.description().to_owned(),
        rules: policy.explain().split("\n\n").map(|rule| rule.trim().to_owned()).collect(),
        budget: policy.budget(),
        is_default,
    }
}

/// A configuration as bytes, see [`super::parse::config_of`].
pub fn config_bytes(config: &v1::StreamConfig) -> Vec<u8> {
    prost::Message::encode_to_vec(config)
}

/// The configuration in force: what the client sent, every default filled in.
pub fn effective_config(
    asked: &v1::StreamConfig,
    settings: &StreamSettings,
    session_id: &str,
    model: &str,
) -> v1::StreamConfig {
    let analysis = &settings.analysis;
    let mut config = asked.clone();
    session_id.clone_into(&mut config.session_id);
    model.clone_into(&mut config.model);
    config.checkpoint_interval = settings.checkpoint_interval.map(duration);
    if let Some(audio) = &mut config.audio {
        audio.encoding = match settings.format.encoding {
            Encoding::Linear16 => v1::AudioEncoding::Linear16,
            Encoding::Float32 => v1::AudioEncoding::Float32,
            Encoding::MuLaw => v1::AudioEncoding::Mulaw,
            Encoding::ALaw => v1::AudioEncoding::Alaw,
        }
        .into();
        audio.channel_count = settings.format.channels.get() as u32;
        if audio.channel_roles.is_empty() {
            audio.channel_roles =
                vec![v1::ChannelRole::Subject.into(); settings.format.channels.get()];
        }
        if audio.channel_mode == i32::from(v1::ChannelMode::Unspecified) {
            audio.channel_mode = v1::ChannelMode::Mix.into();
        }
    }
    config.estimate_interval = analysis.estimate_interval.map(duration);
    config.voice_activity = Some(v1::VoiceActivityConfig {
        on_threshold: analysis.segmenter.on,
        off_threshold: analysis.segmenter.off,
        min_speech: Some(hops(analysis.segmenter.min_speech_hops)),
        hang_over: Some(hops(analysis.segmenter.hang_over_hops)),
    });
    config.events.get_or_insert_default();
    config.min_speech = Some(hops(analysis.tracker.min_speech_hops));
    config.min_confidence = Some(analysis.tracker.min_confidence);
    config
}
