//! How telephone systems prove who they are: by what they sign with.
//!
//! | system | proof | source |
//! |---|---|---|
//! | Twilio | `X-Twilio-Signature`: HMAC-SHA1 of the URL under the account's auth token | Twilio, "Webhooks security" |
//! | Genesys `AudioHook` | `X-API-KEY`, and where a client secret is agreed on, a signature of the request: HMAC-SHA256 over named headers, not older than [`MAX_AGE`] | Genesys, "`AudioHook` protocol, security"; RFC 9421 |
//!
//! Both are off unless an identity of the file has one: there is no caller without a proof, also where no identities
//! are configured.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use sfv::{BareItem, Dictionary, FieldType as _, InnerList, List, ListEntry, Parser, StringRef};
use tonic::codegen::http::HeaderMap;

use super::error::Refusal;
use super::token::TokenHash;
use crate::identity::Identity;

/// Oldest signature that is taken: the reference implementation's figure.
const MAX_AGE: Duration = Duration::from_secs(10);
/// How far a caller's clock may be ahead or behind.
const SKEW: Duration = Duration::from_secs(3);
/// Shortest nonce, characters: 128 bits in base64.
const NONCE: usize = 22;
/// What a signature must be over.
const COVERED: [&str; 6] = [
    "@request-target",
    "@authority",
    "audiohook-organization-id",
    "audiohook-session-id",
    "audiohook-correlation-id",
    API_KEY,
];
const API_KEY: &str = "x-api-key";

/// A Twilio account.
#[derive(Debug)]
pub(super) struct TwilioAccount {
    /// Its SID.
    pub(super) account: String,
    key: hmac::Key,
    identity: Arc<Identity>,
}

impl TwilioAccount {
    /// With its auth token.
    pub(super) fn new(account: String, auth_token: &str, identity: Arc<Identity>) -> Self {
        // What Twilio signs with; an attack on SHA-1's collisions is none on HMAC.
        let algorithm = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
        Self { account, key: hmac::Key::new(algorithm, auth_token.as_bytes()), identity }
    }
}

/// Whose account has signed a request for one of `urls`, which are ways to write the same one; and its SID.
///
/// # Errors
/// [`Refusal::SignatureMissing`], [`Refusal::SignatureInvalid`].
pub(super) fn of_twilio(
    accounts: &[TwilioAccount],
    urls: &[String],
    signature: Option<&str>,
) -> Result<(Arc<Identity>, String), Refusal> {
    let signature = signature.ok_or(Refusal::SignatureMissing { header: "X-Twilio-Signature" })?;
    let signature = STANDARD.decode(signature).unwrap_or_default();
    // All are tried, so that how long it takes tells nothing of whose it is.
    let mut found = None;
    for account in accounts {
        for url in urls {
            if hmac::verify(&account.key, url.as_bytes(), &signature).is_ok() {
                found = Some((account.identity.clone(), account.account.clone()));
            }
        }
    }
    found.ok_or_else(|| {
        let url = urls.first().map_or("", String::as_str);
        Refusal::SignatureInvalid {
            problem: format!(
                "no account of the file has signed {url}; is that the URL that Twilio calls (public_url), \
                 and the auth token the account's primary one?"
            ),
        }
    })
}

/// An `AudioHook` integration.
#[derive(Debug)]
pub(super) struct AudioHookClient {
    /// The hash of its API key.
    pub(super) api_key: TokenHash,
    /// What it signs with; nothing, if its requests are not signed.
    secret: Option<hmac::Key>,
    identity: Arc<Identity>,
}

impl AudioHookClient {
    /// With the client secret's bytes, if there is one.
    pub(super) fn new(api_key: TokenHash, secret: Option<&[u8]>, identity: Arc<Identity>) -> Self {
        let secret = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret));
        Self { api_key, secret, identity }
    }
}

/// A request as its client has signed it.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Signed<'a> {
    /// The headers.
    pub(in crate::server) headers: &'a HeaderMap,
    /// The host, and the port if it is not the scheme's own, as the client calls it.
    pub(in crate::server) authority: &'a str,
    /// Path and query, as the client calls it.
    pub(in crate::server) target: &'a str,
}

/// Whose integration sends this request.
///
/// # Errors
/// [`Refusal`].
pub(super) fn of_audiohook(
    clients: &[AudioHookClient],
    request: Signed<'_>,
    now: SystemTime,
) -> Result<Arc<Identity>, Refusal> {
    let key = request.header(API_KEY);
    let key = key.ok_or(Refusal::SignatureMissing { header: "X-API-KEY" })?;
    let hash = TokenHash::of(&key);
    let client = clients.iter().find(|client| client.api_key == hash);
    let client = client.ok_or(Refusal::TokenUnknown)?;
    if let Some(secret) = &client.secret {
        request.verify(secret, &key, now).map_err(|problem| match problem {
            None => Refusal::SignatureMissing { header: "Signature" },
            Some(problem) => Refusal::SignatureInvalid { problem: problem.to_owned() },
        })?;
    }
    Ok(client.identity.clone())
}

impl Signed<'_> {
    /// A header's value; of several, joined as RFC 9110, section 5.3, wants it.
    fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.get_all(name).iter().map(|value| value.to_str().ok());
        let values: Option<Vec<&str>> = values.map(|value| value.map(str::trim)).collect();
        values.filter(|values| !values.is_empty()).map(|values| values.join(", "))
    }

    fn dictionary(&self, name: &str) -> Result<Option<Dictionary>, &'static str> {
        let text = self.header(name);
        let parsed = text.map(|text| Parser::new(&text).parse::<Dictionary>()).transpose();
        parsed.map_err(|_| "Signature or Signature-Input is no structured field (RFC 9651)")
    }

    /// Checks the first signature.
    ///
    /// # Errors
    /// What is wrong with it; `None` if there is none.
    fn verify(
        &self,
        secret: &hmac::Key,
        key: &str,
        now: SystemTime,
    ) -> Result<(), Option<&'static str>> {
        let inputs = self.dictionary("signature-input")?.ok_or(None)?;
        let signatures = self.dictionary("signature")?.ok_or(None)?;
        let (label, input) = inputs.first().ok_or(None)?;
        let ListEntry::InnerList(input) = input else {
            return Err(Some("Signature-Input is no list of components"));
        };
        let signature = match signatures.get(label) {
            Some(ListEntry::Item(item)) => item.bare_item.as_byte_sequence(),
            _ => None,
        };
        let signature = signature.ok_or(Some("Signature has no bytes for Signature-Input"))?;
        check_parameters(input, key, now)?;
        let base = self.base(input)?;
        hmac::verify(secret, base.as_bytes(), signature)
            .map_err(|_| Some("the signature is not by the client secret"))
    }

    /// What is signed (RFC 9421, section 2.5).
    fn base(&self, input: &InnerList) -> Result<String, &'static str> {
        let mut base = String::new();
        let mut missing = COVERED.to_vec();
        for item in &input.items {
            let name = match &item.bare_item {
                BareItem::String(name) if item.params.is_empty() => name.as_str(),
                _ => return Err("Signature-Input has components that are not known here"),
            };
            let value = match name {
                "@request-target" => Some(self.target.to_owned()),
                "@authority" => Some(self.authority.to_ascii_lowercase()),
                name if name.starts_with('@') => None,
                name => self.header(name),
            };
            let value = value.ok_or("a component that is signed is not there")?;
            missing.retain(|covered| *covered != name);
            // Writing to a text does not fail.
            let _ = writeln!(base, "\"{name}\": {value}");
        }
        if !missing.is_empty() {
            return Err("the signature leaves out what it must be over");
        }
        let parameters: List = vec![ListEntry::InnerList(input.clone())];
        let parameters = parameters.serialize().unwrap_or_default();
        let _ = write!(base, "\"@signature-params\": {parameters}");
        Ok(base)
    }
}

fn check_parameters(input: &InnerList, key: &str, now: SystemTime) -> Result<(), &'static str> {
    let text =
        |name: &str| input.params.get(name).and_then(BareItem::as_string).map(StringRef::as_str);
    let time = |name: &str| {
        let seconds = input.params.get(name)?.as_integer()?;
        let seconds = u64::try_from(i64::from(seconds)).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    if text("keyid") != Some(key) {
        return Err("keyid is not the X-API-KEY");
    }
    if text("alg").is_some_and(|algorithm| algorithm != "hmac-sha256") {
        return Err("alg is not hmac-sha256");
    }
    if text("nonce").is_none_or(|nonce| nonce.len() < NONCE) {
        return Err("nonce is missing or short");
    }
    let created = time("created").ok_or("created is missing")?;
    if created > now + SKEW {
        return Err("created lies in the future; are both clocks right?");
    }
    if created + MAX_AGE + SKEW < now || time("expires").is_some_and(|end| end + SKEW < now) {
        return Err("it is too old; are both clocks right?");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "wss://mycompany.com/websocket";

    fn identity(name: &str) -> Arc<Identity> {
        Arc::new(Identity { name: name.into(), ..Identity::anonymous().as_ref().clone() })
    }

    fn signed(token: &str, url: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
        STANDARD.encode(hmac::sign(&key, url.as_bytes()))
    }

    #[test]
    fn a_call_is_the_identity_s_whose_account_has_signed_it() {
        let accounts = [
            TwilioAccount::new("AC1".to_owned(), "12345", identity("one")),
            TwilioAccount::new("AC2".to_owned(), "67890", identity("two")),
        ];
        let urls = [URL.to_owned()];
        let (who, account) = of_twilio(&accounts, &urls, Some(&signed("67890", URL))).unwrap();
        assert_eq!((who.name.as_ref(), account.as_str()), ("two", "AC2"));
        for wrong in ["", "AAAA", &signed("other", URL), &signed("12345", "wss://evil.example/")] {
            let refusal = of_twilio(&accounts, &urls, Some(wrong)).unwrap_err();
            assert_eq!(refusal.reason(), "SIGNATURE_INVALID", "{wrong}");
        }
        let refusal = of_twilio(&accounts, &urls, None).unwrap_err();
        assert_eq!(refusal.reason(), "SIGNATURE_MISSING");
    }

    /// Made with Python's hmac and base64.
    #[test]
    fn a_signature_is_what_twilio_makes() {
        assert_eq!(signed("12345", URL), "NETyrW+fbl5p2evXykS3kvfrldg=");
    }

    /// The example of Genesys' documentation of `AudioHook`'s security.
    const EXAMPLE: [(&str, &str); 6] = [
        ("audiohook-organization-id", "d7934305-0972-4844-938e-9060eef73d05"),
        ("audiohook-session-id", "30b0e395-84d3-4570-ac13-9a62d8f514c0"),
        ("audiohook-correlation-id", "e160e428-53e2-487c-977d-96989bf5c99d"),
        (API_KEY, "SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh"),
        ("signature", "sig1=:NZBwyBHRRyRoeLqy1IzOa9VYBuI8TgMFt2GRDkDuJh4=:"),
        (
            "signature-input",
            "sig1=(\"@request-target\" \"@authority\" \"audiohook-organization-id\" \"audiohook-session-id\" \
             \"audiohook-correlation-id\" \"x-api-key\");keyid=\"SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh\";\
             nonce=\"VGhpc0lzQVVuaXF1ZU5vbmNl\";alg=\"hmac-sha256\";created=1641013200;expires=3282026430",
        ),
    ];
    const CREATED: u64 = 1_641_013_200;

    fn example(change: impl Fn(&mut HeaderMap), at: u64) -> Result<Arc<Identity>, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in EXAMPLE {
            headers.insert(name, value.parse().unwrap());
        }
        change(&mut headers);
        let secret = STANDARD.decode("TXlTdXBlclNlY3JldEtleVRlbGxOby0xITJAMyM0JDU=").unwrap();
        let hash = TokenHash::of("SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh");
        let clients = [AudioHookClient::new(hash, Some(&secret), identity("hook"))];
        let request = Signed {
            headers: &headers,
            authority: "audiohook.example.com",
            target: "/api/v1/voicebiometrics/ws",
        };
        of_audiohook(&clients, request, SystemTime::UNIX_EPOCH + Duration::from_secs(at))
    }

    #[test]
    fn the_documented_example_is_verified() {
        assert_eq!(example(|_| {}, CREATED + 5).unwrap().name.as_ref(), "hook");
    }

    #[test]
    fn what_is_changed_old_unsigned_or_unknown_is_refused() {
        let reason = |change: fn(&mut HeaderMap), at| example(change, at).unwrap_err();
        let other = |headers: &mut HeaderMap| {
            headers.insert("audiohook-session-id", "another".parse().unwrap());
        };
        assert_eq!(reason(other, CREATED).reason(), "SIGNATURE_INVALID");
        assert!(reason(|_| {}, CREATED + 60).to_string().contains("too old"));
        assert!(reason(|_| {}, CREATED - 60).to_string().contains("future"));
        let unsigned = |headers: &mut HeaderMap| {
            headers.remove("signature");
        };
        assert_eq!(reason(unsigned, CREATED).reason(), "SIGNATURE_MISSING");
        let less = |headers: &mut HeaderMap| {
            let input = headers["signature-input"].to_str().unwrap().replace(" \"x-api-key\"", "");
            headers.insert("signature-input", input.parse().unwrap());
        };
        assert!(reason(less, CREATED).to_string().contains("leaves out"));
        let unknown = |headers: &mut HeaderMap| {
            headers.insert(API_KEY, "nobody".parse().unwrap());
        };
        assert_eq!(reason(unknown, CREATED).reason(), "TOKEN_UNKNOWN");
        for garbage in ["", "sig1", "sig1=1", "sig1=(1 2);a", "(((", "sig1=()"] {
            let mut headers = HeaderMap::new();
            headers.insert("signature-input", garbage.parse().unwrap());
            headers.insert("signature", "sig1=:AAAA:".parse().unwrap());
            let request = Signed { headers: &headers, authority: "", target: "" };
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
            assert!(request.verify(&key, "k", SystemTime::now()).is_err(), "{garbage}");
        }
    }
}
