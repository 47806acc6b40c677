//! Everything but decoding.

use grug::checkpoint::Checkpoint;
use grug::{ErrorKind, Model, ModelConfig, ModelOptions, Overflow, Sampler, Session, SessionOptions};

use crate::common::{
    self, ALL, CAUSAL_MODERN, CAUSAL_PARALLEL, CAUSAL_PLAIN, relative_difference, some_bytes,
};
use crate::gpu_suite::{MORE, every_kind, models, session};
#[cfg(feature = "import")]
use crate::pth;
use crate::{DEVICE, NEEDS, prepare};

#[test]
fn logits_are_the_cpus_for_smaller_weights() {
    // 4-bit weights become f16 on a device, which rounds their products with the scales.
    for (dtype, close) in [("f16", 1e-4), ("bf16", 1e-4), ("int8", 1e-4), ("int4", 1e-2)] {
        for toml in [CAUSAL_PLAIN, CAUSAL_MODERN, common::PARALLEL, MORE[0].1, MORE[1].1] {
            let [mut cpu, mut gpu] = models(toml, dtype).map(|model| session(&model));
            // Enough rows at once for several tiles of a product, where the context has them.
            let bytes = some_bytes(cpu.max_context().min(150) - 3, 1);
            let (most, rest) = bytes.split_at(bytes.len() - 6);
            for part in [most, &rest[..1], &rest[1..]] {
                let [a, b] = [&mut cpu, &mut gpu].map(|session| {
                    session.feed(part).unwrap();
                    session.logits().map(|logits| logits.to_vec()).ok()
                });
                let (Some(a), Some(b)) = (&a, &b) else {
                    assert_eq!(a, b, "an input too short for one is too short for the other");
                    continue;
                };
                let difference = relative_difference(b, a);
                assert!(difference < close, "{dtype} {toml}: {difference}");
            }
        }
    }
}

#[test]
fn how_bytes_are_divided_into_calls_does_not_matter() {
    for (name, toml) in [ALL[0], ALL[1], ALL[2], MORE[1]] {
        let [_, model] = models(toml, "F32");
        let mut session = session(&model);
        let bytes = some_bytes(model.config().context_bytes + 30, 5);
        for end in [10, bytes.len() / 2, bytes.len()] {
            let mut first: Option<Vec<f32>> = None;
            for chunk in [1, 7, bytes.len()] {
                session.reset();
                bytes[..end].chunks(chunk).for_each(|part| session.feed(part).unwrap());
                let logits = session.logits().unwrap().to_vec();
                let difference = relative_difference(&logits, first.get_or_insert(logits.clone()));
                assert!(difference < 1e-5, "{name}, {end} bytes by {chunk}: {difference}");
            }
        }
    }
}

#[test]
fn scores_are_the_cpus() {
    for (name, toml) in every_kind() {
        let [a, b] = models(toml, "F32").map(|model| {
            let mut session = session(&model);
            let bytes = some_bytes(model.config().context_bytes + 9, 4);
            let mut nats = vec![0.0; bytes.len() - 8];
            session.feed(&bytes[..8]).unwrap();
            session.score(&bytes[8..], Some(&mut nats)).unwrap();
            // The session goes on from there.
            nats.extend(session.logits().unwrap());
            nats
        });
        let difference = relative_difference(&b, &a);
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn a_full_context_is_an_error_where_asked_for() {
    let [_, model] = models(CAUSAL_PARALLEL, "F32");
    let options = SessionOptions { overflow: Overflow::Error, ..Default::default() };
    let mut session = Session::new(&model, &options).unwrap();
    session.feed(&some_bytes(20, 1)).unwrap();
    let (mut text, mut n) = ([0; 30], 0);
    let error = session.generate(&mut Sampler::greedy(), &[], &mut text, &mut n).unwrap_err();
    assert_eq!((error.kind(), n, session.position()), (ErrorKind::ContextFull, 4, 24));
}

#[test]
fn going_back_is_as_if_it_never_happened() {
    for (name, toml) in ALL {
        let [cpu, gpu] = models(toml, "F32");
        let (mut ours, mut reference) = (session(&gpu), session(&cpu));
        let bytes = some_bytes(40, 9);
        for n in [1, 5, 13] {
            ours.reset();
            reference.reset();
            ours.feed(&bytes).unwrap();
            ours.rewind(n).unwrap();
            reference.feed(&bytes[..40 - n as usize]).unwrap();
            for session in [&mut ours, &mut reference] {
                session.feed(b"x").unwrap();
            }
            let difference = relative_difference(ours.logits().unwrap(), reference.logits().unwrap());
            assert!(difference < 1e-4, "{name}, {n} back: {difference}");
        }
    }
}

#[test]
fn embeddings_are_the_cpus() {
    for (name, toml) in every_kind() {
        let [a, b] = models(toml, "F32").map(|model| {
            let mut session = session(&model);
            session.feed(&some_bytes(10, 3)).unwrap();
            let mut all = session.embedding().unwrap().to_vec();
            session.score(b"abc", None).unwrap();
            all.extend(session.embedding().unwrap());
            all
        });
        let difference = relative_difference(&b, &a);
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn the_device_is_listed_and_a_missing_one_is_an_error() {
    prepare();
    let devices = grug::device::devices();
    assert_eq!(devices[0].name(), "cpu");
    let ours = devices.iter().find(|device| device.name() == DEVICE);
    assert!(!ours.unwrap_or_else(|| panic!("these tests need {NEEDS}")).description.is_empty());
    let model = |device: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        common::write_random_model(&path, &ModelConfig::from_toml(CAUSAL_PLAIN).unwrap(), 1);
        let options = ModelOptions { device: device.into(), ..Default::default() };
        Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options)
    };
    let absent = DEVICE.replace(":0", ":99");
    let error = model(&absent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.message().contains(&absent), "{error}");
    assert_eq!(model("vulkan").unwrap_err().kind(), ErrorKind::Device);
    assert_ne!(model("auto").unwrap().device(), "cpu");
}

#[test]
#[cfg(feature = "import")]
fn published_models_are_what_they_are_on_the_scalar_cpu() {
    prepare();
    let folder = tempfile::tempdir().unwrap();
    for name in pth::FIXTURES {
        let path = folder.path().join("model.safetensors");
        grug::import::read_pth(&pth::fixture_pth(name)).unwrap().save(&path).unwrap();
        let [mut scalar, mut gpu] = [("cpu", true), (DEVICE, false)].map(|(device, portable)| {
            let options =
                ModelOptions { n_threads: 1, device: device.into(), portable, ..Default::default() };
            session(&Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options).unwrap())
        });
        for part in [&b"The cat sat on the "[..], b"m", b"at, and then it"] {
            let [a, b] = [&mut scalar, &mut gpu].map(|session| {
                session.feed(part).unwrap();
                session.logits().unwrap().to_vec()
            });
            let difference = relative_difference(&b, &a);
            assert!(difference < 1e-4, "{name}: {difference}");
        }
        let [a, b] = [scalar, gpu].map(|mut session| {
            let (mut text, mut n) = ([0; 6], 0);
            session.generate(&mut Sampler::greedy(), &[], &mut text, &mut n).unwrap();
            text
        });
        assert_eq!(a, b, "{name}");
    }
}

/// A model that grug-trainer made is worth the same on every engine, on text that it was not trained on.
#[test]
fn a_trained_model_has_the_same_bits_a_byte_everywhere() {
    prepare();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(root.join("data/shakespeare.txt")).unwrap();
    // The first 90 % trained it. What follows a full context is computed from its latter half.
    let held_out = &text[text.len() / 10 * 9 + 4..][..320];
    let mut bits = Vec::new();
    for device in ["cpu", DEVICE] {
        let options = ModelOptions { n_threads: 1, device: device.into(), ..Default::default() };
        let model = Model::load(&root.join("models/shakespeare.safetensors"), &options).unwrap();
        let nats = session(&model).score(held_out, None).unwrap();
        bits.push(nats / std::f64::consts::LN_2 / held_out.len() as f64);
    }
    assert!((1.5..3.0).contains(&bits[0]), "{bits:?}");
    assert!((bits[1] / bits[0] - 1.0).abs() < 0.005, "{bits:?}");
    println!("bits a byte on the CPU and on {DEVICE}: {bits:?}");
}

#[test]
fn sessions_of_a_model_work_side_by_side() {
    let [_, model] = models(ALL[0].1, "F32");
    let work = |bytes: &[u8]| -> (Vec<Vec<f32>>, [u8; 4]) {
        let mut session = session(&model);
        let after = |byte: &u8| {
            session.feed(&[*byte]).unwrap();
            session.logits().unwrap().to_vec()
        };
        let logits = bytes.iter().map(after).collect();
        let (mut text, mut n) = ([0; 4], 0);
        session.generate(&mut Sampler::greedy(), &[], &mut text, &mut n).unwrap();
        (logits, text)
    };
    let bytes = some_bytes(16, 6);
    let alone = work(&bytes);
    std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| (0..6).map(|_| work(&bytes)).collect::<Vec<_>>()));
        for thread in threads {
            assert!(thread.join().unwrap().iter().all(|result| *result == alone));
        }
    });
}
