//! One step for many sessions.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::guard;
use crate::ffi::pointer;
use crate::ffi::sampler::{self, grug_sampler};
use crate::ffi::session::grug_session;
use crate::hooks::{LogLevel, say};
use crate::session::{Step, next_batch};

/// A list with room for n, or an error.
fn list<T>(n: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(n)
        .map_err(|_| Error::new(ErrorKind::OutOfMemory, format!("no memory for a batch of {n} sessions")))?;
    Ok(list)
}

/// One step for n distinct sessions of one model: bytes[i] is the byte that s[i] picked and took in, or the
/// negative status of what went wrong there, which stops no other session; the sentence that belongs to it goes to the
/// model's log. samplers may be NULL, and so may any of them: greedy. A sampler serves one session. Where input is not NULL and input[i] >= 0, that byte is fed and
/// nothing is picked. When the call itself fails, no session has moved.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_session_next_batch(
    s: *const *mut grug_session,
    samplers: *const *mut grug_sampler,
    input: *const i32,
    n: usize,
    bytes: *mut i32,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let handles = pointer::slice(s, n, "s")?;
        let samplers = if samplers.is_null() { &[] } else { pointer::slice(samplers, n, "samplers")? };
        let input = if input.is_null() { &[] } else { pointer::slice(input, n, "input")? };
        let bytes = pointer::slice_mut(bytes, n, "bytes")?;

        let mut states = list(n)?;
        let mut own = list(n)?;
        for (i, handle) in handles.iter().enumerate() {
            let handle = pointer::object(*handle, "s")?;
            states.push(handle.state.enter().map_err(|e| e.at(format!("session {i}")))?);
            own.push(match samplers.get(i).filter(|sampler| !sampler.is_null()) {
                Some(sampler) => Some(sampler::enter(*sampler).map_err(|e| e.at(format!("session {i}")))?),
                None => None,
            });
        }
        let mut steps = list(n)?;
        for (i, (state, own)) in states.iter_mut().zip(&mut own).enumerate() {
            let state = &mut **state;
            let input = match input.get(i) {
                Some(byte) if *byte > 255 => {
                    return Err(Error::invalid(format!("input[{i}] is {byte}: a byte is at most 255")));
                }
                Some(byte) => u8::try_from(*byte).ok(),
                None => None,
            };
            let sampler = own.as_deref_mut().unwrap_or(&mut state.greedy);
            steps.push(Step { session: &mut state.session, sampler, input });
        }
        let mut results = list(n)?;
        results.resize(n, Ok(0));
        next_batch(&mut steps, &mut results)?;
        drop(steps);
        for (i, result) in results.iter().enumerate() {
            handles[i]
                .as_ref()
                .expect("checked")
                .position
                .store(states[i].session.position(), Ordering::Relaxed);
            bytes[i] = match result {
                Ok(byte) => (*byte).into(),
                Err(error) => {
                    let log = states[i].session.model().log();
                    say(log, LogLevel::Error, || format!("session {i} of a batch: {}", error.message()));
                    error.kind() as i32
                }
            };
        }
        Ok(GRUG_OK)
    })
}
