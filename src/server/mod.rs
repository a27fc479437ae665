//! The service on its ports: gRPC, HTTP, health, draining.
//!
//! [`run`] serves until it is told to stop or an engine dies. The way down is always the same: health
//! turns `NOT_SERVING`, live streams are told and finished, and what has not ended by the deadline is cut
//! off.

mod bounds;
mod calls;
mod census;
mod connect;
pub mod connections;
mod console;
mod doors;
mod entrance;
mod escalations;
mod http;
pub mod identity;
mod ingress;
mod inside;
mod keys;
mod load;
mod mcp;
mod memory;
pub mod observe;
mod places;
mod policies;
mod prepared;
mod reload;
mod service;
mod sessions;
pub mod status;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderName;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::config::{ConfigError, Settings};
use crate::escalation::{Health, StoreError, Task};
use crate::identity::Identity;
use crate::model::{EngineError, Models};
use crate::policy::{Library, LibraryError};
use crate::session::admission::Quotas;
use crate::session::load::LoadLimits;
use crate::session::{Admission, Afterlife, Context, Escalating, Limits, Registry, TokenError};
use crate::telemetry::metrics;
use crate::wire::DESCRIPTORS;
use crate::wire::v1::emotion_service_server::EmotionServiceServer;
use crate::wire::v1::escalation_service_server::EscalationServiceServer;
use crate::wire::v1::session_service_server::SessionServiceServer;

use bounds::Bounds;
use connections::Connections;
use doors::{Doors, SMALL};
pub use entrance::Entrance;
use escalations::{Escalations, Storeless};
use identity::{GateLayer, IdentitiesError};
use ingress::{Ingress, Origins};
use inside::Inside;
pub use keys::keyring;
use load::Patient;
pub use observe::Observer;
use places::Places;
pub use prepared::Prepared;
pub use service::Service;
use sessions::Sessions;
pub use tls::TlsError;
use tls::{Handshakes, Port};

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
    /// A setting that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A policy that cannot be used.
    #[error("policies: {0}")]
    Policies(#[from] LibraryError),
    /// There is no default policy of that name.
    #[error("default_policy: there is no policy {name:?}; known are {known}")]
    DefaultPolicy {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A sink may take longer than the lease.
    #[error(
        "delivery_lease: must be longer than the time-out of sink {sink:?}, which is {timeout:?}"
    )]
    Lease {
        /// The sink.
        sink: String,
        /// Its time-out.
        timeout: Duration,
    },
    /// The store cannot be used.
    #[error("escalation_store: {0}")]
    Store(#[from] StoreError),
    /// There are no random numbers for a key.
    #[error("resume_keys: {0}")]
    Keys(#[from] TokenError),
    /// A certificate or key that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file of identities that cannot be used.
    #[error(transparent)]
    Identities(#[from] IdentitiesError),
    /// Reflection cannot be built.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Largest message of services that take nothing but names, bytes.
const NAME_BYTES: usize = 4 * 1024;
/// How long a browser may remember what it was told of other origins: what most of them allow at most.
const PREFLIGHT: Duration = Duration::from_secs(7200);
/// Time between two looks for sessions that ended too long ago.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for what is cut off to be gone.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(1);

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
        config_timeout: settings.config_timeout.0,
        send_timeout: settings.send_timeout.0,
        max_realtime_factor: settings.max_realtime_factor,
        burst: settings.realtime_burst.0,
        no_speech: settings.no_speech_warning.0,
        drain_deadline: settings.drain_deadline.0,
        stage_interval: settings.trace_stage_interval.0,
        history: settings.session_history.0,
    }
}

/// How long sessions that have ended can be looked at under `settings`.
pub fn afterlife(settings: &Settings) -> Afterlife {
    Afterlife { span: settings.ended_sessions.0, most: settings.max_ended_sessions as usize }
}

/// Forgets sessions that ended too long ago, also where nobody looks.
async fn forget_ended(registry: Arc<Registry>, stop: CancellationToken) {
    // Cut off while it waits: to forget takes no time.
    while stop.run_until_cancelled(tokio::time::sleep(FORGET_EVERY)).await.is_some() {
        registry.forget_ended();
    }
}

/// Who gets in under `settings`.
pub fn admission(settings: &Settings) -> Arc<Admission> {
    let quotas = Quotas {
        streams: settings.quota_streams,
        audio_per_minute: settings.quota_audio_per_minute.0,
    };
    let limits = LoadLimits {
        busy: settings.max_load.into(),
        engine_lag: settings.max_engine_lag.0,
        worker_delay: settings.max_worker_delay.0,
        memory: memory::limit(settings.max_memory),
    };
    Admission::new(quotas, limits)
}

/// What browsers are told of calls by pages of other origins.
fn pages(settings: &Settings) -> CorsLayer {
    let origins = Origins::new(&settings.allowed_origins, settings.has_identities());
    let allowed = AllowOrigin::predicate(move |origin, _| origins.lists_header(origin));
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([::http::Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(
            ["grpc-status", "grpc-message", "grpc-status-details-bin"].map(HeaderName::from_static),
        )
        .max_age(PREFLIGHT)
}

/// What HTTP/2 itself leaves a client.
fn builder(settings: &Settings) -> Server {
    let server = Server::builder()
        // The last resort: `bounds` has time-outs of its own, whose answers say more.
        .timeout(settings.call_timeout.0 + Duration::from_secs(1))
        .http2_keepalive_interval(Some(settings.keepalive_interval.0))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout.0))
        .max_concurrent_streams(settings.max_streams_per_connection)
        .initial_connection_window_size(settings.connection_window)
        .http2_max_header_list_size(settings.max_header_bytes)
        .http2_max_pending_accept_reset_streams(Some(settings.max_pending_resets as usize))
        .accept_http1(true);
    match settings.max_connection_age.0 {
        Duration::ZERO => server,
        // Replicas that were started together shall not turn away their clients together.
        age => server.max_connection_age(age.mul_f64(0.9 + 0.2 * fastrand::f64())),
    }
}

/// Serves on `sockets` until `stop` is cancelled (a clean end) or an engine dies. `serving` is called when both take
/// calls: all that can be wrong with the settings has been found by then, and the store has been looked at.
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
    serving: impl FnOnce(),
) -> Result<(), ServeError> {
    tell_models(&models);
    let live = Live::default();
    let tasks = live.tasks.clone();
    let entrance = Entrance::new(settings)?;
    entrance.tell(settings);
    let background = CancellationToken::new();
    let _end_background = background.clone().drop_guard();
    let (escalating, recording) =
        Prepared::new(settings)?.start(settings, &background, &tasks).await?.unzip();
    let (resuming, new_keys) = keys::resuming(settings)?.unzip();
    let context = Context {
        models: models.clone(),
        defaults: settings.defaults(),
        limits: limits(settings),
        admission: admission(settings),
        registry: Registry::new(settings.max_streams as usize, afterlife(settings)),
        escalating: escalating.clone(),
        resuming,
        // Child tokens end with `stop`; an engine's death drains as well.
        draining: stop.child_token(),
    };
    let draining = context.draining.clone();
    let registry = context.registry.clone();
    let (admission, patient) = (context.admission.clone(), Patient::default());
    let ingress = Ingress::new(context.clone(), live.clone(), entrance.gate.clone(), settings);
    let http_state = http::State::new(&context, observer, &entrance, settings);
    let service = Service::new(context, settings, live.clone(), patient.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<EmotionServiceServer<Service>>().await;
    if let Some(new_keys) = new_keys {
        tasks.spawn(new_keys.keep(background.clone()));
    }
    entrance.keep(settings, &background, &tasks);
    let watchers = Places::new(settings.max_watchers as usize, settings.share());
    let escalations = escalating.as_ref().map(|escalating| {
        let beside = (&registry, &health, &draining, &watchers);
        escalation_service(escalating, settings, beside, &background, &live)
    });
    let sessions =
        Sessions::new(registry.clone(), watchers, settings, draining.clone(), live.clone());
    let sessions = SessionServiceServer::new(sessions).max_decoding_message_size(SMALL);
    health.set_serving::<SessionServiceServer<Sessions>>().await;
    tasks.spawn(forget_ended(registry.clone(), background.clone()));
    tasks.spawn(load::sample(admission.clone(), models.clone(), patient, background.clone()));
    // Both versions: most tools in the field still ask for the older one.
    let reflection_v1 = settings.reflection.then(|| reflection().build_v1()).transpose()?;
    let reflection_v1alpha =
        settings.reflection.then(|| reflection().build_v1alpha()).transpose()?;
    // What anybody may send who says nothing of who it is: the name of a service.
    let health_service = health_service.max_decoding_message_size(NAME_BYTES);

    let closing = CancellationToken::new();
    let doors = Doors::new(service, settings);
    let escalations = escalations.map(|service| service.max_decoding_message_size(SMALL));
    let services = (doors.clone(), sessions.clone(), escalations.clone());
    let inside = Inside::new(services, settings, &entrance, &live, &closing);
    let beside = http::beside(inside, settings, pages(settings), &closing);
    let grpc = builder(settings)
        // Outside of gRPC-Web: browsers ask before they call, and that is no call.
        .layer(pages(settings))
        .layer(tonic_web::GrpcWebLayer::new())
        // Inside of it: the trailers are still trailers there.
        .layer(calls::Calls)
        // Inside of that: who is refused has called, too.
        .layer(GateLayer::new(entrance.gate.clone()))
        .layer(Bounds::new(settings, closing.clone()))
        .add_service(health_service)
        .add_service(doors)
        .add_service(sessions)
        .add_optional_service(escalating.is_none().then_some(Storeless))
        .add_optional_service(escalations)
        .add_optional_service(reflection_v1.map(|one| one.max_decoding_message_size(NAME_BYTES)))
        .add_optional_service(
            reflection_v1alpha.map(|one| one.max_decoding_message_size(NAME_BYTES)),
        );
    let closed = closing.clone().cancelled_owned();
    let connections = Connections::new(settings);
    let mut grpc = if let Some(tls) = &entrance.tls {
        let listener = sockets.grpc;
        let incoming = Handshakes::new(listener, tls.clone(), Port::Grpc, connections, settings);
        tokio::spawn(grpc.serve_with_incoming_shutdown(incoming, closed))
    } else {
        let incoming = connections.accept(sockets.grpc);
        tokio::spawn(grpc.serve_with_incoming_shutdown(incoming, closed))
    };
    let http = tokio::spawn(http::serve(
        entrance.http(sockets.http, settings),
        (http_state, Arc::new(ingress), beside),
        settings.http_head_timeout.0,
        closing.clone(),
    ));
    serving();

    let ended = tokio::select! {
        () = draining.cancelled() => Ok(()),
        failure = first_failure(&models) => Err(ServeError::Engine(failure)),
        served = &mut grpc => return flatten(served),
    };
    tracing::info!("draining");
    background.cancel();
    tell_not_serving(&health).await;
    draining.cancel();
    let running = Running { live, recording, closing, grpc, http };
    running.wind_down(settings.drain_deadline.0).await;
    ended
}

/// Sessions and watches, and what goes on beside them: to be waited for.
#[derive(Debug, Clone, Default)]
struct Live {
    tasks: TaskTracker,
    /// Cancelled at the drain deadline: sessions and watches end where they stand.
    cut_off: CancellationToken,
}

/// What has to end, in this order.
struct Running {
    live: Live,
    recording: Option<Task>,
    closing: CancellationToken,
    grpc: JoinHandle<Result<(), tonic::transport::Error>>,
    http: JoinHandle<()>,
}

impl Running {
    /// Waits for the end of all, `deadline` at most; then cuts off what is left.
    async fn wind_down(mut self, deadline: Duration) {
        self.live.tasks.close();
        let drained = tokio::time::timeout(deadline, async {
            self.live.tasks.wait().await;
            // What sessions have recorded last is written, and attempts under way may end.
            if let Some(task) = &mut self.recording {
                task.stop();
                task.ended().await;
            }
            // Sessions have ended; their last messages still have to leave.
            self.closing.cancel();
            let _ = (&mut self.grpc).await;
            // Answers of MCP too; a client that dawdles with its next request holds up nobody.
            let _ = tokio::time::timeout(CUT_OFF_WITHIN, &mut self.http).await;
        });
        if drained.await.is_err() {
            tracing::warn!(?deadline, "not all had ended at the drain deadline; cut off");
            // How they ended is counted as they go, which takes no time unless a thread is busy with one.
            self.live.cut_off.cancel();
            let _ = tokio::time::timeout(CUT_OFF_WITHIN, self.live.tasks.wait()).await;
            if let Some(task) = &mut self.recording {
                task.cut_off();
                // It logs what it could not write, which takes no time.
                let _ = tokio::time::timeout(CUT_OFF_WITHIN, task.ended()).await;
            }
        }
        self.closing.cancel();
        self.grpc.abort();
        self.http.abort();
    }
}

/// The service, and what goes on beside it until `background` ends.
fn escalation_service(
    escalating: &Escalating,
    settings: &Settings,
    (registry, health, draining, watchers): (
        &Arc<Registry>,
        &tonic_health::server::HealthReporter,
        &CancellationToken,
        &Arc<Places>,
    ),
    background: &CancellationToken,
    live: &Live,
) -> EscalationServiceServer<Escalations> {
    let (recorder, tasks) = (&escalating.recorder, &live.tasks);
    let (newest, seen) = tokio::sync::watch::channel(0);
    let (poll, stop) = (settings.watch_poll.0, background.clone());
    tasks.spawn(escalations::feed(recorder.clone(), registry.clone(), newest, poll, stop));
    tasks.spawn(tell_health(recorder.health(), health.clone(), background.clone()));
    let (library, pause) = (escalating.library.clone(), settings.policy_reload.0);
    tasks.spawn(reload_policies(library, pause, background.clone()));
    EscalationServiceServer::new(Escalations::new(
        recorder.clone(),
        seen,
        watchers.clone(),
        settings,
        draining.clone(),
        live.clone(),
    ))
}

fn tell_models(models: &Models) {
    for model in models.iter() {
        metrics().model_loaded(&model.manifest.name, &model.manifest.version);
    }
}

/// Health of the escalation service follows the store's.
async fn tell_health(
    mut store: tokio::sync::watch::Receiver<Health>,
    health: tonic_health::server::HealthReporter,
    stop: CancellationToken,
) {
    loop {
        let up = store.borrow_and_update().is_up();
        if up {
            health.set_serving::<EscalationServiceServer<Escalations>>().await;
        } else {
            health.set_not_serving::<EscalationServiceServer<Escalations>>().await;
        }
        // Both are cancel-safe: neither holds anything.
        tokio::select! {
            () = stop.cancelled() => return,
            changed = store.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Nothing new is taken.
async fn tell_not_serving(health: &tonic_health::server::HealthReporter) {
    health.set_not_serving::<EmotionServiceServer<Service>>().await;
    health.set_not_serving::<EscalationServiceServer<Escalations>>().await;
    health.set_not_serving::<SessionServiceServer<Sessions>>().await;
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
}

/// Looks at the folder of policies every `pause`.
async fn reload_policies(library: Arc<Library>, pause: Duration, stop: CancellationToken) {
    if library.folder().is_none() {
        return;
    }
    // Cut off while it waits: a look at the folder blocks and ends.
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let looked = library.clone();
        let reload = match tokio::task::spawn_blocking(move || looked.reload()).await {
            Ok(reload) => reload,
            Err(panic) => {
                metrics().policy_reload("refused");
                tracing::error!(%panic, "no look at the policies; those before stay in force");
                continue;
            }
        };
        for (name, version) in &reload.changed {
            metrics().policy_reload("changed");
            tracing::info!(name, version, "policy in force for new streams");
        }
        for name in &reload.removed {
            metrics().policy_reload("removed");
            tracing::info!(name, "policy removed");
        }
        for problem in &reload.problems {
            metrics().policy_reload("refused");
            tracing::error!(%problem, "policy refused; the one before stays in force");
        }
    }
}

/// Who calls, as the gate has found out.
///
/// # Errors
/// `INTERNAL` if the call has come past the gate: nobody is served then.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn caller(extensions: &tonic::Extensions) -> Result<Arc<Identity>, tonic::Status> {
    extensions.get::<Arc<Identity>>().cloned().ok_or_else(status::no_identity)
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
