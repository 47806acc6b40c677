//! The `grug` command from outside: what it does, what it says when it cannot, and that a failure changes nothing.
#![cfg(feature = "cli")]

mod pth;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pth::{Pth, fixture, fixture_pth};
use serde_json::Value as Json;

fn grug() -> Command {
    Command::new(env!("CARGO_BIN_EXE_grug"))
}

fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    grug().args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn success<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    output.stdout
}

/// Asserts that a command fails with this status and one line that has all of these words.
fn failure<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, status: i32, words: &[&str]) {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(output.stdout.is_empty(), "it said: {}", String::from_utf8_lossy(&output.stdout));
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    if status == 1 {
        assert!(text.starts_with("grug: "), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains("panicked"), "{text}");
        assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
    }
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The model of a published fixture in this folder.
fn model(name: &str, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{name}.safetensors"));
    success(["import", s(&fixture_pth(name)), "-o", s(&path)]);
    path
}

#[test]
fn import_then_info() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("learned_cnn", folder.path());
    let json: Json = serde_json::from_slice(&success(["info", s(&path), "--json"])).unwrap();
    assert_eq!(json["n_params"], 90_080);
    assert_eq!(json["weight_bytes"], 4 * 90_080);
    assert_eq!(json["params_by_dtype"]["F32"], 90_080);
    assert_eq!(json["context_bytes"], 40);
    assert_eq!(json["config"]["n_heads"], 6);
    assert_eq!(json["metadata"]["published.step"], "150");
    let text = String::from_utf8(success(["info", s(&path)])).unwrap();
    for word in ["bidirectional", "90,080", "n_heads = 6", "published.step = 150", "2 convolutions"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn devices_are_listed_and_taken_by_name() {
    let listed: Json = serde_json::from_slice(&success(["devices", "--json"])).unwrap();
    assert_eq!(listed[0]["name"], "cpu");
    let text = String::from_utf8(success(["devices"])).unwrap();
    assert!(text.starts_with("cpu "), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let path = model("curved", folder.path());
    let write = ["generate", s(&path), "-n", "9", "--temperature", "0", "--prompt", "The "];
    assert_eq!(success(write.iter().chain(&["--device", "cpu"])), success(write));
    failure(write.iter().chain(&["--device", "wgpu:99"]), 1, &["wgpu"]);
    failure(write.iter().chain(&["--device", "abacus"]), 1, &["abacus", "auto"]);
}

#[test]
fn generate_writes_the_published_bytes_wherever_the_prompt_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("curved", folder.path());
    let expected: Json =
        serde_json::from_str(&std::fs::read_to_string(fixture("curved", "expected.json")).unwrap()).unwrap();
    let bytes = |value: &Json| -> Vec<u8> { serde_json::from_value(value.clone()).unwrap() };
    let (seed, output) =
        (bytes(&expected["greedy_top_k_1"][0]["seed"]), bytes(&expected["greedy_top_k_1"][0]["output"]));
    let text = String::from_utf8(seed.clone()).unwrap();
    let continuation = &output[seed.len()..];
    let n = continuation.len().to_string();
    let greedy = ["generate", s(&path), "-n", &n, "--temperature", "0"];
    assert_eq!(success(greedy.iter().chain(&["--prompt", &text])), continuation);
    assert_eq!(success(greedy.iter().chain(&["--prompt", &text, "--echo", "--threads", "1"])), output);
    assert_eq!(
        success(["generate", s(&path), "-n", &n, "--temperature", "1.5", "--top-k", "1", "--prompt", &text]),
        continuation
    );
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, &seed).unwrap();
    assert_eq!(success(greedy.iter().chain(&["--prompt-file", s(&file)])), continuation);
    for stdin in [&["-"][..], &["--prompt-file", "-"]] {
        let mut child = grug()
            .args(greedy.iter().chain(stdin))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&seed).unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, continuation, "{stdin:?}");
    }
    // It stops after a stop text, which is part of the output.
    let stop = std::str::from_utf8(&continuation[3..6]).unwrap();
    let end = continuation.windows(3).position(|w| w == stop.as_bytes()).unwrap() + 3;
    assert_eq!(success(greedy.iter().chain(&["--prompt", &text, "--stop", stop])), &continuation[..end]);
    // The seed decides.
    let drawn =
        |seed: &str| success(["generate", s(&path), "-n", "40", "--temperature", "2", "--seed", seed]);
    assert_eq!(drawn("7"), drawn("7"));
    assert_ne!(drawn("7"), drawn("8"));
}

#[test]
fn score_agrees_with_the_session_and_across_sources() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("parallel_cnn", folder.path());
    let text = b"To be, or not to be, that is the question.\n";
    let file = folder.path().join("text.txt");
    std::fs::write(&file, text).unwrap();
    let json: Json = serde_json::from_slice(&success(["score", s(&path), s(&file), "--json"])).unwrap();
    let model = grug::Model::load(&path, &Default::default()).unwrap();
    let mut session = grug::Session::new(&model, &Default::default()).unwrap();
    let mut total = 0.0;
    for &byte in text {
        let logits = session.logits().unwrap();
        let max = logits.iter().copied().fold(f32::MIN, f32::max) as f64;
        let sum: f64 = logits.iter().map(|&l| (l as f64 - max).exp()).sum();
        total += max + sum.ln() - logits[byte as usize] as f64;
        session.feed(&[byte]).unwrap();
    }
    let nats = json["nats"].as_f64().unwrap();
    assert!((nats - total).abs() < 1e-3 * total, "{nats} is not {total}");
    assert_eq!(json["bytes"], text.len());
    let bits = json["bits_per_byte"].as_f64().unwrap();
    assert!((bits * std::f64::consts::LN_2 * text.len() as f64 - nats).abs() < 1e-9 * nats);
    let said = String::from_utf8(success(["score", s(&path), s(&file)])).unwrap();
    assert_eq!(said, format!("43 bytes: {:.4} nats a byte, {bits:.4} bits a byte\n", nats / 43.0));
    let short = success(["score", s(&path), s(&file), "-n", "5"]);
    assert!(short.starts_with(b"5 bytes: "), "{}", String::from_utf8_lossy(&short));
    let mut child =
        grug().args(["score", s(&path), "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), said);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("curved", folder.path());
    let mut child = grug()
        .args(["generate", s(&path), "-n", "0", "--prompt", "a"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    // The pipe is closed now, and only that ends a run without an end.
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_with_130() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("curved", folder.path());
    let mut child = grug()
        .args(["generate", s(&path), "-n", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut some = [0; 10];
    stdout.read_exact(&mut some).unwrap();
    signal("-INT", &child);
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[cfg(unix)]
fn signal(name: &str, child: &std::process::Child) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.expect("this test needs the `kill` command").success());
}

/// Sends a signal and says how the program ended.
#[cfg(unix)]
fn ended_by(name: &str, mut child: std::process::Child) -> Option<i32> {
    signal(name, &child);
    for _ in 0..600 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it goes on after {name}");
}

#[cfg(unix)]
#[test]
fn who_waits_for_input_or_a_reader_ends_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("curved", folder.path());
    let long = folder.path().join("long.txt");
    std::fs::write(&long, vec![b'a'; 1 << 18]).unwrap();
    for signal in ["-INT", "-TERM"] {
        let spawn = |arguments: &[&str]| {
            grug().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        let mut child = spawn(&["score", s(&path), "-"]);
        // Once it has taken this in it is where it waits.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&[b'a'; 1 << 16]).unwrap();
        stdin.write_all(&[b'a'; 1 << 10]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(ended_by(signal, child), Some(130), "{signal}");
        // More than a pipe holds, of which its reader takes one byte.
        let mut child = spawn(&["generate", s(&path), "--echo", "--prompt-file", s(&long)]);
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        assert_eq!(ended_by(signal, child), Some(130), "{signal}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_bench_leaves_no_yardstick() {
    let folder = tempfile::tempdir().unwrap();
    let child = grug()
        .args(["bench", "S", "--rounds", "1000"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let files = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    // A folder, and then a file in it.
    while files(folder.path()).first().is_none_or(|folder| files(folder).is_empty()) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(ended_by("-INT", child), Some(130));
    assert!(files(folder.path()).is_empty());
}

#[test]
fn bench_measures_the_smallest_models() {
    let folder = tempfile::tempdir().unwrap();
    for context in [1, 2, 15] {
        let path = folder.path().join(format!("{context}.safetensors"));
        let config = grug::ModelConfig::from_toml(&format!(
            "context_bytes = {context}\nembedding_dim = 4\nd_model = 4\nn_heads = 2\nn_layers = 1\npositions = \"rotary\""
        ));
        grug::init::write_initial_model(&path, &config.unwrap(), 1).unwrap();
        let text = String::from_utf8(success(["bench", s(&path), "--rounds", "1"])).unwrap();
        assert!(text.contains(&format!("of {context} bytes, ")), "{text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_may_have_any_name() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(OsStr::from_bytes(b"a\xff.safetensors"));
    std::fs::rename(model("curved", folder.path()), &path).unwrap();
    for arguments in [&["info"][..], &["generate", "-n", "3"], &["bench", "--rounds", "1"]] {
        success(arguments.iter().map(OsStr::new).chain([path.as_os_str()]));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_status_is_right_where_nobody_can_be_told() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = |arguments: &[&str]| grug().args(arguments).stderr(full()).status().unwrap().code();
    assert_eq!(status(&["info", "no-such-file"]), Some(1));
    assert_eq!(status(&["generate", "m", "--temperature=-1"]), Some(2));
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_replaced_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("curved", folder.path());
    // Stands for /dev/null, whose name root could give to a file.
    let place = folder.path().join("device");
    let _device = std::os::unix::net::UnixListener::bind(&place).unwrap();
    for arguments in [["import", s(&fixture_pth("curved"))], ["quantize", s(&path)]] {
        failure(arguments.iter().chain(&["-o", s(&place)]), 1, &["writing", "device", "not a file"]);
        assert!(!std::fs::metadata(&place).unwrap().is_file());
    }
}

#[test]
fn wrong_usage_is_status_2() {
    failure([] as [&str; 0], 2, &["Usage"]);
    failure(["frobnicate"], 2, &["frobnicate"]);
    failure(["import", "x.pth"], 2, &["--output"]);
    failure(["generate", "m", "--temperature", "hot"], 2, &["temperature"]);
    failure(["generate", "m", "--temperature=-1"], 2, &["temperature = -1"]);
    failure(["generate", "m", "--top-p", "1.5"], 2, &["top_p = 1.5"]);
    failure(["generate", "m", "--min-p", "NaN"], 2, &["min_p = NaN"]);
    failure(["generate", "m", "--prompt", "a", "-"], 2, &["--prompt"]);
    failure(["generate", "m", "--prompt", "a", "--prompt-file", "b"], 2, &["--prompt"]);
    failure(["generate", "m", "-n", "-3"], 2, &["-3"]);
    failure(["generate", "m", "--stop", ""], 2, &["--stop has 0 bytes"]);
    failure(["generate", "m", "--stop", &"a".repeat(257)], 2, &["--stop has 257 bytes"]);
    for subcommand in ["import", "info", "generate", "score"] {
        let help = String::from_utf8(success([subcommand, "--help"])).unwrap();
        assert!(help.contains("Usage: grug"), "{help}");
    }
    assert!(success(["--version"]).starts_with(b"grug "));
}

#[test]
fn bad_files_are_one_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let good = model("curved", folder.path());
    let path = |name: &str| folder.path().join(name);
    let text = path("text.txt");
    std::fs::write(&text, "some text\n").unwrap();
    std::fs::write(path("empty"), "").unwrap();
    let whole = std::fs::read(&good).unwrap();
    std::fs::write(path("cut.safetensors"), &whole[..whole.len() / 2]).unwrap();
    let header_len = u64::from_le_bytes(whole[..8].try_into().unwrap());
    let header = String::from_utf8(whole[8..8 + header_len as usize].to_vec()).unwrap();
    // Each of the same length, so that the file stays whole.
    let spoil = |name: &str, from: &str, to: &str| {
        assert!(header.contains(from) && from.len() == to.len(), "{from} {to}");
        let mut file = whole.clone();
        file[8..8 + header_len as usize].copy_from_slice(header.replacen(from, to, 1).as_bytes());
        std::fs::write(path(name), file).unwrap();
        path(name)
    };
    let unknown_key = spoil("unknown_key", "n_heads = 4", "n_haeds = 4");
    let contradiction = spoil("contradiction", "n_heads = 4", "n_heads = 3");
    let not_a_number = spoil("not_a_number", "ffn_gamma = -0.02", "ffn_gamma =   nan");
    let renamed = spoil("renamed", "\"final_norm.bias\"", "\"final_norm.bios\"");
    let escape = spoil("escape", "\"final_norm.bias\"", "\"final_nor\\u001b\"");
    std::fs::write(path("not_a_model"), "hello").unwrap();
    let cases: Vec<(PathBuf, &[&str])> = vec![
        (path("absent"), &["absent", "No such file"]),
        (folder.path().to_path_buf(), &["not a file"]),
        (path("empty"), &["empty: is empty"]),
        (path("not_a_model"), &["not_a_model", "header"]),
        (path("cut.safetensors"), &["cut.safetensors", "truncated"]),
        (fixture_pth("curved"), &["curved_best.pth", "grug import"]),
        (fixture("curved", "state_dict.safetensors"), &["grug.config", "grug import"]),
        (unknown_key, &["unknown_key", "n_haeds"]),
        (contradiction, &["contradiction", "n_heads = 3"]),
        (not_a_number, &["not_a_number", "ffn_gamma"]),
        (renamed, &["renamed", "final_norm.bias", "missing"]),
        (escape, &["escape"]),
    ];
    for (file, words) in &cases {
        failure(["info", s(file)], 1, words);
        failure(["generate", s(file), "-n", "3"], 1, words);
        failure(["score", s(file), s(&text)], 1, words);
    }
    failure(["score", s(&good), s(&path("absent"))], 1, &["absent", "No such file"]);
    failure(["score", s(&good), s(&path("empty"))], 1, &["empty", "nothing to score"]);
    failure(["score", s(&good), s(folder.path())], 1, &[s(folder.path()), "directory"]);
    failure(["generate", s(&good), "--prompt-file", s(&path("absent"))], 1, &["absent", "No such file"]);
}

#[test]
fn a_failed_import_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let target = path("target.safetensors");
    std::fs::write(&target, "precious").unwrap();
    let good = path("good.pth");
    std::fs::write(&good, Pth::small().file()).unwrap();
    let mut evil = pth::Pickler::new();
    evil.global("os", "system").text("echo obeyed").op(0x85).op(b'R').op(b'.');
    std::fs::write(path("evil.pth"), Pth::small().file_with(&evil.0)).unwrap();
    let file = Pth::small().file();
    std::fs::write(path("cut.pth"), &file[..file.len() - 100]).unwrap();
    std::fs::write(path("noise.pth"), b"noise").unwrap();
    std::fs::write(path("empty.pth"), b"").unwrap();
    let cases: [(&str, &[&str]); 5] = [
        ("evil.pth", &["evil.pth", "os.system", "refused"]),
        ("cut.pth", &["cut.pth", "truncated"]),
        ("noise.pth", &["noise.pth", "no zip archive"]),
        ("empty.pth", &["empty.pth", "no zip archive"]),
        ("absent.pth", &["absent.pth", "No such file"]),
    ];
    for (name, words) in cases {
        failure(["import", s(&path(name)), "-o", s(&target)], 1, words);
        assert_eq!(std::fs::read(&target).unwrap(), b"precious", "{name}");
        let fresh = path("fresh.safetensors");
        failure(["import", s(&path(name)), "-o", s(&fresh)], 1, words);
        assert!(!fresh.exists(), "{name}");
    }
    // Folders that nobody, root included, can write to: one that is not there, and one that is a file.
    failure(
        ["import", s(&good), "-o", s(&path("no/such/m.safetensors"))],
        1,
        &["writing", "no/such/m.safetensors"],
    );
    failure(
        ["import", s(&good), "-o", s(&target.join("m.safetensors"))],
        1,
        &["target.safetensors/m.safetensors"],
    );
    failure(["import", s(&good), "-o", s(folder.path())], 1, &["writing"]);
    // Over itself.
    failure(["import", s(&good), "-o", s(&good)], 1, &["good.pth", "overwritten"]);
    assert_eq!(std::fs::read(&good).unwrap(), file);
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["cut.pth", "empty.pth", "evil.pth", "good.pth", "noise.pth", "target.safetensors"]);
    failure(["export", s(&good), "--gguf", "-o", s(&good)], 1, &["good.pth", "overwritten"]);
    // And a good one replaces what was there.
    success(["import", s(&good), "-o", s(&target)]);
    success(["info", s(&target)]);
}
