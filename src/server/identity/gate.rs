//! Who calls: the identities in force, and what a call's header and certificate make of them.
//!
//! A token decides where there is one, whatever the certificate; only without a token the certificate does.
//! What always holds: only the opening of a call waits, and for nothing but an issuer's keys, within
//! `jwks_timeout`; a stream that is open goes on when its token expires, its identity is taken out or its
//! issuer cannot be reached.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tonic::codegen::http::{HeaderMap, header};

use super::bearer::bearer;
use super::certificate;
use super::error::{IdentitiesError, Refusal};
use super::jwt;
use super::keys::Pace;
use super::parse::Identities;
use super::provider;
use super::roles::{self, Access};
use super::token::TokenHash;
use crate::config::{Environment, Settings};
use crate::identity::Identity;
use crate::secrets::Secrets as _;
use crate::telemetry::metrics;

/// Most characters of what a client sent that a refusal repeats.
const MAX_ECHO: usize = 300;

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
    text: String,
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
        &self,
        path: &str,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        let access =
            roles::needed(path).ok_or_else(|| Refusal::UnknownMethod { path: shortened(path) })?;
        if access == Access::Anybody {
            return Ok(None);
        }
        let identity = self.identify(headers, certificate).await?;
        roles::check(&identity, access, path)?;
        Ok(Some(identity))
    }

    /// Who calls with these headers and this certificate (DER).
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<Arc<Identity>, Refusal> {
        let Some(identities) = self.identities() else {
            return Ok(Identity::anonymous());
        };
        let identified = self.identify_among(&identities, headers, certificate).await;
        if let Err(refusal) = &identified {
            metrics().authentication_failed(refusal.reason());
        }
        identified
    }

    async fn identify_among(
        &self,
        identities: &Identities,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
    ) -> Result<Arc<Identity>, Refusal> {
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
    ) -> Result<Arc<Identity>, Refusal> {
        if let Some(held) = identities.tokens.get(&TokenHash::of(token)) {
            return if held.is_expired(SystemTime::now()) {
                Err(Refusal::TokenExpired)
            } else {
                Ok(held.identity.clone())
            };
        }
        if identities.issuers.is_empty() || !jwt::is_jwt(token) {
            return Err(Refusal::TokenUnknown);
        }
        let claimed = jwt::claimed_issuer(token)?;
        let issuer = identities.issuers.iter().find(|issuer| issuer.url == claimed);
        let issuer =
            issuer.ok_or_else(|| Refusal::invalid("nobody here knows its issuer (iss)"))?;
        issuer.identify(token, self.pace).await
    }

    /// Looks at the files, and fetches keys, until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let Some((path, _)) = &self.known else {
            return;
        };
        // At once for keys that have to be fetched: the first call need not wait. Cut off while it waits:
        // fetching has a time-out, reading a file ends.
        loop {
            if let Some(identities) = self.identities() {
                for issuer in &identities.issuers {
                    let refreshed = issuer.keys.refresh(self.pace);
                    if stop.run_until_cancelled(refreshed).await.is_none() {
                        return;
                    }
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(self.pause)).await.is_none() {
                return;
            }
            let gate = self.clone();
            match tokio::task::spawn_blocking(move || gate.reload()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    metrics().secret_reload("identities", "changed");
                    tracing::info!(path = %path.display(), "identities in force for new calls");
                }
                Ok(Err(error)) => {
                    metrics().secret_reload("identities", "refused");
                    tracing::error!(%error, "identities refused; those before stay in force");
                }
                Err(_) => return,
            }
        }
    }

    /// Whether the file has changed; what it says now is in force. The same fault is told once. Files of keys
    /// are read as well.
    fn reload(&self) -> Result<bool, IdentitiesError> {
        let Some((path, known)) = &self.known else {
            return Ok(false);
        };
        if let Some(identities) = self.identities() {
            identities.issuers.iter().for_each(|issuer| issuer.keys.reread(&Environment));
        }
        let lock = || known.write().unwrap_or_else(PoisonError::into_inner);
        let text = read(path);
        let before = {
            let mut known = lock();
            let seen = text.as_ref().map(String::as_str).unwrap_or_default();
            if known.text == seen {
                return Ok(false);
            }
            seen.clone_into(&mut known.text);
            known.identities.clone()
        };
        let identities = Identities::parse_after(&text?, &Environment, Some(&before))
            .map_err(|fault| IdentitiesError::In { path: path.clone(), fault })?;
        lock().identities = Arc::new(identities);
        Ok(true)
    }
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
) -> Result<Arc<Identity>, Refusal> {
    let names = certificate::names(certificate);
    let found = names.iter().find_map(|name| identities.certificates.get(name));
    found.cloned().ok_or_else(|| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let names =
            if names.is_empty() { "nobody".to_owned() } else { shortened(&names.join(", ")) };
        Refusal::CertificateUnknown { names }
    })
}
