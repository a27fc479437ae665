//! The HTTP port: metrics for Prometheus, probes, the live sessions.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::observe::Observer;
use crate::escalation::Health;
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

/// Serves until `closing`.
pub(super) async fn serve(listener: TcpListener, state: State, closing: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        // Alive: the process answers. Ready: it takes new streams.
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/accepting", get(accepting))
        .route("/sessions", get(sessions))
        .with_state(state);
    let served = axum::serve(listener, router).with_graceful_shutdown(closing.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "HTTP port failed");
    }
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

async fn sessions(Extract(state): Extract<State>) -> impl IntoResponse {
    Json(state.registry.list())
}
