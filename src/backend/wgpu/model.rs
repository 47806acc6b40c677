//! A model's weights and kernels on a device.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use super::device::Gpu;
use super::executor::WgpuExecutor;
use crate::backend::gpu::args::{Args, CODES, WEIGHT_F32};
use crate::backend::gpu::{GpuEngine, Kernel, Op, Parts, Plan, state};
use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// A pipeline, by its kernel and how the weights it reads are stored.
type Pipelines = HashMap<(&'static str, u32), wgpu::ComputePipeline>;

#[derive(Debug)]
pub(crate) struct WgpuModel {
    pub(super) gpu: Gpu,
    pub(super) layout: wgpu::BindGroupLayout,
    pub(super) matrices: Vec<wgpu::Buffer>,
    pub(super) constants: wgpu::Buffer,
    /// Bound where a kernel reads nothing, and where it writes nothing.
    pub(super) unread: wgpu::Buffer,
    pub(super) unwritten: wgpu::Buffer,
    pipeline_layout: wgpu::PipelineLayout,
    modules: Mutex<HashMap<u32, wgpu::ShaderModule>>,
    pipelines: Mutex<Pipelines>,
    parts: Arc<Parts>,
}

impl WgpuModel {
    /// Puts a model on device number `index`.
    pub(crate) fn load(file: &Checkpoint, index: usize) -> Result<Arc<WgpuModel>> {
        let gpu = Gpu::open(index)?;
        let parts = Arc::new(Parts::new(file)?);
        let matrices = (0..parts.shapes.len())
            .map(|i| {
                let packed = parts.pack(file, i)?;
                gpu.constant(&format!("tensor {:?}", packed.name), &packed.bytes)
            })
            .collect::<Result<_>>()?;
        let constants =
            gpu.constant("the model's vectors and tables", bytemuck::cast_slice(&parts.constants))?;
        let storage = |binding: u32, read_only: bool| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let mut entries: Vec<_> = (0..5).map(|i| storage(i, i < 2)).collect();
        let mut uniform = storage(5, true);
        uniform.ty = wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: false,
            min_binding_size: None,
        };
        entries.push(uniform);
        let (layout, pipeline_layout) = gpu.guarded("the layout of the kernels", || {
            let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
            let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            (layout, pipeline_layout)
        })?;
        let unread = gpu.constant("a placeholder", &[0; 16])?;
        let unwritten = gpu.constant("a placeholder", &[0; 16])?;
        Ok(Arc::new(WgpuModel {
            layout,
            matrices,
            constants,
            unread,
            unwritten,
            pipeline_layout,
            modules: Mutex::default(),
            pipelines: Mutex::default(),
            parts,
            gpu,
        }))
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// A new state for a context of `context` bytes; `padded`: as the configuration says, a window is padded.
    pub(crate) fn new_engine(self: &Arc<Self>, context: usize, padded: bool) -> Result<GpuEngine> {
        let plan = Arc::new(Plan::new(&self.parts, context)?);
        let executor = Box::new(WgpuExecutor::new(self, &plan)?);
        Ok(GpuEngine::new(&self.parts, plan, executor, context, padded))
    }

    /// The pipeline of a step. Compiled when it is first asked for.
    pub(super) fn pipeline(&self, plan: &Plan, op: &Op) -> Result<wgpu::ComputePipeline> {
        let weights = match op.kernel {
            Kernel::Linear | Kernel::Matmul => op.args.w_kind,
            Kernel::Embed
            | Kernel::Pad
            | Kernel::Norm
            | Kernel::StoreKv
            | Kernel::Attention
            | Kernel::Activate
            | Kernel::CopyRows
            | Kernel::Join
            | Kernel::Sample => WEIGHT_F32,
        };
        let name = op.kernel.name();
        let mut pipelines = self.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(pipeline) = pipelines.get(&(name, weights)) {
            return Ok(pipeline.clone());
        }
        let mut modules = self.modules.lock().unwrap_or_else(|e| e.into_inner());
        let pipeline = self.gpu.guarded(&format!("compiling kernel {name:?}"), || {
            let module = modules.entry(weights).or_insert_with(|| {
                self.gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                    label: Some("grug"),
                    source: wgpu::ShaderSource::Wgsl(source(plan, weights).into()),
                })
            });
            self.gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&self.pipeline_layout),
                module,
                entry_point: Some(name),
                // No kernel reads what it did not write.
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            })
        })?;
        pipelines.insert((name, weights), pipeline.clone());
        Ok(pipeline)
    }
}

/// The kernels' text, with what it presumes before it.
fn source(plan: &Plan, weights: u32) -> String {
    let mut text = String::from("struct Args {");
    for name in Args::NAMES {
        write!(text, " {name}: u32,").expect("text has room");
    }
    text += " }\n";
    let constants = [
        ("WEIGHT", weights),
        ("HEAD_DIM", plan.head_dim as u32),
        ("STATE_FIRST", state::FIRST as u32),
        ("STATE_BASE", state::BASE as u32),
        ("STATE_DRAWS", state::DRAWS as u32),
        ("STATE_TEMPERATURE", state::TEMPERATURE as u32),
        ("STATE_FAILED", state::FAILED as u32),
        ("STATE_CHOSEN", state::CHOSEN as u32),
        ("STATE_DIMS", state::DIMS as u32),
        ("STATE_BYTES", plan.bytes as u32),
    ];
    for (name, value) in CODES.iter().chain(&constants) {
        writeln!(text, "const {name}: u32 = {value}u;").expect("text has room");
    }
    text + include_str!("kernels.wgsl")
}
