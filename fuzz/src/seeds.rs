//! Fills `fuzz/corpus` with valid inputs: `cargo run --manifest-path fuzz/Cargo.toml --bin seeds`.

use std::fs;
use std::path::Path;

use grug::{ModelConfig, Session, SessionOptions, compress};
use grug_fuzz::pth::Pth;
use grug_fuzz::small::with_model;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join(name), bytes)
    };
    let pth = Pth::small();
    let imported = grug::import::read_from(std::io::Cursor::new(pth.file())).expect("a valid file");
    put("pth", "stored", &pth.file())?;
    put("pth", "deflated", &Pth { deflate: true, ..pth.clone() }.file())?;
    put("pickle", "small", &pth.pickle().0)?;
    put("published_config", "small", pth.config.to_string().as_bytes())?;
    put("published_config", "whole", imported.config.to_json().as_bytes())?;
    let model = corpus.join("checkpoint").join("small");
    fs::create_dir_all(corpus.join("checkpoint"))?;
    imported.save(&model).expect("a valid model");
    let mut config = imported.model.clone();
    put("config", "small", config.to_toml().as_bytes())?;
    let toml = "context_bytes = 24\nembedding_dim = 12\nd_model = 16\nn_heads = 4\nn_kv_heads = 2\nn_layers = 2\n\
                positions = \"rotary\"\nnorm = \"rms\"\nbias = false\nqk_norm = true\nffn_activation = \"swiglu\"\n\
                attention_window = 9\nlogit_softcap = 15.0\n\
                conv_frontend = { channels = [10, 14], kernels = [4, 3] }\n";
    config = ModelConfig::from_toml(toml).expect("a valid configuration");
    put("config", "causal", config.to_toml().as_bytes())?;
    for (name, kind, source) in [
        ("regex", 0, r"[a-c]{2,5}(x|yz)*\d?(?i:é|ß)"),
        (
            "gbnf",
            1,
            "root ::= list \"\\n\"\nlist ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= [0-9]+ | list\n",
        ),
        (
            "schema",
            2,
            r#"{"type":"object","properties":{"a":{"type":"integer","minimum":3},"b":{"enum":["x",null]}},"required":["a"]}"#,
        ),
    ] {
        put("grammar", name, &[&[kind, 1, 2, 3, 4, 5, 6, 7, 8][..], source.as_bytes()].concat())?;
    }
    for target in ["calls", "c_calls"] {
        put(target, "some", &(0..=255u8).map(|i| i.wrapping_mul(37)).collect::<Vec<u8>>())?;
    }
    with_model(|model| {
        let mut session = Session::new(model, &SessionOptions::default()).expect("a session");
        session.feed(b"some text that is longer than the context").expect("bytes");
        put("session_state", "fed", &session.save())?;
        let archive = compress(model, &SessionOptions::default(), b"aaaaaaaaaaaaaaaa").expect("an archive");
        put("archive", "small", &archive)
    })
}
