//! Any bytes as the pickle of a checkpoint that is otherwise whole: the archive's checksum keeps a fuzzer out of it.
#![no_main]

use std::io::Cursor;
use std::sync::LazyLock;

use grug_fuzz::pth::Pth;
use libfuzzer_sys::fuzz_target;

static SMALL: LazyLock<Pth> = LazyLock::new(Pth::small);

fuzz_target!(|data: &[u8]| {
    let _ = grug::import::read_from(Cursor::new(SMALL.file_with(data)));
});
