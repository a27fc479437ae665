//! See `undertone_fuzz::session::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| undertone_fuzz::session::session(data));
