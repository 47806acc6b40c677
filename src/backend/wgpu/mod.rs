//! The portable GPU engine: Vulkan, Metal and DirectX 12 through wgpu, kernels in WGSL.
//!
//! Nothing here panics on a bad device: what wgpu reports through error scopes, lost devices and failed maps becomes an
//! [`ErrorKind::Device`](crate::ErrorKind::Device) that says so.

mod device;
mod executor;
mod model;

pub(crate) use device::list;
pub(crate) use model::WgpuModel;
