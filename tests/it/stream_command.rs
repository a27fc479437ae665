//! `undertone stream` with servers that end, come back, or are not what they were.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::database::free_port;
use crate::process::{Process, undertone};
use crate::signal::{encode, speech, wav};
use crate::support::PLAIN;

/// A key of resume tokens under the name `id`.
fn key(id: &str) -> String {
    format!("{id}:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_token_is_refused_for_good_another_stream_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for id in ["a", "b"] {
        std::fs::write(path(id), key(id)).unwrap();
    }
    let samples: Vec<f32> = (0..8).flat_map(|seed| speech(seed, 3.0, 16_000)).collect();
    let samples = encode(&samples, PLAIN.encoding);
    std::fs::write(path("speech.wav"), wav(PLAIN.encoding, PLAIN.rate_hz, 1, &samples)).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let with_keys = |id: &str| {
        ["--grpc-address", &address, "--resume-keys", &path(id)].map(str::to_owned).to_vec()
    };
    let start = async |id: &str| {
        let args = with_keys(id);
        Process::start(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let mut process = start("a").await;
    let file = path("speech.wav");
    let args = ["stream", &file, "--target", &address, "--speed", "5", "--format", "json"];
    let mut command = undertone(&args);
    let streaming = tokio::task::spawn_blocking(move || command.output().unwrap());
    // A checkpoint comes every 5 s of audio, which is a second here.
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    process.signal(Signal::KILL);
    process.ended().await;
    let _process = start("b").await;
    let output = streaming.await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("RESUME_KEY_UNKNOWN") && said.contains("another stream begins"),
        "{said}"
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sessions: Vec<&Value> = events
        .iter()
        .filter(|event| event["event"] == "started")
        .map(|event| &event["session_id"])
        .collect();
    assert!(sessions.len() == 2 && sessions[0] != sessions[1], "{sessions:?}");
    // The second one has heard all that the first one's last checkpoint did not cover.
    let last = events.last().unwrap();
    assert_eq!(last["event"], "finished", "{last}");
    let heard = last["audio"].as_f64().unwrap();
    assert!((1.0..=19.5).contains(&heard), "{heard} s of 24");
}
