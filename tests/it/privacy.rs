//! What nobody may read in the logs, however much is logged.

use undertone::wire::v1;
use undertone::wire::v1::stream_config::Policy;
use undertone::wire::v1::stream_emotion_request::Message;

use crate::otlp::QUIET;
use crate::process::{Process, undertone};
use crate::signal::{encode, speech};
use crate::support::{PLAIN, audio, mark, read, until, wrap};

#[tokio::test]
async fn a_log_of_everything_holds_no_audio_no_labels_and_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Thirty-two bytes in base64, so that it is a secret of webhooks.
    let secret = "whsec_cGxhbnRlZHBsYW50ZWRwbGFudGVkcGxhbnRlZHg=";
    std::fs::write(path("secret"), secret).unwrap();
    let delivery = format!(
        "schema: undertone.delivery/v1\nsinks:\n  - name: ward\n    webhook: {{url: \
         'http://127.0.0.1:9/', allow_private: true, secrets: [{{file: '{}'}}], headers: \
         {{x-key: {{file: '{}'}}}}}}\n",
        path("secret"),
        path("key")
    );
    std::fs::write(path("key"), "planted-key").unwrap();
    std::fs::write(path("delivery.yaml"), delivery).unwrap();
    let process = Process::start(&[
        "--log",
        "debug",
        "--otlp-endpoint",
        "http://127.0.0.1:9",
        "--otlp-headers",
        "authorization=Bearer planted-header",
        "--escalation-store",
        &format!("sqlite:{}", path("store.db")),
        "--delivery",
        &path("delivery.yaml"),
    ])
    .await;
    let client = process.client().await;
    let config = v1::StreamConfig {
        policy: Some(Policy::PolicyYaml(QUIET.to_owned())),
        labels: [("patient".to_owned(), "planted-label".to_owned())].into(),
        ..PLAIN.config()
    };
    // Bytes that would be seen as text.
    let mut data = b"planted-audio-bytes!".repeat(800);
    data.extend(encode(&vec![0.0; 2 * 16_000], PLAIN.encoding));
    data.extend(encode(&speech(1, 1.0, 16_000), PLAIN.encoding));
    let mut messages = vec![Message::Config(config.into())];
    messages.extend(data.chunks(3_200).map(|chunk| audio(chunk.to_vec())));
    messages.push(mark("planted-mark"));
    let messages: Vec<_> = messages.into_iter().map(wrap).collect();
    let mut request = tonic::Request::new(tokio_stream::iter(messages));
    let token = "Bearer planted-token".parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    let answer = client.clone().stream_emotion(request).await.unwrap().into_inner();
    let answer = read(answer).await.fine();
    assert!(!answer.escalations().is_empty());
    until("an attempt is logged", async || process.log().contains("not delivered yet")).await;

    let log = process.log();
    assert!(log.contains("DEBUG") && log.lines().count() > 50, "{log}");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(!line.contains("planted"), "{line}");
        assert!(!line.contains("cGxhbnRlZ"), "{line}");
        // As numbers, as Debug shows bytes.
        assert!(!line.contains("112, 108, 97, 110"), "{line}");
    }
}

#[test]
fn the_help_shows_no_value_of_the_environment() {
    let output = undertone(&["serve", "--help"])
        .env("UNDERTONE_ESCALATION_STORE", "postgres://u:planted-password@db/x")
        .env("UNDERTONE_OTLP_HEADERS", "authorization=Bearer planted-header")
        .env("UNDERTONE_MODELS", "planted-model")
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains("UNDERTONE_OTLP_HEADERS") && !text.contains("planted"), "{text}");
}
