//! The header of a NumPy file (`.npy`) that holds one row of bytes, read and written.
//!
//! Format (numpy.lib.format): the magic `\x93NUMPY`, two version bytes, the header's length (2 bytes in version 1,
//! 4 from version 2 on), then a Python dict literal such as `{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }`
//! padded with spaces to a multiple of 64 and ended by a line feed; then the data.

use grug::error::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longer headers are not those of a row of bytes.
const MAX_HEADER: usize = 4096;

/// The header of a version 1.0 file with `len` bytes of data, as NumPy writes it.
pub fn header(len: u64) -> Vec<u8> {
    let mut dict = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({len},), }}");
    // NumPy leaves room for the first axis to grow to 21 digits.
    let growth = 21usize.saturating_sub(len.to_string().len());
    dict.push_str(&" ".repeat(growth));
    let unpadded = MAGIC.len() + 4 + dict.len() + 1;
    dict.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    dict.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes
}

/// Whether a file begins as a NumPy file.
pub fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Where the data of a NumPy file of bytes begins, checked against the length of the file.
pub fn data_start(file: &[u8]) -> Result<usize> {
    let bad = |why: &str| Error::format(format!("is not a NumPy file of bytes: {why}"));
    let rest = file.strip_prefix(MAGIC).ok_or_else(|| bad("it does not begin with \\x93NUMPY"))?;
    let (length, prefix) = match rest {
        [1, _, a, b, ..] => (u16::from_le_bytes([*a, *b]) as usize, 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        [1..=3, ..] => return Err(bad("it ends inside its header")),
        [version, ..] => return Err(bad(&format!("its format version is {version}"))),
        [] => return Err(bad("it ends inside its header")),
    };
    if length > MAX_HEADER {
        return Err(bad(&format!("its header has {length} bytes")));
    }
    let start = prefix + length;
    let dict = file.get(prefix..start).ok_or_else(|| bad("it ends inside its header"))?;
    let dict: String =
        std::str::from_utf8(dict).map_err(|_| bad("its header is not text"))?.split_whitespace().collect();
    let value = |key: &str| {
        let (_, after) = dict.split_once(&format!("'{key}':"))?;
        Some(after)
    };
    let descr = value("descr").ok_or_else(|| bad("its header has no descr"))?;
    if !["'|u1'", "'<u1'", "'>u1'", "'=u1'", "'u1'"].iter().any(|known| descr.starts_with(known)) {
        let shown = descr.split(',').next().unwrap_or_default();
        return Err(bad(&format!("its numbers are {shown}, and '|u1' (uint8) is needed")));
    }
    let shape = value("shape")
        .and_then(|shape| shape.strip_prefix('('))
        .and_then(|shape| shape.split_once(')'))
        .map(|(shape, _)| shape)
        .ok_or_else(|| bad("its header has no shape"))?;
    let len: u64 = shape
        .strip_suffix(',')
        .and_then(|one| one.parse().ok())
        .ok_or_else(|| bad(&format!("its shape is ({shape}), and one axis is needed")))?;
    let have = (file.len() - start) as u64;
    if have != len {
        return Err(bad(&format!("its header promises {len} bytes of data, and it has {have}")));
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `numpy.save` writes for `numpy.frombuffer(b"grug\x00\xff", "u1")` (NumPy 2.3; 1.x writes the same).
    fn by_numpy() -> Vec<u8> {
        let mut bytes =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': (6,), }".to_vec();
        bytes.resize(127, b' ');
        bytes.extend(b"\ngrug\x00\xff");
        bytes
    }

    #[test]
    fn headers_are_numpys_to_the_byte() {
        let whole = by_numpy();
        assert_eq!([&header(6)[..], b"grug\x00\xff"].concat(), whole);
        assert_eq!(data_start(&whole).unwrap(), 128);
        assert_eq!(&whole[128..], b"grug\x00\xff");
        for len in [0, 1, 123_456_789, u64::MAX] {
            assert!(header(len).len().is_multiple_of(64));
        }
    }

    #[test]
    fn other_arrays_and_damage_are_refused() {
        let whole = by_numpy();
        for end in 0..whole.len() {
            assert!(data_start(&whole[..end]).is_err(), "cut at {end}");
        }
        let spoiled = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(&whole[10..128]).replace(from, to);
            let mut bytes = whole[..10].to_vec();
            bytes.extend(text.as_bytes());
            bytes.extend(&whole[128..]);
            bytes[8..10].copy_from_slice(&(text.len() as u16).to_le_bytes());
            data_start(&bytes).unwrap_err().message().to_owned()
        };
        assert!(spoiled("|u1", "<i4").contains("'<i4'"));
        assert!(spoiled("(6,)", "(2, 3)").contains("shape is (2,3)"));
        assert!(spoiled("(6,)", "()").contains("one axis"));
        assert!(spoiled("(6,)", "(7,)").contains("promises 7 bytes"));
        assert!(spoiled("'shape'", "'shope'").contains("no shape"));
        let mut version = whole.clone();
        version[6] = 9;
        assert!(data_start(&version).unwrap_err().message().contains("version is 9"));
    }
}
