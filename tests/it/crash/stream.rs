//! A NATS server that is killed and comes back while escalations are delivered to it.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::sync::watch;

use super::audit;
use super::load::Load;
use super::site::Site;
use crate::database::{Kind, Place, free_port};
use crate::support::until;

/// A NATS server with JetStream, whose files outlive it.
struct Nats {
    port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Nats {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut nats = Self { port: free_port(), folder, process: None };
        nats.serve().await;
        nats
    }

    async fn serve(&mut self) {
        // Debian puts it where the path of an ordinary user does not look.
        let program = ["/usr/sbin/nats-server", "nats-server"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_ok())
            .expect("nats-server is missing: apt-get install nats-server");
        let process = Command::new(program)
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream"])
            .arg("--store_dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let port = self.port;
        until("the NATS server listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        rustix::process::kill_process(Pid::from_child(process), signal).unwrap();
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The keys of all messages of the stream, in order.
async fn keys(port: u16) -> Vec<String> {
    let client = async_nats::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let mut stream = async_nats::jetstream::new(client).get_stream("ESCALATIONS").await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    let mut keys = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        keys.push(message.headers.get("Nats-Msg-Id").unwrap().to_string());
    }
    keys
}

/// Clients talk to a server that delivers to `nats`, while that goes through `trouble`. In the end every occurrence
/// is in its stream, once.
async fn all_is_there_once(seed: u64, trouble: impl AsyncFnOnce(&mut Nats)) {
    let mut nats = Nats::start().await;
    let place = Place::new(Kind::Sqlite).await;
    let sink = format!(
        "    nats: {{servers: ['nats://127.0.0.1:{}'], stream: ESCALATIONS, create_stream: true}}
    timeout: 1s
    retry: {{first: 100ms, longest: 500ms, attempts: 1000}}
    circuit: {{failures: 1000, pause: 1s}}",
        nats.port
    );
    let site = Site::new(&place.url, &sink);
    let process = site.serve(&[]).await;
    let (_servers, list) = watch::channel(vec![process.grpc]);
    let load = Load::start(&list, 3, seed);
    trouble(&mut nats).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    load.finish().await;
    let store = place.store();
    audit::drained(&store).await;
    let keys = keys(nats.port).await;
    let all = audit::occurrences(&store).await;
    let recorded: BTreeSet<String> = all.iter().map(|one| one.id.to_string()).collect();
    let distinct: BTreeSet<String> = keys.iter().cloned().collect();
    println!(
        "NATS: {} occurrences, {} messages, {} distinct",
        recorded.len(),
        keys.len(),
        distinct.len()
    );
    assert_eq!(keys.len(), distinct.len(), "one was kept twice");
    assert_eq!(distinct, recorded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_occurrence_is_in_the_stream_once_though_its_server_was_killed_twice() {
    all_is_there_once(300, async |nats| {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            nats.kill();
            tokio::time::sleep(Duration::from_millis(400)).await;
            nats.serve().await;
        }
    })
    .await;
}

/// What was sent to it while it stood still is taken when it goes on, beside what was sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_occurrence_is_in_the_stream_once_though_its_server_stood_still() {
    all_is_there_once(310, async |nats| {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            nats.signal(Signal::STOP);
            // Longer than an attempt may take.
            tokio::time::sleep(Duration::from_millis(1_800)).await;
            nats.signal(Signal::CONT);
        }
    })
    .await;
}
