//! First values of a model's tensors, drawn from the distributions that the manifest states. The same seed gives the
//! same weights on every machine and device.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{TensorToWrite, f32_bytes, save_model};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::manifest::{Init, ModelTensors, TensorSpec};
use crate::rng::{Stream, unit_f64, words};

/// The first values of tensor number `index` of a model, row-major.
pub fn initial_values(spec: &TensorSpec, index: usize, seed: u64) -> Vec<f32> {
    let lane = index as u32;
    let unit_pair = |i: usize| {
        let w = words(seed, Stream::Init, lane, i as u64);
        (unit_f64(w[0], w[1]), unit_f64(w[2], w[3]))
    };
    match spec.init {
        Init::Zeros => vec![0.0; spec.len()],
        Init::Ones => vec![1.0; spec.len()],
        Init::Uniform(bound) => {
            (0..spec.len()).map(|i| ((2.0 * unit_pair(i).0 - 1.0) * bound) as f32).collect()
        }
        Init::Normal(deviation) => (0..spec.len())
            .map(|i| {
                // Box and Muller; 1 - u is never 0.
                let (u, v) = unit_pair(i);
                let radius = libm::sqrt(-2.0 * libm::log(1.0 - u));
                (radius * libm::cos(std::f64::consts::TAU * v) * deviation) as f32
            })
            .collect(),
    }
}

/// Writes an untrained model: the initial values of every tensor, as f32.
pub fn write_initial_model(path: &Path, config: &ModelConfig, seed: u64) -> Result<()> {
    config.validate()?;
    let specs = ModelTensors::specs(config).into_leaves();
    let bytes: Vec<Vec<u8>> =
        specs.iter().enumerate().map(|(i, spec)| f32_bytes(&initial_values(spec, i, seed))).collect();
    let tensors: Vec<_> = specs
        .iter()
        .zip(&bytes)
        .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype: "F32", shape: &spec.shape, bytes })
        .collect();
    save_model(path, config, &BTreeMap::new(), &tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Role;

    fn draw(init: Init) -> Vec<f32> {
        let spec = TensorSpec { name: "t".into(), shape: vec![100, 100], role: Role::Matrix, init };
        initial_values(&spec, 3, 7)
    }

    #[test]
    fn moments_are_those_asked_for() {
        let moments = |x: &[f32]| {
            let mean = x.iter().map(|&v| v as f64).sum::<f64>() / x.len() as f64;
            (mean, (x.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt())
        };
        let (mean, deviation) = moments(&draw(Init::Normal(2.0)));
        assert!(mean.abs() < 0.06 && (deviation - 2.0).abs() < 0.05, "{mean} {deviation}");
        let uniform = draw(Init::Uniform(0.5));
        let (mean, deviation) = moments(&uniform);
        assert!(mean.abs() < 0.01 && (deviation - 0.5 / 3f64.sqrt()).abs() < 0.01, "{mean} {deviation}");
        assert!(uniform.iter().all(|v| v.abs() <= 0.5));
        assert_eq!(uniform, draw(Init::Uniform(0.5)));
    }
}
