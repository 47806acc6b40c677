//! The functions of the C++ in shim/, which explains them. A tensor is a pointer to libtorch's own `at::Tensor`, the one
//! that `tch::Tensor::as_ptr` gives.

use std::ffi::{c_char, c_void};

pub type TensorPtr = *mut c_void;
/// NULL, or a message to be freed by [`grug_torch_free_message`].
pub type Message = *mut c_char;

unsafe extern "C" {
    pub fn grug_torch_free_message(message: Message);
    pub fn grug_torch_load_cuda(found: *mut i32) -> Message;
    pub fn grug_torch_autocast(cuda: i32, dtype: i32) -> Message;
    pub fn grug_torch_adam(
        params: *const TensorPtr,
        grads: *const TensorPtr,
        exp_avgs: *const TensorPtr,
        exp_avg_sqs: *const TensorPtr,
        n: usize,
        step: TensorPtr,
        decoupled: i32,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        found_inf: TensorPtr,
    ) -> Message;
    pub fn grug_torch_norm(tensors: *const TensorPtr, n: usize, out: *mut TensorPtr) -> Message;
    pub fn grug_torch_clip(tensors: *const TensorPtr, n: usize, norm: TensorPtr, max_norm: f64) -> Message;
    pub fn grug_torch_scale(tensors: *const TensorPtr, n: usize, factor: f64) -> Message;
    pub fn grug_torch_add(to: *const TensorPtr, from: *const TensorPtr, n: usize) -> Message;
    pub fn grug_torch_lerp(to: *const TensorPtr, from: *const TensorPtr, n: usize, weight: f64) -> Message;
    pub fn grug_torch_unscale(
        grads: *const TensorPtr,
        n: usize,
        found_inf: TensorPtr,
        inverse_scale: TensorPtr,
    ) -> Message;
    pub fn grug_torch_update_scale(
        scale: TensorPtr,
        growth_tracker: TensorPtr,
        found_inf: TensorPtr,
        growth: f64,
        backoff: f64,
        interval: i64,
    ) -> Message;
    pub fn grug_torch_forget_gradients(params: *const TensorPtr, n: usize) -> Message;
    pub fn grug_torch_rms_norm(x: TensorPtr, weight: TensorPtr, eps: f64, out: *mut TensorPtr) -> Message;
    pub fn grug_torch_split_heads(
        packed: TensorPtr,
        cos: TensorPtr,
        sin: TensorPtr,
        heads: i64,
        kv_heads: i64,
        normalize: i32,
        eps: f64,
        out: *mut TensorPtr,
    ) -> Message;
    pub fn grug_torch_relu2(x: TensorPtr, out: *mut TensorPtr) -> Message;
    pub fn grug_torch_rng_state(cuda_index: i32, out: *mut TensorPtr) -> Message;
    pub fn grug_torch_set_rng_state(cuda_index: i32, state: TensorPtr) -> Message;
    pub fn grug_torch_seed(cuda_index: i32, seed: u64) -> Message;
    pub fn grug_torch_switches(deterministic: i32, tf32: i32, benchmark: i32) -> Message;
    pub fn grug_torch_cuda_free_memory(cuda_index: i32, free: *mut i64) -> Message;
    pub fn grug_torch_upload(x: TensorPtr, cuda_index: i32, out: *mut TensorPtr) -> Message;
    pub fn grug_torch_cuda_memory(cuda_index: i32, now: *mut i64, peak: *mut i64) -> Message;
}

/// A place where processes meet, of parallel.cpp.
pub type StorePtr = *mut c_void;
/// A group of processes, of parallel.cpp.
pub type GroupPtr = *mut c_void;

unsafe extern "C" {
    pub fn grug_torch_store_new(
        host: *const c_char,
        port: u16,
        server: i32,
        prefix: *const c_char,
        timeout_ms: i64,
        out: *mut StorePtr,
    ) -> Message;
    pub fn grug_torch_store_free(store: StorePtr);
    pub fn grug_torch_store_set(
        store: StorePtr,
        key: *const c_char,
        key_len: usize,
        value: *const u8,
        n: usize,
    ) -> Message;
    pub fn grug_torch_store_get(
        store: StorePtr,
        key: *const c_char,
        key_len: usize,
        out: *mut *mut u8,
        n: *mut usize,
    ) -> Message;
    pub fn grug_torch_store_check(
        store: StorePtr,
        key: *const c_char,
        key_len: usize,
        found: *mut i32,
    ) -> Message;
    pub fn grug_torch_group_new(
        store: StorePtr,
        host: *const c_char,
        rank: i32,
        size: i32,
        cuda_index: i32,
        timeout_ms: i64,
        out: *mut GroupPtr,
    ) -> Message;
    pub fn grug_torch_group_free(group: GroupPtr);
    pub fn grug_torch_group_broadcast(group: GroupPtr, tensors: *const TensorPtr, n: usize) -> Message;
    pub fn grug_torch_group_sum(group: GroupPtr, values: *mut f64, n: usize) -> Message;
    pub fn grug_torch_group_watch(
        group: GroupPtr,
        params: *const TensorPtr,
        n: usize,
        bucket_bytes: i64,
    ) -> Message;
    pub fn grug_torch_group_expect(group: GroupPtr, raised: f64) -> Message;
    pub fn grug_torch_group_finish(group: GroupPtr, raised: *mut f64) -> Message;
    pub fn grug_torch_leave(status: i32);
}

/// A part of a model, for recompute.cpp: a tensor to a new tensor.
pub type PartCall = extern "C" fn(part: *mut c_void, x: TensorPtr, out: *mut TensorPtr) -> Message;

unsafe extern "C" {
    pub fn grug_torch_recompute(
        x: TensorPtr,
        part: *mut c_void,
        call: PartCall,
        free: extern "C" fn(*mut c_void),
        draws: i32,
        out: *mut TensorPtr,
    ) -> Message;
    pub fn grug_torch_profiler_prepare(cuda: i32) -> Message;
    pub fn grug_torch_profiler_start(cuda: i32) -> Message;
    pub fn grug_torch_profiler_stop(path: *const c_char) -> Message;
    pub fn grug_torch_span_begin(name: *const c_char, len: usize, out: *mut *mut c_void) -> Message;
    pub fn grug_torch_span_end(span: *mut c_void);
}
