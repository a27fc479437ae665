//! Phone calls: the message sequences that Twilio and Genesys document, replayed.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use undertone::audio::Encoding;
use undertone::config::{Settings, StoreUrl};
use undertone::wire::v1;
use undertone::wire::v1::escalation_service_client::EscalationServiceClient;
use undertone::wire::v1::session_service_client::SessionServiceClient;

use crate::pki::{Bearing, Site, hash};
use crate::signal::{encode, speech};
use crate::socket::{Came, Socket};
use crate::support::{Server, channel, ms, seconds, until};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const AUTH_TOKEN: &str = "12345";
const API_KEY: &str = "ut_hook";
const CLIENT_SECRET: &[u8] = b"MySuperSecretKeyTellNo-1!@2#3$45";

/// A policy that notices a second of silence.
fn policies(site: &Site) -> std::path::PathBuf {
    let folder = site.path("policies");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("quiet.yaml"), crate::escalations::QUIET).unwrap();
    folder
}

async fn server(site: &Site, change: impl FnOnce(&mut Settings)) -> Server {
    site.write("twilio", &format!("{AUTH_TOKEN}\n"));
    site.write("secret", &STANDARD.encode(CLIENT_SECRET));
    let identities = format!(
        "identities:\n  \
         - name: phone\n    tenant: ward-7\n    roles: [stream]\n    \
           twilio: [{{account: {ACCOUNT}, auth_token: {{file: {}}}}}]\n    \
           audiohook: [{{api_key: '{}', client_secret: {{file: {}}}}}]\n  \
         - {{name: plain, tenant: ward-7, roles: [stream], audiohook: [{{api_key: '{}'}}]}}\n  \
         - {{name: mute, roles: [watch], audiohook: [{{api_key: '{}'}}]}}\n  \
         - {{name: op, all_tenants: true, roles: [admin], tokens: [{{hash: '{}'}}]}}\n",
        site.path("twilio").display(),
        hash(API_KEY),
        site.path("secret").display(),
        hash("ut_plain"),
        hash("ut_mute"),
        hash("ut_op"),
    );
    let store = format!("sqlite:{}", site.path("store.db").display());
    let folder = policies(site);
    Server::with(|settings| {
        site.identities(settings, &identities);
        settings.escalation_store = StoreUrl(store);
        settings.policies = folder;
        change(settings);
    })
    .await
}

fn bearing() -> Bearing {
    Bearing(Some("Bearer ut_op".to_owned()))
}

async fn sessions(server: &Server) -> Vec<v1::Session> {
    let channel = channel(server.grpc).await;
    let mut service = SessionServiceClient::with_interceptor(channel, bearing());
    service.list_sessions(v1::ListSessionsRequest::default()).await.unwrap().into_inner().sessions
}

async fn escalations(server: &Server) -> Vec<v1::Escalation> {
    let channel = channel(server.grpc).await;
    let mut service = EscalationServiceClient::with_interceptor(channel, bearing());
    let request = v1::ListEscalationsRequest::default();
    service.list_escalations(request).await.unwrap().into_inner().escalations
}

/// Two seconds of speech and two of silence, mu-law.
fn call() -> Vec<u8> {
    let mut samples = speech(1, 2.0, 8_000);
    samples.extend(vec![0.0; 16_000]);
    encode(&samples, Encoding::MuLaw)
}

// --- Twilio ----------------------------------------------------------------------------------------

fn twilio_signature(token: &str, url: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    STANDARD.encode(hmac::sign(&key, url.as_bytes()))
}

async fn twilio(server: &Server, token: &str, url: &str) -> Result<Socket, (u16, String)> {
    let signature = twilio_signature(token, url);
    Socket::open(server.http, "/v1/twilio", &[("x-twilio-signature", &signature)]).await
}

/// The documented sequence: connected, start, media on both tracks, a mark, a key, stop.
async fn replay(socket: &mut Socket, account: &str, parameters: Value, data: &[u8]) {
    socket.say(&json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await;
    socket
        .say(&json!({
            "event": "start", "sequenceNumber": "1", "streamSid": "MZ01",
            "start": {
                "accountSid": account, "streamSid": "MZ01", "callSid": "CA01",
                "tracks": ["inbound", "outbound"], "customParameters": parameters,
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        }))
        .await;
    for (at, chunk) in data.chunks(160).enumerate() {
        for track in ["inbound", "outbound"] {
            // What the agent says is not the caller's.
            let payload = if track == "inbound" { chunk.to_vec() } else { vec![0x80; 160] };
            socket
                .say(&json!({
                    "event": "media", "sequenceNumber": (2 * at + 2).to_string(), "streamSid": "MZ01",
                    "media": {
                        "track": track, "chunk": (at + 1).to_string(),
                        "timestamp": (at * 20).to_string(), "payload": STANDARD.encode(payload),
                    },
                }))
                .await;
        }
    }
    socket.say(&json!({"event": "dtmf", "streamSid": "MZ01", "dtmf": {"track": "inbound_track", "digit": "1"}})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twilio_call_is_a_session_with_the_caller_s_voice_its_policy_and_its_labels() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    let url = format!("wss://{}/v1/twilio", server.http);
    let mut socket = twilio(&server, AUTH_TOKEN, &url).await.unwrap();
    let data = call();
    replay(&mut socket, ACCOUNT, json!({"policy": "quiet", "patient": "12"}), &data).await;
    until("all is heard", async || {
        sessions(&server).await.first().is_some_and(|session| seconds(session.audio) == 4.0)
    })
    .await;
    let session = sessions(&server).await.remove(0);
    assert_eq!((session.id.as_str(), session.ingress()), ("MZ01", v1::Ingress::Twilio));
    assert_eq!((session.tenant.as_str(), session.identity.as_str()), ("ward-7", "phone"));
    assert_eq!(session.labels["twilio.call"], "CA01");
    assert_eq!(session.policy, "quiet");
    assert_eq!(session.escalation_ids.len(), 1, "the agent's noise is not heard");
    socket
        .say(&json!({
            "event": "stop", "sequenceNumber": "999", "streamSid": "MZ01",
            "stop": {"accountSid": ACCOUNT, "callSid": "CA01"},
        }))
        .await;
    // Twilio takes nothing but audio and marks: it is told nothing.
    assert_eq!(socket.rest().await, (vec![], Came::Closed(1000, String::new())));
    let escalation = escalations(&server).await.remove(0);
    assert_eq!((escalation.session_id.as_str(), escalation.policy.as_str()), ("MZ01", "quiet"));
    assert_eq!(escalation.labels["patient"], "12");
    assert!(escalation.session_ended_at.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_twilio_has_not_signed_is_refused_before_the_upgrade() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    let url = format!("wss://{}/v1/twilio", server.http);
    for (token, url) in [("wrong", url.as_str()), (AUTH_TOKEN, "wss://other.example/v1/twilio")] {
        let (status, text) = twilio(&server, token, url).await.err().unwrap();
        assert!(status == 401 && text.starts_with("SIGNATURE_INVALID"), "{status} {text}");
        assert!(text.contains("public_url") && !text.contains(AUTH_TOKEN), "{text}");
    }
    let (status, text) = Socket::open(server.http, "/v1/twilio", &[]).await.err().unwrap();
    assert!(status == 401 && text.starts_with("SIGNATURE_MISSING"), "{status} {text}");
    // Where nobody has an account there is nothing to sign with, and nobody is let in.
    let open = Server::with(|_| {}).await;
    let url = format!("wss://{}/v1/twilio", open.http);
    assert_eq!(twilio(&open, "", &url).await.err().unwrap().0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_over_the_url_as_twilio_calls_it() {
    let site = Site::new();
    let server =
        server(&site, |settings| settings.public_url = "https://emotion.example/voice".to_owned())
            .await;
    for url in [
        "wss://emotion.example/voice/v1/twilio",
        "wss://emotion.example/voice/v1/twilio/",
        "wss://emotion.example:443/voice/v1/twilio",
    ] {
        assert!(twilio(&server, AUTH_TOKEN, url).await.is_ok(), "{url}");
    }
    let inner = format!("wss://{}/v1/twilio", server.http);
    assert_eq!(twilio(&server, AUTH_TOKEN, &inner).await.err().unwrap().0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_another_account_or_with_a_policy_that_is_not_there_is_closed() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    let url = format!("wss://{}/v1/twilio", server.http);
    for (account, parameters, word) in [
        ("AC00000000000000000000000000000000", json!({}), "accountSid"),
        (ACCOUNT, json!({"policy": "none-such"}), "none-such"),
    ] {
        let mut socket = twilio(&server, AUTH_TOKEN, &url).await.unwrap();
        replay(&mut socket, account, parameters, &[]).await;
        let (texts, end) = socket.rest().await;
        let Came::Closed(1008, reason) = end else {
            panic!("{end:?}");
        };
        assert!(texts.is_empty() && reason.contains(word), "{reason}");
    }
    assert!(sessions(&server).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auth_token_that_is_replaced_counts_at_once() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    let url = format!("wss://{}/v1/twilio", server.http);
    assert!(twilio(&server, AUTH_TOKEN, &url).await.is_ok());
    site.write("twilio", "67890");
    until("the new one counts", async || twilio(&server, "67890", &url).await.is_ok()).await;
    assert!(twilio(&server, AUTH_TOKEN, &url).await.is_err());
}

// --- AudioHook ---------------------------------------------------------------------------------------

const SESSION: &str = "e160e428-53e2-487c-977d-96989bf5c99d";
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
const ORGANISATION: &str = "d7934305-0972-4844-938e-9060eef73d05";

/// The headers that Genesys sends, signed with `secret` over what it must be over.
fn audiohook_headers(host: &str, key: &str, secret: Option<&[u8]>) -> Vec<(&'static str, String)> {
    let correlation = "e160e428-53e2-487c-977d-96989bf5c99d";
    let mut headers = vec![
        ("audiohook-organization-id", ORGANISATION.to_owned()),
        ("audiohook-session-id", SESSION.to_owned()),
        ("audiohook-correlation-id", correlation.to_owned()),
        ("x-api-key", key.to_owned()),
    ];
    if let Some(secret) = secret {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let parameters = format!(
            "(\"@request-target\" \"@authority\" \"audiohook-organization-id\" \"audiohook-session-id\" \
             \"audiohook-correlation-id\" \"x-api-key\");keyid=\"{key}\";nonce=\"VGhpc0lzQVVuaXF1ZU5vbmNl\";\
             alg=\"hmac-sha256\";created={now};expires={}",
            now + 10
        );
        let base = format!(
            "\"@request-target\": /v1/audiohook\n\"@authority\": {host}\n\"audiohook-organization-id\": \
             {ORGANISATION}\n\"audiohook-session-id\": {SESSION}\n\"audiohook-correlation-id\": \
             {correlation}\n\"x-api-key\": {key}\n\"@signature-params\": {parameters}"
        );
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), base.as_bytes());
        headers.push(("signature", format!("sig1=:{}:", STANDARD.encode(signature))));
        headers.push(("signature-input", format!("sig1={parameters}")));
    }
    headers
}

/// One side of a conversation: numbers its messages.
struct Genesys {
    socket: Socket,
    seq: u64,
    heard: u64,
    id: String,
}

impl Genesys {
    async fn dial(
        server: &Server,
        key: &str,
        secret: Option<&[u8]>,
    ) -> Result<Self, (u16, String)> {
        let headers = audiohook_headers(&server.http.to_string(), key, secret);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let socket = Socket::open(server.http, "/v1/audiohook", &headers).await?;
        Ok(Self { socket, seq: 0, heard: 0, id: SESSION.to_owned() })
    }

    async fn say(&mut self, kind: &str, parameters: Value) {
        self.seq += 1;
        self.socket
            .say(&json!({
                "version": "2", "type": kind, "seq": self.seq, "serverseq": self.heard, "id": self.id,
                "position": "PT0S", "parameters": parameters,
            }))
            .await;
    }

    /// The next message, which must be of this kind, numbered, and about what was said last.
    async fn hear(&mut self, kind: &str) -> Value {
        let message = self.socket.json().await;
        assert_eq!(message["type"], kind, "{message}");
        self.heard += 1;
        assert_eq!((&message["seq"], &message["version"]), (&json!(self.heard), &json!("2")));
        assert_eq!(message["id"], self.id.as_str());
        assert!(message["clientseq"].as_u64().unwrap() <= self.seq);
        message["parameters"].clone()
    }

    async fn open(&mut self, conversation: &str, custom: Value) {
        let media = json!([
            {"type": "audio", "format": "PCMU", "channels": ["external", "internal"], "rate": 8000},
            {"type": "audio", "format": "PCMU", "channels": ["external"], "rate": 8000},
        ]);
        let participant = json!({"id": "p", "ani": "+1", "aniName": "J", "dnis": "+2"});
        self.say(
            "open",
            json!({
                "organizationId": ORGANISATION, "conversationId": conversation,
                "participant": participant, "media": media, "customConfig": custom,
            }),
        )
        .await;
    }
}

/// The customer speaks; the agent is loud all the time.
fn two_channels(customer: &[u8]) -> Vec<u8> {
    customer.iter().flat_map(|code| [*code, 0x80]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audiohook_conversation_is_opened_heard_paused_and_closed() {
    let site = Site::new();
    // A call on hold outlives the time without audio, by its pings.
    let server = server(&site, |settings| settings.idle_timeout = ms(800)).await;
    let mut genesys = Genesys::dial(&server, API_KEY, Some(CLIENT_SECRET)).await.unwrap();
    genesys.open("c0", json!({"policy": "quiet", "labels": {"queue": "7"}})).await;
    let opened = genesys.hear("opened").await;
    assert_eq!(opened["media"][0]["channels"], json!(["external", "internal"]));
    for chunk in two_channels(&call()).chunks(3_200) {
        genesys.socket.bytes(chunk).await;
    }
    until("all is heard", async || {
        sessions(&server).await.first().is_some_and(|session| seconds(session.audio) == 4.0)
    })
    .await;
    let session = sessions(&server).await.remove(0);
    assert_eq!((session.id.as_str(), session.ingress()), (SESSION, v1::Ingress::Audiohook));
    assert_eq!((session.labels["queue"].as_str(), session.policy.as_str()), ("7", "quiet"));
    assert_eq!(session.escalation_ids.len(), 1, "the agent is not listened to");
    genesys.say("paused", json!({})).await;
    for _ in 0..6 {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        genesys.say("ping", json!({"rtt": "PT0.02S"})).await;
        genesys.hear("pong").await;
    }
    genesys.say("resumed", json!({"start": "PT4S", "discarded": "PT1.8S"})).await;
    genesys.say("update", json!({"language": "de-DE"})).await;
    genesys.hear("updated").await;
    genesys.say("close", json!({"reason": "end"})).await;
    genesys.hear("closed").await;
    assert_eq!(genesys.socket.next().await, Came::Closed(1000, String::new()));
    let escalation = escalations(&server).await.remove(0);
    assert_eq!(escalation.labels["audiohook.conversation"], "c0");
    assert!(escalation.session_ended_at.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_and_opens_no_session() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    let mut genesys = Genesys::dial(&server, "ut_plain", None).await.unwrap();
    genesys.open(NOBODY, json!({})).await;
    assert_eq!(genesys.hear("opened").await, json!({"media": []}));
    assert!(sessions(&server).await.is_empty());
    genesys.say("ping", json!({})).await;
    genesys.hear("pong").await;
    genesys.say("close", json!({"reason": "end"})).await;
    genesys.hear("closed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_integration_must_have_its_key_and_sign_if_it_has_a_secret() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    for (key, secret, status, reason) in [
        ("ut_nobody", None, 401, "TOKEN_UNKNOWN"),
        (API_KEY, None, 401, "SIGNATURE_MISSING"),
        (API_KEY, Some(b"wrong".as_slice()), 401, "SIGNATURE_INVALID"),
        ("ut_mute", None, 403, "ROLE_MISSING"),
    ] {
        let (answer, text) = Genesys::dial(&server, key, secret).await.err().unwrap();
        assert!(answer == status && text.starts_with(reason), "{answer} {text}");
    }
    assert!(Genesys::dial(&server, "ut_plain", None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_is_disconnected_with_the_reason() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    let mut genesys = Genesys::dial(&server, "ut_plain", None).await.unwrap();
    genesys.open("c1", json!({"policy": "none-such"})).await;
    let parameters = genesys.hear("disconnect").await;
    assert_eq!(parameters["reason"], "error");
    assert!(parameters["info"].as_str().unwrap().contains("none-such"), "{parameters}");

    let mut genesys = Genesys::dial(&server, "ut_plain", None).await.unwrap();
    genesys.seq = 4;
    genesys.open("c1", json!({})).await;
    let message = genesys.socket.json().await;
    assert!(message["parameters"]["info"].as_str().unwrap().contains("seq"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_drains_asks_audiohook_to_come_again() {
    let site = Site::new();
    let server = server(&site, |_| {}).await;
    let mut genesys = Genesys::dial(&server, "ut_plain", None).await.unwrap();
    genesys.open("c2", json!({})).await;
    genesys.hear("opened").await;
    server.stop().await.unwrap();
    genesys.hear("reconnect").await;
    assert_eq!(genesys.hear("disconnect").await["reason"], "completed");
}
