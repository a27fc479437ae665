//! The live sessions: what the server lists, counts and drains; and for a while those that have ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::recent::Recent;
use crate::escalation::{Occurrence, Timestamp};
use crate::identity::Tenant;
use crate::wire::event::Ingress;

/// Longest wait for a session that is taken over to let go.
const LETS_GO_WITHIN: Duration = Duration::from_secs(2);

/// What a session is known by: tenants name theirs as they like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its name.
    pub id: String,
}

/// What there is to say of a session when it begins.
#[derive(Debug)]
pub struct Entrance {
    /// What it is known by.
    pub key: SessionKey,
    /// The identity that opened it.
    pub identity: Arc<str>,
    /// The model's name.
    pub model: String,
    /// The policy's name; empty if it has none.
    pub policy: String,
    /// The way its audio comes in.
    pub ingress: Ingress,
    /// On whose behalf it listens.
    pub labels: BTreeMap<String, String>,
    /// For what it hears.
    pub recent: Recent,
    /// Where it hears what others do to its escalations, if it has a policy.
    pub mailbox: Option<mpsc::Sender<Occurrence>>,
}

/// One live session.
#[derive(Debug)]
pub struct Entry {
    /// When it began.
    pub began: Instant,
    /// The same, by the clock on the wall.
    pub opened_at: Timestamp,
    /// The identity that opened it.
    pub identity: Arc<str>,
    /// The model's name.
    pub model: String,
    /// The policy's name; empty if it has none.
    pub policy: String,
    /// The way its audio comes in.
    pub ingress: Ingress,
    /// On whose behalf it listens.
    pub labels: BTreeMap<String, String>,
    /// What it has heard in its last minutes.
    pub recent: Recent,
    /// Audio received, in milliseconds.
    pub audio_ms: AtomicU64,
    /// Estimates sent.
    pub estimates: AtomicU64,
    /// Cancelled when its client goes on with it in another stream.
    pub replaced: CancellationToken,
    /// Cancelled when it has left.
    pub gone: CancellationToken,
    /// When it ended here.
    ended_at: OnceLock<Timestamp>,
    /// Where it hears what others do to its escalations, if it has a policy.
    mailbox: Option<mpsc::Sender<Occurrence>>,
}

impl Entry {
    /// When it ended here; `None` while it is live.
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at.get().copied()
    }
}

/// A session as it is listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Listed {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its name.
    pub id: String,
    /// The identity that opened it.
    pub identity: String,
    /// Seconds since it began.
    pub age_s: f64,
    /// Seconds of audio received.
    pub audio_s: f64,
    /// Estimates sent.
    pub estimates: u64,
    /// The model's name.
    pub model: String,
    /// On whose behalf it listens.
    pub labels: BTreeMap<String, String>,
}

/// Why a session cannot be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A live session has that name.
    Taken,
    /// There are as many as there may be.
    Full {
        /// How many.
        limit: usize,
    },
}

/// How long those that have ended can be looked at, and how many at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Afterlife {
    /// How long.
    pub span: Duration,
    /// How many.
    pub most: usize,
}

/// One that has ended.
#[derive(Debug)]
struct Ended {
    at: Instant,
    key: SessionKey,
    entry: Arc<Entry>,
}

/// The live sessions, and those that have ended lately.
#[derive(Debug)]
pub struct Registry {
    sessions: DashMap<SessionKey, Arc<Entry>>,
    limit: usize,
    /// In the order of their end, one of each name.
    ended: Mutex<VecDeque<Ended>>,
    afterlife: Afterlife,
}

impl Registry {
    /// For at most `limit` sessions.
    pub fn new(limit: usize, afterlife: Afterlife) -> Arc<Self> {
        Arc::new(Self { sessions: DashMap::new(), limit, ended: Mutex::default(), afterlife })
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<Ended>> {
        // What is in there is whole after each statement.
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one that has ended, unless its client goes on with it here.
    fn bury(&self, key: SessionKey, entry: Arc<Entry>) {
        let Afterlife { span, most } = self.afterlife;
        if span.is_zero() || most == 0 || entry.replaced.is_cancelled() {
            return;
        }
        let mut ended = self.ended();
        ended.retain(|other| other.key != key);
        while ended.len() >= most {
            ended.pop_front();
        }
        ended.push_back(Ended { at: Instant::now(), key, entry });
    }

    /// Forgets those that ended too long ago.
    pub fn forget_ended(&self) {
        let span = self.afterlife.span;
        self.ended().retain(|one| one.at.elapsed() < span);
    }

    /// Those of `tenant`, or of all, that have ended lately and have not begun anew: the last to end first.
    pub fn all_ended(&self, tenant: Option<&Tenant>) -> Vec<(SessionKey, Arc<Entry>)> {
        self.forget_ended();
        let ended: Vec<_> = self
            .ended()
            .iter()
            .filter(|one| tenant.is_none_or(|tenant| *tenant == one.key.tenant))
            .map(|one| (one.key.clone(), one.entry.clone()))
            .collect();
        let mut ended: Vec<_> =
            ended.into_iter().filter(|(key, _)| !self.sessions.contains_key(key)).collect();
        ended.sort_by(|(a, one), (b, other)| (other.ended_at(), a).cmp(&(one.ended_at(), b)));
        ended
    }

    /// Enters a session, until the guard is dropped.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn enter(self: &Arc<Self>, entrance: Entrance) -> Result<Guard, Refused> {
        self.try_enter(entrance).map_err(|(refused, _)| refused)
    }

    #[allow(clippy::result_large_err, reason = "it is taken up again at once")]
    fn try_enter(self: &Arc<Self>, entrance: Entrance) -> Result<Guard, (Refused, Entrance)> {
        // The limit may be overshot by as many as enter at the very same moment.
        if self.sessions.len() >= self.limit && !self.sessions.contains_key(&entrance.key) {
            return Err((Refused::Full { limit: self.limit }, entrance));
        }
        match self.sessions.entry(entrance.key.clone()) {
            Slot::Occupied(_) => Err((Refused::Taken, entrance)),
            Slot::Vacant(slot) => {
                let Entrance { key, identity, model, policy, ingress, labels, recent, mailbox } =
                    entrance;
                let entry = Arc::new(Entry {
                    began: Instant::now(),
                    opened_at: Timestamp::now(),
                    identity,
                    model,
                    policy,
                    ingress,
                    labels,
                    recent,
                    audio_ms: AtomicU64::new(0),
                    estimates: AtomicU64::new(0),
                    replaced: CancellationToken::new(),
                    gone: CancellationToken::new(),
                    ended_at: OnceLock::new(),
                    mailbox,
                });
                slot.insert(entry.clone());
                Ok(Guard { registry: self.clone(), key, entry })
            }
        }
    }

    /// Enters a session that goes on with another one: if that is still there, because its client is gone
    /// and nobody has noticed, it has to leave. Whether it was is told. Another identity's does not leave: a
    /// colleague may have begun anew under the same name.
    ///
    /// # Errors
    /// [`Refused`]; `Taken` if it does not leave in time, or need not.
    ///
    /// # Cancellation
    /// Safe: the other one may have been told to leave.
    pub async fn take_over(self: &Arc<Self>, entrance: Entrance) -> Result<(Guard, bool), Refused> {
        let deadline = tokio::time::Instant::now() + LETS_GO_WITHIN;
        let mut entrance = entrance;
        let mut was_there = false;
        loop {
            let refused;
            (refused, entrance) = match self.try_enter(entrance) {
                Ok(guard) => return Ok((guard, was_there)),
                Err(refused) => refused,
            };
            let before = self.sessions.get(&entrance.key).map(|entry| entry.value().clone());
            let (Refused::Taken, Some(before)) = (refused, before) else {
                if refused == Refused::Taken {
                    // It has left in this very moment.
                    continue;
                }
                return Err(refused);
            };
            if before.identity != entrance.identity {
                return Err(Refused::Taken);
            }
            was_there = true;
            before.replaced.cancel();
            tokio::time::timeout_at(deadline, before.gone.cancelled())
                .await
                .map_err(|_| Refused::Taken)?;
        }
    }

    /// Tells the session that an occurrence is about, if it is live here and has room: what it does not
    /// hear in time, it can be asked about.
    pub fn tell(&self, occurrence: &Occurrence) {
        let escalation = &occurrence.escalation;
        let (tenant, id) = (escalation.tenant.clone(), escalation.session_id.clone());
        let Some(session) = self.sessions.get(&SessionKey { tenant, id }) else {
            return;
        };
        if let Some(mailbox) = &session.mailbox {
            let _ = mailbox.try_send(occurrence.clone());
        }
    }

    /// Sessions that are live.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are as many as there may be.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Whether none is live.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The session of that name: the live one, else one that has ended lately.
    pub fn get(&self, key: &SessionKey) -> Option<Arc<Entry>> {
        let live = self.sessions.get(key).map(|session| session.value().clone());
        live.or_else(|| {
            self.forget_ended();
            self.ended().iter().find(|one| one.key == *key).map(|one| one.entry.clone())
        })
    }

    /// The live sessions of `tenant`, or of all: newest first, and of those of one moment by their keys.
    pub fn all(&self, tenant: Option<&Tenant>) -> Vec<(SessionKey, Arc<Entry>)> {
        let of_tenant = |key: &SessionKey| tenant.is_none_or(|tenant| *tenant == key.tenant);
        let sessions = self.sessions.iter().filter(|session| of_tenant(session.key()));
        let mut all: Vec<_> =
            sessions.map(|session| (session.key().clone(), session.value().clone())).collect();
        all.sort_by(|(a, one), (b, other)| (other.opened_at, a).cmp(&(one.opened_at, b)));
        all
    }

    /// The live sessions of `tenant`, or of all, oldest first.
    pub fn list(&self, tenant: Option<&Tenant>) -> Vec<Listed> {
        let of_tenant = |key: &SessionKey| tenant.is_none_or(|tenant| *tenant == key.tenant);
        let mut listed: Vec<Listed> = self
            .sessions
            .iter()
            .filter(|session| of_tenant(session.key()))
            .map(|session| Listed {
                tenant: session.key().tenant.clone(),
                id: session.key().id.clone(),
                identity: session.identity.to_string(),
                age_s: session.began.elapsed().as_secs_f64(),
                audio_s: Duration::from_millis(session.audio_ms.load(Ordering::Relaxed))
                    .as_secs_f64(),
                estimates: session.estimates.load(Ordering::Relaxed),
                model: session.model.clone(),
                labels: session.labels.clone(),
            })
            .collect();
        listed.sort_by(|a, b| b.age_s.total_cmp(&a.age_s));
        listed
    }
}

/// A session's place in the registry.
#[derive(Debug)]
pub struct Guard {
    registry: Arc<Registry>,
    key: SessionKey,
    /// What is listed.
    pub entry: Arc<Entry>,
}

impl Guard {
    /// What the session is known by.
    pub fn key(&self) -> &SessionKey {
        &self.key
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A session ends once.
        let _ = self.entry.ended_at.set(Timestamp::now());
        // Before it leaves: whoever looks finds it in one place or the other.
        self.registry.bury(self.key.clone(), self.entry.clone());
        self.registry.sessions.remove(&self.key);
        self.entry.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrance(tenant: &str, id: &str) -> Entrance {
        Entrance {
            key: SessionKey { tenant: tenant.parse().unwrap(), id: id.to_owned() },
            identity: "i".into(),
            model: "m".to_owned(),
            policy: String::new(),
            ingress: Ingress::Grpc,
            labels: BTreeMap::new(),
            recent: Recent::new(&[], Duration::ZERO),
            mailbox: None,
        }
    }

    #[test]
    fn a_session_is_there_as_long_as_its_guard() {
        let registry = Registry::new(2, Afterlife::default());
        let first = registry.enter(entrance("t", "a")).unwrap();
        assert_eq!(registry.enter(entrance("t", "a")).unwrap_err(), Refused::Taken);
        let second = registry.enter(entrance("t", "b")).unwrap();
        let full = Refused::Full { limit: 2 };
        assert_eq!(registry.enter(entrance("t", "c")).unwrap_err(), full);
        assert_eq!(registry.list(None).len(), 2);
        drop(first);
        assert!(registry.enter(entrance("t", "a")).is_ok());
        drop(second);
        assert!(registry.is_empty());
    }

    #[test]
    fn tenants_name_their_sessions_as_they_like_and_see_their_own() {
        let registry = Registry::new(9, Afterlife::default());
        let _ours = registry.enter(entrance("ours", "a")).unwrap();
        let _theirs = registry.enter(entrance("theirs", "a")).unwrap();
        assert_eq!(registry.list(None).len(), 2);
        assert_eq!(registry.list(Some(&"ours".parse().unwrap())).len(), 1);
        assert!(registry.list(Some(&Tenant::default())).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_with_a_session_takes_its_place_even_when_all_are_taken() {
        let registry = Registry::new(1, Afterlife::default());
        let before = registry.enter(entrance("t", "a")).unwrap();
        let replaced = before.entry.replaced.clone();
        let taker = tokio::spawn({
            let registry = registry.clone();
            async move { registry.take_over(entrance("t", "a")).await }
        });
        replaced.cancelled().await;
        assert_eq!(registry.len(), 1);
        drop(before);
        let (taken, was_there) = taker.await.unwrap().unwrap();
        assert!(was_there);
        assert_eq!(registry.len(), 1);
        // One that does not let go keeps its place.
        assert_eq!(registry.take_over(entrance("t", "a")).await.unwrap_err(), Refused::Taken);
        drop(taken);
        assert!(!registry.take_over(entrance("t", "a")).await.unwrap().1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_takes_the_place_of_another_identity() {
        let registry = Registry::new(9, Afterlife::default());
        let theirs = registry.enter(entrance("t", "a")).unwrap();
        let other = Entrance { identity: "other".into(), ..entrance("t", "a") };
        assert_eq!(registry.take_over(other).await.unwrap_err(), Refused::Taken);
        assert!(!theirs.entry.replaced.is_cancelled());
    }

    fn ids(sessions: &[(SessionKey, Arc<Entry>)]) -> Vec<&str> {
        sessions.iter().map(|(key, _)| key.id.as_str()).collect()
    }

    #[test]
    fn who_has_ended_can_be_looked_at_until_others_have_taken_its_place_or_it_begins_anew() {
        let registry = Registry::new(9, Afterlife { span: Duration::from_mins(1), most: 2 });
        for id in ["a", "b", "c"] {
            let guard = registry.enter(entrance("t", id)).unwrap();
            assert_eq!(guard.entry.ended_at(), None);
        }
        assert!(registry.is_empty());
        assert_eq!(ids(&registry.all_ended(None)).len(), 2);
        let key = |id: &str| SessionKey { tenant: "t".parse().unwrap(), id: id.to_owned() };
        assert!(registry.get(&key("a")).is_none(), "no room");
        assert!(registry.get(&key("b")).unwrap().ended_at().is_some());
        assert!(registry.all_ended(Some(&Tenant::default())).is_empty());
        let anew = registry.enter(entrance("t", "b")).unwrap();
        assert_eq!(registry.get(&key("b")).unwrap().ended_at(), None);
        assert_eq!(ids(&registry.all_ended(None)), ["c"]);
        // Its client goes on with it here: that one is no session that has ended.
        anew.entry.replaced.cancel();
        let before = registry.all_ended(None);
        drop(anew);
        assert_eq!(before.len() + 1, registry.all_ended(None).len(), "the one of before again");
    }

    #[test]
    fn who_ended_too_long_ago_is_forgotten() {
        let span = Duration::from_millis(1);
        let registry = Registry::new(9, Afterlife { span, most: 2 });
        drop(registry.enter(entrance("t", "a")).unwrap());
        std::thread::sleep(span * 5);
        assert_eq!(registry.ended().len(), 1);
        registry.forget_ended();
        assert_eq!(registry.ended().len(), 0);
        let none = Registry::new(9, Afterlife { span: Duration::ZERO, most: 2 });
        drop(none.enter(entrance("t", "a")).unwrap());
        assert_eq!(none.ended().len(), 0);
    }
}
