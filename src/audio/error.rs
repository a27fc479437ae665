//! What can go wrong between the bytes and the hops.

use std::io;

/// What this build decodes, for messages.
pub(crate) const SUPPORTED: &str = "WAV, AIFF, FLAC, Ogg Vorbis, MP3, MP4/M4A (AAC-LC, ALAC), \
     Matroska/WebM (Vorbis, FLAC, AAC-LC, MP3, PCM)";

/// Audio that cannot be taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// No lane, or more than a stream may have.
    #[error("a stream is analysed in 1 to {max} lanes, not {actual}")]
    LaneCount {
        /// Lanes asked for.
        actual: usize,
        /// Most lanes allowed.
        max: usize,
    },
    /// A lane without channels.
    #[error("lane {lane} has no channel")]
    EmptyLane {
        /// Index of the lane.
        lane: usize,
    },
    /// A lane names a channel that the stream does not have.
    #[error("lane {lane} takes channel {channel}, but the audio has {channels} (counted from 0)")]
    NoSuchChannel {
        /// Index of the lane.
        lane: usize,
        /// The channel, counted from 0.
        channel: usize,
        /// Channels of the audio.
        channels: usize,
    },
    /// A float sample is NaN or infinite. The stream is unusable from there on.
    #[error("the sample of channel {channel} in frame {frame} is not a finite number")]
    NonFinite {
        /// The frame, counted from the stream's first at the stream's own rate.
        frame: u64,
        /// The channel, counted from 0.
        channel: usize,
    },
    /// Audio came after the end of the stream was declared.
    #[error("audio after the end of the stream, which has {frames} frames")]
    AfterFinish {
        /// Frames that the finished stream has.
        frames: u64,
    },
    /// The resampler refused its parameters or buffers: a defect of this service.
    #[error("resampling from {rate_hz} Hz failed: {reason}")]
    Resampler {
        /// The input rate.
        rate_hz: u32,
        /// What rubato said.
        reason: String,
    },
    /// The file cannot be opened or read.
    #[error("cannot read the audio: {0}")]
    Io(#[from] io::Error),
    /// There is nothing to decode.
    #[error("the audio is empty: {bytes} bytes and no samples")]
    Empty {
        /// Bytes of the file or message.
        bytes: u64,
    },
    /// The bytes are of no container that is known.
    #[error("not a known audio container ({bytes} bytes, {reason}); supported: {SUPPORTED}")]
    UnknownContainer {
        /// Bytes of the file or message.
        bytes: u64,
        /// What the prober said.
        reason: String,
    },
    /// The container has no audio track.
    #[error("the {container} container holds no audio track, but {found}; supported: {SUPPORTED}")]
    NoAudioTrack {
        /// Name of the container format.
        container: &'static str,
        /// What tracks there are.
        found: String,
    },
    /// The container is known, its audio codec is not decoded here.
    #[error("{codec} in a {container} container is not decoded; supported: {SUPPORTED}")]
    UnsupportedCodec {
        /// Name of the container format.
        container: &'static str,
        /// Name of the codec.
        codec: String,
    },
    /// The file's sample rate is outside what is resampled.
    #[error("sample rate must be {min} to {max} Hz, not {actual}")]
    RateOutOfRange {
        /// Least rate, in Hz.
        min: u32,
        /// Greatest rate, in Hz.
        max: u32,
        /// The file's rate, in Hz.
        actual: u32,
    },
    /// The file has no or too many channels.
    #[error("channel count must be 1 to {max}, not {actual}")]
    ChannelsOutOfRange {
        /// Most channels allowed.
        max: usize,
        /// The file's channels.
        actual: usize,
    },
    /// The rate or the channels changed on the way.
    #[error(
        "the audio changes from {rate_hz} Hz, {channels} channels to {new_rate_hz} Hz, \
         {new_channels} channels after {frames} frames"
    )]
    FormatChanged {
        /// Frames decoded before the change.
        frames: u64,
        /// The rate before, in Hz.
        rate_hz: u32,
        /// The channels before.
        channels: usize,
        /// The rate after, in Hz.
        new_rate_hz: u32,
        /// The channels after.
        new_channels: usize,
    },
    /// A known container, but what is in it cannot be decoded.
    #[error(
        "the {container} audio cannot be decoded: {reason} (packets: {decoded} decoded, {corrupt} corrupt)"
    )]
    Undecodable {
        /// Name of the container format.
        container: &'static str,
        /// Packets decoded before.
        decoded: u64,
        /// Packets that could not be decoded.
        corrupt: u64,
        /// What the decoder said.
        reason: String,
    },
}

/// What an [`AudioError`] means to whoever sent the audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request asks for what is not offered: a format, a codec, a lane. `INVALID_ARGUMENT`.
    Format,
    /// The format is right, the data in it is broken. `DATA_LOSS`.
    Data,
    /// The call came at the wrong time. `FAILED_PRECONDITION`.
    Order,
    /// The file could not be read at all; only for paths, never for a client's bytes. `NOT_FOUND` or
    /// what the [`io::Error`] says.
    Io,
    /// A defect of this service. `INTERNAL`.
    Internal,
}

impl AudioError {
    /// What it means to whoever sent the audio.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::LaneCount { .. }
            | Self::EmptyLane { .. }
            | Self::NoSuchChannel { .. }
            | Self::UnknownContainer { .. }
            | Self::NoAudioTrack { .. }
            | Self::UnsupportedCodec { .. }
            | Self::RateOutOfRange { .. }
            | Self::ChannelsOutOfRange { .. } => ErrorKind::Format,
            Self::NonFinite { .. }
            | Self::Empty { .. }
            | Self::FormatChanged { .. }
            | Self::Undecodable { .. } => ErrorKind::Data,
            Self::AfterFinish { .. } => ErrorKind::Order,
            Self::Io(_) => ErrorKind::Io,
            Self::Resampler { .. } => ErrorKind::Internal,
        }
    }
}
