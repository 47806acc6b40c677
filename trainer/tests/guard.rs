//! The guard: spoiled text is passed over, and spoiled weights are left for a checkpoint from before.

mod common;

use std::sync::atomic::AtomicBool;

use common::{Recorder, alone, configuration, corpus};
use grug::rng::{Stream, words};
use grug_trainer::dataset::{Corpus, Layout};
use grug_trainer::train::{Files, Outcome, Trainer, train};
use tch::Device;

const GUARDED: [&str; 6] = [
    "guard.enabled=true",
    "guard.window_steps=40",
    "guard.rollback_after=4",
    "training.log_every=1",
    "optimizer.learning_rate=0.01",
    "data.shift_epochs=false",
];

#[test]
fn steps_on_spoiled_text_are_skipped() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (start, len) = (2000u64, 48u64);
    let mut text = corpus(folder.path(), 6000).bytes().to_vec();
    for (i, byte) in text[start as usize..][..len as usize].iter_mut().enumerate() {
        *byte = words(1, Stream::Dummy, 3, i as u64)[0] as u8;
    }
    let path = folder.path().join("spoiled.bin");
    std::fs::write(&path, text).unwrap();
    let text = Corpus::open(&path).unwrap();
    let run = configuration(&[&GUARDED[..], &["training.steps=330"]].concat());
    let files = Files::create(&folder.path().join("run")).unwrap();
    let (stop, mut recorder) = (AtomicBool::new(false), Recorder::default());
    let outcome = train(&run, &text, Device::Cpu, &files, false, &stop, &mut recorder).unwrap();
    assert_eq!(outcome, Outcome::Finished);

    let layout = Layout::new(&run, text.len(), 0, 1).unwrap();
    let window = run.window_bytes() as u64;
    // The most bytes of noise in a window of a step.
    let noise = |step: u64| {
        let mut offsets = Vec::new();
        layout.sampler.fill_batch(step, &mut offsets);
        let overlap = |o: &u64| (start + len).min(o + window + 1).saturating_sub(start.max(*o));
        offsets.iter().map(overlap).max().unwrap()
    };
    let counts: Vec<u64> = recorder.reports.iter().map(|report| report.spikes.unwrap()).collect();
    let skipped: Vec<u64> =
        (1..counts.len()).filter(|&i| counts[i] > counts[i - 1]).map(|i| i as u64).collect();
    // Once the model knows the text, noise stands out, and little else does.
    let known = 100..330;
    let noisy: Vec<u64> = known.clone().filter(|&step| noise(step) > window / 2).collect();
    assert!(noisy.len() >= 4, "{noisy:?}");
    assert!(noisy.iter().all(|step| skipped.contains(step)), "{noisy:?} {skipped:?}");
    let others = skipped.iter().filter(|step| known.contains(step) && noise(**step) == 0).count();
    assert!(2 * others <= noisy.len(), "{noisy:?} {skipped:?}");
    assert!(recorder.notes.iter().any(|note| note.contains("skipped")), "{:?}", recorder.notes);
    assert_eq!(files.newest_state().unwrap().0.progress.rollbacks, 0);
}

/// One step with an enormous learning rate: its own loss was fine, so nothing could skip it, but every later one is bad.
#[test]
fn spoiled_weights_are_left_for_a_checkpoint() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), 6000);
    let set = |extra: &[&str]| {
        configuration(&[&GUARDED[..], &["training.steps=120", "training.keep_last=3"], extra].concat())
    };
    let run = set(&[]);
    let files = Files::create(&folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&run, &corpus, Device::Cpu).unwrap();
    for step in 1..=60 {
        match step {
            55 => trainer.step_on(54, vec![5.0]).unwrap(),
            _ => trainer.step().unwrap(),
        }
        if step % 10 == 0 {
            trainer.save_state(&files.state(step)).unwrap();
        }
    }
    assert!(trainer.spikes().unwrap().in_a_row >= 4, "{:?}", trainer.spikes());
    drop(trainer);

    let stop = AtomicBool::new(false);
    let mut recorder = Recorder::default();
    let never = set(&["guard.max_rollbacks=0"]);
    let error = train(&never, &corpus, Device::Cpu, &files, true, &stop, &mut recorder).unwrap_err();
    assert!(error.message().contains("diverged"), "{error}");

    let mut recorder = Recorder::default();
    let outcome = train(&run, &corpus, Device::Cpu, &files, true, &stop, &mut recorder).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    assert!(recorder.notes.iter().any(|note| note.contains("back to step 50")), "{:?}", recorder.notes);
    let progress = files.newest_state().unwrap().0.progress;
    assert_eq!((progress.step, progress.rollbacks), (120, 1));
    assert!(progress.data_ahead >= 10, "what was taken back is not trained on again");
    let last = recorder.reports.last().unwrap();
    assert_eq!(last.learning_rates, [0.005], "the learning rate is halved");
    assert!(last.nats < 1.5, "{}", last.nats);

    // It stays so in a run that is resumed after it went back.
    let mut resumed = Trainer::new(&run, &corpus, Device::Cpu).unwrap();
    resumed.restore(Some(files.newest_state().unwrap().0)).unwrap();
    assert_eq!(resumed.schedule_learning_rates(), [0.005]);
}

/// Weights that give no number at all, and a validation before the guard goes back.
#[test]
fn a_validation_of_spoiled_weights_waits_for_the_guard() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), 6000);
    let run = configuration(&[&GUARDED[..], &["training.steps=80", "training.validate_every=2"]].concat());
    let files = Files::create(&folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&run, &corpus, Device::Cpu).unwrap();
    for step in 1..=61 {
        match step {
            60 => trainer.step_on(59, vec![1e38]).unwrap(),
            _ => trainer.step().unwrap(),
        }
        if [50, 61].contains(&step) {
            trainer.save_state(&files.state(step)).unwrap();
        }
    }
    drop(trainer);
    let (stop, mut recorder) = (AtomicBool::new(false), Recorder::default());
    let outcome = train(&run, &corpus, Device::Cpu, &files, true, &stop, &mut recorder).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    assert!(recorder.notes.iter().any(|note| note.contains("back to step 50")), "{:?}", recorder.notes);
    assert!(recorder.validations.iter().all(|(_, nats, _)| nats.is_finite()));
    assert_eq!(recorder.validations.last().unwrap().0, 80);
}
