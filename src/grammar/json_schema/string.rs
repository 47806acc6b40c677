//! Strings as JSON text: any, of a length, matching a pattern, and names other than given ones.

use super::super::expr::{Expr, negated};
use super::super::regex::{Node, convert, read};
use super::json::quoted;
use crate::error::{Error, ErrorKind, Result};

/// Characters that a string cannot hold as they are.
const SPECIAL: [(char, char); 3] = [('\0', '\u{1F}'), ('"', '"'), ('\\', '\\')];
/// Controls are not written, though DEL may stand in a string.
const UNWANTED: [(char, char); 4] = [('\0', '\u{1F}'), ('"', '"'), ('\\', '\\'), ('\u{7F}', '\u{7F}')];

/// One character that stands for itself.
fn plain() -> Expr {
    Expr::CharClass(negated(&UNWANTED))
}

/// One character of a string, escaped or not. Surrogates come in pairs alone.
pub(super) fn character() -> Expr {
    let hex = || Expr::ByteClass(vec![(b'0', b'9'), (b'a', b'f'), (b'A', b'F')]);
    let class = |bytes: &[u8]| Expr::ByteClass(bytes.iter().map(|b| (*b, *b)).collect());
    let d = || class(b"dD");
    let escape = Expr::Concat(vec![Expr::text("\\"), class(b"\"\\/bfnrt")]);
    let code = Expr::Concat(vec![
        Expr::text("\\u"),
        Expr::Alt(vec![
            Expr::Concat(vec![class(b"0123456789abcefABCEF"), hex(), hex(), hex()]),
            Expr::Concat(vec![d(), Expr::digit(0, 7), hex(), hex()]),
            Expr::Concat(vec![
                d(),
                class(b"89abAB"),
                hex(),
                hex(),
                Expr::text("\\u"),
                d(),
                class(b"cdefCDEF"),
                hex(),
                hex(),
            ]),
        ]),
    ]);
    Expr::Alt(vec![plain(), escape, code])
}

fn in_quotes(body: Expr) -> Expr {
    Expr::Concat(vec![Expr::text("\""), body, Expr::text("\"")])
}

/// A string of so many characters.
pub(super) fn of_length(character: Expr, min: u32, max: Option<u32>) -> Expr {
    in_quotes(character.repeat(min, max))
}

/// A name without escapes that is none of these.
pub(super) fn name_other_than(names: &[&str]) -> Expr {
    let mut names: Vec<Vec<char>> = names
        .iter()
        .filter(|name| quoted(name).len() == name.len() + 2)
        .map(|name| name.chars().collect())
        .collect();
    names.sort_unstable();
    in_quotes(other_than(&names, 0))
}

/// The rest of a name that is none of these, which are sorted and agree in the first `depth` characters.
fn other_than(names: &[Vec<char>], depth: usize) -> Expr {
    let longer = &names[names.partition_point(|name| name.len() <= depth)..];
    let mut parts = Vec::new();
    if longer.len() == names.len() {
        parts.push(Expr::Empty);
    }
    let mut different = UNWANTED.to_vec();
    for group in longer.chunk_by(|a, b| a[depth] == b[depth]) {
        let c = group[0][depth];
        different.push((c, c));
        parts.push(Expr::Concat(vec![Expr::text(&c.to_string()), other_than(group, depth + 1)]));
    }
    let different = Expr::CharClass(negated(&different));
    parts.push(Expr::Concat(vec![different, plain().repeat(0, None)]));
    Expr::Alt(parts)
}

/// A string in which the pattern is found: at its start after `^`, up to its end before `$`. JSON Schema's patterns are
/// ECMAScript's, whose `\d` knows ASCII alone.
pub(super) fn matching(pattern: &str) -> Result<Expr> {
    Ok(in_quotes(escaped(&search(read(pattern, true)?)?)?))
}

fn search(node: Node) -> Result<Expr> {
    let any = || Expr::chars(&[('\0', char::MAX)]).repeat(0, None);
    let mut parts = match node {
        Node::Alt(parts) => {
            return Ok(Expr::Alt(parts.into_iter().map(search).collect::<Result<_>>()?));
        }
        Node::Concat(parts) => parts,
        node => vec![node],
    };
    let mut out = Vec::new();
    match parts.first() {
        Some(Node::Start) => drop(parts.remove(0)),
        _ => out.push(any()),
    }
    let end = match parts.last() {
        Some(Node::End) => {
            parts.pop();
            None
        }
        _ => Some(any()),
    };
    for part in parts {
        out.push(convert(part, false, false)?);
    }
    out.extend(end);
    Ok(Expr::Concat(out))
}

/// The expression whose texts are those of `expr`, escaped as in a JSON string.
fn escaped(expr: &Expr) -> Result<Expr> {
    let not_text = || {
        Error::new(ErrorKind::Unsupported, "a pattern over bytes that are not characters is not supported")
    };
    Ok(match expr {
        Expr::Empty => Expr::Empty,
        Expr::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| not_text())?;
            let quoted = quoted(text);
            Expr::text(&quoted[1..quoted.len() - 1])
        }
        Expr::ByteClass(ranges) if ranges.iter().all(|(_, last)| last.is_ascii()) => {
            escaped_class(&ranges.iter().map(|&(a, b)| (a as char, b as char)).collect::<Vec<_>>())
        }
        Expr::ByteClass(_) => return Err(not_text()),
        Expr::CharClass(ranges) => escaped_class(ranges),
        Expr::Concat(parts) => Expr::Concat(parts.iter().map(escaped).collect::<Result<_>>()?),
        Expr::Alt(parts) => Expr::Alt(parts.iter().map(escaped).collect::<Result<_>>()?),
        Expr::Repeat { body, min, max } => escaped(body)?.repeat(*min, *max),
        Expr::Rule(_) => unreachable!("a regular expression calls no rules"),
    })
}

fn escaped_class(ranges: &[(char, char)]) -> Expr {
    let mut outside = negated(ranges);
    outside.extend(SPECIAL);
    let mut parts = vec![Expr::CharClass(negated(&outside))];
    for c in SPECIAL.into_iter().flat_map(|(first, last)| first..=last) {
        if ranges.iter().any(|&(first, last)| (first..=last).contains(&c)) {
            let quoted = quoted(&c.to_string());
            parts.push(Expr::text(&quoted[1..quoted.len() - 1]));
        }
    }
    Expr::Alt(parts)
}
