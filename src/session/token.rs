//! Resume tokens: a session's state, sealed, which its client carries and can neither read nor change.
//!
//! In: bytes, and whose they are. Out: a token that only a replica with the same keys can open, only for the same
//! caller, only until it expires. The cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), whose nonces of 192
//! bits may be random however many tokens a key seals.
//!
//! ```text
//! offset       length  what
//! 0            4       "UTRT"
//! 4            1       version of token and state: 2
//! 5            1       length n of the key's id
//! 6            n       the key's id
//! 6 + n        8       when it expires: seconds since 1970, little endian
//! 14 + n       24      nonce
//! 38 + n       rest    sealed payload; its last 16 bytes are the tag
//! ```
//! All before the payload is authenticated with it, and so is the *context*, which is not in the token: whoever opens
//! it must name the same one. The caller puts there whom it belongs to.
//!
//! Always: no key is ever shown, logged or part of an error; keys are wiped from memory with their ring.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, Generate as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

const MAGIC: &[u8; 4] = b"UTRT";
/// Of the token, and of what is in it: states of another version cannot be read. It goes up with every change of a type
/// that is part of a session's state.
const VERSION: u8 = 2;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Longest id of a key.
const MAX_ID: usize = 32;
/// Most keys of a ring: today's, and those of tokens that have not expired.
const MAX_KEYS: usize = 16;

/// Why a token cannot be made or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Larger than tokens may be.
    #[error("a resume token of {actual} bytes is larger than {limit}")]
    TooLarge {
        /// Its bytes.
        actual: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Some other bytes.
    #[error("the bytes are no resume token")]
    NoToken,
    /// Of a server that is older or newer.
    #[error("the resume token is of version {actual}, and this server reads version {VERSION}")]
    OtherVersion {
        /// Its version.
        actual: u8,
    },
    /// Sealed with a key that is not there.
    #[error(
        "the resume token was sealed with the key {id:?}, which this server does not have; do all replicas \
         read the same resume_keys?"
    )]
    UnknownKey {
        /// The key's id, as the token says.
        id: String,
    },
    /// Damaged, or another caller's.
    #[error("the resume token is damaged, or was given to another caller")]
    Refused,
    /// Too old.
    #[error("the resume token expired {ago_s} s ago")]
    Expired {
        /// Seconds since it expired.
        ago_s: u64,
    },
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system")]
    Random,
}

/// Why a text is no ring of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// A line that is none.
    #[error("line {line}: {problem}; each line is `id:key`, as `undertone resume-key` prints one")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it. Never what stands in it.
        problem: &'static str,
    },
    /// Nothing but comments.
    #[error("there is no key; `undertone resume-key` prints one")]
    Empty,
}

/// A key, ready. The cipher wipes it when it is dropped.
#[derive(Clone)]
struct Sealer {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// The keys of a server: the first one seals, all open.
#[derive(Clone)]
pub struct Keyring {
    first: Sealer,
    others: Vec<Sealer>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids().collect::<Vec<_>>()).finish()
    }
}

impl Keyring {
    /// Reads a file of keys: a line `id:key` each, the key being 32 bytes in base64. Empty lines and those that begin
    /// with `#` are skipped. To change keys, put a new one first, and leave the old ones until their tokens
    /// have expired.
    ///
    /// # Errors
    /// [`KeyringError`] with the line's number.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys: Vec<Sealer> = Vec::new();
        for (line, entry) in (1..).zip(text.lines().map(str::trim)) {
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            let key =
                Sealer::parse(entry).map_err(|problem| KeyringError::Line { line, problem })?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyringError::Line { line, problem: "its id stands above already" });
            }
            if keys.len() == MAX_KEYS {
                return Err(KeyringError::Line { line, problem: "there are 16 keys already" });
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(KeyringError::Empty)?;
        Ok(Self { first, others: keys.collect() })
    }

    /// A ring of one random key, for a server without a file: its tokens end with this process.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn random() -> Result<Self, TokenError> {
        let key = Key::try_generate().map_err(|_| TokenError::Random)?;
        let cipher = XChaCha20Poly1305::new(&key);
        let id = u32::try_generate().map_err(|_| TokenError::Random)?;
        // Another process must see that it is not its own.
        let id = format!("process-{id:08x}");
        Ok(Self { first: Sealer { id, cipher }, others: Vec::new() })
    }

    /// The ids of its keys, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.id.as_str())
    }

    fn keys(&self) -> impl Iterator<Item = &Sealer> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Seals `payload` for whoever names the same `context`, until `expires` (seconds since 1970).
    ///
    /// # Errors
    /// [`TokenError::TooLarge`] if that makes more than `limit` bytes; [`TokenError::Random`].
    pub fn seal(
        &self,
        context: &[u8],
        payload: &[u8],
        expires: u64,
        limit: usize,
    ) -> Result<Bytes, TokenError> {
        let id = self.first.id.as_bytes();
        let head = MAGIC.len() + 2 + id.len() + size_of::<u64>() + NONCE_BYTES;
        let actual = head + payload.len() + TAG_BYTES;
        if actual > limit {
            return Err(TokenError::TooLarge { actual, limit });
        }
        let nonce = XNonce::try_generate().map_err(|_| TokenError::Random)?;
        let mut token = Vec::with_capacity(actual);
        token.extend_from_slice(MAGIC);
        token.push(VERSION);
        // At most `MAX_ID`.
        token.push(id.len() as u8);
        token.extend_from_slice(id);
        token.extend_from_slice(&expires.to_le_bytes());
        token.extend_from_slice(&nonce);
        let bound = [&token, context].concat();
        let sealed = self.first.cipher.encrypt(&nonce, Payload { msg: payload, aad: &bound });
        // It can refuse only what is larger than 256 GiB.
        token.extend(sealed.map_err(|_| TokenError::TooLarge { actual, limit })?);
        Ok(token.into())
    }

    /// The payload of a token that was sealed for the same `context` and has not expired at `now` (seconds since
    /// 1970). Nothing of a token of more than `limit` bytes is looked at.
    ///
    /// # Errors
    /// [`TokenError`], every kind but [`TokenError::Random`].
    pub fn open(
        &self,
        context: &[u8],
        token: &[u8],
        now: u64,
        limit: usize,
    ) -> Result<Vec<u8>, TokenError> {
        if token.len() > limit {
            return Err(TokenError::TooLarge { actual: token.len(), limit });
        }
        let parts = Parts::of(token)?;
        let key = self.keys().find(|key| key.id.as_bytes() == parts.id).ok_or_else(|| {
            TokenError::UnknownKey { id: String::from_utf8_lossy(parts.id).into_owned() }
        })?;
        let bound = [parts.head, context].concat();
        let payload = Payload { msg: parts.sealed, aad: &bound };
        let opened = key.cipher.decrypt(&XNonce::from(*parts.nonce), payload);
        let payload = opened.map_err(|_| TokenError::Refused)?;
        // Only now is it known that the token says so.
        match now.checked_sub(parts.expires) {
            Some(ago_s) => Err(TokenError::Expired { ago_s }),
            None => Ok(payload),
        }
    }
}

impl Sealer {
    fn parse(entry: &str) -> Result<Self, &'static str> {
        let (id, key) = entry.split_once(':').ok_or("there is no colon")?;
        let (id, key) = (id.trim(), key.trim());
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > MAX_ID || !id.chars().all(fits) {
            return Err("an id has 1 to 32 characters of A-Z a-z 0-9 . _ -");
        }
        let key = STANDARD.decode(key).map_err(|_| "the key is no base64")?;
        let key: [u8; KEY_BYTES] = key.try_into().map_err(|_| "the key has not 32 bytes")?;
        Ok(Self { id: id.to_owned(), cipher: XChaCha20Poly1305::new(&Key::from(key)) })
    }
}

/// A token taken apart.
struct Parts<'a> {
    /// All before the sealed payload.
    head: &'a [u8],
    id: &'a [u8],
    expires: u64,
    nonce: &'a [u8; NONCE_BYTES],
    sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(token: &'a [u8]) -> Result<Self, TokenError> {
        let whole = token.strip_prefix(MAGIC).and_then(<[u8]>::split_first);
        let (&version, rest) = whole.ok_or(TokenError::NoToken)?;
        if version != VERSION {
            return Err(TokenError::OtherVersion { actual: version });
        }
        let parts = || {
            let (&length, rest) = rest.split_first()?;
            let (id, rest) = rest.split_at_checked(length.into())?;
            let (expires, rest) = rest.split_first_chunk()?;
            let (nonce, sealed) = rest.split_first_chunk()?;
            let head = token.get(..token.len() - sealed.len())?;
            let fits = (1..=MAX_ID).contains(&id.len()) && sealed.len() >= TAG_BYTES;
            let expires = u64::from_le_bytes(*expires);
            fits.then_some(Self { head, id, expires, nonce, sealed })
        };
        parts().ok_or(TokenError::NoToken)
    }
}

/// A new line for a file of keys, with a random key under a random id.
///
/// # Errors
/// [`TokenError::Random`].
pub fn new_key() -> Result<String, TokenError> {
    let key = Key::try_generate().map_err(|_| TokenError::Random)?;
    let id = u32::try_generate().map_err(|_| TokenError::Random)?;
    Ok(format!("{id:08x}:{}", STANDARD.encode(key)))
}

#[cfg(test)]
mod tests;
