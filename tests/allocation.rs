//! A session takes all its memory when it is made: feeding, predicting and generating, alone and in a batch, allocate
//! nothing. And the weights are no part of it: all sessions of a model share them.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use grug::checkpoint::Checkpoint;
use grug::quantize::{Target, quantize};
use grug::{
    Model, ModelConfig, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions, Step, next_batch,
};

/// Counts what is allocated, by any thread.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated now.
static HELD: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, so that nothing else allocates meanwhile.
#[test]
fn a_session_takes_its_memory_when_it_is_made_and_no_weights() {
    a_session_allocates_nothing_after_it_is_made();
    sessions_share_the_weights();
}

fn sessions_share_the_weights() {
    let config = "context_bytes = 16\nembedding_dim = 256\nd_model = 256\nn_heads = 4\nn_layers = 3\npositions = \"rotary\"";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide");
    common::write_random_model(&path, &ModelConfig::from_toml(config).unwrap(), 1);
    for mmap in [true, false] {
        let before = HELD.load(Ordering::Relaxed);
        let options = ModelOptions { mmap, n_threads: 1, ..Default::default() };
        let model = Model::load(&path, &options).unwrap();
        let loaded = HELD.load(Ordering::Relaxed) - before;
        // Read into memory once, or not at all. Memory of huge pages is not the allocator's, and not counted here.
        let weights = model.weight_bytes();
        let most = if mmap { weights / 8 } else { weights + weights / 8 };
        assert!(loaded < most, "{loaded} bytes for {weights} bytes of weights, mapped: {mmap}");
        let mut sessions: Vec<Session> =
            (0..8).map(|_| Session::new(&model, &SessionOptions::default()).unwrap()).collect();
        sessions.iter_mut().for_each(|session| session.feed(b"to be fed").unwrap());
        sessions.extend((0..8).map(|i| sessions[i].fork().unwrap()).collect::<Vec<_>>());
        let each = (HELD.load(Ordering::Relaxed) - before - loaded) / 16;
        assert!(each < weights / 8, "{each} bytes a session, {weights} bytes of weights");
    }
}

fn a_session_allocates_nothing_after_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for (name, config) in common::ALL {
        let path = folder.path().join(name);
        common::write_random_model(&path, &ModelConfig::from_toml(config).unwrap(), 1);
        let file = Checkpoint::open(&path).unwrap();
        for target in [None, Some(Target::F16), Some(Target::Int8), Some(Target::Int4)] {
            let path = match target {
                Some(target) => {
                    let small = folder.path().join(format!("{name}-{}", target.name()));
                    quantize(&file, target, &small).unwrap();
                    small
                }
                None => path.clone(),
            };
            for n_threads in [1, 2] {
                let model = Model::load(&path, &ModelOptions { n_threads, ..Default::default() }).unwrap();
                let mut session = Session::new(&model, &SessionOptions::default()).unwrap();
                let mut sampler =
                    Sampler::new(&SamplerOptions { seed: 3, top_k: 40, ..Default::default() }).unwrap();
                let mut other = session.fork().unwrap();
                let mut greedy = Sampler::greedy();
                let (mut out, mut n) = ([0u8; 20], 0);
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                session.feed(b"To be, or not to be, that is").unwrap();
                session.generate(&mut sampler, &[b"\n\n\n"], &mut out, &mut n).unwrap();
                session.next(&mut sampler).unwrap();
                // Past the end of the context, where it slides.
                session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
                session.score(b"the question", None).unwrap();
                // Where text repeats itself, which is drafted from.
                session.feed(b"abcabcabcabcabc").unwrap();
                session.generate(&mut greedy, &[], &mut out, &mut n).unwrap();
                other.feed(b"To be, or").unwrap();
                for _ in 0..20 {
                    let mut steps = [
                        Step { session: &mut session, sampler: &mut sampler, input: None },
                        Step { session: &mut other, sampler: &mut greedy, input: None },
                    ];
                    let mut bytes = [Ok(0), Ok(0)];
                    next_batch(&mut steps, &mut bytes).unwrap();
                    assert!(bytes.iter().all(Result::is_ok));
                }
                let after = ALLOCATIONS.load(Ordering::Relaxed);
                assert_eq!(after - before, 0, "{name} {target:?} on {n_threads} threads");
            }
        }
    }
}
