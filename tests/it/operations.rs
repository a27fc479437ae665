//! `undertone escalations` beside a running server: what somebody on call types.

use serde_json::Value;
use undertone::wire::v1;
use undertone::wire::v1::stream_config::Policy;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::database::{Kind, Place, free_port};
use crate::process::{Process, undertone};
use crate::signal::{encode, speech};
use crate::support::{Client, PLAIN, Talk, audio, channel, until};

const QUIET: &str = "
schema: undertone.policy/v1
name: quiet
version: '1'
description: For tests.
rules:
  - name: quiet
    title: Nobody speaks
    severity: high
    when: {silence: {for: 1s}}
    reason: 'no voice for {{ silence }} s'
";

/// What a command printed, and its exit code.
async fn typed(args: &[&str]) -> (String, i32) {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let run = move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = undertone(&args).output().unwrap();
        let text =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (text, output.status.code().unwrap())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_raised_is_listed_shown_acknowledged_replayed_and_exported() {
    let place = Place::new(Kind::Sqlite).await;
    let delivery = place.folder.path().join("delivery.yaml");
    // Nobody listens there.
    let sink = format!(
        "schema: undertone.delivery/v1\nsinks:\n  - name: ward-7\n    cloudevents: {{url: 'http://127.0.0.1:{}/', \
         allow_private: true}}\n    retry: {{attempts: 1}}\n",
        free_port()
    );
    std::fs::write(&delivery, sink).unwrap();
    let delivery = delivery.display().to_string();
    let settings = ["--escalation-store", &place.url, "--delivery", &delivery];
    let (text, code) = typed(&[&["escalations", "list"][..], &settings].concat()).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("there is no store at"), "{text}");

    let more = ["--watch-poll", "50ms", "--delivery-poll", "20ms"];
    let server = Process::start(&[&settings[..], &more].concat()).await;
    let client = Client::new(channel(server.grpc).await);
    let config = v1::StreamConfig {
        session_id: "call-1".to_owned(),
        labels: [("ward".to_owned(), "7".to_owned())].into(),
        policy: Some(Policy::PolicyYaml(QUIET.to_owned())),
        ..PLAIN.config()
    };
    let mut talk = Talk::open(&client, config).await;
    let mut samples = speech(1, 2.0, 16_000);
    samples.extend(vec![0.0; 2 * 16_000]);
    talk.say(audio(encode(&samples, PLAIN.encoding))).await;
    let mut escalation = async || {
        loop {
            if let Some(Response::Escalation(event)) = talk.next().await.unwrap() {
                return *event;
            }
        }
    };
    let id = escalation().await.escalation.unwrap().id;

    let command =
        async |words: &[&str]| typed(&[&["escalations"][..], words, &settings].concat()).await;
    let (text, code) = command(&["list", "--state", "raised", "--label", "ward=7"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(&id) && text.contains("high") && text.contains("session call-1"),
        "{text}"
    );
    let (text, _) = command(&["list", "--session", "another"]).await;
    assert_eq!(text, "");
    until("the delivery is given up", async || {
        command(&["list", "--dead"]).await.0.contains("ward-7")
    })
    .await;
    let (text, _) = command(&["show", &id]).await;
    for part in ["Nobody speaks (high, raised)", "rule quiet", "ward = 7", "attempt 1", "given up"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }

    let (text, code) = command(&["ack", &id, "--by", "nurse", "--note", "calling back"]).await;
    assert_eq!((text.as_str(), code), ("acknowledged by nurse\n", 0));
    let told = escalation().await;
    assert_eq!(told.actor, "nurse", "the stream is told");
    let (text, _) = command(&["ack", &id, "--by", "somebody else"]).await;
    assert!(text.starts_with("already acknowledged by nurse at "), "{text}");
    let (text, code) = command(&["ack", &uuid::Uuid::nil().to_string(), "--by", "nurse"]).await;
    assert_eq!(code, 1, "{text}");
    until("what follows is given up too", async || {
        command(&["list", "--dead"]).await.0.lines().count() == 2
    })
    .await;
    let (text, _) = command(&["replay", "--sink", "ward-7"]).await;
    assert_eq!(text, "2 deliveries are due again\n");
    until("they are tried again", async || {
        let (text, _) = command(&["show", &id, "--format", "json"]).await;
        let all: Value = serde_json::from_str(&text).unwrap();
        all["attempts"].as_array().unwrap().len() == 4
    })
    .await;
    let (text, code) = command(&["replay"]).await;
    assert_eq!(code, 2, "not everything by accident: {text}");

    let file = place.folder.path().join("escalations.jsonl");
    let (text, code) = command(&["export", "--out", file.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{text}");
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(line["escalation"]["id"], id);
    assert_eq!(line["history"][1]["kind"], "acknowledged");
    assert_eq!(line["deliveries"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_acknowledges_without_the_delivery_file_learns_who_is_not_told() {
    let place = Place::new(Kind::Sqlite).await;
    let delivery = place.folder.path().join("delivery.yaml");
    let sink = format!(
        "schema: undertone.delivery/v1\nsinks:\n  - name: ward-7\n    cloudevents: {{url: 'http://127.0.0.1:{}/', \
         allow_private: true}}\n",
        free_port()
    );
    std::fs::write(&delivery, sink).unwrap();
    let delivery = delivery.display().to_string();
    let settings = ["--escalation-store", &place.url, "--delivery", &delivery];
    let server = Process::start(&settings).await;
    let config =
        v1::StreamConfig { policy: Some(Policy::PolicyYaml(QUIET.to_owned())), ..PLAIN.config() };
    let mut talk = Talk::open(&Client::new(channel(server.grpc).await), config).await;
    let mut samples = speech(1, 2.0, 16_000);
    samples.extend(vec![0.0; 2 * 16_000]);
    talk.say(audio(encode(&samples, PLAIN.encoding))).await;
    let id = loop {
        if let Some(Response::Escalation(event)) = talk.next().await.unwrap() {
            break event.escalation.unwrap().id;
        }
    };
    let bare = ["escalations", "ack", &id, "--by", "nurse", "--escalation-store", &place.url];
    let (text, code) = typed(&bare).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("acknowledged by nurse") && text.contains("ward-7 will not be told"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_of_dead_letters_that_would_be_passed_over_is_refused() {
    let (text, code) = typed(&["escalations", "list", "--dead", "--tenant", "default"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--dead"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_about_escalations_are_checked_with_their_names() {
    let place = Place::new(Kind::Sqlite).await;
    let bad = place.folder.path().join("bad.yaml");
    std::fs::write(&bad, "schema: undertone.delivery/v1\nsinks:\n  - name: a\n").unwrap();
    let bad = bad.display().to_string();
    std::fs::write(place.folder.path().join("policy.yaml"), "name: [").unwrap();
    let folder = place.folder.path().display().to_string();
    let secret = "mysql://me:secret@host/db";
    for (flag, value, says) in [
        ("--delivery", bad.as_str(), "delivery: "),
        ("--policies", folder.as_str(), "policies: "),
        ("--default-policy", "nope", "default_policy: there is no policy \"nope\""),
        ("--escalation-store", secret, "escalation_store: "),
        ("--inline-policy-severity", "loud", "known are advisory"),
        ("--watch-poll", "5h", "watch_poll: must be"),
    ] {
        let (text, code) = typed(&["check", flag, value]).await;
        assert!(matches!(code, 2 | 64), "{flag}: {code}: {text}");
        assert!(text.contains(says) && !text.contains("secret"), "{flag}: {text}");
    }
    let url = "postgres://me:secret@127.0.0.1:1/db";
    let (text, code) = typed(&["check", "--escalation-store", url]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("postgres://redacted@127.0.0.1:1/db"), "{text}");
}
