//! Clients that vanish, that do not read, that give up: they cost nobody else anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Endpoint;
use undertone::model::engine::{Engine, RowShape, Runner};
use undertone::model::runtime::{Batch, Graph, RuntimeError};
use undertone::model::{Model, Models};
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_request::Message as Request;

use crate::process::{Process, metric};
use crate::signal::{encode, speech};
use crate::support::{
    Client, PLAIN, Server, TINY, Talk, assert_error, assert_same, audio, chunks, duration,
    http_get, model_folder, ms, read, run_well, settings, stream, told, until, wrap,
};

/// A real model behind a pause, so that there is a middle of the flight to be cancelled in.
struct Slow {
    graph: Graph,
    pause: Duration,
}

impl Runner for Slow {
    fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError> {
        std::thread::sleep(self.pause);
        self.graph.run(batch)
    }
}

pub(crate) fn slow_model(pause: Duration) -> Models {
    let folder = model_folder("tiny-steps");
    let manifest = TINY.get("tiny-steps").unwrap().manifest.clone();
    let onnx = std::fs::read(folder.join("model.onnx")).unwrap();
    let graph = Graph::new(&onnx, &manifest, 1, None).unwrap();
    let shape = RowShape {
        input: manifest.input.len(),
        states: manifest.states.iter().map(undertone::model::manifest::State::len).collect(),
        output: manifest.output.len(),
    };
    let mut settings = settings();
    settings.engine_max_wait = ms(1);
    let engine = Engine::start("tiny-steps", shape, settings.load().engine, Slow { graph, pause });
    Models::from_parts(vec![Model { manifest, engine: engine.unwrap() }])
}

fn config() -> v1::StreamConfig {
    v1::StreamConfig { estimate_interval: duration(0.1), ..PLAIN.config() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_result_never_reaches_another_stream() {
    const STREAMS: u64 = 48;
    let server = Server::serve(settings(), slow_model(Duration::from_millis(2))).await;
    let client = server.client().await;
    let mut cancelled = Vec::new();
    let mut kept = Vec::new();
    for n in 0..STREAMS {
        let data = encode(&speech(n, 2.5, 16_000), PLAIN.encoding);
        let client = client.clone();
        if n % 3 == 0 {
            kept.push((
                n,
                tokio::spawn(async move {
                    stream(&client, config(), chunks(&data, 1_600)).await.fine()
                }),
            ));
        } else {
            // Cut off at some moment of the time that it takes, most with a row under way.
            cancelled.push(tokio::spawn(async move {
                let all = stream(&client, config(), chunks(&data, 1_600));
                let _ = tokio::time::timeout(Duration::from_millis(5 + 4 * n), all).await;
            }));
        }
    }
    for session in cancelled {
        session.await.unwrap();
    }
    for (n, session) in kept {
        let data = encode(&speech(n, 2.5, 16_000), PLAIN.encoding);
        let alone = run_well(&TINY, config(), chunks(&data, 1_600)).await;
        assert_same(&format!("stream {n}"), &told(&alone), &told(&session.await.unwrap()));
    }
    until("all sessions are gone", async || server.sessions().await.is_empty()).await;
    server.stop().await.unwrap();
}

/// Passes bytes on to `target` and cuts the connection after `limit` of them.
pub(crate) async fn cutting_proxy(target: SocketAddr, limit: usize) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let forward = async {
            let mut left = limit;
            let mut buffer = [0; 1_000];
            while left > 0 {
                let wanted = left.min(buffer.len());
                let read = from_client.read(&mut buffer[..wanted]).await.unwrap_or(0);
                if read == 0 || to_server.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
                left -= read;
            }
        };
        let back = tokio::io::copy(&mut from_server, &mut to_client);
        tokio::select! {
            () = forward => {}
            _ = back => {}
        }
    });
    address
}

#[tokio::test]
async fn a_client_that_vanishes_inside_a_chunk_frees_everything_at_once() {
    let server = Server::start().await;
    // Once through, so that all that stays is there before the first count.
    stream(&server.client().await, config(), []).await.fine();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let data = encode(&speech(1, 20.0, 16_000), PLAIN.encoding);
    for limit in [20_000, 100_001, 333_333] {
        // One chunk of 640 kB: wherever the wire is cut, it is inside it.
        let proxy = cutting_proxy(server.grpc, limit).await;
        let client = Client::new(crate::support::channel(proxy).await);
        let mut talk = Talk::open(&client, config()).await;
        assert_eq!(server.sessions().await.len(), 1);
        talk.say(audio(data.clone())).await;
        let cut = Instant::now();
        assert!(talk.next().await.is_err(), "the wire was cut");
        until("the session is gone", async || server.sessions().await.is_empty()).await;
        assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
        drop((talk, client));
        until("its tasks are gone", async || tasks() <= before).await;
    }
}

#[tokio::test]
async fn streams_that_are_dropped_at_any_moment_leave_nothing_behind() {
    let server = Server::start().await;
    let client = server.client().await;
    stream(&client, config(), []).await.fine();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let data = encode(&speech(1, 5.0, 16_000), PLAIN.encoding);
    let streams: Vec<_> = (0..40)
        .map(|n| {
            let client = client.clone();
            let messages = chunks(&data, 1_000);
            tokio::spawn(async move {
                let all = stream(&client, config(), messages);
                let _ = tokio::time::timeout(Duration::from_millis(n * 3), all).await;
            })
        })
        .collect();
    for stream in streams {
        stream.await.unwrap();
    }
    until("the sessions are gone", async || server.sessions().await.is_empty()).await;
    until("their tasks are gone", async || tasks() <= before).await;
    stream(&client, config(), chunks(&data, 16_000)).await.fine();
}

/// A client with the smallest windows that HTTP/2 has by default, so that little is read ahead.
async fn narrow_client(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let narrow = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    Client::new(narrow.connect().await.unwrap())
}

/// Opens a stream that sends `data` over and over and never reads; how many chunks have left.
async fn never_reading(
    client: &Client,
    data: Vec<u8>,
) -> (Arc<AtomicUsize>, tonic::Streaming<v1::StreamEmotionResponse>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let first = tokio_stream::once(wrap(Request::Config(config().into())));
    let chunks: Vec<Request> = chunks(&data, 3_200);
    let endless = (0..).map(move |n: usize| {
        counter.store(n + 1, Ordering::Relaxed);
        wrap(chunks[n % chunks.len()].clone())
    });
    let requests = first.chain(tokio_stream::iter(endless));
    let responses = client.clone().stream_emotion(requests).await.unwrap().into_inner();
    (sent, responses)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_held_up_and_then_ended_and_slows_nobody() {
    let server = Server::with(|settings| settings.send_timeout = ms(1_500)).await;
    let narrow = narrow_client(server.grpc).await;
    let data = encode(&speech(1, 10.0, 16_000), PLAIN.encoding);
    let (sent, responses) = never_reading(&narrow, data.clone()).await;
    until("audio flows", async || sent.load(Ordering::Relaxed) > 10).await;

    // Held up: the sender cannot go on, although it would for ever.
    let mut held_up_at = 0;
    until("the sender is held up", async || {
        let before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
        held_up_at = sent.load(Ordering::Relaxed);
        before == held_up_at
    })
    .await;
    // Each chunk of 3,200 bytes is one estimate of about 200. What 64 KiB of window, 16 queued
    // responses and the request's own windows (1 MiB and what hyper buffers) hold is all there is.
    assert!(held_up_at < 3_000, "{held_up_at} chunks were taken from a client that does not read");

    // Meanwhile others are served.
    let other = server.client().await;
    let began = Instant::now();
    let answer = stream(&other, config(), chunks(&data, 3_200)).await.fine();
    assert!(answer.estimates().len() > 20);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    // Ended: its place is free, and if it reads after all it is told why.
    until("the session is ended", async || server.sessions().await.is_empty()).await;
    let answer = read(responses).await;
    assert_error(answer.error(), Code::DeadlineExceeded, "RESPONSES_UNREAD", None);
    assert!(answer.estimates().len() > 16, "what was queued before is still given");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn memory_stays_bounded_with_many_clients_that_do_not_read() {
    const CLIENTS: usize = 16;
    // A process of its own, whose memory is nobody else's.
    let process = Process::start(&["--send-timeout", "60s"]).await;
    let data = encode(&speech(1, 10.0, 16_000), PLAIN.encoding);
    stream(&process.client().await, config(), chunks(&data, 3_200)).await.fine();
    let resident = async || {
        let (_, page) = http_get(process.http, "/metrics").await;
        metric(&page, "process_memory_usage_bytes", "").expect("the metric is there")
    };
    let before = resident().await;
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        held.push(never_reading(&narrow_client(process.grpc).await, data.clone()).await);
    }
    let total = || held.iter().map(|(sent, _)| sent.load(Ordering::Relaxed)).sum::<usize>();
    until("all are held up", async || {
        let before = total();
        tokio::time::sleep(Duration::from_millis(400)).await;
        before > CLIENTS && before == total()
    })
    .await;
    let per_client = (resident().await - before) / CLIENTS as f64;
    // HTTP/2 grants 1 MiB of window to what has not been read; without bounds this would be
    // gigabytes by now.
    assert!(per_client < 3.0 * f64::from(1 << 20), "{per_client} bytes per client");
    let (_, sessions) = http_get(process.http, "/sessions").await;
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&sessions).unwrap().len(), CLIENTS);
}

#[tokio::test]
async fn a_dropped_session_is_gone_with_its_place() {
    // Without a network: dropping the future is what the server does at the drain deadline.
    let context = crate::support::context(&settings(), slow_model(Duration::from_millis(20)));
    let data = encode(&speech(1, 3.0, 16_000), PLAIN.encoding);
    let session = crate::support::run_session(
        &context,
        crate::support::Script::new(config(), chunks(&data, 3_200)),
    );
    let cut = tokio::time::timeout(Duration::from_millis(60), session).await;
    assert!(cut.is_err(), "it would have taken longer");
    assert!(context.registry.is_empty());
}
