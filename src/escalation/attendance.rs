//! Sessions with escalations in force that this replica looks after.
//!
//! The recorder tells the store of them again and again. A session that nobody tells of any more has
//! broken off: its server was killed, or its client went away and did not come back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::store::SessionName;

/// The sessions, and how often each is held: a stream that is taken over overlaps the one before.
#[derive(Debug, Clone, Default)]
pub(super) struct Attendance(Arc<Mutex<BTreeMap<SessionName, usize>>>);

impl Attendance {
    /// Holds a session until the guard is dropped.
    pub(super) fn attend(&self, name: SessionName) -> Attended {
        *self.sessions().entry(name.clone()).or_default() += 1;
        Attended { attendance: self.clone(), name }
    }

    /// All that are held.
    pub(super) fn names(&self) -> Vec<SessionName> {
        self.sessions().keys().cloned().collect()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<SessionName, usize>> {
        // Nothing can fail while it is locked, so that it is whole even if poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that is held.
#[derive(Debug)]
pub struct Attended {
    attendance: Attendance,
    name: SessionName,
}

impl Drop for Attended {
    fn drop(&mut self) {
        let mut sessions = self.attendance.sessions();
        if let Some(count) = sessions.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                sessions.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Tenant;

    #[test]
    fn a_session_is_held_until_its_last_guard_is_gone() {
        let attendance = Attendance::default();
        let name = (Tenant::default(), "s".to_owned());
        let first = attendance.attend(name.clone());
        let second = attendance.attend(name.clone());
        drop(first);
        assert_eq!(attendance.names(), [name]);
        drop(second);
        assert!(attendance.names().is_empty());
    }
}
