//! What a file of identities may say, and what is said about one that may not.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::identity::Role;
use crate::secrets::Secrets;

use super::Identities;

/// One file with a key, and one with nothing.
struct Files;

impl Secrets for Files {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            // RFC 8037, appendix A.2.
            Some("keys.json") => Ok(r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#
                .to_owned()),
            Some("secret.json") => Ok(r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#.to_owned()),
            _ => Err(io::Error::other("no such file")),
        }
    }
}

const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn parse(text: &str) -> Result<Identities, String> {
    let text = format!("schema: undertone.identities/v1\n{}", text.replace("HASH", HASH));
    Identities::parse(&text, &Files).map_err(|error| error.to_string())
}

#[test]
fn what_is_not_said_has_its_default() {
    let known = parse("identities: [{name: a, roles: [], tokens: [{hash: HASH}]}]").unwrap();
    let identity = &known.all()[0];
    assert_eq!((identity.tenant.as_str(), identity.all_tenants), ("default", false));
    assert_eq!(identity.quota, crate::identity::Quota::default());
    assert!(parse("").unwrap().all().is_empty());
}

#[test]
fn everything_that_is_said_counts() {
    let known = parse(
        "identities:\n  - name: a\n    tenant: b\n    all_tenants: true\n    roles: [watch, stream]\n    \
         quota: {streams: 2, audio_per_minute: 3m, clip_bytes: 4, chunk_bytes: 5}\n    \
         tokens: [{hash: HASH, expires: 2027-01-31T00:00:00Z}]\n    certificates: [{dns: c}, {uri: 'd:e'}]\n\
         jwt: [{name: s, issuer: i, audience: [u], jwks: keys.json, tenant: t, roles: [stream]}]\n",
    );
    let known = known.unwrap();
    let identity = &known.all()[0];
    assert_eq!(identity.roles, BTreeSet::from([Role::Stream, Role::Watch]));
    assert_eq!(identity.quota.audio_per_minute, Some(Duration::from_secs(180)));
    assert!(identity.all_tenants && known.has_certificates());
    assert_eq!(known.issuers().collect::<Vec<_>>(), [("s", "i")]);
}

#[test]
fn a_fault_names_its_place_its_field_and_what_to_do() {
    let two = "identities: [{name: a, roles: [], tokens: [{hash: HASH}]}, ";
    for (text, place, words) in [
        ("identities: 7", "line 2, column 13: identities", "sequence"),
        ("identities: [{name: a}]", "line 2, column 15: identities[0].name", "roles"),
        ("identities: [{name: a, roles: []}]", "identities[0]", "nothing proves"),
        ("identities: [{name: a b, roles: []}]", "column 21: identities[0].name", "A-Z a-z"),
        ("identities: [{name: a, roles: [root]}]", "identities[0].roles[0]", "acknowledge"),
        (&format!("{two}{{name: a, roles: []}}]"), "identities[1].name", "already"),
        (
            &format!("{two}{{name: b, roles: [], tokens: [{{hash: HASH}}]}}]"),
            "identities[1].tokens[0].hash",
            "twice",
        ),
        (
            "identities: [{name: a, roles: [], tokens: [{hash: ut_secret}]}]",
            "column 51: identities[0].tokens[0].hash",
            "never write a token",
        ),
        (
            "identities: [{name: a, roles: [], tokens: [{hash: HASH, expires: soon}]}]",
            "identities[0].tokens[0].expires",
            "2027-01-31",
        ),
        (
            "identities: [{name: a, roles: [], certificates: [{dns: a, uri: b}]}]",
            "identities[0].certificates[0]",
            "exactly one",
        ),
        (
            "identities: [{name: a, tenant: 'a b', roles: [], tokens: [{hash: HASH}]}]",
            "identities[0].tenant",
            "1 to 64",
        ),
        (
            "identities: [{name: a, roles: [], tokens: [{hash: HASH}], quota: {streams: 0}}]",
            "identities[0].quota.streams",
            "role stream",
        ),
        (
            "jwt: [{name: s, issuer: i, audience: [], jwks: keys.json}]",
            "jwt[0].audience",
            "claim aud",
        ),
        (
            "jwt: [{name: s, issuer: i, audience: [u], jwks: none.json}]",
            "jwt[0].jwks",
            "no such file",
        ),
        (
            "jwt: [{name: s, issuer: i, audience: [u], jwks: secret.json}]",
            "jwt[0].jwks",
            "can check a signature",
        ),
        (
            "jwt: [{name: s, issuer: i, audience: [u], jwks: 'http://sso.example/keys'}]",
            "jwt[0].jwks",
            "https://",
        ),
        (
            "jwt: [{name: s, issuer: i, audience: [u], jwks: keys.json, algorithms: [HS256]}]",
            "jwt[0].algorithms[0]",
            "RS256",
        ),
        (
            "jwt: [{name: s, issuer: i, audience: [u], jwks: keys.json, tenant: t, claims: {tenant: c}}]",
            "jwt[0].tenant",
            "leave one",
        ),
        (
            "jwt: [{name: s, issuer: i, audience: [u], jwks: keys.json, leeway: 1h}]",
            "jwt[0].leeway",
            "5m",
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.starts_with("line 2, column "), "{text}: {error}");
        assert!(error.contains(place) && error.contains(words), "{text}: {error}");
        assert!(!error.contains("ut_secret"), "{error}");
    }
    let error = Identities::parse("schema: v0", &Files).unwrap_err().to_string();
    assert!(error.contains("undertone.identities/v1"), "{error}");
}

#[test]
fn authorities_that_change_are_noticed() {
    struct With(String);
    impl Secrets for With {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }

        fn file(&self, _: &Path) -> io::Result<String> {
            Ok(self.0.clone())
        }
    }
    let pem = |name: &str| {
        let names = vec![name.to_owned()];
        With(rcgen::generate_simple_self_signed(names).unwrap().cert.pem())
    };
    let (one, other) = (pem("one"), pem("other"));
    let text = "schema: undertone.identities/v1\njwt: [{name: s, issuer: i, audience: [u], \
                jwks: 'https://sso.example/keys', ca: ca.pem}]\n";
    let known = Identities::parse(text, &one).unwrap();
    assert!(known.files_are_as_read(&one));
    assert!(!known.files_are_as_read(&other) && !known.files_are_as_read(&Files));
}
