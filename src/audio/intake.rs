//! The whole way of one stream: chunks of bytes in, hops of 16 kHz out.
//!
//! Chunks may be of any size and may split a frame or a sample; what is split is carried over. To keep
//! memory small, push a chunk in slices of [`AudioFormat::bytes_per_hop`] and take the hops in between:
//!
//! ```
//! # use undertone::audio::{AudioFormat, Encoding, Intake, Lane};
//! # use undertone::units::{ChannelCount, SampleRate};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let format = AudioFormat {
//!     encoding: Encoding::Linear16,
//!     rate: SampleRate::new(48_000)?,
//!     channels: ChannelCount::MONO,
//! };
//! let mut intake = Intake::new(format, &[Lane::channel(0)])?;
//! let chunk = vec![0; 48_000 * 2];
//! let mut hops = 0;
//! for slice in chunk.chunks(format.bytes_per_hop()) {
//!     intake.push(slice)?;
//!     while let Some(hop) = intake.next_hop() {
//!         for samples in hop.lanes() {
//!             assert_eq!(samples.len(), 256);
//!         }
//!         hops += 1;
//!     }
//! }
//! assert!(intake.finish()?.unfinished_bytes == 0);
//! while intake.next_hop().is_some() {
//!     hops += 1;
//! }
//! assert_eq!(hops, 63, "one second is 62.5 hops");
//! # Ok(())
//! # }
//! ```

use serde::{Deserialize, Serialize};

use super::error::AudioError;
use super::format::AudioFormat;
use super::lanes::Lane;
use super::line::{Hop, HopLine, Hops, LineState, Received};
use super::pcm::EncodedFrames;
use crate::state::Misfit;
use crate::units::{MAX_CHANNELS, MODEL_RATE_HZ};

/// Bytes of the largest frame: eight channels of four bytes.
const MAX_FRAME_BYTES: usize = MAX_CHANNELS as usize * 4;

/// What was left when a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// All that came in.
    pub received: Received,
    /// Bytes of a frame that never became whole; they were dropped. Not 0 means that the client
    /// counts in another format than it declared, or was cut off.
    pub unfinished_bytes: usize,
}

/// What an [`Intake`] carries from one chunk to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntakeState {
    /// The beginning of a frame that a chunk split.
    carry: Vec<u8>,
    line: LineState,
}

/// One stream's way from bytes to hops.
pub struct Intake {
    format: AudioFormat,
    /// The beginning of a frame that a chunk split.
    carry: [u8; MAX_FRAME_BYTES],
    carried: usize,
    line: HopLine,
}

impl Intake {
    /// An intake of `format`, analysed in `lanes`.
    ///
    /// # Errors
    /// [`AudioError`] of kind [`Format`](super::ErrorKind::Format) if there is no lane, more than 8, a
    /// lane without channels, or one with a channel that `format` does not have.
    pub fn new(format: AudioFormat, lanes: &[Lane]) -> Result<Self, AudioError> {
        Ok(Self {
            format,
            carry: [0; MAX_FRAME_BYTES],
            carried: 0,
            line: HopLine::new(format.rate.hz(), format.channels, lanes)?,
        })
    }

    /// Takes bytes in, as many as there are. Take the hops with [`next_hop`](Self::next_hop)
    /// afterwards; until then they are held, at 64 bytes per lane and millisecond.
    ///
    /// # Errors
    /// [`AudioError::NonFinite`] if a FLOAT32 sample of a lane is NaN or infinite: what came before it
    /// has been taken, every later push fails with the same error. [`AudioError::AfterFinish`] after
    /// [`finish`](Self::finish).
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), AudioError> {
        let frame_bytes = self.format.bytes_per_frame();
        let mut rest = bytes;
        if self.carried > 0 {
            let (head, behind) = rest.split_at(rest.len().min(frame_bytes - self.carried));
            self.keep(head);
            rest = behind;
            if self.carried == frame_bytes {
                let frame = self.carry;
                self.carried = 0;
                self.push_frames(frame.get(..frame_bytes).unwrap_or_default())?;
            }
        }
        let (whole, split) = rest.split_at(rest.len() - rest.len() % frame_bytes);
        self.push_frames(whole)?;
        self.keep(split);
        Ok(())
    }

    fn push_frames(&mut self, bytes: &[u8]) -> Result<(), AudioError> {
        self.line.push(&EncodedFrames {
            encoding: self.format.encoding,
            channels: self.format.channels.get(),
            bytes,
        })
    }

    fn keep(&mut self, bytes: &[u8]) {
        let free = self.carry.get_mut(self.carried..).unwrap_or_default();
        for (slot, byte) in free.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        self.carried += bytes.len();
    }

    /// The next 256 samples of every lane, if there are as many.
    pub fn next_hop(&mut self) -> Option<Hop<'_>> {
        self.line.next_hop()
    }

    /// The next hops of every lane, as many as there are but at most `most`.
    pub fn next_hops(&mut self, most: usize) -> Option<Hops<'_>> {
        self.line.next_hops(most)
    }

    /// Ends the stream: flushes the resampler and pads the last hop with zeros. `n` frames make
    /// `ceil(n * 16000 / rate)` samples in all. Take the last hops with [`next_hop`](Self::next_hop).
    /// A second call only says the same again.
    ///
    /// # Errors
    /// [`AudioError::Resampler`], which is a defect of this service.
    pub fn finish(&mut self) -> Result<Tail, AudioError> {
        self.line.finish()?;
        Ok(Tail { received: self.line.received(), unfinished_bytes: self.carried })
    }

    /// How much has come in.
    pub fn received(&self) -> Received {
        self.line.received()
    }

    /// Clipped samples of `lane`, over all its channels, since this was last asked: samples beyond
    /// full scale, and plateaus of at least three samples at full scale.
    pub fn take_clipped(&mut self, lane: usize) -> u64 {
        self.line.take_clipped(lane)
    }

    /// What must be kept for the stream to be gone on with elsewhere: between two pushes, when all hops have been
    /// taken, and before [`finish`](Self::finish).
    pub fn state(&self) -> IntakeState {
        IntakeState {
            carry: self.carry.iter().take(self.carried).copied().collect(),
            line: self.line.state(),
        }
    }

    /// Goes on, being new and of the same format and lanes, to the bit as the intake would have whose state it
    /// was.
    ///
    /// # Errors
    /// [`Misfit`], after which the intake is of no use.
    pub fn restore(&mut self, state: &IntakeState) -> Result<(), Misfit> {
        let split = state.carry.len() < self.format.bytes_per_frame();
        Misfit::unless(split, "beginning of a frame", "is a whole frame")?;
        self.carried = 0;
        self.keep(&state.carry);
        self.line.restore(&state.line)
    }

    /// Hops taken so far, of every lane.
    pub fn hops(&self) -> u64 {
        self.line.hops()
    }

    /// Bytes pushed so far.
    pub fn bytes(&self) -> u64 {
        self.received().frames * self.format.bytes_per_frame() as u64 + self.carried as u64
    }

    /// The format of the stream.
    pub fn format(&self) -> AudioFormat {
        self.format
    }

    /// The lanes, in the order of [`Hop::lanes`].
    pub fn lanes(&self) -> &[Lane] {
        self.line.lanes()
    }

    /// How much of the audio that was received may not have reached a hop yet because of resampling,
    /// in samples at 16 kHz, at most: 0 at 16 kHz, 144 (9 ms) at 24, 32 and 48 kHz, 240 (15 ms) at 44.1
    /// kHz, 288 (18 ms) at 8 kHz, 480 (30 ms) at 22.05 kHz. Positions do not shift by this; what was
    /// said is only known so much later.
    pub fn latency_samples(&self) -> u64 {
        (self.line.latency_frames() as u64 * u64::from(MODEL_RATE_HZ))
            .div_ceil(u64::from(self.format.rate.hz()))
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "what is claimed is equality to the bit")]
mod tests;
