//! Where the numbers live. One program runs on machines with and without CUDA: libtorch's CUDA part is loaded where
//! it lies beside the CPU part.

use std::sync::OnceLock;

use grug::error::{Error, ErrorKind, Result};
use tch::{Cuda, Device, Tensor};

use super::{adopt, check, ffi, pointer};

/// Why there is no CUDA, or nothing where there is.
static CUDA_MISSING: OnceLock<Option<String>> = OnceLock::new();

fn load_cuda() -> Option<String> {
    let mut found = 0;
    // SAFETY: `found` is a live i32; loading a library of libtorch runs only its own registrations.
    let loaded = check(unsafe { ffi::grug_torch_load_cuda(&mut found) });
    if found == 0 {
        return Some("this libtorch has no CUDA part (scripts/fetch-libtorch --cuda brings one)".into());
    }
    if let Err(error) = loaded {
        return Some(format!("libtorch's CUDA part does not load: {error}"));
    }
    if Cuda::device_count() == 0 {
        return Some("no NVIDIA GPU or driver was found".into());
    }
    None
}

/// The device for `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes CUDA where it works.
///
/// To be called before anything else touches libtorch: its CUDA part must be loaded first.
pub fn select_device(name: &str) -> Result<Device> {
    let index = match name {
        "auto" | "cpu" => None,
        "cuda" => Some(0),
        other => Some(other.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(|| {
            Error::invalid(format!("device {other:?} is none of auto, cpu, cuda and cuda:N"))
        })?),
    };
    let missing = CUDA_MISSING.get_or_init(load_cuda);
    match (name, index, missing) {
        ("cpu", ..) | ("auto", _, Some(_)) => Ok(Device::Cpu),
        (_, _, Some(why)) => Err(Error::new(ErrorKind::Device, format!("device {name:?}: {why}"))),
        (_, index, None) => {
            let index: usize = index.unwrap_or(0);
            let count = Cuda::device_count();
            if index as i64 >= count {
                return Err(Error::new(
                    ErrorKind::Device,
                    format!("device {name:?}: there are {count} CUDA devices, numbered from 0"),
                ));
            }
            Ok(Device::Cuda(index))
        }
    }
}

/// One sentence saying which device is in use, and why not a GPU where that is so.
pub fn describe(device: Device) -> String {
    match device {
        Device::Cpu => {
            let threads = tch::get_num_threads();
            let why = match CUDA_MISSING.get() {
                Some(Some(why)) => format!("; {why}"),
                Some(None) => "; a CUDA device is there too (--device cuda)".to_string(),
                None => String::new(),
            };
            format!("CPU, {threads} thread{}{why}", if threads == 1 { "" } else { "s" })
        }
        Device::Cuda(index) => match device_name(device) {
            Some(name) => format!("CUDA device {index} ({name})"),
            None => format!("CUDA device {index}"),
        },
        other => format!("{other:?}"),
    }
}

/// The number by which the shim knows a device: -1 is the CPU.
pub(super) fn cuda_index(device: Device) -> i32 {
    match device {
        Device::Cuda(index) => index as i32,
        _ => -1,
    }
}

/// Waits until the device has done all it was asked to.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// A tensor of the host on a device. The host does not wait until it is there.
pub fn upload(tensor: Tensor, device: Device) -> Result<Tensor> {
    if !device.is_cuda() {
        return Ok(tensor.to_device(device));
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: a live tensor; on success `out` is a new tensor. The pinned copy lives until the device has read it.
    check(unsafe { ffi::grug_torch_upload(pointer(&tensor), cuda_index(device), &mut out) })?;
    Ok(adopt(out))
}

/// Bytes of a GPU's memory that are free; `None` on the CPU, or where libtorch does not know.
pub fn free_memory(device: Device) -> Option<u64> {
    let Device::Cuda(index) = device else { return None };
    let mut free = 0;
    // SAFETY: `free` is a live i64.
    check(unsafe { ffi::grug_torch_cuda_free_memory(index as i32, &mut free) }).ok()?;
    Some(free as u64)
}

/// Process-wide switches of libtorch. `deterministic`: operators without a deterministic form are errors. `tf32`:
/// matrix products of f32 on Ampere and later may round their inputs. `benchmark`: cuDNN tries its algorithms.
pub fn set_switches(deterministic: bool, tf32: bool, benchmark: bool) -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { ffi::grug_torch_switches(deterministic as i32, tf32 as i32, benchmark as i32) })
}

/// Bytes that tensors occupy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Now.
    pub now: u64,
    /// At most since the start.
    pub peak: u64,
}

/// Memory that tensors occupy on a GPU; `None` on the CPU.
pub fn cuda_memory(device: Device) -> Option<DeviceMemory> {
    let Device::Cuda(index) = device else { return None };
    let (mut now, mut peak) = (0, 0);
    // SAFETY: both are live i64s.
    check(unsafe { ffi::grug_torch_cuda_memory(index as i32, &mut now, &mut peak) }).ok()?;
    Some(DeviceMemory { now: now as u64, peak: peak as u64 })
}

/// The model name of a GPU, as the NVIDIA driver says it; `None` on the CPU, or where GPUs of different models are
/// mixed, since the driver's order is not CUDA's.
pub fn device_name(device: Device) -> Option<String> {
    if !device.is_cuda() {
        return None;
    }
    let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus").ok()?;
    let mut names = gpus.filter_map(|gpu| {
        let text = std::fs::read_to_string(gpu.ok()?.path().join("information")).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_string())
    });
    let first = names.next()?;
    names.all(|name| name == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!(select_device("cpu").unwrap(), Device::Cpu);
        for wrong in ["gpu", "cuda:", "cuda:x", ""] {
            assert!(select_device(wrong).unwrap_err().message().contains("cuda:N"), "{wrong}");
        }
        if select_device("auto").unwrap() == Device::Cpu {
            let error = select_device("cuda:0").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        }
        assert!(select_device("cuda:4000").is_err());
    }
}
