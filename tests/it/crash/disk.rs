//! Disks that fail under a store of SQLite's: full, in the middle or from the start, or not to be written to. The
//! stream goes on and knows; in the end everything is there.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use undertone::escalation::{Location, Store};
use undertone::wire::v1::warning::Reason;

use super::audit;
use super::receiver::{Receiver, Temper};
use super::site::Site;
use super::witness::{HASTY_STORE, Stream, all_arrived, is_degraded, is_well_again};
use crate::process::Process;
use crate::support::until;

/// Runs the command in a mount namespace of its own, with a small disk at the folder in `$0`: SQLite's
/// log grows to 4 MiB before it is written back.
const ON_A_SMALL_DISK: &str = "mount -t tmpfs -o size=12m tmpfs \"$0\" && exec \"$@\"";
/// The same, and the disk is full before the command begins.
const ON_A_FULL_DISK: &str = "mount -t tmpfs -o size=12m tmpfs \"$0\" || exit
head -c 16000000 /dev/zero 2>/dev/null >\"$0/filler\"
exec \"$@\"";

/// A server whose store is on a small disk of its own.
struct Small {
    folder: TempDir,
    _site: Site,
    process: Process,
    receiver: Receiver,
    /// The disk, as it is seen from here.
    disk: PathBuf,
}

impl Small {
    /// Needs user namespaces, or to be run as root.
    async fn serve(mount: &str, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let receiver = Receiver::start(Temper::Good, seed).await;
        let url = format!("sqlite:{}", disk.join("undertone.db").display());
        let site = Site::with_webhook(&url, receiver.address).and(&HASTY_STORE);
        let path = disk.display().to_string();
        let command = ["unshare", "--mount", "--map-root-user", "--", "sh", "-c", mount, &path];
        let process = site.serve_under(&command, &[]).await;
        let disk = PathBuf::from(format!("/proc/{}/root{}", process.id(), disk.display()));
        Self { folder, _site: site, process, receiver, disk }
    }

    fn filler(&self) -> PathBuf {
        self.disk.join("filler")
    }

    /// Fills the disk to its last byte.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).create(true).open(self.filler());
        let file = file.as_mut().unwrap();
        for size in [65_536, 4_096, 256, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    /// Ends the stream and checks that everything was recorded and has arrived.
    async fn all_arrived(&self, what: &str, stream: Stream) {
        stream.feed.abort();
        let told = stream.close().await;
        let distinct = || self.receiver.seen().distinct();
        until("all has arrived", async || distinct() >= told.durable.len()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let store = self.copied();
        audit::audit(what, &store, &self.receiver.seen(), &told).await;
    }

    /// The store as it stands, copied out of the other process's disk.
    fn copied(&self) -> Store {
        let to = self.folder.path();
        for end in ["", "-wal"] {
            let name = format!("undertone.db{end}");
            std::fs::copy(self.disk.join(&name), to.join(&name)).unwrap();
        }
        Store::at(Location::Sqlite(to.join("undertone.db")), Duration::from_secs(10)).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_no_stream_and_no_escalation() {
    let small = Small::serve(ON_A_SMALL_DISK, 4).await;
    let mut stream = Stream::open(&small.process, "full").await;
    stream.until("it is well", |stream| stream.count(true) >= 3).await;
    small.fill();
    println!("the disk is full");
    is_degraded(&small.process, &mut stream, &["disk is full", "disk I/O error"]).await;
    // Long enough for many attempts.
    let down = stream.count(false);
    stream.until("it lasts", |stream| stream.count(false) >= down + 8).await;
    assert_eq!(stream.warned(Reason::EscalationsDurable), 0, "{stream}");
    small.make_room();
    is_well_again(&small.process, &mut stream).await;
    small.all_arrived("full disk", stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_on_a_full_disk_serves_and_keeps_escalations_once_there_is_room() {
    let small = Small::serve(ON_A_FULL_DISK, 41).await;
    let mut stream = Stream::open(&small.process, "full-from-the-start").await;
    is_degraded(&small.process, &mut stream, &["disk is full", "disk I/O error"]).await;
    small.make_room();
    is_well_again(&small.process, &mut stream).await;
    small.all_arrived("full from the start", stream).await;
}

/// A server with its store in `folder`, which even root may not write to where the modes forbid it.
async fn humble(folder: &Path, seed: u64) -> (Site, Process, Receiver, String) {
    let receiver = Receiver::start(Temper::Good, seed).await;
    let url = format!("sqlite:{}", folder.join("undertone.db").display());
    let site = Site::with_webhook(&url, receiver.address).and(&HASTY_STORE);
    // Nothing keeps root from writing, unless it gives that up.
    let [bound, inherited] = ["--bounding-set=-dac_override", "--inh-caps=-dac_override"];
    let humble = ["setpriv", bound, inherited, "--"];
    let is_root = rustix::process::geteuid().is_root();
    let process = site.serve_under(if is_root { &humble } else { &[] }, &[]).await;
    (site, process, receiver, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_may_write_to_costs_no_stream_and_no_escalation() {
    for (seed, what, forbidden, allowed) in
        [(5, "folder", 0o555, 0o755), (51, "file", 0o444, 0o644)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = match what {
            "file" => folder.path().join("undertone.db"),
            _ => folder.path().to_owned(),
        };
        if what == "file" {
            // One that is there already, as a server before has left it.
            let location = Location::Sqlite(path.clone());
            Store::at(location, Duration::from_secs(10)).unwrap().migrate().await.unwrap();
        }
        let may = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        may(&path, forbidden);
        let (_site, process, receiver, url) = humble(folder.path(), seed).await;
        let mut stream = Stream::open(&process, what).await;
        println!("the {what} is read-only");
        is_degraded(&process, &mut stream, &["must exist and be writable", "must be writable"])
            .await;
        may(&path, allowed);
        for end in ["-wal", "-shm"] {
            // SQLite has made them as it found the file.
            let beside = folder.path().join(format!("undertone.db{end}"));
            if beside.exists() {
                may(&beside, allowed);
            }
        }
        is_well_again(&process, &mut stream).await;
        let store = Store::at(url.parse().unwrap(), Duration::from_secs(10)).unwrap();
        all_arrived(what, stream, &receiver, &store).await;
    }
}
