//! The service on its ports: gRPC, HTTP, health, draining.
//!
//! [`run`] serves until it is told to stop or an engine dies. The way down is always the same: health
//! turns `NOT_SERVING`, live streams are told and finished, and what has not ended by the deadline is cut
//! off.

mod http;
pub mod observe;
mod service;
pub mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::config::Settings;
use crate::model::{EngineError, Models};
use crate::session::{Context, Limits, Registry};
use crate::telemetry::metrics;
use crate::wire::DESCRIPTORS;
use crate::wire::v1::emotion_service_server::EmotionServiceServer;

pub use observe::Observer;
pub use service::Service;

/// Why the server ends badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address that cannot be had.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Bind {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// An engine died.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The transport failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection cannot be built.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The two listening sockets.
#[derive(Debug)]
pub struct Sockets {
    grpc: TcpListener,
    http: TcpListener,
}

impl Sockets {
    /// Binds both.
    ///
    /// # Errors
    /// [`ServeError::Bind`] with the setting's name.
    pub async fn bind(settings: &Settings) -> Result<Self, ServeError> {
        let bind = async |setting, address| {
            TcpListener::bind(address).await.map_err(|source| ServeError::Bind {
                setting,
                address,
                source,
            })
        };
        Ok(Self {
            grpc: bind("grpc_address", settings.grpc_address).await?,
            http: bind("http_address", settings.http_address).await?,
        })
    }

    /// The gRPC port's address as it came out, for port 0.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// The HTTP port's address.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub fn http_address(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }
}

/// What sessions may do under `settings`.
pub fn limits(settings: &Settings) -> Limits {
    Limits {
        max_chunk_bytes: settings.max_chunk_bytes as usize,
        max_audio: settings.max_stream_length.0,
        idle_timeout: settings.idle_timeout.0,
        send_timeout: settings.send_timeout.0,
        max_realtime_factor: settings.max_realtime_factor,
        burst: settings.realtime_burst.0,
        no_speech: settings.no_speech_warning.0,
        drain_deadline: settings.drain_deadline.0,
    }
}

/// Serves on `sockets` until `stop` is cancelled (a clean end) or an engine dies.
///
/// # Errors
/// [`ServeError`].
///
/// # Cancellation
/// Dropping the future cuts everything off at once; cancel `stop` instead.
pub async fn run(
    settings: &Settings,
    models: Models,
    sockets: Sockets,
    observer: Arc<Observer>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    for model in models.iter() {
        metrics().model_loaded(&model.manifest.name, &model.manifest.version);
    }
    let tasks = TaskTracker::new();
    let context = Context {
        models: models.clone(),
        defaults: settings.defaults(),
        limits: limits(settings),
        registry: Registry::new(settings.max_streams as usize),
        // Child tokens end with `stop`; an engine's death drains as well.
        draining: stop.child_token(),
    };
    let draining = context.draining.clone();
    let registry = context.registry.clone();
    let service = Service::new(context, settings, tasks.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<EmotionServiceServer<Service>>().await;
    let emotion = EmotionServiceServer::new(service)
        .max_decoding_message_size(settings.max_clip_bytes as usize + 64 * 1024)
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    // Both versions: most tools in the field still ask for the older one.
    let reflection_v1 = settings.reflection.then(|| reflection().build_v1()).transpose()?;
    let reflection_v1alpha =
        settings.reflection.then(|| reflection().build_v1alpha()).transpose()?;

    let closing = CancellationToken::new();
    let grpc = Server::builder()
        // Small messages both ways all the time: waiting to fill packets only adds latency.
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .accept_http1(true)
        .layer(tonic_web::GrpcWebLayer::new())
        .add_service(health_service)
        .add_service(emotion)
        .add_optional_service(reflection_v1)
        .add_optional_service(reflection_v1alpha)
        .serve_with_incoming_shutdown(
            TcpListenerStream::new(sockets.grpc),
            closing.clone().cancelled_owned(),
        );
    let mut grpc = tokio::spawn(grpc);
    let http = tokio::spawn(http::serve(
        sockets.http,
        http::State { registry, draining: draining.clone(), observer },
        closing.clone(),
    ));

    let ended = tokio::select! {
        () = draining.cancelled() => Ok(()),
        failure = first_failure(&models) => Err(ServeError::Engine(failure)),
        served = &mut grpc => return flatten(served),
    };
    tracing::info!("draining");
    health.set_not_serving::<EmotionServiceServer<Service>>().await;
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    draining.cancel();
    tasks.close();
    let deadline = settings.drain_deadline.0;
    let drained = tokio::time::timeout(deadline, async {
        tasks.wait().await;
        // Sessions have ended; their last messages still have to leave.
        closing.cancel();
        let _ = (&mut grpc).await;
    });
    if drained.await.is_err() {
        tracing::warn!(?deadline, "streams were still open at the drain deadline; cut off");
    }
    closing.cancel();
    grpc.abort();
    http.abort();
    ended
}

fn flatten(
    served: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> Result<(), ServeError> {
    match served {
        Ok(result) => result.map_err(ServeError::from),
        Err(join) => std::panic::resume_unwind(join.into_panic()),
    }
}

/// The cause of death of the first engine that dies.
async fn first_failure(models: &Models) -> EngineError {
    let mut failures = tokio::task::JoinSet::new();
    for model in models.iter() {
        let engine = model.engine.clone();
        failures.spawn(async move { engine.failure().await });
    }
    match failures.join_next().await {
        Some(Ok(failure)) => failure,
        // No models is refused at load; a watcher that panics has nothing to tell.
        Some(Err(_)) | None => std::future::pending().await,
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
