//! The HTTP port: metrics for Prometheus, probes, the live sessions, audio over WebSocket; beside them, as the settings want
//! it, the service's calls as JSON, the console, MCP.
//!
//! Metrics and probes carry no tenant's data and need no identity. `/sessions` does: the role admin, as soon
//! as identities are configured; and no token is taken where it could be read on the way. This port asks
//! nobody for a certificate, so that without identities it cannot know who asks: then only this machine gets the
//! list, unless somebody wrote `insecure`.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::cors::CorsLayer;

use super::connect::Connect;
use super::entrance::Entrance;
use super::identity::{Access, Gate, Refusal};
use super::ingress::{self, Ingress};
use super::inside::Inside;
use super::mcp::Mcp;
use super::observe::Observer;
use super::tls::Handshakes;
use super::{connections, console};
use crate::config::Settings;
use crate::escalation::Health;
use crate::identity::Role;
use crate::session::{Admission, Context, Registry};

/// What the handlers see.
#[derive(Debug, Clone)]
pub(super) struct State {
    registry: Arc<Registry>,
    admission: Arc<Admission>,
    draining: CancellationToken,
    observer: Arc<Observer>,
    /// How the escalation store is, if there is one.
    health: Option<watch::Receiver<Health>>,
    gate: Arc<Gate>,
    /// Why the live sessions are shown to nobody, if they are not.
    withheld: Option<&'static str>,
}

/// Why the live sessions are shown to nobody under `settings`, if they are not.
pub(super) fn withheld(settings: &Settings) -> Option<&'static str> {
    if settings.is_http_local() || settings.insecure {
        None
    } else if !settings.has_identities() {
        Some("sessions are listed where identities say who asks, or to this machine alone\n")
    } else if !settings.has_http_tls() {
        Some("sessions are listed over TLS, or to this machine alone; see http_tls\n")
    } else {
        None
    }
}

/// Why those who call the service over this port, as they would over gRPC, get no answer under `settings`, if they do
/// not: audio over WebSocket, MCP.
pub(super) fn withheld_from_callers(settings: &Settings) -> Option<&'static str> {
    if settings.insecure {
        None
    } else if settings.has_identities() {
        // No token is taken where it could be read on the way.
        (!settings.is_http_local() && !settings.has_http_tls())
            .then_some("this is answered over TLS, or to this machine alone; see http_tls\n")
    } else if !settings.is_http_local() {
        Some("this is answered where identities say who asks, or to this machine alone\n")
    } else {
        // The gRPC port asks for certificates; this one cannot.
        settings.requires_client_certificate().then_some(
            "this port asks for no certificates: it answers where identities say who asks\n",
        )
    }
}

/// A socket on which to serve, with or without TLS.
#[derive(Debug)]
pub(super) enum Incoming {
    Plain(connections::Incoming),
    Tls(Handshakes),
}

impl State {
    pub(super) fn new(
        context: &Context,
        observer: Arc<Observer>,
        entrance: &Entrance,
        settings: &Settings,
    ) -> Self {
        Self {
            registry: context.registry.clone(),
            admission: context.admission.clone(),
            draining: context.draining.clone(),
            observer,
            health: context.escalating.as_ref().map(|escalating| escalating.recorder.health()),
            gate: entrance.gate.clone(),
            withheld: withheld(settings),
        }
    }

    /// Why no stream would be taken now.
    fn full(&self) -> Option<String> {
        if self.registry.is_full() {
            return Some("it serves as many streams as it may (max_streams)".to_owned());
        }
        self.admission.pressure().map(|pressure| pressure.to_string())
    }
}

/// What is beside: calls as JSON, by pages that `pages` allows; the console and MCP as the settings want it.
pub(super) fn beside(
    inside: Inside,
    settings: &Settings,
    pages: CorsLayer,
    closing: &CancellationToken,
) -> Router {
    let mut routes = Connect::new(inside.clone(), settings).routes().layer(pages);
    if settings.console {
        routes = routes.merge(console::routes());
    }
    if settings.mcp {
        routes = routes.merge(Mcp::new(inside, closing.clone()).routes());
    }
    routes
}

/// Serves until `closing`, also what is `beside`. Whoever takes longer than `head_timeout` to say what it wants is cut off.
pub(super) async fn serve(
    incoming: Incoming,
    (state, ingress, beside): (State, Arc<Ingress>, Router),
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
        .with_state(state)
        .merge(ingress::routes(ingress))
        .merge(beside);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    match incoming {
        Incoming::Plain(sockets) => serve_on(sockets, &http, router, closing).await,
        Incoming::Tls(handshakes) => serve_on(handshakes, &http, router, closing).await,
    }
}

async fn serve_on<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    mut incoming: impl Stream<Item = io::Result<IO>> + Unpin,
    http: &http1::Builder,
    router: Router,
    closing: CancellationToken,
) {
    let open = TaskTracker::new();
    // Cut off while it waits for a connection: none is lost that was there.
    while let Some(Some(Ok(io))) = closing.run_until_cancelled(incoming.next()).await {
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(io), service).with_upgrades();
        let closing = closing.clone();
        open.spawn(async move {
            let mut connection = pin!(connection);
            // A client that goes, or that says nothing, is no fault of anybody who reads logs. Cancel-safe: a
            // connection goes on where it was.
            let ended = tokio::select! {
                _ = connection.as_mut() => true,
                () = closing.cancelled() => false,
            };
            if !ended {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        });
    }
    open.close();
    open.wait().await;
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
    if let Some(why) = state.withheld {
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let needed = Access::Role(Role::Admin);
    match state.gate.admit_as(needed, "GET /sessions", &headers, None).await {
        Ok(admin) => Json(state.registry.list(admin.identity().reach())).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// Who calls is not known, or may not.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let text = format!("{}: {refusal}\n", refusal.reason());
    match refusal {
        Refusal::TokenMissing { .. }
        | Refusal::TokenUnknown
        | Refusal::TokenExpired
        | Refusal::TokenInvalid { .. }
        | Refusal::CertificateUnknown { .. }
        | Refusal::SignatureMissing { .. }
        | Refusal::SignatureInvalid { .. } => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], text).into_response()
        }
        Refusal::RoleMissing { .. } => (StatusCode::FORBIDDEN, text).into_response(),
        Refusal::KeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
        Refusal::UnknownMethod { .. } => (StatusCode::NOT_FOUND, text).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn public(identities: &str, http_tls: bool) -> Settings {
        Settings {
            http_address: SocketAddr::from(([0, 0, 0, 0], 9464)),
            tls_certificate: "tls.crt".into(),
            tls_key: "tls.key".into(),
            tls_client_ca: "ca.crt".into(),
            identities: identities.into(),
            http_tls,
            ..Settings::default()
        }
    }

    #[test]
    fn strangers_get_no_answer_and_no_token_is_taken_where_it_can_be_read() {
        for withheld in [withheld, withheld_from_callers] {
            // The gRPC port asks for certificates; this one cannot.
            for http_tls in [true, false] {
                let why = withheld(&public("", http_tls));
                assert!(why.is_some_and(|why| why.contains("identities")));
            }
            let why = withheld(&public("who.yaml", false));
            assert!(why.is_some_and(|why| why.contains("TLS")));
            assert!(withheld(&public("who.yaml", true)).is_none());
            assert!(withheld(&Settings::default()).is_none());
            assert!(withheld(&Settings { insecure: true, ..public("", false) }).is_none());
        }
    }

    #[test]
    fn who_would_need_a_certificate_over_grpc_is_not_heard_without_one_here() {
        let http_address = Settings::default().http_address;
        let guarded = Settings { http_address, ..public("", true) };
        let why = withheld_from_callers(&guarded);
        assert!(why.is_some_and(|why| why.contains("certificates")));
    }
}
