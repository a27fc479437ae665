#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| undertone_fuzz::resume::resume_token(data));
