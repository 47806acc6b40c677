//! What every grammar is translated to: rules, each an expression over bytes, characters and other rules.

use super::set::{LAST_CHAR, Set};

/// An expression. Its depth is bounded by the parsers, so walking it may recurse.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// The empty text.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// One byte of these ranges, both ends included. No ranges: nothing matches.
    ByteClass(Vec<(u8, u8)>),
    /// One character of these ranges, both ends included, as UTF-8. No ranges: nothing matches.
    CharClass(Vec<(char, char)>),
    /// One after the other.
    Concat(Vec<Expr>),
    /// One of them.
    Alt(Vec<Expr>),
    /// From `min` to `max` times, or without an end.
    Repeat { body: Box<Expr>, min: u32, max: Option<u32> },
    /// The rule of this number.
    Rule(usize),
}

impl Expr {
    pub(super) fn text(text: &str) -> Expr {
        Expr::Bytes(text.as_bytes().to_vec())
    }

    pub(super) fn repeat(self, min: u32, max: Option<u32>) -> Expr {
        Expr::Repeat { body: Box::new(self), min, max }
    }

    pub(super) fn optional(self) -> Expr {
        self.repeat(0, Some(1))
    }

    /// One character of these.
    pub(super) fn chars(ranges: &[(char, char)]) -> Expr {
        Expr::CharClass(ranges.to_vec())
    }

    /// One digit from `a` to `b`.
    pub(super) fn digit(a: u8, b: u8) -> Expr {
        Expr::ByteClass(vec![(b'0' + a, b'0' + b)])
    }
}

/// All rules of a grammar.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub list: Vec<Expr>,
    /// The rule that the whole output matches.
    pub root: usize,
}

/// The characters that are not in these ranges, which are in any order and may overlap.
pub(super) fn negated(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let ranges = ranges.iter().map(|&(first, last)| (first.into(), last.into()));
    Set::new(ranges.collect()).negate(LAST_CHAR).chars()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negation_is_everything_else() {
        assert_eq!(negated(&[]), [('\0', char::MAX)]);
        assert_eq!(
            negated(&[('b', 'd'), ('a', 'b'), ('x', 'x')]),
            [('\0', '`'), ('e', 'w'), ('y', char::MAX)]
        );
        assert_eq!(negated(&[('\0', '\u{D7FF}')]), [('\u{E000}', char::MAX)]);
        assert_eq!(negated(&[('\u{E000}', char::MAX)]), [('\0', '\u{D7FF}')]);
        assert_eq!(negated(&[('\0', char::MAX)]), []);
    }
}
