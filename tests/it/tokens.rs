//! Tokens of issuers (JWT): signatures of every kind, keys that change, and every way to cheat.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use tonic::{Code, Status};
use undertone::wire::v1;

use crate::pki::{Bearing, Signer, Site, base64url, caller, jwks, now, unsigned};
use crate::support::{Server, assert_error, channel, ms, until};

const ISSUER: &str = "https://sso.example/realms/care";

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "undertone", "sub": "anna", "exp": now() + 600,
        "tenant": "ward-7", "scope": "openid stream",
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn issuer(jwks: &str, algorithms: &str) -> String {
    format!(
        "jwt:\n  - name: sso\n    issuer: {ISSUER}\n    audience: [undertone]\n    jwks: '{jwks}'\n    \
         algorithms: [{algorithms}]\n    leeway: 0s\n    claims: {{tenant: tenant, roles: scope}}\n"
    )
}

async fn server(site: &Site, signers: &[&Signer]) -> Server {
    site.write("keys.json", &jwks(signers));
    let keys = site.path("keys.json").display().to_string();
    let text = issuer(&keys, "RS256, PS256, ES256, EdDSA");
    Server::with(|settings| site.identities(settings, &text)).await
}

async fn list(server: &Server, token: &str) -> Result<(), Status> {
    let mut client = caller(channel(server.grpc).await, Some(token));
    client.list_models(v1::ListModelsRequest {}).await.map(|_| ())
}

#[tokio::test]
async fn every_kind_of_signature_is_understood_and_claims_give_roles() {
    let site = Site::new();
    let signers: Vec<Signer> =
        ["RS256", "PS256", "ES256", "EdDSA"].map(|kind| Signer::new(kind, kind)).into();
    let server = server(&site, &signers.iter().collect::<Vec<_>>()).await;
    for signer in &signers {
        let token = signer.token(&claims());
        list(&server, &token).await.unwrap_or_else(|s| panic!("{}: {s:?}", signer.algorithm()));
    }
    let token = signers[0].token(&claims());
    let mut client = caller(channel(server.grpc).await, Some(&token));
    let status = client.analyze_audio(v1::AnalyzeAudioRequest::default()).await.unwrap_err();
    assert_error(&status, Code::PermissionDenied, "ROLE_MISSING", None);
    assert!(status.message().contains("\"sso/anna\""), "{status:?}");
}

#[tokio::test]
async fn tokens_that_are_not_for_us_or_not_good_are_refused() {
    let site = Site::new();
    let signer = Signer::new("ES256", "one");
    let server = server(&site, &[&signer]).await;
    list(&server, &signer.token(&claims())).await.unwrap();
    list(&server, &signer.token(&with("aud", json!(["else", "undertone"])))).await.unwrap();
    for (claims, reason, words) in [
        (with("exp", json!(now() - 5)), "TOKEN_EXPIRED", "expired"),
        (without("exp"), "TOKEN_INVALID", "exp"),
        (with("exp", json!("soon")), "TOKEN_INVALID", "exp"),
        (with("nbf", json!(now() + 300)), "TOKEN_INVALID", "nbf"),
        (with("aud", json!("else")), "TOKEN_INVALID", "aud"),
        (without("aud"), "TOKEN_INVALID", "aud"),
        (with("iss", json!("https://evil.example")), "TOKEN_INVALID", "iss"),
        (with("iss", json!([ISSUER])), "TOKEN_INVALID", "iss"),
        (without("iss"), "TOKEN_INVALID", "iss"),
        (without("sub"), "TOKEN_INVALID", "sub"),
        (without("tenant"), "TOKEN_INVALID", "tenant"),
        (with("tenant", json!("*")), "TOKEN_INVALID", "tenant"),
    ] {
        let status = list(&server, &signer.token(&claims)).await.unwrap_err();
        assert_error(&status, Code::Unauthenticated, reason, None);
        assert!(status.message().contains(words), "{claims}: {status:?}");
    }
}

#[tokio::test]
async fn a_token_that_was_tampered_with_or_signed_by_somebody_else_is_refused() {
    let site = Site::new();
    let signer = Signer::new("ES256", "one");
    let server = server(&site, &[&signer]).await;
    let token = signer.token(&claims());
    let (_, signature) = token.rsplit_once('.').unwrap();
    let header = json!({"alg": "ES256", "kid": "one"});
    let forged = format!("{}.{signature}", unsigned(&header, &with("scope", json!("admin"))));
    let stranger = Signer::new("ES256", "one").token(&claims());
    let unknown = Signer::new("ES256", "two").token(&claims());
    let critical = json!({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": false});
    let critical = signer.token_with(&critical, &claims());
    for (what, token) in [
        ("forged", forged),
        ("stranger", stranger),
        ("unknown kid", unknown),
        ("critical", critical),
        ("cut", token[..token.len() - 4].to_owned()),
        ("no base64", format!("{}.%%%.x", &token[..20])),
        ("empty parts", "..".to_owned()),
    ] {
        let status = list(&server, &token).await.unwrap_err();
        assert_error(&status, Code::Unauthenticated, "TOKEN_INVALID", None);
        assert!(!status.message().contains("eyJ"), "{what}: {status:?}");
    }
}

#[tokio::test]
async fn neither_none_nor_a_public_key_as_a_shared_secret_passes_for_a_signature() {
    let site = Site::new();
    let signer = Signer::new("RS256", "rsa");
    // Even if the issuer's set has a shared secret among its keys.
    let mut set: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    let secret = json!({"kty": "oct", "kid": "secret", "k": base64url(b"known")});
    set["keys"].as_array_mut().unwrap().push(secret);
    let server = server(&site, &[&signer]).await;
    list(&server, &signer.token(&claims())).await.unwrap();
    site.write("keys.json", &set.to_string());
    let hs256 = |kid: &str, key: &[u8]| {
        let message = unsigned(&json!({"alg": "HS256", "kid": kid}), &claims());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
        format!("{message}.{}", base64url(tag.as_ref()))
    };
    let jwk = signer.jwk();
    let modulus = jwk["n"].as_str().unwrap().as_bytes().to_vec();
    let none = |alg: &str| format!("{}.", unsigned(&json!({"alg": alg, "kid": "rsa"}), &claims()));
    let confused = json!({"alg": "ES256", "kid": "rsa"});
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (what, token) in [
        ("none", none("none")),
        ("None", none("None")),
        ("modulus as secret", hs256("rsa", &modulus)),
        ("key as secret", hs256("rsa", jwk.to_string().as_bytes())),
        ("secret of the set", hs256("secret", b"known")),
        ("another family", signer.token_with(&confused, &claims())),
        (
            "no signature",
            format!("{}.", unsigned(&json!({"alg": "RS256", "kid": "rsa"}), &claims())),
        ),
    ] {
        let Err(status) = list(&server, &token).await else { panic!("{what} passed") };
        assert_error(&status, Code::Unauthenticated, "TOKEN_INVALID", None);
    }
    list(&server, &signer.token(&claims())).await.unwrap();
}

#[tokio::test]
async fn an_algorithm_that_the_file_does_not_allow_is_refused() {
    let site = Site::new();
    let signer = Signer::new("RS256", "rsa");
    site.write("keys.json", &jwks(&[&signer]));
    let text = issuer(&site.path("keys.json").display().to_string(), "ES256");
    let server = Server::with(|settings| site.identities(settings, &text)).await;
    let status = list(&server, &signer.token(&claims())).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_INVALID", None);
    assert!(status.message().contains("RS256"), "{status:?}");
}

#[tokio::test]
async fn a_token_without_kid_is_taken_where_only_one_key_fits() {
    let site = Site::new();
    let (one, two, other) =
        (Signer::new("ES256", "one"), Signer::new("ES256", "two"), Signer::new("EdDSA", "ed"));
    let server = server(&site, &[&one, &two, &other]).await;
    let nameless =
        |signer: &Signer| signer.token_with(&json!({"alg": signer.algorithm()}), &claims());
    list(&server, &nameless(&other)).await.unwrap();
    let status = list(&server, &nameless(&one)).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_INVALID", None);
    assert!(status.message().contains("kid"), "{status:?}");
}

#[tokio::test]
async fn keys_in_a_file_are_read_again_when_it_changes() {
    let site = Site::new();
    let (old, new) = (Signer::new("ES256", "old"), Signer::new("EdDSA", "new"));
    let server = server(&site, &[&old]).await;
    list(&server, &old.token(&claims())).await.unwrap();
    site.write("keys.json", "no keys");
    tokio::time::sleep(Duration::from_millis(200)).await;
    list(&server, &old.token(&claims())).await.unwrap();
    site.write("keys.json", &jwks(&[&new]));
    until("the new key is known", async || list(&server, &new.token(&claims())).await.is_ok())
        .await;
    assert!(list(&server, &old.token(&claims())).await.is_err());
}

/// An issuer's web server on loopback: what it answers, and how often it was asked.
struct Web {
    address: std::net::SocketAddr,
    state: Arc<Mutex<(u16, String, usize)>>,
    serve: tokio::task::JoinHandle<()>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

impl Web {
    async fn start(keys: &str) -> Self {
        use axum::extract::State;
        use axum::http::StatusCode;
        type Shared = Arc<Mutex<(u16, String, usize)>>;
        let state: Shared = Arc::new(Mutex::new((200, keys.to_owned(), 0)));
        let answer = async |State(state): State<Shared>| {
            let mut state = state.lock().unwrap();
            state.2 += 1;
            (StatusCode::from_u16(state.0).unwrap(), state.1.clone())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer).with_state(state.clone());
        let serve = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, state, serve }
    }

    fn answer(&self, status: u16, keys: &str) {
        let mut state = self.state.lock().unwrap();
        (state.0, state.1) = (status, keys.to_owned());
    }

    fn asked(&self) -> usize {
        self.state.lock().unwrap().2
    }

    async fn server(&self, site: &Site, retry: u64, refresh: u64) -> Server {
        let text = issuer(&format!("http://{}/jwks", self.address), "RS256, ES256, EdDSA");
        Server::with(|settings| {
            site.identities(settings, &text);
            settings.jwks_retry = ms(retry);
            settings.jwks_refresh = ms(refresh);
            settings.jwks_timeout = ms(2_000);
        })
        .await
    }
}

#[tokio::test]
async fn an_unknown_key_is_fetched_when_a_token_names_it() {
    let site = Site::new();
    let (old, new) = (Signer::new("ES256", "old"), Signer::new("EdDSA", "new"));
    let web = Web::start(&jwks(&[&old])).await;
    let server = web.server(&site, 50, 3_600_000).await;
    list(&server, &old.token(&claims())).await.unwrap();
    assert_eq!(web.asked(), 1);
    web.answer(200, &jwks(&[&old, &new]));
    tokio::time::sleep(Duration::from_millis(60)).await;
    list(&server, &new.token(&claims())).await.unwrap();
    assert_eq!(web.asked(), 2);
    list(&server, &old.token(&claims())).await.unwrap();
    assert_eq!(web.asked(), 2);
}

#[tokio::test]
async fn tokens_with_made_up_keys_do_not_make_the_server_ask_again_and_again() {
    let site = Site::new();
    let signer = Signer::new("ES256", "one");
    let web = Web::start(&jwks(&[&signer])).await;
    let server = web.server(&site, 60_000, 3_600_000).await;
    list(&server, &signer.token(&claims())).await.unwrap();
    for number in 0..20 {
        let token = Signer::new("ES256", &format!("made-up-{number}")).token(&claims());
        let status = list(&server, &token).await.unwrap_err();
        assert_error(&status, Code::Unauthenticated, "TOKEN_INVALID", None);
    }
    assert_eq!(web.asked(), 1);
}

#[tokio::test]
async fn a_fetch_that_fails_keeps_the_old_keys_and_without_any_the_call_may_be_made_again() {
    let site = Site::new();
    let signer = Signer::new("ES256", "one");
    let web = Web::start("").await;
    web.answer(503, "");
    let server = web.server(&site, 50, 100).await;
    let status = list(&server, &signer.token(&claims())).await.unwrap_err();
    let details = assert_error(&status, Code::Unavailable, "KEYS_UNAVAILABLE", None);
    assert!(details.retry_info().is_some());
    web.answer(200, &jwks(&[&signer]));
    until("the keys are had", async || list(&server, &signer.token(&claims())).await.is_ok()).await;
    for (status, text) in [(500, ""), (200, "<html>"), (200, r#"{"keys": []}"#), (302, "")] {
        web.answer(status, text);
        let before = web.asked();
        until("they are asked for again", async || web.asked() > before + 1).await;
        list(&server, &signer.token(&claims())).await.unwrap();
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_holds_up_nobody_else() {
    let site = Site::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", silent.local_addr().unwrap());
    let token = "ut_known";
    let text = format!(
        "identities: [{{name: app, roles: [], tokens: [{{hash: '{}'}}]}}]\n{}",
        crate::pki::hash(token),
        issuer(&url, "ES256")
    );
    let server = Server::with(|settings| {
        site.identities(settings, &text);
        settings.jwks_timeout = ms(1_000);
    })
    .await;
    let began = std::time::Instant::now();
    let jwt = Signer::new("ES256", "one").token(&claims());
    let (waited, known) = tokio::join!(list(&server, &jwt), async {
        list(&server, token).await.unwrap();
        began.elapsed()
    });
    assert!(known < Duration::from_millis(900), "{known:?}");
    assert_error(&waited.unwrap_err(), Code::Unavailable, "KEYS_UNAVAILABLE", None);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_asked_once_for_all_and_holds_up_no_file() {
    let site = Site::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", silent.local_addr().unwrap());
    let token = "ut_known";
    let app = format!(
        "identities: [{{name: app, roles: [], tokens: [{{hash: '{}'}}]}}]\n",
        crate::pki::hash(token)
    );
    let server = Server::with(|settings| {
        site.identities(settings, &format!("{app}{}", issuer(&url, "ES256")));
        // Others wait longer than it takes until one may ask again.
        settings.jwks_retry = ms(500);
        settings.jwks_timeout = ms(2_500);
    })
    .await;
    list(&server, token).await.unwrap();
    let began = std::time::Instant::now();
    let jwt = Signer::new("ES256", "one").token(&claims());
    let waiting = async || {
        let status = list(&server, &jwt).await.unwrap_err();
        assert_error(&status, Code::Unavailable, "KEYS_UNAVAILABLE", None);
    };
    let revoked = async {
        site.write_identities(&issuer(&url, "ES256"));
        until("the token is taken out", async || list(&server, token).await.is_err()).await;
        began.elapsed()
    };
    let (taken_out, ..) = tokio::join!(revoked, waiting(), waiting(), waiting(), waiting());
    assert!(taken_out < Duration::from_millis(2_000), "{taken_out:?}");
    assert!(began.elapsed() < Duration::from_millis(6_000), "{:?}", began.elapsed());
}

#[tokio::test]
async fn keys_are_as_young_as_they_should_be_however_seldom_the_file_is_looked_at() {
    let site = Site::new();
    let (old, new) = (Signer::new("ES256", "one"), Signer::new("ES256", "one"));
    let web = Web::start(&jwks(&[&old])).await;
    let text = issuer(&format!("http://{}/jwks", web.address), "ES256");
    let server = Server::with(|settings| {
        site.identities(settings, &text);
        settings.identities_reload = ms(3_600_000);
        settings.jwks_refresh = ms(100);
        settings.jwks_retry = ms(50);
    })
    .await;
    list(&server, &old.token(&claims())).await.unwrap();
    // The issuer withdraws a key: another one has its name.
    web.answer(200, &jwks(&[&new]));
    until("it is not good any more", async || list(&server, &old.token(&claims())).await.is_err())
        .await;
    list(&server, &new.token(&claims())).await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_when_its_token_expires() {
    let site = Site::new();
    let signer = Signer::new("ES256", "one");
    site.write("keys.json", &jwks(&[&signer]));
    let text = issuer(&site.path("keys.json").display().to_string(), "ES256");
    let server = Server::with(|settings| {
        site.identities(settings, &text);
        settings.watch_heartbeat = ms(100);
        settings.escalation_store =
            undertone::config::StoreUrl(format!("sqlite:{}", site.path("store.db").display()));
    })
    .await;
    let mut soon = with("exp", json!(now() + 3));
    soon["scope"] = json!("watch");
    let bearing = Bearing(Some(format!("Bearer {}", signer.token(&soon))));
    let channel = channel(server.grpc).await;
    let mut client =
        v1::escalation_service_client::EscalationServiceClient::with_interceptor(channel, bearing);
    let request = v1::WatchEscalationsRequest::default();
    let mut watch = client.watch_escalations(request).await.unwrap().into_inner();
    let ended = tokio::time::timeout(crate::support::PATIENCE, async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    });
    let status = ended.await.expect("it ends");
    assert_error(&status, Code::Unauthenticated, "TOKEN_EXPIRED", None);
}
