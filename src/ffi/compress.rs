//! Lossless compression.

use crate::compress::{compress, decompress, decompressed_len};
use crate::error::{Error, ErrorKind};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::guard;
use crate::ffi::model::{grug_model, model};
use crate::ffi::pointer;
use crate::ffi::session::{grug_session_options, read_options};

/// Compresses bytes by what the model predicts, which must be loaded with GRUG_MODEL_PORTABLE. Of the options, which may
/// be NULL, max_context and cancel matter: a shorter context is faster and compresses less. *dst_len: in the room, out
/// the length, never above GRUG_COMPRESS_BOUND(src_len). With less room than it takes the work was for nothing:
/// GRUG_ESPACE, and *dst_len is the room it takes. It takes one step of the model a byte.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_compress(
    m: *const grug_model,
    opt: *const grug_session_options,
    src: *const u8,
    src_len: usize,
    dst: *mut u8,
    dst_len: *mut usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let model = model(m)?;
        let options = read_options(opt)?;
        let src = pointer::slice(src, src_len, "src")?;
        pointer::room(dst.cast(), dst_len, "dst")?;
        pointer::copy_out(&compress(&model, &options, src)?, dst.cast(), dst_len, "dst")?;
        Ok(GRUG_OK)
    })
}

/// The original of an archive, by the model that made it, on any machine. Of the options, which may be NULL, cancel
/// matters. *dst_len: in the room, out the length. Too little room is GRUG_ESPACE before anything is computed, and then
/// *dst_len is the length that the archive's header promises, which a hostile archive may make as large as it likes; dst
/// may be NULL where *dst_len is 0. An archive that was changed is GRUG_EFORMAT, one of another model GRUG_EMISMATCH.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_decompress(
    m: *const grug_model,
    opt: *const grug_session_options,
    src: *const u8,
    src_len: usize,
    dst: *mut u8,
    dst_len: *mut usize,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let model = model(m)?;
        let options = read_options(opt)?;
        let src = pointer::slice(src, src_len, "src")?;
        let room = pointer::room(dst.cast(), dst_len, "dst")?;
        let len = usize::try_from(decompressed_len(src)?)
            .map_err(|_| Error::format("archive: its original is longer than memory can be"))?;
        if len > room {
            dst_len.write(len);
            return Err(Error::new(ErrorKind::Space, format!("dst needs {len} bytes, not {room}")));
        }
        pointer::copy_out(&decompress(&model, &options, src)?, dst.cast(), dst_len, "dst")?;
        Ok(GRUG_OK)
    })
}
