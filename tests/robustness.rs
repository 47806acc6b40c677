//! Whatever bytes a file holds, reading it ends in a value or in an error of one sentence: never in a panic, a hang or
//! an absurd allocation. Property tests spoil valid files at random; the cases by hand are those an attacker would try.
#![cfg(feature = "import")]

mod common;
mod pth;

use std::io::Cursor;
use std::sync::LazyLock;

use grug::checkpoint::Checkpoint;
use grug::import::pickle::Pickle;
use grug::import::{PublishedConfig, read_from};
use grug::manifest::ModelTensors;
use grug::{Model, ModelConfig, ModelOptions};
use proptest::prelude::*;
use pth::Pth;
use serde_json::{Map, Value as Json, json};

/// Valid model files, one for each kind of model.
static MODELS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    common::ALL
        .iter()
        .map(|(_, toml)| {
            common::write_random_model(&path, &ModelConfig::from_toml(toml).unwrap(), 1);
            std::fs::read(&path).unwrap()
        })
        .collect()
});

/// A change to a file. Positions are fractions of its length, so that they fit any.
#[derive(Debug, Clone)]
enum Damage {
    Set { at: f64, byte: u8 },
    Cut { at: f64 },
    Remove { at: f64, len: usize },
    Insert { at: f64, bytes: Vec<u8> },
    Copy { from: f64, to: f64, len: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || 0.0..1.0f64;
    prop_oneof![
        8 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set { at, byte }),
        1 => at().prop_map(|at| Damage::Cut { at }),
        1 => (at(), 1..40usize).prop_map(|(at, len)| Damage::Remove { at, len }),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        1 => (at(), at(), 1..40usize).prop_map(|(from, to, len)| Damage::Copy { from, to, len }),
    ]
}

/// Applies damage to the first `reach` bytes, where the structure of a file is.
fn spoil(file: &[u8], reach: usize, damages: &[Damage]) -> Vec<u8> {
    let mut file = file.to_vec();
    for damage in damages {
        let reach = reach.min(file.len());
        let index = |at: f64| (at * reach as f64) as usize;
        match damage {
            Damage::Set { at, byte } => {
                if let Some(old) = file.get_mut(index(*at)) {
                    *old = *byte;
                }
            }
            Damage::Cut { at } => file.truncate(index(*at)),
            Damage::Remove { at, len } => {
                let start = index(*at);
                file.drain(start..(start + len).min(file.len()));
            }
            Damage::Insert { at, bytes } => {
                let at = index(*at);
                file.splice(at..at, bytes.iter().copied());
            }
            Damage::Copy { from, to, len } => {
                let (from, to) = (index(*from), index(*to));
                let len = (*len).min(file.len() - from.max(to));
                file.copy_within(from..from + len, to);
            }
        }
    }
    file
}

/// A message for a person: one that says something, on few lines.
fn check_message(message: &str) {
    assert!(!message.is_empty() && message.len() < 20_000, "{message}");
}

/// Reads a model file and, if it is one, computes with it.
fn try_model(file: Vec<u8>) {
    let checkpoint = match Checkpoint::from_bytes(file) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return check_message(error.message()),
    };
    match Model::from_checkpoint(checkpoint, &ModelOptions { n_threads: 1, ..Default::default() }) {
        Ok(model) => {
            if let Err(error) = model.raw_logits(b"some bytes") {
                check_message(error.message());
            }
        }
        Err(error) => check_message(error.message()),
    }
}

fn try_pth(file: Vec<u8>) {
    if let Err(error) = read_from(Cursor::new(file)) {
        check_message(error.message());
    }
}

/// Numbers that configurations are written with by accident or on purpose.
fn number() -> impl Strategy<Value = Json> {
    prop_oneof![
        (0..40i64).prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        prop::sample::select(vec![1i64 << 20, (1 << 20) + 1, 1 << 31, 1 << 32, i64::MAX, -1])
            .prop_map(Json::from),
    ]
}

fn json_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        4 => number(),
        1 => any::<bool>().prop_map(Json::from),
        1 => Just(Json::Null),
        1 => ".{0,12}".prop_map(Json::from),
        1 => prop::sample::select(vec!["zeros", "circular", "GELU", "relu", "nan", "1e9"]).prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            1 => prop::collection::hash_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// Some of these keys with any values.
fn settings(keys: &'static [&'static str]) -> impl Strategy<Value = Map<String, Json>> {
    prop::collection::vec((prop::sample::select(keys), json_value()), 0..6)
        .prop_map(|entries| entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

/// The keys of `ModelConfig`, one that it lacks among them.
const MODEL_KEYS: &[&str] = &[
    "context_bytes",
    "attention",
    "embedding_dim",
    "d_model",
    "n_heads",
    "n_layers",
    "ffn_multiplier",
    "ffn_activation",
    "ffn_gamma",
    "norm_first",
    "positions",
    "max_positions",
    "pad_short_input",
    "norm",
    "bias",
    "qk_norm",
    "n_kv_heads",
    "attention_window",
    "embedding_norm",
    "tied_head",
    "logit_softcap",
    "conv_frontend",
    "aggregated_stream",
    "dropout",
    "n_haeds",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_models_are_read_or_refused(
        which in 0..common::ALL.len(),
        in_header in prop::bool::weighted(0.9),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let file = &MODELS[which];
        let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        try_model(spoil(file, if in_header { header } else { file.len() }, &damages));
    }

    #[test]
    fn damaged_model_configurations_are_read_or_refused(
        which in 0..common::ALL.len(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let text = common::ALL[which].1.as_bytes();
        let text = String::from_utf8_lossy(&spoil(text, text.len(), &damages)).into_owned();
        if let Err(error) = ModelConfig::from_toml(&text) {
            check_message(error.message());
        }
    }

    #[test]
    fn any_settings_make_a_model_configuration_or_an_error(
        which in 0..common::ALL.len(),
        changes in settings(MODEL_KEYS),
    ) {
        let mut map: Map<String, Json> = toml::from_str(common::ALL[which].1).unwrap();
        map.extend(changes);
        let Ok(text) = toml::to_string(&map) else { return Ok(()) };
        match ModelConfig::from_toml(&text) {
            Ok(config) => {
                prop_assert_eq!(&ModelConfig::from_toml(&config.to_toml()).unwrap(), &config);
                // No shape of a valid configuration overflows, nor does the list of them become absurd.
                let specs = ModelTensors::specs(&config).into_leaves();
                prop_assert!(specs.iter().all(|spec| !spec.is_empty()));
                prop_assert!(ModelTensors::count_parameters(&config) > 0);
            }
            Err(error) => check_message(error.message()),
        }
    }

    #[test]
    fn any_published_configuration_makes_a_model_or_an_error(
        changes in settings(PublishedConfig::KEYS),
        early in any::<bool>(),
    ) {
        let mut map = Pth::small().config.as_object().unwrap().clone();
        map.extend(changes);
        if early {
            map.remove("use_parallel_stream_model");
        }
        match PublishedConfig::from_map(&map, None).and_then(|config| {
            // What is read is written and read again as it is.
            let again: Map<String, Json> = serde_json::from_str(&config.to_json()).unwrap();
            assert_eq!(PublishedConfig::from_map(&again, Some(config.generation)).unwrap(), config);
            config.to_model_config()
        }) {
            Ok(config) => config.validate().unwrap(),
            Err(error) => check_message(error.message()),
        }
        let mut pth = Pth::small();
        pth.config = Json::Object(map);
        try_pth(pth.file());
    }

    #[test]
    fn damaged_archives_are_read_or_refused(
        deflate in any::<bool>(),
        damages in prop::collection::vec(damage(), 1..6),
        at_the_end in any::<bool>(),
    ) {
        let mut pth = Pth::small();
        pth.deflate = deflate;
        let mut file = pth.file();
        // The table of contents is at the end: damage the file backwards.
        if at_the_end {
            file.reverse();
            file = spoil(&file, 4000, &damages);
            file.reverse();
        } else {
            file = spoil(&file, usize::MAX, &damages);
        }
        try_pth(file);
    }

    #[test]
    fn damaged_pickles_are_read_or_refused(damages in prop::collection::vec(damage(), 1..6)) {
        let pickle = Pth::small().pickle().0;
        let spoiled = spoil(&pickle, pickle.len(), &damages);
        let _ = Pickle::parse(&spoiled);
        try_pth(Pth::small().file_with(&spoiled));
    }

    #[test]
    fn any_opcodes_are_read_or_refused(
        opcodes in prop::collection::vec(
            prop_oneof![4 => prop::sample::select(&b"()]}.aestuldbRQNqhKX012\x85\x86\x87\x88\x94"[..]), 1 => any::<u8>()],
            0..200,
        )
    ) {
        let pickle = [&[0x80, 2][..], &opcodes].concat();
        if let Err(error) = Pickle::parse(&pickle) {
            check_message(error.message());
        }
    }
}

/// A model file with this header and this much data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

/// Asserts that a model file is refused with all of these words.
fn refused(file: Vec<u8>, words: &[&str]) {
    let error = Checkpoint::from_bytes(file).expect_err(&format!("accepted instead of {words:?}"));
    for word in words {
        assert!(error.message().contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn hostile_headers_are_refused() {
    let config = common::CAUSAL_PLAIN;
    let one = |name: &str, dtype: &str, shape: Json, offsets: Json| {
        json!({
            "__metadata__": { "grug.config": config },
            name: { "dtype": dtype, "shape": shape, "data_offsets": offsets },
        })
        .to_string()
    };
    // Lengths of the header that the file does not have, up to all of the address space.
    for len in [9u64, 100_000_001, 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        refused([&len.to_le_bytes()[..], b"{}"].concat(), &["header"]);
    }
    refused(with_header("{}", 0), &["grug.config"]);
    refused(with_header("[]", 0), &["header"]);
    refused(with_header(&"[".repeat(100_000), 0), &["header"]);
    refused(with_header(&format!("{{\"a\":{}", "{\"a\":".repeat(100_000)), 0), &["header"]);
    refused(with_header("\u{fffd}", 0), &["header"]);
    // Tensors whose place or size is a lie.
    let huge = u64::MAX;
    for (shape, offsets, data) in [
        (json!([huge, huge]), json!([0, 4]), 4),
        (json!([1u64 << 62]), json!([0, 4]), 4),
        (json!([256, 16]), json!([0, huge]), 4),
        (json!([256, 16]), json!([huge, huge]), 4),
        (json!([256, 16]), json!([16_384, 0]), 16_384),
        (json!([256, 16]), json!([4, 16_388]), 16_388),
        (json!([256, 16]), json!([0, 16_384]), 16_000),
        (json!([256, 16]), json!([0, 16_384]), 20_000),
        (json!([256, 16]), json!([0, 100]), 100),
        (json!([-1]), json!([0, 4]), 4),
        (json!([0.5]), json!([0, 4]), 4),
        (json!("all"), json!([0, 4]), 4),
    ] {
        refused(with_header(&one("embedding.weight", "F32", shape, offsets), data), &[]);
    }
    refused(with_header(&one("embedding.weight", "F33", json!([1]), json!([0, 4])), 4), &["header"]);
    refused(
        with_header(&one("embedding.weight", "I64", json!([256, 16]), json!([0, 32_768])), 32_768),
        &["embedding.weight", "I64"],
    );
    refused(
        with_header(&one("embedding.weight", "F32", json!([16, 256]), json!([0, 16_384])), 16_384),
        &["embedding.weight", "[16, 256]", "[256, 16]"],
    );
    // Two tensors on the same bytes.
    let overlapping = json!({
        "__metadata__": { "grug.config": config },
        "a": { "dtype": "F32", "shape": [4], "data_offsets": [0, 16] },
        "b": { "dtype": "F32", "shape": [4], "data_offsets": [8, 24] },
    });
    refused(with_header(&overlapping.to_string(), 24), &["header"]);
    // Settings that are no numbers, or that ask for more than there can be.
    for (key, value) in [
        ("ffn_gamma", "nan"),
        ("logit_softcap", "inf"),
        ("ffn_gamma", "-inf"),
        ("context_bytes", "9223372036854775807"),
        ("attention_window", "1048577"),
        ("n_kv_heads", "-1"),
        ("dropout.output", "nan"),
    ] {
        let toml = format!("{key} = {value}\n{config}");
        let header = json!({ "__metadata__": { "grug.config": toml } }).to_string();
        refused(with_header(&header, 0), &[key.split('.').next().unwrap()]);
    }
    // A setting of early models that there is no longer: a model that has it is another model.
    let toml = format!("bigram_dim = 16\n{config}");
    let header = json!({ "__metadata__": { "grug.config": toml } }).to_string();
    refused(with_header(&header, 0), &["bigram_dim", "not part of the family any more"]);
    let layers = config.replace("n_layers = 2", "n_layers = 1000000");
    refused(
        with_header(&json!({ "__metadata__": { "grug.config": layers } }).to_string(), 0),
        &["n_layers", "1000000"],
    );
    // The largest configuration that is valid calls for tensors that are not there.
    let largest = "context_bytes = 1048576\nembedding_dim = 1048576\nd_model = 1048576\nn_heads = 1\nn_layers = 1024\n\
                   ffn_multiplier = 1\npositions = \"sinusoidal\"\n";
    refused(
        with_header(&json!({ "__metadata__": { "grug.config": largest } }).to_string(), 0),
        &["embedding.weight", "missing"],
    );
    // Twenty convolutions of 2^60 numbers are more than can be counted, and are counted as that.
    let conv = ["1048576"; 20].join(", ");
    let uncountable = format!("{largest}conv_frontend = {{ channels = [{conv}], kernels = [{conv}] }}");
    assert_eq!(ModelTensors::count_parameters(&ModelConfig::from_toml(&uncountable).unwrap()), usize::MAX);
}

#[test]
fn every_truncation_of_a_model_is_refused() {
    for file in MODELS.iter() {
        let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        for len in (0..header).step_by(17).chain((header..file.len()).step_by(4001)) {
            refused(file[..len].to_vec(), &[]);
        }
        let mut longer = file.clone();
        longer.push(0);
        refused(longer, &["truncated or has bytes left over"]);
    }
}
