//! A random order of 0..n without a list of it: a Feistel network, keyed by a counter-based generator.
//!
//! The network permutes the numbers of an even count of bits; a number that lands outside 0..n is sent through again
//! until it lands inside ("cycle walking", Black and Rogaway, CT-RSA 2002), which keeps it a permutation. The domain
//! is less than four times n, so that four rounds through it are expected at most.

use grug::rng::{Stream, words};

/// More than the four rounds that make a Feistel network a pseudorandom permutation (Luby and Rackoff), because small
/// domains need them.
const ROUNDS: u64 = 8;

/// A permutation of `0..len`, one of 2^96 for each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    seed: u64,
    stream: Stream,
    number: u32,
}

impl Permutation {
    /// Permutation `number` of `0..len` for this seed and use. `len` must be at most 2^62.
    pub fn new(len: u64, seed: u64, stream: Stream, number: u32) -> Permutation {
        assert!(len <= 1 << 62, "a permutation of {len} numbers");
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Permutation { len, half_bits: bits.div_ceil(2).max(1), seed, stream, number }
    }

    /// How many numbers it permutes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it permutes nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where `index` goes. `index` must be below `len`.
    pub fn at(&self, index: u64) -> u64 {
        assert!(index < self.len, "index {index} of a permutation of {} numbers", self.len);
        let mut x = index;
        loop {
            x = self.encrypt(x);
            if x < self.len {
                return x;
            }
        }
    }

    fn encrypt(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..ROUNDS {
            let random = words(self.seed, self.stream, self.number, round << 32 | right)[0] as u64;
            (left, right) = (right, left ^ (random & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_comes_once(len in 0u64..3000, seed: u64, number: u32) {
            let permutation = Permutation::new(len, seed, Stream::Shuffle, number);
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let at = permutation.at(i);
                prop_assert!(at < len && !seen[at as usize]);
                seen[at as usize] = true;
            }
        }
    }

    #[test]
    fn keys_give_different_orders_that_look_random() {
        let order = |seed, number| -> Vec<u64> {
            let p = Permutation::new(1000, seed, Stream::Shuffle, number);
            (0..1000).map(|i| p.at(i)).collect()
        };
        let first = order(1, 0);
        assert_eq!(first, order(1, 0));
        for other in [order(2, 0), order(1, 1)] {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 15, "{same} of 1000 stay, 1 is expected");
        }
        // The rank correlation of index and image is near 0: standard deviation 1/sqrt(1000).
        let mean = 499.5;
        let covariance: f64 =
            first.iter().enumerate().map(|(i, &x)| (i as f64 - mean) * (x as f64 - mean)).sum();
        let variance: f64 = (0..1000).map(|i| (i as f64 - mean).powi(2)).sum();
        assert!((covariance / variance).abs() < 0.13, "{}", covariance / variance);
    }

    /// All 24 orders of four numbers come, about equally often.
    #[test]
    fn small_domains_are_mixed_well() {
        let mut counts = std::collections::BTreeMap::new();
        for number in 0..24_000 {
            let p = Permutation::new(4, 7, Stream::Shuffle, number);
            *counts.entry([p.at(0), p.at(1), p.at(2), p.at(3)]).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        assert!(counts.values().all(|&n| (600..1400).contains(&n)), "{counts:?}");
    }

    #[test]
    fn huge_domains_need_no_memory() {
        let p = Permutation::new(1 << 62, 3, Stream::Shuffle, 0);
        let far = p.at((1 << 62) - 1);
        assert!(far < 1 << 62 && far != p.at(0));
    }
}
