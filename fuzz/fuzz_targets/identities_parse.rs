//! See `undertone_fuzz::identities::identities_parse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| undertone_fuzz::identities::identities_parse(data));
