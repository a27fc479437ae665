//! An engine that dies takes the server down, and says why to everybody.

use std::time::Duration;

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use undertone::model::engine::{Engine, RowShape, Runner};
use undertone::model::runtime::{Batch, RuntimeError};
use undertone::model::{EngineError, Model, Models};
use undertone::server::ServeError;
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::signal::{encode, silence, speech};
use crate::support::{
    PLAIN, Server, TINY, Talk, assert_error, audio, channel, chunks, read, settings,
};

/// Answers zeros until it has run so many times, then fails.
struct Mortal {
    runs: usize,
    end: fn() -> Result<(), RuntimeError>,
}

impl Runner for Mortal {
    fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError> {
        if self.runs == 0 {
            return (self.end)();
        }
        self.runs -= 1;
        batch.output = vec![0.0; batch.rows * 8];
        Ok(())
    }
}

fn mortal(runs: usize, end: fn() -> Result<(), RuntimeError>) -> Models {
    let manifest = TINY.get("tiny-steps").unwrap().manifest.clone();
    let shape = RowShape { input: manifest.input.len(), states: vec![8, 1], output: 8 };
    let engine = Engine::start("tiny-steps", shape, settings().load().engine, Mortal { runs, end });
    Models::from_parts(vec![Model { manifest, engine: engine.unwrap() }])
}

fn broken() -> Result<(), RuntimeError> {
    Err(RuntimeError::Shape { name: "logits".to_owned(), expected: 8, actual: 7 })
}

fn panicking() -> Result<(), RuntimeError> {
    panic!("the device is on fire")
}

#[tokio::test]
async fn engine_failure_is_told_to_the_streams_and_ends_the_server_with_an_error() {
    for (end, cause) in [
        (broken as fn() -> Result<(), RuntimeError>, "logits has 7 values"),
        (panicking, "the device is on fire"),
    ] {
        let server = Server::serve(settings(), mortal(3, end)).await;
        let client = server.client().await;
        // One that asks the engine, one that waits in silence, one that has not begun.
        let speaking = Talk::open(&client, PLAIN.config()).await;
        let mut silent = Talk::open(&client, PLAIN.config()).await;
        silent.say(audio(encode(&silence(1, 0.5, 16_000), PLAIN.encoding))).await;
        let mut health = HealthClient::new(channel(server.grpc).await);
        let watched = HealthCheckRequest { service: "undertone.v1.EmotionService".to_owned() };
        let mut watch = health.watch(watched).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

        let data = encode(&speech(1, 2.0, 16_000), PLAIN.encoding);
        for message in chunks(&data, 3_200) {
            // The stream may be over before all is sent.
            let _ = speaking.requests.send(crate::support::wrap(message)).await;
        }
        let answer = read(speaking.responses).await;
        let details = assert_error(answer.error(), Code::Unavailable, "ENGINE_FAILED", None);
        assert!(answer.error().message().contains(cause), "{:?}", answer.error());
        assert!(details.retry_info().is_some());

        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        assert!(matches!(silent.next().await, Ok(Some(Response::Draining(_)))));
        let Ok(Some(Response::Finished(finished))) = silent.next().await else {
            panic!("a stream that does not need the engine is finished");
        };
        assert_eq!(finished.reason(), v1::FinishReason::Draining);

        drop((silent, client, health, watch));
        match server.ended().await {
            Err(ServeError::Engine(EngineError::Failed { cause: told, .. })) => {
                assert!(told.contains(cause), "{told}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stop_is_a_clean_end_that_tells_the_streams() {
    let server = Server::start().await;
    let client = server.client().await;
    let http = server.http;
    let mut talk = Talk::open(&client, PLAIN.config()).await;
    let data = encode(&speech(1, 1.6, 16_000), PLAIN.encoding);
    talk.say(audio(data)).await;
    // An estimate shows that the chunk is being worked on.
    assert!(matches!(talk.next().await, Ok(Some(Response::Estimate(_)))));
    let stop = server.stop.clone();
    stop.cancel();
    let answer = read(talk.responses).await;
    assert!(answer.status.is_none(), "{answer:?}");
    let [draining] = answer.draining()[..] else { panic!("{answer:?}") };
    assert!(draining.deadline.is_some());
    // What was open is finished: the utterance comes after the announcement.
    let order: Vec<&str> = answer
        .responses
        .iter()
        .filter_map(|response| match response {
            Response::Draining(_) => Some("draining"),
            Response::Utterance(_) => Some("utterance"),
            Response::Finished(_) => Some("finished"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["draining", "utterance", "finished"]);
    assert_eq!(answer.finished().reason(), v1::FinishReason::Draining);
    drop((talk.requests, client));
    server.ended().await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(5), async {
        while tokio::net::TcpStream::connect(http).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    closed.await.expect("the HTTP port is closed");
}

#[tokio::test]
async fn a_stream_that_has_not_begun_does_not_hold_up_the_drain() {
    let server = Server::start().await;
    let client = server.client().await;
    let (hold, inbox) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(inbox);
    let not_begun = client.clone().stream_emotion(requests).await.unwrap().into_inner();
    server.stop.cancel();
    let answer = read(not_begun).await;
    let details = assert_error(answer.error(), Code::Unavailable, "DRAINING", None);
    assert!(details.retry_info().is_some());
    drop((hold, client));
    server.ended().await.unwrap();
}
