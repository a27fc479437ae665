//! See `undertone_fuzz::audio::container_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    // libFuzzer's own hook ends the process at any panic. Those of symphonia are caught by
    // `audio::container` and are no finding; whatever gets through still ends the process.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |data: &[u8]| undertone_fuzz::audio::container_decode(data)
);
