//! Any bytes as a published checkpoint.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = grug::import::read_from(Cursor::new(data));
});
