//! What can go wrong between the CUDA engine and its driver: its calls fail from one on, memory runs out, the driver is
//! missing or lacks a function. Always an error that says so, never a crash. One test, because it sets variables.
#![cfg(all(feature = "cuda", target_arch = "x86_64", target_os = "linux"))]

mod common;
mod cuda;

use std::path::Path;

use grug::checkpoint::Checkpoint;
use grug::{
    Error, ErrorKind, Model, ModelConfig, ModelOptions, Sampler, SamplerOptions, Session, SessionOptions,
    Step, next_batch,
};

fn set(name: &str, value: Option<&str>) {
    // SAFETY: this program has one thread at work.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Everything that an engine does, once.
fn work(path: &Path) -> Result<Vec<u8>, Error> {
    let options = ModelOptions { device: "cuda:0".into(), n_threads: 1, ..Default::default() };
    let model = Model::from_checkpoint(Checkpoint::open_copied(path)?, &options)?;
    let mut session = Session::new(&model, &SessionOptions::default())?;
    session.feed(b"some bytes")?;
    session.logits()?;
    let mut fork = session.fork()?;
    session.score(b"ab", None)?;
    let (mut text, mut n) = (vec![0; 12], 0);
    fork.generate(&mut Sampler::greedy(), &[], &mut text, &mut n)?;
    let (mut a, mut b) = (Sampler::greedy(), Sampler::greedy());
    for _ in 0..2 {
        let mut steps = [
            Step { session: &mut session, sampler: &mut a, input: None },
            Step { session: &mut fork, sampler: &mut b, input: None },
        ];
        let mut bytes = [Ok(0), Ok(0)];
        next_batch(&mut steps, &mut bytes)?;
        for byte in bytes {
            text.push(byte?);
        }
    }
    // The bits of what it computes belong to the answer.
    text.extend(session.logits()?.iter().flat_map(|logit| logit.to_le_bytes()));
    Ok(text)
}

/// A session is what a twin on the CPU is that got what this one says it took in, wherever its driver's calls failed for
/// a while.
fn goes_on_after_failures(path: &Path, what: &str) {
    let [cpu, gpu] = ["cpu", "cuda:0"].map(|device| {
        let options = ModelOptions { device: device.into(), n_threads: 1, ..Default::default() };
        Model::from_checkpoint(Checkpoint::open_copied(path).unwrap(), &options).unwrap()
    });
    let options = SamplerOptions { temperature: 1.0, seed: 4, ..Default::default() };
    let [mut ours, mut other, mut twin] =
        [&gpu, &gpu, &cpu].map(|model| Session::new(model, &SessionOptions::default()).unwrap());
    let [mut a, mut b, mut c] = [(); 3].map(|()| Sampler::new(&options).unwrap());
    let (mut failures, mut successes) = (0, 0);
    for i in 0..240u32 {
        let op = i * 7 % 8;
        let what = format!("{what}, call {i}, operation {op}");
        let bytes = common::some_bytes(1 + (i % 20) as usize, i);
        let before = ours.position();
        let (mut text, mut n) = (vec![0; 1 + (i % 13) as usize], 0);
        set("FAIL_CALL", Some(&(1 + i * 37 % 101 * (1 + i % 5)).to_string()));
        let result = match op {
            0 => ours.feed(&bytes),
            1 => ours.score(&bytes, None).map(|_| ()),
            2 | 3 => ours.next(&mut a).map(|byte| (text[0], n) = (byte, 1)),
            4 => ours.generate(&mut a, &[], &mut text, &mut n).map(|_| ()),
            5 => ours.logits().map(|_| ()),
            6 => ours.fork().map(|fork| ours = fork),
            _ => {
                let mut bytes = [Ok(0), Ok(0)];
                let mut steps = [
                    Step { session: &mut other, sampler: &mut c, input: Some(b'x') },
                    Step { session: &mut ours, sampler: &mut a, input: None },
                ];
                next_batch(&mut steps, &mut bytes).unwrap();
                let [_, byte] = bytes;
                byte.map(|byte| (text[0], n) = (byte, 1))
            }
        };
        set("FAIL_CALL", None);
        match result {
            Ok(()) => successes += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Device, "{what}: {error}");
                failures += 1;
            }
        }
        if op > 0 && twin.position() == 0 {
            twin.logits().unwrap();
        }
        if op < 2 {
            twin.feed(&bytes[..(ours.position() - before) as usize]).unwrap();
        } else {
            let (mut expected, mut m) = (vec![0; n], 0);
            twin.generate(&mut b, &[], &mut expected, &mut m).unwrap();
            assert_eq!(text[..n], expected, "{what}");
        }
        assert_eq!(ours.position(), twin.position(), "{what}");
        if i % 3 == 0 {
            let difference = common::relative_difference(ours.logits().unwrap(), twin.logits().unwrap());
            assert!(difference < 1e-4, "{what}: {difference}");
        }
    }
    assert!(failures > 40 && successes > 40, "{what}: {failures} failed, {successes} did not");
}

#[test]
fn every_failure_is_an_error() {
    let driver = cuda::build_driver().to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    common::write_random_model(&path, &ModelConfig::from_toml(common::CAUSAL_PLAIN).unwrap(), 1);
    set("GRUG_CUDA_DRIVER", Some("/nowhere/libcuda.so.1"));
    let error = work(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.message().contains("not found"), "{error}");
    assert!(grug::device::devices().iter().all(|device| !device.name().starts_with("cuda")));
    // Some library that is no driver.
    set("GRUG_CUDA_DRIVER", Some("libm.so.6"));
    let error = work(&path).unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().contains("cuInit"), "{error}");
    set("GRUG_CUDA_DRIVER", Some(driver));
    let text = work(&path).unwrap();
    for decode in ["graph", "persistent"] {
        set("GRUG_CUDA_DECODE", Some(decode));
        assert!(work(&path).unwrap() == text, "{decode} gives other bits than what was found to be faster");
        let mut failures = 0;
        let mut call = 1;
        loop {
            set("FAIL_CALL", Some(&call.to_string()));
            let result = work(&path);
            set("FAIL_CALL", None);
            match result {
                Ok(same) => {
                    assert!(same == text, "{decode}");
                    break;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Device, "call {call}: {error}");
                    assert!(error.message().contains("CUDA"), "{error}");
                    failures += 1;
                    // Every one of the first, a sample of those that follow.
                    call += 1 + call / 24;
                }
            }
        }
        assert!(failures > 60, "only {failures} calls failed");
        set("FAKE_MEMORY", Some("40000"));
        assert_eq!(work(&path).unwrap_err().kind(), ErrorKind::OutOfMemory);
        set("FAKE_MEMORY", None);
        // The host is as usable as before.
        assert!(work(&path).unwrap() == text, "{decode}");
        for (name, toml) in [common::ALL[0], common::ALL[2], common::ALL[3]] {
            let path = folder.path().join(name);
            common::write_random_model(&path, &ModelConfig::from_toml(toml).unwrap(), 1);
            goes_on_after_failures(&path, &format!("{name}, {decode}"));
        }
    }
    set("FAKE_NO_COOPERATION", Some("1"));
    let error = work(&path).unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().contains("persistent"), "{error}");
    set("GRUG_CUDA_DECODE", None);
    assert!(work(&path).unwrap() == text);
    set("FAKE_NO_COOPERATION", None);
    set("GRUG_CUDA_DECODE", Some("steam"));
    assert_eq!(work(&path).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
