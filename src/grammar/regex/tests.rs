//! The tables of Unicode and the parser, compared with the `regex` crate, and the making of the tables.

use std::path::Path;

use proptest::prelude::*;
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::unicode::{CATEGORY_NAMES, Cases, SCRIPT_NAMES, perl, property};
use crate::error::ErrorKind;
use crate::grammar::set::{LAST_CHAR, Set};
use crate::grammar::{Grammar, GrammarKind};

/// A class as the `regex` crate has it.
fn reference(class: &str) -> Set {
    let hir = regex_syntax::parse(class).unwrap_or_else(|e| panic!("{class}: {e}"));
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => set(class),
        HirKind::Literal(one) => {
            let code = u32::from(std::str::from_utf8(&one.0).unwrap().parse::<char>().unwrap());
            Set::new(vec![(code, code)])
        }
        other => panic!("{class}: {other:?}"),
    }
}

fn set(class: &ClassUnicode) -> Set {
    let ranges = class.ranges().iter().map(|range| (range.start().into(), range.end().into()));
    scalars(&Set::new(ranges.collect()))
}

/// A set without surrogates, which are no characters.
fn scalars(set: &Set) -> Set {
    set.difference(&Set::new(vec![(0xD800, 0xDFFF)]))
}

fn write_number(bytes: &mut Vec<u8>, mut value: u32) {
    while value > 0x7F {
        bytes.push(0x80 | value as u8);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').map(|entry| entry.split('/').next().unwrap())
}

/// For each character the number of the set that holds it.
fn numbers(classes: impl Iterator<Item = (u8, Set)>, fallback: u8) -> Vec<u8> {
    let mut numbers = vec![fallback; LAST_CHAR as usize + 1];
    for (number, set) in classes {
        for &(first, last) in set.ranges() {
            numbers[first as usize..=last as usize].fill(number);
        }
    }
    numbers
}

/// For each character, the smallest one that differs from it by its case alone, and it where there is none.
fn folded() -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for c in '\0'..=char::MAX {
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        class.case_fold_simple();
        pairs.push((class.ranges()[0].start().into(), c.into()));
    }
    pairs
}

#[test]
fn the_tables_are_those_of_the_regex_crate() {
    let unassigned = CATEGORY_NAMES.split(' ').count() as u8 - 1;
    let categories =
        names(CATEGORY_NAMES).enumerate().map(|(i, name)| (i as u8, reference(&format!("\\p{{gc={name}}}"))));
    let mut packed = Vec::new();
    for run in numbers(categories, unassigned).chunk_by(|a, b| a == b) {
        let short = if run.len() < 8 { run.len() as u8 } else { 0 };
        packed.push(run[0] << 3 | short);
        if short == 0 {
            write_number(&mut packed, run.len() as u32);
        }
    }
    let scripts = names(SCRIPT_NAMES)
        .enumerate()
        .map(|(i, name)| (i as u8 + 1, reference(&format!("\\p{{sc={name}}}"))));
    let mut packed_scripts = Vec::new();
    for run in numbers(scripts, 0).chunk_by(|a, b| a == b) {
        packed_scripts.push(run[0]);
        write_number(&mut packed_scripts, run.len() as u32);
    }
    let (mut packed_cases, mut before) = (Vec::new(), 0);
    for (first, c) in folded().into_iter().filter(|(first, c)| first != c) {
        write_number(&mut packed_cases, c - before);
        write_number(&mut packed_cases, c - first);
        before = c;
    }
    for (name, packed) in
        [("categories.bin", packed), ("scripts.bin", packed_scripts), ("cases.bin", packed_cases)]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grammar/regex").join(name);
        if std::env::var_os("GRUG_UPDATE_UNICODE").is_some_and(|value| value == "1") {
            std::fs::write(&path, &packed).unwrap();
        }
        let same = std::fs::read(&path).unwrap() == packed;
        assert!(
            same,
            "{name} is not the regex crate's; renew it: GRUG_UPDATE_UNICODE=1 cargo test --lib the_tables"
        );
    }
}

#[test]
fn classes_are_those_of_the_regex_crate() {
    let all = CATEGORY_NAMES.split(' ').chain(SCRIPT_NAMES.split(' ')).flat_map(|entry| entry.split('/'));
    for name in
        all.chain(["L", "M", "n", "P", "Symbol", "z", "Other", "LC", "Any", "assigned", "ASCII", "Is_Greek"])
    {
        let found = property(name).unwrap_or_else(|| panic!("{name}"));
        assert!(scalars(&found) == reference(&format!("\\p{{{name}}}")), "{name}");
    }
    for name in ["gc=Lu", "General_Category : Cased Letter", "sc=Latn", "Script!=greek"] {
        assert!(scalars(&property(name).unwrap()) == reference(&format!("\\p{{{name}}}")), "{name}");
    }
    for name in ["", "Emoji", "alphabetic", "scx=Greek", "age=3.0", "gc=Greek", "Lx"] {
        assert!(property(name).is_none(), "{name}");
    }
    for name in ['d', 's', 'w'] {
        assert!(perl(name) == reference(&format!("\\{name}")), "\\{name}");
    }
}

#[test]
fn cases_are_closed_as_by_the_regex_crate() {
    let cases = Cases::new();
    for text in ["a", "k", "ſ", "ß", "Σ", "ı", "ǅ", "ﬅ", "ΐ", "Ꭰ", "日"] {
        let c = text.parse::<char>().unwrap();
        let one = Set::new(vec![(c.into(), c.into())]);
        assert_eq!(cases.close(one), reference(&format!("(?i){text}")), "{text}");
    }
    assert!(cases.close(property("Lu").unwrap()) == reference("(?i)\\p{Lu}"));
}

/// What a text is made of that is close to the syntax.
const PIECES: &str = "(a|b|é|K|-|\\^|\\$|\\.|\\||\\(|\\)|\\(\\?:|\\(\\?i\\)|\\(\\?i-u:|\\(\\?x: |\\(\\?s-m:|\\(\\?-u\\)|\\(\\?P<n>|\\[|\\[\\^|\\]|\\]|\
    \\[:alpha:\\]|\\[:\\^digit:\\]|&&|--|~~|\\*|\\+|\\?|\\{2\\}|\\{1,\\}|\\{0, 2\\}|\\{|\\}|\\\\d|\\\\W|\\\\s|\\\\pL|\\\\PN|\\\\p\\{Greek\\}|\
    \\\\x41|\\\\xE9|\\\\x\\{e9\\}|\\\\u00e9|\\\\\\[|\\\\-|\\\\n|\\\\b|\\\\A|\\\\z|\\\\1|\\\\q|#|&|~| |,|1|:|<|>|=|!|\n){1,9}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn what_the_regex_crate_reads_is_read_and_nothing_else(pattern in PIECES, text in "[abé1K -]{0,4}") {
        let theirs = regex::bytes::Regex::new(&pattern);
        match (Grammar::new(GrammarKind::Regex, &pattern), &theirs) {
            (Ok(grammar), Ok(_)) => {
                // A comment would hide the end.
                if let Ok(whole) = regex::bytes::Regex::new(&format!("^(?:{pattern})$")) {
                    prop_assert_eq!(grammar.matches(text.as_bytes()), whole.is_match(text.as_bytes()));
                }
            }
            (Err(error), Ok(_)) => {
                let expected = error.kind() == ErrorKind::Unsupported
                    || ["no text matches", "too many repetitions"].iter().any(|what| error.message().contains(what));
                prop_assert!(expected, "{}", error);
            }
            (Ok(_), Err(theirs)) => prop_assert!(false, "the regex crate says {theirs}"),
            (Err(_), Err(_)) => {}
        }
    }
}
