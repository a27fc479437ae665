//! One attempt over HTTP: a request -> what the receiver made of it.
//!
//! What always holds: redirects are not followed, proxies of the environment are not used (either would
//! lead around the guard), nothing but a public address is called unless the sink allows it, and no more
//! than the beginning of an answer is read.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use url::{Host, Url};

use super::guard::{PublicResolver, is_public};
use super::secret::Secret;
use super::settings::{Common, HttpSettings};
use super::text::shortened;
use super::verdict::Verdict;
use crate::telemetry::trace::TraceParent;
use crate::yaml::Fault;

/// What is read of an answer, in bytes: enough for the problem that it tells.
const MAX_ANSWER: usize = 8 * 1024;
/// Longest time that the answer's body is waited for. The status alone decides, so that a receiver
/// whose body drips does not turn what it took into a failure.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// What is kept of an answer in a problem, in characters.
const MAX_PROBLEM: usize = 300;
/// The header with the number of the attempt, counted from 1.
pub(super) const ATTEMPT: &str = "undertone-attempt";

/// W3C trace context: the span of the attempt, where its trace is sampled.
pub(super) const TRACE_PARENT: &str = "traceparent";

/// A URL that shows no more than it may: never its query, and its host only if it came from a secret.
#[derive(Clone)]
pub(super) struct Address {
    url: Url,
    secret: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url.origin().ascii_serialization())?;
        if self.secret {
            return f.write_str("/[redacted]");
        }
        f.write_str(self.url.path())?;
        f.write_str(if self.url.query().is_some() { "?[redacted]" } else { "" })
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A receiver: where it is, and how it is called.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    address: Address,
    headers: HeaderMap,
    /// What an answer must not carry into a problem.
    secrets: Vec<Secret>,
    longest_retry_after: Duration,
}

/// A request but for its address and the sink's own headers. Always a POST.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Http {
    /// A receiver by its settings; `path` is added to the URL's.
    ///
    /// # Errors
    /// [`Fault`] with the setting that cannot be.
    pub(super) fn new(
        settings: &HttpSettings<'_>,
        path: &str,
        common: &Common<'_>,
    ) -> Result<Self, Fault> {
        let field = |name: &str| format!("{}.{name}", common.field);
        let mut secrets = Vec::new();
        let address = address(settings, path, common, &mut secrets)?;
        let headers = headers(settings, common, &mut secrets)?;
        // Every client takes it from there; it is there already but for the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("undertone/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(common.timeout)
            .connect_timeout(common.connect_timeout);
        if !settings.allow_private {
            client = client.dns_resolver(PublicResolver);
        }
        if let Some(path) = settings.ca {
            let pem = common.secrets.file(path).map_err(|error| {
                Fault::new(field("ca"), format!("{}: {error}", path.display()), "make it readable")
            })?;
            let certificates = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
            if certificates.is_empty() {
                let remedy = "name a file with PEM certificates";
                return Err(Fault::new(field("ca"), "no certificate is in it", remedy));
            }
            client = client.tls_certs_merge(certificates);
        }
        let client = client.build().map_err(|error| {
            let remedy = "install the system's root certificates (package ca-certificates)";
            Fault::new(&common.field, with_causes(&error.without_url()), remedy)
        })?;
        let longest_retry_after = common.retry_after;
        Ok(Self { client, address, headers, secrets, longest_retry_after })
    }

    /// A receiver that is told `secret` in the body.
    pub(super) fn keeping(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Where requests go, as it may be shown.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The headers of `draft` as they may be shown: secrets redacted.
    pub(super) fn shown_headers(&self, draft: &Draft) -> Vec<(String, String)> {
        let own = self.headers.iter().map(|(name, value)| {
            let shown = if value.is_sensitive() {
                "[redacted]".to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.to_string(), shown)
        });
        let content_type = ("content-type".to_owned(), draft.content_type.to_owned());
        let drafted = draft.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        std::iter::once(content_type).chain(drafted).chain(own).collect()
    }

    /// Makes one attempt. Statuses in `dead` will never become a success.
    ///
    /// # Cancellation
    /// Dropping it closes the connection; the receiver may have taken the request.
    pub(super) async fn send(&self, draft: Draft, attempt: u32, dead: &[u16]) -> Verdict {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(draft.content_type));
        headers.insert(ATTEMPT, attempt.into());
        // The receiver's trace goes on from this attempt's.
        if let Some(Ok(parent)) = TraceParent::current().map(|p| p.to_string().try_into()) {
            headers.insert(HeaderName::from_static(TRACE_PARENT), parent);
        }
        for (name, value) in draft.headers {
            match HeaderValue::try_from(value) {
                Ok(value) => headers.insert(HeaderName::from_static(name), value),
                Err(_) => return Verdict::dead(format!("the header {name} holds what it cannot")),
            };
        }
        let url = self.address.url.clone();
        match self.client.post(url).headers(headers).body(draft.body).send().await {
            Ok(response) => self.judge(response, dead).await,
            Err(error) => Verdict::retry(with_causes(&error.without_url())),
        }
    }

    async fn judge(&self, response: Response, dead: &[u16]) -> Verdict {
        let status = response.status();
        let after = retry_after(&response, self.longest_retry_after);
        // Read whatever the status, so that the connection can be used again.
        let answer = self.beginning(response).await;
        if status.is_success() {
            return Verdict::Delivered { detail: format!("HTTP {}", status.as_u16()) };
        }
        let mut problem = format!("HTTP {}", status.as_u16());
        if status.is_redirection() {
            problem.push_str(": redirects are not followed; set the url that it leads to");
        } else if !answer.is_empty() {
            problem.push_str(": ");
            problem.push_str(&answer);
        }
        match status {
            StatusCode::GONE => Verdict::Gone { problem },
            _ if dead.contains(&status.as_u16()) => Verdict::Dead { problem },
            _ => Verdict::Retry { problem, after },
        }
    }

    /// The beginning of an answer as one line, without secrets.
    async fn beginning(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        let read = async {
            while body.len() < MAX_ANSWER {
                match response.chunk().await {
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Ok(None) | Err(_) => break,
                }
            }
        };
        // What came until then does.
        let _ = tokio::time::timeout(ANSWER_PATIENCE, read).await;
        body.truncate(MAX_ANSWER);
        let mut line = one_line(&String::from_utf8_lossy(&body));
        for secret in &self.secrets {
            line = secret.cover(&line);
        }
        shortened(&line, MAX_PROBLEM)
    }
}

/// `text` with every run of blanks and control characters as one blank.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// An error and its causes in one line.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors repeat their cause.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

fn retry_after(response: &Response, longest: Duration) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    super::retry_after::pause(value, SystemTime::now(), longest)
}

fn address(
    settings: &HttpSettings<'_>,
    path: &str,
    common: &Common<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<Address, Fault> {
    let field = format!("{}.url", common.field);
    // The URL is not repeated in errors: it may hold a secret.
    let fault = |problem: String, remedy: &str| Fault::new(&field, problem, remedy);
    let (text, secret) = common.words("url", settings.url)?;
    let whole =
        format!("{}{path}", if path.is_empty() { &text } else { text.trim_end_matches('/') });
    let url = Url::parse(&whole)
        .map_err(|error| fault(error.to_string(), "write one such as https://example.org/hook"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fault("the scheme is neither http nor https".to_owned(), "use https"));
    }
    if url.scheme() == "http" && !(settings.allow_private || settings.allow_http) {
        let remedy = "use https, or set allow_http: true if nobody can listen on the way";
        return Err(fault("http is not encrypted".to_owned(), remedy));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let remedy = "use a token, or a header with its value from {env: NAME} or {file: PATH}";
        return Err(fault("it holds a user or a password".to_owned(), remedy));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) | None => None,
    };
    // A literal address is not resolved, so the resolver would not see it.
    if let Some(address) = literal.filter(|address| !settings.allow_private && !is_public(*address))
    {
        let problem = format!("{address} is not a public address");
        let remedy = "set allow_private: true if the sink is meant to be on a private network";
        return Err(fault(problem, remedy));
    }
    if secret {
        secrets.push(Secret::new(&text));
    }
    if let Some(query) = url.query() {
        secrets.push(Secret::new(query));
    }
    Ok(Address { url, secret })
}

/// Headers that a sink sets itself, or that the connection needs.
const OWN: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    ATTEMPT,
];
/// Headers whose values are secrets.
const CREDENTIALS: &[&str] =
    &["api-key", "authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"];
/// Most headers of a sink.
const MAX_HEADERS: usize = 32;

fn headers(
    settings: &HttpSettings<'_>,
    common: &Common<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    if let Some(token) = settings.token {
        let token = common.secret("token", token)?;
        let field = format!("{}.token", common.field);
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|_| Fault::new(field, "the token holds line breaks or the like", "mend it"))?;
        value.set_sensitive(true);
        headers.insert(reqwest::header::AUTHORIZATION, value);
        secrets.push(token);
    }
    let Some(written) = settings.headers else { return Ok(headers) };
    if written.len() > MAX_HEADERS {
        let problem = format!("{} headers; {MAX_HEADERS} are the most", written.len());
        return Err(Fault::new(format!("{}.headers", common.field), problem, "leave some out"));
    }
    for (name, words) in written {
        let field = format!("headers.{name}");
        let fault = |problem: &str, remedy: &str| {
            Fault::new(format!("{}.{field}", common.field), problem, remedy)
        };
        let header = HeaderName::try_from(name.as_str())
            .map_err(|_| fault("this is no name of a header", "use letters, digits and hyphens"))?;
        let lower = header.as_str();
        let own = OWN.contains(&lower) || lower.starts_with("webhook-") || lower.starts_with("ce-");
        if own || headers.contains_key(&header) {
            return Err(fault("the sink sets this header itself", "leave it out"));
        }
        let (text, secret) = common.words(&field, words)?;
        if CREDENTIALS.contains(&lower) && !secret {
            let problem = "a secret must not stand in this file";
            return Err(fault(problem, "write {env: NAME} or {file: PATH}"));
        }
        let mut value = HeaderValue::try_from(text.as_str())
            .map_err(|_| fault("the value holds what no header can", "use printable ASCII"))?;
        value.set_sensitive(secret);
        if secret {
            secrets.push(Secret::new(&text));
        }
        headers.insert(header, value);
    }
    Ok(headers)
}
