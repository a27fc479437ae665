#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let model = undertone_fuzz::session::stand_in().get("").expect("there is one");
    undertone_fuzz::resume::resume_state(data, model);
});
