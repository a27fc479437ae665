//! The service's calls as JSON over HTTP, by the Connect protocol; and the console's files beside them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use undertone::config::StoreUrl;
use undertone::wire::v1;

use crate::escalations::QUIET;
use crate::pki::{Site, hash};
use crate::signal::{encode, speech, wav};
use crate::support::{PATIENCE, PLAIN, Server, Talk, chunks, http_exchange, mark};

const JSON: (&str, &str) = ("content-type", "application/json");
const STREAM: (&str, &str) = ("content-type", "application/connect+json");

fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /undertone.v1.{path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    let host = headers.iter().find(|(name, _)| *name == "host");
    let host = host.map_or("localhost", |(_, host)| host);
    write!(request, "host: {host}\r\n").unwrap();
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    [request.as_bytes(), b"\r\n", body].concat()
}

async fn call_with(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
    message: &Value,
) -> (u16, Value) {
    let request = post(path, headers, message.to_string().as_bytes());
    let (status, body) = http_exchange(server.http, &request).await;
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
}

async fn call(server: &Server, path: &str, message: &Value) -> Value {
    let (status, answer) = call_with(server, path, &[JSON], message).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

fn enveloped(message: &Value) -> Vec<u8> {
    let message = message.to_string().into_bytes();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// A stream of answers.
struct Answers {
    socket: TcpStream,
    rest: Vec<u8>,
    /// An answer that is known at once has a length.
    chunked: bool,
}

impl Answers {
    async fn open(server: &Server, path: &str, message: &Value) -> Self {
        let mut socket = TcpStream::connect(server.http).await.unwrap();
        socket.write_all(&post(path, &[STREAM], &enveloped(message))).await.unwrap();
        let mut answers = Self { socket, rest: Vec::new(), chunked: false };
        let head = answers.until(b"\r\n\r\n").await;
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains(STREAM.1), "{head}");
        answers.chunked = head.contains("transfer-encoding: chunked");
        answers
    }

    async fn more(&mut self) {
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.rest)).await;
        assert_ne!(read.expect("nothing comes").unwrap(), 0, "it has ended");
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.rest.windows(end.len()).position(|part| part == end) {
                let found = self.rest.drain(..at + end.len()).collect::<Vec<_>>();
                return found[..at].to_vec();
            }
            self.more().await;
        }
    }

    async fn take(&mut self, size: usize) -> Vec<u8> {
        while self.rest.len() < size {
            self.more().await;
        }
        self.rest.drain(..size).collect()
    }

    /// The next envelope, each of which is a chunk of its own: whether it is the last one, and what it says.
    async fn next(&mut self) -> (bool, Value) {
        if self.chunked {
            self.until(b"\r\n").await;
        }
        let head = self.take(5).await;
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let message = self.take(length as usize).await;
        if self.chunked {
            assert_eq!(self.take(2).await, b"\r\n");
        }
        (head[0] & 2 != 0, serde_json::from_slice(&message).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_its_answer_in_json_with_every_field() {
    let server = Server::start().await;
    let models = call(&server, "EmotionService/ListModels", &json!({})).await;
    assert_eq!(models["models"][0]["name"], "tiny-steps");
    assert_eq!(models["models"][0]["isDefault"], true);
    let sessions = call(&server, "SessionService/ListSessions", &json!({"pageSize": 3})).await;
    assert_eq!(sessions, json!({"sessions": [], "nextPageToken": ""}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_protobufs_own_bytes_is_answered_in_them() {
    let server = Server::start().await;
    let kind = ("content-type", "application/proto");
    let asked = v1::GetModelRequest { name: "tiny-steps".to_owned() }.encode_to_vec();
    let request = post("EmotionService/GetModel", &[kind], &asked);
    let (status, body) = http_exchange(server.http, &request).await;
    assert_eq!(status, 200);
    let answer = v1::GetModelResponse::decode(&body[..]).unwrap();
    assert_eq!(answer.model.unwrap().name, "tiny-steps");
    // Errors are in JSON either way.
    let request = post("EmotionService/GetModel", &[kind], &[0x0a, 0xff]);
    let (status, body) = http_exchange(server.http, &request).await;
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, error["code"].as_str()), (400, Some("invalid_argument")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_connects_code_the_reason_and_the_field() {
    let server = Server::start().await;
    let missing = json!({"id": "nobody"});
    for (path, message, status, code, reason) in [
        ("SessionService/GetSession", &missing, 404, "not_found", "SESSION_NOT_FOUND"),
        ("SessionService/GetSession", &json!({}), 400, "invalid_argument", "INVALID_REQUEST"),
        (
            "SessionService/GetSession",
            &json!({"ID": 7}),
            400,
            "invalid_argument",
            "INVALID_REQUEST",
        ),
        (
            "EscalationService/ListEscalations",
            &json!({}),
            400,
            "failed_precondition",
            "NO_ESCALATION_STORE",
        ),
    ] {
        let (got, error) = call_with(&server, path, &[JSON], message).await;
        assert_eq!((got, error["code"].as_str()), (status, Some(code)), "{error}");
        let details = error["details"].as_array().unwrap();
        let info = details.iter().find(|detail| detail["type"] == "google.rpc.ErrorInfo").unwrap();
        assert_eq!(info["debug"]["reason"], reason);
        assert!(!info["value"].as_str().unwrap().is_empty());
    }
    let (status, _) = call_with(&server, "EmotionService/Sing", &[JSON], &json!({})).await;
    assert_eq!(status, 404);
    let (status, error) =
        call_with(&server, "EmotionService/StreamEmotion", &[JSON], &json!({})).await;
    assert_eq!((status, error["code"].as_str()), (501, Some("unimplemented")));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let (status, _) = call_with(&server, "EmotionService/ListModels", &[form], &json!({})).await;
    assert_eq!(status, 415);
    // A stream's type for a call, and the other way round.
    let (status, _) = call_with(&server, "EmotionService/ListModels", &[STREAM], &json!({})).await;
    assert_eq!(status, 415);
    let (status, _) = call_with(&server, "SessionService/WatchSession", &[JSON], &missing).await;
    assert_eq!(status, 415);
    let large = json!({"yaml": "x".repeat(300_000)});
    let (status, error) = call_with(&server, "EmotionService/CheckPolicy", &[JSON], &large).await;
    assert_eq!((status, error["code"].as_str()), (429, Some("resource_exhausted")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_watched_until_it_ends_and_can_be_looked_at_afterwards() {
    let server = Server::start().await;
    let config = v1::StreamConfig { session_id: "call".to_owned(), ..PLAIN.config() };
    let talk = Talk::open(&server.client().await, config).await;
    let asked = json!({"id": "call", "history": "300s"});
    let mut watch = Answers::open(&server, "SessionService/WatchSession", &asked).await;
    let (_, first) = watch.next().await;
    assert_eq!(first["session"]["id"], "call");
    assert!(first["session"]["endedAt"].is_null());
    for chunk in chunks(&encode(&speech(1, 3.0, 16_000), PLAIN.encoding), 3_200) {
        talk.say(chunk).await;
    }
    talk.say(mark("heard")).await;
    let (last, estimate) = loop {
        let said = watch.next().await;
        if said.1.get("estimate").is_some_and(|estimate| !estimate["affect"].is_null()) {
            break said;
        }
    };
    assert!(!last && estimate["estimate"]["affect"]["scores"].as_array().unwrap().len() > 1);
    talk.close().await.fine();
    let mut said = Vec::new();
    loop {
        let (last, message) = watch.next().await;
        said.push(message);
        if last {
            break;
        }
    }
    assert_eq!(said.pop(), Some(json!({})), "it ended well");
    assert_eq!(said.pop().map(|ended| ended["ended"].clone()), Some(json!({})));

    let listed = call(&server, "SessionService/ListSessions", &json!({})).await;
    assert_eq!(listed["sessions"], json!([]));
    let asked = json!({"includeEnded": true});
    let listed = call(&server, "SessionService/ListSessions", &asked).await;
    assert!(listed["sessions"][0]["endedAt"].is_string(), "{listed}");
    let asked = json!({"id": "call", "history": "300s"});
    let got = call(&server, "SessionService/GetSession", &asked).await;
    assert!(got["history"]["estimates"].as_array().unwrap().len() >= 2, "{got}");
    let mut watch = Answers::open(&server, "SessionService/WatchSession", &asked).await;
    let (_, first) = watch.next().await;
    assert!(first["session"]["endedAt"].is_string());
    while !watch.next().await.0 {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_a_stream_is_its_last_envelope() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let server = Server::with(|settings| settings.escalation_store = StoreUrl(store)).await;
    let asked = json!({"id": "nobody"});
    let mut watch = Answers::open(&server, "SessionService/WatchSession", &asked).await;
    let (last, error) = watch.next().await;
    assert!(last);
    assert_eq!(error["error"]["code"], "not_found", "{error}");

    let mut watch = Answers::open(&server, "EscalationService/WatchEscalations", &json!({})).await;
    watch.next().await;
    server.stop.cancel();
    let error = loop {
        let (last, said) = watch.next().await;
        if last {
            break said;
        }
    };
    // The server drains: it goes on elsewhere.
    assert_eq!(error["error"]["code"], "unavailable", "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_of_the_caller_holds() {
    let server = Server::start().await;
    let config = v1::StreamConfig { session_id: "call".to_owned(), ..PLAIN.config() };
    let _talk = Talk::open(&server.client().await, config).await;
    let limit = ("connect-timeout-ms", "200");
    let body = enveloped(&json!({"id": "call"}));
    let request = post("SessionService/WatchSession", &[STREAM, limit], &body);
    let (status, body) = http_exchange(server.http, &request).await;
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains("deadline_exceeded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_roles_and_origins_hold() {
    let site = Site::new();
    let mut identities = "identities:\n".to_owned();
    for (name, role) in [("app", "stream"), ("eye", "watch")] {
        let hash = hash(&format!("ut_{name}"));
        writeln!(
            identities,
            "  - {{name: {name}, tenant: a, roles: [{role}], tokens: [{{hash: '{hash}'}}]}}"
        )
        .unwrap();
    }
    let server = Server::with(|settings| site.identities(settings, &identities)).await;
    let list = "SessionService/ListSessions";
    for (headers, status, code) in [
        (vec![JSON], 401, Some("unauthenticated")),
        (vec![JSON, ("authorization", "Bearer ut_nobody")], 401, Some("unauthenticated")),
        (vec![JSON, ("authorization", "Bearer ut_app")], 403, Some("permission_denied")),
        (vec![JSON, ("authorization", "Bearer ut_eye")], 200, None),
    ] {
        let (got, answer) = call_with(&server, list, &headers, &json!({})).await;
        assert_eq!((got, answer["code"].as_str()), (status, code), "{answer}");
    }
    let body = enveloped(&json!({"id": "call"}));
    let watch = post("SessionService/WatchSession", &[STREAM], &body);
    assert_eq!(http_exchange(server.http, &watch).await.0, 401);

    // Where nobody is asked who they are, pages of others and names of others get nowhere.
    let server = Server::with(|settings| {
        settings.allowed_origins = "https://app.example".to_owned();
    })
    .await;
    for (headers, status) in [
        (vec![JSON, ("origin", "https://evil.example")], 403),
        (vec![JSON, ("host", "evil.example"), ("origin", "http://evil.example")], 403),
        (vec![JSON, ("host", "evil.example")], 403),
        (vec![JSON, ("origin", "https://app.example")], 200),
        (vec![JSON, ("host", "localhost"), ("origin", "http://localhost")], 200),
    ] {
        let (got, answer) = call_with(&server, list, &headers, &json!({})).await;
        assert_eq!(got, status, "{headers:?} {answer}");
    }
}

/// Speech, and then nothing.
fn recording() -> Vec<u8> {
    let mut samples = speech(1, 2.0, 16_000);
    samples.extend(vec![0.0; 32_000]);
    wav(PLAIN.encoding, 16_000, 1, &encode(&samples, PLAIN.encoding))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_and_a_policy_to_try_on_it_come_as_json_and_nothing_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let server = Server::with(|settings| settings.escalation_store = StoreUrl(store)).await;
    // Larger than what is small, in base64.
    let asked = json!({
        "content": STANDARD.encode(recording()), "estimateInterval": "0.5s", "policyYaml": QUIET, "conditionCourses": true,
    });
    let answer = call(&server, "EmotionService/AnalyzeAudio", &asked).await;
    let events = answer["escalations"].as_array().unwrap();
    assert_eq!(events[0]["kind"], "ESCALATION_EVENT_KIND_RAISED", "{answer}");
    let escalation = &events[0]["escalation"];
    assert_eq!((&escalation["rule"], &escalation["id"]), (&json!("quiet"), &json!("")));
    assert!(escalation["reason"].as_str().unwrap().starts_with("no voice for"));
    assert_eq!(answer["policy"]["name"], "quiet");
    let course = &answer["conditionCourses"][0];
    assert_eq!((&course["rule"], course["on"].as_f64()), (&json!("quiet"), Some(1.0)));
    let values: Vec<f64> = course["points"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|point| point["value"].as_f64())
        .collect();
    assert!(values.len() > 10 && values.iter().any(|value| *value > 1.0), "{course}");
    let listed = call(&server, "EscalationService/ListEscalations", &json!({})).await;
    assert_eq!(listed["escalations"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_shown_with_their_text_and_checked_with_the_place_of_the_fault() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let server = Server::with(|settings| {
        settings.escalation_store = StoreUrl(store);
        settings.default_policy = "care-call".to_owned();
    })
    .await;
    let got = call(&server, "EmotionService/GetPolicy", &json!({"name": "care-call"})).await;
    assert_eq!(got["policy"]["isDefault"], true);
    let yaml = got["yaml"].as_str().unwrap();
    assert!(yaml.contains("name: care-call"));
    let checked = call(&server, "EmotionService/CheckPolicy", &json!({"yaml": yaml})).await;
    assert_eq!(checked["policy"]["rules"], got["policy"]["rules"]);
    assert_eq!(checked["faults"], json!([]));
    let wrong = yaml.replace("severity: high", "severity: loud");
    let checked = call(&server, "EmotionService/CheckPolicy", &json!({"yaml": wrong})).await;
    let line = wrong.lines().position(|line| line.contains("loud")).unwrap() + 1;
    assert_eq!(checked["faults"][0]["line"], line, "{checked}");
    assert!(checked["policy"].is_null());
    for (path, message, reason) in [
        ("EmotionService/GetPolicy", json!({"name": "nothing"}), "POLICY_NOT_FOUND"),
        ("EmotionService/GetPolicy", json!({}), "INVALID_REQUEST"),
        ("EmotionService/CheckPolicy", json!({}), "INVALID_REQUEST"),
        (
            "EmotionService/AnalyzeAudio",
            json!({"content": "AAAA", "policyName": "x"}),
            "POLICY_NOT_FOUND",
        ),
        (
            "EmotionService/AnalyzeAudio",
            json!({"content": "AAAA", "policyYaml": "x"}),
            "INVALID_REQUEST",
        ),
    ] {
        let (status, error) = call_with(&server, path, &[JSON], &message).await;
        assert!(status >= 400 && error.to_string().contains(reason), "{path} {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_policies_of_clients_neither_checks_nor_tries_them() {
    let server = Server::with(|settings| settings.inline_policies = false).await;
    let content = STANDARD.encode(recording());
    for (path, message, field) in [
        ("EmotionService/CheckPolicy", json!({"yaml": QUIET}), "yaml"),
        (
            "EmotionService/AnalyzeAudio",
            json!({"content": content, "policyYaml": QUIET}),
            "policy_yaml",
        ),
    ] {
        let (status, error) = call_with(&server, path, &[JSON], &message).await;
        assert_eq!((status, error["code"].as_str()), (403, Some("permission_denied")), "{error}");
        assert!(error.to_string().contains(&format!("\"field\":\"{field}\"")), "{error}");
    }
}

async fn get(server: &Server, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let (status, body) = http_exchange(server.http, request.as_bytes()).await;
    (status, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn the_console_is_there_unless_it_is_not_wanted() {
    let server = Server::start().await;
    assert_eq!(get(&server, "/").await.0, 307);
    assert_eq!(get(&server, "/console").await.0, 307);
    let (status, page) = get(&server, "/console/").await;
    assert_eq!(status, 200);
    for part in page.split("src=\"").skip(1).chain(page.split("stylesheet\" href=\"").skip(1)) {
        let path = part.split('"').next().unwrap();
        assert_eq!(get(&server, &format!("/console/{path}")).await.0, 200, "{path}");
    }
    assert_eq!(get(&server, "/console/../Cargo.toml").await.0, 404);
    let server = Server::with(|settings| settings.console = false).await;
    assert_eq!(get(&server, "/console/").await.0, 404);
    assert_eq!(get(&server, "/healthz").await.0, 200);
}
