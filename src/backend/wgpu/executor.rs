//! The buffers of one session, and the steps of its plan as commands.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;

use wgpu::BufferUsages;

use super::model::WgpuModel;
use crate::backend::gpu::args::Args;
use crate::backend::gpu::{Executor, Kernel, MAX_AHEAD, Op, Plan, state};
use crate::config::VOCAB;
use crate::error::{Error, ErrorKind, Result};

/// A step, ready to be put into a command buffer.
struct Command {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

pub(super) struct WgpuExecutor {
    model: Arc<WgpuModel>,
    commands: Vec<Command>,
    activations: wgpu::Buffer,
    caches: Vec<wgpu::Buffer>,
    state: wgpu::Buffer,
    /// What is read goes through here.
    staging: wgpu::Buffer,
    /// The dimensions that the device has.
    dims: Vec<u32>,
}

const SESSION: BufferUsages =
    BufferUsages::STORAGE.union(BufferUsages::COPY_SRC).union(BufferUsages::COPY_DST);

/// Workgroups of a step. The numbers are those of kernels.wgsl.
fn workgroups(op: &Op, dims: &[u32]) -> [u32; 2] {
    let args = &op.args;
    let rows = dims[args.rows as usize];
    match op.kernel {
        Kernel::Embed => [args.outputs.div_ceil(64), rows],
        Kernel::Pad => [args.inputs.div_ceil(64), 2 * args.pad],
        Kernel::Linear => [args.outputs.div_ceil(8), 1],
        Kernel::Matmul => [args.outputs.div_ceil(64), rows.div_ceil(64)],
        Kernel::Norm | Kernel::Activate => [rows, 1],
        Kernel::StoreKv => [args.heads + args.kv_heads, rows],
        Kernel::Attention => [args.heads, rows - dims[args.skip as usize]],
        Kernel::CopyRow => [args.outputs.div_ceil(64), 1],
        Kernel::Join => [args.outputs.div_ceil(64), rows],
        Kernel::Sample => [1, 1],
    }
}

impl WgpuExecutor {
    pub(super) fn new(model: &Arc<WgpuModel>, plan: &Plan) -> Result<WgpuExecutor> {
        let gpu = &model.gpu;
        let activations = gpu.buffer("a session's activations", 4 * plan.activations, SESSION)?;
        let caches = plan
            .caches
            .iter()
            .map(|&numbers| gpu.buffer("a layer's keys and values", 4 * numbers, SESSION))
            .collect::<Result<Vec<_>>>()?;
        let state = gpu.buffer("a session's state", 4 * plan.state_words(), SESSION)?;
        let read = 4 * (plan.score_rows * (VOCAB + plan.states_width)).max(MAX_AHEAD + state::DIMS);
        let staging = gpu.buffer("reading", read, BufferUsages::COPY_DST | BufferUsages::MAP_READ)?;
        // Each step's arguments stand at a place that can be bound on its own.
        let size = (4 * Args::NAMES.len()) as u64;
        let stride = size.next_multiple_of(gpu.limits.min_uniform_buffer_offset_alignment as u64);
        let mut words = vec![0u8; stride as usize * plan.ops.len()];
        for (op, place) in plan.ops.iter().zip(words.chunks_exact_mut(stride as usize)) {
            place[..size as usize].copy_from_slice(bytemuck::cast_slice(&op.args.words()));
        }
        let args = gpu.buffer("arguments", words.len(), BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        gpu.guarded("arguments", || gpu.queue.write_buffer(&args, 0, &words))?;
        let largest = gpu.limits.max_compute_workgroups_per_dimension;
        // The most rows that a pass can have bound every other.
        let rows = (plan.rows as u32).max(1);
        let mut commands = Vec::with_capacity(plan.ops.len());
        for (i, op) in plan.ops.iter().enumerate() {
            let dims = vec![rows; op.args.rows.max(op.args.skip) as usize + 1];
            if workgroups(op, &dims).iter().any(|&n| n > largest) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("wgpu: kernel {:?} would need more than {largest} workgroups", op.kernel.name()),
                ));
            }
            let weights = op.weights.map_or(&model.unread, |index| &model.matrices[index]);
            let cache = op.cache.map_or(&model.unwritten, |index| &caches[index]);
            let buffers = [weights, &model.constants, &activations, cache, &state];
            let mut entries: Vec<_> = buffers
                .iter()
                .enumerate()
                .map(|(i, buffer)| wgpu::BindGroupEntry {
                    binding: i as u32,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            entries.push(wgpu::BindGroupEntry {
                binding: 5,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &args,
                    offset: i as u64 * stride,
                    size: std::num::NonZeroU64::new(size),
                }),
            });
            let bindings = gpu.guarded("binding a step", || {
                gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &model.layout,
                    entries: &entries,
                })
            })?;
            commands.push(Command { pipeline: model.pipeline(plan, op)?, bindings });
        }
        Ok(WgpuExecutor {
            model: model.clone(),
            commands,
            activations,
            caches,
            state,
            staging,
            dims: Vec::new(),
        })
    }

    /// Reads words of a buffer, from each of these places on.
    fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, reads: &mut [(usize, &mut [T])]) -> Result<()> {
        let gpu = &self.model.gpu;
        let total = reads.iter().map(|(_, words)| size_of_val(&**words) as u64).sum();
        let (sender, receiver) = mpsc::channel();
        gpu.guarded("reading results", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut at = 0;
            for (start, words) in reads.iter() {
                let len = size_of_val(&**words) as u64;
                encoder.copy_buffer_to_buffer(buffer, 4 * *start as u64, &self.staging, at, Some(len));
                at += len;
            }
            gpu.queue.submit([encoder.finish()]);
            self.staging.map_async(wgpu::MapMode::Read, 0..total, move |result| {
                // The receiver waits below; were it gone, nobody would need the answer.
                let _ = sender.send(result);
            });
        })?;
        gpu.wait()?;
        let failed = |what: String| Error::new(ErrorKind::Device, format!("wgpu: reading results: {what}"));
        match receiver.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("the device gave no answer".into())),
        }
        let view = self.staging.get_mapped_range(0..total).map_err(|e| failed(e.to_string()))?;
        let mut bytes = &view[..];
        for (_, words) in reads.iter_mut() {
            let (now, rest) = bytes.split_at(size_of_val(&**words));
            bytemuck::cast_slice_mut(words).copy_from_slice(now);
            bytes = rest;
        }
        drop(view);
        self.staging.unmap();
        Ok(())
    }
}

impl Executor for WgpuExecutor {
    fn write_state(&mut self, at: usize, words: &[u32]) -> Result<()> {
        let gpu = &self.model.gpu;
        gpu.guarded("writing the state", || {
            gpu.queue.write_buffer(&self.state, 4 * at as u64, bytemuck::cast_slice(words));
        })
    }

    fn run(&mut self, plan: &Plan, program: &[Range<usize>], dims: &[u32]) -> Result<()> {
        if self.dims != dims {
            self.write_state(state::DIMS, dims)?;
            self.dims = dims.to_vec();
        }
        let gpu = &self.model.gpu;
        gpu.guarded("running the model", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                for op in program.iter().cloned().flatten() {
                    let command = &self.commands[op];
                    let [x, y] = workgroups(&plan.ops[op], dims);
                    if x * y == 0 {
                        continue;
                    }
                    pass.set_pipeline(&command.pipeline);
                    pass.set_bind_group(0, &command.bindings, &[]);
                    pass.dispatch_workgroups(x, y, 1);
                }
            }
            gpu.queue.submit([encoder.finish()]);
        })
    }

    fn read_state(&mut self, reads: &mut [(usize, &mut [u32])]) -> Result<()> {
        self.read(&self.state, reads)
    }

    fn read_activations(&mut self, reads: &mut [(usize, &mut [f32])]) -> Result<()> {
        self.read(&self.activations, reads)
    }

    fn wait(&mut self) -> Result<()> {
        self.model.gpu.wait()
    }

    fn fork(&self, plan: &Plan) -> Result<Box<dyn Executor>> {
        let mut copy = WgpuExecutor::new(&self.model, plan)?;
        let gpu = &self.model.gpu;
        gpu.guarded("copying a session", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let from = self.caches.iter().chain([&self.activations, &self.state]);
            let to = copy.caches.iter().chain([&copy.activations, &copy.state]);
            from.zip(to).for_each(|(from, to)| encoder.copy_buffer_to_buffer(from, 0, to, 0, None));
            gpu.queue.submit([encoder.finish()]);
        })?;
        copy.dims = self.dims.clone();
        Ok(Box::new(copy))
    }
}
