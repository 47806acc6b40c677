//! What the published trainer offers, in whole runs: validation and models of every epoch, the best model, resuming with
//! and without the best loss, samples meanwhile and text at the end, early stopping, a plateau. The rules of schedules
//! and optimizers are compared with PyTorch's in `schedules.rs` and `optimizers.rs`.

mod common;
#[path = "../../tests/common/skip.rs"]
mod skip;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Recorder, alone, configuration, corpus};
use grug::checkpoint::Checkpoint;
use grug_trainer::batch::BatchSource;
use grug_trainer::config::Precision;
use grug_trainer::dataset::{Corpus, Layout};
use grug_trainer::evaluate::evaluate;
use grug_trainer::generate::generate;
use grug_trainer::model::Model;
use grug_trainer::telemetry::memory::resident;
use grug_trainer::train::{Files, Outcome, Trainer, train};
use skip::skip;
use tch::Device;

/// A run in `folder`, stopped at a step as Ctrl-C does where that is given.
fn go(
    folder: &Path,
    settings: &[&str],
    resume: bool,
    stop_at: Option<u64>,
) -> (Outcome, Recorder<'static>, Files) {
    let (corpus, run) = (corpus(folder, 6000), configuration(settings));
    let files = Files::create(&folder.join("run")).unwrap();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    let on_step = Box::new(move |step| raised.store(stop_at == Some(step), Ordering::Relaxed));
    let mut recorder = Recorder { on_step, ..Recorder::default() };
    let outcome = train(&run, &corpus, Device::Cpu, &files, resume, &stop, &mut recorder).unwrap();
    (outcome, recorder, files)
}

fn step_of(path: &Path) -> u64 {
    Checkpoint::open(path).unwrap().metadata()["grug.training.step"].parse().unwrap()
}

#[test]
fn epochs_are_validated_and_each_leaves_a_model() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "training.epochs=3",
        "training.steps=1000000",
        "training.batch_size=7",
        "training.validate_every=40",
        "training.validate_epochs=true",
        "training.validation_windows=9",
        "training.checkpoint_epochs=true",
        "data.stride=16",
        "optimizer.learning_rate=0.01",
    ];
    let (outcome, recorder, files) = go(folder.path(), &settings, false, None);
    assert_eq!(outcome, Outcome::Finished);
    let text = Corpus::open(&folder.path().join("corpus.bin")).unwrap();
    let layout = Layout::new(&configuration(&settings), text.len(), 0, 1).unwrap();
    // Epochs end within steps: the step that completes one counts.
    let ends: Vec<u64> = (1..=3).map(|epoch| layout.sampler.steps_for(epoch)).collect();
    let mut expected: Vec<u64> = (1..=ends[2]).filter(|s| s % 40 == 0 || ends.contains(s)).collect();
    expected.dedup();
    assert_eq!(recorder.validations.iter().map(|v| v.0).collect::<Vec<_>>(), expected);
    assert_eq!(layout.validation.len(), 9);
    for (epoch, end) in (1..).zip(&ends) {
        assert_eq!(step_of(&files.epoch(epoch)), *end);
    }
    assert!(!files.epoch(0).exists() && !files.epoch(4).exists());
    let lowest = recorder.validations.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(step_of(&files.best), lowest.0);
    assert!(recorder.validations.iter().filter(|v| v.2).count() >= 2, "{:?}", recorder.validations);
}

#[test]
fn every_epoch_leaves_a_model_without_a_validation_too() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "training.epochs=2",
        "training.steps=1000000",
        "training.batch_size=7",
        "training.validate_every=0",
        "training.checkpoint_epochs=true",
    ];
    let (_, _, files) = go(folder.path(), &settings, false, None);
    assert!(step_of(&files.epoch(1)) < step_of(&files.epoch(2)));
}

/// Stopped after its last step, before its last validation.
#[test]
fn a_run_without_its_last_validation_is_not_finished() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = ["training.steps=30", "training.validate_every=0"];
    let (outcome, recorder, files) = go(folder.path(), &settings, false, Some(30));
    assert_eq!((outcome, recorder.validations.len()), (Outcome::Stopped, 0));
    for validations in [1, 0] {
        let (outcome, recorder, _) = go(folder.path(), &settings, true, None);
        assert_eq!((outcome, recorder.validations.len()), (Outcome::Finished, validations));
        assert_eq!(files.newest_state().unwrap().0.progress.validated_step, Some(30));
    }
}

#[test]
fn a_run_that_is_stopped_before_its_first_step_can_be_resumed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (text, run) = (corpus(folder.path(), 6000), configuration(&["training.steps=3"]));
    let files = Files::create(&folder.path().join("run")).unwrap();
    let (stop, mut recorder) = (AtomicBool::new(true), Recorder::default());
    let outcome = train(&run, &text, Device::Cpu, &files, false, &stop, &mut recorder).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    let (outcome, ..) = go(folder.path(), &["training.steps=3"], true, None);
    assert_eq!(outcome, Outcome::Finished);
}

#[test]
fn a_run_goes_on_with_or_without_its_best_loss() {
    let _alone = alone();
    for reset in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let settings = ["training.steps=30", "training.validate_every=10", "optimizer.learning_rate=0.01"];
        let (_, first, files) = go(folder.path(), &settings, false, None);
        assert!(first.validations.last().unwrap().2, "{:?}", first.validations);
        // So high a learning rate that everything after it is worse.
        let reset_setting = format!("training.reset_best_on_resume={reset}");
        let worse = [
            "training.steps=40",
            "training.validate_every=10",
            "optimizer.learning_rate=3.0",
            &reset_setting,
        ];
        let (_, second, _) = go(folder.path(), &worse, true, None);
        let (step, nats, best) = second.validations[0];
        assert!(step == 40 && nats > first.validations.last().unwrap().1);
        assert_eq!(best, reset);
        assert_eq!(step_of(&files.best), if reset { 40 } else { 30 });
    }
}

#[test]
fn a_loss_that_no_longer_improves_ends_the_run() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "training.steps=1000",
        "training.validate_every=5",
        "training.early_stop_patience=3",
        "optimizer.learning_rate=0.01",
        // After 20 steps nothing is learned any more.
        "schedule.type=\"linear\"",
        "schedule.decay_fraction=1.0",
    ];
    let (outcome, recorder, files) = go(folder.path(), &settings, false, None);
    assert_eq!(outcome, Outcome::StoppedEarly);
    let since_best = recorder.validations.iter().rev().take_while(|v| !v.2).count();
    assert_eq!(since_best, 3);
    let end = recorder.validations.last().unwrap().0;
    assert!(end < 1000 && step_of(&files.last) == end && step_of(&files.best) == end - 15);
    assert!(recorder.notes.iter().any(|note| note.contains("stopping early")), "{:?}", recorder.notes);
}

#[test]
fn a_plateau_lowers_the_learning_rate() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "training.steps=40",
        "training.validate_every=5",
        "training.log_every=5",
        "schedule.type=\"plateau\"",
        "schedule.patience=1",
        "schedule.factor=0.5",
        // Every loss but the first is no improvement.
        "schedule.threshold=0.9",
        "optimizer.learning_rate=0.004",
    ];
    let (_, recorder, _) = go(folder.path(), &settings, false, None);
    let rates: Vec<f64> = recorder.reports.iter().map(|report| report.learning_rates[0]).collect();
    // Validations at 5, 10 and 15: one best, two bad, and so on every two.
    assert_eq!(rates, [0.004, 0.004, 0.004, 0.002, 0.002, 0.001, 0.001, 0.0005]);
    assert_eq!(recorder.notes.iter().filter(|note| note.contains("plateau")).count(), 3);
}

/// Samples meanwhile and text at the end of the same run, by the runtime: what the model file gives.
#[test]
fn a_run_writes_text_meanwhile_and_at_the_end() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "training.steps=40",
        "training.sample_every=20",
        "sample.bytes=30",
        "sample.prompt=\"the \"",
        "sample.temperature=0.3",
        "sample.top_k=20",
        "generate.bytes=50",
        "generate.temperature=1.0",
        "generate.top_k=50",
        "optimizer.learning_rate=0.01",
    ];
    let (_, recorder, files) = go(folder.path(), &settings, false, None);
    assert_eq!(recorder.samples.iter().map(Vec::len).collect::<Vec<_>>(), [30, 30, 50]);
    // Far longer than the context of 16 bytes.
    let run = configuration(&settings);
    let model = grug::Model::load(&files.last, &grug::ModelOptions { n_threads: 1, ..Default::default() });
    let options =
        grug::SamplerOptions { seed: run.generate.seed, temperature: 1.0, top_k: 50, ..Default::default() };
    let mut sampler = grug::Sampler::new(&options).unwrap();
    let mut text = Vec::new();
    generate(&model.unwrap(), b"", 50, &mut sampler, |byte| {
        text.push(byte);
        true
    })
    .unwrap();
    assert_eq!(recorder.samples[2], text);
}

/// A corpus of a tebibyte, nearly all of it a hole in its file: what is not trained on is never read.
#[test]
fn a_corpus_may_be_larger_than_memory() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.bin");
    if let Err(error) = std::fs::File::create(&path).unwrap().set_len(1 << 40) {
        skip(format_args!("needs a file system with sparse files: {error}"));
        return;
    }
    let huge = Corpus::open(&path).unwrap();
    let run =
        configuration(&["training.validation_windows=4", "data.validation_fraction=1e-9", "data.stride=1"]);
    let files = Files::create(&folder.path().join("run")).unwrap();
    let before = resident().map(|memory| memory.now);
    let (stop, mut recorder) = (AtomicBool::new(false), Recorder::default());
    let outcome = train(&run, &huge, Device::Cpu, &files, false, &stop, &mut recorder).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    // The hole reads as zeros, which are soon known.
    assert!(recorder.validations[0].1 < recorder.reports[0].nats, "{:?}", recorder.validations);
    if let (Some(before), Some(after)) = (before, resident()) {
        assert!(after.now < before + (256 << 20), "{before} {after:?}");
    }
}

/// The average of the weights is what validates and what the files hold.
#[test]
fn averaged_weights_validate_and_are_kept() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let settings = ["training.steps=30", "training.ema_decay=0.95", "optimizer.learning_rate=0.01"];
    let (_, recorder, files) = go(folder.path(), &settings, false, None);
    let text = Corpus::open(&folder.path().join("corpus.bin")).unwrap();
    let run = configuration(&settings);
    let layout = Layout::new(&run, text.len(), 0, 1).unwrap();
    let mut source = BatchSource::new(&text, run.window_bytes(), run.objective(), Device::Cpu);
    let model = Model::from_checkpoint(&Checkpoint::open(&files.last).unwrap(), Device::Cpu).unwrap();
    let stop = AtomicBool::new(false);
    let mut nats = |model: &Model| {
        evaluate(model, &mut source, &layout.validation, Precision::F32, &stop).unwrap().unwrap().nats
    };
    assert_eq!(nats(&model), recorder.validations[0].1);

    // By hand: weights that move by steps of 1, and what follows them.
    let mut trainer = Trainer::new(&run, &text, Device::Cpu).unwrap();
    let first = grug_trainer::model::to_f32(&trainer.model().parameters()[0]);
    let mut weights = Model::new(&run.model, run.training.seed, Device::Cpu).unwrap();
    let average = grug_trainer::average::WeightAverage::new(
        Model::new(&run.model, run.training.seed, Device::Cpu).unwrap(),
        0.3,
    );
    let mut expected = 0f64;
    for step in 0..5u64 {
        let moved: Vec<tch::Tensor> = weights.parameters().iter().map(|t| t.detach() + 1.0).collect();
        weights.set_parameters(&moved).unwrap();
        average.update(&weights, step).unwrap();
        let decay = 0.3f64.min((1.0 + step as f64) / (10.0 + step as f64));
        expected += (1.0 - decay) * ((step + 1) as f64 - expected);
    }
    let now = grug_trainer::model::to_f32(&average.model().parameters()[0]);
    assert!(now.iter().zip(&first).all(|(a, b)| (f64::from(a - b) - expected).abs() < 1e-4), "{expected}");
    // The weights themselves go elsewhere than their average.
    trainer.step().unwrap();
    let (plain, state) =
        (go(folder.path(), &["training.steps=40"], true, None), files.newest_state().unwrap().0);
    assert!(plain.0 == Outcome::Finished && !state.has("average."), "an average can be given up");
}
