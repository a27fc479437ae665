//! Streams that break off and go on: here, on another server, under another name, or not at all.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tonic::Code;
use undertone::config::StoreUrl;
use undertone::wire::v1;
use undertone::wire::v1::EscalationEventKind as Kind;
use undertone::wire::v1::escalation_service_client::EscalationServiceClient;
use undertone::wire::v1::stream_config::Policy;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::database::{Kind as Database, Place, free_port, on_both};
use crate::process::{Process, undertone};
use crate::resumer::{Heard, Speech, To, as_one_stream, talk};
use crate::signal::{Noise, encode, interleave, speech, wav};
use crate::support::{
    Answer, Client, Format, PLAIN, Server, Talk, assert_error, assert_same, audio, channel, chunks,
    duration, mark, ms, read, seconds, stream, turn, until,
};

on_both! {
    a_drained_stream_goes_on_elsewhere_as_if_nothing_had_been,
    a_stream_that_lost_its_connection_goes_on_elsewhere,
    a_session_nobody_goes_on_with_has_ended,
    an_acknowledgement_between_two_streams_is_told_in_the_second,
    an_acknowledgement_before_its_escalation_is_raised_again_is_told,
}

/// Says after a second without voice; one rule is cleared with the session, the other is left.
const QUIET: &str = "
schema: undertone.policy/v1
name: quiet
version: '1'
description: For tests.
budget: 100
rules:
  - name: quiet
    title: Nobody speaks
    severity: medium
    when: {silence: {for: 1s}}
    clear_after: 0s
    cooldown: 0s
    update_every: 2s
    reason: 'no voice for {{ silence }} s'
  - name: quieter
    title: Still nobody
    severity: low
    when: {silence: {for: 1500ms}}
    clear_after: 0s
    cooldown: 0s
    on_session_end: clear
    reason: 'no voice for {{ silence }} s'
";

fn config() -> v1::StreamConfig {
    v1::StreamConfig {
        policy: Some(Policy::PolicyYaml(QUIET.to_owned())),
        checkpoint_interval: duration(1.0),
        session_id: "call".to_owned(),
        ..PLAIN.config()
    }
}

/// Speech and silence in turn, about 20 s.
fn data() -> Vec<u8> {
    let mut samples = Vec::new();
    for seed in 0..4 {
        samples.extend(speech(seed, 2.3, 16_000));
        samples.extend(vec![0.0; 41_000]);
    }
    encode(&samples, PLAIN.encoding)
}

/// The wire between a client and a server.
struct Wire(tokio::task::JoinHandle<()>);

impl Wire {
    /// A client that half-closes has ended its stream; one whose wire is cut has not.
    async fn cut(self) {
        self.0.abort();
        // The sockets are closed when it has ended.
        let _ = self.0.await;
    }
}

/// A stream over a wire that can be cut.
async fn cut_off(server: &Server, config: v1::StreamConfig) -> (Wire, Talk) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (address, target) = (listener.local_addr().unwrap(), server.grpc);
    let wire = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
        // Whichever end goes first is not the test's.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let client = Client::new(channel(address).await);
    (Wire(wire), Talk::open(&client, config).await)
}

/// Replicas: they share the store and the keys.
struct Replicas {
    folder: tempfile::TempDir,
    url: String,
}

impl Replicas {
    fn new(place: &Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = "a:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";
        std::fs::write(folder.path().join("keys"), key).unwrap();
        Self { folder, url: place.url.clone() }
    }

    async fn serve(&self) -> Server {
        self.serve_with(Duration::from_secs(120)).await
    }

    async fn serve_with(&self, window: Duration) -> Server {
        Server::with(|settings| {
            settings.escalation_store = StoreUrl(self.url.clone());
            settings.resume_keys = self.folder.path().join("keys");
            settings.resume_window = undertone::config::Span(window);
            settings.watch_poll = ms(50);
            settings.delivery_poll = ms(20);
        })
        .await
    }
}

/// What one stream without a break hears.
async fn uninterrupted() -> Answer {
    let place = Place::new(Database::Sqlite).await;
    let replicas = Replicas::new(&place);
    let server = replicas.serve().await;
    stream(&server.client().await, config(), chunks(&data(), 3_200)).await.fine()
}

fn assert_as_uninterrupted(what: &str, heard: &Answer, whole: &Answer) {
    assert_same(what, &as_one_stream(heard), &as_one_stream(whole));
}

async fn escalations(address: std::net::SocketAddr) -> Vec<v1::Escalation> {
    let mut service = EscalationServiceClient::new(channel(address).await);
    let all = v1::ListEscalationsRequest::default();
    service.list_escalations(all).await.unwrap().into_inner().escalations
}

async fn history(address: std::net::SocketAddr, id: &str) -> Vec<v1::EscalationEvent> {
    let mut service = EscalationServiceClient::new(channel(address).await);
    let request = v1::GetEscalationRequest { id: id.to_owned() };
    service.get_escalation(request).await.unwrap().into_inner().history
}

/// Nothing is in the store twice, and nothing has ended that went on.
async fn assert_store_is_as_heard(address: std::net::SocketAddr, heard: &Heard) {
    let mut ids: Vec<&str> =
        heard.answer.escalations().iter().map(|event| event.id.as_str()).collect();
    ids.sort_unstable();
    let mut stored = Vec::new();
    for escalation in escalations(address).await {
        stored.extend(history(address, &escalation.id).await.into_iter().map(|event| event.id));
    }
    stored.sort_unstable();
    assert_eq!(ids, stored);
}

async fn a_drained_stream_goes_on_elsewhere_as_if_nothing_had_been(place: &Place) {
    // SQLite has one server at a time: the second one starts when the first has ended.
    let replicas = Arc::new(Replicas::new(place));
    let first = replicas.serve().await;
    let address = first.grpc;
    let (there, list) = tokio::sync::watch::channel(vec![address]);
    let speech =
        Speech { config: config(), data: data(), chunk: 3_200, pace: Duration::from_millis(8) };
    let moving = tokio::spawn({
        let replicas = replicas.clone();
        async move {
            let mut server = first;
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(400)).await;
                there.send_replace(Vec::new());
                server.stop().await.unwrap();
                server = replicas.serve().await;
                there.send_replace(vec![server.grpc]);
            }
            server
        }
    });
    let heard = talk(&speech, To::Any(list, Noise::new(1))).await.unwrap();
    let server = moving.await.unwrap();
    assert!(heard.drains == 2 && heard.resumes >= 2, "{heard:?}");
    assert_store_is_as_heard(server.grpc, &heard).await;
    assert_as_uninterrupted("drained", &heard.answer, &uninterrupted().await);
}

async fn a_stream_that_lost_its_connection_goes_on_elsewhere(place: &Place) {
    let replicas = Replicas::new(place);
    let first = replicas.serve().await;
    let data = data();
    // In the middle of a silence, with both rules in force.
    let (said, unsaid) = data.split_at(data.len() / 2 / 3_200 * 3_200);
    let (wire, mut broken) = cut_off(&first, config()).await;
    for request in chunks(said, 3_200) {
        broken.say(request).await;
    }
    let mut heard = Vec::new();
    let mut kept = 0;
    let mut checkpoint = None;
    while checkpoint
        .as_ref()
        .is_none_or(|checkpoint: &v1::Checkpoint| seconds(checkpoint.point.unwrap().position) < 9.0)
    {
        match broken.next().await.unwrap().unwrap() {
            Response::Checkpoint(one) => {
                checkpoint = Some(one);
                kept = heard.len();
            }
            other => heard.push(other),
        }
    }
    let checkpoint = checkpoint.unwrap();
    let point = checkpoint.point.unwrap();
    assert!(seconds(checkpoint.valid_for) > 100.0);
    heard.truncate(kept);
    wire.cut().await;
    until("the session has gone", async || first.sessions().await.is_empty()).await;
    let second = if place.kind == Database::Sqlite {
        first.stop().await.unwrap();
        replicas.serve().await
    } else {
        let second = replicas.serve().await;
        drop(first);
        second
    };
    let resumed =
        v1::StreamConfig { resume_token: checkpoint.resume_token, ..v1::StreamConfig::default() };
    let rest = [&said[point.audio_bytes as usize..], unsaid].concat();
    let answer = stream(&second.client().await, resumed, chunks(&rest, 3_200)).await.fine();
    assert_eq!(answer.started().session_id, "call");
    assert_eq!(answer.started().resumed_from, Some(point));
    assert_eq!(answer.started().policy.as_ref().unwrap().name, "quiet");
    heard.extend(answer.responses);
    let answer = Answer { responses: heard, status: None };
    let heard = Heard { answer, breaks: 1, drains: 0, resumes: 1 };
    assert_store_is_as_heard(second.grpc, &heard).await;
    assert_as_uninterrupted("broken", &heard.answer, &uninterrupted().await);
}

async fn a_session_nobody_goes_on_with_has_ended(place: &Place) {
    let replicas = Replicas::new(place);
    let server = replicas.serve_with(Duration::from_secs(1)).await;
    let (wire, mut talk) = cut_off(&server, config()).await;
    for request in chunks(&encode(&vec![0.0; 40_000], PLAIN.encoding), 3_200) {
        talk.say(request).await;
    }
    let mut raised = 0;
    while raised < 2 {
        let event = talk.next().await.unwrap().unwrap();
        raised += usize::from(matches!(event, Response::Escalation(_)));
    }
    // As long as it is there it is alive, however long it says nothing.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let in_force =
        |all: &[v1::Escalation]| all.iter().filter(|e| e.session_ended_at.is_none()).count();
    assert_eq!(in_force(&escalations(server.grpc).await), 2);
    // With a checkpoint that is still taken.
    talk.say(audio(encode(&vec![0.0; 16_000], PLAIN.encoding))).await;
    talk.say(mark("checked")).await;
    while !matches!(talk.next().await.unwrap().unwrap(), Response::Mark(_)) {}
    wire.cut().await;
    until("both have ended", async || in_force(&escalations(server.grpc).await) == 0).await;
    for escalation in escalations(server.grpc).await {
        let history = history(server.grpc, &escalation.id).await;
        let last = history.last().unwrap();
        let ended = if escalation.rule == "quieter" { Kind::Cleared } else { Kind::Updated };
        assert_eq!(last.kind(), ended);
        assert!(last.note.contains("nobody has gone on"), "{}", last.note);
    }
}

async fn an_acknowledgement_between_two_streams_is_told_in_the_second(place: &Place) {
    let replicas = Replicas::new(place);
    let server = replicas.serve().await;
    let (wire, mut talk) = cut_off(&server, config()).await;
    for request in chunks(&encode(&vec![0.0; 80_000], PLAIN.encoding), 3_200) {
        talk.say(request).await;
    }
    let mut checkpoint = None;
    while checkpoint
        .as_ref()
        .is_none_or(|checkpoint: &v1::Checkpoint| seconds(checkpoint.point.unwrap().position) < 3.0)
    {
        if let Response::Checkpoint(one) = talk.next().await.unwrap().unwrap() {
            checkpoint = Some(one);
        }
    }
    wire.cut().await;
    until("the session has gone", async || server.sessions().await.is_empty()).await;
    let quiet = escalations(server.grpc).await.into_iter().find(|e| e.rule == "quiet").unwrap();
    let mut service = EscalationServiceClient::new(channel(server.grpc).await);
    let acknowledge = v1::AcknowledgeEscalationRequest {
        id: quiet.id.clone(),
        actor: "nurse".to_owned(),
        note: String::new(),
    };
    service.acknowledge_escalation(acknowledge).await.unwrap();
    let resumed = v1::StreamConfig { resume_token: checkpoint.unwrap().resume_token, ..config() };
    let mut again = Talk::open(&server.client().await, resumed).await;
    let Response::Escalation(event) = again.next().await.unwrap().unwrap() else {
        panic!("something else came first")
    };
    assert_eq!(event.kind(), Kind::Acknowledged);
    assert_eq!((event.actor.as_str(), event.escalation.unwrap().id), ("nurse", quiet.id));
}

/// The server is killed before a checkpoint covers what was raised, somebody takes it on, and only then the
/// stream goes on: it is raised a second time, and the acknowledgement has to be told with it.
async fn an_acknowledgement_before_its_escalation_is_raised_again_is_told(place: &Place) {
    let replicas = Replicas::new(place);
    let server = replicas.serve().await;
    let (wire, mut talk) = cut_off(&server, config()).await;
    let silence = encode(&vec![0.0; 80_000], PLAIN.encoding);
    let mut first = None;
    for request in chunks(&silence, 3_200) {
        talk.say(request).await;
    }
    let raised = loop {
        match talk.next().await.unwrap().unwrap() {
            Response::Checkpoint(one) if first.is_none() => first = Some(one),
            Response::Escalation(event) if event.kind() == Kind::Raised => {
                break event.escalation.unwrap();
            }
            _ => {}
        }
    };
    wire.cut().await;
    until("the session has gone", async || server.sessions().await.is_empty()).await;
    let mut service = EscalationServiceClient::new(channel(server.grpc).await);
    let acknowledge = v1::AcknowledgeEscalationRequest {
        id: raised.id.clone(),
        actor: "nurse".to_owned(),
        note: String::new(),
    };
    service.acknowledge_escalation(acknowledge).await.unwrap();
    let first = first.expect("there is one each second, and this takes longer");
    let rest = &silence[first.point.unwrap().audio_bytes as usize..];
    let answer = stream(&server.client().await, resumed(&first), chunks(rest, 3_200)).await.fine();
    let about = |event: &&v1::EscalationEvent| {
        event.escalation.as_ref().is_some_and(|escalation| escalation.id == raised.id)
    };
    let events = answer.escalations();
    let kinds: Vec<Kind> = events.into_iter().filter(about).map(|event| event.kind()).collect();
    assert_eq!(kinds[..2], [Kind::Raised, Kind::Acknowledged]);
}

/// A stream, and its first checkpoint.
async fn checkpointed(server: &Server, config: v1::StreamConfig) -> (Talk, v1::Checkpoint) {
    let mut talk = Talk::open(&server.client().await, config).await;
    talk.say(audio(encode(&speech(1, 1.5, 16_000), PLAIN.encoding))).await;
    loop {
        if let Response::Checkpoint(checkpoint) = talk.next().await.unwrap().unwrap() {
            return (talk, checkpoint);
        }
    }
}

fn plain() -> v1::StreamConfig {
    v1::StreamConfig { checkpoint_interval: duration(1.0), ..PLAIN.config() }
}

fn resumed(checkpoint: &v1::Checkpoint) -> v1::StreamConfig {
    v1::StreamConfig {
        resume_token: checkpoint.resume_token.clone(),
        ..v1::StreamConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_has_missed_yet_is_taken_over() {
    let server = Server::start().await;
    let (mut before, checkpoint) = checkpointed(&server, plain()).await;
    let after = Talk::open(&server.client().await, resumed(&checkpoint)).await;
    let error = before.next().await.unwrap_err();
    assert_error(&error, Code::Aborted, "TAKEN_OVER", None);
    assert_eq!(server.sessions().await.len(), 1);
    after.close().await.fine();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_gone_on_with_is_refused_with_the_remedy() {
    let server = Server::start().await;
    let (talk, checkpoint) = checkpointed(&server, plain()).await;
    let field = Some("config.resume_token");
    let ask = async |server: &Server, config| stream(&server.client().await, config, []).await;
    let mut damaged = resumed(&checkpoint);
    damaged.resume_token = {
        let mut bytes = damaged.resume_token.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes.into()
    };
    let answer = ask(&server, damaged).await;
    assert_error(answer.error(), Code::InvalidArgument, "RESUME_TOKEN_INVALID", field);
    let nonsense = v1::StreamConfig { resume_token: vec![7; 500].into(), ..Default::default() };
    let answer = ask(&server, nonsense).await;
    assert_error(answer.error(), Code::InvalidArgument, "RESUME_TOKEN_INVALID", field);
    // Another server has another key, unless both are told one.
    let other = Server::start().await;
    let answer = ask(&other, resumed(&checkpoint)).await;
    assert_error(answer.error(), Code::FailedPrecondition, "RESUME_KEY_UNKNOWN", field);
    let off = Server::with(|settings| settings.resume_window = ms(0)).await;
    let answer = ask(&off, resumed(&checkpoint)).await;
    assert_error(answer.error(), Code::FailedPrecondition, "NO_CHECKPOINTS", field);
    let answer = ask(&off, plain()).await;
    assert_error(answer.error(), Code::FailedPrecondition, "NO_CHECKPOINTS", None);
    for changed in [
        v1::StreamConfig { model: "tiny-window".to_owned(), ..resumed(&checkpoint) },
        v1::StreamConfig { min_confidence: Some(0.9), ..plain() },
    ] {
        let config = v1::StreamConfig { resume_token: checkpoint.resume_token.clone(), ..changed };
        let answer = ask(&server, config).await;
        assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", Some("config"));
    }
    let named = v1::StreamConfig { session_id: "another".to_owned(), ..resumed(&checkpoint) };
    let answer = ask(&server, named).await;
    let field = Some("config.session_id");
    assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", field);
    // None of that has disturbed it.
    talk.close().await.fine();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_runs_out() {
    let server = Server::with(|settings| settings.resume_window = ms(1_000)).await;
    let (_talk, checkpoint) = checkpointed(&server, plain()).await;
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let answer = stream(&server.client().await, resumed(&checkpoint), []).await;
    let field = Some("config.resume_token");
    assert_error(answer.error(), Code::FailedPrecondition, "RESUME_TOKEN_EXPIRED", field);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_checkpoints_is_heard_out_when_the_server_drains() {
    let server = Server::start().await;
    let mut talk = Talk::open(&server.client().await, PLAIN.config()).await;
    talk.say(audio(encode(&speech(1, 2.0, 16_000), PLAIN.encoding))).await;
    while !matches!(talk.next().await.unwrap().unwrap(), Response::Estimate(_)) {}
    let stopped = tokio::spawn(server.stop());
    let answer = read(talk.responses).await.fine();
    assert!(answer.draining()[0].checkpoint.is_none());
    assert_eq!(answer.utterances().len(), 1, "the open utterance is ended and told");
    stopped.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_behind_a_checkpoint_are_sent_again_whatever_they_are() {
    let server = Server::start().await;
    let client = server.client().await;
    let mut requests = chunks(&encode(&speech(3, 6.0, 16_000), PLAIN.encoding), 3_200);
    for at in (3..58).step_by(5).rev() {
        requests.insert(at, turn(v1::turn::Boundary::End));
        requests.insert(at + 2, mark(&format!("behind {at}")));
    }
    let whole = stream(&client, plain(), requests.clone()).await.fine();
    let (wire, mut broken) = cut_off(&server, plain()).await;
    for request in &requests[..50] {
        broken.say(request.clone()).await;
    }
    let mut heard = Vec::new();
    let checkpoint = loop {
        match broken.next().await.unwrap().unwrap() {
            Response::Checkpoint(one) if seconds(one.point.unwrap().position) > 1.9 => break one,
            other => heard.push(other),
        }
    };
    wire.cut().await;
    let rest = &requests[checkpoint.point.unwrap().requests as usize..];
    let again = stream(&client, resumed(&checkpoint), rest.to_vec()).await.fine();
    heard.extend(again.responses);
    assert_as_uninterrupted("turns", &Answer { responses: heard, status: None }, &whole);
    assert!(whole.utterances().len() > 4, "{} are ended by turns", whole.utterances().len());
}

/// It has asked for checkpoints, and has none to go on from: it is heard out like one that has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_state_is_too_large_for_a_token_is_heard_out_when_the_server_drains() {
    let server = Server::with(|settings| settings.max_resume_token_bytes = 4096).await;
    let format = Format { channels: 8, ..PLAIN };
    let mut config = v1::StreamConfig { checkpoint_interval: duration(1.0), ..format.config() };
    config.audio.as_mut().unwrap().channel_mode = v1::ChannelMode::Separate.into();
    let mut talk = Talk::open(&server.client().await, config).await;
    let voices: Vec<Vec<f32>> = (0..8).map(|seed| speech(seed, 2.0, 16_000)).collect();
    talk.say(audio(encode(&interleave(&voices), PLAIN.encoding))).await;
    while !matches!(talk.next().await.unwrap().unwrap(), Response::Estimate(_)) {}
    let stopped = tokio::spawn(server.stop());
    let answer = read(talk.responses).await.fine();
    assert!(answer.draining()[0].checkpoint.is_none() && answer.checkpoints().is_empty());
    assert_eq!(answer.utterances().len(), 8, "the open utterances are ended and told");
    stopped.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lives_longer_than_until_the_next_one() {
    let server = Server::with(|settings| settings.resume_window = ms(4_000)).await;
    let config = v1::StreamConfig { checkpoint_interval: duration(60.0), ..PLAIN.config() };
    let chunk = encode(&speech(1, 1.0, 16_000), PLAIN.encoding);
    let answer = stream(&server.client().await, config, vec![audio(chunk); 5]).await.fine();
    let interval = answer.started().config.as_ref().unwrap().checkpoint_interval;
    assert_eq!(seconds(interval), 2.0);
    assert_eq!(answer.checkpoints().len(), 2);
}

/// Lines that `undertone stream` writes, and what it says besides.
async fn stream_command(port: u16, file: &std::path::Path) -> (Vec<serde_json::Value>, String) {
    let target = format!("127.0.0.1:{port}");
    let file = file.display().to_string();
    let args = ["stream", &file, "--target", &target, "--speed", "5", "--format", "json"];
    let mut command = undertone(&args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_command_goes_on_over_killed_and_drained_servers() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "a:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").unwrap();
    let file = folder.path().join("speech.wav");
    let samples: Vec<f32> = (0..8).flat_map(|seed| speech(seed, 3.0, 16_000)).collect();
    let samples = encode(&samples, PLAIN.encoding);
    std::fs::write(&file, wav(PLAIN.encoding, PLAIN.rate_hz, 1, &samples)).unwrap();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let keys = keys.display().to_string();
    let args = ["--grpc-address", &address, "--resume-keys", &keys];
    let mut process = Process::start(&args).await;
    let (whole, _) = stream_command(port, &file).await;
    let streaming = tokio::spawn({
        let file = file.clone();
        async move { stream_command(port, &file).await }
    });
    for signal in [Signal::KILL, Signal::TERM] {
        // A checkpoint comes every 5 s of audio, which is a second here.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        process.signal(signal);
        process.ended().await;
        process = Process::start(&args).await;
    }
    let (heard, said) = streaming.await.unwrap();
    assert!(said.matches("going on with the stream").count() >= 2, "{said}");
    let estimates = |events: &[serde_json::Value]| {
        let estimates = events.iter().filter(|event| event["event"] == "estimate");
        estimates.map(|event| (event["end"].clone(), event["emotion"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(estimates(&heard), estimates(&whole));
    assert_eq!(heard.last().unwrap(), whole.last().unwrap());
}
