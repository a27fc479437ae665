//! Every metric, span and label name, and how they leave the process.
//!
//! Metrics are OpenTelemetry's: kept in the process, read by Prometheus from the HTTP port, and pushed
//! over OTLP when an endpoint is configured. Logs and spans are `tracing`'s; spans go out over OTLP with
//! the metrics. Labels are bounded: the model's name, a stage, a reason; never a session or a client.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};

/// Seconds: 0.1 ms to 10 s, the range between one engine run and a stream that has stalled.
const SECONDS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Rows of a batch.
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The instruments. Names carry their unit the way Prometheus shows them.
#[derive(Debug)]
pub struct Metrics {
    active_streams: UpDownCounter<i64>,
    streams: Counter<u64>,
    refused: Counter<u64>,
    refused_connections: Counter<u64>,
    audio_seconds: Counter<f64>,
    chunks: Counter<u64>,
    estimates: Counter<u64>,
    abstentions: Counter<u64>,
    utterances: Counter<u64>,
    warnings: Counter<u64>,
    chunk_seconds: Histogram<f64>,
    batch_rows: Histogram<u64>,
    engine_wait: Histogram<f64>,
    engine_run: Histogram<f64>,
    model_info: Gauge<u64>,
    escalations: Counter<u64>,
    escalations_lost: Counter<u64>,
    suppressed: Counter<u64>,
    store_up: Gauge<u64>,
    store_waiting: Gauge<u64>,
    store_commit: Histogram<f64>,
    attempts: Counter<u64>,
    attempt_seconds: Histogram<f64>,
    departure: Histogram<f64>,
    delivery_lag: Histogram<f64>,
    policy_reloads: Counter<u64>,
}

impl Metrics {
    fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, what: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(what)
                .with_boundaries(SECONDS.to_vec())
                .build()
        };
        let count = |name: &'static str, what: &'static str| {
            meter.u64_counter(name).with_description(what).build()
        };
        Self {
            active_streams: meter
                .i64_up_down_counter("undertone.streams.active")
                .with_description("Streams that are open now")
                .build(),
            streams: count("undertone.streams", "Streams ended, by outcome"),
            refused: count("undertone.streams.refused", "Streams refused, by reason"),
            refused_connections: count(
                "undertone.connections.refused",
                "Connections refused or broken off, by reason",
            ),
            audio_seconds: meter
                .f64_counter("undertone.audio")
                .with_unit("s")
                .with_description("Audio analysed, per stream (not per channel)")
                .build(),
            chunks: count("undertone.chunks", "Chunks received"),
            estimates: count("undertone.estimates", "Estimates sent"),
            abstentions: count("undertone.abstentions", "Estimates that abstain, by reason"),
            utterances: count("undertone.utterances", "Utterances ended"),
            warnings: count("undertone.warnings", "Warnings sent, by reason"),
            chunk_seconds: seconds(
                "undertone.chunk.duration",
                "From a chunk's arrival in the session to its last event being queued for the client",
            ),
            batch_rows: meter
                .u64_histogram("undertone.engine.batch")
                .with_description("Rows per engine run")
                .with_boundaries(ROWS.to_vec())
                .build(),
            engine_wait: seconds("undertone.engine.wait", "From a request to the start of its run"),
            engine_run: seconds("undertone.engine.run", "One engine run"),
            model_info: meter
                .u64_gauge("undertone.model")
                .with_description("1 for each loaded model")
                .build(),
            escalations: count(
                "undertone.escalations",
                "What happened to escalations, by event and severity",
            ),
            escalations_lost: count(
                "undertone.escalations.lost",
                "Changes that could not be recorded; each is in the log",
            ),
            suppressed: count(
                "undertone.escalations.suppressed",
                "Escalations that a policy's budget swallowed",
            ),
            store_up: meter
                .u64_gauge("undertone.store.up")
                .with_description("1 while escalations are durable")
                .build(),
            store_waiting: meter
                .u64_gauge("undertone.store.waiting")
                .with_description("Changes that wait in memory for the store")
                .build(),
            store_commit: seconds("undertone.store.commit", "One transaction of the store"),
            attempts: count(
                "undertone.delivery.attempts",
                "Attempts to deliver, by sink and outcome",
            ),
            attempt_seconds: seconds("undertone.delivery.attempt", "One attempt to deliver"),
            departure: seconds(
                "undertone.delivery.departure",
                "From a decision to the start of the first attempt to deliver it",
            ),
            delivery_lag: seconds("undertone.delivery.lag", "From a decision to its arrival"),
            policy_reloads: count("undertone.policy.reloads", "Policies read anew, by outcome"),
        }
    }

    /// An engine run of `rows` rows took `run`.
    pub fn engine_batch(&self, model: &str, rows: usize, run: Duration) {
        let model = [KeyValue::new("model", model.to_owned())];
        self.batch_rows.record(rows as u64, &model);
        self.engine_run.record(run.as_secs_f64(), &model);
    }

    /// A request waited `wait` for its run.
    pub fn engine_wait(&self, model: &str, wait: Duration) {
        self.engine_wait.record(wait.as_secs_f64(), &[KeyValue::new("model", model.to_owned())]);
    }

    /// A model was loaded.
    pub fn model_loaded(&self, model: &str, version: &str) {
        let labels = [
            KeyValue::new("model", model.to_owned()),
            KeyValue::new("version", version.to_owned()),
        ];
        self.model_info.record(1, &labels);
    }

    /// A stream opened.
    pub fn stream_opened(&self) {
        self.active_streams.add(1, &[]);
    }

    /// A stream ended with `outcome`, such as "finished" or "vanished".
    pub fn stream_ended(&self, outcome: &'static str) {
        self.active_streams.add(-1, &[]);
        self.streams.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A stream was refused.
    pub fn stream_refused(&self, reason: &'static str) {
        self.refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A connection was refused or broken off before it said anything.
    pub fn connection_refused(&self, reason: &'static str) {
        self.refused_connections.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A chunk of `seconds` of audio was analysed in `took`.
    pub fn chunk(&self, seconds: f64, took: Duration) {
        self.chunks.add(1, &[]);
        self.audio_seconds.add(seconds, &[]);
        self.chunk_seconds.record(took.as_secs_f64(), &[]);
    }

    /// An estimate was sent; `abstains` is the reason if it abstains.
    pub fn estimate(&self, abstains: Option<&'static str>) {
        self.estimates.add(1, &[]);
        if let Some(reason) = abstains {
            self.abstentions.add(1, &[KeyValue::new("reason", reason)]);
        }
    }

    /// An utterance ended.
    pub fn utterance(&self) {
        self.utterances.add(1, &[]);
    }

    /// `event` happened to an escalation.
    pub fn escalation(&self, event: &'static str, severity: &'static str) {
        let labels = [KeyValue::new("event", event), KeyValue::new("severity", severity)];
        self.escalations.add(1, &labels);
    }

    /// A change could not be recorded.
    pub fn escalation_lost(&self) {
        self.escalations_lost.add(1, &[]);
    }

    /// A policy's budget swallowed escalations.
    pub fn escalations_suppressed(&self, count: u64) {
        self.suppressed.add(count, &[]);
    }

    /// Whether escalations are durable.
    pub fn store_up(&self, up: bool) {
        self.store_up.record(u64::from(up), &[]);
    }

    /// Changes wait for the store.
    pub fn store_waiting(&self, count: usize) {
        self.store_waiting.record(count as u64, &[]);
    }

    /// A transaction took `took`.
    pub fn store_commit(&self, took: Duration) {
        self.store_commit.record(took.as_secs_f64(), &[]);
    }

    /// An attempt to deliver to `sink` took `took`. Sinks are few: the delivery file names them.
    pub fn delivery_attempt(&self, sink: &str, outcome: &'static str, took: Duration) {
        let sink = KeyValue::new("sink", sink.to_owned());
        self.attempts.add(1, &[sink.clone(), KeyValue::new("outcome", outcome)]);
        self.attempt_seconds.record(took.as_secs_f64(), &[sink]);
    }

    /// The first attempt to deliver begins `after` the decision.
    pub fn delivery_departs(&self, sink: &str, after: Duration) {
        self.departure.record(after.as_secs_f64(), &[KeyValue::new("sink", sink.to_owned())]);
    }

    /// A delivery arrived `after` the decision.
    pub fn delivered(&self, sink: &str, after: Duration) {
        self.delivery_lag.record(after.as_secs_f64(), &[KeyValue::new("sink", sink.to_owned())]);
    }

    /// Policies were read anew.
    pub fn policy_reload(&self, outcome: &'static str) {
        self.policy_reloads.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A warning was sent.
    pub fn warning(&self, reason: &'static str) {
        self.warnings.add(1, &[KeyValue::new("reason", reason)]);
    }
}

/// The process's instruments, on the global meter: install the providers first, see
/// [`crate::server::observe`].
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::new(&opentelemetry::global::meter("undertone")))
}
