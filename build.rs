//! Makes the C header from the sources of the C API, and its reference as a page.
//!
//! They go to `OUT_DIR/grug.h` and `OUT_DIR/api.md`, so that a build leaves the source tree alone. `include/grug.h` and
//! `docs/api.md` are committed copies, and `tests/capi.rs` fails where they differ; `GRUG_UPDATE_HEADER=1 cargo build`
//! renews them.

#[path = "build/reference.rs"]
mod reference;

use std::path::Path;
use std::{env, fs};

/// The sections of the header in order: title and source file.
const SECTIONS: [(&str, &str); 10] = [
    ("errors", "error.rs"),
    ("library", "library.rs"),
    ("devices", "device.rs"),
    ("cancellation", "cancel.rs"),
    ("model", "model.rs"),
    ("grammar", "grammar.rs"),
    ("sampler", "sampler.rs"),
    ("session", "session.rs"),
    ("batch", "batch.rs"),
    ("compression", "compress.rs"),
];

/// No line of the header is longer.
const WIDTH: usize = 120;

/// What stands before the sections: the contracts, and the macros that the declarations use.
const HEAD: &str = include_str!("src/ffi/head.h");

const TAIL: &str = "
/** The most bytes that an archive of n bytes has. */
#define GRUG_COMPRESS_BOUND(n) ((n) + (n) / 64 + 64)

#ifdef __cplusplus
}
#endif
#endif /* GRUG_H */
";

fn section(root: &Path, title: &str, file: &str) -> String {
    let source = root.join("src/ffi").join(file);
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is valid");
    // One file at a time: a section declares what its file defines, and names the types of the others.
    config.parse.parse_deps = false;
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(&source)
        .generate()
        .unwrap_or_else(|e| panic!("{}: {e}", source.display()))
        .write(&mut text);
    let text = String::from_utf8(text).expect("the sources are UTF-8");
    let rule = "-".repeat(100 - title.len());
    format!("\n/* ---- {title} {rule} */\n\n{}\n", tidy(text.trim()))
}

/// Lays out what cbindgen wrote as a person would: short comments and short declarations on one line, constants in
/// groups, and a tag for every struct, so that it can be declared ahead.
fn tidy(text: &str) -> String {
    let mut out = String::new();
    let mut after_constant = false;
    for item in text.split("\n\n") {
        let lines: Vec<&str> = item.lines().collect();
        let mut tidied: Vec<String> = Vec::new();
        let mut i = 0;
        while i < lines.len() {
            let line = lines[i];
            if line.trim() == "/**" && lines[i + 2].trim() == "*/" {
                tidied.push(format!("{line} {} */", lines[i + 1].trim().trim_start_matches("* ")));
                i += 3;
            } else if line.starts_with("GRUG_API") {
                tidied.extend(wrap(&lines[i..]));
                break;
            } else if line == "typedef struct {" {
                let name = lines.last().unwrap().trim_start_matches("} ").trim_end_matches(';');
                tidied.push(format!("typedef struct {name} {{"));
                i += 1;
            } else {
                tidied.push(line.to_string());
                i += 1;
            }
        }
        let constant = tidied.last().unwrap().starts_with("#define");
        if !out.is_empty() {
            out += if constant && after_constant { "\n" } else { "\n\n" };
        }
        after_constant = constant;
        out += &tidied.join("\n");
    }
    out
}

/// A function declaration in as few lines as it takes, broken between arguments.
fn wrap(lines: &[&str]) -> Vec<String> {
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    let declaration = words.join(" ");
    let mut wrapped = vec![String::new()];
    for (i, argument) in declaration.split(", ").enumerate() {
        let line = wrapped.last_mut().unwrap();
        if i == 0 {
            *line += argument;
        } else if line.len() + ", ".len() + argument.len() < WIDTH {
            *line += ", ";
            *line += argument;
        } else {
            *line += ",";
            wrapped.push(format!("    {argument}"));
        }
    }
    wrapped
}

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let root = Path::new(&root);
    for path in ["build.rs", "build", "cbindgen.toml", "src/ffi"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=GRUG_UPDATE_HEADER");

    let sections: String = SECTIONS.iter().map(|(title, file)| section(root, title, file)).collect();
    let header = format!("{HEAD}{sections}{TAIL}");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let page = reference::markdown(&header);
    fs::write(Path::new(&out).join("grug.h"), &header).expect("OUT_DIR is writable");
    fs::write(Path::new(&out).join("api.md"), &page).expect("OUT_DIR is writable");
    if env::var_os("GRUG_UPDATE_HEADER").is_some_and(|value| value == "1") {
        fs::write(root.join("include/grug.h"), &header).expect("include/ is writable");
        fs::write(root.join("docs/api.md"), &page).expect("docs/ is writable");
    }
}
