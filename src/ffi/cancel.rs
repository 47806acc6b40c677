//! Cancellation tokens.

use crate::cancel::Cancel;
use crate::error::Result;
use crate::ffi::guard;

/// A cancellation token: give it to a model or a session when that is made, and trigger it to stop what it is doing.
pub struct grug_cancel(Cancel);

/// The token behind a pointer; NULL is none.
///
/// # Safety
/// `pointer` is NULL or a token that is not freed during the call.
pub(super) unsafe fn token(pointer: *const grug_cancel) -> Option<Cancel> {
    // SAFETY: by contract.
    unsafe { pointer.as_ref() }.map(|token| token.0.clone())
}

fn new_token() -> Result<*mut grug_cancel> {
    guard::try_box(grug_cancel(Cancel::new())).map(Box::into_raw)
}

/// A new token, not triggered. NULL only where there is no memory.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn grug_cancel_new() -> *mut grug_cancel {
    let mut token = std::ptr::null_mut();
    guard::quietly(|| token = new_token().unwrap_or(std::ptr::null_mut()));
    token
}

/// Triggers the token: what uses it returns GRUG_ECANCELED soon, and so does whatever starts later, until the token is
/// reset. One atomic store: fit for signal handlers and any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_cancel_trigger(c: *mut grug_cancel) {
    // SAFETY: `c` is NULL or a token that is not freed during the call (header, OWNERSHIP). Nothing here can panic.
    if let Some(token) = unsafe { c.as_ref() } {
        token.0.trigger();
    }
}

/// Makes the token as new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_cancel_reset(c: *mut grug_cancel) {
    // SAFETY: as in `grug_cancel_trigger`.
    if let Some(token) = unsafe { c.as_ref() } {
        token.0.reset();
    }
}

/// Frees the handle; operations that still use the token go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_cancel_free(c: *mut grug_cancel) {
    if !c.is_null() {
        // SAFETY: `c` came from `grug_cancel_new` and is freed once (header, OWNERSHIP).
        guard::quietly(|| drop(unsafe { Box::from_raw(c) }));
    }
}
