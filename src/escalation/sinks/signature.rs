//! Signatures of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.
//!
//! In: secrets as `whsec_` and base64 of 24 to 64 bytes. Out: `v1,` and base64, one per secret with a
//! blank between. A receiver takes a request if any of them fits, so that a secret can be changed
//! without losing a message. Source: the Standard Webhooks specification, "Signature scheme".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::secret::Secret;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Fewest bytes of a key, by the specification.
const MIN_BYTES: usize = 24;
/// Most bytes of a key, by the specification.
const MAX_BYTES: usize = 64;

/// Why a secret is no key. Says nothing of the secret but its length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    /// It begins with something else.
    #[error("the secret does not begin with whsec_")]
    Prefix,
    /// What follows is no base64.
    #[error("what follows whsec_ is not standard base64 with padding")]
    Base64,
    /// Too few or too many bytes.
    #[error("the secret has {actual} bytes; a key has {MIN_BYTES} to {MAX_BYTES}")]
    Length {
        /// Bytes after decoding.
        actual: usize,
    },
}

/// Keyed hashes, the current secret's first. `Debug` shows how many.
pub(super) struct Signer {
    keys: Vec<Hmac<Sha256>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} keys)", self.keys.len())
    }
}

/// The keyed hash of one secret.
fn key(secret: &Secret) -> Result<Hmac<Sha256>, KeyError> {
    let text = secret.reveal().strip_prefix(PREFIX).ok_or(KeyError::Prefix)?;
    let bytes = STANDARD.decode(text).map_err(|_| KeyError::Base64)?;
    let length = KeyError::Length { actual: bytes.len() };
    if !(MIN_BYTES..=MAX_BYTES).contains(&bytes.len()) {
        return Err(length);
    }
    Hmac::new_from_slice(&bytes).map_err(|_| length)
}

impl Signer {
    /// A signer that has no key yet.
    pub(super) fn new() -> Self {
        Self { keys: Vec::new() }
    }

    /// One more secret.
    ///
    /// # Errors
    /// [`KeyError`] if it is none.
    pub(super) fn add(&mut self, secret: &Secret) -> Result<(), KeyError> {
        self.keys.push(key(secret)?);
        Ok(())
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, unix_seconds: i64, body: &[u8]) -> String {
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|key| {
                let mut mac = key.clone();
                mac.update(format!("{id}.{unix_seconds}.").as_bytes());
                mac.update(body);
                format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
            })
            .collect();
        signatures.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secrets: &[&str]) -> Signer {
        let mut signer = Signer::new();
        for secret in secrets {
            signer.add(&Secret::new(secret)).unwrap();
        }
        signer
    }

    /// The vector that the specification's reference libraries share.
    #[test]
    fn the_specifications_vector_is_met() {
        let signature = signer(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_the_current_one_first() {
        let (new, old) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let both = signer(&[new, old]).sign("a", 1, b"x");
        let each = [signer(&[new]).sign("a", 1, b"x"), signer(&[old]).sign("a", 1, b"x")];
        assert_eq!(both, each.join(" "));
    }

    /// As `docs/delivery.md` gives it to receivers.
    fn verified(secret: &str, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        let Some(key) = secret.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok())
        else {
            return false;
        };
        signatures.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|one| {
            let Ok(one) = STANDARD.decode(one) else { return false };
            let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(&key) else { return false };
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            mac.verify_slice(&one).is_ok()
        })
    }

    #[test]
    fn the_documented_check_takes_what_is_signed_and_nothing_else() {
        let (new, old) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let signatures = signer(&[new, old]).sign("a", 1, b"x");
        assert!(verified(new, "a", "1", b"x", &signatures));
        assert!(verified(old, "a", "1", b"x", &signatures));
        assert!(!verified(new, "a", "1", b"y", &signatures));
        assert!(!verified(new, "a", "2", b"x", &signatures));
        assert!(!verified(new, "b", "1", b"x", &signatures));
    }

    #[test]
    fn a_bad_secret_is_refused_without_being_told() {
        let error = |text: &str| Signer::new().add(&Secret::new(text)).unwrap_err();
        assert_eq!(error("hunter2"), KeyError::Prefix);
        assert_eq!(error("whsec_!!!"), KeyError::Base64);
        assert_eq!(error("whsec_aHVudGVyMg=="), KeyError::Length { actual: 7 });
        assert!(!error("whsec_aHVudGVyMg==").to_string().contains("aHV"));
    }
}
