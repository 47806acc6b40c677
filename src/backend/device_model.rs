//! A model on its device: the one place that knows every engine.

use std::sync::Arc;

use super::Engine;
use super::cpu::CpuEngine;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::device::{Device, DeviceKind};
use crate::error::Result;
use crate::model::Graph;

/// What a model has on its device.
#[derive(Debug)]
pub(crate) enum DeviceModel {
    /// The CPU computes with the graph itself.
    Cpu,
    #[cfg(feature = "cuda")]
    Cuda(Device, Arc<super::cuda::CudaModel>),
    #[cfg(feature = "wgpu")]
    Wgpu(Device, Arc<super::wgpu::WgpuModel>),
}

impl DeviceModel {
    /// Puts a model on the device of this name.
    pub(crate) fn load(file: &Checkpoint, name: &str) -> Result<DeviceModel> {
        let device = Device::parse(name)?;
        let _ = file; // a build for the CPU alone reads nothing here
        match device.kind {
            DeviceKind::Cpu => Ok(DeviceModel::Cpu),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda => {
                Ok(DeviceModel::Cuda(device, super::cuda::CudaModel::load(file, device.index)?))
            }
            #[cfg(not(feature = "cuda"))]
            DeviceKind::Cuda => Err(crate::device::not_built(device, "cuda")),
            #[cfg(feature = "wgpu")]
            DeviceKind::Wgpu => {
                Ok(DeviceModel::Wgpu(device, super::wgpu::WgpuModel::load(file, device.index)?))
            }
            #[cfg(not(feature = "wgpu"))]
            DeviceKind::Wgpu => Err(crate::device::not_built(device, "wgpu")),
        }
    }

    pub(crate) fn device(&self) -> Device {
        match self {
            DeviceModel::Cpu => Device { kind: DeviceKind::Cpu, index: 0 },
            #[cfg(feature = "cuda")]
            DeviceModel::Cuda(device, _) => *device,
            #[cfg(feature = "wgpu")]
            DeviceModel::Wgpu(device, _) => *device,
        }
    }

    /// A new state for a context of `context` bytes.
    pub(crate) fn new_engine(
        &self,
        graph: &Arc<Graph>,
        config: &ModelConfig,
        context: usize,
    ) -> Result<Box<dyn Engine>> {
        match self {
            DeviceModel::Cpu => Ok(Box::new(CpuEngine::new(graph, config, context)?)),
            #[cfg(feature = "cuda")]
            DeviceModel::Cuda(_, model) => Ok(Box::new(model.new_engine(context, true)?)),
            #[cfg(feature = "wgpu")]
            DeviceModel::Wgpu(_, model) => Ok(Box::new(model.new_engine(context, true)?)),
        }
    }

    /// Compares the device's logits of a few bytes with the CPU's.
    pub(crate) fn check(&self, graph: &Arc<Graph>, config: &ModelConfig) -> Result<()> {
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        let compare = |new_engine: &dyn Fn(usize) -> Result<super::gpu::GpuEngine>| {
            let bytes = super::gpu::check_bytes(config);
            let mut reference = CpuEngine::new(graph, config, bytes.len())?.without_padding();
            super::gpu::self_check(&mut new_engine(bytes.len())?, &mut reference, &bytes)
        };
        let _ = (graph, config); // a build for the CPU alone compares nothing
        match self {
            DeviceModel::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            DeviceModel::Cuda(_, model) => compare(&|context| model.new_engine(context, false)),
            #[cfg(feature = "wgpu")]
            DeviceModel::Wgpu(_, model) => compare(&|context| model.new_engine(context, false)),
        }
    }
}
