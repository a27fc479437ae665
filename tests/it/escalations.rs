//! Escalations in a running server: policies, what a client is told, the service, the store going away and
//! coming back.

use std::collections::BTreeSet;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_client::HealthClient;
use undertone::config::StoreUrl;
use undertone::policy::Severity;
use undertone::wire::v1;
use undertone::wire::v1::EscalationEventKind as Kind;
use undertone::wire::v1::escalation_service_client::EscalationServiceClient;
use undertone::wire::v1::stream_config::Policy;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;
use undertone::wire::v1::warning::Reason;

use crate::database::{Place, on_both};
use crate::signal::{encode, speech};
use crate::support::{
    Answer, Client, PATIENCE, PLAIN, Server, Talk, assert_error, audio, channel, chunks, http_get,
    ms, seconds, stream, until,
};

on_both! {
    a_policy_raises_and_clears_and_all_of_it_is_in_the_store,
    an_acknowledgement_reaches_the_stream_whoever_gives_it,
    a_watch_misses_nothing_across_reconnects,
    a_session_that_vanishes_leaves_its_escalation_to_others,
}

fn plain(samples: &[f32]) -> Vec<u8> {
    encode(samples, PLAIN.encoding)
}

type Service = EscalationServiceClient<Channel>;

/// Says after a second without voice.
pub(crate) const QUIET: &str = "
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
";

fn quiet() -> v1::StreamConfig {
    v1::StreamConfig {
        policy: Some(Policy::PolicyYaml(QUIET.to_owned())),
        labels: [("ward".to_owned(), "7".to_owned())].into(),
        ..PLAIN.config()
    }
}

/// A second of silence is noticed twice: 2 s of speech, 3 s of silence, 2 s of speech, 3 s of silence, speech.
fn talk_with_pauses() -> Vec<u8> {
    let mut samples = Vec::new();
    for seed in 0..2 {
        samples.extend(speech(seed, 2.0, 16_000));
        samples.extend(vec![0.0; 3 * 16_000]);
    }
    samples.extend(speech(9, 2.0, 16_000));
    plain(&samples)
}

async fn server(place: &Place) -> Server {
    let url = place.url.clone();
    Server::with(|settings| {
        settings.escalation_store = StoreUrl(url);
        settings.watch_poll = ms(50);
        settings.delivery_poll = ms(20);
        settings.watch_heartbeat = ms(200);
    })
    .await
}

async fn service(server: &Server) -> Service {
    Service::new(channel(server.grpc).await)
}

fn kinds(answer: &Answer) -> Vec<Kind> {
    answer.escalations().iter().map(|event| event.kind()).collect()
}

async fn all(service: &mut Service) -> Vec<v1::Escalation> {
    let listed = service.list_escalations(v1::ListEscalationsRequest::default()).await.unwrap();
    listed.into_inner().escalations
}

async fn get(service: &mut Service, id: &str) -> v1::GetEscalationResponse {
    let request = v1::GetEscalationRequest { id: id.to_owned() };
    service.get_escalation(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_server_without_a_store_says_so() {
    let server = Server::with(|_| {}).await;
    let request = v1::ListEscalationsRequest::default();
    let status = service(&server).await.list_escalations(request).await.unwrap_err();
    assert_error(&status, Code::FailedPrecondition, "NO_ESCALATION_STORE", None);
    assert!(status.message().contains("escalation_store"));
}

async fn a_policy_raises_and_clears_and_all_of_it_is_in_the_store(place: &Place) {
    let server = server(place).await;
    let data = talk_with_pauses();
    let answer = stream(&server.client().await, quiet(), chunks(&data, 3_200)).await.fine();
    assert_eq!(answer.started().policy.as_ref().unwrap().name, "quiet");
    assert_eq!(
        kinds(&answer),
        [Kind::Raised, Kind::Updated, Kind::Cleared, Kind::Raised, Kind::Updated, Kind::Cleared]
    );
    let events = answer.escalations();
    assert!(events.iter().all(|event| event.durable && !event.id.is_empty()));
    let first = events[0].escalation.as_ref().unwrap();
    assert_eq!(first.reason, "no voice for 1 s");
    assert_eq!(first.labels["ward"], "7");
    assert_eq!(first.severity(), v1::Severity::Medium);
    let onset = seconds(first.onset);
    assert!((2.9..3.6).contains(&onset), "a second after the voice ends, at {onset}");
    // Estimates carry what is in force, and only then.
    let mut in_force = String::new();
    for response in &answer.responses {
        match response {
            Response::Escalation(event) if event.kind() == Kind::Raised => {
                in_force.clone_from(&event.escalation.as_ref().unwrap().id);
            }
            Response::Escalation(event) if event.kind() == Kind::Cleared => in_force.clear(),
            Response::Estimate(e) if in_force.is_empty() => {
                assert!(e.escalation_ids.is_empty());
                assert_eq!(e.escalation_severity(), v1::Severity::Unspecified);
            }
            Response::Estimate(e) => {
                assert_eq!(e.escalation_ids, [in_force.clone()]);
                assert_eq!(e.escalation_severity(), v1::Severity::Medium);
            }
            _ => {}
        }
    }
    let mut service = service(&server).await;
    let listed = all(&mut service).await;
    assert_eq!(listed.len(), 2);
    let found = get(&mut service, &first.id).await;
    let told: Vec<&v1::EscalationEvent> = events.into_iter().take(3).collect();
    assert_eq!(found.history.iter().collect::<Vec<_>>(), told);
    assert_eq!(found.escalation.unwrap().state(), v1::EscalationState::Cleared);

    // The same conversation again, in other chunks: the same decisions, so nothing is raised twice.
    let ids = |answer: &Answer| -> Vec<String> {
        answer.escalations().iter().map(|event| event.id.clone()).collect()
    };
    for size in [63, 701, 9_999, 100_000] {
        let session_id = answer.started().session_id.clone();
        let config = v1::StreamConfig { session_id, ..quiet() };
        let again = stream(&server.client().await, config, chunks(&data, size)).await.fine();
        assert_eq!(ids(&again), ids(&answer), "chunks of {size} bytes");
    }
    assert_eq!(all(&mut service).await.len(), 2);
    server.stop().await.unwrap();
}

/// Streams until the first escalation; it stays in force, since nothing more is sent.
async fn raised(client: &Client) -> (Talk, v1::Escalation) {
    let mut talk = Talk::open(client, quiet()).await;
    talk.say(audio(plain(&speech(1, 2.0, 16_000)))).await;
    talk.say(audio(plain(&vec![0.0; 2 * 16_000]))).await;
    loop {
        let next = talk.next().await.unwrap().expect("the stream is open");
        if let Response::Escalation(event) = next {
            return (talk, event.escalation.unwrap());
        }
    }
}

async fn next_escalation(talk: &mut Talk) -> v1::EscalationEvent {
    loop {
        match talk.next().await.unwrap().expect("the stream is open") {
            Response::Escalation(event) => return *event,
            Response::Warning(warning) => panic!("{warning:?}"),
            _ => {}
        }
    }
}

fn acknowledge(id: &str) -> Request {
    Request::Acknowledge(v1::Acknowledge {
        escalation_id: id.to_owned(),
        actor: "agent".to_owned(),
        note: "asking how they are".to_owned(),
    })
}

async fn an_acknowledgement_reaches_the_stream_whoever_gives_it(place: &Place) {
    let server = server(place).await;
    let client = server.client().await;
    let mut service = service(&server).await;

    let (mut talk, escalation) = raised(&client).await;
    talk.say(acknowledge(&escalation.id)).await;
    let told = next_escalation(&mut talk).await;
    assert_eq!((told.kind(), told.actor.as_str()), (Kind::Acknowledged, "agent"));
    let state = told.escalation.unwrap().state();
    assert_eq!(state, v1::EscalationState::Acknowledged);
    // A second time changes nothing, here or there.
    talk.say(acknowledge(&escalation.id)).await;
    let request = v1::AcknowledgeEscalationRequest {
        id: escalation.id.clone(),
        actor: "nurse".to_owned(),
        note: String::new(),
    };
    let again = service.acknowledge_escalation(request).await.unwrap().into_inner();
    assert!(again.already);
    assert_eq!(again.escalation.unwrap().acknowledged_by, "agent");
    let rest = talk.close().await.fine();
    assert_eq!(kinds(&rest), [Kind::Updated], "only that the session has ended");

    let (mut talk, escalation) = raised(&client).await;
    let request = v1::AcknowledgeEscalationRequest {
        id: escalation.id.clone(),
        actor: "nurse".to_owned(),
        note: "on my way".to_owned(),
    };
    assert!(!service.acknowledge_escalation(request).await.unwrap().into_inner().already);
    let told = next_escalation(&mut talk).await;
    assert_eq!((told.kind(), told.actor.as_str()), (Kind::Acknowledged, "nurse"));
    // One that is another stream's is not this one's to take.
    let (other, foreign) = raised(&client).await;
    talk.say(acknowledge(&foreign.id)).await;
    let refused = loop {
        if let Some(Response::Warning(warning)) = talk.next().await.unwrap() {
            break warning;
        }
    };
    assert_eq!(refused.reason(), Reason::NotAcknowledged);
    drop((talk, other));

    let mut wrong = async |id: &str, actor: &str| {
        let (id, actor) = (id.to_owned(), actor.to_owned());
        let request = v1::AcknowledgeEscalationRequest { id, actor, note: String::new() };
        service.acknowledge_escalation(request).await.unwrap_err()
    };
    let status = wrong("7", "").await;
    assert_error(&status, Code::InvalidArgument, "INVALID_REQUEST", Some("id"));
    assert_error(&status, Code::InvalidArgument, "INVALID_REQUEST", Some("actor"));
    let status = wrong(&uuid::Uuid::nil().to_string(), "nurse").await;
    assert_error(&status, Code::NotFound, "ESCALATION_NOT_FOUND", Some("id"));
    server.stop().await.unwrap();
}

/// Reads events until `count` have come; gives them and the last cursor.
async fn watched(
    watch: &mut Streaming<v1::WatchEscalationsResponse>,
    count: usize,
) -> (Vec<v1::EscalationEvent>, String) {
    let (mut events, mut cursor) = (Vec::new(), String::new());
    while events.len() < count || cursor.is_empty() {
        let message = tokio::time::timeout(PATIENCE, watch.message()).await.expect("no event");
        let message = message.unwrap().expect("the watch is open");
        cursor = message.cursor;
        events.extend(message.event);
    }
    (events, cursor)
}

async fn a_watch_misses_nothing_across_reconnects(place: &Place) {
    let server = server(place).await;
    let client = server.client().await;
    let mut service = service(&server).await;
    let open = async |service: &mut Service, request: v1::WatchEscalationsRequest| {
        service.watch_escalations(request).await.unwrap().into_inner()
    };
    let mut live = open(&mut service, v1::WatchEscalationsRequest::default()).await;
    // The heartbeat says that it has begun.
    let (_, start) = watched(&mut live, 0).await;
    let answer = stream(&client, quiet(), chunks(&talk_with_pauses(), 3_200)).await.fine();
    let told: Vec<String> = answer.escalations().iter().map(|event| event.id.clone()).collect();
    let ids = |events: &[v1::EscalationEvent]| -> Vec<String> {
        events.iter().map(|event| event.id.clone()).collect()
    };
    let (events, _) = watched(&mut live, told.len()).await;
    assert_eq!(ids(&events), told);
    drop(live);
    // In pieces, each watch going on where the one before stopped.
    let (mut seen, mut cursor) = (Vec::new(), start);
    while seen.len() < told.len() {
        let request = v1::WatchEscalationsRequest { cursor, ..Default::default() };
        let mut watch = open(&mut service, request).await;
        let (events, at) = watched(&mut watch, 2).await;
        seen.extend(ids(&events));
        cursor = at;
    }
    assert_eq!(seen, told);
    // A filter holds, and the cursor goes on behind what it leaves out.
    let filter = v1::EscalationFilter {
        states: vec![v1::EscalationState::Cleared.into()],
        ..v1::EscalationFilter::default()
    };
    let request = v1::WatchEscalationsRequest {
        filter: Some(filter),
        from_start: true,
        ..v1::WatchEscalationsRequest::default()
    };
    let (cleared, _) = watched(&mut open(&mut service, request).await, 2).await;
    assert!(cleared.iter().all(|event| event.kind() == Kind::Cleared));
    let request = v1::WatchEscalationsRequest { cursor: "x".into(), ..Default::default() };
    let status = service.watch_escalations(request).await.unwrap_err();
    assert_error(&status, Code::InvalidArgument, "INVALID_REQUEST", Some("cursor"));
    // A server that ends tells its watchers.
    let mut last = open(&mut service, v1::WatchEscalationsRequest::default()).await;
    watched(&mut last, 0).await;
    server.stop.cancel();
    let status = loop {
        match tokio::time::timeout(PATIENCE, last.message()).await.expect("no end") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a word"),
            Err(status) => break status,
        }
    };
    assert_error(&status, Code::Unavailable, "DRAINING", None);
    server.ended().await.unwrap();
}

async fn a_session_that_vanishes_leaves_its_escalation_to_others(place: &Place) {
    let server = server(place).await;
    let (talk, escalation) = raised(&server.client().await).await;
    drop(talk);
    let mut service = service(&server).await;
    until("the session's end is recorded", async || {
        let found = get(&mut service, &escalation.id).await;
        found.escalation.unwrap().session_ended_at.is_some()
    })
    .await;
    let found = get(&mut service, &escalation.id).await;
    assert_eq!(found.escalation.unwrap().state(), v1::EscalationState::Raised);
    assert!(found.history.last().unwrap().note.contains("session ended"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_picks_a_policy_by_name_or_brings_one_within_what_is_allowed() {
    let place = Place::new(crate::database::Kind::Sqlite).await;
    let url = place.url.clone();
    let server = Server::with(|settings| {
        settings.escalation_store = StoreUrl(url);
        settings.default_policy = "care-call".to_owned();
        settings.inline_policy_severity = Severity::Low;
    })
    .await;
    let client = server.client().await;
    let with = |policy| v1::StreamConfig { policy, ..PLAIN.config() };
    let name_of = |answer: &Answer| answer.started().policy.as_ref().unwrap().name.clone();
    let answer = stream(&client, with(None), []).await.fine();
    assert_eq!(name_of(&answer), "care-call");
    assert!(answer.started().policy.as_ref().unwrap().is_default);
    let none = v1::StreamConfig { no_policy: true, ..PLAIN.config() };
    assert_eq!(stream(&client, none.clone(), []).await.fine().started().policy, None);
    let named = Some(Policy::PolicyName("contact-centre".into()));
    let both = v1::StreamConfig { policy: named.clone(), ..none };
    let answer = stream(&client, both, []).await;
    let field = Some("config.no_policy");
    assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", field);
    assert_eq!(name_of(&stream(&client, with(named), []).await.fine()), "contact-centre");
    let unknown = Some(Policy::PolicyName("nope".into()));
    let answer = stream(&client, with(unknown), []).await;
    let field = Some("config.policy_name");
    assert_error(answer.error(), Code::NotFound, "POLICY_NOT_FOUND", field);
    assert!(answer.error().message().contains("classroom-tutor"), "{:?}", answer.error());
    let field = Some("config.policy_yaml");
    let inline = |text: &str| with(Some(Policy::PolicyYaml(text.to_owned())));
    let answer = stream(&client, inline(QUIET), []).await;
    assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", field);
    assert!(answer.error().message().contains("inline_policy_severity"));
    let low = QUIET.replace("medium", "low");
    assert_eq!(name_of(&stream(&client, inline(&low), []).await.fine()), "quiet");
    let answer = stream(&client, inline(&low.replace("1s", "soon")), []).await;
    assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", field);
    assert!(answer.error().message().contains("line 11"), "{}", answer.error().message());
    let listed = client.clone().list_policies(v1::ListPoliciesRequest {}).await.unwrap();
    let names: Vec<String> = listed.into_inner().policies.into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["care-call", "classroom-tutor", "contact-centre"]);
    server.stop().await.unwrap();

    let url = place.url.clone();
    let server = Server::with(|settings| {
        settings.escalation_store = StoreUrl(url);
        settings.inline_policies = false;
    })
    .await;
    let client = server.client().await;
    assert!(stream(&client, with(None), []).await.fine().started().policy.is_none());
    let answer = stream(&client, inline(&low), []).await;
    assert_error(answer.error(), Code::PermissionDenied, "INLINE_POLICY_REFUSED", field);
    let none = acknowledge(&uuid::Uuid::nil().to_string());
    let answer = stream(&client, with(None), [none]).await;
    assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", Some("acknowledge"));
    server.stop().await.unwrap();

    let server = Server::start().await;
    let client = server.client().await;
    let answer = stream(&client, inline(&low), []).await;
    assert_error(answer.error(), Code::FailedPrecondition, "NO_ESCALATION_STORE", None);
}

#[tokio::test]
async fn two_servers_do_not_share_a_file() {
    let place = Place::new(crate::database::Kind::Sqlite).await;
    let first = server(&place).await;
    let _ = service(&first).await;
    let error = server(&place).await.ended().await.unwrap_err();
    assert!(error.to_string().contains("in use by another server"), "{error}");
    first.stop().await.unwrap();
    server(&place).await.stop().await.unwrap();
}

#[tokio::test]
async fn policies_of_a_folder_are_read_again_and_a_bad_one_leaves_the_old() {
    let place = Place::new(crate::database::Kind::Sqlite).await;
    let folder = place.folder.path().join("policies");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("quiet.yaml");
    std::fs::write(&file, QUIET).unwrap();
    let url = place.url.clone();
    let at = folder.clone();
    let server = Server::with(|settings| {
        settings.escalation_store = StoreUrl(url);
        settings.policies = at;
        settings.policy_reload = ms(50);
    })
    .await;
    let client = server.client().await;
    let version = async || {
        let listed = client.clone().list_policies(v1::ListPoliciesRequest {}).await.unwrap();
        let policies = listed.into_inner().policies;
        policies.into_iter().find(|p| p.name == "quiet").map(|p| p.version)
    };
    let first = version().await.unwrap();
    std::fs::write(&file, QUIET.replace("version: '1'", "version: '2'")).unwrap();
    until("the new one is in force", async || version().await != Some(first.clone())).await;
    let second = version().await.unwrap();
    assert!(second.starts_with("2+"));
    std::fs::write(&file, "name: [").unwrap();
    // A good one beside it shows when the folder has been looked at again.
    let other = QUIET.replace("name: quiet\nversion", "name: other\nversion");
    std::fs::write(folder.join("other.yaml"), other).unwrap();
    until("the folder was read", async || {
        let listed = client.clone().list_policies(v1::ListPoliciesRequest {}).await.unwrap();
        listed.into_inner().policies.iter().any(|p| p.name == "other")
    })
    .await;
    assert_eq!(version().await, Some(second));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn while_the_store_is_down_the_stream_goes_on_and_nothing_is_dropped() {
    let place = Place::new(crate::database::Kind::Sqlite).await;
    // A folder that is not there yet.
    let folder = place.folder.path().join("later");
    let url = format!("sqlite:{}", folder.join("undertone.db").display());
    let server = Server::with(|settings| {
        settings.escalation_store = StoreUrl(url);
        settings.delivery_poll = ms(20);
        settings.watch_poll = ms(50);
    })
    .await;
    let client = server.client().await;
    let mut service = service(&server).await;
    let mut talk = Talk::open(&client, quiet()).await;
    talk.say(audio(plain(&speech(1, 2.0, 16_000)))).await;
    talk.say(audio(plain(&vec![0.0; 2 * 16_000]))).await;
    let mut warned = false;
    let escalation = loop {
        match talk.next().await.unwrap().expect("the stream is open") {
            Response::Warning(w) if w.reason() == Reason::EscalationsNotDurable => warned = true,
            Response::Escalation(event) => {
                assert!(warned, "first that it is not durable, then what is not");
                assert!(!event.durable && event.id.is_empty());
                break event.escalation.unwrap();
            }
            _ => {}
        }
    };
    talk.say(acknowledge(&escalation.id)).await;
    let refused = loop {
        if let Some(Response::Warning(warning)) = talk.next().await.unwrap() {
            break warning;
        }
    };
    assert_eq!(refused.reason(), Reason::NotAcknowledged);
    let (status, body) = http_get(server.http, "/readyz").await;
    assert_eq!(status, 200, "streams go on");
    assert!(body.contains("degraded") && body.contains("must exist"), "{body}");
    let status = service.list_escalations(v1::ListEscalationsRequest::default()).await.unwrap_err();
    assert_error(&status, Code::Unavailable, "STORE_DOWN", None);
    let mut health = HealthClient::new(channel(server.grpc).await);
    let mut serving = async |name: &str| {
        let request = tonic_health::pb::HealthCheckRequest { service: name.to_owned() };
        health.check(request).await.unwrap().into_inner().status
    };
    assert_eq!(serving("undertone.v1.EscalationService").await, 2, "NOT_SERVING");
    assert_eq!(serving("undertone.v1.EmotionService").await, 1, "SERVING");

    std::fs::create_dir(&folder).unwrap();
    let mut durable = false;
    while !durable {
        match talk.next().await.unwrap().expect("the stream is open") {
            Response::Escalation(event) => {
                assert!(event.durable);
                assert_eq!(event.escalation.unwrap().id, escalation.id);
            }
            Response::Warning(warning) => {
                assert_eq!(warning.reason(), Reason::EscalationsDurable);
                durable = true;
            }
            _ => {}
        }
    }
    assert_eq!(all(&mut service).await.len(), 1);
    until("health is back", async || {
        serving("undertone.v1.EscalationService").await == 1
            && http_get(server.http, "/readyz").await.1 == "ready\n"
    })
    .await;
    talk.close().await.fine();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_server_records_last_is_committed_before_it_ends() {
    let place = Place::new(crate::database::Kind::Sqlite).await;
    let first = server(&place).await;
    let client = first.client().await;
    let mut talks = Vec::new();
    for _ in 0..5 {
        talks.push(raised(&client).await);
    }
    first.stop().await.unwrap();
    let second = server(&place).await;
    let mut service = service(&second).await;
    let listed = all(&mut service).await;
    let ids: BTreeSet<&str> = listed.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, talks.iter().map(|(_, e)| e.id.as_str()).collect());
    assert!(listed.iter().all(|e| e.session_ended_at.is_some()), "drained streams have ended");
    tokio::time::timeout(Duration::from_secs(5), second.stop()).await.unwrap().unwrap();
}
