//! What every test needs: tiny models, a server in this process, clients, sessions, comparisons.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};
use undertone::audio::Encoding;
use undertone::config::{Settings, Span, StoreUrl};
use undertone::identity::Identity;
use undertone::model::{Model, Models};
use undertone::server::{self, Observer, ServeError, Sockets};
use undertone::session::{
    Context, OUTBOX, Outcome, Registry, SessionError, Source, SourceError, actor,
};
use undertone::wire::v1;
use undertone::wire::v1::emotion_service_client::EmotionServiceClient;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;

pub(crate) type Client = EmotionServiceClient<Channel>;

/// How long anything may take that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of the test data.
pub(crate) fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// The folder of a tiny model, see `tests/data/make_models.py`.
pub(crate) fn model_folder(name: &str) -> PathBuf {
    data("models").join(name)
}

/// A tiny model under `settings`.
pub(crate) fn open_model(name: &str, settings: &Settings) -> Model {
    Model::open(&model_folder(name), &settings.load()).unwrap_or_else(|error| panic!("{error}"))
}

/// The tiny models of all kinds, `tiny-steps` being the default, loaded once per process.
pub(crate) static TINY: LazyLock<Models> = LazyLock::new(|| {
    let names = ["tiny-steps", "tiny-window", "tiny-waveform", "tiny-dimensions"];
    Models::from_parts(names.iter().map(|name| open_model(name, &settings())).collect())
});

/// Settings for tests: any free port, no pace, no waiting for others to join a batch.
pub(crate) fn settings() -> Settings {
    Settings {
        grpc_address: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_address: SocketAddr::from(([127, 0, 0, 1], 0)),
        max_realtime_factor: 0.0,
        engine_max_wait: Span(Duration::ZERO),
        engine_max_batch: 8,
        drain_deadline: Span(Duration::from_secs(5)),
        // Tests share the machine, and many servers share this process.
        config_timeout: Span(Duration::from_secs(60)),
        max_load: 0.0,
        max_engine_lag: Span(Duration::ZERO),
        max_worker_delay: Span(Duration::ZERO),
        // Disks stand still at times; how a slow store is dealt with is tested on its own.
        store_timeout: Span(Duration::from_secs(20)),
        log: "off".to_owned(),
        // Tests of escalations say where theirs are.
        escalation_store: StoreUrl(String::new()),
        ..Settings::default()
    }
}

pub(crate) fn ms(ms: u64) -> Span {
    Span(Duration::from_millis(ms))
}

/// One for the process: instruments go to the first one installed.
static OBSERVER: LazyLock<Arc<Observer>> =
    LazyLock::new(|| Observer::install(&settings()).expect("telemetry"));

/// A server in this process. Dropping it cuts everything off.
pub(crate) struct Server {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) stop: CancellationToken,
    run: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    /// With the tiny models.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With the tiny models and other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::serve(settings, TINY.clone()).await
    }

    pub(crate) async fn serve(settings: Settings, models: Models) -> Self {
        let sockets = Sockets::bind(&settings).await.expect("a free port");
        let (grpc, http) = (sockets.grpc_address().unwrap(), sockets.http_address().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run = tokio::spawn(async move {
            server::run(&settings, models, sockets, OBSERVER.clone(), stopped, || {}).await
        });
        Self { grpc, http, stop, run }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(channel(self.grpc).await).max_decoding_message_size(64 << 20)
    }

    /// Stops it; what `server::run` returned.
    pub(crate) async fn stop(self) -> Result<(), ServeError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> Result<(), ServeError> {
        let ended = tokio::time::timeout(PATIENCE, &mut self.run).await;
        ended.expect("the server does not end").expect("the server panicked")
    }

    /// The live sessions, as the HTTP port lists them.
    pub(crate) async fn sessions(&self) -> Vec<serde_json::Value> {
        let (status, body) = http_get(self.http, "/sessions").await;
        assert_eq!(status, 200);
        serde_json::from_str(&body).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run.abort();
    }
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.expect("the server listens")
}

/// Waits until `done`, looking every 5 ms.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let patience = tokio::time::timeout(PATIENCE, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    patience.await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// A GET without any HTTP library: status and body.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let (status, body) = http_exchange(address, request.as_bytes()).await;
    (status, String::from_utf8(body).expect("text"))
}

/// Sends raw bytes and reads one HTTP/1.1 answer to its end: status and body, chunks joined.
pub(crate) async fn http_exchange(address: SocketAddr, request: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(request).await.expect("write");
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("no answer")
        .expect("read");
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("headers") + 4;
    let (head, body) = answer.split_at(split);
    let head = String::from_utf8_lossy(head).to_lowercase();
    let status = head.split(' ').nth(1).expect("status line").parse().expect("status");
    let chunked = head.contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_vec() })
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    while let Some(line) = body.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        joined.extend_from_slice(&body[line + 2..line + 2 + size]);
        body = &body[line + 2 + size + 2..];
    }
    joined
}

// --- messages -------------------------------------------------------------------------------------

/// How a stream's audio is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) encoding: Encoding,
    pub(crate) rate_hz: u32,
    pub(crate) channels: u32,
}

/// 16-bit mono at 16 kHz.
pub(crate) const PLAIN: Format =
    Format { encoding: Encoding::Linear16, rate_hz: 16_000, channels: 1 };

impl Format {
    pub(crate) fn config(self) -> v1::StreamConfig {
        let encoding = match self.encoding {
            Encoding::Linear16 => v1::AudioEncoding::Linear16,
            Encoding::Float32 => v1::AudioEncoding::Float32,
            Encoding::MuLaw => v1::AudioEncoding::Mulaw,
            Encoding::ALaw => v1::AudioEncoding::Alaw,
        };
        v1::StreamConfig {
            audio: Some(v1::AudioFormat {
                encoding: encoding.into(),
                sample_rate_hz: self.rate_hz,
                channel_count: self.channels,
                ..v1::AudioFormat::default()
            }),
            ..v1::StreamConfig::default()
        }
    }
}

pub(crate) fn audio(data: impl Into<Bytes>) -> Request {
    Request::Audio(v1::AudioChunk { data: data.into(), ..v1::AudioChunk::default() })
}

/// Audio in chunks of `size` bytes.
pub(crate) fn chunks(data: &[u8], size: usize) -> Vec<Request> {
    data.chunks(size).map(|chunk| audio(chunk.to_vec())).collect()
}

pub(crate) fn mark(name: &str) -> Request {
    Request::Mark(v1::Mark { name: name.to_owned() })
}

pub(crate) fn turn(boundary: v1::turn::Boundary) -> Request {
    Request::Turn(v1::Turn { boundary: boundary.into() })
}

pub(crate) fn duration(seconds: f64) -> Option<prost_types::Duration> {
    let duration = Duration::from_secs_f64(seconds);
    Some(prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    })
}

/// A duration of the wire in seconds.
pub(crate) fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    let duration = duration.expect("the duration is set");
    duration.seconds as f64 + f64::from(duration.nanos) * 1e-9
}

pub(crate) fn wrap(message: Request) -> v1::StreamEmotionRequest {
    v1::StreamEmotionRequest { message: Some(message) }
}

// --- sessions -------------------------------------------------------------------------------------

/// What a stream answered, and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) responses: Vec<Response>,
    /// `None` after a good end.
    pub(crate) status: Option<Status>,
}

macro_rules! of_kind {
    ($($name:ident: $kind:ident($type:ty);)+) => {
        impl Answer {
            $(pub(crate) fn $name(&self) -> Vec<&$type> {
                let mut found: Vec<&$type> = Vec::new();
                for response in &self.responses {
                    if let Response::$kind(one) = response {
                        found.push(one);
                    }
                }
                found
            })+
        }
    };
}

of_kind! {
    estimates: Estimate(v1::Estimate);
    utterances: Utterance(v1::Utterance);
    marks: Mark(v1::MarkReached);
    warnings: Warning(v1::Warning);
    draining: Draining(v1::Draining);
    escalations: Escalation(v1::EscalationEvent);
    checkpoints: Checkpoint(v1::Checkpoint);
}

impl Answer {
    /// The session must have ended well.
    pub(crate) fn fine(self) -> Self {
        assert!(self.status.is_none(), "ended with {:?}", self.status);
        self.finished();
        self
    }

    pub(crate) fn started(&self) -> &v1::Started {
        match self.responses.first() {
            Some(Response::Started(started)) => started,
            other => panic!("begins with {other:?}"),
        }
    }

    pub(crate) fn finished(&self) -> &v1::Finished {
        match self.responses.last() {
            Some(Response::Finished(finished)) => finished,
            other => panic!("ends with {other:?}"),
        }
    }

    pub(crate) fn error(&self) -> &Status {
        self.status.as_ref().unwrap_or_else(|| panic!("ended well: {:?}", self.responses.last()))
    }
}

/// Sends everything, half-closes, and reads to the end.
pub(crate) async fn stream(
    client: &Client,
    config: v1::StreamConfig,
    messages: impl IntoIterator<Item = Request>,
) -> Answer {
    let all = std::iter::once(Request::Config(config.into())).chain(messages);
    send(client, all.map(wrap).collect()).await
}

/// Sends raw requests, half-closes, and reads to the end.
pub(crate) async fn send(client: &Client, requests: Vec<v1::StreamEmotionRequest>) -> Answer {
    match client.clone().stream_emotion(tokio_stream::iter(requests)).await {
        Ok(responses) => read(responses.into_inner()).await,
        Err(status) => Answer { responses: Vec::new(), status: Some(status) },
    }
}

/// Reads to the end.
pub(crate) async fn read(mut responses: Streaming<v1::StreamEmotionResponse>) -> Answer {
    let mut answer = Answer { responses: Vec::new(), status: None };
    loop {
        match tokio::time::timeout(PATIENCE, responses.message()).await.expect("no answer") {
            Ok(Some(response)) => answer.responses.extend(response.message),
            Ok(None) => return answer,
            Err(status) => {
                answer.status = Some(status);
                return answer;
            }
        }
    }
}

/// A stream that is talked to message by message.
pub(crate) struct Talk {
    pub(crate) requests: mpsc::Sender<v1::StreamEmotionRequest>,
    pub(crate) responses: Streaming<v1::StreamEmotionResponse>,
}

impl Talk {
    /// Opens a stream and waits for `started`.
    pub(crate) async fn open(client: &Client, config: v1::StreamConfig) -> Self {
        let mut talk = Self::dial(client, config).await;
        match talk.next().await {
            Ok(Some(Response::Started(_))) => talk,
            other => panic!("not started: {other:?}"),
        }
    }

    /// Opens a stream and does not wait.
    pub(crate) async fn dial(client: &Client, config: v1::StreamConfig) -> Self {
        let (requests, inbox) = mpsc::channel(4);
        requests.send(wrap(Request::Config(config.into()))).await.expect("there is room");
        let responses = client.clone().stream_emotion(ReceiverStream::new(inbox)).await;
        Self { requests, responses: responses.expect("the stream opens").into_inner() }
    }

    pub(crate) async fn say(&self, message: Request) {
        self.requests.send(wrap(message)).await.expect("the stream is open");
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Response>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        Ok(next.expect("no answer")?.and_then(|response| response.message))
    }

    /// Half-closes and reads the rest.
    pub(crate) async fn close(self) -> Answer {
        drop(self.requests);
        read(self.responses).await
    }
}

/// Requests out of memory.
pub(crate) struct Script(pub(crate) std::vec::IntoIter<v1::StreamEmotionRequest>);

impl Script {
    pub(crate) fn new(config: v1::StreamConfig, messages: Vec<Request>) -> Self {
        let all = std::iter::once(Request::Config(config.into())).chain(messages);
        Self(all.map(wrap).collect::<Vec<_>>().into_iter())
    }
}

impl Source for Script {
    async fn next(&mut self) -> Result<Option<v1::StreamEmotionRequest>, SourceError> {
        Ok(self.0.next())
    }
}

/// What the sessions of a server without a network share.
pub(crate) fn context(settings: &Settings, models: Models) -> Context {
    Context {
        models,
        defaults: settings.defaults(),
        limits: server::limits(settings),
        admission: server::admission(settings),
        registry: Registry::new(settings.max_streams as usize, server::afterlife(settings)),
        escalating: None,
        resuming: None,
        draining: CancellationToken::new(),
    }
}

/// Runs a session without a network.
pub(crate) async fn run_session(
    context: &Context,
    mut source: Script,
) -> (Vec<Response>, Result<Outcome, SessionError>) {
    let (outbox, mut inbox) = mpsc::channel(OUTBOX);
    let session = async {
        let permit = context.admission.admit(&Identity::anonymous()).expect("there is room");
        let ended = Box::pin(actor::run(context, &permit, &mut source, &outbox)).await;
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
}

/// Runs a session without a network, which must end well.
pub(crate) async fn run_well(
    models: &Models,
    config: v1::StreamConfig,
    messages: Vec<Request>,
) -> Answer {
    let context = context(&settings(), models.clone());
    let (responses, ended) = run_session(&context, Script::new(config, messages)).await;
    assert_eq!(ended.expect("the session ends well"), Outcome::Finished);
    assert!(context.registry.is_empty());
    Answer { responses, status: None }
}

// --- comparing ------------------------------------------------------------------------------------

/// What two runs over the same audio must agree in: events exactly, the model's numbers to 1e-5.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// Everything but the session's name, the number of chunks and the model's numbers.
    pub(crate) events: Vec<Response>,
    /// The model's numbers, in order.
    pub(crate) numbers: Vec<f32>,
}

/// Probabilities of the same audio agree within this much, whatever the batch.
pub(crate) const TOLERANCE: f32 = 1e-5;

pub(crate) fn told(answer: &Answer) -> Told {
    let mut told = Told { events: Vec::new(), numbers: Vec::new() };
    for response in &answer.responses {
        let mut response = response.clone();
        match &mut response {
            Response::Started(started) => {
                started.session_id.clear();
                // Sessions without a network have no keys.
                if let Some(limits) = &mut started.limits {
                    limits.resume_window = None;
                }
                if let Some(config) = &mut started.config {
                    config.session_id.clear();
                }
            }
            Response::Estimate(e) => take_numbers(e.affect.as_mut(), &mut told.numbers),
            Response::Utterance(u) => take_numbers(u.affect.as_mut(), &mut told.numbers),
            Response::Finished(finished) => {
                finished.chunks = 0;
                for channel in &mut finished.channels {
                    take_numbers(channel.affect.as_mut(), &mut told.numbers);
                }
            }
            Response::Mark(_)
            | Response::Warning(_)
            | Response::Escalation(_)
            | Response::Checkpoint(_)
            | Response::Draining(_) => {}
        }
        told.events.push(response);
    }
    told
}

/// Moves the model's numbers out, so that what is left compares exactly.
pub(crate) fn take_numbers(affect: Option<&mut v1::Affect>, numbers: &mut Vec<f32>) {
    let Some(affect) = affect else {
        return;
    };
    let mut probabilities: Vec<f32> = affect.scores.iter().map(|s| s.probability).collect();
    probabilities.sort_by(|a, b| b.total_cmp(a));
    if matches!(probabilities[..], [first, second, ..] if first - second < 2.0 * TOLERANCE) {
        // Which of two equals is on top is not for anybody to say.
        affect.top = 0;
    }
    for score in &mut affect.scores {
        numbers.push(std::mem::take(&mut score.probability));
    }
    for number in
        [&mut affect.confidence, &mut affect.valence, &mut affect.arousal, &mut affect.distress]
    {
        numbers.push(std::mem::take(number));
    }
}

/// The largest difference between numbers; they must be as many.
pub(crate) fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[track_caller]
pub(crate) fn assert_same(what: &str, a: &Told, b: &Told) {
    for (index, (a, b)) in a.events.iter().zip(&b.events).enumerate() {
        assert_eq!(a, b, "{what}: event {index} differs");
    }
    assert_eq!(a.events.len(), b.events.len(), "{what}");
    let difference = difference(&a.numbers, &b.numbers);
    assert!(difference <= TOLERANCE, "{what}: probabilities differ by {difference}");
}

// --- errors ---------------------------------------------------------------------------------------

/// Checks code, `ErrorInfo` and the field named; returns the details for more.
#[track_caller]
pub(crate) fn assert_error(
    status: &Status,
    code: Code,
    reason: &str,
    field: Option<&str>,
) -> ErrorDetails {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.check_error_details().expect("google.rpc.Status");
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("undertone", reason), "{status:?}");
    if let Some(field) = field {
        let violations = &details.bad_request().expect("BadRequest").field_violations;
        let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
        assert!(fields.contains(&field), "{fields:?} does not name {field}");
        assert!(violations.iter().all(|v| !v.description.is_empty()));
    }
    details
}
