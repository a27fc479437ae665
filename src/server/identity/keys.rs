//! An issuer's public keys (JWK Set, RFC 7517): read from a file or fetched from a URL, and kept.
//!
//! What always holds: keys that were good stay until newer ones are read, whatever fails meanwhile; an issuer
//! is asked at most once per `jwks_retry`, however many tokens name keys that nobody knows; and only keys that
//! check signatures are kept, never shared secrets.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use tokio::sync::Mutex;
use url::Url;

use super::error::Refusal;
use crate::secrets::Secrets;
use crate::telemetry::metrics;

/// Largest set of keys, in bytes: providers have two to ten keys of 2 KiB.
const MAX_BYTES: usize = 1 << 20;
/// Most keys that are looked at.
const MAX_KEYS: usize = 100;

/// Why there are no newer keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot fetch them: {0}")]
    Fetch(String),
    #[error("HTTP {0}")]
    Status(u16),
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is no JWK Set: {0}")]
    NoSet(serde_json::Error),
    #[error("no key in it can check a signature (RSA, EC or Ed25519)")]
    Empty,
}

/// How often keys are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Age at which they are fetched again.
    pub(super) refresh: Duration,
    /// Least time between two attempts.
    pub(super) retry: Duration,
    /// Longest time of one.
    pub(super) timeout: Duration,
}

/// Where keys come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// A URL, and how it is called.
    Url {
        /// The URL.
        url: Url,
        /// The client.
        client: reqwest::Client,
    },
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// What it may be used for, if it says.
    algorithm: Option<String>,
    verifies: DecodingKey,
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.verifies.family() == algorithm.family()
            && self.algorithm.as_ref().is_none_or(|own| *own == format!("{algorithm:?}"))
    }
}

#[derive(Debug, Default)]
struct Kept {
    keys: Arc<Vec<Key>>,
    /// Of a file: what was read last.
    text: String,
    /// When they were had last.
    had: Option<Instant>,
}

/// An issuer's keys.
#[derive(Debug)]
pub(super) struct Keys {
    /// What makes them the same ones after the file of identities has changed.
    pub(super) origin: String,
    source: Source,
    kept: RwLock<Kept>,
    /// When they were asked for last. Held while they are.
    asked: Mutex<Option<Instant>>,
}

impl Keys {
    /// None yet.
    pub(super) fn new(origin: String, source: Source) -> Self {
        Self { origin, source, kept: RwLock::default(), asked: Mutex::new(None) }
    }

    /// The key `id` for `algorithm`; without an `id`, the only one that fits. Fetches where it is not known.
    ///
    /// # Cancellation
    /// Safe: fetching goes on for those who wait for it too, and callers that give up cannot hinder it.
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
        pace: Pace,
    ) -> Result<DecodingKey, Refusal> {
        if let Some(key) = self.known(id, algorithm)? {
            return Ok(key);
        }
        if matches!(self.source, Source::Url { .. }) {
            let (keys, id) = (self.clone(), id.map(str::to_owned));
            let still = move |keys: &Self| matches!(keys.known(id.as_deref(), algorithm), Ok(None));
            // One that panics has fetched nothing.
            let _ = tokio::spawn(async move { keys.ask(pace, still).await }).await;
        }
        match self.known(id, algorithm)? {
            Some(key) => Ok(key),
            None if self.keys().is_empty() => Err(Refusal::KeysUnavailable),
            None => Err(Refusal::invalid("its issuer has no such key (kid) for its algorithm")),
        }
    }

    fn keys(&self) -> Arc<Vec<Key>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    fn known(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<DecodingKey>, Refusal> {
        let keys = self.keys();
        let mut fitting = keys
            .iter()
            .filter(|key| id.is_none() || key.id.as_deref() == id)
            .filter(|key| key.fits(algorithm));
        match (fitting.next(), fitting.next(), id) {
            (Some(_), Some(_), None) => {
                Err(Refusal::invalid("it does not say which of its issuer's keys signed it (kid)"))
            }
            (first, _, _) => Ok(first.map(|first| first.verifies.clone())),
        }
    }

    /// Fetches newer keys where it is time to. For the background.
    pub(super) async fn refresh(&self, pace: Pace) {
        let due = |keys: &Self| {
            let kept = keys.kept.read().unwrap_or_else(PoisonError::into_inner);
            kept.had.is_none_or(|had| had.elapsed() >= pace.refresh)
        };
        if matches!(self.source, Source::Url { .. }) && due(self) {
            self.ask(pace, due).await;
        }
    }

    /// Reads a file's keys where they have changed. For the background; blocks on the file system.
    pub(super) fn reread(&self, secrets: &dyn Secrets) {
        match self.read(secrets) {
            Ok(false) => {}
            Ok(true) => self.tell(Ok(())),
            Err(error) => self.tell(Err(error)),
        }
    }

    /// Reads a file's keys; whether they are others than before. A URL's are not looked at.
    ///
    /// # Errors
    /// [`KeysError`]; the same text is an error once.
    pub(super) fn read(&self, secrets: &dyn Secrets) -> Result<bool, KeysError> {
        let Source::File(path) = &self.source else {
            return Ok(false);
        };
        let text =
            secrets.file(path).map_err(|source| KeysError::Read { path: path.clone(), source })?;
        {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            if kept.text == text {
                return Ok(false);
            }
            kept.text.clone_from(&text);
        }
        self.keep_these(parse(text.as_bytes())?);
        Ok(true)
    }

    fn keep_these(&self, keys: Vec<Key>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        (kept.keys, kept.had) = (Arc::new(keys), Some(Instant::now()));
    }

    /// Fetches if it is `still` needed once those before are done, and not too soon.
    async fn ask(&self, pace: Pace, still: impl Fn(&Self) -> bool) {
        let mut asked = self.asked.lock().await;
        if !still(self) || asked.is_some_and(|asked| asked.elapsed() < pace.retry) {
            return;
        }
        *asked = Some(Instant::now());
        let fetched = tokio::time::timeout(pace.timeout, self.fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(pace.timeout);
            Err(KeysError::Fetch(format!("no answer within {timeout}")))
        });
        self.tell(fetched.map(|keys| self.keep_these(keys)));
    }

    async fn fetch(&self) -> Result<Vec<Key>, KeysError> {
        let Source::Url { url, client } = &self.source else {
            return Err(KeysError::Empty);
        };
        let failed = |error: reqwest::Error| KeysError::Fetch(root_cause(&error.without_url()));
        let mut answer = client.get(url.clone()).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(KeysError::Status(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&part);
            if body.len() > MAX_BYTES {
                return Err(KeysError::TooLarge);
            }
        }
        parse(&body)
    }

    fn tell(&self, result: Result<(), KeysError>) {
        let from = match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Url { url, .. } => url.origin().ascii_serialization(),
        };
        match result {
            Ok(()) => {
                metrics().secret_reload("keys", "changed");
                tracing::info!(%from, keys = self.keys().len(), "token keys in force");
            }
            Err(error) => {
                metrics().secret_reload("keys", "refused");
                let kept = self.keys().len();
                tracing::error!(%from, %error, kept, "no newer token keys; those before stay in force");
            }
        }
    }
}

/// What lies at the bottom of an error.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// The keys of a JWK Set that can check signatures; others in it are passed over (RFC 7517, section 5).
fn parse(text: &[u8]) -> Result<Vec<Key>, KeysError> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(KeysError::NoSet)?;
    let keys: Vec<Key> = set.keys.into_iter().take(MAX_KEYS).filter_map(key).collect();
    if keys.is_empty() { Err(KeysError::Empty) } else { Ok(keys) }
}

fn key(value: serde_json::Value) -> Option<Key> {
    let algorithm = value.get("alg").and_then(serde_json::Value::as_str).map(str::to_owned);
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let usable = signs && key.family() != AlgorithmFamily::Hmac;
    usable.then_some(Key { id: jwk.common.key_id, algorithm, verifies: key })
}
