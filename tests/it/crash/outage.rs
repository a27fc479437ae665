//! Stores that fail while a stream is live: a full disk, a folder that nobody may write to, a database that
//! hangs, a database that dies. The stream goes on and knows; in the end everything is there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use undertone::escalation::{Location, Store};
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_response::Message as Response;
use undertone::wire::v1::warning::Reason;

use super::audit;
use super::load::{Told, config, turn_of};
use super::receiver::{Receiver, Temper};
use super::site::Site;
use crate::database::Postgres;
use crate::process::Process;
use crate::support::{PATIENCE, Talk, audio, channel, http_get, until, wrap};

/// A store that does not answer counts as down soon.
const HASTY_STORE: [&str; 2] = ["--store-timeout", "300ms"];
/// Bytes of a quarter of a second, and how often they come.
const CHUNK: usize = 8_000;
const PACE: Duration = Duration::from_millis(25);

/// One stream that goes on and on, and all that it was told.
struct Stream {
    responses: Streaming<v1::StreamEmotionResponse>,
    feed: JoinHandle<()>,
    events: Vec<v1::EscalationEvent>,
    warnings: Vec<Reason>,
    estimates: usize,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

impl Stream {
    async fn open(process: &Process, session_id: &str) -> Self {
        let talk = Talk::open(&process.client().await, config(session_id)).await;
        let requests: mpsc::Sender<v1::StreamEmotionRequest> = talk.requests;
        let feed = tokio::spawn(async move {
            for turn in 0.. {
                for chunk in turn_of(turn).chunks(CHUNK) {
                    if requests.send(wrap(audio(chunk.to_vec()))).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(PACE).await;
                }
            }
        });
        let (events, warnings) = (Vec::new(), Vec::new());
        Self { responses: talk.responses, feed, events, warnings, estimates: 0 }
    }

    /// Reads on until `done`.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let next = tokio::time::timeout(left, self.responses.message()).await;
            let next = next.unwrap_or_else(|_| panic!("waited in vain until {what}: {self}"));
            self.take(next.expect("the stream goes on").expect("the stream goes on").message);
        }
    }

    fn take(&mut self, response: Option<Response>) {
        match response {
            Some(Response::Escalation(event)) => self.events.push(*event),
            Some(Response::Warning(warning)) => self.warnings.push(warning.reason()),
            Some(Response::Estimate(_)) => self.estimates += 1,
            _ => {}
        }
    }

    fn count(&self, durable: bool) -> usize {
        self.events.iter().filter(|event| event.durable == durable).count()
    }

    fn warned(&self, reason: Reason) -> usize {
        self.warnings.iter().filter(|warning| **warning == reason).count()
    }

    /// Lets what was said come to its end.
    async fn close(mut self) -> Told {
        self.feed.abort();
        while let Some(response) = self.responses.message().await.expect("a good end") {
            self.take(response.message);
        }
        let mut told = Told { not_durable: self.count(false), ..Told::default() };
        for event in self.events.iter().filter(|event| event.durable) {
            let id = event.escalation.as_ref().expect("an escalation").id.clone();
            assert_eq!(told.durable.insert(event.id.clone(), id), None, "told durable twice");
        }
        told
    }

    /// Everything that was told while it was not durable was told again when it was.
    fn assert_told_again(&self) {
        let name = |event: &v1::EscalationEvent| {
            let escalation = event.escalation.as_ref().expect("an escalation");
            let onset = escalation.onset.as_ref().map(|onset| (onset.seconds, onset.nanos));
            let at = escalation.evidence.as_ref().and_then(|evidence| evidence.end.as_ref());
            let at = at.map(|end| (end.seconds, end.nanos));
            (escalation.id.clone(), escalation.rule.clone(), event.kind(), onset, at)
        };
        let durable: Vec<_> = self.events.iter().filter(|event| event.durable).map(name).collect();
        let ends = durable.iter().map(|(.., end)| end);
        assert!(ends.is_sorted(), "not in the order in which it happened: {durable:?}");
        for event in self.events.iter().filter(|event| !event.durable) {
            let name = name(event);
            assert!(durable.contains(&name), "never durable: {name:?} of {durable:?}");
        }
    }
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} estimates, {} events durable, {} not, warnings {:?}",
            self.estimates,
            self.count(true),
            self.count(false),
            self.warnings
        )
    }
}

/// What the server says of its escalations to those who ask.
async fn health(process: &Process) -> ServingStatus {
    let service = "undertone.v1.EscalationService".to_owned();
    let mut client = HealthClient::new(channel(process.grpc).await);
    let answer = client.check(HealthCheckRequest { service }).await.unwrap();
    answer.into_inner().status()
}

/// A server that is down says so, everywhere and with a cause, and its streams go on.
async fn is_degraded(process: &Process, stream: &mut Stream, causes: &[&str]) {
    stream
        .until("it is told that nothing is durable", |stream| {
            stream.count(false) >= 3 && stream.warned(Reason::EscalationsNotDurable) >= 1
        })
        .await;
    assert_eq!(stream.warned(Reason::EscalationsNotDurable), 1, "said once: {stream}");
    let (status, page) = http_get(process.http, "/readyz").await;
    assert_eq!(status, 200, "streams go on, so it is ready: {page}");
    assert!(page.contains("degraded") && causes.iter().any(|cause| page.contains(cause)), "{page}");
    assert_eq!(health(process).await, ServingStatus::NotServing);
    let before = stream.estimates;
    stream.until("estimates come all the same", |stream| stream.estimates > before + 5).await;
    println!("  while it was down: {stream}; {}", page.trim());
}

/// A server whose store is back says so, and has forgotten nothing.
async fn is_well_again(process: &Process, stream: &mut Stream) {
    stream
        .until("it is told that all is durable", |stream| {
            stream.warned(Reason::EscalationsDurable) >= 1
        })
        .await;
    stream.assert_told_again();
    assert_eq!(stream.warned(Reason::EscalationLost), 0, "{stream}");
    until("it is ready", async || http_get(process.http, "/readyz").await.1 == "ready\n").await;
    until("it serves", async || health(process).await == ServingStatus::Serving).await;
    let before = stream.count(true);
    stream.until("what is new is durable at once", |stream| stream.count(true) > before + 1).await;
    println!("  afterwards: {stream}");
}

/// Ends the stream and checks that everything was recorded and has arrived.
async fn all_arrived(what: &str, stream: Stream, receiver: &Receiver, store: &Store) {
    let told = stream.close().await;
    audit::drained(store).await;
    audit::audit(what, store, &receiver.seen(), &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_or_dies_costs_no_stream_and_no_escalation() {
    let (mut postgres, url) = tokio::task::spawn_blocking(|| {
        let postgres = Postgres::start();
        let url = postgres.url("postgres");
        (postgres, url)
    })
    .await
    .unwrap();
    let receiver = Receiver::start(Temper::Good, 3).await;
    let site = Site::with_webhook(&url, receiver.address).and(&HASTY_STORE);
    let process = site.serve(&[]).await;
    let store = Store::at(url.parse().unwrap(), Duration::from_secs(10)).unwrap();
    for (round, [down, up], causes) in [
        (0, ["pause", "resume"], ["no answer within 300ms", "no answer within 300ms"]),
        (1, ["kill", "start"], ["communicating with database", "onnect"]),
    ] {
        let mut stream = Stream::open(&process, &format!("round-{round}")).await;
        stream.until("it is well", |stream| stream.count(true) >= 3).await;
        postgres.command(down);
        println!("PostgreSQL: {down}");
        is_degraded(&process, &mut stream, &causes).await;
        postgres.command(up);
        is_well_again(&process, &mut stream).await;
        stream.feed.abort();
        let told = stream.close().await;
        audit::drained(&store).await;
        println!("  {} told durable", told.durable.len());
    }
    audit::audit("PostgreSQL", &store, &receiver.seen(), &Told::default()).await;
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;

    /// Runs the command in a mount namespace of its own, with a small disk at the folder in `$0`: SQLite's
    /// log grows to 4 MiB before it is written back.
    const ON_A_SMALL_DISK: &str = "mount -t tmpfs -o size=12m tmpfs \"$0\" && exec \"$@\"";

    /// Fills a disk to its last byte.
    fn fill(file: &Path) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(file).unwrap();
        for size in [65_536, 4_096, 256, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// The store as it stands, copied out of the other process's disk.
    fn copied(from: &Path, to: &Path) -> Store {
        for end in ["", "-wal"] {
            let name = format!("undertone.db{end}");
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
        let location = Location::Sqlite(to.join("undertone.db"));
        Store::at(location, Duration::from_secs(10)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_costs_no_stream_and_no_escalation() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let receiver = Receiver::start(Temper::Good, 4).await;
        let url = format!("sqlite:{}", disk.join("undertone.db").display());
        let site = Site::with_webhook(&url, receiver.address).and(&HASTY_STORE);
        let path = disk.display().to_string();
        // Needs user namespaces, or to be run as root.
        let command =
            ["unshare", "--mount", "--map-root-user", "--", "sh", "-c", ON_A_SMALL_DISK, &path];
        let process = site.serve_under(&command, &[]).await;
        let seen_from_here =
            PathBuf::from(format!("/proc/{}/root{}", process.id(), disk.display()));
        let mut stream = Stream::open(&process, "full").await;
        stream.until("it is well", |stream| stream.count(true) >= 3).await;
        let filler = seen_from_here.join("filler");
        fill(&filler);
        println!("the disk is full");
        is_degraded(&process, &mut stream, &["disk is full", "disk I/O error"]).await;
        // Long enough for many attempts.
        let down = stream.count(false);
        stream.until("it lasts", |stream| stream.count(false) >= down + 8).await;
        assert_eq!(stream.warned(Reason::EscalationsDurable), 0, "{stream}");
        std::fs::remove_file(&filler).unwrap();
        is_well_again(&process, &mut stream).await;
        stream.feed.abort();
        let told = stream.close().await;
        let distinct = || receiver.seen().distinct();
        until("all has arrived", async || distinct() >= told.durable.len()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let store = copied(&seen_from_here, folder.path());
        audit::audit("full disk", &store, &receiver.seen(), &told).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_folder_that_nobody_may_write_to_costs_no_stream_and_no_escalation() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let may = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path(), may(0o555)).unwrap();
        let receiver = Receiver::start(Temper::Good, 5).await;
        let url = format!("sqlite:{}", folder.path().join("undertone.db").display());
        let site = Site::with_webhook(&url, receiver.address).and(&HASTY_STORE);
        // Nothing keeps root from writing, unless it gives that up.
        let [bound, inherited] = ["--bounding-set=-dac_override", "--inh-caps=-dac_override"];
        let humble = ["setpriv", bound, inherited, "--"];
        let is_root = rustix::process::geteuid().is_root();
        let process = site.serve_under(if is_root { &humble } else { &[] }, &[]).await;
        let mut stream = Stream::open(&process, "read-only").await;
        println!("the folder is read-only");
        is_degraded(&process, &mut stream, &["must exist and be writable", "must be writable"])
            .await;
        std::fs::set_permissions(folder.path(), may(0o755)).unwrap();
        is_well_again(&process, &mut stream).await;
        let store = Store::at(url.parse().unwrap(), Duration::from_secs(10)).unwrap();
        all_arrived("read-only", stream, &receiver, &store).await;
    }
}
