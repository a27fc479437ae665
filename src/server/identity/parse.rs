//! A file of identities' text -> who is known, or what is wrong with it and where.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use url::{Host, Url};

use super::certificate::CertificateName;
use super::file::{CertificateEntry, Entry, File, IssuerEntry, QuotaEntry, SCHEMA};
use super::jwt::{ClaimNames, Issuer};
use super::keys::{Keys, Source};
use super::telephony::{AudioHookClient, TwilioAccount};
use super::token::{Held, TokenHash};
use crate::identity::{Identity, Quota, Tenant};
use crate::secrets::{Named, Secrets};
use crate::yaml::{self, Fault, YamlError};

/// Most callers, and most issuers.
const MAX_IDENTITIES: usize = 10_000;
const MAX_ISSUERS: usize = 32;
/// Most tokens, and most certificates, of one caller.
const MAX_PROOFS: usize = 16;
/// Largest difference of clocks.
const MAX_LEEWAY: Duration = Duration::from_secs(300);
/// Longest time that a connection to an issuer may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is known, and how they prove it.
#[derive(Debug, Default)]
pub struct Identities {
    all: Vec<Arc<Identity>>,
    pub(super) tokens: HashMap<TokenHash, Held>,
    pub(super) certificates: HashMap<CertificateName, Arc<Identity>>,
    pub(super) issuers: Vec<Arc<Issuer>>,
    pub(super) twilio: Vec<TwilioAccount>,
    pub(super) audiohook: Vec<AudioHookClient>,
    /// Files that the file names, and what they held: authorities that issuers' URLs are trusted by, secrets.
    files: Vec<(PathBuf, TokenHash)>,
}

impl Identities {
    /// Reads a file of identities, and the files of keys that it names. Nothing is connected to.
    ///
    /// # Errors
    /// [`YamlError`] with line, column, field and remedy.
    pub fn parse(text: &str, secrets: &dyn Secrets) -> Result<Self, YamlError> {
        Self::parse_after(text, secrets, None)
    }

    /// The same, with the keys of issuers that are as they were `before`.
    pub(super) fn parse_after(
        text: &str,
        secrets: &dyn Secrets,
        before: Option<&Self>,
    ) -> Result<Self, YamlError> {
        yaml::read(text, |file| read(file, secrets, before))
    }

    /// The issuer whose claim `iss` that is.
    pub(super) fn issuer(&self, url: &str) -> Option<&Arc<Issuer>> {
        self.issuers.iter().find(|issuer| issuer.url == url)
    }

    /// Whether the files that the file names, those of keys apart, hold what they held.
    pub(super) fn files_are_as_read(&self, secrets: &dyn Secrets) -> bool {
        let same = |(path, before): &(PathBuf, TokenHash)| {
            secrets.file(path).is_ok_and(|pem| TokenHash::of(&pem) == *before)
        };
        self.files.iter().all(same)
    }

    /// Callers that are known one by one, in the file's order.
    pub fn all(&self) -> &[Arc<Identity>] {
        &self.all
    }

    /// Issuers of tokens: name, and the claim `iss`.
    pub fn issuers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.issuers.iter().map(|issuer| (issuer.name.as_str(), issuer.url.as_str()))
    }

    /// Whether any caller may prove itself by a certificate.
    pub fn has_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The JSON Schema (2020-12) of files of identities, for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(File).to_value()
    }
}

fn read(
    file: &File,
    secrets: &dyn Secrets,
    before: Option<&Identities>,
) -> Result<Identities, Fault> {
    if file.schema != SCHEMA {
        let problem = format!("{:?} is no form of file known here", file.schema);
        return Err(Fault::new("schema", problem, format!("write {SCHEMA}")));
    }
    at_most("identities", file.identities.len(), MAX_IDENTITIES)?;
    at_most("jwt", file.jwt.len(), MAX_ISSUERS)?;
    let mut reader = Reader::default();
    for (index, entry) in file.identities.iter().enumerate() {
        reader.identity(&format!("identities[{index}]"), entry, secrets)?;
    }
    let mut issuers = BTreeMap::new();
    for (index, entry) in file.jwt.iter().enumerate() {
        let path = format!("jwt[{index}]");
        reader.take_name(&path, &entry.name)?;
        let Slot::Vacant(slot) = issuers.entry(&entry.issuer) else {
            let remedy = "put its audiences into one entry";
            return Err(Fault::new(
                format!("{path}.issuer"),
                "there is an entry for this issuer already",
                remedy,
            ));
        };
        let mut ca = None;
        if let Some(file) = &entry.ca {
            let pem = authorities(&format!("{path}.ca"), file, secrets)?;
            reader.known.files.push((file.clone(), TokenHash::of(&pem)));
            ca = Some(pem);
        }
        let issuer = Arc::new(issuer(&path, entry, ca.as_deref(), secrets, before)?);
        slot.insert(issuer.clone());
        reader.known.issuers.push(issuer);
    }
    Ok(reader.known)
}

#[derive(Default)]
struct Reader {
    known: Identities,
    names: BTreeSet<String>,
}

impl Reader {
    fn take_name(&mut self, path: &str, name: &str) -> Result<(), Fault> {
        let field = format!("{path}.name");
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            let remedy = "use 1 to 64 characters of A-Z a-z 0-9 . _ -";
            return Err(Fault::new(field, format!("{name:?} cannot be a name"), remedy));
        }
        if !self.names.insert(name.to_owned()) {
            let problem = format!("there is {name:?} already");
            return Err(Fault::new(field, problem, "give it a name of its own"));
        }
        Ok(())
    }

    fn identity(&mut self, path: &str, entry: &Entry, secrets: &dyn Secrets) -> Result<(), Fault> {
        self.take_name(path, &entry.name)?;
        at_most(&format!("{path}.tokens"), entry.tokens.len(), MAX_PROOFS)?;
        at_most(&format!("{path}.certificates"), entry.certificates.len(), MAX_PROOFS)?;
        at_most(&format!("{path}.twilio"), entry.twilio.len(), MAX_PROOFS)?;
        at_most(&format!("{path}.audiohook"), entry.audiohook.len(), MAX_PROOFS)?;
        let telephones = entry.twilio.len() + entry.audiohook.len();
        if entry.tokens.is_empty() && entry.certificates.is_empty() && telephones == 0 {
            let remedy = "give it tokens (`undertone identities token` makes one), certificates, twilio or audiohook";
            return Err(Fault::new(path, "nothing proves this identity", remedy));
        }
        let identity = Arc::new(Identity {
            name: entry.name.as_str().into(),
            tenant: tenant(path, &entry.tenant)?,
            all_tenants: entry.all_tenants,
            roles: entry.roles.iter().copied().collect(),
            quota: quota(path, &entry.quota)?,
        });
        for (index, token) in entry.tokens.iter().enumerate() {
            let field = |name: &str| format!("{path}.tokens[{index}].{name}");
            let hash: TokenHash = token.hash.parse().map_err(|error| {
                let remedy =
                    "`undertone identities token` prints the line to write; never write a token";
                Fault::new(field("hash"), format!("{error}"), remedy)
            })?;
            let expires = token
                .expires
                .as_deref()
                .map(|text| {
                    humantime::parse_rfc3339_weak(text).map_err(|error| {
                        let remedy = "write a time such as 2027-01-31T00:00:00Z";
                        Fault::new(field("expires"), format!("{text:?}: {error}"), remedy)
                    })
                })
                .transpose()?;
            let held = Held { identity: identity.clone(), expires };
            if self.known.tokens.insert(hash, held).is_some() {
                let remedy = "a token belongs to one identity: make another one";
                return Err(Fault::new(field("hash"), "this token is here twice", remedy));
            }
        }
        for (index, certificate) in entry.certificates.iter().enumerate() {
            let field = format!("{path}.certificates[{index}]");
            let name = certificate_name(&field, certificate)?;
            if self.known.certificates.insert(name, identity.clone()).is_some() {
                let remedy = "a certificate's name belongs to one identity";
                return Err(Fault::new(field, "this name is here twice", remedy));
            }
        }
        self.telephones(path, entry, &identity, secrets)?;
        self.known.all.push(identity);
        Ok(())
    }

    fn telephones(
        &mut self,
        path: &str,
        entry: &Entry,
        identity: &Arc<Identity>,
        secrets: &dyn Secrets,
    ) -> Result<(), Fault> {
        for (index, twilio) in entry.twilio.iter().enumerate() {
            let field = |name: &str| format!("{path}.twilio[{index}].{name}");
            let account = &twilio.account;
            let digits = account.strip_prefix("AC").unwrap_or_default();
            if digits.len() != 32 || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
                let remedy = "write the account's SID, AC and 32 hexadecimal digits";
                return Err(Fault::new(field("account"), "is no SID of an account", remedy));
            }
            let token = self.secret(field("auth_token"), &twilio.auth_token, secrets)?;
            let account = TwilioAccount::new(account.clone(), &token, identity.clone());
            self.known.twilio.push(account);
        }
        for (index, audiohook) in entry.audiohook.iter().enumerate() {
            let field = |name: &str| format!("{path}.audiohook[{index}].{name}");
            let api_key: TokenHash = audiohook.api_key.parse().map_err(|error| {
                let remedy = "write the hash of the key: `undertone identities token` makes both";
                Fault::new(field("api_key"), format!("{error}"), remedy)
            })?;
            if self.known.audiohook.iter().any(|known| known.api_key == api_key) {
                let remedy = "a key belongs to one identity: make another one";
                return Err(Fault::new(field("api_key"), "this key is here twice", remedy));
            }
            let secret = audiohook.client_secret.as_ref().map(|named| {
                let text = self.secret(field("client_secret"), named, secrets)?;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim());
                bytes.map_err(|_| {
                    let remedy = "put it there as it was given to Genesys, in base64";
                    Fault::new(field("client_secret"), "it is no base64", remedy)
                })
            });
            let secret = secret.transpose()?;
            let client = AudioHookClient::new(api_key, secret.as_deref(), identity.clone());
            self.known.audiohook.push(client);
        }
        Ok(())
    }

    /// The text of a secret, without the line break at its end.
    fn secret(
        &mut self,
        field: String,
        named: &Named,
        secrets: &dyn Secrets,
    ) -> Result<String, Fault> {
        let text = match named {
            Named::Env(variable) => secrets.variable(variable).ok_or_else(|| {
                let problem = format!("the environment variable {variable} is not set");
                Fault::new(&field, problem, "set it where the service is started")
            })?,
            Named::File(path) => {
                let text = secrets.file(path).map_err(|error| {
                    let problem = format!("cannot read {}: {error}", path.display());
                    Fault::new(&field, problem, "make the file readable for the service")
                })?;
                self.known.files.push((path.clone(), TokenHash::of(&text)));
                text
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(Fault::new(field, "it is empty", "put the secret there"));
        }
        Ok(text.to_owned())
    }
}

fn at_most(field: &str, count: usize, most: usize) -> Result<(), Fault> {
    if count <= most {
        return Ok(());
    }
    Err(Fault::new(field, format!("{count} of them; {most} are the most"), "leave some out"))
}

fn tenant(path: &str, name: &str) -> Result<Tenant, Fault> {
    name.parse().map_err(|error: crate::identity::BadTenant| {
        Fault::new(format!("{path}.tenant"), error.to_string(), "give it another name")
    })
}

fn quota(path: &str, entry: &QuotaEntry) -> Result<Quota, Fault> {
    let audio_per_minute = entry.audio_per_minute.map(|span| span.0);
    if audio_per_minute == Some(Duration::ZERO) {
        let remedy = "leave it out for the server's own limit, or take the role stream away";
        return Err(Fault::new(format!("{path}.quota.audio_per_minute"), "is nothing", remedy));
    }
    if entry.streams == Some(0) {
        let remedy = "leave it out for the server's own limit, or take the role stream away";
        return Err(Fault::new(format!("{path}.quota.streams"), "is none", remedy));
    }
    Ok(Quota {
        streams: entry.streams,
        audio_per_minute,
        clip_bytes: entry.clip_bytes,
        chunk_bytes: entry.chunk_bytes,
    })
}

fn certificate_name(field: &str, entry: &CertificateEntry) -> Result<CertificateName, Fault> {
    let name = match (&entry.uri, &entry.dns, &entry.common_name) {
        (Some(uri), None, None) => CertificateName::Uri(uri.clone()),
        (None, Some(dns), None) => CertificateName::Dns(dns.clone()),
        (None, None, Some(name)) => CertificateName::CommonName(name.clone()),
        _ => {
            let problem = "a certificate is known by exactly one of uri, dns and common_name";
            return Err(Fault::new(field, problem, "write one of them"));
        }
    };
    let (CertificateName::Uri(text)
    | CertificateName::Dns(text)
    | CertificateName::CommonName(text)) = &name;
    if text.is_empty() {
        return Err(Fault::new(field, "the name is empty", "write what the certificate holds"));
    }
    Ok(name)
}

fn issuer(
    path: &str,
    entry: &IssuerEntry,
    ca: Option<&str>,
    secrets: &dyn Secrets,
    before: Option<&Identities>,
) -> Result<Issuer, Fault> {
    let field = |name: &str| format!("{path}.{name}");
    if entry.issuer.is_empty() {
        return Err(Fault::new(field("issuer"), "is empty", "write the claim iss of its tokens"));
    }
    if entry.audience.is_empty() || entry.audience.iter().any(String::is_empty) {
        let remedy = "write what the claim aud of tokens for this server holds";
        return Err(Fault::new(field("audience"), "says nothing", remedy));
    }
    if entry.algorithms.is_empty() {
        return Err(Fault::new(field("algorithms"), "is empty", "write such as [RS256]"));
    }
    if entry.leeway.0 > MAX_LEEWAY {
        let problem = format!("{} is too much", entry.leeway);
        return Err(Fault::new(field("leeway"), problem, "set 0s to 5m"));
    }
    if entry.tenant.is_some() && entry.claims.tenant.is_some() {
        let problem = "both this and claims.tenant say the tenant";
        return Err(Fault::new(field("tenant"), problem, "leave one of them out"));
    }
    let tenant = entry.tenant.as_deref().map(|name| tenant(path, name)).transpose()?;
    Ok(Issuer {
        name: entry.name.clone(),
        url: entry.issuer.clone(),
        audience: entry.audience.clone(),
        algorithms: entry.algorithms.iter().map(|signing| (*signing).into()).collect(),
        leeway: entry.leeway.0,
        claims: ClaimNames {
            name: entry.claims.name.clone(),
            tenant: entry.claims.tenant.clone(),
            roles: entry.claims.roles.clone(),
        },
        tenant: tenant.unwrap_or_default(),
        roles: entry.roles.iter().copied().collect(),
        role_prefix: entry.role_prefix.clone(),
        quota: quota(path, &entry.quota)?,
        keys: keys(path, entry, ca, secrets, before)?,
    })
}

fn keys(
    path: &str,
    entry: &IssuerEntry,
    ca: Option<&str>,
    secrets: &dyn Secrets,
    before: Option<&Identities>,
) -> Result<Arc<Keys>, Fault> {
    let field = format!("{path}.jwks");
    let origin = format!(
        "{} {}",
        entry.jwks,
        ca.map_or_else(String::new, |pem| TokenHash::of(pem).to_string())
    );
    let old = before.and_then(|before| {
        before.issuers.iter().map(|issuer| &issuer.keys).find(|keys| keys.origin == origin)
    });
    if let Some(old) = old {
        return Ok(old.clone());
    }
    if !entry.jwks.contains("://") {
        let keys = Keys::new(origin, Source::File(entry.jwks.clone().into()));
        keys.read(secrets).map_err(|error| {
            let remedy = "name a file with a JWK Set, {\"keys\": [...]}, or an https:// URL";
            Fault::new(&field, error.to_string(), remedy)
        })?;
        return Ok(Arc::new(keys));
    }
    let url = jwks_url(&field, &entry.jwks)?;
    let client = client(&field, ca.unwrap_or_default())?;
    Ok(Arc::new(Keys::new(origin, Source::Url { url, client })))
}

fn authorities(field: &str, file: &Path, secrets: &dyn Secrets) -> Result<String, Fault> {
    let pem = secrets.file(file).map_err(|error| {
        Fault::new(field, format!("{}: {error}", file.display()), "make it readable")
    })?;
    let found = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
    if found.is_empty() {
        let remedy = "name a file with PEM certificates";
        return Err(Fault::new(field, "no certificate is in it", remedy));
    }
    Ok(pem)
}

fn jwks_url(field: &str, text: &str) -> Result<Url, Fault> {
    let url: Url = text.parse().map_err(|error: url::ParseError| {
        Fault::new(field, error.to_string(), "write an https:// URL or the path of a file")
    })?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local => Ok(url),
        scheme => {
            let problem = format!("keys that come over {scheme}:// could be anybody's");
            Err(Fault::new(field, problem, "write an https:// URL"))
        }
    }
}

fn client(field: &str, pem: &str) -> Result<reqwest::Client, Fault> {
    // Every client takes it from there; it is there already but for the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder()
        .user_agent(concat!("undertone/", env!("CARGO_PKG_VERSION")))
        // Redirects and proxies would lead to keys of others.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT);
    if !pem.is_empty() {
        let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
        client = client.tls_certs_merge(authorities);
    }
    client.build().map_err(|error| {
        let remedy = "install the system's root certificates (package ca-certificates)";
        Fault::new(field, error.without_url().to_string(), remedy)
    })
}
