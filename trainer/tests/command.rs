//! The command as a person and a system meet it: errors, Ctrl-C, kills, a full disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use grug_trainer::state::SavedState;
use grug_trainer::train::Files;

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

fn files(folder: &Path) -> Files {
    Files::create(&folder.join("run")).unwrap()
}

/// The newest state of the run, where there is one. It must be whole.
fn state(folder: &Path) -> Option<SavedState> {
    // The run may put another in its place between our looking for it and our reading it.
    (0..100)
        .find_map(|_| match files(folder).newest_state() {
            Ok((state, notes)) if notes.is_empty() => Some(Some(state)),
            Err(_) if files(folder).states().unwrap().is_empty() => Some(None),
            Ok(_) | Err(_) => None,
        })
        .expect("a state that can be read")
}

fn step_of_state(folder: &Path) -> u64 {
    state(folder).map_or(0, |state| state.progress.step)
}

fn step_of_model(folder: &Path) -> u64 {
    let model = grug::checkpoint::Checkpoint::open(&files(folder).last).unwrap();
    model.metadata()["grug.training.step"].parse().unwrap()
}

/// The names of the files in the run's folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("run")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits until the run has written its state after at least this many steps.
fn wait_for_step(folder: &Path, child: &mut Child, step: u64) {
    let start = Instant::now();
    loop {
        if folder.join("run").exists() && step_of_state(folder) >= step {
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
    let cases: [(&[&str], i32, &[&str]); 16] = [
        (&["train", "tiny.toml", "--threads", "100000"], 1, &["--threads 100000", "1024"]),
        (&["train", "tiny.toml", "--set", "training.threads=100000"], 1, &["threads = 100000", "1024"]),
        (&["train", "tiny.toml", "--device", "gpu"], 1, &["gpu", "cuda:N"]),
        (&["train", "tiny.toml", "--set", "training.stesp=3"], 1, &["stesp", "did you mean", "steps"]),
        (&["train", "tiny.toml", "--set", "model.n_heads=3"], 1, &["n_heads"]),
        (&["train", "absent.toml"], 1, &["absent.toml", "presets"]),
        (&["train", "tiny.toml", "--set", "data.prepared=absent.bin"], 1, &["absent.bin"]),
        (&["train", "tiny.toml", "--set", "data.prepared=empty.bin"], 1, &["empty.bin", "empty"]),
        (&["train", "tiny.toml", "--set", "data.prepared=file"], 1, &["file", "window"]),
        (&["train", "tiny.toml", "--run-dir", "file/run"], 1, &["file/run"]),
        (&["train", "tiny.toml", "--resume", "--run-dir", "none"], 1, &["none", "no run to go on with"]),
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
    let before = std::fs::read(files(folder.path()).state(3)).unwrap();
    let wild = ["--resume", "--set", "training.steps=50", "--set", "optimizer.learning_rate=1e38"];
    // The weights are spoiled by a step whose own loss was fine; where every step is saved, that one is not.
    for every in ["training.checkpoint_every=0", "training.checkpoint_every=1"] {
        let (code, text) = run(folder.path(), &[&TRAIN[..], &wild[..], &["--set", every]].concat());
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("diverged") && text.contains("learning_rate"), "{text}");
        assert_eq!(step_of_state(folder.path()), 3);
        assert!(std::fs::read(files(folder.path()).state(3)).unwrap() == before);
    }
}

fn start(folder: &Path, extra: &[&str]) -> Child {
    command(folder, &[&TRAIN[..], extra].concat()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn ctrl_c_finishes_the_step_and_saves() {
    let folder = workplace();
    let path = folder.path();
    let mut child = start(path, &[]);
    wait_for_step(path, &mut child, 3);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("--resume"), "{text}");
    let step = step_of_state(path);
    assert!(step >= 3 && step_of_model(path) == step);
}

/// A hundred steps at once, and a hundred of which a Ctrl-C took away some, by the command.
#[test]
fn a_run_stopped_by_ctrl_c_goes_on_with_the_same_bits() {
    let (whole, parts) = (workplace(), workplace());
    let hundred = ["--set", "training.steps=100", "--set", "model.dropout.transformer=0.1"];
    let (code, text) = run(whole.path(), &[&TRAIN[..], &hundred].concat());
    assert_eq!(code, Some(0), "{text}");
    let mut child = start(parts.path(), &hundred);
    wait_for_step(parts.path(), &mut child, 5);
    signal(&child, "-INT");
    assert!(child.wait_with_output().unwrap().status.success());
    let stopped_at = step_of_state(parts.path());
    assert!((5..100).contains(&stopped_at), "stopped after {stopped_at} steps");
    let (code, text) = run(parts.path(), &[&TRAIN[..], &hundred, &["--resume"]].concat());
    assert_eq!(code, Some(0), "{text}");
    let weights = |folder: &Path| {
        let model = grug::checkpoint::Checkpoint::open(&files(folder).last).unwrap();
        let specs = grug::manifest::ModelTensors::specs(model.config()).into_leaves();
        specs.iter().flat_map(|spec| model.tensor(spec).unwrap().bytes.to_vec()).collect::<Vec<u8>>()
    };
    assert!(weights(whole.path()) == weights(parts.path()), "stopped after {stopped_at} steps");
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_is_of_one_run_at_a_time() {
    let folder = workplace();
    let path = folder.path();
    let mut child = start(path, &[]);
    wait_for_step(path, &mut child, 2);
    let (code, text) = run(path, &[&TRAIN[..], &["--resume"]].concat());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process trains there"), "{text}");
    signal(&child, "-KILL");
    child.wait().unwrap();
    let steps = format!("training.steps={}", step_of_state(path) + 1);
    let (code, text) = run(path, &[&TRAIN[..], &["--resume", "--set", &steps]].concat());
    assert_eq!(code, Some(0), "{text}");
}

/// As with `2>&1 | tee log`, where Ctrl-C ends tee as well.
#[test]
fn a_run_that_nobody_listens_to_goes_on() {
    let folder = workplace();
    let path = folder.path();
    let settings = ["--set", "training.steps=30", "--set", "training.validate_every=5"];
    let mut child = start(path, &settings);
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(step_of_state(path), 30);
    let mut child = start(path, &["--resume"]);
    drop(child.stderr.take());
    wait_for_step(path, &mut child, 33);
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let folder = workplace();
    let path = folder.path();
    let line = format!("trap '' HUP; exec '{}' {}", env!("CARGO_BIN_EXE_grug-trainer"), TRAIN.join(" "));
    let mut child = Command::new("sh").current_dir(path).args(["-c", &line]).spawn().unwrap();
    wait_for_step(path, &mut child, 3);
    signal(&child, "-HUP");
    let step = step_of_state(path);
    wait_for_step(path, &mut child, step + 10);
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A step of a million passes takes long enough for both signals to come within it.
#[test]
fn a_second_ctrl_c_stops_at_once() {
    let folder = workplace();
    let path = folder.path();
    let endless = ["--set", "training.batch_size=1048576", "--set", "training.accumulation=1048576"];
    let mut child = start(path, &endless);
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    said.find(|line| line.starts_with("training tiny")).expect("the run begins");
    signal(&child, "-INT");
    said.find(|line| line.contains("once more stops at once")).expect("the first signal is answered");
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(path).states().unwrap(), []);
}

/// Every kill comes while a file is being written: its temporary name is there.
#[test]
fn a_kill_while_saving_leaves_the_state_before_it() {
    let folder = workplace();
    let path = folder.path();
    let is_temporary = |name: &String| name.starts_with(".grug-") && name.ends_with(".tmp");
    let (mut step, mut interrupted) = (0, 0);
    // More numbers, so that writing them takes a while.
    let larger = ["--set", "model.d_model=128", "--set", "training.keep_last=2"];
    for round in 0..8u64 {
        let resume = if round == 0 { &[][..] } else { &["--resume"] };
        let mut child = start(path, &[&larger[..], resume].concat());
        wait_for_step(path, &mut child, step + 1);
        let begun = Instant::now();
        while !names(path).iter().any(is_temporary) && begun.elapsed() < Duration::from_secs(300) {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(round * 400));
        child.kill().unwrap();
        let text = String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr).into_owned();
        interrupted += names(path).iter().any(is_temporary) as u64;
        // Whatever the moment was, the state is whole, and so is the model beside it, though it may be older.
        let saved = state(path).unwrap_or_else(|| panic!("round {round}: {text}")).progress.step;
        assert!(saved > step, "round {round}: {text}");
        step = saved;
        // A kill right after the first state leaves no model at all.
        assert!(!files(path).last.exists() || step_of_model(path) <= step);
    }
    assert!(interrupted > 0, "no kill came while a file was being written");
    // What was left half written is cleared away.
    let mut child = start(path, &[&larger[..], &["--resume"]].concat());
    wait_for_step(path, &mut child, step + 1);
    signal(&child, "-INT");
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(!names(path).iter().any(is_temporary), "{:?}", names(path));
    assert_eq!(files(path).states().unwrap().len(), 2);
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
    assert!(text.contains("state-000000005.safetensors") && !text.contains("panicked"), "{text}");
    assert_eq!(step_of_state(path), 4);
    assert!(names(path).iter().all(|name| !name.ends_with(".tmp")), "{:?}", names(path));
    let (code, text) = run(path, &[&TRAIN[..], &["--resume", "--set", "training.steps=8"]].concat());
    assert_eq!(code, Some(0), "{text}");
}

/// The state is written before the model: here there is no room for the second one.
#[test]
fn a_model_that_could_not_be_written_is_by_the_resumed_run() {
    let folder = workplace();
    let path = folder.path();
    std::fs::create_dir_all(path.join("run/last.safetensors")).unwrap();
    let settings = ["--set", "training.steps=4", "--set", "training.checkpoint_every=0"];
    let (code, text) = run(path, &[&TRAIN[..], &settings].concat());
    assert!(code == Some(1) && text.contains("last.safetensors"), "{text}");
    assert_eq!(step_of_state(path), 4);
    std::fs::remove_dir(path.join("run/last.safetensors")).unwrap();
    let (code, text) = run(path, &[&TRAIN[..], &settings, &["--resume"]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(step_of_model(path), 4);
}

#[test]
fn a_run_that_is_done_already_has_no_steps_left() {
    let folder = workplace();
    let path = folder.path();
    for (steps, resume) in [("training.steps=4", &[][..]), ("training.steps=2", &["--resume"])] {
        let (code, text) = run(path, &[&TRAIN[..], &["--set", steps], resume].concat());
        assert_eq!(code, Some(0), "{text}");
        assert!(resume.is_empty() || text.contains("parameters, 0 steps of"), "{text}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_wherever_it_comes_from() {
    let folder = workplace();
    let path = folder.path();
    std::fs::create_dir(path.join("texts")).unwrap();
    for name in ["bad.txt", "texts/bad.txt"] {
        std::fs::write(path.join(name), b"the grug \xff hunts. ".repeat(100)).unwrap();
    }
    let config = TINY.replace("prepared = \"corpus.bin\"", "");
    std::fs::write(path.join("sources.toml"), config).unwrap();
    for sources in ["data.sources=[\"bad.txt\"]", "data.sources=[\"texts\"]"] {
        let args =
            ["train", "sources.toml", "--device", "cpu", "--set", "training.steps=1", "--set", sources];
        let loose = format!("name=n{}", sources.len());
        let (code, text) = run(path, &[&args[..], &["--set", &loose]].concat());
        assert_eq!(code, Some(0), "{text}");
        // The prepared file is up to date now, and still not UTF-8.
        let dir = format!("runs/n{}", sources.len());
        std::fs::read_dir(path.join(&dir)).unwrap().map(|entry| entry.unwrap().path()).for_each(|file| {
            if file.extension().is_some_and(|e| e == "safetensors") {
                std::fs::remove_file(file).unwrap();
            }
        });
        let (code, text) =
            run(path, &[&args[..], &["--set", &loose, "--set", "data.strict_utf8=true"]].concat());
        assert!(code == Some(1) && text.contains("not UTF-8 at byte 9"), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn folders_whose_names_are_not_utf8_are_folders_too() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = workplace();
    let odd = folder.path().join(OsStr::from_bytes(b"odd-\xff"));
    std::fs::create_dir(&odd).unwrap();
    for name in ["tiny.toml", "corpus.bin"] {
        std::fs::copy(folder.path().join(name), odd.join(name)).unwrap();
    }
    let name = OsStr::from_bytes(b"run-\xff");
    let train = |args: &[&str]| {
        let output =
            command(&odd, &["train"]).args(args).args(["--device", "cpu", "--run-dir"]).arg(name).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = train(&["tiny.toml", "--set", "training.steps=2"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = train(&["--resume", "--set", "training.steps=3"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(odd.join(name).join("state-000000003.safetensors").exists());
    // Such a name cannot be in a configuration, where the byte file's would be.
    std::fs::create_dir(odd.join("texts")).unwrap();
    std::fs::write(odd.join("texts/a.txt"), b"the grug hunts. ".repeat(100)).unwrap();
    std::fs::write(
        odd.join("other.toml"),
        TINY.replace("prepared = \"corpus.bin\"", "sources = [\"texts\"]"),
    )
    .unwrap();
    let (code, text) = train(&["other.toml", "--resume"]);
    assert!(code == Some(1) && text.contains("data.prepared") && text.contains("UTF-8"), "{text}");
}

#[test]
fn a_dry_run_is_about_the_text_as_it_is() {
    let folder = workplace();
    let path = folder.path();
    let config = TINY.replace("prepared = \"corpus.bin\"", "sources = [\"texts\"]");
    std::fs::write(path.join("sources.toml"), config).unwrap();
    std::fs::create_dir(path.join("texts")).unwrap();
    let dry = |set: &str| {
        let output = command(path, &["train", "sources.toml", "--dry-run", "--set", set]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let windows = |text: &str| -> u64 {
        let line =
            text.lines().find(|line| line.starts_with("training ")).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    std::fs::write(path.join("texts/a.txt"), b"the grug hunts. ".repeat(100)).unwrap();
    let before = windows(&dry("name=tiny"));
    let (code, text) = run(path, &["train", "sources.toml", "--device", "cpu", "--set", "training.steps=1"]);
    assert_eq!(code, Some(0), "{text}");
    std::fs::write(path.join("texts/b.txt"), b"the grug hunts. ".repeat(900)).unwrap();
    assert!(windows(&dry("name=tiny")) > 8 * before);
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

#[test]
fn a_model_that_can_learn_by_heart_passes_and_one_that_cannot_is_explained() {
    let folder = workplace();
    let path = folder.path();
    let check = ["overfit", "tiny.toml", "--device", "cpu", "--windows", "2"];
    let good = ["--set", "optimizer.learning_rate=0.01", "--set", "model.dropout.output=0.5"];
    let output = command(path, &[&check[..], &good].concat()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.starts_with("learned: from "), "{output:?}");
    for (rate, word) in [("1e-9", "lr-range"), ("1e30", "lower optimizer.learning_rate")] {
        let rate = format!("optimizer.learning_rate={rate}");
        let (code, text) = run(path, &[&check[..], &["--steps", "20", "--set", &rate]].concat());
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("look at this: ") && text.contains(word), "{text}");
        assert!(text.contains("error: not learned"), "{text}");
    }
    let frozen = ["--steps", "20", "--set", "optimizer.embedding_lr_multiplier=0"];
    let (code, text) = run(path, &[&check[..], &frozen].concat());
    assert!(code == Some(1) && text.contains("no step changed embedding.weight"), "{text}");
    assert!(!path.join("runs").exists(), "nothing is kept");
}

#[test]
fn a_learning_rate_is_found() {
    let folder = workplace();
    let path = folder.path();
    let sweep = ["lr-range", "tiny.toml", "--device", "cpu", "-o", "sweep", "--to", "10", "--steps", "120"];
    let output = command(path, &sweep).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let (_, rest) =
        text.split_once("suggested: optimizer.learning_rate = ").unwrap_or_else(|| panic!("{text}"));
    let rate: f64 = rest.trim().parse().unwrap();
    assert!((1e-4..0.3).contains(&rate), "{text}");
    let lines = std::fs::read_to_string(path.join("sweep/lr-range.jsonl")).unwrap();
    let rates: Vec<f64> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["learning_rate"].as_f64().unwrap()
        })
        .collect();
    assert!(rates[0] == 1e-6 && rates.is_sorted() && rates.len() > 40, "{rates:?}");
    let picture = std::fs::read_to_string(path.join("sweep/lr-range.svg")).unwrap();
    assert!(picture.contains("suggested"));
    let (code, text) = run(path, &["lr-range", "tiny.toml", "--from", "1", "--to", "0.1"]);
    assert!(code == Some(1) && text.contains("higher"), "{text}");
    // What is suggested trains.
    let set = format!("optimizer.learning_rate={rate}");
    let (code, text) =
        run(path, &["train", "tiny.toml", "--device", "cpu", "--set", "training.steps=100", "--set", &set]);
    assert_eq!(code, Some(0), "{text}");
}
