//! What is made for GPUs, on the CPU, where its code path is the same: windows cut on the device, blocks computed
//! again, mixed precision, no waiting in a step, and traces.

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use common::{Recorder, alone, configuration, corpus};
use grug_trainer::batch::BatchSource;
use grug_trainer::config::{Objective, RunConfig};
use grug_trainer::train::{Files, Outcome, StepReport, train};
use serde_json::Value;
use tch::Device;

/// What a run says, and its folder.
fn run(run: &RunConfig) -> (Vec<StepReport>, Vec<String>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), 4000);
    let files = Files::create(&folder.path().join("run")).unwrap();
    let mut recorder = Recorder::default();
    let stop = AtomicBool::new(false);
    let outcome = train(run, &corpus, Device::Cpu, &files, false, &stop, &mut recorder).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    (std::mem::take(&mut recorder.reports), std::mem::take(&mut recorder.notes), folder)
}

/// Loss and gradient norm of every step, to the last bit.
fn curve(settings: &[&str]) -> Vec<(u64, u64)> {
    let settings = [settings, &["training.steps=4", "training.log_every=1"]].concat();
    let (reports, ..) = run(&configuration(&settings));
    assert_eq!(reports.len(), 4);
    reports.iter().map(|report| (report.nats.to_bits(), report.grad_norm.to_bits())).collect()
}

#[test]
fn windows_cut_on_the_device_are_those_cut_on_the_host() {
    let _turn = alone();
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), 1000);
    let offsets = [0, 983, 17, 500, 17];
    for objective in [Objective::Every, Objective::Last] {
        let source = || BatchSource::new(&corpus, 16, objective, Device::Cpu);
        let (mut host, mut device) = (source(), source().keep_on_device(Some(true)).unwrap());
        assert!(device.is_on_device() && !source().keep_on_device(None).unwrap().is_on_device());
        let (host, device) = (host.gather(&offsets).unwrap(), device.gather(&offsets).unwrap());
        assert_eq!((host.inputs, host.targets), (device.inputs, device.targets));
    }
    assert_eq!(curve(&["data.on_device=true"]), curve(&["data.on_device=false"]));
}

#[test]
fn blocks_computed_again_give_the_same_gradients_to_the_last_bit() {
    let _turn = alone();
    let recipes: [&[&str]; 5] = [
        &["model.qk_norm=true", "model.ffn_activation=\"relu2\"", "optimizer.type=\"muon\""],
        &["model.dropout.transformer=0.2", "training.accumulation=2"],
        &["training.precision=\"bf16\""],
        &["model.attention=\"bidirectional\"", "model.norm_first=false", "model.norm=\"layer\""],
        &[
            "model.attention=\"bidirectional\"",
            "model.positions=\"sinusoidal\"",
            "model.aggregated_stream={d_model=32, n_layers=2, kernel=4, stride=4}",
            "model.dropout.transformer=0.1",
        ],
    ];
    for recipe in recipes {
        let again = curve(&[recipe, &["training.recompute=true"]].concat());
        assert_eq!(again, curve(recipe), "{recipe:?}");
    }
}

/// The most memory that a process holds for steps with long contexts.
fn peak(recompute: bool) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corpus.bin"), b"the grug sleeps. ".repeat(1000)).unwrap();
    let config = r#"
        name = "long"
        [data]
        prepared = "corpus.bin"
        validation_fraction = 0.0
        [training]
        steps = 1
        batch_size = 4
        threads = 1
        [model]
        context_bytes = 2048
        embedding_dim = 32
        d_model = 32
        n_heads = 1
        n_layers = 12
        positions = "rotary"
        norm_first = true
    "#;
    std::fs::write(folder.path().join("long.toml"), config).unwrap();
    let set = format!("training.recompute={recompute}");
    let output = Command::new(env!("CARGO_BIN_EXE_grug-trainer"))
        .current_dir(folder.path())
        .args(["bench", "long.toml", "--device", "cpu", "--rounds", "1", "--steps", "1", "--set", &set])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let round: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(round["loss"].as_f64().unwrap() > 0.0 && round["seconds"].as_f64().unwrap() > 0.0);
    round["peak_memory_bytes"].as_u64().unwrap()
}

#[test]
fn blocks_computed_again_need_less_memory() {
    let (kept, again) = (peak(false), peak(true));
    println!("peak memory: {} MiB, computed again {} MiB", kept >> 20, again >> 20);
    assert!(again + (64 << 20) < kept, "{again} {kept}");
}

#[test]
fn bf16_learns_what_f32_learns_but_for_rounding() {
    let _turn = alone();
    let nats = |precision: &str| {
        let settings =
            [precision, "training.steps=60", "optimizer.learning_rate=0.01", "training.log_every=20"];
        let (reports, ..) = run(&configuration(&settings));
        reports.iter().map(|report| report.nats).collect::<Vec<_>>()
    };
    let (rounded, exact) = (nats("training.precision=\"bf16\""), nats("training.precision=\"f32\""));
    assert_ne!(rounded, exact);
    assert!(exact[2] < 0.7 * exact[0], "{exact:?}");
    for (a, b) in rounded.iter().zip(&exact) {
        assert!((a - b).abs() < 0.05 * b, "{rounded:?} {exact:?}");
    }
}

/// Something that ran, in microseconds.
struct Event {
    name: String,
    start: f64,
    end: f64,
}

/// What ran in a trace.
fn events(folder: &tempfile::TempDir, file: &str) -> Vec<Event> {
    let text = std::fs::read(folder.path().join("run").join(file)).unwrap();
    let trace: Value = serde_json::from_slice(&text).unwrap();
    let event = |event: &Value| {
        let (start, took) = (event["ts"].as_f64()?, event["dur"].as_f64()?);
        Some(Event { name: event["name"].as_str()?.to_owned(), start, end: start + took })
    };
    trace["traceEvents"].as_array().unwrap().iter().filter_map(event).collect()
}

fn names(folder: &tempfile::TempDir, file: &str) -> BTreeSet<String> {
    events(folder, file).into_iter().map(|event| event.name).collect()
}

const PROFILED: [&str; 6] = [
    "training.steps=10",
    "training.log_every=100",
    "profiler.enabled=true",
    "profiler.wait=1",
    "profiler.warmup=1",
    "profiler.active=2",
];

#[test]
fn a_trace_shows_the_steps_of_its_cycles_and_what_they_ran() {
    let _turn = alone();
    let (_, notes, folder) = run(&configuration(&[&PROFILED[..], &["profiler.repeat=2"]].concat()));
    for (file, steps) in [("trace-1.json", ["step 3", "step 4"]), ("trace-2.json", ["step 7", "step 8"])] {
        assert!(notes.iter().any(|note| note.contains(file)), "{notes:?}");
        let names = names(&folder, file);
        for name in ["batch", "forward", "backward", "optimizer", "aten::mm", "aten::_fused_adamw_"]
            .iter()
            .chain(&steps)
        {
            assert!(names.contains(*name), "{file}: no {name} in {names:?}");
        }
        let others = names.iter().filter(|name| name.starts_with("step ")).count();
        assert_eq!(others, 2, "{names:?}");
    }
    assert!(!folder.path().join("run/trace-3.json").exists());
    // The other epochs are not traced, and a cycle that the run cuts short is kept as far as it came.
    let (_, _, folder) = run(&configuration(&[&PROFILED[..], &["profiler.epoch=7"]].concat()));
    assert!(!folder.path().join("run/trace-1.json").exists());
    let short = [&PROFILED[..], &["training.steps=3", "profiler.active=50"]].concat();
    let (_, _, folder) = run(&configuration(&short));
    assert!(names(&folder, "trace-1.json").contains("step 3"));
}

/// Operators in a trace that read a number from the device, outside of the optimizer's own kernels: those do so on the
/// CPU alone.
fn reads(folder: &tempfile::TempDir) -> Vec<String> {
    let events = events(folder, "trace-1.json");
    let is_kernel = |event: &Event| event.name.starts_with("aten::_fused_adam");
    let kernels: Vec<&Event> = events.iter().filter(|event| is_kernel(event)).collect();
    let of_kernel = |event: &Event| kernels.iter().any(|k| k.start <= event.start && event.end <= k.end);
    let reading =
        ["aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"];
    let found = events.iter().filter(|event| reading.contains(&event.name.as_str()) && !of_kernel(event));
    found.map(|event| event.name.clone()).collect()
}

/// On a GPU, reading a number makes the host wait for all that came before. The operators that read one are the same on
/// the CPU, and a step must not use them.
#[test]
fn a_step_reads_no_number_from_the_device() {
    let _turn = alone();
    for recipe in [
        &["optimizer.type=\"adamw\""][..],
        &["optimizer.type=\"muon\"", "training.precision=\"bf16\"", "data.on_device=true"],
        &["optimizer.type=\"muon\"", "training.precision=\"f16\"", "training.accumulation=2"],
        &["optimizer.type=\"adam\"", "training.recompute=true", "model.dropout.transformer=0.1"],
    ] {
        let (_, _, folder) = run(&configuration(&[&PROFILED[..], recipe].concat()));
        assert!(names(&folder, "trace-1.json").contains("optimizer"));
        assert_eq!(reads(&folder), [""; 0], "{recipe:?}");
    }
    // What the test looks for is what reading a number looks like.
    let (_, _, folder) = run(&configuration(&[&PROFILED[..], &["training.log_every=1"]].concat()));
    assert!(!reads(&folder).is_empty());
}
