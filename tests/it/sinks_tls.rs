//! Deliveries over TLS: with an authority of one's own, and what is said where it is not known.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use undertone::escalation::sinks::Verdict;

use crate::pki::Site;
use crate::sinks::{NatsServer, TOKEN, free_port, persist, raised, retried, sink};

/// A receiver over TLS that answers everything with 204; its port.
async fn receiver(site: &Site) -> u16 {
    let pem = |name: &str| std::fs::read(site.path(name)).unwrap();
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem("tls.crt")).map(|der| der.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_slice(&pem("tls.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test's runtime.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            let mut part = [0; 4096];
            // The sample is JSON that ends in a brace.
            while !request.ends_with(b"}") {
                match stream.read(&mut part).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&part[..read]),
                }
            }
            assert!(request.starts_with(b"POST /hook HTTP/1.1\r\n"));
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

fn webhook(port: u16, more: &str) -> Arc<undertone::escalation::sinks::Sink> {
    sink(&format!(
        "    webhook: {{url: 'https://localhost:{port}/hook', secrets: [{{env: WHSEC}}], \
         allow_private: true{more}}}\n    timeout: 10s"
    ))
}

#[tokio::test]
async fn a_webhook_over_tls_arrives_where_its_authority_is_known() {
    let site = Site::new();
    let port = receiver(&site).await;
    let sink = webhook(port, &format!(", ca: '{}'", site.path("ca.crt").display()));
    let delivered = Verdict::Delivered { detail: "HTTP 204".to_owned() };
    assert_eq!(sink.deliver(&raised(), 1).await, delivered);
}

#[tokio::test]
async fn a_webhook_to_an_unknown_authority_says_so_and_is_tried_again() {
    let site = Site::new();
    let port = receiver(&site).await;
    let (problem, _) = retried(webhook(port, "").deliver(&raised(), 1).await);
    assert!(problem.contains("UnknownIssuer"), "{problem}");
    let other = Site::new();
    let ca = format!(", ca: '{}'", other.path("ca.crt").display());
    let (problem, _) = retried(webhook(port, &ca).deliver(&raised(), 1).await);
    assert!(problem.contains("certificate"), "{problem}");
}

async fn nats_server(site: &Site) -> NatsServer {
    let file = |name: &str| site.path(name).display().to_string();
    let (certificate, key) = (file("tls.crt"), file("tls.key"));
    NatsServer::start_with(free_port(), &["--tls", "--tlscert", &certificate, "--tlskey", &key])
        .await
}

fn nats(port: u16, more: &str) -> Arc<undertone::escalation::sinks::Sink> {
    sink(&format!(
        "    nats: {{servers: ['tls://localhost:{port}'], token: {{env: TOKEN}}, tls: true, stream: A, \
         create_stream: true{more}}}\n    timeout: 5s"
    ))
}

#[tokio::test]
async fn nats_over_tls_takes_messages_where_its_authority_is_known() {
    let site = Site::new();
    let server = nats_server(&site).await;
    let sink = nats(server.port, &format!(", ca: '{}'", site.path("ca.crt").display()));
    assert_eq!(persist(&sink, &raised()).await, "stream A, sequence 1");
}

#[tokio::test]
async fn nats_of_an_unknown_authority_is_refused_in_words_without_the_token() {
    let site = Site::new();
    let server = nats_server(&site).await;
    let (problem, _) = retried(nats(server.port, "").deliver(&raised(), 1).await);
    assert!(problem.contains("UnknownIssuer") && !problem.contains(TOKEN), "{problem}");
}
