//! Samples of one channel out of interleaved frames, full scale 1.0.
//!
//! Whole frames only: what a chunk splits is put together again by `intake`. Decoding goes channel by
//! channel, so that channels nobody listens to cost nothing.

use super::format::Encoding;
use super::g711;

/// Interleaved frames that samples can be read from.
pub(crate) trait Frames {
    /// The number of whole frames.
    fn len(&self) -> usize;

    /// Magnitude from which a sample counts as at full scale.
    fn full_scale(&self) -> f32;

    /// Whether a sample may be NaN or infinite.
    fn may_be_non_finite(&self) -> bool;

    /// Reads `samples.len()` samples of `channel`, from frame `first` on. Frames that do not exist
    /// leave `samples` as it is.
    fn read(&self, first: usize, channel: usize, samples: &mut [f32]);
}

/// A stream's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedFrames<'a> {
    /// How a sample is coded.
    pub(crate) encoding: Encoding,
    /// Interleaved channels.
    pub(crate) channels: usize,
    /// Whole frames; a rest that is shorter than a frame is not read.
    pub(crate) bytes: &'a [u8],
}

impl Frames for EncodedFrames<'_> {
    fn len(&self) -> usize {
        self.bytes.len() / (self.encoding.bytes_per_sample() * self.channels).max(1)
    }

    fn full_scale(&self) -> f32 {
        self.encoding.full_scale()
    }

    fn may_be_non_finite(&self) -> bool {
        self.encoding == Encoding::Float32
    }

    fn read(&self, first: usize, channel: usize, samples: &mut [f32]) {
        let start = first * self.channels * self.encoding.bytes_per_sample();
        let bytes = self.bytes.get(start..).unwrap_or_default();
        match self.encoding {
            Encoding::Linear16 => strided::<2>(bytes, self.channels, channel, samples, |b| {
                f32::from(i16::from_le_bytes(b)) / 32_768.0
            }),
            Encoding::Float32 => {
                strided::<4>(bytes, self.channels, channel, samples, f32::from_le_bytes);
            }
            Encoding::MuLaw => strided::<1>(bytes, self.channels, channel, samples, |[code]| {
                g711::MU_LAW.get(usize::from(code)).copied().unwrap_or_default()
            }),
            Encoding::ALaw => strided::<1>(bytes, self.channels, channel, samples, |[code]| {
                g711::A_LAW.get(usize::from(code)).copied().unwrap_or_default()
            }),
        }
    }
}

/// Samples of `N` bytes each. Mono is a case of its own, since the compiler vectorises it.
fn strided<const N: usize>(
    bytes: &[u8],
    channels: usize,
    channel: usize,
    samples: &mut [f32],
    decode: impl Fn([u8; N]) -> f32,
) {
    let coded = bytes.as_chunks::<N>().0;
    if channels == 1 {
        for (sample, &code) in samples.iter_mut().zip(coded) {
            *sample = decode(code);
        }
    } else {
        for (sample, &code) in samples.iter_mut().zip(coded.iter().skip(channel).step_by(channels))
        {
            *sample = decode(code);
        }
    }
}

/// Samples that a codec decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecodedFrames<'a> {
    /// Interleaved channels.
    pub(crate) channels: usize,
    /// Whole frames.
    pub(crate) samples: &'a [f32],
}

impl Frames for DecodedFrames<'_> {
    fn len(&self) -> usize {
        self.samples.len() / self.channels.max(1)
    }

    fn full_scale(&self) -> f32 {
        Encoding::Float32.full_scale()
    }

    fn may_be_non_finite(&self) -> bool {
        true
    }

    fn read(&self, first: usize, channel: usize, samples: &mut [f32]) {
        let from = self.samples.get(first * self.channels + channel..).unwrap_or_default();
        for (sample, &decoded) in samples.iter_mut().zip(from.iter().step_by(self.channels.max(1)))
        {
            *sample = decoded;
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "decoding is exact")]
mod tests {
    use super::*;

    fn read(encoding: Encoding, channels: usize, bytes: &[u8], channel: usize) -> Vec<f32> {
        let frames = EncodedFrames { encoding, channels, bytes };
        let mut samples = vec![9.0; frames.len()];
        frames.read(0, channel, &mut samples);
        samples
    }

    #[test]
    fn linear16_is_little_endian_over_32768() {
        let bytes = [0x00, 0x80, 0xff, 0x7f, 0x01, 0x00, 0x00, 0x00];
        let expected = [-1.0, 32_767.0 / 32_768.0, 1.0 / 32_768.0, 0.0];
        assert_eq!(read(Encoding::Linear16, 1, &bytes, 0), expected);
        assert_eq!(read(Encoding::Linear16, 2, &bytes, 0), [expected[0], expected[2]]);
        assert_eq!(read(Encoding::Linear16, 2, &bytes, 1), [expected[1], expected[3]]);
    }

    #[test]
    fn float32_is_little_endian_and_as_it_is() {
        let bytes: Vec<u8> = [0.25_f32, -1.5, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read(Encoding::Float32, 3, &bytes, 1), [-1.5]);
    }

    #[test]
    fn g711_is_one_byte_per_sample() {
        assert_eq!(
            read(Encoding::MuLaw, 2, &[0x80, 0xff, 0x00, 0x7f], 0),
            [32_124.0 / 32_768.0, -32_124.0 / 32_768.0]
        );
        assert_eq!(read(Encoding::ALaw, 1, &[0xd5, 0x55], 0), [8.0 / 32_768.0, -8.0 / 32_768.0]);
    }

    #[test]
    fn a_rest_shorter_than_a_frame_is_not_read() {
        assert_eq!(read(Encoding::Linear16, 2, &[0; 7], 0), [0.0]);
        let frames = EncodedFrames { encoding: Encoding::Linear16, channels: 2, bytes: &[0; 7] };
        let mut samples = [9.0; 2];
        frames.read(1, 0, &mut samples);
        assert_eq!(samples, [0.0, 9.0], "the second frame has only its first channel");
    }

    #[test]
    fn decoded_frames_are_picked_by_channel() {
        let frames = DecodedFrames { channels: 2, samples: &[0.1, 0.2, 0.3, 0.4, 0.5] };
        assert_eq!(frames.len(), 2);
        let mut samples = [0.0];
        frames.read(1, 1, &mut samples);
        assert_eq!(samples, [0.4]);
    }
}
