//! The way to the service: the generated clients over any transport, and who calls.
//!
//! In: the service's messages. Out: its answers, or a [`Failure`]. The transport is a tower service: a channel to
//! another process, or the service of this very process behind the same layers (gate, bounds, calls), so that
//! identities, roles, quotas and limits are the same either way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use rmcp::model::Extensions;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};
use tower::Service;
use tower::util::{BoxCloneSyncService, ServiceExt as _};

use super::failure::Failure;
use crate::wire::v1;
use crate::wire::v1::emotion_service_client::EmotionServiceClient;
use crate::wire::v1::escalation_service_client::EscalationServiceClient;
use crate::wire::v1::session_service_client::SessionServiceClient;

/// Largest answer that is taken, bytes: 500 sessions with eight channels each, or five minutes of eight channels, have
/// a tenth of it.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Headers of the client's request that the service gets to see: who calls, and the trace that the call belongs to.
pub const PASSED_ON: [&str; 3] = ["authorization", "traceparent", "tracestate"];

type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;
type Token = dyn Fn() -> Result<Option<MetadataValue<Ascii>>, String> + Send + Sync;

/// Who calls.
#[derive(Clone)]
enum Caller {
    /// Whoever sent the HTTP request.
    OfRequest,
    /// This process, by what is asked for before each call: a token that has been replaced is found.
    Own(Arc<Token>),
}

/// The way to a service.
#[derive(Clone)]
pub struct Way {
    transport: Transport,
    caller: Caller,
    timeout: Option<Duration>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Way {
    /// For the callers of the HTTP requests that bring the calls. `service` has the gate in front of it, and limits
    /// of its own for the time that a call takes.
    pub fn of_requests<S>(service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<StdError>,
        S::Future: Send + 'static,
    {
        let transport = erased(service);
        Self { transport, caller: Caller::OfRequest, timeout: None }
    }

    /// For one caller, by the header that `token` has or does not have. A call takes `timeout` at most.
    pub fn of_one<S>(
        service: S,
        timeout: Duration,
        token: impl Fn() -> Result<Option<MetadataValue<Ascii>>, String> + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<StdError>,
        S::Future: Send + 'static,
    {
        let transport = erased(service);
        Self { transport, caller: Caller::Own(Arc::new(token)), timeout: Some(timeout) }
    }

    /// The calls that one request of the MCP client leads to. `extensions` are the request's.
    ///
    /// # Errors
    /// [`Failure`] if the credentials cannot be read.
    pub(super) fn begin(&self, extensions: &Extensions) -> Result<Calls, Failure> {
        let mut headers = HeaderMap::new();
        match &self.caller {
            Caller::OfRequest => {
                let parts = extensions.get::<Parts>();
                for name in PASSED_ON {
                    if let Some(value) = parts.and_then(|parts| parts.headers.get(name)) {
                        headers.insert(name, value.clone());
                    }
                }
            }
            Caller::Own(_) => {}
        }
        let mut metadata = MetadataMap::from_headers(headers);
        if let Caller::Own(token) = &self.caller
            && let Some(value) = token().map_err(Failure::credentials)?
        {
            metadata.insert("authorization", value);
        }
        Ok(Calls { transport: self.transport.clone(), metadata, timeout: self.timeout })
    }
}

fn erased<S>(service: S) -> Transport
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Error: Into<StdError>,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(service.map_err(|error: S::Error| Status::from_error(error.into())))
}

/// Calls of the service by one caller.
pub(super) struct Calls {
    transport: Transport,
    metadata: MetadataMap,
    timeout: Option<Duration>,
}

type Answer<T> = Result<T, Failure>;

fn answer<T>(answer: Result<Response<T>, Status>) -> Answer<T> {
    Ok(answer?.into_inner())
}

impl Calls {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }

    fn emotion(&self) -> EmotionServiceClient<Transport> {
        EmotionServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn escalations(&self) -> EscalationServiceClient<Transport> {
        EscalationServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn sessions(&self) -> SessionServiceClient<Transport> {
        SessionServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) async fn analyze(
        &self,
        request: v1::AnalyzeAudioRequest,
    ) -> Answer<v1::AnalyzeAudioResponse> {
        answer(self.emotion().analyze_audio(self.request(request)).await)
    }

    pub(super) async fn models(&self) -> Answer<v1::ListModelsResponse> {
        answer(self.emotion().list_models(self.request(v1::ListModelsRequest {})).await)
    }

    pub(super) async fn policies(&self) -> Answer<v1::ListPoliciesResponse> {
        answer(self.emotion().list_policies(self.request(v1::ListPoliciesRequest {})).await)
    }

    pub(super) async fn list_sessions(
        &self,
        request: v1::ListSessionsRequest,
    ) -> Answer<v1::ListSessionsResponse> {
        answer(self.sessions().list_sessions(self.request(request)).await)
    }

    pub(super) async fn session(
        &self,
        request: v1::GetSessionRequest,
    ) -> Answer<v1::GetSessionResponse> {
        answer(self.sessions().get_session(self.request(request)).await).map_err(|failure| {
            failure.if_missing(
                "list_sessions says which sessions are live here; one that ended a while ago is gone, its escalations are \
                 kept (list_escalations)",
            )
        })
    }

    pub(super) async fn list_escalations(
        &self,
        request: v1::ListEscalationsRequest,
    ) -> Answer<v1::ListEscalationsResponse> {
        answer(self.escalations().list_escalations(self.request(request)).await)
    }

    pub(super) async fn escalation(&self, id: String) -> Answer<v1::GetEscalationResponse> {
        let request = v1::GetEscalationRequest { id };
        answer(self.escalations().get_escalation(self.request(request)).await)
            .map_err(|failure| failure.if_missing("list_escalations says which there are"))
    }

    pub(super) async fn acknowledge(
        &self,
        request: v1::AcknowledgeEscalationRequest,
    ) -> Answer<v1::AcknowledgeEscalationResponse> {
        answer(self.escalations().acknowledge_escalation(self.request(request)).await)
            .map_err(|failure| failure.if_missing("list_escalations says which there are"))
    }
}
