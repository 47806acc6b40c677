//! The Rust examples, run as a reader would; those in other languages are run by the tests of their bindings.

mod native;

use std::path::PathBuf;
use std::process::Command;

use native::{model_files, root, run, scratch};

/// The program of an example, in the profile that this test runs in.
fn example(name: &str) -> PathBuf {
    // target/[triple/]PROFILE/deps/examples-HASH
    let exe = std::env::current_exe().unwrap();
    let folder = exe.parent().unwrap().parent().unwrap();
    let profile = folder.file_name().unwrap().to_str().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--quiet", "--example", name]);
    cargo.arg("--target-dir").arg(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap());
    run(cargo.args(["--profile", if profile == "debug" { "dev" } else { profile }]));
    folder.join("examples").join(name)
}

#[test]
fn generate_writes_text() {
    let generate = example("generate");
    let text = run(Command::new(&generate).arg(&model_files()[0]).args(["ab", "40"])).stdout;
    assert!(text.starts_with(b"ab") && text.len() == 2 + 40 + 1);
    let failed = Command::new(&generate).arg("no-such-model").output().unwrap();
    assert!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("no-such-model"));
}

#[test]
fn compress_brings_a_file_back() {
    let (program, model) = (example("compress"), &model_files()[0]);
    let file = scratch().join("notes.txt");
    let text = "To compress is to predict. ".repeat(20);
    std::fs::write(&file, &text).unwrap();
    let said = run(Command::new(&program).arg(model).arg(&file)).stdout;
    assert!(String::from_utf8_lossy(&said).contains(&format!("bytes of {}", text.len())));
    let back = scratch().join("back.txt");
    run(Command::new(&program).arg(model).arg(scratch().join("notes.txt.grug")).arg(&back));
    assert_eq!(std::fs::read_to_string(back).unwrap(), text);
}
