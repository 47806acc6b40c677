//! The precision of matrix products. Weights, gradients and optimizer state stay f32; autocast rounds the inputs of
//! the products.

use grug::error::Result;
use tch::Device;

use super::device::cuda_index;
use super::{check, ffi};
use crate::config::Precision;

/// Mixed precision for the calling thread for as long as the value lives.
pub struct Autocast {
    cuda: i32,
    active: bool,
}

impl Autocast {
    /// Starts it; [`Precision::F32`] does nothing.
    pub fn start(device: Device, precision: Precision) -> Result<Autocast> {
        let cuda = (cuda_index(device) >= 0) as i32;
        let dtype = match precision {
            Precision::F32 => return Ok(Autocast { cuda, active: false }),
            Precision::Bf16 => 1,
            Precision::F16 => 2,
        };
        // SAFETY: plain numbers.
        check(unsafe { ffi::grug_torch_autocast(cuda, dtype) })?;
        Ok(Autocast { cuda, active: true })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        if self.active {
            // SAFETY: plain numbers. Turning a flag off does not fail.
            let _ = check(unsafe { ffi::grug_torch_autocast(self.cuda, 0) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn products_are_rounded_while_it_lives() {
        let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        for (precision, kind) in
            [(Precision::F32, Kind::Float), (Precision::Bf16, Kind::BFloat16), (Precision::F16, Kind::Half)]
        {
            let guard = Autocast::start(Device::Cpu, precision).unwrap();
            assert_eq!(a.matmul(&a).kind(), kind);
            drop(guard);
            assert_eq!(a.matmul(&a).kind(), Kind::Float);
        }
    }
}
