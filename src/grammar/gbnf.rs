//! GBNF, the grammar notation of llama.cpp: `name ::= alternatives`, the rule `root` being the whole output.
//!
//! ```text
//! root   ::= "yes" | "no" | list          # a comment
//! list   ::= item ("," item)*
//! item   ::= [a-z_]+ | "\"" [^"\n]{0,20} "\"" | .
//! ```
//! Literals and classes hold characters, written as UTF-8, with the escapes `\n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH
//! \UHHHHHHHH` (each a code point); `.` is any character. `* + ? {m} {m,} {,n} {m,n}` repeat, parentheses group. A rule
//! ends where the next `name ::=` begins, so alternatives may stand on lines of their own. Left recursion is allowed.

use std::collections::HashMap;

use super::expr::{Expr, Rules, negated};
use super::reader::Reader;
use crate::error::{Error, ErrorKind, Result};

/// How deep parentheses may nest.
const MAX_NESTING: usize = 64;
/// How many repetitions may stand behind one thing.
const MAX_REPETITIONS: usize = 4;
/// The largest repetition count.
const MAX_COUNT: u32 = 100_000;

struct Parser<'a> {
    text: Reader<'a>,
    names: HashMap<&'a str, usize>,
    rules: Vec<Option<Expr>>,
    /// Where each rule was named first.
    first_use: Vec<usize>,
    depth: usize,
}

/// Reads a grammar.
pub(super) fn parse(source: &str) -> Result<Rules> {
    let mut parser = Parser {
        text: Reader::new(source),
        names: HashMap::new(),
        rules: Vec::new(),
        first_use: Vec::new(),
        depth: 0,
    };
    parser.skip_space();
    while parser.text.peek().is_some() {
        parser.rule()?;
    }
    let Some(&root) = parser.names.get("root") else {
        return Err(Error::format("GBNF: has no rule named \"root\""));
    };
    let mut list = Vec::with_capacity(parser.rules.len());
    for (i, rule) in std::mem::take(&mut parser.rules).into_iter().enumerate() {
        list.push(rule.ok_or_else(|| {
            let name = parser.names.iter().find(|(_, n)| **n == i).map_or("", |(name, _)| name);
            parser.error_at(parser.first_use[i], &format!("the rule \"{name}\" is not defined"))
        })?);
    }
    Ok(Rules { list, root })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl<'a> Parser<'a> {
    fn error_at(&self, at: usize, what: &str) -> Error {
        super::error_at("GBNF", self.text.source, at, ErrorKind::Format, what)
    }

    fn error<T>(&self, what: &str) -> Result<T> {
        Err(self.error_at(self.text.at, what))
    }

    /// Blanks, line ends and comments.
    fn skip_space(&mut self) {
        self.text.skip_with_comments(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
    }

    fn name(&mut self) -> Result<(&'a str, usize)> {
        let (start, rest) = (self.text.at, self.text.rest());
        let len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if len == 0 {
            return self.error(match self.text.peek() {
                Some(_) => "a rule's name is expected here",
                None => "a rule's name is expected, but the text ends",
            });
        }
        self.text.at += len;
        Ok((&rest[..len], start))
    }

    /// The number of the rule of this name.
    fn number(&mut self, name: &'a str, at: usize) -> usize {
        *self.names.entry(name).or_insert_with(|| {
            self.rules.push(None);
            self.first_use.push(at);
            self.rules.len() - 1
        })
    }

    fn rule(&mut self) -> Result<()> {
        let (name, at) = self.name()?;
        let number = self.number(name, at);
        if self.rules[number].is_some() {
            return Err(self.error_at(at, &format!("the rule \"{name}\" is defined twice")));
        }
        self.skip_space();
        if !self.text.take("::=") {
            return self.error("\"::=\" is expected here");
        }
        self.skip_space();
        let body = self.alternatives()?;
        if self.text.peek() == Some(')') {
            return self.error("\")\" without \"(\"");
        }
        self.rules[number] = Some(body);
        Ok(())
    }

    fn alternatives(&mut self) -> Result<Expr> {
        let mut parts = vec![self.sequence()?];
        while self.text.take("|") {
            self.skip_space();
            parts.push(self.sequence()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Alt(parts) })
    }

    /// Whether a new rule begins here.
    fn at_rule(&mut self) -> bool {
        let start = self.text.at;
        let found = self.name().is_ok() && {
            self.skip_space();
            self.text.rest().starts_with("::=")
        };
        self.text.at = start;
        found
    }

    fn sequence(&mut self) -> Result<Expr> {
        let mut parts = Vec::new();
        loop {
            let part = match self.text.peek() {
                None | Some('|' | ')') => break,
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.text.at += 1;
                    Expr::CharClass(vec![('\0', char::MAX)])
                }
                Some('(') => self.group()?,
                Some(c) if is_name(c) => {
                    if self.at_rule() {
                        break;
                    }
                    let (name, at) = self.name()?;
                    Expr::Rule(self.number(name, at))
                }
                Some(c @ ('*' | '+' | '?' | '{')) => {
                    return self.error(&format!("\"{c}\" has nothing to repeat"));
                }
                Some(c) => return self.error(&format!("{c:?} is not expected here")),
            };
            self.skip_space();
            let part = self.repetitions(part)?;
            parts.push(part);
        }
        Ok(match parts.len() {
            0 => Expr::Empty,
            1 => parts.remove(0),
            _ => Expr::Concat(parts),
        })
    }

    fn group(&mut self) -> Result<Expr> {
        let start = self.text.at;
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return self.error(&format!("parentheses nest deeper than {MAX_NESTING}"));
        }
        self.text.at += 1;
        self.skip_space();
        let body = self.alternatives()?;
        if !self.text.take(")") {
            return Err(self.error_at(start, "\"(\" without \")\""));
        }
        self.depth -= 1;
        Ok(body)
    }

    fn repetitions(&mut self, mut part: Expr) -> Result<Expr> {
        let mut count = 0;
        loop {
            part = match self.text.peek() {
                Some('*') => part.repeat(0, None),
                Some('+') => part.repeat(1, None),
                Some('?') => part.repeat(0, Some(1)),
                Some('{') => {
                    let (min, max) = self.counts()?;
                    part.repeat(min, max)
                }
                _ => return Ok(part),
            };
            count += 1;
            if count > MAX_REPETITIONS {
                return self.error("too many repetitions of one thing");
            }
            self.text.at += 1;
            self.skip_space();
        }
    }

    /// `{m}`, `{m,}`, `{,n}` or `{m,n}`, up to the closing brace, which stays.
    fn counts(&mut self) -> Result<(u32, Option<u32>)> {
        let start = self.text.at;
        self.text.at += 1;
        let min = self.count()?;
        let counts = if self.text.take(",") {
            self.skip_space();
            (min.unwrap_or(0), self.count()?)
        } else {
            match min {
                Some(n) => (n, Some(n)),
                None => return self.error("a repetition count is expected here"),
            }
        };
        if self.text.peek() != Some('}') {
            return self.error("\"}\" is expected here");
        }
        if counts.1.is_some_and(|max| max < counts.0) {
            return Err(self.error_at(start, "the repetition's largest count is below its smallest"));
        }
        Ok(counts)
    }

    fn count(&mut self) -> Result<Option<u32>> {
        self.skip_space();
        let rest = self.text.rest();
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if len == 0 {
            return Ok(None);
        }
        match rest[..len].parse() {
            Ok(count) if count <= MAX_COUNT => {
                self.text.at += len;
                self.skip_space();
                Ok(Some(count))
            }
            _ => self.error(&format!("a repetition count above {MAX_COUNT}")),
        }
    }

    fn literal(&mut self) -> Result<Expr> {
        let start = self.text.at;
        self.text.at += 1;
        let mut text = String::new();
        loop {
            match self.text.peek() {
                None | Some('\n') => return Err(self.error_at(start, "the text in quotes does not end")),
                Some('"') => break,
                Some(_) => text.push(self.character()?),
            }
        }
        self.text.at += 1;
        Ok(Expr::Bytes(text.into_bytes()))
    }

    fn class(&mut self) -> Result<Expr> {
        let start = self.text.at;
        self.text.at += 1;
        let negate = self.text.take("^");
        let mut ranges = Vec::new();
        loop {
            match self.text.peek() {
                None | Some('\n') => return Err(self.error_at(start, "\"[\" without \"]\"")),
                Some(']') => break,
                Some(_) => {}
            }
            let at = self.text.at;
            let first = self.character()?;
            let is_range = self.text.rest().starts_with('-') && !self.text.rest().starts_with("-]");
            let last = if is_range {
                self.text.at += 1;
                self.character()?
            } else {
                first
            };
            if last < first {
                return Err(self.error_at(at, "the range ends before it begins"));
            }
            ranges.push((first, last));
        }
        self.text.at += 1;
        if ranges.is_empty() && !negate {
            return Err(self.error_at(start, "the class is empty"));
        }
        Ok(Expr::CharClass(if negate { negated(&ranges) } else { ranges }))
    }

    /// One character of a literal or class.
    fn character(&mut self) -> Result<char> {
        let start = self.text.at;
        match self.text.next() {
            Some('\\') => {}
            Some(c) => return Ok(c),
            None => return self.error("a character is expected, but the text ends"),
        }
        let digits = match self.text.next() {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/')) => return Ok(c),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.error_at(start, "an unknown escape")),
        };
        let code = self.text.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = code.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        match code {
            Some(c) => {
                self.text.at += digits;
                Ok(c)
            }
            None => Err(self.error_at(
                start,
                &format!("an escape that needs {digits} hexadecimal digits of a code point"),
            )),
        }
    }
}
