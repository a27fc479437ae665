//! What holds for every call, whichever service answers it: how long it may take, and what is said of a message
//! that is too large.
//!
//! In: calls that have passed the gate. Out: the services' answers, or a refusal in our own words. It stands
//! around all services, since those that are not ours (health, reflection) have no bounds of their own, and
//! tonic's answers to a message that is too large or a call that takes too long have codes that mean something
//! else and no details.
//!
//! Always:
//! 1. A call ends within `call_timeout` if it carries a clip, else within `request_timeout`, however slowly its
//!    request comes. Streams are no calls in this sense: they answer at once and have time-outs of their own.
//! 2. Streams of services that are not ours end when the server has nothing else to wait for: whoever watches
//!    its health holds up no restart.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::doors::CLIPS;
use super::status;
use crate::config::Settings;

/// What the paths of services that are not ours begin with.
const BESIDE: &str = "/grpc.";

/// The layer.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// For a call that carries a clip.
    clip: Duration,
    /// For all others.
    request: Duration,
    closing: CancellationToken,
}

impl Bounds {
    /// Streams beside ours end with `closing`.
    pub(super) fn new(settings: &Settings, closing: CancellationToken) -> Self {
        let (clip, request) = (settings.call_timeout.0, settings.request_timeout.0);
        Self { clip, request, closing }
    }
}

impl<S> Layer<S> for Bounds {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, bounds: self.clone() }
    }
}

/// A service within its bounds.
#[derive(Debug, Clone)]
pub(super) struct Bounded<S> {
    inner: S,
    bounds: Bounds,
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let (setting, limit) = if path == CLIPS {
            ("call_timeout", self.bounds.clip)
        } else {
            ("request_timeout", self.bounds.request)
        };
        let end = path.starts_with(BESIDE).then(|| self.bounds.closing.clone());
        if let Some(end) = &end {
            // The request too: reflection reads it on a task of its own, which keeps the stream open.
            request = request.map(|body| Ending::body(body, end, false));
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(answer) = timeout(limit, answer).await else {
                return Ok(status::call_timeout(setting, limit).into_http());
            };
            let answer = in_our_words(answer?);
            Ok(match end {
                Some(end) => answer.map(|body| Ending::body(body, &end, true)),
                None => answer,
            })
        })
    }
}

/// What the decoder says of a message that is too large, as it comes (`OUT_OF_RANGE`) or unpacked. It is known
/// by having no details: all answers of ours have some.
fn in_our_words(answer: Response<Body>) -> Response<Body> {
    let said = Status::from_header_map(answer.headers());
    let of_decoder = said.filter(|said| {
        matches!(said.code(), Code::OutOfRange | Code::ResourceExhausted)
            && said.details().is_empty()
    });
    match of_decoder {
        Some(said) => status::too_large(said.message()).into_http(),
        None => answer,
    }
}

/// A request or an answer that ends at the latest when the server has nothing else to wait for.
struct Ending {
    /// `None` once it has ended.
    inner: Option<Body>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    is_answer: bool,
}

impl Ending {
    fn body(inner: Body, end: &CancellationToken, is_answer: bool) -> Body {
        let end = Box::pin(end.clone().cancelled_owned());
        Body::new(Self { inner: Some(inner), end, is_answer })
    }
}

impl http_body::Body for Ending {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        // What is there is sent first.
        if let Poll::Ready(next) = Pin::new(inner).poll_frame(context) {
            return Poll::Ready(next);
        }
        ready!(self.end.as_mut().poll(context));
        self.inner = None;
        if !self.is_answer {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match status::draining().add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}
