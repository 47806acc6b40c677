//! Where a checkpoint's bytes live: in a mapped file, in memory of ours, or in memory of the caller; and keeping them
//! there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::pages::{self, Buffer};

/// How many bytes are read, or locked in memory, between two reports of progress.
const PIECE: usize = 16 << 20;

enum Place {
    Mapped(memmap2::Mmap),
    Read(Buffer<u8>),
    Owned(Vec<u8>),
    Borrowed(&'static [u8]),
}

/// The bytes of a model file.
pub(super) struct Storage {
    place: Place,
    /// How many of them were locked in memory.
    #[cfg_attr(not(unix), allow(dead_code))]
    locked: usize,
}

fn file_and_len(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|e| Error::io("opening", path, e))?;
    let meta = file.metadata().map_err(|e| Error::io("reading", path, e))?;
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::Io, format!("reading {}: not a file", path.display())));
    }
    Ok((file, meta.len()))
}

impl Storage {
    /// Maps a file.
    #[allow(unsafe_code)]
    pub(super) fn map(path: &Path) -> Result<Storage> {
        let (file, len) = file_and_len(path)?;
        if len == 0 {
            return Err(Error::format("is empty").in_file(path));
        }
        // SAFETY: the map is read-only and private to this checkpoint; that the file is not truncated meanwhile is the
        // documented duty of the caller.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("mapping", path, e))?;
        pages::advise(&map);
        Ok(Storage { place: Place::Mapped(map), locked: 0 })
    }

    /// Reads a file; `step` hears how far it is, from 0 to 1, and an error of it ends the reading.
    pub(super) fn read(path: &Path, mut step: impl FnMut(f32) -> Result<()>) -> Result<Storage> {
        let (mut file, len) = file_and_len(path)?;
        let no_memory = || {
            Error::new(ErrorKind::OutOfMemory, format!("no memory for a model of {len} bytes")).in_file(path)
        };
        let len = usize::try_from(len).map_err(|_| no_memory())?;
        let mut bytes = Buffer::zeroed(len).map_err(|_| no_memory())?;
        let mut at = 0;
        for piece in bytes.chunks_mut(PIECE) {
            file.read_exact(piece).map_err(|e| Error::io("reading", path, e))?;
            at += piece.len();
            step(at as f32 / len as f32)?;
        }
        Ok(Storage { place: Place::Read(bytes), locked: 0 })
    }

    pub(super) fn owned(bytes: Vec<u8>) -> Storage {
        Storage { place: Place::Owned(bytes), locked: 0 }
    }

    pub(super) fn borrowed(bytes: &'static [u8]) -> Storage {
        Storage { place: Place::Borrowed(bytes), locked: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.place {
            Place::Mapped(map) => map,
            Place::Read(bytes) => bytes,
            Place::Owned(bytes) => bytes,
            Place::Borrowed(bytes) => bytes,
        }
    }

    /// In words, for the log.
    pub(super) fn place(&self) -> &'static str {
        match &self.place {
            Place::Mapped(_) => "mapped",
            Place::Read(_) | Place::Owned(_) => "in memory",
            Place::Borrowed(_) => "in memory of the caller",
        }
    }

    /// Brings all bytes into memory and keeps the system from paging them out, until this is dropped.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    pub(super) fn lock(&mut self, mut step: impl FnMut(f32) -> Result<()>) -> Result<()> {
        while self.locked < self.bytes().len() {
            let piece = &self.bytes()[self.locked..];
            let piece = &piece[..piece.len().min(PIECE)];
            // SAFETY: the range is memory of this process, which stays as long as this; locking changes no byte.
            if unsafe { libc::mlock(piece.as_ptr().cast(), piece.len()) } != 0 {
                let error = std::io::Error::last_os_error();
                return Err(Error::new(
                    ErrorKind::OutOfMemory,
                    format!(
                        "locking {} bytes in memory: {error}; the system limits it (ulimit -l)",
                        self.bytes().len()
                    ),
                ));
            }
            self.locked += piece.len();
            step(self.locked as f32 / self.bytes().len() as f32)?;
        }
        Ok(())
    }

    /// As on Unix, which alone has it.
    #[cfg(not(unix))]
    pub(super) fn lock(&mut self, _step: impl FnMut(f32) -> Result<()>) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "this system has no way to lock a model in memory"))
    }
}

#[cfg(unix)]
impl Drop for Storage {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.locked > 0 {
            let bytes = &self.bytes()[..self.locked];
            // SAFETY: the range is memory of this process, which `lock` locked; unlocking changes no byte.
            unsafe { libc::munlock(bytes.as_ptr().cast(), bytes.len()) };
        }
    }
}
