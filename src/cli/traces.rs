//! Where spans go: to a collector, over OTLP, many at once, by a thread of its own. What it is asked for beside the endpoint
//! (sampling, headers, names of the resource) is said by the variables that are OpenTelemetry's own.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{SdkTracerProvider, SpanData},
};
use tonic::transport::ClientTlsConfig;

use crate::traces;

/// A collector that does not answer holds the end of a drain up no longer than this.
const FLUSH: Duration = Duration::from_secs(3);

/// What is exported until it is ended.
pub(super) struct Export(SdkTracerProvider);

impl Export {
    /// Begins to make spans and to send them there.
    pub(super) fn begin(endpoint: &str) -> Result<Self> {
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
        if endpoint.starts_with("https:") {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        let exporter = exporter.build().context("telemetry.otlp_endpoint")?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "approval-authority"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .with_detectors(&[
                Box::new(TelemetryResourceDetector),
                Box::new(EnvResourceDetector::new()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(Told { exporter, lost: AtomicBool::new(false) })
            .build();
        traces::begin(provider.tracer("approval-authority"));
        Ok(Self(provider))
    }

    /// Sends what is left.
    pub(super) async fn end(self, within: Duration) {
        let within = within.min(FLUSH);
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(within));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "the last spans are lost");
        }
    }
}

/// Tells the log when the collector takes no spans any more, and when it does again: not of each that is lost.
#[derive(Debug)]
struct Told {
    exporter: SpanExporter,
    lost: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let done = self.exporter.export(batch).await;
        match (&done, self.lost.swap(done.is_err(), Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "the collector takes no spans; they are lost until it does");
            }
            (Ok(()), true) => tracing::info!("the collector takes spans again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        done
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
