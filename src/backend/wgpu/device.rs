//! Adapters, the device, and its errors.

use std::sync::{Arc, Mutex};

use crate::device::{DeviceInfo, DeviceKind};
use crate::error::{Error, ErrorKind, Result};

/// Set to 1, this environment variable lets processors that emulate a GPU be used: for tests.
pub(crate) const ALLOW_CPU: &str = "GRUG_WGPU_ALLOW_CPU";

/// A device and its queue.
#[derive(Debug)]
pub(super) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    /// What was said when the device was lost, or when an error escaped every scope.
    broken: Arc<Mutex<Option<String>>>,
}

fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let allow_cpu = std::env::var_os(ALLOW_CPU).is_some_and(|value| value == "1");
    let mut adapters =
        pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::all()));
    adapters.retain(|adapter| allow_cpu || adapter.get_info().device_type != wgpu::DeviceType::Cpu);
    // The fastest kind first; the order among equals is the driver's.
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// The devices of this machine.
pub(crate) fn list() -> Vec<DeviceInfo> {
    let describe = |(index, adapter): (usize, wgpu::Adapter)| {
        let info = adapter.get_info();
        DeviceInfo {
            kind: DeviceKind::Wgpu,
            index,
            description: info.name,
            features: format!("{:?},{:?}", info.backend, info.device_type).to_lowercase(),
            // wgpu does not tell.
            memory_total: 0,
            memory_free: 0,
        }
    };
    adapters().into_iter().enumerate().map(describe).collect()
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Device, format!("wgpu: {what}"))
}

impl Gpu {
    /// Opens the device of this number.
    pub(super) fn open(index: usize) -> Result<Gpu> {
        let adapters = adapters();
        let Some(adapter) = adapters.get(index) else {
            return Err(failed(format!(
                "there is no device wgpu:{index}: {} found (a GPU with a Vulkan, Metal or DirectX 12 driver is needed)",
                adapters.len()
            )));
        };
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("grug"),
            required_limits: limits.clone(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| failed(format!("opening {}: {e}", adapter.get_info().name)))?;
        let broken = Arc::new(Mutex::new(None));
        let note = |prefix: &'static str| {
            let broken = broken.clone();
            move |text: String| {
                let mut broken = broken.lock().unwrap_or_else(|e| e.into_inner());
                broken.get_or_insert(format!("{prefix}: {text}"));
            }
        };
        let lost = note("the device was lost");
        device.set_device_lost_callback(move |_, text| lost(text));
        let escaped = note("unexpected error");
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| escaped(error.to_string())));
        Ok(Gpu { device, queue, limits, broken })
    }

    /// Runs what uses the device and turns every error that wgpu reports about it into ours.
    pub(super) fn guarded<T>(&self, doing: &str, work: impl FnOnce() -> T) -> Result<T> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes = [Internal, Validation, OutOfMemory].map(|filter| self.device.push_error_scope(filter));
        let result = work();
        let mut error = None;
        for scope in scopes.into_iter().rev() {
            error = pollster::block_on(scope.pop()).or(error);
        }
        self.check()?;
        match error {
            None => Ok(result),
            Some(wgpu::Error::OutOfMemory { .. }) => {
                Err(Error::new(ErrorKind::OutOfMemory, format!("wgpu: {doing}: the device is out of memory")))
            }
            Some(error) => Err(failed(format!("{doing}: {error}"))),
        }
    }

    /// Fails once the device is lost.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.broken.lock().unwrap_or_else(|e| e.into_inner()) {
            Some(text) => Err(failed(text)),
            None => Ok(()),
        }
    }

    /// Waits until everything is done.
    pub(super) fn wait(&self) -> Result<()> {
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(format!("waiting: {e}")))?;
        self.check()
    }

    /// A buffer of so many bytes that kernels can use, all zero.
    pub(super) fn buffer(&self, what: &str, bytes: usize, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = bytes.max(16) as u64;
        let (largest, bound) = (self.limits.max_buffer_size, self.limits.max_storage_buffer_binding_size);
        if size > largest || (usage.contains(wgpu::BufferUsages::STORAGE) && size > bound) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "wgpu: {what} needs {size} bytes in one buffer; this device has at most {}",
                    largest.min(bound)
                ),
            ));
        }
        let descriptor =
            wgpu::BufferDescriptor { label: Some("grug"), size, usage, mapped_at_creation: false };
        self.guarded(what, || self.device.create_buffer(&descriptor))
    }

    /// A buffer that kernels read, with these bytes.
    pub(super) fn constant(&self, what: &str, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = self.buffer(what, bytes.len(), usage)?;
        // In parts: wgpu holds a copy of each until it has gone to the device.
        const PART: usize = 16 << 20;
        for (i, part) in bytes.chunks(PART).enumerate() {
            self.guarded(what, || self.queue.write_buffer(&buffer, (i * PART) as u64, part))?;
            if part.len() == PART {
                self.queue.submit([]);
                self.wait()?;
            }
        }
        Ok(buffer)
    }
}
