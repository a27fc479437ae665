//! The Model Context Protocol on the HTTP port (`/mcp`), for language models and what runs them.
//!
//! In: requests of MCP clients (streamable HTTP). Out: the answers of [`Tools`], which calls the services of this very
//! process behind the same layers as the gRPC port has: who calls is asked at the door, where somebody unknown gets a
//! 401, and again of each call that a tool makes, by the same header, which is where roles, tenants and quotas hold.
//!
//! Always:
//! 1. No request outlives its answer: there are no sessions of this protocol, and no streams.
//! 2. What requests under way may take is bounded: those with a recording by number, as on the gRPC port, all others
//!    are small.
//! 3. A page in a browser gets nowhere: neither one of another origin, nor one that calls this machine by a name of its
//!    own (DNS rebinding).
//! 4. A request that has come is heard out when the server drains, as calls on the gRPC port are, until the deadline.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::{Layer as _, Service as _};

use super::bounds::Bounds;
use super::calls::Calls;
use super::doors::Doors;
use super::escalations::{Escalations, Storeless};
use super::http::{self, refused};
use super::identity::{Access, Gate, GateLayer};
use super::ingress::Origins;
use super::places::{Full, Places};
use super::sessions::Sessions;
use crate::config::Settings;
use crate::mcp::{MAX_MESSAGE_BYTES, OverHttp, SMALL_MESSAGE_BYTES, Tools, Way, over_http};
use crate::wire::v1::escalation_service_server::EscalationServiceServer;
use crate::wire::v1::session_service_server::SessionServiceServer;

/// What tools call; without a store there are no escalations.
type Services =
    (Doors, SessionServiceServer<Sessions>, Option<EscalationServiceServer<Escalations>>);

/// What answers at `/mcp`.
#[derive(Clone)]
pub(super) struct Mcp {
    service: OverHttp,
    origins: Origins,
    gate: Arc<Gate>,
    /// For requests that may carry a recording.
    clips: Arc<Places>,
    /// Requests under way, for whoever waits for their end.
    under_way: TaskTracker,
    /// Longest time for a request to come: with a recording, and without.
    within: (Duration, Duration),
    /// Why nobody gets an answer, if so.
    withheld: Option<&'static str>,
}

impl fmt::Debug for Mcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mcp").field("withheld", &self.withheld).finish_non_exhaustive()
    }
}

impl Mcp {
    /// Over these services, until `closing`.
    pub(super) fn new(
        (emotion, sessions, escalations): Services,
        settings: &Settings,
        gate: Arc<Gate>,
        under_way: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        let mut routes = Routes::builder();
        routes.add_service(emotion).add_service(sessions);
        match escalations {
            Some(escalations) => routes.add_service(escalations),
            None => routes.add_service(Storeless),
        };
        let routes = routes.routes().prepare();
        // As the gRPC port has them, but for gRPC-Web.
        let bounded = Bounds::new(settings, closing.clone()).layer(routes);
        let service = Calls.layer(GateLayer::new(gate.clone()).layer(bounded));
        let tools = Tools::new(Way::of_requests(service), None);
        let max_clips = settings.max_clips as usize + settings.max_clips_waiting as usize;
        Self {
            service: over_http(tools, closing),
            origins: Origins::new(&settings.allowed_origins, settings.has_identities()),
            gate,
            clips: Places::new(max_clips, settings.share()),
            under_way,
            within: (settings.call_timeout.0, settings.request_timeout.0),
            withheld: http::withheld_from_callers(settings),
        }
    }
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn full(full: Full) -> Response {
    let text = match full {
        Full::All { limit } => format!("the server has {limit} recordings under way\n"),
        Full::Share { share } => {
            format!(
                "there are {share} recordings of this tenant or identity under way (max_share)\n"
            )
        }
    };
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "2")], text).into_response()
}

/// Answers one request.
pub(super) async fn answer(Extract(mcp): Extract<Mcp>, request: Request) -> Response {
    if let Some(why) = mcp.withheld {
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let headers = request.headers();
    if !(mcp.origins.admit(headers) && mcp.origins.knows_host(headers)) {
        let why = "/mcp is not for pages of others, nor called by a name that is not this server's; see allowed_origins\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let admitted = mcp.gate.admit_as(Access::Known, "/mcp", headers, None).await;
    let standing = match admitted {
        Ok(standing) => standing,
        Err(refusal) => return refused(&refusal),
    };
    let (mut parts, body) = request.into_parts();
    if let Some(token) = parts.headers.get_mut(header::AUTHORIZATION) {
        // It goes on to the service; nothing on the way can log it.
        token.set_sensitive(true);
    }
    // Of a request that does not say how long it is, anything must be expected.
    let length = if parts.method == Method::POST { length(&parts.headers) } else { Some(0) };
    let is_small = length.is_some_and(|length| length <= SMALL_MESSAGE_BYTES);
    let (max, within, turn) = if is_small {
        (SMALL_MESSAGE_BYTES, mcp.within.1, None)
    } else {
        match mcp.clips.take(standing.identity()) {
            Ok(turn) => (MAX_MESSAGE_BYTES, mcp.within.0, Some(turn)),
            Err(none) => return full(none),
        }
    };
    if length.is_some_and(|length| length > max) {
        let text = format!("a message has at most {max} bytes\n");
        return (StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    let body = match tokio::time::timeout(within, axum::body::to_bytes(body, max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            let text =
                format!("the message cannot be read, or has more than {max} bytes: {error}\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
        Err(_) => {
            let text = format!("the message did not come within {within:?}\n");
            return (StatusCode::REQUEST_TIMEOUT, text).into_response();
        }
    };
    // From here on it is heard out, as calls on the gRPC port are; whoever dawdles with a request is not waited for.
    let _under_way = mcp.under_way.token();
    let request = Request::from_parts(parts, Body::from(body));
    let Ok(answer) = mcp.service.clone().call(request).await;
    drop(turn);
    answer.map(Body::new)
}
