//! The C API as a C program sees it: the header, the exported symbols, and test programs and examples compiled by the
//! system's compiler against the shared and the static library, some of them under valgrind.
//!
//! A test that needs a tool which is not there says so and passes: "skipped: needs valgrind".

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use grug::checkpoint::{TensorToWrite, f32_bytes, save_model};
use grug::config::ModelConfig;
use grug::manifest::ModelTensors;

/// Warnings are errors for every C program here.
const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"];
/// What a static library of Rust asks of the system.
const SYSTEM_LIBS: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of this test's own.
fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command; what it printed is shown where it fails.
fn run(command: &mut Command) -> Output {
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
fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: needs {tool}");
    }
    found
}

/// `libgrug.so` and `libgrug.a` of the profile that this test runs in. Cargo builds them beside this test, but only
/// promises where they are to one who asks for them.
fn libraries() -> &'static (PathBuf, PathBuf) {
    static LIBRARIES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
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
fn model_files() -> &'static [PathBuf; 2] {
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

/// Compiles C sources to a program of this name, against the shared or the static library.
fn compile(compiler: &str, standard: &str, sources: &[PathBuf], name: &str, shared: bool) -> PathBuf {
    let (so, archive) = libraries();
    let program = scratch().join(format!("{name}-{}", if shared { "shared" } else { "static" }));
    let mut cc = Command::new(compiler);
    cc.arg(format!("-std={standard}")).args(STRICT).arg("-g").arg("-I").arg(root().join("include"));
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

fn test_sources() -> Vec<PathBuf> {
    let mut sources: Vec<PathBuf> = std::fs::read_dir(root().join("tests/c"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    sources.sort();
    assert!(sources.len() > 5, "{sources:?}");
    sources
}

#[test]
fn the_committed_header_is_what_the_sources_say() {
    let built = std::fs::read_to_string(Path::new(env!("OUT_DIR")).join("grug.h")).unwrap();
    let committed = std::fs::read_to_string(root().join("include/grug.h")).unwrap();
    assert!(
        built == committed,
        "include/grug.h is not what src/ffi says; renew it by: GRUG_UPDATE_HEADER=1 cargo build --lib"
    );
}

/// Names of the functions that the header declares.
fn declared() -> BTreeSet<String> {
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

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    if !cfg!(target_os = "linux") || !have("nm") {
        return;
    }
    let output = run(Command::new("nm").args(["-D", "--defined-only", "-f", "posix"]).arg(&libraries().0));
    let exported: BTreeSet<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_string())
        .collect();
    let declared = declared();
    assert!(declared.len() > 20 && declared.contains("grug_session_generate"), "{declared:?}");
    assert_eq!(exported, declared);
}

#[test]
fn c_programs_pass_against_the_shared_and_the_static_library() {
    for compiler in ["cc", "clang"] {
        if !have(compiler) {
            continue;
        }
        for shared in [true, false] {
            let program = compile(compiler, "c99", &test_sources(), &format!("capi-{compiler}"), shared);
            let output = run(Command::new(program).args(model_files()));
            assert_eq!(String::from_utf8_lossy(&output.stdout), "C API: all passed\n");
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn valgrind_finds_no_error_and_no_leak() {
    if !have("cc") || !have("valgrind") {
        return;
    }
    for shared in [true, false] {
        let program = compile("cc", "c99", &test_sources(), "valgrind", shared);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=all"]);
        valgrind.args(["--errors-for-leak-kinds=all", "--fair-sched=try"]);
        run(valgrind.arg(program).args(model_files()));
    }
}

#[test]
fn the_examples_write_text() {
    if !have("cc") {
        return;
    }
    let example =
        |name: &str| compile("cc", "c99", &[root().join(format!("examples/c/{name}.c"))], name, true);
    let model = &model_files()[0];

    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let program = std::fs::read_to_string(root().join("examples/c/hello.c")).unwrap();
    assert!(readme.contains(&program), "README.md shows another program than examples/c/hello.c");
    let hello = run(Command::new(example("hello")).arg(model));
    assert_eq!(hello.stdout.len(), 400);

    let generate = example("generate");
    let text = |arguments: &[&str]| run(Command::new(&generate).arg(model).args(arguments)).stdout;
    let first = text(&["ab", "50", "-s", "7"]);
    assert_eq!(first.len(), 2 + 50 + 1, "the prompt, the text and a line end");
    assert!(first.starts_with(b"ab") && first.ends_with(b"\n"));
    assert_eq!(first, text(&["ab", "50", "-s", "7"]));
    assert_ne!(first, text(&["ab", "50", "-s", "8"]));

    let failure = |arguments: &[&str]| {
        let output = Command::new(&generate).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(failure(&[]).contains("needs the path of a model"));
    assert!(failure(&["no-such-model"]).contains("no-such-model"));
    assert!(failure(&["m", "-t", "warm"]).contains("warm: is not a number"));
    assert!(failure(&["m", "--frobnicate"]).contains("is no option"));
    assert!(failure(&[model.to_str().unwrap(), "-p", "2"]).contains("is not a number that fits"));
}

/// Ctrl-C ends a program that would go on for ever, with the exit code that shells give it.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_example_cleanly() {
    use std::io::Read;
    if !have("cc") {
        return;
    }
    let program = compile("cc", "c99", &[root().join("examples/c/generate.c")], "interrupted", true);
    let mut command = Command::new(program);
    command.arg(&model_files()[0]).args(["", "0"]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    // It writes, so it is past the point where it set its signal handler.
    let mut some = [0; 100];
    out.read_exact(&mut some).unwrap();
    run(Command::new("kill").arg("-INT").arg(child.id().to_string()));
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.ends_with(b"\n"));
}
