//! The service's own protocol over WebSocket: what it has in common with gRPC, and what it has of its own.

use std::time::Duration;

use serde_json::{Value, json};
use undertone::config::StoreUrl;
use undertone::wire::v1;
use undertone::wire::v1::session_service_client::SessionServiceClient;

use crate::pki::{Site, hash};
use crate::signal::{encode, speech};
use crate::socket::{Came, OWN, Socket, config, own};
use crate::support::{
    Answer, PATIENCE, PLAIN, Server, channel, chunks, http_exchange, ms, stream, until,
};

fn talk() -> Vec<u8> {
    let mut samples = speech(1, 3.0, 16_000);
    samples.extend(vec![0.0; 16_000]);
    samples.extend(speech(2, 2.0, 16_000));
    encode(&samples, PLAIN.encoding)
}

/// The kinds of the texts, in order.
fn kinds(texts: &[Value]) -> Vec<String> {
    texts.iter().map(|text| text.as_object().unwrap().keys().next().unwrap().clone()).collect()
}

fn of<'a>(texts: &'a [Value], kind: &str) -> Vec<&'a Value> {
    texts.iter().filter_map(|text| text.get(kind)).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// A duration as the mapping writes it.
fn seconds(value: &Value) -> f64 {
    value.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_answered_as_over_grpc() {
    let server = Server::with(|_| {}).await;
    let data = talk();
    let answer: Answer =
        stream(&server.client().await, PLAIN.config(), chunks(&data, 3_200)).await.fine();

    let mut socket = own(server.http).await;
    assert_eq!(socket.protocol.as_deref(), Some("undertone.v1"));
    socket.say(&config(json!({"labels": {"ward": "7"}}))).await;
    let started = socket.json().await;
    assert_eq!(started["started"]["config"]["labels"]["ward"], "7");
    assert_eq!(started["started"]["config"]["estimateInterval"], "0.500s");
    // In chunks of another size, one of which splits a sample.
    for chunk in data.chunks(1_601) {
        socket.bytes(chunk).await;
    }
    socket.say(&json!({"mark": {"name": "here"}})).await;
    socket.say(&json!({"end": {}})).await;
    let (texts, end) = socket.rest().await;
    assert_eq!(end, Came::Closed(1000, String::new()));

    assert_eq!(of(&texts, "mark")[0]["name"], "here");
    let finished = of(&texts, "finished")[0];
    assert_eq!(finished["reason"], "FINISH_REASON_CLIENT");
    assert_eq!(seconds(&finished["audio"]), 6.0);
    let (estimates, theirs) = (of(&texts, "estimate"), answer.estimates());
    assert_eq!(estimates.len(), theirs.len());
    for (one, other) in estimates.iter().zip(theirs) {
        assert!((seconds(&one["end"]) - crate::support::seconds(other.end)).abs() < 1e-9);
        assert_eq!(one["abstains"], other.abstains);
        let affect = other.affect.as_ref().unwrap();
        assert!((number(&one["affect"]["valence"]) - f64::from(affect.valence)).abs() < 1e-4);
        let scores = one["affect"]["scores"].as_array().unwrap();
        for (score, their) in scores.iter().zip(&affect.scores) {
            assert_eq!(score["emotion"], their.emotion().as_str_name());
            assert!((number(&score["probability"]) - f64::from(their.probability)).abs() < 1e-4);
        }
    }
    assert_eq!(of(&texts, "utterance").len(), answer.utterances().len());
    assert_eq!(kinds(&texts).last().unwrap(), "finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_websocket_of_ours_is_told_what_would_be() {
    let server = Server::with(|_| {}).await;
    let (status, text) = Socket::open(server.http, "/v1/stream", &[]).await.err().unwrap();
    assert!(status == 400 && text.contains("undertone.v1"), "{status} {text}");
    let get = b"GET /v1/stream HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let (status, body) = http_exchange(server.http, get).await;
    let text = String::from_utf8(body).unwrap();
    assert!(status == 400 && text.contains("WebSocket"), "{status} {text}");
}

/// What a conversation ends with.
async fn error(server: &Server, headers: &[(&'static str, &str)], says: &[&str]) -> (Value, Came) {
    let mut socket = Socket::open(server.http, "/v1/stream", headers).await.unwrap();
    for text in says {
        socket.text(text).await;
    }
    let (mut texts, end) = socket.rest().await;
    (texts.pop().expect("it says why")["error"].clone(), end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_said_before_the_socket_closes_with_their_code() {
    let server = Server::with(|settings| {
        settings.max_chunk_bytes = 4_096;
        settings.max_resume_token_bytes = 4_096;
    })
    .await;
    let good = config(json!({})).to_string();
    let huge = format!("{{\"mark\": {{\"name\": \"{}\"}}}}", "x".repeat(200_000));
    let chunk = json!({"audio": {"data": "AAAA".repeat(2_000)}}).to_string();
    for (says, code, name, reason, word) in [
        (vec!["{\"mark\": {}}"], 4009, "FAILED_PRECONDITION", "CONFIG_MISSING", "config"),
        (vec!["{\"config\": {}}"], 4003, "INVALID_ARGUMENT", "INVALID_REQUEST", "config.audio"),
        (
            vec!["{\"config\": {\"colour\": 1}}"],
            4003,
            "INVALID_ARGUMENT",
            "MESSAGE_REFUSED",
            "colour",
        ),
        (vec!["nonsense"], 4003, "INVALID_ARGUMENT", "MESSAGE_REFUSED", "line 1"),
        (vec![&*good, &*good], 4009, "FAILED_PRECONDITION", "CONFIG_TWICE", "twice"),
        (vec![&*good, &*chunk], 4008, "RESOURCE_EXHAUSTED", "CHUNK_TOO_LARGE", "4096"),
        (vec![&*good, &*huge], 4008, "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", "long"),
    ] {
        let (error, end) = error(&server, &[OWN], &says).await;
        assert_eq!(end, Came::Closed(code, reason.to_owned()), "{error}");
        assert_eq!((&error["code"], &error["reason"]), (&json!(name), &json!(reason)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    let (error, _) = error(&server, &[OWN], &["{\"config\": {}}"]).await;
    assert_eq!(error["fields"][0]["field"], "config.audio");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_and_roles_hold_and_a_browser_s_token_comes_as_a_protocol() {
    let site = Site::new();
    let identities = format!(
        "identities:\n  - {{name: app, tenant: a, roles: [stream], tokens: [{{hash: '{}'}}]}}\n  \
         - {{name: eye, tenant: a, roles: [watch], tokens: [{{hash: '{}'}}]}}\n",
        hash("ut_app"),
        hash("ut_eye"),
    );
    let server = Server::with(|settings| site.identities(settings, &identities)).await;
    let bearer = |protocols| [("sec-websocket-protocol", protocols)];
    for (headers, code, reason) in [
        (vec![OWN], 4016, "TOKEN_MISSING"),
        (vec![OWN, ("authorization", "Bearer ut_nobody")], 4016, "TOKEN_UNKNOWN"),
        (vec![OWN, ("authorization", "Bearer ut_eye")], 4007, "ROLE_MISSING"),
        (bearer("undertone.v1, undertone.bearer.ut_eye").to_vec(), 4007, "ROLE_MISSING"),
    ] {
        let (error, end) = error(&server, &headers, &[]).await;
        assert_eq!(end, Came::Closed(code, reason.to_owned()), "{error}");
    }
    for headers in [
        vec![OWN, ("authorization", "Bearer ut_app")],
        bearer("undertone.v1, undertone.bearer.ut_app").to_vec(),
    ] {
        let mut socket = Socket::open(server.http, "/v1/stream", &headers).await.unwrap();
        assert_eq!(socket.protocol.as_deref(), Some("undertone.v1"), "the token is not echoed");
        socket.say(&config(json!({}))).await;
        assert!(socket.json().await.get("started").is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_may_call_only_if_the_settings_say_so() {
    let server =
        Server::with(|settings| settings.allowed_origins = "https://app.example".to_owned()).await;
    let open = async |origin: &str| {
        Socket::open(server.http, "/v1/stream", &[OWN, ("origin", origin)]).await
    };
    let (status, text) = open("https://evil.example").await.err().unwrap();
    assert!(status == 403 && text.contains("allowed_origins"), "{status} {text}");
    assert!(open("https://app.example").await.is_ok());
    assert!(open(&format!("http://{}", server.http)).await.is_ok());
    // Browsers ask before they call gRPC-Web.
    let preflight = async |origin: &str| {
        let request = format!(
            "OPTIONS /undertone.v1.EmotionService/ListModels HTTP/1.1\r\nHost: t\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,x-grpc-web\r\n\
             Connection: close\r\n\r\n"
        );
        let mut stream = tokio::net::TcpStream::connect(server.grpc).await.unwrap();
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).to_lowercase()
    };
    let allowed = preflight("https://app.example").await;
    assert!(allowed.contains("access-control-allow-origin: https://app.example"), "{allowed}");
    assert!(
        allowed.contains("access-control-allow-headers: authorization,x-grpc-web"),
        "{allowed}"
    );
    let refused = preflight("https://evil.example").await;
    assert!(!refused.contains("access-control-allow-origin"), "{refused}");
}

async fn sessions(server: &Server) -> Vec<v1::Session> {
    let mut service = SessionServiceClient::new(channel(server.grpc).await);
    service.list_sessions(v1::ListSessionsRequest::default()).await.unwrap().into_inner().sessions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_listed_and_gone_when_its_client_is() {
    let server = Server::with(|_| {}).await;
    let mut socket = own(server.http).await;
    socket.say(&config(json!({"sessionId": "call"}))).await;
    socket.json().await;
    let listed = sessions(&server).await;
    assert_eq!((listed[0].id.as_str(), listed[0].ingress()), ("call", v1::Ingress::Websocket));
    drop(socket);
    until("it is gone", async || sessions(&server).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_closes_in_order_has_said_all_and_who_goes_away_may_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let server = Server::with(|settings| settings.escalation_store = StoreUrl(store)).await;
    let silence = encode(&vec![0.0; 40_000], PLAIN.encoding);
    for (code, has_ended) in [(1000, true), (1001, false)] {
        let mut socket = own(server.http).await;
        let id = format!("call-{code}");
        let more = json!({"sessionId": id, "policyYaml": crate::escalations::QUIET, "checkpointInterval": "1s"});
        socket.say(&config(more)).await;
        for chunk in silence.chunks(3_200) {
            socket.bytes(chunk).await;
        }
        while socket.json().await.get("checkpoint").is_none() {}
        socket.close(code).await;
        let escalation = async || {
            let mut service = v1::escalation_service_client::EscalationServiceClient::new(
                channel(server.grpc).await,
            );
            let filter = v1::EscalationFilter { session_id: id.clone(), ..Default::default() };
            let request = v1::ListEscalationsRequest { filter: Some(filter), ..Default::default() };
            let listed = service.list_escalations(request).await.unwrap().into_inner();
            listed.escalations.into_iter().next()
        };
        until("the session is gone", async || sessions(&server).await.is_empty()).await;
        if has_ended {
            until("it has ended", async || {
                escalation().await.is_some_and(|one| one.session_ended_at.is_some())
            })
            .await;
        } else {
            assert!(escalation().await.unwrap().session_ended_at.is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_off_goes_on_over_grpc_from_its_token() {
    use base64::Engine as _;
    let server = Server::with(|_| {}).await;
    let data = talk();
    let mut socket = own(server.http).await;
    socket.say(&config(json!({"checkpointInterval": "1s"}))).await;
    for chunk in data[..64_000].chunks(3_200) {
        socket.bytes(chunk).await;
    }
    let checkpoint = loop {
        let text = socket.json().await;
        if let Some(checkpoint) = text.get("checkpoint") {
            break checkpoint.clone();
        }
    };
    drop(socket);
    let token = checkpoint["resumeToken"].as_str().unwrap();
    let resume_token = base64::engine::general_purpose::STANDARD.decode(token).unwrap().into();
    // 64-bit integers are texts.
    let from: usize = checkpoint["point"]["audioBytes"].as_str().unwrap().parse().unwrap();
    let resumed = v1::StreamConfig { resume_token, ..Default::default() };
    let client = server.client().await;
    let answer = stream(&client, resumed, chunks(&data[from..], 3_200)).await.fine();
    let whole = stream(&client, PLAIN.config(), chunks(&data, 3_200)).await.fine();
    assert_eq!(answer.finished().audio, whole.finished().audio);
    let (last, theirs) = (answer.utterances(), whole.utterances());
    assert_eq!(last.last().unwrap().end, theirs.last().unwrap().end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_quotas_hold_as_over_grpc() {
    let server = Server::with(|settings| settings.max_streams = 1).await;
    let mut first = own(server.http).await;
    first.say(&config(json!({}))).await;
    first.json().await;
    let good = config(json!({})).to_string();
    let (said, end) = error(&server, &[OWN], &[&good]).await;
    assert_eq!(end, Came::Closed(4008, "SERVER_FULL".to_owned()));
    assert_eq!(said["retryAfter"], "2.000s");

    let server = Server::with(|settings| settings.idle_timeout = ms(200)).await;
    let (_, end) = error(&server, &[OWN], &[&good]).await;
    assert_eq!(end, Came::Closed(4004, "IDLE_TIMEOUT".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Server::with(|settings| settings.send_timeout = ms(300)).await;
    let mut socket = own(server.http).await;
    socket.say(&config(json!({}))).await;
    let mark = json!({"mark": {"name": "x".repeat(255)}}).to_string();
    let sending = async { while socket.try_text(&mark).await {} };
    tokio::time::timeout(PATIENCE, sending).await.expect("it is cut off");
    until("its session is gone", async || sessions(&server).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_says_so_and_waits_for_no_client_that_is_silent() {
    let server = Server::with(|_| {}).await;
    let http = server.http;
    let mut socket = own(http).await;
    socket.say(&config(json!({}))).await;
    socket.json().await;
    socket.bytes(&talk()[..32_000]).await;
    // Upgraded, and says nothing.
    let _silent = own(http).await;
    let began = std::time::Instant::now();
    server.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (texts, end) = socket.rest().await;
    let kinds = kinds(&texts);
    assert!(kinds.contains(&"draining".to_owned()), "{kinds:?}");
    assert_eq!(of(&texts, "finished")[0]["reason"], "FINISH_REASON_DRAINING");
    assert_eq!(end, Came::Closed(1000, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbered_chunks_may_come_as_text() {
    use base64::Engine as _;
    let server = Server::with(|_| {}).await;
    let mut socket = own(server.http).await;
    socket.say(&config(json!({}))).await;
    for (sequence, chunk) in [1, 2, 4].iter().zip(talk().chunks(3_200)) {
        let data = base64::engine::general_purpose::STANDARD.encode(chunk);
        socket.say(&json!({"audio": {"data": data, "sequence": sequence.to_string()}})).await;
    }
    socket.say(&json!({"end": {}})).await;
    let (texts, _) = socket.rest().await;
    assert_eq!(of(&texts, "warning")[0]["reason"], "REASON_SEQUENCE_GAP");
    assert_eq!(of(&texts, "finished")[0]["chunks"], "3");
}
