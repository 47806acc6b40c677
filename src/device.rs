//! The devices that a model can run on, and how they are named: `cpu`, `wgpu:0`, `cuda:0`, or `auto` for the best.

use crate::error::{Error, ErrorKind, Result};

/// What a device is reached through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceKind {
    /// The processor.
    Cpu = 1,
    /// An NVIDIA GPU through its driver.
    Cuda = 2,
    /// Any GPU through Vulkan, Metal or DirectX 12.
    Wgpu = 3,
}

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What it is reached through.
    pub kind: DeviceKind,
    /// Its number among those of its kind.
    pub index: usize,
    /// What its maker calls it.
    pub description: String,
    /// What it can do, separated by commas.
    pub features: String,
    /// Its memory in bytes; 0 where unknown.
    pub memory_total: u64,
    /// How much of that is free, in bytes; 0 where unknown.
    pub memory_free: u64,
}

impl DeviceInfo {
    /// The name that selects it: `cpu`, `wgpu:0`, `cuda:0`.
    pub fn name(&self) -> String {
        Device { kind: self.kind, index: self.index }.to_string()
    }
}

/// A device by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub kind: DeviceKind,
    pub index: usize,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Cuda => write!(f, "cuda:{}", self.index),
            DeviceKind::Wgpu => write!(f, "wgpu:{}", self.index),
        }
    }
}

impl Device {
    /// The device of this name; an empty one is the CPU. `auto` is the best there is, which asks the drivers.
    pub(crate) fn parse(name: &str) -> Result<Device> {
        let of = |kind, index| Ok(Device { kind, index });
        match name {
            "" | "cpu" => of(DeviceKind::Cpu, 0),
            "auto" => Ok(best(&devices())),
            _ => {
                let (word, index) = name.split_once(':').unwrap_or((name, "0"));
                match (word, index.parse()) {
                    ("cuda", Ok(index)) => of(DeviceKind::Cuda, index),
                    ("wgpu", Ok(index)) => of(DeviceKind::Wgpu, index),
                    _ => Err(Error::new(
                        ErrorKind::Device,
                        format!("device {name:?}: must be \"auto\", \"cpu\", \"wgpu:N\" or \"cuda:N\""),
                    )),
                }
            }
        }
    }
}

/// CUDA before wgpu before the CPU.
fn best(devices: &[DeviceInfo]) -> Device {
    let of = |kind| devices.iter().find(|device| device.kind == kind);
    let found = of(DeviceKind::Cuda).or(of(DeviceKind::Wgpu));
    found.map_or(Device { kind: DeviceKind::Cpu, index: 0 }, |d| Device { kind: d.kind, index: d.index })
}

/// Every device of this machine that this build can use, the CPU first. Asks the drivers, each time.
pub fn devices() -> Vec<DeviceInfo> {
    #[allow(unused_mut)] // a build for the CPU alone adds nothing
    let mut devices = vec![DeviceInfo {
        kind: DeviceKind::Cpu,
        index: 0,
        description: format!("{} processor", std::env::consts::ARCH),
        features: String::new(),
        memory_total: 0,
        memory_free: 0,
    }];
    #[cfg(feature = "cuda")]
    devices.extend(crate::backend::cuda::list());
    #[cfg(feature = "wgpu")]
    devices.extend(crate::backend::wgpu::list());
    devices
}

/// The error for a device whose engine is not in this build.
#[allow(dead_code)] // a build with every engine needs it nowhere
pub(crate) fn not_built(device: Device, feature: &str) -> Error {
    Error::new(
        ErrorKind::Device,
        format!("device \"{device}\": this build has no such engine (Cargo feature \"{feature}\")"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["cpu", "wgpu:0", "cuda:3"] {
            assert_eq!(Device::parse(name).unwrap().to_string(), name);
        }
        assert_eq!(Device::parse("").unwrap().kind, DeviceKind::Cpu);
        assert_eq!(Device::parse("cuda").unwrap().to_string(), "cuda:0");
        for name in ["gpu", "cuda:x", "cpu:1", "wgpu:-1"] {
            assert_eq!(Device::parse(name).unwrap_err().kind(), ErrorKind::Device, "{name}");
        }
    }

    #[test]
    fn the_best_device_is_cuda_then_wgpu_then_the_cpu() {
        let device = |kind, index| DeviceInfo {
            kind,
            index,
            description: String::new(),
            features: String::new(),
            memory_total: 0,
            memory_free: 0,
        };
        let all = [
            device(DeviceKind::Cpu, 0),
            device(DeviceKind::Wgpu, 0),
            device(DeviceKind::Cuda, 0),
            device(DeviceKind::Cuda, 1),
        ];
        assert_eq!(best(&all).to_string(), "cuda:0");
        assert_eq!(best(&all[..2]).to_string(), "wgpu:0");
        assert_eq!(best(&all[..1]).to_string(), "cpu");
        assert_eq!(devices()[0].name(), "cpu");
    }
}
