//! The keys of resume tokens: read from their file, and again as it changes.
//!
//! All replicas need the same ones. To put in a new key, write it below the others on every replica, then
//! move it to the top on every replica, then remove the old one when its last token has run out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ServeError;
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
    let path = &settings.resume_keys;
    if path.as_os_str().is_empty() {
        return Ok(Keyring::random()?);
    }
    Ok(read(path)?.0)
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
type NewKeys = watch::Sender<Arc<Keyring>>;

/// How sessions are gone on with, and where new keys go; `None` if they are not.
pub(super) fn resuming(settings: &Settings) -> Result<Option<(Resuming, NewKeys)>, ServeError> {
    let window = settings.resume_window.0;
    let ring = keyring(settings)?;
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
    Ok(Some((resuming, sender)))
}

/// Looks at the file now and then. What cannot be read leaves the keys as they are.
pub(super) async fn reload(path: PathBuf, sender: NewKeys, stop: CancellationToken) {
    if path.as_os_str().is_empty() {
        return;
    }
    let mut problem = String::new();
    let mut digest = None;
    // Cut off while it waits: a look at the file blocks and ends.
    while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        let file = path.clone();
        match tokio::task::spawn_blocking(move || read(&file)).await {
            Ok(Ok((ring, now))) => {
                problem.clear();
                // The first look only learns what was read at the start.
                if digest.replace(now).is_some_and(|before| before != now) {
                    let ids: Vec<&str> = ring.ids().collect();
                    tracing::info!(keys = ids.join(", "), "resume keys in force");
                    sender.send_replace(Arc::new(ring));
                }
            }
            Ok(Err(error)) => {
                let now = error.to_string();
                if now != problem {
                    tracing::error!(error = now, "resume keys refused; those before stay in force");
                    problem = now;
                }
            }
            Err(_) => return,
        }
    }
}
