//! What programs that were compiled against the last release rely on: no function, struct, field or constant of it may
//! change or go. `packaging/abi` has a description of the last one; additions pass, and on purpose it is renewed by
//! `GRUG_UPDATE_ABI=1 cargo test --test abi`, with a line in CHANGELOG.md.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod native;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use native::{have, root, run, scratch};

const UPDATE: &str = "GRUG_UPDATE_ABI";

fn header() -> String {
    std::fs::read_to_string(root().join("include/grug.h")).unwrap()
}

/// Names and values of the header's constants.
fn constants(header: &str) -> BTreeMap<String, String> {
    let definitions = header.lines().filter_map(|line| line.strip_prefix("#define "));
    definitions
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| !matches!(*name, "GRUG_API" | "GRUG_MUST_USE"))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// A library with the functions and structs of the header and nothing behind them, to be described with its types.
/// That `libgrug.so` exports exactly these functions, and that the header is what its sources say, is tested elsewhere.
fn skeleton(header: &str, name: &str) -> PathBuf {
    let folder = scratch().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let mut source = String::from("#include \"grug.h\"\n");
    for declaration in header.split("\nGRUG_API ").skip(1) {
        let declaration = declaration.split(';').next().unwrap().trim_start_matches("GRUG_MUST_USE ");
        let body = if declaration.starts_with("void ") { "{}" } else { "{ return 0; }" };
        source += &format!("{declaration} {body}\n");
    }
    std::fs::write(folder.join("grug.h"), header).unwrap();
    std::fs::write(folder.join("skeleton.c"), source).unwrap();
    let mut cc = Command::new("cc");
    cc.args([
        "-shared",
        "-fPIC",
        "-g",
        "-gdwarf-4",
        "-O0",
        "-w",
        "-Wl,-soname,libgrug",
        "-o",
        "libgrug-abi.so",
    ]);
    run(cc.arg("skeleton.c").current_dir(&folder));
    folder.join("libgrug-abi.so")
}

#[test]
fn the_abi_of_the_last_release_is_kept() {
    if !have("cc") || !have("abidiff") || !have("abidw") {
        return;
    }
    let folder = root().join("packaging/abi");
    let (baseline, listed) = (folder.join("grug.abixml"), folder.join("constants.txt"));
    let header = header();
    let library = skeleton(&header, "now");
    let now = constants(&header);
    assert!(now.len() > 25, "{now:?}");
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::create_dir_all(&folder).unwrap();
        let mut abidw = Command::new("abidw");
        abidw.args(["--no-show-locs", "--no-corpus-path", "--no-comp-dir-path", "--out-file"]).arg(&baseline);
        run(abidw.arg(&library));
        let lines: String = now.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        std::fs::write(&listed, lines).unwrap();
    }
    let (code, report) = compare(&baseline, &library);
    assert_eq!(
        code, 0,
        "incompatible with packaging/abi; on purpose? Then renew it by {UPDATE}=1.\n{report}"
    );

    let before = std::fs::read_to_string(&listed).unwrap();
    for (name, value) in before.lines().map(|line| line.split_once(' ').unwrap()) {
        // The version counts additions.
        if name != "GRUG_ABI_VERSION" {
            assert_eq!(now.get(name).map(String::as_str), Some(value), "{name} changed");
        }
    }
}

fn compare(before: &Path, after: &Path) -> (i32, String) {
    let mut abidiff = Command::new("abidiff");
    let output = abidiff.args(["--no-added-syms"]).arg(before).arg(after).output().unwrap();
    let report = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&report).into_owned())
}

/// The comparison sees what it is for.
#[test]
fn changes_are_noticed_and_additions_pass() {
    if !have("cc") || !have("abidiff") {
        return;
    }
    let baseline = root().join("packaging/abi/grug.abixml");
    let header = header();
    let changed = |from: &str, to: &str| {
        assert!(header.contains(from), "{from}");
        compare(&baseline, &skeleton(&header.replace(from, to), "changed")).0
    };
    assert_eq!(changed("float top_p;", "double top_p;") & 4, 4);
    assert_eq!(changed("uint64_t n_params;", "uint64_t more; uint64_t n_params;") & 4, 4);
    assert_eq!(changed("GRUG_API uint32_t grug_abi_version(void);", "") & 8, 8);
    let added = "GRUG_API uint32_t grug_abi_version(void);\nGRUG_API int grug_another(void);";
    assert_eq!(changed("GRUG_API uint32_t grug_abi_version(void);", added), 0);
}
