//! What libtorch can do and `tch` has no binding for, behind safe functions: mixed precision, fused optimizer kernels,
//! clipping and unscaling that stay on the device, the state of random generators, the choice of a device, and several
//! processes that train together.
//!
//! This is the trainer's one room with `unsafe` in it. Every C++ exception comes out as an error.

#![allow(unsafe_code)]

mod device;
mod ffi;
pub mod fused;
mod group;
mod lists;
mod precision;
mod profile;
mod random;
mod recompute;

pub use device::{
    DeviceMemory, cuda_memory, describe, device_name, free_memory, select_device, set_switches, synchronize,
    upload,
};
pub use group::{Group, Store, leave};
pub use lists::{AdamSettings, adam, add, clip, forget_gradients, lerp, norm, scale, unscale, update_scale};
pub use precision::Autocast;
pub use profile::{Profiler, Span};
pub use random::{random_state, seed_all, set_random_state};
pub use recompute::recompute;

use std::ffi::{CStr, c_void};

use grug::error::{Error, ErrorKind, Result};
use tch::Tensor;

/// The libtorch that this program is made for.
pub const VERSION: &str = "2.11.0";

/// An error of libtorch, without the pages of C++ stack that it likes to append.
fn torch_error(text: &str) -> Error {
    let first = text.split("\nException raised from").next().unwrap_or(text).trim();
    let kind = if first.contains("out of memory") { ErrorKind::OutOfMemory } else { ErrorKind::Device };
    Error::new(kind, format!("libtorch: {first}"))
}

/// What a function of the shim returned.
fn check(message: ffi::Message) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message of the shim is a NUL-terminated string from malloc that is ours to free, once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ffi::grug_torch_free_message(message);
        text
    };
    Err(torch_error(&text))
}

/// The C++ tensor behind a tensor. The shim changes a tensor's numbers, never the handle.
fn pointer(tensor: &Tensor) -> ffi::TensorPtr {
    tensor.as_ptr().cast_mut().cast::<c_void>()
}

fn pointers(tensors: &[Tensor]) -> Vec<ffi::TensorPtr> {
    tensors.iter().map(pointer).collect()
}

/// Takes over a new tensor that the shim returned.
fn adopt(tensor: ffi::TensorPtr) -> Tensor {
    // SAFETY: the shim allocated it with `new at::Tensor` and forgot it; tch deletes it in the same way.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}

/// The error in a caught panic of `tch`, whose short methods panic where libtorch throws.
pub fn error_of_panic(payload: Box<dyn std::any::Any + Send>) -> Error {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("an unknown failure");
    match text.split_once("Torch(\"") {
        Some((_, rest)) => {
            torch_error(&rest.trim_end_matches("\")").replace("\\n", "\n").replace("\\\"", "\""))
        }
        None => Error::new(ErrorKind::Panic, format!("internal error: {text}")),
    }
}
