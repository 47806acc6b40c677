//! Every published checkpoint computes here what it computes in the published code: the logits of a float64 reference,
//! and the same bytes.
#![cfg(feature = "import")]

mod pth;

use std::path::{Path, PathBuf};

use grug::import::read_pth;
use grug::{Model, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions};
use pth::{FIXTURES, fixture, fixture_pth};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    left_pad_zero: bool,
    cases: Vec<Case>,
    greedy_top_k_1: Vec<Greedy>,
}

#[derive(Deserialize)]
struct Case {
    input: Vec<u8>,
    /// 256 numbers.
    logits_f64: Vec<f64>,
}

#[derive(Deserialize)]
struct Greedy {
    seed: Vec<u8>,
    /// The seed and what follows.
    output: Vec<u8>,
}

fn expected(name: &str) -> Expected {
    let text = std::fs::read_to_string(fixture(name, "expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn import(name: &str, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{name}.safetensors"));
    read_pth(&fixture_pth(name)).unwrap().save(&path).unwrap();
    path
}

fn load(path: &Path) -> Model {
    Model::load(path, &ModelOptions { n_threads: 1, ..Default::default() }).unwrap()
}

#[test]
fn logits_are_those_of_the_float64_reference() {
    let folder = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        let model = load(&import(name, folder.path()));
        let expected = expected(name);
        let mut worst = 0.0f64;
        for case in &expected.cases {
            let logits = model.raw_logits(&case.input).unwrap();
            assert_eq!(case.logits_f64.len(), logits.len());
            let scale = case.logits_f64.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let difference = logits
                .iter()
                .zip(&case.logits_f64)
                .map(|(&ours, reference)| (ours as f64 - reference).abs())
                .fold(0.0, f64::max);
            // A NaN would slip through a comparison of maxima.
            assert!(logits.iter().all(|v| v.is_finite()), "{name}");
            worst = worst.max(difference / scale);
            assert!(
                difference <= 1e-4 * scale,
                "{name}, input of {} bytes: {difference:e} of {scale}",
                case.input.len()
            );
        }
        println!(
            "{name}: max|Δ| / max|reference| = {worst:.2e} over {} cases of {} parameters",
            expected.cases.len(),
            model.n_params()
        );
    }
}

#[test]
fn greedy_bytes_are_the_published_ones() {
    let folder = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        let model = load(&import(name, folder.path()));
        let expected = expected(name);
        assert_eq!(model.config().pad_short_input, expected.left_pad_zero, "{name}");
        for greedy in &expected.greedy_top_k_1 {
            let (seed, continuation) = greedy.output.split_at(greedy.seed.len());
            assert_eq!(seed, greedy.seed);
            let top_1 = SamplerOptions { temperature: 1.0, top_k: 1, ..Default::default() };
            for mut sampler in [Sampler::greedy(), Sampler::new(&top_1).unwrap()] {
                let mut session = Session::new(&model, &SessionOptions::default()).unwrap();
                session.feed(seed).unwrap();
                let (mut out, mut n) = (vec![0; continuation.len()], 0);
                session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
                assert_eq!(
                    String::from_utf8_lossy(&out[..n]),
                    String::from_utf8_lossy(continuation),
                    "{name}, seed {:?}",
                    String::from_utf8_lossy(seed)
                );
            }
        }
    }
}
