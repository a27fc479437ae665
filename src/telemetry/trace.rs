//! Spans of calls, sessions and escalations.
//!
//! A call is one span, by OpenTelemetry's conventions for RPC; a stream's session adds what it is to it. Below
//! it stand its opening and, every so many seconds, one chunk with its stages, see [`stage`](super::stage).
//! Recording an escalation and attempts to deliver it are spans of their own traces, which may be made much
//! later and in another process: they are *linked* to what they follow from.
//!
//! Always:
//! 1. A span holds no more events than [`EVENTS`], however long its stream lives.
//! 2. Where a trace is not sampled, nothing is built for chunks and events: one look at a flag decides.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, SpanContext, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde::{Deserialize, Serialize};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::stage::Laps;

/// The name of our tracer.
pub const TRACER: &str = "undertone";
/// Events of one span at most: those of the first minutes of a lively stream, which is what one looks at.
pub const EVENTS: u32 = 64;

/// Statuses of a call that are the server's fault, by the conventions for gRPC; all others are the caller's.
pub fn is_server_fault(status: &str) -> bool {
    matches!(
        status,
        "UNKNOWN"
            | "DEADLINE_EXCEEDED"
            | "UNIMPLEMENTED"
            | "INTERNAL"
            | "UNAVAILABLE"
            | "DATA_LOSS"
    )
}

/// A span's place in its trace, as W3C's `traceparent` header: what is kept of a trace where it goes on later.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent(String);

/// Text that is no `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no traceparent of W3C's trace context")]
pub struct BadTraceParent(String);

impl TryFrom<String> for TraceParent {
    type Error = BadTraceParent;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parent = Self(text);
        if parent.context().is_valid() { Ok(parent) } else { Err(BadTraceParent(parent.0)) }
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TraceParent {
    /// Of `span`, if its trace is sampled.
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        if !context.span().span_context().is_sampled() {
            return None;
        }
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&context, &mut carrier);
        carrier.remove("traceparent").map(Self)
    }

    /// Of the current span, if its trace is sampled.
    pub fn current() -> Option<Self> {
        Self::of(&Span::current())
    }

    fn context(&self) -> SpanContext {
        remote(Some(&self.0), None).span().span_context().clone()
    }
}

/// The context that a caller's headers name; an empty one if they name none.
fn remote(traceparent: Option<&str>, tracestate: Option<&str>) -> Context {
    let headers = [("traceparent", traceparent), ("tracestate", tracestate)];
    let carrier: HashMap<String, String> = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// The span of one call. Its parent is what the caller's headers say, and so is whether it is sampled.
pub fn call(method: &'static str, traceparent: Option<&str>, tracestate: Option<&str>) -> Span {
    let span = incoming(method, traceparent, tracestate);
    span.set_attribute("rpc.system.name", "grpc");
    span
}

/// The span of a stream over WebSocket, which is named after its path.
pub fn socket(path: &'static str, traceparent: Option<&str>, tracestate: Option<&str>) -> Span {
    let span = incoming(path, traceparent, tracestate);
    span.set_attribute("network.protocol.name", "websocket");
    span
}

fn incoming(method: &'static str, traceparent: Option<&str>, tracestate: Option<&str>) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "call",
        otel.kind = "server",
        otel.name = method,
        otel.status_code = field::Empty,
        rpc.method = method,
        session.id = field::Empty,
        undertone.model = field::Empty,
    );
    if traceparent.is_some() {
        let parent = remote(traceparent, tracestate);
        if parent.span().span_context().is_valid() {
            // Refused only where spans are switched off.
            let _ = span.set_parent(parent);
        }
    }
    span
}

/// The call ended with a status such as `OK`.
pub fn call_ended(span: &Span, status: &'static str) {
    span.set_attribute("rpc.status_code", status);
    if is_server_fault(status) {
        span.record("otel.status_code", "ERROR");
        span.set_attribute("error.type", status);
    }
}

/// What a session is. Its name, and those of its policy where that came with the stream, are its client's
/// own words: they stand in spans and log lines, never in metrics.
#[derive(Debug)]
pub struct SessionKind<'a> {
    /// Its name.
    pub id: &'a str,
    /// The model's.
    pub model: &'a str,
    /// The policy's, if it has one.
    pub policy: Option<&'a str>,
    /// How its audio is coded.
    pub encoding: &'static str,
    /// Samples per second.
    pub rate_hz: u32,
    /// Input channels.
    pub channels: u32,
}

/// One session's part in its call's span.
#[derive(Debug)]
pub struct SessionTrace {
    span: Span,
    sampled: bool,
    interval: Duration,
    next_chunk: Option<Instant>,
    next_estimate: Option<Instant>,
    events: u32,
}

impl SessionTrace {
    /// Of the session that runs in the current span. A chunk is looked at every `interval`.
    pub fn begin(kind: &SessionKind<'_>, interval: Duration) -> Self {
        let span = Span::current();
        span.record("session.id", kind.id);
        span.record("undertone.model", kind.model);
        let sampled = span.context().span().span_context().is_sampled();
        if sampled {
            if let Some(policy) = kind.policy {
                span.set_attribute("undertone.policy", policy.to_owned());
            }
            span.set_attribute("undertone.audio.encoding", kind.encoding);
            span.set_attribute("undertone.audio.sample_rate", i64::from(kind.rate_hz));
            span.set_attribute("undertone.audio.channels", i64::from(kind.channels));
        }
        Self { span, sampled, interval, next_chunk: None, next_estimate: None, events: 0 }
    }

    /// The session is open; it `began` to be opened then.
    pub fn opened(&self, began: SystemTime) {
        if self.sampled {
            let tracer = global::tracer(TRACER);
            let opening = tracer.span_builder("open").with_start_time(began);
            opening.start_with_context(&tracer, &self.span.context()).end();
        }
    }

    /// Whether the chunk that has arrived is to be looked at.
    pub fn wants_chunk(&mut self, now: Instant) -> bool {
        self.sampled && due(&mut self.next_chunk, now, self.interval)
    }

    /// A chunk of `bytes` that was looked at, with its stages.
    pub fn chunk(&self, bytes: usize, laps: &Laps) {
        let tracer = global::tracer(TRACER);
        let chunk = tracer
            .span_builder("chunk")
            .with_start_time(laps.began())
            .with_attributes([KeyValue::new("undertone.chunk.size", bytes as i64)])
            .start_with_context(&tracer, &self.span.context());
        let context = self.span.context().with_span(chunk);
        for (stage, from, to) in laps.iter() {
            tracer
                .span_builder(stage.name())
                .with_start_time(from)
                .start_with_context(&tracer, &context)
                .end_with_timestamp(to);
        }
        context.span().end_with_timestamp(laps.ended());
    }

    /// An estimate was sent; every so often one is an event.
    pub fn estimate(&mut self, channel: u32, abstains: Option<&'static str>) {
        if self.sampled && due(&mut self.next_estimate, Instant::now(), self.interval) {
            let mut attributes = vec![KeyValue::new("undertone.channel", i64::from(channel))];
            attributes.extend(abstains.map(|why| KeyValue::new("undertone.abstains", why)));
            self.event("estimate", attributes);
        }
    }

    /// An utterance ended, `speech_s` seconds of it speech.
    pub fn utterance(&mut self, channel: u32, speech_s: f64) {
        if self.sampled {
            let attributes = vec![
                KeyValue::new("undertone.channel", i64::from(channel)),
                KeyValue::new("undertone.speech", speech_s),
            ];
            self.event("utterance", attributes);
        }
    }

    /// A warning was sent.
    pub fn warning(&mut self, reason: &'static str) {
        if self.sampled {
            self.event("warning", vec![KeyValue::new("undertone.reason", reason)]);
        }
    }

    fn event(&mut self, name: &'static str, attributes: Vec<KeyValue>) {
        self.events = self.events.saturating_add(1);
        if self.events <= EVENTS {
            self.span.add_event(name, attributes);
        }
    }

    /// The session has come to its end after so much.
    pub fn ended(&self, chunks: u64, estimates: u64, audio_s: f64) {
        if !self.sampled {
            return;
        }
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.span.set_attribute("undertone.chunks", whole(chunks));
        self.span.set_attribute("undertone.estimates", whole(estimates));
        self.span.set_attribute("undertone.audio.duration", audio_s);
        let left_out = self.events.saturating_sub(EVENTS);
        self.span.set_attribute("undertone.events.left_out", i64::from(left_out));
    }
}

/// Whether it is time again; if so, the next time is `interval` later.
fn due(next: &mut Option<Instant>, now: Instant, interval: Duration) -> bool {
    if next.is_some_and(|next| now < next) {
        return false;
    }
    *next = now.checked_add(interval);
    true
}

/// The stream in the current span ended with `outcome`, as in the metrics.
pub fn stream_ended(outcome: &'static str) {
    Span::current().set_attribute("undertone.outcome", outcome);
}

/// The span of recording `event` of an escalation. Linked to the current span, which is its session's or that
/// of the call that acknowledges.
pub fn recording(event: &'static str, rule: Option<(&str, &str)>) -> Span {
    let from = Span::current().context().span().span_context().clone();
    let span = tracing::info_span!(
        parent: None,
        "escalation",
        otel.kind = "producer",
        otel.name = "record escalation",
        undertone.escalation.event = event,
        otel.status_code = field::Empty,
    );
    span.add_link(from);
    if let Some((policy, rule)) = rule {
        span.set_attribute("undertone.policy", policy.to_owned());
        span.set_attribute("undertone.rule", rule.to_owned());
    }
    span
}

/// How recording ended: "durable", "waiting" or "lost".
pub fn recorded(span: &Span, outcome: &'static str) {
    span.set_attribute("undertone.outcome", outcome);
    if outcome == "lost" {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of the `attempt`th attempt to deliver `event` to `sink`. Linked to where it was recorded; none, where
/// that is in no trace.
pub fn delivery(
    sink: &str,
    event: &'static str,
    attempt: u32,
    recorded: Option<&TraceParent>,
) -> Span {
    let Some(recorded) = recorded else {
        return Span::none();
    };
    let span = tracing::info_span!(
        parent: None,
        "delivery",
        otel.kind = "client",
        otel.name = "deliver escalation",
        undertone.sink = sink,
        undertone.escalation.event = event,
        otel.status_code = field::Empty,
    );
    span.set_attribute("undertone.attempt", i64::from(attempt));
    span.add_link(recorded.context());
    span
}

/// How an attempt ended: "delivered", "retry", "dead" or "gone".
pub fn delivery_ended(span: &Span, outcome: &'static str) {
    span.set_attribute("undertone.outcome", outcome);
    if outcome != "delivered" {
        span.record("otel.status_code", "ERROR");
    }
}

/// The context of a span that is open, for whoever logs in it.
pub fn context_of(span: &tracing::span::Id) -> Option<Context> {
    tracing::dispatcher::get_default(|dispatch| {
        tracing_opentelemetry::get_otel_context(span, dispatch)
    })
}

/// Its trace and span as lower-case hexadecimal numbers.
pub fn ids(context: &Context) -> Option<(String, String)> {
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| (context.trace_id().to_string(), context.span_id().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_kept_as_it_is_and_nothing_else_passes_for_one() {
        let parent = TraceParent::try_from(PARENT.to_owned()).unwrap();
        assert_eq!(parent.to_string(), PARENT);
        assert!(parent.context().is_sampled() && parent.context().is_remote());
        for wrong in ["", "00", "00-0-0-0", &PARENT.replace('a', "g"), "a\nb"] {
            assert!(TraceParent::try_from(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_sampled_trace_there_is_no_traceparent() {
        assert_eq!(TraceParent::current(), None);
        assert_eq!(TraceParent::of(&call("a/B", Some(PARENT), None)), None);
    }

    #[test]
    fn something_is_due_once_an_interval() {
        let (mut next, start) = (None, Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        let ten = Duration::from_secs(10);
        let found: Vec<bool> =
            [0, 1, 9, 10, 11, 25].iter().map(|s| due(&mut next, at(*s), ten)).collect();
        assert_eq!(found, [true, false, false, true, false, true]);
    }
}
