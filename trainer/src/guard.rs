//! A guard against steps that would spoil the model: one whose loss or gradient is far above what the steps before it
//! had is skipped. Nothing of it waits for the device.
//!
//! What is far is measured in standard deviations over the last accepted steps. A skipped step leaves no trace among
//! those, so that a second spike is measured like the first.

use tch::{Device, Kind, Tensor};

use crate::config::GuardConfig;

/// The least spread, as a share of the mean: where nearly nothing varies, small differences are still no spike.
const LEAST_SPREAD: f64 = 0.01;

/// What the names in [`SpikeGuard::state`] begin with.
pub const PREFIX: &str = "guard.";

/// Judges steps by those before them.
#[derive(Debug)]
pub struct SpikeGuard {
    sigmas: f64,
    window: i64,
    history: Tensor, // f32 (2, window): losses and gradient norms of accepted steps, a ring
    seen: Tensor,    // i64 scalar on the CPU: steps judged
    spike: Tensor,   // f32 scalar: 1 where the present step is to be skipped
    row: Tensor,     // i64 scalar: how many steps in a row were
    skipped: Tensor, // i64 scalar: how many were so far
}

/// What the guard has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spikes {
    /// Steps skipped without one accepted since.
    pub in_a_row: u64,
    /// Steps skipped so far.
    pub skipped: u64,
}

impl SpikeGuard {
    /// A guard that has seen nothing.
    pub fn new(config: &GuardConfig, device: Device) -> SpikeGuard {
        let count = |device| Tensor::zeros([], (Kind::Int64, device));
        SpikeGuard {
            sigmas: config.sigmas,
            window: config.window_steps as i64,
            history: Tensor::zeros([2, config.window_steps as i64], (Kind::Float, device)),
            seen: count(Device::Cpu),
            spike: Tensor::zeros([], (Kind::Float, device)),
            row: count(device),
            skipped: count(device),
        }
    }

    /// Judges a step by its mean loss and the norm of its gradient, two scalars on the device: 1 where it is to be
    /// skipped, else 0, an f32 scalar. Until the window is full, only what is not finite is. Where `overflow` is not 0
    /// the gradient overflowed for its scale alone, and says nothing.
    pub fn judge(&mut self, loss: &Tensor, grad_norm: &Tensor, overflow: Option<&Tensor>) -> &Tensor {
        let _guard = tch::no_grad_guard();
        let seen = self.seen.int64_value(&[]);
        let known = self.history.narrow(1, 0, seen.clamp(1, self.window));
        let mean = known.mean_dim(&[1i64][..], false, Kind::Float);
        let norm = match overflow {
            Some(overflow) => mean.get(1).where_self(&overflow.to_kind(Kind::Bool), grad_norm),
            None => grad_norm.shallow_clone(),
        };
        let now = Tensor::stack(&[loss.detach(), norm], 0).to_kind(Kind::Float);
        let mut spike = now.isfinite().logical_not();
        if seen >= self.window {
            let spread = known.std_dim(&[1i64][..], false, false).maximum(&(mean.abs() * LEAST_SPREAD));
            spike = spike.logical_or(&now.gt_tensor(&(&mean + spread * self.sigmas)));
        }
        let spike = spike.any();
        // A spike is remembered as an ordinary step.
        let remembered = mean.where_self(&spike, &now);
        self.history.select(1, seen % self.window).copy_(&remembered);
        let counted = spike.to_kind(Kind::Int64);
        self.row.copy_(&((&self.row + 1) * &counted));
        let _ = self.skipped.g_add_(&counted);
        self.seen += 1;
        self.spike = spike.to_kind(Kind::Float);
        &self.spike
    }

    /// What it has seen. Waits for the device.
    pub fn read(&self) -> Spikes {
        let read = |tensor: &Tensor| tensor.int64_value(&[]) as u64;
        Spikes { in_a_row: read(&self.row), skipped: read(&self.skipped) }
    }

    /// What a checkpoint keeps, each with its name. The tensors share their storage with the guard.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        [("history", &self.history), ("seen", &self.seen), ("row", &self.row), ("skipped", &self.skipped)]
            .map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor.shallow_clone()))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(guard: &mut SpikeGuard, loss: f64, norm: f64) -> bool {
        guard.judge(&Tensor::from(loss as f32), &Tensor::from(norm as f32), None).double_value(&[]) == 1.0
    }

    #[test]
    fn what_is_far_from_the_steps_before_is_a_spike() {
        let config = GuardConfig { enabled: true, window_steps: 20, sigmas: 6.0, ..GuardConfig::default() };
        let mut guard = SpikeGuard::new(&config, Device::Cpu);
        let usual = |step: u64| (2.0 + 0.1 * (step as f64).sin(), 0.5 + 0.05 * (step as f64 * 0.7).cos());
        // Nothing is known yet: any number will do, but it must be one.
        assert!(judge(&mut guard, f64::NAN, 1.0) && judge(&mut guard, 2.0, f64::INFINITY));
        assert!(!judge(&mut guard, 2.0, 9.0), "before the window is full");
        for step in 0..30 {
            assert!(!judge(&mut guard, usual(step).0, usual(step).1));
        }
        assert_eq!(guard.read(), Spikes { in_a_row: 0, skipped: 2 });
        for (loss, norm) in [(9.0, 0.5), (2.0, 5.0), (2.0, f64::NAN), (9.0, 0.5)] {
            assert!(judge(&mut guard, loss, norm), "{loss} {norm}");
        }
        assert_eq!(guard.read(), Spikes { in_a_row: 4, skipped: 6 });
        assert!(!judge(&mut guard, 2.3, 0.6) && !judge(&mut guard, 1.0, 0.1), "a good step is never one");
        assert_eq!(guard.read(), Spikes { in_a_row: 0, skipped: 6 });
        let (loss, inf) = (Tensor::from(2f32), Tensor::from(f32::INFINITY));
        let judged = guard.judge(&loss, &inf, Some(&Tensor::from(1f32))).double_value(&[]);
        assert_eq!(judged, 0.0, "an overflow is the scaler's affair");
    }
}
