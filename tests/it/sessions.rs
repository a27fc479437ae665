//! Live sessions, as those see them who did not open them.

use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use undertone::config::StoreUrl;
use undertone::wire::v1;
use undertone::wire::v1::session_service_client::SessionServiceClient;
use undertone::wire::v1::stream_config::Policy;
use undertone::wire::v1::stream_emotion_response::Message as Response;
use undertone::wire::v1::watch_session_response::Message as Watched;

use crate::escalations::QUIET;
use crate::pki::{Bearing, Site, caller, hash};
use crate::signal::{encode, speech};
use crate::support::{
    Client, PATIENCE, PLAIN, Server, Talk, assert_error, chunks, duration, mark, ms, seconds, until,
};

type Service = SessionServiceClient<InterceptedService<Channel, Bearing>>;

async fn service(server: &Server, token: Option<&str>) -> Service {
    let bearing = Bearing(token.map(|token| format!("Bearer {token}")));
    SessionServiceClient::with_interceptor(crate::support::channel(server.grpc).await, bearing)
}

fn named(id: &str) -> v1::StreamConfig {
    v1::StreamConfig { session_id: id.to_owned(), ..PLAIN.config() }
}

/// Says it, and waits until it has been heard: what the client was told meanwhile.
async fn say(talk: &mut Talk, samples: &[f32]) -> Vec<Response> {
    for chunk in chunks(&encode(samples, PLAIN.encoding), 3_200) {
        talk.say(chunk).await;
    }
    talk.say(mark("heard")).await;
    let mut told = Vec::new();
    loop {
        match talk.next().await.unwrap().expect("the stream is open") {
            Response::Mark(_) => return told,
            other => told.push(other),
        }
    }
}

fn estimates(told: &[Response]) -> Vec<v1::Estimate> {
    let estimate = |one: &Response| match one {
        Response::Estimate(estimate) => Some(estimate.as_ref().clone()),
        _ => None,
    };
    told.iter().filter_map(estimate).collect()
}

fn utterances(told: &[Response]) -> Vec<v1::Utterance> {
    let utterance = |one: &Response| match one {
        Response::Utterance(utterance) => Some(utterance.as_ref().clone()),
        _ => None,
    };
    told.iter().filter_map(utterance).collect()
}

async fn list(service: &mut Service, request: v1::ListSessionsRequest) -> Vec<String> {
    let listed = service.list_sessions(request).await.unwrap().into_inner();
    listed.sessions.into_iter().map(|session| session.id).collect()
}

async fn get(service: &mut Service, id: &str, history_s: f64) -> v1::GetSessionResponse {
    let request = v1::GetSessionRequest {
        id: id.to_owned(),
        history: duration(history_s),
        ..Default::default()
    };
    service.get_session(request).await.unwrap().into_inner()
}

/// Speech, a pause in which its utterance ends, speech.
fn conversation() -> Vec<f32> {
    let mut samples = speech(1, 3.0, 16_000);
    samples.extend(vec![0.0; 16_000]);
    samples.extend(speech(2, 2.0, 16_000));
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_session_is_seen_as_its_client_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let server = Server::with(|settings| settings.escalation_store = StoreUrl(store)).await;
    let mut service = service(&server, None).await;
    let config = v1::StreamConfig {
        labels: [("ward".to_owned(), "7".to_owned())].into(),
        policy: Some(Policy::PolicyYaml(QUIET.to_owned())),
        ..named("call")
    };
    let mut talk = Talk::open(&server.client().await, config).await;
    let mut told = say(&mut talk, &conversation()).await;
    told.extend(say(&mut talk, &[0.0; 24_000]).await);
    let (estimates, utterances) = (estimates(&told), utterances(&told));

    let got = get(&mut service, "call", 300.0).await;
    let (session, history) = (got.session.unwrap(), got.history.unwrap());
    assert_eq!((session.tenant.as_str(), session.identity.as_str()), ("default", "anonymous"));
    assert_eq!((session.policy.as_str(), session.labels["ward"].as_str()), ("quiet", "7"));
    assert_eq!(session.ingress(), v1::Ingress::Grpc);
    assert_eq!(seconds(session.audio), 7.5);
    assert_eq!(session.estimates, estimates.len() as u64);
    let latest = session.latest;
    assert_eq!(latest, [estimates.last().unwrap().clone()]);
    // A second of silence is an escalation, also where no estimate says so.
    assert_eq!((session.escalation_ids.len(), session.escalation_severity), (1, 3));

    assert_eq!(history.utterances, utterances);
    // One a second, each as it was.
    let kept = &history.estimates;
    assert!((4..=7).contains(&kept.len()) && kept.len() < estimates.len(), "{}", kept.len());
    for one in kept {
        let other = estimates.iter().find(|other| other.end == one.end).expect("it was told");
        assert_eq!(
            (one.start, one.evidence_end, one.speech),
            (other.start, other.evidence_end, other.speech)
        );
        let (affect, theirs) = (one.affect.as_ref().unwrap(), other.affect.as_ref().unwrap());
        for (score, their) in affect.scores.iter().zip(&theirs.scores) {
            assert_eq!(score.emotion, their.emotion);
            assert!((score.probability - their.probability).abs() <= 1.0 / 65_535.0);
        }
        assert!((affect.valence - theirs.valence).abs() < 1e-4);
    }
    // No more than is asked for; nothing, if nothing is.
    let end = seconds(kept.last().unwrap().end);
    let recent = get(&mut service, "call", 2.0).await.history.unwrap();
    assert!(recent.estimates.iter().all(|one| seconds(one.end) > end - 2.1));
    assert!(recent.estimates.len() < kept.len());
    assert_eq!(get(&mut service, "call", 0.0).await.history, None);

    talk.close().await.fine();
    let ended = async || get(&mut service, "call", 0.0).await.session.unwrap().ended_at.is_some();
    until("it has ended", ended).await;
    let after = get(&mut service, "call", 300.0).await;
    assert_eq!(after.session.unwrap().escalation_ids.len(), 1, "as it stood");
    assert!(after.history.unwrap().estimates.len() >= kept.len());
    let request = v1::GetSessionRequest { id: "nobody".to_owned(), ..Default::default() };
    let status = service.get_session(request).await.unwrap_err();
    assert_error(&status, Code::NotFound, "SESSION_NOT_FOUND", Some("id"));
}

async fn watch(
    service: &mut Service,
    id: &str,
    history_s: f64,
) -> Streaming<v1::WatchSessionResponse> {
    let request = v1::WatchSessionRequest {
        id: id.to_owned(),
        history: duration(history_s),
        ..Default::default()
    };
    service.watch_session(request).await.unwrap().into_inner()
}

async fn next(watch: &mut Streaming<v1::WatchSessionResponse>) -> Watched {
    let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("no news");
    next.unwrap().expect("the watch is open").message.expect("a message of ours")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_was_heard_then_what_is_heard_and_when_it_is_over() {
    let server = Server::with(|settings| settings.watch_heartbeat = ms(100)).await;
    let mut service = service(&server, None).await;
    let mut talk = Talk::open(&server.client().await, named("call")).await;
    say(&mut talk, &conversation()).await;
    let history = get(&mut service, "call", 300.0).await.history.unwrap();

    let mut watching = watch(&mut service, "call", 300.0).await;
    assert!(matches!(next(&mut watching).await, Watched::Session(session) if session.id == "call"));
    let (mut points, mut said) = (Vec::new(), Vec::new());
    while points.len() + said.len() < history.estimates.len() + history.utterances.len() {
        match next(&mut watching).await {
            Watched::Estimate(estimate) => points.push(estimate),
            Watched::Utterance(utterance) => said.push(utterance),
            other @ (Watched::Session(_) | Watched::Ended(_)) => panic!("{other:?}"),
        }
    }
    assert_eq!((points, said), (history.estimates, history.utterances));
    // Nothing happens: the session as it stands.
    assert!(matches!(next(&mut watching).await, Watched::Session(_)));

    let mut more = speech(3, 2.0, 16_000);
    more.extend(vec![0.0; 16_000]);
    let told = say(&mut talk, &more).await;
    let (mut seen, mut ended) = (Vec::new(), Vec::new());
    let last = estimates(&told).pop().unwrap();
    while seen.last() != Some(&last) || ended.is_empty() {
        match next(&mut watching).await {
            Watched::Estimate(estimate) => seen.push(estimate),
            Watched::Utterance(utterance) => ended.push(utterance),
            Watched::Session(_) => {}
            Watched::Ended(_) => panic!("it goes on"),
        }
    }
    // Estimates may be missed, utterances not.
    assert!(seen.iter().all(|one| estimates(&told).contains(one)));
    assert_eq!(ended, utterances(&told));

    talk.close().await.fine();
    while !matches!(next(&mut watching).await, Watched::Ended(_)) {}
    assert_eq!(watching.message().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_ends_watches_and_too_many_are_refused() {
    let server = Server::with(|settings| {
        settings.max_watchers = 2;
        settings.max_share = 1.0;
    })
    .await;
    let mut service = service(&server, None).await;
    let talk = Talk::open(&server.client().await, named("call")).await;
    let mut watches = Vec::new();
    for _ in 0..2 {
        watches.push(watch(&mut service, "call", 0.0).await);
    }
    let request = v1::WatchSessionRequest { id: "call".to_owned(), ..Default::default() };
    let status = service.watch_session(request).await.unwrap_err();
    assert_error(&status, Code::ResourceExhausted, "TOO_MANY_WATCHES", None);
    server.stop().await.unwrap();
    for mut watch in watches {
        let mut told = Vec::new();
        let status = loop {
            match tokio::time::timeout(PATIENCE, watch.message()).await.expect("it ends") {
                Ok(Some(message)) => told.push(message),
                // The session ended first, and that was told.
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        match status {
            Some(status) => {
                assert_error(&status, Code::Unavailable, "DRAINING", None);
            }
            None => assert!(matches!(told.pop().unwrap().message, Some(Watched::Ended(_)))),
        }
    }
    drop(talk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_listed_newest_first_page_by_page_and_by_label() {
    let server = Server::with(|_| {}).await;
    let mut service = service(&server, None).await;
    let client: Client = server.client().await;
    let mut talks = Vec::new();
    for n in 0..5 {
        let labels = [("parity".to_owned(), (n % 2).to_string())].into();
        let config = v1::StreamConfig { labels, ..named(&format!("call-{n}")) };
        talks.push(Talk::open(&client, config).await);
    }
    let mut request = v1::ListSessionsRequest { page_size: 2, ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = service.list_sessions(request.clone()).await.unwrap().into_inner();
        pages.push(page.sessions.into_iter().map(|session| session.id).collect::<Vec<_>>());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let expected = [&["call-4", "call-3"][..], &["call-2", "call-1"], &["call-0"]];
    assert_eq!(
        pages,
        expected.map(|page| page.iter().map(ToString::to_string).collect::<Vec<_>>())
    );
    let labels = [("parity".to_owned(), "1".to_owned())].into();
    let odd = v1::ListSessionsRequest { labels, ..Default::default() };
    assert_eq!(list(&mut service, odd).await, ["call-3", "call-1"]);
    let wrong = v1::ListSessionsRequest { page_token: "x".to_owned(), ..Default::default() };
    let status = service.list_sessions(wrong).await.unwrap_err();
    assert_error(&status, Code::InvalidArgument, "INVALID_REQUEST", Some("page_token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_watch_sees_the_sessions_of_its_own_tenant() {
    let site = Site::new();
    let mut identities = "identities:\n".to_owned();
    for (name, tenant, roles) in [
        ("ours", "tenant: ours", "stream, watch"),
        ("theirs", "tenant: theirs", "watch"),
        ("mute", "tenant: ours", "stream"),
        ("op", "all_tenants: true", "admin"),
    ] {
        let hash = hash(&format!("ut_{name}"));
        let entry = format!(
            "  - {{name: {name}, {tenant}, roles: [{roles}], tokens: [{{hash: '{hash}'}}]}}\n"
        );
        identities += &entry;
    }
    let server = Server::with(|settings| site.identities(settings, &identities)).await;
    let client = caller(crate::support::channel(server.grpc).await, Some("ut_ours"));
    let (requests, inbox) = tokio::sync::mpsc::channel(4);
    let first = crate::support::wrap(undertone::wire::v1::stream_emotion_request::Message::Config(
        named("call").into(),
    ));
    requests.send(first).await.unwrap();
    let inbox = tokio_stream::wrappers::ReceiverStream::new(inbox);
    let mut responses = { client }.stream_emotion(inbox).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();

    let request = v1::ListSessionsRequest::default;
    let mut us = service(&server, Some("ut_ours")).await;
    assert_eq!(list(&mut us, request()).await, ["call"]);
    assert_eq!(get(&mut us, "call", 0.0).await.session.unwrap().identity, "ours");
    let mut them = service(&server, Some("ut_theirs")).await;
    assert!(list(&mut them, request()).await.is_empty());
    let asked = |tenant: &str| v1::GetSessionRequest {
        id: "call".to_owned(),
        tenant: tenant.to_owned(),
        history: None,
    };
    let status = them.get_session(asked("")).await.unwrap_err();
    assert_error(&status, Code::NotFound, "SESSION_NOT_FOUND", Some("id"));
    let status = them.get_session(asked("ours")).await.unwrap_err();
    assert_error(&status, Code::PermissionDenied, "OTHER_TENANT", Some("tenant"));
    let mut operator = service(&server, Some("ut_op")).await;
    assert_eq!(list(&mut operator, request()).await, ["call"]);
    assert!(operator.get_session(asked("ours")).await.is_ok());
    let mut mute = service(&server, Some("ut_mute")).await;
    let status = mute.list_sessions(request()).await.unwrap_err();
    assert_error(&status, Code::PermissionDenied, "ROLE_MISSING", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_gone_with_its_end_where_none_shall_be_kept() {
    let server = Server::with(|settings| settings.ended_sessions = ms(0)).await;
    let mut service = service(&server, None).await;
    let talk = Talk::open(&server.client().await, named("call")).await;
    get(&mut service, "call", 0.0).await;
    talk.close().await.fine();
    let request = v1::GetSessionRequest { id: "call".to_owned(), ..Default::default() };
    until("it is gone", async || service.get_session(request.clone()).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_have_ended_are_listed_behind_the_live_ones_page_by_page() {
    let server = Server::with(|settings| settings.max_ended_sessions = 3).await;
    let mut service = service(&server, None).await;
    let client: Client = server.client().await;
    let live = Talk::open(&client, named("live")).await;
    for n in 0..4 {
        Talk::open(&client, named(&format!("ended-{n}"))).await.close().await.fine();
        // Its client hears of its end a moment before it has left.
        let left = async || server.sessions().await.len() == 1;
        until("it has left", left).await;
    }
    let mut request =
        v1::ListSessionsRequest { page_size: 2, include_ended: true, ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = service.list_sessions(request.clone()).await.unwrap().into_inner();
        pages.extend(page.sessions.into_iter().map(|one| (one.id, one.ended_at.is_some())));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let ids: Vec<_> = pages.iter().map(|(id, ended)| (id.as_str(), *ended)).collect();
    let expected = [("live", false), ("ended-3", true), ("ended-2", true), ("ended-1", true)];
    assert_eq!(ids, expected, "of more than three the last stay");
    assert_eq!(list(&mut service, v1::ListSessionsRequest::default()).await, ["live"]);
    live.close().await.fine();
}
