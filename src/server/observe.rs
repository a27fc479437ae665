//! Where logs, spans and metrics go: standard error, Prometheus, OTLP.

use std::io::IsTerminal as _;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{Registry, TextEncoder};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::{LogFormat, Settings};

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A filter that cannot be read.
    #[error("log: {0}; examples: info, debug, info,undertone=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The Prometheus registry refuses.
    #[error("metrics: {0}")]
    Prometheus(#[from] prometheus::Error),
    /// The exporter refuses.
    #[error("metrics: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// An OTLP endpoint that cannot be used.
    #[error("otlp_endpoint: {0}; example: http://localhost:4317")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Holds the providers; flushes them when shut down.
#[derive(Debug)]
pub struct Observer {
    registry: Registry,
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
}

impl Observer {
    /// Installs logs, spans and metrics for the process, as the settings say.
    ///
    /// # Errors
    /// [`ObserveError`] with the setting's name.
    pub fn install(settings: &Settings) -> Result<Arc<Self>, ObserveError> {
        let resource = Resource::builder()
            .with_service_name("undertone")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let registry = Registry::new();
        let exporter =
            opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let mut meters =
            SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(exporter);
        let mut tracers = None;
        if !settings.otlp_endpoint.is_empty() {
            let endpoint = &settings.otlp_endpoint;
            let pushed = MetricExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
            meters = meters.with_periodic_exporter(pushed);
            let spans = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
            tracers = Some(
                SdkTracerProvider::builder()
                    .with_resource(resource)
                    .with_batch_exporter(spans)
                    .build(),
            );
        }
        let meters = meters.build();
        opentelemetry::global::set_meter_provider(meters.clone());
        observe_process();
        install_logs(settings, tracers.as_ref())?;
        Ok(Arc::new(Self { registry, meters, tracers }))
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If the encoder refuses.
    pub fn prometheus(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Sends what is still to be sent. Blocks for some seconds at most.
    pub fn shut_down(&self) {
        // At the end of the process there is nobody left to tell.
        if let Some(tracers) = &self.tracers {
            let _ = tracers.shutdown();
        }
        let _ = self.meters.shutdown();
    }
}

fn install_logs(
    settings: &Settings,
    tracers: Option<&SdkTracerProvider>,
) -> Result<(), ObserveError> {
    let filter: EnvFilter = settings.log.parse()?;
    let spans = tracers.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("undertone"))
            // The exporter's own spans would make more of themselves.
            .with_filter(tracing_subscriber::filter::filter_fn(|meta| {
                meta.target().starts_with("undertone")
            }))
    });
    let logs = match settings.log_format {
        // Files and pipes get plain text; at a terminal tracing-subscriber itself heeds NO_COLOR.
        LogFormat::Text if std::io::stderr().is_terminal() => {
            fmt::layer().with_writer(std::io::stderr).boxed()
        }
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(std::io::stderr).boxed(),
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
    };
    // A second server in one process, as tests have it, keeps the first one's logs.
    let _ = tracing_subscriber::registry().with(filter).with(spans).with(logs).try_init();
    Ok(())
}

/// The process's own CPU time and memory, named by OpenTelemetry's conventions.
fn observe_process() {
    let meter = opentelemetry::global::meter("undertone");
    let _ = meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("CPU time of the process, user and system")
        .with_callback(|observer| {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            observer.observe(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9, &[]);
        })
        .build();
    let _ = meter
        .u64_observable_gauge("process.memory.usage")
        .with_unit("By")
        .with_description("Resident memory of the process (Linux only)")
        .with_callback(|observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
}

/// proc(5): the second number of `statm` is the resident set in pages.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
