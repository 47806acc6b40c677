//! Samplers: how a byte is picked from logits.

use crate::error::{Error, Result};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::grammar::{grammar, grug_grammar};
use crate::ffi::guard::{self, Entered, Exclusive};
use crate::ffi::options::{self, SizedStruct};
use crate::ffi::pointer;
use crate::sampler::{Sampler, SamplerOptions};

/// A sampler: options, a random generator, and what it picked: the window of the penalties, the place in the grammar.
pub struct grug_sampler(Exclusive<Sampler>);

/// Only ever extend to well-formed UTF-8. The first byte picked begins a character.
pub const GRUG_SAMPLE_UTF8: u32 = 1;

/// How to pick a byte. The steps run in this order: bias, grammar and UTF-8, penalties, temperature, top_k, typical_p,
/// top_p, min_p, draw; mirostat stands in place of the four before the draw. All zeros, and NULL, are greedy: the
/// likeliest byte, the lowest of equals. Draw number n of a seed is the same number on every machine.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_sampler_options {
    /// sizeof(grug_sampler_options)
    pub size: usize,
    /// Used as it is: 0 is a seed like any other.
    pub seed: u64,
    /// Logits are divided by it; 0 = greedy.
    pub temperature: f32,
    /// Keep the likeliest bytes that together have this probability; 0 or 1 = off.
    pub top_p: f32,
    /// Keep bytes at least this fraction as likely as the likeliest; 0 = off.
    pub min_p: f32,
    /// Keep the bytes whose surprise is nearest to the expected one, until they have this probability; 0 or 1 = off.
    pub typical_p: f32,
    /// Keep this many of the likeliest bytes; 0 = off.
    pub top_k: u32,
    /// The penalties count the last so many bytes that this sampler picked, at most 2^20; 0 = off.
    pub penalty_window: u32,
    /// Divides the positive logits of bytes in the window, and multiplies negative ones; 0 or 1 = off.
    pub repeat_penalty: f32,
    /// Taken off a byte's logit for each time that it is in the window.
    pub frequency_penalty: f32,
    /// Taken off the logit of each byte in the window.
    pub presence_penalty: f32,
    /// Mirostat 2: keep the surprise of the text near this many bits a byte; 0 = off.
    pub mirostat_tau: f32,
    /// How fast mirostat learns; 0 = 0.1.
    pub mirostat_eta: f32,
    /// GRUG_SAMPLE_ flags.
    pub flags: u32,
    /// NULL, or 256 numbers that are added to the logits; -INFINITY bans a byte. Copied.
    pub bias: *const f32,
    /// NULL, or what may be written. Retained.
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
    if c.flags & !GRUG_SAMPLE_UTF8 != 0 {
        return Err(Error::invalid(format!(
            "grug_sampler_options.flags: {:#x} has an unknown flag",
            c.flags
        )));
    }
    let bias = match c.bias.cast::<[f32; 256]>() {
        bias if bias.is_null() => None,
        // SAFETY: by contract: 256 numbers.
        bias => Some(*unsafe { pointer::object(bias, "grug_sampler_options.bias") }?),
    };
    Ok(SamplerOptions {
        seed: c.seed,
        temperature: c.temperature,
        top_k: c.top_k,
        typical_p: c.typical_p,
        top_p: c.top_p,
        min_p: c.min_p,
        penalty_window: c.penalty_window as usize,
        repeat_penalty: c.repeat_penalty,
        frequency_penalty: c.frequency_penalty,
        presence_penalty: c.presence_penalty,
        mirostat_tau: c.mirostat_tau,
        mirostat_eta: c.mirostat_eta,
        utf8: c.flags & GRUG_SAMPLE_UTF8 != 0,
        bias: bias.map(guard::try_box).transpose()?,
        // SAFETY: by contract.
        grammar: unsafe { grammar(c.grammar) },
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

/// Makes an independent sampler that goes on as this one would.
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

/// Makes the sampler as new, at the beginning of a text, with another seed or the same.
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

/// Picks a byte, 0..255, from logits that the caller may have edited, and moves on: random generator, window, grammar.
/// The logit of a byte that must not come is -INFINITY. Pair it with grug_session_feed. On failure nothing has moved.
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

/// Takes a byte that was chosen elsewhere as if it had been picked here, without a draw: text that a grammar begins
/// with, say, or an input of grug_session_next_batch. GRUG_EDEADEND where grammar or UTF-8 do not allow it, and nothing
/// has changed.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_sampler_accept(
    sp: *mut grug_sampler,
    byte: u8,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        enter(sp)?.accept(byte)?;
        Ok(GRUG_OK)
    })
}

/// Which bytes may come next by bias, grammar and UTF-8: bit b & 7 of mask[b >> 3]. Returns 1 where the text so far is
/// complete, so that it may end here (always, where there is neither grammar nor UTF-8), else 0.
/// cbindgen:ptrs-as-arrays=[[mask;32]]
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_sampler_allowed(
    sp: *mut grug_sampler,
    mask: *mut u8,
    err: *mut grug_error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let mask = pointer::output(mask.cast::<[u8; 32]>(), "mask")?;
        let (allowed, complete) = enter(sp)?.allowed();
        mask.write(allowed);
        Ok(complete.into())
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
