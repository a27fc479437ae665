//! See `undertone_fuzz::audio::audio_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| undertone_fuzz::audio::audio_decode(data));
