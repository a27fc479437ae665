//! The keys of resume tokens: read from their file, and again as it changes.
//!
//! All replicas need the same ones. To put in a new key, write it below the others on every replica, then
//! move it to the top on every replica, then remove the old one when its last token has run out.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ServeError, reload};
use crate::config::{ConfigError, Environment, Settings};
use crate::secrets::Secrets as _;
use crate::session::Resuming;
use crate::session::token::Keyring;

/// SHA-256.
type Digest = [u8; 32];

/// Time between two looks whether the file has changed.
const PAUSE: Duration = Duration::from_secs(5);

/// The keys that the settings name, or a key of this process's own.
///
/// # Errors
/// [`ServeError::Config`] with file and line.
pub fn keyring(settings: &Settings) -> Result<Keyring, ServeError> {
    Ok(open(settings)?.0)
}

/// The same; of a file's keys also by what they are told from others.
fn open(settings: &Settings) -> Result<(Keyring, Option<Digest>), ServeError> {
    let path = &settings.resume_keys;
    if path.as_os_str().is_empty() {
        return Ok((Keyring::random()?, None));
    }
    let (ring, digest) = read(path)?;
    Ok((ring, Some(digest)))
}

/// The keys, and by what they are told from others: their own text is not kept.
fn read(path: &Path) -> Result<(Keyring, Digest), ConfigError> {
    let text = Environment
        .file(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let digest = Sha256::digest(text.as_bytes()).into();
    let ring = Keyring::parse(&text).map_err(|error| ConfigError::Value {
        key: "resume_keys",
        problem: format!("{}: {error}", path.display()),
    })?;
    Ok((ring, digest))
}

/// Where new keys go.
#[derive(Debug)]
pub(super) struct NewKeys {
    sender: watch::Sender<Arc<Keyring>>,
    path: PathBuf,
    /// Of those in force; `None` if they are no file's.
    digest: Mutex<Option<Digest>>,
}

/// How sessions are gone on with, and where new keys go; `None` if they are not.
pub(super) fn resuming(settings: &Settings) -> Result<Option<(Resuming, NewKeys)>, ServeError> {
    let window = settings.resume_window.0;
    let (ring, digest) = open(settings)?;
    if window.is_zero() {
        return Ok(None);
    }
    let (sender, keys) = watch::channel(Arc::new(ring));
    let resuming = Resuming {
        keys,
        window,
        min_interval: settings.min_checkpoint_interval.0,
        max_bytes: settings.max_resume_token_bytes as usize,
    };
    let path = settings.resume_keys.clone();
    Ok(Some((resuming, NewKeys { sender, path, digest: Mutex::new(digest) })))
}

impl NewKeys {
    /// Looks at the file now and then. What cannot be read leaves the keys as they are.
    pub(super) async fn keep(self, stop: CancellationToken) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        let keys = Arc::new(self);
        reload::keep("resume_keys", PAUSE, stop, move || keys.look()).await;
    }

    /// Whether the file holds other keys than those that were in force.
    fn look(&self) -> Result<bool, ConfigError> {
        let (ring, now) = read(&self.path)?;
        let before = {
            let mut digest = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
            digest.replace(now)
        };
        if before == Some(now) {
            return Ok(false);
        }
        let ids: Vec<&str> = ring.ids().collect();
        tracing::info!(keys = ids.join(", "), "resume keys");
        self.sender.send_replace(Arc::new(ring));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_change_before_the_first_look_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let write = || {
            let line = crate::session::token::new_key().unwrap();
            std::fs::write(&path, &line).unwrap();
            line
        };
        let ids = |resuming: &Resuming| -> Vec<String> {
            resuming.keys.borrow().ids().map(str::to_owned).collect()
        };
        write();
        let settings = Settings { resume_keys: path.clone(), ..Settings::default() };
        let (resuming, new) = resuming(&settings).unwrap().unwrap();
        let line = write();
        assert!(new.look().unwrap());
        let in_force = ids(&resuming);
        assert!(in_force.len() == 1 && line.contains(&in_force[0]), "{in_force:?}");
        assert!(!new.look().unwrap());
        // A fault stays one until it is mended.
        std::fs::write(&path, "no keys").unwrap();
        assert!(new.look().is_err() && new.look().is_err());
        assert_eq!(ids(&resuming), in_force);
    }
}
