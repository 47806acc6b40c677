//! GBNF: the notation, and the grammars that people use.

use super::*;

/// The JSON grammar in the style of llama.cpp's examples.
const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-cA-C]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,1})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#;

#[test]
fn json_walks_are_json_objects() {
    let grammar = grammar(GrammarKind::Gbnf, JSON);
    for text in walks(&grammar, 300) {
        let value: serde_json::Value = serde_json::from_slice(&text)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)));
        assert!(value.is_object());
    }
    for text in [r#"{}"#, r#"{"a": [1, 2.5e3, "x\n\u0041é", {"b":null}], "c":true}"#, "{\n  \"a\":0}"] {
        assert!(grammar.matches(text.as_bytes()), "{text}");
    }
    for text in ["", "[]", "{", r#"{"a":}"#, r#"{"a":1,}"#, "{}}", "{\"a\":\"\x01\"}"] {
        assert!(!grammar.matches(text.as_bytes()), "{text}");
    }
}

#[test]
fn every_piece_of_the_notation() {
    for (source, yes, no) in [
        ("root ::= \"a\" | \"b\"", &["a", "b"][..], &["", "ab"][..]),
        ("root ::= \"a\"\n  | \"b\"\n", &["a", "b"], &[""]),
        ("root ::= x \"-\" x\nx ::= [0-9]+", &["1-23"], &["-", "1-"]),
        ("root::=[^a-c\\]]", &["d", "é", "\n"], &["a", "]", ""]),
        ("root ::= [a-]", &["a", "-"], &["b"]),
        ("root ::= [-a^]", &["a", "-", "^"], &["b"]),
        ("root ::= \"\\x41\\u00e9\\U0001F600\\t\\\\\\\"\"", &["Aé😀\t\\\""], &["A"]),
        ("root ::= \"\\xe9\"", &["é"], &["e"]),
        ("root ::= .", &["a", "日"], &["ab", ""]),
        ("root ::= \"a\"{2}", &["aa"], &["a", "aaa"]),
        ("root ::= \"a\"{2,}", &["aa", "aaaa"], &["a"]),
        ("root ::= \"a\"{ 1 , 2 }", &["a", "aa"], &["", "aaa"]),
        ("root ::= \"a\"{,2}", &["", "aa"], &["aaa"]),
        ("root ::= (\"a\" | ) \"b\"?", &["", "a", "ab", "b"], &["ba"]),
        ("root ::= a-b_2\na-b_2 ::= \"x\" # a comment \" | (\n", &["x"], &["y"]),
        ("root ::= \"\"", &[""], &["a"]),
        ("root ::= root \"x\" | \"y\"", &["y", "yxx"], &["x", ""]),
        ("root ::= a\na ::= b\nb ::= a \"1\" | \"0\"", &["0", "011"], &["1", ""]),
        ("root ::= \"(\" root \")\" root | \"\"", &["", "()(())"], &["(", ")("]),
    ] {
        let grammar = grammar(GrammarKind::Gbnf, source);
        yes.iter().for_each(|text| assert!(grammar.matches(text.as_bytes()), "{source}: {text:?}"));
        no.iter().for_each(|text| assert!(!grammar.matches(text.as_bytes()), "{source}: {text:?}"));
    }
}

#[test]
fn errors_say_what_and_where() {
    for (source, expected) in [
        ("", "no rule named \"root\""),
        ("a ::= \"x\"", "no rule named \"root\""),
        ("root ::= \"x\nb ::= \"y\"", "line 1, column 10: the text in quotes does not end"),
        ("root ::= missing", "line 1, column 10: the rule \"missing\" is not defined"),
        ("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: the rule \"root\" is defined twice"),
        ("root ::= (\"a\"", "line 1, column 10: \"(\" without \")\""),
        ("root ::= \"a\")", "column 13: \")\" without \"(\""),
        ("root ::= *", "has nothing to repeat"),
        ("root ::= [a", "\"[\" without \"]\""),
        ("root ::= [z-a]", "column 11: the range ends before it begins"),
        ("root ::= []", "the class is empty"),
        ("root ::= \"\\q\"", "column 11: an unknown escape"),
        ("root ::= \"\\ud800\"", "4 hexadecimal digits"),
        ("root ::= \"a\"{3,2}", "largest count is below"),
        ("root ::= \"a\"{1", "\"}\" is expected"),
        ("root = \"a\"", "\"::=\" is expected"),
        ("root ::= \"a\" ; ", "';' is not expected"),
        ("root ::= root", "no text matches it"),
        ("root ::= \"a\" root", "no text matches it"),
    ] {
        let error = Grammar::new(GrammarKind::Gbnf, source).unwrap_err();
        assert!(error.message().contains(expected), "{source:?}: {error}");
    }
}

#[test]
fn what_cannot_end_is_cut_off() {
    // The alternative `"b" never` begins, but never ends.
    let grammar = grammar(GrammarKind::Gbnf, "root ::= \"a\" | \"b\" never\nnever ::= \"c\" never");
    assert_eq!(allowed_bytes(&grammar.cursor().unwrap()), b"a");
}
