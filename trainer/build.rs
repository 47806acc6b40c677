//! Compiles the C++ in `shim/` against libtorch and tells the linker where libtorch will be found when the program runs.

use std::path::{Path, PathBuf};
use std::process::exit;

/// Ends the build with one sentence a person can act on.
fn fail(text: &str) -> ! {
    eprintln!("\nerror: {text}\n");
    println!("cargo:warning={}", text.replace('\n', " "));
    exit(1);
}

fn libtorch() -> PathBuf {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let advice = "Run scripts/fetch-libtorch (--cuda on a machine with an NVIDIA GPU), or set LIBTORCH to the folder \
                  of an installed PyTorch 2.11 (site-packages/torch).";
    let Some(folder) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
        fail(&format!("grug-trainer needs libtorch, and LIBTORCH is not set.\n{advice}"));
    };
    for part in ["include/ATen/Context.h", "lib/libtorch_cpu.so", "lib/libc10.so", "lib/libtorch.so"] {
        if !folder.join(part).is_file() {
            fail(&format!(
                "grug-trainer needs libtorch, and LIBTORCH = {} has no {part}.\n{advice}",
                folder.display()
            ));
        }
    }
    // The real path: the CUDA libraries of a PyTorch installation are found relative to it.
    folder.canonicalize().unwrap_or(folder)
}

fn compile_shim(libtorch: &Path) {
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    println!("cargo:rerun-if-changed=shim");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // fused.cpp has loops of its own, which debug builds need fast too.
        .opt_level(3)
        .flag_if_supported("-fopenmp-simd")
        .flag_if_supported("-fno-math-errno")
        .pic(true)
        .flag("-isystem")
        .flag(libtorch.join("include"))
        .flag("-isystem")
        .flag(libtorch.join("include/torch/csrc/api/include"))
        // After libtorch's own: names of Gloo, whose headers most packages of libtorch leave out.
        .flag("-isystem")
        .flag("shim/gloo_names")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .warnings(true)
        .extra_warnings(true)
        .files(["shim", "fused", "parallel", "profile", "recompute"].map(|name| format!("shim/{name}.cpp")))
        .compile("grug_torch_shim");
}

fn main() {
    let libtorch = libtorch();
    compile_shim(&libtorch);
    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    // Where the program looks for libtorch, in this order: LD_LIBRARY_PATH, a `lib` folder beside the program, the
    // libtorch that it was built with.
    for place in ["$ORIGIN/lib", &lib.display().to_string()] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{place}");
    }
}
