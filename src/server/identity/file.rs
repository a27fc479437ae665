//! A file of identities as it is written: its types, its defaults, and with them its JSON Schema.
//!
//! Unknown keys are refused. What a value may be beyond its type is checked in [`super::parse`].

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::config::Span;
use crate::identity::{Role, Tenant};
use crate::secrets::Named;

/// The name of this form of the file.
pub(super) const SCHEMA: &str = "undertone.identities/v1";

/// Who may call, how they prove who they are, and what they may.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Undertone identities", rename = "Identities")]
pub(super) struct File {
    /// The form of this file: `undertone.identities/v1`.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: String,
    /// Callers that are known one by one.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub(super) identities: Vec<Entry>,
    /// Issuers of tokens (JWT) whose word is taken for who calls.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub(super) jwt: Vec<IssuerEntry>,
}

/// One caller, with at least one token or certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Identity")]
pub(super) struct Entry {
    /// Its name in logs, the audit trail and quotas; unique.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub(super) name: String,
    /// Whose sessions and escalations it makes and sees.
    #[serde(default = "default_tenant")]
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub(super) tenant: String,
    /// Whether it sees those of all tenants: for operators.
    #[serde(default)]
    pub(super) all_tenants: bool,
    /// What it may do.
    #[schemars(schema_with = "roles")]
    pub(super) roles: Vec<Role>,
    /// What it may use at most; what is not said is as the server's settings have it.
    #[serde(default)]
    pub(super) quota: QuotaEntry,
    /// Tokens that prove it, any of them: two while one replaces the other.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) tokens: Vec<TokenEntry>,
    /// Client certificates that prove it, by a name that they hold.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) certificates: Vec<CertificateEntry>,
    /// Twilio accounts whose Media Streams it is.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) twilio: Vec<TwilioEntry>,
    /// Genesys `AudioHook` integrations that it is.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) audiohook: Vec<AudioHookEntry>,
}

fn default_tenant() -> String {
    Tenant::DEFAULT.to_owned()
}

/// What may be used at most.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Quota")]
pub(super) struct QuotaEntry {
    /// Streams open at once.
    pub(super) streams: Option<u32>,
    /// Audio in one minute over all streams and clips, such as 10m: ten streams in real time.
    #[schemars(schema_with = "optional_duration")]
    pub(super) audio_per_minute: Option<Span>,
    /// Largest `AnalyzeAudio` request, in bytes.
    pub(super) clip_bytes: Option<u32>,
    /// Largest chunk of a stream, in bytes.
    pub(super) chunk_bytes: Option<u32>,
}

/// A token, by its hash: `undertone identities token` makes one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Token")]
pub(super) struct TokenEntry {
    /// SHA-256 of the token in hexadecimal, behind `sha256:`. Never the token.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub(super) hash: String,
    /// Until when it is good, such as 2027-01-31T00:00:00Z; for ever, if nothing is said.
    pub(super) expires: Option<String>,
}

/// Exactly one name that a client certificate must hold, to the letter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Certificate", extend("oneOf" = [
    {"required": ["uri"]}, {"required": ["dns"]}, {"required": ["common_name"]},
]))]
pub(super) struct CertificateEntry {
    /// A URI among its subject alternative names, such as <spiffe://example.org/ward-7>.
    pub(super) uri: Option<String>,
    /// A DNS name among its subject alternative names.
    pub(super) dns: Option<String>,
    /// The common name of its subject.
    pub(super) common_name: Option<String>,
}

/// A Twilio account: its calls are known by their signatures.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TwilioAccount")]
pub(super) struct TwilioEntry {
    /// The account's SID, `AC` and 32 hexadecimal digits. A stream of another account is refused.
    #[schemars(regex(pattern = "^AC[0-9a-f]{32}$"))]
    pub(super) account: String,
    /// The account's auth token, which Twilio signs with.
    pub(super) auth_token: Named,
}

/// An `AudioHook` integration: its calls are known by their API key, and by their signatures where a client secret
/// is agreed on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AudioHookIntegration")]
pub(super) struct AudioHookEntry {
    /// SHA-256 of the API key in hexadecimal, behind `sha256:`. `undertone identities token` makes a key.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub(super) api_key: String,
    /// The client secret, in base64 as it is given to Genesys; its requests must be signed then.
    pub(super) client_secret: Option<Named>,
}

/// An issuer of tokens, such as an `OpenID Connect` provider.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Issuer")]
pub(super) struct IssuerEntry {
    /// Its name here: its callers are named `NAME/SUBJECT`; unique.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub(super) name: String,
    /// The claim `iss` of its tokens, to the letter.
    #[schemars(length(min = 1, max = 1024))]
    pub(super) issuer: String,
    /// What the claim `aud` must hold one of.
    #[schemars(length(min = 1, max = 16))]
    pub(super) audience: Vec<String>,
    /// Its public keys (JWK Set): an https:// URL, or the path of a file, which is read again when it changes.
    /// Only on this machine may the URL be http://.
    pub(super) jwks: String,
    /// PEM file with authorities to trust for that URL besides the system's.
    pub(super) ca: Option<PathBuf>,
    /// How its tokens may be signed.
    #[serde(default = "default_algorithms")]
    #[schemars(length(min = 1))]
    pub(super) algorithms: Vec<Signing>,
    /// How far clocks may be apart when `exp` and `nbf` are looked at, up to 5 m.
    #[serde(default = "default_leeway")]
    #[schemars(schema_with = "duration")]
    pub(super) leeway: Span,
    /// Which claims say who calls.
    #[serde(default)]
    pub(super) claims: ClaimsEntry,
    /// The tenant of all its callers; `default` if neither this nor `claims.tenant` is said.
    #[schemars(regex(pattern = "^[A-Za-z0-9._-]{1,64}$"))]
    pub(super) tenant: Option<String>,
    /// Roles of a caller whose token does not have the claim of roles.
    #[serde(default)]
    #[schemars(schema_with = "roles")]
    pub(super) roles: Vec<Role>,
    /// What stands before a role's name in the claim, such as `undertone:`.
    #[serde(default)]
    pub(super) role_prefix: String,
    /// What each of its callers may use at most.
    #[serde(default)]
    pub(super) quota: QuotaEntry,
}

/// Names of claims; dots lead into objects, as in `realm_access.roles`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Claims")]
pub(super) struct ClaimsEntry {
    /// Who calls: a text of at most 128 characters.
    pub(super) name: String,
    /// The tenant. A token without it is refused.
    pub(super) tenant: Option<String>,
    /// Roles: a list, or a text with blanks between them. What is no role here is passed over.
    pub(super) roles: Option<String>,
}

impl Default for ClaimsEntry {
    fn default() -> Self {
        Self { name: "sub".to_owned(), tenant: None, roles: None }
    }
}

/// A way to sign with a private key. Shared secrets (HS256) are no choice here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "Algorithm")]
#[allow(missing_docs, clippy::upper_case_acronyms, reason = "RFC 7518 and RFC 8037 name them")]
pub(super) enum Signing {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

fn default_algorithms() -> Vec<Signing> {
    vec![Signing::RS256, Signing::ES256, Signing::EdDSA]
}

fn default_leeway() -> Span {
    Span(std::time::Duration::from_secs(30))
}

fn roles(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "uniqueItems": true, "items": { "enum": Role::ALL.map(Role::name) },
    })
}

fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([0-9]+ ?[a-z]+ ?)+$" })
}

fn optional_duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "pattern": "^([0-9]+ ?[a-z]+ ?)+$" })
}
