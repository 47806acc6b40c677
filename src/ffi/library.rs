//! What the library says about itself. None of it can fail.

use std::ffi::{CStr, c_char};

use crate::error::ErrorKind;
use crate::ffi::error::{GRUG_OK, grug_status};

/// The ABI this header describes: major << 16 | minor. A minor version only adds; while the major version is 0
/// anything may change.
pub const GRUG_ABI_VERSION: u32 = 0x0000_0002;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => unreachable!(),
};

/// The ABI of the library that is running: compare its upper 16 bits with those of GRUG_ABI_VERSION, and while they are 0
/// all of it.
#[unsafe(no_mangle)]
pub extern "C" fn grug_abi_version() -> u32 {
    GRUG_ABI_VERSION
}

/// The release, such as "0.1.0"; static.
#[unsafe(no_mangle)]
pub extern "C" fn grug_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The name of a status, such as "GRUG_EIO"; static, never NULL. Any status >= 0 is "GRUG_OK".
#[unsafe(no_mangle)]
pub extern "C" fn grug_status_name(status: grug_status) -> *const c_char {
    let name = ErrorKind::ALL.into_iter().find(|kind| *kind as i32 == status).map(ErrorKind::c_name);
    name.unwrap_or(if status >= GRUG_OK { c"GRUG_OK" } else { c"GRUG_E?" }).as_ptr()
}
