//! Occurrences that could have been: to check templates with and to try sinks out.

use std::collections::BTreeMap;

use crate::escalation::life::{
    Escalation, Kind, Occurrence, State, Timestamp, escalation_id, occurrence_id,
};
use crate::identity::Tenant;
use crate::policy::{Evidence, Measurement, Severity};
use crate::units::SamplePos;

/// When the sample's escalation was raised, unless somebody says: 2026-03-01 14:07:31 UTC.
pub const SAMPLE_TIME: Timestamp = Timestamp(1_772_374_051_250_000);

/// An occurrence of `kind` in the session `session_id`, `at` a time, with every field filled that it
/// can have. The same arguments give the same occurrence.
pub fn sample(kind: Kind, session_id: &str, at: Timestamp) -> Occurrence {
    let onset = SamplePos(30_208);
    let id = escalation_id(session_id, "care-call", "sustained-distress", 0, onset, 0);
    let position = (kind == Kind::Updated).then_some(SamplePos(320_000));
    let acknowledged = matches!(kind, Kind::Acknowledged | Kind::Cleared);
    let note = match kind {
        Kind::Raised => None,
        Kind::Updated => Some("still in force"),
        Kind::Acknowledged => Some("on my way"),
        Kind::Cleared => Some("below its threshold for 20 s"),
    };
    Occurrence {
        id: occurrence_id(id, kind, position),
        sequence: 1,
        kind,
        at,
        actor: (kind == Kind::Acknowledged).then(|| "nurse.meier".to_owned()),
        identity: (kind == Kind::Acknowledged).then(|| "ward-7-console".to_owned()),
        note: note.map(str::to_owned),
        traceparent: None,
        escalation: Escalation {
            id,
            tenant: Tenant::default(),
            session_id: session_id.to_owned(),
            channel: 0,
            labels: labels(),
            policy: "care-call".to_owned(),
            policy_version: "3-9f2c41d0".to_owned(),
            rule: "sustained-distress".to_owned(),
            title: "Sustained distress".to_owned(),
            severity: Severity::High,
            state: match kind {
                Kind::Raised | Kind::Updated => State::Raised,
                Kind::Acknowledged => State::Acknowledged,
                Kind::Cleared => State::Cleared,
            },
            reason: "distress at 0.81 on average over 10 s (threshold 0.65)".to_owned(),
            model: "undertone-four".to_owned(),
            model_version: "0.5.1".to_owned(),
            onset_s: onset.seconds(),
            evidence: evidence(),
            raised_at: at,
            updated_at: at,
            acknowledged_at: acknowledged.then_some(at),
            acknowledged_by: acknowledged.then(|| "nurse.meier".to_owned()),
            cleared_at: (kind == Kind::Cleared).then_some(at),
            session_ended_at: None,
            clears_at_end: false,
            broke_off: false,
        },
    }
}

fn labels() -> BTreeMap<String, String> {
    [("patient", "example-patient"), ("encounter", "example-encounter"), ("ward", "7")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn evidence() -> Evidence {
    Evidence {
        from_s: 5.12,
        to_s: 15.12,
        speech_s: 7.3,
        emotions: [
            ("neutral", 0.06),
            ("calm", 0.01),
            ("happy", 0.02),
            ("sad", 0.24),
            ("angry", 0.13),
            ("fear", 0.41),
            ("disgust", 0.06),
            ("surprise", 0.07),
        ]
        .map(|(name, score)| (name.to_owned(), score))
        .into(),
        distress: Some(0.81),
        valence: Some(-0.55),
        arousal: Some(0.38),
        conditions: vec![Measurement {
            what: "mean of distress over 10 s".to_owned(),
            value: Some(0.81),
            on: 0.65,
            off: 0.45,
            holds: true,
        }],
    }
}
