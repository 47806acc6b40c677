//! What quantized weights cost: bits a byte of held-out text by a trained model, beside its unquantized weights.

use std::path::{Path, PathBuf};

use grug::checkpoint::Checkpoint;
use grug::quantize::{Target, quantize};
use grug::{Model, ModelOptions, Session, SessionOptions};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Bits a byte of this text.
fn bits(model: &Path, text: &[u8]) -> f64 {
    let model = Model::load(model, &ModelOptions::default()).unwrap();
    let mut session = Session::new(&model, &SessionOptions::default()).unwrap();
    session.score(text, None).unwrap() / text.len() as f64 / std::f64::consts::LN_2
}

#[test]
fn quantized_weights_predict_as_well_as_the_weights_they_come_from() {
    // In 16 bits, which cost less than a ten-thousandth.
    let trained = path("tests/fixtures/trained.safetensors");
    let text = std::fs::read(path("data/shakespeare.txt")).unwrap();
    let held_out = &text[text.len() / 10 * 9 + 4..][..20_000]; // the first 90 % trained it
    let exact = bits(&trained, held_out);
    assert!(exact < 2.4, "{exact} bits a byte");
    let folder = tempfile::tempdir().unwrap();
    for (target, most) in [(Target::Int8, 1.002), (Target::Int4, 1.015)] {
        let small = folder.path().join("small.safetensors");
        quantize(&Checkpoint::open(&trained).unwrap(), target, &small).unwrap();
        let got = bits(&small, held_out);
        println!(
            "{target:?}: {got:.5} against {exact:.5} bits a byte, {:+.3} %",
            100.0 * (got / exact - 1.0)
        );
        assert!(got <= most * exact, "{target:?}: {got} against {exact} bits a byte");
        assert!(std::fs::metadata(&small).unwrap().len() < std::fs::metadata(&trained).unwrap().len());
    }
}
