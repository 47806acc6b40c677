//! Memory for what is read through once a byte: weights and the cache of keys and values.
//!
//! What is larger than a core's own cache is read up to twice as fast from huge pages (2 MiB) as from pages of 4 KiB:
//! there are fewer addresses to translate, and neighbours in memory do not compete for the same places of the shared
//! cache. So large buffers begin where a huge page does, and the system is asked for huge pages, as it is for mapped
//! files. It need not have them; then this is ordinary memory.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Pod;
use memmap2::{Mmap, MmapMut};

use crate::error::{Error, ErrorKind, Result};

/// Bytes of a huge page on x86-64, and on 64-bit ARM with pages of 4 KiB.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

#[expect(dead_code, reason = "it is kept, and reached by a pointer")]
enum Memory<T> {
    Small(Vec<T>),
    Large(MmapMut),
}

/// Numbers in memory of their own.
pub(crate) struct Buffer<T> {
    start: NonNull<T>,
    len: usize,
    _memory: Memory<T>,
}

// SAFETY: it owns the numbers that its pointer reaches, as a vector does.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: as above; who writes through the pointer promises that nobody else uses those numbers.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Pod> Buffer<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Result<Buffer<T>> {
        let no_memory = || {
            Error::new(
                ErrorKind::OutOfMemory,
                format!("no memory for {len} numbers of {} bytes", size_of::<T>()),
            )
        };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(no_memory)?;
        let room = bytes.checked_add(HUGE_PAGE).filter(|_| bytes >= HUGE_PAGE);
        if let Some(mut map) = room.and_then(|room| MmapMut::map_anon(room).ok()) {
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage); // a wish
            let begin = map.as_ptr().align_offset(HUGE_PAGE);
            let start = NonNull::from(&mut map[begin..begin + bytes]).cast();
            return Ok(Buffer { start, len, _memory: Memory::Large(map) });
        }
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(len).map_err(|_| no_memory())?;
        numbers.resize(len, T::zeroed());
        let start = NonNull::from(numbers.as_mut_slice()).cast();
        Ok(Buffer { start, len, _memory: Memory::Small(numbers) })
    }

    /// The same numbers once more.
    pub(crate) fn try_clone(&self) -> Result<Buffer<T>> {
        let mut clone = Buffer::zeroed(self.len)?;
        clone.copy_from_slice(self);
        Ok(clone)
    }

    /// The first number, for several threads that write each its own; there are `len()`.
    pub(crate) fn pointer(&self) -> *mut T {
        self.start.as_ptr()
    }
}

/// Asks for huge pages where a file is mapped. Linux has them for files that are not in its cache yet, on file systems
/// that keep large pieces of files together.
pub(crate) fn advise(map: &Mmap) {
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage); // a wish
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `zeroed` made so many numbers there, and they live as long as this.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} numbers)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_size_are_zeros_and_keep_what_is_written() {
        for len in [0, 1, 1000, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4, HUGE_PAGE + 3] {
            let mut buffer = Buffer::<f32>::zeroed(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|v| *v == 0.0));
            (0..len).for_each(|i| buffer[i] = i as f32);
            assert!((0..len).all(|i| buffer[i] == i as f32));
        }
        let large = Buffer::<u16>::zeroed(HUGE_PAGE).unwrap();
        assert!(!cfg!(unix) || (large.as_ptr() as usize).is_multiple_of(HUGE_PAGE));
    }

    #[test]
    fn too_much_is_an_error() {
        for len in [usize::MAX, usize::MAX / 4, usize::MAX / 16] {
            assert_eq!(Buffer::<f32>::zeroed(len).unwrap_err().kind(), ErrorKind::OutOfMemory);
        }
    }
}
