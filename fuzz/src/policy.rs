//! Body of the policy target. It panics where an invariant of `undertone::policy` is broken.

use std::sync::Arc;

use undertone::emotion::{Emotion, Scores};
use undertone::policy::{Policy, Reading, Watcher};
use undertone::tracking::{Affect, DimensionSource};
use undertone::units::SamplePos;

/// Readings that a policy is tried on: half a minute.
const READINGS: u64 = 120;

/// A text: refused with a place within it, or a policy that can be explained and watched.
pub fn policy_parse(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Policy::parse(text) {
        Ok(policy) => {
            assert!(!policy.explain().is_empty());
            watch(policy);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            // The end of the text may be told as the line behind it. YAML knows more breaks than these.
            let breaks = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            assert!(usize::try_from(error.line).expect("a small number") <= breaks + 2, "{error}");
        }
    }
}

/// Anger for a while, then a pause, then calm.
fn watch(policy: Policy) {
    let budget = policy.budget();
    let mut watcher = Watcher::new(Arc::new(policy));
    let mut decisions = Vec::new();
    for index in 0..READINGS {
        let angry = if index < READINGS / 2 { 4.0 } else { -4.0 };
        let scores = Scores::from_logits(&[Emotion::Angry, Emotion::Calm], &[angry, 0.0]);
        let scores = scores.expect("two finite logits");
        let (valence, arousal) = scores.circumplex();
        let (source, distress) = (DimensionSource::Emotions, scores.distress());
        watcher.observe(
            &Reading {
                channel: 0,
                end: SamplePos((index + 1) * 4096),
                hops: 16,
                voiced_hops: if index % 40 < 30 { 16 } else { 0 },
                affect: Some(Affect { scores: Some(scores), valence, arousal, source, distress }),
                trusted: true,
            },
            &mut decisions,
        );
    }
    watcher.finish(SamplePos(READINGS * 4096), &mut decisions);
    let told = |decision: &undertone::policy::Decision| decision.reason.chars().count() <= 500;
    assert!(decisions.iter().all(told));
    assert!(watcher.spent() || watcher.suppressed() == 0, "{budget} raises");
}
