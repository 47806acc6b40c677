//! Sessions: one stream of bytes each.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::cancel::{grug_cancel, token};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::guard::{self, Exclusive};
use crate::ffi::model::{grug_model, model};
use crate::ffi::options::{self, SizedStruct};
use crate::ffi::pointer;
use crate::ffi::sampler::{self, grug_sampler};
use crate::sampler::Sampler;
use crate::session::{Drafts, Overflow, Session, SessionOptions, StopReason};

/// What a session handle guards.
pub(super) struct State {
    pub(super) session: Session,
    /// Stands in for a sampler of NULL.
    pub(super) greedy: Sampler,
}

/// A session: one stream of bytes, what the model remembers of it, and the prediction of its next byte.
pub struct grug_session {
    pub(super) state: Exclusive<State>,
    /// What the session said when its last call ended, for those who ask without a turn.
    pub(super) position: AtomicU64,
}

/// When the context is full, forget the oldest bytes.
pub const GRUG_OVERFLOW_SLIDE: u32 = 0;
/// When the context is full, refuse to go on: GRUG_EFULL.
pub const GRUG_OVERFLOW_ERROR: u32 = 1;

/// Flag of a session: compute a byte at a time, without drafts of what may come. Only time depends on it.
pub const GRUG_SESSION_NO_DRAFTS: u32 = 1;

/// How a session behaves. NULL instead of it means all defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_session_options {
    /// sizeof(grug_session_options)
    pub size: usize,
    /// How many bytes a prediction looks back on at most; 0 = the model's context.
    pub max_context: u64,
    /// GRUG_OVERFLOW_SLIDE or GRUG_OVERFLOW_ERROR.
    pub overflow: u32,
    /// GRUG_SESSION_ flags.
    pub flags: u32,
    /// Stops whatever the session is doing, within a few milliseconds of work. Retained.
    pub cancel: *const grug_cancel,
}

// SAFETY: repr(C), begins with `size`, and all zeros is NULLs and zeros.
unsafe impl SizedStruct for grug_session_options {
    const NAME: &'static str = "grug_session_options";
    const FIRST_SIZE: usize = size_of::<grug_session_options>();
}

/// The buffer is full: call again to go on.
pub const GRUG_STOP_CAPACITY: grug_status = 0;
/// The model ended the document; its end byte is the last in the buffer.
pub const GRUG_STOP_END_BYTE: grug_status = 1;
/// A stop sequence appeared; it is included.
pub const GRUG_STOP_SEQUENCE: grug_status = 2;
/// The grammar is complete.
pub const GRUG_STOP_GRAMMAR: grug_status = 3;

/// Bytes of the caller. Its layout never changes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_bytes {
    /// The first byte; may be NULL where len is 0.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
}

/// Stop sequences that a call can have without asking the allocator.
const STOPS_ON_STACK: usize = 16;

/// # Safety
/// `opt` is as `grug_session_options` says.
pub(super) unsafe fn read_options(opt: *const grug_session_options) -> Result<SessionOptions> {
    // SAFETY: by contract.
    let c = unsafe { options::read(opt) }?;
    if c.flags & !GRUG_SESSION_NO_DRAFTS != 0 {
        return Err(Error::invalid(format!(
            "grug_session_options.flags: {:#x} has an unknown flag",
            c.flags
        )));
    }
    Ok(SessionOptions {
        max_context: usize::try_from(c.max_context).unwrap_or(usize::MAX),
        overflow: match c.overflow {
            GRUG_OVERFLOW_SLIDE => Overflow::Slide,
            GRUG_OVERFLOW_ERROR => Overflow::Error,
            other => {
                return Err(Error::invalid(format!(
                    "grug_session_options.overflow: {other} is not a GRUG_OVERFLOW_ value"
                )));
            }
        },
        // SAFETY: by contract.
        cancel: unsafe { token(c.cancel) },
        drafts: if c.flags & GRUG_SESSION_NO_DRAFTS == 0 { Drafts::Auto } else { Drafts::Off },
    })
}

/// Runs a call on a session, and notes the position it leaves.
///
/// # Safety
/// `s` is NULL or a session that is not freed during the call; `err` is NULL or may be written.
pub(super) unsafe fn call(
    s: *const grug_session,
    err: *mut grug_error,
    body: impl FnOnce(&mut State) -> Result<i32>,
) -> i32 {
    guard::call(err, || {
        // SAFETY: by contract.
        let handle = unsafe { pointer::object(s, "s") }?;
        let mut state = handle.state.enter().map_err(|e| e.at("session"))?;
        let result = body(&mut state);
        handle.position.store(state.session.position(), Ordering::Relaxed);
        result
    })
}

/// Runs a body with the sampler of the caller, or the greedy one for NULL.
///
/// # Safety
/// `sampler` is NULL or a sampler that is not freed during the call.
unsafe fn with_sampler<T>(
    state: &mut State,
    sampler: *mut grug_sampler,
    body: impl FnOnce(&mut Session, &mut Sampler) -> Result<T>,
) -> Result<T> {
    if sampler.is_null() {
        body(&mut state.session, &mut state.greedy)
    } else {
        // SAFETY: by contract.
        body(&mut state.session, &mut *unsafe { sampler::enter(sampler) }?)
    }
}

fn new_handle(session: Session) -> Result<Box<grug_session>> {
    guard::try_box(grug_session {
        position: AtomicU64::new(session.position()),
        state: Exclusive::new(State { session, greedy: Sampler::greedy() }),
    })
}

/// Makes an empty session. It allocates all that it will ever need. Asked for a prediction while it is empty (by next,
/// generate, get_logits or score), a session begins with a byte 0 of its own, which is context but not counted by
/// position.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_new(
    m: *const grug_model,
    opt: *const grug_session_options,
    out: *mut *mut grug_session,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let out = pointer::output(out, "out")?;
        let model = model(m)?;
        out.write(Box::into_raw(new_handle(Session::new(&model, &read_options(opt)?)?)?));
        Ok(GRUG_OK)
    })
}

/// Makes an independent session at this position, with the same options. Goes on as this one would; shares the weights
/// and the cancellation token.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_fork(
    s: *mut grug_session,
    out: *mut *mut grug_session,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            let out = pointer::output(out, "out")?;
            out.write(Box::into_raw(new_handle(state.session.fork()?)?));
            Ok(GRUG_OK)
        })
    }
}

/// From now on this token stops whatever the session is doing; NULL is no token. A fork shares the token of its origin
/// until it gets one of its own. Retained.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_session_set_cancel(
    s: *mut grug_session,
    cancel: *const grug_cancel,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            state.session.set_cancel(token(cancel));
            Ok(GRUG_OK)
        })
    }
}

/// Frees the session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_session_free(s: *mut grug_session) {
    if !s.is_null() {
        // SAFETY: `s` came from this library and is freed once (header, OWNERSHIP).
        guard::quietly(|| drop(unsafe { Box::from_raw(s) }));
    }
}

/// Makes the session empty again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_session_reset(s: *mut grug_session, err: *mut grug_error) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            state.session.reset();
            Ok(GRUG_OK)
        })
    }
}

/// Bytes that the session has consumed, those fed and those generated. While another thread is in a call, the position
/// before that call. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_session_position(s: *const grug_session) -> u64 {
    // SAFETY: `s` is NULL or a session that is not freed during the call (header, OWNERSHIP). Nothing here can panic.
    unsafe { s.as_ref() }.map_or(0, |handle| handle.position.load(Ordering::Relaxed))
}

/// Feeds bytes. On an error the session holds exactly the bytes that position counts, and stays usable.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_feed(
    s: *mut grug_session,
    data: *const u8,
    len: usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            state.session.feed(pointer::slice(data, len, "data")?)?;
            Ok(GRUG_OK)
        })
    }
}

/// Picks the next byte and feeds it: 0..255, or a negative status. A sampler of NULL is greedy.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_next(
    s: *mut grug_session,
    sampler: *mut grug_sampler,
    err: *mut grug_error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            with_sampler(state, sampler, |session, sampler| Ok(session.next(sampler)?.into()))
        })
    }
}

/// Generates text as read(2) reads a file: up to cap bytes into buf; *n is how many, also when the call fails, before it
/// begins or on the way, as by GRUG_ECANCELED. Returns why it paused, a GRUG_STOP_ value; call again to go on. It pauses after a
/// stop sequence, 1 to 256 bytes long, even one that began in an earlier call. A sampler of NULL is greedy.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_generate(
    s: *mut grug_session,
    sampler: *mut grug_sampler,
    stops: *const grug_bytes,
    n_stops: usize,
    buf: *mut u8,
    cap: usize,
    n: *mut usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        if let Ok(n) = pointer::output(n, "n") {
            n.write(0);
        }
        call(s, err, |state| {
            let n = pointer::output(n, "n")?;
            let buf = pointer::slice_mut(buf, cap, "buf")?;
            with_stops(pointer::slice(stops, n_stops, "stops")?, |stops| {
                with_sampler(state, sampler, |session, sampler| {
                    let mut written = 0;
                    let reason = session.generate(sampler, stops, buf, &mut written);
                    n.write(written);
                    Ok(match reason? {
                        StopReason::Capacity => GRUG_STOP_CAPACITY,
                        StopReason::EndByte => GRUG_STOP_END_BYTE,
                        StopReason::Sequence => GRUG_STOP_SEQUENCE,
                        StopReason::Grammar => GRUG_STOP_GRAMMAR,
                    })
                })
            })
        })
    }
}

/// Lends the stop sequences as slices.
///
/// # Safety
/// Each of `stops` points to as many bytes as it says, for the time of the call.
unsafe fn with_stops<T>(stops: &[grug_bytes], body: impl FnOnce(&[&[u8]]) -> Result<T>) -> Result<T> {
    let mut few: [&[u8]; STOPS_ON_STACK] = [&[]; STOPS_ON_STACK];
    let mut many: Vec<&[u8]> = Vec::new();
    let slices: &mut [&[u8]] = match few.get_mut(..stops.len()) {
        Some(few) => few,
        None => {
            many.try_reserve_exact(stops.len()).map_err(|_| {
                Error::new(ErrorKind::OutOfMemory, format!("no memory for {} stops", stops.len()))
            })?;
            many.resize(stops.len(), &[]);
            &mut many
        }
    };
    for (i, (slice, stop)) in slices.iter_mut().zip(stops).enumerate() {
        if stop.len == 0 {
            return Err(Error::invalid(format!("stops[{i}] is empty")));
        }
        // SAFETY: by contract.
        *slice = unsafe { pointer::slice(stop.data, stop.len, "stops") }
            .map_err(|e| e.at(format!("stops[{i}]")))?;
    }
    body(slices)
}

/// Feeds bytes and says how well they were predicted: nats[i] = -ln p(data[i]), where nats is not NULL, and *total
/// their sum. Divide nats by ln 2 for bits. On an error, nats may be written up to the position that was reached.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_score(
    s: *mut grug_session,
    data: *const u8,
    len: usize,
    nats: *mut f32,
    total: *mut f64,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            let total = pointer::output(total, "total")?;
            let data = pointer::slice(data, len, "data")?;
            let nats = if nats.is_null() { None } else { Some(pointer::slice_mut(nats, len, "nats")?) };
            total.write(state.session.score(data, nats)?);
            Ok(GRUG_OK)
        })
    }
}

/// Copies the logits of the next byte: ln of its probability, up to a constant.
/// cbindgen:ptrs-as-arrays=[[logits;256]]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_session_get_logits(
    s: *mut grug_session,
    logits: *mut f32,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            let logits = pointer::output(logits.cast::<[f32; 256]>(), "logits")?;
            logits.write(*state.session.logits()?);
            Ok(GRUG_OK)
        })
    }
}

/// Copies the vector that the logits of the next byte are computed from: dim numbers, which must be the embedding_dim of
/// the model's info.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_session_get_embedding(
    s: *mut grug_session,
    out: *mut f32,
    dim: usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            let out = pointer::output(out, "out")?;
            let expected = state.session.model().config().output_dim();
            if dim != expected {
                return Err(Error::invalid(format!("dim is {dim}: the model's embedding_dim is {expected}")));
            }
            pointer::slice_mut(out, dim, "out")?.copy_from_slice(state.session.embedding()?);
            Ok(GRUG_OK)
        })
    }
}

/// Undoes the last n bytes, fed or generated, exactly; or GRUG_EREWIND, and nothing has changed. Going back
/// rewind_bytes of the model's info always works in a session of the whole context; fork first to go back further.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_rewind(
    s: *mut grug_session,
    n: u64,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            state.session.rewind(n)?;
            Ok(GRUG_OK)
        })
    }
}

/// Writes the session into buf: self-describing, with a checksum, bound to the model's fingerprint, the same on every
/// machine. *len: in the room, out the length, at most state_bytes of the model's info. Too little room is GRUG_ESPACE,
/// and then *len is the room it takes; buf may be NULL where *len is 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_save(
    s: *mut grug_session,
    buf: *mut u8,
    len: *mut usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            let len = pointer::output(len, "len")?;
            pointer::copy_out(&state.session.save(), buf.cast(), len, "buf")?;
            Ok(GRUG_OK)
        })
    }
}

/// Makes the session what a saved one was, from any bytes: GRUG_EFORMAT where they are no saved session, GRUG_EMISMATCH
/// where it is of another model or context. The session is unchanged then. Its options stay as they are.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_restore(
    s: *mut grug_session,
    buf: *const u8,
    len: usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    unsafe {
        call(s, err, |state| {
            state.session.restore(pointer::slice(buf, len, "buf")?)?;
            Ok(GRUG_OK)
        })
    }
}
