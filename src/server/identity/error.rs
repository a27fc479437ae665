//! What is wrong with a file of identities, and why a call is refused.

use std::fmt;

use crate::identity::Role;
use crate::yaml::YamlError;

/// Why a file of identities cannot be used. No variant holds a token.
#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    /// The file cannot be read.
    #[error("identities: cannot read {path}: {cause}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The error is in this file.
    #[error("identities: {path}: {fault}")]
    In {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        fault: YamlError,
    },
}

/// Why a call is refused. Its text goes to the caller: what it says beyond what the caller sent is nothing
/// that helps to guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It says nothing of who calls.
    #[error("nothing says who calls; send the header `authorization: Bearer TOKEN`{}", or_certificate(*.certificates))]
    TokenMissing {
        /// Whether a client's certificate would do.
        certificates: bool,
    },
    /// Nobody has this token.
    #[error(
        "nobody has this token; was it replaced or taken out of the server's file of identities?"
    )]
    TokenUnknown,
    /// The token was good once.
    #[error(
        "the token has expired; get a new one and call again (streams of audio that are open go on)"
    )]
    TokenExpired,
    /// The header or the token cannot be used.
    #[error("the token cannot be used: {problem}")]
    TokenInvalid {
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A good certificate of somebody who is not in the file.
    #[error(
        "no identity has this client certificate, which names {names}; add one of these names, or send a token"
    )]
    CertificateUnknown {
        /// What it names.
        names: String,
    },
    /// A telephone system's request that is not signed.
    #[error("nothing says who calls: the header {header} is missing")]
    SignatureMissing {
        /// The header.
        header: &'static str,
    },
    /// One whose signature is not good.
    #[error("the signature cannot be used: {problem}")]
    SignatureInvalid {
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The issuer's keys cannot be had now.
    #[error("the keys of the token's issuer cannot be had now; try again")]
    KeysUnavailable,
    /// It is known who calls, and that is not enough.
    #[error("{name:?} may not call {method}: it needs the role {:?}", .role.name())]
    RoleMissing {
        /// Who calls.
        name: String,
        /// What is lacking.
        role: Role,
        /// What was called.
        method: String,
    },
    /// There is no such method.
    #[error("there is no method {path:?} here")]
    UnknownMethod {
        /// What was called.
        path: String,
    },
}

fn or_certificate(certificates: bool) -> &'static str {
    if certificates { ", or present a client certificate" } else { "" }
}

impl Refusal {
    /// The stable reason: in `ErrorInfo`, and as a label of the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TokenMissing { .. } => "TOKEN_MISSING",
            Self::TokenUnknown => "TOKEN_UNKNOWN",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::TokenInvalid { .. } => "TOKEN_INVALID",
            Self::CertificateUnknown { .. } => "CERTIFICATE_UNKNOWN",
            Self::SignatureMissing { .. } => "SIGNATURE_MISSING",
            Self::SignatureInvalid { .. } => "SIGNATURE_INVALID",
            Self::KeysUnavailable => "KEYS_UNAVAILABLE",
            Self::RoleMissing { .. } => "ROLE_MISSING",
            Self::UnknownMethod { .. } => "METHOD_UNKNOWN",
        }
    }

    pub(super) fn invalid(problem: impl fmt::Display) -> Self {
        Self::TokenInvalid { problem: problem.to_string() }
    }
}
