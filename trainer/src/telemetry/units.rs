//! Numbers as people read them.

use std::time::Duration;

/// Nats to bits: a loss in nats a byte times this is in bits a byte.
pub const BITS_PER_NAT: f64 = std::f64::consts::LOG2_E;

/// `1234567` as "1.23 M": three digits and a decimal prefix.
pub fn count(value: f64) -> String {
    let prefixes = ["", " k", " M", " G", " T", " P", " E"];
    if !value.is_finite() {
        return value.to_string();
    }
    let mut scaled = value;
    let mut prefix = 0;
    // 999.5 would be shown as 1000.
    while scaled.abs() >= 999.5 && prefix + 1 < prefixes.len() {
        scaled /= 1000.0;
        prefix += 1;
    }
    let digits = match scaled.abs() {
        a if prefix == 0 && a.fract() == 0.0 => 0,
        a if a < 9.995 => 2,
        a if a < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$}{}", prefixes[prefix])
}

/// `1536` as "1.5 KiB".
pub fn memory(bytes: u64) -> String {
    let prefixes = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut scaled = bytes as f64;
    let mut prefix = 0;
    while scaled >= 1023.5 && prefix + 1 < prefixes.len() {
        scaled /= 1024.0;
        prefix += 1;
    }
    let digits = if prefix > 0 && scaled < 99.95 { 1 } else { 0 };
    format!("{scaled:.digits$} {}", prefixes[prefix])
}

/// A time to wait: "45 s", "3:07", "2:05:09", "3 d 4 h".
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes}:{:02}", seconds % 60),
        (0, _, _) => format!("{hours}:{:02}:{:02}", minutes % 60, seconds % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// A loss in both units: "1.5553 nats, 2.244 bits/byte".
pub fn loss(nats: f64) -> String {
    format!("{nats:.4} nats, {:.3} bits/byte", nats * BITS_PER_NAT)
}

/// Text drawn from a model, safe for a terminal: what is not UTF-8 becomes U+FFFD, and control characters other than
/// line feed and tab are shown as `\x1b` and the like.
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.push_str(&format!("\\x{:02x}", c as u32)),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, shown) in [
            (0.0, "0"),
            (7.0, "7"),
            (7.25, "7.25"),
            (999.0, "999"),
            (999.7, "1.00 k"),
            (1_234_567.0, "1.23 M"),
            (99_960.0, "100 k"),
            (2.5e21, "2500 E"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(count(value), shown);
        }
        for (bytes, shown) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 40, "1.0 TiB")] {
            assert_eq!(memory(bytes), shown);
        }
        for (seconds, shown) in
            [(0, "0 s"), (59, "59 s"), (187, "3:07"), (7509, "2:05:09"), (273_600, "3 d 4 h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), shown);
        }
        assert_eq!(loss(std::f64::consts::LN_2), "0.6931 nats, 1.000 bits/byte");
    }

    #[test]
    fn text_cannot_drive_the_terminal() {
        assert_eq!(printable(b"a\x1b[2J\n\xffb\t\xc3\xbc"), "a\\x1b[2J\n\u{fffd}b\tü");
    }
}
