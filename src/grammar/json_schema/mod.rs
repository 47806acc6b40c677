//! JSON Schema: the texts of one JSON value that a schema describes.
//!
//! Every text of the grammar is valid under the schema. The reverse does not hold: of all the ways to write a value, one
//! is chosen, so that a small model is led and not lost.
//!
//! # What is read
//! - `true`, `false`, `{}`; `type` (a name or several), `const`, `enum`, `anyOf`, `allOf` of one schema, `oneOf` where its
//!   schemas plainly exclude each other (by type or by value), `$ref` to `#` or a place in the same document, recursive
//!   too.
//! - strings: `minLength`, `maxLength`, or `pattern` (Rust's `regex` syntax, found anywhere unless anchored; `.`, `\d`, `\s`
//!   and `\w` as in ECMAScript).
//! - integers: `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`. Numbers of every kind have bounded digits.
//! - arrays: `items`, `prefixItems`, `minItems`, `maxItems`.
//! - objects: `properties`, `required`, `additionalProperties`.
//! - Annotations (`title`, `description`, `default`, `examples`, `$schema`, `$id`, `$comment`, …) change nothing.
//!
//! Any other keyword is an error that names it. Where `type` is missing, the other keywords tell it.
//!
//! # How it is written
//! Properties come in the order of the schema. Others come after them, where `additionalProperties` asks for them by
//! `true` or a schema (left out, it allows none here), with names that are none of the declared ones and need no escape.
//! Between tokens there may be one space, or a line end and up to 16 blanks. `const` and `enum` values are written
//! without blanks.

mod composite;
mod json;
mod number;
mod string;

use std::collections::{HashMap, HashSet};

use super::expr::{Expr, Rules};
use crate::error::{Error, ErrorKind, Result};
use json::Json;

/// Different places that references name at most.
const MAX_REFERENCES: usize = 4096;
/// Alternatives of a `oneOf` at most: each pair of them is compared.
const MAX_ONE_OF: usize = 256;

const ANNOTATIONS: [&str; 14] = [
    "$schema",
    "$id",
    "$anchor",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// For each type, the keywords that are read.
const KEYWORDS: [(&str, &[&str]); 7] = [
    ("null", &[]),
    ("boolean", &[]),
    ("integer", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
    ("number", &[]),
    ("string", &["minLength", "maxLength", "pattern"]),
    ("array", &["items", "prefixItems", "minItems", "maxItems"]),
    ("object", &["properties", "required", "additionalProperties"]),
];

/// Reads a schema.
pub(super) fn parse(source: &str) -> Result<Rules> {
    let root: Json =
        serde_json::from_str(source).map_err(|e| Error::format(format!("JSON Schema: is not JSON: {e}")))?;
    let mut builder = Builder {
        root: &root,
        rules: Vec::new(),
        references: HashMap::new(),
        pending: Vec::new(),
        any: None,
        pattern_bytes: 0,
    };
    let rule = builder.reference("#", "#")?;
    while let Some((number, place, schema)) = builder.pending.pop() {
        builder.rules[number] = builder.schema(schema, &place)?;
    }
    Ok(Rules { list: builder.rules, root: rule })
}

/// The most bytes of all patterns together: two may name a class of hundreds of ranges, which take kilobytes.
const MAX_PATTERN_BYTES: usize = 32 << 10;

struct Builder<'a> {
    root: &'a Json,
    rules: Vec<Expr>,
    /// The rules of the places that are referred to.
    references: HashMap<String, usize>,
    /// Rules that are still to be made: number, place, schema.
    pending: Vec<(usize, String, &'a Json)>,
    /// The rule of any value.
    any: Option<usize>,
    /// Of all patterns so far.
    pattern_bytes: usize,
}

fn unsupported(place: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("JSON Schema: {place}: {what}"))
}

fn malformed(place: &str, what: impl std::fmt::Display) -> Error {
    Error::format(format!("JSON Schema: {place}: {what}"))
}

/// Blanks between tokens.
fn space() -> Expr {
    let indent = Expr::ByteClass(vec![(b' ', b' '), (b'\t', b'\t')]).repeat(0, Some(16));
    Expr::Alt(vec![Expr::Empty, Expr::text(" "), Expr::Concat(vec![Expr::text("\n"), indent])])
}

/// `body` between brackets, with blanks inside.
fn enclosed(open: &str, body: Expr, close: &str) -> Expr {
    Expr::Concat(vec![Expr::text(open), space(), body, space(), Expr::text(close)])
}

/// A comma, blanks, and what follows.
fn after_comma(body: Expr) -> Expr {
    Expr::Concat(vec![Expr::text(","), space(), body])
}

fn literal(value: &Json) -> Expr {
    let mut text = String::new();
    value.write(&mut text);
    Expr::Bytes(text.into_bytes())
}

fn is_of_type(value: &Json, name: &str) -> bool {
    match value {
        // 1.0 is one, too.
        Json::Number(n) if name == "integer" => n.as_f64().is_some_and(|value| value.fract() == 0.0),
        other => other.type_name() == name,
    }
}

/// Whether the value of a keyword is a count, and which.
fn count(schema: &Json, key: &str, place: &str) -> Result<Option<u32>> {
    match schema.get(key) {
        None => Ok(None),
        Some(Json::Number(n)) => match n.as_u64().map(u32::try_from) {
            Some(Ok(n)) => Ok(Some(n)),
            _ => Err(malformed(place, format_args!("{key:?} = {n} is not a count that is possible here"))),
        },
        Some(_) => Err(malformed(place, format_args!("{key:?} is not a number"))),
    }
}

/// A part of a URI as it is meant: `%` and two hexadecimal digits are a byte.
fn percent_decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|hex| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let code = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl<'a> Builder<'a> {
    fn add(&mut self, expr: Expr) -> usize {
        self.rules.push(expr);
        self.rules.len() - 1
    }

    /// The rule of a place that `$ref` names.
    fn reference(&mut self, pointer: &str, place: &str) -> Result<usize> {
        if let Some(number) = self.references.get(pointer) {
            return Ok(*number);
        }
        if self.references.len() >= MAX_REFERENCES {
            return Err(unsupported(place, format_args!("more than {MAX_REFERENCES} different $ref")));
        }
        let path =
            pointer.strip_prefix('#').filter(|path| path.is_empty() || path.starts_with('/')).ok_or_else(
                || unsupported(place, format_args!("$ref {pointer:?} is not to a place of this document")),
            )?;
        let path = percent_decoded(path);
        let mut schema = self.root;
        for key in path.split('/').skip(1) {
            let key = key.replace("~1", "/").replace("~0", "~");
            let inner = match schema {
                Json::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
                other => other.get(&key),
            };
            schema = inner
                .ok_or_else(|| malformed(place, format_args!("$ref {pointer:?}: there is no {key:?}")))?;
        }
        let number = self.add(Expr::Empty);
        self.references.insert(pointer.to_string(), number);
        self.pending.push((number, pointer.to_string(), schema));
        Ok(number)
    }

    /// A rule of its own for a schema inside another.
    fn sub(&mut self, schema: &'a Json, place: &str) -> Result<Expr> {
        let expr = self.schema(schema, place)?;
        Ok(match expr {
            Expr::Rule(_) => expr,
            other => Expr::Rule(self.add(other)),
        })
    }

    /// Any JSON value.
    fn any(&mut self) -> Expr {
        if let Some(any) = self.any {
            return Expr::Rule(any);
        }
        let any = self.add(Expr::Empty);
        self.any = Some(any);
        let text = Expr::Rule(self.add(string::of_length(string::character(), 0, None)));
        let member = Expr::Concat(vec![text.clone(), Expr::text(":"), space(), Expr::Rule(any)]);
        let list =
            |item: Expr| Expr::Concat(vec![item.clone(), after_comma(item).repeat(0, None)]).optional();
        self.rules[any] = Expr::Alt(vec![
            Expr::text("null"),
            Expr::text("true"),
            Expr::text("false"),
            number::number(),
            text,
            enclosed("[", list(Expr::Rule(any)), "]"),
            enclosed("{", list(member), "}"),
        ]);
        Expr::Rule(any)
    }

    fn schema(&mut self, schema: &'a Json, place: &str) -> Result<Expr> {
        let members = match schema {
            Json::Bool(true) => return Ok(self.any()),
            Json::Bool(false) => return Ok(Expr::Alt(Vec::new())),
            Json::Object(members) => members,
            _ => return Err(malformed(place, "a schema is an object, true or false")),
        };
        let keys: Vec<&str> =
            members.iter().map(|(key, _)| key.as_str()).filter(|key| !ANNOTATIONS.contains(key)).collect();
        if keys.is_empty() {
            return Ok(self.any());
        }
        for single in ["$ref", "anyOf", "oneOf", "allOf"] {
            if let Some(value) = schema.get(single) {
                if let Some(other) = keys.iter().find(|key| **key != single) {
                    return Err(unsupported(
                        place,
                        format_args!("{other:?} beside {single:?} is not supported"),
                    ));
                }
                return self.combined(single, value, &format!("{place}/{single}"));
            }
        }
        let known = |key: &&str| {
            ["type", "const", "enum"].contains(key) || KEYWORDS.iter().any(|(_, known)| known.contains(key))
        };
        if let Some(unknown) = keys.iter().find(|key| !known(key)) {
            return Err(unsupported(place, format_args!("the keyword {unknown:?} is not supported")));
        }
        let types = types(schema, &keys, place)?;
        if schema.get("const").is_some() || schema.get("enum").is_some() {
            let allowed = |key: &&&str| ["type", "const", "enum"].contains(*key);
            if let Some(other) = keys.iter().find(|key| !allowed(key)) {
                return Err(unsupported(
                    place,
                    format_args!("{other:?} beside fixed values is not supported"),
                ));
            }
            let values = values(schema, place)?;
            let fits = |value: &&&Json| types.is_empty() || types.iter().any(|name| is_of_type(value, name));
            return Ok(Expr::Alt(values.iter().filter(fits).map(|value| literal(value)).collect()));
        }
        let alternatives =
            types.iter().map(|name| self.of_type(name, schema, place)).collect::<Result<Vec<_>>>()?;
        Ok(Expr::Alt(alternatives))
    }

    /// `$ref`, `anyOf`, `oneOf` and `allOf`.
    fn combined(&mut self, keyword: &str, value: &'a Json, place: &str) -> Result<Expr> {
        if keyword == "$ref" {
            let Json::String(pointer) = value else { return Err(malformed(place, "is not a string")) };
            return Ok(Expr::Rule(self.reference(pointer, place)?));
        }
        let Json::Array(schemas) = value else { return Err(malformed(place, "is not an array")) };
        if schemas.is_empty() {
            return Err(malformed(place, "is empty"));
        }
        if keyword == "allOf" && schemas.len() > 1 {
            return Err(unsupported(place, "more than one schema is not supported"));
        }
        if keyword == "oneOf" {
            if schemas.len() > MAX_ONE_OF {
                return Err(unsupported(place, format_args!("more than {MAX_ONE_OF} schemas; say anyOf")));
            }
            let told: Vec<Told> = schemas.iter().map(Told::of).collect();
            for (i, a) in told.iter().enumerate() {
                if let Some(j) = told[..i].iter().position(|b| !a.excludes(b)) {
                    return Err(unsupported(
                        place,
                        format_args!("schemas {j} and {i} may both hold for one value; say anyOf"),
                    ));
                }
            }
        }
        let parts = schemas.iter().enumerate().map(|(i, s)| self.sub(s, &format!("{place}/{i}")));
        Ok(Expr::Alt(parts.collect::<Result<_>>()?))
    }

    fn of_type(&mut self, name: &str, schema: &'a Json, place: &str) -> Result<Expr> {
        match name {
            "null" => Ok(Expr::text("null")),
            "boolean" => Ok(Expr::Alt(vec![Expr::text("true"), Expr::text("false")])),
            "number" => match KEYWORDS[2].1.iter().find(|key| schema.get(key).is_some()) {
                Some(key) => Err(unsupported(place, format_args!("{key:?} is supported for integers alone"))),
                None => Ok(number::number()),
            },
            "integer" => integer(schema, place),
            "string" => self.string(schema, place),
            "array" => self.array(schema, place),
            "object" => self.object(schema, place),
            _ => Err(malformed(place, format_args!("there is no type {name:?}"))),
        }
    }

    fn string(&mut self, schema: &Json, place: &str) -> Result<Expr> {
        let (min, max) = (count(schema, "minLength", place)?, count(schema, "maxLength", place)?);
        match schema.get("pattern") {
            None => {
                let character = Expr::Rule(self.add(string::character()));
                bounded(character, min, max, place, string::of_length)
            }
            Some(Json::String(pattern)) if min.is_none() && max.is_none() => {
                self.pattern_bytes += pattern.len();
                if self.pattern_bytes > MAX_PATTERN_BYTES {
                    let what = format!("the patterns have more than {MAX_PATTERN_BYTES} bytes together");
                    return Err(malformed(place, what));
                }
                string::matching(pattern).map_err(|e| e.at(format_args!("JSON Schema: {place}/pattern")))
            }
            Some(Json::String(_)) => Err(unsupported(place, "\"pattern\" beside a length is not supported")),
            Some(_) => Err(malformed(place, "\"pattern\" is not a string")),
        }
    }
}

/// The types of a schema's values; empty where fixed values tell it.
fn types<'a>(schema: &'a Json, keys: &[&str], place: &str) -> Result<Vec<&'a str>> {
    let name = |value: &'a Json| match value {
        Json::String(name) if KEYWORDS.iter().any(|(known, _)| known == name) => Ok(name.as_str()),
        other => {
            let mut text = String::new();
            other.write(&mut text);
            Err(malformed(place, format_args!("\"type\": there is no type {text}")))
        }
    };
    match schema.get("type") {
        Some(Json::Array(names)) => {
            let mut names = names.iter().map(name).collect::<Result<Vec<_>>>()?;
            if names.contains(&"number") {
                names.retain(|name| *name != "integer");
            }
            Ok(names)
        }
        Some(single) => Ok(vec![name(single)?]),
        None if keys.contains(&"const") || keys.contains(&"enum") => Ok(Vec::new()),
        None => {
            let told: Vec<&str> = KEYWORDS
                .iter()
                .filter(|(_, known)| keys.iter().any(|key| known.contains(key)))
                .map(|(name, _)| *name)
                .collect();
            match told[..] {
                [only] => Ok(vec![only]),
                _ => Err(unsupported(place, "\"type\" is missing, and keywords of several types are there")),
            }
        }
    }
}

/// The fixed values of a schema.
fn values<'a>(schema: &'a Json, place: &str) -> Result<Vec<&'a Json>> {
    let listed = match schema.get("enum") {
        None => None,
        Some(Json::Array(values)) => Some(values),
        Some(_) => return Err(malformed(place, "\"enum\" is not an array")),
    };
    Ok(match (schema.get("const"), listed) {
        (Some(value), None) => vec![value],
        (Some(value), Some(listed)) => {
            let key = value.key();
            listed.iter().filter(|other| other.key() == key).take(1).collect()
        }
        (None, Some(listed)) => listed.iter().collect(),
        (None, None) => Vec::new(),
    })
}

/// What a schema plainly tells of its values; `None` where it does not.
struct Told {
    /// The keys of fixed ones.
    values: Option<HashSet<String>>,
    types: Option<HashSet<&'static str>>,
}

impl Told {
    fn of(schema: &Json) -> Told {
        let fixed = values(schema, "").unwrap_or_default();
        let is_fixed = schema.get("const").is_some() || schema.get("enum").is_some();
        // A type that other keywords merely suggest excludes nothing.
        let names: Option<Vec<&str>> = match schema.get("type") {
            Some(_) => types(schema, &[], "").ok(),
            None => {
                Some(fixed.iter().map(|v| v.type_name()).collect()).filter(|names: &Vec<_>| !names.is_empty())
            }
        };
        // An integer is a number, and 1.0 is an integer.
        let known = |name: &str| KEYWORDS.iter().find(|(known, _)| *known == name).map(|(known, _)| *known);
        let folded = |name: &&str| known(if *name == "integer" { "number" } else { name });
        Told {
            values: is_fixed.then(|| fixed.iter().map(|value| value.key()).collect()),
            types: names.and_then(|names| names.iter().map(folded).collect()),
        }
    }

    /// Whether plainly no value fits both.
    fn excludes(&self, other: &Told) -> bool {
        if let (Some(a), Some(b)) = (&self.values, &other.values) {
            return a.is_disjoint(b);
        }
        matches!((&self.types, &other.types), (Some(a), Some(b)) if a.is_disjoint(b))
    }
}

fn integer(schema: &Json, place: &str) -> Result<Expr> {
    let (mut low, mut high) = (-number::MAX_INTEGER, number::MAX_INTEGER);
    for (key, is_low, exclusive) in [
        ("minimum", true, false),
        ("exclusiveMinimum", true, true),
        ("maximum", false, false),
        ("exclusiveMaximum", false, true),
    ] {
        let bound = match schema.get(key) {
            None => continue,
            Some(Json::Number(bound)) => bound,
            Some(_) => return Err(malformed(place, format_args!("{key:?} is not a number"))),
        };
        // The nearest integer within; numbers beyond 64 bits saturate, which the clamp below takes in.
        let (mut nearest, is_whole) = match (bound.as_i64(), bound.as_f64()) {
            (Some(whole), _) => (whole, true),
            (None, Some(real)) => {
                ((if is_low { real.ceil() } else { real.floor() }) as i64, real.fract() == 0.0)
            }
            (None, None) => return Err(malformed(place, format_args!("{key:?} is not a number"))),
        };
        if exclusive && is_whole {
            // Among integers: of floating-point numbers, the next one may be more than one away.
            nearest = nearest.saturating_add(if is_low { 1 } else { -1 });
        }
        if is_low {
            low = low.max(nearest);
        } else {
            high = high.min(nearest);
        }
    }
    number::integers(low, high)
        .ok_or_else(|| malformed(place, format_args!("no integer that can be written is within its bounds")))
}

/// A repetition between two counts, which must not contradict each other.
fn bounded(
    item: Expr,
    min: Option<u32>,
    max: Option<u32>,
    place: &str,
    make: impl FnOnce(Expr, u32, Option<u32>) -> Expr,
) -> Result<Expr> {
    let min = min.unwrap_or(0);
    if max.is_some_and(|max| max < min) {
        return Err(malformed(place, "its largest length is below its smallest"));
    }
    Ok(make(item, min, max))
}
