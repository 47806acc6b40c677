//! Several sessions that step together.

use grug::checkpoint::Checkpoint;
use grug::{ErrorKind, Model, Sampler, SamplerOptions, Session, SessionOptions, Step, next_batch};

use crate::common::{ALL, CAUSAL_PARALLEL, CAUSAL_PLAIN, relative_difference, some_bytes};
use crate::gpu_suite::{every_kind, models, sampler, session};

/// What session `i` chooses its bytes with: on the device, or, where i is 3, by what only the host knows.
fn sampling(i: usize) -> SamplerOptions {
    let base = SamplerOptions { temperature: 1.0, seed: i as u64, ..Default::default() };
    match i % 4 {
        0 => SamplerOptions { temperature: 0.0, ..base },
        1 => base,
        2 => SamplerOptions { top_k: 30, top_p: 0.9, min_p: 0.01, ..base },
        _ => SamplerOptions { repeat_penalty: 1.3, penalty_window: 16, ..base },
    }
}

/// A session and its sampler on the GPU, and twins of both on the CPU that go alone.
struct Pair {
    gpu: (Session, Sampler),
    cpu: (Session, Sampler),
}

impl Pair {
    fn new(models: &[Model; 2], i: usize, max_context: usize) -> Pair {
        let options = SessionOptions { max_context, ..Default::default() };
        let [cpu, gpu] = models.each_ref().map(|model| {
            let mut session = Session::new(model, &options).unwrap();
            session.feed(&some_bytes(3 + 5 * i % 17, i as u32)).unwrap();
            (session, sampler(sampling(i)))
        });
        Pair { gpu, cpu }
    }

    fn fork(&self) -> Pair {
        let fork = |(session, _): &(Session, Sampler)| (session.fork().unwrap(), sampler(sampling(1)));
        Pair { gpu: fork(&self.gpu), cpu: fork(&self.cpu) }
    }
}

/// Lets all take a step: together on the GPU, alone on the CPU. `input` is what one of them is fed.
fn step(pairs: &mut [Pair], input: Option<(usize, u8)>, what: &str) {
    let fed = |i| input.filter(|(at, _)| *at == i).map(|(_, byte)| byte);
    let mut bytes = Vec::from_iter(pairs.iter().map(|_| Ok(0)));
    let mut steps: Vec<Step<'_>> = pairs
        .iter_mut()
        .enumerate()
        .map(|(i, pair)| Step { session: &mut pair.gpu.0, sampler: &mut pair.gpu.1, input: fed(i) })
        .collect();
    next_batch(&mut steps, &mut bytes).unwrap();
    for (i, (pair, byte)) in pairs.iter_mut().zip(bytes).enumerate() {
        let (session, sampler) = &mut pair.cpu;
        let alone = match fed(i) {
            Some(byte) => session.feed(&[byte]).map(|()| byte),
            None => session.next(sampler),
        };
        assert_eq!(byte.unwrap(), alone.unwrap(), "{what}, session {i}");
    }
}

fn compare(pairs: &mut [Pair], what: &str) {
    for (i, pair) in pairs.iter_mut().enumerate() {
        assert_eq!(pair.gpu.0.position(), pair.cpu.0.position());
        let difference = relative_difference(pair.gpu.0.logits().unwrap(), pair.cpu.0.logits().unwrap());
        assert!(difference < 1e-4, "{what}, session {i}: {difference}");
    }
}

#[test]
fn sessions_that_step_together_are_what_they_are_alone() {
    for (name, toml) in every_kind().filter(|(_, toml)| !toml.contains("bidirectional")) {
        let models = models(toml, "F32");
        let mut pairs: Vec<Pair> = (0..4).map(|i| Pair::new(&models, i, 0)).collect();
        // Its places are others.
        pairs.push(Pair::new(&models, 1, 12));
        for i in 0..5 {
            step(&mut pairs, (i == 2).then_some((1, b'x')), name);
        }
        // One ends; one goes back; one goes two ways; one is asked for something in between.
        pairs.remove(0);
        pairs[0].gpu.0.rewind(3).unwrap();
        pairs[0].cpu.0.rewind(3).unwrap();
        let fork = pairs[1].fork();
        pairs.push(fork);
        compare(&mut pairs[2..3], name);
        for _ in 0..4 {
            step(&mut pairs, None, name);
        }
        compare(&mut pairs, name);
        // Alone they go on from there.
        for (i, pair) in pairs.iter_mut().enumerate() {
            let [a, b] = [&mut pair.cpu, &mut pair.gpu]
                .map(|(session, sampler)| [0; 3].map(|_| session.next(sampler).unwrap()));
            assert_eq!(a, b, "{name}, session {i}");
        }
    }
}

#[test]
fn many_sessions_fill_the_tiles_of_products() {
    // The rows of two tiles of the matrix units, and for f32 more than half of a tile that needs none.
    for (dtype, n, steps) in [("bf16", 19, 3), ("f16", 9, 2), ("int8", 9, 2), ("F32", 33, 2)] {
        for (name, toml) in [ALL[0], ALL[1]] {
            let models = models(toml, dtype);
            let mut pairs: Vec<Pair> = (0..n).map(|i| Pair::new(&models, i, 0)).collect();
            for _ in 0..steps {
                step(&mut pairs, None, name);
            }
            compare(&mut pairs[..4], &format!("{name}, {dtype}"));
        }
    }
}

/// All complete a row of the aggregated stream with the same byte; or some do, and the session that leads is not one.
#[test]
fn rows_of_the_aggregated_stream_are_made_together() {
    for (dtype, n) in [("bf16", 9), ("F32", 4)] {
        let models = models(CAUSAL_PARALLEL, dtype);
        let mut pairs: Vec<Pair> = (0..n).map(|_| Pair::new(&models, 0, 0)).collect();
        let stride = models[0].config().aggregated_stream.as_ref().unwrap().stride;
        for _ in 0..stride {
            step(&mut pairs, None, dtype);
        }
        compare(&mut pairs, dtype);
        let (session, sampler) = &mut pairs[0].gpu;
        let byte = session.next(sampler).unwrap();
        pairs[0].cpu.0.feed(&[byte]).unwrap();
        for _ in 0..stride {
            step(&mut pairs, None, dtype);
        }
        compare(&mut pairs, dtype);
    }
}

#[test]
fn windows_step_one_by_one() {
    let models = models(ALL[3].1, "F32");
    let mut pairs: Vec<Pair> = (0..3).map(|i| Pair::new(&models, i, 0)).collect();
    for _ in 0..3 {
        step(&mut pairs, None, ALL[3].0);
    }
    compare(&mut pairs, ALL[3].0);
}

#[test]
fn sessions_of_different_devices_do_not_step_together() {
    let [mut cpu, mut gpu] = models(CAUSAL_PLAIN, "F32").map(|model| session(&model));
    let [mut a, mut b] = [0, 1].map(|i| sampler(sampling(i)));
    let mut steps = [
        Step { session: &mut gpu, sampler: &mut a, input: None },
        Step { session: &mut cpu, sampler: &mut b, input: None },
    ];
    let error = next_batch(&mut steps, &mut [Ok(0), Ok(0)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("session 1"), "{error}");
}

/// Logits that are no numbers are an error of their session, and of no other.
#[test]
fn a_session_without_a_prediction_stops_no_other() {
    crate::prepare();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let config = grug::ModelConfig::from_toml(CAUSAL_PLAIN).unwrap();
    crate::common::write_random_model(&path, &config, 1);
    // Byte 7 is no number to this model.
    let mut file = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&file[8..8 + header]).unwrap();
    let (_, rest) = text.split_once("embedding.weight").expect("the table of bytes has this name");
    let (_, rest) = rest.split_once("\"data_offsets\":[").unwrap();
    let start: usize = rest.split_once(',').unwrap().0.trim().parse().unwrap();
    let row = 8 + header + start + 7 * 16 * 4;
    file[row..row + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &file).unwrap();
    let options =
        grug::ModelOptions { device: crate::DEVICE.into(), self_check: false, ..Default::default() };
    let model = Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options).unwrap();
    let mut sessions = [b"abc", b"def", b"xyz"].map(|bytes| {
        let mut session = session(&model);
        session.feed(bytes).unwrap();
        session
    });
    let mut samplers = [0, 1, 2].map(|i| sampler(sampling(i)));
    for round in 0..3 {
        let pairs = sessions.iter_mut().zip(&mut samplers).enumerate();
        let mut steps = Vec::from_iter(pairs.map(|(i, (session, sampler))| {
            let input = (round == 0).then_some([b'd', 7, b'!'][i]);
            Step { session, sampler, input }
        }));
        let mut bytes = [Ok(0), Ok(0), Ok(0)];
        next_batch(&mut steps, &mut bytes).unwrap();
        assert!(bytes[0].is_ok() && bytes[2].is_ok(), "round {round}: {bytes:?}");
        let error = bytes[1].as_ref().err().map(|error| error.kind());
        assert_eq!(error, (round > 0).then_some(ErrorKind::InvalidArgument), "round {round}");
    }
}
