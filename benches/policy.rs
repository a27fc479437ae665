//! CPU time of watching a policy: what one reading costs, which comes four times a second and channel.
//!
//! `cargo bench --bench policy`. A voice that speaks two thirds of the time, windows full.
#![allow(missing_docs, clippy::expect_used, reason = "a measurement, not a library")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use undertone::emotion::{Emotion, Scores};
use undertone::policy::{Policy, Reading, Watcher, embedded};
use undertone::tracking::{Affect, DimensionSource};
use undertone::units::SamplePos;

/// Readings in half an hour.
const READINGS: u64 = 7_031;

fn affect(index: u64) -> Affect {
    let logits: [f32; 8] = std::array::from_fn(|i| ((index * 7 + i as u64 * 13) % 11) as f32 * 0.2);
    let scores = Scores::from_logits(&Emotion::ALL, &logits).expect("eight finite logits");
    let (valence, arousal) = scores.circumplex();
    let (source, distress) = (DimensionSource::Emotions, scores.distress());
    Affect { scores: Some(scores), valence, arousal, source, distress }
}

fn readings() -> Vec<Reading> {
    (0..READINGS)
        .map(|index| {
            let speaks = index % 12 < 8;
            Reading {
                channel: 0,
                end: SamplePos((index + 1) * 4096),
                hops: 16,
                voiced_hops: if speaks { 14 } else { 0 },
                affect: Some(affect(index)),
                trusted: true,
            }
        })
        .collect()
}

/// Twelve conditions in four rules, with windows of up to `longest`, which nothing here ever turns on.
fn dozen(longest: &str) -> String {
    let rule = |n: u32| {
        format!(
            "
  - name: rule-{n}
    title: Rule
    severity: low
    reason: why
    when:
      all:
        - level: {{of: distress, over: {}s, on: 1, off: 0.9}}
        - rise: {{of: agitated, over: {longest}, on: 1, off: 0.9}}
        - share: {{of: angry, at: 0.9, over: {}s, on: 1, off: 0.9}}",
            10 + n,
            20 + n
        )
    };
    let rules: Vec<String> = (0..4).map(rule).collect();
    format!(
        "schema: undertone.policy/v1\nname: dozen\nversion: '1'\ndescription: Bench.\n\
         groups: {{agitated: [angry, fear]}}\nrules:{}\n",
        rules.concat()
    )
}

fn watching(criterion: &mut Criterion) {
    let readings = readings();
    let mut group = criterion.benchmark_group("per_half_hour_of_7031_readings");
    group.sample_size(20);
    let (minute, most) = (dozen("60s"), dozen("10m"));
    let mut policies = vec![("dozen_60s", minute.as_str()), ("dozen_10m", most.as_str())];
    policies.extend(embedded());
    for (name, text) in policies {
        let policy = Arc::new(Policy::parse(text).expect("a good policy"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut watcher = Watcher::new(Arc::clone(&policy));
                let mut decisions = Vec::new();
                for reading in &readings {
                    watcher.observe(black_box(reading), &mut decisions);
                    decisions.clear();
                }
                watcher
            });
        });
    }
    group.finish();
    criterion.bench_function("parse_care_call", |bencher| {
        let text = embedded().first().map_or("", |(_, text)| *text);
        bencher.iter(|| Policy::parse(black_box(text)));
    });
}

criterion_group!(benches, watching);
criterion_main!(benches);
