//! The bindings, each built as a user would and tested by its own language's test runner.

mod native;

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use native::{check_types, have, libraries, model_files, root, run, scratch, skip};

/// A command that knows the models for tests.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("GRUG_TEST_MODEL", &model_files()[0]).env("GRUG_TEST_MODEL_END", &model_files()[1]);
    command.env_remove("GRUG_LIBRARY");
    command
}

/// A wheel is built and installed into a fresh environment, which has nothing else.
#[test]
fn the_python_wheel_passes_its_tests() {
    let environment = scratch().join("python");
    let _ = std::fs::remove_dir_all(&environment);
    let venv = Command::new("python3").args(["-m", "venv"]).arg(&environment).output();
    if !venv.is_ok_and(|output| output.status.success()) {
        skip("needs python3 with venv");
        return;
    }
    let python = environment.join("bin/python");
    let pip = |arguments: &[&str]| {
        let mut pip = command(&python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]).args(arguments);
        pip.env("GRUG_LIBRARY", &libraries().0);
        run(&mut pip);
    };
    let wheels = environment.join("wheels");
    let (package, wheels) = (root().join("bindings/python"), wheels.to_str().unwrap());
    pip(&["wheel", "--no-index", "--no-deps", "--wheel-dir", wheels, package.to_str().unwrap()]);
    pip(&["install", "--no-index", "--find-links", wheels, "grug"]);
    // Isolated, so that it is the installed package which is imported.
    let program = |program: PathBuf, arguments: &[&str]| {
        let mut python = command(&python);
        let output = run(python.args(["-I", "-W", "error"]).arg(program).args(arguments));
        String::from_utf8(output.stdout).unwrap()
    };
    program(package.join("tests/test_grug.py"), &[]);

    let example = |name: &str| root().join("examples/python").join(name);
    let model = model_files()[0].to_str().unwrap();
    let text = program(example("generate.py"), &[model, "ab", "40"]);
    assert!(text.starts_with("ab") && text.ends_with('\n') && text.len() > 30, "{text:?}");
    let text = program(example("constrained.py"), &[model, "--regex", "[0-9]{4}-[0-9]{2}", "-n", "4"]);
    let dates: Vec<&str> = text.lines().collect();
    assert!(dates.len() == 4 && dates.iter().all(|d| d.len() == 7 && &d[4..5] == "-"), "{text}");
    let log = environment.join("usual.log");
    let usual = "all is well\n".repeat(20);
    std::fs::write(&log, format!("{usual}{}\n{usual}", "\u{1F525}".repeat(3))).unwrap();
    let text = program(example("anomalies.py"), &[model, log.to_str().unwrap(), "5"]);
    assert!(text.lines().count() == 5 && text.contains(" bits a byte, line "), "{text}");

    // The types hold in themselves, where the checker can be had.
    let checker = scratch().join("mypy");
    let mut mypy = Command::new("python3");
    if !checker.join("mypy").exists() {
        mypy.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "mypy", "--target"]);
        if !mypy.arg(&checker).output().is_ok_and(|output| output.status.success()) {
            skip("needs mypy from pip to check the types");
            return;
        }
    }
    let mut mypy = Command::new("python3");
    mypy.args(["-m", "mypy", "--strict", "--cache-dir"]).arg(scratch().join("mypy-cache"));
    run(mypy.arg("grug").current_dir(&package).env("PYTHONPATH", &checker));
}

/// Against an installed library, with the race detector.
#[cfg(target_os = "linux")]
#[test]
fn the_go_module_passes_its_tests() {
    let go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    if !go {
        skip("needs go");
        return;
    }
    if !have("cc") || !have("pkg-config") {
        return;
    }
    let prefix = scratch().join("prefix");
    let mut install = Command::new(root().join("scripts/install"));
    run(install.arg("--from").arg(libraries().1.parent().unwrap()).arg(&prefix));
    let go = |folder: &Path, arguments: &[&str]| {
        let mut go = command("go");
        go.args(arguments).current_dir(folder);
        go.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).env("LD_LIBRARY_PATH", prefix.join("lib"));
        // What is fetched, is fetched from here.
        go.env("GOPROXY", format!("file://{}", scratch().join("proxy").display()));
        go.env("GOSUMDB", "off").env("GOFLAGS", "-mod=mod -modcacherw").env("GOTOOLCHAIN", "local");
        go.env("GOMODCACHE", scratch().join("modules"));
        run(&mut go).stdout
    };
    let module = root().join("bindings/go");
    let sources = || {
        let entries = std::fs::read_dir(&module).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<std::collections::BTreeSet<_>>()
    };
    go(&module, &["vet", "."]);
    go(&module, &["test", "-race", "-count=1", "."]);
    let arguments =
        ["run", "./generate", "-model", model_files()[0].to_str().unwrap(), "-prompt", "ab", "-bytes", "40"];
    assert!(go(&root().join("examples/go"), &arguments).len() == 2 + 40 + 1);

    // As another module gets it: from a proxy, by its name and version.
    if !have("python3") {
        return;
    }
    // Go holds what a version has for unchanging, and keeps its imports in its cache by the path of the
    // copy: other files need another version.
    let mut hasher = std::hash::DefaultHasher::new();
    for file in sources() {
        std::fs::read(&file).unwrap().hash(&mut hasher);
    }
    let version = format!("v0.1.0-test.h{:016x}", hasher.finish());
    let name = "example.com/grug/bindings/go";
    let tree = scratch().join("tree");
    let files = tree.join(format!("{name}@{version}"));
    for folder in [&tree, &scratch().join("proxy"), &scratch().join("modules"), &scratch().join("host")] {
        let _ = std::fs::remove_dir_all(folder);
    }
    let versions = scratch().join("proxy").join(name).join("@v");
    for folder in [&files, &versions] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for file in sources() {
        std::fs::copy(&file, files.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::copy(module.join("go.mod"), versions.join(format!("{version}.mod"))).unwrap();
    std::fs::write(versions.join("list"), format!("{version}\n")).unwrap();
    std::fs::write(versions.join(format!("{version}.info")), format!("{{\"Version\": \"{version}\"}}"))
        .unwrap();
    let zip = "import sys, zipfile, pathlib\n\
               tree = pathlib.Path(sys.argv[1])\n\
               with zipfile.ZipFile(sys.argv[2], 'w') as z:\n\
               \x20   for f in tree.rglob('*'):\n\
               \x20       if f.is_file(): z.write(f, f.relative_to(tree))";
    let mut python = Command::new("python3");
    run(python.args(["-c", zip]).arg(&tree).arg(versions.join(format!("{version}.zip"))));
    let host = scratch().join("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("go.mod"), "module host\n\ngo 1.24\n").unwrap();
    std::fs::copy(root().join("examples/go/generate/main.go"), host.join("main.go")).unwrap();
    go(&host, &["get", &format!("{name}@{version}")]);
    go(&host, &["build", "-o", "host", "."]);

    // As a copy beside the program, the way that the module's guide shows.
    let copied = format!("replace {name} => {}", files.display());
    std::fs::write(
        host.join("go.mod"),
        format!("module host\n\ngo 1.24\n\nrequire {name} {version}\n\n{copied}\n"),
    )
    .unwrap();
    for folder in ["proxy", "modules"] {
        std::fs::remove_dir_all(scratch().join(folder)).unwrap();
    }
    go(&host, &["build", "-o", "host", "."]);
}

/// The packed package is installed into an empty project, which compiles the addon.
#[cfg(target_os = "linux")]
#[test]
fn the_node_package_passes_its_tests() {
    if !have("node") || !have("npm") || !have("cc") {
        return;
    }
    let project = scratch().join("node");
    let _ = std::fs::remove_dir_all(&project);
    std::fs::create_dir_all(&project).unwrap();
    let prefix = scratch().join("node prefix");
    let mut install = Command::new(root().join("scripts/install"));
    run(install.arg("--from").arg(libraries().1.parent().unwrap()).arg(&prefix));

    let package = root().join("bindings/node");
    let mut pack = command("npm");
    run(pack.args(["pack", "--silent", "--pack-destination"]).arg(&project).current_dir(&package));
    std::fs::write(project.join("package.json"), "{ \"name\": \"host\", \"private\": true }\n").unwrap();
    let mut npm = command("npm");
    npm.args(["install", "--offline", "--no-audit", "--no-fund", "./grug-0.1.0.tgz"]).current_dir(&project);
    // pkg-config writes the blank in its own way.
    npm.env_remove("GRUG_PREFIX").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    if !have("pkg-config") {
        npm.env("GRUG_PREFIX", &prefix);
    }
    run(&mut npm);
    std::fs::copy(package.join("test/grug.test.mjs"), project.join("grug.test.mjs")).unwrap();
    run(command("node").args(["--test", "grug.test.mjs"]).current_dir(&project));

    std::fs::copy(root().join("examples/node/generate.mjs"), project.join("generate.mjs")).unwrap();
    let mut node = command("node");
    node.arg("generate.mjs").arg(&model_files()[0]).args(["ab", "40"]).current_dir(&project);
    let text = run(&mut node).stdout;
    assert!(text.starts_with(b"ab") && text.ends_with(b"\n") && text.len() > 30, "{text:?}");

    // As modules of both kinds see them.
    check_types(&project, &package.join("test/types.ts"), &["types.mts", "types.cts"]);
}
