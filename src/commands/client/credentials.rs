//! What a client trusts, and how it says who it is.
//!
//! A token is never a flag: other people see a process's flags, and shells remember them. Nor is it sent where
//! it could be read on the way.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Uri};

use crate::config::Environment;
use crate::secrets::Secrets as _;

/// The variable that holds a token where no file does.
const VARIABLE: &str = "UNDERTONE_TOKEN";

/// What a server is told and shown.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Security")]
pub(in crate::commands) struct CredentialArgs {
    /// PEM file with the authorities that the server's certificate may be of [default: the system's]
    #[arg(long, value_name = "FILE", env = "UNDERTONE_CA")]
    ca: Option<PathBuf>,
    /// Name that the server's certificate must bear, where it is not the target's, as behind a tunnel [default: the
    /// target's]
    #[arg(long, value_name = "NAME", env = "UNDERTONE_SERVER_NAME")]
    server_name: Option<String>,
    /// PEM file with a certificate that says who calls.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// File with a token that says who calls [default: the environment variable `UNDERTONE_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The same, read.
#[derive(Debug, Clone, Default)]
pub(in crate::commands) struct Credentials {
    tls: Option<ClientTlsConfig>,
    /// The whole header.
    authorization: Option<MetadataValue<Ascii>>,
    /// Authorities in PEM.
    ca: Option<String>,
}

impl CredentialArgs {
    /// Reads files and environment, for `target`.
    ///
    /// # Errors
    /// If one cannot be read, or the token could be read on the way.
    pub(in crate::commands) fn read(&self, target: &Uri) -> anyhow::Result<Credentials> {
        let secure = target.scheme_str() == Some("https");
        let text = |flag: &str, path: &Path| {
            Environment
                .file(path)
                .with_context(|| format!("{flag}: cannot read {}", path.display()))
        };
        let ca = self.ca.as_deref().map(|path| text("--ca", path)).transpose()?;
        let pair = match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => {
                Some((text("--client-certificate", certificate)?, text("--client-key", key)?))
            }
            _ => None,
        };
        ensure!(
            secure || (ca.is_none() && pair.is_none() && self.server_name.is_none()),
            "--ca, --server-name and --client-certificate are for https:// targets; the target is {target}"
        );
        let token = match &self.token_file {
            Some(path) => Some(text("--token-file", path)?),
            None => Environment.variable(VARIABLE),
        };
        let authorization = token.as_deref().map(authorization).transpose()?;
        ensure!(
            authorization.is_none() || secure || is_local(target),
            "the token could be read on the way to {target}; use https://"
        );
        let tls = secure.then(|| {
            let mut tls = ClientTlsConfig::new();
            tls = match &ca {
                Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
                None => tls.with_native_roots(),
            };
            if let Some(name) = &self.server_name {
                tls = tls.domain_name(name);
            }
            match pair {
                Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
                None => tls,
            }
        });
        Ok(Credentials { tls, authorization, ca })
    }
}

impl Credentials {
    /// For an https:// target.
    pub(super) fn tls(&self) -> Option<&ClientTlsConfig> {
        self.tls.as_ref()
    }

    /// The header `authorization`.
    pub(in crate::commands) fn authorization(&self) -> Option<&MetadataValue<Ascii>> {
        self.authorization.as_ref()
    }

    /// Authorities in PEM, if not the system's.
    pub(in crate::commands) fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }
}

fn authorization(token: &str) -> anyhow::Result<MetadataValue<Ascii>> {
    let token = token.trim_end_matches(['\r', '\n']);
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .ok()
        .filter(|_| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .context("the token (--token-file, UNDERTONE_TOKEN) must be one word")?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_local(target: &Uri) -> bool {
    let host = target.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(token: &str, target: &str) -> anyhow::Result<Credentials> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, token).unwrap();
        let args = CredentialArgs { token_file: Some(path), ..CredentialArgs::default() };
        args.read(&target.parse().unwrap())
    }

    #[test]
    fn a_token_goes_where_nobody_reads_it_on_the_way() {
        for target in ["https://example.org:50051", "http://localhost:1", "http://[::1]:1"] {
            let credentials = with_token("ut_secret\n", target).unwrap();
            let header = credentials.authorization().unwrap();
            assert_eq!(header.to_str().unwrap(), "Bearer ut_secret");
            assert!(!format!("{credentials:?}").contains("ut_secret"));
        }
        let error = with_token("ut_secret", "http://10.0.0.7:50051").unwrap_err().to_string();
        assert!(error.contains("https://") && !error.contains("ut_secret"), "{error}");
    }

    #[test]
    fn a_token_is_one_word() {
        for wrong in ["", "\n", "two words", "a\tb", "\u{e9}\n\n"] {
            assert!(with_token(wrong, "http://localhost:1").is_err(), "{wrong:?}");
        }
    }
}
