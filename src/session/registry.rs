//! The live sessions: what the server lists, counts and drains.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use tokio::sync::mpsc;

use crate::escalation::Occurrence;

/// One live session.
#[derive(Debug)]
pub struct Entry {
    /// When it began.
    pub began: Instant,
    /// The model's name.
    pub model: String,
    /// On whose behalf it listens.
    pub labels: BTreeMap<String, String>,
    /// Audio received, in milliseconds.
    pub audio_ms: AtomicU64,
    /// Estimates sent.
    pub estimates: AtomicU64,
    /// Where it hears what others do to its escalations, if it has a policy.
    mailbox: Option<mpsc::Sender<Occurrence>>,
}

/// A session as it is listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
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

/// The live sessions.
#[derive(Debug)]
pub struct Registry {
    sessions: DashMap<String, Arc<Entry>>,
    limit: usize,
}

impl Registry {
    /// For at most `limit` sessions.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { sessions: DashMap::new(), limit })
    }

    /// Enters a session, until the guard is dropped.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn enter(
        self: &Arc<Self>,
        id: String,
        model: String,
        labels: BTreeMap<String, String>,
        mailbox: Option<mpsc::Sender<Occurrence>>,
    ) -> Result<Guard, Refused> {
        // The limit may be overshot by as many as enter at the very same moment.
        if self.sessions.len() >= self.limit {
            return Err(Refused::Full { limit: self.limit });
        }
        match self.sessions.entry(id.clone()) {
            Slot::Occupied(_) => Err(Refused::Taken),
            Slot::Vacant(slot) => {
                let entry = Arc::new(Entry {
                    began: Instant::now(),
                    model,
                    labels,
                    audio_ms: AtomicU64::new(0),
                    estimates: AtomicU64::new(0),
                    mailbox,
                });
                slot.insert(entry.clone());
                Ok(Guard { registry: self.clone(), id, entry })
            }
        }
    }

    /// Tells the session that an occurrence is about, if it is live here and has room: what it does not
    /// hear in time, it can be asked about.
    pub fn tell(&self, occurrence: &Occurrence) {
        let Some(session) = self.sessions.get(&occurrence.escalation.session_id) else {
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

    /// The live sessions, oldest first.
    pub fn list(&self) -> Vec<Listed> {
        let mut listed: Vec<Listed> = self
            .sessions
            .iter()
            .map(|session| Listed {
                id: session.key().clone(),
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
    id: String,
    /// What is listed.
    pub entry: Arc<Entry>,
}

impl Guard {
    /// The session's name.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.registry.sessions.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_there_as_long_as_its_guard() {
        let registry = Registry::new(2);
        let enter = |id: &str| registry.enter(id.into(), "m".into(), BTreeMap::new(), None);
        let first = enter("a").unwrap();
        assert_eq!(enter("a").unwrap_err(), Refused::Taken);
        let second = enter("b").unwrap();
        assert_eq!(enter("c").unwrap_err(), Refused::Full { limit: 2 });
        assert_eq!(registry.list().len(), 2);
        drop(first);
        assert!(enter("a").is_ok());
        drop(second);
        assert!(registry.is_empty());
    }
}
