//! The CUDA engine, a graph a byte, on the tests' driver, which runs the kernels on the CPU (see `cuda/driver.cpp`). With
//! GRUG_CUDA_DRIVER set, on that one: `libcuda.so.1` is the real one.
#![cfg(all(feature = "cuda", target_arch = "x86_64", target_os = "linux"))]

#[path = "gpu_suite/batch.rs"]
mod batch;
mod common;
mod cuda;
#[path = "gpu_suite/decode.rs"]
mod decode;
mod gpu_suite;
#[cfg(feature = "import")]
mod pth;
#[path = "gpu_suite/random.rs"]
mod random;
#[path = "gpu_suite/rest.rs"]
mod rest;

const DEVICE: &str = "cuda:0";
const NEEDS: &str = "a C++ compiler for x86-64 (c++, or what CXX names)";

fn prepare() {
    cuda::use_fake_driver("graph");
}
