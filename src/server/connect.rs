//! The service's calls over plain HTTP, by the Connect protocol: for browsers, the console among them, and for whoever has
//! an HTTP client and no gRPC.
//!
//! In: `POST /undertone.v1.SERVICE/METHOD` with a message in protobuf's JSON, or in its bytes. Out: the answer in the same
//! coding; for a method with many answers a stream of them, each in an envelope of five bytes. Errors are Connect's, in
//! JSON, with the details that gRPC has. Source: <https://connectrpc.com/docs/protocol>, version 1; of it POST alone,
//! uncompressed, and no method that takes many requests: those have `/v1/stream`.
//!
//! Always: what is called, by whom and within which bounds is as on the gRPC port, see [`super::inside`].

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures_util::stream::unfold;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tokio_stream::{Stream, StreamExt as _};
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::doors::{CLIPS, POLICIES, SMALL};
use super::inside::{Come, Inside, Service, Sizes, Stopped};
use super::status;
use crate::config::Settings;
use crate::mcp::PASSED_ON;
use crate::wire::codec::Raw;
use crate::wire::json::Method;
use crate::wire::parse::Violation;
use crate::wire::{code_name, json};

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Json,
    Protobuf,
}

/// The types of messages.
const UNARY: [(&str, Coding); 2] =
    [("application/json", Coding::Json), ("application/proto", Coding::Protobuf)];
/// The types of streams of them.
const STREAM: [(&str, Coding); 2] =
    [("application/connect+json", Coding::Json), ("application/connect+proto", Coding::Protobuf)];
/// The flag of the last envelope.
const LAST: u8 = 2;
/// Largest request with a policy's text, bytes: 64 KiB of it, of which some signs are escaped.
const POLICY: usize = 256 * 1024;
/// From this size on, bytes, JSON is read and written where it holds up nobody.
const LARGE: usize = 64 * 1024;
/// Largest answer, bytes: an hour's time line with a policy's courses.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What answers.
#[derive(Debug, Clone)]
pub(super) struct Connect {
    inside: Inside,
    /// Largest request with a recording, bytes.
    largest: usize,
}

impl Connect {
    /// Over these services.
    pub(super) fn new(inside: Inside, settings: &Settings) -> Self {
        // The recording comes in base64, beside it perhaps a policy.
        let largest = (settings.max_clip_bytes as usize).div_ceil(3) * 4 + POLICY;
        Self { inside, largest }
    }

    /// The paths.
    pub(super) fn routes(self) -> Router {
        Router::new()
            .route("/undertone.v1.EmotionService/{method}", post(answer))
            .route("/undertone.v1.EscalationService/{method}", post(answer))
            .route("/undertone.v1.SessionService/{method}", post(answer))
            .with_state(self)
    }
}

/// An error before anything was called, or in place of a single answer.
fn refuse(status: &Status) -> Response {
    let code = match status.code() {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
    };
    let mut response = (code, axum::Json(error(status))).into_response();
    if code == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

/// Connect's JSON of an error.
fn error(status: &Status) -> Value {
    // One word of Connect's is spelt otherwise.
    let code = match status.code() {
        Code::Cancelled => "canceled".to_owned(),
        code => code_name(code).to_lowercase(),
    };
    let details = tonic_types::pb::Status::decode(status.details()).unwrap_or_default().details;
    let details: Vec<Value> = details
        .iter()
        .map(|detail| {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            let value = STANDARD_NO_PAD.encode(&detail.value);
            json!({"type": name, "value": value, "debug": json::detail(name, &detail.value)})
        })
        .collect();
    json!({"code": code, "message": status.message(), "details": details})
}

fn stopped(stopped: Stopped) -> Status {
    match stopped {
        Stopped::Unknown(refusal) => status::of_refusal(&refusal),
        Stopped::Full(full) => status::too_many_clips(full),
        Stopped::Withheld(_) | Stopped::Origin => Status::permission_denied(stopped.to_string()),
        Stopped::TooLarge { .. } => status::too_large(&stopped.to_string()),
        Stopped::Unreadable { .. } => Status::invalid_argument(stopped.to_string()),
        Stopped::Late { .. } => Status::deadline_exceeded(stopped.to_string()),
    }
}

/// How a message is asked for and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Manner {
    /// The type of both.
    kind: &'static str,
    coding: Coding,
    /// How long the answer may take.
    timeout: Option<Duration>,
}

/// The manner of a request, if it is of this protocol and of one of the types that are `known`.
#[allow(clippy::result_large_err, reason = "it is the answer, and made once")]
fn understood(headers: &HeaderMap, known: [(&'static str, Coding); 2]) -> Result<Manner, Response> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text("content-type").unwrap_or_default();
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let parameters = parameters.trim();
    let plain = parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8");
    let found = known.into_iter().find(|(name, _)| kind.trim().eq_ignore_ascii_case(name));
    let Some((kind, coding)) = found.filter(|_| plain) else {
        let [(one, _), (other, _)] = known;
        let words = format!("this method takes {one} and {other}\n");
        let accepted = [("accept-post", format!("{one}, {other}"))];
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, accepted, words).into_response());
    };
    for name in ["content-encoding", "connect-content-encoding"] {
        if text(name).is_some_and(|coding| coding != "identity") {
            let words = format!("{name}: only identity is taken");
            return Err(refuse(&Status::unimplemented(words)));
        }
    }
    if text("connect-protocol-version").is_some_and(|version| version != "1") {
        let words = "connect-protocol-version: must be 1";
        return Err(refuse(&Status::invalid_argument(words)));
    }
    let timeout = match text("connect-timeout-ms").map(str::parse) {
        None => None,
        Some(Ok(timeout)) if timeout <= 9_999_999_999 => Some(Duration::from_millis(timeout)),
        Some(Ok(_) | Err(_)) => {
            let words = "connect-timeout-ms: must be a whole number of at most 10 digits";
            return Err(refuse(&Status::invalid_argument(words)));
        }
    };
    Ok(Manner { kind, coding, timeout })
}

/// Answers one call.
async fn answer(Extract(connect): Extract<Connect>, uri: Uri, request: Request) -> Response {
    let path = uri.path();
    let Some(method) = Method::at(path) else {
        let words = format!("there is no method {path}\n");
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    if method.takes_stream {
        let words = "this method takes a stream: over gRPC, or WebSocket at /v1/stream";
        return refuse(&Status::unimplemented(words));
    }
    let known = if method.gives_stream { STREAM } else { UNARY };
    let manner = match understood(request.headers(), known) {
        Ok(manner) => manner,
        Err(refusal) => return refusal,
    };
    // In a stream an error is the last envelope, unless nobody has been let in.
    call(&connect, path, method, request, manner).await.unwrap_or_else(|refusal| refuse(&refusal))
}

async fn call(
    connect: &Connect,
    path: &str,
    method: Method,
    request: Request,
    manner: Manner,
) -> Result<Response, Status> {
    let inside = &connect.inside;
    let (parts, body) = request.into_parts();
    let standing = inside.admit(path, &parts.headers).await.map_err(stopped)?;
    let sizes = match path {
        CLIPS => Sizes { small: POLICY, largest: connect.largest },
        POLICIES => Sizes { small: POLICY, largest: POLICY },
        _ => Sizes { small: SMALL, largest: SMALL },
    };
    let come = inside.take(&standing, &parts.headers, body, sizes).await.map_err(stopped)?;
    let Come { body, under_way, place } = come;
    let body = if method.gives_stream { unwrapped(&body)? } else { body };
    let message = beside(body.len(), {
        let method = method.clone();
        move || match manner.coding {
            Coding::Json => method.read(&body),
            Coding::Protobuf => method.check(body),
        }
    });
    let message = message.await?.map_err(|error| {
        status::invalid(&[Violation { field: "message", problem: format!("is none: {error}") }])
    })?;
    let call =
        tonic::Request::from_parts(passed_on(&parts.headers), http::Extensions::new(), message);
    let grpc = Grpc::new(inside.service()).max_decoding_message_size(MAX_ANSWER_BYTES);
    let path = http::uri::PathAndQuery::try_from(path);
    let path = path.map_err(|error| Status::internal(error.to_string()))?;
    if method.gives_stream {
        // The watch itself is what a drain waits for.
        drop(under_way);
        return streamed(grpc, path, call, method, manner).await;
    }
    let answered = within(manner.timeout, single(grpc, path, call)).await?;
    let written = beside(answered.len(), move || written(&method, manner.coding, answered)).await?;
    drop((under_way, place));
    Ok(([(header::CONTENT_TYPE, manner.kind)], written?).into_response())
}

/// An answer as it goes.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn written(method: &Method, coding: Coding, answer: Bytes) -> Result<Bytes, Status> {
    match coding {
        Coding::Protobuf => Ok(answer),
        Coding::Json => {
            let written = method.write(&answer).map(Bytes::from);
            written.ok_or_else(|| Status::internal("the answer cannot be written"))
        }
    }
}

/// Does what takes long for many `bytes` on a thread for such things.
async fn beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    if bytes < LARGE {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))
}

async fn within<T>(
    timeout: Option<Duration>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match timeout {
        None => call.await,
        Some(timeout) => tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(late())),
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the answer did not come within connect-timeout-ms")
}

fn passed_on(headers: &HeaderMap) -> MetadataMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        if let Some(value) = headers.get(name) {
            let mut value = value.clone();
            // Nothing on the way can log a token.
            value.set_sensitive(name == "authorization");
            passed.insert(name, value);
        }
    }
    MetadataMap::from_headers(passed)
}

type Call = tonic::Request<Bytes>;

async fn single(
    mut grpc: Grpc<Service>,
    path: http::uri::PathAndQuery,
    call: Call,
) -> Result<Bytes, Status> {
    grpc.ready().await?;
    Ok(grpc.unary(call, path, Raw).await?.into_inner())
}

async fn streamed(
    mut grpc: Grpc<Service>,
    path: http::uri::PathAndQuery,
    call: Call,
    method: Method,
    Manner { kind, coding, timeout }: Manner,
) -> Result<Response, Status> {
    let ends = timeout.map(|timeout| Instant::now() + timeout);
    grpc.ready().await?;
    let answers = match within(timeout, grpc.server_streaming(call, path, Raw)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => {
            let last = last(Some(&status));
            return Ok(([(header::CONTENT_TYPE, kind)], Body::from(last)).into_response());
        }
    };
    let messages = answers.map(move |answer| written(&method, coding, answer?));
    let body = Body::from_stream(unfold(Some(messages), move |messages| next(messages, ends)));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// The next envelope; behind the last one none.
async fn next<S>(
    messages: Option<S>,
    ends: Option<Instant>,
) -> Option<(Result<Bytes, Infallible>, Option<S>)>
where
    S: Stream<Item = Result<Bytes, Status>> + Unpin,
{
    let mut messages = messages?;
    let message = match ends {
        None => messages.next().await,
        Some(at) => timeout_at(at, messages.next()).await.unwrap_or_else(|_| Some(Err(late()))),
    };
    Some(match message {
        Some(Ok(message)) => (Ok(enveloped(0, &message)), Some(messages)),
        Some(Err(status)) => (Ok(last(Some(&status))), None),
        None => (Ok(last(None)), None),
    })
}

/// The one message of a request for a stream.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn unwrapped(body: &Bytes) -> Result<Bytes, Status> {
    let wrong = |what: &str| Status::invalid_argument(format!("the request's envelope {what}"));
    let Some((head, message)) = body.split_first_chunk::<5>() else {
        return Err(wrong("is missing: a byte of flags, four of length, and the message"));
    };
    let [flags, length @ ..] = *head;
    if flags != 0 {
        return Err(wrong("has flags; a request is one message, uncompressed"));
    }
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(wrong("has another length than its message; a request is one message"));
    }
    Ok(body.slice(head.len()..))
}

/// A message in its envelope.
fn enveloped(flags: u8, message: &[u8]) -> Bytes {
    let mut envelope = Vec::with_capacity(5 + message.len());
    envelope.push(flags);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    envelope.extend_from_slice(&length.to_be_bytes());
    envelope.extend_from_slice(message);
    envelope.into()
}

/// The last envelope.
fn last(status: Option<&Status>) -> Bytes {
    let body = match status {
        None => json!({}),
        Some(status) => json!({"error": error(status)}),
    };
    enveloped(LAST, body.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_has_connects_code_and_readable_details() {
        let violation = Violation { field: "id", problem: "is missing".to_owned() };
        let json = error(&status::invalid(&[violation]));
        assert_eq!(json["code"], "invalid_argument");
        let details = json["details"].as_array().unwrap();
        let of = |name: &str| details.iter().find(|detail| detail["type"] == name).unwrap();
        assert_eq!(of("google.rpc.ErrorInfo")["debug"]["reason"], "INVALID_REQUEST");
        assert_eq!(of("google.rpc.BadRequest")["debug"]["fieldViolations"][0]["field"], "id");
        assert!(!of("google.rpc.BadRequest")["value"].as_str().unwrap().contains('='));
        assert_eq!(error(&Status::cancelled("gone"))["code"], "canceled");
    }

    #[test]
    fn every_code_has_the_status_that_the_protocol_gives_it() {
        for (code, http) in [
            (Code::Cancelled, 499),
            (Code::InvalidArgument, 400),
            (Code::FailedPrecondition, 400),
            (Code::NotFound, 404),
            (Code::Aborted, 409),
            (Code::ResourceExhausted, 429),
            (Code::Unimplemented, 501),
            (Code::Unavailable, 503),
            (Code::DeadlineExceeded, 504),
            (Code::Unauthenticated, 401),
            (Code::PermissionDenied, 403),
        ] {
            assert_eq!(refuse(&Status::new(code, "x")).status().as_u16(), http, "{code:?}");
        }
    }

    #[test]
    fn what_is_not_of_the_protocol_is_told_so() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), value.parse().unwrap())
            });
            pairs.collect::<HeaderMap>()
        };
        let json = ("content-type", "application/json");
        let manner = understood(&headers(&[json]), UNARY).unwrap();
        assert_eq!((manner.coding, manner.timeout), (Coding::Json, None));
        let bytes = ("content-type", "application/proto");
        assert_eq!(understood(&headers(&[bytes]), UNARY).unwrap().coding, Coding::Protobuf);
        let more =
            [("content-type", "application/json; charset=UTF-8"), ("connect-timeout-ms", "250")];
        let limit = understood(&headers(&more), UNARY).unwrap().timeout;
        assert_eq!(limit, Some(Duration::from_millis(250)));
        for (wrong, code) in [
            (vec![], 415),
            (vec![("content-type", "application/x-www-form-urlencoded")], 415),
            (vec![("content-type", "application/json; charset=latin1")], 415),
            (vec![json, ("content-encoding", "gzip")], 501),
            (vec![json, ("connect-protocol-version", "2")], 400),
            (vec![json, ("connect-timeout-ms", "-1")], 400),
            (vec![json, ("connect-timeout-ms", "99999999999")], 400),
        ] {
            let refusal = understood(&headers(&wrong), UNARY).unwrap_err();
            assert_eq!(refusal.status().as_u16(), code, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn an_envelope_is_opened_as_it_was_closed_and_nothing_else_is(
            message in prop::collection::vec(any::<u8>(), 0..64), cut in 0_usize..64, flags in any::<u8>(),
        ) {
            let envelope = enveloped(flags, &message);
            let opened = unwrapped(&envelope);
            prop_assert_eq!(opened.is_ok(), flags == 0);
            if let Ok(opened) = opened {
                prop_assert_eq!(&opened[..], &message[..]);
            }
            let short = envelope.slice(..cut.min(envelope.len() - 1));
            prop_assert!(unwrapped(&short).is_err());
        }
    }
}
