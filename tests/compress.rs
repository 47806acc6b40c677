//! Compression, and the portable logits that it stands on.

mod common;

use common::{ALL, CAUSAL_MODERN, CAUSAL_PLAIN, some_bytes, write_random_model};
use grug::checkpoint::Checkpoint;
use grug::{
    Cancel, ErrorKind, Model, ModelConfig, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions,
    compress, compress_bound, decompress, decompressed_len,
};
use proptest::prelude::*;

fn portable_model(toml: &str, n_threads: usize, seed: u64) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_random_model(&path, &ModelConfig::from_toml(toml).unwrap(), seed);
    let options = ModelOptions { n_threads, portable: true, ..Default::default() };
    Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options).unwrap()
}

fn defaults() -> SessionOptions {
    SessionOptions::default()
}

/// Text that the model half expects: written by itself, of the likeliest bytes.
fn expected_text(model: &Model, n: usize) -> Vec<u8> {
    let mut session = Session::new(model, &defaults()).unwrap();
    session.feed(b"abcdefgh").unwrap();
    let options = SamplerOptions { seed: 4, temperature: 1.0, top_k: 4, ..Default::default() };
    let (mut out, mut written) = (vec![0; n], 0);
    session.generate(&mut Sampler::new(&options).unwrap(), &[], &mut out, &mut written).unwrap();
    [b"abcdefgh", &out[..]].concat()
}

#[test]
fn portable_logits_are_these_bits() {
    // If this fails, archives that were made before no longer decode: that needs a new major version.
    let expected = [
        ("causal plain", 7049342769267182394u64),
        ("causal modern", 13851414570786519137),
        ("causal parallel", 5819299036176587503),
        ("bidirectional padded", 13917233964213412469),
        ("parallel", 5742317534254746750),
    ];
    let seen = ALL.map(|(name, toml)| {
        let mut session = Session::new(&portable_model(toml, 1, 1), &defaults()).unwrap();
        let mut bits = Vec::new();
        for part in some_bytes(60, 5).chunks(10) {
            session.feed(part).unwrap();
            bits.extend(session.logits().unwrap().iter().flat_map(|l| l.to_le_bytes()));
        }
        (name, xxhash_rust::xxh3::xxh3_64(&bits))
    });
    assert_eq!(seen, expected);
}

#[test]
fn portable_logits_do_not_depend_on_threads_or_chunks() {
    for (name, toml) in ALL {
        let bytes = some_bytes(61, 7);
        let mut results = Vec::new();
        for (threads, chunk) in [(1, 1), (1, 61), (2, 7), (3, 1)] {
            let mut session = Session::new(&portable_model(toml, threads, 1), &defaults()).unwrap();
            bytes.chunks(chunk).for_each(|part| session.feed(part).unwrap());
            let logits = session.logits().unwrap().map(f32::to_bits);
            // And going back and on again ends at the same bits.
            session.rewind(9).unwrap();
            session.feed(&bytes[52..]).unwrap();
            assert_eq!(session.logits().unwrap().map(f32::to_bits), logits, "{name}");
            results.push(logits);
        }
        assert!(results.iter().all(|r| *r == results[0]), "{name}");
    }
}

#[test]
fn everything_comes_back() {
    for (name, toml) in ALL {
        let model = portable_model(toml, 1, 1);
        let expected = expected_text(&model, 300);
        for bytes in [&b""[..], b"x", b"hello", &some_bytes(100, 3), &expected] {
            let archive = compress(&model, &defaults(), bytes).unwrap();
            assert!(archive.len() <= compress_bound(bytes.len()), "{name}");
            assert_eq!(decompressed_len(&archive).unwrap(), bytes.len() as u64);
            assert_eq!(decompress(&model, &defaults(), &archive).unwrap(), bytes, "{name}");
        }
    }
}

#[test]
fn the_cost_is_what_the_model_is_surprised() {
    let model = portable_model(CAUSAL_PLAIN, 1, 1);
    let text = expected_text(&model, 2000);
    let nats = Session::new(&model, &defaults()).unwrap().score(&text, None).unwrap();
    let archive = compress(&model, &defaults(), &text).unwrap();
    let ideal = nats / std::f64::consts::LN_2 / 8.0;
    assert!(ideal < text.len() as f64 * 0.9, "the text should be compressible, or this shows nothing");
    let coded = (archive.len() - 48) as f64;
    assert!((coded / ideal - 1.0).abs() < 0.01, "{coded} bytes for {ideal}");
}

#[test]
fn an_archive_decodes_on_other_thread_counts_and_from_the_context_it_names() {
    let text = expected_text(&portable_model(CAUSAL_MODERN, 1, 1), 200);
    let options = SessionOptions { max_context: 10, ..Default::default() };
    let archive = compress(&portable_model(CAUSAL_MODERN, 3, 1), &options, &text).unwrap();
    for threads in [1, 2] {
        let model = portable_model(CAUSAL_MODERN, threads, 1);
        assert_eq!(decompress(&model, &defaults(), &archive).unwrap(), text);
    }
}

#[test]
fn the_wrong_model_and_the_wrong_bytes_are_told_apart() {
    let model = portable_model(CAUSAL_PLAIN, 1, 1);
    let text = expected_text(&model, 100);
    let archive = compress(&model, &defaults(), &text).unwrap();
    let kind = |model: &Model, archive: &[u8]| decompress(model, &defaults(), archive).unwrap_err().kind();
    assert_eq!(kind(&portable_model(CAUSAL_PLAIN, 1, 2), &archive), ErrorKind::Mismatch);
    assert_eq!(kind(&common::random_model(CAUSAL_PLAIN), &archive), ErrorKind::Unsupported);
    assert_eq!(kind(&model, b""), ErrorKind::Format);
    assert_eq!(kind(&model, &archive[..40]), ErrorKind::Format);
    assert_eq!(kind(&model, &[&archive[..], b"\0"].concat()), ErrorKind::Format);
    let mut newer = archive.clone();
    newer[8] = 9;
    assert_eq!(kind(&model, &newer), ErrorKind::Version);
    let error = compress(&common::random_model(CAUSAL_PLAIN), &defaults(), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn an_archive_that_promises_the_moon_ends_where_its_payload_does() {
    let model = portable_model(CAUSAL_PLAIN, 1, 1);
    let mut archive = compress(&model, &defaults(), &expected_text(&model, 60)).unwrap();
    archive[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(decompressed_len(&archive).unwrap(), u64::MAX);
    let error = decompress(&model, &defaults(), &archive).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
}

#[test]
fn a_context_that_no_archive_of_the_model_has_is_a_bad_archive() {
    for (name, toml) in ALL {
        let model = portable_model(toml, 1, 1);
        let window = model.config().window_bytes() as u64;
        for text in [&b"raw"[..], &expected_text(&model, 100)] {
            let archive = compress(&model, &defaults(), text).unwrap();
            let shorter = if model.config().is_causal() { 1 } else { window - 1 };
            for context in [0, shorter, window + 1, u64::MAX] {
                let mut changed = archive.clone();
                changed[24..32].copy_from_slice(&context.to_le_bytes());
                let error = decompress(&model, &defaults(), &changed).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Format, "{name}, {context}: {error}");
            }
        }
    }
}

#[test]
fn both_ways_can_be_canceled() {
    let model = portable_model(CAUSAL_PLAIN, 1, 1);
    let text = expected_text(&model, 60);
    let archive = compress(&model, &defaults(), &text).unwrap();
    let cancel = Cancel::new();
    cancel.trigger();
    let options = SessionOptions { cancel: Some(cancel), ..Default::default() };
    assert_eq!(compress(&model, &options, &text).unwrap_err().kind(), ErrorKind::Canceled);
    assert_eq!(decompress(&model, &options, &archive).unwrap_err().kind(), ErrorKind::Canceled);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_changed_archive_is_an_error_and_never_other_bytes(
        at: prop::sample::Index, bit in 0u8..8, cut: Option<prop::sample::Index>
    ) {
        thread_local!(static CASE: (Model, Vec<u8>) = {
            let model = portable_model(CAUSAL_PLAIN, 1, 1);
            let archive = compress(&model, &defaults(), &expected_text(&model, 120)).unwrap();
            (model, archive)
        });
        CASE.with(|(model, archive)| {
            let mut changed = archive.clone();
            match cut {
                Some(cut) => changed.truncate(cut.index(archive.len())),
                None => changed[at.index(archive.len())] ^= 1 << bit,
            }
            assert!(decompress(model, &defaults(), &changed).is_err());
        });
    }
}
