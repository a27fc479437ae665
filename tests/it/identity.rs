//! Who calls, and what they may: tokens, roles, files that change, and what is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use undertone::config::Settings;
use undertone::identity::Role;
use undertone::server::identity::{Access, needed};
use undertone::wire::v1;
use undertone::wire::v1::escalation_service_client::EscalationServiceClient;

use crate::pki::{Bearing, Signer, Site, caller, hash, jwks};
use crate::process::{metric, undertone};
use crate::protocol::grpc_web;
use crate::signal::{encode, speech};
use crate::support::{
    PLAIN, Server, assert_error, audio, channel, chunks, http_exchange, http_get, send, until, wrap,
};

const TOKEN: &str = "ut_0-a-token-of-a-test";

/// One identity `app` of the tenant `ward-7` with [`TOKEN`] and these roles.
fn app(roles: &str) -> String {
    format!(
        "identities:\n  - name: app\n    tenant: ward-7\n    roles: [{roles}]\n    tokens: [{{hash: '{}'}}]\n",
        hash(TOKEN)
    )
}

async fn server(site: &Site, text: &str) -> Server {
    Server::with(|settings| site.identities(settings, text)).await
}

/// What `ListModels` answers to a token.
async fn list(server: &Server, token: Option<&str>) -> Result<(), tonic::Status> {
    let mut client = caller(channel(server.grpc).await, token);
    client.list_models(v1::ListModelsRequest {}).await.map(|_| ())
}

#[tokio::test]
async fn a_known_token_streams_and_no_token_does_not() {
    let site = Site::new();
    let server = server(&site, &app("stream")).await;
    let mut client = caller(channel(server.grpc).await, Some(TOKEN));
    let sound = encode(&speech(1, 1.0, 16_000), PLAIN.encoding);
    let config = wrap(v1::stream_emotion_request::Message::Config(PLAIN.config().into()));
    let requests: Vec<_> =
        std::iter::once(config).chain(chunks(&sound, 3_200).into_iter().map(wrap)).collect();
    let responses = client.stream_emotion(tokio_stream::iter(requests.clone())).await.unwrap();
    crate::support::read(responses.into_inner()).await.fine();

    let answer = send(&server.client().await, requests).await;
    assert_error(answer.error(), Code::Unauthenticated, "TOKEN_MISSING", None);
}

#[tokio::test]
async fn each_way_to_be_unknown_has_its_reason_and_says_what_to_do() {
    let site = Site::new();
    let expired = "ut_expired";
    let text = format!(
        "{}  - name: old\n    roles: []\n    tokens: [{{hash: '{}', expires: 2020-01-01T00:00:00Z}}]\n",
        app("stream"),
        hash(expired)
    );
    let server = server(&site, &text).await;
    assert!(list(&server, Some(TOKEN)).await.is_ok());
    for (token, reason, remedy) in [
        (None, "TOKEN_MISSING", "authorization: Bearer"),
        (Some("ut_nobodys"), "TOKEN_UNKNOWN", "replaced or taken out"),
        // Without issuers a token of theirs is just a token.
        (Some("a.b.c"), "TOKEN_UNKNOWN", "replaced or taken out"),
        (Some(expired), "TOKEN_EXPIRED", "get a new one"),
        (Some("two words"), "TOKEN_INVALID", "Bearer TOKEN"),
    ] {
        let status = list(&server, token).await.unwrap_err();
        assert_error(&status, Code::Unauthenticated, reason, None);
        assert!(status.message().contains(remedy), "{status:?}");
        if let Some(token) = token {
            assert!(!status.message().contains(token), "{status:?}");
        }
    }
    let channel = channel(server.grpc).await;
    let basic = Bearing(Some("Basic YTpi".to_owned()));
    let mut client =
        v1::emotion_service_client::EmotionServiceClient::with_interceptor(channel, basic);
    let status = client.list_models(v1::ListModelsRequest {}).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_INVALID", None);
}

#[tokio::test]
async fn a_role_that_is_missing_is_named() {
    let site = Site::new();
    let server = server(&site, &app("watch")).await;
    let mut client = caller(channel(server.grpc).await, Some(TOKEN));
    client.list_models(v1::ListModelsRequest {}).await.unwrap();
    let status = client.analyze_audio(v1::AnalyzeAudioRequest::default()).await.unwrap_err();
    assert_error(&status, Code::PermissionDenied, "ROLE_MISSING", None);
    let words = ["\"app\"", "undertone.v1.EmotionService/AnalyzeAudio", "\"analyze\""];
    assert!(words.iter().all(|word| status.message().contains(word)), "{status:?}");
}

#[test]
fn every_method_of_the_protocol_has_its_role_in_the_table() {
    let files = prost_types::FileDescriptorSet::decode(undertone::wire::DESCRIPTORS).unwrap();
    let mut seen = BTreeSet::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                let (package, service, method) = (file.package(), service.name(), method.name());
                let path = format!("/{package}.{service}/{method}");
                assert!(needed(&path).is_some(), "{path} is not in the table of server::identity");
                seen.insert(method.to_owned());
            }
        }
    }
    assert!(seen.len() >= 9, "{seen:?}");
    let role = |method: &str| needed(&format!("/undertone.v1.{method}"));
    for (method, expected) in [
        ("EmotionService/StreamEmotion", Access::Role(Role::Stream)),
        ("EmotionService/AnalyzeAudio", Access::Role(Role::Analyze)),
        ("EmotionService/GetModel", Access::Known),
        ("EscalationService/WatchEscalations", Access::Role(Role::Watch)),
        ("EscalationService/AcknowledgeEscalation", Access::Role(Role::Acknowledge)),
    ] {
        assert_eq!(role(method), Some(expected), "{method}");
    }
}

#[tokio::test]
async fn what_is_no_method_is_refused_before_anybody_asks_who_calls() {
    let site = Site::new();
    let server = server(&site, &app("admin")).await;
    let path = "/undertone.v1.EmotionService/DeleteEverything";
    let (status, body) = grpc_web(server.grpc, path, &[0; 5]).await;
    let body = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200);
    // Trailers-only answers have their status in the head.
    assert!(!body.contains("models"), "{body}");
}

#[tokio::test]
async fn probes_need_no_token_and_reflection_does() {
    let site = Site::new();
    let server = server(&site, &app("watch")).await;
    let mut health = HealthClient::new(channel(server.grpc).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let mut client = ServerReflectionClient::new(channel(server.grpc).await);
    let status = client.server_reflection_info(tokio_stream::empty()).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_MISSING", None);
    let bearing = Bearing(Some(format!("Bearer {TOKEN}")));
    let mut client = ServerReflectionClient::with_interceptor(channel(server.grpc).await, bearing);
    client.server_reflection_info(tokio_stream::empty()).await.unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(http_get(server.http, path).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn sessions_are_for_admins() {
    let site = Site::new();
    let other = "ut_of-a-watcher";
    let text = format!(
        "{}  - name: watcher\n    roles: [watch]\n    tokens: [{{hash: '{}'}}]\n",
        app("admin"),
        hash(other)
    );
    let server = server(&site, &text).await;
    let get = async |token: Option<&str>| {
        let header = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
        let request =
            format!("GET /sessions HTTP/1.1\r\nHost: test\r\n{header}Connection: close\r\n\r\n");
        let (status, body) = http_exchange(server.http, request.as_bytes()).await;
        (status, String::from_utf8(body).unwrap())
    };
    let (status, text) = get(None).await;
    assert!(status == 401 && text.starts_with("TOKEN_MISSING"), "{status} {text}");
    let (status, text) = get(Some(other)).await;
    assert!(status == 403 && text.contains("\"admin\""), "{status} {text}");
    assert_eq!(get(Some(TOKEN)).await, (200, "[]".to_owned()));
}

#[tokio::test]
async fn escalations_are_for_those_who_watch() {
    let site = Site::new();
    let server = Server::with(|settings| {
        site.identities(settings, &app("stream"));
        settings.escalation_store =
            undertone::config::StoreUrl(format!("sqlite:{}", site.path("store.db").display()));
    })
    .await;
    let bearing = Bearing(Some(format!("Bearer {TOKEN}")));
    let mut client = EscalationServiceClient::with_interceptor(channel(server.grpc).await, bearing);
    let request = v1::ListEscalationsRequest::default();
    let status = client.list_escalations(request.clone()).await.unwrap_err();
    assert_error(&status, Code::PermissionDenied, "ROLE_MISSING", None);
    site.write_identities(&app("watch"));
    until("the new roles are in force", async || {
        client.list_escalations(request.clone()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_stream_goes_on_when_its_token_expires_and_a_new_call_does_not() {
    let site = Site::new();
    let soon = std::time::SystemTime::now() + Duration::from_millis(2_500);
    let text = format!(
        "identities:\n  - name: app\n    roles: [stream]\n    tokens:\n      - hash: '{}'\n        expires: {}\n",
        hash(TOKEN),
        humantime::format_rfc3339_millis(soon)
    );
    let server = server(&site, &text).await;
    let (requests, inbox) = tokio::sync::mpsc::channel(4);
    let config = wrap(v1::stream_emotion_request::Message::Config(PLAIN.config().into()));
    requests.send(config).await.unwrap();
    let mut client = caller(channel(server.grpc).await, Some(TOKEN));
    let inbox = tokio_stream::wrappers::ReceiverStream::new(inbox);
    let responses = client.stream_emotion(inbox).await.unwrap().into_inner();
    until("the token expires", async || match list(&server, Some(TOKEN)).await {
        Ok(()) => false,
        Err(status) => {
            assert_error(&status, Code::Unauthenticated, "TOKEN_EXPIRED", None);
            true
        }
    })
    .await;
    requests.send(wrap(audio(encode(&speech(1, 0.5, 16_000), PLAIN.encoding)))).await.unwrap();
    drop(requests);
    crate::support::read(responses).await.fine();
}

#[tokio::test]
async fn a_new_file_is_in_force_and_a_bad_one_is_not() {
    let site = Site::new();
    let server = server(&site, &app("stream")).await;
    list(&server, Some(TOKEN)).await.unwrap();
    site.write_identities("identities: [{name: 7, }]");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(list(&server, Some(TOKEN)).await.is_ok());
    let fresh = "ut_another";
    site.write_identities(&app("stream").replace(&hash(TOKEN), &hash(fresh)));
    until("the new token is known", async || list(&server, Some(fresh)).await.is_ok()).await;
    let status = list(&server, Some(TOKEN)).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_UNKNOWN", None);
}

#[tokio::test]
async fn grpc_web_needs_a_token_too() {
    let site = Site::new();
    let server = server(&site, &app("")).await;
    let call = async |header: &str| {
        let head = format!(
            "POST /undertone.v1.EmotionService/ListModels HTTP/1.1\r\nHost: test\r\n\
             Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n{header}\
             Connection: close\r\nContent-Length: 5\r\n\r\n"
        );
        let request = [head.as_bytes(), &[0; 5]].concat();
        let (status, body) = http_exchange(server.grpc, &request).await;
        assert_eq!(status, 200);
        body
    };
    let answer = call(&format!("Authorization: Bearer {TOKEN}\r\n")).await;
    let length = u32::from_be_bytes(answer[1..5].try_into().unwrap()) as usize;
    let models = v1::ListModelsResponse::decode(&answer[5..5 + length]).unwrap().models;
    assert_eq!(models.len(), 4);
    let answer = call("").await;
    assert!(!String::from_utf8_lossy(&answer).contains("tiny-steps"));
}

#[tokio::test]
async fn a_header_that_comes_twice_is_refused() {
    let site = Site::new();
    let server = server(&site, &app("admin")).await;
    let request = format!(
        "GET /sessions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\n\
         Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    let (status, body) = http_exchange(server.http, request.as_bytes()).await;
    let text = String::from_utf8(body).unwrap();
    assert!(status == 401 && text.contains("more than once"), "{status} {text}");
}

#[test]
fn a_server_that_others_reach_without_tls_or_identities_is_refused_at_its_start() {
    let check = |args: &[&str]| {
        let model = crate::support::model_folder("tiny-steps").display().to_string();
        let args = [&["check", "--model", &model, "--escalation-store", ""][..], args].concat();
        let output = undertone(&args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let public = ["--grpc-address", "0.0.0.0:50051"];
    let (code, text) = check(&public);
    assert_eq!(code, Some(64), "{text}");
    for words in ["grpc_address", "0.0.0.0:50051", "tls_certificate", "--insecure"] {
        assert!(text.contains(words), "{text}");
    }
    let (code, text) = check(&["--http-address", "0.0.0.0:9464"]);
    assert!(code == Some(64) && text.contains("http_address"), "{text}");
    let (code, text) = check(&[&public[..], &["--insecure"]].concat());
    assert_eq!(code, Some(0), "{text}");
    let site = Site::new();
    site.write_identities(&app("stream"));
    let file = |name: &str| site.path(name).display().to_string();
    let (certificate, key, who) = (file("tls.crt"), file("tls.key"), file("identities.yaml"));
    let identities = ["--identities", &who];
    let (code, text) = check(&[&public[..], &identities].concat());
    assert!(code == Some(64) && text.contains("without TLS"), "{text}");
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key];
    let (code, text) = check(&[&public[..], &tls].concat());
    assert!(code == Some(64) && text.contains("by everybody"), "{text}");
    let (code, text) = check(&[&public[..], &tls, &identities].concat());
    assert_eq!(code, Some(0), "{text}");
    site.write("tls.key", &site.authority.server().key);
    let (code, text) = check(&tls);
    assert!(code == Some(64) && text.contains("tls_key"), "{text}");
    site.write_identities("identities: [{name: a, roles: [boss]}]");
    let (code, text) = check(&identities);
    assert!(code == Some(64) && text.contains("line 2, column 32"), "{text}");
}

#[test]
fn a_token_is_made_checked_and_never_in_the_file() {
    let output = undertone(&["identities", "token", "--expires-in", "90d"]).output().unwrap();
    let token = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let token = token.trim();
    assert!(token.starts_with("ut_") && token.len() == 46, "{token}");
    assert!(told.contains(&hash(token)) && !told.contains(token), "{told}");
    let line = told.lines().last().unwrap();
    let site = Site::new();
    site.write_identities(&format!(
        "identities:\n  - name: app\n    tenant: ward-7\n    roles: [stream, watch]\n    tokens:\n{line}\n"
    ));
    let file = site.path("identities.yaml").display().to_string();
    let output = undertone(&["identities", "check", &file]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "app: tenant ward-7; may stream, watch\n");
    site.write_identities(&format!(
        "identities: [{{name: app, roles: [], tokens: [{{hash: {token}}}]}}]"
    ));
    let output = undertone(&["identities", "check", &file]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("identities[0].tokens[0].hash") && !text.contains(token), "{text}");
    let output = undertone(&["identities", "schema"]).output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], "undertone.identities/v1");
}

#[test]
fn the_example_can_be_used() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/identities.yaml");
    let output = undertone(&["identities", "check", file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 4);
}

#[test]
fn defaults_say_that_only_this_machine_can_call() {
    let settings = Settings::default();
    assert!(settings.is_local() && !settings.is_guarded() && !settings.has_tls());
}

#[tokio::test]
async fn a_watch_ends_when_its_identity_is_taken_out_or_may_not_watch_any_more() {
    let site = Site::new();
    let server = Server::with(|settings| {
        site.identities(settings, &app("watch"));
        settings.watch_heartbeat = crate::support::ms(100);
        settings.escalation_store =
            undertone::config::StoreUrl(format!("sqlite:{}", site.path("store.db").display()));
    })
    .await;
    let bearing = Bearing(Some(format!("Bearer {TOKEN}")));
    let mut client = EscalationServiceClient::with_interceptor(channel(server.grpc).await, bearing);
    let gone = ("identities: []\n".to_owned(), Code::Unauthenticated, "TOKEN_UNKNOWN");
    let other = (app("stream"), Code::PermissionDenied, "ROLE_MISSING");
    let moved = app("watch").replace("ward-7", "ward-8");
    let moved = (moved, Code::Unauthenticated, "TOKEN_INVALID");
    for (text, code, reason) in [gone, other, moved] {
        site.write_identities(&app("watch"));
        let mut watch = None;
        until("it may watch", async || {
            let request = v1::WatchEscalationsRequest::default();
            watch = client.watch_escalations(request).await.ok();
            watch.is_some()
        })
        .await;
        let mut watch = watch.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        site.write_identities(&text);
        let ended = tokio::time::timeout(crate::support::PATIENCE, async {
            loop {
                if let Err(status) = watch.message().await {
                    return status;
                }
            }
        });
        assert_error(&ended.await.expect("it ends"), code, reason, None);
    }
}

#[tokio::test]
async fn a_file_that_names_another_one_is_in_force_as_soon_as_that_is_there() {
    let site = Site::new();
    let server = server(&site, &app("stream")).await;
    list(&server, Some(TOKEN)).await.unwrap();
    // The token is taken out, and an issuer comes in whose keys come later.
    let keys = site.path("late.json").display().to_string();
    site.write_identities(&format!(
        "jwt: [{{name: sso, issuer: me, audience: [us], jwks: '{keys}'}}]\n"
    ));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(list(&server, Some(TOKEN)).await.is_ok());
    site.write("late.json", &jwks(&[&Signer::new("ES256", "one")]));
    until("the token is taken out", async || list(&server, Some(TOKEN)).await.is_err()).await;
}

#[tokio::test]
async fn a_call_that_may_not_be_made_is_counted() {
    let site = Site::new();
    let server = server(&site, &app("watch")).await;
    let count = async |reason: &str| {
        let page = http_get(server.http, "/metrics").await.1;
        let label = format!("\"{reason}\"");
        metric(&page, "undertone_auth_failures_total", &label).unwrap_or_default()
    };
    let before = (count("ROLE_MISSING").await, count("METHOD_UNKNOWN").await);
    let mut client = caller(channel(server.grpc).await, Some(TOKEN));
    client.analyze_audio(v1::AnalyzeAudioRequest::default()).await.unwrap_err();
    grpc_web(server.grpc, "/undertone.v1.EmotionService/Sing", &[0; 5]).await;
    assert!(count("ROLE_MISSING").await > before.0 && count("METHOD_UNKNOWN").await > before.1);
}

#[test]
fn a_token_that_is_to_be_good_beyond_the_calendar_is_refused() {
    let output = undertone(&["identities", "token", "--expires-in", "9000y"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("too far away"), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}
