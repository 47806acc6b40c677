//! A run that was stopped and resumed is the run that was never stopped, bit for bit.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Recorder, alone, configuration, corpus};
use grug_trainer::config::RunConfig;
use grug_trainer::dataset::Corpus;
use grug_trainer::train::{Files, Outcome, train};
use tch::Device;

/// A small run with everything in it that has a state: dropout, Muon, warmup and decay, epochs, validation.
fn run(extra: &[&str]) -> RunConfig {
    let mut settings = vec![
        "training.steps=100",
        "training.validate_every=20",
        "training.log_every=7",
        "model.dropout.transformer=0.1",
        "model.dropout.output=0.2",
        "optimizer.type=\"muon\"",
        "schedule.type=\"linear\"",
        "schedule.warmup_steps=30",
    ];
    settings.extend(extra);
    configuration(&settings)
}

fn finish(run: &RunConfig, corpus: &Corpus, dir: &Files, resume: bool, stop_at: Option<u64>) -> Outcome {
    let stop = AtomicBool::new(false);
    let on_step = Box::new(|step| stop.store(stop_at == Some(step), Ordering::Relaxed));
    let mut recorder = Recorder { on_step, ..Recorder::default() };
    train(run, corpus, Device::Cpu, dir, resume, &stop, &mut recorder).unwrap()
}

fn model_bytes(dir: &Files) -> Vec<u8> {
    let file = grug::checkpoint::Checkpoint::open(&dir.last).unwrap();
    let specs = grug::manifest::ModelTensors::specs(file.config()).into_leaves();
    specs.iter().flat_map(|spec| file.tensor(spec).unwrap().bytes.to_vec()).collect()
}

/// 100 steps at once, and 100 steps stopped after `stop_at` as Ctrl-C does, then resumed.
fn compare(extra: &[&str], stop_at: u64) {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), 6000);
    let run = run(extra);
    let whole = Files::create(&folder.path().join("whole")).unwrap();
    assert_eq!(finish(&run, &corpus, &whole, false, None), Outcome::Finished);
    let parts = Files::create(&folder.path().join("parts")).unwrap();
    assert_eq!(finish(&run, &corpus, &parts, false, Some(stop_at)), Outcome::Stopped);
    assert!(model_bytes(&whole) != model_bytes(&parts), "the stop came too late to test anything");
    assert_eq!(finish(&run, &corpus, &parts, true, None), Outcome::Finished);
    assert!(model_bytes(&whole) == model_bytes(&parts), "the resumed run took other steps");
    let progress = |files: &Files| files.newest_state().unwrap().0.progress;
    let (a, b) = (progress(&whole), progress(&parts));
    assert_eq!((a.schedule, a.best_nats, a.validated_step), (b.schedule, b.best_nats, b.validated_step));
}

#[test]
fn fifty_and_fifty_steps_are_a_hundred() {
    compare(&[], 50);
}

#[test]
fn the_published_split_resumes_too() {
    compare(&["data.legacy_split=true", "data.stride=5"], 31);
}

#[test]
fn a_stop_between_step_and_validation_loses_nothing() {
    compare(&["schedule.type=\"plateau\"", "schedule.patience=0", "schedule.warmup_steps=5"], 60);
}

#[test]
fn the_average_and_the_guard_resume_too() {
    let guard =
        ["guard.enabled=true", "guard.window_steps=10", "guard.sigmas=2.0", "guard.rollback_after=1000"];
    compare(&[&guard[..], &["training.ema_decay=0.98", "training.keep_last=2"]].concat(), 50);
}

#[test]
fn adam_with_accumulation_and_half_precision_resumes_too() {
    let settings = ["optimizer.type=\"adam\"", "training.accumulation=2", "training.precision=\"bf16\""];
    compare(&settings, 33);
    compare(&["optimizer.type=\"adamw\"", "training.precision=\"f16\"", "schedule.type=\"cosine\""], 77);
}

#[test]
fn the_last_checkpoints_stay_and_a_broken_one_is_passed_over() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), 6000);
    let run = run(&["training.steps=60", "training.checkpoint_every=8", "training.keep_last=3"]);
    let files = Files::create(&folder.path().join("run")).unwrap();
    finish(&run, &corpus, &files, false, None);
    let steps = || files.states().unwrap().iter().map(|(step, _)| *step).collect::<Vec<_>>();
    assert_eq!(steps(), [60, 56, 48]);
    let whole = model_bytes(&files);
    for (step, keep) in [(60, 1000), (56, 0)] {
        let bytes = std::fs::read(files.state(step)).unwrap();
        std::fs::write(files.state(step), &bytes[..keep]).unwrap();
    }
    let stop = AtomicBool::new(false);
    let mut recorder = Recorder::default();
    train(&run, &corpus, Device::Cpu, &files, true, &stop, &mut recorder).unwrap();
    let about = |name: &str| recorder.notes.iter().any(|note| note.contains(name));
    assert!(about("state-000000060") && about("state-000000056"), "{:?}", recorder.notes);
    assert_eq!(steps(), [60, 56, 48]);
    assert!(model_bytes(&files) == whole, "going on from an older checkpoint led elsewhere");
}

#[test]
fn what_may_not_change_is_refused_by_name() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), 6000);
    let dir = Files::create(&folder.path().join("run")).unwrap();
    finish(&run(&["training.steps=3"]), &corpus, &dir, false, None);
    let (stop, mut recorder) = (AtomicBool::new(false), Recorder::default());
    let mut again = |settings: &[&str], resume| {
        train(&run(settings), &corpus, Device::Cpu, &dir, resume, &stop, &mut recorder).unwrap_err()
    };
    for (setting, name) in [
        ("training.batch_size=6", "batch_size"),
        ("training.seed=9", "seed"),
        ("model.n_layers=1", "[model]"),
        ("optimizer.type=\"adam\"", "optimizer.type"),
    ] {
        let error = again(&[setting], true);
        assert!(error.message().contains(name), "{error}");
    }
    let error = again(&[], false);
    assert!(error.message().contains("--resume"), "{error}");
    // A longer text has its validation part where this one has its training part, or the other way round.
    let longer = common::corpus(folder.path(), 7000);
    let error = train(&run(&[]), &longer, Device::Cpu, &dir, true, &stop, &mut recorder).unwrap_err();
    assert!(error.message().contains("corpus") && error.message().contains("6000"), "{error}");
}
