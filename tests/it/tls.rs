//! TLS of both ports: certificates that change under a live stream, clients with certificates and without,
//! clients that say nothing, and our own commands as clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::Channel;
use undertone::config::{ClientAuth, Settings};
use undertone::wire::v1;

use crate::pki::{Authority, Pair, Signer, Site, caller, connect, hash, jwks, now};
use crate::process::{Process, undertone};
use crate::signal::{encode, speech, wav};
use crate::support::{
    Client, PATIENCE, PLAIN, Server, Talk, assert_error, audio, http_get, ms, until,
};

const TOKEN: &str = "ut_a-token-over-tls";

async fn list(channel: Channel, token: Option<&str>) -> Result<usize, tonic::Status> {
    let answer = caller(channel, token).list_models(v1::ListModelsRequest {}).await?;
    Ok(answer.into_inner().models.len())
}

/// What goes wrong, in words and with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What the server says to a client that may not even say hello. TLS 1.3 has the client believe that it is
/// connected before the server has looked at its certificate, so that the first call may be what fails.
async fn turned_away(connected: Result<Channel, tonic::transport::Error>) -> String {
    match connected {
        Err(error) => causes(&error),
        Ok(channel) => causes(&list(channel, None).await.expect_err("it is turned away")),
    }
}

/// A GET over HTTP/1.1 and TLS: status and body.
async fn https_get(site: &Site, port: u16, path: &str, token: Option<&str>) -> (u16, String) {
    let ca = reqwest::Certificate::from_pem(site.authority.pem().as_bytes()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
    let mut request = client.get(format!("https://localhost:{port}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.timeout(PATIENCE).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn both_ports_speak_tls_and_nothing_else() {
    let site = Site::new();
    let server = Server::with(|settings| site.tls(settings)).await;
    let channel = site.connect(server.grpc, None).await.unwrap();
    assert_eq!(list(channel, None).await.unwrap(), 4);
    assert_eq!(https_get(&site, server.http.port(), "/healthz", None).await.0, 200);
    for address in [server.grpc, server.http] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await;
        // An alert, or the end.
        assert!(read.is_ok() && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let stranger = Authority::new("somebody else").pem();
    let error = connect(server.grpc, &stranger, None).await.unwrap_err();
    assert!(causes(&error).contains("UnknownIssuer"), "{}", causes(&error));
}

#[tokio::test]
async fn the_http_port_may_stay_plain_beside_a_grpc_port_with_tls() {
    let site = Site::new();
    let server = Server::with(|settings| {
        site.tls(settings);
        settings.http_tls = false;
    })
    .await;
    assert_eq!(http_get(server.http, "/healthz").await.0, 200);
    assert_eq!(http_get(server.http, "/sessions").await.0, 200);
}

#[tokio::test]
async fn grpc_web_is_answered_over_http_1_and_tls() {
    let site = Site::new();
    let server = Server::with(|settings| site.tls(settings)).await;
    let ca = reqwest::Certificate::from_pem(site.authority.pem().as_bytes()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        reqwest::Client::builder().no_proxy().http1_only().tls_certs_only([ca]).build().unwrap();
    let path = "undertone.v1.EmotionService/ListModels";
    let answer = client
        .post(format!("https://localhost:{}/{path}", server.grpc.port()))
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
        .body(vec![0_u8; 5])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(String::from_utf8_lossy(&answer.bytes().await.unwrap()).contains("tiny-steps"));
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_while_a_stream_goes_on() {
    let site = Site::new();
    let server = Server::with(|settings| site.tls(settings)).await;
    let channel = site.connect(server.grpc, None).await.unwrap();
    let mut talk = Talk::open(&Client::new(channel), PLAIN.config()).await;
    talk.say(crate::support::mark("before")).await;
    talk.next().await.unwrap();

    let other = Authority::new("another one");
    site.install(&other.server());
    until("the new certificate is served", async || {
        connect(server.grpc, &other.pem(), None).await.is_ok()
    })
    .await;
    assert!(site.connect(server.grpc, None).await.is_err());
    let http = connect(server.http, &other.pem(), None).await;
    // The HTTP port has no HTTP/2: what matters is that the handshake trusts.
    assert!(!http.is_err_and(|error| causes(&error).contains("UnknownIssuer")));

    talk.say(audio(encode(&speech(1, 1.0, 16_000), PLAIN.encoding))).await;
    let finished = talk.close().await.fine();
    assert!(!finished.estimates().is_empty());
}

#[tokio::test]
async fn a_bad_new_pair_is_refused_and_the_old_one_stays() {
    let site = Site::new();
    let server = Server::with(|settings| site.tls(settings)).await;
    list(site.connect(server.grpc, None).await.unwrap(), None).await.unwrap();
    let good = site.authority.server();
    for (certificate, key) in [
        // Only half of the swap has happened.
        (good.certificate.as_str(), None),
        ("no certificate", Some(good.key.as_str())),
        (good.certificate.as_str(), Some("no key")),
    ] {
        site.write("tls.crt", certificate);
        if let Some(key) = key {
            site.write("tls.key", key);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let channel = site.connect(server.grpc, None).await.unwrap();
        list(channel, None).await.unwrap();
    }
    let other = Authority::new("another one");
    site.install(&other.server());
    until("a good pair is served again", async || {
        connect(server.grpc, &other.pem(), None).await.is_ok()
    })
    .await;
}

/// Three callers known by certificates, one by a token.
fn callers() -> String {
    format!(
        "identities:\n\
         \x20 - {{name: by-uri, roles: [stream], certificates: [{{uri: 'spiffe://test/agent'}}]}}\n\
         \x20 - {{name: by-dns, roles: [stream], certificates: [{{dns: agent.test}}]}}\n\
         \x20 - {{name: by-cn, roles: [watch], certificates: [{{common_name: Nurse station}}]}}\n\
         \x20 - {{name: by-token, roles: [stream], tokens: [{{hash: '{}'}}]}}\n",
        hash(TOKEN)
    )
}

async fn with_callers(site: &Site, change: impl FnOnce(&mut Settings)) -> Server {
    Server::with(|settings| {
        site.client_ca(settings);
        site.identities(settings, &callers());
        change(settings);
    })
    .await
}

#[tokio::test]
async fn a_client_is_known_by_a_name_in_its_certificate() {
    let site = Site::new();
    let server = with_callers(&site, |_| {}).await;
    let authority = &site.authority;
    for (pair, roles) in [
        (authority.client("x", &[], &["spiffe://test/agent"]), "stream"),
        (authority.client("x", &["agent.test"], &[]), "stream"),
        (authority.client("Nurse station", &[], &[]), "watch"),
        // Of several names the URI goes first.
        (authority.client("Nurse station", &[], &["spiffe://test/agent"]), "stream"),
    ] {
        let channel = site.connect(server.grpc, Some(&pair)).await.unwrap();
        list(channel.clone(), None).await.unwrap();
        let mut client = caller(channel, None);
        let request = v1::AnalyzeAudioRequest::default();
        let status = client.analyze_audio(request).await.unwrap_err();
        assert_error(&status, Code::PermissionDenied, "ROLE_MISSING", None);
        let name = if roles == "watch" { "by-cn" } else { "by-" };
        assert!(status.message().contains(name), "{status:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_names_nobody_is_refused_and_a_token_goes_before_a_certificate() {
    let site = Site::new();
    let server = with_callers(&site, |_| {}).await;
    let stranger = site.authority.client("somebody", &["agent.test.evil"], &[]);
    let channel = site.connect(server.grpc, Some(&stranger)).await.unwrap();
    let status = list(channel.clone(), None).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "CERTIFICATE_UNKNOWN", None);
    assert!(status.message().contains("DNS \"agent.test.evil\", CN \"somebody\""), "{status:?}");
    list(channel, Some(TOKEN)).await.unwrap();
    let known = site.authority.client("x", &["agent.test"], &[]);
    let channel = site.connect(server.grpc, Some(&known)).await.unwrap();
    let status = list(channel, Some("ut_wrong")).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_UNKNOWN", None);
}

#[tokio::test]
async fn where_there_are_identities_a_client_may_come_without_a_certificate() {
    let site = Site::new();
    let server = with_callers(&site, |_| {}).await;
    let channel = site.connect(server.grpc, None).await.unwrap();
    list(channel.clone(), Some(TOKEN)).await.unwrap();
    let status = list(channel, None).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_MISSING", None);
    assert!(status.message().contains("client certificate"), "{status:?}");
    let strict = |settings: &mut Settings| settings.tls_client_auth = ClientAuth::Required;
    let server = with_callers(&site, strict).await;
    let told = turned_away(site.connect(server.grpc, None).await).await;
    assert!(!told.is_empty());
}

#[tokio::test]
async fn where_only_certificates_say_who_may_call_all_must_have_one_of_the_authority() {
    let site = Site::new();
    let server = Server::with(|settings| site.client_ca(settings)).await;
    let known = site.authority.client("anybody", &[], &[]);
    let channel = site.connect(server.grpc, Some(&known)).await.unwrap();
    list(channel, None).await.unwrap();
    turned_away(site.connect(server.grpc, None).await).await;
    let stranger = Authority::new("somebody else").client("anybody", &[], &[]);
    turned_away(site.connect(server.grpc, Some(&stranger)).await).await;
    // A server's certificate does not do as a client's.
    turned_away(site.connect(server.grpc, Some(&site.authority.server())).await).await;
    // The HTTP port asks nobody for a certificate: probes have none.
    assert_eq!(https_get(&site, server.http.port(), "/readyz", None).await.0, 200);
}

#[tokio::test]
async fn an_unknown_authority_is_refused_also_where_certificates_are_optional() {
    let site = Site::new();
    let server = with_callers(&site, |_| {}).await;
    let forged: Pair =
        Authority::new("test").client("x", &["agent.test"], &["spiffe://test/agent"]);
    turned_away(site.connect(server.grpc, Some(&forged)).await).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_up_nobody() {
    let site = Site::new();
    let server = Server::with(|settings| {
        site.tls(settings);
        settings.max_handshakes = 8;
        settings.handshake_timeout = ms(1_500);
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..7 {
        silent.push(TcpStream::connect(server.grpc).await.unwrap());
    }
    // One that begins and does not go on.
    silent[0].write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    let began = Instant::now();
    list(site.connect(server.grpc, None).await.unwrap(), None).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(1_200), "{:?}", began.elapsed());
    // More of them than may be under way at once hold others up for the time-out at most.
    for _ in 0..16 {
        silent.push(TcpStream::connect(server.grpc).await.unwrap());
    }
    let began = Instant::now();
    list(site.connect(server.grpc, None).await.unwrap(), None).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // They are cut off.
    let mut byte = [0];
    let cut = tokio::time::timeout(PATIENCE, silent[1].read(&mut byte)).await.unwrap();
    assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
}

#[tokio::test]
async fn sessions_are_listed_over_tls_for_whom_an_issuer_calls_an_admin() {
    let site = Site::new();
    let signer = Signer::new("ES256", "one");
    site.write("keys.json", &jwks(&[&signer]));
    let text = format!(
        "jwt:\n  - {{name: sso, issuer: me, audience: [us], jwks: '{}', claims: {{roles: groups}}, \
         role_prefix: 'undertone-'}}\n",
        site.path("keys.json").display()
    );
    let server = Server::with(|settings| {
        site.tls(settings);
        site.identities(settings, &text);
    })
    .await;
    let token = |groups| {
        let exp = now() + 60;
        signer.token(&json!({"iss": "me", "aud": "us", "sub": "a", "exp": exp, "groups": groups}))
    };
    let port = server.http.port();
    let admin = token(json!(["undertone-admin"]));
    assert_eq!(https_get(&site, port, "/sessions", Some(&admin)).await, (200, "[]".to_owned()));
    let watcher = token(json!(["undertone-watch", "admin"]));
    assert_eq!(https_get(&site, port, "/sessions", Some(&watcher)).await.0, 403);
}

/// Runs a command of ours: exit code, and both outputs.
async fn run(args: Vec<String>, token: Option<&'static str>) -> (Option<i32>, String) {
    let run = move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = undertone(&args);
        if let Some(token) = token {
            command.env("UNDERTONE_TOKEN", token);
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn words(text: &str, more: &[&str]) -> Vec<String> {
    text.split_whitespace().chain(more.iter().copied()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_commands_speak_tls_and_say_who_calls() {
    let site = Site::new();
    site.write_identities(&callers());
    site.write("token", &format!("{TOKEN}\n"));
    let sound = encode(&speech(1, 1.5, 16_000), PLAIN.encoding);
    std::fs::write(site.path("speech.wav"), wav(PLAIN.encoding, 16_000, 1, &sound)).unwrap();
    let client = site.authority.client("x", &["agent.test"], &[]);
    site.write("client.crt", &client.certificate);
    site.write("client.key", &client.key);
    let file = |name: &str| site.path(name).display().to_string();
    let (certificate, key, ca) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
    let identities = file("identities.yaml");
    let server = Process::start(&[
        "--tls-certificate",
        &certificate,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
        "--identities",
        &identities,
    ])
    .await;
    let (speech, token) = (file("speech.wav"), file("token"));
    let target = format!("https://localhost:{}", server.grpc.port());
    let stream = format!("stream {speech} --speed 20 --format json --target {target}");

    let trusting = ["--ca", ca.as_str()];
    let (code, text) =
        run(words(&stream, &[&trusting[..], &["--token-file", &token]].concat()), None).await;
    assert!(code == Some(0) && text.contains("finished"), "{text}");
    let (code, text) = run(words(&stream, &trusting), Some(TOKEN)).await;
    assert!(code == Some(0) && text.contains("finished"), "{text}");
    let (certificate, key) = (file("client.crt"), file("client.key"));
    let own = ["--client-certificate", &certificate, "--client-key", &key];
    let (code, text) = run(words(&stream, &[&trusting[..], &own].concat()), None).await;
    assert!(code == Some(0) && text.contains("finished"), "{text}");

    let (code, text) = run(words(&stream, &trusting), None).await;
    assert!(code == Some(1) && text.contains("TOKEN_MISSING"), "{text}");
    assert!(text.contains("--token-file"), "{text}");
    let (code, text) = run(words(&stream, &[]), Some(TOKEN)).await;
    assert!(code == Some(1) && text.contains("--ca"), "{text}");

    let metrics = format!("https://localhost:{}/metrics", server.http.port());
    let bench = format!(
        "bench --streams 2 --seconds 1 --format json --target {target} --metrics {metrics} --ca {ca}"
    );
    let (code, text) = run(words(&bench, &[]), Some(TOKEN)).await;
    assert_eq!(code, Some(0), "{text}");
    let report: serde_json::Value =
        serde_json::from_str(text.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    assert_eq!(report["errors"], 0, "{text}");
    assert!(report["server_cpu_ms_per_audio_second"].is_number(), "{text}");
    let log = server.log();
    assert!(!log.contains(TOKEN) && log.contains("certificate in force"), "{log}");
}

#[tokio::test]
async fn where_only_certificates_say_who_may_call_no_stranger_reads_the_sessions() {
    for http_tls in [true, false] {
        let site = Site::new();
        let server = Server::with(|settings| {
            site.client_ca(settings);
            settings.http_address = ([0, 0, 0, 0], 0).into();
            settings.http_tls = http_tls;
        })
        .await;
        let get = async |path: &str| {
            if http_tls {
                https_get(&site, server.http.port(), path, None).await
            } else {
                http_get(server.http, path).await
            }
        };
        let (status, text) = get("/sessions").await;
        assert!(status == 403 && text.contains("identities"), "{status} {text}");
        assert_eq!(get("/readyz").await.0, 200);
    }
}

#[tokio::test]
async fn a_client_certificate_is_checked_anew_on_every_connection() {
    let site = Site::new();
    let server = Server::with(|settings| site.client_ca(settings)).await;
    let pair = site.authority.client("anybody", &[], &[]);
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem(&site.authority.pem())).unwrap();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(
                vec![pem(&pair.certificate)],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // It would go on with a session if it were given one.
        let connector = TlsConnector::from(Arc::new(config));
        for _ in 0..3 {
            let socket = TcpStream::connect(server.grpc).await.unwrap();
            let name = "localhost".try_into().unwrap();
            let mut stream = connector.connect(name, socket).await.unwrap();
            // Tickets come behind the handshake.
            stream.write_all(crate::raw::PREFACE).await.unwrap();
            stream.write_all(&crate::raw::frame(crate::raw::SETTINGS, 0, 0, &[])).await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full), "{version:?}");
        }
    }
}
