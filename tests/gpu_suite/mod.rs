//! What every GPU engine promises, against the CPU's. A test program includes this beside `common`, and says with
//! `DEVICE`, `NEEDS` and `prepare` on what it runs.

use crate::{DEVICE, NEEDS, common, prepare};
use std::collections::BTreeMap;
use std::sync::Mutex;

use common::{ALL, CAUSAL_MODERN, CAUSAL_PARALLEL, CAUSAL_PLAIN, relative_difference, some_bytes};
use grug::checkpoint::{Checkpoint, TensorToWrite, save_model};
use grug::init::initial_values;
use grug::manifest::{Init, ModelTensors};
use grug::{
    ErrorKind, Model, ModelConfig, ModelOptions, Overflow, Sampler, SamplerOptions, Session, SessionOptions,
    StopReason,
};

/// What the other models leave out.
const MORE: [(&str, &str); 7] = [
    (
        "squared ReLU, grouped heads wider than a workgroup",
        "context_bytes = 40\nembedding_dim = 300\nd_model = 300\nn_heads = 2\nn_kv_heads = 1\nn_layers = 1\n\
         positions = \"rotary\"\nffn_activation = \"relu2\"\nffn_multiplier = 8\nnorm_first = true\ntied_head = true\n",
    ),
    (
        "odd widths, a context of several blocks of attention",
        "context_bytes = 300\nembedding_dim = 13\nd_model = 15\nn_heads = 5\nn_layers = 2\n\
         positions = \"sinusoidal\"\n",
    ),
    (
        "curved",
        "context_bytes = 16\nattention = \"bidirectional\"\nembedding_dim = 16\nd_model = 16\nn_heads = 2\n\
         n_layers = 2\npositions = \"sinusoidal\"\nffn_gamma = 0.3\nnorm_first = true\n",
    ),
    (
        "causal, curved",
        "context_bytes = 16\nembedding_dim = 16\nd_model = 16\nn_heads = 2\nn_layers = 2\n\
         positions = \"learned\"\nmax_positions = 16\nffn_gamma = 0.3\nbigram_dim = 5\n",
    ),
    (
        "published convolutions, even kernel, stride, learned positions",
        "context_bytes = 20\nattention = \"bidirectional\"\nembedding_dim = 10\nd_model = 12\nn_heads = 3\n\
         n_layers = 2\npositions = \"learned\"\nmax_positions = 16\n\
         conv_frontend = { channels = [9, 12], kernels = [4, 5], stride = 2, padding = \"replicate\" }\n",
    ),
    (
        "convolutions with biases, wrapped",
        "context_bytes = 20\nattention = \"bidirectional\"\nembedding_dim = 10\nd_model = 12\nn_heads = 3\n\
         n_layers = 1\npositions = \"sinusoidal\"\nconv_frontend = { channels = [9, 12], kernels = [9, 3],\
         padding = \"circular\", layer_norm = false }\n",
    ),
    (
        "convolutions padded with zeros",
        "context_bytes = 12\nattention = \"bidirectional\"\nembedding_dim = 10\nd_model = 12\nn_heads = 3\n\
         n_layers = 1\npositions = \"sinusoidal\"\npad_short_input = true\n\
         conv_frontend = { channels = [12], kernels = [7] }\n",
    ),
];

fn every_kind() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.into_iter().chain(MORE)
}

/// The same random model on the CPU and on the GPU, its matrices in this dtype. Made once: compiling kernels takes time.
fn models(toml: &str, dtype: &str) -> [Model; 2] {
    static MADE: Mutex<BTreeMap<(String, String), [Model; 2]>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(|e| e.into_inner());
    made.entry((toml.into(), dtype.into())).or_insert_with(|| make_models(toml, dtype)).clone()
}

fn make_models(toml: &str, dtype: &str) -> [Model; 2] {
    prepare();
    let config = ModelConfig::from_toml(toml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let specs = ModelTensors::specs(&config).into_leaves();
    let bytes: Vec<Vec<u8>> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let mut noise = spec.clone();
            noise.init = Init::Normal(0.1);
            let noise = initial_values(&noise, i, 8);
            let values = initial_values(spec, i, 7).into_iter().zip(noise).map(|(v, n)| v + n);
            match dtype {
                "F32" => values.flat_map(f32::to_le_bytes).collect(),
                "F16" => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                _ => values.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            }
        })
        .collect();
    let tensors: Vec<_> = specs
        .iter()
        .zip(&bytes)
        .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype, shape: &spec.shape, bytes })
        .collect();
    save_model(&path, &config, &BTreeMap::new(), &tensors).unwrap();
    ["cpu", DEVICE].map(|device| {
        let options = ModelOptions { n_threads: 1, device: device.into(), ..Default::default() };
        Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options)
            .unwrap_or_else(|error| panic!("{error}\nthese tests need {NEEDS}"))
    })
}

fn session(model: &Model) -> Session {
    Session::new(model, &SessionOptions::default()).unwrap()
}

fn sampler(options: SamplerOptions) -> Sampler {
    Sampler::new(&options).unwrap()
}

#[test]
fn logits_are_the_cpus_for_every_kind_of_model() {
    for (name, toml) in every_kind() {
        let [mut cpu, mut gpu] = models(toml, "F32").map(|model| session(&model));
        let window = cpu.model().config().window_bytes();
        assert_eq!(gpu.model().device(), DEVICE);
        let bytes = some_bytes(window + 5, 3);
        for part in [&bytes[..7], &bytes[7..8], &bytes[8..window], &bytes[window..]] {
            let [a, b] = [&mut cpu, &mut gpu].map(|session| {
                session.feed(part).unwrap();
                session.logits().map(|logits| logits.to_vec())
            });
            let (a, b) = (a.unwrap(), b.unwrap());
            let difference = relative_difference(&b, &a);
            assert!(difference < 1e-4, "{name}, {} bytes: {difference}", cpu.position());
        }
    }
}

#[test]
fn logits_are_the_cpus_for_weights_of_16_bits() {
    for dtype in ["F16", "BF16"] {
        for toml in [CAUSAL_PLAIN, CAUSAL_MODERN, common::PARALLEL, MORE[0].1] {
            let [mut cpu, mut gpu] = models(toml, dtype).map(|model| session(&model));
            for part in some_bytes(14, 1).split_inclusive(|b| b % 5 == 0) {
                let [a, b] = [&mut cpu, &mut gpu].map(|session| {
                    session.feed(part).unwrap();
                    session.logits().map(|logits| logits.to_vec()).ok()
                });
                let (Some(a), Some(b)) = (&a, &b) else {
                    assert_eq!(a, b, "an input too short for one is too short for the other");
                    continue;
                };
                let difference = relative_difference(b, a);
                assert!(difference < 1e-4, "{dtype} {toml}: {difference}");
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
fn the_device_chooses_the_bytes_that_the_cpu_chooses() {
    let base = SamplerOptions { temperature: 1.0, seed: 5, ..Default::default() };
    let ways = [
        SamplerOptions::default(),
        base.clone(),
        SamplerOptions { temperature: 0.6, seed: u64::MAX - 1, ..base.clone() },
        SamplerOptions { top_k: 7, ..base.clone() },
        SamplerOptions { top_p: 0.7, ..base.clone() },
        SamplerOptions { min_p: 0.3, ..base.clone() },
        SamplerOptions { temperature: 1.4, top_k: 40, top_p: 0.9, min_p: 0.02, ..base },
    ];
    for (name, toml) in every_kind() {
        let models = models(toml, "F32");
        let prompt = some_bytes(9, 2);
        // Past the end of the context, so that it slides.
        let n = (models[0].config().context_bytes - 9 + 14).min(60);
        for options in &ways {
            let [a, b] = models.each_ref().map(|model| {
                let mut session = session(model);
                session.feed(&prompt).unwrap();
                let (mut text, mut written) = (vec![0; n], 0);
                let mut sampler = sampler(options.clone());
                let reason = session.generate(&mut sampler, &[], &mut text, &mut written).unwrap();
                assert_eq!((reason, written), (StopReason::Capacity, n));
                text
            });
            assert_eq!(a, b, "{name}: {options:?}");
        }
    }
}

#[test]
fn running_ahead_is_the_same_as_one_byte_at_a_time() {
    for (name, toml) in [ALL[0], ALL[1], ALL[2], ALL[3], ALL[4]] {
        let [_, model] = models(toml, "F32");
        let options = SamplerOptions { temperature: 1.0, seed: 11, ..Default::default() };
        let (mut whole, mut parts) = (session(&model), session(&model));
        let (mut a, mut b) = (sampler(options.clone()), sampler(options));
        for session in [&mut whole, &mut parts] {
            session.feed(&some_bytes(7, 4)).unwrap();
        }
        let (mut text, mut n) = ([0; 40], 0);
        whole.generate(&mut a, &[], &mut text, &mut n).unwrap();
        let singly: Vec<u8> = (0..40).map(|_| parts.next(&mut b).unwrap()).collect();
        assert_eq!(text[..], singly, "{name}");
        assert_eq!(whole.position(), parts.position());
        let difference = relative_difference(whole.logits().unwrap(), parts.logits().unwrap());
        assert!(difference < 1e-5, "{name}: {difference}");
    }
}

#[test]
fn what_was_chosen_beyond_a_stop_never_happened() {
    for (name, toml) in [ALL[0], ALL[1], ALL[2], ALL[3]] {
        let [_, model] = models(toml, "F32");
        let options = SamplerOptions { temperature: 1.0, seed: 3, ..Default::default() };
        let mut session = session(&model);
        let mut sampler = sampler(options);
        session.feed(b"a beginning").unwrap();
        let mut text = [0; 11];
        let mut n = 0;
        session.generate(&mut sampler, &[], &mut text, &mut n).unwrap();
        // Stop where two bytes of that text stand, then go on: the text must be the same.
        for at in [0, 1, 4, 9] {
            session.reset();
            sampler.reset(3);
            session.feed(b"a beginning").unwrap();
            let mut again = [0; 11];
            let stop = &text[at..at + 2];
            let reason = session.generate(&mut sampler, &[stop], &mut again, &mut n).unwrap();
            assert_eq!(reason, StopReason::Sequence, "{name}");
            assert!(again[..n].ends_with(stop) && again[..n] == text[..n], "{name}");
            assert_eq!(session.position(), 11 + n as u64);
            let mut rest = n;
            session.generate(&mut sampler, &[], &mut again[n..], &mut rest).unwrap();
            assert_eq!(again, text, "{name}, stopped after {n}");
        }
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
fn a_fork_goes_its_own_way() {
    for (name, toml) in [ALL[0], ALL[1], ALL[2], ALL[3]] {
        let [cpu, gpu] = models(toml, "F32");
        let (mut original, mut expected) = (session(&gpu), session(&cpu));
        for session in [&mut original, &mut expected] {
            session.feed(&some_bytes(11, 6)).unwrap();
        }
        let (mut fork, mut expected_fork) = (original.fork().unwrap(), expected.fork().unwrap());
        for (session, bytes) in [(&mut original, b"this"), (&mut expected, b"this")] {
            session.feed(bytes).unwrap();
        }
        for (session, bytes) in [(&mut fork, b"that"), (&mut expected_fork, b"that")] {
            session.feed(bytes).unwrap();
        }
        for (ours, reference) in [(&mut original, &mut expected), (&mut fork, &mut expected_fork)] {
            let difference = relative_difference(ours.logits().unwrap(), reference.logits().unwrap());
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
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
