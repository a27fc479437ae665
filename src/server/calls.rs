//! One layer around all calls: each has a span and is timed.
//!
//! In: requests with their headers, of which `traceparent` and `tracestate` (W3C trace context) name the
//! caller's span. Out: the same, inside the call's span; when its answer has ended, its status and how long it
//! took. A stream ends with its trailers; one whose client goes before that has the status `CANCELLED`.
//!
//! Health checks and reflection are counted but have no spans: probes come every few seconds.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use crate::telemetry::{metrics, trace};
use crate::wire::{DESCRIPTORS, code_name};

/// What the conventions call a method that nobody has declared: its name is the caller's own words.
const OTHER: &str = "_OTHER";
/// Methods of the services beside ours.
const BESIDE: [&str; 4] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Our methods: package, service and name. As many as the protocol declares, kept for the process.
static METHODS: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| {
    // The descriptors are made by our own build.
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let mut methods = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                methods.insert(&*name.leak());
            }
        }
    }
    methods
});

/// The declared method that a path names, and whether it is ours.
fn method(path: &str) -> (&'static str, bool) {
    let name = path.strip_prefix('/').unwrap_or(path);
    if let Some(ours) = METHODS.get(name) {
        return (ours, true);
    }
    (BESIDE.into_iter().find(|beside| *beside == name).unwrap_or(OTHER), false)
}

/// The layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls;

impl<S> Layer<S> for Calls {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched(inner)
    }
}

/// A service whose calls are watched.
#[derive(Debug, Clone)]
pub(super) struct Watched<S>(S);

impl<S, B> Service<Request<B>> for Watched<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = Call::begin(request.uri().path(), request.headers());
        let span = call.span.clone();
        let answer = span.in_scope(|| self.0.call(request));
        Box::pin(async move {
            let response = answer.instrument(span).await?;
            Ok(call.follow(response))
        })
    }
}

/// A call under way; it ends when this is dropped.
struct Call {
    method: &'static str,
    span: Span,
    began: Instant,
    /// What the trailers said; none have come as long as it is `None`.
    status: Option<&'static str>,
}

impl Call {
    fn begin(path: &str, headers: &HeaderMap) -> Self {
        let (method, is_ours) = method(path);
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let span = if is_ours {
            trace::call(method, header("traceparent"), header("tracestate"))
        } else {
            Span::none()
        };
        Self { method, span, began: Instant::now(), status: None }
    }

    /// Waits for the end of the answer.
    fn follow(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(status) = status_in(response.headers()) {
            // An answer without messages has its status up here.
            self.status = Some(status);
            return response;
        }
        response.map(|inner| Body::new(Followed { inner, call: self }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let status = self.status.unwrap_or("CANCELLED");
        metrics().call_ended(self.method, status, self.began.elapsed());
        trace::call_ended(&self.span, status);
    }
}

/// An answer whose trailers are looked at.
struct Followed {
    inner: Body,
    call: Call,
}

impl http_body::Body for Followed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let next = Pin::new(&mut self.inner).poll_frame(cx);
        match &next {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.status = status_in(trailers).or(Some("UNKNOWN"));
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.status = Some(code_name(status.code())),
            Poll::Ready(None) | Poll::Pending => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn status_in(headers: &HeaderMap) -> Option<&'static str> {
    Some(code_name(Code::from_bytes(headers.get("grpc-status")?.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_methods_have_their_names_and_all_others_share_one() {
        let stream = "undertone.v1.EmotionService/StreamEmotion";
        assert_eq!(method("/undertone.v1.EmotionService/StreamEmotion"), (stream, true));
        assert!(method("/undertone.v1.EscalationService/WatchEscalations").1);
        let health = "grpc.health.v1.Health/Check";
        assert_eq!(method("/grpc.health.v1.Health/Check"), (health, false));
        for wrong in ["", "/", "/x/y", "/undertone.v1.EmotionService/Sing", "//"] {
            assert_eq!(method(wrong), (OTHER, false), "{wrong}");
        }
    }
}
