//! The bindings, each built as a user would and tested by its own language's test runner.

mod native;

use std::process::Command;

use native::{have, libraries, model_files, root, run, scratch};

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
        println!("skipped: needs python3 with venv");
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
    let mut tests = command(&python);
    // Isolated, so that it is the installed package which is imported.
    run(tests.args(["-I", "-W", "error"]).arg(package.join("tests/test_grug.py")));
}

/// Against an installed library, with the race detector.
#[cfg(target_os = "linux")]
#[test]
fn the_go_module_passes_its_tests() {
    let go = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    if !go {
        println!("skipped: needs go");
        return;
    }
    if !have("cc") || !have("pkg-config") {
        return;
    }
    let prefix = scratch().join("prefix");
    let mut install = Command::new(root().join("scripts/install"));
    run(install.arg("--from").arg(libraries().1.parent().unwrap()).arg(&prefix));
    for arguments in [&["vet", "."][..], &["test", "-race", "-count=1", "."]] {
        let mut go = command("go");
        go.args(arguments).current_dir(root().join("bindings/go"));
        go.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).env("LD_LIBRARY_PATH", prefix.join("lib"));
        run(&mut go);
    }
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
    let prefix = scratch().join("node-prefix");
    let mut install = Command::new(root().join("scripts/install"));
    run(install.arg("--from").arg(libraries().1.parent().unwrap()).arg(&prefix));

    let package = root().join("bindings/node");
    let mut pack = command("npm");
    run(pack.args(["pack", "--silent", "--pack-destination"]).arg(&project).current_dir(&package));
    std::fs::write(project.join("package.json"), "{ \"name\": \"host\", \"private\": true }\n").unwrap();
    let mut npm = command("npm");
    npm.args(["install", "--offline", "--no-audit", "--no-fund", "./grug-0.1.0.tgz"]).current_dir(&project);
    run(npm.env("GRUG_PREFIX", &prefix));
    std::fs::copy(package.join("test/grug.test.mjs"), project.join("grug.test.mjs")).unwrap();
    run(command("node").args(["--test", "grug.test.mjs"]).current_dir(&project));
}
