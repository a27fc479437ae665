//! The bodies of fuzz targets on stable Rust, driven by random bytes: sessions, with the stand-in model
//! and with the real tiny ones, policies, states, tokens, and files of identities.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use prost::Message as _;
use undertone::server::identity::{Access, Gate};

use crate::signal::{encode, speech};
use crate::support::{PLAIN, TINY, chunks, mark, wrap};

#[path = "../../fuzz/src/session.rs"]
#[allow(unreachable_pub, reason = "public for libFuzzer's target")]
mod session_target;

#[path = "../../fuzz/src/policy.rs"]
#[allow(unreachable_pub, reason = "public for libFuzzer's target")]
mod policy_target;

#[path = "../../fuzz/src/resume.rs"]
#[allow(unreachable_pub, reason = "public for libFuzzer's target")]
mod resume_target;

#[path = "../../fuzz/src/identities.rs"]
#[allow(unreachable_pub, reason = "public for libFuzzer's target")]
mod identities_target;

#[path = "../../fuzz/src/json.rs"]
#[allow(unreachable_pub, reason = "public for libFuzzer's target")]
mod json_target;

#[path = "../../fuzz/src/audio.rs"]
#[allow(unreachable_pub, reason = "public for libFuzzer's target")]
mod audio_target;

use audio_target::{audio_decode, container_decode};
use identities_target::identities_parse;
use json_target::json_request;
use policy_target::policy_parse;
use resume_target::{resume_state, resume_token};
use session_target::{session, session_with, stand_in};

/// A gate that knows those of the example.
static GATE: LazyLock<(tokio::runtime::Runtime, Arc<Gate>)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let signer = crate::pki::Signer::new("ES256", "one");
    let site = crate::pki::Site::new();
    site.write("jwks.json", &crate::pki::jwks(&[&signer]));
    let mut settings = crate::support::settings();
    let text = format!(
        "jwt: [{{name: sso, issuer: me, audience: [us], jwks: '{}'}}]\n",
        site.path("jwks.json").display()
    );
    site.identities(&mut settings, &text);
    (runtime, Gate::open(&settings).unwrap())
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_messages_panics_and_every_session_ends(
        data in prop::collection::vec(any::<u8>(), 0..1_500),
    ) {
        session(&data);
    }

    #[test]
    fn no_sequence_of_messages_that_begins_well_panics(
        config in prop::collection::vec(any::<u8>(), 24),
        data in prop::collection::vec(any::<u8>(), 0..1_500),
        mode in 0_u8..128,
    ) {
        // Made up, not decoded, with a configuration first.
        let data: Vec<u8> = [&[mode & !1][..], &config, &data].concat();
        session(&data);
        if mode % 8 == 0 {
            session_with(&data, &TINY);
        }
    }

    #[test]
    fn no_damage_to_a_policy_panics(
        which in 0_usize..3,
        at in any::<prop::sample::Index>(),
        length in 0_usize..60,
        filling in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (_, text) = undertone::policy::embedded()[which];
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        policy_parse(&[&text.as_bytes()[..at], &filling, &text.as_bytes()[end..]].concat());
    }

    #[test]
    fn no_damage_to_a_file_of_identities_panics(
        at in any::<prop::sample::Index>(),
        length in 0_usize..60,
        filling in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let text = include_bytes!("../../examples/identities.yaml");
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        identities_parse(&[&text[..at], &filling, &text[end..]].concat());
    }

    #[test]
    fn no_damage_to_a_request_in_json_panics(
        which in 0_usize..5,
        at in any::<prop::sample::Index>(),
        length in 0_usize..20,
        filling in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let text: [&[u8]; 5] = [
            include_bytes!("../../fuzz/corpus/json_request/config"),
            include_bytes!("../../fuzz/corpus/json_request/audio"),
            include_bytes!("../../fuzz/corpus/json_request/mark"),
            include_bytes!("../../fuzz/corpus/json_request/turn"),
            include_bytes!("../../fuzz/corpus/json_request/acknowledge"),
        ];
        let text = text[which];
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        json_request(&[&text[..at], &filling, &text[end..]].concat());
    }

    #[test]
    fn no_authorization_header_panics_and_made_up_ones_are_nobodys(
        scheme in prop::sample::select(vec!["Bearer ", "bearer ", "Basic ", ""]),
        token in "[A-Za-z0-9._~+/= -]{0,80}",
        dots in prop::collection::vec("[A-Za-z0-9_-]{0,60}", 3),
        junk in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for value in [
            format!("{scheme}{token}").into_bytes(),
            format!("{scheme}{}", dots.join(".")).into_bytes(),
            junk,
        ] {
            identities_parse(&value);
            let Ok(value) = axum::http::HeaderValue::from_bytes(&value) else { continue };
            let headers = [(axum::http::header::AUTHORIZATION, value)].into_iter().collect();
            let (runtime, gate) = &*GATE;
            assert!(runtime.block_on(gate.admit_as(Access::Known, "", &headers, None)).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_as_a_state_and_no_damage_to_one_panic(
        mode in any::<u8>(),
        format in any::<u8>(),
        stop in 0_u8..120,
        damage in prop::collection::vec((0_u16..400, 1_u8..=255), 0..4),
        rest in prop::collection::vec(any::<u8>(), 0..200),
        which in 0_usize..4,
    ) {
        let model = TINY.iter().nth(which).unwrap();
        let changes = damage.iter().flat_map(|(at, by)| {
            let [low, high] = at.to_le_bytes();
            [low, high, *by]
        });
        let data: Vec<u8> = if mode & 1 == 0 { rest } else { changes.collect() };
        resume_state(&[&[mode, format, stop], &data[..]].concat(), model);
    }

    #[test]
    fn no_bytes_as_a_token_panic(data in prop::collection::vec(any::<u8>(), 0..100)) {
        resume_token(&data);
    }
}

/// Inputs that reach, together, whatever fuzzing has reached.
#[test]
fn every_input_that_fuzzing_has_kept_is_handled() {
    let model = stand_in().get("").unwrap();
    let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let run = |target: &str, body: &dyn Fn(&[u8])| {
        let kept = std::fs::read_dir(corpora.join(target)).expect(target);
        let inputs = kept.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        let count = inputs.map(|input| body(&input)).count();
        assert!(count > 0, "{target} has none");
    };
    run("audio_decode", &audio_decode);
    run("container_decode", &container_decode);
    run("identities_parse", &identities_parse);
    run("policy_parse", &policy_parse);
    run("resume_state", &|data| resume_state(data, model));
    run("resume_token", &resume_token);
    run("session", &session);
}

#[test]
fn the_target_understands_recorded_messages_and_survives_any_one_damaged_byte() {
    let audio = encode(&speech(1, 0.8, 16_000), PLAIN.encoding);
    let mut requests = vec![wrap(undertone::wire::v1::stream_emotion_request::Message::Config(
        PLAIN.config().into(),
    ))];
    requests.extend(chunks(&audio, 2_000).into_iter().map(wrap));
    requests.push(wrap(mark("end")));
    let mut data = vec![1];
    for request in requests {
        let bytes = request.encode_to_vec();
        data.extend((bytes.len() as u16).to_le_bytes());
        data.extend(bytes);
    }
    session(&data);
    for at in (0..data.len()).step_by(97).chain(0..60) {
        for bit in [0x01, 0x80] {
            let mut damaged = data.clone();
            damaged[at] ^= bit;
            session(&damaged);
        }
    }
}
