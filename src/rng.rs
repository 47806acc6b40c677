//! A counter-based random generator: Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011). A draw is a pure function of (seed, stream, index), so any draw can be made again, on any
//! device, in any order: sampling can run ahead and turn back, and data order can be sought in O(1).

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox 4x32 on this counter and key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let a = MULTIPLIERS[0] as u64 * counter[0] as u64;
        let b = MULTIPLIERS[1] as u64 * counter[2] as u64;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

/// Independent uses of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Drawing a byte from a distribution; the index counts the sampler's draws.
    Sample = 0,
    /// Initial weights; the index counts tensors and numbers.
    Init = 1,
    /// The order of training windows.
    Shuffle = 2,
    /// Windows picked for an estimate of the validation loss.
    Validation = 3,
    /// Made-up text.
    Dummy = 4,
}

/// The four words of draw `index` of a stream: the counter is (index low, index high, lane, stream), the key the seed.
pub fn words(seed: u64, stream: Stream, lane: u32, index: u64) -> [u32; 4] {
    philox4x32([index as u32, (index >> 32) as u32, lane, stream as u32], [seed as u32, (seed >> 32) as u32])
}

/// A number in [0, 1) with 24 random bits, exact in f32.
pub fn unit_f32(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A number in [0, 1) with 53 random bits, from two words.
pub fn unit_f64(low: u32, high: u32) -> f64 {
    ((((high as u64) << 32) | low as u64) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 library.
    #[test]
    fn agrees_with_random123() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
