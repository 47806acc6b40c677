//! Numbers as text: the usual shapes, and integers between bounds.

use super::super::expr::Expr;

/// The largest integer that is written: eighteen nines, which any 64-bit reader takes.
pub(super) const MAX_INTEGER: i64 = 999_999_999_999_999_999;

fn digits(count: usize) -> Expr {
    Expr::digit(0, 9).repeat(count as u32, Some(count as u32))
}

/// A number: at most 18 digits before the point, 17 after it, and an exponent of two.
pub(super) fn number() -> Expr {
    let fraction = Expr::Concat(vec![Expr::text("."), Expr::digit(0, 9).repeat(1, Some(17))]);
    let exponent = Expr::Concat(vec![
        Expr::ByteClass(vec![(b'e', b'e'), (b'E', b'E')]),
        Expr::ByteClass(vec![(b'+', b'+'), (b'-', b'-')]).optional(),
        Expr::digit(0, 9).repeat(1, Some(2)),
    ]);
    let whole = Expr::Alt(vec![
        Expr::text("0"),
        Expr::Concat(vec![Expr::digit(1, 9), Expr::digit(0, 9).repeat(0, Some(17))]),
    ]);
    Expr::Concat(vec![Expr::text("-").optional(), whole, fraction.optional(), exponent.optional()])
}

/// The integers from `low` to `high`, both within ±[`MAX_INTEGER`]; `None` where there is none.
pub(super) fn integers(low: i64, high: i64) -> Option<Expr> {
    let mut parts = Vec::new();
    if low < 0 && low <= high {
        let (least, most) = ((-high).max(1), -low);
        parts.push(Expr::Concat(vec![Expr::text("-"), naturals(least as u64, most as u64)]));
    }
    if high >= 0 && low <= high {
        parts.push(naturals(low.max(0) as u64, high as u64));
    }
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(Expr::Alt(parts)),
    }
}

/// The numbers from `low` to `high`, without leading zeros.
fn naturals(low: u64, high: u64) -> Expr {
    let mut parts = Vec::new();
    let mut low = low;
    while low <= high {
        // Those of one length.
        let text = low.to_string();
        let last = (10u64.pow(text.len() as u32) - 1).min(high);
        parts.push(between(text.as_bytes(), last.to_string().as_bytes()));
        low = last + 1;
    }
    Expr::Alt(parts)
}

/// The texts of digits between two of the same length.
fn between(low: &[u8], high: &[u8]) -> Expr {
    if low.iter().all(|d| *d == b'0') && high.iter().all(|d| *d == b'9') {
        return digits(low.len());
    }
    let ([a, low_rest @ ..], [b, high_rest @ ..]) = (low, high) else { return Expr::Empty };
    let (a, b) = (a - b'0', b - b'0');
    let n = low_rest.len();
    if a == b {
        return Expr::Concat(vec![Expr::digit(a, a), between(low_rest, high_rest)]);
    }
    let mut parts = vec![
        Expr::Concat(vec![Expr::digit(a, a), between(low_rest, &vec![b'9'; n])]),
        Expr::Concat(vec![Expr::digit(b, b), between(&vec![b'0'; n], high_rest)]),
    ];
    if a + 1 < b {
        parts.push(Expr::Concat(vec![Expr::digit(a + 1, b - 1), digits(n)]));
    }
    Expr::Alt(parts)
}
