//! Which worker has which clip: by the clip's path alone.
//!
//! SHA-256 of the path as it stands in the tables, its first eight bytes as a big-endian number, modulo the
//! number of shards. So whatever else is in the archive, and in whatever order it is listed, a clip stays in
//! its shard, and anybody can work out which.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// One of so many equal shares of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

/// More shards than that are a mistake: their names have five digits.
const MAX_SHARDS: u32 = 99_999;

/// Text that names no shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadShard {
    /// Not two numbers.
    #[error("{0:?} is no shard; write index/count, such as 0/4 for the first of four")]
    Syntax(String),
    /// None, or too many.
    #[error("there must be 1 to {MAX_SHARDS} shards, not {0}")]
    Count(u32),
    /// One behind the last.
    #[error("there is no shard {index} of {count}: they are numbered from 0 to {}", count - 1)]
    Index {
        /// The shard asked for.
        index: u32,
        /// How many there are.
        count: u32,
    },
}

impl Shard {
    /// The whole archive.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Shard `index`, counted from 0, of `count`.
    ///
    /// # Errors
    /// [`BadShard`] if there is no such shard.
    pub fn new(index: u32, count: u32) -> Result<Self, BadShard> {
        if !(1..=MAX_SHARDS).contains(&count) {
            return Err(BadShard::Count(count));
        }
        if index >= count {
            return Err(BadShard::Index { index, count });
        }
        Ok(Self { index, count })
    }

    /// Its number, counted from 0.
    pub fn index(self) -> u32 {
        self.index
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether the clip of that path is in it.
    pub fn owns(self, path: &str) -> bool {
        place(path) % u64::from(self.count) == u64::from(self.index)
    }

    /// Whether there can be a clip that is in both.
    pub fn meets(self, other: Self) -> bool {
        let common = greatest_common_divisor(self.count, other.count);
        self.index % common == other.index % common
    }

    /// Whether it is this shard's worker that mends the parts of `other`: one and only one of any number does.
    pub fn mends(self, other: Self) -> bool {
        other.index % self.count == self.index
    }
}

fn place(path: &str) -> u64 {
    let first = Sha256::digest(path.as_bytes()).first_chunk::<8>().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl FromStr for Shard {
    type Err = BadShard;

    fn from_str(text: &str) -> Result<Self, BadShard> {
        let syntax = || BadShard::Syntax(text.to_owned());
        let (index, count) = text.split_once('/').ok_or_else(syntax)?;
        let number = |text: &str| text.trim().parse().map_err(|_| syntax());
        Self::new(number(index)?, number(count)?)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_path_is_in_exactly_one_shard(path in "\\PC{0,40}", count in 1_u32..50) {
            let owners = (0..count).filter(|i| Shard::new(*i, count).unwrap().owns(&path)).count();
            prop_assert_eq!(owners, 1);
        }

        #[test]
        fn shards_that_share_a_path_meet(path in "[a-z/]{0,20}", n in 1_u32..20, m in 1_u32..20) {
            let owner = |count| (0..count).map(|i| Shard::new(i, count).unwrap())
                .find(|shard| shard.owns(&path)).unwrap();
            prop_assert!(owner(n).meets(owner(m)));
        }

        #[test]
        fn every_part_has_exactly_one_mender(n in 1_u32..20, m in 1_u32..20, index in 0_u32..20) {
            let other = Shard::new(index % n, n).unwrap();
            let menders = (0..m).filter(|i| Shard::new(*i, m).unwrap().mends(other)).count();
            prop_assert_eq!(menders, 1);
        }
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        // int.from_bytes(hashlib.sha256(b"s3://calls/2026/a.wav").digest()[:8], "big")
        assert_eq!(place("s3://calls/2026/a.wav"), PLACE_OF_A_WAV);
        assert!(
            Shard::new((PLACE_OF_A_WAV % 16) as u32, 16).unwrap().owns("s3://calls/2026/a.wav")
        );
    }

    const PLACE_OF_A_WAV: u64 = 15_289_102_939_334_191_574;

    #[test]
    fn shards_are_even() {
        let mut sizes = [0_u32; 16];
        for number in 0..16_000 {
            sizes[(place(&format!("s3://calls/{number}.wav")) % 16) as usize] += 1;
        }
        // 1,000 each; the standard deviation of a fair draw is 31.
        assert!(sizes.iter().all(|size| (850..1_150).contains(size)), "{sizes:?}");
    }

    #[test]
    fn what_is_no_shard_is_refused_with_what_would_be() {
        let bad = |text: &str| text.parse::<Shard>().unwrap_err().to_string();
        assert_eq!("3/4".parse(), Shard::new(3, 4));
        assert!(bad("4/4").contains("numbered from 0 to 3"));
        assert!(bad("0/0").contains("1 to 99999"));
        for text in ["4", "a/b", "-1/4", "/", "1/2/3"] {
            assert!(bad(text).contains("0/4 for the first of four"), "{text}");
        }
    }
}
