//! The corpus of the fuzz targets, run without a fuzzer: `fuzz/corpus` holds inputs that reach different code, and those
//! that once were findings.
#![cfg(feature = "import")]

mod c_calls;
mod calls;
mod pth;
#[path = "../fuzz/src/small.rs"]
mod small;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};

/// The inputs of a target, sorted.
fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_input_of_the_corpus_is_handled() {
    for (name, target) in targets::ALL {
        let files = corpus(name);
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
        for file in &files {
            println!("{}", file.display());
            target(&std::fs::read(file).unwrap());
        }
    }
}
