//! As much of TOML as a configuration is made of: tables, numbers, words, truth values and lists. The whole of TOML would
//! be a tenth of the library's size. What the reader takes means the same to every TOML reader; dates, texts over several
//! lines and lists of tables, which no configuration has, are errors that name their line.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cursor::Cursor;

mod writer;

pub(crate) use writer::to_string;

/// How deep lists and tables within values may nest.
const MAX_NESTING: u32 = 16;

type Result<T> = std::result::Result<T, String>;

/// Reads a value from TOML text. The error is a sentence without an end.
pub(crate) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T> {
    let table = document(text)?;
    read(table.clone()).map_err(|error| match culprit::<T>(&table, &error) {
        Some(path) if !error.contains(&path) => format!("{error}, in the value of {path}"),
        _ => error,
    })
}

fn read<T: DeserializeOwned>(table: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(table)).map_err(|e| e.to_string())
}

/// The path of the value that an error is about: without it there is another error, or none.
fn culprit<T: DeserializeOwned>(table: &Map<String, Value>, error: &str) -> Option<String> {
    let is_about = |table| !matches!(read::<T>(table), Err(other) if other == error);
    for (name, value) in table {
        let mut without = table.clone();
        without.remove(name);
        if !is_about(without) {
            continue;
        }
        for inner in value.as_object().into_iter().flatten().map(|(inner, _)| inner) {
            let mut without = table.clone();
            without[name].as_object_mut().expect("it was one above").remove(inner);
            if is_about(without) {
                return Some(format!("{name}.{inner}"));
            }
        }
        return Some(name.clone());
    }
    None
}

struct Reader<'a> {
    text: Cursor<'a>,
}

/// The table that a text is.
fn document(text: &str) -> Result<Map<String, Value>> {
    let mut reader = Reader { text: Cursor::new(text) };
    let mut root = Map::new();
    let mut path = Vec::new();
    let mut headers = HashSet::new();
    loop {
        reader.skip_lines();
        if reader.text.rest().is_empty() {
            return Ok(root);
        }
        if reader.text.take("[") {
            path = reader.key()?;
            reader.expect("]")?;
            if !headers.insert(path.clone()) {
                return reader.error(&format!("the table {} is there twice", path.join(".")));
            }
            reader.table(&mut root, &path)?;
        } else {
            let table = reader.table(&mut root, &path)?;
            reader.entry(table, 0)?;
        }
        reader.skip_blanks();
        if !reader.text.rest().is_empty() && !reader.text.rest().starts_with(['\n', '\r', '#']) {
            return reader.error("the end of the line is expected here");
        }
    }
}

impl<'a> Reader<'a> {
    fn error<T>(&self, what: &str) -> Result<T> {
        Err(format!("line {}: {what}", self.text.source[..self.text.at].matches('\n').count() + 1))
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        self.skip_blanks();
        if self.text.take(text) { Ok(()) } else { self.error(&format!("\"{text}\" is expected here")) }
    }

    fn skip_blanks(&mut self) {
        self.text.skip(|c| matches!(c, ' ' | '\t'));
    }

    /// Blanks, line ends and comments.
    fn skip_lines(&mut self) {
        self.text.skip_with_comments(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
    }

    /// The table at a path, which is made where there is none.
    fn table<'t>(
        &self,
        mut table: &'t mut Map<String, Value>,
        path: &[String],
    ) -> Result<&'t mut Map<String, Value>> {
        for name in path {
            table = match table.entry(name).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(table) => table,
                _ => return self.error(&format!("{name} is a value and no table")),
            };
        }
        Ok(table)
    }

    /// `key = value`
    fn entry(&mut self, table: &mut Map<String, Value>, depth: u32) -> Result<()> {
        let mut path = self.key()?;
        self.expect("=")?;
        let value = self.value(depth).map_err(|e| format!("{e}, in the value of {}", path.join(".")))?;
        let name = path.pop().expect("a key has a name");
        let table = self.table(table, &path)?;
        if table.contains_key(&name) {
            return self.error(&format!("{name} is there twice"));
        }
        table.insert(name, value);
        Ok(())
    }

    /// Names with points between them.
    fn key(&mut self) -> Result<Vec<String>> {
        let mut path = Vec::new();
        loop {
            self.skip_blanks();
            let rest = self.text.rest();
            let len =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
            path.push(if len > 0 {
                self.text.at += len;
                rest[..len].to_string()
            } else if rest.starts_with(['"', '\'']) {
                self.word()?
            } else {
                return self.error("a name is expected here");
            });
            self.skip_blanks();
            if !self.text.take(".") {
                return Ok(path);
            }
        }
    }

    fn value(&mut self, depth: u32) -> Result<Value> {
        self.skip_blanks();
        if depth > MAX_NESTING {
            return self.error("lists and tables nest too deeply");
        }
        if self.text.rest().starts_with(['"', '\'']) {
            return self.word().map(Value::String);
        }
        if self.text.take("[") {
            let mut list = Vec::new();
            loop {
                self.skip_lines();
                if self.text.take("]") {
                    return Ok(Value::Array(list));
                }
                list.push(self.value(depth + 1)?);
                self.skip_lines();
                if !self.text.take(",") && !self.text.rest().starts_with(']') {
                    return self.error("\",\" or \"]\" is expected here");
                }
            }
        }
        if self.text.take("{") {
            let mut table = Map::new();
            self.skip_blanks();
            if self.text.take("}") {
                return Ok(Value::Object(table));
            }
            loop {
                self.entry(&mut table, depth + 1)?;
                self.skip_blanks();
                if self.text.take("}") {
                    return Ok(Value::Object(table));
                }
                self.expect(",")?;
            }
        }
        let rest = self.text.rest();
        let word = &rest[..rest.find([' ', '\t', '\r', '\n', ',', ']', '}', '#']).unwrap_or(rest.len())];
        let value = match word {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            number => self::number(number),
        };
        let Some(value) = value else {
            return self.error("a number, a text in quotes, true, false, a list or a table is expected here");
        };
        self.text.at += word.len();
        Ok(value)
    }

    /// A text in quotes, on one line.
    fn word(&mut self) -> Result<String> {
        let quote = self.text.peek().expect("the caller saw a quote");
        if self.text.rest().starts_with("\"\"\"") || self.text.rest().starts_with("'''") {
            return self.error("a text over several lines is not supported here");
        }
        self.text.at += 1;
        let mut word = String::new();
        loop {
            let Some(c) = self.text.peek().filter(|c| *c == '\t' || !c.is_control()) else {
                return self.error("the text in quotes does not end on its line");
            };
            self.text.at += c.len_utf8();
            match c {
                c if c == quote => return Ok(word),
                '\\' if quote == '"' => word.push(self.escape()?),
                c => word.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let c = self.text.peek().unwrap_or_default();
        self.text.at += c.len_utf8().min(self.text.rest().len());
        let digits = match c {
            'b' => return Ok('\x08'),
            't' => return Ok('\t'),
            'n' => return Ok('\n'),
            'f' => return Ok('\x0C'),
            'r' => return Ok('\r'),
            '"' | '\\' => return Ok(c),
            'u' => 4,
            'U' => 8,
            _ => return self.error("an unknown escape"),
        };
        let hex = self.text.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32) {
            Some(c) => {
                self.text.at += digits;
                Ok(c)
            }
            None => self.error("an escape that needs the hexadecimal number of a character"),
        }
    }
}

/// A decimal number as TOML writes it. Its digits may have single underscores between them.
fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix(['+', '-']) {
        Some(digits) => (&plain[..1], digits),
        None => ("", &*plain),
    };
    let is_digit = |b: Option<&u8>| b.is_some_and(u8::is_ascii_digit);
    let between =
        |i: usize| i > 0 && is_digit(text.as_bytes().get(i - 1)) && is_digit(text.as_bytes().get(i + 1));
    let end = digits.find(['.', 'e', 'E']).unwrap_or(digits.len());
    let (whole, fraction) = digits.split_at(end);
    let is_whole = !whole.is_empty()
        && whole.bytes().all(|b| b.is_ascii_digit())
        && (whole == "0" || !whole.starts_with('0'));
    if !is_whole || !text.match_indices('_').all(|(i, _)| between(i)) {
        return None;
    }
    if fraction.is_empty() {
        return match (sign, whole.parse::<u64>().ok()?) {
            ("-", value) => Some(0i64.checked_sub_unsigned(value)?.into()),
            (_, value) => i64::try_from(value).ok().map(Value::from),
        };
    }
    // A point has digits on both sides, an exponent on its right.
    let (decimals, exponent) = match fraction.find(['e', 'E']) {
        Some(e) => (&fraction[..e], Some(fraction[e + 1..].trim_start_matches(['+', '-']))),
        None => (fraction, None),
    };
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let decimals_are = decimals.is_empty() || decimals.strip_prefix('.').is_some_and(are_digits);
    if !decimals_are || !exponent.is_none_or(are_digits) {
        return None;
    }
    // So far it is as in JSON.
    serde_json::from_str::<f64>(plain.trim_start_matches('+')).ok().map(Value::from)
}

#[cfg(test)]
mod tests;
