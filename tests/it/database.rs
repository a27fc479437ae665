//! Stores for tests: a file of SQLite's, or a database of its own in a PostgreSQL that this process starts.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use undertone::escalation::{Location, Store};

/// The PostgreSQL of this process. It ends with its standard input, so with the process.
static POSTGRES: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// A PostgreSQL that `tests/postgres.sh` keeps.
pub(crate) struct Postgres {
    port: u16,
    /// The script. It ends everything when its standard input closes.
    process: Child,
    answers: BufReader<ChildStdout>,
}

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Postgres {
    pub(crate) fn start() -> Self {
        Self::start_under(None)
    }

    /// One whose date can be set (`date +3h`), if a `libfaketime` is given.
    pub(crate) fn start_under(libfaketime: Option<&Path>) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/postgres.sh");
        let port = free_port();
        let mut process = Command::new("sh")
            .arg(script)
            .arg(port.to_string())
            .args(libfaketime)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut postgres = Self { port, process, answers };
        postgres.expect("ready");
        postgres
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), word, "tests/postgres.sh says above what is missing");
    }

    /// Has the script do something to the server, see there.
    pub(crate) fn command(&mut self, word: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{word}").unwrap();
        self.expect(word);
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://undertone@127.0.0.1:{}/{database}", self.port)
    }
}

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A store of one test.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// What `escalation_store` is set to.
    pub(crate) url: String,
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) async fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match kind {
            Kind::Sqlite => format!("sqlite:{}", folder.path().join("undertone.db").display()),
            Kind::Postgres => {
                static COUNT: AtomicU32 = AtomicU32::new(0);
                let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
                let url = tokio::task::spawn_blocking(|| POSTGRES.url("postgres")).await.unwrap();
                let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
                let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
                connection.execute(create).await.unwrap();
                POSTGRES.url(&name)
            }
        };
        Self { kind, url, folder }
    }

    pub(crate) fn location(&self) -> Location {
        self.url.parse().unwrap()
    }

    pub(crate) fn store(&self) -> Store {
        Store::at(self.location(), Duration::from_secs(10)).unwrap()
    }
}

/// Each test against both databases.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            use crate::database::{Kind, Place};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&Place::new(Kind::Sqlite).await).await;
            })+
        }
        mod postgres {
            use crate::database::{Kind, Place};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&Place::new(Kind::Postgres).await).await;
            })+
        }
    };
}
pub(crate) use on_both;
