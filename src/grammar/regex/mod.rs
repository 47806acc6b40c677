//! Regular expressions, in the syntax of the `regex` crate, matched against the whole output.
//!
//! ```text
//!   parser ─► node (with anchors) ─► expr
//!      └─ unicode: classes
//! ```

mod parser;
#[cfg(test)]
mod tests;
mod unicode;

use super::expr::{Expr, Rules};
use crate::error::{Error, ErrorKind, Result};

/// The longest expression, in bytes: a short one can name large classes of characters many times.
const MAX_REGEX_BYTES: usize = 16 << 10;

/// A regular expression. Its depth is bounded by the parser, so walking it may recurse.
#[derive(Debug)]
pub(super) enum Node {
    /// What has no anchors.
    Leaf(Expr),
    /// The start of the text.
    Start,
    /// The end of the text.
    End,
    /// One after the other.
    Concat(Vec<Node>),
    /// One of them.
    Alt(Vec<Node>),
    /// From so many times to so many, or without an end.
    Repeat(Box<Node>, u32, Option<u32>),
}

/// Reads a regular expression for a whole text. Anchors are allowed where they say nothing new: at its ends.
pub(super) fn parse(source: &str) -> Result<Rules> {
    let expr = convert(read(source, false)?, true, true)?;
    Ok(Rules { list: vec![expr], root: 0 })
}

/// Reads a regular expression, anchors and all; `ecma`: `.`, `\d`, `\s` and `\w` mean what they do in ECMAScript.
pub(super) fn read(source: &str, ecma: bool) -> Result<Node> {
    if source.len() > MAX_REGEX_BYTES {
        return Err(Error::format(format!(
            "regex: has {} bytes, at most {MAX_REGEX_BYTES} are read",
            source.len()
        )));
    }
    parser::parse(source, ecma)
}

/// `at_start`: nothing comes before; `at_end`: nothing comes after.
pub(super) fn convert(node: Node, at_start: bool, at_end: bool) -> Result<Expr> {
    Ok(match node {
        Node::Leaf(expr) => expr,
        Node::Start if at_start => Expr::Empty,
        Node::End if at_end => Expr::Empty,
        Node::Start => return Err(misplaced("^ or \\A that is not at the start")),
        Node::End => return Err(misplaced("$ or \\z that is not at the end")),
        Node::Repeat(body, min, max) => {
            let once = max == Some(1);
            convert(*body, at_start && once, at_end && once)?.repeat(min, max)
        }
        Node::Concat(parts) => {
            // An end of the whole is still an end where only anchors lie between.
            let is_anchor = |part: &Node| matches!(part, Node::Start | Node::End);
            let leading = parts.iter().take_while(|part| is_anchor(part)).count();
            let trailing = parts.iter().rev().take_while(|part| is_anchor(part)).count();
            let len = parts.len();
            let converted = parts
                .into_iter()
                .enumerate()
                .map(|(i, part)| convert(part, at_start && i <= leading, at_end && i + trailing + 1 >= len));
            Expr::Concat(converted.collect::<Result<_>>()?)
        }
        Node::Alt(parts) => {
            Expr::Alt(parts.into_iter().map(|part| convert(part, at_start, at_end)).collect::<Result<_>>()?)
        }
    })
}

fn misplaced(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("regex: {what} is not supported: the whole output is matched from its start to its end"),
    )
}
