//! Audio over WebSocket, beside gRPC: the same sessions, policies, limits and identities.
//!
//! | path | what |
//! |---|---|
//! | `/v1/stream` | the service's own protocol, for browsers and frameworks without gRPC ([`own`]) |
//! | `/v1/twilio` | Twilio Media Streams ([`twilio`]) |
//! | `/v1/audiohook` | Genesys `AudioHook` ([`audiohook`]) |
//!
//! In: upgrade requests on the HTTP port. Out: sessions. What differs between the protocols is how a message is
//! understood ([`talk::Ears`]) and how something is said ([`talk::Mouth`]); how a session is run over a socket is the same
//! for all ([`talk::talk`]).
//!
//! Always:
//! 1. Nobody is heard who has not proved who they are, where identities are configured; and a browser's page is
//!    heard only if it comes from here or from an origin that the settings allow.
//! 2. A client that sends faster than it is analysed is not read from; one that does not read is cut off. No
//!    queue but the session's own.
//! 3. A session over WebSocket ends in the same ways, and is counted, traced and drained as one over gRPC.

mod audiohook;
mod origin;
mod own;
mod talk;
mod twilio;

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;

use super::Live;
use super::identity::{Gate, Refusal};
use crate::config::Settings;
use crate::session::Context;
use crate::telemetry::trace;

pub(super) use origin::Origins;

/// What a message may have besides its audio, bytes: a configuration with a policy fits.
const BESIDES: usize = 128 * 1024;

/// What all sessions over WebSocket share.
#[derive(Debug)]
pub(super) struct Ingress {
    context: Context,
    live: Live,
    gate: Arc<Gate>,
    origins: Origins,
    /// Why nobody is heard on this port, if nobody is.
    withheld: Option<&'static str>,
    /// Largest message, bytes.
    max_message: usize,
    /// How callers of telephony call this server: scheme and host; empty for what their requests say.
    public_url: String,
}

impl Ingress {
    /// Sessions in `context` are `live`.
    pub(super) fn new(context: Context, live: Live, gate: Arc<Gate>, settings: &Settings) -> Self {
        // Audio may come in base64.
        let largest = settings.max_chunk_bytes.max(settings.max_resume_token_bytes) as usize;
        Self {
            context,
            live,
            gate,
            origins: Origins::new(&settings.allowed_origins, settings.has_identities()),
            withheld: super::http::withheld_from_callers(settings),
            max_message: largest.div_ceil(3) * 4 + BESIDES,
            public_url: settings.public_url.trim_end_matches('/').to_owned(),
        }
    }

    /// Host and path as a caller has called them.
    fn called(&self, host: &str, uri: &Uri) -> (String, String) {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let public = self.public_url.split_once("://").map(|(_, rest)| rest);
        match public {
            None => (host.to_owned(), target.to_owned()),
            Some(public) => {
                let (host, prefix) = public.split_once('/').unwrap_or((public, ""));
                let slash = if prefix.is_empty() { "" } else { "/" };
                (host.to_owned(), format!("{slash}{prefix}{target}"))
            }
        }
    }

    /// The ways to write the URL that was called: with the scheme's own port and without, with a slash at the end and
    /// without. Telephone systems are not of one mind.
    fn urls(&self, scheme: &str, host: &str, uri: &Uri) -> Vec<String> {
        let (host, target) = self.called(host, uri);
        let bare = host.strip_suffix(":443").unwrap_or(&host);
        let with_port = if bare.contains(':') { bare.to_owned() } else { format!("{bare}:443") };
        let mut urls = Vec::new();
        for host in [bare, &with_port] {
            urls.push(format!("{scheme}://{host}{target}"));
            urls.push(format!("{scheme}://{host}{target}/"));
        }
        urls
    }

    /// Who calls, before the upgrade, for protocols whose callers are programs that read answers.
    #[allow(clippy::result_large_err, reason = "it is the answer, and made once")]
    fn admit<T>(
        &self,
        rejection: Option<&WebSocketUpgradeRejection>,
        who: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Response> {
        if let Some(why) = self.withheld {
            return Err(refuse(StatusCode::FORBIDDEN, why.trim_end()));
        }
        if let Some(rejection) = rejection {
            return Err(refuse(
                StatusCode::BAD_REQUEST,
                format!("{rejection}; this is a WebSocket"),
            ));
        }
        who().map_err(|refusal| super::http::refused(&refusal))
    }

    /// A socket of this request, within the bounds of messages.
    fn bounded(&self, upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
        upgrade.max_message_size(self.max_message).max_frame_size(self.max_message)
    }
}

/// The paths.
pub(super) fn routes(ingress: Arc<Ingress>) -> Router {
    Router::new()
        .route("/v1/stream", any(own::upgrade))
        .route("/v1/twilio", any(twilio::upgrade))
        .route("/v1/audiohook", any(audiohook::upgrade))
        .with_state(ingress)
}

/// The span of a stream over WebSocket.
fn span(path: &'static str, headers: &HeaderMap) -> tracing::Span {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    trace::socket(path, header("traceparent"), header("tracestate"))
}

/// A refusal before the upgrade, in words.
fn refuse(status: StatusCode, words: impl Into<String>) -> Response {
    let mut words = words.into();
    words.push('\n');
    (status, words).into_response()
}
