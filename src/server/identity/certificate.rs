//! A client's certificate -> the names that an identity may have.
//!
//! rustls has checked by now that an authority of ours signed it and that the client has its key.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A name that a certificate holds, to the letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum CertificateName {
    /// A URI among its subject alternative names.
    Uri(String),
    /// A DNS name among its subject alternative names.
    Dns(String),
    /// The common name of its subject.
    CommonName(String),
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) => write!(f, "URI {name:?}"),
            Self::Dns(name) => write!(f, "DNS {name:?}"),
            Self::CommonName(name) => write!(f, "CN {name:?}"),
        }
    }
}

/// What a certificate (DER) names: URIs, then DNS names, then the common name. Empty for what is none.
pub(super) fn names(der: &[u8]) -> Vec<CertificateName> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    // Twice the same extension makes this an error: then there are none.
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(CertificateName::Uri((*uri).to_owned())),
            GeneralName::DNSName(dns) => Some(CertificateName::Dns((*dns).to_owned())),
            _ => None,
        }));
    }
    // Of several common names none is the one that counts.
    let mut common = certificate.subject().iter_common_name();
    if let (Some(name), None) = (common.next(), common.next())
        && let Ok(name) = name.as_str()
    {
        names.push(CertificateName::CommonName(name.to_owned()));
    }
    names.sort();
    names
}
