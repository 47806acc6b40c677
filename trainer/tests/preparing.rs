//! What comes before training, by the command: preparation, `--dry-run`, `import-config`.

use std::path::Path;
use std::process::Command;

use grug_trainer::config::RunConfig;
use grug_trainer::dataset::Corpus;

/// Runs the command in a folder: whether it succeeded, what it printed, what it complained of.
fn run(folder: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_grug-trainer"))
        .current_dir(folder)
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn folder_of_text() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("texts")).unwrap();
    std::fs::write(dir.path().join("texts/b.txt"), "Mammut, groß. ".repeat(40)).unwrap();
    std::fs::write(dir.path().join("texts/a.txt"), b"not UTF-8: \xff. ").unwrap();
    dir
}

#[test]
fn text_becomes_a_corpus_of_either_kind() {
    let dir = folder_of_text();
    let expected = [&b"not UTF-8: \xff. "[..], "Mammut, groß. ".repeat(40).as_bytes()].concat();
    for name in ["corpus.bin", "all_bytes_grug_v3.npy"] {
        let (ok, _, said) = run(dir.path(), &["prepare", "texts", "-o", name]);
        assert!(ok && said.contains("614 bytes") && said.contains("1 sequences are not UTF-8"), "{said}");
        assert_eq!(Corpus::open(&dir.path().join(name)).unwrap().bytes(), expected);
        let (ok, _, said) = run(dir.path(), &["prepare", "texts", "-o", name]);
        assert!(ok && said.contains("up to date"), "{said}");
    }
    let (ok, _, said) = run(dir.path(), &["prepare", "texts", "-o", "strict.bin", "--strict-utf8"]);
    assert!(!ok && said.contains("texts/a.txt: is not UTF-8 at byte 11"), "{said}");
    assert!(!dir.path().join("strict.bin").exists());
}

#[test]
fn a_dry_run_says_everything_and_leaves_nothing() {
    let dir = folder_of_text();
    let config = "name = \"t\"\n[data]\nsources = [\"texts\"]\n[training]\nepochs = 2\nbatch_size = 4\n[model]\n\
                  context_bytes = 16\nembedding_dim = 16\nd_model = 16\nn_heads = 2\nn_layers = 1\n\
                  positions = \"rotary\"\n";
    std::fs::write(dir.path().join("t.toml"), config).unwrap();
    let (ok, printed, said) = run(dir.path(), &["train", "t.toml", "--dry-run"]);
    assert!(ok, "{said}");
    // 614 bytes: 552 train, less a guard of 16; windows of 17 bytes every 16, less one to shift the others.
    for part in [
        "output layer",
        "FLOP",
        "optimizer state",
        "epochs",
        "training      536       32",
        "validation     62",
    ] {
        assert!(printed.contains(part), "{part}:\n{printed}");
    }
    for legacy in [&["--legacy-split"][..], &["--set", "data.legacy_split=true"]] {
        let (ok, printed, said) = run(dir.path(), &[&["train", "t.toml", "--dry-run"], legacy].concat());
        assert!(ok && printed.contains("too low"), "{printed}{said}");
    }
    let (ok, _, said) = run(dir.path(), &["train", "t.toml", "--dry-run", "--set", "data.guard_bytes=600"]);
    assert!(!ok && said.contains("guard_bytes = 600"), "{said}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_published_checkpoint_becomes_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/published");
    let checkpoint = published.join("parallel/parallel_best.pth");
    let (ok, printed, said) = run(dir.path(), &["import-config", checkpoint.to_str().unwrap()]);
    assert!(ok && said.contains("legacy_split"), "{said}");
    let run_config = RunConfig::from_toml(&printed).unwrap();
    assert!(run_config.model.aggregated_stream.is_some());
    let (ok, _, _) = run(dir.path(), &["import-config", checkpoint.to_str().unwrap(), "-o", "run.toml"]);
    assert!(ok);
    assert_eq!(std::fs::read_to_string(dir.path().join("run.toml")).unwrap(), printed);
    std::fs::write(dir.path().join("broken.pth"), b"PK\x03\x04 and nothing").unwrap();
    let (ok, _, said) = run(dir.path(), &["import-config", "broken.pth"]);
    assert!(!ok && said.contains("broken.pth"), "{said}");
}
