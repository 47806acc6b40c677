//! What `scripts/install` installs: found by pkg-config and CMake, wherever it is moved to.
#![cfg(target_os = "linux")]

mod native;

use std::path::{Path, PathBuf};
use std::process::Command;

use native::{declared, exported, have, libraries, model_files, root, run, scratch};

/// Installs into a prefix and moves it, so that nothing in it can hold on to where it was made.
fn installed(name: &str) -> PathBuf {
    let (first, prefix) = (scratch().join(format!("{name}-made-here")), scratch().join(name));
    let _ = std::fs::remove_dir_all(&prefix);
    let mut install = Command::new(root().join("scripts/install"));
    run(install.arg("--from").arg(libraries().1.parent().unwrap()).arg(&first));
    std::fs::rename(&first, &prefix).unwrap();
    prefix
}

fn writes_text(program: &Path, library_path: &Path) {
    let mut command = Command::new(program);
    command.arg(&model_files()[0]).args(["ab", "40"]).env("LD_LIBRARY_PATH", library_path);
    let text = run(&mut command).stdout;
    assert!(text.starts_with(b"ab") && text.len() == 2 + 40 + 1, "{program:?}");
}

#[test]
fn the_shared_library_has_its_soname_and_no_other_symbols() {
    if !have("cc") || !have("nm") || !have("readelf") {
        return;
    }
    let prefix = installed("plain");
    let library = prefix.join("lib/libgrug.so");
    assert_eq!(std::fs::read_link(&library).unwrap(), Path::new("libgrug.so.0"));
    let version = format!("libgrug.so.{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(std::fs::read_link(prefix.join("lib/libgrug.so.0")).unwrap(), Path::new(&version));
    let dynamic = String::from_utf8(run(Command::new("readelf").arg("-d").arg(&library)).stdout).unwrap();
    assert!(dynamic.contains("Library soname: [libgrug.so.0]"), "{dynamic}");
    assert_eq!(exported(&library), declared());
}

#[test]
fn pkg_config_links_both_libraries() {
    if !have("cc") || !have("pkg-config") {
        return;
    }
    let prefix = installed("pkg-config");
    let flags = |arguments: &[&str]| -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.args(arguments).arg("grug").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        let output = String::from_utf8(run(&mut command).stdout).unwrap();
        output.split_whitespace().map(str::to_string).collect()
    };
    assert_eq!(flags(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    for shared in [true, false] {
        let program = scratch().join(format!("by-pkg-config-{shared}"));
        let mut cc = Command::new("cc");
        cc.arg(root().join("examples/c/generate.c")).arg("-o").arg(&program).args(flags(&["--cflags"]));
        if shared {
            cc.args(flags(&["--libs"]));
        } else {
            cc.arg("-Wl,-Bstatic").args(flags(&["--libs"])).arg("-Wl,-Bdynamic");
            cc.args(flags(&["--libs", "--static"]).iter().filter(|flag| *flag != "-lgrug"));
        }
        run(&mut cc);
        // The static program needs no library of ours.
        writes_text(&program, &if shared { prefix.join("lib") } else { scratch().join("nowhere") });
    }
}

#[test]
fn cmake_finds_the_package() {
    if !have("cmake") || !have("c++") {
        return;
    }
    let prefix = installed("cmake");
    let build = scratch().join("cmake-build");
    let _ = std::fs::remove_dir_all(&build);
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(root().join("tests/cmake")).arg("-B").arg(&build);
    run(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display())));
    run(Command::new("cmake").arg("--build").arg(&build));
    for program in ["host_shared", "host_static", "host_cpp"] {
        writes_text(&build.join(program), &scratch().join("nowhere"));
    }
}
