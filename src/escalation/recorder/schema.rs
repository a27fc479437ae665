//! Whether the store's schema is up to date.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::escalation::store::{Store, StoreError};

/// How the store's schema is, as far as this process knows.
pub(super) enum Schema {
    Unknown,
    Migrating(JoinHandle<Result<(), StoreError>>),
    UpToDate,
}

impl Schema {
    /// It may be another database by now.
    pub(super) fn doubt(&mut self) {
        if matches!(self, Self::UpToDate) {
            *self = Self::Unknown;
        }
    }

    /// Sees to it that it is up to date, and waits `limit` for that. A migration that is under way goes on when
    /// this is dropped: on a table that has grown it takes longer than anybody may wait.
    pub(super) async fn bring_up_to_date(
        &mut self,
        store: &Store,
        limit: Duration,
    ) -> Result<(), StoreError> {
        if matches!(self, Self::Unknown) {
            let store = store.clone();
            *self = Self::Migrating(tokio::spawn(async move { store.migrate().await }));
        }
        let Self::Migrating(migration) = self else {
            return Ok(());
        };
        let migrated = match tokio::time::timeout(limit, migration).await {
            Ok(Ok(migrated)) => migrated,
            Ok(Err(panicked)) => Err(StoreError::Thread(std::io::Error::other(panicked))),
            Err(_) => return Err(StoreError::Migrating),
        };
        *self = if migrated.is_ok() { Self::UpToDate } else { Self::Unknown };
        migrated
    }
}
