//! Samplers: how a byte is picked from logits.

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::guard::{self, Entered, Exclusive};
use crate::ffi::options::{self, SizedStruct};
use crate::ffi::pointer;
use crate::sampler::{Sampler, SamplerOptions};

/// A sampler: options and a random generator.
pub struct grug_sampler(Exclusive<Sampler>);

/// A grammar. No function makes one in this version.
pub struct grug_grammar(());

/// How to pick a byte. The steps run in this order: temperature, top_k, top_p, min_p, draw. All zeros, and NULL, are
/// greedy: the likeliest byte, the lowest of equals.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_sampler_options {
    /// sizeof(grug_sampler_options)
    pub size: usize,
    /// Used as it is: 0 is a seed like any other.
    pub seed: u64,
    /// Logits are divided by it; 0 = greedy.
    pub temperature: f32,
    /// Keep the likeliest bytes that together have this probability; 0 = off.
    pub top_p: f32,
    /// Keep bytes at least this fraction as likely as the likeliest; 0 = off.
    pub min_p: f32,
    /// Not in this version: must be 0.
    pub typical_p: f32,
    /// Keep this many of the likeliest bytes; 0 = off.
    pub top_k: u32,
    /// Not in this version: must be 0.
    pub penalty_window: u32,
    /// Not in this version: must be 0.
    pub repeat_penalty: f32,
    /// Not in this version: must be 0.
    pub frequency_penalty: f32,
    /// Not in this version: must be 0.
    pub presence_penalty: f32,
    /// Not in this version: must be 0.
    pub mirostat_tau: f32,
    /// Not in this version: must be 0.
    pub mirostat_eta: f32,
    /// None in this version: must be 0.
    pub flags: u32,
    /// Not in this version: must be NULL.
    pub bias: *const f32,
    /// Not in this version: must be NULL.
    pub grammar: *const grug_grammar,
}

// SAFETY: repr(C), begins with `size`, and all zeros is NULLs and zeros.
unsafe impl SizedStruct for grug_sampler_options {
    const NAME: &'static str = "grug_sampler_options";
    const FIRST_SIZE: usize = size_of::<grug_sampler_options>();
}

/// The sampler behind a handle, for this call.
///
/// # Safety
/// `sp` is NULL or a sampler that is not freed during `'a`.
pub(super) unsafe fn enter<'a>(sp: *mut grug_sampler) -> Result<Entered<'a, Sampler>> {
    // SAFETY: by contract.
    unsafe { pointer::object(sp, "sampler") }?.0.enter().map_err(|e| e.at("sampler"))
}

/// # Safety
/// `opt` is as `grug_sampler_options` says.
unsafe fn read_options(opt: *const grug_sampler_options) -> Result<SamplerOptions> {
    // SAFETY: by contract.
    let c = unsafe { options::read(opt) }?;
    let later = [
        ("typical_p", c.typical_p != 0.0),
        ("penalty_window", c.penalty_window != 0),
        ("repeat_penalty", c.repeat_penalty != 0.0),
        ("frequency_penalty", c.frequency_penalty != 0.0),
        ("presence_penalty", c.presence_penalty != 0.0),
        ("mirostat_tau", c.mirostat_tau != 0.0),
        ("mirostat_eta", c.mirostat_eta != 0.0),
        ("flags", c.flags != 0),
        ("bias", !c.bias.is_null()),
        ("grammar", !c.grammar.is_null()),
    ];
    if let Some((field, _)) = later.iter().find(|(_, set)| *set) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("grug_sampler_options.{field} is not supported by this version"),
        ));
    }
    Ok(SamplerOptions {
        seed: c.seed,
        temperature: c.temperature,
        top_k: c.top_k,
        top_p: c.top_p,
        min_p: c.min_p,
        ..Default::default()
    })
}

/// Makes a sampler.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_sampler_new(
    opt: *const grug_sampler_options,
    out: *mut *mut grug_sampler,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let out = pointer::output(out, "out")?;
        let sampler = Sampler::new(&read_options(opt)?)?;
        out.write(Box::into_raw(guard::try_box(grug_sampler(Exclusive::new(sampler)))?));
        Ok(GRUG_OK)
    })
}

/// Makes a sampler that goes on as this one would.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_sampler_fork(
    sp: *mut grug_sampler,
    out: *mut *mut grug_sampler,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let out = pointer::output(out, "out")?;
        let sampler = enter(sp)?.clone();
        out.write(Box::into_raw(guard::try_box(grug_sampler(Exclusive::new(sampler)))?));
        Ok(GRUG_OK)
    })
}

/// Makes the sampler as new, with another seed or the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_sampler_reset(
    sp: *mut grug_sampler,
    seed: u64,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        enter(sp)?.reset(seed);
        Ok(GRUG_OK)
    })
}

/// Picks a byte, 0..255, from logits that the caller may have edited, and moves the random generator on. The logit of a
/// byte that must not come is -INFINITY. Pair it with grug_session_feed.
/// cbindgen:ptrs-as-arrays=[[logits;256]]
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_sampler_pick(
    sp: *mut grug_sampler,
    logits: *const f32,
    err: *mut grug_error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let mut sampler = enter(sp)?;
        let logits = pointer::object(logits.cast::<[f32; 256]>(), "logits")?;
        Ok(sampler.pick(logits)?.into())
    })
}

/// Frees the sampler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_sampler_free(sp: *mut grug_sampler) {
    if !sp.is_null() {
        // SAFETY: `sp` came from this library and is freed once (header, OWNERSHIP).
        guard::quietly(|| drop(unsafe { Box::from_raw(sp) }));
    }
}
