//! Statuses, and the error that the caller allocates.

use std::ffi::c_char;

use crate::error::{Error, ErrorKind};

/// What a call returns: >= 0 on success, one of the following on failure. Numbers are never reused. It travels as a
/// fixed-width integer, so that a value that this header does not know is a number and not undefined behaviour.
pub type grug_status = i32;

/// Success.
pub const GRUG_OK: grug_status = 0;
/// An argument is NULL, out of range or contradicts another one.
pub const GRUG_EINVAL: grug_status = -1;
/// The system has no memory left for the request.
pub const GRUG_ENOMEM: grug_status = -2;
/// Reading or writing a file failed.
pub const GRUG_EIO: grug_status = -3;
/// The bytes are not a valid model, saved session, archive or grammar.
pub const GRUG_EFORMAT: grug_status = -4;
/// The data or the options need a newer library.
pub const GRUG_EVERSION: grug_status = -5;
/// The device is missing or failed.
pub const GRUG_EDEVICE: grug_status = -6;
/// The caller's cancellation token was triggered.
pub const GRUG_ECANCELED: grug_status = -7;
/// Another thread is using this handle.
pub const GRUG_EBUSY: grug_status = -8;
/// The context is full and the session was told not to slide.
pub const GRUG_EFULL: grug_status = -9;
/// The session cannot go back that far.
pub const GRUG_EREWIND: grug_status = -10;
/// The output buffer is too small; the size it needs was written.
pub const GRUG_ESPACE: grug_status = -11;
/// The saved session or archive belongs to another model or context.
pub const GRUG_EMISMATCH: grug_status = -12;
/// No byte may come next.
pub const GRUG_EDEADEND: grug_status = -13;
/// There is nothing of that name or number.
pub const GRUG_ENOTFOUND: grug_status = -14;
/// This model, device or build cannot do that.
pub const GRUG_EUNSUPPORTED: grug_status = -15;
/// The handle was made before a fork() and its worker threads stayed in the parent.
pub const GRUG_EFORK: grug_status = -16;
/// The library itself failed; the handle is poisoned: free it.
pub const GRUG_EPANIC: grug_status = -17;

/// The numbers above, in the order of `ErrorKind::ALL`.
const CODES: [grug_status; 17] = [
    GRUG_EINVAL,
    GRUG_ENOMEM,
    GRUG_EIO,
    GRUG_EFORMAT,
    GRUG_EVERSION,
    GRUG_EDEVICE,
    GRUG_ECANCELED,
    GRUG_EBUSY,
    GRUG_EFULL,
    GRUG_EREWIND,
    GRUG_ESPACE,
    GRUG_EMISMATCH,
    GRUG_EDEADEND,
    GRUG_ENOTFOUND,
    GRUG_EUNSUPPORTED,
    GRUG_EFORK,
    GRUG_EPANIC,
];
const _: () = {
    let mut i = 0;
    while i < CODES.len() {
        assert!(CODES[i] == ErrorKind::ALL[i] as grug_status);
        i += 1;
    }
};

/// Room for a message in a grug_error, its NUL included.
const MESSAGE_LEN: usize = 252;

/// What went wrong, in memory of the caller; needs no initialization and no cleanup. Written on failure only. Its
/// layout never changes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct grug_error {
    /// The status that the call returned.
    pub status: grug_status,
    /// UTF-8, NUL-terminated; names the file, tensor or option at fault.
    pub message: [c_char; 252],
}
const _: () = assert!(size_of::<grug_error>() == 256 && MESSAGE_LEN == 252);

/// The error as C sees it. A message that is too long is cut between two characters.
impl From<&Error> for grug_error {
    fn from(error: &Error) -> grug_error {
        let text = error.message();
        let end = (0..MESSAGE_LEN).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        let mut message = [0; MESSAGE_LEN];
        for (to, from) in message.iter_mut().zip(text.as_bytes()[..end].iter()) {
            // A NUL inside would hide the rest of the message.
            *to = if *from == 0 { b'?' } else { *from } as c_char;
        }
        grug_error { status: error.kind() as grug_status, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = |e: &grug_error| {
            let bytes: Vec<u8> = e.message.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
            String::from_utf8(bytes).unwrap()
        };
        for lead in ["", "x", "xx", "xxx"] {
            let long = lead.to_string() + &"\u{1F9E0}".repeat(100);
            let error = grug_error::from(&Error::invalid(long.clone()));
            let cut = text(&error);
            assert_eq!(error.message[MESSAGE_LEN - 1], 0);
            assert!(long.starts_with(&cut) && cut.len() > MESSAGE_LEN - 5, "{cut}");
        }
        assert_eq!(text(&grug_error::from(&Error::invalid("a\0b"))), "a?b");
    }
}
