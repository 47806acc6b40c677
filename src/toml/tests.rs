//! The reader and the writer, compared with the `toml` crate.

use proptest::prelude::*;
use serde_json::Value;

use super::{document, from_str, to_string};
use crate::config::ModelConfig;

/// What the `toml` crate reads, where there are no dates in it.
fn reference(text: &str) -> Result<Value, String> {
    ::toml::from_str::<Value>(text).map_err(|e| e.to_string())
}

#[test]
fn tables_and_values_are_read_as_by_the_toml_crate() {
    for text in [
        "",
        "# a comment\r\na = 1 # another\n\n b-c_2 = -1_000\t\n",
        "x = 1.5\ny = +2e-3\nz = -0.0\nbig = 9223372036854775807\nsmall = -9223372036854775808\ne = 5E+2",
        "s = \"a \\\"b\\\" \\u00e9\\U0001F600\\n#\" \nt = 'C:\\path' \nu = \"\"",
        "list = [1, 2, # two\n 3,\n]\nempty = []\nnested = [[1], ['a', \"b\"]]",
        "[a]\nx = true\n[a.b]\ny = false\n[c . \"d e\"]\nz = 1",
        "a.b.c = 1\na.d = 2\n'x y'.z = 3",
        "t = { x = 1, y.z = [ { w = 2 } ] }\nn = {}",
        "[dropout]\n\n[conv_frontend]\nchannels=[8,24]\n",
    ] {
        let ours = document(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(Ok(Value::Object(ours)), reference(text), "{text}");
    }
}

#[test]
fn errors_name_their_line() {
    for (text, expected) in [
        ("a = 1\nb", "line 2: \"=\" is expected"),
        ("a = 1\na = 2", "line 2: a is there twice"),
        ("a = 1\n[a]\n", "line 2: a is a value"),
        ("[a]\n[a]\n", "line 2: the table a is there twice"),
        ("a = ", "line 1: a number"),
        ("a = 01", "line 1: a number"),
        ("a = 1 b = 2", "line 1: the end of the line"),
        ("\n\na = \"x\n\"", "line 3: the text in quotes"),
        ("a = \"\"\"x\"\"\"", "several lines"),
        ("a = [1 2]", "\",\" or \"]\""),
        ("[[a]]", "a name is expected"),
        ("a = 1979-05-27", "a number"),
    ] {
        let error = document(text).unwrap_err();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(document(&deep).unwrap_err().contains("nest"));
}

#[test]
fn a_configuration_is_written_as_by_the_toml_crate() {
    let start = "context_bytes = 64\nembedding_dim = 8\nd_model = 8\nn_heads = 2\nn_layers = 3\n";
    for rest in [
        "positions = 'rotary'",
        "positions = 'sinusoidal'\nlogit_softcap = 30\nffn_gamma = 0.1\nbias = false\ntied_head = true\nn_kv_heads = 1",
        "positions = 'rotary'\nlogit_softcap = 1e-7\n[dropout]\noutput = 0.25\nconv = 1e-3",
        "positions = 'rotary'\nembedding_norm = true\n[conv_frontend]\nchannels = [8, 16]\nkernels = [4, 3]\nlayer_norm = false\n\
         [aggregated_stream]\nd_model = 8\nn_layers = 1\nkernel = 8\nstride = 4",
    ] {
        let config: ModelConfig = from_str(&format!("{start}{rest}")).unwrap();
        let text = to_string(&config).unwrap();
        assert_eq!(text, ::toml::to_string(&config).unwrap());
        assert_eq!(from_str::<ModelConfig>(&text).unwrap(), config);
    }
}

#[test]
fn what_has_no_text_is_an_error() {
    assert!(to_string(&f64::NAN).is_err());
    assert!(to_string(&"a text").is_err());
}

/// What a text is made of that is close to TOML.
const PIECES: &str = "(a|b|a\\.b|\"c\"|'d'| = |=|\n|\n|1|-2|\\+3|0|_|\\.|4\\.5|e6|inf|true|false|\\[|\\]|\\[a\\]|\\[b\\]|\\{|\\}|,|#| |\"|\\\\n|\r\n|\t){1,14}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn what_is_read_means_the_same_to_the_toml_crate(text in PIECES) {
        if let Ok(ours) = document(&text) {
            prop_assert_eq!(Ok(Value::Object(ours)), reference(&text));
        }
    }
}

#[test]
fn a_value_that_does_not_fit_is_named() {
    let rest = "context_bytes = 32\nembedding_dim = 16\nn_heads = 2\nn_layers = 1\npositions = \"rotary\"\n";
    for (text, path) in [
        ("d_model = 16\nn_kv_heads = -1", "n_kv_heads"),
        ("d_model = \"wide\"", "d_model"),
        ("d_model = 16\n[dropout]\noutput = true", "dropout.output"),
        ("d_model = 16\n[conv_frontend]\nchannels = [1, -2]\nkernels = [1, 1]", "conv_frontend.channels"),
    ] {
        let error = from_str::<ModelConfig>(&format!("{rest}{text}")).unwrap_err();
        assert!(error.ends_with(&format!("in the value of {path}")), "{text}: {error}");
    }
}
