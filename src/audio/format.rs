//! What a stream says it sends.

use serde::{Deserialize, Serialize};

use crate::units::{ChannelCount, HOP_SAMPLES, MODEL_RATE_HZ, SampleRate};

/// How one sample is coded. Samples of several bytes are little endian, as on every transport that
/// agents use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encoding {
    /// Signed 16-bit integers; full scale is 32,768.
    Linear16,
    /// IEEE 754 binary32; full scale is 1.0. What is beyond is clamped, what is not finite an error.
    Float32,
    /// ITU-T G.711 µ-law, 8 bits.
    MuLaw,
    /// ITU-T G.711 A-law, 8 bits, even bits inverted as on the wire.
    ALaw,
}

impl Encoding {
    /// Its name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear16 => "linear16",
            Self::Float32 => "float32",
            Self::MuLaw => "mulaw",
            Self::ALaw => "alaw",
        }
    }

    /// Bytes of one sample.
    pub const fn bytes_per_sample(self) -> usize {
        match self {
            Self::MuLaw | Self::ALaw => 1,
            Self::Linear16 => 2,
            Self::Float32 => 4,
        }
    }

    /// The least magnitude that counts as full scale, of 1.0: the encoding's greatest code. A sample
    /// there may have been cut off; see `clipping`.
    pub(crate) fn full_scale(self) -> f32 {
        let code = match self {
            // -32,768 is beyond it; symmetric clippers stop at ±32,767. FLOAT32 mostly comes from
            // 16-bit samples.
            Self::Linear16 | Self::Float32 => 32_767.0,
            Self::MuLaw => f32::from(super::g711::MU_LAW_MAX),
            Self::ALaw => f32::from(super::g711::A_LAW_MAX),
        };
        code / 32_768.0
    }
}

/// The format of a stream: one encoding, one rate, interleaved channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AudioFormat {
    /// How a sample is coded.
    pub encoding: Encoding,
    /// Frames per second.
    pub rate: SampleRate,
    /// Interleaved channels; one sample of each makes a frame.
    pub channels: ChannelCount,
}

impl AudioFormat {
    /// Bytes of one frame: one sample of every channel.
    pub fn bytes_per_frame(self) -> usize {
        self.encoding.bytes_per_sample() * self.channels.get()
    }

    /// Bytes that hold one hop (16 ms) of audio, rounded up to a whole frame. Pushing slices of this
    /// size keeps the buffers of an [`Intake`](super::Intake) at their least.
    pub fn bytes_per_hop(self) -> usize {
        let frames = (HOP_SAMPLES as u64 * u64::from(self.rate.hz()))
            .div_ceil(u64::from(MODEL_RATE_HZ)) as usize;
        frames * self.bytes_per_frame()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_of_bytes_covers_sixteen_milliseconds() {
        let format = |encoding, hz, channels| AudioFormat {
            encoding,
            rate: SampleRate::new(hz).unwrap(),
            channels: ChannelCount::new(channels).unwrap(),
        };
        assert_eq!(format(Encoding::Linear16, 16_000, 1).bytes_per_hop(), 512);
        assert_eq!(format(Encoding::MuLaw, 8_000, 1).bytes_per_hop(), 128);
        assert_eq!(format(Encoding::Float32, 48_000, 8).bytes_per_hop(), 768 * 32);
        // 705.6 frames, rounded up.
        assert_eq!(format(Encoding::Linear16, 44_100, 2).bytes_per_hop(), 706 * 4);
    }
}
