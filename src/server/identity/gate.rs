//! Who calls: the identities in force, and what a call's header and certificate make of them.
//!
//! A token decides where there is one, whatever the certificate; only without a token the certificate does.
//! What always holds: only the opening of a call waits, and for nothing but an issuer's keys, within
//! `jwks_timeout`; a stream of audio that is open goes on when its token expires, its identity is taken out or
//! its issuer cannot be reached. What loses nothing by coming again asks its [`Standing`] now and then.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::{HeaderMap, header};

use super::bearer::bearer;
use super::certificate::{self, CertificateName};
use super::error::{IdentitiesError, Refusal};
use super::jwt;
use super::keys::Pace;
use super::parse::Identities;
use super::provider;
use super::roles::{self, Access};
use super::telephony::{self, Signed};
use super::token::TokenHash;
use crate::config::{Environment, Settings};
use crate::identity::{Identity, Role};
use crate::secrets::Secrets as _;
use crate::server::reload;
use crate::telemetry::metrics;

/// Most characters of what a client sent that a refusal repeats.
const MAX_ECHO: usize = 300;

/// Longest time between two looks whether an issuer's keys are due.
const MAX_TICK: Duration = Duration::from_secs(1);

/// Says who calls.
#[derive(Debug)]
pub struct Gate {
    /// The file, and what it said; `None` where everybody may do everything.
    known: Option<(PathBuf, RwLock<Known>)>,
    pace: Pace,
    /// Time between two looks at the files.
    pause: Duration,
    /// Whether a client may present a certificate.
    certificates: bool,
}

#[derive(Debug)]
struct Known {
    identities: Arc<Identities>,
    /// What they were read from.
    text: String,
}

/// What has proved who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing, where everybody may do everything.
    NotAsked,
    /// A token of the file.
    Token(TokenHash),
    /// A name in a certificate.
    Certificate(CertificateName),
    /// A token of this issuer, good until then; for ever, if that is further away than time goes.
    Issuer { url: String, until: Option<SystemTime> },
}

/// A caller who was let in, and what for: to ask again whether that still holds.
#[derive(Debug, Clone)]
pub struct Standing {
    gate: Arc<Gate>,
    identity: Arc<Identity>,
    proof: Proof,
    access: Access,
    method: Arc<str>,
}

impl Standing {
    /// Who it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether who calls would be let in now as then. Keys of issuers are not asked for.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self) -> Result<(), Refusal> {
        let holds = self.gate.holds(self);
        if let Err(refusal) = &holds {
            metrics().authentication_failed(refusal.reason());
        }
        holds
    }
}

impl Gate {
    /// Reads the file of identities, if one is configured.
    ///
    /// # Errors
    /// [`IdentitiesError`] with the file, line and column.
    pub fn open(settings: &Settings) -> Result<Arc<Self>, IdentitiesError> {
        provider::install();
        let known = if settings.has_identities() {
            let path = settings.identities.clone();
            let text = read(&path)?;
            let identities = Identities::parse(&text, &Environment)
                .map_err(|fault| IdentitiesError::In { path: path.clone(), fault })?;
            Some((path, RwLock::new(Known { identities: Arc::new(identities), text })))
        } else {
            None
        };
        Ok(Arc::new(Self {
            known,
            pace: Pace {
                refresh: settings.jwks_refresh.0,
                retry: settings.jwks_retry.0,
                timeout: settings.jwks_timeout.0,
            },
            pause: settings.identities_reload.0,
            certificates: settings.has_client_ca(),
        }))
    }

    /// The identities in force; `None` where everybody may do everything.
    pub fn identities(&self) -> Option<Arc<Identities>> {
        let (_, known) = self.known.as_ref()?;
        Some(known.read().unwrap_or_else(PoisonError::into_inner).identities.clone())
    }

    /// Who may call the method at `path` with these headers and this certificate (DER). `None` where it is
    /// not asked.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn admit(
        self: &Arc<Self>,
        path: &str,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<Option<Standing>, Refusal> {
        let Some(access) = roles::needed(path) else {
            let refusal = Refusal::UnknownMethod { path: shortened(path) };
            metrics().authentication_failed(refusal.reason());
            return Err(refusal);
        };
        if access == Access::Anybody {
            return Ok(None);
        }
        self.admit_as(access, path, headers, certificate).await.map(Some)
    }

    /// The same, where it is known what `method` needs.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn admit_as(
        self: &Arc<Self>,
        access: Access,
        method: &str,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<Standing, Refusal> {
        let identified = self.identify(headers, certificate).await;
        let admitted = identified.and_then(|(identity, proof)| {
            roles::check(&identity, access, method)?;
            Ok(Standing { gate: self.clone(), identity, proof, access, method: method.into() })
        });
        if let Err(refusal) = &admitted {
            metrics().authentication_failed(refusal.reason());
        }
        admitted
    }

    /// Whose Twilio account has signed a request for one of `urls`, which are ways to write the same one; and the
    /// account's SID. It must be one that may open streams.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::server) fn admit_twilio(
        &self,
        urls: &[String],
        signature: Option<&str>,
    ) -> Result<(Arc<Identity>, String), Refusal> {
        let identities = self.identities().unwrap_or_default();
        let known = telephony::of_twilio(&identities.twilio, urls, signature);
        let admitted = known.and_then(|(identity, account)| {
            let access = Access::Role(Role::Stream);
            roles::check(&identity, access, "GET /v1/twilio").map(|()| (identity, account))
        });
        admitted.inspect_err(|refusal| metrics().authentication_failed(refusal.reason()))
    }

    /// Whose `AudioHook` integration sends this request. It must be one that may open streams.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::server) fn admit_audiohook(
        &self,
        request: Signed<'_>,
    ) -> Result<Arc<Identity>, Refusal> {
        let identities = self.identities().unwrap_or_default();
        let known = telephony::of_audiohook(&identities.audiohook, request, SystemTime::now());
        let admitted = known.and_then(|identity| {
            let access = Access::Role(Role::Stream);
            roles::check(&identity, access, "GET /v1/audiohook").map(|()| identity)
        });
        admitted.inspect_err(|refusal| metrics().authentication_failed(refusal.reason()))
    }

    fn holds(&self, standing: &Standing) -> Result<(), Refusal> {
        let Some(identities) = self.identities() else {
            return Ok(());
        };
        let before = &standing.identity;
        let now = match &standing.proof {
            Proof::NotAsked => return Ok(()),
            Proof::Token(hash) => of_token(&identities, hash)?.ok_or(Refusal::TokenUnknown)?,
            Proof::Certificate(name) => {
                let found = identities.certificates.get(name).cloned();
                found.ok_or_else(|| Refusal::CertificateUnknown { names: name.to_string() })?
            }
            Proof::Issuer { url, until } => {
                if until.is_some_and(|until| until <= SystemTime::now()) {
                    return Err(Refusal::TokenExpired);
                }
                // What its claims said stays so: they are signed.
                identities.issuer(url).ok_or_else(no_issuer)?;
                before.clone()
            }
        };
        roles::check(&now, standing.access, &standing.method)?;
        let same = now.name == before.name
            && now.tenant == before.tenant
            && now.all_tenants == before.all_tenants;
        if same { Ok(()) } else { Err(Refusal::invalid("it is somebody else's now")) }
    }

    async fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<(Arc<Identity>, Proof), Refusal> {
        match self.identities() {
            Some(identities) => self.identify_among(&identities, headers, certificate).await,
            None => Ok((Identity::anonymous(), Proof::NotAsked)),
        }
    }

    async fn identify_among(
        &self,
        identities: &Identities,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<(Arc<Identity>, Proof), Refusal> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => {
                let token = bearer(value.as_bytes())?;
                self.identify_token(identities, token).await
            }
            (Some(_), Some(_)) => {
                Err(Refusal::invalid("the header authorization is there more than once"))
            }
            (None, _) => match certificate {
                Some(certificate) => identify_certificate(identities, certificate),
                None => Err(Refusal::TokenMissing {
                    certificates: self.certificates && identities.has_certificates(),
                }),
            },
        }
    }

    async fn identify_token(
        &self,
        identities: &Identities,
        token: &str,
    ) -> Result<(Arc<Identity>, Proof), Refusal> {
        let hash = TokenHash::of(token);
        if let Some(identity) = of_token(identities, &hash)? {
            return Ok((identity, Proof::Token(hash)));
        }
        if identities.issuers.is_empty() || !jwt::is_jwt(token) {
            return Err(Refusal::TokenUnknown);
        }
        let claimed = jwt::claimed_issuer(token)?;
        let issuer = identities.issuer(&claimed).ok_or_else(no_issuer)?;
        let (identity, until) = issuer.identify(token, self.pace).await?;
        Ok((identity, Proof::Issuer { url: issuer.url.clone(), until }))
    }

    /// Looks at the files, and fetches keys, until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        if self.known.is_none() {
            return;
        }
        let gate = self.clone();
        let files = reload::keep("identities", self.pause, stop.clone(), move || gate.reload());
        tokio::join!(files, self.keep_keys(stop));
    }

    /// Fetches keys that are due, at once for those that there are none of yet: the first call need not wait.
    /// Each issuer by itself: one that does not answer holds up neither the others nor a look at the files.
    async fn keep_keys(&self, stop: CancellationToken) {
        let tick = MAX_TICK.min(self.pace.refresh).min(self.pace.retry);
        let mut under_way = JoinSet::new();
        loop {
            for issuer in self.identities().iter().flat_map(|identities| &identities.issuers) {
                if issuer.keys.are_due(self.pace) {
                    let (keys, pace) = (issuer.keys.clone(), self.pace);
                    under_way.spawn(async move { keys.refresh(pace).await });
                }
            }
            // Cut off while it waits: fetching has a time-out, and ends with the set.
            if stop.run_until_cancelled(tokio::time::sleep(tick)).await.is_none() {
                return;
            }
            // One that panics has fetched nothing, and is tried again.
            while under_way.try_join_next().is_some() {}
        }
    }

    /// Whether the file of identities, or one with authorities that it names, has changed; what they say now is
    /// in force. Files of keys are read as well.
    fn reload(&self) -> Result<bool, IdentitiesError> {
        let Some((path, known)) = &self.known else {
            return Ok(false);
        };
        let text = read(path);
        // Calls wait for this lock: it is not held while files are read.
        let (before, is_same) = {
            let known = known.read().unwrap_or_else(PoisonError::into_inner);
            let is_same = text.as_ref().is_ok_and(|text| *text == known.text);
            (known.identities.clone(), is_same)
        };
        before.issuers.iter().for_each(|issuer| issuer.keys.reread(&Environment));
        let text = text?;
        if is_same && before.files_are_as_read(&Environment) {
            return Ok(false);
        }
        let identities = Identities::parse_after(&text, &Environment, Some(&before))
            .map_err(|fault| IdentitiesError::In { path: path.clone(), fault })?;
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        *known = Known { identities: Arc::new(identities), text };
        Ok(true)
    }
}

/// Whose token that is, if anybody's of the file.
fn of_token(identities: &Identities, hash: &TokenHash) -> Result<Option<Arc<Identity>>, Refusal> {
    match identities.tokens.get(hash) {
        Some(held) if held.is_expired(SystemTime::now()) => Err(Refusal::TokenExpired),
        held => Ok(held.map(|held| held.identity.clone())),
    }
}

fn no_issuer() -> Refusal {
    Refusal::invalid("nobody here knows its issuer (iss)")
}

/// What a client sent, no longer than a header of an answer may be.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_ECHO).collect()
}

fn read(path: &Path) -> Result<String, IdentitiesError> {
    Environment.file(path).map_err(|cause| IdentitiesError::Read { path: path.to_owned(), cause })
}

fn identify_certificate(
    identities: &Identities,
    certificate: &[u8],
) -> Result<(Arc<Identity>, Proof), Refusal> {
    let names = certificate::names(certificate);
    let found = names.iter().find_map(|name| Some((identities.certificates.get(name)?, name)));
    if let Some((identity, name)) = found {
        return Ok((identity.clone(), Proof::Certificate(name.clone())));
    }
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { "nobody".to_owned() } else { shortened(&names.join(", ")) };
    Err(Refusal::CertificateUnknown { names })
}
