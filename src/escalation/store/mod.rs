//! The escalation store: what happened and what has to reach whom, in SQL.
//!
//! SQLite in a file (WAL, full synchronous) for one server, PostgreSQL where several replicas share it:
//! one schema, one set of migrations, the same statements. All times are microseconds, all documents JSON.
//!
//! Always:
//! 1. Every writer takes the row lock on the counter of occurrences first. So writers of all replicas go one
//!    after the other, occurrences become visible in the order of their numbers without gaps, and no
//!    statement has to reckon with another writer.
//! 2. An occurrence, the escalation after it and the deliveries that it causes are committed together.
//! 3. Of one session, a sink has at most one delivery that is due or leased: the earliest. The others wait.
//! 4. Only who holds a lease delivers; leases are taken under the lock of 1.
//! 5. When the date leaps, leases and sessions begin anew with their whole length, and what was to be tried later
//!    is tried now: nothing is over early, and nothing waits for hours.
//! 6. A migration leaves the schema usable by the build before it (columns with defaults, tables and indices
//!    that are added), and a build works on a schema that is newer than its own: replicas are updated one by
//!    one, and rolled back.

mod clock;
mod read;
mod rows;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Once, PoisonError, RwLock};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{
    AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr as _,
};

pub use read::{Attempt, DeliveryRecord, DeliveryState, Filter, Page, Totals};
pub use write::{
    Batch, Change, Claimed, Done, Finish, Lost, Outcome, Recorded, Routes, SessionName, Terms,
    Writer,
};

/// Why the store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A URL that names no store.
    #[error("{0}; examples: sqlite:undertone.db, postgres://user@host/database")]
    Url(String),
    /// A file that another server has.
    #[error(
        "{path} is in use by another server; one server at a time may use an SQLite file, several \
         share a PostgreSQL"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A folder or file that cannot be used.
    #[error("{path}: {source}; the folder of escalation_store must exist and be writable")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database refuses or cannot be reached.
    #[error("{}", plain(.0))]
    Database(#[from] sqlx::Error),
    /// The schema cannot be brought up to date.
    #[error("the schema cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A document that is none of ours.
    #[error("{what} in the store cannot be read: {problem}")]
    Document {
        /// Which.
        what: String,
        /// Why.
        problem: String,
    },
    /// The schema is being brought up to date.
    #[error("the schema is being brought up to date")]
    Migrating,
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The thread that writes cannot be started.
    #[error("the thread of escalations cannot be started: {0}")]
    Thread(std::io::Error),
}

impl StoreError {
    /// Whether the store can be read and not written.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_read_only(&code))
            }
            _ => false,
        }
    }

    /// Whether it is about what was to be written or read, and not about how the store is: it comes again
    /// however well the store is.
    pub fn is_about_content(&self) -> bool {
        match self {
            Self::Document { .. } => true,
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_about_content(&code))
            }
            Self::Database(_)
            | Self::Url(_)
            | Self::InUse { .. }
            | Self::File { .. }
            | Self::Migrate(_)
            | Self::Migrating
            | Self::TimedOut(_)
            | Self::Thread(_) => false,
        }
    }
}

/// Whether a database's code of an error is about the values in a statement. PostgreSQL's codes have five
/// characters, of which two are the class (its manual, appendix A); SQLite's are smaller numbers, whose low
/// byte is the primary code.
fn is_about_content(code: &str) -> bool {
    if code.len() == 5 {
        // Data exception, integrity constraint violation, program limit exceeded.
        return ["22", "23", "54"].iter().any(|class| code.starts_with(class));
    }
    // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH, SQLITE_RANGE.
    code.parse::<u32>().is_ok_and(|code| [18, 19, 20, 25].contains(&(code & 0xff)))
}

/// `SQLITE_READONLY`. A PostgreSQL that is read-only says so anew to every connection.
fn is_read_only(code: &str) -> bool {
    code.len() < 5 && code.parse::<u32>().is_ok_and(|code| code & 0xff == 8)
}

/// A database's own words, with a remedy where one is known. Never the URL, which may hold a password.
fn plain(error: &sqlx::Error) -> String {
    let text = error.to_string();
    let remedy = if text.contains("disk is full") || text.contains("disk I/O error") {
        "; make room on the disk of escalation_store"
    } else if text.contains("readonly") {
        "; the file of escalation_store, those beside it (-wal, -shm) and its folder must be writable"
    } else if text.contains("unable to open database file") {
        "; the folder of escalation_store must exist and be writable"
    } else {
        ""
    };
    format!("{text}{remedy}")
}

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A PostgreSQL; the URL may hold a password.
    Postgres(String),
}

impl FromStr for Location {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        let path = text.strip_prefix("sqlite:").unwrap_or(text);
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains("://") || path.contains(['?', '#', '%']) {
            return Err(StoreError::Url(format!("{:?} names no store", redacted(text))));
        }
        Ok(Self::Sqlite(PathBuf::from(path)))
    }
}

impl Location {
    /// How it is connected to.
    ///
    /// # Errors
    /// [`StoreError::Url`] or [`StoreError::File`] if it cannot be.
    fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let url = match self {
            // Absolute, so that a later change of the folder does not lead elsewhere.
            Self::Sqlite(path) => {
                let path = std::path::absolute(path)
                    .map_err(|source| StoreError::File { path: path.clone(), source })?;
                format!("sqlite://{}?mode=rwc", path.display())
            }
            Self::Postgres(url) => url.clone(),
        };
        AnyConnectOptions::from_str(&url)
            .map_err(|error| StoreError::Url(format!("{self} cannot be used: {}", plain(&error))))
    }

    /// Whether it can be connected to at all, as far as its text says.
    ///
    /// # Errors
    /// [`StoreError::Url`] or [`StoreError::File`].
    pub fn check(&self) -> Result<(), StoreError> {
        self.options().map(drop)
    }
}

/// A URL without its password.
fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let (head, tail) = (url.get(..scheme + 3), url.get(at..));
            format!("{}redacted{}", head.unwrap_or_default(), tail.unwrap_or_default())
        }
        _ => url.to_owned(),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                // Parameters may hold a password too.
                let url = url.split('?').next().unwrap_or_default();
                f.write_str(&redacted(url))
            }
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Connections that only read, at once.
const READERS: u32 = 4;

/// Connections that only read; none is made yet.
fn readers(options: &AnyConnectOptions, is_sqlite: bool, timeout: Duration) -> AnyPool {
    AnyPoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(timeout)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                prepare(connection, is_sqlite).await?;
                limit(connection, is_sqlite, timeout).await
            })
        })
        .connect_lazy_with(options.clone())
}

/// A store that may or may not be reachable just now.
#[derive(Debug, Clone)]
pub struct Store {
    location: Location,
    options: AnyConnectOptions,
    readers: Arc<RwLock<AnyPool>>,
    timeout: Duration,
    clock: clock::Clock,
}

impl Store {
    /// A store at `location`; nothing is connected yet. Reading waits `timeout` at most. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// As [`Location::check`].
    pub fn at(location: Location, timeout: Duration) -> Result<Self, StoreError> {
        let options = location.options()?;
        let readers = readers(&options, matches!(location, Location::Sqlite(_)), timeout);
        let readers = Arc::new(RwLock::new(readers));
        Ok(Self { location, options, readers, timeout, clock: clock::Clock::default() })
    }

    /// Connections that only read.
    fn readers(&self) -> AnyPool {
        self.readers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of what is open but for what is being read: whoever reads next connects anew. All connections of a
    /// process to a file of SQLite's share its index of the log (`-shm`), and as long as one lives that found it
    /// read-only, it is read-only to all that come after.
    pub fn let_go(&self) {
        if self.is_sqlite() {
            let fresh = readers(&self.options, true, self.timeout);
            *self.readers.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    fn is_sqlite(&self) -> bool {
        matches!(self.location, Location::Sqlite(_))
    }

    /// Brings the schema up to date, which takes as long as it takes: minutes, where a table has grown.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cancellation
    /// Safe, and in vain: what was begun is rolled back.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = AnyConnection::connect_with(&self.options).await?;
        prepare(&mut connection, self.is_sqlite()).await?;
        if !self.is_sqlite() {
            // What waits for a lock on a table keeps all others waiting behind it.
            set(&mut connection, "lock_timeout", self.timeout).await?;
            // A replica that is stopped in the middle, or whose machine is gone, holds the lock of all that
            // begin. A statement may last, but between two of them there is nothing to do.
            set(&mut connection, "idle_in_transaction_session_timeout", LONGEST_SILENCE).await?;
            set_if_known(&mut connection, "idle_session_timeout", LONGEST_SILENCE).await?;
        }
        Ok(migrator().run_direct(None, &mut connection, false).await?)
    }

    /// Connects for writing to a schema that is up to date.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connect(&self, owner: &str) -> Result<Writer, StoreError> {
        let mut connection = AnyConnection::connect_with(&self.options).await?;
        prepare(&mut connection, self.is_sqlite()).await?;
        limit(&mut connection, self.is_sqlite(), self.timeout).await?;
        Ok(Writer::new(connection, self.is_sqlite(), owner.to_owned(), self.clock.clone()))
    }

    /// [`Store::migrate`], then [`Store::connect`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn writer(&self, owner: &str) -> Result<Writer, StoreError> {
        self.migrate().await?;
        self.connect(owner).await
    }

    /// Makes sure that no other server uses the file, for as long as what is returned lives. A PostgreSQL
    /// may be shared.
    ///
    /// # Errors
    /// [`StoreError::InUse`] or [`StoreError::File`].
    pub fn claim_file(&self) -> Result<Option<std::fs::File>, StoreError> {
        let Location::Sqlite(path) = &self.location else {
            return Ok(None);
        };
        let lock = lock_path(path);
        let file_error = |source| StoreError::File { path: lock.clone(), source };
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(file_error)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.clone() }),
            Err(std::fs::TryLockError::Error(source)) => Err(file_error(source)),
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// What every connection needs.
async fn prepare(connection: &mut AnyConnection, is_sqlite: bool) -> Result<(), sqlx::Error> {
    if is_sqlite {
        // Readers do not hold up the writer (WAL); what is committed survives a power cut (FULL); another
        // process, such as `undertone escalations ack`, is waited for.
        for pragma in [
            "PRAGMA busy_timeout = 5000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA foreign_keys = ON",
        ] {
            connection.execute(pragma).await?;
        }
    }
    Ok(())
}

/// Longest time that a writer may say nothing in the middle of a transaction. One that is well says
/// something within microseconds.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// What every connection to a PostgreSQL needs once the schema is up to date. A replica that is stopped in
/// the middle of a transaction, or whose machine is gone, holds the lock of all writers: the database lets
/// it go.
async fn limit(
    connection: &mut AnyConnection,
    is_sqlite: bool,
    timeout: Duration,
) -> Result<(), sqlx::Error> {
    if is_sqlite {
        return Ok(());
    }
    for (setting, limit) in [
        ("statement_timeout", timeout),
        ("lock_timeout", timeout),
        ("idle_in_transaction_session_timeout", timeout.min(LONGEST_SILENCE)),
    ] {
        set(connection, setting, limit).await?;
    }
    Ok(())
}

/// Sets a limit of a connection to a PostgreSQL.
async fn set(
    connection: &mut AnyConnection,
    setting: &'static str,
    limit: Duration,
) -> Result<(), sqlx::Error> {
    // Numbers and names of our own, nothing that anybody has sent.
    let ms = limit.as_millis();
    connection.execute(AssertSqlSafe(format!("SET {setting} = {ms}"))).await?;
    Ok(())
}

/// The same for one that older databases do not have.
async fn set_if_known(
    connection: &mut AnyConnection,
    setting: &'static str,
    limit: Duration,
) -> Result<(), sqlx::Error> {
    let ms = limit.as_millis();
    let statement =
        format!("SELECT set_config(name, '{ms}', false) FROM pg_settings WHERE name = '{setting}'");
    connection.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

fn migrator() -> Migrator {
    let migration = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(vec![
        migration(1, "escalations", include_str!("migrations/0001_escalations.sql")),
        migration(2, "tenants", include_str!("migrations/0002_tenants.sql")),
        migration(3, "census", include_str!("migrations/0003_census.sql")),
    ]);
    // Those that a newer build has added.
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of the last of some statements.
    async fn error_of(statements: &[&'static str]) -> StoreError {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect("sqlite::memory:").await.unwrap();
        let (last, first) = statements.split_last().unwrap();
        for statement in first {
            connection.execute(*statement).await.unwrap();
        }
        connection.execute(*last).await.unwrap_err().into()
    }

    /// A full disk takes transactions that write nothing new and refuses all others. That was once taken
    /// for the fault of what was to be written, and escalations were given up one by one.
    #[tokio::test]
    async fn a_full_disk_is_not_the_fault_of_what_was_to_be_written() {
        let table = "CREATE TABLE t (a TEXT NOT NULL UNIQUE)";
        let full = [
            table,
            "PRAGMA max_page_count = 3",
            "INSERT INTO t VALUES (CAST(zeroblob(100000) AS TEXT))",
        ];
        let full = error_of(&full).await;
        assert!(full.to_string().contains("make room on the disk"), "{full}");
        assert!(!full.is_about_content());
        let twice = ["INSERT INTO t VALUES ('a')"; 2];
        assert!(error_of(&[table, twice[0], twice[1]]).await.is_about_content());
        assert!(error_of(&[table, "INSERT INTO t VALUES (NULL)"]).await.is_about_content());
        // PostgreSQL: invalid byte sequence; disk full, shutdown, read-only transaction.
        assert!(is_about_content("22021"));
        assert!(!["53100", "57P01", "25006"].into_iter().any(is_about_content));
        assert!(
            ["8", "264", "1032"].into_iter().all(is_read_only),
            "SQLITE_READONLY and kinds of it"
        );
        assert!(!["13", "10", "53100", "25006"].into_iter().any(is_read_only));
    }

    #[test]
    fn a_location_is_a_path_or_a_url_and_shows_no_password() {
        let path = |text: &str| text.parse::<Location>().unwrap();
        assert_eq!(path("sqlite:a.db"), Location::Sqlite("a.db".into()));
        assert_eq!(path("sqlite:///var/a.db"), Location::Sqlite("/var/a.db".into()));
        assert_eq!(path("a.db"), Location::Sqlite("a.db".into()));
        let url = "postgres://me:secret@host:5432/db?password=secret";
        assert_eq!(path(url).to_string(), "postgres://redacted@host:5432/db");
        assert!(!format!("{:?}", path(url)).contains("secret"));
        for wrong in ["", "sqlite:", "mysql://me:secret@host/db"] {
            let error = wrong.parse::<Location>().unwrap_err().to_string();
            assert!(error.contains("examples") && !error.contains("secret"), "{error}");
        }
    }
}
