//! Parts' names: `part-00003-of-00016-00000012.parquet` is the thirteenth part of shard 3/16.

use std::fmt;
use std::str::FromStr;

use super::shard::Shard;

/// One part of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartName {
    /// Whose.
    pub(super) shard: Shard,
    /// Which, counted from 0.
    pub(super) number: u32,
}

impl PartName {
    /// The object of the clips, below the output.
    pub(super) fn clips(self) -> String {
        format!("clips/{self}")
    }

    /// The object of their utterances.
    pub(super) fn utterances(self) -> String {
        format!("utterances/{self}")
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, count) = (self.shard.index(), self.shard.count());
        write!(f, "part-{index:05}-of-{count:05}-{:08}.parquet", self.number)
    }
}

/// Another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoPart;

impl FromStr for PartName {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        let parts = || {
            let rest = text.strip_prefix("part-")?.strip_suffix(".parquet")?;
            let (index, rest) = rest.split_once("-of-")?;
            let (count, number) = rest.split_once('-')?;
            let shard = Shard::new(index.parse().ok()?, count.parse().ok()?).ok()?;
            Some(Self { shard, number: number.parse().ok()? })
        };
        // Only as we write them: two names for one part there must not be.
        parts().filter(|name| name.to_string() == text).ok_or(NoPart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        let name = PartName { shard: Shard::new(3, 16).unwrap(), number: 12 };
        assert_eq!(name.to_string(), "part-00003-of-00016-00000012.parquet");
        assert_eq!(name.to_string().parse(), Ok(name));
        for other in [
            "part-3-of-16-12.parquet",
            "part-00016-of-00016-00000000.parquet",
            "part-00003-of-00016-00000012.parquet.tmp",
            "other.parquet",
        ] {
            assert_eq!(other.parse::<PartName>(), Err(NoPart), "{other}");
        }
    }
}
