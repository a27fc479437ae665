//! An issuer's public keys (JWK Set, RFC 7517): read from a file or fetched from a URL, and kept.
//!
//! What always holds: keys that were good stay until newer ones are read, whatever fails meanwhile; an issuer
//! is left alone for `jwks_retry` after each attempt, however many tokens name keys that nobody knows; and only
//! keys that check signatures are kept, never shared secrets.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use url::Url;

use super::error::Refusal;
use crate::secrets::Secrets;
use crate::telemetry::metrics;

/// Largest set of keys, in bytes: providers have two to ten keys of 2 KiB.
const MAX_BYTES: usize = 1 << 20;
/// Most keys that are looked at.
const MAX_KEYS: usize = 100;
/// Time between two complaints about keys that cannot be had: an issuer that is away is asked every few
/// seconds, and one line tells as much as a thousand.
const COMPLAIN_EVERY: Duration = Duration::from_secs(300);

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
    curve: Option<EllipticCurve>,
    verifies: DecodingKey,
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        let curve = match algorithm {
            Algorithm::ES256 => Some(EllipticCurve::P256),
            Algorithm::ES384 => Some(EllipticCurve::P384),
            // No other algorithm of ours is there for keys of more than one curve.
            _ => self.curve.clone(),
        };
        self.verifies.family() == algorithm.family()
            && self.curve == curve
            && self.algorithm.as_ref().is_none_or(|own| *own == format!("{algorithm:?}"))
    }
}

#[derive(Debug, Default)]
struct Kept {
    keys: Arc<Vec<Key>>,
    /// SHA-256 of the set that they were read from.
    seen: Option<[u8; 32]>,
    /// When they were had last.
    had: Option<Instant>,
    /// When it was told last that they cannot be had; `None` if they can.
    complained: Option<Instant>,
}

/// An issuer's keys.
#[derive(Debug)]
pub(super) struct Keys {
    /// What makes them the same ones after the file of identities has changed.
    pub(super) origin: String,
    source: Source,
    kept: RwLock<Kept>,
    /// When they were asked for last: the end of the attempt. Held while they are.
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

    fn change(&self) -> RwLockWriteGuard<'_, Kept> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether it is time to fetch newer keys, and nobody does.
    pub(super) fn are_due(&self, pace: Pace) -> bool {
        let is_free = self.asked.try_lock().is_ok_and(|asked| is_over(*asked, pace.retry));
        matches!(self.source, Source::Url { .. }) && is_free && self.are_old(pace)
    }

    fn are_old(&self, pace: Pace) -> bool {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        is_over(kept.had, pace.refresh)
    }

    /// Fetches newer keys, unless somebody has just done so. For the background.
    pub(super) async fn refresh(&self, pace: Pace) {
        self.ask(pace, |keys| keys.are_old(pace)).await;
    }

    /// Reads a file's keys where they have changed. For the background; blocks on the file system.
    pub(super) fn reread(&self, secrets: &dyn Secrets) {
        if matches!(self.source, Source::File(_)) {
            self.tell(self.read(secrets));
        }
    }

    /// Reads a file's keys; whether they are others than before. A URL's are not looked at.
    ///
    /// # Errors
    /// [`KeysError`].
    pub(super) fn read(&self, secrets: &dyn Secrets) -> Result<bool, KeysError> {
        let Source::File(path) = &self.source else {
            return Ok(false);
        };
        let text =
            secrets.file(path).map_err(|source| KeysError::Read { path: path.clone(), source })?;
        self.keep_these(text.as_bytes())
    }

    /// Keeps the keys of a set; whether they are others than before.
    fn keep_these(&self, set: &[u8]) -> Result<bool, KeysError> {
        let seen = Some(Sha256::digest(set).into());
        if self.change().seen == seen {
            self.change().had = Some(Instant::now());
            return Ok(false);
        }
        let keys = Arc::new(parse(set)?);
        let mut kept = self.change();
        (kept.keys, kept.seen, kept.had) = (keys, seen, Some(Instant::now()));
        Ok(true)
    }

    /// Fetches if it is `still` needed once those before are done, and not too soon.
    async fn ask(&self, pace: Pace, still: impl Fn(&Self) -> bool) {
        let mut asked = self.asked.lock().await;
        if !still(self) || !is_over(*asked, pace.retry) {
            return;
        }
        let fetched = tokio::time::timeout(pace.timeout, self.fetch()).await;
        // Those who waited for this attempt make none of their own, however long it took.
        *asked = Some(Instant::now());
        let fetched = fetched.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(pace.timeout);
            Err(KeysError::Fetch(format!("no answer within {timeout}")))
        });
        self.tell(fetched.and_then(|set| self.keep_these(&set)));
    }

    async fn fetch(&self) -> Result<Vec<u8>, KeysError> {
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
        Ok(body)
    }

    /// Tells what is new: other keys, that there are none, that there are some again.
    fn tell(&self, result: Result<bool, KeysError>) {
        let from = match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Url { url, .. } => url.origin().ascii_serialization(),
        };
        let mut kept = self.change();
        let count = kept.keys.len();
        match result {
            Ok(changed) => {
                let is_back = kept.complained.take().is_some();
                drop(kept);
                if changed {
                    metrics().secret_reload("keys", "changed");
                }
                if changed || is_back {
                    tracing::info!(%from, keys = count, "token keys in force");
                }
            }
            Err(error) if is_over(kept.complained, COMPLAIN_EVERY) => {
                kept.complained = Some(Instant::now());
                drop(kept);
                metrics().secret_reload("keys", "refused");
                tracing::error!(%from, %error, kept = count, "no newer token keys; those before stay in force");
            }
            Err(_) => {}
        }
    }
}

/// Whether `span` has passed since `then`, or since ever.
fn is_over(then: Option<Instant>, span: Duration) -> bool {
    then.is_none_or(|then| then.elapsed() >= span)
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
    let curve = match jwk.algorithm {
        AlgorithmParameters::EllipticCurve(parameters) => Some(parameters.curve),
        _ => None,
    };
    usable.then_some(Key { id: jwk.common.key_id, algorithm, curve, verifies: key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_keys_that_do_not_say_what_they_are_for_the_curve_does() {
        let keys = Keys::new(String::new(), Source::File(PathBuf::new()));
        let set = r#"{"keys": [
            {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
            {"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA"},
            {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}
        ]}"#;
        assert!(keys.keep_these(set.as_bytes()).unwrap());
        for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
            assert!(keys.known(None, algorithm).unwrap().is_some(), "{algorithm:?}");
        }
        assert!(keys.known(None, Algorithm::RS256).unwrap().is_none());
    }

    #[test]
    fn keys_that_are_as_they_were_are_no_change_and_faults_leave_them() {
        let keys = Keys::new(String::new(), Source::File(PathBuf::new()));
        let set = br#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}"#;
        assert!(keys.keep_these(set).unwrap());
        assert!(!keys.keep_these(set).unwrap());
        assert!(keys.keep_these(b"{}").is_err() && keys.keep_these(b"{}").is_err());
        assert_eq!(keys.keys().len(), 1);
    }
}
