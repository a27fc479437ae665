//! See `undertone_fuzz::policy::policy_parse`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| undertone_fuzz::policy::policy_parse(data));
