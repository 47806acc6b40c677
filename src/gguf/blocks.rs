//! How GGUF stores numbers: as floats, or in blocks of 32 with a scale each.

use half::f16;

use crate::error::{Error, Result};

/// Numbers of a block that share a scale.
const BLOCK: usize = 32;

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8 bits a number, and an f16 scale for each 32.
    Q8_0,
    /// 4 bits a number, and an f16 scale for each 32.
    Q4_0,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::F32, Kind::F16, Kind::Q8_0, Kind::Q4_0];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::F32 => "f32",
            Kind::F16 => "f16",
            Kind::Q8_0 => "q8_0",
            Kind::Q4_0 => "q4_0",
        }
    }

    /// The format's number for it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Kind::F32 => 0,
            Kind::F16 => 1,
            Kind::Q8_0 => 8,
            Kind::Q4_0 => 2,
        }
    }

    /// The format's number for a file that is mostly this.
    pub(super) const fn file_type(self) -> u32 {
        match self {
            Kind::F32 => 0,
            Kind::F16 => 1,
            Kind::Q8_0 => 7,
            Kind::Q4_0 => 2,
        }
    }

    /// Rows have a multiple of this many numbers.
    pub(super) const fn block_len(self) -> usize {
        match self {
            Kind::F32 | Kind::F16 => 1,
            Kind::Q8_0 | Kind::Q4_0 => BLOCK,
        }
    }

    /// Numbers as bytes of the file.
    pub(super) fn pack(self, numbers: &[f32]) -> Vec<u8> {
        let blocks = numbers.as_chunks::<BLOCK>().0;
        match self {
            Kind::F32 => numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Kind::F16 => numbers.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Kind::Q8_0 => blocks.iter().flat_map(pack8).collect(),
            Kind::Q4_0 => blocks.iter().flat_map(pack4).collect(),
        }
    }

    /// Bytes of the file as numbers.
    pub(super) fn unpack(self, bytes: &[u8]) -> Vec<f32> {
        let scale = |block: &[u8]| f16::from_le_bytes([block[0], block[1]]).to_f32();
        match self {
            Kind::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Kind::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Kind::Q8_0 => {
                let unpack = |block: &[u8; 34]| {
                    let scale = scale(block);
                    block[2..].iter().map(|q| scale * f32::from(*q as i8)).collect::<Vec<_>>()
                };
                bytes.as_chunks().0.iter().flat_map(unpack).collect()
            }
            Kind::Q4_0 => {
                let unpack = |block: &[u8; 18]| {
                    let scale = scale(block);
                    let low = block[2..].iter().map(|q| q & 15);
                    let codes = low.chain(block[2..].iter().map(|q| q >> 4));
                    codes.map(|code| scale * (f32::from(code) - 8.0)).collect::<Vec<_>>()
                };
                bytes.as_chunks().0.iter().flat_map(unpack).collect()
            }
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            Error::invalid(format!("{text:?} is no kind of numbers: f32, f16, q8_0 and q4_0 are"))
        })
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// An f16 scale, the largest number by 127, and 32 integers.
fn pack8(block: &[f32; BLOCK]) -> [u8; 34] {
    let scale = block.iter().fold(0.0f32, |max, v| max.max(v.abs())) / 127.0;
    let mut bytes = [0; 34];
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, v) in bytes[2..].iter_mut().zip(block) {
        *byte = (v * inverse(scale)).round() as i8 as u8;
    }
    bytes
}

/// An f16 scale, the number of largest size by -8, and 32 codes 0 to 15 that stand for -8 to 7: the first 16 in the low
/// halves of the bytes.
fn pack4(block: &[f32; BLOCK]) -> [u8; 18] {
    let largest = block.iter().copied().fold(0.0f32, |max, v| if v.abs() > max.abs() { v } else { max });
    let scale = largest / -8.0;
    let code = |v: f32| ((v * inverse(scale) + 8.5) as u8).min(15);
    let mut bytes = [0; 18];
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (i, byte) in bytes[2..].iter_mut().enumerate() {
        *byte = code(block[i]) | code(block[i + BLOCK / 2]) << 4;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_nearly() {
        let numbers: Vec<f32> = (0..96).map(|i| ((i * 37 % 96) as f32 - 48.0) / 50.0).collect();
        for (kind, tolerance) in [(Kind::F32, 0.0), (Kind::F16, 5e-4), (Kind::Q8_0, 5e-3), (Kind::Q4_0, 0.13)]
        {
            let back = kind.unpack(&kind.pack(&numbers));
            assert_eq!(back.len(), numbers.len());
            let error = numbers.iter().zip(&back).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(error <= tolerance, "{kind:?}: {error}");
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
        }
        assert_eq!(Kind::Q8_0.unpack(&Kind::Q8_0.pack(&[0.0; 32])), [0.0; 32]);
        assert_eq!(Kind::Q4_0.unpack(&Kind::Q4_0.pack(&[0.0; 32])), [0.0; 32]);
    }
}
