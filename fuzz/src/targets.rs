//! What each fuzz target does with its bytes. Apart from the targets themselves, so that `tests/fuzz_corpus.rs` can do it
//! without a nightly compiler.

use std::io::Cursor;
use std::sync::LazyLock;

use grug::checkpoint::Checkpoint;
use grug::import::PublishedConfig;
use grug::manifest::ModelTensors;
use grug::{
    Grammar, GrammarKind, Model, ModelConfig, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions,
    compress, compress_bound, decompress, decompressed_len,
};

use crate::pth::Pth;
use crate::small::{patched, with_model};

/// A target: its name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: [Target; 10] = [
    ("archive", archive),
    ("c_calls", c_calls),
    ("calls", calls),
    ("checkpoint", checkpoint),
    ("config", config),
    ("grammar", grammar),
    ("pickle", pickle),
    ("pth", pth),
    ("published_config", published_config),
    ("session_state", session_state),
];

/// The longest text that a run decodes.
const LONGEST: u64 = 400;

/// Any bytes as an archive: an error, or bytes that compress to an archive again.
pub fn archive(data: &[u8]) {
    if data.len() > 200 {
        return; // each byte is a step of the model, three times
    }
    with_model(|model| {
        let options = SessionOptions::default();
        let valid = compress(model, &options, data).expect("anything compresses");
        assert!(valid.len() <= compress_bound(data.len()));
        assert_eq!(decompress(model, &options, &valid).as_deref(), Ok(data));
        for mut archive in [data.to_vec(), patched(data, &valid[..32], 12..16, false)] {
            // A payload of n bytes decodes to 5,700 times as many where the header promises as many: that takes long.
            if let Ok(len) = decompressed_len(&archive)
                && len > LONGEST
            {
                archive[32..40].copy_from_slice(&(len % LONGEST).to_le_bytes());
            }
            let _ = decompress(model, &options, &archive);
        }
    });
}

/// Any bytes as a sequence of calls on sessions and samplers.
pub fn calls(data: &[u8]) {
    with_model(|model| crate::calls::run(model, data));
}

/// Any bytes as a sequence of calls of the C functions.
pub fn c_calls(data: &[u8]) {
    crate::c_calls::run(data);
}

/// Any bytes as a model file: an error, or a model that computes.
pub fn checkpoint(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_bytes(data.to_vec())
        && let Ok(model) =
            Model::from_checkpoint(checkpoint, &ModelOptions { n_threads: 1, ..Default::default() })
    {
        let _ = model.raw_logits(b"some bytes");
    }
}

/// Any text as a model's configuration: an error, or a value that survives being written and read.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = ModelConfig::from_toml(text) {
        assert_eq!(ModelConfig::from_toml(&config.to_toml()).as_ref(), Ok(&config));
        assert!(ModelTensors::count_parameters(&config) > 0);
    }
}

/// A byte for the kind, eight for the walk, and any text as a grammar: an error, or an automaton whose walks are never
/// stuck.
pub fn grammar(data: &[u8]) {
    let Some((head, source)) = data.split_first_chunk::<9>() else { return };
    let Ok(source) = std::str::from_utf8(source) else { return };
    let kind = [GrammarKind::Regex, GrammarKind::Gbnf, GrammarKind::JsonSchema][head[0] as usize % 3];
    let mut random = u64::from_le_bytes(*head.last_chunk().expect("eight of nine bytes"));
    let Ok(grammar) = Grammar::new(kind, source) else { return };
    let options = SamplerOptions { grammar: Some(grammar.clone()), ..Default::default() };
    let Ok(mut sampler) = Sampler::new(&options) else { panic!("what compiled has a walk") };
    let mut text = Vec::new();
    for _ in 0..100 {
        let (mask, complete) = sampler.allowed();
        let allowed: Vec<u8> = (0..=255).filter(|b| mask[*b as usize / 8] >> (b % 8) & 1 != 0).collect();
        if complete {
            assert!(grammar.matches(&text));
        }
        let Some(&byte) = allowed.get(random as usize % allowed.len().max(1)) else {
            assert!(complete, "stuck");
            return;
        };
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
            .rotate_left(17);
        // Too ambiguous, or too deep: an error, and no change.
        if sampler.accept(byte).is_err() {
            assert_eq!(sampler.allowed(), (mask, complete));
            return;
        }
        text.push(byte);
    }
}

/// Any bytes as the pickle of a checkpoint that is otherwise whole: the archive's checksum keeps a fuzzer out of it.
pub fn pickle(data: &[u8]) {
    static SMALL: LazyLock<Pth> = LazyLock::new(Pth::small);
    let _ = grug::import::read_from(Cursor::new(SMALL.file_with(data)));
}

/// Any bytes as a published checkpoint.
pub fn pth(data: &[u8]) {
    let _ = grug::import::read_from(Cursor::new(data));
}

/// Any text as a published configuration: an error, or a value that survives being written and read.
pub fn published_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = PublishedConfig::from_json(text) {
        let map = serde_json::from_str(&config.to_json()).expect("what we write is JSON");
        assert_eq!(PublishedConfig::from_map(&map, Some(config.generation)).as_ref(), Ok(&config));
        if let Ok(model) = config.to_model_config() {
            model.validate().expect("a configuration that was made is valid");
        }
    }
}

/// Any bytes as a saved session: an error that changes nothing, or a session that goes on.
pub fn session_state(data: &[u8]) {
    with_model(|model| {
        let mut session = Session::new(model, &SessionOptions::default()).expect("a session");
        session.feed(b"before").expect("six bytes");
        // Magic, version and fingerprint of a valid one; flags, counts and bytes as they come.
        let valid = &session.save()[..32];
        for state in [data.to_vec(), patched(data, valid, 12..16, true)] {
            let position = session.position();
            if session.restore(&state).is_err() {
                assert_eq!(session.position(), position);
            }
            session.logits().expect("a prediction");
            let n = session.position().min(u64::from(data.first().copied().unwrap_or(0)));
            let _ = session.rewind(n);
            session.feed(b"after").expect("five bytes");
            session.logits().expect("a prediction");
        }
    });
}
