//! The client side that `stream`, `bench`, `health` and `mcp` share: a connection, a stream on it, and what a server
//! answers when it refuses, in words.

mod credentials;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio_stream::Stream;
use tonic::metadata::{Ascii, MetadataValue};
pub(super) use tonic::transport::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request as Call, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

pub(super) use self::credentials::{CredentialArgs, Credentials};
use crate::wire::v1::emotion_service_client::EmotionServiceClient;
use crate::wire::v1::stream_emotion_request::Message as Request;
pub(super) use crate::wire::v1::stream_emotion_response::Message as Response;
use crate::wire::{code_name, v1};

/// Where `undertone serve` listens unless told otherwise.
pub(super) const DEFAULT_TARGET: &str = "http://127.0.0.1:50051";
/// The port of a target that names none.
const DEFAULT_PORT: u16 = 50051;
/// Longest wait for a connection: a server on the same continent answers in a tenth of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two pings on a connection, and the longest wait for an answer to one. A machine that dies or a
/// network that changes says nothing: TCP alone would notice after a quarter of an hour, when no resume token is
/// good any more.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a server, or the way to it, answered instead of doing what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) struct Failure {
    /// The gRPC code as the specification writes it, such as `INVALID_ARGUMENT`.
    code: &'static str,
    /// What happened.
    message: String,
    /// Fields that cannot be used, each with what is wrong about it.
    fields: Vec<(String, String)>,
    /// The stable reason, such as `SERVER_FULL`.
    reason: Option<String>,
    /// What to do now.
    remedy: Option<String>,
    /// Milliseconds to wait at least before another attempt.
    retry_ms: u64,
}

impl Failure {
    /// A failure of the way to the server.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: "UNAVAILABLE",
            message: message.into(),
            fields: Vec::new(),
            reason: None,
            remedy: None,
            retry_ms: 0,
        }
    }

    /// A server's refusal.
    #[cfg(test)]
    pub(super) fn refused(code: &'static str, reason: &str) -> Self {
        Self { code, reason: Some(reason.to_owned()), ..Self::unavailable("no") }
    }

    fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Whether another attempt of a stream that had begun, here or elsewhere, may go better.
    pub(super) fn may_pass(&self) -> bool {
        ["UNAVAILABLE", "UNKNOWN", "CANCELLED", "INTERNAL", "RESOURCE_EXHAUSTED"]
            .contains(&self.code)
            // Its server has not noticed yet that it broke off.
            || self.is_reason("SESSION_ID_TAKEN")
            // Another token may lie in the file soon.
            || self.is_reason("TOKEN_EXPIRED")
    }

    /// Whether a stream cannot be gone on with from its token, now or ever.
    pub(super) fn refuses_token(&self) -> bool {
        self.reason.as_deref().is_some_and(|reason| reason.starts_with("RESUME_"))
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        Duration::from_millis(self.retry_ms)
    }

    /// Whether it is for this reason.
    pub(super) fn is_reason(&self, reason: &str) -> bool {
        self.reason.as_deref() == Some(reason)
    }

    /// Code and reason, the same for all failures of one kind: what failures are counted by.
    pub(super) fn kind(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.code),
            None => format!("{}: {}", self.code, self.message),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        for (field, problem) in &self.fields {
            write!(f, "\n  field   {field}: {problem}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "\n  reason  {reason}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  remedy  {remedy}")?;
        }
        Ok(())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let fields = details
            .bad_request()
            .map(|bad| {
                bad.field_violations.iter().map(|v| (v.field.clone(), v.description.clone()))
            })
            .into_iter()
            .flatten()
            .collect();
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        // What a server says has no cause on this side.
        let broke = std::error::Error::source(&status).is_some();
        let remedy = match (retry, status.code()) {
            (Some(Duration::ZERO), _) => Some("try again at once, elsewhere if you can".to_owned()),
            (Some(delay), _) => {
                let delay = humantime::format_duration(whole_ms(delay));
                Some(format!("try again in {delay}"))
            }
            (None, Code::Unauthenticated) => Some(
                "say who calls: --token-file, UNDERTONE_TOKEN or --client-certificate".to_owned(),
            ),
            (None, Code::Unknown) if broke => {
                Some("the connection broke; if the server speaks TLS, write https://".to_owned())
            }
            (None, Code::Unimplemented) => {
                Some("this is no Undertone server, or one of another version".to_owned())
            }
            _ => None,
        };
        Self {
            code: code_name(status.code()),
            message: status.message().to_owned(),
            fields,
            reason: details.error_info().map(|info| info.reason.clone()),
            remedy,
            retry_ms: retry.map_or(0, |retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

fn whole_ms(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// An address as people type it: `localhost`, `localhost:50051`, `https://emotion.example:50051`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_target(text: &str) -> Result<Uri, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = with_scheme.parse().map_err(|error: <Uri as FromStr>::Err| {
        format!("{error}; examples: localhost:50051, https://10.0.0.7:50051")
    })?;
    let Some(scheme @ ("http" | "https")) = uri.scheme_str() else {
        return Err("only http:// and https:// are spoken".to_owned());
    };
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return Err("names no host; example: localhost:50051".to_owned());
    }
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    format!("{scheme}://{host}:{port}")
        .parse()
        .map_err(|error: <Uri as FromStr>::Err| error.to_string())
}

/// What lies at the bottom of an error: `Connection refused` rather than `transport error`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

fn remedy(target: &Uri, cause: &str) -> &'static str {
    // What rustls says.
    if cause.contains("UnknownIssuer") {
        "name the authority of its certificate with --ca"
    } else if cause.contains("CaUsedAsEndEntity") {
        "the server needs a certificate that is no authority's own (basicConstraints=CA:FALSE)"
    } else if cause.contains("certificate required") || cause.contains("CertificateRequired") {
        "the server wants to know who calls: --client-certificate and --client-key"
    } else if cause.contains("not valid for name") {
        "say with --server-name what its certificate bears, or call it by that"
    } else if target.scheme_str() == Some("https") {
        "is a server running there, and does it speak TLS?"
    } else {
        "is a server running there, without TLS? `undertone serve` starts one; with TLS it is https://"
    }
}

fn no_way(target: &Uri, error: &tonic::transport::Error) -> Failure {
    let cause = root_cause(error);
    let remedy = remedy(target, &cause);
    Failure::unavailable(format!("cannot connect to {target}: {cause}")).with_remedy(remedy)
}

fn endpoint(target: &Uri, credentials: &Credentials) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::from(target.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        // Small messages both ways all the time: waiting to fill packets only adds latency.
        .tcp_nodelay(true);
    match credentials.tls() {
        Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| no_way(target, &error)),
        None => Ok(endpoint),
    }
}

/// One HTTP/2 connection. A clone shares it.
#[derive(Debug, Clone)]
pub(super) struct Client {
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`Failure`] if there is nobody.
    pub(super) async fn connect(target: &Uri, credentials: &Credentials) -> Result<Self, Failure> {
        let endpoint = endpoint(target, credentials)?;
        let channel = endpoint.connect().await.map_err(|error| no_way(target, &error))?;
        Ok(Self { channel, authorization: credentials.authorization().cloned() })
    }

    /// A connection that is made by the first call, and again by the next one after it broke.
    ///
    /// # Errors
    /// [`Failure`] if the credentials cannot be used.
    pub(super) fn lazily(target: &Uri, credentials: &Credentials) -> Result<Channel, Failure> {
        Ok(endpoint(target, credentials)?.connect_lazy())
    }

    /// Opens a stream. `requests` ends when the client has no more to say.
    ///
    /// # Errors
    /// [`Failure`] if the server does not take it.
    pub(super) async fn stream(
        &self,
        requests: impl Stream<Item = v1::StreamEmotionRequest> + Send + 'static,
    ) -> Result<Responses, Failure> {
        let mut call = Call::new(requests);
        if let Some(authorization) = &self.authorization {
            call.metadata_mut().insert("authorization", authorization.clone());
        }
        let mut service = EmotionServiceClient::new(self.channel.clone());
        let responses = service.stream_emotion(call).await?;
        Ok(Responses(responses.into_inner()))
    }

    /// How a service of the server is, as `grpc.health.v1` names it; the whole server, if the name is empty.
    ///
    /// # Errors
    /// [`Failure`] if the server does not answer, or has no such service.
    pub(super) async fn health(&self, service: &str) -> Result<&'static str, Failure> {
        let request = HealthCheckRequest { service: service.to_owned() };
        match HealthClient::new(self.channel.clone()).check(request).await {
            Ok(answer) => Ok(match answer.into_inner().status() {
                ServingStatus::Serving => "SERVING",
                ServingStatus::NotServing => "NOT_SERVING",
                ServingStatus::Unknown | ServingStatus::ServiceUnknown => "UNKNOWN",
            }),
            Err(status) if status.code() == Code::NotFound => {
                let remedy = "undertone.v1.EmotionService and undertone.v1.EscalationService are asked about";
                Err(Failure::from(Status::not_found(format!("there is no service {service}")))
                    .with_remedy(remedy))
            }
            Err(status) => Err(status.into()),
        }
    }
}

/// What a server says on one stream.
#[derive(Debug)]
pub(super) struct Responses(tonic::Streaming<v1::StreamEmotionResponse>);

impl Responses {
    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// [`Failure`] if the stream ended badly.
    ///
    /// # Cancellation
    /// Safe: a message is taken whole or not at all.
    pub(super) async fn next(&mut self) -> Result<Option<Response>, Failure> {
        loop {
            match self.0.message().await? {
                // A message of a newer server that this client does not know.
                Some(v1::StreamEmotionResponse { message: None }) => {}
                Some(v1::StreamEmotionResponse { message }) => return Ok(message),
                None => return Ok(None),
            }
        }
    }
}

/// Which policy a stream asks for.
#[derive(Debug, clap::Args)]
pub(super) struct PolicyArgs {
    /// Name of the server's policy that raises escalations; the server's default one if not given.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// A policy file of one's own, where the server allows it.
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    policy_file: Option<PathBuf>,
    /// No policy, also where the server has a default one: nothing is raised.
    #[arg(long, conflicts_with_all = ["policy", "policy_file"])]
    pub(super) no_policy: bool,
}

impl PolicyArgs {
    /// As the protocol has it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn choice(&self) -> anyhow::Result<Option<v1::stream_config::Policy>> {
        use v1::stream_config::Policy;
        if let Some(path) = &self.policy_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(Some(Policy::PolicyYaml(text)));
        }
        Ok(self.policy.clone().map(Policy::PolicyName))
    }
}

/// The first request of a stream.
pub(super) fn config_request(config: v1::StreamConfig) -> v1::StreamEmotionRequest {
    v1::StreamEmotionRequest { message: Some(Request::Config(config.into())) }
}

/// A chunk of audio, number `sequence`.
pub(super) fn audio_request(data: Bytes, sequence: u64) -> v1::StreamEmotionRequest {
    let chunk = v1::AudioChunk { data, sequence: Some(sequence), captured_at_us: None };
    v1::StreamEmotionRequest { message: Some(Request::Audio(chunk)) }
}

/// A time of the protocol as a [`Duration`]; what is missing or negative is zero.
pub(super) fn duration(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| time.try_into().ok()).unwrap_or_default()
}

/// How samples are coded on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Encoding {
    /// Signed 16-bit integers, little endian.
    #[value(alias = "s16le")]
    Linear16,
    /// 32-bit floats in [-1, 1], little endian.
    #[value(alias = "f32le")]
    Float32,
    /// 8-bit mu-law of ITU-T G.711.
    Mulaw,
    /// 8-bit A-law of ITU-T G.711.
    Alaw,
}

impl Encoding {
    /// The protocol's name for it.
    pub(super) fn wire(self) -> v1::AudioEncoding {
        match self {
            Self::Linear16 => v1::AudioEncoding::Linear16,
            Self::Float32 => v1::AudioEncoding::Float32,
            Self::Mulaw => v1::AudioEncoding::Mulaw,
            Self::Alaw => v1::AudioEncoding::Alaw,
        }
    }

    /// Bytes of one sample.
    pub(super) fn sample_bytes(self) -> usize {
        match self {
            Self::Linear16 => 2,
            Self::Float32 => 4,
            Self::Mulaw | Self::Alaw => 1,
        }
    }
}

/// A sample in [-1, 1] as the nearest 16-bit integer; what is beyond is clamped. A decoded 16-bit sample
/// comes back as it was.
pub(super) fn to_linear16(sample: f32) -> i16 {
    // `as` saturates and takes NaN for 0.
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_target_may_be_typed_short() {
        for (typed, full) in [
            ("localhost", "http://localhost:50051/"),
            ("localhost:1234", "http://localhost:1234/"),
            ("http://10.0.0.7", "http://10.0.0.7:50051/"),
            ("[::1]:50051", "http://[::1]:50051/"),
            ("https://localhost", "https://localhost:50051/"),
        ] {
            assert_eq!(parse_target(typed).unwrap().to_string(), full);
        }
        for wrong in ["", "ftp://localhost", "http://", "two words", "unix:///tmp/socket"] {
            assert!(parse_target(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_failure_tells_field_reason_and_remedy() {
        let mut details = ErrorDetails::new();
        details.set_error_info("INVALID_REQUEST", "undertone", std::collections::HashMap::new());
        details.add_bad_request_violation("config.audio", "is missing");
        details.set_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let failure = Failure::from(status);
        assert_eq!(failure.kind(), "INVALID_ARGUMENT: INVALID_REQUEST");
        assert_eq!(failure.retry_after(), Duration::from_secs(2));
        assert_eq!(
            failure.to_string(),
            "INVALID_ARGUMENT: no\n  field   config.audio: is missing\n  reason  INVALID_REQUEST\n  \
             remedy  try again in 2s"
        );
    }

    #[tokio::test]
    async fn a_server_that_has_fallen_silent_is_noticed_within_seconds() {
        // The kernel takes the connection and what is sent; nobody ever answers, as after a power cut.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let began = std::time::Instant::now();
        let client = Client::connect(&target, &Credentials::default()).await.unwrap();
        let failure = client.stream(tokio_stream::pending()).await.unwrap_err();
        assert!(failure.may_pass(), "{failure}");
        assert!(began.elapsed() < 4 * KEEP_ALIVE, "{:?}", began.elapsed());
    }

    #[test]
    fn a_decoded_sample_comes_back_as_it_was() {
        for value in [i16::MIN, -12_345, -1, 0, 1, 12_345, i16::MAX] {
            assert_eq!(to_linear16(f32::from(value) / 32_768.0), value);
        }
        assert_eq!(to_linear16(1.5), i16::MAX);
        assert_eq!(to_linear16(f32::NAN), 0);
    }
}
