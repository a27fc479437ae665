//! `undertone health`, as a container's health check runs it: a word, and an exit code.

use rustix::process::Signal;

use crate::pki::Site;
use crate::process::{Process, undertone};
use crate::signal::{encode, speech};
use crate::support::{PLAIN, Talk, audio, read, until};

/// Asks with these flags: exit code, and both outputs.
async fn ask(flags: &[&str]) -> (Option<i32>, String) {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let ask = move || {
        let mut args = vec!["health"];
        args.extend(flags.iter().map(String::as_str));
        let output = undertone(&args).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test]
async fn a_server_is_healthy_until_it_drains() {
    let mut process = Process::start(&["--drain-deadline", "20s"]).await;
    let target = process.grpc.to_string();
    assert_eq!(ask(&["--target", &target]).await, (Some(0), "SERVING\n".to_owned()));
    let service = ["--target", &target, "--service", "undertone.v1.EmotionService"];
    assert_eq!(ask(&service).await, (Some(0), "SERVING\n".to_owned()));

    // A stream that goes on keeps the port open while the server drains.
    let client = process.client().await;
    let mut talk = Talk::open(&client, PLAIN.config()).await;
    talk.say(audio(encode(&speech(1, 1.6, 16_000), PLAIN.encoding))).await;
    talk.next().await.unwrap().unwrap();
    process.signal(Signal::TERM);
    until("it is told as not serving, or as gone", async || ask(&service).await.0 == Some(1)).await;
    read(talk.responses).await;
    drop((talk.requests, client));
    assert_eq!(process.ended().await.0.code(), Some(0), "{}", process.log());

    let (code, text) = ask(&["--target", &target]).await;
    assert!(code == Some(1) && text.contains("cannot connect"), "{text}");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_words() {
    let process = Process::start(&[]).await;
    let target = process.grpc.to_string();
    let (code, text) = ask(&["--target", &target, "--service", "no.such.Service"]).await;
    assert!(code == Some(1) && text.contains("there is no service no.such.Service"), "{text}");
    assert!(text.contains("undertone.v1.EmotionService"), "{text}");
    // What is no gRPC at all.
    let (code, text) = ask(&["--target", &process.http.to_string()]).await;
    assert!(code == Some(1) && !text.is_empty(), "{text}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for() {
    // The kernel takes the connection; nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = silent.local_addr().unwrap().to_string();
    let (code, text) = ask(&["--target", &target, "--timeout", "200ms"]).await;
    assert!(code == Some(1) && text.contains("no answer from"), "{text}");
    assert!(text.contains("within 200ms"), "{text}");
}

#[tokio::test]
async fn over_tls_the_certificate_may_bear_another_name() {
    let site = Site::new();
    let file = |name: &str| site.path(name).display().to_string();
    let (certificate, key, ca) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
    // An address that the certificate does not bear, as a pod's.
    let address = ["--grpc-address", "127.0.0.2:0"];
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key];
    let process = Process::start(&[&address[..], &tls].concat()).await;
    let target = format!("https://{}", process.grpc);
    let trusting = ["--target", &target, "--ca", &ca];
    let named = [&trusting[..], &["--server-name", "localhost"]].concat();
    assert_eq!(ask(&named).await, (Some(0), "SERVING\n".to_owned()));
    let (code, text) = ask(&trusting).await;
    assert!(code == Some(1) && text.contains("--server-name"), "{text}");
    let (code, text) = ask(&["--target", &target, "--server-name", "localhost"]).await;
    assert!(code == Some(1) && text.contains("--ca"), "{text}");
    let plain = process.grpc.to_string();
    let (code, text) = ask(&["--target", &plain, "--server-name", "localhost"]).await;
    assert!(code == Some(1) && text.contains("https://"), "{text}");
}
