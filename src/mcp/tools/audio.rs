//! `analyze_audio`: a recording, from a file of the caller's own or in the call itself.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Told, parse};
use crate::mcp::failure::Failure;
use crate::mcp::view::{Impression, Utterance, seconds};
use crate::mcp::way::Calls;
use crate::mcp::words;
use crate::wire::v1;

/// Largest recording in a call, bytes before base64: a call is held three times over while it is read, and 8 MiB are
/// four minutes of CD-quality stereo or an hour and more of Ogg.
pub(in crate::mcp) const MAX_INLINE_BYTES: usize = 8 << 20;
/// Utterances that are told of at most: a model reads no more with profit.
const MAX_UTTERANCES: usize = 100;

/// Files that tools may read.
#[derive(Debug, Clone)]
pub struct Files {
    /// Largest one, bytes.
    pub max_bytes: u64,
    /// Only files below this folder; `None`: whatever the process can read.
    pub below: Option<PathBuf>,
}

/// A recording in the call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Arguments {
    /// The recording: a wav, flac, ogg (Vorbis), mp3, m4a, aiff or mkv file in base64, 8 MiB at most before that.
    /// Required.
    content_base64: Option<String>,
    /// The file's extension or MIME type, if known, such as wav.
    format_hint: Option<String>,
    /// Name of the model, see `undertone://models`. The server's default model if not given.
    model: Option<String>,
}

/// A recording in a file or in the call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LocalArguments {
    /// Path of a wav, flac, ogg (Vorbis), mp3, m4a, aiff or mkv file on this machine, best an absolute one. Either this
    /// or `content_base64`.
    path: Option<String>,
    /// The recording itself in base64, 8 MiB at most before that.
    content_base64: Option<String>,
    /// The file's extension or MIME type, if known, such as wav.
    format_hint: Option<String>,
    /// Name of the model, see `undertone://models`. The server's default model if not given.
    model: Option<String>,
}

/// One channel of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Voice {
    /// The audio channel, 0-based.
    channel: u32,
    /// Speech heard, seconds.
    speech_s: f64,
    /// Utterances in it.
    utterances: u32,
    /// What it sounds like as a whole: the mean over its utterances, by their speech.
    sounds: Impression,
}

/// What a recording sounds like.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct Analysis {
    /// The same in words.
    words: String,
    /// What limits all of it.
    limits: &'static str,
    /// Length of the recording, seconds.
    audio_s: f64,
    /// The model used.
    model: String,
    /// Each channel as a whole.
    channels: Vec<Voice>,
    /// Its utterances in order, the first hundred.
    utterances: Vec<Utterance>,
    /// Utterances after those.
    utterances_left_out: usize,
    /// Packets of the file that could not be decoded and were passed over: if not 0, parts of it were not heard.
    undecodable_packets: u32,
}

impl Told for Analysis {
    fn words(&self) -> &str {
        &self.words
    }
}

pub(super) async fn analyze(
    arguments: Option<JsonObject>,
    calls: &Calls,
    files: Option<&Files>,
) -> Result<Analysis, Failure> {
    let arguments: LocalArguments = if files.is_some() {
        parse(arguments)?
    } else {
        let Arguments { content_base64, format_hint, model } = parse(arguments)?;
        LocalArguments { path: None, content_base64, format_hint, model }
    };
    let mut hint = arguments.format_hint.unwrap_or_default();
    let content = match (arguments.path, arguments.content_base64, files) {
        (Some(path), None, Some(files)) => {
            let (path, files) = (PathBuf::from(path), files.clone());
            if hint.is_empty() {
                hint = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            }
            let read = tokio::task::spawn_blocking(move || read(&path, &files)).await;
            read.map_err(|panic| Failure::argument("path", panic.to_string(), "try another file"))??
        }
        (None, Some(text), _) => decode(&text)?,
        (Some(_), Some(_), _) => {
            let remedy = "give either path or content_base64";
            return Err(Failure::argument("content_base64", "stands beside path", remedy));
        }
        (_, _, Some(_)) => {
            let remedy = "give the path of an audio file, or its bytes as content_base64";
            return Err(Failure::argument("path", "is missing", remedy));
        }
        (_, _, None) => {
            let remedy = "give the bytes of an audio file in base64";
            return Err(Failure::argument("content_base64", "is missing", remedy));
        }
    };
    let request = v1::AnalyzeAudioRequest {
        content: content.into(),
        format_hint: hint,
        model: arguments.model.unwrap_or_default(),
        // Two voices on two channels are two people.
        channel_mode: v1::ChannelMode::Separate.into(),
        ..v1::AnalyzeAudioRequest::default()
    };
    Ok(Analysis::new(&calls.analyze(request).await?))
}

fn decode(text: &str) -> Result<Vec<u8>, Failure> {
    let wrong =
        |problem: String, remedy: &str| Failure::argument("content_base64", problem, remedy);
    if text.len() / 4 * 3 > MAX_INLINE_BYTES {
        let problem = format!("has about {} bytes", text.len() / 4 * 3);
        let remedy = format!(
            "give at most {MAX_INLINE_BYTES} bytes: compress it (flac, ogg), give a part of it or, to `undertone mcp` on \
             stdio, its path"
        );
        return Err(wrong(problem, &remedy));
    }
    STANDARD.decode(text.trim()).map_err(|error| {
        wrong(format!("is no base64: {error}"), "standard base64 (RFC 4648) with padding")
    })
}

fn read(path: &Path, files: &Files) -> Result<Vec<u8>, Failure> {
    let wrong = |problem: String, remedy: &str| Failure::argument("path", problem, remedy);
    let unreadable = |error: std::io::Error| {
        wrong(
            format!("{} cannot be read: {error}", path.display()),
            "give an audio file that there is",
        )
    };
    let real = path.canonicalize().map_err(unreadable)?;
    if let Some(below) = &files.below
        && !real.starts_with(below)
    {
        let remedy = format!("give a file below {}", below.display());
        return Err(wrong(format!("{} is not where files may be read", path.display()), &remedy));
    }
    // Looked at before it is opened: to open a pipe may wait for ever.
    if !real.metadata().map_err(unreadable)?.is_file() {
        return Err(wrong(format!("{} is no file", path.display()), "give an audio file"));
    }
    let mut content = Vec::new();
    let opened = std::fs::File::open(&real).map_err(unreadable)?;
    opened.take(files.max_bytes + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > files.max_bytes {
        let problem = format!("{} has more than {} bytes", path.display(), files.max_bytes);
        let remedy = "compress it (flac, ogg) or give a part of it, or raise --max-clip-bytes and the server's \
                      max_clip_bytes";
        return Err(wrong(problem, remedy));
    }
    Ok(content)
}

impl Analysis {
    fn new(response: &v1::AnalyzeAudioResponse) -> Self {
        let channels: Vec<Voice> = response.channels.iter().map(Voice::new).collect();
        let utterances: Vec<Utterance> =
            response.utterances.iter().take(MAX_UTTERANCES).map(Utterance::from).collect();
        let audio_s = seconds(response.audio.as_ref());
        let mut words = format!("{audio_s:.1} s of audio, judged by {}.", response.model);
        for channel in &channels {
            let _ = write!(
                words,
                "\nChannel {}: utterances: {}, speech: {:.1} s. As a whole: {}",
                channel.channel, channel.utterances, channel.speech_s, channel.sounds.words
            );
        }
        for utterance in &utterances {
            let _ = write!(
                words,
                "\n{:.1} to {:.1} s, channel {}: {}",
                utterance.from_s, utterance.to_s, utterance.channel, utterance.sounds.words
            );
        }
        let utterances_left_out = response.utterances.len() - utterances.len();
        if utterances_left_out > 0 {
            let _ = write!(words, "\nFurther utterances, left out: {utterances_left_out}.");
        }
        if response.undecodable_packets > 0 {
            let count = response.undecodable_packets;
            let _ = write!(words, "\n{count} packets could not be decoded: parts were not heard.");
        }
        let _ = write!(words, "\n{}", words::LIMITS);
        Self {
            words,
            limits: words::LIMITS,
            audio_s,
            model: response.model.clone(),
            channels,
            utterances,
            utterances_left_out,
            undecodable_packets: response.undecodable_packets,
        }
    }
}

impl Voice {
    fn new(summary: &v1::ChannelSummary) -> Self {
        let speech_s = seconds(summary.speech.as_ref());
        Self {
            channel: summary.channel,
            speech_s,
            utterances: summary.utterances,
            sounds: Impression::new(summary.affect.as_ref(), None, speech_s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(max_bytes: u64, below: Option<&Path>) -> Files {
        let below = below.map(|below| below.canonicalize().unwrap());
        Files { max_bytes, below }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_nothing_but_a_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.wav");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, &files(5, None)).unwrap(), b"12345");
        let told = |result: Result<Vec<u8>, Failure>| result.unwrap_err().to_string();
        assert!(told(read(&path, &files(4, None))).contains("more than 4 bytes"));
        assert!(told(read(folder.path(), &files(5, None))).contains("is no file"));
        assert!(told(read(Path::new("/dev/zero"), &files(5, None))).contains("is no file"));
        assert!(
            told(read(&folder.path().join("none"), &files(5, None))).contains("cannot be read")
        );
    }

    #[test]
    fn nothing_outside_the_folder_is_read_not_even_by_a_link() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("secret");
        std::fs::write(&secret, b"x").unwrap();
        let link = inside.path().join("link.wav");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let own = inside.path().join("own.wav");
        std::fs::write(&own, b"x").unwrap();
        let files = files(5, Some(inside.path()));
        assert!(read(&own, &files).is_ok());
        let up = inside.path().join("..").join(outside.path().file_name().unwrap()).join("secret");
        for path in [secret, link, up] {
            let error = read(&path, &files).unwrap_err().to_string();
            assert!(error.contains("is not where files may be read"), "{error}");
        }
    }

    #[test]
    fn base64_that_is_none_or_too_much_is_refused_with_what_to_do() {
        assert_eq!(decode("AAEC\n").unwrap(), [0, 1, 2]);
        assert!(decode("not base64").unwrap_err().to_string().contains("RFC 4648"));
        let large = "A".repeat((MAX_INLINE_BYTES + 3) / 3 * 4 + 4);
        assert!(decode(&large).unwrap_err().to_string().contains("give at most 8388608 bytes"));
    }
}
