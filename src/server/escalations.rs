//! `undertone.v1.EscalationService` on tonic, and the feed that tells live sessions what others do.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::codegen::{Service as Call, http};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::identity::Standing;
use super::places::Places;
use super::{Live, caller, status};
use crate::config::Settings;
use crate::escalation::{
    Change, Filter, Kind, Occurrence, Recorded, Recorder, Reply, StoreError, Timestamp,
};
use crate::identity::Identity;
use crate::session::Registry;
use crate::wire::parse::{self, Violation};
use crate::wire::v1::escalation_service_server::{EscalationService, EscalationServiceServer};
use crate::wire::{render, v1};

/// Occurrences read from the store at once.
const PAGE: usize = 256;
/// Messages on their way to one watcher; when it is full, the watch reads no further.
const WATCH_OUTBOX: usize = 16;

/// The service.
#[derive(Debug)]
pub(super) struct Escalations {
    recorder: Recorder,
    newest: watch::Receiver<i64>,
    watchers: Arc<Places>,
    heartbeat: Duration,
    send_timeout: Duration,
    draining: CancellationToken,
    live: Live,
}

impl Escalations {
    /// Watches are `live` until `draining`; `newest` is what [`feed`] keeps.
    pub(super) fn new(
        recorder: Recorder,
        newest: watch::Receiver<i64>,
        watchers: Arc<Places>,
        settings: &Settings,
        draining: CancellationToken,
        live: Live,
    ) -> Self {
        Self {
            recorder,
            newest,
            watchers,
            heartbeat: settings.watch_heartbeat.0,
            send_timeout: settings.send_timeout.0,
            draining,
            live,
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn invalid(violations: Vec<Violation>) -> Status {
    status::invalid(&violations)
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn store(error: StoreError) -> Status {
    status::of_store(&error)
}

/// The service where nothing is kept: each call is told so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storeless;

impl NamedService for Storeless {
    const NAME: &'static str = <EscalationServiceServer<Escalations> as NamedService>::NAME;
}

impl<B: Send + 'static> Call<http::Request<B>> for Storeless {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<B>) -> Self::Future {
        std::future::ready(Ok(status::no_store().into_http()))
    }
}

/// What the caller sees of what is asked for.
///
/// # Errors
/// `PERMISSION_DENIED` if it asks for another tenant's.
fn scoped(mut filter: Filter, caller: &Identity) -> Result<Filter, Status> {
    match (&filter.tenant, caller.reach()) {
        (Some(asked), Some(own)) if asked != own => {
            return Err(status::other_tenant("filter.tenant"));
        }
        (None, own) => filter.tenant = own.cloned(),
        (Some(_), _) => {}
    }
    Ok(filter)
}

#[tonic::async_trait]
impl EscalationService for Escalations {
    type WatchEscalationsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchEscalationsResponse, Status>> + Send + 'static>>;

    async fn list_escalations(
        &self,
        request: Request<v1::ListEscalationsRequest>,
    ) -> Result<Response<v1::ListEscalationsResponse>, Status> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let filter = parse::filter(request.filter.as_ref()).map_err(invalid)?;
        let filter = scoped(filter, &caller)?;
        let (size, start) = parse::page(request.page_size, &request.page_token).map_err(invalid)?;
        let page = self.recorder.store().list(&filter, start, size).await.map_err(store)?;
        Ok(Response::new(v1::ListEscalationsResponse {
            escalations: page.escalations.iter().map(render::escalation).collect(),
            next_page_token: page.next.map(render::page_token).unwrap_or_default(),
        }))
    }

    async fn get_escalation(
        &self,
        request: Request<v1::GetEscalationRequest>,
    ) -> Result<Response<v1::GetEscalationResponse>, Status> {
        let caller = caller(request.extensions())?;
        let id = parse::one_escalation("id", &request.into_inner().id).map_err(invalid)?;
        // The history first: what happens in between is then in the escalation at most.
        let history = self.recorder.store().history(id).await.map_err(store)?;
        let found = self.recorder.store().get(id).await.map_err(store)?;
        // Another tenant's is as good as none: its existence is nobody else's business.
        let found = found.filter(|found| caller.sees(&found.tenant));
        let found = found.ok_or_else(|| status::no_escalation("id"))?;
        Ok(Response::new(v1::GetEscalationResponse {
            escalation: Some(render::escalation(&found)),
            history: history.iter().map(|o| render::escalation_event(o, true)).collect(),
        }))
    }

    async fn acknowledge_escalation(
        &self,
        request: Request<v1::AcknowledgeEscalationRequest>,
    ) -> Result<Response<v1::AcknowledgeEscalationResponse>, Status> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let parts = (request.id.as_str(), request.actor.as_str(), request.note.as_str());
        let asked = parse::acknowledgement(parts, ["id", "actor", "note"]).map_err(invalid)?;
        let change = Change::Acknowledged {
            id: asked.id,
            tenant: caller.reach().cloned(),
            session_id: None,
            actor: asked.actor,
            identity: Some(caller.name.to_string()),
            note: asked.note,
            at: Timestamp::now(),
        };
        let (occurrence, already) = match self.recorder.record(change).await {
            Reply::Durable(Recorded::New(new)) => (new.into_iter().next(), false),
            Reply::Durable(Recorded::Before(before)) => (Some(*before), true),
            Reply::Durable(Recorded::Unknown) => (None, false),
            Reply::Waiting(_) | Reply::Lost => return Err(status::store_down()),
        };
        let occurrence = occurrence.ok_or_else(|| status::no_escalation("id"))?;
        Ok(Response::new(v1::AcknowledgeEscalationResponse {
            escalation: Some(render::escalation(&occurrence.escalation)),
            already,
        }))
    }

    async fn watch_escalations(
        &self,
        request: Request<v1::WatchEscalationsRequest>,
    ) -> Result<Response<Self::WatchEscalationsStream>, Status> {
        let standing = request.extensions().get::<Standing>().cloned();
        let standing = standing.ok_or_else(status::no_identity)?;
        let request = request.into_inner();
        let filter = parse::filter(request.filter.as_ref()).map_err(invalid)?;
        let filter = scoped(filter, standing.identity())?;
        let cursor = parse::cursor(&request.cursor, request.from_start).map_err(invalid)?;
        let place = self.watchers.take(standing.identity()).map_err(status::too_many_watchers)?;
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => self.recorder.store().latest().await.map_err(store)?,
        };
        let (outbox, inbox) = mpsc::channel(WATCH_OUTBOX);
        let watch = Watch {
            recorder: self.recorder.clone(),
            newest: self.newest.clone(),
            standing,
            filter,
            cursor,
            heartbeat: self.heartbeat,
            send_timeout: self.send_timeout,
            outbox,
        };
        let draining = self.draining.clone();
        let cut_off = self.live.cut_off.clone();
        let watching = async move {
            let _place = place;
            cut_off.run_until_cancelled(watch.run(draining)).await;
        };
        self.live.tasks.spawn(watching.in_current_span());
        Ok(Response::new(Box::pin(ReceiverStream::new(inbox))))
    }
}

/// One watcher.
struct Watch {
    recorder: Recorder,
    newest: watch::Receiver<i64>,
    /// A watch loses nothing by coming again, so that it ends when its caller would not be let in any more.
    standing: Standing,
    filter: Filter,
    /// Number of the last occurrence that was looked at.
    cursor: i64,
    heartbeat: Duration,
    send_timeout: Duration,
    outbox: mpsc::Sender<Result<v1::WatchEscalationsResponse, Status>>,
}

/// The watcher has gone, or does not read.
struct Gone;

impl Watch {
    async fn run(mut self, draining: CancellationToken) {
        // At once, so that whoever watches knows where from.
        if self.send(Ok(self.message(None))).await.is_err() {
            return;
        }
        loop {
            // With each heartbeat, and before anything else is told.
            if let Err(refusal) = self.standing.check() {
                let _ = self.send(Err(status::of_refusal(&refusal))).await;
                return;
            }
            let caught_up = match self.catch_up().await {
                Ok(caught_up) => caught_up,
                Err(Gone) => return,
            };
            // All branches are cancel-safe: none holds anything. A feed that has ended is the server's end.
            let next = tokio::select! {
                () = draining.cancelled() => None,
                () = self.outbox.closed() => return,
                changed = self.newest.changed(), if caught_up => changed.ok().map(|()| false),
                () = tokio::time::sleep(self.heartbeat) => Some(true),
            };
            let Some(quiet) = next else {
                // Whoever does not read is not waited for: it loses nothing by coming again.
                let _ = self.outbox.try_send(Err(status::draining()));
                return;
            };
            if quiet && self.send(Ok(self.message(None))).await.is_err() {
                return;
            }
        }
    }

    /// Sends what has happened since. Returns whether that was all; the store may be down.
    async fn catch_up(&mut self) -> Result<bool, Gone> {
        self.newest.borrow_and_update();
        loop {
            let page = match self.recorder.store().after(self.cursor, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    let _ = self.send(Err(store(error))).await;
                    return Err(Gone);
                }
            };
            let is_last = page.len() < PAGE;
            for occurrence in page {
                self.cursor = occurrence.sequence;
                if self.filter.wants(&occurrence.escalation) {
                    self.send(Ok(self.message(Some(&occurrence)))).await?;
                }
            }
            if is_last {
                return Ok(true);
            }
        }
    }

    fn message(&self, occurrence: Option<&Occurrence>) -> v1::WatchEscalationsResponse {
        v1::WatchEscalationsResponse {
            event: occurrence.map(|occurrence| render::escalation_event(occurrence, true)),
            cursor: self.cursor.to_string(),
        }
    }

    async fn send(
        &self,
        message: Result<v1::WatchEscalationsResponse, Status>,
    ) -> Result<(), Gone> {
        match tokio::time::timeout(self.send_timeout, self.outbox.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// Follows the store, whoever writes to it: keeps `newest`, and tells live sessions of acknowledgements. What
/// is committed here is noticed at once, what others commit at the next of the looks that are `poll`
/// apart.
pub(super) async fn feed(
    recorder: Recorder,
    registry: Arc<Registry>,
    newest: watch::Sender<i64>,
    poll: Duration,
    stop: CancellationToken,
) {
    let mut latest = recorder.latest();
    let mut tick = tokio::time::interval(poll);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cursor = None;
    loop {
        // All branches are cancel-safe: none holds anything.
        tokio::select! {
            () = stop.cancelled() => return,
            changed = latest.changed() => if changed.is_err() {
                return;
            },
            _ = tick.tick() => {}
        }
        latest.borrow_and_update();
        // While the store is down there is nothing to follow; the next look comes.
        if let Ok(seen) = follow(&recorder, &registry, cursor).await {
            cursor = Some(seen);
            newest.send_if_modified(|newest| {
                let changed = seen > *newest;
                *newest = seen.max(*newest);
                changed
            });
        }
    }
}

/// Reads on from `cursor`; from the end, if this is the first time.
async fn follow(
    recorder: &Recorder,
    registry: &Registry,
    cursor: Option<i64>,
) -> Result<i64, StoreError> {
    let Some(mut cursor) = cursor else {
        return recorder.store().latest().await;
    };
    loop {
        let page = recorder.store().after(cursor, PAGE).await?;
        for occurrence in &page {
            cursor = occurrence.sequence;
            if occurrence.kind == Kind::Acknowledged {
                registry.tell(occurrence);
            }
        }
        if page.len() < PAGE {
            return Ok(cursor);
        }
    }
}
