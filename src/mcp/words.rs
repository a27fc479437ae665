//! In words: what an impression says and what it does not.
//!
//! What always holds: no emotion is named without its probability; what abstains is said to abstain before anything
//! else; nothing is said of what a person feels.

use std::fmt::Write as _;

use super::course::{Course, Direction, Trend};
use super::view::{Abstention, Escalation, Impression, Likelihood, Session, Severity, State};

/// What limits everything that is heard here.
pub(super) const LIMITS: &str = "These are estimates of how speech sounds to a model, not of what a person feels, and they \
     are often wrong (undertone://models has measured figures). Microphones, rooms, languages and ages that the model \
     has not learnt from mislead it. Do not decide about a person by them alone.";

/// Below this difference of probability two emotions are told as close.
const CLOSE: f64 = 0.05;

/// What an impression comes to.
pub(super) fn impression(impression: &Impression) -> String {
    let mut words = match impression.abstains_because {
        Some(Abstention::NoEvidence) => {
            return "No estimate: nothing was heard that could be judged.".to_owned();
        }
        Some(Abstention::TooLittleSpeech) => format!(
            "No estimate yet: only {:.1} s of speech in this utterance. Do not act on its numbers.",
            impression.speech_s
        ),
        Some(Abstention::Unsure) => {
            let most = most_probable(&impression.emotions);
            return format!(
                "No estimate: no emotion is probable enough ({most}). Do not act on its numbers."
            );
        }
        None => format!("Sounds most like {}", most_probable(&impression.emotions)),
    };
    if impression.abstains_because.is_some() {
        return words;
    }
    if impression.emotions.is_empty() {
        "No emotions from this model".clone_into(&mut words);
    }
    if let Some(distress) = impression.distress {
        let _ = write!(words, "; distress {distress:.2} of 1");
    }
    if let (Some(valence), Some(arousal)) = (impression.valence, impression.arousal) {
        let _ = write!(words, "; valence {valence:+.2}, arousal {arousal:+.2} (-1 to 1)");
    }
    let _ = write!(words, "; from {:.1} s of speech.", impression.speech_s);
    words
}

/// The most probable emotion, and how far it stands out.
pub(super) fn most_probable(emotions: &[Likelihood]) -> String {
    let Some(first) = emotions.first() else {
        return "no emotions are known".to_owned();
    };
    let mut words = format!("{} with a probability of {:.2}", first.emotion, first.probability);
    if let Some(second) = emotions.get(1) {
        let close =
            if first.probability - second.probability < CLOSE { ", hardly less" } else { "" };
        let _ = write!(words, " (next: {} {:.2}{close})", second.emotion, second.probability);
    }
    if first.probability < 0.5 {
        words.push_str(", so more likely something else");
    }
    words
}

pub(super) fn severity(severity: Option<Severity>) -> &'static str {
    match severity {
        Some(Severity::Advisory) => "advisory (worth knowing; nobody needs to act)",
        Some(Severity::Low) => "low (somebody should look when they next can)",
        Some(Severity::Medium) => "medium (somebody should look soon)",
        Some(Severity::High) => "high (somebody must look now)",
        None => "unknown",
    }
}

/// Where an escalation stands, and who has it.
pub(super) fn standing(escalation: &Escalation) -> String {
    let by = escalation.acknowledged_by.as_deref();
    let taken = by.map_or_else(String::new, |by| format!(", taken on by {by}"));
    match escalation.state {
        Some(State::Raised) => "in force, and nobody has taken it on".to_owned(),
        Some(State::Acknowledged) => format!("in force{taken}"),
        Some(State::Cleared) => format!("no longer in force{taken}"),
        None => "in a state that is not known here".to_owned(),
    }
}

/// An escalation in a line.
pub(super) fn escalation_line(escalation: &Escalation) -> String {
    format!(
        "{} {:?} in session {} (tenant {}{}), severity {}, {}; raised {}: {}",
        escalation.escalation_id,
        escalation.title,
        escalation.session_id,
        escalation.tenant,
        labels(&escalation.labels),
        severity(escalation.severity),
        standing(escalation),
        escalation.raised_at.as_deref().unwrap_or("at an unknown time"),
        escalation.reason,
    )
}

fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().fold(String::new(), |mut words, (key, value)| {
        let _ = write!(words, ", {key}={value}");
        words
    })
}

/// A session in a line, and a further one for each channel.
pub(super) fn session(session: &Session) -> String {
    let mut words = format!(
        "Session {} (tenant {}{}): {:.1} s of audio, {} estimates, {}.",
        session.session_id,
        session.tenant,
        labels(&session.labels),
        session.audio_s,
        session.estimates,
        session.policy.as_deref().map_or_else(
            || "no policy, so nothing can be raised".to_owned(),
            |policy| format!("policy {policy}")
        ),
    );
    if let Some(ended_at) = &session.ended_at {
        let _ = write!(words, " It ended at {ended_at}; this is how it stood.");
    }
    if !session.escalation_ids.is_empty() {
        let ids = session.escalation_ids.join(", ");
        let _ = write!(
            words,
            " Escalations in force, the highest {}: {ids}.",
            severity(session.severity)
        );
    }
    if session.latest.is_empty() {
        words.push_str("\nNothing has been estimated yet.");
    }
    for estimate in &session.latest {
        let behind = (session.audio_s - estimate.to_s).max(0.0);
        let _ = write!(
            words,
            "\nChannel {}, as of {:.1} s ({behind:.1} s before the end of the audio so far): {}",
            estimate.channel, estimate.to_s, estimate.sounds.words
        );
    }
    words
}

fn trend(name: &str, trend: Option<&Trend>) -> String {
    let Some(trend) = trend else {
        return format!("{name} unknown");
    };
    match trend.direction {
        Direction::Unknown => format!(
            "{name} {:.2} on average, highest {:.2} at {:.0} s (too little to tell a trend)",
            trend.mean, trend.highest, trend.highest_at_s
        ),
        Direction::Steady => format!(
            "{name} steady around {:.2}, highest {:.2} at {:.0} s",
            trend.mean, trend.highest, trend.highest_at_s
        ),
        Direction::Rising | Direction::Falling => {
            let verb = if trend.direction == Direction::Rising { "rising" } else { "falling" };
            format!(
                "{name} {verb} from {:.2} to {:.2}, highest {:.2} at {:.0} s",
                trend.at_first, trend.at_last, trend.highest, trend.highest_at_s
            )
        }
    }
}

/// A channel's course.
pub(super) fn course(course: &Course) -> String {
    let usable = course.estimates - course.abstaining;
    let head = format!(
        "Channel {}, {:.0} to {:.0} s: {} estimates, of which {} abstain",
        course.channel, course.from_s, course.to_s, course.estimates, course.abstaining
    );
    if usable == 0 {
        return format!("{head}; nothing can be said of the rest.");
    }
    format!(
        "{head}. {}; {}; {}. On average {}.",
        trend("Distress (0 to 1)", course.distress.as_ref()),
        trend("valence (-1 to 1)", course.valence.as_ref()),
        trend("arousal (-1 to 1)", course.arousal.as_ref()),
        most_probable(&course.emotions),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;

    fn of(scores: &[(v1::Emotion, f32)], because: Option<Abstention>) -> String {
        let score = |&(emotion, probability): &(v1::Emotion, f32)| v1::EmotionScore {
            emotion: emotion.into(),
            probability,
        };
        let affect = v1::Affect {
            scores: scores.iter().map(score).collect(),
            distress: 0.7,
            ..v1::Affect::default()
        };
        Impression::new(Some(&affect), because, 2.34).words
    }

    #[test]
    fn an_emotion_is_named_with_its_probability_and_the_next_one() {
        let words = of(&[(v1::Emotion::Sad, 0.62), (v1::Emotion::Neutral, 0.2)], None);
        assert_eq!(
            words,
            "Sounds most like sad with a probability of 0.62 (next: neutral 0.20); distress 0.70 of 1; valence +0.00, \
             arousal +0.00 (-1 to 1); from 2.3 s of speech."
        );
    }

    #[test]
    fn what_is_improbable_or_close_is_said_to_be() {
        let words = of(&[(v1::Emotion::Sad, 0.34), (v1::Emotion::Fear, 0.3)], None);
        assert!(
            words.contains("fear 0.30, hardly less") && words.contains("something else"),
            "{words}"
        );
    }

    #[test]
    fn what_abstains_says_so_first() {
        for because in [Abstention::Unsure, Abstention::TooLittleSpeech, Abstention::NoEvidence] {
            let words = of(&[(v1::Emotion::Sad, 0.9)], Some(because));
            assert!(words.starts_with("No estimate"), "{words}");
            assert!(!words.contains("Sounds"), "{words}");
        }
    }

    #[test]
    fn a_model_of_valence_and_arousal_names_no_emotion() {
        let words = of(&[], None);
        assert!(words.starts_with("No emotions from this model; distress"), "{words}");
    }
}
