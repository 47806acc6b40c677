//! The gradient scaler of half precision, with the rules and numbers of PyTorch's `GradScaler`.
//!
//! In f16 small gradients vanish, so the loss is multiplied by a large scale before the backward pass and the
//! gradients are divided by it afterwards. Where one of them overflowed, the step is skipped and the scale halved;
//! after 2000 good steps in a row it is doubled. All of it stays on the device.

use grug::error::Result;
use tch::{Device, Kind, Tensor};

use crate::torch;

const INITIAL_SCALE: f64 = 65536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const GROWTH_INTERVAL: i64 = 2000;

/// The loss scale and what it remembers.
#[derive(Debug)]
pub struct GradScaler {
    scale: Tensor,          // f32 scalar
    growth_tracker: Tensor, // i32 scalar: good steps since the last change
    found_inf: Tensor,      // f32 scalar: 1 where the present step overflowed
    skipped: Tensor,        // i64 scalar: steps skipped so far
}

impl GradScaler {
    /// A scaler at its initial scale of 65536.
    pub fn new(device: Device) -> GradScaler {
        GradScaler {
            scale: Tensor::full([], INITIAL_SCALE, (Kind::Float, device)),
            growth_tracker: Tensor::zeros([], (Kind::Int, device)),
            found_inf: Tensor::zeros([], (Kind::Float, device)),
            skipped: Tensor::zeros([], (Kind::Int64, device)),
        }
    }

    /// The loss to go backward from.
    pub fn scale_loss(&self, loss: &Tensor) -> Tensor {
        loss * &self.scale
    }

    /// Divides the gradients by the scale and notes whether one of them overflowed.
    pub fn unscale(&mut self, grads: &[Tensor]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let _ = self.found_inf.zero_();
        torch::unscale(grads, &self.found_inf, &self.scale.reciprocal())
    }

    /// 1 where the present step overflowed and must be skipped, else 0: an f32 scalar on the device.
    pub fn found_inf(&self) -> &Tensor {
        &self.found_inf
    }

    /// Adapts the scale, once a step, after the optimizer.
    pub fn update(&mut self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let _ = self.skipped.g_add_(&self.found_inf.to_kind(Kind::Int64));
        torch::update_scale(
            &self.scale,
            &self.growth_tracker,
            &self.found_inf,
            GROWTH,
            BACKOFF,
            GROWTH_INTERVAL,
        )
    }

    /// The scale and the number of steps skipped so far. Waits for the device.
    pub fn read(&self) -> (f64, i64) {
        (self.scale.double_value(&[]), self.skipped.int64_value(&[]))
    }

    /// What a checkpoint keeps, each with its name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        [("scale", &self.scale), ("growth_tracker", &self.growth_tracker), ("skipped", &self.skipped)]
            .map(|(name, tensor)| (format!("scaler.{name}"), tensor.shallow_clone()))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_is_noted_and_halves_the_scale() {
        let mut scaler = GradScaler::new(Device::Cpu);
        let grads = [Tensor::from_slice(&[65536f32, 131072.0])];
        scaler.unscale(&grads).unwrap();
        assert_eq!(Vec::<f32>::try_from(&grads[0]).unwrap(), [1.0, 2.0]);
        assert_eq!(scaler.found_inf().double_value(&[]), 0.0);
        scaler.update().unwrap();
        scaler.unscale(&[Tensor::from_slice(&[1f32, f32::INFINITY])]).unwrap();
        assert_eq!(scaler.found_inf().double_value(&[]), 1.0);
        scaler.update().unwrap();
        assert_eq!(scaler.read(), (32768.0, 1));
    }
}
