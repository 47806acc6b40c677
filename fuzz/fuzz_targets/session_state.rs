#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grug_fuzz::targets::session_state(data));
