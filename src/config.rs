//! Settings: what was typed becomes what is run. The only reader of the environment.
//!
//! Every setting is a flag, an environment variable (`UNDERTONE_` and the flag's name) and a key of one
//! TOML file (the flag's name with underscores). A flag beats a variable, a variable beats the file,
//! the file beats the default. Defaults stand here once.

mod check;
mod exposure;
mod parts;
mod values;

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::policy::Severity;
use crate::secrets::Secrets;
use crate::wire::parse::Defaults;

pub use values::{ClientAuth, LogFormat, SecretText, Span, StoreUrl};

use values::{ms, secs};

/// The service's name where nobody says another one.
pub const SERVICE: &str = "undertone";

/// Declares every setting once: its type, default, environment variable, documentation, and what else clap
/// is told of its flag. The help shows no value of a variable: some are secrets.
macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $env:literal $(, $clap:tt)?; )+) => {
        /// Settings as typed or read: each may be missing.
        #[derive(Debug, Clone, Default, Args, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Typed {
            $( $(#[doc = $doc])+ #[arg(long, env = $env, hide_env_values = true, help_heading = "Settings")] $(#[arg $clap])? pub $name: Option<$type>, )+
            /// Folder of a further model; may be given several times. The first one becomes the default
            /// model.
            #[arg(long = "model", env = "UNDERTONE_MODELS", hide_env_values = true, value_delimiter = ',', help_heading = "Settings")]
            pub models: Vec<PathBuf>,
        }

        /// Settings in force.
        #[derive(Debug, Clone, Serialize)]
        pub struct Settings {
            $( $(#[doc = $doc])+ pub $name: $type, )+
            /// Folders of further models; the first one becomes the default model.
            pub models: Vec<PathBuf>,
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $( $name: $default, )+ models: Vec::new() }
            }
        }

        impl Typed {
            /// `self` where it says something, else `other`.
            #[must_use]
            fn or(self, other: Self) -> Self {
                let models = if self.models.is_empty() { other.models } else { self.models };
                Self { $( $name: self.$name.or(other.$name), )+ models }
            }

            fn resolve(self) -> Settings {
                let default = Settings::default();
                Settings { $( $name: self.$name.unwrap_or(default.$name), )+ models: self.models }
            }
        }
    };
}

settings! {
    /// Address of the gRPC port.
    grpc_address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 50051)), "UNDERTONE_GRPC_ADDRESS";
    /// Address of the HTTP port: /metrics, /healthz, /readyz, /sessions, /mcp, /console, calls as JSON, audio over WebSocket.
    http_address: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9464)), "UNDERTONE_HTTP_ADDRESS";
    /// PEM file with the server's certificate and those between it and its authority; with `tls_key` both ports
    /// speak TLS. Read again when it changes [default: no TLS]
    tls_certificate: PathBuf = PathBuf::new(), "UNDERTONE_TLS_CERTIFICATE";
    /// PEM file with the certificate's private key.
    tls_key: PathBuf = PathBuf::new(), "UNDERTONE_TLS_KEY";
    /// PEM file with the authorities whose client certificates are taken on the gRPC port [default: none]
    tls_client_ca: PathBuf = PathBuf::new(), "UNDERTONE_TLS_CLIENT_CA";
    /// Whether clients must present a certificate of `tls_client_ca`: auto (they must unless `identities` is set),
    /// optional or required.
    tls_client_auth: ClientAuth = ClientAuth::Auto, "UNDERTONE_TLS_CLIENT_AUTH";
    /// Time between two looks whether the files of TLS have changed.
    tls_reload: Span = secs(10), "UNDERTONE_TLS_RELOAD";
    /// Longest time that a TLS handshake may take.
    handshake_timeout: Span = secs(5), "UNDERTONE_HANDSHAKE_TIMEOUT";
    /// TLS handshakes under way at once at most, per port; further connections wait.
    max_handshakes: u32 = 512, "UNDERTONE_MAX_HANDSHAKES";
    /// Whether the HTTP port speaks TLS too where there is a certificate.
    http_tls: bool = true, "UNDERTONE_HTTP_TLS";
    /// YAML file that says who may call and what they may, such as a mounted secret. Read again when it changes
    /// [default: everybody may do everything]
    identities: PathBuf = PathBuf::new(), "UNDERTONE_IDENTITIES";
    /// Time between two looks whether the file of identities, or a file of keys that it names, has changed.
    identities_reload: Span = secs(10), "UNDERTONE_IDENTITIES_RELOAD";
    /// Age at which the keys of a token issuer are fetched again.
    jwks_refresh: Span = secs(300), "UNDERTONE_JWKS_REFRESH";
    /// Least time between two attempts to fetch an issuer's keys, as when a token names an unknown one.
    jwks_retry: Span = secs(10), "UNDERTONE_JWKS_RETRY";
    /// Longest time that fetching an issuer's keys may take; the opening of a call may wait for it.
    jwks_timeout: Span = secs(5), "UNDERTONE_JWKS_TIMEOUT";
    /// Origins of web pages that may call over WebSocket, gRPC-Web, JSON and MCP besides the server's own, with commas between
    /// them, such as `https://app.example`; `*` for all [default: none]
    allowed_origins: String = String::new(), "UNDERTONE_ALLOWED_ORIGINS";
    /// How telephone systems call the HTTP port, such as `https://emotion.example`, where that is not what their
    /// requests say: their signatures are over it [default: the header Host]
    public_url: String = String::new(), "UNDERTONE_PUBLIC_URL";
    /// Connections of the HTTP port open at once at most: scrapers, probes, audio over WebSocket.
    max_http_connections: u32 = 1024, "UNDERTONE_MAX_HTTP_CONNECTIONS";
    /// Whether ports may be reached from other machines without TLS, or by everybody.
    insecure: bool = false, "UNDERTONE_INSECURE", (num_args = 0..=1, require_equals = true, default_missing_value = "true");
    /// Path of ONNX Runtime's shared library, if it is not where `make setup` puts it [default: found]
    ort_dylib_path: PathBuf = PathBuf::new(), "ORT_DYLIB_PATH";
    /// Streams open at once at most; further ones are refused with `RESOURCE_EXHAUSTED`.
    max_streams: u32 = 4096, "UNDERTONE_MAX_STREAMS";
    /// Streams that one identity may have open at once, where it has no quota of its own; 0 for no limit.
    quota_streams: u32 = 0, "UNDERTONE_QUOTA_STREAMS";
    /// Audio that one identity may have analysed in a minute, over all its streams and clips, where it has no
    /// quota of its own; 0s for no limit. A minute's worth may come at once, more comes evenly.
    quota_audio_per_minute: Span = secs(0), "UNDERTONE_QUOTA_AUDIO_PER_MINUTE";
    /// Share of their time that workers and engines may be busy, new streams reckoned in, before further
    /// ones are refused; 0 for no limit.
    max_load: f32 = 0.85, "UNDERTONE_MAX_LOAD";
    /// Longest wait for an engine before further streams are refused; 0s for no limit.
    max_engine_lag: Span = ms(150), "UNDERTONE_MAX_ENGINE_LAG";
    /// Longest delay of the service's own threads before further streams are refused; 0s for no limit.
    max_worker_delay: Span = ms(150), "UNDERTONE_MAX_WORKER_DELAY";
    /// Resident memory above which further streams are refused, in bytes; 0 for nine tenths of what the
    /// control group or the machine has.
    max_memory: u64 = 0, "UNDERTONE_MAX_MEMORY";
    /// Connections of the gRPC port open at once at most; further ones are closed.
    max_connections: u32 = 8192, "UNDERTONE_MAX_CONNECTIONS";
    /// Those of one address; 0 for no limit. Behind a proxy all have its address.
    max_connections_per_address: u32 = 0, "UNDERTONE_MAX_CONNECTIONS_PER_ADDRESS";
    /// Calls and streams open at once on one connection; the client's library keeps further ones waiting.
    max_streams_per_connection: u32 = 256, "UNDERTONE_MAX_STREAMS_PER_CONNECTION";
    /// Largest headers of a call, in bytes, 32 more counted for each of them.
    max_header_bytes: u32 = 16 << 10, "UNDERTONE_MAX_HEADER_BYTES";
    /// Streams that a connection may have cancelled before they were looked at; more than that close it.
    max_pending_resets: u32 = 20, "UNDERTONE_MAX_PENDING_RESETS";
    /// Longest time until a new connection begins to speak HTTP.
    preface_timeout: Span = secs(10), "UNDERTONE_PREFACE_TIMEOUT";
    /// Bytes that all streams of a connection together may have sent and the service not looked at yet. A hundred
    /// streams of 16 kHz send 320 KiB a second.
    connection_window: u32 = 1 << 20, "UNDERTONE_CONNECTION_WINDOW";
    /// Longest time until a request's head has come on the HTTP port, and until the next one follows.
    http_head_timeout: Span = secs(30), "UNDERTONE_HTTP_HEAD_TIMEOUT";
    /// Time between two pings on a connection.
    keepalive_interval: Span = secs(30), "UNDERTONE_KEEPALIVE_INTERVAL";
    /// Longest time until the client answers one.
    keepalive_timeout: Span = secs(20), "UNDERTONE_KEEPALIVE_TIMEOUT";
    /// Age at which a connection takes no new streams, a tenth more or less, the same for all of one start; 0s
    /// for none. Streams that are open on it go on.
    max_connection_age: Span = secs(0), "UNDERTONE_MAX_CONNECTION_AGE";
    /// Longest time for a call that carries a clip, its request included.
    call_timeout: Span = secs(300), "UNDERTONE_CALL_TIMEOUT";
    /// Longest time for any other call that is no stream, its request included.
    request_timeout: Span = secs(30), "UNDERTONE_REQUEST_TIMEOUT";
    /// Longest time until a new stream sends its configuration.
    config_timeout: Span = secs(10), "UNDERTONE_CONFIG_TIMEOUT";
    /// Largest audio chunk, in bytes.
    max_chunk_bytes: u32 = 1 << 20, "UNDERTONE_MAX_CHUNK_BYTES";
    /// Largest `AnalyzeAudio` request, in bytes.
    max_clip_bytes: u32 = 32 << 20, "UNDERTONE_MAX_CLIP_BYTES";
    /// Longest clip that `AnalyzeAudio` takes, by its audio.
    max_clip_length: Span = secs(3600), "UNDERTONE_MAX_CLIP_LENGTH";
    /// Clips that `AnalyzeAudio` works on at once; further ones wait.
    max_clips: u32 = 2, "UNDERTONE_MAX_CLIPS";
    /// Clips that may wait for that, or be on their way; further ones are refused.
    max_clips_waiting: u32 = 16, "UNDERTONE_MAX_CLIPS_WAITING";
    /// Share of the places for clips, and of those for watches, that one tenant may take; in the tenant `default`
    /// one identity. One place at least; 1 for all.
    max_share: f32 = 0.5, "UNDERTONE_MAX_SHARE";
    /// Longest stream, by its audio.
    max_stream_length: Span = secs(4 * 3600), "UNDERTONE_MAX_STREAM_LENGTH";
    /// Longest time without a message from the client.
    idle_timeout: Span = secs(60), "UNDERTONE_IDLE_TIMEOUT";
    /// Longest time that a client may leave unread what it is sent.
    send_timeout: Span = secs(30), "UNDERTONE_SEND_TIMEOUT";
    /// How many times faster than real time audio may come after the first burst; 0 for no limit.
    max_realtime_factor: f32 = 20.0, "UNDERTONE_MAX_REALTIME_FACTOR";
    /// Audio that a stream may send at any speed.
    realtime_burst: Span = secs(300), "UNDERTONE_REALTIME_BURST";
    /// Silence after which a `NO_SPEECH` warning is sent, and again after each further such stretch.
    no_speech_warning: Span = secs(30), "UNDERTONE_NO_SPEECH_WARNING";
    /// Longest time from SIGTERM until streams, watches and deliveries are cut off. The process ends within two
    /// seconds and the flush of telemetry (`otlp_timeout`, 5s for metrics) after that.
    drain_deadline: Span = secs(10), "UNDERTONE_DRAIN_DEADLINE";
    /// How long a stream with checkpoints can be gone on with, and its session counts as alive, after it
    /// has broken off; 0s: streams have no checkpoints.
    resume_window: Span = secs(120), "UNDERTONE_RESUME_WINDOW";
    /// File with the keys that seal resume tokens, one per line; the same for all replicas. `undertone resume-key`
    /// makes one [default: a key of this process's own]
    resume_keys: PathBuf = PathBuf::new(), "UNDERTONE_RESUME_KEYS";
    /// Shortest audio between two checkpoints of a stream.
    min_checkpoint_interval: Span = secs(1), "UNDERTONE_MIN_CHECKPOINT_INTERVAL";
    /// Largest resume token, in bytes.
    max_resume_token_bytes: u32 = 1 << 20, "UNDERTONE_MAX_RESUME_TOKEN_BYTES";
    /// How much of what a live session has heard is kept in memory, by its audio, for those who may look at it; 0s:
    /// the newest estimate alone. Five minutes take 25 to 40 KiB a stream.
    session_history: Span = secs(300), "UNDERTONE_SESSION_HISTORY";
    /// How long a session that has ended can still be looked at, in memory alone; 0s: not at all.
    ended_sessions: Span = secs(900), "UNDERTONE_ENDED_SESSIONS";
    /// Sessions that have ended and can be looked at, at most; of more the last to end stay.
    max_ended_sessions: u32 = 256, "UNDERTONE_MAX_ENDED_SESSIONS";
    /// Rows in one engine run at most.
    engine_max_batch: u32 = 128, "UNDERTONE_ENGINE_MAX_BATCH";
    /// How long the first request of a batch waits for others at most. An engine that is busy for a quarter of its
    /// time waits so long, one that has little to do hardly at all. Shorter answers sooner, longer batches more.
    engine_max_wait: Span = ms(20), "UNDERTONE_ENGINE_MAX_WAIT";
    /// Requests that may wait for the engine before sessions are held up.
    engine_queue: u32 = 1024, "UNDERTONE_ENGINE_QUEUE";
    /// Threads of ONNX Runtime within one run.
    engine_threads: u32 = 1, "UNDERTONE_ENGINE_THREADS";
    /// Worker threads of the service; 0 for one per core but one, which is the engine's.
    worker_threads: u32 = 0, "UNDERTONE_WORKER_THREADS";
    /// Time between two estimates for a session that does not say.
    estimate_interval: Span = ms(500), "UNDERTONE_ESTIMATE_INTERVAL";
    /// Probability of voice that begins an utterance.
    voice_on: f32 = Defaults::default().voice_on, "UNDERTONE_VOICE_ON";
    /// Probability of voice under which silence is counted.
    voice_off: f32 = Defaults::default().voice_off, "UNDERTONE_VOICE_OFF";
    /// Voice before an utterance begins.
    voice_min_speech: Span = ms(96), "UNDERTONE_VOICE_MIN_SPEECH";
    /// Silence before an utterance ends.
    voice_hang_over: Span = ms(600), "UNDERTONE_VOICE_HANG_OVER";
    /// Audio before an utterance's onset that the model hears too.
    voice_lead_in: Span = ms(480), "UNDERTONE_VOICE_LEAD_IN";
    /// Speech in an utterance before an estimate stops abstaining.
    min_speech: Span = ms(500), "UNDERTONE_MIN_SPEECH";
    /// Confidence under which an estimate abstains.
    min_confidence: f32 = Defaults::default().min_confidence, "UNDERTONE_MIN_CONFIDENCE";
    /// What is left of the previous utterance's weight after each step (256 ms) of a new one.
    carry: f32 = Defaults::default().carry, "UNDERTONE_CARRY";
    /// Where escalations are kept: `sqlite:FILE`, or `postgres://...` where several replicas share it. Empty:
    /// nowhere, and streams cannot have policies.
    escalation_store: StoreUrl = StoreUrl("sqlite:undertone.db".to_owned()), "UNDERTONE_ESCALATION_STORE";
    /// File that holds the value of `escalation_store`, such as a mounted secret; goes before it.
    escalation_store_file: PathBuf = PathBuf::new(), "UNDERTONE_ESCALATION_STORE_FILE";
    /// Longest time that the store may take for one transaction before it counts as down.
    store_timeout: Span = secs(2), "UNDERTONE_STORE_TIMEOUT";
    /// Escalations that wait in memory at most while the store is down.
    escalation_backlog: u32 = 10_000, "UNDERTONE_ESCALATION_BACKLOG";
    /// How long after the last thing that happened to it an escalation is kept; 0s for ever.
    escalation_retention: Span = secs(90 * 86_400), "UNDERTONE_ESCALATION_RETENTION";
    /// Name of this replica in the leases of deliveries; empty: one is made, another one at every start unless
    /// the store is SQLite's. The same name after a restart takes up at once what was under way.
    replica: String = String::new(), "UNDERTONE_REPLICA";
    /// Watches (`WatchEscalations`) open at once at most.
    max_watchers: u32 = 256, "UNDERTONE_MAX_WATCHERS";
    /// Time between two heartbeats of a watch to which nothing happens.
    watch_heartbeat: Span = secs(15), "UNDERTONE_WATCH_HEARTBEAT";
    /// Time between two looks for what other replicas have recorded.
    watch_poll: Span = secs(1), "UNDERTONE_WATCH_POLL";
    /// Folder of policies (*.yaml) besides those built in [default: none]
    policies: PathBuf = PathBuf::new(), "UNDERTONE_POLICIES";
    /// Time between two looks whether the folder of policies has changed.
    policy_reload: Span = secs(2), "UNDERTONE_POLICY_RELOAD";
    /// Policy of streams that name none [default: none]
    default_policy: String = String::new(), "UNDERTONE_DEFAULT_POLICY";
    /// Whether clients may bring policies of their own: with a stream, to be checked, or to be tried on a clip.
    inline_policies: bool = true, "UNDERTONE_INLINE_POLICIES";
    /// Highest severity that rules of such a policy may have.
    inline_policy_severity: Severity = Severity::High, "UNDERTONE_INLINE_POLICY_SEVERITY";
    /// File that says where escalations are delivered [default: nowhere]
    delivery: PathBuf = PathBuf::new(), "UNDERTONE_DELIVERY";
    /// How long a delivery is this replica's before another one may attempt it; longer than any sink's
    /// time-out.
    delivery_lease: Span = secs(60), "UNDERTONE_DELIVERY_LEASE";
    /// Time between two looks for deliveries that are due again.
    delivery_poll: Span = ms(250), "UNDERTONE_DELIVERY_POLL";
    /// Whether the server answers gRPC reflection.
    reflection: bool = true, "UNDERTONE_REFLECTION";
    /// Whether the HTTP port answers the Model Context Protocol at /mcp: the tools of language models.
    mcp: bool = true, "UNDERTONE_MCP";
    /// Whether the HTTP port serves the console at /console/: pages for people. They show what the one who looks may see.
    console: bool = true, "UNDERTONE_CONSOLE";
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,undertone=debug`.
    log: String = "info".to_owned(), "UNDERTONE_LOG";
    /// How logs look: text or json.
    log_format: LogFormat = LogFormat::Text, "UNDERTONE_LOG_FORMAT";
    /// OTLP endpoint (gRPC) for traces, metrics and logs, such as <http://localhost:4317> [default: none]
    otlp_endpoint: String = String::new(), "UNDERTONE_OTLP_ENDPOINT";
    /// Headers of every request to it: `name=value,name=value`. Never shown.
    otlp_headers: SecretText = SecretText::default(), "UNDERTONE_OTLP_HEADERS";
    /// File that holds the value of `otlp_headers`, such as a mounted secret; goes before it.
    otlp_headers_file: PathBuf = PathBuf::new(), "UNDERTONE_OTLP_HEADERS_FILE";
    /// PEM file with the certificates that an https endpoint is trusted by, besides the system's [default: none]
    otlp_ca: PathBuf = PathBuf::new(), "UNDERTONE_OTLP_CA";
    /// Longest time that one request to it may take, and the last ones at the end of the process.
    otlp_timeout: Span = secs(5), "UNDERTONE_OTLP_TIMEOUT";
    /// Share of the calls that are traced, of those whose caller does not say; 0 to 1.
    trace_ratio: f64 = 1.0, "UNDERTONE_TRACE_RATIO";
    /// Time between two chunks of a traced stream whose stages are spans.
    trace_stage_interval: Span = secs(10), "UNDERTONE_TRACE_STAGE_INTERVAL";
    /// Name of the service in traces, metrics and logs.
    service_name: String = SERVICE.to_owned(), "OTEL_SERVICE_NAME";
    /// Further attributes of the service there: `name=value,name=value` [default: none]
    resource_attributes: String = String::new(), "OTEL_RESOURCE_ATTRIBUTES";
    /// Time between two counts of what is in force and what is still to be delivered in the store.
    census_interval: Span = secs(15), "UNDERTONE_CENSUS_INTERVAL";
}

/// Largest file with a secret or certificates, in bytes: a whole bundle of root certificates fits.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// Secrets from the process's environment and from files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Environment;

impl Secrets for Environment {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_SECRET_BYTES {
            return Err(io::Error::other(format!("it has more than {MAX_SECRET_BYTES} bytes")));
        }
        Ok(text)
    }
}

impl Environment {
    /// What the environment says of object storage, under the names that the clouds' own tools use: `AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`. Values that are no UTF-8 are left out.
    pub fn object_storage(self) -> Vec<(String, String)> {
        let clouds = ["AWS_", "GOOGLE_", "AZURE_"];
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| clouds.iter().any(|cloud| name.starts_with(cloud)))
            .collect()
    }
}

/// Where settings come from on the command line.
#[derive(Debug, Clone, Default, Args)]
pub struct Source {
    /// TOML file with settings; keys are the flags' names with underscores.
    #[arg(long, env = "UNDERTONE_CONFIG", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub typed: Typed,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is no such TOML. Its text is not repeated: it may hold secrets.
    #[error("{path}: line {line}, column {column}: {}{problem}", of_key(.key))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1, in characters.
        column: usize,
        /// The setting on that line; empty if none is.
        key: String,
        /// Why.
        problem: String,
    },
    /// A value that cannot be used.
    #[error("{key}: {problem}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What would be right.
        problem: String,
    },
}

impl Source {
    /// Reads the file, if any, and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`] with the setting's name.
    pub fn resolve(&self) -> Result<Settings, ConfigError> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let settings = self.typed.clone().or(file).resolve();
        settings.check()?;
        Ok(settings)
    }
}

fn read_file(path: &Path) -> Result<Typed, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let fits = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let key = line.split_once('=').map(|(key, _)| key.trim()).filter(|key| fits(key));
        ConfigError::Syntax {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
            key: key.unwrap_or_default().to_owned(),
            problem: error.message().trim_end().to_owned(),
        }
    })
}

fn of_key(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("undertone.toml");
        std::fs::write(&path, text).unwrap();
        Source { config: Some(path), typed: Typed::default() }.resolve()
    }

    #[test]
    fn defaults_are_valid_and_agree_with_the_protocols() {
        let settings = Source::default().resolve().unwrap();
        assert_eq!(settings.defaults(), Defaults::default());
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("undertone.toml");
        std::fs::write(&path, "max_streams = 7\nidle_timeout = \"5s\"\n").unwrap();
        let typed = Typed { max_streams: Some(9), ..Typed::default() };
        let settings = Source { config: Some(path), typed }.resolve().unwrap();
        assert_eq!(settings.max_streams, 9);
        assert_eq!(settings.idle_timeout, secs(5));
        assert_eq!(settings.max_chunk_bytes, 1 << 20);
    }

    #[test]
    fn bad_settings_name_their_key() {
        for (text, key) in [
            ("max_streams = 0", "max_streams"),
            ("voice_off = 0.9", "voice_off"),
            ("idle_timeout = \"1 parsec\"", "idle_timeout"),
            ("estimate_interval = \"50ms\"", "estimate_interval"),
            ("max_realtime_factor = 0.5", "max_realtime_factor"),
            ("no_such_key = 1", "no_such_key"),
            ("trace_ratio = 1.5", "trace_ratio"),
            ("trace_stage_interval = \"0s\"", "trace_stage_interval"),
            ("otlp_endpoint = \"localhost:4317\"", "otlp_endpoint"),
            ("otlp_endpoint = \"http://a b\"", "otlp_endpoint"),
            ("otlp_endpoint = \"http://\"", "otlp_endpoint"),
            ("otlp_endpoint = \"http://me@collector:4317\"", "otlp_endpoint"),
            ("otlp_endpoint = \"ftp://collector\"", "otlp_endpoint"),
            ("max_share = 0.0", "max_share"),
            ("request_timeout = \"0s\"", "request_timeout"),
            ("otlp_ca = \"ca.pem\"", "otlp_ca"),
            ("resource_attributes = \"a=b,c\"", "resource_attributes"),
            ("max_streams = \"many\"", "max_streams"),
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn a_file_with_a_fault_is_told_by_its_place_and_not_by_its_text() {
        for (text, place) in [
            (
                "log = \"info\"\notlp_headers = \"authorization=planted",
                "line 2, column 38: otlp_headers: ",
            ),
            ("otlp_header = \"authorization=Bearer planted\"", "line 1, column 1: otlp_header"),
            ("escalation_store = postgres://u:planted@db/x", "line 1, column 20"),
            ("\nmax_streams = \"many\" # planted", "line 2, column 15: max_streams: "),
        ] {
            let error = file(text).unwrap_err().to_string();
            assert!(error.contains(place) && !error.contains("planted"), "{error}");
        }
        let userinfo = file("otlp_endpoint = \"http://me:planted@collector:4317\"");
        let error = userinfo.unwrap_err().to_string();
        assert!(error.contains("otlp_headers") && !error.contains("planted"), "{error}");
    }
}
