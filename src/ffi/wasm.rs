//! What a WebAssembly host needs besides the C API: memory of the module that it may write to. It has no other way to
//! get some, where a C program has its own.

use std::alloc::{Layout, alloc, dealloc};
use std::mem::offset_of;

use crate::ffi::device::grug_device;
use crate::ffi::model::{grug_model_info, grug_model_options};
use crate::ffi::sampler::grug_sampler_options;
use crate::ffi::session::{grug_bytes, grug_session_options};

// Where `bindings/wasm/index.mjs` writes and reads the fields of structs, by number.
const _: () = {
    assert!(size_of::<grug_model_options>() == 32 && offset_of!(grug_model_options, n_threads) == 8);
    assert!(offset_of!(grug_model_options, flags) == 12);
    assert!(size_of::<grug_model_info>() == 64 && offset_of!(grug_model_info, n_params) == 8);
    assert!(offset_of!(grug_model_info, rewind_bytes) == 48 && offset_of!(grug_model_info, end_byte) == 60);
    assert!(size_of::<grug_session_options>() == 32 && offset_of!(grug_session_options, overflow) == 16);
    assert!(size_of::<grug_sampler_options>() == 72 && offset_of!(grug_sampler_options, temperature) == 16);
    assert!(
        offset_of!(grug_sampler_options, top_k) == 32 && offset_of!(grug_sampler_options, mirostat_eta) == 56
    );
    assert!(offset_of!(grug_sampler_options, flags) == 60 && offset_of!(grug_sampler_options, bias) == 64);
    assert!(offset_of!(grug_sampler_options, grammar) == 68 && offset_of!(grug_session_options, flags) == 20);
    assert!(size_of::<grug_device>() == 400 && offset_of!(grug_device, memory_total) == 8);
    assert!(offset_of!(grug_device, name) == 32 && offset_of!(grug_device, features) == 144);
    assert!(offset_of!(grug_device, description) == 272);
    assert!(size_of::<grug_bytes>() == 8 && offset_of!(grug_bytes, len) == 4);
};

/// As `max_align_t` of C: enough for every struct of the header.
const ALIGNMENT: usize = 16;

fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.max(1), ALIGNMENT).ok()
}

/// `len` bytes that hold anything, aligned for every struct of the header; NULL where there is no memory.
#[unsafe(no_mangle)]
pub extern "C" fn grug_wasm_alloc(len: usize) -> *mut u8 {
    // SAFETY: the layout's size is not zero.
    layout(len).map_or(std::ptr::null_mut(), |layout| unsafe { alloc(layout) })
}

/// Gives back what `grug_wasm_alloc` gave for this `len`. NULL is a no-op.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_wasm_free(pointer: *mut u8, len: usize) {
    if let (false, Some(layout)) = (pointer.is_null(), layout(len)) {
        // SAFETY: the caller got `pointer` for this length, which makes the same layout, and gives it back once.
        unsafe { dealloc(pointer, layout) };
    }
}
