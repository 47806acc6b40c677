//! Regular expressions against the `regex` crate.

use proptest::prelude::*;

use super::*;

const PATTERNS: [&str; 22] = [
    "",
    "abc",
    "a|bc|",
    "[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "(?:ab)*c+d?",
    "a{2,4}b{0,1}",
    "(a|b)*abb",
    "[^a]b?",
    ".",
    "(?s).{2}",
    "é|[ê-ô]+|日本",
    "\\w{1,3}",
    "\\d+(\\.\\d+)?",
    "(?i)straße",
    "^anchored$",
    "(^a|b$)",
    "(?-u:[\\x80-\\xFF])x",
    "\\p{Greek}{2}",
    "[[:alpha:]--[aeiou]]",
    "(a*)*b",
    "(|a)+",
    "\u{10FFFF}|\\u{0}",
];

fn reference(pattern: &str) -> ::regex::bytes::Regex {
    ::regex::bytes::Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

#[test]
fn walks_end_in_what_the_regex_crate_matches() {
    for pattern in PATTERNS {
        let (grammar, reference) = (grammar(GrammarKind::Regex, pattern), reference(pattern));
        for text in walks(&grammar, 60) {
            assert!(reference.is_match(&text), "{pattern}: {:?}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn what_the_regex_crate_matches_is_walkable() {
    for pattern in PATTERNS {
        let (grammar, reference) = (grammar(GrammarKind::Regex, pattern), reference(pattern));
        // Texts near to matches: those of walks with a byte changed, added or missing.
        for (i, text) in walks(&grammar, 40).into_iter().enumerate() {
            for at in 0..text.len().min(12) {
                for byte in [b'a', b'b', b'0', b'.', 0xC3, text[at].wrapping_add(i as u8)] {
                    let mut changed = text.clone();
                    changed[at] = byte;
                    let (mut longer, mut shorter) = (text.clone(), text.clone());
                    longer.insert(at, byte);
                    shorter.remove(at);
                    for text in [changed, longer, shorter] {
                        assert_eq!(grammar.matches(&text), reference.is_match(&text), "{pattern}: {text:?}");
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn random_expressions_agree(
        pattern in "([ab.]|\\[\\^?[abé]\\]|\\(a\\|b?\\)|(ab|é)[*?+]|[ab]\\{1,2\\}){1,6}",
        text in "[abcé]{0,6}",
    ) {
        let grammar = grammar(GrammarKind::Regex, &pattern);
        prop_assert_eq!(grammar.matches(text.as_bytes()), reference(&pattern).is_match(text.as_bytes()));
    }

    #[test]
    fn any_source_compiles_or_says_why(source in ".{0,40}") {
        for kind in [GrammarKind::Regex, GrammarKind::Gbnf, GrammarKind::JsonSchema] {
            if let Ok(grammar) = Grammar::new(kind, &source) {
                random_walk(&grammar, 1);
            }
        }
    }
}

#[test]
fn errors_say_what_and_where() {
    for (pattern, expected) in [
        ("ab(", "column 3"),
        ("a\nb[", "line 2, column 2"),
        ("a\\b", "word boundary"),
        ("a^b", "not at the start"),
        ("a$b", "not at the end"),
        ("(?m)^a", "multi-line"),
        ("[a&&b]", "no text matches"),
        ("(^a)*", "not at the start"),
    ] {
        let error = Grammar::new(GrammarKind::Regex, pattern).unwrap_err();
        assert!(error.message().contains(expected), "{pattern}: {error}");
    }
}

#[test]
fn blanks_may_stand_before_the_laziness_of_a_count() {
    for pattern in ["(?x)a{2} ?", "(?x)a{2} # c\n ?", "(?x)a{1,} ?", "(?x)a + ?", "a{2} ?", "(?x)a{2} ? ?"] {
        let grammar = grammar(GrammarKind::Regex, pattern);
        for text in ["", "a", "aa", "aaa", "aa "] {
            let expected = reference(&pattern.replace("# c\n", "")).is_match(text.as_bytes());
            assert_eq!(grammar.matches(text.as_bytes()), expected, "{pattern}: {text:?}");
        }
    }
}

#[test]
fn characters_are_never_cut() {
    let grammar = grammar(GrammarKind::Regex, ".*");
    for seed in 0..200 {
        if let Some(text) = random_walk(&grammar, seed) {
            assert!(std::str::from_utf8(&text).is_ok(), "{text:?}");
        }
    }
}
