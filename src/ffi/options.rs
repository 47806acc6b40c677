//! Structs that say their own size, so that they can grow at the end: a program and a library that were compiled
//! against different headers understand each other.

use std::mem::MaybeUninit;

use crate::error::{Error, ErrorKind, Result};

/// No struct will ever be this large; a size above it was never set.
const MAX_SIZE: usize = 4096;

/// A C struct whose first field is `size_t size`.
///
/// # Safety
/// The type is `repr(C)`, begins with a `usize`, and all zeros is a valid value.
pub(super) unsafe trait SizedStruct: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// Its size in the first release that had it.
    const FIRST_SIZE: usize;
}

/// The size that a struct claims, if it can be true.
///
/// # Safety
/// `pointer` is not NULL and points to at least a `usize`.
unsafe fn claimed_size<T: SizedStruct>(pointer: *const T) -> Result<usize> {
    // SAFETY: by contract; T begins with a usize.
    let size = unsafe { pointer.cast::<usize>().read() };
    if (T::FIRST_SIZE..=MAX_SIZE).contains(&size) {
        Ok(size)
    } else {
        let name = T::NAME;
        Err(Error::invalid(format!("{name}.size is {size}: it must be sizeof({name})")))
    }
}

/// Reads options: NULL means all defaults, a shorter struct has defaults at its end, and a longer one must have zeros
/// where we know no field.
///
/// # Safety
/// `pointer` is NULL or points to a T of an older or newer header, with its size in its first field.
pub(super) unsafe fn read<T: SizedStruct>(pointer: *const T) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    if !pointer.is_null() {
        super::pointer::check(pointer, T::NAME)?;
        // SAFETY: by contract.
        let size = unsafe { claimed_size(pointer) }?;
        let ours = size_of::<T>();
        // SAFETY: the struct has `size` bytes, by contract; `value` has `ours`, and they are two objects.
        unsafe {
            let bytes = pointer.cast::<u8>();
            if (ours..size).any(|i| bytes.add(i).read() != 0) {
                return Err(Error::new(
                    ErrorKind::Version,
                    format!("{} has a field set that this version of the library does not know", T::NAME),
                ));
            }
            bytes.copy_to_nonoverlapping(value.as_mut_ptr().cast::<u8>(), size.min(ours));
        }
    }
    // SAFETY: all zeros is valid for T, and what was copied over it is a T of the caller.
    Ok(unsafe { value.assume_init() })
}

/// Writes an out struct: never more than the caller has room for. Fields that we do not know become zero.
///
/// # Safety
/// `pointer` is NULL or points to a T of an older or newer header, with its size in its first field.
pub(super) unsafe fn write<T: SizedStruct>(
    pointer: *mut T,
    name: &str,
    value: impl FnOnce(usize) -> T,
) -> Result<()> {
    let pointer = super::pointer::output(pointer, name)?;
    // SAFETY: by contract; not NULL.
    let size = unsafe { claimed_size(pointer) }?;
    let value = value(size);
    let shared = size.min(size_of::<T>());
    // SAFETY: the caller's struct has `size` bytes, by contract, and `value` at least `shared`; they are two objects.
    unsafe {
        let bytes = pointer.cast::<u8>();
        bytes.copy_from_nonoverlapping((&raw const value).cast::<u8>(), shared);
        bytes.add(shared).write_bytes(0, size - shared);
    }
    Ok(())
}
