//! Tokens: random texts that prove who calls. Only their hashes are kept.
//!
//! A token has 256 random bits. Nobody finds it by trying, so that one round of SHA-256 keeps it as well as a
//! slow password hash would, and looking it up by its hash tells nothing by the time that it takes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

use crate::identity::Identity;

/// What our tokens begin with, so that people and secret scanners know one when they see it.
const PREFIX: &str = "ut_";
/// Random bytes of a token.
const RANDOM: usize = 32;
/// What the hash's name is in the file.
const ALGORITHM: &str = "sha256:";

/// The SHA-256 of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

/// A text that is no hash. The text is not kept: it may be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not of the form sha256: and 64 digits of 0-9 a-f")]
pub struct BadHash;

impl TokenHash {
    /// Of `token`.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl FromStr for TokenHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(ALGORITHM).ok_or(BadHash)?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(BadHash);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| match pair.get(at) {
                Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
                Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
                _ => Err(BadHash),
            };
            *byte = digit(0)? << 4 | digit(1)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The operating system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandomness;

/// A new token. Show it once; keep its [`TokenHash`].
///
/// # Errors
/// [`NoRandomness`].
pub fn new_token() -> Result<String, NoRandomness> {
    let mut random = [0; RANDOM];
    SystemRandom::new().fill(&mut random).map_err(|_| NoRandomness)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// Whose a token is.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) identity: Arc<Identity>,
    pub(super) expires: Option<SystemTime>,
}

impl Held {
    /// Whether it is good no more.
    pub(super) fn is_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_another_one_each_time_and_fits_a_header() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 43);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
    }

    #[test]
    fn a_hash_reads_as_it_is_written_and_nothing_else_does() {
        let hash = TokenHash::of("abc");
        let text = hash.to_string();
        // FIPS 180-2, appendix B.1.
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(text, known);
        assert_eq!(text.parse(), Ok(hash));
        for wrong in ["", "abc", "sha256:", &text[..70], &text.to_uppercase(), &format!("{text}0")]
        {
            assert_eq!(wrong.parse::<TokenHash>(), Err(BadHash), "{wrong:?}");
        }
    }
}
