#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| grug_fuzz::targets::c_calls(data));
