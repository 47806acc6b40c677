//! Builds the tests' CUDA driver, and makes the engine use it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Compiles `driver.cpp` with the kernels in it, once a program.
pub fn build_driver() -> &'static Path {
    static DRIVER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DRIVER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libfakecuda.so");
        let compiler = std::env::var("CXX").unwrap_or("c++".into());
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-w", "-shared", "-fPIC", "-DGRUG_SHIM", "-I"])
            .arg(root.join("tests/cuda"))
            .arg("-I")
            .arg(root.join("src/backend/cuda"))
            .arg(root.join("tests/cuda/driver.cpp"))
            .arg("-o")
            .arg(&library)
            .output()
            .unwrap_or_else(|error| panic!("these tests need a C++ compiler; {compiler}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (folder, library)
    });
    path
}

/// Makes the engine use that driver, and decode this way.
#[allow(dead_code)] // not where a program sets its own variables
pub fn use_fake_driver(decode: &str) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: every test calls this before anything else, and others wait here until it is done.
        unsafe {
            if std::env::var_os("GRUG_CUDA_DRIVER").is_none() {
                std::env::set_var("GRUG_CUDA_DRIVER", build_driver());
            }
            std::env::set_var("GRUG_CUDA_DECODE", decode);
        }
    });
}
