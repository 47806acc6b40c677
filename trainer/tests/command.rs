//! The command as a person and a system meet it: errors, Ctrl-C, kills, a full disk.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use grug_trainer::state::load_state;

const TINY: &str = r#"
    name = "tiny"
    [data]
    prepared = "corpus.bin"
    [training]
    steps = 1000000
    batch_size = 2
    checkpoint_every = 1
    log_every = 1
    validate_every = 0
    threads = 1
    [telemetry]
    tensorboard = false
    plot = false
    [model]
    context_bytes = 16
    embedding_dim = 16
    d_model = 16
    n_heads = 2
    n_layers = 1
    positions = "rotary"
"#;

/// A folder with a corpus and a configuration.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
    std::fs::write(folder.path().join("corpus.bin"), b"the grug hunts a mammoth. ".repeat(100)).unwrap();
    folder
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grug-trainer"));
    command.current_dir(folder).args(args).env_remove("RUST_BACKTRACE");
    command
}

fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command(folder, args).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

const TRAIN: [&str; 6] = ["train", "tiny.toml", "--device", "cpu", "--run-dir", "run"];

fn state(folder: &Path) -> PathBuf {
    folder.join("run/state.safetensors")
}

/// Waits until the run has written its state after at least this many steps.
fn wait_for_step(folder: &Path, child: &mut Child, step: u64) {
    let start = Instant::now();
    loop {
        if load_state(&state(folder)).is_ok_and(|state| state.progress.step >= step) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        assert!(start.elapsed() < Duration::from_secs(300), "no step {step} in five minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    let status =
        Command::new("kill").args([name, &child.id().to_string()]).status().expect("the command kill");
    assert!(status.success());
}

#[test]
fn wrong_input_is_one_clear_error() {
    let folder = workplace();
    let path = folder.path();
    std::fs::write(path.join("empty.bin"), b"").unwrap();
    std::fs::write(path.join("file"), b"x").unwrap();
    std::fs::write(path.join("no-model.safetensors"), b"not a model").unwrap();
    let cases: [(&[&str], i32, &[&str]); 14] = [
        (&["train", "tiny.toml", "--device", "gpu"], 1, &["gpu", "cuda:N"]),
        (&["train", "tiny.toml", "--set", "training.stesp=3"], 1, &["stesp", "did you mean", "steps"]),
        (&["train", "tiny.toml", "--set", "model.n_heads=3"], 1, &["n_heads"]),
        (&["train", "absent.toml"], 1, &["absent.toml", "presets"]),
        (&["train", "tiny.toml", "--set", "data.prepared=absent.bin"], 1, &["absent.bin"]),
        (&["train", "tiny.toml", "--set", "data.prepared=empty.bin"], 1, &["empty.bin", "empty"]),
        (&["train", "tiny.toml", "--set", "data.prepared=file"], 1, &["file", "window"]),
        (&["train", "tiny.toml", "--run-dir", "file/run"], 1, &["file/run"]),
        (&["train", "tiny.toml", "--resume", "--run-dir", "none"], 1, &["none", "state.safetensors"]),
        (&["train"], 2, &["CONFIG"]),
        (&["train", "tiny.toml", "--learning-rate", "3"], 2, &["--learning-rate"]),
        (&["eval", "no-model.safetensors", "corpus.bin"], 1, &["no-model.safetensors"]),
        (&["generate", "absent.safetensors"], 1, &["absent.safetensors"]),
        (&["prepare", "absent", "-o", "x.bin"], 1, &["absent"]),
    ];
    for (args, status, words) in cases {
        let (code, text) = run(path, args);
        assert_eq!(code, Some(status), "{args:?}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{args:?}: {text}");
        if status == 1 {
            let errors = text.lines().filter(|line| line.starts_with("error: ")).count();
            assert_eq!(errors, 1, "{args:?}: {text}");
        }
    }
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_spoils_nothing() {
    let folder = workplace();
    let (code, text) = run(folder.path(), &[&TRAIN[..], &["--set", "training.steps=3"]].concat());
    assert_eq!(code, Some(0), "{text}");
    let before = std::fs::read(state(folder.path())).unwrap();
    let wild = ["--resume", "--set", "training.steps=50", "--set", "optimizer.learning_rate=1e38"];
    let (code, text) =
        run(folder.path(), &[&TRAIN[..], &wild[..], &["--set", "training.checkpoint_every=0"]].concat());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("diverged") && text.contains("learning_rate"), "{text}");
    assert!(std::fs::read(state(folder.path())).unwrap() == before);
}

#[test]
fn ctrl_c_finishes_the_step_and_saves_and_a_kill_at_any_time_leaves_a_state() {
    let folder = workplace();
    let path = folder.path();
    let start =
        |extra: &[&str]| command(path, &[&TRAIN[..], extra].concat()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = start(&[]);
    wait_for_step(path, &mut child, 3);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("--resume"), "{text}");
    let mut step = load_state(&state(path)).unwrap().progress.step;
    assert!(step >= 3);
    for round in 0..6u64 {
        let mut child = start(&["--resume"]);
        wait_for_step(path, &mut child, step + 1);
        std::thread::sleep(Duration::from_micros(round * 3_700));
        child.kill().unwrap();
        let text = String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr).into_owned();
        // Whatever the moment was, the state is whole, and so is the model beside it, though it may be older.
        let saved = load_state(&state(path)).unwrap_or_else(|e| panic!("round {round}: {e}\n{text}"));
        assert!(saved.progress.step > step, "round {round}");
        step = saved.progress.step;
        let model = grug::checkpoint::Checkpoint::open(&path.join("run/last.safetensors")).unwrap();
        let of_model: u64 = model.metadata()["grug.training.step"].parse().unwrap();
        assert!(of_model <= step, "{of_model} {step}");
    }
}

/// A file system that takes no more bytes: here a limit on the size of files.
#[test]
fn a_full_disk_is_an_error_that_loses_nothing() {
    let folder = workplace();
    let path = folder.path();
    let (code, text) = run(path, &[&TRAIN[..], &["--set", "training.steps=4"]].concat());
    assert_eq!(code, Some(0), "{text}");
    let line = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' {} --resume --set training.steps=8",
        env!("CARGO_BIN_EXE_grug-trainer"),
        TRAIN.join(" ")
    );
    let output =
        Command::new("bash").current_dir(path).args(["-c", &line]).output().expect("the command bash");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("state.safetensors") && !text.contains("panicked"), "{text}");
    assert_eq!(load_state(&state(path)).unwrap().progress.step, 4);
    let names: Vec<String> = std::fs::read_dir(path.join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
    let (code, text) = run(path, &[&TRAIN[..], &["--resume", "--set", "training.steps=8"]].concat());
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn eval_and_generate_use_what_train_wrote() {
    let folder = workplace();
    let path = folder.path();
    let train =
        [&TRAIN[..], &["--set", "training.steps=60", "--set", "optimizer.learning_rate=0.01"]].concat();
    let (code, text) = run(path, &train);
    assert_eq!(code, Some(0), "{text}");
    let output =
        command(path, &["eval", "run/last.safetensors", "corpus.bin", "--last", "0.2"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let nats: f64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(nats > 0.0 && nats < 3.0 && text.contains("bits a byte"), "{text}");
    let greedy = ["generate", "run/last.safetensors", "-p", "the grug", "-n", "20", "--temperature", "0"];
    let output = command(path, &greedy).output().unwrap();
    assert!(output.stdout.starts_with(b"the grug") && output.stdout.len() == 8 + 20 + 1, "{output:?}");
    assert_eq!(command(path, &greedy).output().unwrap().stdout, output.stdout);
}
