//! A range coder (Martin, 1979; the arithmetic coder of Witten, Neal and Cleary, 1987, by bytes) and the integer
//! frequencies that it codes bytes with.

use crate::config::VOCAB;

/// The frequencies of all bytes add up to 2 to this. Each byte has at least one, so every byte can be coded, in at most
/// so many bits; and a byte costs at least 0.0014 bits, so no archive holds more than 5,700 times its size.
const TOTAL_BITS: u32 = 18;
const TOTAL: u32 = 1 << TOTAL_BITS;
/// The range never gets smaller than this: enough for the frequencies to be exact within one part in 2³⁰.
const LEAST_RANGE: u64 = 1 << 48;

/// How often each byte is expected, of [`TOTAL`].
pub(super) struct Frequencies {
    /// Where each byte begins among all laid end to end.
    starts: [u32; VOCAB + 1],
}

impl Frequencies {
    /// From logits. The same logits give the same frequencies on every machine: `libm` and a fixed order.
    pub(super) fn from_logits(logits: &[f32; VOCAB]) -> Frequencies {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: [f64; VOCAB] = std::array::from_fn(|b| libm::exp(f64::from(logits[b]) - f64::from(max)));
        let sum: f64 = weights.iter().sum();
        let share = f64::from(TOTAL - VOCAB as u32) / sum;
        // A logit that is no number gives 0 here.
        let mut counts: [u32; VOCAB] = std::array::from_fn(|b| 1 + (weights[b] * share) as u32);
        // Rounding down leaves less than one for each byte; the likeliest gets it, the first of equals.
        let likeliest = (0..VOCAB).fold(0, |best, b| if weights[b] > weights[best] { b } else { best });
        counts[likeliest] += TOTAL - counts.iter().sum::<u32>();
        Frequencies::from_counts(&counts)
    }

    /// Every byte alike: where there is no prediction.
    pub(super) fn uniform() -> Frequencies {
        Frequencies::from_counts(&[TOTAL / VOCAB as u32; VOCAB])
    }

    fn from_counts(counts: &[u32; VOCAB]) -> Frequencies {
        let mut starts = [0; VOCAB + 1];
        for (byte, count) in counts.iter().enumerate() {
            starts[byte + 1] = starts[byte] + count;
        }
        debug_assert_eq!(starts[VOCAB], TOTAL);
        Frequencies { starts }
    }

    /// Where a byte begins, and how often it is.
    fn of(&self, byte: u8) -> (u64, u64) {
        let (start, end) = (self.starts[byte as usize], self.starts[byte as usize + 1]);
        (u64::from(start), u64::from(end - start))
    }

    /// The byte that this place belongs to.
    fn at(&self, place: u32) -> u8 {
        (self.starts.partition_point(|start| *start <= place) - 1) as u8
    }
}

/// Writes bytes. The code is a number below 1, `out` its digits so far; `low` and `range` say where in the rest.
pub(super) struct Encoder {
    low: u64,
    range: u64,
    out: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Encoder {
        Encoder { low: 0, range: u64::MAX, out: Vec::new() }
    }

    /// Digits written so far; some are still to come.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn encode(&mut self, frequencies: &Frequencies, byte: u8) {
        let (start, count) = frequencies.of(byte);
        let unit = self.range >> TOTAL_BITS;
        self.add(unit * start);
        self.range = unit * count;
        while self.range < LEAST_RANGE {
            self.out.push((self.low >> 56) as u8);
            self.low <<= 8;
            self.range <<= 8;
        }
    }

    fn add(&mut self, amount: u64) {
        let (low, carry) = self.low.overflowing_add(amount);
        self.low = low;
        if carry {
            for digit in self.out.iter_mut().rev() {
                *digit = digit.wrapping_add(1);
                if *digit != 0 {
                    break;
                }
            }
        }
    }

    /// The digits, with as few more as tell the code apart from others where zeros follow.
    pub(super) fn finish(mut self) -> Vec<u8> {
        for digits in 1..=8u32 {
            let below = u64::MAX.checked_shr(8 * digits).unwrap_or(0);
            let rest = self.low & below;
            let up = if rest == 0 { 0 } else { below - rest + 1 };
            if up < self.range {
                self.add(up);
                self.out.extend_from_slice(&self.low.to_be_bytes()[..digits as usize]);
                break;
            }
        }
        self.out
    }
}

/// Reads what an [`Encoder`] wrote.
pub(super) struct Decoder<'a> {
    digits: &'a [u8],
    /// How many were read, those beyond the end included.
    read: usize,
    /// The code less the encoder's `low`.
    code: u64,
    range: u64,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(digits: &'a [u8]) -> Decoder<'a> {
        let mut decoder = Decoder { digits, read: 0, code: 0, range: u64::MAX };
        (0..8).for_each(|_| decoder.read());
        decoder
    }

    fn read(&mut self) {
        let digit = self.digits.get(self.read).copied().unwrap_or(0);
        self.read = self.read.saturating_add(1);
        self.code = self.code << 8 | u64::from(digit);
    }

    pub(super) fn decode(&mut self, frequencies: &Frequencies) -> u8 {
        let unit = self.range >> TOTAL_BITS;
        let place = (self.code / unit).min(u64::from(TOTAL - 1)) as u32;
        let byte = frequencies.at(place);
        let (start, count) = frequencies.of(byte);
        self.code -= unit * start;
        self.range = unit * count;
        while self.range < LEAST_RANGE {
            self.range <<= 8;
            self.read();
        }
        byte
    }

    /// Whether more digits were needed than an encoder leaves out: the digits were cut off.
    pub(super) fn is_past_end(&self) -> bool {
        self.read > self.digits.len() + 8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_at_the_cost_of_its_probability(
            bytes in prop::collection::vec((any::<u8>(), -30.0f32..30.0, any::<u8>(), 0.0f32..40.0), 0..400)
        ) {
            // Different frequencies for each byte: a slope, and a peak anywhere.
            let frequencies = |slope: f32, peak: u8, height: f32| {
                let mut logits: [f32; VOCAB] = std::array::from_fn(|b| slope * b as f32 / 256.0);
                logits[peak as usize] += height;
                Frequencies::from_logits(&logits)
            };
            let mut encoder = Encoder::new();
            let mut bits = 0.0;
            for &(byte, slope, peak, height) in &bytes {
                let table = frequencies(slope, peak, height);
                bits += -(table.of(byte).1 as f64 / f64::from(TOTAL)).log2();
                encoder.encode(&table, byte);
            }
            let digits = encoder.finish();
            prop_assert!(digits.len() as f64 <= bits / 8.0 + 2.0, "{} bytes for {} bits", digits.len(), bits);
            let mut decoder = Decoder::new(&digits);
            for &(byte, slope, peak, height) in &bytes {
                prop_assert_eq!(decoder.decode(&frequencies(slope, peak, height)), byte);
                prop_assert!(!decoder.is_past_end());
            }
        }

        #[test]
        fn any_digits_decode_to_something_and_end(
            digits in prop::collection::vec(any::<u8>(), 0..40), peak: u8, height in 0.0f32..100.0
        ) {
            let mut logits = [0.0; VOCAB];
            logits[peak as usize] = height;
            let table = Frequencies::from_logits(&logits);
            let mut decoder = Decoder::new(&digits);
            let mut decoded = 0;
            while !decoder.is_past_end() {
                decoder.decode(&table);
                decoded += 1;
                // At least 0.0014 bits each.
                prop_assert!(decoded <= (digits.len() + 16) * 5_700);
            }
        }
    }

    #[test]
    fn carries_run_through_full_digits() {
        // The likeliest last byte again and again keeps the code near 1, so that the digits are 255 for long.
        let mut logits = [0.0; VOCAB];
        logits[255] = 20.0;
        let table = Frequencies::from_logits(&logits);
        let mut text = vec![255; 30_000];
        text.push(0);
        text.push(254);
        for tail in 0..4 {
            let mut encoder = Encoder::new();
            let text = [&text[..], &[tail]].concat();
            text.iter().for_each(|b| encoder.encode(&table, *b));
            let digits = encoder.finish();
            let mut decoder = Decoder::new(&digits);
            assert!(text.iter().all(|b| decoder.decode(&table) == *b));
        }
    }

    #[test]
    fn frequencies_are_proportional_and_never_zero() {
        for logits in [
            std::array::from_fn(|b| b as f32 / 10.0),
            std::array::from_fn(|b| if b == 7 { 1e30 } else { -1e30 }),
            [f32::NEG_INFINITY; VOCAB],
            [0.0; VOCAB],
        ] {
            let table = Frequencies::from_logits(&logits);
            assert!((0..=255).all(|b| table.of(b).1 > 0));
            assert_eq!(table.starts[VOCAB], TOTAL);
            let sum: f64 = logits.iter().map(|l| f64::from(*l - 25.5).exp()).sum();
            if sum.is_finite() && sum > 0.0 {
                for b in 0..=255u8 {
                    let p = f64::from(logits[b as usize] - 25.5).exp() / sum;
                    let seen = table.of(b).1 as f64 / f64::from(TOTAL);
                    assert!((seen - p).abs() < 0.002, "{b}: {seen} for {p}");
                }
            }
        }
    }
}
