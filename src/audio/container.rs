//! Whole files: any container that symphonia reads, packet by packet. The only user of symphonia.
//!
//! In: a path or the bytes of a WAV, AIFF, FLAC, Ogg Vorbis, MP3, MP4/M4A (AAC-LC, ALAC) or
//! Matroska/WebM file, 4 to 192 kHz, 1 to 8 channels. Out: interleaved `f32` samples as decoded
//! ([`ClipReader`]), or hops of 16 kHz by the same line that streams run through ([`ClipHops`]).
//!
//! A file is hostile until shown otherwise: nothing in it panics, a packet that cannot be decoded is
//! skipped and counted, a file that ends too early gives what it has and says so, and one in which no
//! packet can be decoded is an error that names what was found. [`ClipReader::open`] and
//! [`ClipReader::from_bytes`] decode up to the first samples, so that nearly all that is wrong with a
//! file shows there, and rate and channels are those of the decoder, not what a header claims.
//!
//! Encoder delay is trimmed where symphonia knows of it (MP3's LAME tag, Ogg, Matroska), so that time 0
//! is the first sample that was encoded. Not so for AAC in MP4: symphonia reads no edit lists, and such a
//! file begins with its encoder's delay, mostly 1,024 samples (21 ms at 48 kHz). Opus is not decoded:
//! symphonia has no decoder for it.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known as codec;
use symphonia::core::codecs::audio::{AudioCodecId, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::error::AudioError;
use super::lanes::Lane;
use super::line::{Hop, HopLine, Hops, Received};
use super::pcm::DecodedFrames;
use crate::units::{ChannelCount, MAX_CHANNELS};

/// Least sample rate of a file, in Hz. Below lie telemetry, not speech.
pub const MIN_FILE_RATE_HZ: u32 = 4_000;
/// Greatest sample rate of a file, in Hz: the top rate of studio recorders.
pub const MAX_FILE_RATE_HZ: u32 = 192_000;

/// First bytes of a file that tell what it claims to be.
const HEAD_BYTES: usize = 12;

/// Corrupt packets in a row, without one good packet before, after which a file is given up: enough to
/// step over damage at the start, few enough that noise is refused at once.
const MAX_CORRUPT_AT_START: u64 = 64;

/// A file or message being decoded, packet by packet.
pub struct ClipReader {
    container: &'static str,
    bytes: u64,
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    rate_hz: u32,
    channels: ChannelCount,
    total_frames: Option<u64>,
    frames: u64,
    decoded: u64,
    corrupt: u64,
    /// The samples of the last packet.
    samples: Vec<f32>,
    /// Whether `samples` has not been given out yet: so it is once, after opening.
    unread: bool,
    ended: bool,
    cut_short: bool,
}

impl ClipReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`AudioError::Io`] if it cannot be opened or read; otherwise as [`from_bytes`](Self::from_bytes).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, AudioError> {
        let path = path.as_ref();
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        file.rewind()?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        Self::from_source(Box::new(file), &head, bytes, extension)
    }

    /// Opens a file that is in memory. `extension` ("mp3") is a hint for files that begin like
    /// several formats; the content decides.
    ///
    /// # Errors
    /// [`AudioError`] of kind [`Format`](super::ErrorKind::Format) if the container, the codec, the
    /// rate or the channels are not supported, of kind [`Data`](super::ErrorKind::Data) if there is
    /// nothing in it that can be decoded.
    pub fn from_bytes(bytes: Bytes, extension: Option<&str>) -> Result<Self, AudioError> {
        let length = bytes.len() as u64;
        let head = bytes.slice(..bytes.len().min(HEAD_BYTES));
        Self::from_source(Box::new(Cursor::new(bytes)), &head, length, extension)
    }

    fn from_source(
        source: Box<dyn MediaSource>,
        head: &[u8],
        bytes: u64,
        extension: Option<&str>,
    ) -> Result<Self, AudioError> {
        if bytes == 0 {
            return Err(AudioError::Empty { bytes });
        }
        let mut hint = Hint::new();
        if let Some(extension) = extension {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(source, MediaSourceStreamOptions::default());
        let probed = guarded(|| {
            symphonia::default::get_probe().probe(
                &hint,
                stream,
                FormatOptions::default(),
                MetadataOptions::default(),
            )
        });
        let format = probed.map_err(|failure| match claimed_container(head) {
            Some(container) => AudioError::Undecodable {
                container,
                decoded: 0,
                corrupt: 0,
                reason: failure.describe(),
            },
            None => AudioError::UnknownContainer { bytes, reason: failure.describe() },
        })?;
        let container = format.format_info().short_name;
        let (track, decoder) = select(container, format.as_ref())?;
        let mut reader = Self {
            container,
            bytes,
            track: track.id,
            total_frames: track.num_frames,
            decoder,
            format,
            rate_hz: 0,
            channels: ChannelCount::MONO,
            frames: 0,
            decoded: 0,
            corrupt: 0,
            samples: Vec::new(),
            unread: false,
            ended: false,
            cut_short: false,
        };
        reader.unread = reader.decode_next()?;
        if reader.unread { Ok(reader) } else { Err(reader.nothing_decoded()) }
    }

    /// The next samples, interleaved, as the codec decoded them: nominally within ±1, but lossy codecs
    /// overshoot. `None` at the end.
    ///
    /// # Errors
    /// [`AudioError::FormatChanged`] if rate or channels change on the way.
    pub fn next_packet(&mut self) -> Result<Option<&[f32]>, AudioError> {
        if !std::mem::take(&mut self.unread) && !self.decode_next()? {
            return Ok(None);
        }
        Ok(Some(&self.samples))
    }

    /// Frames per second.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Interleaved channels.
    pub fn channels(&self) -> ChannelCount {
        self.channels
    }

    /// Name of the container format, such as `wave` or `isomp4`.
    pub fn container(&self) -> &'static str {
        self.container
    }

    /// Name of the codec, such as `flac` or `aac`.
    pub fn codec(&self) -> &'static str {
        self.decoder.codec_info().short_name
    }

    /// Frames that the container declares, for progress. What comes may be less or more.
    pub fn total_frames(&self) -> Option<u64> {
        self.total_frames
    }

    /// Frames decoded so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Packets that could not be decoded and were skipped; their time is missing from the time line.
    pub fn corrupt_packets(&self) -> u64 {
        self.corrupt
    }

    /// Whether the file ended before its container said it would. Known at the end.
    pub fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    /// Decodes into `samples` up to the next packet that has any; false at the end.
    fn decode_next(&mut self) -> Result<bool, AudioError> {
        while !self.ended {
            let Some(packet) = self.read_packet()? else { break };
            if packet.track_id != self.track {
                continue;
            }
            let decoder = &mut self.decoder;
            let samples = &mut self.samples;
            let decoded = guarded(|| {
                let buffer = decoder.decode(&packet)?;
                buffer.copy_to_vec_interleaved(samples);
                Ok((buffer.spec().rate(), buffer.spec().channels().count(), buffer.frames()))
            });
            match decoded {
                Ok((_, _, 0)) => {}
                Ok((rate_hz, channels, frames)) => {
                    self.check_spec(rate_hz, channels)?;
                    self.decoded += 1;
                    self.frames += frames as u64;
                    return Ok(true);
                }
                Err(Failure::Symphonia(SymphoniaError::ResetRequired)) => self.decoder.reset(),
                Err(failure) => self.skip(&failure)?,
            }
        }
        Ok(false)
    }

    /// The next packet of any track. Damage that the demuxer cannot pass is the end of the file.
    fn read_packet(&mut self) -> Result<Option<Packet>, AudioError> {
        let mut resets = 0;
        loop {
            let format = &mut self.format;
            match guarded(|| format.next_packet()) {
                Ok(Some(packet)) => return Ok(Some(packet)),
                Ok(None) => {
                    self.ended = true;
                    self.cut_short = self.is_much_shorter_than_declared();
                    return Ok(None);
                }
                // Chained Ogg streams: the tracks begin anew, but not twice without a packet between.
                Err(Failure::Symphonia(SymphoniaError::ResetRequired)) if resets == 0 => {
                    resets += 1;
                    let (track, decoder) = select(self.container, self.format.as_ref())?;
                    self.track = track.id;
                    self.decoder = decoder;
                    self.total_frames = None;
                }
                Err(failure) => {
                    self.ended = true;
                    self.cut_short = true;
                    if self.decoded == 0 {
                        return Err(self.undecodable(failure.describe()));
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Less than declared by more than any codec's delay, padding or last packet accounts for.
    fn is_much_shorter_than_declared(&self) -> bool {
        let slack = 1 << 13;
        self.corrupt == 0 && self.total_frames.is_some_and(|total| self.frames + slack < total)
    }

    fn check_spec(&mut self, rate_hz: u32, channels: usize) -> Result<(), AudioError> {
        if self.decoded == 0 {
            if !(MIN_FILE_RATE_HZ..=MAX_FILE_RATE_HZ).contains(&rate_hz) {
                return Err(AudioError::RateOutOfRange {
                    min: MIN_FILE_RATE_HZ,
                    max: MAX_FILE_RATE_HZ,
                    actual: rate_hz,
                });
            }
            self.channels = u32::try_from(channels)
                .ok()
                .and_then(|channels| ChannelCount::new(channels).ok())
                .ok_or(AudioError::ChannelsOutOfRange {
                    max: MAX_CHANNELS.into(),
                    actual: channels,
                })?;
            self.rate_hz = rate_hz;
        }
        if (rate_hz, channels) == (self.rate_hz, self.channels.get()) {
            return Ok(());
        }
        self.ended = true;
        Err(AudioError::FormatChanged {
            frames: self.frames,
            rate_hz: self.rate_hz,
            channels: self.channels.get(),
            new_rate_hz: rate_hz,
            new_channels: channels,
        })
    }

    fn skip(&mut self, failure: &Failure) -> Result<(), AudioError> {
        self.corrupt += 1;
        // A decoder that panicked may be in any state.
        if matches!(failure, Failure::Panic) {
            self.ended = true;
            self.cut_short = true;
        }
        let hopeless = self.corrupt >= MAX_CORRUPT_AT_START || self.ended;
        if self.decoded == 0 && hopeless {
            self.ended = true;
            return Err(self.undecodable(failure.describe()));
        }
        Ok(())
    }

    fn nothing_decoded(&self) -> AudioError {
        if self.corrupt == 0 {
            AudioError::Empty { bytes: self.bytes }
        } else {
            self.undecodable("no packet is intact".into())
        }
    }

    fn undecodable(&self, reason: String) -> AudioError {
        AudioError::Undecodable {
            container: self.container,
            decoded: self.decoded,
            corrupt: self.corrupt,
            reason,
        }
    }
}

/// A file on its way to hops of 16 kHz: what a stream of its samples as FLOAT32 would give, to the bit.
pub struct ClipHops {
    reader: ClipReader,
    line: HopLine,
}

impl ClipHops {
    /// Analyses `reader`'s channels in `lanes`.
    ///
    /// # Errors
    /// As [`Intake::new`](super::Intake::new).
    pub fn new(reader: ClipReader, lanes: &[Lane]) -> Result<Self, AudioError> {
        let line = HopLine::new(reader.rate_hz(), reader.channels(), lanes)?;
        Ok(Self { reader, line })
    }

    /// The next 256 samples of every lane; `None` at the end. The last hop is padded with zeros.
    ///
    /// # Errors
    /// As [`ClipReader::next_packet`], and [`AudioError::NonFinite`].
    pub fn next_hop(&mut self) -> Result<Option<Hop<'_>>, AudioError> {
        self.decode()?;
        Ok(self.line.next_hop())
    }

    /// The next hops of every lane, at least one and at most `most`; `None` at the end. The last hop is
    /// padded with zeros.
    ///
    /// # Errors
    /// As [`Self::next_hop`].
    pub fn next_hops(&mut self, most: usize) -> Result<Option<Hops<'_>>, AudioError> {
        self.decode()?;
        Ok(self.line.next_hops(most))
    }

    /// Decodes until there is a hop, or nothing more to decode.
    fn decode(&mut self) -> Result<(), AudioError> {
        while !self.line.has_hop() && !self.line.is_finished() {
            let channels = self.reader.channels().get();
            match self.reader.next_packet()? {
                Some(samples) => self.line.push(&DecodedFrames { channels, samples })?,
                None => self.line.finish()?,
            }
        }
        Ok(())
    }

    /// How much has been decoded, in frames of the file and on the 16 kHz line.
    pub fn received(&self) -> Received {
        self.line.received()
    }

    /// Clipped samples of `lane` since this was last asked; see
    /// [`Intake::take_clipped`](super::Intake::take_clipped).
    pub fn take_clipped(&mut self, lane: usize) -> u64 {
        self.line.take_clipped(lane)
    }

    /// The lanes, in the order of [`Hop::lanes`].
    pub fn lanes(&self) -> &[Lane] {
        self.line.lanes()
    }

    /// The file.
    pub fn reader(&self) -> &ClipReader {
        &self.reader
    }
}

/// Why a call of symphonia failed.
enum Failure {
    Symphonia(SymphoniaError),
    /// It panicked. Its decoders are fuzzed by their authors, but not proven.
    Panic,
}

impl Failure {
    fn describe(&self) -> String {
        match self {
            Self::Symphonia(error) => error.to_string(),
            Self::Panic => "the decoder failed on it".into(),
        }
    }
}

/// Calls symphonia, so that a panic on a hostile file is that file's error and no one else's.
fn guarded<T>(call: impl FnOnce() -> Result<T, SymphoniaError>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Failure::Symphonia),
        Err(_) => Err(Failure::Panic),
    }
}

/// The default audio track that can be decoded, and its decoder.
fn select(
    container: &'static str,
    format: &dyn FormatReader,
) -> Result<(Track, Box<dyn AudioDecoder>), AudioError> {
    let Some(track) = format.default_track(TrackType::Audio) else {
        return Err(match unnamed_audio(format) {
            Some(codec) => AudioError::UnsupportedCodec { container, codec },
            None => AudioError::NoAudioTrack { container, found: describe_tracks(format) },
        });
    };
    let unsupported = |codec| AudioError::UnsupportedCodec { container, codec };
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(unsupported("an unknown codec".into()));
    };
    let made = guarded(|| {
        symphonia::default::get_codecs()
            .make_audio_decoder(parameters, &AudioDecoderOptions::default())
    });
    match made {
        Ok(decoder) => Ok((track.clone(), decoder)),
        Err(Failure::Symphonia(SymphoniaError::Unsupported(_))) => {
            Err(unsupported(codec_name(parameters.codec)))
        }
        Err(failure) => Err(AudioError::Undecodable {
            container,
            decoded: 0,
            corrupt: 0,
            reason: failure.describe(),
        }),
    }
}

/// The codec of an audio track that the container reader could not name.
fn unnamed_audio(format: &dyn FormatReader) -> Option<String> {
    let track = format.first_track(TrackType::Audio)?;
    match &track.codec_params {
        Some(CodecParameters::Audio(parameters)) => Some(codec_name(parameters.codec)),
        _ => None,
    }
}

fn describe_tracks(format: &dyn FormatReader) -> String {
    let count = |kind| format.tracks().iter().filter(|track| track.track_type() == kind).count();
    let kinds = [
        (count(Some(TrackType::Video)), "video"),
        (count(Some(TrackType::Subtitle)), "subtitle"),
        (count(None), "unknown"),
    ];
    let found: Vec<String> = kinds
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, kind)| {
            format!("{number} {kind} track{}", if *number == 1 { "" } else { "s" })
        })
        .collect();
    if found.is_empty() { "no track at all".into() } else { found.join(", ") }
}

/// The container that a file claims to be by its first bytes, under symphonia's names. The prober's
/// own answer to a damaged header is only that it found nothing.
fn claimed_container(head: &[u8]) -> Option<&'static str> {
    let behind = |start: usize| head.get(start..).unwrap_or_default();
    match head {
        [b'R', b'I', b'F', b'F', ..] if behind(8).starts_with(b"WAVE") => Some("wave"),
        [b'F', b'O', b'R', b'M', ..] if behind(8).starts_with(b"AIF") => Some("aiff"),
        [b'f', b'L', b'a', b'C', ..] => Some("flac"),
        [b'O', b'g', b'g', b'S', ..] => Some("ogg"),
        [b'I', b'D', b'3', ..] => Some("mp3"),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some("matroska"),
        _ if behind(4).starts_with(b"ftyp") => Some("isomp4"),
        _ => None,
    }
}

/// The usual name of a codec that has no decoder here.
fn codec_name(id: AudioCodecId) -> String {
    let name = match id {
        codec::CODEC_ID_OPUS => "Opus",
        codec::CODEC_ID_SPEEX => "Speex",
        codec::CODEC_ID_AC3 => "AC-3",
        codec::CODEC_ID_EAC3 => "E-AC-3",
        codec::CODEC_ID_DCA => "DTS",
        codec::CODEC_ID_WMA => "WMA",
        codec::CODEC_ID_WAVPACK => "WavPack",
        codec::CODEC_ID_TRUEHD => "TrueHD",
        codec::CODEC_ID_AAC => "this profile of AAC",
        _ => return format!("codec {id}"),
    };
    name.into()
}

#[cfg(test)]
mod tests;
