//! A running average of the weights (EMA), which often validates better than the weights themselves.

use grug::error::Result;
use tch::Tensor;

use crate::model::Model;
use crate::torch;

/// A second model whose weights follow those of the one that trains.
#[derive(Debug)]
pub struct WeightAverage {
    model: Model,
    decay: f64,
}

impl WeightAverage {
    /// An average that begins with these first weights: a model that nobody has trained yet.
    pub fn new(model: Model, decay: f64) -> WeightAverage {
        WeightAverage { model, decay }
    }

    /// Takes in the weights after step number `step` (from 0). The average of a run's first steps follows faster: its
    /// decay is (1 + step) / (10 + step) until that reaches the configured one.
    pub fn update(&self, weights: &Model, step: u64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        torch::lerp(&detached(&self.model), &detached(weights), 1.0 - decay)
    }

    /// Forgets what it averaged and takes these weights.
    pub fn restart(&mut self, weights: &Model) -> Result<()> {
        self.model.set_parameters(&detached(weights))
    }

    /// The model with the averaged weights.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What a checkpoint keeps, each with its name. The tensors share their storage with the average.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let specs = self.model.specs().iter();
        specs
            .zip(detached(&self.model))
            .map(|(spec, tensor)| (format!("{PREFIX}{}", spec.name), tensor))
            .collect()
    }
}

/// What the names in [`WeightAverage::state`] begin with.
pub const PREFIX: &str = "average.";

fn detached(model: &Model) -> Vec<Tensor> {
    model.parameters().iter().map(Tensor::detach).collect()
}
