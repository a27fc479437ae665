//! A rolling restart: three replicas behind `HAProxy`, streams at the pace of speech, each replica drained and
//! started again in turn. Every stream ends with complete results.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use super::audit;
use super::receiver::{Receiver, Temper};
use super::site::Site;
use super::takeover::{speech, whole};
use crate::database::{Kind, Place, free_port};
use crate::process::Process;
use crate::resumer::{To, as_one_stream, connect, talk};
use crate::support::{assert_same, until};

/// Streams in a test that nobody has asked more of.
const STREAMS: u32 = 40;
/// Streams that share a connection, as a process of an agent framework shares one.
const STREAMS_PER_CONNECTION: u32 = 20;
const REPLICAS: usize = 3;
/// Time between two chunks of a quarter of a second: people's own pace.
const PACE: Duration = Duration::from_millis(250);

fn streams() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test, not of the service")]
    let asked = std::env::var("UNDERTONE_ROLLING");
    asked.map_or(STREAMS, |count| count.parse().expect("UNDERTONE_ROLLING is a number"))
}

/// Two free ports that a replica keeps over its restarts.
struct Ports {
    grpc: u16,
    http: u16,
}

/// A running `HAProxy`; killed when dropped.
struct Balancer(Child);

impl Balancer {
    /// Balances HTTP/2 streams over the replicas that say that they are ready.
    fn start(folder: &Path, port: u16, replicas: &[Ports]) -> Self {
        let mut config = format!(
            "global\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 1h\n  \
             timeout server 1h\n  timeout tunnel 1h\n  retries 2\n  option redispatch\n\
             frontend grpc\n  bind 127.0.0.1:{port} proto h2\n  default_backend undertone\n\
             backend undertone\n  balance roundrobin\n  option httpchk GET /readyz\n"
        );
        for (number, Ports { grpc, http }) in replicas.iter().enumerate() {
            writeln!(
                config,
                "  server r{number} 127.0.0.1:{grpc} proto h2 check check-proto h1 port {http} inter 200ms \
                 fall 1 rise 1 pool-max-conn 0"
            ).unwrap();
        }
        let path = folder.join("haproxy.cfg");
        std::fs::write(&path, config).unwrap();
        let started = Command::new("haproxy")
            .env("PATH", "/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
            .args(["-db", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(started.expect("haproxy is missing: apt-get install haproxy"))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // If it has ended already there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn serve(site: &Site, ports: &Ports) -> Process {
    let (grpc, http) = (format!("127.0.0.1:{}", ports.grpc), format!("127.0.0.1:{}", ports.http));
    site.serve_at(&grpc, &http).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_ends_with_complete_results_while_each_replica_is_restarted_in_turn() {
    let (streams, began) = (streams(), Instant::now());
    let place = Place::new(Kind::Postgres).await;
    let receiver = Receiver::start(Temper::Good, 9).await;
    let folder = place.folder.path();
    let keys = folder.join("resume.keys");
    std::fs::write(&keys, "k:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").unwrap();
    let site = Site::with_webhook(&place.url, receiver.address)
        .and(&["--resume-keys", &keys.display().to_string()]);
    let ports: Vec<Ports> =
        (0..REPLICAS).map(|_| Ports { grpc: free_port(), http: free_port() }).collect();
    let mut replicas = Vec::new();
    for ports in &ports {
        replicas.push(serve(&site, ports).await);
    }
    let port = free_port();
    let _balancer = Balancer::start(folder, port, &ports);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("the load balancer balances", async || connect(address).await.is_some()).await;

    let finished = Arc::new(AtomicU32::new(0));
    let mut calls = JoinSet::new();
    let mut client = connect(address).await.unwrap();
    for number in 0..streams {
        if number > 0 && number % STREAMS_PER_CONNECTION == 0 {
            client = connect(address).await.unwrap();
        }
        let (client, finished) = (client.clone(), finished.clone());
        calls.spawn(async move {
            // Not all at one moment, as people do not call.
            tokio::time::sleep(Duration::from_millis(u64::from(number) * 7)).await;
            let which = number as usize % 3;
            let speech = speech(which, &format!("r{number}"), PACE);
            let heard = talk(&speech, To::Connected(client)).await;
            finished.fetch_add(1, Ordering::Relaxed);
            (number, which, heard)
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (replica, ports) in replicas.iter_mut().zip(&ports) {
        replica.signal(Signal::TERM);
        let (status, took) = replica.ended().await;
        assert!(status.success(), "{status:?} after {took:?}");
        *replica = serve(&site, ports).await;
        // It gets streams again before the next one is taken away.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    let restarted = began.elapsed();
    let early = finished.load(Ordering::Relaxed);
    let whole = whole().await;
    let (mut drains, mut breaks, mut resumes, mut moved) = (0, 0, 0, 0);
    while let Some(call) = calls.join_next().await {
        let (number, which, heard) = call.expect("a call panicked");
        let heard = heard.unwrap_or_else(|status| panic!("stream {number}: {status:?}"));
        assert_same(&format!("stream {number}"), &as_one_stream(&heard.answer), &whole[which]);
        drains += heard.drains;
        breaks += heard.breaks;
        resumes += heard.resumes;
        moved += u32::from(heard.resumes > 0);
    }
    audit::drained(&place.store()).await;
    println!(
        "rolling: {streams} streams, {REPLICAS} replicas restarted in {restarted:.1?}; {moved} streams moved, \
         {drains} drained, {breaks} broken, {resumes} gone on from a checkpoint; every one complete"
    );
    assert!(early < streams / 4, "the calls were over before the replicas were restarted");
    assert!(moved >= streams * 2 / 3, "only {moved} of {streams} streams had to move");
}
