//! The Model Context Protocol on the HTTP port (`/mcp`), for language models and what runs them.
//!
//! In: requests of MCP clients (streamable HTTP). Out: the answers of [`Tools`], which calls the services of this very
//! process, see [`super::inside`]: somebody unknown gets a 401 at the door.
//!
//! Always: no request outlives its answer; there are no sessions of this protocol, and no streams.

use std::fmt;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::http::refused;
use super::inside::{Inside, Sizes, Stopped};
use crate::mcp::{MAX_MESSAGE_BYTES, OverHttp, SMALL_MESSAGE_BYTES, Tools, Way, over_http};

/// What answers at `/mcp`.
#[derive(Clone)]
pub(super) struct Mcp {
    service: OverHttp,
    inside: Inside,
}

impl fmt::Debug for Mcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mcp").field("inside", &self.inside).finish_non_exhaustive()
    }
}

impl Mcp {
    /// Over these services, until `closing`.
    pub(super) fn new(inside: Inside, closing: CancellationToken) -> Self {
        let tools = Tools::new(Way::of_requests(inside.service()), None);
        Self { service: over_http(tools, closing), inside }
    }

    /// The path.
    pub(super) fn routes(self) -> Router {
        Router::new().route("/mcp", any(answer)).with_state(self)
    }
}

fn stopped(stopped: &Stopped) -> Response {
    let status = match stopped {
        Stopped::Unknown(refusal) => return refused(refusal),
        Stopped::Full(_) => {
            let text = format!("{stopped}\n");
            let again = [(header::RETRY_AFTER, "2")];
            return (StatusCode::TOO_MANY_REQUESTS, again, text).into_response();
        }
        Stopped::Withheld(_) | Stopped::Origin => StatusCode::FORBIDDEN,
        Stopped::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Stopped::Unreadable { .. } => StatusCode::BAD_REQUEST,
        Stopped::Late { .. } => StatusCode::REQUEST_TIMEOUT,
    };
    (status, format!("{stopped}\n")).into_response()
}

/// Answers one request.
async fn answer(Extract(mcp): Extract<Mcp>, request: Request) -> Response {
    let standing = match mcp.inside.admit("/mcp", request.headers()).await {
        Ok(standing) => standing,
        Err(why) => return stopped(&why),
    };
    let (mut parts, body) = request.into_parts();
    if let Some(token) = parts.headers.get_mut(header::AUTHORIZATION) {
        // It goes on to the service; nothing on the way can log it.
        token.set_sensitive(true);
    }
    if parts.method != Method::POST {
        // They have no body.
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    let sizes = Sizes { small: SMALL_MESSAGE_BYTES, largest: MAX_MESSAGE_BYTES };
    let come = match mcp.inside.take(&standing, &parts.headers, body, sizes).await {
        Ok(come) => come,
        Err(why) => return stopped(&why),
    };
    let request = Request::from_parts(parts, Body::from(come.body));
    let Ok(answer) = mcp.service.clone().call(request).await;
    drop((come.under_way, come.place));
    answer.map(Body::new)
}
