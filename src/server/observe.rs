//! Where logs, spans and metrics go: standard error, Prometheus, OTLP.
//!
//! In: the settings. Out: for the whole process, `tracing`'s subscriber and OpenTelemetry's providers.
//!
//! Always:
//! 1. A collector that is slow or away costs memory up to a bound (what does not fit into an exporter's queue
//!    is dropped), a line in the log now and then, and nothing else.
//! 2. Spans exist whether or not they are exported: log lines carry the caller's trace, and so do deliveries.
//!
//! | module | what |
//! |---|---|
//! | `resource` | who we are |
//! | `sampler` | which traces are recorded |
//! | `otlp` | the exporters: endpoint, headers, trust |
//! | `logs` | lines for people, JSON with trace and span |

mod logs;
mod otlp;
mod resource;
mod sampler;

use std::sync::Arc;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::{Registry, TextEncoder};

use crate::config::{ConfigError, Settings};
use crate::telemetry::{process, trace};

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A filter that cannot be read.
    #[error("log: {0}; examples: info, debug, info,undertone=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The Prometheus registry refuses.
    #[error("metrics: {0}")]
    Prometheus(#[from] prometheus::Error),
    /// The exporter refuses.
    #[error("metrics: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// An OTLP endpoint that cannot be used.
    #[error("otlp_endpoint: {0}; example: http://localhost:4317")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A header that cannot be sent.
    #[error("otlp_headers: the header {name:?} {problem}")]
    Header {
        /// Its name, or what stands for one.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Holds the providers; flushes them when shut down.
#[derive(Debug)]
pub struct Observer {
    registry: Registry,
    meters: SdkMeterProvider,
    tracers: SdkTracerProvider,
    loggers: Option<SdkLoggerProvider>,
    timeout: std::time::Duration,
}

/// Checks all about telemetry that can be checked without connecting.
///
/// # Errors
/// [`ObserveError`] with the setting's name.
pub fn check(settings: &Settings) -> Result<(), ObserveError> {
    settings.log.parse::<tracing_subscriber::EnvFilter>()?;
    resource::of(settings)?;
    otlp::Collector::new(settings).map(drop)
}

impl Observer {
    /// Installs logs, spans and metrics for the process, as the settings say. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ObserveError`] with the setting's name.
    pub fn install(settings: &Settings) -> Result<Arc<Self>, ObserveError> {
        let resource = resource::of(settings)?;
        let collector = otlp::Collector::new(settings)?;
        let registry = Registry::new();
        let page = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let mut meters =
            SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(page);
        let ratio = if collector.is_some() { settings.trace_ratio } else { 0.0 };
        let mut tracers = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_max_events_per_span(trace::EVENTS)
            .with_sampler(sampler::of(ratio));
        let mut loggers = None;
        if let Some(collector) = &collector {
            meters = meters.with_periodic_exporter(collector.metrics()?);
            tracers = tracers.with_batch_exporter(collector.spans()?);
            let logs = SdkLoggerProvider::builder().with_resource(resource);
            loggers = Some(logs.with_batch_exporter(collector.logs()?).build());
        }
        let (meters, tracers) = (meters.build(), tracers.build());
        opentelemetry::global::set_meter_provider(meters.clone());
        opentelemetry::global::set_tracer_provider(tracers.clone());
        process::observe(&opentelemetry::global::meter(trace::TRACER));
        logs::install(settings, tracers.tracer(trace::TRACER), loggers.as_ref())?;
        let timeout = settings.otlp_timeout.0;
        Ok(Arc::new(Self { registry, meters, tracers, loggers, timeout }))
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If the encoder refuses.
    pub fn prometheus(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Sends what is still to be sent. Blocks for as long as one request may take, not more.
    pub fn shut_down(&self) {
        // At the end of the process there is nobody left to tell.
        std::thread::scope(|scope| {
            scope.spawn(|| self.tracers.shutdown_with_timeout(self.timeout));
            scope.spawn(|| self.meters.shutdown_with_timeout(self.timeout));
            if let Some(loggers) = &self.loggers {
                scope.spawn(|| loggers.shutdown_with_timeout(self.timeout));
            }
        });
    }
}
