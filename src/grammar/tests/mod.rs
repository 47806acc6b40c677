//! Grammars against independent matchers.

mod definition;
mod gbnf;
mod json_schema;
mod regex;

use super::cursor::Cursor;
use super::*;
use crate::rng::{Stream, words};

fn grammar(kind: GrammarKind, source: &str) -> Grammar {
    Grammar::new(kind, source).unwrap_or_else(|e| panic!("{source:?}: {e}"))
}

fn allowed_bytes(cursor: &Cursor) -> Vec<u8> {
    (0..=255).filter(|b| program::contains(cursor.allowed(), *b)).collect()
}

/// A walk over allowed bytes that stops at complete texts now and then. Panics where it is stuck.
fn random_walk(grammar: &Grammar, seed: u64) -> Option<Vec<u8>> {
    let mut cursor = grammar.cursor().unwrap();
    let mut text = Vec::new();
    for i in 0..400 {
        let [a, b, c, ..] = words(seed, Stream::Dummy, 7, i);
        let allowed = allowed_bytes(&cursor);
        assert!(
            cursor.is_complete() || !allowed.is_empty(),
            "stuck after {:?}",
            String::from_utf8_lossy(&text)
        );
        if cursor.is_complete() && (allowed.is_empty() || a % 4 == 0) {
            return Some(text);
        }
        // Closing brackets and quotes more often than others, and what the patterns of the tests look for, so that
        // walks end.
        let wanted = if i % 50 < 10 { &b"])}\""[..] } else { "])}\"x\\é".as_bytes() };
        let closing: Vec<u8> = allowed.iter().copied().filter(|b| wanted.contains(b)).collect();
        let choice = if (b % 3 == 0 || i > 60) && !closing.is_empty() { &closing } else { &allowed };
        let byte = choice[c as usize % choice.len()];
        assert!(cursor.advance(byte).unwrap());
        text.push(byte);
    }
    None
}

/// Texts of random walks; most walks end.
fn walks(grammar: &Grammar, n: u64) -> Vec<Vec<u8>> {
    let texts: Vec<_> = (0..n).filter_map(|seed| random_walk(grammar, seed)).collect();
    assert!(texts.len() as u64 * 4 >= n, "only {} of {n} walks ended: {grammar:?}", texts.len());
    texts
}

#[test]
fn sources_without_bound_are_refused_and_quickly() {
    let deep = "(".repeat(100_000);
    let wide = "\\w\\pL".repeat(3_000);
    // Small ones, each of many ranges.
    let patterns =
        format!("{{\"anyOf\":[{}]}}", vec![r#"{"type":"string","pattern":"\\w\\PL"}"#; 20_000].join(","));
    // Few places that many alternatives share, again and again.
    let shared = format!("root ::= ({}){{200}}", vec![format!("\"{}\"", "a".repeat(1000)); 1000].join("|"));
    let long_name = format!("root ::= \"{}\"", "x".repeat(900_000));
    for (kind, source) in [
        (GrammarKind::Regex, &*deep),
        (GrammarKind::Regex, &*wide),
        (GrammarKind::Regex, "(((a{1000}){1000}){1000}){1000}"),
        (GrammarKind::Regex, "a{0,4000000000}"),
        (GrammarKind::Gbnf, &*format!("root ::= {deep}")),
        (GrammarKind::Gbnf, "root ::= (((\"\"{100000}){100000}){100000}){100000}"),
        (GrammarKind::Gbnf, &*format!("root ::= \"a\"{}", "*".repeat(100_000))),
        (GrammarKind::Gbnf, &long_name),
        (GrammarKind::Gbnf, &shared),
        (GrammarKind::JsonSchema, &*patterns),
        (GrammarKind::JsonSchema, &*"[".repeat(100_000)),
        (GrammarKind::JsonSchema, &*"{\"items\":".repeat(100_000)),
        (GrammarKind::JsonSchema, r#"{"type":"string","minLength":4000000000}"#),
        (GrammarKind::JsonSchema, r#"{"type":"array","items":{"type":"null"},"maxItems":4294967295}"#),
        (GrammarKind::Regex, &"a".repeat(MAX_SOURCE_BYTES + 1)),
    ] {
        let error = Grammar::new(kind, source).unwrap_err();
        assert!(!error.message().is_empty() && error.message().len() < 500, "{kind:?}: {error}");
    }
}

#[test]
fn an_ambiguous_grammar_is_an_answer_or_an_error_but_no_hang() {
    // Exponentially many parses, and cubic ones.
    for source in [
        "root ::= root root | \"a\" | \"\"",
        "root ::= a a a a a a a a\na ::= \"x\"* a? \"x\"*",
        "root ::= \"a\" root \"a\" | \"a\" root | root \"a\" | \"a\"",
    ] {
        let grammar = grammar(GrammarKind::Gbnf, source);
        let mut cursor = grammar.cursor().unwrap();
        let byte = allowed_bytes(&cursor)[0];
        for _ in 0..300 {
            match cursor.advance(byte) {
                Ok(taken) => assert!(taken && cursor.is_complete()),
                Err(_) => break,
            }
        }
    }
}

#[test]
fn memory_does_not_grow_with_the_text() {
    for source in [
        "root ::= item root | item\nitem ::= \"a\" | \"b\"",
        "root ::= root item | item\nitem ::= \"a\" | \"b\"",
        "root ::= (item (\"a\" | item))*\nitem ::= [ab] tail\ntail ::= \"\" | \"b\" tail",
        "root ::= \"b\"* list\nlist ::= \"a\" list | (\"b\" | \"a\") list | \"\"",
    ] {
        let grammar = grammar(GrammarKind::Gbnf, source);
        let mut cursor = grammar.cursor().unwrap();
        let mut largest = 0;
        for i in 0..20_000u32 {
            assert!(cursor.advance(if i.count_ones() % 2 == 0 { b'a' } else { b'b' }).unwrap());
            largest = largest.max(if i % 1000 == 0 { cursor.live_nodes() } else { 0 });
        }
        assert!(largest < 30, "{source}: {largest} nodes");
    }
}

#[test]
fn nesting_is_bounded_by_an_error_that_changes_nothing() {
    let grammar = grammar(GrammarKind::Gbnf, "root ::= \"(\" root \")\" | \"\"");
    let mut cursor = grammar.cursor().unwrap();
    let mut depth = 0u64;
    let error = loop {
        match cursor.advance(b'(') {
            Ok(taken) => assert!(taken),
            Err(error) => break error,
        }
        depth += 1;
    };
    assert!(error.message().contains("deep"), "{error}");
    assert!(depth > 100_000);
    for _ in 0..depth {
        assert!(!cursor.is_complete() || depth == 0);
        assert!(cursor.advance(b')').unwrap());
    }
    assert!(cursor.is_complete());
    assert!(allowed_bytes(&cursor).is_empty());
}
