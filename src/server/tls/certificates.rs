//! PEM files -> what rustls serves with, again whenever they change.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, crypto};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::Settings;
use crate::telemetry::metrics;

/// Largest PEM file, in bytes: a whole bundle of authorities fits.
const MAX_BYTES: u64 = 1 << 20;

/// Why TLS cannot be had with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("{setting}: cannot read {path}: {cause}")]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file without what it should hold.
    #[error("{setting}: {path} holds no {wanted} in PEM (-----BEGIN ...)")]
    Empty {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A file that cannot be used.
    #[error("{setting}: {path}: {problem}")]
    Unusable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A certificate and a key that do not belong together.
    #[error("tls_key: {key} is not the key of the certificate in {certificate}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
    },
}

/// Which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Port {
    /// Speaks HTTP/2, and HTTP/1.1 for gRPC-Web; may ask for clients' certificates.
    Grpc,
    /// Speaks HTTP/1.1.
    Http,
}

type Fingerprint = [u8; 32];

/// The certificates in force.
#[derive(Debug)]
pub(in crate::server) struct Tls {
    files: Files,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    /// Of the files' contents. They hold a private key and are not kept.
    fingerprint: Fingerprint,
}

impl Tls {
    /// Reads the files; `None` without TLS.
    ///
    /// # Errors
    /// [`TlsError`] with the setting's name.
    pub(in crate::server) fn open(settings: &Settings) -> Result<Option<Arc<Self>>, TlsError> {
        if !settings.has_tls() {
            return Ok(None);
        }
        let files = Files {
            certificate: settings.tls_certificate.clone(),
            key: settings.tls_key.clone(),
            client_ca: settings.has_client_ca().then(|| settings.tls_client_ca.clone()),
            require: settings.requires_client_certificate(),
        };
        let contents = files.read()?;
        let (grpc, http) = files.configs(&contents)?;
        let current = RwLock::new(Current { grpc, http, fingerprint: contents.fingerprint() });
        Ok(Some(Arc::new(Self { files, current })))
    }

    /// What new connections of `port` are served with.
    pub(in crate::server) fn config(&self, port: Port) -> Arc<ServerConfig> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match port {
            Port::Grpc => current.grpc.clone(),
            Port::Http => current.http.clone(),
        }
    }

    /// Whether the files have changed; what they hold now is in force. Blocks on the file system.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays.
    pub(in crate::server) fn reload(&self) -> Result<bool, TlsError> {
        let contents = self.files.read()?;
        let fingerprint = contents.fingerprint();
        if self.current.read().unwrap_or_else(PoisonError::into_inner).fingerprint == fingerprint {
            return Ok(false);
        }
        let (grpc, http) = self.files.configs(&contents)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { grpc, http, fingerprint };
        Ok(true)
    }
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    /// Whether clients must have a certificate.
    require: bool,
}

struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for part in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()] {
            let part = part.map(Vec::as_slice).unwrap_or_default();
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    let whole = read.and_then(|count| {
        let too_large = || io::Error::other(format!("it has more than {MAX_BYTES} bytes"));
        if count as u64 > MAX_BYTES { Err(too_large()) } else { Ok(()) }
    });
    whole.map_err(|cause| TlsError::Read { setting, path: path.to_owned(), cause })?;
    Ok(bytes)
}

fn certificates(
    setting: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let path = path.to_owned();
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if found.is_empty() => {
            Err(TlsError::Empty { setting, path, wanted: "certificate" })
        }
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::Unusable { setting, path, problem: error.to_string() }),
    }
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents {
            certificate: read("tls_certificate", &self.certificate)?,
            key: read("tls_key", &self.key)?,
            client_ca: self
                .client_ca
                .as_deref()
                .map(|path| read("tls_client_ca", path))
                .transpose()?,
        })
    }

    /// For the gRPC and the HTTP port.
    fn configs(
        &self,
        contents: &Contents,
    ) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), TlsError> {
        let chain = certificates("tls_certificate", &self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| TlsError::Empty {
            setting: "tls_key",
            path: self.key.clone(),
            wanted: "private key",
        })?;
        let mut grpc = self.config(&chain, key.clone_key(), self.verifier(contents)?)?;
        grpc.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.client_ca.is_some() {
            // A resumed session brings the client's certificate along unchecked: one that has expired
            // meanwhile would be good for ever.
            grpc.session_storage = Arc::new(NoServerSessionStorage {});
            grpc.send_tls13_tickets = 0;
        }
        let mut http = self.config(&chain, key, WebPkiClientVerifier::no_client_auth())?;
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        tell(chain.first());
        Ok((Arc::new(grpc), Arc::new(http)))
    }

    fn config(
        &self,
        chain: &[CertificateDer<'static>],
        key: PrivateKeyDer<'static>,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Result<ServerConfig, TlsError> {
        let unusable = |setting, path: &Path, error: rustls::Error| TlsError::Unusable {
            setting,
            path: path.to_owned(),
            problem: error.to_string(),
        };
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("tls_certificate", &self.certificate, error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.to_vec(), key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone() }
                }
                rustls::Error::InvalidCertificate(_) => {
                    unusable("tls_certificate", &self.certificate, error)
                }
                error => unusable("tls_key", &self.key, error),
            })
    }

    fn verifier(&self, contents: &Contents) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let (Some(path), Some(pem)) = (&self.client_ca, &contents.client_ca) else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let setting = "tls_client_ca";
        let unusable =
            |problem: String| TlsError::Unusable { setting, path: path.clone(), problem };
        let mut roots = RootCertStore::empty();
        for authority in certificates(setting, path, pem)? {
            roots.add(authority).map_err(|error| unusable(error.to_string()))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        if !self.require {
            builder = builder.allow_unauthenticated();
        }
        let built: Result<Arc<dyn ClientCertVerifier>, _> = builder.build();
        built.map_err(|error| unusable(error.to_string()))
    }
}

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// Says what is in force, and warns of a certificate that clients will not take.
fn tell(certificate: Option<&CertificateDer<'_>>) {
    let parsed = certificate.and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, certificate)) = parsed else {
        return;
    };
    let validity = certificate.validity();
    metrics().certificate_expires(u64::try_from(validity.not_after.timestamp()).unwrap_or(0));
    let (subject, expires) = (certificate.subject(), validity.not_after);
    if certificate.is_ca() {
        tracing::error!(%subject, "certificate is an authority's own (CA:TRUE): many clients refuse it");
    }
    if validity.is_valid() {
        tracing::info!(%subject, %expires, "certificate in force");
    } else {
        let begins = validity.not_before;
        tracing::error!(%subject, %begins, %expires, "certificate is not valid now: clients refuse it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, vec![b'\n'; MAX_BYTES as usize]).unwrap();
        assert_eq!(read("tls_client_ca", &path).unwrap().len() as u64, MAX_BYTES);
        std::fs::write(&path, vec![b'\n'; MAX_BYTES as usize + 1]).unwrap();
        let error = read("tls_client_ca", &path).unwrap_err().to_string();
        assert!(error.starts_with("tls_client_ca: ") && error.contains("more than"), "{error}");
    }
}
