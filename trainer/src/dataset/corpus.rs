//! A byte file, mapped: it may be larger than memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use grug::error::{Error, ErrorKind, Result};
use memmap2::Mmap;

use super::npy;

/// The text to train on: a flat file of bytes, or a NumPy file (`.npy`) of them.
///
/// The file must not be truncated while it is in use: the operating system answers that with a signal. Replacing it
/// by rename, as preparation does, is safe.
pub struct Corpus {
    map: Mmap,
    start: usize,
    path: PathBuf,
}

impl std::fmt::Debug for Corpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Corpus({}, {} bytes)", self.path.display(), self.len())
    }
}

impl Corpus {
    /// Maps a file. It is a NumPy file where its name ends in `.npy`, and bytes as they are otherwise.
    pub fn open(path: &Path) -> Result<Corpus> {
        let file = File::open(path).map_err(|e| Error::io("opening the corpus", path, e))?;
        let meta = file.metadata().map_err(|e| Error::io("reading the corpus", path, e))?;
        if !meta.is_file() {
            return Err(Error::new(
                ErrorKind::Io,
                format!("reading the corpus {}: not a file", path.display()),
            ));
        }
        if meta.len() == 0 {
            return Err(Error::format("the corpus is empty").in_file(path));
        }
        let map = map(&file).map_err(|e| Error::io("mapping the corpus", path, e))?;
        let start = match path.extension().is_some_and(|e| e == "npy") {
            true => npy::data_start(&map).map_err(|e| e.in_file(path))?,
            false if npy::is_npy(&map) => {
                return Err(Error::format("is a NumPy file; its name must end in .npy").in_file(path));
            }
            false => 0,
        };
        if start == map.len() {
            return Err(Error::format("the corpus is empty").in_file(path));
        }
        Ok(Corpus { map, start, path: path.to_owned() })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.start..]
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        (self.map.len() - self.start) as u64
    }

    /// Never: an empty file is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the windows that start at these offsets into `out`: (offsets, window_bytes + 1), row-major. The inputs
    /// are the first `window_bytes` bytes of each row and the targets the last `window_bytes`.
    pub fn gather(&self, offsets: &[u64], window_bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        let bytes = self.bytes();
        for &offset in offsets {
            let start = offset as usize;
            out.extend_from_slice(&bytes[start..=start + window_bytes]);
        }
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and private to this corpus; that the file is not truncated meanwhile is the
    // documented duty of the caller.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_and_numpy_files_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let text = "größer als der Speicher".as_bytes();
        let (flat, numpy) = (dir.path().join("a.bin"), dir.path().join("a.npy"));
        std::fs::write(&flat, text).unwrap();
        std::fs::write(&numpy, [&npy::header(text.len() as u64)[..], text].concat()).unwrap();
        for path in [&flat, &numpy] {
            let corpus = Corpus::open(path).unwrap();
            assert_eq!((corpus.bytes(), corpus.len()), (text, text.len() as u64));
            let mut windows = Vec::new();
            corpus.gather(&[0, 5], 3, &mut windows);
            assert_eq!(windows, [&text[0..4], &text[5..9]].concat());
        }
        std::fs::rename(&numpy, &flat).unwrap();
        assert!(Corpus::open(&flat).unwrap_err().message().contains("must end in .npy"));
    }

    #[test]
    fn missing_empty_and_odd_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.bin");
        std::fs::write(&empty, b"").unwrap();
        let hollow = dir.path().join("hollow.npy");
        std::fs::write(&hollow, npy::header(0)).unwrap();
        let missing = dir.path().join("missing.bin");
        for (path, part) in [
            (&empty, "is empty"),
            (&hollow, "is empty"),
            (&missing, "opening the corpus"),
            (&dir.path().to_path_buf(), "not a file"),
        ] {
            let error = Corpus::open(path).unwrap_err();
            assert!(error.message().contains(part), "{error}");
            assert!(error.message().contains(&path.display().to_string()), "{error}");
        }
    }
}
