//! Models: immutable weights, shared by the sessions that run them.

use std::ffi::{c_char, c_void};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::ffi::cancel::{grug_cancel, token};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::guard::{self, Shared};
use crate::ffi::options::{self, SizedStruct};
use crate::ffi::pointer;
use crate::hooks::{Log, Progress};
use crate::model::{Model, ModelOptions};

/// A model: immutable weights and the threads that compute with them. Sessions keep what they need of it.
pub struct grug_model(Shared<Model>);

/// Read the file into memory instead of mapping it. A mapped file must not be truncated or written while a model uses
/// it; replacing it by rename is fine.
pub const GRUG_MODEL_NO_MMAP: u32 = 1;
/// Keep the weights in memory, as mlock does: the system may not page them out. GRUG_ENOMEM where its limit is lower,
/// GRUG_EUNSUPPORTED where it has no such thing.
pub const GRUG_MODEL_MLOCK: u32 = 2;
/// Compute logits whose bits are the same on every machine, instruction set and thread count, however bytes are fed and
/// batched. On the CPU, slower. Compression needs it.
pub const GRUG_MODEL_PORTABLE: u32 = 4;
/// On a GPU: do not compare a few bytes' logits with the CPU's while loading.
pub const GRUG_MODEL_NO_SELF_CHECK: u32 = 8;

/// Copy the buffer.
pub const GRUG_LOAD_COPY: u32 = 0;
/// Use the buffer where it is: it must stay as it is until the last handle of the model and its sessions is freed.
pub const GRUG_LOAD_BORROW: u32 = 1;

/// Something failed for which a call has a status alone: a session of grug_session_next_batch.
pub const GRUG_LOG_ERROR: u32 = 1;
/// Something works, but not as well as it could.
pub const GRUG_LOG_WARN: u32 = 2;
/// What was loaded, and what computes it.
pub const GRUG_LOG_INFO: u32 = 3;
/// What is made of it.
pub const GRUG_LOG_DEBUG: u32 = 4;

/// Receives a line of log text: UTF-8, no line end, not NUL-terminated, valid during the call. May be called from any
/// thread, several at once. Must not unwind, nor use the handle that the call at hand is using.
pub type grug_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: u32, text: *const c_char, len: usize)>;
/// Receives progress from 0 to 1, on the thread that called; anything but 0 cancels: GRUG_ECANCELED. Must not unwind.
pub type grug_progress_fn = Option<unsafe extern "C" fn(user: *mut c_void, fraction: f32) -> i32>;

/// How to load a model. NULL instead of it means all defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_model_options {
    /// sizeof(grug_model_options)
    pub size: usize,
    /// Where to compute: NULL = "cpu"; "cuda:0", "wgpu:0" (grug_device_get lists them); "auto" = the best there is.
    pub device: *const c_char,
    /// Threads that compute: 0 = one for each physical core, 1 = the calling thread alone.
    pub n_threads: u32,
    /// GRUG_MODEL_ flags.
    pub flags: u32,
    /// NULL = silent. Called as long as a handle of the model or of its sessions lives.
    pub log: grug_log_fn,
    /// NULL, or hears how far loading is.
    pub progress: grug_progress_fn,
    /// Passed to both functions.
    pub user: *mut c_void,
    /// Stops loading.
    pub cancel: *const grug_cancel,
}

// SAFETY: repr(C), begins with `size`, and all zeros is NULLs and zeros.
unsafe impl SizedStruct for grug_model_options {
    const NAME: &'static str = "grug_model_options";
    const FIRST_SIZE: usize = size_of::<grug_model_options>();
}

/// What a model is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_model_info {
    /// sizeof(grug_model_info), set by the caller
    pub size: usize,
    /// Trained numbers.
    pub n_params: u64,
    /// Bytes of the weights in memory or in the mapped file.
    pub weight_bytes: u64,
    /// Tells this model from others: a hash of configuration and weights, computed when it is first asked for.
    pub fingerprint: u64,
    /// The context in bytes: what a prediction can look back on.
    pub context_bytes: u64,
    /// The most bytes that grug_session_save writes.
    pub state_bytes: u64,
    /// How far grug_session_rewind always works in a session of the whole context.
    pub rewind_bytes: u64,
    /// Numbers of grug_session_get_embedding.
    pub embedding_dim: u32,
    /// The byte that ends a document, 0..255, or -1: generation stops after it.
    pub end_byte: i32,
}

// SAFETY: repr(C), begins with `size`, and the rest are integers.
unsafe impl SizedStruct for grug_model_info {
    const NAME: &'static str = "grug_model_info";
    const FIRST_SIZE: usize = size_of::<grug_model_info>();
}

/// The `user` of the caller, who vouches for it in all threads.
#[derive(Clone, Copy)]
struct User(*mut c_void);

// SAFETY: the library only hands it back to the functions that it came with, which the header says may be called from
// any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    /// A method, so that closures capture the whole struct and not the pointer inside.
    fn pointer(self) -> *mut c_void {
        self.0
    }
}

fn log(function: grug_log_fn, user: User) -> Option<Log> {
    let function = function?;
    Some(Log::new(move |level, line| {
        // SAFETY: the caller vouches for function and user as long as a handle lives (header); the text outlives the call.
        unsafe { function(user.pointer(), level as u32, line.as_ptr().cast(), line.len()) }
    }))
}

fn progress(function: grug_progress_fn, user: User) -> Option<Progress> {
    let function = function?;
    // SAFETY: the caller vouches for function and user during the call.
    Some(Progress::new(move |fraction| unsafe { function(user.pointer(), fraction) } == 0))
}

/// The model behind a handle.
///
/// # Safety
/// `m` is NULL or a model that is not freed during `'a`.
pub(super) unsafe fn model<'a>(m: *const grug_model) -> Result<guard::Using<'a, Model>> {
    // SAFETY: by contract.
    unsafe { pointer::object(m, "m") }?.0.enter()
}

/// # Safety
/// `opt` is as `grug_model_options` says.
unsafe fn read_options(opt: *const grug_model_options) -> Result<ModelOptions> {
    // SAFETY: by contract.
    let c = unsafe { options::read(opt) }?;
    let device = if c.device.is_null() {
        "cpu"
    } else {
        // SAFETY: by contract.
        unsafe { pointer::text(c.device, "grug_model_options.device") }?
    };
    if c.flags & !(GRUG_MODEL_NO_MMAP | GRUG_MODEL_MLOCK | GRUG_MODEL_PORTABLE | GRUG_MODEL_NO_SELF_CHECK)
        != 0
    {
        return Err(Error::invalid(format!("grug_model_options.flags: {:#x} has an unknown flag", c.flags)));
    }
    let user = User(c.user);
    Ok(ModelOptions {
        n_threads: c.n_threads as usize,
        mmap: c.flags & GRUG_MODEL_NO_MMAP == 0,
        portable: c.flags & GRUG_MODEL_PORTABLE != 0,
        mlock: c.flags & GRUG_MODEL_MLOCK != 0,
        // SAFETY: by contract.
        cancel: unsafe { token(c.cancel) },
        device: device.into(),
        self_check: c.flags & GRUG_MODEL_NO_SELF_CHECK == 0,
        progress: progress(c.progress, user),
        log: log(c.log, user),
    })
}

/// Hands a new model to the caller.
///
/// # Safety
/// `out` may be written.
unsafe fn give(model: Model, out: *mut *mut grug_model) -> Result<i32> {
    let handle = guard::try_box(grug_model(Shared::new(model)))?;
    // SAFETY: by contract.
    unsafe { out.write(Box::into_raw(handle)) };
    Ok(GRUG_OK)
}

/// Loads a model file.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_model_load_file(
    path: *const c_char,
    opt: *const grug_model_options,
    out: *mut *mut grug_model,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let out = pointer::output(out, "out")?;
        let path = pointer::path(path, "path")?;
        give(Model::load(&path, &read_options(opt)?)?, out)
    })
}

/// Loads a model file that is in memory. mode is GRUG_LOAD_COPY or GRUG_LOAD_BORROW.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_model_load_buffer(
    data: *const u8,
    len: usize,
    mode: u32,
    opt: *const grug_model_options,
    out: *mut *mut grug_model,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument. For GRUG_LOAD_BORROW that is that the
    // buffer outlives the last handle that uses it, which is as good as 'static: what borrows it is behind those.
    guard::call(err, || unsafe {
        let out = pointer::output(out, "out")?;
        let data = pointer::slice(data, len, "data")?;
        let options = read_options(opt)?;
        let checkpoint = match mode {
            GRUG_LOAD_COPY => Checkpoint::from_bytes(copy(data)?)?,
            GRUG_LOAD_BORROW => Checkpoint::from_static(data)?,
            _ => return Err(Error::invalid(format!("mode {mode} is not a GRUG_LOAD_ mode"))),
        };
        give(Model::from_checkpoint(checkpoint, &options)?, out)
    })
}

/// A copy; no memory is an error, not an abort.
fn copy(data: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(data.len()).map_err(|_| {
        Error::new(ErrorKind::OutOfMemory, format!("no memory for a model of {} bytes", data.len()))
    })?;
    bytes.extend_from_slice(data);
    Ok(bytes)
}

/// Frees the handle. Sessions of the model go on; its memory goes with the last of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_model_free(m: *mut grug_model) {
    if !m.is_null() {
        // SAFETY: `m` came from this library and is freed once (header, OWNERSHIP).
        guard::quietly(|| drop(unsafe { Box::from_raw(m) }));
    }
}

/// Describes the model. out->size must be set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_model_get_info(
    m: *const grug_model,
    out: *mut grug_model_info,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let model = model(m)?;
        let config = model.config();
        options::write(out, "out", |size| grug_model_info {
            size,
            n_params: model.n_params(),
            weight_bytes: model.weight_bytes(),
            fingerprint: model.fingerprint(),
            context_bytes: config.window_bytes() as u64,
            state_bytes: model.saved_session_bytes(),
            rewind_bytes: model.rewind_bytes(),
            embedding_dim: config.output_dim() as u32,
            end_byte: model.end_byte().map_or(-1, i32::from),
        })?;
        Ok(GRUG_OK)
    })
}

/// Copies the value of a metadata entry, which are bytes without a NUL. *len: in the room, out the length. Too little
/// room is GRUG_ESPACE, and then *len is the room it takes; value may be NULL where *len is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_model_get_metadata(
    m: *const grug_model,
    key: *const c_char,
    value: *mut c_char,
    len: *mut usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let model = model(m)?;
        let key = pointer::text(key, "key")?;
        let entry = model
            .metadata()
            .get(key)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the model's metadata has no {key:?}")))?;
        pointer::copy_out(entry.as_bytes(), value, len, "value")?;
        Ok(GRUG_OK)
    })
}

/// Copies the key of metadata entry i, counted from 0 in the order of the keys, as grug_model_get_metadata copies
/// values. GRUG_ENOTFOUND: there are no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_model_get_metadata_key(
    m: *const grug_model,
    i: usize,
    key: *mut c_char,
    len: *mut usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let model = model(m)?;
        let entries = model.metadata();
        let name = entries.keys().nth(i).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the model's metadata has {} entries", entries.len()))
        })?;
        pointer::copy_out(name.as_bytes(), key, len, "key")?;
        Ok(GRUG_OK)
    })
}
