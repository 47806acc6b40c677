//! That training learns, and that what it learned is in the file for the runtime to use.

mod common;

use std::sync::atomic::AtomicBool;

use common::{Recorder, alone, configuration, corpus};
use grug_trainer::batch::BatchSource;
use grug_trainer::config::{Objective, Precision};
use grug_trainer::evaluate::evaluate;
use grug_trainer::model::Model;
use grug_trainer::train::{Files, Outcome, train};
use tch::Device;

/// Trains with these settings on `len` bytes and returns what was said.
fn learn(folder: &std::path::Path, settings: &[&str], len: usize) -> (Recorder<'static>, Files) {
    let (corpus, run) = (corpus(folder, len), configuration(settings));
    let files = Files::create(&folder.join("run")).unwrap();
    let mut recorder = Recorder::default();
    let stop = AtomicBool::new(false);
    let outcome = train(&run, &corpus, Device::Cpu, &files, false, &stop, &mut recorder).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    (recorder, files)
}

const ONE_BATCH: [&str; 5] = [
    "training.steps=300",
    "training.batch_size=1",
    "data.validation_fraction=0",
    "data.shift_epochs=false",
    "optimizer.learning_rate=0.01",
];

#[test]
fn one_window_is_learned_by_heart() {
    let _alone = alone();
    let bidirectional = ["model.attention=\"bidirectional\"", "model.positions=\"sinusoidal\""];
    let parallel = [
        "model.attention=\"bidirectional\"",
        "model.positions=\"sinusoidal\"",
        "model.aggregated_stream={d_model=16,n_layers=1,kernel=4,stride=4}",
    ];
    let muon = ["optimizer.type=\"muon\"", "model.ffn_activation=\"relu2\""];
    let half = ["training.precision=\"bf16\"", "training.clip_grad_norm=0.5", "model.norm=\"layer\""];
    for extra in [&[][..], &bidirectional[..], &parallel[..], &muon[..], &half[..]] {
        let folder = tempfile::tempdir().unwrap();
        let settings = [&ONE_BATCH[..], extra].concat();
        let (recorder, _) = learn(folder.path(), &settings, 17);
        let (first, last) = (recorder.reports[0].nats, recorder.reports.last().unwrap().nats);
        assert!(first > 1.0 && last < 0.02, "{extra:?}: from {first} to {last}");
    }
}

#[test]
fn accumulated_passes_are_one_batch() {
    let _alone = alone();
    let weights = |accumulation: &str| {
        let folder = tempfile::tempdir().unwrap();
        let settings = ["training.steps=5", "training.batch_size=6", accumulation];
        let (_, files) = learn(folder.path(), &settings, 4000);
        let file = grug::checkpoint::Checkpoint::open(&files.last).unwrap();
        let specs = grug::manifest::ModelTensors::specs(file.config()).into_leaves();
        specs.iter().flat_map(|spec| file.tensor(spec).unwrap().to_f32()).collect::<Vec<f32>>()
    };
    let (whole, parts) = (weights("training.accumulation=1"), weights("training.accumulation=3"));
    let difference = whole.iter().zip(&parts).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(difference < 2e-4, "{difference}");
}

/// The trainer and the runtime agree on how good a trained model is.
#[test]
fn both_sides_score_a_trained_model_alike() {
    let _alone = alone();
    let settings = [
        "training.steps=80",
        "training.validate_every=40",
        "training.sample_every=40",
        "sample.bytes=12",
        "optimizer.learning_rate=0.005",
        "model.embedding_norm=true",
        "model.logit_softcap=15.0",
        "model.aggregated_stream={d_model=16,n_layers=1,kernel=4,stride=2}",
    ];
    let folder = tempfile::tempdir().unwrap();
    let (recorder, files) = learn(folder.path(), &settings, 6000);
    assert_eq!((recorder.validations.len(), recorder.samples.len()), (2, 2));
    assert!(recorder.samples.iter().all(|text| text.len() == 12));
    let corpus = grug_trainer::dataset::Corpus::open(&folder.path().join("corpus.bin")).unwrap();

    let file = grug::checkpoint::Checkpoint::open(&files.best).unwrap();
    let model = Model::from_checkpoint(&file, Device::Cpu).unwrap();
    let window = model.config().window_bytes();
    let offsets: Vec<u64> = (0..60).map(|i| 4000 + i * window as u64).collect();
    let mut source = BatchSource::new(&corpus, window, Objective::Every, Device::Cpu);
    let stop = AtomicBool::new(false);
    let ours = evaluate(&model, &mut source, &offsets, Precision::F32, &stop).unwrap().unwrap();

    let runtime = grug::Model::from_checkpoint(file, &grug::ModelOptions::default()).unwrap();
    let mut session = grug::Session::new(&runtime, &grug::SessionOptions::default()).unwrap();
    let mut nats = 0.0;
    for &offset in &offsets {
        let bytes = &corpus.bytes()[offset as usize..][..window + 1];
        session.reset();
        session.feed(&bytes[..1]).unwrap();
        nats += session.score(&bytes[1..], None).unwrap();
    }
    let theirs = nats / ours.targets as f64;
    assert_eq!(ours.targets, 60 * window as u64);
    assert!(ours.nats < 3.0 && (ours.nats - theirs).abs() < 1e-3 * theirs, "{} {theirs}", ours.nats);
}
