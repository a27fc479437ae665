//! The conditions that every clip is heard under.
//!
//! | name | what is done to the sound |
//! |---|---|
//! | `clean` | nothing |
//! | `pink-20`, `pink-10`, `pink-5` | pink noise, that many dB below the active speech level |
//! | `telephone` | 300 to 3,400 Hz, 8 kHz, G.711 mu-law |
//! | `reverberation` | a synthetic room: RT60 0.5 s, direct-to-reverberant ratio 0 dB |
//! | `quiet` | 20 dB down, then 16 bits |
//! | `loud` | 20 dB up, clipped at full scale, then 16 bits |
//!
//! What is random in them follows from corpus, clip and kind of condition alone: a clip meets the same
//! noise in every run, and the three levels of it differ in level only.

use std::fmt;
use std::str::FromStr;

/// One condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// As recorded.
    Clean,
    /// Pink noise at 20 dB SNR.
    Pink20,
    /// Pink noise at 10 dB SNR.
    Pink10,
    /// Pink noise at 5 dB SNR.
    Pink5,
    /// A telephone line.
    Telephone,
    /// A synthetic room.
    Reverberation,
    /// 20 dB down.
    Quiet,
    /// 20 dB up, clipped.
    Loud,
}

/// The gain of `quiet` and `loud`, in dB.
pub(crate) const GAIN_DB: f64 = 20.0;

impl Condition {
    /// All, `clean` first.
    pub const ALL: [Self; 8] = [
        Self::Clean,
        Self::Pink20,
        Self::Pink10,
        Self::Pink5,
        Self::Telephone,
        Self::Reverberation,
        Self::Quiet,
        Self::Loud,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Pink20 => "pink-20",
            Self::Pink10 => "pink-10",
            Self::Pink5 => "pink-5",
            Self::Telephone => "telephone",
            Self::Reverberation => "reverberation",
            Self::Quiet => "quiet",
            Self::Loud => "loud",
        }
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Clean => "as recorded",
            Self::Pink20 => "pink noise, 20 dB SNR",
            Self::Pink10 => "pink noise, 10 dB SNR",
            Self::Pink5 => "pink noise, 5 dB SNR",
            Self::Telephone => "300 to 3,400 Hz, 8 kHz, G.711 mu-law",
            Self::Reverberation => "a synthetic room, RT60 0.5 s, direct-to-reverberant ratio 0 dB",
            Self::Quiet => "20 dB down, 16 bits",
            Self::Loud => "20 dB up, clipped at full scale, 16 bits",
        }
    }

    /// The signal-to-noise ratio in dB, where there is noise.
    pub(crate) fn snr_db(self) -> Option<f64> {
        match self {
            Self::Pink20 => Some(20.0),
            Self::Pink10 => Some(10.0),
            Self::Pink5 => Some(5.0),
            _ => None,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|condition| condition.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|condition| condition.name()).collect();
            format!("unknown condition {name:?}; known are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for condition in Condition::ALL {
            assert_eq!(condition.name().parse(), Ok(condition));
        }
        assert!("rain".parse::<Condition>().unwrap_err().contains("telephone"));
    }
}
