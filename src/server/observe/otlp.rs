//! The exporters of traces, metrics and logs over OTLP: one endpoint, its headers and whom it is trusted by.
//!
//! The batching before an exporter is the SDK's: bounded queues that drop what does not fit, and a thread of
//! their own. Here is added what an operator wants to know: a count of batches, and a line in the log when
//! pushing begins to fail, at most every five minutes while it does, and when it works again.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_otlp::{
    LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as ExportLogs};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as ExportSpans};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig};

use super::ObserveError;
use crate::config::{ConfigError, Settings};
use crate::telemetry::metrics;

/// Time between two complaints about a collector that stays away.
const COMPLAINT_PAUSE: Duration = Duration::from_mins(5);

/// Where telemetry is pushed to.
pub(super) struct Collector {
    endpoint: String,
    headers: MetadataMap,
    tls: Option<ClientTlsConfig>,
    timeout: Duration,
}

impl Collector {
    /// As the settings say; `None` without an endpoint. Connects to nothing yet.
    ///
    /// # Errors
    /// [`ObserveError`] with the setting's name.
    pub(super) fn new(settings: &Settings) -> Result<Option<Self>, ObserveError> {
        let endpoint = settings.otlp_endpoint.clone();
        if endpoint.is_empty() {
            return Ok(None);
        }
        let headers = headers(settings.otlp_headers()?)?;
        let tls = endpoint.starts_with("https://").then(|| tls(settings)).transpose()?;
        Ok(Some(Self { endpoint, headers, tls, timeout: settings.otlp_timeout.0 }))
    }

    fn on<B: WithExportConfig + WithTonicConfig>(&self, builder: B) -> B {
        let builder = builder
            .with_endpoint(&self.endpoint)
            .with_timeout(self.timeout)
            .with_metadata(self.headers.clone());
        match &self.tls {
            Some(tls) => builder.with_tls_config(tls.clone()),
            None => builder,
        }
    }

    /// The exporter of spans.
    ///
    /// # Errors
    /// [`ObserveError::Otlp`].
    pub(super) fn spans(&self) -> Result<Watched<SpanExporter>, ObserveError> {
        let exporter = self.on(SpanExporter::builder().with_tonic()).build()?;
        Ok(Watched::new("traces", exporter))
    }

    /// The exporter of metrics.
    ///
    /// # Errors
    /// [`ObserveError::Otlp`].
    pub(super) fn metrics(&self) -> Result<Watched<MetricExporter>, ObserveError> {
        let exporter = self.on(MetricExporter::builder().with_tonic()).build()?;
        Ok(Watched::new("metrics", exporter))
    }

    /// The exporter of logs.
    ///
    /// # Errors
    /// [`ObserveError::Otlp`].
    pub(super) fn logs(&self) -> Result<Watched<LogExporter>, ObserveError> {
        let exporter = self.on(LogExporter::builder().with_tonic()).build()?;
        Ok(Watched::new("logs", exporter))
    }
}

fn headers(pairs: Vec<(String, String)>) -> Result<MetadataMap, ObserveError> {
    let mut headers = MetadataMap::new();
    for (name, value) in pairs {
        let refuse = |problem| ObserveError::Header { name: name.clone(), problem };
        let key = name.to_ascii_lowercase().parse::<MetadataKey<_>>();
        let key = key.map_err(|_| refuse("is no name of a header"))?;
        let mut value: MetadataValue<_> =
            value.parse().map_err(|_| refuse("holds what no header can"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

fn tls(settings: &Settings) -> Result<ClientTlsConfig, ObserveError> {
    let tls = ClientTlsConfig::new().with_native_roots();
    let Some(pem) = settings.otlp_ca()? else {
        return Ok(tls);
    };
    if !pem.contains("BEGIN CERTIFICATE") {
        let problem = "no certificate is in it; name a file with PEM certificates".to_owned();
        return Err(ConfigError::Value { key: "otlp_ca", problem }.into());
    }
    Ok(tls.ca_certificate(Certificate::from_pem(pem)))
}

/// An exporter whose failures are counted and, now and then, told.
pub(super) struct Watched<E> {
    signal: &'static str,
    exporter: E,
    /// When it was last complained about; `None` while all goes well.
    complained: Mutex<Option<Instant>>,
}

impl<E> fmt::Debug for Watched<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("signal", &self.signal).finish_non_exhaustive()
    }
}

impl<E> Watched<E> {
    fn new(signal: &'static str, exporter: E) -> Self {
        Self { signal, exporter, complained: Mutex::new(None) }
    }

    fn note(&self, result: OTelSdkResult) -> OTelSdkResult {
        let signal = self.signal;
        metrics().exported(signal, if result.is_ok() { "sent" } else { "failed" });
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(()) => {
                if complained.take().is_some() {
                    tracing::info!(signal, "telemetry reaches the collector again");
                }
            }
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
                    *complained = Some(Instant::now());
                    tracing::warn!(signal, %error, "telemetry does not reach the collector");
                }
            }
        }
        result
    }
}

impl ExportSpans for Watched<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.note(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl ExportLogs for Watched<LogExporter> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.note(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for Watched<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.note(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_cannot_be_sent_is_named_but_not_its_value() {
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(headers(pair("X-Key", "secret")).unwrap().len(), 1);
        for (name, value) in [("x key", "secret"), ("x-key", "sec\nret")] {
            let error = headers(pair(name, value)).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("ret"), "{error}");
        }
    }
}
