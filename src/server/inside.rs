//! The service's calls from within the process, for what answers on the HTTP port in other words than gRPC's: MCP, JSON.
//!
//! In: requests of the HTTP port. Out: calls of the very services that the gRPC port has, behind the same layers. What
//! comes is looked at here first: from where, by whom, how large.
//!
//! Always:
//! 1. Who calls is asked at the door, and again of each call, by the same header, which is where roles, tenants and
//!    quotas hold.
//! 2. What requests under way may take is bounded: those with a recording by number, as on the gRPC port, over all
//!    that answers here; all others are small.
//! 3. A page in a browser gets nowhere: neither one of another origin that the settings do not name, nor one that calls
//!    this machine by a name of its own (DNS rebinding).
//! 4. A request that has come is heard out when the server drains, as calls on the gRPC port are, until the deadline.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use http::{HeaderMap, header};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Layer as _;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::Live;
use super::bounds::Bounds;
use super::calls::Calls;
use super::doors::Doors;
use super::entrance::Entrance;
use super::escalations::{Escalations, Storeless};
use super::http as port;
use super::identity::{Access, Gate, GateLayer, Refusal, Standing};
use super::ingress::Origins;
use super::places::{Full, Place, Places};
use super::sessions::Sessions;
use crate::config::Settings;
use crate::wire::v1::escalation_service_server::EscalationServiceServer;
use crate::wire::v1::session_service_server::SessionServiceServer;

/// What can be called; without a store there are no escalations.
pub(super) type Services =
    (Doors, SessionServiceServer<Sessions>, Option<EscalationServiceServer<Escalations>>);

/// The services behind their layers.
pub(super) type Service =
    BoxCloneSyncService<http::Request<Body>, http::Response<Body>, tonic::Status>;

/// The way in.
#[derive(Clone)]
pub(super) struct Inside {
    service: Service,
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

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").field("withheld", &self.withheld).finish_non_exhaustive()
    }
}

/// Sizes of requests, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Up to here a request is small.
    pub(super) small: usize,
    /// And this large at most, if it may carry a recording.
    pub(super) largest: usize,
}

/// A request that goes no further.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The port is open to more than it should be.
    Withheld(&'static str),
    /// It comes from a page that may not call.
    Origin,
    /// It is not known who calls.
    Unknown(Refusal),
    /// There are too many recordings under way.
    Full(Full),
    /// It is too large.
    TooLarge {
        /// What it may have, bytes.
        max: usize,
    },
    /// It broke off, or is larger than it said.
    Unreadable {
        /// What it may have, bytes.
        max: usize,
        /// What became of it.
        error: axum::Error,
    },
    /// It takes too long to come.
    Late {
        /// What it may take.
        within: Duration,
    },
}

/// A request that has come. The places that it takes are given back when this goes.
#[derive(Debug)]
pub(super) struct Come {
    /// Its body.
    pub(super) body: Bytes,
    /// Who waits for its end.
    pub(super) under_way: TaskTrackerToken,
    /// Its place among the recordings.
    pub(super) place: Option<Place>,
}

impl Inside {
    /// Over these services, until `closing`.
    pub(super) fn new(
        (emotion, sessions, escalations): Services,
        settings: &Settings,
        entrance: &Entrance,
        live: &Live,
        closing: &CancellationToken,
    ) -> Self {
        let (gate, under_way) = (entrance.gate.clone(), live.tasks.clone());
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
        let service = service.map_err(|error| tonic::Status::from_error(error.into()));
        let max_clips = settings.max_clips as usize + settings.max_clips_waiting as usize;
        Self {
            service: BoxCloneSyncService::new(service),
            origins: Origins::new(&settings.allowed_origins, settings.has_identities()),
            gate,
            clips: Places::new(max_clips, settings.share()),
            under_way,
            within: (settings.call_timeout.0, settings.request_timeout.0),
            withheld: port::withheld_from_callers(settings),
        }
    }

    /// What answers calls.
    pub(super) fn service(&self) -> Service {
        self.service.clone()
    }

    /// Who calls, and whether from where they may.
    pub(super) async fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Standing, Stopped> {
        if let Some(why) = self.withheld {
            return Err(Stopped::Withheld(why));
        }
        if !(self.origins.admit(headers) && self.origins.knows_host(headers)) {
            return Err(Stopped::Origin);
        }
        self.gate.admit_as(Access::Known, path, headers, None).await.map_err(Stopped::Unknown)
    }

    /// Waits until the request has come whole. One without a length must be expected to have any.
    pub(super) async fn take(
        &self,
        standing: &Standing,
        headers: &HeaderMap,
        body: HttpBody,
        sizes: Sizes,
    ) -> Result<Come, Stopped> {
        let Sizes { small, largest } = sizes;
        let length = length(headers);
        let is_small = largest <= small || length.is_some_and(|length| length <= small);
        let (max, within, place) = if is_small {
            (small, self.within.1, None)
        } else {
            let place = self.clips.take(standing.identity()).map_err(Stopped::Full)?;
            (largest, self.within.0, Some(place))
        };
        if length.is_some_and(|length| length > max) {
            return Err(Stopped::TooLarge { max });
        }
        let body = tokio::time::timeout(within, axum::body::to_bytes(body, max)).await;
        let body = body.map_err(|_| Stopped::Late { within })?;
        let body = body.map_err(|error| Stopped::Unreadable { max, error })?;
        // From here on it is heard out; whoever dawdles with a request is not waited for.
        Ok(Come { body, under_way: self.under_way.token(), place })
    }
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Withheld(why) => f.write_str(why.trim_end()),
            Self::Origin => f.write_str(
                "this is not for pages of others, nor called by a name that is not this server's; see allowed_origins",
            ),
            Self::Unknown(refusal) => write!(f, "{}: {refusal}", refusal.reason()),
            Self::Full(Full::All { limit }) => {
                write!(f, "the server has {limit} recordings under way")
            }
            Self::Full(Full::Share { share }) => write!(
                f,
                "there are {share} recordings of this tenant or identity under way (max_share)"
            ),
            Self::TooLarge { max } => write!(f, "a message has at most {max} bytes"),
            Self::Unreadable { max, error } => {
                write!(f, "the message cannot be read, or has more than {max} bytes: {error}")
            }
            Self::Late { within } => write!(f, "the message did not come within {within:?}"),
        }
    }
}
