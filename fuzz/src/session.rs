//! Body of the session target: any sequence of messages with any fields, through a whole session. It
//! panics where an invariant of `undertone::session` is broken.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use undertone::identity::Identity;
use undertone::model::engine::{Engine, EngineSettings, RowShape, Runner};
use undertone::model::runtime::{Batch, RuntimeError};
use undertone::model::{Manifest, Model, Models};
use undertone::session::admission::Quotas;
use undertone::session::load::LoadLimits;
use undertone::session::{
    Admission, Afterlife, Context, Keyring, Limits, OUTBOX, Outcome, Registry, Resuming, Source,
    SourceError, actor,
};
use undertone::wire::parse::Defaults;
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;

/// Input beyond this many bytes finds nothing new and only makes the fuzzer slow.
const MAX_BYTES: usize = 1 << 14;
/// Messages beyond this many, likewise.
const MAX_MESSAGES: usize = 200;
/// The longest stream that the sessions here allow.
const MAX_AUDIO: Duration = Duration::from_secs(20);

/// A session of messages that `data` makes up, with a stand-in for the tiny streaming model: the fuzzer
/// is to find faults in the service, not in ONNX Runtime.
pub fn session(data: &[u8]) {
    session_with(data, stand_in());
}

/// The stand-in's models.
pub fn stand_in() -> &'static Models {
    static MODELS: LazyLock<Models> = LazyLock::new(|| {
        let manifest = include_str!("../../tests/data/models/tiny-steps/model.toml");
        let manifest = Manifest::parse(manifest).expect("the manifest is good");
        let shape = RowShape { input: manifest.input.len(), states: vec![8, 1], output: 8 };
        let settings = EngineSettings { max_batch: 4, max_wait: Duration::ZERO, queue: 4 };
        let engine = Engine::start("tiny-steps", shape, settings, Mean).expect("a thread");
        Models::from_parts(vec![Model { manifest: manifest.into(), engine }])
    });
    &MODELS
}

/// Logits out of the means of the input, so that they move with it.
struct Mean;

impl Runner for Mean {
    fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError> {
        let per_row = batch.input.len() / batch.rows.max(1);
        batch.output.clear();
        for row in batch.input.chunks(per_row.max(1)) {
            let mean = row.iter().sum::<f32>() / row.len() as f32;
            batch.output.extend((0..8).map(|label| (mean * label as f32).sin()));
        }
        Ok(())
    }
}

/// The same with other models.
pub fn session_with(data: &[u8], models: &Models) {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    let mut bytes = Bytes(&data[..data.len().min(MAX_BYTES)]);
    let mode = bytes.byte();
    let context = context(models, mode & 2 != 0);
    let mut source = Play {
        messages: if mode & 1 == 0 { made_up(&mut bytes, mode) } else { decoded(&mut bytes) },
        drain_after: (mode & 4 != 0).then_some(usize::from(mode >> 3)),
        ends_badly: mode & 0x40 != 0,
        draining: context.draining.clone(),
    };
    let messages = source.messages.len();
    let (responses, ended) = RUNTIME.block_on(async {
        let (outbox, mut inbox) = mpsc::channel(OUTBOX);
        let session = async {
            let permit = context.admission.admit(&Identity::anonymous()).expect("there is room");
            let ended = actor::run(&context, &permit, &mut source, &outbox).await;
            drop(permit);
            drop(outbox);
            ended
        };
        let collect = async {
            let mut responses = Vec::new();
            while let Some(response) = inbox.recv().await {
                responses.extend(response.message);
            }
            responses
        };
        let (ended, responses) = tokio::join!(session, collect);
        (responses, ended)
    });
    assert!(context.registry.is_empty(), "the session's entry outlives it");
    check(&responses, ended.as_ref().ok(), messages);
}

/// Checkpoints under a key of the process's own.
static RESUMING: LazyLock<Resuming> = LazyLock::new(|| Resuming {
    keys: watch::channel(Arc::new(Keyring::random().expect("random numbers"))).1,
    window: Duration::from_secs(60),
    min_interval: Duration::from_secs(1),
    max_bytes: 1 << 20,
});

fn context(models: &Models, strict: bool) -> Context {
    Context {
        models: models.clone(),
        defaults: Defaults::default(),
        limits: Limits {
            max_chunk_bytes: 8_192,
            max_audio: MAX_AUDIO,
            idle_timeout: Duration::from_secs(60),
            config_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            max_realtime_factor: if strict { 1.0 } else { 0.0 },
            burst: Duration::from_secs(2),
            no_speech: Duration::from_secs(1),
            drain_deadline: Duration::from_secs(1),
            stage_interval: Duration::from_secs(10),
            history: Duration::from_secs(300),
        },
        admission: Admission::new(
            Quotas::default(),
            LoadLimits {
                busy: 0.0,
                engine_lag: Duration::ZERO,
                worker_delay: Duration::ZERO,
                memory: 0,
            },
        ),
        registry: Registry::new(1, Afterlife::default()),
        escalating: None,
        resuming: Some(RESUMING.clone()),
        draining: CancellationToken::new(),
    }
}

fn check(responses: &[Response], ended: Option<&Outcome>, messages: usize) {
    for (index, response) in responses.iter().enumerate() {
        let last = index + 1 == responses.len();
        assert_eq!(matches!(response, Response::Started(_)), index == 0, "started is first");
        assert_eq!(matches!(response, Response::Finished(_)), last && ended.is_some());
        match response {
            Response::Estimate(e) => check_affect(e.affect.as_ref()),
            Response::Utterance(u) => check_affect(u.affect.as_ref()),
            _ => {}
        }
    }
    // Per lane and second: ten estimates, a handful of utterances and warnings. A chunk may run past
    // the longest stream by what it holds.
    let per_lane = (MAX_AUDIO.as_secs() as usize + 2) * 20;
    assert!(responses.len() <= 4 + 10 * messages + 8 * per_lane, "{}", responses.len());
}

fn check_affect(affect: Option<&v1::Affect>) {
    let Some(affect) = affect else {
        return;
    };
    let sum: f32 = affect.scores.iter().map(|score| score.probability).sum();
    assert!(affect.scores.is_empty() || (sum - 1.0).abs() < 1e-4, "{sum}");
    for value in [affect.confidence, affect.valence, affect.arousal, affect.distress] {
        assert!(value.is_finite() && value.abs() <= 1.0, "{value}");
    }
}

/// Messages out of memory; may begin to drain in between and may end like a broken connection.
struct Play {
    messages: VecDeque<v1::StreamEmotionRequest>,
    drain_after: Option<usize>,
    ends_badly: bool,
    draining: CancellationToken,
}

impl Source for Play {
    async fn next(&mut self) -> Result<Option<v1::StreamEmotionRequest>, SourceError> {
        match &mut self.drain_after {
            Some(0) => self.draining.cancel(),
            Some(left) => *left -= 1,
            None => {}
        }
        match self.messages.pop_front() {
            Some(message) => Ok(Some(message)),
            None if self.ends_badly => Err(SourceError::Vanished("cut".to_owned())),
            None => Ok(None),
        }
    }
}

/// Bytes to take from; zeros when there are none left.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// What a client that does not keep to the types may send: length-delimited protobuf.
fn decoded(bytes: &mut Bytes) -> VecDeque<v1::StreamEmotionRequest> {
    let mut messages = VecDeque::new();
    while !bytes.0.is_empty() && messages.len() < MAX_MESSAGES {
        let length = usize::from(bytes.word()) % 2_048;
        // The transport refuses what cannot be decoded.
        messages.extend(v1::StreamEmotionRequest::decode(bytes.take(length)));
    }
    messages
}

/// Messages that mostly make sense, so that the fuzzer gets past the configuration.
fn made_up(bytes: &mut Bytes, mode: u8) -> VecDeque<v1::StreamEmotionRequest> {
    let mut messages = VecDeque::new();
    if mode & 0x80 == 0 {
        messages.push_back(Request::Config(config(bytes).into()));
    }
    while !bytes.0.is_empty() && messages.len() < MAX_MESSAGES {
        messages.push_back(match bytes.byte() % 16 {
            0..=5 => audio(bytes, false),
            6..=9 => audio(bytes, true),
            10 | 11 => {
                let length = usize::from(bytes.byte()) + usize::from(bytes.byte() & 1);
                Request::Mark(v1::Mark { name: "m".repeat(length) })
            }
            12..=14 => Request::Turn(v1::Turn { boundary: i32::from(bytes.byte() % 4) }),
            _ => Request::Config(config(bytes).into()),
        });
    }
    let wrap = |message| v1::StreamEmotionRequest { message: Some(message) };
    messages.into_iter().map(wrap).collect()
}

/// Raw bytes of the input, or as many as one likes of a buzz that may pass for a voice.
fn audio(bytes: &mut Bytes, buzz: bool) -> Request {
    let size = usize::from(bytes.word()) % 9_000;
    let flags = bytes.byte();
    let data: Vec<u8> = if buzz {
        let period = usize::from(flags) + 20;
        (0..size).map(|n| ((n / 2 % period) * 255 / period) as u8 ^ 0x80).collect()
    } else {
        bytes.take(size).to_vec()
    };
    Request::Audio(v1::AudioChunk {
        data: data.into(),
        sequence: (flags & 1 != 0).then(|| u64::from(bytes.byte())),
        captured_at_us: (flags & 2 != 0).then_some(-1),
    })
}

fn duration(bytes: &mut Bytes) -> Option<prost_types::Duration> {
    let (flags, value) = (bytes.byte(), bytes.word());
    match flags % 8 {
        0 => Some(prost_types::Duration { seconds: i64::from(value as i16), nanos: i32::MIN }),
        1 => Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::from(value) }),
        2 | 3 => Some(prost_types::Duration { seconds: 0, nanos: i32::from(value) * 20_000 }),
        _ => None,
    }
}

fn fraction(bytes: &mut Bytes) -> f32 {
    match bytes.byte() {
        255 => f32::NAN,
        254 => f32::NEG_INFINITY,
        253 => 1e30,
        byte if byte < 128 => 0.0,
        byte => f32::from(byte - 128) / 120.0,
    }
}

fn config(bytes: &mut Bytes) -> v1::StreamConfig {
    let flags = bytes.byte();
    let format = (flags & 0x0f != 0x0f).then(|| {
        let rate = bytes.word();
        let channels = u32::from(bytes.byte() % 10);
        v1::AudioFormat {
            encoding: i32::from(bytes.byte() % 5) + i32::from(flags & 1),
            sample_rate_hz: match rate % 4 {
                0 => u32::from(rate),
                1 => 8_000,
                2 => 16_000,
                _ => 48_000,
            },
            channel_count: channels,
            channel_roles: if flags & 2 == 0 {
                Vec::new()
            } else {
                (0..channels).map(|_| i32::from(bytes.byte() % 5)).collect()
            },
            channel_mode: i32::from(bytes.byte() % 4),
        }
    });
    v1::StreamConfig {
        session_id: if flags & 0x10 == 0 { String::new() } else { "a".repeat(bytes.byte().into()) },
        audio: format,
        estimate_interval: duration(bytes),
        model: if flags & 0x20 == 0 { String::new() } else { "tiny-steps".to_owned() },
        labels: (0..bytes.byte() / 7).map(|n| (n.to_string(), String::new())).collect(),
        voice_activity: (flags & 0x40 != 0).then(|| v1::VoiceActivityConfig {
            on_threshold: fraction(bytes),
            off_threshold: fraction(bytes),
            min_speech: duration(bytes),
            hang_over: duration(bytes),
        }),
        events: (flags & 0x80 != 0)
            .then_some(v1::EventSelection { no_utterances: true, ..v1::EventSelection::default() }),
        min_speech: duration(bytes),
        min_confidence: (flags & 4 != 0).then(|| fraction(bytes)),
        policy: None,
        no_policy: flags & 8 != 0,
        checkpoint_interval: duration(bytes),
        // Tokens have a target of their own.
        resume_token: Vec::new().into(),
    }
}
