//! Several processes that train one model, on this machine's loopback.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use grug_trainer::state::load_state;
use serde_json::Value;

const RUN: &str = r#"
    name = "several"
    [data]
    prepared = "corpus.bin"
    [training]
    steps = 12
    batch_size = 8
    log_every = 1
    validate_every = 6
    threads = 1
    [optimizer]
    learning_rate = 0.01
    [parallel]
    bucket_bytes = 4096
    timeout_seconds = 120
    [telemetry]
    tensorboard = false
    plot = false
    [model]
    context_bytes = 16
    embedding_dim = 16
    d_model = 16
    n_heads = 2
    n_layers = 2
    positions = "rotary"
    norm_first = true
"#;

fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run.toml"), RUN).unwrap();
    std::fs::write(folder.path().join("corpus.bin"), b"the grug hunts a mammoth, then sleeps. ".repeat(80))
        .unwrap();
    folder
}

/// Starts the command, on each of several ranks where there are some, as a launcher would.
fn start(folder: &Path, run_dir: &str, ranks: usize, settings: &[&str]) -> Vec<Child> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (0..ranks)
        .map(|rank| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_grug-trainer"));
            command.current_dir(folder).args(["train", "run.toml", "--device", "cpu", "--run-dir", run_dir]);
            for setting in settings {
                match setting.starts_with("--") {
                    true => command.arg(setting),
                    false => command.args(["--set", setting]),
                };
            }
            command.env_remove("RANK").env_remove("WORLD_SIZE").env("OMP_NUM_THREADS", "1");
            if ranks > 1 {
                command.env("RANK", rank.to_string()).env("WORLD_SIZE", ranks.to_string());
                command.env("LOCAL_RANK", rank.to_string());
                command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
            }
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect()
}

/// Status and error output of each rank. A rank that never ends fails the test, not the machine.
fn end(children: Vec<Child>) -> Vec<(Option<i32>, String)> {
    let start = Instant::now();
    let mut children = children;
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        if start.elapsed() > Duration::from_secs(240) {
            children.iter_mut().for_each(|child| drop(child.kill()));
            panic!("a rank does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = |child: Child| {
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    children.into_iter().map(ended).collect()
}

fn finish(folder: &Path, run_dir: &str, ranks: usize, settings: &[&str]) {
    for (rank, (code, text)) in end(start(folder, run_dir, ranks, settings)).into_iter().enumerate() {
        assert_eq!(code, Some(0), "rank {rank}: {text}");
        assert!(rank == 0 || !text.contains("several"), "rank {rank} speaks: {text}");
    }
}

/// The numbers of a run under this key: (kind, step) to value.
fn numbers(folder: &Path, run_dir: &str, key: &str) -> BTreeMap<(String, u64), f64> {
    let text = std::fs::read_to_string(folder.join(run_dir).join("metrics.jsonl")).unwrap();
    text.lines()
        .filter_map(|line| {
            let record: Value = serde_json::from_str(line).ok()?; // the last line may be half written
            let kind = record["kind"].as_str()?.to_owned();
            Some(((kind, record["step"].as_u64()?), record.get(key)?.as_f64()?))
        })
        .collect()
}

fn same(a: &BTreeMap<(String, u64), f64>, b: &BTreeMap<(String, u64), f64>, tolerance: f64) {
    assert!(a.len() >= 12 && a.keys().eq(b.keys()), "{a:?} {b:?}");
    for (key, value) in a {
        assert!((value - b[key]).abs() <= tolerance * value.abs().max(1.0), "{key:?}: {value} {}", b[key]);
    }
}

#[test]
fn two_ranks_learn_what_one_process_learns() {
    let folder = workplace();
    let path = folder.path();
    finish(path, "one", 1, &[]);
    finish(path, "two", 2, &[]);
    for key in ["loss", "grad_norm"] {
        let of = |run_dir| {
            let mut numbers = numbers(path, run_dir, key);
            numbers.retain(|(kind, _), _| key == "loss" || kind == "train");
            numbers
        };
        same(&of("one"), &of("two"), 2e-5);
    }
    let losses = numbers(path, "two", "loss");
    assert!(
        losses.contains_key(&("validation".into(), 12))
            && losses[&("train".into(), 12)] < losses[&("train".into(), 1)]
    );

    // Passes within a step, another optimizer, and the end of the run in another process.
    let more = ["training.accumulation=2", "optimizer.type=\"muon\"", "model.dropout.transformer=0.1"];
    let same_drops = &more[..2];
    finish(path, "one-b", 1, same_drops);
    finish(path, "two-b", 2, same_drops);
    same(&numbers(path, "one-b", "loss"), &numbers(path, "two-b", "loss"), 5e-5);

    // Dropout differs from rank to rank, and goes on where it was.
    finish(path, "whole", 2, &more);
    finish(path, "half", 2, &[&more[..], &["training.steps=6"]].concat());
    finish(path, "half", 2, &[&more[..], &["--resume"]].concat());
    assert_eq!(numbers(path, "whole", "loss"), numbers(path, "half", "loss"));
}

/// Waits until a run has written so many steps.
fn wait_for(folder: &Path, run_dir: &str, step: u64, children: &mut [Child]) {
    let start = Instant::now();
    while !folder.join(run_dir).join("metrics.jsonl").exists()
        || numbers(folder, run_dir, "loss").keys().all(|key| key.1 < step)
    {
        assert!(
            children.iter_mut().all(|child| child.try_wait().unwrap().is_none()),
            "a rank ended by itself"
        );
        assert!(start.elapsed() < Duration::from_secs(240), "no step {step}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const ENDLESS: &str = "training.steps=1000000";

#[test]
fn a_lost_rank_ends_all_and_is_named() {
    let folder = workplace();
    for (lost, left) in [(1, 0), (0, 1)] {
        let run_dir = format!("lost-{lost}");
        let mut children = start(folder.path(), &run_dir, 2, &[ENDLESS]);
        wait_for(folder.path(), &run_dir, 3, &mut children);
        children[lost].kill().unwrap();
        let ended = end(children);
        let (code, text) = &ended[left];
        assert_eq!(*code, Some(1), "{text}");
        assert!(text.contains(&format!("rank {lost} of 2 is lost")) && text.contains("--resume"), "{text}");
    }
}

#[test]
fn an_error_on_one_rank_is_told_on_all() {
    let folder = workplace();
    let too_many = ["training.batch_size=6", "training.accumulation=2"];
    for (rank, (code, text)) in end(start(folder.path(), "a", 2, &too_many)).into_iter().enumerate() {
        assert_eq!(code, Some(1), "rank {rank}: {text}");
        assert!(text.contains("multiple of 4"), "rank {rank}: {text}");
    }
}

#[test]
fn ctrl_c_on_one_rank_stops_all_after_the_same_step() {
    let folder = workplace();
    let mut children = start(folder.path(), "run", 2, &[ENDLESS]);
    wait_for(folder.path(), "run", 3, &mut children);
    let asked = Command::new("kill").args(["-INT", &children[1].id().to_string()]).status().unwrap();
    assert!(asked.success());
    for (rank, (code, text)) in end(children).into_iter().enumerate() {
        assert_eq!(code, Some(0), "rank {rank}: {text}");
    }
    let last = numbers(folder.path(), "run", "loss").keys().map(|key| key.1).max().unwrap();
    let states: Vec<_> = std::fs::read_dir(folder.path().join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("state"))
        .collect();
    assert_eq!(states.len(), 1, "{states:?}");
    assert_eq!(load_state(&states[0]).unwrap().progress.step, last);
}
