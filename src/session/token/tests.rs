//! Claims about resume tokens and their keys.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 16;

fn ring(ids: &[&str]) -> Keyring {
    let line = |id: &&str| {
        // The key follows from the id, so that rings share keys.
        let key: Vec<u8> = id.bytes().cycle().take(KEY_BYTES).collect();
        format!("{id}:{}\n", STANDARD.encode(key))
    };
    Keyring::parse(&ids.iter().map(line).collect::<String>()).unwrap()
}

fn seal(ring: &Keyring, payload: &[u8]) -> Bytes {
    ring.seal(b"ward/ann", payload, 1_000, LIMIT).unwrap()
}

#[test]
fn what_was_sealed_comes_out_for_the_same_caller_until_it_expires() {
    let ring = ring(&["a"]);
    for payload in [&b""[..], b"x", &[7; 10_000]] {
        let token = seal(&ring, payload);
        assert_eq!(ring.open(b"ward/ann", &token, 999, LIMIT).unwrap(), payload);
        assert_eq!(token.len(), 4 + 1 + 1 + 1 + 8 + 24 + payload.len() + 16);
        assert_eq!(ring.open(b"ward/bob", &token, 999, LIMIT), Err(TokenError::Refused));
        assert_eq!(ring.open(b"", &token, 999, LIMIT), Err(TokenError::Refused));
        let expired = ring.open(b"ward/ann", &token, 1_060, LIMIT);
        assert_eq!(expired, Err(TokenError::Expired { ago_s: 60 }));
        // Another caller does not even learn that.
        assert_eq!(ring.open(b"ward/bob", &token, 1_060, LIMIT), Err(TokenError::Refused));
    }
}

#[test]
fn the_first_key_seals_and_all_open() {
    let (old, both, new) = (ring(&["old"]), ring(&["new", "old"]), ring(&["new"]));
    let token = seal(&old, b"x");
    assert!(both.open(b"ward/ann", &token, 0, LIMIT).is_ok());
    let unknown = new.open(b"ward/ann", &token, 0, LIMIT);
    assert_eq!(unknown, Err(TokenError::UnknownKey { id: "old".to_owned() }));
    let token = seal(&both, b"x");
    assert!(new.open(b"ward/ann", &token, 0, LIMIT).is_ok());
    assert!(old.open(b"ward/ann", &token, 0, LIMIT).is_err());
}

#[test]
fn the_same_payload_is_never_sealed_to_the_same_bytes() {
    let ring = ring(&["a"]);
    assert_ne!(seal(&ring, b"x"), seal(&ring, b"x"));
}

#[test]
fn tokens_that_are_too_large_are_neither_made_nor_opened() {
    let ring = ring(&["a"]);
    let size = seal(&ring, b"12345").len();
    assert!(ring.seal(b"", b"12345", 9, size).is_ok());
    let refused = TokenError::TooLarge { actual: size, limit: size - 1 };
    assert_eq!(ring.seal(b"", b"12345", 9, size - 1), Err(refused.clone()));
    assert_eq!(ring.open(b"ward/ann", &seal(&ring, b"12345"), 0, size - 1), Err(refused));
}

#[test]
fn each_kind_of_wrong_bytes_is_told_from_the_others() {
    let ring = ring(&["a"]);
    let token = seal(&ring, b"payload").to_vec();
    let open = |token: &[u8]| ring.open(b"ward/ann", token, 0, LIMIT).unwrap_err();
    assert_eq!(open(b""), TokenError::NoToken);
    assert_eq!(open(b"UTRT"), TokenError::NoToken);
    assert_eq!(open(&[0; 200]), TokenError::NoToken);
    assert_eq!(open(&token[..token.len() - 2]), TokenError::Refused);
    assert_eq!(open(&token[..40]), TokenError::NoToken);
    let mut other = token.clone();
    other[4] = 9;
    assert_eq!(open(&other), TokenError::OtherVersion { actual: 9 });
    let mut other = token.clone();
    other[6] = b'b';
    assert_eq!(open(&other), TokenError::UnknownKey { id: "b".to_owned() });
}

#[test]
fn a_later_expiry_is_not_believed() {
    let ring = ring(&["a"]);
    let mut token = seal(&ring, b"payload").to_vec();
    token[7..15].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(ring.open(b"ward/ann", &token, 2_000, LIMIT), Err(TokenError::Refused));
}

#[test]
fn a_file_of_keys_is_read_line_by_line() {
    let (a, b) = (new_key().unwrap(), new_key().unwrap());
    let ring = Keyring::parse(&format!("# today's\n\n{a}\r\n  {b}  \n")).unwrap();
    let ids: Vec<&str> = ring.ids().collect();
    assert_eq!(ids, [a.split(':').next().unwrap(), b.split(':').next().unwrap()]);
    let error = |text: &str| Keyring::parse(text).unwrap_err().to_string();
    assert!(error("# nothing\n").contains("undertone resume-key"));
    for (wrong, problem) in [
        ("nonsense", "no colon"),
        ("a b:AAAA", "an id has"),
        (":AAAA", "an id has"),
        ("a:%%%", "no base64"),
        ("a:AAAA", "not 32 bytes"),
    ] {
        let message = error(&format!("# one\n{b}\n{wrong}\n"));
        assert!(message.contains("line 3") && message.contains(problem), "{wrong}: {message}");
    }
    assert!(error(&format!("{a}\n{a}")).contains("line 2"));
}

#[test]
fn no_key_is_ever_shown() {
    let line = new_key().unwrap();
    let (id, key) = line.split_once(':').unwrap();
    let shown = format!("{:?}", Keyring::parse(&line).unwrap());
    assert!(shown.contains(id) && !shown.contains(&key[..8]), "{shown}");
    // Nor what was meant to be one.
    let almost = format!("{id}:{}", &key[..40]);
    let error = Keyring::parse(&almost).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(&key[..8]));
}

#[test]
fn a_ring_without_a_file_opens_its_own_tokens_only() {
    let (one, other) = (Keyring::random().unwrap(), Keyring::random().unwrap());
    let token = seal(&one, b"x");
    assert!(one.open(b"ward/ann", &token, 0, LIMIT).is_ok());
    // And knows that it is not its own.
    let error = other.open(b"ward/ann", &token, 0, LIMIT).unwrap_err();
    assert!(matches!(error, TokenError::UnknownKey { .. }), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_panic(head in 0_usize..60, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let ring = ring(&["a"]);
        prop_assert!(ring.open(b"", &bytes, 0, LIMIT).is_err());
        let mut begun = seal(&ring, b"payload").to_vec();
        begun.truncate(head);
        begun.extend(bytes);
        prop_assert!(ring.open(b"ward/ann", &begun, 0, LIMIT).is_err());
    }

    #[test]
    fn one_changed_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let ring = ring(&["a"]);
        let mut token = seal(&ring, b"some payload").to_vec();
        let at = at.index(token.len());
        token[at] ^= 1 << bit;
        prop_assert!(ring.open(b"ward/ann", &token, 0, LIMIT).is_err());
    }
}
