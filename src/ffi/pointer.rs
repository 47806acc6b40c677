//! Pointers from C, checked as far as they can be: NULL, alignment, length, text. What cannot be checked is what the caller
//! vouches for, in the header: a pointer that is not NULL points to as much as its length says, of the type it has, and
//! stays so during the call.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};

fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

/// Refuses NULL, and an address that a T cannot have, as one in the middle of a buffer of bytes.
pub(super) fn check<T>(pointer: *const T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{name} is not at a multiple of {} bytes", align_of::<T>())));
    }
    Ok(())
}

/// What a pointer points to.
///
/// # Safety
/// `pointer` is NULL or points to a T that is not written during `'a`, except through what T itself allows.
pub(super) unsafe fn object<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    check(pointer, name)?;
    // SAFETY: by contract; not NULL, and aligned.
    Ok(unsafe { &*pointer })
}

/// An output that can be written to.
pub(super) fn output<T>(pointer: *mut T, name: &str) -> Result<*mut T> {
    check(pointer, name).map(|()| pointer)
}

fn check_len<T>(pointer: *const T, len: usize, name: &str) -> Result<()> {
    check(pointer, name)?;
    if len > isize::MAX as usize / size_of::<T>() {
        return Err(Error::invalid(format!("{name}: a length of {len} is longer than memory can be")));
    }
    Ok(())
}

/// An array. NULL is fine where the length is 0.
///
/// # Safety
/// `pointer` is NULL or points to `len` values that are not written during `'a`.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_len(pointer, len, name)?;
    // SAFETY: by contract; not NULL, and no longer than an object may be.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// An array to write to. NULL is fine where the length is 0.
///
/// # Safety
/// `pointer` is NULL or points to `len` values that nothing else reads or writes during `'a`; T has no invalid values.
pub(super) unsafe fn slice_mut<'a, T>(pointer: *mut T, len: usize, name: &str) -> Result<&'a mut [T]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_len(pointer, len, name)?;
    // SAFETY: by contract; not NULL, and no longer than an object may be.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// NUL-terminated UTF-8.
///
/// # Safety
/// `pointer` is NULL or points to a NUL-terminated string that is not written during `'a`.
pub(super) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: by contract.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|_| Error::invalid(format!("{name} is not UTF-8")))
}

/// A path: UTF-8; on Unix any other bytes are a path as well, and are taken as they are.
///
/// # Safety
/// As for [`text`].
pub(super) unsafe fn path(pointer: *const c_char, name: &str) -> Result<PathBuf> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        if pointer.is_null() {
            return Err(null(name));
        }
        // SAFETY: by contract.
        let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(unix))]
    // SAFETY: by contract.
    Ok(PathBuf::from(unsafe { text(pointer, name) }?))
}

/// The room that a caller has for an output: `*len` bytes at `to`, which may be NULL where it is none.
///
/// # Safety
/// `len` is NULL or points to a size.
pub(super) unsafe fn room(to: *const c_char, len: *mut usize, name: &str) -> Result<usize> {
    // SAFETY: by contract; not NULL.
    let room = unsafe { output(len, "len")?.read() };
    if room > 0 && to.is_null() {
        return Err(Error::invalid(format!("{name} is NULL, but there is room for {room} bytes")));
    }
    Ok(room)
}

/// Copies bytes to the caller: `*len` is the room in, and the length out. Too little room is `GRUG_ESPACE`, and then
/// `*len` is the room it takes.
///
/// # Safety
/// `len` is NULL or points to a size; `to` is NULL or points to `*len` bytes.
pub(super) unsafe fn copy_out(bytes: &[u8], to: *mut c_char, len: *mut usize, name: &str) -> Result<()> {
    // SAFETY: by contract.
    let room = unsafe { room(to, len, name) }?;
    // SAFETY: by contract; `room` saw that it is not NULL.
    unsafe { len.write(bytes.len()) };
    if bytes.len() > room {
        return Err(Error::new(ErrorKind::Space, format!("{name} needs {} bytes, not {room}", bytes.len())));
    }
    // SAFETY: `to` has room for `room >= bytes.len()` bytes, or nothing is copied.
    unsafe { bytes.as_ptr().copy_to(to.cast::<u8>(), bytes.len()) };
    Ok(())
}
