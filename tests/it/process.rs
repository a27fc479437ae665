//! The real binary: signals, exit codes, the command line, metrics.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use undertone::wire::v1;

use crate::clients::cutting_proxy;
use crate::signal::{encode, silence, speech, wav};
use crate::support::{
    Client, PATIENCE, PLAIN, Talk, audio, channel, chunks, duration, http_get, model_folder, read,
    stream, until,
};

/// The binary, without the environment of whoever runs the tests.
pub(crate) fn undertone(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_undertone"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

/// A running `undertone serve`; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a server with `tiny-steps` on free ports and waits until it serves.
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self::start_under(&[], args).await
    }

    /// Starts one by way of another command, which ends in becoming the binary.
    pub(crate) async fn start_under(command: &[&str], args: &[&str]) -> Self {
        let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        let (command, args): (Vec<String>, Vec<String>) = (own(command), own(args));
        tokio::task::spawn_blocking(move || Self::start_blocking(&command, &args)).await.unwrap()
    }

    fn start_blocking(by: &[String], args: &[String]) -> Self {
        let model = model_folder("tiny-steps").display().to_string();
        // Any free port, unless told otherwise.
        let given = |flag: &str| args.iter().any(|arg| arg == flag);
        let any_port: Vec<&str> = ["--grpc-address", "--http-address"]
            .into_iter()
            .filter(|flag| !given(flag))
            .flat_map(|flag| [flag, "127.0.0.1:0"])
            .collect();
        let fixed = [
            "serve",
            "--model",
            &model,
            "--engine-max-wait",
            "0ms",
            "--max-realtime-factor",
            "0",
            "--log-format",
            "json",
        ];
        // Tests share the machine and its disk.
        let patient = [
            ("--max-load", "0"),
            ("--max-engine-lag", "0s"),
            ("--max-worker-delay", "0s"),
            ("--store-timeout", "20s"),
        ]
        .into_iter()
        .filter(|(flag, _)| !given(flag))
        .flat_map(|(flag, value)| [flag, value]);
        // Tests of escalations say where theirs are.
        let says = args.iter().any(|arg| arg == "--escalation-store");
        let nowhere: &[&str] = if says { &[] } else { &["--escalation-store", ""] };
        let mut command = undertone(&fixed);
        if let [program, first @ ..] = by {
            let binary = command.get_program().to_owned();
            command = Command::new(program);
            command.args(first).arg(binary).args(fixed).env_clear().stdin(Stdio::null());
        }
        let mut child = command
            .args(nowhere)
            .args(patient)
            .args(any_port)
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut serving = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            log.lock().unwrap().push_str(&(line.clone() + "\n"));
            let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line) else {
                panic!("no JSON: {line}");
            };
            if entry["fields"]["message"] == "serving" {
                let address = |name: &str| {
                    entry["fields"][name].as_str().and_then(|text| text.parse().ok()).unwrap()
                };
                serving = Some((address("grpc"), address("http")));
                break;
            }
        }
        let Some((grpc, http)) = serving else {
            panic!("it does not serve: {}", log.lock().unwrap());
        };
        let rest = log.clone();
        // Ends with the process, whose standard error it reads.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                rest.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, grpc, http, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; how it ended and how long it took.
    pub(crate) async fn ended(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let mut status = None;
        until("the process ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        (status.unwrap(), began.elapsed())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(channel(self.grpc).await)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // If it has ended already there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary to its end.
fn run(args: &[&str]) -> Output {
    run_with(undertone(args))
}

fn run_with(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (tell, ended) = std::sync::mpsc::sync_channel(1);
    // Reads all that it writes, which may be more than a pipe holds.
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    let output = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = kill_process(pid, Signal::KILL);
        panic!("{command:?} does not end");
    });
    output.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_signal_finishes_open_streams_and_ends_the_process_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(&["--drain-deadline", "20s"]).await;
        let client = process.client().await;
        let mut health = HealthClient::new(channel(process.grpc).await);
        let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        let data = encode(&speech(1, 1.6, 16_000), PLAIN.encoding);
        let mut talks = Vec::new();
        for _ in 0..3 {
            let mut talk = Talk::open(&client, PLAIN.config()).await;
            talk.say(audio(data.clone())).await;
            // The first estimate shows that the chunk has arrived.
            talk.next().await.unwrap().unwrap();
            talks.push(talk);
        }
        let began = Instant::now();
        process.signal(signal);
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        for talk in talks {
            // The client neither half-closes nor goes: the server ends the stream.
            let answer = read(talk.responses).await;
            assert!(answer.status.is_none(), "{answer:?}");
            assert_eq!(answer.draining().len(), 1);
            assert_eq!(answer.utterances().len(), 1);
            assert_eq!(answer.finished().reason(), v1::FinishReason::Draining);
            drop(talk.requests);
        }
        drop((client, health, watch));
        let (status, _) = process.ended().await;
        assert_eq!(status.code(), Some(0), "{}", process.log());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(process.log().contains("draining"));
    }
}

#[tokio::test]
async fn a_client_that_neither_reads_nor_closes_does_not_hold_the_process_beyond_the_deadline() {
    let mut process = Process::start(&["--drain-deadline", "1s"]).await;
    let address = format!("http://{}", process.grpc);
    let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
    // Windows so small that even the last messages do not fit once estimates have filled them.
    let narrow = endpoint.initial_stream_window_size(1_024).initial_connection_window_size(65_535);
    let client = Client::new(narrow.connect().await.unwrap());
    let config = v1::StreamConfig { estimate_interval: duration(0.1), ..PLAIN.config() };
    let talk = Talk::dial(&client, config).await;
    let data = encode(&speech(1, 20.0, 16_000), PLAIN.encoding);
    talk.say(audio(data)).await;
    let silent = process.client().await;
    let waiting = Talk::open(&silent, PLAIN.config()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.signal(Signal::TERM);
    let (status, took) = process.ended().await;
    assert_eq!(status.code(), Some(0), "{}", process.log());
    assert!(took >= Duration::from_millis(800), "nothing held it: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop((talk, waiting));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let mut process = Process::start(&["--drain-deadline", "60s"]).await;
    let address = format!("http://{}", process.grpc);
    let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
    let narrow = endpoint.initial_stream_window_size(1_024).initial_connection_window_size(65_535);
    let client = Client::new(narrow.connect().await.unwrap());
    let config = v1::StreamConfig { estimate_interval: duration(0.1), ..PLAIN.config() };
    let talk = Talk::dial(&client, config).await;
    talk.say(audio(encode(&speech(1, 20.0, 16_000), PLAIN.encoding))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.signal(Signal::INT);
    until("it drains", async || process.log().contains("draining")).await;
    process.signal(Signal::INT);
    let (status, took) = process.ended().await;
    assert_eq!(status.code(), Some(130), "{}", process.log());
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(talk);
}

/// The value of a metric whose line begins with `name` and contains `label`.
pub(crate) fn metric(page: &str, name: &str, label: &str) -> Option<f64> {
    page.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
        .find(|line| line.contains(label))
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

#[tokio::test]
async fn metrics_tell_of_streams_that_finish_and_of_those_that_vanish() {
    let process = Process::start(&[]).await;
    let client = process.client().await;
    let data = encode(&speech(1, 3.0, 16_000), PLAIN.encoding);
    for _ in 0..2 {
        stream(&client, PLAIN.config(), chunks(&data, 3_200)).await.fine();
    }
    let active = async || {
        let (status, page) = http_get(process.http, "/metrics").await;
        assert_eq!(status, 200);
        metric(&page, "undertone_streams_active", "")
    };
    let mut vanishing = Vec::new();
    for _ in 0..5 {
        // A connection each, to be cut inside a chunk.
        let proxy = cutting_proxy(process.grpc, 20_000).await;
        let client = Client::new(channel(proxy).await);
        vanishing.push((Talk::open(&client, PLAIN.config()).await, client));
    }
    assert_eq!(active().await, Some(5.0));
    let (_, listed) = http_get(process.http, "/sessions").await;
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&listed).unwrap().len(), 5);
    for (talk, _) in &vanishing {
        talk.say(audio(data.clone())).await;
    }
    until("no stream is active", async || active().await == Some(0.0)).await;
    assert_eq!(http_get(process.http, "/sessions").await.1, "[]");

    let (_, page) = http_get(process.http, "/metrics").await;
    let of = |name: &str, label: &str| {
        metric(&page, name, label).unwrap_or_else(|| panic!("{name}: {page}"))
    };
    for (outcome, streams) in [("finished", 2.0), ("vanished", 5.0)] {
        let counted = of("undertone_streams_total", &format!("outcome=\"{outcome}\""));
        assert!((counted - streams).abs() < 1e-6, "{outcome}: {counted} in {page}");
    }
    assert!(of("undertone_chunks_total", "") >= 60.0);
    assert!(of("undertone_audio_seconds_total", "") > 5.99);
    assert!(of("undertone_estimates_total", "") >= 4.0);
    assert!(of("undertone_utterances_total", "") >= 2.0);
    assert!(of("undertone_engine_batch_count", "model=\"tiny-steps\"") >= 8.0);
    assert!(of("undertone_engine_run_seconds_count", "model=\"tiny-steps\"") >= 8.0);
    assert!(of("undertone_engine_wait_seconds_count", "model=\"tiny-steps\"") >= 8.0);
    assert!(of("undertone_chunk_duration_seconds_count", "") >= 60.0);
    assert!(of("process_cpu_time_seconds_total", "cpu_mode=\"user\"") > 0.0);
    assert!(of("process_memory_usage_bytes", "") > 1e6);
}

#[test]
fn a_port_in_use_is_told_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other, setting) in [
        ("--grpc-address", "--http-address", "grpc_address"),
        ("--http-address", "--grpc-address", "http_address"),
    ] {
        let output = run(&["serve", flag, &address, other, "127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.contains(&address) && error.contains(setting), "{error}");
        // Standard error is no terminal here: the log has no colours.
        assert!(error.contains("starting") && !error.contains('\x1b'), "{error:?}");
        // And says how it ended.
        let ended = error.lines().find(|line| line.contains("ERROR") && line.contains("ended"));
        assert!(ended.is_some_and(|line| line.contains(&address)), "{error}");
    }
}

#[test]
fn a_bad_configuration_ends_with_64_and_the_name_of_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let unknown = file("unknown.toml", "max_strems = 3\n");
    let wrong = file("wrong.toml", "idle_timeout = \"soon\"\n");
    let cases: [(&[&str], &str); 7] = [
        (&["check", "--max-streams", "0"], "max_streams"),
        (&["serve", "--max-realtime-factor", "0.5"], "max_realtime_factor"),
        (&["check", "--voice-off", "0.9", "--voice-on", "0.5"], "voice_off"),
        (&["serve", "--estimate-interval", "20s"], "estimate_interval"),
        (&["check", "--config", &unknown], "max_strems"),
        (&["check", "--config", &wrong], "idle_timeout"),
        (&["check", "--config", "/nowhere/undertone.toml"], "/nowhere/undertone.toml"),
    ];
    for (args, names) in cases {
        let output = run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {error}");
        assert!(error.contains(names), "{args:?}: {error}");
    }
    let mut command = undertone(&["check"]);
    command.env("UNDERTONE_MAX_STREAMS", "0");
    let output = run_with(command);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("max_streams"));
    // What clap refuses is wrong usage.
    let output = run(&["check", "--idle-timeout", "soon"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--idle-timeout"));
}

#[test]
fn nothing_is_served_by_a_server_whose_files_are_wrong() {
    let any_port = ["serve", "--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"];
    for (flag, path) in [
        ("--identities", "/nowhere/identities.yaml"),
        ("--policies", "/nowhere/policies"),
        ("--delivery", "/nowhere/delivery.yaml"),
    ] {
        let store = ["--escalation-store", ""];
        let output = run(&[&any_port[..], &store, &[flag, path]].concat());
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flag}: {log}");
        assert!(log.contains(path), "{flag}: {log}");
        assert!(log.contains("starting") && !log.contains("serving"), "{flag}: {log}");
    }
}

#[test]
fn check_prints_the_settings_in_force_and_a_flag_beats_a_variable() {
    let mut command = undertone(&["check", "--max-streams", "7"]);
    command.env("UNDERTONE_MAX_STREAMS", "8").env("UNDERTONE_IDLE_TIMEOUT", "5s");
    let output = run_with(command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let settings: toml::Table = text(&output.stdout).parse().unwrap();
    assert_eq!(settings["max_streams"].as_integer(), Some(7));
    assert_eq!(settings["idle_timeout"].as_str(), Some("5s"));
    assert_eq!(settings["grpc_address"].as_str(), Some("127.0.0.1:50051"));
}

#[test]
fn a_model_folder_that_is_none_is_refused() {
    let output = run(&["serve", "--model", "/nowhere/model"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/model"));
}

#[test]
fn analyze_gives_one_json_object_per_file_and_goes_on_past_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let nested = folder.path().join("night/shift");
    std::fs::create_dir_all(&nested).unwrap();
    let write = |path: &std::path::Path, samples: &[f32]| {
        let file = wav(PLAIN.encoding, 16_000, 1, &encode(samples, PLAIN.encoding));
        std::fs::write(path, file).unwrap();
    };
    write(&folder.path().join("a speech.wav"), &speech(1, 3.0, 16_000));
    write(&nested.join("silence.WAV"), &silence(1, 1.0, 16_000));
    std::fs::write(folder.path().join("broken.wav"), b"RIFF and nothing behind").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"not audio").unwrap();
    let model = model_folder("tiny-steps").display().to_string();
    let path = folder.path().display().to_string();
    let output = run(&["analyze", "--format", "json", "--model", &model, &path]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("broken.wav"), "{errors}");
    let rows: Vec<serde_json::Map<String, serde_json::Value>> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    let mut keys = [
        "path",
        "seconds",
        "emotion",
        "probabilities",
        "confidence",
        "valence",
        "arousal",
        "distress",
        "utterances",
    ];
    keys.sort_unstable();
    for row in &rows {
        let mut found: Vec<&str> = row.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, keys);
    }
    assert!(rows[0]["path"].as_str().unwrap().ends_with("a speech.wav"));
    assert_eq!(rows[0]["seconds"].as_f64(), Some(3.0));
    let probabilities = rows[0]["probabilities"].as_object().unwrap();
    let sum: f64 = probabilities.values().map(|p| p.as_f64().unwrap()).sum();
    assert!(probabilities.len() == 8 && (sum - 1.0).abs() < 1e-5);
    assert!(probabilities.contains_key(rows[0]["emotion"].as_str().unwrap()));
    assert_eq!(rows[0]["utterances"].as_array().unwrap().len(), 2);
    assert!(rows[1]["emotion"].is_null());
    assert_eq!(rows[1]["utterances"].as_array().unwrap().len(), 0);

    let good = folder.path().join("a speech.wav").display().to_string();
    let output = run(&["analyze", "--model", &model, &good]);
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    assert_eq!(table.lines().count(), 2, "{table}");
    let output = run(&["analyze", "--format", "json", "--model", &model, "/nowhere.wav", &good]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert!(text(&output.stderr).contains("/nowhere.wav"));
}

#[test]
fn models_completions_help_and_version_work() {
    let model = model_folder("tiny-waveform").display().to_string();
    let output = run(&["models", "--model", &model]);
    let listed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for expected in ["tiny-waveform 1.0.0", "default", "undertone-four", "no commercial use"] {
        assert!(listed.contains(expected), "{expected}: {listed}");
    }
    let output = run(&["completions", "bash"]);
    assert!(output.status.success() && text(&output.stdout).contains("complete -F _undertone"));
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    assert!(output.status.success());
    for command in ["serve", "stream", "analyze", "check", "models", "corpus", "features", "bench"]
    {
        assert!(help.contains(command), "{command}");
        let output = run(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).len() > 100, "{command}");
    }
    assert!(text(&run(&["--version"]).stdout).contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&["sing"]).status.code(), Some(2));
}
