//! With an OTLP endpoint configured, spans, metrics and logs arrive there; without a collector behind it, nothing
//! is held up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};
use undertone::wire::v1;
use undertone::wire::v1::stream_config::Policy;
use undertone::wire::v1::stream_emotion_request::Message;

use crate::process::Process;
use crate::signal::{encode, speech};
use crate::support::{Answer, Client, PLAIN, chunks, read, stream, until, wrap};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// What a collector has received.
#[derive(Clone, Default)]
struct Received {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    logs: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
    headers: Arc<Mutex<Vec<MetadataMap>>>,
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.headers.lock().unwrap().push(request.metadata().clone());
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.logs.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Received {
    fn spans(&self) -> Vec<Span> {
        let traces = self.traces.lock().unwrap();
        let resources = traces.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn records(&self) -> Vec<LogRecord> {
        let logs = self.logs.lock().unwrap();
        let resources = logs.iter().flat_map(|request| &request.resource_logs);
        let scopes = resources.flat_map(|resource| &resource.scope_logs);
        scopes.flat_map(|scope| scope.log_records.clone()).collect()
    }

    fn instruments(&self) -> BTreeMap<String, Metric> {
        let metrics = self.metrics.lock().unwrap();
        let resources = metrics.iter().flat_map(|request| &request.resource_metrics);
        let scopes = resources.flat_map(|resource| &resource.scope_metrics);
        scopes
            .flat_map(|scope| scope.metrics.clone())
            .map(|metric| (metric.name.clone(), metric))
            .collect()
    }
}

/// A collector on loopback.
struct Collector {
    received: Received,
    address: String,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Collector {
    async fn start() -> Self {
        Self::with(None).await
    }

    async fn with(tls: Option<ServerTlsConfig>) -> Self {
        let received = Received::default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let services = server
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(MetricsServiceServer::new(received.clone()))
            .add_service(LogsServiceServer::new(received.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self { received, address, serving: tokio::spawn(services) }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::DoubleValue(number) => Some(number.to_string()),
        Value::BoolValue(yes) => Some(yes.to_string()),
        _ => None,
    };
    let named = |attribute: &KeyValue| Some((attribute.key.clone(), text(attribute)?));
    attributes.iter().filter_map(named).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[track_caller]
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name}: {:?}", spans.iter().map(|s| &s.name).collect::<Vec<_>>());
    found[0]
}

/// A stream of two seconds of speech whose caller has a span. Chunks come 12 ms apart.
async fn traced_stream(client: &Client, config: v1::StreamConfig, flags: &str) -> Answer {
    let data = encode(&speech(1, 2.0, 16_000), PLAIN.encoding);
    let (sender, inbox) = tokio::sync::mpsc::channel(4);
    let sending = tokio::spawn(async move {
        sender.send(wrap(Message::Config(config.into()))).await.unwrap();
        for chunk in chunks(&data, 3_200) {
            sender.send(wrap(chunk)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(12)).await;
        }
    });
    let mut request = Request::new(ReceiverStream::new(inbox));
    let parent = format!("00-{TRACE}-{CALLER}-{flags}").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    request.metadata_mut().insert("tracestate", "vendor=value".parse().unwrap());
    let answer = client.clone().stream_emotion(request).await.unwrap().into_inner();
    let answer = read(answer).await.fine();
    sending.await.unwrap();
    answer
}

async fn end(process: &mut Process) {
    // What is still held back is sent at the end.
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.0.code(), Some(0), "{}", process.log());
}

#[tokio::test]
async fn a_stream_is_one_span_below_its_callers_with_its_opening_and_some_chunks_below_it() {
    let collector = Collector::start().await;
    let mut process = Process::start(&[
        "--otlp-endpoint",
        &collector.endpoint(),
        "--otlp-headers",
        "x-team=ward",
        "--trace-stage-interval",
        "10ms",
        // Spans do not depend on what is logged.
        "--log",
        "warn,undertone::commands=info",
    ])
    .await;
    let config = v1::StreamConfig {
        session_id: "traced".to_owned(),
        labels: [("ward".to_owned(), "planted-7".to_owned())].into(),
        ..PLAIN.config()
    };
    let client = process.client().await;
    let answer = traced_stream(&client, config, "01").await;
    client.clone().list_models(v1::ListModelsRequest {}).await.unwrap();
    drop(client);
    end(&mut process).await;

    let spans = collector.received.spans();
    let call = one(&spans, "undertone.v1.EmotionService/StreamEmotion");
    assert_eq!(hex(&call.trace_id), TRACE);
    assert_eq!(hex(&call.parent_span_id), CALLER);
    assert_eq!(call.trace_state, "vendor=value");
    assert_eq!(call.kind(), SpanKind::Server);
    assert_eq!(call.status.clone().unwrap_or_default().code(), StatusCode::Unset);
    assert!(call.end_time_unix_nano > call.start_time_unix_nano);
    let found = attributes(&call.attributes);
    for (name, expected) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "undertone.v1.EmotionService/StreamEmotion"),
        ("rpc.status_code", "OK"),
        ("session.id", "traced"),
        ("undertone.model", "tiny-steps"),
        ("undertone.audio.encoding", "linear16"),
        ("undertone.audio.sample_rate", "16000"),
        ("undertone.audio.channels", "1"),
        ("undertone.outcome", "finished"),
        ("undertone.chunks", "20"),
        ("undertone.estimates", &answer.estimates().len().to_string()),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(expected), "{name}: {found:?}");
    }
    let events: Vec<&str> = call.events.iter().map(|event| event.name.as_str()).collect();
    assert!(events.contains(&"estimate") && events.contains(&"utterance"), "{events:?}");

    let below = |parent: &Span, child: &Span| {
        child.parent_span_id == parent.span_id && child.trace_id == parent.trace_id
    };
    assert!(below(call, one(&spans, "open")));
    let looked_at = named(&spans, "chunk");
    assert!((1..=20).contains(&looked_at.len()), "{}", looked_at.len());
    assert!(looked_at.iter().all(|chunk| below(call, chunk)));
    for stage in ["features", "engine wait", "engine run", "send"] {
        let stages = named(&spans, stage);
        assert!(!stages.is_empty(), "{stage}");
        let in_a_chunk = |stage: &&Span| {
            looked_at.iter().any(|chunk| {
                below(chunk, stage)
                    && stage.start_time_unix_nano >= chunk.start_time_unix_nano
                    && stage.end_time_unix_nano <= chunk.end_time_unix_nano + 1_000_000
            })
        };
        assert!(stages.iter().all(in_a_chunk), "{stage}");
    }
    // A call without a caller's span begins a trace.
    let listed = one(&spans, "undertone.v1.EmotionService/ListModels");
    assert!(listed.parent_span_id.is_empty() && listed.trace_id != call.trace_id);
    let text = format!("{spans:?}");
    assert!(!text.contains("planted-7"), "a label's value");
    let headers = collector.received.headers.lock().unwrap();
    assert_eq!(headers[0].get("x-team").unwrap(), "ward");
    assert!(!process.log().contains("x-team=ward"));
}

#[tokio::test]
async fn a_caller_that_does_not_sample_is_not_recorded_but_its_trace_is_in_the_log() {
    let collector = Collector::start().await;
    let mut process = Process::start(&[
        "--otlp-endpoint",
        &collector.endpoint(),
        "--trace-stage-interval",
        "10ms",
        "--log",
        "info,undertone=debug",
    ])
    .await;
    let client = process.client().await;
    traced_stream(&client, PLAIN.config(), "00").await;
    // Ends badly, which is logged inside the call.
    let empty = stream(&client, v1::StreamConfig::default(), []).await;
    assert!(empty.status.is_some());
    let mut request =
        Request::new(tokio_stream::iter([wrap(Message::Audio(v1::AudioChunk::default()))]));
    let parent = format!("00-{TRACE}-{CALLER}-00").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    let answer = client.clone().stream_emotion(request).await.unwrap().into_inner();
    assert!(read(answer).await.status.is_some());
    drop(client);
    end(&mut process).await;

    let spans = collector.received.spans();
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE), "{spans:?}");
    let lines: Vec<serde_json::Value> =
        process.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["trace_id"] == TRACE).expect("a line of the call");
    let span_id = line["span_id"].as_str().unwrap();
    assert!(span_id.len() == 16 && span_id != CALLER, "{line}");
    assert_eq!(line["span"]["rpc.method"], "undertone.v1.EmotionService/StreamEmotion", "{line}");
    let at = line["timestamp"].as_str().unwrap();
    assert!(humantime::parse_rfc3339(at).is_ok(), "{at}");
    assert_eq!(line["level"], "DEBUG");
    assert!(line["fields"]["message"].is_string());

    // The same line, at the collector.
    let records = collector.received.records();
    let record = records.iter().find(|record| hex(&record.trace_id) == TRACE).expect("a record");
    assert_eq!(hex(&record.span_id), span_id);
    let body = record.body.clone().and_then(|body| body.value);
    let message = line["fields"]["message"].as_str().unwrap().to_owned();
    assert_eq!(body, Some(Value::StringValue(message)));
}

#[tokio::test]
async fn a_ratio_of_nothing_records_no_trace_of_callers_that_do_not_say() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let mut process = Process::start(&["--otlp-endpoint", &endpoint, "--trace-ratio", "0"]).await;
    let client = process.client().await;
    client.clone().list_models(v1::ListModelsRequest {}).await.unwrap();
    traced_stream(&client, PLAIN.config(), "01").await;
    drop(client);
    end(&mut process).await;
    let spans = collector.received.spans();
    assert!(!spans.is_empty() && spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

#[tokio::test]
async fn metrics_have_units_and_everything_says_who_sent_it() {
    let collector = Collector::start().await;
    let mut process = Process::start(&[
        "--otlp-endpoint",
        &collector.endpoint(),
        "--replica",
        "undertone-0",
        "--resource-attributes",
        "deployment.environment.name=test",
    ])
    .await;
    let client = process.client().await;
    traced_stream(&client, PLAIN.config(), "01").await;
    drop(client);
    end(&mut process).await;

    let received = &collector.received;
    let metrics = received.metrics.lock().unwrap()[0].resource_metrics[0].resource.clone();
    let traces = received.traces.lock().unwrap()[0].resource_spans[0].resource.clone();
    let logs = received.logs.lock().unwrap()[0].resource_logs[0].resource.clone();
    for resource in [metrics, traces, logs] {
        let resource = resource.unwrap();
        let found = attributes(&resource.attributes);
        for (name, expected) in [
            ("service.name", "undertone"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", "undertone-0"),
            ("deployment.environment.name", "test"),
            ("process.pid", &process.id().to_string()),
            ("process.executable.name", "undertone"),
        ] {
            assert_eq!(found.get(name).map(String::as_str), Some(expected), "{name}: {found:?}");
        }
        assert!(found.contains_key("host.name") && !found.contains_key("process.command_args"));
    }
    let instruments = received.instruments();
    for (name, unit) in [
        ("rpc.server.call.duration", "s"),
        ("undertone.streams", "{stream}"),
        ("undertone.audio", "s"),
        ("undertone.hops", "{hop}"),
        ("undertone.chunk.duration", "s"),
        ("undertone.estimate.latency", "s"),
        ("undertone.engine.batch", "{row}"),
        ("undertone.engine.run", "s"),
        ("process.cpu.time", "s"),
        ("process.memory.usage", "By"),
        ("process.unix.file_descriptor.count", "{file_descriptor}"),
        ("process.thread.count", "{thread}"),
        ("process.uptime", "s"),
        ("undertone.runtime.busy", "s"),
    ] {
        let metric = instruments.get(name).unwrap_or_else(|| panic!("{name}: {instruments:?}"));
        assert_eq!(metric.unit, unit, "{name}");
        assert!(!metric.description.is_empty(), "{name}");
    }
    // Everything that is pushed is documented, and has the unit that it is said to have.
    for (name, metric) in &instruments {
        let described = undertone::telemetry::described().find(|known| known.name == name);
        assert_eq!(described.map(|known| known.unit), Some(metric.unit.as_str()), "{name}");
    }
}

/// A rule that speaks up after a second without voice.
pub(crate) const QUIET: &str = "
schema: undertone.policy/v1
name: quiet
version: '1'
description: For tests.
rules:
  - name: quiet
    title: Nobody speaks
    severity: medium
    when: {silence: {for: 1s}}
    clear_after: 0s
    reason: 'no voice'
";

/// A receiver of webhooks that keeps the headers it sees.
async fn webhooks() -> (String, Arc<Mutex<Vec<HeaderMap>>>, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let app = axum::Router::new().fallback(async move |headers: HeaderMap| {
        kept.lock().unwrap().push(headers);
    });
    let serve = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, seen, serve)
}

#[tokio::test]
async fn an_escalation_is_linked_to_its_session_and_its_delivery_to_it() {
    let collector = Collector::start().await;
    let (hook, seen, serve) = webhooks().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let delivery = format!(
        "schema: undertone.delivery/v1\nsinks:\n  - name: ward\n    webhook: {{url: \
         'http://{hook}/', allow_private: true, secrets: [{{file: '{}'}}]}}\n",
        path("secret")
    );
    std::fs::write(path("delivery.yaml"), delivery).unwrap();
    let mut process = Process::start(&[
        "--otlp-endpoint",
        &collector.endpoint(),
        "--escalation-store",
        &format!("sqlite:{}", path("store.db")),
        "--delivery",
        &path("delivery.yaml"),
        "--delivery-poll",
        "20ms",
    ])
    .await;
    let client = process.client().await;
    let config =
        v1::StreamConfig { policy: Some(Policy::PolicyYaml(QUIET.to_owned())), ..PLAIN.config() };
    let mut samples = vec![0.0; 2 * 16_000];
    samples.extend(speech(1, 2.0, 16_000));
    let data = encode(&samples, PLAIN.encoding);
    let messages = std::iter::once(Message::Config(config.into())).chain(chunks(&data, 3_200));
    let messages: Vec<_> = messages.map(wrap).collect();
    let mut request = Request::new(tokio_stream::iter(messages));
    let parent = format!("00-{TRACE}-{CALLER}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    let answer = read(client.clone().stream_emotion(request).await.unwrap().into_inner()).await;
    let told = answer.fine().escalations().len();
    assert!(told >= 2, "raised and cleared");
    until("all is delivered", async || seen.lock().unwrap().len() >= told).await;
    drop(client);
    end(&mut process).await;
    serve.abort();

    let spans = collector.received.spans();
    let call = one(&spans, "undertone.v1.EmotionService/StreamEmotion");
    let recorded = named(&spans, "record escalation");
    assert_eq!(recorded.len(), told);
    for record in &recorded {
        assert!(record.parent_span_id.is_empty() && record.trace_id != call.trace_id);
        assert_eq!(record.links.len(), 1);
        assert_eq!(record.links[0].span_id, call.span_id);
        assert_eq!(record.links[0].trace_id, call.trace_id);
        let found = attributes(&record.attributes);
        assert_eq!(found["undertone.rule"], "quiet");
        assert_eq!(found["undertone.outcome"], "durable");
    }
    let delivered = named(&spans, "deliver escalation");
    assert_eq!(delivered.len(), told);
    for attempt in &delivered {
        assert_eq!(attempt.kind(), SpanKind::Client);
        let link = &attempt.links[0];
        assert!(recorded.iter().any(|record| record.span_id == link.span_id));
        let found = attributes(&attempt.attributes);
        assert_eq!((&*found["undertone.sink"], &*found["undertone.attempt"]), ("ward", "1"));
        assert_eq!(found["undertone.outcome"], "delivered");
        // The receiver can go on with the attempt's trace.
        let parent = format!("00-{}-{}-01", hex(&attempt.trace_id), hex(&attempt.span_id));
        let seen = seen.lock().unwrap();
        assert!(seen.iter().any(|headers| headers["traceparent"] == parent), "{parent}: {seen:?}");
    }
}

#[tokio::test]
async fn an_https_collector_is_trusted_by_its_own_authority_and_by_no_other() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, key));
    let collector = Collector::with(Some(tls)).await;
    let port = collector.address.rsplit(':').next().unwrap();
    let endpoint = format!("https://localhost:{port}");
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate).unwrap();
    let ca = ca.display().to_string();
    for trust in [&["--otlp-ca", &ca][..], &[]] {
        let args = [&["--otlp-endpoint", endpoint.as_str()][..], trust].concat();
        let mut process = Process::start(&args).await;
        let client = process.client().await;
        client.clone().list_models(v1::ListModelsRequest {}).await.unwrap();
        drop(client);
        end(&mut process).await;
        let spans = std::mem::take(&mut *collector.received.traces.lock().unwrap());
        assert_eq!(spans.is_empty(), trust.is_empty(), "{}", process.log());
    }
}

#[tokio::test]
async fn a_collector_that_is_away_or_says_nothing_holds_nothing_up_and_is_told_of_once() {
    // Takes connections and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let away_port = crate::database::free_port();
    for port in [away_port, silent_port] {
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut process = Process::start(&[
            "--otlp-endpoint",
            &endpoint,
            "--otlp-timeout",
            "500ms",
            "--log",
            "debug",
        ])
        .await;
        let client = process.client().await;
        for _ in 0..3 {
            traced_stream(&client, PLAIN.config(), "01").await;
        }
        let complains = || process.log().matches("telemetry does not reach the collector").count();
        until("it is noticed", async || complains() > 0).await;
        drop(client);
        let began = Instant::now();
        process.signal(Signal::TERM);
        assert_eq!(process.ended().await.0.code(), Some(0), "{}", process.log());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
        // Once for each of the three signals at most, however often it was tried.
        let complaints = process.log().matches("telemetry does not reach the collector").count();
        assert!((1..=3).contains(&complaints), "{complaints}: {}", process.log());
    }
}
