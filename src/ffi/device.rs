//! The devices of this machine.

use std::ffi::c_char;

use crate::device::{DeviceInfo, devices};
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::guard;
use crate::ffi::options::{self, SizedStruct};

/// Kind of a grug_device: the processor.
pub const GRUG_DEVICE_CPU: u32 = 1;
/// Kind of a grug_device: an NVIDIA GPU through its driver.
pub const GRUG_DEVICE_CUDA: u32 = 2;
/// Kind of a grug_device: any GPU through Vulkan, Metal or DirectX 12.
pub const GRUG_DEVICE_WGPU: u32 = 3;

/// A device that this machine has and this build can use. The texts end in NUL; one that is too long is cut.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_device {
    /// sizeof(grug_device), set by the caller
    pub size: usize,
    /// Its memory in bytes; 0 where unknown.
    pub memory_total: u64,
    /// How much of that is free, in bytes; 0 where unknown.
    pub memory_free: u64,
    /// A GRUG_DEVICE_ kind.
    pub kind: u32,
    /// Its number among those of its kind.
    pub index: u32,
    /// For grug_model_options.device: "cpu", "cuda:0", "wgpu:0".
    pub name: [c_char; 112],
    /// What it can do, separated by commas, such as "sm_90" or "vulkan,discretegpu"; empty for the CPU.
    pub features: [c_char; 128],
    /// What its maker calls it.
    pub description: [c_char; 128],
}

// SAFETY: repr(C), begins with `size`, and the rest are integers.
unsafe impl SizedStruct for grug_device {
    const NAME: &'static str = "grug_device";
    const FIRST_SIZE: usize = size_of::<grug_device>();
}

/// A text as C has it, cut between characters where it is too long.
fn c_text<const N: usize>(text: &str) -> [c_char; N] {
    let end = (0..N).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let mut out = [0; N];
    out.iter_mut().zip(&text.as_bytes()[..end]).for_each(|(out, &byte)| *out = byte as c_char);
    out
}

fn device(i: u32) -> Result<DeviceInfo> {
    let mut found = devices();
    if i as usize >= found.len() {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no device {i}, but {}", found.len())));
    }
    Ok(found.swap_remove(i as usize))
}

/// How many devices there are; at least 1, for "cpu" is always the first. Asks the drivers, which takes a moment.
#[unsafe(no_mangle)]
pub extern "C" fn grug_device_count() -> u32 {
    let mut count = 1;
    guard::quietly(|| count = devices().len() as u32);
    count
}

/// Describes device i, counted from 0. out->size must be set. GRUG_ENOTFOUND: there are no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_device_get(i: u32, out: *mut grug_device, err: *mut grug_error) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let info = device(i)?;
        options::write(out, "out", |size| grug_device {
            size,
            memory_total: info.memory_total,
            memory_free: info.memory_free,
            kind: info.kind as u32,
            index: info.index as u32,
            name: c_text(&info.name()),
            features: c_text(&info.features),
            description: c_text(&info.description),
        })?;
        Ok(GRUG_OK)
    })
}
