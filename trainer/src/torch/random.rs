//! libtorch's random generators, which dropout draws from: their state is part of a run.

use grug::error::Result;
use tch::{Device, Tensor};

use super::device::cuda_index;
use super::{adopt, check, ffi, pointer};

/// Seeds the generators of the CPU and of `device`.
pub fn seed_all(device: Device, seed: u64) -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { ffi::grug_torch_seed(-1, seed) })?;
    match cuda_index(device) {
        -1 => Ok(()),
        // SAFETY: plain numbers.
        index => check(unsafe { ffi::grug_torch_seed(index, seed) }),
    }
}

/// The state of a device's generator: a u8 tensor on the CPU.
pub fn random_state(device: Device) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: on success `out` is a new tensor.
    check(unsafe { ffi::grug_torch_rng_state(cuda_index(device), &mut out) })?;
    Ok(adopt(out))
}

/// Puts a device's generator where [`random_state`] found it.
pub fn set_random_state(device: Device, state: &Tensor) -> Result<()> {
    // SAFETY: a live tensor; libtorch checks its size and dtype.
    check(unsafe { ffi::grug_torch_set_rng_state(cuda_index(device), pointer(state)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn a_state_brings_back_the_same_numbers() {
        seed_all(Device::Cpu, 5).unwrap();
        let state = random_state(Device::Cpu).unwrap();
        let draw = || Vec::<f32>::try_from(Tensor::rand([8], (Kind::Float, Device::Cpu))).unwrap();
        let first = draw();
        assert_ne!(draw(), first);
        set_random_state(Device::Cpu, &state).unwrap();
        assert_eq!(draw(), first);
        let short = state.narrow(0, 0, 16).contiguous();
        assert!(set_random_state(Device::Cpu, &short).is_err());
    }
}
