//! What arrives where escalations are delivered: requests as receivers see them, and what comes of their
//! answers. HTTP receivers and a NATS server run on loopback.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tempfile::TempDir;
use undertone::escalation::sinks::{Delivery, SAMPLE_TIME, Sink, Verdict, sample};
use undertone::escalation::{Kind, Occurrence};
use undertone::secrets::Secrets;

use crate::support::{PATIENCE, until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const TOKEN: &str = "a-token-that-nobody-may-see";

struct Known;

impl Secrets for Known {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "WHSEC" => Some(SECRET.to_owned()),
            "TOKEN" => Some(TOKEN.to_owned()),
            _ => None,
        }
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// The one sink with the settings `settings`.
pub(crate) fn sink(settings: &str) -> Arc<Sink> {
    let text = format!("schema: undertone.delivery/v1\nsinks:\n  - name: a\n{settings}\n");
    let delivery = Delivery::parse(&text, &Known).unwrap_or_else(|error| panic!("{error}\n{text}"));
    delivery.sinks().last().unwrap().clone()
}

pub(crate) fn raised() -> Occurrence {
    sample(Kind::Raised, "s", SAMPLE_TIME)
}

/// What a receiver saw of a request.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: String,
    after: Duration,
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    seen: Vec<Seen>,
}

/// A receiver on loopback that keeps what it sees and answers by its script, then with 204.
struct Receiver {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    serve: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

async fn receive(
    State(script): State<Arc<Mutex<Script>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = {
        let mut script = script.lock().unwrap();
        script.seen.push(Seen { path: uri.path().to_owned(), headers, body });
        script.answers.pop_front()
    };
    let Some(answer) = answer else { return StatusCode::NO_CONTENT.into_response() };
    tokio::time::sleep(answer.after).await;
    let mut response = answer.body.into_response();
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
    for (name, value) in answer.headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let app = axum::Router::new().fallback(receive).with_state(Arc::clone(&script));
        let serve = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, script, serve }
    }

    fn answer(&self, status: u16, headers: &'static [(&'static str, &'static str)], body: &str) {
        let (body, after) = (body.to_owned(), Duration::ZERO);
        self.script.lock().unwrap().answers.push_back(Answer { status, headers, body, after });
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    fn webhook(&self) -> Arc<Sink> {
        sink(&format!(
            "    webhook: {{url: 'http://{}/hook', secrets: [{{env: WHSEC}}], allow_private: true, \
             headers: {{x-ward: '7', authorization: {{env: TOKEN}}}}}}\n    timeout: 1s",
            self.address
        ))
    }
}

pub(crate) fn retried(verdict: Verdict) -> (String, Option<Duration>) {
    match verdict {
        Verdict::Retry { problem, after } => (problem, after),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_webhook_arrives_signed_and_the_same_at_every_attempt() {
    let receiver = Receiver::start().await;
    let sink = receiver.webhook();
    receiver.answer(503, &[], "busy");
    assert_eq!(retried(sink.deliver(&raised(), 1).await), ("HTTP 503: busy".to_owned(), None));
    let delivered = Verdict::Delivered { detail: "HTTP 204".to_owned() };
    assert_eq!(sink.deliver(&raised(), 2).await, delivered);

    let [first, second] = receiver.seen().try_into().unwrap();
    assert_eq!(first.body, second.body);
    for (attempt, seen) in [("1", &first), ("2", &second)] {
        assert_eq!(seen.path, "/hook");
        assert_eq!(seen.header("content-type"), "application/json");
        assert_eq!(seen.header("webhook-id"), raised().id.to_string());
        assert_eq!(seen.header("x-ward"), "7");
        assert_eq!(seen.header("authorization"), TOKEN);
        assert_eq!(seen.header("undertone-attempt"), attempt);
        assert!(seen.header("user-agent").starts_with("undertone/"));
        let sent: i64 = seen.header("webhook-timestamp").parse().unwrap();
        let now = undertone::escalation::Timestamp::now().unix_seconds();
        assert!((now - 60..=now).contains(&sent), "{sent}");
        assert!(seen.header("webhook-signature").starts_with("v1,"));
    }
    let body = first.json();
    assert_eq!(body["type"], "escalation.raised");
    assert_eq!(body["timestamp"], SAMPLE_TIME.to_string());
    assert_eq!(body["data"]["id"], raised().id.to_string());
    assert_eq!(body["data"]["escalation"]["evidence"]["distress"], 0.81);
    assert!(body["data"]["text"].as_str().unwrap().starts_with("Sustained distress: "));
    let back: Occurrence = serde_json::from_value(body["data"].clone()).unwrap();
    assert_eq!(back, raised());
}

#[tokio::test]
async fn answers_decide_what_comes_next() {
    let receiver = Receiver::start().await;
    let sink = receiver.webhook();
    for status in [200, 201, 202, 204] {
        receiver.answer(status, &[], "");
        let delivered = Verdict::Delivered { detail: format!("HTTP {status}") };
        assert_eq!(sink.deliver(&raised(), 1).await, delivered);
    }
    for status in [400, 401, 404, 408, 422, 429, 500, 502, 503, 504] {
        receiver.answer(status, &[], "no\r\n\tway");
        let expected = (format!("HTTP {status}: no way"), None);
        assert_eq!(retried(sink.deliver(&raised(), 1).await), expected);
    }
    receiver.answer(410, &[], "");
    assert_eq!(sink.deliver(&raised(), 1).await, Verdict::Gone { problem: "HTTP 410".to_owned() });
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_its_cap() {
    let receiver = Receiver::start().await;
    let sink = receiver.webhook();
    receiver.answer(429, &[("retry-after", "120")], "");
    assert_eq!(retried(sink.deliver(&raised(), 1).await).1, Some(Duration::from_secs(120)));
    receiver.answer(503, &[("retry-after", "99999999999999999999999")], "");
    assert_eq!(retried(sink.deliver(&raised(), 1).await).1, Some(Duration::from_secs(3600)));
    receiver.answer(503, &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], "");
    assert_eq!(retried(sink.deliver(&raised(), 1).await).1, Some(Duration::ZERO));
    receiver.answer(503, &[("retry-after", "later")], "");
    assert_eq!(retried(sink.deliver(&raised(), 1).await).1, None);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let receiver = Receiver::start().await;
    for status in [301, 302, 303, 307, 308] {
        receiver.answer(status, &[("location", "/elsewhere")], "");
        let (problem, _) = retried(receiver.webhook().deliver(&raised(), 1).await);
        assert!(problem.contains("redirects are not followed"), "{problem}");
    }
    assert!(receiver.seen().iter().all(|seen| seen.path == "/hook"));
}

#[tokio::test]
async fn an_attempt_ends_in_time() {
    let receiver = Receiver::start().await;
    receiver.script.lock().unwrap().answers.push_back(Answer {
        status: 204,
        headers: &[],
        body: String::new(),
        after: PATIENCE,
    });
    let begin = Instant::now();
    retried(receiver.webhook().deliver(&raised(), 1).await);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_answer_that_never_ends_is_still_a_success() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 65_536];
        assert_ne!(stream.read(&mut request).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx").await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    });
    let sink = sink(&format!(
        "    webhook: {{url: 'http://{address}', secrets: [{{env: WHSEC}}], allow_private: true}}\n    \
         timeout: 10s"
    ));
    let verdict = sink.deliver(&raised(), 1).await;
    assert_eq!(verdict, Verdict::Delivered { detail: "HTTP 200".to_owned() });
    server.abort();
}

#[tokio::test]
async fn a_problem_is_short_and_tells_no_secret() {
    let receiver = Receiver::start().await;
    let echo = format!("bad header {TOKEN} {}", "x".repeat(1 << 20));
    receiver.answer(401, &[], &echo);
    let (problem, _) = retried(receiver.webhook().deliver(&raised(), 1).await);
    assert!(problem.starts_with("HTTP 401: bad header [redacted] xxx"), "{problem}");
    assert!(problem.len() < 400, "{problem}");
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again_and_its_url_is_not_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let sink = sink(&format!(
        "    webhook: {{url: 'http://{address}/hook?key=hidden', secrets: [{{env: WHSEC}}], \
         allow_private: true}}"
    ));
    let (problem, _) = retried(sink.deliver(&raised(), 1).await);
    assert!(problem.contains("onnect"), "{problem}");
    assert!(!problem.contains("hidden") && !problem.contains("hook"), "{problem}");
}

#[tokio::test]
async fn a_name_of_this_machine_is_not_called() {
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    let settings = format!(
        "    webhook: {{url: 'http://localhost:{port}/', secrets: [{{env: WHSEC}}], allow_http: true}}"
    );
    let (problem, _) = retried(sink(&settings).deliver(&raised(), 1).await);
    assert!(problem.contains("has no public address"), "{problem}");
    assert!(receiver.seen().is_empty());
    let allowed = settings.replace("allow_http", "allow_private");
    let verdict = sink(&allowed).deliver(&raised(), 1).await;
    assert!(matches!(verdict, Verdict::Delivered { .. }), "{verdict:?}");
}

#[tokio::test]
async fn cloudevents_arrive_in_both_modes() {
    let receiver = Receiver::start().await;
    let deliver = async |mode: &str| {
        let sink = sink(&format!(
            "    cloudevents: {{url: 'http://{}/events', mode: {mode}, token: {{env: TOKEN}}, \
             allow_private: true}}",
            receiver.address
        ));
        let verdict = sink.deliver(&raised(), 1).await;
        assert!(matches!(verdict, Verdict::Delivered { .. }), "{verdict:?}");
        receiver.seen().pop().unwrap()
    };
    let structured = deliver("structured").await;
    assert!(structured.header("content-type").starts_with("application/cloudevents+json"));
    assert_eq!(structured.header("authorization"), format!("Bearer {TOKEN}"));
    let event = structured.json();
    let binary = deliver("binary").await;
    assert_eq!(binary.header("content-type"), "application/json");
    for name in ["specversion", "id", "source", "type", "subject", "time"] {
        assert_eq!(binary.header(&format!("ce-{name}")), event[name].as_str().unwrap());
    }
    assert_eq!(binary.json(), event["data"]);
    assert_eq!(event["type"], "dev.undertone.escalation.raised.v1");
    assert_eq!(event["id"], raised().id.to_string());
    assert_eq!(event["subject"], raised().escalation.id.to_string());
}

#[tokio::test]
async fn bad_requests_are_dead_for_fhir_and_pagerduty() {
    let receiver = Receiver::start().await;
    let fhir =
        sink(&format!("    fhir: {{url: 'http://{}/r4', allow_private: true}}", receiver.address));
    let pager = sink(&format!(
        "    pagerduty: {{url: 'http://{}', routing_key: {{env: TOKEN}}, allow_private: true}}",
        receiver.address
    ));
    for sink in [&fhir, &pager] {
        for status in [400, 422] {
            receiver.answer(status, &[], "invalid");
            let problem = format!("HTTP {status}: invalid");
            assert_eq!(sink.deliver(&raised(), 1).await, Verdict::Dead { problem });
        }
        for status in [401, 404, 429, 500] {
            receiver.answer(status, &[], "");
            retried(sink.deliver(&raised(), 1).await);
        }
    }
    let seen = receiver.seen();
    let (bundle, event) = (seen.first().unwrap(), seen.last().unwrap());
    assert_eq!(bundle.path, "/r4");
    assert_eq!(bundle.header("content-type"), "application/fhir+json");
    assert_eq!(event.path, "/v2/enqueue");
    assert_eq!(event.json()["routing_key"], TOKEN);
}

/// The life of a sample as one sink renders it.
fn rendered(settings: &str, kind: Kind) -> Value {
    let occurrence = sample(kind, "s", SAMPLE_TIME);
    let rendered = sink(settings).render(&occurrence, SAMPLE_TIME).unwrap();
    serde_json::from_str(&rendered.body).unwrap()
}

#[test]
fn pagerduty_follows_the_life_of_an_escalation() {
    let settings = "    pagerduty: {routing_key: {env: TOKEN}}";
    let events = [
        (Kind::Raised, "trigger"),
        (Kind::Acknowledged, "acknowledge"),
        (Kind::Cleared, "resolve"),
    ];
    for (kind, action) in events {
        let event = rendered(settings, kind);
        assert_eq!(event["event_action"], action);
        assert_eq!(event["dedup_key"], raised().escalation.id.to_string());
        assert_eq!(event["routing_key"], "[redacted]");
        assert_eq!(event["payload"]["severity"], "critical");
    }
    let long = "    pagerduty: {routing_key: {env: TOKEN}}\n    text: \"{{ 'x'*2000 }}\"";
    let event = rendered(long, Kind::Raised);
    assert_eq!(event["payload"]["summary"].as_str().unwrap().chars().count(), 1024);
}

#[test]
fn fhir_resources_are_created_once_and_follow_the_first() {
    let settings = "    fhir: {url: 'https://example.org/r4'}";
    let [raised, acknowledged, cleared] =
        [Kind::Raised, Kind::Acknowledged, Kind::Cleared].map(|kind| rendered(settings, kind));
    for bundle in [&raised, &acknowledged, &cleared] {
        assert_eq!(bundle["type"], "transaction");
        for entry in bundle["entry"].as_array().unwrap() {
            let identifier = &entry["resource"]["identifier"][0];
            let condition = format!(
                "identifier={}|{}",
                identifier["system"].as_str().unwrap(),
                identifier["value"].as_str().unwrap()
            );
            assert_eq!(entry["request"]["ifNoneExist"], condition);
            assert_eq!(entry["fullUrl"], identifier["value"]);
            assert_eq!(entry["resource"]["subject"]["reference"], "Patient/example-patient");
        }
    }
    let communication = |bundle: &Value| bundle["entry"][0]["resource"].clone();
    let first = communication(&raised)["identifier"][0].clone();
    assert_eq!(communication(&raised)["inResponseTo"], Value::Null);
    assert_eq!(communication(&raised)["about"][0]["reference"], raised["entry"][1]["fullUrl"]);
    for bundle in [&acknowledged, &cleared] {
        assert_eq!(communication(bundle)["inResponseTo"][0]["identifier"], first);
    }
    // No new values come with an acknowledgement: it is about those of the alert.
    assert_eq!(acknowledged["entry"].as_array().unwrap().len(), 1);
    let about = &communication(&acknowledged)["about"][0]["identifier"];
    assert_eq!(*about, raised["entry"][1]["resource"]["identifier"][0]);
}

/// The command that `tests/golden/sinks/make.sh` runs as well.
fn golden(sink: &str, event: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sinks");
    let output = Command::new(env!("CARGO_BIN_EXE_undertone"))
        .args(["delivery", "sample", "delivery.yaml", "--sink", sink, "--event", event])
        .current_dir(folder)
        .env("GOLDEN_WHSEC", SECRET)
        .env("GOLDEN_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_format_is_what_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sinks");
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    assert_eq!(files.len(), 9, "{:?}", files.keys());
    for (name, expected) in files {
        let (sink, event) = name.rsplit_once('-').unwrap();
        let actual = golden(sink, event);
        assert_eq!(actual, expected, "{name}: if this is meant, run tests/golden/sinks/make.sh");
        assert!(!actual.contains(TOKEN) && !actual.contains("MfKQ9r8G"), "{name} tells a secret");
    }
}

#[test]
fn checking_a_file_prints_its_sinks_and_no_secret() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sinks");
    let check = |secret: &str| {
        Command::new(env!("CARGO_BIN_EXE_undertone"))
            .args(["delivery", "check", "delivery.yaml"])
            .current_dir(&folder)
            .env("GOLDEN_WHSEC", secret)
            .env("GOLDEN_TOKEN", TOKEN)
            .output()
            .unwrap()
    };
    let output = check(SECRET);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("webhook (webhook): https://receiver.example.org/hook"), "{text}");
    assert!(text.contains("takes raised, acknowledged, cleared; severity"), "{text}");
    assert!(!text.contains(TOKEN) && !text.contains("MfKQ9r8G"), "{text}");
    let output = check("hunter2");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("sinks[0].webhook.secrets[0]"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

/// A NATS server with JetStream of its own.
pub(crate) struct NatsServer {
    process: Child,
    pub(crate) port: u16,
    _store: TempDir,
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl NatsServer {
    async fn start(port: u16) -> Self {
        Self::start_with(port, &[]).await
    }

    /// With further arguments.
    pub(crate) async fn start_with(port: u16, more: &[&str]) -> Self {
        let store = tempfile::tempdir().unwrap();
        // Debian puts it where the path of an ordinary user does not look.
        let program = ["/usr/sbin/nats-server", "nats-server"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_ok())
            .expect("nats-server is missing: apt-get install nats-server");
        let process = Command::new(program)
            .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream"])
            .args(["--auth", TOKEN, "--store_dir"])
            .arg(store.path())
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, port, _store: store };
        until("the NATS server listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        server
    }

    /// A client that is not the one under test.
    async fn jetstream(&self) -> async_nats::jetstream::Context {
        let options = async_nats::ConnectOptions::with_token(TOKEN.to_owned());
        let client = options.connect(format!("127.0.0.1:{}", self.port)).await.unwrap();
        async_nats::jetstream::new(client)
    }
}

fn nats(port: u16, more: &str) -> Arc<Sink> {
    sink(&format!(
        "    nats: {{servers: ['nats://127.0.0.1:{port}'], token: {{env: TOKEN}}{more}}}\n    \
         timeout: 5s"
    ))
}

/// Tries until it is delivered, as the outbox would.
pub(crate) async fn persist(sink: &Sink, occurrence: &Occurrence) -> String {
    let mut detail = String::new();
    until("it is delivered", async || match sink.deliver(occurrence, 1).await {
        Verdict::Delivered { detail: told } => {
            detail = told;
            true
        }
        Verdict::Retry { .. } => false,
        other => panic!("{other:?}"),
    })
    .await;
    detail
}

#[tokio::test]
async fn nats_keeps_one_of_two_attempts() {
    let server = NatsServer::start(free_port()).await;
    let sink = nats(server.port, ", stream: ESCALATIONS, create_stream: true");
    assert_eq!(persist(&sink, &raised()).await, "stream ESCALATIONS, sequence 1");
    assert_eq!(persist(&sink, &raised()).await, "stream ESCALATIONS, sequence 1, there already");
    let cleared = sample(Kind::Cleared, "s", SAMPLE_TIME);
    assert_eq!(persist(&sink, &cleared).await, "stream ESCALATIONS, sequence 2");

    let jetstream = server.jetstream().await;
    let mut stream = jetstream.get_stream("ESCALATIONS").await.unwrap();
    let info = stream.info().await.unwrap();
    assert_eq!(info.state.messages, 2);
    assert_eq!(info.config.duplicate_window, Duration::from_secs(3600));
    assert_eq!(info.config.subjects, ["undertone.escalations.>"]);
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.subject.as_str(), "undertone.escalations.high.care-call");
    assert_eq!(message.headers.get("Nats-Msg-Id").unwrap().as_str(), raised().id.to_string());
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(body["type"], "escalation.raised");
    assert_eq!(serde_json::from_value::<Occurrence>(body["data"].clone()).unwrap(), raised());
}

#[tokio::test]
async fn nats_without_a_stream_or_a_server_is_tried_again() {
    let server = NatsServer::start(free_port()).await;
    let sink = nats(server.port, "");
    let (problem, _) = retried(sink.deliver(&raised(), 1).await);
    assert!(
        problem.contains("no stream takes the subject undertone.escalations.high"),
        "{problem}"
    );

    let port = server.port;
    drop(server);
    until("the broken connection is seen", async || {
        let (problem, _) = retried(sink.deliver(&raised(), 2).await);
        assert!(!problem.contains(TOKEN), "{problem}");
        problem.contains("not connected")
    })
    .await;

    let server = NatsServer::start(port).await;
    let config = async_nats::jetstream::stream::Config {
        name: "OTHER".to_owned(),
        subjects: vec!["undertone.>".to_owned()],
        ..Default::default()
    };
    server.jetstream().await.create_stream(config).await.unwrap();
    assert_eq!(persist(&sink, &raised()).await, "stream OTHER, sequence 1");
}

#[tokio::test]
async fn a_nats_server_that_is_not_there_does_not_hold_an_attempt_up() {
    let begin = Instant::now();
    let (problem, _) = retried(nats(free_port(), "").deliver(&raised(), 1).await);
    assert!(!problem.contains(TOKEN), "{problem}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}
