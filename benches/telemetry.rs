//! What telemetry costs one chunk: 10,000 of them pass every second.
//!
//! `cargo bench --bench telemetry`. Measured is all that is done for a chunk of 100 ms besides its audio: three
//! polls of the session inside its call's span, the marks of six stages, and the metrics.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tracing::Span;
use undertone::config::Settings;
use undertone::server::Observer;
use undertone::telemetry::metrics;
use undertone::telemetry::stage::{self, Stage};
use undertone::telemetry::trace::{self, SessionKind, SessionTrace};

const KIND: SessionKind<'static> = SessionKind {
    id: "bench",
    model: "m",
    policy: None,
    encoding: "linear16",
    rate_hz: 16_000,
    channels: 1,
};

fn polls(span: &Span) {
    for _ in 0..3 {
        span.in_scope(|| black_box(()));
    }
}

fn marks() {
    for _ in 0..6 {
        let began = stage::begin();
        stage::end(Stage::Features, black_box(began));
    }
}

fn chunk(span: &Span, session: &mut SessionTrace, now: Instant) {
    polls(span);
    black_box(session.wants_chunk(now));
    marks();
    metrics().chunk(0.1, 6, Duration::from_micros(90));
}

fn costs(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let settings = Settings { log: "info".to_owned(), ..Settings::default() };
    let observer = Observer::install(&settings).unwrap();
    let now = Instant::now();
    let mut group = criterion.benchmark_group("telemetry of one chunk");
    group.bench_function("metrics alone", |bench| {
        bench.iter(|| metrics().chunk(0.1, 6, Duration::from_micros(90)));
    });
    group.bench_function("marks of stages, nobody looks", |bench| bench.iter(marks));
    for (name, flags) in [("not sampled", "00"), ("sampled", "01")] {
        let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let span = trace::call("undertone.v1.EmotionService/StreamEmotion", Some(&parent), None);
        // The interval is an hour: all but the first chunk are passed over.
        let begin = || SessionTrace::begin(&KIND, Duration::from_hours(1));
        let mut session = span.in_scope(begin);
        group.bench_function(format!("polls, {name}"), |bench| bench.iter(|| polls(&span)));
        group.bench_function(format!("all, {name}"), |bench| {
            bench.iter(|| chunk(&span, &mut session, now));
        });
    }
    group.finish();
    observer.shut_down();
}

criterion_group!(telemetry, costs);
criterion_main!(telemetry);
