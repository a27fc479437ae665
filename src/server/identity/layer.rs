//! The gate in front of all gRPC services: a request gets an `Arc<Identity>` and its
//! [`Standing`](super::Standing) among its extensions, or a status.
//!
//! It stands behind gRPC-Web, so that those calls pass it as well and hear its refusals in their own form.
//! The header `authorization` ends here: nothing behind it can log it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, header};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower_layer::Layer;

use super::gate::Gate;
use crate::server::status;

/// Puts the gate in front of a service.
#[derive(Debug, Clone)]
pub struct GateLayer(Arc<Gate>);

impl GateLayer {
    /// With this gate.
    pub fn new(gate: Arc<Gate>) -> Self {
        Self(gate)
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.0.clone() }
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready is used; its clone waits for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let gate = self.gate.clone();
        Box::pin(async move {
            let certificates = request
                .extensions()
                .get::<TlsConnectInfo<TcpConnectInfo>>()
                .and_then(TlsConnectInfo::peer_certs);
            let certificate = certificates.as_ref().and_then(|chain| chain.first());
            let path = request.uri().path();
            let admitted =
                gate.admit(path, request.headers(), certificate.map(AsRef::as_ref)).await;
            match admitted {
                Ok(standing) => {
                    request.headers_mut().remove(header::AUTHORIZATION);
                    if let Some(standing) = standing {
                        let extensions = request.extensions_mut();
                        extensions.insert(standing.identity().clone());
                        extensions.insert(standing);
                    }
                    inner.call(request).await
                }
                Err(refusal) => {
                    tracing::debug!(
                        method = path,
                        reason = refusal.reason(),
                        "call refused: {refusal}"
                    );
                    Ok(status::of_refusal(&refusal).into_http())
                }
            }
        })
    }
}
