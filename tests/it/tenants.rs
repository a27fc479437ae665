//! Tenants on one server: each sees its own sessions and escalations only, whatever they are called.

use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use undertone::config::StoreUrl;
use undertone::wire::v1;
use undertone::wire::v1::escalation_service_client::EscalationServiceClient;
use undertone::wire::v1::stream_config::Policy;
use undertone::wire::v1::stream_emotion_request::Message as Request;

use crate::database::{Place, on_both};
use crate::escalations::QUIET;
use crate::pki::{Bearing, Site, caller, hash};
use crate::signal::encode;
use crate::support::{
    Answer, PLAIN, Server, assert_error, channel, chunks, duration, http_exchange, ms, read, wrap,
};

on_both! {
    two_tenants_with_sessions_of_one_name_see_nothing_of_each_other,
}

const IDENTITIES: [(&str, &str); 3] =
    [("ours", "ut_ours"), ("theirs", "ut_theirs"), ("op", "ut_op")];

fn identities() -> String {
    let mut text = "identities:\n".to_owned();
    for (name, token) in IDENTITIES {
        let of =
            if name == "op" { "all_tenants: true".to_owned() } else { format!("tenant: {name}") };
        let entry = format!(
            "  - name: {name}-app\n    {of}\n    roles: [admin]\n    tokens: [{{hash: '{}'}}]\n",
            hash(token)
        );
        text += &entry;
    }
    text
}

async fn server(site: &Site, place: &Place) -> Server {
    Server::with(|settings| {
        site.identities(settings, &identities());
        settings.escalation_store = StoreUrl(place.url.clone());
        settings.watch_poll = ms(50);
    })
    .await
}

type Service = EscalationServiceClient<InterceptedService<Channel, Bearing>>;

async fn service(server: &Server, token: &str) -> Service {
    let bearing = Bearing(Some(format!("Bearer {token}")));
    EscalationServiceClient::with_interceptor(channel(server.grpc).await, bearing)
}

fn config() -> v1::StreamConfig {
    v1::StreamConfig {
        session_id: "call".to_owned(),
        policy: Some(Policy::PolicyYaml(QUIET.to_owned())),
        checkpoint_interval: duration(1.0),
        ..PLAIN.config()
    }
}

/// A call in which nobody speaks.
async fn call(server: &Server, token: &str, config: v1::StreamConfig) -> Answer {
    let silence = encode(&vec![0.0; 40_000], PLAIN.encoding);
    let first = wrap(Request::Config(config.into()));
    let requests: Vec<_> =
        std::iter::once(first).chain(chunks(&silence, 3_200).into_iter().map(wrap)).collect();
    let mut client = caller(channel(server.grpc).await, Some(token));
    match client.stream_emotion(tokio_stream::iter(requests)).await {
        Ok(responses) => read(responses.into_inner()).await,
        Err(status) => Answer { responses: Vec::new(), status: Some(status) },
    }
}

async fn list(service: &mut Service, tenant: &str) -> Result<Vec<v1::Escalation>, tonic::Status> {
    let filter = v1::EscalationFilter { tenant: tenant.to_owned(), ..Default::default() };
    let request = v1::ListEscalationsRequest { filter: Some(filter), ..Default::default() };
    Ok(service.list_escalations(request).await?.into_inner().escalations)
}

/// What a watch from the start tells, up to its first heartbeat behind it.
async fn watched(service: &mut Service) -> Vec<String> {
    let request = v1::WatchEscalationsRequest { from_start: true, ..Default::default() };
    let mut watch = service.watch_escalations(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    // The first message is a heartbeat, which comes at once.
    assert!(watch.message().await.unwrap().unwrap().event.is_none());
    loop {
        let next = tokio::time::timeout(std::time::Duration::from_millis(800), watch.message());
        match next.await {
            Ok(message) => seen.extend(message.unwrap().unwrap().event),
            Err(_) => break,
        }
    }
    seen.into_iter().map(|event| event.escalation.unwrap().id).collect()
}

async fn two_tenants_with_sessions_of_one_name_see_nothing_of_each_other(place: &Place) {
    let site = Site::new();
    let server = server(&site, place).await;
    let ours = call(&server, "ut_ours", config()).await.fine();
    let theirs = call(&server, "ut_theirs", config()).await.fine();
    let id = |answer: &Answer| answer.escalations()[0].escalation.as_ref().unwrap().id.clone();
    let (our_id, their_id) = (id(&ours), id(&theirs));
    assert_ne!(our_id, their_id, "the same policy, session, rule and onset");

    let mut us = service(&server, "ut_ours").await;
    let mut them = service(&server, "ut_theirs").await;
    let mut operator = service(&server, "ut_op").await;
    let listed = list(&mut us, "").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id.as_str(), listed[0].tenant.as_str()), (our_id.as_str(), "ours"));
    assert_eq!(list(&mut us, "ours").await.unwrap().len(), 1);
    let status = list(&mut us, "theirs").await.unwrap_err();
    assert_error(&status, Code::PermissionDenied, "OTHER_TENANT", Some("filter.tenant"));
    assert_eq!(list(&mut operator, "").await.unwrap().len(), 2);
    assert_eq!(list(&mut operator, "theirs").await.unwrap()[0].id, their_id);

    let get = v1::GetEscalationRequest { id: our_id.clone() };
    let status = them.get_escalation(get.clone()).await.unwrap_err();
    assert_error(&status, Code::NotFound, "ESCALATION_NOT_FOUND", Some("id"));
    let acknowledge = v1::AcknowledgeEscalationRequest {
        id: our_id.clone(),
        actor: "somebody".to_owned(),
        note: String::new(),
    };
    let status = them.acknowledge_escalation(acknowledge.clone()).await.unwrap_err();
    assert_error(&status, Code::NotFound, "ESCALATION_NOT_FOUND", Some("id"));
    let mut seen = watched(&mut them).await;
    seen.dedup();
    assert_eq!(seen, [their_id]);

    us.acknowledge_escalation(acknowledge).await.unwrap();
    let history = us.get_escalation(get).await.unwrap().into_inner().history;
    let last = history.last().unwrap();
    assert_eq!((last.actor.as_str(), last.identity.as_str()), ("somebody", "ours-app"));

    // A token is its owner's.
    let checkpoint = ours.responses.iter().find_map(|response| match response {
        v1::stream_emotion_response::Message::Checkpoint(one) => Some(one.clone()),
        _ => None,
    });
    let resume_token = checkpoint.expect("there is a checkpoint").resume_token;
    let resumed = v1::StreamConfig { resume_token, ..Default::default() };
    let answer = call(&server, "ut_theirs", resumed.clone()).await;
    let field = Some("config.resume_token");
    assert_error(answer.error(), Code::InvalidArgument, "RESUME_TOKEN_INVALID", field);
    call(&server, "ut_ours", resumed).await.fine();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_sessions_of_one_name_stand_side_by_side_and_are_listed_to_their_own() {
    let site = Site::new();
    let server = Server::with(|settings| site.identities(settings, &identities())).await;
    let mut talks = Vec::new();
    for token in ["ut_ours", "ut_theirs"] {
        let (requests, inbox) = tokio::sync::mpsc::channel(4);
        let config = v1::StreamConfig { policy: None, ..config() };
        requests.send(wrap(Request::Config(config.into()))).await.unwrap();
        let mut client = caller(channel(server.grpc).await, Some(token));
        let requests_of = tokio_stream::wrappers::ReceiverStream::new(inbox);
        let mut responses = client.stream_emotion(requests_of).await.unwrap().into_inner();
        responses.message().await.unwrap().unwrap();
        talks.push((requests, responses));
    }
    let sessions = async |token: &str| {
        let request = format!(
            "GET /sessions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        let (status, body) = http_exchange(server.http, request.as_bytes()).await;
        assert_eq!(status, 200);
        serde_json::from_slice::<Vec<serde_json::Value>>(&body).unwrap()
    };
    let ours = sessions("ut_ours").await;
    assert_eq!(ours.len(), 1);
    assert_eq!((&ours[0]["tenant"], &ours[0]["id"]), (&"ours".into(), &"call".into()));
    assert_eq!(sessions("ut_op").await.len(), 2);
}
