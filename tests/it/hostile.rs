//! Hostile clients: each is cut off with the right code, memory stays bounded, and others are served.
//!
//! Each test runs the real binary, has an honest stream talk to it all the while, and lets a client on
//! loopback do its worst, bounded in number and time.

use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Endpoint;
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::process::{Process, metric};
use crate::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, HEADERS,
    PING, PREFACE, PROTOCOL_ERROR, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, call, frame, header,
};
use crate::signal::{encode, silence, speech, wav};
use crate::support::{
    Client, PLAIN, Talk, assert_error, audio, http_get, mark, read, stream, until, wrap,
};

/// What an attack may make the server's memory grow by: what HTTP/2 keeps for a few connections, and
/// what an allocator does not give back.
const GROWTH: f64 = 48.0 * 1024.0 * 1024.0;
/// Longest wait for what takes a second.
const SOON: Duration = Duration::from_secs(20);

const MEMORY: &str = "process_memory_usage_bytes";
const REFUSED: &str = "undertone_connections_refused_total";

/// A number of the server's metrics; 0 if it is not there.
async fn reading(process: &Process, name: &str, label: &str) -> f64 {
    let (_, page) = http_get(process.http, "/metrics").await;
    metric(&page, name, label).unwrap_or_default()
}

/// A server, and an honest stream that measures how long its chunks take.
struct Siege {
    process: Process,
    lifted: CancellationToken,
    honest: JoinHandle<Vec<Duration>>,
    before: f64,
}

impl Siege {
    async fn lay(args: &[&str]) -> Self {
        let process = Process::start(args).await;
        let mut talk = Talk::open(&process.client().await, PLAIN.config()).await;
        let lifted = CancellationToken::new();
        let stop = lifted.clone();
        let chunk = encode(&speech(1, 0.1, 16_000), PLAIN.encoding);
        let honest = tokio::spawn(async move {
            let mut took = Vec::new();
            while !stop.is_cancelled() {
                let began = Instant::now();
                talk.say(audio(chunk.clone())).await;
                talk.say(mark("here")).await;
                while !matches!(talk.next().await.expect("it goes on"), Some(Response::Mark(_))) {}
                took.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            talk.close().await.fine();
            took
        });
        until("the honest stream talks", async || {
            reading(&process, "undertone_chunks_total", "").await > 0.0
        })
        .await;
        let before = reading(&process, MEMORY, "").await;
        Self { process, lifted, honest, before }
    }

    /// The honest stream was served all the while, and memory is as it was, about.
    async fn lift(self) {
        let after = reading(&self.process, MEMORY, "").await;
        let grown = after - self.before;
        assert!(grown < GROWTH, "memory grew by {grown} bytes");
        stream(&self.process.client().await, PLAIN.config(), []).await.fine();
        self.lifted.cancel();
        let mut took = self.honest.await.expect("the honest stream ended well");
        took.sort();
        let p90 = took[took.len() * 9 / 10];
        assert!(p90 < Duration::from_secs(1), "p90 {p90:?} of {}", took.len());
    }
}

#[tokio::test]
async fn a_connection_that_does_not_begin_to_speak_is_closed() {
    let siege = Siege::lay(&["--preface-timeout", "2s"]).await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Raw::connect(siege.process.grpc).await);
    }
    let mut slow = Raw::connect(siege.process.grpc).await;
    for byte in &PREFACE[..20] {
        slow.push(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    for raw in silent.iter_mut().chain([&mut slow]) {
        assert!(raw.end(SOON).await.closed);
    }
    assert!(began.elapsed() < SOON);
    assert!(reading(&siege.process, REFUSED, "\"preface_timeout\"").await >= 51.0);
    siege.lift().await;
}

#[tokio::test]
async fn a_head_that_trickles_into_the_http_port_is_cut_off() {
    let siege = Siege::lay(&["--http-head-timeout", "1s"]).await;
    let began = Instant::now();
    let head = b"GET /metrics HTTP/1.1\r\nHost: here\r\nX-Long: ";
    let mut raw = Raw::connect(siege.process.http).await;
    raw.push(head).await;
    let mut said = 0;
    // One byte at a time, for ever: a write fails once the server has closed.
    while raw.write.write_all(b"x").await.is_ok() {
        assert!(began.elapsed() < SOON, "still open after {said} bytes");
        tokio::time::sleep(Duration::from_millis(50)).await;
        said += 1;
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "closed after {:?}", began.elapsed());
    // One that asks, and then is silent, has its answer and is closed.
    let mut idle = Raw::connect(siege.process.http).await;
    idle.push(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n").await;
    let mut answer = Vec::new();
    let read = idle.read.read_to_end(&mut answer);
    tokio::time::timeout(SOON, read).await.expect("it is closed").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK") && answer.ends_with(b"alive\n"));
    siege.lift().await;
}

#[tokio::test]
async fn a_connection_that_stops_in_the_middle_of_a_frame_is_closed() {
    let siege = Siege::lay(&["--keepalive-interval", "1s", "--keepalive-timeout", "3s"]).await;
    // Headers that do not end; a frame that does not come; a block that does not go on.
    let headers = frame(HEADERS, END_HEADERS, 1, &call("StreamEmotion"));
    let open = frame(HEADERS, 0, 1, &call("StreamEmotion"));
    for part in [&headers[..30], &frame(DATA, 0, 0, &[0; 100])[..5], &open] {
        let mut raw = Raw::greet(siege.process.grpc).await;
        raw.push(part).await;
        assert!(raw.end(SOON).await.closed);
    }
    siege.lift().await;
}

#[tokio::test]
async fn a_flood_of_empty_frames_does_not_keep_a_stream_open() {
    let siege = Siege::lay(&["--config-timeout", "1s"]).await;
    let mut raw = Raw::greet(siege.process.grpc).await;
    raw.open(1, "StreamEmotion").await;
    let empty = frame(DATA, 0, 1, &[]).repeat(1_000);
    for _ in 0..200 {
        raw.push(&empty).await;
    }
    let over = |seen: &crate::raw::Seen| !seen.ended.is_empty() || !seen.resets.is_empty();
    let seen = raw.watch(SOON, over).await;
    assert!(over(&seen) || seen.closed, "{seen:?}");
    siege.lift().await;
}

#[tokio::test]
async fn headers_that_are_too_large_or_too_many_are_refused() {
    let siege = Siege::lay(&[]).await;
    let giant = [call("StreamEmotion"), header("x", &"y".repeat(100_000))].concat();
    let many: Vec<u8> = (0..4_000).flat_map(|n| header(&format!("x{n}"), "")).collect();
    for block in [giant, [call("StreamEmotion"), many].concat()] {
        let mut raw = Raw::greet(siege.process.grpc).await;
        let mut parts = block.chunks(16_384).peekable();
        let mut kind = HEADERS;
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
            raw.push(&frame(kind, flags, 1, part)).await;
            kind = CONTINUATION;
        }
        let refused = |seen: &crate::raw::Seen| !seen.ended.is_empty() || !seen.resets.is_empty();
        let seen = raw.watch(SOON, refused).await;
        assert!(refused(&seen) || seen.closed, "{seen:?}");
    }
    siege.lift().await;
}

#[tokio::test]
async fn a_message_that_declares_four_gigabytes_is_refused_at_once() {
    let siege = Siege::lay(&[]).await;
    let path = "/undertone.v1.EmotionService/StreamEmotion";
    let declared = [0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
    let (status, answer) = crate::protocol::grpc_web(siege.process.grpc, path, &declared).await;
    let answer = String::from_utf8_lossy(&answer);
    // RESOURCE_EXHAUSTED is 8.
    assert!(status == 200 && answer.contains("grpc-status:8"), "{answer:?}");
    siege.lift().await;
}

#[tokio::test]
async fn streams_reset_as_fast_as_they_open_end_the_connection() {
    let siege = Siege::lay(&[]).await;
    let mut raw = Raw::greet(siege.process.grpc).await;
    let block = call("StreamEmotion");
    let mut all = Vec::new();
    for id in (1..20_000).step_by(2) {
        all.extend(frame(HEADERS, END_HEADERS, id, &block));
        all.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    raw.push(&all).await;
    let seen = raw.end(SOON).await;
    assert!(seen.closed && seen.goaway == Some(ENHANCE_YOUR_CALM), "{seen:?}");
    siege.lift().await;
}

#[tokio::test]
async fn headers_that_never_end_are_broken_off() {
    let siege = Siege::lay(&[]).await;
    for part in [&[][..], &header("x", "y"), &header("x", &"y".repeat(1_000))] {
        let mut raw = Raw::greet(siege.process.grpc).await;
        raw.push(&frame(HEADERS, 0, 1, &call("StreamEmotion"))).await;
        let flood = frame(CONTINUATION, 0, 1, part).repeat(100);
        for _ in 0..200 {
            raw.push(&flood).await;
        }
        let seen = raw.end(SOON).await;
        assert!(seen.closed, "{} bytes each: {seen:?}", part.len());
    }
    siege.lift().await;
}

#[tokio::test]
async fn floods_of_pings_and_settings_whose_answers_are_not_read_cost_little() {
    let siege = Siege::lay(&["--keepalive-interval", "1s", "--keepalive-timeout", "3s"]).await;
    let ping = frame(PING, 0, 0, &[7; 8]);
    // SETTINGS_MAX_FRAME_SIZE, as it is.
    let settings = frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x40, 0]);
    for flood in [ping.repeat(1_000), settings.repeat(1_000)] {
        let mut raw = Raw::greet(siege.process.grpc).await;
        for _ in 0..100 {
            raw.push(&flood).await;
        }
        // Pings of the server are not answered either, so that it ends.
        assert!(raw.end(SOON).await.closed);
    }
    siege.lift().await;
}

#[tokio::test]
async fn games_with_windows_end_the_stream_or_the_connection() {
    let siege = Siege::lay(&["--idle-timeout", "1s"]).await;
    let most = 0x7fff_ffff_u32.to_be_bytes();
    for (increments, code) in [
        (frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, &most).repeat(2), FLOW_CONTROL_ERROR),
    ] {
        let mut raw = Raw::greet(siege.process.grpc).await;
        raw.push(&increments).await;
        let seen = raw.end(SOON).await;
        assert!(seen.closed && seen.goaway == Some(code), "{seen:?}");
    }
    // A window of nothing: what is answered cannot leave, and what is kept for it must end.
    let mut raw = Raw::connect(siege.process.grpc).await;
    raw.push(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).await;
    let config = wrap(Request::Config(PLAIN.config().into())).encode_to_vec();
    let message = [&[0][..], &(config.len() as u32).to_be_bytes(), &config].concat();
    for id in (1..100).step_by(2) {
        raw.open(id, "StreamEmotion").await;
        raw.push(&frame(DATA, 0, id, &message)).await;
    }
    until("the sessions are there", async || sessions(&siege.process).await > 40).await;
    until("the sessions have ended", async || sessions(&siege.process).await == 1).await;
    siege.lift().await;
}

async fn sessions(process: &Process) -> usize {
    let (_, body) = http_get(process.http, "/sessions").await;
    serde_json::from_str::<Vec<serde_json::Value>>(&body).unwrap().len()
}

#[tokio::test]
async fn a_message_that_unpacks_to_a_hundred_megabytes_is_refused() {
    let siege = Siege::lay(&[]).await;
    let client = siege.process.client().await.send_compressed(CompressionEncoding::Gzip);
    let bomb = audio(vec![0_u8; 100 << 20]);
    let answer = stream(&client, PLAIN.config(), [bomb]).await;
    assert_error(answer.error(), Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None);
    siege.lift().await;
}

#[tokio::test]
async fn connections_that_are_too_many_are_closed_and_those_that_are_there_go_on() {
    let siege = Siege::lay(&["--max-connections", "100"]).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(Raw::greet(siege.process.grpc).await);
    }
    let mut closed = 0;
    for raw in &mut open {
        let seen = raw.watch(Duration::from_millis(20), |_| false).await;
        closed += usize::from(seen.closed);
    }
    // One is the honest stream's.
    assert_eq!(closed, 201);
    assert!(reading(&siege.process, REFUSED, "\"connections\"").await >= 201.0);
    drop(open);
    let endpoint = Endpoint::from_shared(format!("http://{}", siege.process.grpc)).unwrap();
    until("there is a place again", async || {
        let Ok(channel) = endpoint.connect().await else {
            return false;
        };
        Client::new(channel).list_models(v1::ListModelsRequest {}).await.is_ok()
    })
    .await;
    siege.lift().await;
}

#[tokio::test]
async fn streams_that_send_no_configuration_are_ended() {
    let siege = Siege::lay(&["--config-timeout", "1s"]).await;
    let client = siege.process.client().await;
    let mut opened = Vec::new();
    for _ in 0..200 {
        let (hold, inbox) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(inbox);
        let responses = client.clone().stream_emotion(requests).await.unwrap();
        opened.push((hold, responses.into_inner()));
    }
    for (_hold, responses) in opened {
        let answer = read(responses).await;
        assert_error(answer.error(), Code::DeadlineExceeded, "IDLE_TIMEOUT", None);
    }
    siege.lift().await;
}

#[tokio::test]
async fn clips_that_do_not_come_take_no_more_places_than_there_are_and_not_for_long() {
    let siege =
        Siege::lay(&["--max-clips", "1", "--max-clips-waiting", "2", "--call-timeout", "3s"]).await;
    let mut raw = Raw::greet(siege.process.grpc).await;
    for id in [1, 3, 5] {
        raw.open(id, "AnalyzeAudio").await;
    }
    let clip = v1::AnalyzeAudioRequest {
        content: wav(PLAIN.encoding, 16_000, 1, &encode(&silence(1, 1.0, 16_000), PLAIN.encoding))
            .into(),
        ..v1::AnalyzeAudioRequest::default()
    };
    let mut client = siege.process.client().await;
    let mut refused = None;
    until("the places are taken", async || {
        refused = client.analyze_audio(clip.clone()).await.err();
        refused.is_some()
    })
    .await;
    let status = refused.unwrap();
    let details = assert_error(&status, Code::ResourceExhausted, "TOO_MANY_CLIPS", None);
    assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    let seen = raw.watch(SOON, |seen| seen.ended.len() == 3).await;
    assert_eq!(seen.ended.len(), 3, "{seen:?}");
    client.analyze_audio(clip).await.unwrap();
    siege.lift().await;
}

#[tokio::test]
async fn half_closed_calls_without_a_message_are_answered() {
    let siege = Siege::lay(&[]).await;
    let mut raw = Raw::greet(siege.process.grpc).await;
    for (id, method) in [(1, "StreamEmotion"), (3, "AnalyzeAudio"), (5, "NoSuchMethod")] {
        raw.push(&frame(HEADERS, END_HEADERS | END_STREAM, id, &call(method))).await;
    }
    let seen = raw.watch(SOON, |seen| seen.ended.len() == 3).await;
    assert_eq!(seen.ended.len(), 3, "{seen:?}");
    siege.lift().await;
}

#[tokio::test]
async fn a_connection_of_age_takes_no_new_streams_and_ends_none() {
    let siege = Siege::lay(&["--max-connection-age", "1s"]).await;
    let mut raw = Raw::greet(siege.process.grpc).await;
    // The honest stream is on a connection as old, and goes on until it is told to end.
    let seen = raw.watch(SOON, |seen| seen.goaway.is_some()).await;
    assert_eq!(seen.goaway, Some(0), "{seen:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    siege.lift().await;
}
