//! Regular expressions, in the syntax of the `regex` crate, matched against the whole output.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::expr::{Expr, Rules};
use crate::error::{Error, ErrorKind, Result};

/// The longest expression, in bytes: a short one can name large classes of characters many times.
const MAX_REGEX_BYTES: usize = 16 << 10;
/// How deep groups may nest.
const MAX_NESTING: u32 = 100;

/// Reads a regular expression.
pub(super) fn parse(source: &str) -> Result<Rules> {
    Ok(Rules { list: vec![expression(source)?], root: 0 })
}

/// A regular expression for a whole text. Anchors are allowed where they say nothing new: at its ends.
fn expression(source: &str) -> Result<Expr> {
    let hir = parse_hir(source)?;
    convert(&hir, true, true)
}

/// The expression of the `regex-syntax` crate.
pub(super) fn parse_hir(source: &str) -> Result<Hir> {
    if source.len() > MAX_REGEX_BYTES {
        return Err(Error::format(format!(
            "regex: has {} bytes, at most {MAX_REGEX_BYTES} are read",
            source.len()
        )));
    }
    ParserBuilder::new().nest_limit(MAX_NESTING).utf8(false).build().parse(source).map_err(|error| {
        let (what, span) = match &error {
            regex_syntax::Error::Parse(e) => (e.kind().to_string(), Some(*e.span())),
            regex_syntax::Error::Translate(e) => (e.kind().to_string(), Some(*e.span())),
            _ => (error.to_string(), None),
        };
        match span {
            Some(span) => Error::format(format!(
                "regex: line {}, column {}: {what}",
                span.start.line, span.start.column
            )),
            None => Error::format(format!("regex: {what}")),
        }
    })
}

/// `at_start`: nothing comes before; `at_end`: nothing comes after.
pub(super) fn convert(hir: &Hir, at_start: bool, at_end: bool) -> Result<Expr> {
    Ok(match hir.kind() {
        HirKind::Empty => Expr::Empty,
        HirKind::Literal(literal) => Expr::Bytes(literal.0.to_vec()),
        HirKind::Class(Class::Unicode(class)) => {
            Expr::CharClass(class.ranges().iter().map(|r| (r.start(), r.end())).collect())
        }
        HirKind::Class(Class::Bytes(class)) => {
            Expr::ByteClass(class.ranges().iter().map(|r| (r.start(), r.end())).collect())
        }
        HirKind::Look(Look::Start) if at_start => Expr::Empty,
        HirKind::Look(Look::End) if at_end => Expr::Empty,
        HirKind::Look(look) => return Err(unsupported_look(*look)),
        HirKind::Repetition(Repetition { min, max, sub, .. }) => {
            let once = *max == Some(1);
            convert(sub, at_start && once, at_end && once)?.repeat(*min, *max)
        }
        HirKind::Capture(capture) => convert(&capture.sub, at_start, at_end)?,
        HirKind::Concat(parts) => {
            // An end of the whole is still an end where only anchors lie between.
            let is_anchor = |part: &Hir| matches!(part.kind(), HirKind::Look(Look::Start | Look::End));
            let leading = parts.iter().take_while(|part| is_anchor(part)).count();
            let trailing = parts.iter().rev().take_while(|part| is_anchor(part)).count();
            let converted = parts.iter().enumerate().map(|(i, part)| {
                convert(part, at_start && i <= leading, at_end && i + trailing + 1 >= parts.len())
            });
            Expr::Concat(converted.collect::<Result<_>>()?)
        }
        HirKind::Alternation(parts) => {
            Expr::Alt(parts.iter().map(|part| convert(part, at_start, at_end)).collect::<Result<_>>()?)
        }
    })
}

fn unsupported_look(look: Look) -> Error {
    let what = match look {
        Look::Start => "^ or \\A that is not at the start",
        Look::End => "$ or \\z that is not at the end",
        Look::StartLF | Look::EndLF | Look::StartCRLF | Look::EndCRLF => "a multi-line anchor",
        _ => "a word boundary",
    };
    Error::new(
        ErrorKind::Unsupported,
        format!("regex: {what} is not supported: the whole output is matched from its start to its end"),
    )
}
