//! libgrug as WebAssembly: built by `scripts/wasm`, packed and installed as a user would, and run in Node.
#![cfg(feature = "import")]

mod common;
mod native;
mod pth;

use std::path::{Path, PathBuf};
use std::process::Command;

use grug::checkpoint::Checkpoint;
use grug::import::read_pth;
use grug::quantize::{Target, quantize};
use grug::{Model, ModelConfig, ModelOptions, Session, SessionOptions};
use native::{check_types, have, model_files, root, run, scratch};
use serde_json::{Value, json};

/// The module is downloaded by everyone who opens a page with it.
const MAX_MODULE_BYTES: u64 = 1_300_000;

/// Whether Rust's standard library for a target is installed; says so where it is not.
fn have_target(target: &str) -> bool {
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"])).stdout;
    let sysroot = PathBuf::from(String::from_utf8(sysroot).unwrap().trim());
    let found = sysroot.join("lib/rustlib").join(target).is_dir();
    if !found {
        native::skip(format_args!("needs rustup target add {target}"));
    }
    found
}

/// The published checkpoints: what their reference computed.
fn published(folder: &Path) -> Vec<Value> {
    let case = |name: &&str| {
        let file = folder.join(format!("{name}.safetensors"));
        read_pth(&pth::fixture_pth(name)).unwrap().save(&file).unwrap();
        let text = std::fs::read_to_string(pth::fixture(name, "expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        // The reference computes these inputs as they are; a session pads short ones and slides over long ones.
        let context = Checkpoint::open(&file).unwrap().config().window_bytes();
        let shortest = if expected["left_pad_zero"] == true { context } else { 1 };
        let cases = expected["cases"].as_array().unwrap().iter();
        let cases: Vec<Value> = cases
            .filter(|case| (shortest..=context).contains(&case["input"].as_array().unwrap().len()))
            .map(|case| json!({ "input": case["input"], "logits": case["logits_f64"] }))
            .collect();
        json!({ "name": name, "file": file, "tolerance": 1e-4, "cases": cases, "greedy": expected["greedy_top_k_1"] })
    };
    pth::FIXTURES.iter().map(case).collect()
}

/// A model of every kind with weights of every kind: what the scalar definition computes here.
fn stored_in_every_way(folder: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    for (name, toml) in common::ALL {
        let plain = folder.join(format!("random {name}.safetensors"));
        common::write_random_model(&plain, &ModelConfig::from_toml(toml).unwrap(), 1);
        // An activation that rounds the other way moves a quantized product; what the products themselves are is for
        // the tests of the kernels.
        let targets = [
            ("f32", None, 1e-5),
            ("f16", Some(Target::F16), 1e-5),
            ("bf16", Some(Target::Bf16), 1e-5),
            ("int8", Some(Target::Int8), 3e-2),
            ("int4", Some(Target::Int4), 3e-2),
        ];
        for (kind, target, tolerance) in targets {
            let file = folder.join(format!("random {name} {kind}.safetensors"));
            match target {
                Some(target) => quantize(&Checkpoint::open(&plain).unwrap(), target, &file).unwrap(),
                None => {
                    std::fs::copy(&plain, &file).unwrap();
                }
            }
            let options = ModelOptions { n_threads: 1, portable: true, ..Default::default() };
            let model = Model::load(&file, &options).unwrap();
            let cases: Vec<Value> = [7, 16, 60]
                .map(|len| {
                    let input = common::some_bytes(len, 3);
                    let mut session = Session::new(&model, &SessionOptions::default()).unwrap();
                    session.feed(&input).unwrap();
                    json!({ "input": input, "logits": session.logits().unwrap().to_vec() })
                })
                .into();
            let name = format!("{name}, {kind}");
            all.push(
                json!({ "name": name, "file": file, "tolerance": tolerance, "cases": cases, "greedy": [] }),
            );
        }
    }
    all
}

#[test]
fn the_package_passes_its_tests_in_node() {
    if !have("node") || !have("npm") || !have_target("wasm32-unknown-unknown") {
        return;
    }
    let project = scratch().join("node");
    let _ = std::fs::remove_dir_all(&project);
    std::fs::create_dir_all(&project).unwrap();
    let package = root().join("bindings/wasm");
    run(&mut Command::new(root().join("scripts/wasm")));
    let size = std::fs::metadata(package.join("grug.wasm")).unwrap().len();
    assert!(size <= MAX_MODULE_BYTES, "grug.wasm has {size} bytes, the limit is {MAX_MODULE_BYTES}");
    run(Command::new("npm")
        .args(["pack", "--silent", "--pack-destination"])
        .arg(&project)
        .current_dir(&package));
    std::fs::write(project.join("package.json"), "{ \"name\": \"host\", \"private\": true }\n").unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--offline", "--no-audit", "--no-fund", "./grug-wasm-0.1.0.tgz"])
        .current_dir(&project);
    run(&mut npm);

    let cases = project.join("cases.json");
    let all = [published(&project), stored_in_every_way(&project)].concat();
    std::fs::write(&cases, serde_json::to_vec(&all).unwrap()).unwrap();
    std::fs::copy(package.join("test/grug.test.mjs"), project.join("grug.test.mjs")).unwrap();
    let mut node = Command::new("node");
    node.args(["--test", "grug.test.mjs"]).current_dir(&project).env("GRUG_TEST_CASES", &cases);
    node.env("GRUG_TEST_MODEL", &model_files()[0]).env("GRUG_TEST_MODEL_END", &model_files()[1]);
    print!("{}", String::from_utf8_lossy(&run(&mut node).stdout));
    check_types(&project, &package.join("test/types.ts"), &["types.mts"]);
}

/// The page of `examples/web` in a headless browser: it writes, stops when told to, and refuses what is no model.
#[test]
fn a_model_writes_in_a_browser() {
    if !have("node") || !have("chromium") || !have_target("wasm32-unknown-unknown") {
        return;
    }
    run(&mut Command::new(root().join("scripts/wasm")));
    // Large enough that it can be stopped while it writes.
    let toml = "context_bytes = 128\nembedding_dim = 64\nd_model = 192\nn_heads = 4\nn_layers = 4\npositions = \"rotary\"\n";
    let model = scratch().join("browser.safetensors");
    common::write_random_model(&model, &ModelConfig::from_toml(toml).unwrap(), 1);
    let mut node = Command::new("node");
    node.arg(root().join("tests/browser.mjs")).arg("chromium").arg(&model).arg(scratch().join("page.png"));
    print!("{}", String::from_utf8_lossy(&run(&mut node).stdout));
}

/// The kernels' own tests, against the scalar definition, on WebAssembly's vectors.
#[test]
fn the_kernels_pass_their_tests_in_wasm() {
    if !have("node") || !have_target("wasm32-wasip1") {
        return;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args([
        "test",
        "--quiet",
        "--package",
        "grug",
        "--lib",
        "--no-default-features",
    ]);
    cargo
        .args(["--target", "wasm32-wasip1", "--", "kernels::"])
        .env("RUSTFLAGS", "-C target-feature=+simd128");
    cargo.env("CARGO_TARGET_WASM32_WASIP1_RUNNER", root().join("tests/wasi.mjs"));
    let output = run(&mut cargo);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("test result: ok") && !text.contains(" 0 passed"), "{text}");
    print!("{text}");
}
