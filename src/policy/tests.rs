//! Claims about policies and their watcher.

mod parsing;
mod properties;
mod resuming;
mod shipped;
mod watching;

use std::sync::Arc;

use super::{Action, Decision, Policy, Reading, Watcher};
use crate::emotion::{Emotion, Scores};
use crate::tracking::{Affect, DimensionSource};
use crate::units::{HOP_SAMPLES, STEP_HOPS, SamplePos};

/// Samples of a reading.
const TICK: u64 = (STEP_HOPS * HOP_SAMPLES) as u64;

/// A policy of one rule, `body` standing in it.
fn one_rule(body: &str) -> String {
    let body = format!("    {}\n", body.trim_matches('\n').replace('\n', "\n    "));
    format!(
        "schema: undertone.policy/v1\nname: test\nversion: \"1\"\ndescription: For tests.\n\
         groups:\n  agitated: [angry, fear]\nrules:\n  - name: rule\n    title: A rule\n    \
         severity: high\n    reason: why\n{body}"
    )
}

fn watcher(text: &str) -> Watcher {
    Watcher::new(Arc::new(Policy::parse(text).unwrap_or_else(|e| panic!("{e}\n{}", e.excerpt()))))
}

/// An estimate with this much distress, half of it anger, and no valence.
fn distress(distress: f32) -> Affect {
    Affect {
        scores: Some(scores(distress / 2.0)),
        valence: 0.0,
        arousal: 0.0,
        source: DimensionSource::Emotions,
        distress,
    }
}

/// Anger at `angry`, the rest neutral.
fn scores(angry: f32) -> Scores {
    let angry = angry.clamp(1e-6, 1.0 - 1e-6);
    let logit = (angry / (1.0 - angry)).ln();
    Scores::from_logits(&[Emotion::Angry, Emotion::Neutral], &[logit, 0.0]).unwrap()
}

/// The `index`-th reading of a channel: with an estimate it is speech, without it is silence.
fn reading(channel: u32, index: u64, affect: Option<Affect>) -> Reading {
    Reading {
        channel,
        end: SamplePos((index + 1) * TICK),
        hops: 16,
        voiced_hops: if affect.is_some() { 16 } else { 0 },
        affect,
        trusted: true,
    }
}

/// What channel 0 leads to, reading by reading; `None` is silence, a number distress.
fn watch(watcher: &mut Watcher, signal: &[Option<f32>]) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (index, value) in (0..).zip(signal) {
        watcher.observe(&reading(0, index, value.map(distress)), &mut decisions);
    }
    decisions
}

/// `seconds` of one value.
fn hold(value: Option<f32>, seconds: f64) -> Vec<Option<f32>> {
    vec![value; (seconds / 0.256).round() as usize]
}

fn actions(decisions: &[Decision]) -> Vec<Action> {
    decisions.iter().map(|decision| decision.action).collect()
}
