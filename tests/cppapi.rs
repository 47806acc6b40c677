//! The C++ API: `include/grug.hpp` in every standard, under valgrind and under AddressSanitizer.

mod native;

use std::process::Command;

use native::{compile, compile_with, files_in, have, model_files, root, run, valgrind};

#[test]
fn cpp_programs_pass_in_every_standard() {
    for (compiler, standard, shared) in
        [("g++", "c++11", true), ("g++", "c++17", false), ("g++", "c++20", true), ("clang++", "c++20", true)]
    {
        if !have(compiler) {
            continue;
        }
        let program = compile(
            compiler,
            standard,
            &files_in("tests/cpp", "cpp"),
            &format!("{compiler}-{standard}"),
            shared,
        );
        let output = run(Command::new(program).args(model_files()));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "C++ API: all passed\n");
    }
}

#[test]
fn sanitizers_and_valgrind_find_nothing() {
    if !have("g++") {
        return;
    }
    let sources = files_in("tests/cpp", "cpp");
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = compile_with("g++", "c++20", &flags, &sources, "sanitized", true);
    run(Command::new(program).args(model_files()));
    if have("valgrind") {
        valgrind(&compile("g++", "c++17", &sources, "valgrind", true));
    }
}

#[test]
fn the_example_writes_text() {
    if !have("g++") {
        return;
    }
    let program = compile("g++", "c++17", &[root().join("examples/cpp/generate.cpp")], "generate", true);
    let text = run(Command::new(program).arg(&model_files()[0]).args(["ab", "40"])).stdout;
    assert!(text.starts_with(b"ab") && text.len() == 2 + 40 + 1);
}

/// Typing, taking the first suggestion, and taking bytes back.
#[test]
fn autocomplete_suggests() {
    use std::io::Write;
    if !have("g++") {
        return;
    }
    let source = root().join("examples/cpp/autocomplete.cpp");
    let program = compile("g++", "c++17", &[source], "autocomplete", true);
    let mut command = Command::new(program);
    command.arg(&model_files()[0]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n\n<3\n<5000\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let positions: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split("at byte ").nth(1)?.trim_end_matches(':').parse().ok())
        .collect();
    assert_eq!(positions.len(), 4, "{text}");
    assert!(positions[0] == 5 && positions[1] > 5, "{text}");
    assert!(positions[2] == positions[1] - 3 && positions[3] == positions[2], "{text}");
    assert_eq!(text.matches("  | ").count(), 12, "{text}");
    assert!(text.contains("cannot be undone"), "{text}");
}
