//! The C API as a C program sees it: the header, the exported symbols, and test programs and examples compiled by the
//! system's compilers against the shared and the static library, some of them under valgrind.

mod native;

use std::path::Path;
use std::process::Command;

use native::{
    compile, declared, exported, files_in, have, libraries, model_files, root, run, scratch, valgrind,
};

#[test]
fn the_committed_header_and_its_page_are_what_the_sources_say() {
    for (built, committed) in [("grug.h", "include/grug.h"), ("api.md", "docs/api.md")] {
        let built = std::fs::read_to_string(Path::new(env!("OUT_DIR")).join(built)).unwrap();
        assert!(
            built == std::fs::read_to_string(root().join(committed)).unwrap(),
            "{committed} is not what src/ffi says; renew it by: GRUG_UPDATE_HEADER=1 cargo build --lib"
        );
    }
}

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    if !cfg!(target_os = "linux") || !have("nm") {
        return;
    }
    let declared = declared();
    assert!(declared.len() > 20 && declared.contains("grug_session_generate"), "{declared:?}");
    assert_eq!(exported(&libraries().0), declared);
}

/// Every standard and compiler that a host may have, C++ too; warnings are errors.
#[test]
fn the_headers_are_clean_in_every_standard() {
    let c = ("c", "#include <grug.h>\nint main(void) { return GRUG_OK; }\n", &["c99", "c11", "c17", "gnu17"]);
    let cpp = (
        "cpp",
        "#include <grug.hpp>\n#include <grug.h>\nint main() { return GRUG_OK; }\n",
        &["c++11", "c++14", "c++17", "c++20"],
    );
    for (extension, text, standards) in [c, cpp] {
        let source = scratch().join(format!("clean.{extension}"));
        std::fs::write(&source, text).unwrap();
        let compilers = if extension == "c" { ["gcc", "clang"] } else { ["g++", "clang++"] };
        for compiler in compilers.into_iter().filter(|compiler| have(compiler)) {
            for standard in standards {
                let mut cc = Command::new(compiler);
                cc.arg(format!("-std={standard}")).args(native::STRICT).args(["-Wconversion", "-Wcast-qual"]);
                run(cc.arg("-fsyntax-only").arg("-I").arg(root().join("include")).arg(&source));
            }
        }
    }
}

#[test]
fn c_programs_pass_against_the_shared_and_the_static_library() {
    for compiler in ["cc", "clang"] {
        if !have(compiler) {
            continue;
        }
        for shared in [true, false] {
            let program =
                compile(compiler, "c99", &files_in("tests/c", "c"), &format!("capi-{compiler}"), shared);
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
        let program = compile("cc", "c99", &files_in("tests/c", "c"), "valgrind", shared);
        valgrind(&program);
    }
}

/// Loaded while the host runs, used from two threads with two workers, and dropped, again and again.
#[cfg(target_os = "linux")]
#[test]
fn a_host_may_load_and_drop_the_library() {
    if !have("cc") {
        return;
    }
    let program = scratch().join("dlopen");
    let mut cc = Command::new("cc");
    cc.arg("-std=c99").args(native::STRICT).arg("-g").arg("-I").arg(root().join("include"));
    cc.arg(root().join("tests/c/host/dlopen.c")).arg("-o").arg(&program).args(["-ldl", "-lpthread"]);
    run(&mut cc);
    let output = run(Command::new(&program).arg(&libraries().0).arg(&model_files()[0]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("dlopen: all passed"), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
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

/// Sends a process what Ctrl-C sends. It may have ended meanwhile.
#[cfg(unix)]
fn run_interrupt(process: u32) -> impl Fn() {
    move || drop(Command::new("kill").arg("-INT").arg(process.to_string()).output())
}

/// Ctrl-C stops an answer, and the prompt comes back; at the prompt it ends the program.
#[cfg(unix)]
#[test]
fn the_prompt_survives_ctrl_c_while_it_answers() {
    use std::io::{Read, Write};
    if !have("cc") {
        return;
    }
    let program = compile("cc", "c99", &[root().join("examples/c/prompt.c")], "prompt", true);
    // Whether both answers were interrupted.
    let once = || -> bool {
        let mut command = Command::new(&program);
        command.arg(&model_files()[0]).arg("100000000");
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let interrupt = run_interrupt(child.id());
        let mut some = [0; 40];
        from.read_exact(&mut some[..2]).unwrap();
        assert_eq!(&some[..2], b"> ");
        let answers = ["one", "two"].iter().all(|line| {
            let mut last = [0; 3];
            let mut going = writeln!(to, "{line}").is_ok() && from.read_exact(&mut some).is_ok();
            interrupt();
            while going && last != *b"\n> " {
                last.rotate_left(1);
                going = from.read_exact(&mut last[2..]).is_ok();
            }
            going
        });
        interrupt();
        drop(to);
        assert!(from.read_to_end(&mut Vec::new()).is_ok());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        answers
    };
    // An answer that happens to end by itself leaves the interrupt to the prompt, which ends the program: once more.
    assert!((0..10).any(|_| once()), "no answer was ever interrupted");
}
