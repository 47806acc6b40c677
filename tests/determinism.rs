//! The same bytes for any number of threads: bit by bit, in every way that weights are stored.

mod common;

use grug::checkpoint::Checkpoint;
use grug::quantize::{Target, quantize};
use grug::{
    Model, ModelConfig, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions, Step, next_batch,
};

/// Wide enough that matrices, attention and prefill are all divided among the threads.
const CONFIG: &str = "context_bytes = 200\nembedding_dim = 192\nd_model = 192\nn_heads = 3\nn_layers = 2\npositions = \"rotary\"";

/// Everything that a session says, as bits.
fn account(model: &Model) -> (Vec<u32>, Vec<u32>, u64, Vec<u8>, Vec<u32>) {
    let mut session = Session::new(model, &SessionOptions::default()).unwrap();
    let text: Vec<u8> = (0..170u32).map(|i| (i * i % 251) as u8).collect();
    session.feed(&text[..90]).unwrap();
    let logits = session.logits().unwrap().iter().map(|l| l.to_bits()).collect();
    let mut nats = [0.0; 80];
    let total = session.score(&text[90..], Some(&mut nats)).unwrap().to_bits();
    let embedding = session.embedding().unwrap().iter().chain(&nats).map(|x| x.to_bits()).collect();
    let mut sampler =
        Sampler::new(&SamplerOptions { temperature: 1.0, seed: 9, ..Default::default() }).unwrap();
    // Past the end of the context, where it slides.
    let (mut out, mut n) = (vec![0; 60], 0);
    session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
    (logits, embedding, total, out, together(model))
}

/// What sessions that step together predict in the end, each at a position of its own.
fn together(model: &Model) -> Vec<u32> {
    let mut sessions: Vec<Session> =
        (0..9).map(|_| Session::new(model, &SessionOptions::default()).unwrap()).collect();
    for (i, session) in sessions.iter_mut().enumerate() {
        session.feed(&vec![i as u8; 1 + 7 * i]).unwrap();
    }
    let mut samplers = vec![Sampler::greedy(); sessions.len()];
    for _ in 0..3 {
        let pairs = sessions.iter_mut().zip(&mut samplers);
        let mut steps: Vec<Step<'_>> =
            pairs.map(|(session, sampler)| Step { session, sampler, input: None }).collect();
        let mut bytes = vec![Ok(0); steps.len()];
        next_batch(&mut steps, &mut bytes).unwrap();
        assert!(bytes.iter().all(Result::is_ok));
    }
    sessions.iter_mut().flat_map(|session| session.logits().unwrap().map(f32::to_bits)).collect()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f32");
    common::write_random_model(&path, &ModelConfig::from_toml(CONFIG).unwrap(), 5);
    let file = Checkpoint::open(&path).unwrap();
    let mut paths = vec![path.clone()];
    for target in [Target::F16, Target::Int8, Target::Int4] {
        paths.push(folder.path().join(target.name()));
        quantize(&file, target, paths.last().unwrap()).unwrap();
    }
    for path in &paths {
        for portable in [false, true] {
            let load = |n_threads| {
                Model::load(path, &ModelOptions { n_threads, portable, ..Default::default() }).unwrap()
            };
            let alone = account(&load(1));
            for n_threads in [2, 3, 7] {
                assert!(account(&load(n_threads)) == alone, "{} on {n_threads} threads", path.display());
            }
        }
    }
}
