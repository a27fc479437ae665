//! See `undertone_fuzz::json::json_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| undertone_fuzz::json::json_request(data));
