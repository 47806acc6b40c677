//! What the trainer's tests share.
#![allow(dead_code)]

use std::path::Path;

use grug::error::Result;
use grug_trainer::config::RunConfig;
use grug_trainer::dataset::Corpus;
use grug_trainer::evaluate::Evaluation;
use grug_trainer::telemetry::Plan;
use grug_trainer::train::{Observer, StepReport};

/// libtorch's random generator and its number of threads belong to the process: tests that train take turns.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    tch::set_num_threads(1);
    turn
}

/// A tiny causal run with these settings on top.
pub fn configuration(settings: &[&str]) -> RunConfig {
    let text = r#"
        name = "test"
        [training]
        steps = 10
        batch_size = 4
        [model]
        context_bytes = 16
        embedding_dim = 16
        d_model = 16
        n_heads = 2
        n_layers = 2
        positions = "rotary"
        norm = "rms"
        norm_first = true
        bias = false
    "#;
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    RunConfig::parse(text, &settings).unwrap()
}

/// A byte file of `len` bytes in which each byte follows from the ones before it.
pub fn corpus(folder: &Path, len: usize) -> Corpus {
    let mut text = Vec::with_capacity(len + 64);
    let mut n = 1u32;
    while text.len() < len {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(
            ["the grug ", "hunts a ", "mammoth and ", "sleeps. "][(n >> 30) as usize].as_bytes(),
        );
    }
    text.truncate(len);
    let path = folder.join("corpus.bin");
    std::fs::write(&path, &text).unwrap();
    Corpus::open(&path).unwrap()
}

/// Keeps what a run says.
pub struct Recorder<'a> {
    pub reports: Vec<StepReport>,
    pub validations: Vec<(u64, f64, bool)>,
    pub samples: Vec<Vec<u8>>,
    pub notes: Vec<String>,
    pub on_step: Box<dyn FnMut(u64) + 'a>,
}

impl Default for Recorder<'_> {
    fn default() -> Self {
        Recorder {
            reports: Vec::new(),
            validations: Vec::new(),
            samples: Vec::new(),
            notes: Vec::new(),
            on_step: Box::new(|_| {}),
        }
    }
}

impl Observer for Recorder<'_> {
    fn start(&mut self, _plan: &Plan, _first_step: u64) -> Result<()> {
        Ok(())
    }

    fn tick(&mut self, step: u64) {
        (self.on_step)(step);
    }

    fn steps(&mut self, report: &StepReport) -> Result<()> {
        self.reports.push(report.clone());
        Ok(())
    }

    fn validation(&mut self, step: u64, evaluation: &Evaluation, _: u64, _: f64, best: bool) -> Result<()> {
        self.validations.push((step, evaluation.nats, best));
        Ok(())
    }

    fn sample(&mut self, _step: u64, _prompt: &[u8], text: &[u8]) -> Result<()> {
        self.samples.push(text.to_vec());
        Ok(())
    }

    fn note(&mut self, _step: u64, text: &str) -> Result<()> {
        self.notes.push(text.to_string());
        Ok(())
    }
}
