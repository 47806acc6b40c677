//! Files that mean harm, handed to a host with little memory: a program in C, with a limit on its address space, offers
//! each as everything that a file can be (`tests/c/host/hostile.c`).
#![cfg(target_os = "linux")]

mod native;

use std::path::PathBuf;
use std::process::Command;

use grug::init::write_initial_model;
use grug::{Model, ModelConfig, ModelOptions};
use native::{compile, have, model_files, root, run, scratch};
use xxhash_rust::xxh3::xxh3_64;

/// Small files of valid models whose sessions would take gigabytes: for their keys and values, or while they compute.
const GREEDY: [(&str, &str); 6] = [
    (
        "causal",
        "context_bytes = 1048576\nembedding_dim = 4\nd_model = 8\nn_heads = 1\nn_layers = 200\n\
         ffn_multiplier = 1\npositions = \"rotary\"\n",
    ),
    (
        "bidirectional",
        "context_bytes = 1048576\nattention = \"bidirectional\"\nembedding_dim = 4\nd_model = 256\nn_heads = 1\n\
         n_layers = 1\nffn_multiplier = 1\npositions = \"sinusoidal\"\n",
    ),
    (
        "scratch",
        "context_bytes = 1048576\nattention = \"bidirectional\"\nembedding_dim = 4\nd_model = 256\nn_heads = 64\n\
         n_kv_heads = 1\nn_layers = 1\nffn_multiplier = 1\npositions = \"sinusoidal\"\n",
    ),
    (
        "feed-forward",
        "context_bytes = 1048576\nattention = \"bidirectional\"\nembedding_dim = 2\nd_model = 2\nn_heads = 1\n\
         n_layers = 1\nffn_multiplier = 65536\npositions = \"sinusoidal\"\n",
    ),
    (
        "aggregated",
        "context_bytes = 1048576\nattention = \"bidirectional\"\nembedding_dim = 2\nd_model = 2\nn_heads = 1\n\
         n_layers = 1\nffn_multiplier = 1\npositions = \"sinusoidal\"\n\
         aggregated_stream = { d_model = 2, n_layers = 1, kernel = 131072, stride = 1 }\n",
    ),
    (
        "aggregated feed-forward",
        "context_bytes = 1048576\nattention = \"bidirectional\"\nembedding_dim = 2\nd_model = 1\nn_heads = 1\n\
         n_layers = 1\nffn_multiplier = 8192\npositions = \"sinusoidal\"\n\
         aggregated_stream = { d_model = 4, n_layers = 1, kernel = 1, stride = 1 }\n",
    ),
];

/// The head of a saved session or an archive: a magic, numbers, and a right checksum at the end.
fn with_checksum(magic: &[u8; 8], words: &[u32], numbers: &[u64]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    let checksum = xxh3_64(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// A safetensors file with this header, which may promise another length.
fn with_header(header: &str, len: usize) -> Vec<u8> {
    [&(len as u64).to_le_bytes()[..], header.as_bytes()].concat()
}

fn hostile_files() -> Vec<PathBuf> {
    let folder = scratch().join("files");
    std::fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    for (name, config) in GREEDY {
        let path = folder.join(name);
        write_initial_model(&path, &ModelConfig::from_toml(config).unwrap(), 1).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 4 << 20, "{name} is no small file");
        files.push(path);
    }
    let options = ModelOptions { n_threads: 1, portable: true, ..Default::default() };
    let model = Model::load(&model_files()[0], &options).unwrap();
    let (print, context) = (model.fingerprint(), model.config().window_bytes() as u64);
    let tensor = |shape: &str, end: u64| {
        let entry = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
        with_header(&entry, entry.len())
    };
    let deep = "[".repeat(1 << 20);
    let quantifiers = "(".repeat(5) + "ab{1000}" + &"){1000}".repeat(5);
    let schema = format!("{}{}", r#"{"type":"array","items":"#.repeat(100_000), "}".repeat(100_000));
    let exponential = (0..40).map(|i| format!("r{i} ::= r{} r{}\n", i + 1, i + 1)).collect::<String>();
    let grammar = format!("root ::= r0\n{exponential}r40 ::= \"a\"{{0,1000}}\n");
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("header-2^63", with_header("{}", 1 << 63)),
        ("header-2^40", with_header("{}", 1 << 40)),
        ("header-deep", with_header(&deep, deep.len())),
        ("tensor-huge", tensor("[4294967296,4294967296]", 0)),
        ("tensor-end", tensor("[1073741824]", 1 << 32)),
        ("state-held", with_checksum(b"GRUGSTAT", &[1, 0], &[print, context, u64::MAX, 0, u64::MAX])),
        ("state-generated", with_checksum(b"GRUGSTAT", &[1, 1], &[print, context, 1 << 60, u64::MAX, 0])),
        ("archive-coded", with_checksum(b"GRUGARCH", &[1, 1], &[print, context, 1 << 62])),
        ("archive-raw", with_checksum(b"GRUGARCH", &[1, 0], &[print, context, u64::MAX])),
        ("archive-room", with_checksum(b"GRUGARCH", &[1, 1], &[print, context, 60_000])),
        ("regex-deep", "(".repeat(1 << 20).into_bytes()),
        ("regex-quantifiers", quantifiers.into_bytes()),
        ("regex-counts", b"((a{0,60000}){0,60000}){0,60000}".to_vec()),
        ("gbnf-exponential", grammar.into_bytes()),
        ("gbnf-deep", format!("root ::= {}", "(".repeat(1 << 20)).into_bytes()),
        ("schema-deep", schema.into_bytes()),
        ("schema-count", br#"{"type":"string","minLength":4000000000,"maxLength":4100000000}"#.to_vec()),
        ("schema-items", br#"{"type":"array","minItems":4000000000}"#.to_vec()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        files.push(path);
    }
    files
}

#[test]
fn no_file_takes_memory_without_bound() {
    if !have("cc") {
        return;
    }
    let program = compile("cc", "c99", &[root().join("tests/c/host/hostile.c")], "hostile", true);
    let output = run(Command::new(program).arg(&model_files()[0]).args(hostile_files()));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with("hostile: all passed\n"), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
