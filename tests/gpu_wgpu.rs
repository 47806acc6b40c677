//! The wgpu engine, on the first Vulkan device there is: also on one that the CPU emulates (Mesa's lavapipe, in Debian's
//! `mesa-vulkan-drivers`). Without any, these tests fail and say so.
#![cfg(feature = "wgpu")]

mod common;
#[path = "gpu_suite/decode.rs"]
mod decode;
mod gpu_suite;
#[cfg(feature = "import")]
mod pth;
#[path = "gpu_suite/rest.rs"]
mod rest;

const DEVICE: &str = "wgpu:0";
const NEEDS: &str = "a Vulkan device, be it Mesa's lavapipe (Debian: mesa-vulkan-drivers)";

/// Lets an emulated device count.
fn prepare() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: every test calls this before anything else, and others wait here until it is done.
    ONCE.call_once(|| unsafe { std::env::set_var("GRUG_WGPU_ALLOW_CPU", "1") });
}
