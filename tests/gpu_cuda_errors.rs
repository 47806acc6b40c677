//! What can go wrong between the CUDA engine and its driver: its calls fail from one on, memory runs out, the driver is
//! missing or lacks a function. Always an error that says so, never a crash. One test, because it sets variables.
#![cfg(all(feature = "cuda", target_arch = "x86_64", target_os = "linux"))]

mod common;
mod cuda;

use std::path::Path;

use grug::checkpoint::Checkpoint;
use grug::{Error, ErrorKind, Model, ModelConfig, ModelOptions, Sampler, Session, SessionOptions};

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
    Ok(text)
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
    for decode in ["graph", "persistent"] {
        set("GRUG_CUDA_DECODE", Some(decode));
        let text = work(&path).unwrap();
        let mut failures = 0;
        let mut call = 1;
        loop {
            set("FAIL_CALL", Some(&call.to_string()));
            let result = work(&path);
            set("FAIL_CALL", None);
            match result {
                Ok(same) => {
                    assert_eq!(same, text);
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
        assert_eq!(work(&path).unwrap(), text);
    }
    set("GRUG_CUDA_DECODE", Some("steam"));
    assert_eq!(work(&path).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
