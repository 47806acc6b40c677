//! The rules that turn gradients into changes: Adam and AdamW exactly as PyTorch has them, and Muon for the matrices
//! inside the blocks with AdamW for everything else.
//!
//! The state is ours, not libtorch's, so that a run can be resumed exactly: [`Optimizer::state`] gives every tensor of
//! it with its name, and they are shared, so that copying numbers into them restores it.

mod muon;

use grug::error::Result;
use grug::manifest::{Role, TensorSpec};
use tch::{Device, Kind, Tensor};

use crate::config::{OptimizerConfig, OptimizerKind};
use crate::torch::{self, AdamSettings};
use muon::Muon;

/// Parameters that share a learning rate.
#[derive(Debug)]
struct AdamGroup {
    /// Share of the configured learning rate.
    lr_multiplier: f64,
    /// Their places in the model's list of parameters.
    indices: Vec<usize>,
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,    // as params
    exp_avg_sqs: Vec<Tensor>, // as params
}

/// An optimizer over the parameters of a model.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    groups: Vec<AdamGroup>,
    muon: Option<Muon>,
    names: Vec<String>,
    /// Steps that were not skipped: an f32 scalar on the device, as the fused kernels want it.
    step: Tensor,
}

impl Optimizer {
    /// An optimizer for these parameters, which `specs` describes in the same order.
    pub fn new(config: &OptimizerConfig, specs: &[TensorSpec], params: &[Tensor]) -> Optimizer {
        let device = params.first().map_or(Device::Cpu, Tensor::device);
        let detached: Vec<Tensor> = params.iter().map(Tensor::detach).collect();
        let by_muon = |spec: &TensorSpec| config.kind == OptimizerKind::Muon && spec.role == Role::Matrix;
        let multiplier = |spec: &TensorSpec| match spec.role {
            Role::Table => config.embedding_lr_multiplier,
            Role::Head => config.head_lr_multiplier,
            Role::Matrix | Role::Conv | Role::Gain | Role::Bias => 1.0,
        };
        let mut groups: Vec<AdamGroup> = Vec::new();
        for (index, spec) in specs.iter().enumerate().filter(|(_, spec)| !by_muon(spec)) {
            let lr_multiplier = multiplier(spec);
            let group = match groups.iter_mut().find(|group| group.lr_multiplier == lr_multiplier) {
                Some(group) => group,
                None => {
                    groups.push(AdamGroup {
                        lr_multiplier,
                        indices: Vec::new(),
                        params: Vec::new(),
                        exp_avgs: Vec::new(),
                        exp_avg_sqs: Vec::new(),
                    });
                    groups.last_mut().expect("just pushed")
                }
            };
            group.indices.push(index);
            group.params.push(detached[index].shallow_clone());
            group.exp_avgs.push(detached[index].zeros_like());
            group.exp_avg_sqs.push(detached[index].zeros_like());
        }
        let matrices: Vec<usize> = (0..specs.len()).filter(|&i| by_muon(&specs[i])).collect();
        Optimizer {
            config: config.clone(),
            groups,
            muon: (!matrices.is_empty()).then(|| Muon::new(config, specs, &detached, matrices)),
            names: specs.iter().map(|spec| spec.name.clone()).collect(),
            step: Tensor::zeros([], (Kind::Float, device)),
        }
    }

    /// The full learning rate of each group of parameters, which a schedule moves.
    pub fn base_learning_rates(&self) -> Vec<f64> {
        let adam = self.groups.iter().map(|group| self.config.learning_rate * group.lr_multiplier);
        adam.chain(self.muon.as_ref().map(|_| self.config.muon_learning_rate)).collect()
    }

    /// One step number `step` (from 0) with the learning rate of each group and the gradient of each parameter.
    ///
    /// Where `found_inf`, a scalar on the device, is not 0, nothing changes. Nothing waits for the device.
    pub fn step(
        &mut self,
        step: u64,
        learning_rates: &[f64],
        grads: &[Tensor],
        found_inf: Option<&Tensor>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let _ = match found_inf {
            Some(found) => self.step.g_add_(&(1.0 - found)),
            None => self.step.g_add_scalar_(1.0),
        };
        for (group, &lr) in self.groups.iter().zip(learning_rates) {
            let settings = AdamSettings {
                decoupled: self.config.kind != OptimizerKind::Adam,
                lr,
                betas: (self.config.beta1, self.config.beta2),
                eps: self.config.eps,
                weight_decay: self.config.weight_decay,
            };
            let grads: Vec<Tensor> = group.indices.iter().map(|&i| grads[i].shallow_clone()).collect();
            let (m, v) = (&group.exp_avgs, &group.exp_avg_sqs);
            torch::adam(&group.params, &grads, m, v, &self.step, &settings, found_inf)?;
        }
        if let (Some(muon), Some(&lr)) = (&mut self.muon, learning_rates.last()) {
            muon.step(step, lr, grads, found_inf)?;
        }
        Ok(())
    }

    /// Every tensor of the state, with its name. They share their storage with the optimizer.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![("optimizer.step".to_string(), self.step.shallow_clone())];
        for group in &self.groups {
            for (i, &index) in group.indices.iter().enumerate() {
                let name = &self.names[index];
                state.push((format!("adam.mean.{name}"), group.exp_avgs[i].shallow_clone()));
                state.push((format!("adam.square.{name}"), group.exp_avg_sqs[i].shallow_clone()));
            }
        }
        if let Some(muon) = &self.muon {
            state.extend(muon.state());
        }
        state
    }
}
