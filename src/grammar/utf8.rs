//! Ranges of characters as sequences of ranges of bytes.

/// Calls `each` with the byte ranges, both ends included, of every sequence that the UTF-8 of `first..=last` splits
/// into: a text is one of these characters where each of its bytes lies in the range of its place in one sequence.
pub(super) fn sequences<E>(
    first: char,
    last: char,
    each: &mut impl FnMut(&[(u8, u8)]) -> Result<(), E>,
) -> Result<(), E> {
    // Splits at `middle`, which is the last of the lower part; surrogates fall between the parts.
    let mut split = |middle: u32| {
        let above = if middle == 0xD7FF { 0xE000 } else { middle + 1 };
        let [middle, above] =
            [middle, above].map(|code| char::from_u32(code).expect("between two characters"));
        sequences(first, middle, each)?;
        sequences(above, last, each)
    };
    let (low, high) = (first as u32, last as u32);
    if low > high {
        return Ok(());
    }
    // Characters of one length, on one side of the surrogates.
    for border in [0x7F, 0x7FF, 0xD7FF, 0xFFFF] {
        if low <= border && border < high {
            return split(border);
        }
    }
    // Bytes may vary freely after the first that varies.
    for places in 1..first.len_utf8() as u32 {
        let mask = (1 << (6 * places)) - 1;
        if low & !mask != high & !mask {
            if low & mask != 0 {
                return split(low | mask);
            }
            if high & mask != mask {
                return split((high & !mask) - 1);
            }
        }
    }
    let (mut from, mut to) = ([0; 4], [0; 4]);
    let (from, to) = (first.encode_utf8(&mut from).as_bytes(), last.encode_utf8(&mut to).as_bytes());
    let mut ranges = [(0, 0); 4];
    for (range, ends) in ranges.iter_mut().zip(from.iter().zip(to)) {
        *range = (*ends.0, *ends.1);
    }
    each(&ranges[..from.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_hold_exactly_the_characters_of_a_range() {
        let edges = [
            '\0',
            'a',
            '\u{7F}',
            '\u{80}',
            'é',
            '\u{7FF}',
            '\u{800}',
            '\u{D7FF}',
            '\u{E000}',
            '日',
            '\u{FFFF}',
            '\u{10000}',
            '\u{1F600}',
            '\u{FFFFF}',
            '\u{100000}',
            char::MAX,
        ];
        for (i, &first) in edges.iter().enumerate() {
            for &last in &edges[i..] {
                let mut all: Vec<Vec<(u8, u8)>> = Vec::new();
                sequences::<()>(first, last, &mut |ranges| {
                    all.push(ranges.to_vec());
                    Ok(())
                })
                .unwrap();
                // As many texts as characters, each of them a character of the range, and no sequence overlaps another.
                let count: u64 =
                    all.iter().map(|s| s.iter().map(|(a, b)| u64::from(b - a) + 1).product::<u64>()).sum();
                assert_eq!(count, (first..=last).count() as u64, "{first:?}..={last:?}");
                let mut ends = Vec::new();
                for sequence in &all {
                    for end in [
                        sequence.iter().map(|r| r.0).collect(),
                        sequence.iter().map(|r| r.1).collect::<Vec<u8>>(),
                    ] {
                        ends.push(std::str::from_utf8(&end).unwrap().parse::<char>().unwrap());
                    }
                }
                assert!(ends.is_sorted() && ends.iter().all(|c| (first..=last).contains(c)));
                assert!(ends.chunks(2).collect::<Vec<_>>().windows(2).all(|pair| pair[0][1] < pair[1][0]));
            }
        }
    }
}
