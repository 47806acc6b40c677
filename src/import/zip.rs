//! Just enough of the zip format to read a checkpoint: entries that are stored or deflated, ZIP64 included.
//!
//! Everything the archive claims is checked against the file before memory is set aside for it. There is no room for a
//! zip bomb: an entry may not be more than [`MAX_RATIO`] times its packed size, is never unpacked past the size it
//! claims, and all entries that are read may not have more packed bytes than the file. Checksums are verified.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

use crate::error::{Error, ErrorKind, Result};
use crate::import::printable;

/// How many times its packed size an entry may be. Weights hardly shrink at all.
const MAX_RATIO: u64 = 64;
/// An entry of no more bytes than this may be packed as tightly as it likes.
const SMALL_ENTRY: u64 = 1 << 16;
/// The longest table of contents we read, in bytes: some 200,000 entries.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
const END64_SIGNATURE: [u8; 4] = *b"PK\x06\x06";
const END64_LOCATOR_SIGNATURE: [u8; 4] = *b"PK\x06\x07";
const ENTRY_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
const LOCAL_SIGNATURE: [u8; 4] = *b"PK\x03\x04";
/// Sizes of the fixed parts of those records, in bytes.
const END_LEN: usize = 22;
const END64_LEN: usize = 56;
const END64_LOCATOR_LEN: usize = 20;
const LOCAL_LEN: usize = 30;
/// The extra field that holds what does not fit into 32 bits.
const ZIP64_EXTRA: u16 = 1;

/// What the table of contents says about an entry.
#[derive(Debug, Clone, Copy)]
struct Entry {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Where its local header starts.
    offset: u64,
}

/// An open archive.
pub struct ZipReader<R> {
    reader: R,
    entries: BTreeMap<String, Entry>,
    /// Where the table of contents starts; no entry reaches beyond.
    directory_start: u64,
    /// Packed bytes that may still be read.
    packed_left: u64,
}

fn read_error(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::format("is truncated"),
        _ => Error::new(ErrorKind::Io, format!("reading the archive: {error}")),
    }
}

fn bad(text: &str) -> Error {
    Error::format(format!("is truncated or no zip archive: {text}"))
}

/// Little-endian numbers from the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len).ok_or_else(|| bad("a record is cut short"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.bytes(N)?.try_into().expect("bytes gives N bytes"))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn signature(&mut self, expected: [u8; 4], what: &str) -> Result<()> {
        if self.array()? == expected { Ok(()) } else { Err(bad(&format!("no {what} where it should be"))) }
    }
}

/// Where the table of contents is.
struct Directory {
    entries: u64,
    start: u64,
    len: u64,
}

impl<R: Read + Seek> ZipReader<R> {
    /// Reads an archive's table of contents.
    pub fn open(mut reader: R) -> Result<ZipReader<R>> {
        let file_len = reader.seek(SeekFrom::End(0)).map_err(read_error)?;
        let directory = find_directory(&mut reader, file_len)?;
        if directory.start.checked_add(directory.len).is_none_or(|end| end > file_len) {
            return Err(bad("its table of contents lies beyond its end"));
        }
        if directory.len > MAX_DIRECTORY_BYTES {
            return Err(Error::format(format!(
                "is a zip archive with a table of contents of {} bytes; at most {MAX_DIRECTORY_BYTES} are read",
                directory.len
            )));
        }
        let bytes = read_at(&mut reader, directory.start, directory.len as usize)?;
        let mut fields = Fields(&bytes);
        let mut entries = BTreeMap::new();
        for _ in 0..directory.entries {
            let (name, entry) = read_entry(&mut fields)?;
            // Names that are not UTF-8 are none of ours.
            if let Ok(name) = std::str::from_utf8(name)
                && entries.insert(name.to_string(), entry).is_some()
            {
                return Err(bad(&format!("it has two entries \"{}\"", printable(name))));
            }
        }
        Ok(ZipReader { reader, entries, directory_start: directory.start, packed_left: file_len })
    }

    /// The names of all entries, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The size of an entry after unpacking, in bytes, as it claims; `None` where there is none of that name.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.size)
    }

    /// Reads and verifies a whole entry.
    pub fn read(&mut self, name: &str) -> Result<Vec<u8>> {
        let entry = *self.entries.get(name).ok_or_else(|| Error::format("is missing"))?;
        let Entry { packed, size, .. } = entry;
        let refuse = |text: String| Err(Error::format(text));
        if entry.flags & 1 != 0 {
            return refuse("is encrypted".into());
        }
        match entry.method {
            0 if size != packed => return refuse(format!("is stored in {packed} bytes but claims {size}")),
            0 => {}
            8 if size > SMALL_ENTRY && size / MAX_RATIO > packed => {
                return refuse(format!("unpacks from {packed} to {size} bytes: refused as a zip bomb"));
            }
            8 => {}
            other => {
                return refuse(format!("is packed by method {other}; stored and deflated entries are read"));
            }
        }
        self.packed_left = match self.packed_left.checked_sub(packed) {
            Some(left) => left,
            None => return refuse("overlaps other entries: the file is too short for all of them".into()),
        };
        if entry.offset > self.directory_start {
            return refuse("lies beyond the table of contents".into());
        }
        let local = read_at(&mut self.reader, entry.offset, LOCAL_LEN)?;
        let mut fields = Fields(&local);
        fields.signature(LOCAL_SIGNATURE, "entry")?;
        fields.bytes(22)?;
        let (name_len, extra_len) = (u64::from(fields.u16()?), u64::from(fields.u16()?));
        let start = entry.offset + LOCAL_LEN as u64 + name_len + extra_len;
        if start.checked_add(packed).is_none_or(|end| end > self.directory_start) {
            return refuse("reaches into the table of contents".into());
        }
        self.reader.seek(SeekFrom::Start(start)).map_err(read_error)?;
        let packed_bytes = (&mut self.reader).take(packed);
        let mut bytes = Vec::new();
        let read = match entry.method {
            0 => packed_bytes.take(size).read_to_end(&mut bytes).map_err(read_error)?,
            // One byte more than claimed shows that there is more.
            _ => DeflateDecoder::new(packed_bytes).take(size + 1).read_to_end(&mut bytes).map_err(
                |e| match e.kind() {
                    std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
                        Error::format(format!("does not unpack: {e}"))
                    }
                    _ => read_error(e),
                },
            )?,
        };
        if read as u64 != size {
            return refuse(format!("does not unpack to the {size} bytes it claims"));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        if crc.sum() != entry.crc {
            return refuse("is corrupted: its checksum is wrong".into());
        }
        Ok(bytes)
    }
}

/// `len` bytes from `start` on. `len` is small or was checked against the file.
fn read_at(reader: &mut (impl Read + Seek), start: u64, len: usize) -> Result<Vec<u8>> {
    reader.seek(SeekFrom::Start(start)).map_err(read_error)?;
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

/// Finds the table of contents from the end of the file.
fn find_directory(reader: &mut (impl Read + Seek), file_len: u64) -> Result<Directory> {
    let tail_len = file_len.min((END_LEN + usize::from(u16::MAX)) as u64) as usize;
    let tail = read_at(reader, file_len - tail_len as u64, tail_len)?;
    // The record ends with a comment that fills the rest of the file.
    let at = (0..(tail_len + 1).saturating_sub(END_LEN)).rev().find(|&at| {
        let record = &tail[at..];
        let comment_len = u16::from_le_bytes([record[20], record[21]]);
        record[..4] == END_SIGNATURE && END_LEN + usize::from(comment_len) == record.len()
    });
    let at = at.ok_or_else(|| bad("it has no end-of-archive record"))?;
    let mut fields = Fields(&tail[at..]);
    fields.bytes(10)?;
    let directory =
        Directory { entries: fields.u16()?.into(), len: fields.u32()?.into(), start: fields.u32()?.into() };
    let end_at = file_len - (tail_len - at) as u64;
    let Some(locator_at) = end_at.checked_sub(END64_LOCATOR_LEN as u64) else { return Ok(directory) };
    let locator = read_at(reader, locator_at, END64_LOCATOR_LEN)?;
    if locator[..4] != END64_LOCATOR_SIGNATURE {
        return Ok(directory);
    }
    let mut fields = Fields(&locator[8..]);
    let end64_at = fields.u64()?;
    if end64_at > locator_at {
        return Err(bad("its end-of-archive record lies beyond its end"));
    }
    let record = read_at(reader, end64_at, END64_LEN)?;
    let mut fields = Fields(&record);
    fields.signature(END64_SIGNATURE, "end-of-archive record")?;
    fields.bytes(28)?;
    Ok(Directory { entries: fields.u64()?, len: fields.u64()?, start: fields.u64()? })
}

/// One entry of the table of contents and its name.
fn read_entry<'a>(fields: &mut Fields<'a>) -> Result<(&'a [u8], Entry)> {
    fields.signature(ENTRY_SIGNATURE, "entry in its table of contents")?;
    fields.bytes(4)?; // Versions.
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.bytes(4)?; // Time and date.
    let crc = fields.u32()?;
    let (packed, size) = (fields.u32()?, fields.u32()?);
    let (name_len, extra_len, comment_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.bytes(8)?; // Disk number and attributes.
    let offset = fields.u32()?;
    let name = fields.bytes(name_len.into())?;
    let mut extra = Fields(fields.bytes(extra_len.into())?);
    fields.bytes(comment_len.into())?;
    let mut entry =
        Entry { flags, method, crc, packed: packed.into(), size: size.into(), offset: offset.into() };
    while extra.0.len() >= 4 {
        let (id, len) = (extra.u16()?, extra.u16()?);
        let mut field = Fields(extra.bytes(len.into())?);
        if id == ZIP64_EXTRA {
            // Only what does not fit above stands here, in this order.
            for (narrow, wide) in
                [(size, &mut entry.size), (packed, &mut entry.packed), (offset, &mut entry.offset)]
            {
                if narrow == u32::MAX {
                    *wide = field.u64()?;
                }
            }
        }
    }
    Ok((name, entry))
}
