//! What `scripts/install` installs and `scripts/package` packs: found by pkg-config and CMake, wherever it lies.
#![cfg(target_os = "linux")]

mod native;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use native::{declared, exported, have, libraries, model_files, root, run, scratch};

/// A new, empty folder.
fn fresh(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A prefix that was installed and then moved, so that nothing in it can hold on to where it was made. It is named as one
/// does in a folder of one's own, by somebody whose files nobody else may read.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let folder = fresh("installed");
        let (first, prefix) = (folder.join("made here"), folder.join("moved"));
        let mut install = Command::new("sh");
        install.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(root().join("scripts/install"));
        run(install.arg("--from").arg(libraries().1.parent().unwrap()).arg("made here").current_dir(&folder));
        std::fs::rename(&first, &prefix).unwrap();
        prefix
    })
}

/// The tarball, unpacked in a folder whose name has a blank. `None`, said aloud, where there are no tools to make it.
#[cfg(feature = "cli")]
fn unpacked() -> Option<&'static Path> {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    if !["rustc", "tar", "gzip", "objdump", "strip"].iter().all(|tool| have(tool)) {
        return None;
    }
    Some(PREFIX.get_or_init(|| {
        let from = fresh("package-from");
        std::fs::hard_link(&libraries().1, from.join("libgrug.a")).unwrap();
        std::fs::hard_link(env!("CARGO_BIN_EXE_grug"), from.join("grug")).unwrap();
        let (packed, elsewhere) = (fresh("packed"), fresh("some where else"));
        let mut package = Command::new(root().join("scripts/package"));
        // The sizes of a test's build are of no interest: quick rather than small.
        run(package.arg("--from").arg(&from).arg(".").current_dir(&packed).env("GZIP_LEVEL", "-1"));
        let tarballs: Vec<PathBuf> =
            std::fs::read_dir(&packed).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(tarballs.len(), 1, "{tarballs:?}");
        let name = tarballs[0].file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
        assert!(name.starts_with(concat!("grug-", env!("CARGO_PKG_VERSION"), "-")), "{name}");
        run(Command::new("tar").arg("-xzf").arg(&tarballs[0]).arg("-C").arg(&elsewhere));
        elsewhere.join(name)
    }))
}

/// Every place that programs are to be built against.
fn prefixes() -> Vec<&'static Path> {
    #[cfg(feature = "cli")]
    return [Some(installed()), unpacked()].into_iter().flatten().collect();
    #[cfg(not(feature = "cli"))]
    return vec![installed()];
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
    for prefix in prefixes() {
        let library = prefix.join("lib/libgrug.so");
        // Before 1.0 each ABI is another library.
        let soname = format!("libgrug.so.0.{}", grug::ffi::library::GRUG_ABI_VERSION);
        assert_eq!(std::fs::read_link(&library).unwrap(), Path::new(&soname));
        let version = format!("libgrug.so.{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(std::fs::read_link(prefix.join("lib").join(&soname)).unwrap(), Path::new(&version));
        let dynamic = String::from_utf8(run(Command::new("readelf").arg("-d").arg(&library)).stdout).unwrap();
        assert!(dynamic.contains(&format!("Library soname: [{soname}]")), "{dynamic}");
        assert_eq!(exported(&library), declared());
    }
}

#[test]
fn what_is_installed_is_for_all_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let (prefix, mut folders, mut files) = (installed(), vec![installed().to_path_buf()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o44, 0o44, "{entry:?} of {prefix:?}");
            if entry.is_dir() {
                folders.push(entry);
            } else {
                files += 1;
            }
        }
    }
    assert!(files >= 8, "{files}");
}

/// An archive that lacks functions of the header makes no library without them.
#[test]
fn an_archive_without_the_functions_is_refused() {
    if !have("cc") || !have("ar") {
        return;
    }
    let (from, prefix) = (fresh("empty-from"), fresh("empty"));
    run(Command::new("ar").arg("rc").arg(from.join("libgrug.a")));
    let mut install = Command::new(root().join("scripts/install"));
    let output = install.arg("--from").arg(&from).arg(&prefix).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("grug_abi_version"), "{output:?}");
}

#[test]
fn pkg_config_links_both_libraries() {
    if !have("cc") || !have("pkg-config") {
        return;
    }
    for (i, prefix) in prefixes().into_iter().enumerate() {
        let pkg_config = |arguments: &str| -> String {
            let mut command = Command::new("pkg-config");
            command.args(arguments.split(' ')).arg("grug");
            command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
            String::from_utf8(run(&mut command).stdout).unwrap().trim().to_string()
        };
        assert_eq!(pkg_config("--modversion"), env!("CARGO_PKG_VERSION"));
        let (shared, needed) = (pkg_config("--libs"), pkg_config("--libs --static"));
        let needed: Vec<&str> = needed.split(' ').filter(|flag| *flag != "-lgrug").collect();
        let fixed = format!("-Wl,-Bstatic {shared} -Wl,-Bdynamic {}", needed.join(" "));
        for (kind, flags) in [("shared", &shared), ("static", &fixed)] {
            let program = scratch().join(format!("by-pkg-config-{kind}-{i}"));
            // pkg-config writes blanks in paths as a shell wants them.
            let line = format!("cc \"$1\" -o \"$2\" {} {flags}", pkg_config("--cflags"));
            let mut shell = Command::new("sh");
            run(shell.args(["-c", &line, "sh"]).arg(root().join("examples/c/generate.c")).arg(&program));
            // The static program needs no library of ours.
            writes_text(
                &program,
                &if kind == "shared" { prefix.join("lib") } else { scratch().join("nowhere") },
            );
        }
    }
}

#[test]
fn cmake_finds_the_package() {
    if !have("cmake") || !have("c++") {
        return;
    }
    for prefix in prefixes() {
        let build = fresh("cmake-build");
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(root().join("tests/cmake")).arg("-B").arg(&build);
        run(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display())));
        run(Command::new("cmake").arg("--build").arg(&build));
        for program in ["host_shared", "host_static", "host_cpp"] {
            writes_text(&build.join(program), &scratch().join("nowhere"));
        }
    }
}

/// As on systems whose /lib is a link to /usr/lib.
#[test]
fn cmake_finds_the_package_by_way_of_a_link() {
    if !have("cmake") || !have("c++") {
        return;
    }
    let system = fresh("merged");
    std::os::unix::fs::symlink(installed(), system.join("usr")).unwrap();
    std::os::unix::fs::symlink("usr/lib", system.join("lib")).unwrap();
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(root().join("tests/cmake")).arg("-B").arg(fresh("merged-build"));
    run(configure.arg(format!("-Dgrug_DIR={}", system.join("lib/cmake/grug").display())));
}

/// For one who got the tarball and has neither this repository nor Rust.
#[cfg(feature = "cli")]
#[test]
fn the_tarball_has_what_it_takes() {
    let Some(prefix) = unpacked() else { return };
    for file in
        ["LICENSE", "CHANGELOG.md", "embedding.md", "include/grug.h", "include/grug.hpp", "lib/libgrug.a"]
    {
        assert!(prefix.join(file).is_file(), "{file}");
    }
    // What is text knows no path of the machine that made it.
    let (here, there) = (root().to_str().unwrap(), scratch());
    for file in ["lib/pkgconfig/grug.pc", "lib/cmake/grug/grug-config.cmake", "README.md"] {
        let text = std::fs::read_to_string(prefix.join(file)).unwrap();
        assert!(!text.contains(here) && !text.contains(there.to_str().unwrap()), "{file}: {text}");
    }
    let version = run(Command::new(prefix.join("bin/grug")).arg("--version"));
    assert!(String::from_utf8(version.stdout).unwrap().contains(env!("CARGO_PKG_VERSION")));
    let info = run(Command::new(prefix.join("bin/grug")).arg("info").arg(&model_files()[0]));
    assert!(String::from_utf8(info.stdout).unwrap().contains("rotary"));
}
