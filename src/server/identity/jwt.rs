//! Tokens of an issuer (JWT, RFC 7519) -> identities.
//!
//! What is looked at, in this order: the issuer is one of the file's; the algorithm is one that the file
//! allows it, always with a private key; the key is the issuer's; the signature; `exp`, `nbf`, `iss`, `aud`;
//! then the claims that say who calls (RFC 8725 is the checklist).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, dangerous, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::Refusal;
use super::file::Signing;
use super::keys::{Keys, Pace};
use crate::identity::{Identity, Quota, Role, Tenant};

/// Longest name of a caller in a token, in characters.
const MAX_NAME: usize = 128;

type Claims = Map<String, Value>;

/// Where in the claims things stand.
#[derive(Debug)]
pub(super) struct ClaimNames {
    pub(super) name: String,
    pub(super) tenant: Option<String>,
    pub(super) roles: Option<String>,
}

/// Whose word is taken for who calls.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: String,
    /// The claim `iss`.
    pub(super) url: String,
    pub(super) audience: Vec<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) leeway: Duration,
    pub(super) claims: ClaimNames,
    /// Of callers whose token need not say.
    pub(super) tenant: Tenant,
    /// Of callers whose token does not say.
    pub(super) roles: BTreeSet<Role>,
    pub(super) role_prefix: String,
    pub(super) quota: Quota,
    pub(super) keys: Arc<Keys>,
}

impl From<Signing> for Algorithm {
    fn from(signing: Signing) -> Self {
        match signing {
            Signing::RS256 => Self::RS256,
            Signing::RS384 => Self::RS384,
            Signing::RS512 => Self::RS512,
            Signing::PS256 => Self::PS256,
            Signing::PS384 => Self::PS384,
            Signing::PS512 => Self::PS512,
            Signing::ES256 => Self::ES256,
            Signing::ES384 => Self::ES384,
            Signing::EdDSA => Self::EdDSA,
        }
    }
}

/// Whether `token` has the form of a JWT.
pub(super) fn is_jwt(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The claim `iss`, unchecked: it only says whose keys to check it with.
pub(super) fn claimed_issuer(token: &str) -> Result<String, Refusal> {
    #[derive(Deserialize)]
    struct Issued {
        iss: String,
    }
    dangerous::insecure_decode_claims::<Issued>(token)
        .map(|claims| claims.iss)
        .map_err(|_| Refusal::invalid("it is no JWT that names its issuer (iss)"))
}

impl Issuer {
    /// Who calls with `token`, and until when it is good; for ever, if that is further away than time goes.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) async fn identify(
        &self,
        token: &str,
        pace: Pace,
    ) -> Result<(Arc<Identity>, Option<SystemTime>), Refusal> {
        let header = decode_header(token)
            .map_err(|_| Refusal::invalid("its header is none of a signed JWT"))?;
        if !self.algorithms.contains(&header.alg) {
            let known: Vec<String> = self.algorithms.iter().map(|a| format!("{a:?}")).collect();
            let problem =
                format!("signed with {:?}, and {} are allowed", header.alg, known.join(", "));
            return Err(Refusal::invalid(problem));
        }
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: what is critical and not understood is refused.
            return Err(Refusal::invalid("its header has critical extensions (crit)"));
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg, pace).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_audience(&self.audience);
        validation.set_issuer(&[&self.url]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let token = decode::<Claims>(token, &key, &validation).map_err(|error| refusal(&error))?;
        Ok((self.identity(&token.claims)?, self.until(&token.claims)))
    }

    fn until(&self, claims: &Claims) -> Option<SystemTime> {
        // RFC 7519, section 2: seconds since 1970, perhaps with a fraction.
        let seconds = claims.get("exp").and_then(Value::as_f64)?;
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since)?.checked_add(self.leeway)
    }

    fn identity(&self, claims: &Claims) -> Result<Arc<Identity>, Refusal> {
        let name = text(claims, &self.claims.name)?;
        let fits = |c: char| !c.is_control() && !c.is_whitespace();
        if name.is_empty() || name.chars().count() > MAX_NAME || !name.chars().all(fits) {
            let claim = &self.claims.name;
            let problem =
                format!("its claim {claim} must be 1 to {MAX_NAME} characters, no blanks");
            return Err(Refusal::invalid(problem));
        }
        let tenant = match &self.claims.tenant {
            None => self.tenant.clone(),
            Some(claim) => text(claims, claim)?
                .parse()
                .map_err(|error| Refusal::invalid(format_args!("its claim {claim}: {error}")))?,
        };
        let told = self.claims.roles.as_ref().and_then(|claim| at(claims, claim));
        Ok(Arc::new(Identity {
            name: format!("{}/{name}", self.name).into(),
            tenant,
            // A token cannot make its bearer an operator of all tenants: only the file can.
            all_tenants: false,
            roles: told.map_or_else(|| self.roles.clone(), |told| self.roles_in(told)),
            quota: self.quota,
        }))
    }

    /// The roles in a claim; others that the issuer gives are none of ours.
    fn roles_in(&self, claim: &Value) -> BTreeSet<Role> {
        let words: Vec<&str> = match claim {
            Value::String(text) => text.split_whitespace().collect(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let role = |word: &str| {
            let name = word.strip_prefix(self.role_prefix.as_str())?;
            Role::ALL.into_iter().find(|role| role.name() == name)
        };
        words.into_iter().filter_map(role).collect()
    }
}

/// The claim of that name, or else that the dots lead to.
fn at<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

fn text<'a>(claims: &'a Claims, path: &str) -> Result<&'a str, Refusal> {
    at(claims, path)
        .and_then(Value::as_str)
        .ok_or_else(|| Refusal::invalid(format_args!("it has no claim {path} that is a text")))
}

fn refusal(error: &jsonwebtoken::errors::Error) -> Refusal {
    match error.kind() {
        ErrorKind::ExpiredSignature => Refusal::TokenExpired,
        ErrorKind::InvalidSignature => Refusal::invalid("its signature is not its issuer's"),
        ErrorKind::ImmatureSignature => Refusal::invalid("it is not good yet (nbf)"),
        ErrorKind::InvalidAudience => Refusal::invalid("it is for somebody else (aud)"),
        ErrorKind::InvalidIssuer => Refusal::invalid("it is of another issuer (iss)"),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            Refusal::invalid(format_args!("its claim {claim} is missing or cannot be read"))
        }
        _ => Refusal::invalid("it is no JWT that can be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::identity::keys::Source;

    fn issuer() -> Issuer {
        Issuer {
            name: "sso".to_owned(),
            url: "https://sso.example".to_owned(),
            audience: vec!["undertone".to_owned()],
            algorithms: vec![Algorithm::RS256],
            leeway: Duration::ZERO,
            claims: ClaimNames {
                name: "sub".to_owned(),
                tenant: Some("org.name".to_owned()),
                roles: Some("realm_access.roles".to_owned()),
            },
            tenant: Tenant::default(),
            roles: BTreeSet::from([Role::Watch]),
            role_prefix: "undertone:".to_owned(),
            quota: Quota::default(),
            keys: Arc::new(Keys::new(String::new(), Source::File("none".into()))),
        }
    }

    fn claims(text: &str) -> Claims {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn claims_say_name_tenant_and_roles_also_within_objects() {
        let identity = issuer().identity(&claims(
            r#"{"sub": "anna", "org": {"name": "ward-7"}, "realm_access": {"roles":
                ["undertone:stream", "offline_access", "undertone:root", "watch"]}}"#,
        ));
        let identity = identity.unwrap();
        assert_eq!(&*identity.name, "sso/anna");
        assert_eq!(identity.tenant.as_str(), "ward-7");
        assert_eq!(identity.roles, BTreeSet::from([Role::Stream]));
        assert!(!identity.all_tenants);
    }

    #[test]
    fn a_text_of_roles_has_blanks_between_and_no_claim_gives_the_default_roles() {
        let mut issuer = issuer();
        issuer.claims.roles = Some("scope".to_owned());
        let with = |scope: &str| {
            let claims = claims(&format!(r#"{{"sub": "a", "org.name": "b"{scope}}}"#));
            issuer.identity(&claims).unwrap().roles.clone()
        };
        let scope = r#", "scope": "openid undertone:analyze undertone:watch""#;
        assert_eq!(with(scope), BTreeSet::from([Role::Analyze, Role::Watch]));
        assert_eq!(with(""), BTreeSet::from([Role::Watch]));
        assert_eq!(with(r#", "scope": """#), BTreeSet::new());
        assert_eq!(with(r#", "scope": 7"#), BTreeSet::new());
    }

    #[test]
    fn a_token_without_who_calls_or_without_its_tenant_is_refused() {
        let long = format!(r#"{{"sub": "{}", "org.name": "b"}}"#, "x".repeat(129));
        for wrong in [
            r#"{"org.name": "b"}"#,
            r#"{"sub": 7, "org.name": "b"}"#,
            r#"{"sub": "", "org.name": "b"}"#,
            r#"{"sub": "a\nb", "org.name": "b"}"#,
            r#"{"sub": "a"}"#,
            r#"{"sub": "a", "org": "b"}"#,
            r#"{"sub": "a", "org.name": "no tenant"}"#,
            &long,
        ] {
            let refusal = issuer().identity(&claims(wrong)).unwrap_err();
            assert_eq!(refusal.reason(), "TOKEN_INVALID", "{wrong}");
        }
    }
}
