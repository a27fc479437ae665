//! An S3-compatible server of a test's own: `s3s-fs`, whose objects are files of a folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::database::free_port;
use crate::support::PATIENCE;

const ACCESS_KEY: &str = "AKIATESTTESTTEST";
const SECRET_KEY: &str = "secret-of-the-test";

/// A server with the buckets `calls` and `results`; killed when dropped.
pub(crate) struct Bucket {
    root: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

/// Where `make test` installs it, if it is not on the path.
fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/s3s-fs");
    if own.exists() { own } else { "s3s-fs".into() }
}

impl Bucket {
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        for bucket in ["calls", "results"] {
            std::fs::create_dir(root.path().join(bucket)).unwrap();
        }
        let mut bucket = Self { root, port: free_port(), server: None };
        bucket.resume();
        bucket
    }

    /// Starts the server again, on the port that it had.
    pub(crate) fn resume(&mut self) {
        let server = Command::new(program())
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .arg(self.root.path())
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = server.unwrap_or_else(|error| {
            panic!("s3s-fs: {error}; `make .tools/bin/s3s-fs` installs it for the tests")
        });
        self.server = Some(server);
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "s3s-fs does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server.
    pub(crate) fn go_away(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// The folder behind a bucket, or a prefix of it.
    pub(crate) fn folder(&self, key: &str) -> PathBuf {
        self.root.path().join(key)
    }

    /// Puts an object behind the server's back.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.folder(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The environment that reaches it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.go_away();
    }
}
