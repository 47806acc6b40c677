//! JSON Schemas against a validator of their own.

use serde_json::{Value, json};

use super::*;

/// Whether a value is valid under a schema of the supported subset, by the words of the specification.
fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return schema == &Value::Bool(true) };
    schema.iter().all(|(key, want)| match key.as_str() {
        "$ref" => valid(root, root.pointer(&want.as_str().unwrap()[1..]).unwrap(), value),
        "anyOf" => want.as_array().unwrap().iter().any(|s| valid(root, s, value)),
        "allOf" => want.as_array().unwrap().iter().all(|s| valid(root, s, value)),
        "oneOf" => want.as_array().unwrap().iter().filter(|s| valid(root, s, value)).count() == 1,
        "const" => want == value,
        "enum" => want.as_array().unwrap().contains(value),
        "type" => {
            let is = |name: &Value| match name.as_str().unwrap() {
                "null" => value.is_null(),
                "boolean" => value.is_boolean(),
                "integer" => value.as_f64().is_some_and(|v| v.fract() == 0.0),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("{other}"),
            };
            want.as_array().map_or_else(|| is(want), |names| names.iter().any(is))
        }
        "minimum" => value.as_f64().is_none_or(|v| v >= want.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|v| v <= want.as_f64().unwrap()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|v| v > want.as_f64().unwrap()),
        "exclusiveMaximum" => value.as_f64().is_none_or(|v| v < want.as_f64().unwrap()),
        "minLength" => value.as_str().is_none_or(|v| v.chars().count() as u64 >= want.as_u64().unwrap()),
        "maxLength" => value.as_str().is_none_or(|v| v.chars().count() as u64 <= want.as_u64().unwrap()),
        "pattern" => {
            let pattern = ::regex::Regex::new(want.as_str().unwrap()).unwrap();
            value.as_str().is_none_or(|v| pattern.is_match(v))
        }
        "minItems" => value.as_array().is_none_or(|v| v.len() as u64 >= want.as_u64().unwrap()),
        "maxItems" => value.as_array().is_none_or(|v| v.len() as u64 <= want.as_u64().unwrap()),
        "prefixItems" => value.as_array().is_none_or(|items| {
            items.iter().zip(want.as_array().unwrap()).all(|(item, s)| valid(root, s, item))
        }),
        "items" => value.as_array().is_none_or(|items| {
            let skip = schema.get("prefixItems").map_or(0, |p| p.as_array().unwrap().len());
            items.iter().skip(skip).all(|item| valid(root, want, item))
        }),
        "properties" => value.as_object().is_none_or(|v| {
            want.as_object().unwrap().iter().all(|(k, s)| v.get(k).is_none_or(|v| valid(root, s, v)))
        }),
        "required" => value
            .as_object()
            .is_none_or(|v| want.as_array().unwrap().iter().all(|k| v.contains_key(k.as_str().unwrap()))),
        "additionalProperties" => value.as_object().is_none_or(|v| {
            let known = schema.get("properties").and_then(Value::as_object);
            v.iter()
                .filter(|(k, _)| !known.is_some_and(|known| known.contains_key(*k)))
                .all(|(_, v)| valid(root, want, v))
        }),
        "$defs" | "title" | "description" => true,
        other => panic!("{other}"),
    })
}

fn schemas() -> Vec<Value> {
    vec![
        json!(true),
        json!({}),
        json!({"type": "null"}),
        json!({"type": ["boolean", "integer"]}),
        json!({"type": "integer", "minimum": 3, "maximum": 17}),
        json!({"type": "integer", "minimum": -105, "maximum": 2034}),
        json!({"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 3}),
        json!({"type": "integer", "maximum": -7}),
        json!({"minimum": 1.5, "type": "integer"}),
        json!({"type": "number"}),
        json!({"type": "string"}),
        json!({"type": "string", "minLength": 2, "maxLength": 4}),
        json!({"type": "string", "pattern": "^[a-c]+\"?\n?$"}),
        json!({"type": "string", "pattern": "x\\\\|é"}),
        json!({"enum": ["a", 1, null, {"b": [2]}, "quote\""]}),
        json!({"type": "string", "enum": ["a", 1]}),
        json!({"const": {"a": "b"}}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}),
        json!({"type": "array", "items": false, "prefixItems": [{"type": "null"}, {"type": "boolean"}]}),
        json!({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3},
            "minItems": 1, "maxItems": 4}),
        json!({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 3}, "minItems": 3}),
        json!({"type": "array", "maxItems": 0}),
        json!({"type": "object", "title": "a person", "required": ["name"], "additionalProperties": false,
            "properties": {"name": {"type": "string", "maxLength": 3}, "age": {"type": "integer", "minimum": 0},
                "on": {"type": "boolean"}}}),
        json!({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}}),
        json!({"type": "object", "properties": {"a": {"const": 1}, "ab": {"const": 2}, "q\"": {"const": 0}},
            "required": ["ab", "z"], "additionalProperties": {"type": "boolean"}}),
        json!({"type": "object", "additionalProperties": {"type": "null"}}),
        json!({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 2}]}),
        json!({"oneOf": [{"type": "integer"}, {"type": "string"}, {"const": true}]}),
        json!({"oneOf": [{"const": 1}, {"enum": [2, 3]}]}),
        json!({"allOf": [{"type": "boolean"}]}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "required": ["v"],
            "additionalProperties": false, "properties": {"v": {"type": "integer", "minimum": 0, "maximum": 9},
            "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}}}}),
        json!({"type": "array", "items": {"$ref": "#"}}),
    ]
}

#[test]
fn walks_are_valid_under_their_schema() {
    for schema in schemas() {
        let grammar = grammar(GrammarKind::JsonSchema, &schema.to_string());
        for text in walks(&grammar, 80) {
            let shown = String::from_utf8_lossy(&text);
            let value: Value =
                serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{schema}: {shown}: {e}"));
            assert!(valid(&schema, &schema, &value), "{schema}: {shown}");
        }
    }
}

#[test]
fn the_shortest_text_of_a_valid_value_is_walkable() {
    // Of each schema's walks the values, written anew without blanks, and values of other schemas.
    let all: Vec<(Value, Grammar, Vec<Value>)> = schemas()
        .into_iter()
        .map(|schema| {
            let grammar = grammar(GrammarKind::JsonSchema, &schema.to_string());
            let values = walks(&grammar, 12).iter().map(|t| serde_json::from_slice(t).unwrap()).collect();
            (schema, grammar, values)
        })
        .collect();
    // Properties may be written in another order here, names undeclared, and numbers with other digits; without those:
    let plain = |schema: &Value| {
        let text = schema.to_string();
        !text.contains("object") && !text.contains("number") && text != "true" && text != "{}"
    };
    for (schema, grammar, _) in all.iter().filter(|(schema, ..)| plain(schema)) {
        for value in all.iter().filter(|(other, ..)| plain(other)).flat_map(|(_, _, values)| values) {
            let text = value.to_string();
            // DEL is not written, and integers have a bound.
            if text.contains('\u{7F}') || text.contains("e+") {
                continue;
            }
            assert_eq!(grammar.matches(text.as_bytes()), valid(schema, schema, value), "{schema}: {text}");
        }
    }
}

#[test]
fn integers_between_bounds_are_exactly_those() {
    for (low, high) in [(0, 0), (-1, 1), (5, 123), (-20, 7), (99, 101), (-1000, -98), (10, 10), (-7, -7)] {
        let schema = json!({"type": "integer", "minimum": low, "maximum": high}).to_string();
        let grammar = grammar(GrammarKind::JsonSchema, &schema);
        for i in -1200..1200 {
            assert_eq!(grammar.matches(i.to_string().as_bytes()), (low..=high).contains(&i), "{schema}: {i}");
        }
        for text in ["-0", "00", "01", "1.0", "+1", ""] {
            assert!(!grammar.matches(text.as_bytes()), "{schema}: {text}");
        }
    }
}

#[test]
fn equal_numbers_are_one_value() {
    let new = |schema: &str| Grammar::new(GrammarKind::JsonSchema, schema);
    for (schema, text) in [
        (r#"{"type":"integer","enum":[1.0,2]}"#, "1.0"),
        (r#"{"type":"integer","const":-0.0}"#, "-0.0"),
        (r#"{"const":1,"enum":["a",1.0]}"#, "1.0"),
        (r#"{"const":{"a":[1],"b":2},"enum":[{"b":2.0,"a":[1]}]}"#, r#"{"b":2.0,"a":[1]}"#),
        (r#"{"oneOf":[{"const":9007199254740992},{"const":9007199254740993}]}"#, "9007199254740993"),
    ] {
        assert!(new(schema).unwrap().matches(text.as_bytes()), "{schema}: {text}");
    }
    assert!(new(r#"{"const":9007199254740993,"enum":[9007199254740992,9007199254740992.0]}"#).is_err());
    assert!(new(r#"{"type":"integer","enum":[1.5]}"#).is_err());
    for (a, b) in [("0", "-0.0"), ("[1]", "[1.0]"), (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#)] {
        let error = new(&format!(r#"{{"oneOf":[{{"const":{a}}},{{"const":{b}}}]}}"#)).unwrap_err();
        assert!(error.message().contains("may both hold"), "{a} {b}: {error}");
    }
}

#[test]
fn bounds_that_are_written_as_fractions_are_exact() {
    let ten_to_17 = "100000000000000000";
    for (bounds, yes, no) in [
        (r#""exclusiveMinimum":1e17"#, "100000000000000001", ten_to_17),
        (r#""exclusiveMaximum":1e17"#, "99999999999999999", ten_to_17),
        (r#""minimum":1e17"#, ten_to_17, "99999999999999999"),
        (r#""exclusiveMinimum":-2.5,"exclusiveMaximum":2.5"#, "-2", "-3"),
        (r#""exclusiveMinimum":-2.0,"exclusiveMaximum":2.5"#, "2", "-2"),
        (r#""minimum":-1e300,"exclusiveMaximum":1e300"#, ten_to_17, "1000000000000000000"),
    ] {
        let grammar = grammar(GrammarKind::JsonSchema, &format!(r#"{{"type":"integer",{bounds}}}"#));
        assert!(grammar.matches(yes.as_bytes()), "{bounds}: {yes}");
        assert!(!grammar.matches(no.as_bytes()), "{bounds}: {no}");
    }
}

#[test]
fn references_are_parts_of_a_uri() {
    for (reference, key) in [("a%20b", "a b"), ("%C3%A9%25", "é%"), ("a~1b~01", "a/b~1"), ("100%", "100%")] {
        let schema = json!({"$ref": format!("#/$defs/{reference}"), "$defs": {key: {"type": "null"}}});
        assert!(grammar(GrammarKind::JsonSchema, &schema.to_string()).matches(b"null"), "{schema}");
    }
}

#[test]
fn classes_of_patterns_are_those_of_ecmascript() {
    for (pattern, yes, no) in [
        ("^\\d$", "7", "٣"),
        ("^[^\\D]$", "7", "٣"),
        ("^\\w$", "_", "é"),
        ("^\\W$", "é", "a"),
        ("^\\s$", "\u{FEFF}", "\u{85}"),
        ("^.$", "\u{85}", "\u{2028}"),
        ("^.$", "é", "\\r"),
        ("^(?s:.)$", "\\r", ""),
    ] {
        let schema = json!({"type": "string", "pattern": pattern}).to_string();
        let grammar = grammar(GrammarKind::JsonSchema, &schema);
        assert!(grammar.matches(format!("\"{yes}\"").as_bytes()), "{pattern}: {yes:?}");
        assert!(!grammar.matches(format!("\"{no}\"").as_bytes()), "{pattern}: {no:?}");
    }
    let bytes = r#"{"type":"string","pattern":"(?-u:.)"}"#;
    assert_eq!(Grammar::new(GrammarKind::JsonSchema, bytes).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn what_is_not_supported_is_named_with_its_place() {
    for (schema, expected) in [
        (r#"{"type":"string","format":"date"}"#, "#: the keyword \"format\""),
        (
            r#"{"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}}"#,
            "#/properties/a: the keyword \"uniqueItems\"",
        ),
        (r#"{"type":"number","minimum":0}"#, "\"minimum\" is supported for integers alone"),
        (r#"{"oneOf":[{"type":"number"},{"type":"integer"}]}"#, "#/oneOf: schemas 0 and 1 may both hold"),
        (r#"{"oneOf":[{"const":1},{"const":1.0}]}"#, "may both hold"),
        (r#"{"allOf":[{},{}]}"#, "more than one schema"),
        (r#"{"$ref":"other.json"}"#, "not to a place of this document"),
        (r##"{"$ref":"#/$defs/x"}"##, "there is no \"$defs\""),
        (r#"{"type":"text"}"#, "there is no type \"text\""),
        (r#"{"minimum":1,"minLength":1}"#, "\"type\" is missing"),
        (r#"{"type":"string","pattern":"("}"#, "#/pattern: regex: line 1, column 1"),
        (r#"{"type":"string","minLength":3,"maxLength":2}"#, "largest length is below"),
        (r#"{"type":"integer","minimum":3,"maximum":2}"#, "no integer"),
        (r#"{"type":"object","required":["a"],"additionalProperties":false}"#, "requires \"a\""),
        (r#"{"a":1,"a":2}"#, "twice"),
        (r#"["#, "is not JSON"),
        (r#"3"#, "a schema is an object"),
        (r#"false"#, "no text matches"),
    ] {
        let error = Grammar::new(GrammarKind::JsonSchema, schema).unwrap_err();
        assert!(error.message().contains(expected), "{schema}: {error}");
    }
}

#[test]
fn properties_keep_the_order_of_the_schema() {
    let grammar = grammar(
        GrammarKind::JsonSchema,
        r#"{"type":"object","properties":{"z":{"type":"null"},"a":{"type":"null"}}}"#,
    );
    assert!(grammar.matches(br#"{"z":null,"a":null}"#));
    assert!(grammar.matches(b"{\"z\": null,\n \"a\":null }"));
    assert!(!grammar.matches(br#"{"a":null,"z":null}"#));
}
