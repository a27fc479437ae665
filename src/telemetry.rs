//! Every metric, span and label name, and what is measured.
//!
//! In: what happens, told by whoever sees it, through the methods of [`Metrics`] and the functions of
//! [`trace`] and [`stage`]. Out: OpenTelemetry's instruments and spans; [`crate::server::observe`] says
//! where they go. Metrics are kept in the process, read by Prometheus from the HTTP port, and pushed over
//! OTLP when an endpoint is configured.
//!
//! Always:
//! 1. Labels are bounded: enumerations, and names that the operator has configured (models, sinks). Never a
//!    session, a client or a client's words.
//! 2. No metric carries anything of a person, and nothing carries audio or a label's value. Spans and log lines
//!    name the session, and of an escalation policy, rule and severity: who reads them learns that a rule has
//!    found somebody in need. That is deliberate: it is what operators look for.
//! 3. What happens for every chunk costs no span: stages are looked at every so many seconds, see
//!    [`stage`].
//!
//! | module | what |
//! |---|---|
//! | [`instrument`] | an instrument and its description, declared once |
//! | [`labels`] | the values that labels have |
//! | [`seldom`] | what is said now and then, however often it happens |
//! | [`trace`] | spans of calls, sessions and escalations |
//! | [`stage`] | where the time of one chunk went |
//! | [`process`] | the process itself: CPU time, memory, descriptors, threads, the runtime's workers |

pub mod instrument;
pub mod labels;
pub mod process;
pub mod seldom;
pub mod stage;
pub mod trace;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, UpDownCounter};

use instrument::instruments;

/// Seconds: 0.1 ms to 10 s, the range between one engine run and a stream that has stalled.
const SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Seconds of a call: what the conventions advise, and beyond for streams, which live for hours.
const CALL_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 60.0, 600.0,
    3600.0, 14_400.0,
];
/// Seconds until a delivery arrives: from a receiver next door to one that was away for a day.
const LAG_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
    7200.0, 86_400.0,
];
/// Rows of a batch.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Bytes of a checkpoint: 1 KiB to 1 MiB.
const BYTES: &[f64] =
    &[1024.0, 4096.0, 16_384.0, 65_536.0, 131_072.0, 262_144.0, 524_288.0, 1_048_576.0];

instruments! {
    /// The service's instruments.
    pub struct Metrics {
        calls: Histogram<f64> = "rpc.server.call.duration", "s", CALL_SECONDS,
            ["rpc.system.name", "rpc.method", "rpc.status_code", "error.type"],
            "Calls ended: unary ones and streams";
        handshakes_failed: Counter<u64> = "undertone.tls.handshake.failures", "{handshake}", [],
            ["reason"], "TLS handshakes that failed";
        authentications_failed: Counter<u64> = "undertone.auth.failures", "{call}", [],
            ["reason"], "Calls whose caller could not be identified or may not do what was asked";
        quota_refusals: Counter<u64> = "undertone.quota.refusals", "{refusal}", [],
            ["reason"], "Streams, clips and chunks refused because an identity's quota is used up";
        active_streams: UpDownCounter<i64> = "undertone.streams.active", "{stream}", [],
            [], "Streams that are open now";
        streams: Counter<u64> = "undertone.streams", "{stream}", [],
            ["outcome"], "Streams ended";
        refused: Counter<u64> = "undertone.streams.refused", "{stream}", [],
            ["call", "reason"], "Streams and clips refused, and streams ended because a quota was used up";
        active_connections: UpDownCounter<i64> = "undertone.connections.active", "{connection}", [],
            ["port"], "Connections that are open now";
        refused_connections: Counter<u64> = "undertone.connections.refused", "{connection}", [],
            ["reason"], "Connections refused, or broken off before they said anything";
        resumed: Counter<u64> = "undertone.streams.resumed", "{stream}", [],
            ["outcome"], "Streams that asked to go on where another one had ended";
        checkpoint_bytes: Histogram<u64> = "undertone.checkpoint.size", "By", BYTES,
            [], "Size of the resume tokens sent";
        audio_seconds: Counter<f64> = "undertone.audio", "s", [],
            [], "Audio analysed, per stream (not per channel)";
        hops: Counter<u64> = "undertone.hops", "{hop}", [],
            [], "Hops (16 ms) analysed, per stream (not per channel)";
        chunks: Counter<u64> = "undertone.chunks", "{chunk}", [],
            [], "Chunks analysed";
        estimates: Counter<u64> = "undertone.estimates", "{estimate}", [],
            [], "Estimates sent";
        abstentions: Counter<u64> = "undertone.abstentions", "{estimate}", [],
            ["reason"], "Estimates that abstain";
        utterances: Counter<u64> = "undertone.utterances", "{utterance}", [],
            [], "Utterances ended";
        warnings: Counter<u64> = "undertone.warnings", "{warning}", [],
            ["reason"], "Warnings sent";
        chunk_seconds: Histogram<f64> = "undertone.chunk.duration", "s", SECONDS,
            [], "From a chunk's arrival in the session to its last event being queued for the client";
        estimate_seconds: Histogram<f64> = "undertone.estimate.latency", "s", SECONDS,
            [], "From the arrival of the chunk that completes an estimate to its being queued for the client";
        batch_rows: Histogram<u64> = "undertone.engine.batch", "{row}", ROWS,
            ["model"], "Rows per engine run";
        engine_wait: Histogram<f64> = "undertone.engine.wait", "s", SECONDS,
            ["model"], "From a request to the start of its run";
        engine_run: Histogram<f64> = "undertone.engine.run", "s", SECONDS,
            ["model"], "One engine run";
        model_info: Gauge<u64> = "undertone.model", "{model}", [],
            ["model", "version"], "1 for each loaded model";
        escalations: Counter<u64> = "undertone.escalations", "{occurrence}", [],
            ["event", "severity"], "What happened to escalations";
        in_force: Gauge<u64> = "undertone.escalations.in_force", "{escalation}", [],
            ["state"], "Escalations in the store that are not cleared; all replicas see the same";
        escalations_lost: Counter<u64> = "undertone.escalations.lost", "{change}", [],
            [], "Changes that could not be recorded; each is in the log";
        suppressed: Counter<u64> = "undertone.escalations.suppressed", "{escalation}", [],
            [], "Escalations that a policy's budget swallowed";
        store_up: Gauge<u64> = "undertone.store.up", "{store}", [],
            [], "1 while escalations are durable, else 0";
        store_waiting: Gauge<u64> = "undertone.store.waiting", "{change}", [],
            [], "Changes that wait in memory for the store";
        store_commit: Histogram<f64> = "undertone.store.commit", "s", SECONDS,
            [], "One transaction of the store";
        attempts: Counter<u64> = "undertone.delivery.attempts", "{attempt}", [],
            ["sink", "outcome"], "Attempts to deliver";
        attempt_seconds: Histogram<f64> = "undertone.delivery.attempt", "s", SECONDS,
            ["sink"], "One attempt to deliver";
        departure: Histogram<f64> = "undertone.delivery.departure", "s", LAG_SECONDS,
            ["sink"], "From a decision to the start of the first attempt to deliver it";
        delivery_lag: Histogram<f64> = "undertone.delivery.lag", "s", LAG_SECONDS,
            ["sink"], "From a decision to its arrival";
        deliveries: Gauge<u64> = "undertone.delivery.outstanding", "{delivery}", [],
            ["sink", "state"], "Deliveries in the store that have not arrived; all replicas see the same";
        oldest_delivery: Gauge<f64> = "undertone.delivery.oldest", "s", [],
            ["sink"], "Age of the oldest delivery that is still to be made; 0 if there is none";
        policy_reloads: Counter<u64> = "undertone.policy.reloads", "{policy}", [],
            ["outcome"], "Policies read anew";
        secret_reloads: Counter<u64> = "undertone.secrets.reloads", "{reload}", [],
            ["kind", "outcome"], "Certificates, identities and keys that changed and were read anew";
        certificate_expiry: Gauge<u64> = "undertone.tls.certificate.expiry", "s", [],
            [], "When the certificate in force expires, in Unix time";
        exports: Counter<u64> = "undertone.telemetry.exports", "{export}", [],
            ["signal", "outcome"], "Batches of telemetry pushed to the collector";
    }
}

/// What is still to be delivered to one sink.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Outstanding {
    /// Behind an earlier one.
    pub waiting: u64,
    /// To be tried, at once or later.
    pub due: u64,
    /// Being tried.
    pub leased: u64,
    /// Given up.
    pub dead: u64,
    /// Age of the oldest that is not given up.
    pub oldest: Duration,
}

impl Metrics {
    /// What alerts wait for stands at 0 from the start: the first increase of a series that was not there is
    /// none to Prometheus.
    fn at_zero(self) -> Self {
        self.escalations_lost.add(0, &[]);
        self.suppressed.add(0, &[]);
        for reason in labels::OVERLOAD {
            let labels = [KeyValue::new("call", "stream"), KeyValue::new("reason", *reason)];
            self.refused.add(0, &labels);
        }
        for outcome in labels::BROKEN_OFF {
            self.streams.add(0, &[KeyValue::new("outcome", *outcome)]);
        }
        self.policy_reloads.add(0, &[KeyValue::new("outcome", "refused")]);
        for kind in labels::SECRETS {
            let labels = [KeyValue::new("kind", *kind), KeyValue::new("outcome", "refused")];
            self.secret_reloads.add(0, &labels);
        }
        self
    }

    /// Deliveries are made to `sink`: what alerts wait for stands at 0 from now on.
    pub fn sink(&self, sink: &str) {
        for outcome in labels::GIVEN_UP {
            let sink = KeyValue::new("sink", sink.to_owned());
            self.attempts.add(0, &[sink, KeyValue::new("outcome", *outcome)]);
        }
    }

    /// A call of `method` ended with a status such as `OK` after `took`. Both are of enumerations.
    pub fn call_ended(&self, method: &'static str, status: &'static str, took: Duration) {
        let mut labels = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method),
            KeyValue::new("rpc.status_code", status),
        ];
        if trace::is_server_fault(status) {
            labels.push(KeyValue::new("error.type", status));
        }
        self.calls.record(took.as_secs_f64(), &labels);
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A caller could not be identified, or may not do what was asked.
    pub fn authentication_failed(&self, reason: &'static str) {
        self.authentications_failed.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Something was refused because an identity's quota is used up; `reason` names the quota.
    pub fn quota_refused(&self, reason: &'static str) {
        self.quota_refusals.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A stream asked to be resumed: "resumed", the stable reason why it cannot be, or "refused" where the token
    /// is good and something else speaks against it.
    pub fn resume_asked(&self, outcome: &'static str) {
        self.resumed.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A checkpoint of `bytes` was sent.
    pub fn checkpoint(&self, bytes: usize) {
        self.checkpoint_bytes.record(bytes as u64, &[]);
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
        // Counted first: a page between the two shows the stream twice rather than nowhere.
        self.streams.add(1, &[KeyValue::new("outcome", outcome)]);
        self.active_streams.add(-1, &[]);
    }

    /// A stream was refused, or ended because a quota was used up.
    pub fn stream_refused(&self, reason: &'static str) {
        self.call_refused("stream", reason);
    }

    /// A clip was refused.
    pub fn clip_refused(&self, reason: &'static str) {
        self.call_refused("clip", reason);
    }

    fn call_refused(&self, call: &'static str, reason: &'static str) {
        let labels = [KeyValue::new("call", call), KeyValue::new("reason", reason)];
        self.refused.add(1, &labels);
    }

    /// A connection of a port of [`labels::PORTS`] was accepted.
    pub fn connection_opened(&self, port: &'static str) {
        self.active_connections.add(1, &[KeyValue::new("port", port)]);
    }

    /// One that was accepted has ended.
    pub fn connection_ended(&self, port: &'static str) {
        self.active_connections.add(-1, &[KeyValue::new("port", port)]);
    }

    /// A connection was refused or broken off before it said anything.
    pub fn connection_refused(&self, reason: &'static str) {
        self.refused_connections.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A chunk of `seconds` of audio was analysed in `took`, and completed `hops` hops.
    pub fn chunk(&self, seconds: f64, hops: u64, took: Duration) {
        self.chunks.add(1, &[]);
        self.audio_seconds.add(seconds, &[]);
        self.hops.add(hops, &[]);
        self.chunk_seconds.record(took.as_secs_f64(), &[]);
    }

    /// An estimate was sent; `abstains` is the reason if it abstains.
    pub fn estimate(&self, abstains: Option<&'static str>) {
        self.estimates.add(1, &[]);
        if let Some(reason) = abstains {
            self.abstentions.add(1, &[KeyValue::new("reason", reason)]);
        }
    }

    /// An estimate was queued for the client `after` the arrival of the chunk that completed it.
    pub fn estimate_queued(&self, after: Duration) {
        self.estimate_seconds.record(after.as_secs_f64(), &[]);
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

    /// So many escalations of the store are in this state.
    pub fn escalations_in_force(&self, state: &'static str, count: u64) {
        self.in_force.record(count, &[KeyValue::new("state", state)]);
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

    /// What is still to be delivered to `sink`.
    pub fn outstanding(&self, sink: &str, outstanding: &Outstanding) {
        let sink = KeyValue::new("sink", sink.to_owned());
        for (state, count) in [
            ("waiting", outstanding.waiting),
            ("due", outstanding.due),
            ("leased", outstanding.leased),
            ("dead", outstanding.dead),
        ] {
            self.deliveries.record(count, &[sink.clone(), KeyValue::new("state", state)]);
        }
        self.oldest_delivery.record(outstanding.oldest.as_secs_f64(), &[sink]);
    }

    /// Policies were read anew.
    pub fn policy_reload(&self, outcome: &'static str) {
        self.policy_reloads.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A secret of a `kind` of [`labels::SECRETS`] was read anew.
    pub fn secret_reload(&self, kind: &'static str, outcome: &'static str) {
        let labels = [KeyValue::new("kind", kind), KeyValue::new("outcome", outcome)];
        self.secret_reloads.add(1, &labels);
    }

    /// The certificate in force expires at `unix_seconds`.
    pub fn certificate_expires(&self, unix_seconds: u64) {
        self.certificate_expiry.record(unix_seconds, &[]);
    }

    /// A warning was sent.
    pub fn warning(&self, reason: &'static str) {
        self.warnings.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A batch of `signal` (traces, metrics, logs) was pushed, or could not be.
    pub fn exported(&self, signal: &'static str, outcome: &'static str) {
        let labels = [KeyValue::new("signal", signal), KeyValue::new("outcome", outcome)];
        self.exports.add(1, &labels);
    }
}

/// The process's instruments, on the global meter: install the providers first, see
/// [`crate::server::observe`].
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::new(&opentelemetry::global::meter("undertone")).at_zero())
}

/// All that is measured, in the order of `docs/telemetry.md`.
pub fn described() -> impl Iterator<Item = &'static instrument::Described> {
    Metrics::ALL.iter().chain(process::ALL)
}
