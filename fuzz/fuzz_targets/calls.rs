//! Any bytes as a sequence of calls on sessions and samplers.
#![no_main]

use grug_fuzz::{calls, small};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| small::with_model(|model| calls::run(model, data)));
