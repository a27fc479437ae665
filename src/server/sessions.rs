//! `undertone.v1.SessionService` on tonic: live sessions and those that have ended lately, for those who did not open them.
//!
//! In: names of sessions. Out: what the registry knows of them. Nothing here holds up a session: what is heard is
//! copied out, and a watcher that is slow misses estimates.

use std::cmp::Reverse;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::identity::Standing;
use super::places::Places;
use super::{Live, caller, status};
use crate::config::Settings;
use crate::identity::{Identity, Tenant};
use crate::session::Registry;
use crate::session::recent::{Latest, Mark};
use crate::session::registry::{Entry, SessionKey};
use crate::wire::parse::{self, Place, SessionAsked, Violation};
use crate::wire::v1::session_service_server::SessionService;
use crate::wire::v1::watch_session_response::Message;
use crate::wire::{render, v1};

/// Messages on their way to one watcher; when it is full, the watch looks no further.
const WATCH_OUTBOX: usize = 16;

/// The service.
#[derive(Debug)]
pub(super) struct Sessions {
    registry: Arc<Registry>,
    watchers: Arc<Places>,
    heartbeat: Duration,
    send_timeout: Duration,
    draining: CancellationToken,
    live: Live,
}

impl Sessions {
    /// Watches are `live` until `draining`, and take places of `watchers`.
    pub(super) fn new(
        registry: Arc<Registry>,
        watchers: Arc<Places>,
        settings: &Settings,
        draining: CancellationToken,
        live: Live,
    ) -> Self {
        let (heartbeat, send_timeout) = (settings.watch_heartbeat.0, settings.send_timeout.0);
        Self { registry, watchers, heartbeat, send_timeout, draining, live }
    }

    /// The session that is asked for.
    fn find(&self, caller: &Identity, asked: SessionAsked) -> Result<Found, Status> {
        let tenant = seen(asked.tenant, caller)?.unwrap_or_else(|| caller.tenant.clone());
        let key = SessionKey { tenant, id: asked.id };
        let entry = self.registry.get(&key).ok_or_else(|| status::no_session(&key.id))?;
        Ok(Found { key, entry })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn invalid(violations: Vec<Violation>) -> Status {
    status::invalid(&violations)
}

/// The tenant that is asked for, if the caller sees it.
fn seen(asked: Option<Tenant>, caller: &Identity) -> Result<Option<Tenant>, Status> {
    match asked {
        Some(asked) if !caller.sees(&asked) => Err(status::other_tenant("tenant")),
        asked => Ok(asked),
    }
}

/// A session that was live, or had ended, when it was asked for.
struct Found {
    key: SessionKey,
    entry: Arc<Entry>,
}

impl Found {
    fn session(&self) -> v1::Session {
        use std::sync::atomic::Ordering;
        let entry = &self.entry;
        let audio = Duration::from_millis(entry.audio_ms.load(Ordering::Relaxed));
        let in_force = entry.recent.escalations();
        v1::Session {
            id: self.key.id.clone(),
            tenant: self.key.tenant.to_string(),
            identity: entry.identity.to_string(),
            labels: entry.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            model: entry.model.clone(),
            policy: entry.policy.clone(),
            ingress: render::ingress(entry.ingress).into(),
            opened_at: Some(render::timestamp(entry.opened_at)),
            audio: Some(render::duration(audio)),
            estimates: entry.estimates.load(Ordering::Relaxed),
            latest: entry.recent.latest().iter().map(|latest| self.latest(latest)).collect(),
            escalation_severity: render::highest(in_force.severity).into(),
            escalation_ids: in_force.ids.iter().map(ToString::to_string).collect(),
            ended_at: entry.ended_at().map(render::timestamp),
        }
    }

    /// Where it stands in the list.
    fn place(&self) -> Place {
        let ended_at = self.entry.ended_at();
        let at = Reverse(ended_at.unwrap_or(self.entry.opened_at));
        let (tenant, id) = (self.key.tenant.clone(), self.key.id.clone());
        Place { ended: ended_at.is_some(), at, tenant, id }
    }

    fn latest(&self, latest: &Latest) -> v1::Estimate {
        let mut estimate = render::estimate(&latest.estimate, self.entry.recent.labels());
        render::in_force(&mut estimate, latest.in_force.severity, &latest.in_force.ids);
        estimate
    }

    /// What was heard in the last `span`, and up to where that is.
    fn history(&self, span: Duration) -> (v1::SessionHistory, Mark) {
        let recent = &self.entry.recent;
        let labels = recent.labels();
        let (estimates, utterances, mark) = recent.history(span);
        let history = v1::SessionHistory {
            estimates: estimates.iter().map(|one| render::estimate(one, labels)).collect(),
            utterances: utterances.iter().map(|one| render::utterance(one, labels)).collect(),
        };
        (history, mark)
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    type WatchSessionStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchSessionResponse, Status>> + Send + 'static>>;

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let caller = caller(request.extensions())?;
        let asked = parse::sessions(request.get_ref()).map_err(invalid)?;
        let tenant = seen(asked.tenant, &caller)?;
        let of = tenant.as_ref().or(caller.reach());
        let mut all = self.registry.all(of);
        if asked.ended {
            let ended = self.registry.all_ended(of);
            // One that has ended between the two looks stands in both.
            all.retain(|(_, entry)| entry.ended_at().is_none());
            all.extend(ended);
        }
        let found = all.into_iter().map(|(key, entry)| Found { key, entry });
        let mut wanted = found.filter(|found| {
            let is_behind = asked.behind.as_ref().is_none_or(|last| found.place() > *last);
            let has = |(k, v): (&String, &String)| found.entry.labels.get(k) == Some(v);
            is_behind && asked.labels.iter().all(has)
        });
        let page: Vec<Found> = wanted.by_ref().take(asked.size).collect();
        let next = wanted.next().and_then(|_| page.last());
        let next = next.map(|last| render::sessions_token(&last.place()));
        Ok(Response::new(v1::ListSessionsResponse {
            sessions: page.iter().map(Found::session).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let asked =
            parse::session(request.id, &request.tenant, request.history).map_err(invalid)?;
        let span = asked.history;
        let found = self.find(&caller, asked)?;
        Ok(Response::new(v1::GetSessionResponse {
            session: Some(found.session()),
            history: (!span.is_zero()).then(|| found.history(span).0),
        }))
    }

    async fn watch_session(
        &self,
        request: Request<v1::WatchSessionRequest>,
    ) -> Result<Response<Self::WatchSessionStream>, Status> {
        let standing = request.extensions().get::<Standing>().cloned();
        let standing = standing.ok_or_else(status::no_identity)?;
        let request = request.into_inner();
        let asked =
            parse::session(request.id, &request.tenant, request.history).map_err(invalid)?;
        let span = asked.history;
        let found = self.find(standing.identity(), asked)?;
        let place = self.watchers.take(standing.identity()).map_err(status::too_many_watchers)?;
        let (outbox, inbox) = mpsc::channel(WATCH_OUTBOX);
        let (heartbeat, send_timeout) = (self.heartbeat, self.send_timeout);
        let watch = Watch { found, standing, heartbeat, send_timeout, outbox };
        let draining = self.draining.clone();
        let cut_off = self.live.cut_off.clone();
        let watching = async move {
            let _place = place;
            cut_off.run_until_cancelled(watch.run(span, draining)).await;
        };
        self.live.tasks.spawn(watching.in_current_span());
        Ok(Response::new(Box::pin(ReceiverStream::new(inbox))))
    }
}

/// One watcher.
struct Watch {
    found: Found,
    /// It ends when its caller would not be let in any more.
    standing: Standing,
    heartbeat: Duration,
    send_timeout: Duration,
    outbox: mpsc::Sender<Result<v1::WatchSessionResponse, Status>>,
}

/// The watcher has gone, or does not read.
struct Gone;

impl Watch {
    async fn run(self, span: Duration, draining: CancellationToken) {
        // Whoever has gone is not told.
        let _ = self.follow(span, draining).await;
    }

    async fn follow(&self, span: Duration, draining: CancellationToken) -> Result<(), Gone> {
        let entry = &self.found.entry;
        let mut news = entry.recent.follow();
        self.send(Message::Session(self.found.session())).await?;
        let (history, mut mark) = self.found.history(span);
        let estimates = history.estimates.into_iter().map(Message::Estimate);
        let utterances = history.utterances.into_iter().map(Message::Utterance);
        let mut past: Vec<_> = estimates.chain(utterances).collect();
        past.sort_by_key(end);
        for message in past {
            self.send(message).await?;
        }
        loop {
            // With each heartbeat, and before anything else is told.
            if let Err(refusal) = self.standing.check() {
                return self.last(status::of_refusal(&refusal)).await;
            }
            let has_ended = entry.gone.is_cancelled();
            self.catch_up(&mut mark).await?;
            if has_ended {
                return self.send(Message::Ended(v1::SessionEnded {})).await;
            }
            // All branches are cancel-safe: none holds anything.
            tokio::select! {
                () = draining.cancelled() => {
                    let _ = self.outbox.try_send(Err(status::draining()));
                    return Ok(());
                }
                () = self.outbox.closed() => return Err(Gone),
                () = entry.gone.cancelled() => {}
                // The entry is held here, and with it the sender.
                _ = news.changed() => {}
                () = tokio::time::sleep(self.heartbeat) => {
                    self.send(Message::Session(self.found.session())).await?;
                }
            }
        }
    }

    /// Sends what is new, in the order of the audio.
    async fn catch_up(&self, mark: &mut Mark) -> Result<(), Gone> {
        let recent = &self.found.entry.recent;
        let news = recent.since(mark);
        let latest = news.latest.iter().map(|one| Message::Estimate(self.found.latest(one)));
        let utterances = news.utterances.iter();
        let utterances =
            utterances.map(|one| Message::Utterance(render::utterance(one, recent.labels())));
        let mut messages: Vec<_> = utterances.chain(latest).collect();
        messages.sort_by_key(end);
        if news.in_force {
            messages.push(Message::Session(self.found.session()));
        }
        for message in messages {
            self.send(message).await?;
        }
        Ok(())
    }

    async fn send(&self, message: Message) -> Result<(), Gone> {
        self.put(Ok(v1::WatchSessionResponse { message: Some(message) })).await
    }

    async fn last(&self, status: Status) -> Result<(), Gone> {
        self.put(Err(status)).await
    }

    async fn put(&self, message: Result<v1::WatchSessionResponse, Status>) -> Result<(), Gone> {
        match tokio::time::timeout(self.send_timeout, self.outbox.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// Where in the audio a message's evidence ends.
fn end(message: &Message) -> Option<(i64, i32)> {
    let end = match message {
        Message::Estimate(estimate) => estimate.end,
        Message::Utterance(utterance) => utterance.end,
        Message::Session(_) | Message::Ended(_) => None,
    };
    end.map(|end| (end.seconds, end.nanos))
}
