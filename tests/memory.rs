//! What a process that runs a model takes: its weights, mapped and shared with all others that run it, its keys and
//! values, and little else.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::write_random_model;
use grug::checkpoint::Checkpoint;
use grug::quantize::{Target, quantize};
use grug::{Model, ModelConfig, ModelOptions, Session, SessionOptions};

/// What a process may take beside weights, keys and values: its code, the program's own memory, scratch.
const OTHER_BYTES: u64 = 10_000_000;

/// Large enough that a copy of the weights would show: 27 MB in f32.
const MODEL: &str = "context_bytes = 256\nembedding_dim = 384\nd_model = 384\nn_heads = 6\nn_layers = 4\n\
     positions = \"learned\"\nmax_positions = 256\nnorm_first = true\n";

/// A process that writes, and has filled its context; it is killed when this is dropped.
struct Writing(Child);

impl Writing {
    fn start(model: &Path) -> Writing {
        let mut child = Command::new(env!("CARGO_BIN_EXE_grug"))
            .args(["generate", model.to_str().unwrap(), "-n", "0", "--threads", "2", "--temperature", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 300]).unwrap();
        Writing(child)
    }

    fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.0.id())).unwrap()
    }

    /// Its most resident memory so far, in bytes.
    fn peak(&self) -> u64 {
        kilobytes(&self.proc_file("status"), "VmHWM:") * 1024
    }

    /// What its mapping of a file holds: clean pages of the file, changed or anonymous ones, in bytes.
    fn mapping(&self, file: &Path) -> (u64, u64) {
        let smaps = self.proc_file("smaps");
        let begin = smaps.find(file.to_str().unwrap()).expect("the model is mapped");
        let rest = &smaps[begin..];
        // Up to the next mapping's line, which begins with its addresses.
        let end = rest.find("VmFlags:").unwrap_or(rest.len());
        let sum = |names: &[&str]| names.iter().map(|name| kilobytes(&rest[..end], name)).sum::<u64>() * 1024;
        (sum(&["Shared_Clean:", "Private_Clean:"]), sum(&["Shared_Dirty:", "Private_Dirty:", "Anonymous:"]))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number after a name, in lines such as `VmHWM:    1234 kB`.
fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_process_takes_little_beside_weights_that_all_share() {
    let folder = tempfile::tempdir().unwrap();
    let floats = folder.path().join("model.safetensors");
    write_random_model(&floats, &ModelConfig::from_toml(MODEL).unwrap(), 1);
    for target in [None, Some(Target::Int8), Some(Target::Int4)] {
        let path = match target {
            Some(target) => {
                let path = folder.path().join(target.name());
                quantize(&Checkpoint::open(&floats).unwrap(), target, &path).unwrap();
                path
            }
            None => floats.clone(),
        };
        let (weights, cache) = {
            let model = Model::load(&path, &ModelOptions { n_threads: 1, ..Default::default() }).unwrap();
            let session = Session::new(&model, &SessionOptions::default()).unwrap();
            (model.weight_bytes(), session.state_bytes() as u64)
        };
        let processes = [Writing::start(&path), Writing::start(&path)];
        for process in &processes {
            let peak = process.peak();
            let most = weights + cache + OTHER_BYTES;
            assert!(peak <= most, "{target:?}: {peak} bytes, at most {most} are expected");
            let (clean, own) = process.mapping(&path);
            assert_eq!(own, 0, "{target:?}: pages of the file were copied");
            assert!(clean > weights * 8 / 10, "{target:?}: {clean} of {weights} bytes of weights are mapped");
        }
    }
}
