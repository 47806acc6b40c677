//! The published checkpoints give the same logits through the trainer's forward pass.

use std::path::{Path, PathBuf};

use grug::checkpoint::Checkpoint;
use grug::import::read_pth;
use grug_trainer::model::{Model, Pass, Rows, to_f32};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input: Vec<u8>,
    logits_f64: Vec<f64>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/published")
}

#[test]
fn logits_are_those_of_the_float64_reference() {
    let folder = tempfile::tempdir().unwrap();
    let _guard = tch::no_grad_guard();
    let mut names: Vec<_> = std::fs::read_dir(fixtures())
        .expect("tests/fixtures/published of this repository")
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 7, "{names:?}");
    for name in &names {
        let path = folder.path().join("model.safetensors");
        read_pth(&fixtures().join(name).join(format!("{name}_best.pth"))).unwrap().save(&path).unwrap();
        let model = Model::from_checkpoint(&Checkpoint::open(&path).unwrap(), Device::Cpu).unwrap();
        let text = std::fs::read_to_string(fixtures().join(name).join("expected.json")).unwrap();
        let expected: Expected = serde_json::from_str(&text).unwrap();
        let mut worst = 0.0f64;
        for case in &expected.cases {
            let input = Tensor::from_data_size(&case.input, &[1, case.input.len() as i64], Kind::Uint8);
            let logits = to_f32(&model.forward(&input, Pass { rows: Rows::Last, train: false }).unwrap());
            let scale = case.logits_f64.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (ours, theirs) in logits.iter().zip(&case.logits_f64) {
                worst = worst.max((*ours as f64 - theirs).abs() / scale);
            }
        }
        println!("{name}: {worst:.1e} of max|logit|");
        assert!(!expected.cases.is_empty() && worst < 1e-5, "{name}: {worst}");
    }
}
