//! A session takes all its memory when it is made: feeding, predicting and generating allocate nothing.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use grug::checkpoint::Checkpoint;
use grug::quantize::{Target, quantize};
use grug::{Model, ModelConfig, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions};

/// Counts what is allocated, by any thread.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system allocator's; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
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
                let (mut out, mut n) = ([0u8; 20], 0);
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                session.feed(b"To be, or not to be, that is").unwrap();
                session.generate(&mut sampler, &[b"\n\n\n"], &mut out, &mut n).unwrap();
                session.next(&mut sampler).unwrap();
                // Past the end of the context, where it slides.
                session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
                session.score(b"the question", None).unwrap();
                let after = ALLOCATIONS.load(Ordering::Relaxed);
                assert_eq!(after - before, 0, "{name} {target:?} on {n_threads} threads");
            }
        }
    }
}
