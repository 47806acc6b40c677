//! The reader of regular expressions.

use std::collections::HashMap;

use super::Node;
use super::unicode::{self, Cases};
use crate::error::{Error, ErrorKind, Result};
use crate::grammar::error_at;
use crate::grammar::expr::Expr;
use crate::grammar::reader::Reader;
use crate::grammar::set::{LAST_CHAR, Set};

/// How deep groups and classes may nest.
const MAX_NESTING: usize = 64;
/// How many repetitions may stand behind one thing.
const MAX_REPETITIONS: usize = 4;

/// The flags that matter here: laziness is nothing that a text could show.
#[derive(Clone, Copy)]
struct Flags {
    /// `i`
    any_case: bool,
    /// `m`
    lines: bool,
    /// `s`
    dot_is_all: bool,
    /// `R`
    crlf: bool,
    /// `u`
    unicode: bool,
    /// `x`
    spaced: bool,
}

impl Flags {
    /// The largest member of a class.
    fn last(self) -> u32 {
        if self.unicode { LAST_CHAR } else { 0xFF }
    }
}

/// What a backslash makes of what follows it.
enum Escape {
    Char(char),
    Byte(u8),
    Class(Set),
    Start,
    End,
    /// A word boundary of some kind.
    Word,
}

pub(super) struct Parser<'a> {
    text: Reader<'a>,
    /// Whether `.`, `\d`, `\s` and `\w` mean what they do in ECMAScript.
    ecma: bool,
    flags: Flags,
    depth: usize,
    /// Which characters differ by case alone, read where it is needed first.
    cases: Option<Cases>,
    /// Classes that were looked up, by their names.
    known: HashMap<String, Set>,
}

pub(super) fn parse(source: &str, ecma: bool) -> Result<Node> {
    let flags =
        Flags { any_case: false, lines: false, dot_is_all: false, crlf: false, unicode: true, spaced: false };
    let mut parser =
        Parser { text: Reader::new(source), ecma, flags, depth: 0, cases: None, known: HashMap::new() };
    let node = parser.alternatives()?;
    match parser.text.peek() {
        None => Ok(node),
        Some(_) => parser.error("\")\" without \"(\""),
    }
}

impl<'a> Parser<'a> {
    fn error_at(&self, at: usize, what: &str) -> Error {
        error_at("regex", self.text.source, at, ErrorKind::Format, what)
    }

    fn error<T>(&self, what: &str) -> Result<T> {
        Err(self.error_at(self.text.at, what))
    }

    fn unsupported<T>(&self, at: usize, what: &str) -> Result<T> {
        Err(error_at("regex", self.text.source, at, ErrorKind::Unsupported, what))
    }

    fn anchor<T>(&self, at: usize, what: &str) -> Result<T> {
        let why = "the whole output is matched from its start to its end";
        self.unsupported(at, &format!("{what} is not supported: {why}"))
    }

    /// With the flag `x`: blanks and comments.
    fn skip_space(&mut self) {
        if self.flags.spaced {
            self.text.skip_with_comments(char::is_whitespace);
        }
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return self.error(&format!("groups and classes nest deeper than {MAX_NESTING}"));
        }
        Ok(())
    }

    fn alternatives(&mut self) -> Result<Node> {
        let mut parts = vec![self.sequence()?];
        while self.text.take("|") {
            parts.push(self.sequence()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Alt(parts) })
    }

    fn sequence(&mut self) -> Result<Node> {
        let mut parts = Vec::new();
        loop {
            self.skip_space();
            let start = self.text.at;
            let part = match self.text.peek() {
                None | Some('|' | ')') => break,
                Some('(') => match self.group()? {
                    Some(group) => group,
                    None => continue,
                },
                Some('[') => {
                    let set = self.class()?;
                    Node::Leaf(self.one_of(&set))
                }
                Some(c @ ('*' | '+' | '?' | '{')) => {
                    return self.error(&format!("\"{c}\" has nothing to repeat"));
                }
                Some('^' | '$') if self.flags.lines => return self.anchor(start, "a multi-line anchor"),
                Some('\\') => match self.escape()? {
                    Escape::Char(c) => Node::Leaf(self.character(c)),
                    Escape::Byte(byte) => Node::Leaf(Expr::Bytes(vec![byte])),
                    Escape::Class(set) => Node::Leaf(self.one_of(&set)),
                    Escape::Start => Node::Start,
                    Escape::End => Node::End,
                    Escape::Word => return self.anchor(start, "a word boundary"),
                },
                Some(c) => {
                    self.text.at += c.len_utf8();
                    match c {
                        '.' => Node::Leaf(self.dot()),
                        '^' => Node::Start,
                        '$' => Node::End,
                        c => Node::Leaf(self.character(c)),
                    }
                }
            };
            let part = self.repetitions(part)?;
            match (parts.last_mut(), part) {
                (Some(Node::Leaf(Expr::Bytes(text))), Node::Leaf(Expr::Bytes(more))) => text.extend(more),
                (_, part) => parts.push(part),
            }
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Concat(parts) })
    }

    /// A group, or nothing where the parentheses set flags.
    fn group(&mut self) -> Result<Option<Node>> {
        let (start, outside) = (self.text.at, self.flags);
        self.enter()?;
        self.text.at += 1;
        self.skip_space();
        if ["?=", "?!", "?<=", "?<!"].iter().any(|look| self.text.rest().starts_with(look)) {
            return self.unsupported(start, "looking ahead or behind is not supported");
        }
        if self.text.take("?P<") || self.text.take("?<") {
            let name = self.text.rest().split('>').next().unwrap_or_default();
            let is_letter = |c: char| c == '_' || c.is_alphabetic();
            let is_name = |c: char| is_letter(c) || c.is_numeric() || matches!(c, '.' | '[' | ']');
            if !name.starts_with(is_letter)
                || !name.chars().all(is_name)
                || !self.text.rest()[name.len()..].starts_with('>')
            {
                return self.error("the name of a group is expected here, and \">\" after it");
            }
            self.text.at += name.len() + 1;
        } else if self.text.take("?") && !self.set_flags()? {
            // They hold up to the end of the group around them.
            self.depth -= 1;
            return Ok(None);
        }
        let body = self.alternatives()?;
        if !self.text.take(")") {
            return Err(self.error_at(start, "\"(\" without \")\""));
        }
        self.flags = outside;
        self.depth -= 1;
        Ok(Some(body))
    }

    /// Flags up to their end; whether that is `:`, so that a group begins, and not `)`.
    fn set_flags(&mut self) -> Result<bool> {
        let (start, mut on, mut last) = (self.text.at, true, None);
        loop {
            let at = self.text.at;
            let c = self.text.next();
            match c {
                Some('i') => self.flags.any_case = on,
                Some('m') => self.flags.lines = on,
                Some('s') => self.flags.dot_is_all = on,
                Some('R') => self.flags.crlf = on,
                Some('u') => self.flags.unicode = on,
                Some('x') => self.flags.spaced = on,
                Some('U') => {}
                Some('-') if on => on = false,
                Some(':') if last != Some('-') => return Ok(true),
                Some(')') if !matches!(last, None | Some('-')) => return Ok(false),
                _ => return Err(self.error_at(at, "a flag is expected here, one of i, m, s, R, U, u and x")),
            }
            if c != Some('-') && self.text.source[start..at].contains(|flag| Some(flag) == c) {
                return Err(self.error_at(at, "the flag is there twice"));
            }
            last = c;
        }
    }

    fn repetitions(&mut self, mut part: Node) -> Result<Node> {
        for _ in 0..=MAX_REPETITIONS {
            self.skip_space();
            let (min, max) = match self.text.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.counts()?,
                _ => return Ok(part),
            };
            if self.text.next() == Some('}') {
                // As the `regex` crate has it: blanks may stand before the mark of laziness here, and only here.
                self.skip_space();
            }
            self.text.take("?");
            part = Node::Repeat(Box::new(part), min, max);
        }
        self.error("too many repetitions of one thing")
    }

    /// `{m}`, `{m,}` or `{m,n}`, up to the closing brace, which stays.
    fn counts(&mut self) -> Result<(u32, Option<u32>)> {
        let start = self.text.at;
        self.text.at += 1;
        let min = self.count()?;
        let max = if !self.text.take(",") {
            Some(min)
        } else if self.text.rest().trim_start().starts_with('}') {
            self.text.at += self.text.rest().len() - self.text.rest().trim_start().len();
            None
        } else {
            Some(self.count()?)
        };
        if self.text.peek() != Some('}') {
            return self.error("\"}\" is expected here");
        }
        if max.is_some_and(|max| max < min) {
            return Err(self.error_at(start, "the repetition's largest count is below its smallest"));
        }
        Ok((min, max))
    }

    fn count(&mut self) -> Result<u32> {
        self.text.at += self.text.rest().len() - self.text.rest().trim_start().len();
        let rest = self.text.rest();
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        match digits.parse() {
            Ok(count) => {
                let rest = &rest[digits.len()..];
                self.text.at += digits.len() + rest.len() - rest.trim_start().len();
                Ok(count)
            }
            Err(_) if digits.is_empty() => self.error("a repetition count is expected here"),
            Err(_) => self.error("the repetition count is too large"),
        }
    }

    fn dot(&self) -> Expr {
        let none: &[u32] = match (self.flags.dot_is_all, self.flags.crlf) {
            (true, _) => &[],
            _ if self.ecma && self.flags.unicode => &[0x0A, 0x0D, 0x2028, 0x2029],
            (false, true) => &[0x0A, 0x0D],
            (false, false) => &[0x0A],
        };
        let none = Set::new(none.iter().map(|&code| (code, code)).collect());
        self.one_of(&none.negate(self.flags.last()))
    }

    /// One member of a class.
    fn one_of(&self, set: &Set) -> Expr {
        if self.flags.unicode {
            Expr::CharClass(set.chars())
        } else {
            Expr::ByteClass(set.ranges().iter().map(|&(first, last)| (first as u8, last as u8)).collect())
        }
    }

    fn character(&mut self, c: char) -> Expr {
        let one = Set::new(vec![(c as u32, c as u32)]);
        let cased = if c.is_ascii() || self.flags.unicode { self.folded(one.clone()) } else { one.clone() };
        if cased == one { Expr::text(c.encode_utf8(&mut [0; 4])) } else { self.one_of(&cased) }
    }

    /// Under the flag `i`, the set and what differs from a member by its case alone.
    fn folded(&mut self, set: Set) -> Set {
        if !self.flags.any_case {
            return set;
        }
        if self.flags.unicode {
            return self.cases.get_or_insert_with(Cases::new).close(set);
        }
        let other = |c: u32| match c as u8 {
            c @ (b'a'..=b'z' | b'A'..=b'Z') => u32::from(c ^ 0x20),
            c => c.into(),
        };
        let ascii = set.intersection(&Set::new(vec![(0, 0x7F)]));
        let more =
            ascii.ranges().iter().flat_map(|&(first, last)| first..=last).map(|c| (other(c), other(c)));
        let more = Set::new(more.collect());
        set.union(more)
    }

    /// A backslash and what belongs to it.
    fn escape(&mut self) -> Result<Escape> {
        let start = self.text.at;
        self.text.at += 1;
        Ok(match self.text.next() {
            None => return Err(self.error_at(start, "a backslash with nothing after it")),
            Some('0'..='9') => return self.unsupported(start, "a reference to a group is not supported"),
            Some(c @ ('x' | 'u' | 'U')) => return self.code(start, c),
            Some(c @ ('p' | 'P')) => {
                let set = self.property(start)?;
                Escape::Class(if c == 'P' { set.negate(LAST_CHAR) } else { set })
            }
            Some(c @ ('d' | 's' | 'w')) => Escape::Class(self.named(c)),
            Some(c @ ('D' | 'S' | 'W')) => {
                Escape::Class(self.named(c.to_ascii_lowercase()).negate(self.flags.last()))
            }
            Some('a') => Escape::Char('\x07'),
            Some('f') => Escape::Char('\x0C'),
            Some('t') => Escape::Char('\t'),
            Some('n') => Escape::Char('\n'),
            Some('r') => Escape::Char('\r'),
            Some('v') => Escape::Char('\x0B'),
            Some('A') => Escape::Start,
            Some('z') => Escape::End,
            Some('b' | 'B' | '<' | '>') => Escape::Word,
            Some(c) if c.is_ascii() && !c.is_ascii_alphanumeric() => Escape::Char(c),
            Some(_) => return Err(self.error_at(start, "an unknown escape")),
        })
    }

    /// The number after `\x`, `\u` or `\U`: so many digits, or any in braces.
    fn code(&mut self, start: usize, kind: char) -> Result<Escape> {
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            _ => 8,
        };
        let rest = self.text.rest();
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let (hex, len) = match braced {
            Some((hex, _)) => (hex, hex.len() + 2),
            None => (rest.get(..digits).unwrap_or_default(), digits),
        };
        let number = Some(hex).filter(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = number.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match number.map(|number| (number, char::from_u32(number))) {
            Some((number, Some(c))) => {
                self.text.at += len;
                let is_byte = kind == 'x' && braced.is_none() && !self.flags.unicode && number > 0x7F;
                Ok(if is_byte { Escape::Byte(number as u8) } else { Escape::Char(c) })
            }
            _ => Err(self.error_at(start, "an escape that needs the hexadecimal number of a character")),
        }
    }

    /// A class of the name `\d`, `\s` or `\w`.
    fn named(&mut self, name: char) -> Set {
        if self.flags.unicode && (!self.ecma || name == 's') {
            let set = self.known.entry(name.into()).or_insert_with(|| unicode::perl(name)).clone();
            if !self.ecma {
                return set;
            }
            // The mark of byte order is a blank there, and the next line is none.
            return set.difference(&Set::new(vec![(0x85, 0x85)])).union(Set::new(vec![(0xFEFF, 0xFEFF)]));
        }
        ascii_class(match name {
            'd' => "digit",
            's' => "space",
            _ => "word",
        })
        .expect("it is there")
    }

    /// What stands after `\p`: a letter, or a name in braces.
    fn property(&mut self, start: usize) -> Result<Set> {
        if !self.flags.unicode {
            return Err(self.error_at(start, "a class of characters, where bytes are matched"));
        }
        let name = match self.text.next() {
            Some('{') => match self.text.rest().split_once('}') {
                Some((name, _)) => {
                    self.text.at += name.len() + 1;
                    name
                }
                None => return Err(self.error_at(start, "\"{\" without \"}\"")),
            },
            Some(c) => &self.text.source[self.text.at - c.len_utf8()..self.text.at],
            None => return Err(self.error_at(start, "the name of a class is expected after it")),
        };
        if !self.known.contains_key(name) {
            let Some(set) = unicode::property(name) else {
                let known = "of Unicode, there are the general categories, such as L and Lu, and the scripts";
                let what = format!("the class \\p{{{name}}} is not supported: {known}");
                return self.unsupported(start, &what);
            };
            self.known.insert(name.into(), set);
        }
        Ok(self.folded(self.known[name].clone()))
    }

    /// A class in brackets.
    fn class(&mut self) -> Result<Set> {
        let start = self.text.at;
        let unclosed = "\"[\" without \"]\"";
        self.enter()?;
        self.text.at += 1;
        self.skip_space();
        let negate = self.text.take("^");
        self.skip_space();
        let mut ranges = Vec::new();
        while self.text.take("-") {
            ranges.push((0x2D, 0x2D));
            self.skip_space();
        }
        if ranges.is_empty() && self.text.take("]") {
            ranges.push((0x5D, 0x5D));
        }
        // What stands on the left of an operator, and the operator.
        let mut left: Option<(Set, &str)> = None;
        loop {
            self.skip_space();
            let operator =
                ["&&", "--", "~~"].into_iter().find(|operator| self.text.rest().starts_with(operator));
            let at = self.text.at;
            match self.text.peek() {
                None => return Err(self.error_at(start, unclosed)),
                Some(']') => break,
                Some('[') => {
                    let set = match self.bracketed_name() {
                        Some(set) => set,
                        None => self.class()?,
                    };
                    ranges.extend(set.ranges());
                }
                Some(_) if operator.is_some() => {
                    self.text.at += 2;
                    let right = Set::new(std::mem::take(&mut ranges));
                    left = Some((self.combined(left, right), operator.expect("checked")));
                }
                Some(_) => {
                    let first = match self.member()? {
                        Err(set) => {
                            ranges.extend(set.ranges());
                            if self.begins_range() {
                                return Err(self.error_at(at, "a range begins with a class"));
                            }
                            continue;
                        }
                        Ok(first) => first,
                    };
                    let mut last = first;
                    if self.begins_range() {
                        self.text.at += 1;
                        self.skip_space();
                        if self.text.peek().is_none() {
                            return Err(self.error_at(start, unclosed));
                        }
                        let Ok(end) = self.member()? else {
                            return Err(self.error_at(at, "a range ends with a class"));
                        };
                        last = end;
                    }
                    if last < first {
                        return Err(self.error_at(at, "the range ends before it begins"));
                    }
                    ranges.push((first, last));
                }
            }
        }
        self.text.at += 1;
        self.depth -= 1;
        let set = self.combined(left, Set::new(ranges));
        let set = self.folded(set);
        Ok(if negate { set.negate(self.flags.last()) } else { set })
    }

    /// Whether a `-` that makes a range comes next, behind blanks under the flag `x`.
    fn begins_range(&mut self) -> bool {
        self.skip_space();
        if !self.text.rest().starts_with('-') {
            return false;
        }
        let dash = self.text.at;
        self.text.at += 1;
        self.skip_space();
        let found = !self.text.rest().starts_with([']', '-']);
        self.text.at = dash;
        found
    }

    fn combined(&mut self, left: Option<(Set, &str)>, right: Set) -> Set {
        let Some((left, operator)) = left else { return right };
        let (left, right) = (self.folded(left), self.folded(right));
        match operator {
            "&&" => left.intersection(&right),
            "--" => left.difference(&right),
            _ => left.difference(&right).union(right.difference(&left)),
        }
    }

    /// One member of a class in brackets by its number, or a class within it.
    fn member(&mut self) -> Result<std::result::Result<u32, Set>> {
        let at = self.text.at;
        let c = match self.text.peek() {
            Some('\\') => match self.escape()? {
                Escape::Char(c) => c,
                Escape::Byte(byte) => return Ok(Ok(byte.into())),
                Escape::Class(set) => return Ok(Err(set)),
                _ => return Err(self.error_at(at, "no anchor may stand in a class")),
            },
            _ => self.text.next().expect("the caller saw a character"),
        };
        if !self.flags.unicode && !c.is_ascii() {
            return Err(self.error_at(at, "a character that is not ASCII, where bytes are matched"));
        }
        Ok(Ok(c as u32))
    }

    /// `[:name:]` or `[:^name:]`, else nothing, and then nothing was read.
    fn bracketed_name(&mut self) -> Option<Set> {
        let (name, _) = self.text.rest().strip_prefix("[:")?.split_once(":]")?;
        let set = match name.strip_prefix('^') {
            Some(name) => ascii_class(name)?.negate(self.flags.last()),
            None => ascii_class(name)?,
        };
        self.text.at += name.len() + 4;
        Some(set)
    }
}

/// The class that `[:name:]` is.
fn ascii_class(name: &str) -> Option<Set> {
    let is_word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let holds: fn(&u8) -> bool = match name {
        "alnum" => u8::is_ascii_alphanumeric,
        "alpha" => u8::is_ascii_alphabetic,
        "ascii" => u8::is_ascii,
        "blank" => |c| matches!(c, b' ' | b'\t'),
        "cntrl" => u8::is_ascii_control,
        "digit" => u8::is_ascii_digit,
        "graph" => u8::is_ascii_graphic,
        "lower" => u8::is_ascii_lowercase,
        "print" => |c| matches!(c, b' '..=b'~'),
        "punct" => u8::is_ascii_punctuation,
        "space" => |c| matches!(c, b'\t'..=b'\r' | b' '),
        "upper" => u8::is_ascii_uppercase,
        "word" => is_word,
        "xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    };
    Some(Set::new((0..128).filter(holds).map(|c| (c.into(), c.into())).collect()))
}
