//! Units as types, and the constants of the clock.
//!
//! One **hop** is 256 samples at 16 kHz (16 ms) and is the clock of the whole pipeline. One **frame**
//! is the 1,024 samples (64 ms) that one MFCC vector looks at; frame `i` covers the samples
//! `256 i .. 256 i + 1024` of the stream's 16 kHz line. One **step** is 16 hops (256 ms), the unit a
//! streaming model consumes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rate that all analysis runs at, in Hz.
pub const MODEL_RATE_HZ: u32 = 16_000;
/// Samples in a hop, at 16 kHz.
pub const HOP_SAMPLES: usize = 256;
/// Samples in a frame, at 16 kHz.
pub const FRAME_SAMPLES: usize = 1024;
/// Hops in a step.
pub const STEP_HOPS: usize = 16;
/// Lowest sample rate taken from a client, in Hz: narrow-band telephony.
pub const MIN_RATE_HZ: u32 = 8_000;
/// Highest sample rate taken from a client's stream, in Hz: the top rate of WebRTC transports.
pub const MAX_RATE_HZ: u32 = 48_000;
/// Most interleaved channels of a stream.
pub const MAX_CHANNELS: u8 = 8;

/// A stream's sample rate, 8,000 to 48,000 Hz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SampleRate(u32);

/// A value outside its range; the message names the value and the range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {min} to {max} {unit}, not {actual}")]
pub struct OutOfRange {
    /// What the value is.
    pub what: &'static str,
    /// Least value allowed.
    pub min: u64,
    /// Greatest value allowed.
    pub max: u64,
    /// The unit of the three numbers.
    pub unit: &'static str,
    /// The value that was given.
    pub actual: u64,
}

impl SampleRate {
    /// 16 kHz, the rate of the analysis.
    pub const MODEL: Self = Self(MODEL_RATE_HZ);

    /// A rate in Hz.
    ///
    /// # Errors
    /// [`OutOfRange`] unless it is 8,000 to 48,000.
    pub fn new(hz: u32) -> Result<Self, OutOfRange> {
        if (MIN_RATE_HZ..=MAX_RATE_HZ).contains(&hz) {
            Ok(Self(hz))
        } else {
            Err(OutOfRange {
                what: "sample rate",
                min: MIN_RATE_HZ.into(),
                max: MAX_RATE_HZ.into(),
                unit: "Hz",
                actual: hz.into(),
            })
        }
    }

    /// The rate in Hz.
    pub fn hz(self) -> u32 {
        self.0
    }
}

/// Interleaved channels of a stream, 1 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ChannelCount(u8);

impl ChannelCount {
    /// One channel.
    pub const MONO: Self = Self(1);

    /// A number of channels.
    ///
    /// # Errors
    /// [`OutOfRange`] unless it is 1 to 8.
    pub fn new(channels: u32) -> Result<Self, OutOfRange> {
        match u8::try_from(channels) {
            Ok(n) if (1..=MAX_CHANNELS).contains(&n) => Ok(Self(n)),
            _ => Err(OutOfRange {
                what: "channel count",
                min: 1,
                max: MAX_CHANNELS.into(),
                unit: "channels",
                actual: channels.into(),
            }),
        }
    }

    /// The number as an index bound.
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl TryFrom<u32> for SampleRate {
    type Error = OutOfRange;

    fn try_from(hz: u32) -> Result<Self, OutOfRange> {
        Self::new(hz)
    }
}

impl From<SampleRate> for u32 {
    fn from(rate: SampleRate) -> Self {
        rate.0
    }
}

impl TryFrom<u32> for ChannelCount {
    type Error = OutOfRange;

    fn try_from(channels: u32) -> Result<Self, OutOfRange> {
        Self::new(channels)
    }
}

impl From<ChannelCount> for u32 {
    fn from(channels: ChannelCount) -> Self {
        channels.0.into()
    }
}

/// A position on a stream's own 16 kHz line, in samples since its first sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SamplePos(pub u64);

impl SamplePos {
    /// The start of hop `index`.
    pub fn of_hop(index: u64) -> Self {
        Self(index.saturating_mul(HOP_SAMPLES as u64))
    }

    /// The first sample behind frame `index`, which begins with hop `index`.
    pub fn end_of_frame(index: u64) -> Self {
        Self(Self::of_hop(index).0.saturating_add(FRAME_SAMPLES as u64))
    }

    /// Seconds since the stream's first sample.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / f64::from(MODEL_RATE_HZ)
    }

    /// Time since the stream's first sample, exact to the nanosecond below.
    pub fn duration(self) -> Duration {
        samples_to_duration(self.0)
    }
}

impl fmt::Display for SamplePos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.seconds())
    }
}

/// The duration of `samples` at 16 kHz.
pub fn samples_to_duration(samples: u64) -> Duration {
    // One sample is 62,500 ns exactly.
    Duration::from_secs(samples / u64::from(MODEL_RATE_HZ))
        + Duration::from_nanos(samples % u64::from(MODEL_RATE_HZ) * 62_500)
}

/// The number of whole samples at 16 kHz in `duration`.
pub fn duration_to_samples(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(u64::from(MODEL_RATE_HZ))
        + u64::from(duration.subsec_nanos()) / 62_500
}

/// The number of hops that cover `duration`, rounded up.
pub fn duration_to_hops(duration: Duration) -> u64 {
    duration_to_samples(duration).div_ceil(HOP_SAMPLES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_outside_the_range_are_refused_with_the_range() {
        let error = SampleRate::new(7_999).unwrap_err();
        assert_eq!(error.to_string(), "sample rate must be 8000 to 48000 Hz, not 7999");
        assert!(SampleRate::new(48_001).is_err());
        assert_eq!(SampleRate::new(22_050).unwrap().hz(), 22_050);
    }

    #[test]
    fn channel_counts_outside_the_range_are_refused() {
        assert!(ChannelCount::new(0).is_err());
        assert!(ChannelCount::new(9).is_err());
        assert!(ChannelCount::new(256 + 1).is_err());
        assert_eq!(ChannelCount::new(8).unwrap().get(), 8);
    }

    #[test]
    fn positions_and_durations_round_trip() {
        for samples in [0, 1, 255, 256, 15_999, 16_000, 16_001, 1 << 40] {
            assert_eq!(duration_to_samples(samples_to_duration(samples)), samples);
        }
        assert_eq!(duration_to_hops(Duration::from_millis(16)), 1);
        assert_eq!(duration_to_hops(Duration::from_millis(17)), 2);
    }
}
