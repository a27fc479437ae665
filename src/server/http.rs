//! The HTTP port: metrics for Prometheus, probes, the live sessions.
//!
//! Metrics and probes carry no tenant's data and need no identity. `/sessions` does: the role admin, as soon
//! as identities are configured; and no token is taken where it could be read on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::connections::{self, Held};
use super::identity::{Gate, Refusal};
use super::observe::Observer;
use super::tls::Handshakes;
use crate::escalation::Health;
use crate::identity::{Identity, Role};
use crate::session::{Admission, Registry};

/// What the handlers see.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) registry: Arc<Registry>,
    pub(super) admission: Arc<Admission>,
    pub(super) draining: CancellationToken,
    pub(super) observer: Arc<Observer>,
    /// How the escalation store is, if there is one.
    pub(super) health: Option<watch::Receiver<Health>>,
    pub(super) gate: Arc<Gate>,
    /// Whether what is asked and answered stays between caller and server.
    pub(super) confidential: bool,
}

/// A socket on which to serve, with or without TLS.
#[derive(Debug)]
pub(super) enum Incoming {
    Plain(connections::Incoming),
    Tls(Handshakes),
}

impl Listener for connections::Incoming {
    type Io = Held<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.next().await
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        connections::Incoming::local_addr(self)
    }
}

impl Listener for Handshakes {
    type Io = Held<TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.next().await
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Handshakes::local_addr(self)
    }
}

impl State {
    /// Why no stream would be taken now.
    fn full(&self) -> Option<String> {
        if self.registry.is_full() {
            return Some("it serves as many streams as it may (max_streams)".to_owned());
        }
        self.admission.pressure().map(|pressure| pressure.to_string())
    }
}

/// Serves until `closing`. Whoever takes longer than `head_timeout` to say what it wants is cut off.
pub(super) async fn serve(
    incoming: Incoming,
    state: State,
    head_timeout: Duration,
    closing: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        // Alive: the process answers. Ready: it takes new streams.
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/accepting", get(accepting))
        .route("/sessions", get(sessions))
        .with_state(state);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    match incoming {
        Incoming::Plain(listener) => serve_on(listener, &http, router, closing).await,
        Incoming::Tls(handshakes) => serve_on(handshakes, &http, router, closing).await,
    }
}

async fn serve_on<L: Listener>(
    mut listener: L,
    http: &http1::Builder,
    router: Router,
    closing: CancellationToken,
) {
    let open = GracefulShutdown::new();
    // Cut off while it waits for a connection: none is lost that was there.
    while let Some((io, _)) = closing.run_until_cancelled(listener.accept()).await {
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(io), service));
        // A client that goes, or that says nothing, is no fault of anybody who reads logs.
        tokio::spawn(async move { connection.await.ok() });
    }
    open.shutdown().await;
}

async fn metrics(Extract(state): Extract<State>) -> impl IntoResponse {
    match state.observer.prometheus() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(Extract(state): Extract<State>) -> impl IntoResponse {
    if state.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    // Streams go on without the store, so the replica stays ready: to take it out would help nobody.
    let health = state.health.as_ref().map(|health| health.borrow().clone());
    match health {
        Some(Health::Down { problem }) => {
            (StatusCode::OK, format!("ready, degraded: escalations are not durable: {problem}\n"))
        }
        Some(Health::Up) | None => match state.full() {
            // Ready all the same: an orchestrator that takes full replicas out has none left when it needs
            // them most, its clients get a broken connection in place of the time to come back, and what
            // scales by ready replicas scales the wrong way. Those that route by this ask /accepting.
            Some(why) => (StatusCode::OK, format!("ready, full: {why}\n")),
            None => (StatusCode::OK, "ready\n".to_owned()),
        },
    }
}

/// Whether a new stream would be taken now: for balancers that can leave a replica out for a moment.
async fn accepting(Extract(state): Extract<State>) -> impl IntoResponse {
    if state.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    match state.full() {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("full: {why}\n")),
        None => (StatusCode::OK, "accepting\n".to_owned()),
    }
}

async fn sessions(Extract(state): Extract<State>, headers: HeaderMap) -> Response {
    if !state.confidential && state.gate.identities().is_some() {
        let text = "sessions are listed over TLS, or where only this machine reaches the port; see http_tls\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    match admin(&state.gate, &headers).await {
        Ok(identity) => Json(state.registry.list(identity.reach())).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn admin(gate: &Gate, headers: &HeaderMap) -> Result<Arc<Identity>, Refusal> {
    let identity = gate.identify(headers, None).await?;
    if identity.may(Role::Admin) {
        return Ok(identity);
    }
    Err(Refusal::RoleMissing {
        name: identity.name.as_ref().to_owned(),
        role: Role::Admin,
        method: "GET /sessions".to_owned(),
    })
}

fn refused(refusal: &Refusal) -> Response {
    let text = format!("{}: {refusal}\n", refusal.reason());
    match refusal {
        Refusal::TokenMissing { .. }
        | Refusal::TokenUnknown
        | Refusal::TokenExpired
        | Refusal::TokenInvalid { .. }
        | Refusal::CertificateUnknown { .. } => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
        }
        Refusal::RoleMissing { .. } => (StatusCode::FORBIDDEN, text).into_response(),
        Refusal::KeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
        Refusal::UnknownMethod { .. } => (StatusCode::NOT_FOUND, text).into_response(),
    }
}
