//! NATS JetStream: the webhook's body as a message, published with the occurrence's id.
//!
//! `Nats-Msg-Id` is the occurrence's id, so a stream keeps one of several attempts that fall into its
//! duplicate window. A message counts as delivered when a stream has acknowledged it. The connection is
//! made at the first attempt, kept, and made anew by the client when it breaks; while it is broken,
//! attempts fail at once. Addresses are the operator's own and mostly private, so the guard of the HTTP
//! sinks does not look at them.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, Context, stream};
use async_nats::{ConnectOptions, ServerAddr};
use tokio::sync::OnceCell;

use super::file::NatsEntry;
use super::http::{ATTEMPT, TRACE_PARENT, with_causes};
use super::parse::within;
use super::payload;
use super::secret::Secret;
use super::settings::Common;
use super::subject::Subject;
use super::verdict::Verdict;
use crate::escalation::life::Occurrence;
use crate::telemetry::trace::TraceParent;
use crate::yaml::Fault;

/// Most servers of a sink.
const MAX_SERVERS: usize = 16;
const MINUTE: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// How the client says who it is.
#[derive(Debug)]
enum Login {
    None,
    Credentials(Secret),
    Token(Secret),
    Password(String, Secret),
}

#[derive(Debug)]
pub(super) struct Nats {
    servers: Vec<ServerAddr>,
    subject: Subject,
    login: Login,
    tls: bool,
    ca: Option<PathBuf>,
    discover: bool,
    stream: Option<String>,
    create: Option<stream::Config>,
    timeout: Duration,
    connect_timeout: Duration,
    connection: OnceCell<Context>,
}

impl Nats {
    pub(super) fn new(entry: &NatsEntry, common: &Common<'_>) -> Result<Self, Fault> {
        let subject = Subject::new(&entry.subject).map_err(|error| {
            let remedy = "write one such as undertone.escalations.{severity}.{policy}";
            Fault::new(format!("{}.subject", common.field), error, remedy)
        })?;
        Ok(Self {
            servers: servers(entry, common)?,
            login: login(entry, common)?,
            tls: entry.tls,
            ca: entry.ca.clone(),
            discover: entry.discover,
            create: stream_to_create(entry, &subject, common)?,
            stream: entry.stream.clone(),
            subject,
            timeout: common.timeout,
            connect_timeout: common.connect_timeout,
            connection: OnceCell::new(),
        })
    }

    /// The subject of an occurrence.
    pub(super) fn subject(&self, occurrence: &Occurrence) -> String {
        self.subject.of(occurrence)
    }

    /// The servers, for people.
    pub(super) fn shown(&self) -> String {
        let servers: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("{}://{}:{}", server.scheme(), server.host(), server.port()))
            .collect();
        servers.join(", ")
    }

    /// Makes one attempt.
    ///
    /// # Cancellation
    /// Dropping it leaves the connection; the stream may have taken the message.
    pub(super) async fn deliver(
        &self,
        occurrence: &Occurrence,
        text: &str,
        attempt: u32,
    ) -> Verdict {
        let body = match payload::envelope(occurrence, text) {
            Ok(body) => body,
            Err(error) => return payload::unwritable(error),
        };
        // Whoever comes first connects, others wait for it; a failure lets the next one try.
        let context = match self.connection.get_or_try_init(|| self.connect()).await {
            Ok(context) => context,
            Err(problem) => return Verdict::retry(problem),
        };
        match context.client().connection_state() {
            State::Connected => {}
            State::Pending | State::Disconnected => {
                return Verdict::retry("not connected to any of the servers");
            }
        }
        let mut verdict = self.publish(context, occurrence, &body, attempt).await;
        if let (Err((PublishErrorKind::StreamNotFound, _)), Some(config)) = (&verdict, &self.create)
        {
            if let Err(error) = context.get_or_create_stream(config.clone()).await {
                return Verdict::retry(format!(
                    "the stream cannot be made: {}",
                    with_causes(&error)
                ));
            }
            verdict = self.publish(context, occurrence, &body, attempt).await;
        }
        match verdict {
            Ok(ack) => Verdict::Delivered {
                detail: format!(
                    "stream {}, sequence {}{}",
                    ack.stream,
                    ack.sequence,
                    if ack.duplicate { ", there already" } else { "" }
                ),
            },
            Err((PublishErrorKind::MaxPayloadExceeded, problem)) => Verdict::Dead { problem },
            Err((PublishErrorKind::StreamNotFound, _)) => Verdict::retry(format!(
                "no stream takes the subject {}; make one, or set stream and create_stream: true",
                self.subject(occurrence)
            )),
            Err((_, problem)) => Verdict::retry(problem),
        }
    }

    async fn publish(
        &self,
        context: &Context,
        occurrence: &Occurrence,
        body: &[u8],
        attempt: u32,
    ) -> Result<PublishAck, (PublishErrorKind, String)> {
        let mut message = PublishMessage::build()
            .payload(body.to_vec().into())
            .message_id(occurrence.id.to_string())
            .header("content-type", "application/json")
            .header(ATTEMPT, attempt.to_string());
        if let Some(parent) = TraceParent::current() {
            message = message.header(TRACE_PARENT, parent.to_string());
        }
        if let Some(stream) = &self.stream {
            message = message.expected_stream(stream);
        }
        let failed = |error: jetstream::context::PublishError| (error.kind(), with_causes(&error));
        let sent = context.send_publish(self.subject(occurrence), message).await;
        sent.map_err(failed)?.await.map_err(failed)
    }

    async fn connect(&self) -> Result<Context, String> {
        // As for the HTTP sinks: every client takes it from there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = ConnectOptions::new()
            .name("undertone")
            .connection_timeout(self.connect_timeout)
            .request_timeout(Some(self.timeout))
            .require_tls(self.tls);
        options = match &self.login {
            Login::None => options,
            // The error's text would quote what it could not read.
            Login::Credentials(text) => options
                .credentials(&whole_lines(text))
                .map_err(|_| "the credentials cannot be read".to_owned())?,
            Login::Token(token) => options.token(token.reveal().to_owned()),
            Login::Password(user, password) => {
                options.user_and_password(user.clone(), password.reveal().to_owned())
            }
        };
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if !self.discover {
            options = options.ignore_discovered_servers();
        }
        let client = options.connect(&self.servers).await.map_err(|error| with_causes(&error))?;
        let mut context = jetstream::new(client);
        context.set_timeout(self.timeout);
        Ok(context)
    }
}

fn servers(entry: &NatsEntry, common: &Common<'_>) -> Result<Vec<ServerAddr>, Fault> {
    let count = entry.servers.len();
    if !(1..=MAX_SERVERS).contains(&count) {
        let problem = format!("{count} servers; 1 to {MAX_SERVERS} are needed");
        let remedy = "write one such as nats://nats:4222";
        return Err(Fault::new(format!("{}.servers", common.field), problem, remedy));
    }
    let mut servers = Vec::with_capacity(count);
    for (index, text) in entry.servers.iter().enumerate() {
        let field = format!("{}.servers[{index}]", common.field);
        // The address is not repeated in errors: it may hold a password.
        let server: ServerAddr = text.parse().map_err(|_| {
            Fault::new(
                &field,
                "this is no address of a server",
                "write one such as nats://nats:4222",
            )
        })?;
        if server.username().is_some() || server.password().is_some() {
            let remedy = "use credentials, token, or user and password";
            return Err(Fault::new(field, "it holds a user or a password", remedy));
        }
        servers.push(server);
    }
    Ok(servers)
}

/// A `.creds` file with its last line's end, which goes with blanks around a secret and without which the last key is
/// not found.
fn whole_lines(text: &Secret) -> String {
    format!("{}\n", text.reveal())
}

fn login(entry: &NatsEntry, common: &Common<'_>) -> Result<Login, Fault> {
    let ways = [
        entry.credentials.is_some(),
        entry.token.is_some(),
        entry.user.is_some() || entry.password.is_some(),
    ];
    if ways.into_iter().filter(|given| *given).count() > 1 {
        let problem = "there are several of credentials, token, and user with password";
        return Err(Fault::new(&common.field, problem, "leave one"));
    }
    if let Some(named) = &entry.credentials {
        let secret = common.secret("credentials", named)?;
        if ConnectOptions::new().credentials(&whole_lines(&secret)).is_err() {
            let field = format!("{}.credentials", common.field);
            let remedy = "give the whole text of a .creds file";
            return Err(Fault::new(field, "these are no NATS credentials", remedy));
        }
        return Ok(Login::Credentials(secret));
    }
    if let Some(named) = &entry.token {
        return Ok(Login::Token(common.secret("token", named)?));
    }
    match (&entry.user, &entry.password) {
        (None, None) => Ok(Login::None),
        (Some(user), Some(named)) => {
            Ok(Login::Password(user.clone(), common.secret("password", named)?))
        }
        _ => Err(Fault::new(&common.field, "user and password go together", "give both")),
    }
}

fn stream_to_create(
    entry: &NatsEntry,
    subject: &Subject,
    common: &Common<'_>,
) -> Result<Option<stream::Config>, Fault> {
    if let Some(name) = &entry.stream {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(allowed) {
            let field = format!("{}.stream", common.field);
            let remedy = "use letters, digits, hyphens and underscores";
            return Err(Fault::new(field, "this is no name of a stream", remedy));
        }
    }
    if !entry.create_stream {
        return Ok(None);
    }
    let field = format!("{}.create_stream", common.field);
    let Some(name) = entry.stream.clone() else {
        return Err(Fault::new(field, "the stream has no name", "set stream"));
    };
    let Some(wildcard) = subject.wildcard() else {
        let problem = "the subject begins with a placeholder, so the stream would take everything";
        return Err(Fault::new(field, problem, "begin the subject with a word"));
    };
    let field = format!("{}.duplicate_window", common.field);
    let duplicate_window = within(&field, entry.duplicate_window, MINUTE, WEEK)?;
    Ok(Some(stream::Config {
        name,
        subjects: vec![wildcard],
        duplicate_window,
        storage: stream::StorageType::File,
        ..stream::Config::default()
    }))
}
