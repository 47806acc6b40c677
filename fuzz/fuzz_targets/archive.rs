//! Any bytes as an archive: an error, or bytes that compress to an archive again.
#![no_main]

use grug::{SessionOptions, compress, compress_bound, decompress};
use grug_fuzz::small::{patched, with_model};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // An archive of n bytes decodes to 5,700 times as many at most; keep each run short.
    if data.len() > 200 {
        return;
    }
    with_model(|model| {
        let options = SessionOptions::default();
        let valid = compress(model, &options, data).expect("anything compresses");
        assert!(valid.len() <= compress_bound(data.len()));
        assert_eq!(decompress(model, &options, &valid).as_deref(), Ok(data));
        for archive in [data.to_vec(), patched(data, &valid[..32], 12..16, false)] {
            let _ = decompress(model, &options, &archive);
        }
    });
});
