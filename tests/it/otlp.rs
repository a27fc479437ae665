//! With an OTLP endpoint configured, spans and metrics arrive there.

use std::sync::{Arc, Mutex};

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
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use undertone::wire::v1;

use crate::process::Process;
use crate::signal::{encode, speech};
use crate::support::{PLAIN, chunks, stream};

#[derive(Clone, Default)]
struct Collector {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_sessions_span_and_our_metrics_are_exported() {
    let collector = Collector::default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let services = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(services);

    let mut process = Process::start(&["--otlp-endpoint", &endpoint]).await;
    let config = v1::StreamConfig { session_id: "traced".to_owned(), ..PLAIN.config() };
    let data = encode(&speech(1, 2.0, 16_000), PLAIN.encoding);
    let client = process.client().await;
    stream(&client, config, chunks(&data, 3_200)).await.fine();
    drop(client);
    // What is still held back is sent at the end.
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.0.code(), Some(0), "{}", process.log());

    let traces = collector.traces.lock().unwrap().clone();
    let spans: Vec<_> = traces
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .collect();
    let session = spans.iter().find(|span| span.name == "session").expect("a session's span");
    let attribute = |key: &str| {
        let found = session.attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    };
    assert_eq!(attribute("id").as_deref(), Some("traced"));
    assert_eq!(attribute("model").as_deref(), Some("tiny-steps"));
    assert!(session.end_time_unix_nano > session.start_time_unix_nano);

    let metrics = collector.metrics.lock().unwrap().clone();
    let resource = metrics[0].resource_metrics[0].resource.as_ref().unwrap();
    let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name");
    let service = service.and_then(|attribute| attribute.value.clone()?.value);
    assert_eq!(service, Some(Value::StringValue("undertone".to_owned())));
    let names: Vec<&str> = metrics
        .iter()
        .flat_map(|request| &request.resource_metrics)
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics)
        .map(|metric| metric.name.as_str())
        .collect();
    for expected in
        ["undertone.streams", "undertone.audio", "undertone.engine.run", "process.cpu.time"]
    {
        assert!(names.contains(&expected), "{expected}: {names:?}");
    }
    serving.abort();
}
