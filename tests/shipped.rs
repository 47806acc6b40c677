//! The model that comes along: it loads, it is the size that it should be, and it knows what its card says.

use std::path::{Path, PathBuf};

use grug::{Model, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn session() -> Session {
    let model = Model::load(&path("models/shakespeare.safetensors"), &ModelOptions::default()).unwrap();
    Session::new(&model, &SessionOptions::default()).unwrap()
}

#[test]
fn it_is_small() {
    let bytes = std::fs::metadata(path("models/shakespeare.safetensors")).unwrap().len();
    assert!(bytes < 1 << 20, "{bytes} bytes");
}

#[test]
fn it_predicts_text_that_it_was_not_trained_on() {
    let text = std::fs::read(path("data/shakespeare.txt")).unwrap();
    let mut session = session();
    let held_out = &text[text.len() / 10 * 9 + 4..][..8000]; // the first 90 % trained it
    let bits = session.score(held_out, None).unwrap() / held_out.len() as f64 / std::f64::consts::LN_2;
    assert!((1.8..2.5).contains(&bits), "{bits} bits a byte");
}

#[test]
fn it_writes_the_words_of_plays() {
    let mut session = session();
    session.feed(b"ROMEO:\n").unwrap();
    let mut sampler =
        Sampler::new(&SamplerOptions { temperature: 0.5, seed: 1, ..Default::default() }).unwrap();
    let text: Vec<u8> = (0..600).map(|_| session.next(&mut sampler).unwrap()).collect();
    let text = String::from_utf8(text).expect("it was trained on ASCII");
    let corpus = std::fs::read_to_string(path("data/shakespeare.txt")).unwrap();
    let known: std::collections::HashSet<_> = corpus.split(|c: char| !c.is_alphabetic()).collect();
    let words: Vec<_> = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
    let right = words.iter().filter(|&word| known.contains(word)).count();
    assert!(words.len() > 60 && right * 10 >= words.len() * 8, "{right} of {} words:\n{text}", words.len());
}
