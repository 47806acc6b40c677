//! What the tests of the C API and of its bindings share: the libraries, models to load, and running the tools of other
//! languages. A test that needs a tool which is not there says so and passes: "skipped: needs valgrind".
#![allow(dead_code)] // each test program uses its own part

#[allow(clippy::duplicate_mod)] // some tests have `common` as well
#[path = "../common/skip.rs"]
mod skip;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use grug::checkpoint::{TensorToWrite, f32_bytes, save_model};
use grug::config::ModelConfig;
use grug::manifest::ModelTensors;

#[allow(unused_imports)] // as above
pub use skip::skip;

/// Warnings are errors for every C program here.
pub const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"];
/// What a static library of Rust asks of the system.
pub const SYSTEM_LIBS: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of this test program's own.
pub fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command; what it printed is shown where it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Whether a tool is there; says so where it is not.
pub fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        skip(format_args!("needs {tool}"));
    }
    found
}

/// `libgrug.so` and `libgrug.a` of the profile that this test runs in. Cargo builds them beside this test, but only
/// promises where they are to one who asks for them. `GRUG_TEST_LIBRARIES` names a folder with others: `scripts/sanitize`
/// tests such as were compiled in another way.
pub fn libraries() -> &'static (PathBuf, PathBuf) {
    static LIBRARIES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        if let Some(folder) = std::env::var_os("GRUG_TEST_LIBRARIES") {
            let folder = root().join(folder);
            return (folder.join("libgrug.so"), folder.join("libgrug.a"));
        }
        // target/[triple/]PROFILE/deps/capi-HASH
        let exe = std::env::current_exe().unwrap();
        let profile = exe.parent().and_then(Path::parent).unwrap().file_name().unwrap().to_str().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["build", "--lib", "--package", "grug", "--message-format=json"]);
        cargo.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap());
        cargo.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
        let messages = String::from_utf8(run(&mut cargo).stdout).unwrap();
        let files: Vec<PathBuf> = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|m| m["reason"] == "compiler-artifact" && m["target"]["name"] == "grug")
            .filter_map(|m| m["filenames"].as_array().cloned())
            .flatten()
            .filter_map(|name| name.as_str().map(PathBuf::from))
            .collect();
        let find = |extension: &str| {
            let found = files.iter().find(|f| f.extension().is_some_and(|e| e == extension));
            found.unwrap_or_else(|| panic!("no lib*.{extension} in {files:?}")).clone()
        };
        (find(std::env::consts::DLL_EXTENSION), find("a"))
    })
}

/// Two small causal models that differ in their end byte, which the first has not: context of 32 bytes, random weights
/// large enough that they say different things.
pub fn model_files() -> &'static [PathBuf; 2] {
    static MODELS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    MODELS.get_or_init(|| {
        let config = ModelConfig::from_toml(
            "context_bytes = 32\nembedding_dim = 16\nd_model = 16\nn_heads = 2\nn_layers = 1\npositions = \"rotary\"\n",
        )
        .unwrap();
        let specs = ModelTensors::specs(&config).into_leaves();
        let bytes: Vec<Vec<u8>> = specs
            .iter()
            .enumerate()
            .map(|(i, spec)| {
                let values = grug::init::initial_values(spec, i, 1);
                let gain = if spec.name.starts_with("fc_out") { 3.0 } else { 1.0 };
                f32_bytes(&values.iter().map(|v| v * gain).collect::<Vec<f32>>())
            })
            .collect();
        let tensors: Vec<TensorToWrite<'_>> = specs
            .iter()
            .zip(&bytes)
            .map(|(spec, bytes)| TensorToWrite { name: &spec.name, dtype: "F32", shape: &spec.shape, bytes })
            .collect();
        let save = |name: &str, metadata: &[(&str, &str)]| {
            let path = scratch().join(name);
            let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            save_model(&path, &config, &metadata, &tensors).unwrap();
            path
        };
        [
            save("tiny.safetensors", &[("note", "for tests")]),
            save("tiny-end.safetensors", &[(grug::model::END_BYTE_KEY, "10")]),
        ]
    })
}

/// Compiles sources to a program of this name, against the shared or the static library. With the flags in
/// `GRUG_TEST_CFLAGS`, if there are any.
pub fn compile(compiler: &str, standard: &str, sources: &[PathBuf], name: &str, shared: bool) -> PathBuf {
    compile_with(compiler, standard, &[], sources, name, shared)
}

/// The same with further flags.
pub fn compile_with(
    compiler: &str,
    standard: &str,
    flags: &[&str],
    sources: &[PathBuf],
    name: &str,
    shared: bool,
) -> PathBuf {
    let (so, archive) = libraries();
    let program = scratch().join(format!("{name}-{}", if shared { "shared" } else { "static" }));
    let mut cc = Command::new(compiler);
    cc.arg(format!("-std={standard}"))
        .args(STRICT)
        .arg("-g")
        .args(std::env::var("GRUG_TEST_CFLAGS").unwrap_or_default().split_whitespace())
        .args(flags)
        .arg("-I")
        .arg(root().join("include"));
    cc.args(sources).arg("-o").arg(&program);
    if shared {
        let folder = so.parent().unwrap();
        cc.arg("-L").arg(folder).arg("-lgrug").arg(format!("-Wl,-rpath,{}", folder.display()));
        cc.args(["-lpthread", "-lm"]);
    } else {
        cc.arg(archive).args(SYSTEM_LIBS);
    }
    run(&mut cc);
    program
}

/// Runs a program under valgrind: no error, and not a byte that is not freed.
pub fn valgrind(program: &Path) {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=all"]);
    valgrind.args(["--errors-for-leak-kinds=all", "--fair-sched=try"]);
    run(valgrind.arg(program).args(model_files()));
}

/// The files of a folder of the repository with this extension, sorted.
pub fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no .{extension}");
    files
}

/// Names of the functions that the header declares.
pub fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(root().join("include/grug.h")).unwrap();
    header
        .lines()
        .filter(|line| line.starts_with("GRUG_API"))
        .map(|line| {
            let before = line.split('(').next().unwrap();
            before.rsplit([' ', '*']).next().unwrap().to_string()
        })
        .collect()
}

/// Names of the symbols that a shared library exports.
pub fn exported(library: &Path) -> BTreeSet<String> {
    let output = run(Command::new("nm").args(["-D", "--defined-only", "-f", "posix"]).arg(library));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_string())
        .collect()
}

/// Compiles a TypeScript file as `names` in a project, without running it. Says so where there is no compiler.
pub fn check_types(project: &Path, source: &Path, names: &[&str]) {
    static COMPILER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let compiler = COMPILER.get_or_init(|| {
        let folder = scratch().join("typescript");
        let tsc = folder.join("node_modules/.bin/tsc");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("package.json"), "{ \"private\": true }\n").unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "typescript"]).current_dir(&folder);
        let found = tsc.exists() || npm.output().is_ok_and(|output| output.status.success());
        found.then_some(tsc)
    });
    let Some(compiler) = compiler else {
        skip("needs typescript from npm to check the types");
        return;
    };
    for name in names {
        std::fs::copy(source, project.join(name)).unwrap();
        let mut tsc = Command::new(compiler);
        tsc.args(["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext"]);
        run(tsc.args(["--lib", "es2023,dom,dom.asynciterable", name]).current_dir(project));
    }
}
