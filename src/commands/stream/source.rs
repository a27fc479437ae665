//! What `undertone stream` sends: a file or a pipe as chunks of encoded audio.
//!
//! A file leaves as LINEAR16 at its own rate, all channels, or at 16 kHz where its own rate is beyond
//! what a stream may have. A pipe is passed on as it is: nobody but its user knows what is in it.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, Stdin};

use crate::audio::{ClipHops, ClipReader, Lane};
use crate::commands::client::{Encoding, to_linear16};
use crate::units::{MODEL_RATE_HZ, SampleRate};

/// The raw audio that leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) encoding: Encoding,
    pub(super) rate_hz: u32,
    pub(super) channels: u32,
}

impl Shape {
    fn frame_bytes(self) -> usize {
        self.encoding.sample_bytes() * self.channels as usize
    }

    /// Bytes of `ms` milliseconds, in whole frames.
    fn bytes(self, ms: u32) -> usize {
        let frames = (u64::from(self.rate_hz) * u64::from(ms) / 1000).max(1);
        frames as usize * self.frame_bytes()
    }

    /// How long `bytes` sound.
    pub(super) fn duration(self, bytes: u64) -> Duration {
        let per_second = u64::from(self.rate_hz) * self.frame_bytes() as u64;
        Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1)))
                .unwrap_or(u64::MAX),
        )
    }
}

#[allow(clippy::large_enum_variant, reason = "there is one per run")]
enum Input {
    /// A file at a rate that streams may have.
    File(ClipReader),
    /// A file on its way to 16 kHz.
    Resampled(ClipHops),
    Pipe(Stdin),
}

/// Audio, chunk by chunk.
pub(super) struct Source {
    input: Input,
    shape: Shape,
    chunk_bytes: usize,
    /// What was read and has not left.
    buffer: BytesMut,
    ended: bool,
}

impl Source {
    /// The file at `path`, in chunks of `chunk_ms`.
    ///
    /// # Errors
    /// If it cannot be opened or decoded.
    pub(super) fn file(path: &Path, chunk_ms: u32) -> anyhow::Result<Self> {
        let reader =
            ClipReader::open(path).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let channels = reader.channels();
        let rate = SampleRate::new(reader.rate_hz());
        let shape = Shape {
            encoding: Encoding::Linear16,
            rate_hz: rate.as_ref().map_or(MODEL_RATE_HZ, |rate| rate.hz()),
            channels: channels.get() as u32,
        };
        let input = match rate {
            Ok(_) => Input::File(reader),
            Err(_) => Input::Resampled(ClipHops::new(reader, &Lane::separate(channels))?),
        };
        Ok(Self::new(input, shape, chunk_ms))
    }

    /// Standard input, which holds raw audio of `shape`.
    ///
    /// # Errors
    /// If it is a terminal.
    pub(super) fn pipe(shape: Shape, chunk_ms: u32) -> anyhow::Result<Self> {
        ensure!(
            !std::io::stdin().is_terminal(),
            "nothing is piped in; for a microphone: \
             arecord -q -f S16_LE -r 16000 -c 1 | undertone stream -"
        );
        Ok(Self::new(Input::Pipe(tokio::io::stdin()), shape, chunk_ms))
    }

    fn new(input: Input, shape: Shape, chunk_ms: u32) -> Self {
        let chunk_bytes = shape.bytes(chunk_ms);
        Self { input, shape, chunk_bytes, buffer: BytesMut::new(), ended: false }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether whoever fills it keeps the time: then nobody else should.
    pub(super) fn paces_itself(&self) -> bool {
        matches!(self.input, Input::Pipe(_))
    }

    /// The next chunk; the last one may be shorter, even end inside a frame if a pipe did.
    ///
    /// # Errors
    /// If the rest cannot be read.
    ///
    /// # Cancellation
    /// Safe: what was read stays.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while !self.ended && self.buffer.len() < self.chunk_bytes {
            self.ended = !self.read().await?;
        }
        let length = self.buffer.len().min(self.chunk_bytes);
        Ok((length > 0).then(|| self.buffer.split_to(length).freeze()))
    }

    /// Reads on; false at the end.
    async fn read(&mut self) -> anyhow::Result<bool> {
        match &mut self.input {
            Input::File(reader) => {
                let Some(samples) = reader.next_packet()? else {
                    return Ok(false);
                };
                self.buffer.reserve(samples.len() * 2);
                samples.iter().for_each(|&sample| self.buffer.put_i16_le(to_linear16(sample)));
                Ok(true)
            }
            Input::Resampled(hops) => {
                let Some(hop) = hops.next_hop()? else {
                    return Ok(false);
                };
                let mut lanes: Vec<_> = hop.lanes().map(|lane| lane.iter()).collect();
                while let Some(frame) =
                    lanes.iter_mut().map(Iterator::next).collect::<Option<Vec<_>>>()
                {
                    frame.iter().for_each(|&&x| self.buffer.put_i16_le(to_linear16(x)));
                }
                Ok(true)
            }
            Input::Pipe(stdin) => {
                self.buffer.reserve(self.chunk_bytes);
                let read = stdin.read_buf(&mut self.buffer).await.context("standard input")?;
                Ok(read > 0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_wav(rate_hz: u32, channels: u16, samples: &[i16]) -> tempfile::NamedTempFile {
        let mut file = BytesMut::new();
        let bytes = samples.len() as u32 * 2;
        file.put_slice(b"RIFF");
        file.put_u32_le(36 + bytes);
        file.put_slice(b"WAVEfmt ");
        file.put_u32_le(16);
        file.put_u16_le(1);
        file.put_u16_le(channels);
        file.put_u32_le(rate_hz);
        file.put_u32_le(rate_hz * 2 * u32::from(channels));
        file.put_u16_le(2 * channels);
        file.put_u16_le(16);
        file.put_slice(b"data");
        file.put_u32_le(bytes);
        samples.iter().for_each(|&sample| file.put_i16_le(sample));
        let path = tempfile::Builder::new().suffix(".wav").tempfile().unwrap();
        std::fs::write(path.path(), &file).unwrap();
        path
    }

    async fn all(mut source: Source) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        while let Some(chunk) = source.next().await.unwrap() {
            chunks.push(chunk);
        }
        chunks
    }

    #[tokio::test]
    async fn a_file_leaves_as_it_is_in_chunks_of_the_length_asked_for() {
        let samples: Vec<i16> = (0..5_000).map(|n| (n * 7 % 30_000) as i16 - 15_000).collect();
        let file = write_wav(8_000, 2, &samples);
        let source = Source::file(file.path(), 100).unwrap();
        assert_eq!((source.shape().rate_hz, source.shape().channels), (8_000, 2));
        let chunks = all(source).await;
        // 2,500 frames: three chunks of 800 and one of 100.
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [3200, 3200, 3200, 400]);
        let sent: Vec<i16> = chunks
            .concat()
            .chunks_exact(2)
            .map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]]))
            .collect();
        assert_eq!(sent, samples);
    }

    #[tokio::test]
    async fn a_file_of_a_rate_that_streams_cannot_have_is_resampled() {
        let file = write_wav(96_000, 2, &vec![100; 2 * 96_000]);
        let source = Source::file(file.path(), 100).unwrap();
        let shape = source.shape();
        assert_eq!((shape.rate_hz, shape.channels), (16_000, 2));
        let bytes: usize = all(source).await.iter().map(Bytes::len).sum();
        let seconds = shape.duration(bytes as u64).as_secs_f64();
        // Up to a hop of padding.
        assert!((1.0..1.017).contains(&seconds), "{seconds}");
    }
}
