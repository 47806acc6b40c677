//! The archive that `torch.save` writes: `NAME/data.pkl` beside the tensor storages `NAME/data/0`, `…/1`, ….

use std::io::{Read, Seek};

use crate::error::{Error, ErrorKind, Result};
use crate::import::pickle::{MAX_PICKLE_BYTES, StorageRef};
use crate::import::printable;
use crate::import::zip::ZipReader;

/// The first bytes of a checkpoint from before PyTorch 1.6: a pickle without an archive.
const PICKLE_START: [u8; 2] = [0x80, 0x02];

/// An open checkpoint archive.
pub struct Archive<R> {
    zip: ZipReader<R>,
    /// The folder that all entries are in, with its slash.
    prefix: String,
}

impl<R: Read + Seek> Archive<R> {
    /// Opens an archive and finds its pickle.
    pub fn open(mut reader: R) -> Result<Archive<R>> {
        let io = |e: std::io::Error| Error::new(ErrorKind::Io, format!("reading the archive: {e}"));
        let mut start = Vec::new();
        reader.by_ref().take(2).read_to_end(&mut start).map_err(io)?;
        if start == PICKLE_START {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "is a checkpoint in the format before PyTorch 1.6; load and save it with a newer PyTorch first",
            ));
        }
        let zip = ZipReader::open(reader)?;
        let pickles: Vec<&str> = zip
            .names()
            .filter_map(|name| name.strip_suffix("data.pkl"))
            .filter(|prefix| prefix.is_empty() || prefix.find('/') == Some(prefix.len() - 1))
            .collect();
        let prefix = match pickles[..] {
            [prefix] => prefix.to_string(),
            [] => return Err(Error::format("is a zip archive without a data.pkl: no PyTorch checkpoint")),
            _ => return Err(Error::format("is a zip archive with more than one data.pkl")),
        };
        let mut archive = Archive { zip, prefix };
        if archive.size("byteorder").is_some()
            && archive.read("byteorder", |size| size < 16, "is no byte order")? != b"little"
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "was saved on a big-endian machine; only little-endian numbers are read",
            ));
        }
        Ok(archive)
    }

    /// The pickle.
    pub fn pickle(&mut self) -> Result<Vec<u8>> {
        let reason = format!("is longer than any checkpoint's: at most {MAX_PICKLE_BYTES} bytes are read");
        self.read("data.pkl", |size| size <= MAX_PICKLE_BYTES, &reason)
    }

    /// The bytes of a storage: exactly as many as its numbers need.
    pub fn storage(&mut self, storage: &StorageRef<'_>) -> Result<Vec<u8>> {
        let needed = (storage.len).checked_mul(storage.dtype.size() as u64);
        let reason = format!("is not as long as its {} numbers of {:?}", storage.len, storage.dtype);
        self.read(&format!("data/{}", storage.key), |size| Some(size) == needed, &reason)
    }

    fn size(&self, name: &str) -> Option<u64> {
        self.zip.size(&format!("{}{name}", self.prefix))
    }

    /// Reads an entry whose size is right; `reason` says why another is not.
    fn read(&mut self, name: &str, right: impl FnOnce(u64) -> bool, reason: &str) -> Result<Vec<u8>> {
        let place = format!("entry \"{}\"", printable(name));
        match self.size(name) {
            Some(size) if !right(size) => Err(Error::format(reason)),
            Some(_) | None => self.zip.read(&format!("{}{name}", self.prefix)),
        }
        .map_err(|e| e.at(place))
    }
}
