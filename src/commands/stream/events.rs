//! What a server says on a stream, as text or as JSON, one line per event.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::commands::client::{Response, duration};
use crate::wire::v1;

/// The lower-case name of an emotion, as everywhere else.
pub(super) fn emotion_name(emotion: v1::Emotion) -> String {
    short(emotion.as_str_name(), "EMOTION_")
}

fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// Why an estimate abstains; `None` if it does not.
pub(super) fn abstention(abstains: bool, reason: v1::AbstainReason) -> Option<String> {
    abstains.then(|| short(reason.as_str_name(), "ABSTAIN_REASON_"))
}

/// Seconds since the stream's first sample as `mm:ss.s`.
pub(super) fn clock(time: Duration) -> String {
    let tenths = time.as_millis() / 100;
    format!("{:02}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

/// Seconds, to the millisecond.
fn seconds(time: Option<prost_types::Duration>) -> f64 {
    duration(time).as_millis() as f64 / 1000.0
}

/// A score in JSON: four digits are more than a model knows.
fn score(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}

fn affect_json(affect: Option<&v1::Affect>, abstains: Option<&str>) -> Map<String, Value> {
    let mut object = Map::new();
    let probabilities: Option<BTreeMap<String, f64>> = affect.map(|affect| {
        let scores = affect.scores.iter();
        scores.map(|s| (emotion_name(s.emotion()), score(s.probability))).collect()
    });
    let top = affect.map(v1::Affect::top).filter(|top| *top != v1::Emotion::Unspecified);
    object.insert("emotion".into(), json!(top.map(emotion_name)));
    object.insert("probabilities".into(), json!(probabilities));
    object.insert("confidence".into(), json!(affect.map(|a| score(a.confidence))));
    object.insert("valence".into(), json!(affect.map(|a| score(a.valence))));
    object.insert("arousal".into(), json!(affect.map(|a| score(a.arousal))));
    object.insert("distress".into(), json!(affect.map(|a| score(a.distress))));
    object.insert("abstains".into(), json!(abstains));
    object
}

fn merge(head: Value, tail: Map<String, Value>) -> Value {
    match head {
        Value::Object(mut object) => {
            object.extend(tail);
            Value::Object(object)
        }
        other => other,
    }
}

/// One object per event, times in seconds since the stream's first sample.
pub(super) fn to_json(response: &Response) -> Value {
    match response {
        Response::Started(started) => json!({
            "event": "started",
            "session_id": started.session_id,
            "model": started.model.as_ref().map(|model| &model.name),
            "policy": started.policy.as_ref().map(|policy| &policy.name),
        }),
        Response::Estimate(e) => merge(
            json!({
                "event": "estimate",
                "channel": e.channel,
                "start": seconds(e.start),
                "end": seconds(e.end),
                "evidence_end": seconds(e.evidence_end),
                "speech": seconds(e.speech),
                "speech_ratio": score(e.speech_ratio),
                "level_dbfs": (f64::from(e.level_dbfs) * 10.0).round() / 10.0,
                "utterance": e.utterance,
                "escalations": e.escalation_ids,
            }),
            affect_json(e.affect.as_ref(), abstention(e.abstains, e.abstain_reason()).as_deref()),
        ),
        Response::Utterance(u) => merge(
            json!({
                "event": "utterance",
                "channel": u.channel,
                "index": u.index,
                "start": seconds(u.start),
                "end": seconds(u.end),
                "speech": seconds(u.speech),
            }),
            affect_json(u.affect.as_ref(), abstention(u.abstains, u.abstain_reason()).as_deref()),
        ),
        Response::Mark(mark) => json!({
            "event": "mark", "name": mark.name, "position": seconds(mark.position),
        }),
        Response::Warning(warning) => json!({
            "event": "warning",
            "reason": short(warning.reason().as_str_name(), "REASON_"),
            "message": warning.message,
            "position": seconds(warning.position),
            "channel": warning.channel,
        }),
        Response::Escalation(event) => escalation_json(event),
        Response::Checkpoint(checkpoint) => json!({
            "event": "checkpoint",
            "position": seconds(checkpoint.point.and_then(|point| point.position)),
        }),
        Response::Draining(draining) => json!({
            "event": "draining", "deadline": seconds(draining.deadline),
        }),
        Response::Finished(finished) => json!({
            "event": "finished",
            "reason": short(finished.reason().as_str_name(), "FINISH_REASON_"),
            "audio": seconds(finished.audio),
            "chunks": finished.chunks,
            "estimates": finished.estimates,
            "channels": finished.channels.iter().map(channel_json).collect::<Vec<_>>(),
        }),
    }
}

fn escalation_json(event: &v1::EscalationEvent) -> Value {
    let escalation = event.escalation.as_ref();
    json!({
        "event": "escalation",
        "kind": kind_name(event),
        "id": escalation.map(|e| &e.id),
        "severity": escalation.map(|e| severity_name(e.severity())),
        "policy": escalation.map(|e| &e.policy),
        "rule": escalation.map(|e| &e.rule),
        "reason": escalation.map(|e| &e.reason),
        "onset": escalation.map(|e| seconds(e.onset)),
        "channel": escalation.map(|e| e.channel),
        "durable": event.durable,
    })
}

fn kind_name(event: &v1::EscalationEvent) -> String {
    short(event.kind().as_str_name(), "ESCALATION_EVENT_KIND_")
}

/// The lower-case name of a severity.
pub(super) fn severity_name(severity: v1::Severity) -> String {
    short(severity.as_str_name(), "SEVERITY_")
}

/// What happened to an escalation and why, such as
/// `00:41.2  ! high raised: Distress for a while: distress is at 81 %`.
pub(super) fn escalation_text(event: &v1::EscalationEvent, several_channels: bool) -> String {
    let kind = kind_name(event);
    let Some(e) = &event.escalation else {
        return format!("escalation {kind}");
    };
    let until = e.evidence.as_ref().and_then(|evidence| evidence.end);
    let channel = channel_prefix(e.channel, several_channels);
    let by = if event.actor.is_empty() { String::new() } else { format!(" by {}", event.actor) };
    let durable = if event.durable { "" } else { " (not durable yet)" };
    let note = if event.note.is_empty() { String::new() } else { format!(" ({})", event.note) };
    format!(
        "{}  {channel}! {} {kind}{by}{durable}: {}: {}{note}",
        clock(duration(until)),
        severity_name(e.severity()),
        e.title,
        e.reason
    )
}

fn channel_json(summary: &v1::ChannelSummary) -> Value {
    merge(
        json!({
            "channel": summary.channel,
            "speech": seconds(summary.speech),
            "utterances": summary.utterances,
            "clipped_samples": summary.clipped_samples,
        }),
        affect_json(summary.affect.as_ref(), None),
    )
}

/// An emotion with its dimensions, such as
/// `angry 71 %, valence -0.41, arousal +0.62, distress 0.72`.
pub(super) fn affect_text(affect: &v1::Affect) -> String {
    let dimensions = format!(
        "valence {:+.2}, arousal {:+.2}, distress {:.2}",
        affect.valence, affect.arousal, affect.distress
    );
    match affect.top() {
        v1::Emotion::Unspecified => dimensions,
        top => format!("{} {:.0} %, {dimensions}", emotion_name(top), 100.0 * affect.confidence),
    }
}

/// Why there is no emotion, in words.
pub(super) fn abstention_text(
    affect: Option<&v1::Affect>,
    reason: v1::AbstainReason,
    speech: Duration,
) -> String {
    match reason {
        v1::AbstainReason::TooLittleSpeech => {
            format!("too little speech ({:.1} s)", speech.as_secs_f64())
        }
        v1::AbstainReason::Unsure => match affect {
            Some(affect) if affect.top() != v1::Emotion::Unspecified => {
                let (top, confidence) = (emotion_name(affect.top()), 100.0 * affect.confidence);
                format!("unsure ({top} {confidence:.0} %)")
            }
            _ => "unsure".to_owned(),
        },
        v1::AbstainReason::NoEvidence => "nothing to judge yet".to_owned(),
        v1::AbstainReason::Unspecified => "abstains".to_owned(),
    }
}

fn judged(
    affect: Option<&v1::Affect>,
    abstains: bool,
    reason: v1::AbstainReason,
    speech: Duration,
) -> String {
    match affect {
        Some(affect) if !abstains => affect_text(affect),
        _ => abstention_text(affect, reason, speech),
    }
}

/// An utterance from its start to its end, such as `00:01.2-00:03.9  angry 71 %, ...`.
pub(super) fn utterance_text(u: &v1::Utterance, several_channels: bool) -> String {
    let what = judged(u.affect.as_ref(), u.abstains, u.abstain_reason(), duration(u.speech));
    let channel = channel_prefix(u.channel, several_channels);
    format!("{}-{}  {channel}{what}", clock(duration(u.start)), clock(duration(u.end)))
}

/// How a channel is named in front of its events, where there are several.
pub(super) fn channel_prefix(channel: u32, several: bool) -> String {
    if several { format!("channel {channel}: ") } else { String::new() }
}

/// One line per event.
pub(super) fn to_text(response: &Response, several_channels: bool) -> String {
    match response {
        Response::Started(started) => {
            let model = started.model.as_ref().map_or("?", |model| model.name.as_str());
            let policy = started.policy.as_ref().map_or_else(String::new, |policy| {
                format!(", policy {} {}", policy.name, policy.version)
            });
            format!("session {} begins, model {model}{policy}", started.session_id)
        }
        Response::Estimate(e) => {
            let what =
                judged(e.affect.as_ref(), e.abstains, e.abstain_reason(), duration(e.speech));
            let channel = channel_prefix(e.channel, several_channels);
            format!(
                "{}  {channel}{what}, voice {:.0} %, {:.0} dBFS",
                clock(duration(e.end)),
                100.0 * e.speech_ratio,
                e.level_dbfs
            )
        }
        Response::Utterance(u) => format!("{} (utterance)", utterance_text(u, several_channels)),
        Response::Mark(mark) => {
            format!("{}  mark {}", clock(duration(mark.position)), mark.name)
        }
        Response::Warning(warning) => {
            let channel = warning.channel.map(|channel| channel_prefix(channel, several_channels));
            let channel = channel.unwrap_or_default();
            format!("{}  {channel}warning: {}", clock(duration(warning.position)), warning.message)
        }
        Response::Escalation(event) => escalation_text(event, several_channels),
        Response::Checkpoint(checkpoint) => {
            let position = checkpoint.point.and_then(|point| point.position);
            format!("{}  checkpoint", clock(duration(position)))
        }
        Response::Draining(_) => "the server is about to end".to_owned(),
        Response::Finished(finished) => summary(finished),
    }
}

fn summary(finished: &v1::Finished) -> String {
    let several = finished.channels.len() > 1;
    let mut text = format!(
        "{:.1} s of audio in {} chunks, {} estimates",
        seconds(finished.audio),
        finished.chunks,
        finished.estimates
    );
    for lane in &finished.channels {
        let channel = channel_prefix(lane.channel, several);
        let utterances = if lane.utterances == 1 { "utterance" } else { "utterances" };
        let heard = format!(
            "\n{channel}{:.1} s of voice in {} {utterances}",
            seconds(lane.speech),
            lane.utterances
        );
        text += &heard;
        match &lane.affect {
            Some(affect) => {
                text += "; overall ";
                text += &affect_text(affect);
            }
            None => text += "; nothing that could be judged",
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate() -> v1::Estimate {
        v1::Estimate {
            end: Some(prost_types::Duration { seconds: 61, nanos: 250_000_000 }),
            affect: Some(v1::Affect {
                scores: vec![v1::EmotionScore {
                    emotion: v1::Emotion::Angry.into(),
                    probability: 0.712_34,
                }],
                top: v1::Emotion::Angry.into(),
                confidence: 0.712_34,
                valence: -0.4,
                arousal: 0.62,
                distress: 0.72,
                ..v1::Affect::default()
            }),
            speech_ratio: 0.9,
            level_dbfs: -21.2,
            ..v1::Estimate::default()
        }
    }

    #[test]
    fn an_estimate_reads_as_a_sentence_and_as_json() {
        let mut estimate = estimate();
        let response = Response::Estimate(estimate.clone().into());
        assert_eq!(
            to_text(&response, false),
            "01:01.2  angry 71 %, valence -0.40, arousal +0.62, distress 0.72, voice 90 %, -21 dBFS"
        );
        let value = to_json(&response);
        assert_eq!(value["event"], "estimate");
        assert_eq!(value["end"], 61.25);
        assert_eq!(value["emotion"], "angry");
        assert_eq!(value["probabilities"]["angry"], 0.7123);
        assert_eq!(value["abstains"], Value::Null);
        estimate.abstains = true;
        estimate.abstain_reason = v1::AbstainReason::TooLittleSpeech.into();
        let value = to_json(&Response::Estimate(estimate.into()));
        assert_eq!(value["abstains"], "too_little_speech");
    }

    #[test]
    fn an_estimate_without_numbers_says_why() {
        let response = Response::Estimate(Box::new(v1::Estimate {
            abstains: true,
            abstain_reason: v1::AbstainReason::NoEvidence.into(),
            ..v1::Estimate::default()
        }));
        assert!(to_text(&response, true).starts_with("00:00.0  channel 0: nothing to judge yet"));
        assert_eq!(to_json(&response)["emotion"], Value::Null);
    }
}
