//! Sets of characters or of bytes, as sorted ranges of their numbers.

/// The largest character; surrogates count as members until [`Set::chars`].
pub(super) const LAST_CHAR: u32 = char::MAX as u32;

/// Ranges, both ends included, in order, with a gap between any two.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Set(Vec<(u32, u32)>);

impl Set {
    /// Of ranges in any order, which may overlap.
    pub(super) fn new(mut ranges: Vec<(u32, u32)>) -> Set {
        ranges.sort_unstable();
        let mut out: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match out.last_mut() {
                Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
                _ => out.push((first, last)),
            }
        }
        Set(out)
    }

    pub(super) fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }

    pub(super) fn contains(&self, code: u32) -> bool {
        let after = self.0.partition_point(|range| range.0 <= code);
        after > 0 && code <= self.0[after - 1].1
    }

    pub(super) fn union(self, other: Set) -> Set {
        let mut ranges = self.0;
        ranges.extend(other.0);
        Set::new(ranges)
    }

    /// All from 0 to `last` that are not in it.
    pub(super) fn negate(&self, last: u32) -> Set {
        let mut out = Vec::new();
        let mut next = 0;
        for &(first, end) in &self.0 {
            if first > next {
                out.push((next, first - 1));
            }
            next = end + 1;
        }
        if next <= last {
            out.push((next, last));
        }
        Set(out)
    }

    pub(super) fn intersection(&self, other: &Set) -> Set {
        self.negate(LAST_CHAR).union(other.negate(LAST_CHAR)).negate(LAST_CHAR)
    }

    pub(super) fn difference(&self, other: &Set) -> Set {
        self.intersection(&other.negate(LAST_CHAR))
    }

    /// As ranges of characters.
    pub(super) fn chars(&self) -> Vec<(char, char)> {
        let clip = |(first, last)| {
            let first = if (0xD800..0xE000).contains(&first) { 0xE000 } else { first };
            let last = if (0xD800..0xE000).contains(&last) { 0xD7FF } else { last };
            (first <= last).then_some((char::from_u32(first)?, char::from_u32(last)?))
        };
        self.0.iter().copied().filter_map(clip).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_those_of_their_members() {
        let sets = [
            vec![],
            vec![(0, 3)],
            vec![(5, 9), (1, 2), (3, 3), (20, 30)],
            vec![(0, LAST_CHAR)],
            vec![(0xD000, 0xE010), (7, 21), (7, 8)],
        ]
        .map(Set::new);
        for a in &sets {
            for b in &sets {
                let (both, less, all) = (a.intersection(b), a.difference(b), a.clone().union(b.clone()));
                for code in (0..40).chain(0xCFF0..0xE020).chain([LAST_CHAR]) {
                    let (x, y) = (a.contains(code), b.contains(code));
                    let found = [both.contains(code), less.contains(code), all.contains(code)];
                    assert_eq!(found, [x && y, x && !y, x || y], "{code} in {a:?} and {b:?}");
                    assert_eq!(a.negate(LAST_CHAR).contains(code), !x);
                }
            }
        }
        assert_eq!(sets[4].chars()[1..], [('\u{D000}', '\u{E010}')]);
        assert_eq!(Set::new(vec![(0xD900, 0xDF00)]).chars(), []);
        assert_eq!(Set::new(vec![(0, 0xDF00)]).chars(), [('\0', '\u{D7FF}')]);
    }
}
