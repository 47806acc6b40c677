//! The CUDA engine with one kernel for all bytes; otherwise as `gpu_cuda.rs`.
#![cfg(all(feature = "cuda", target_arch = "x86_64", target_os = "linux"))]

mod common;
mod cuda;
#[path = "gpu_suite/decode.rs"]
mod decode;
mod gpu_suite;

const DEVICE: &str = "cuda:0";
const NEEDS: &str = "a C++ compiler for x86-64 (c++, or what CXX names)";

fn prepare() {
    cuda::use_fake_driver("persistent");
}
