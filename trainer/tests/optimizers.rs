//! Our optimizers take PyTorch's steps. The steps are recorded by tests/generate/optimizers.py.

use grug::manifest::{Init, Role, TensorSpec};
use grug_trainer::amp::GradScaler;
use grug_trainer::config::{OptimizerConfig, OptimizerKind};
use grug_trainer::model::to_f32;
use grug_trainer::optimizer::Optimizer;
use serde::Deserialize;
use tch::{Device, Tensor};

#[derive(Deserialize)]
struct Recording {
    adamw: Steps,
    adam: Steps,
    muon: Steps,
    scaler: Scales,
}

#[derive(Deserialize)]
struct Steps {
    first: Vec<f64>,
    recorded: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    step: u64,
    params: Vec<f64>,
}

#[derive(Deserialize)]
struct Scales {
    bad: Vec<u64>,
    steps: u64,
    /// Step, and the scale from it on.
    changes: Vec<(u64, f64)>,
}

fn recording() -> Recording {
    serde_json::from_str(include_str!("data/optimizers.json")).unwrap()
}

const SHAPES: [&[usize]; 3] = [&[4, 3], &[12, 4], &[5]];

fn specs() -> Vec<TensorSpec> {
    let names = ["linear1.weight", "layer.self_attn.in_proj_weight", "linear1.bias"];
    names
        .iter()
        .zip(SHAPES)
        .map(|(name, shape)| TensorSpec {
            name: name.to_string(),
            shape: shape.to_vec(),
            role: if shape.len() == 2 { Role::Matrix } else { Role::Bias },
            init: Init::Zeros,
        })
        .collect()
}

/// The formula of the recording.
fn gradients(params: &[Tensor], step: u64) -> Vec<Tensor> {
    let of = |(k, p): (usize, &Tensor)| {
        let values: Vec<f32> = to_f32(p)
            .iter()
            .enumerate()
            .map(|(i, &v)| {
                ((0.7 * i as f64 + 1.3 * step as f64 + k as f64).sin() * 0.5 + 0.1 * v as f64) as f32
            })
            .collect();
        Tensor::from_slice(&values).view(&p.size()[..])
    };
    params.iter().enumerate().map(of).collect()
}

/// Takes the recorded steps; the first parameters that the recording has are compared.
fn compare(config: &OptimizerConfig, expected: &Steps, tolerance: f64) {
    let specs = specs();
    let mut values = expected.first.iter().map(|&v| v as f32).chain(std::iter::repeat(0.5));
    let params: Vec<Tensor> = specs
        .iter()
        .map(|spec| {
            let numbers: Vec<f32> = values.by_ref().take(spec.len()).collect();
            let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
            Tensor::from_slice(&numbers).view(&shape[..]).set_requires_grad(true)
        })
        .collect();
    let mut optimizer = Optimizer::new(config, &specs, &params);
    let last = expected.recorded.last().unwrap().step;
    for step in 0..=last {
        let rate = 0.01 * (1.0 + (step as f64 / 7.0).cos());
        let rates = vec![rate; optimizer.base_learning_rates().len()];
        optimizer.step(step, &rates, &gradients(&params, step), None).unwrap();
        if let Some(point) = expected.recorded.iter().find(|point| point.step == step) {
            let ours = params.iter().flat_map(to_f32);
            for (i, (ours, theirs)) in ours.zip(&point.params).enumerate() {
                let difference = (ours as f64 - theirs).abs();
                assert!(
                    difference < tolerance,
                    "{:?}: number {i} after step {step} is {ours}, PyTorch has {theirs}",
                    config.kind
                );
            }
        }
    }
}

#[test]
fn adam_and_adamw_take_pytorchs_steps() {
    let recording = recording();
    let config =
        OptimizerConfig { beta1: 0.9, beta2: 0.98, eps: 1e-9, weight_decay: 0.01, ..Default::default() };
    compare(&OptimizerConfig { kind: OptimizerKind::Adamw, ..config.clone() }, &recording.adamw, 2e-6);
    compare(&OptimizerConfig { kind: OptimizerKind::Adam, ..config }, &recording.adam, 2e-6);
}

#[test]
fn muon_takes_the_public_steps() {
    let config = OptimizerConfig {
        kind: OptimizerKind::Muon,
        weight_decay: 0.1,
        muon_momentum_start: 0.85,
        muon_momentum: 0.95,
        muon_momentum_warmup_steps: 20,
        ..Default::default()
    };
    compare(&config, &recording().muon, 2e-5);
}

/// A step whose gradients overflowed changes neither parameters nor state.
#[test]
fn a_skipped_step_changes_nothing() {
    for kind in [OptimizerKind::Adam, OptimizerKind::Adamw, OptimizerKind::Muon] {
        let specs = specs();
        let make = || -> Vec<Tensor> {
            let of = |spec: &TensorSpec| {
                let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
                Tensor::ones(&shape[..], (tch::Kind::Float, Device::Cpu)).set_requires_grad(true)
            };
            specs.iter().map(of).collect()
        };
        let config = OptimizerConfig { kind, ..Default::default() };
        let run = |skips: &[u64]| {
            let params = make();
            let mut optimizer = Optimizer::new(&config, &specs, &params);
            let rates = optimizer.base_learning_rates();
            let mut good = 0;
            for step in 0..8 {
                let skip = skips.contains(&step);
                let grads = match skip {
                    true => gradients(&params, 0).iter().map(|g| g * f64::INFINITY).collect(),
                    false => gradients(&params, good),
                };
                let found = Tensor::from(skip as u8 as f32);
                optimizer.step(good, &rates, &grads, Some(&found)).unwrap();
                good += !skip as u64;
                if good == 5 {
                    break;
                }
            }
            params.iter().flat_map(to_f32).collect::<Vec<f32>>()
        };
        assert_eq!(run(&[]), run(&[0, 3, 4]), "{kind:?}");
    }
}

#[test]
fn the_loss_scale_moves_as_pytorchs_does() {
    let scales = recording().scaler;
    let mut scaler = GradScaler::new(Device::Cpu);
    let mut expected = f64::NAN;
    for step in 0..scales.steps {
        let grad = if scales.bad.contains(&step) { f32::INFINITY } else { 1.0 };
        scaler.unscale(&[Tensor::from_slice(&[grad])]).unwrap();
        scaler.update().unwrap();
        if let Some(&(_, scale)) = scales.changes.iter().find(|(at, _)| *at == step) {
            expected = scale;
        }
        assert_eq!(scaler.read().0, expected, "after step {step}");
    }
    assert_eq!(scaler.read().1, scales.bad.len() as i64);
}
