//! The buffers of one session, and the steps of its plan as commands.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use wgpu::BufferUsages;

use super::model::WgpuModel;
use crate::backend::gpu::args::Args;
use crate::backend::gpu::{Executor, Kernel, MAX_AHEAD, Op, Others, Plan, Row, state};
use crate::config::VOCAB;
use crate::error::{Error, ErrorKind, Result};

/// A step, ready to be put into a command buffer.
struct Command {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

pub(super) struct WgpuExecutor {
    model: Arc<WgpuModel>,
    /// For each step of the plan, once it is to run.
    commands: Vec<Option<Command>>,
    /// Where each step's arguments stand, so far from one to the next.
    args: wgpu::Buffer,
    args_stride: u64,
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
        Kernel::Linear => [args.outputs.div_ceil(8), rows],
        Kernel::Matmul => [args.outputs.div_ceil(64), rows.div_ceil(64)],
        Kernel::Norm | Kernel::Activate => [rows, 1],
        Kernel::StoreKv => [args.heads + args.kv_heads, rows],
        Kernel::Attention => [args.heads, rows - dims[args.skip as usize]],
        Kernel::CopyRows | Kernel::Join => [args.outputs.div_ceil(64), rows],
        Kernel::Sample => [1, 1],
    }
}

/// Sessions from which products in tiles pay: a tile costs the same however many of its 64 rows are there, and a single
/// row's kernel costs that much a row.
const HALF_OF_TILE: usize = 32;

/// What errors of reading are about.
const READING: &str = "reading results";

/// How long the answer to a read may take once the device is done.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Copies numbers between buffers, from and to these bytes.
fn copy(
    encoder: &mut wgpu::CommandEncoder,
    from: (&wgpu::Buffer, u64),
    to: (&wgpu::Buffer, u64),
    numbers: u32,
) {
    if numbers > 0 {
        encoder.copy_buffer_to_buffer(from.0, from.1, to.0, to.1, Some(4 * numbers as u64));
    }
}

/// The session of a row that is not the leader's.
fn other<'a>(others: &'a mut dyn Others, row: &Row) -> &'a mut WgpuExecutor {
    let executor: &mut dyn Any = others.get(row.session);
    executor.downcast_mut().expect("executors of one model are of one kind")
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
        for op in &plan.ops {
            let dims = vec![rows; op.args.rows.max(op.args.skip) as usize + 1];
            if workgroups(op, &dims).iter().any(|&n| n > largest) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("wgpu: kernel {:?} would need more than {largest} workgroups", op.kernel.name()),
                ));
            }
        }
        Ok(WgpuExecutor {
            model: model.clone(),
            commands: plan.ops.iter().map(|_| None).collect(),
            args,
            args_stride: stride,
            activations,
            caches,
            state,
            staging,
            dims: Vec::new(),
        })
    }

    /// Makes the commands of these steps, where that was not done before.
    fn prepare(&mut self, plan: &Plan, ops: impl Iterator<Item = usize>) -> Result<()> {
        let model = &self.model;
        for i in ops {
            if self.commands[i].is_some() {
                continue;
            }
            let op = &plan.ops[i];
            let weights = op.weights.map_or(&model.unread, |index| &model.matrices[index]);
            let cache = op.cache.map_or(&model.unwritten, |index| &self.caches[index]);
            let buffers = [weights, &model.constants, &self.activations, cache, &self.state];
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
                    buffer: &self.args,
                    offset: i as u64 * self.args_stride,
                    size: std::num::NonZeroU64::new(4 * Args::NAMES.len() as u64),
                }),
            });
            let bindings = model.gpu.guarded("binding a step", || {
                model.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &model.layout,
                    entries: &entries,
                })
            })?;
            self.commands[i] = Some(Command { pipeline: model.pipeline(plan, op)?, bindings });
        }
        Ok(())
    }

    /// Puts a step that was prepared into a pass.
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, plan: &Plan, op: usize, dims: &[u32]) {
        let [x, y] = workgroups(&plan.ops[op], dims);
        if let Some(command) = self.commands[op].as_ref().filter(|_| x * y > 0) {
            pass.set_pipeline(&command.pipeline);
            pass.set_bind_group(0, &command.bindings, &[]);
            pass.dispatch_workgroups(x, y, 1);
        }
    }

    fn write_dims(&mut self, dims: &[u32]) -> Result<()> {
        if self.dims != dims {
            self.write_state(state::DIMS, dims)?;
            self.dims = dims.to_vec();
        }
        Ok(())
    }

    /// Puts what a row is about into this session's state.
    fn write_row(&mut self, plan: &Plan, row: &Row) -> Result<()> {
        if self.dims.is_empty() {
            self.write_dims(&[0, 1])?;
        }
        self.write_state(plan.bytes + row.first as usize, &[row.byte])?;
        let mut words = [0; state::CHOSEN + 1];
        (words[state::FIRST], words[state::BASE]) = (row.first, row.first);
        words[state::DRAWS..state::FAILED].copy_from_slice(&row.sampling.unwrap_or_default());
        self.write_state(state::FIRST, &words)
    }

    /// A step that every session does with what it remembers: each has its row brought to it, and hands back the result.
    fn encode_alone(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        plan: &Plan,
        op: usize,
        rows: &[Row],
        others: &mut dyn Others,
    ) {
        const ALONE: [u32; 2] = [0, 1];
        let Op { args, kernel, alone: Some(alone), .. } = &plan.ops[op] else { return };
        // This session's own row is the first, and is where it has to be.
        let theirs = || rows.iter().enumerate().filter(|(_, row)| row.session > 0);
        if args.x_shift == 0 {
            for (i, row) in theirs() {
                let from = (args.x + i as u32 * args.x_stride) as u64 * 4;
                let to = &other(others, row).activations;
                copy(encoder, (&self.activations, from), (to, 4 * args.x as u64), args.x_stride);
            }
        }
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for row in rows.iter().filter(|row| *kernel != Kernel::Sample || row.sampling.is_some()) {
                let session = if row.session == 0 { self } else { other(others, row) };
                session.encode(&mut pass, plan, *alone, &ALONE);
            }
        }
        if args.y_shift == 0 {
            for (i, row) in theirs() {
                let to = (args.y + i as u32 * args.y_stride) as u64 * 4;
                let from = &other(others, row).activations;
                copy(encoder, (from, 4 * args.y as u64), (&self.activations, to), args.y_stride);
            }
        }
    }

    /// Reads words of buffers, from each of these places on.
    fn read<T: bytemuck::Pod>(&self, reads: &mut [(&wgpu::Buffer, usize, &mut [T])]) -> Result<()> {
        let gpu = &self.model.gpu;
        let mut total = 0;
        gpu.guarded(READING, || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (buffer, start, words) in reads.iter() {
                copy(&mut encoder, (buffer, 4 * *start as u64), (&self.staging, total), words.len() as u32);
                total += size_of_val(&**words) as u64;
            }
            gpu.queue.submit([encoder.finish()]);
        })?;
        let result = self.read_staging(total, reads);
        // Also after an error: what is mapped cannot be read into again. If it is the mapping that failed, this fails, too.
        let unmapped = gpu.guarded(READING, || self.staging.unmap());
        result.and(unmapped)
    }

    /// Brings the staging buffer's first `total` bytes to this side; leaves them mapped.
    fn read_staging<T: bytemuck::Pod>(
        &self,
        total: u64,
        reads: &mut [(&wgpu::Buffer, usize, &mut [T])],
    ) -> Result<()> {
        let gpu = &self.model.gpu;
        let (sender, receiver) = mpsc::channel();
        gpu.guarded(READING, || {
            self.staging.map_async(wgpu::MapMode::Read, 0..total, move |result| {
                // The receiver waits below; were it gone, nobody would need the answer.
                let _ = sender.send(result);
            });
        })?;
        gpu.wait()?;
        let failed = |what: String| Error::new(ErrorKind::Device, format!("wgpu: {READING}: {what}"));
        // Another thread that waits for this device may be the one that brings the answer, and not have got to it yet.
        match receiver.recv_timeout(ANSWER_TIMEOUT) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("the device gave no answer".into())),
        }
        let view = self.staging.get_mapped_range(0..total).map_err(|e| failed(e.to_string()))?;
        let mut bytes = &view[..];
        for (_, _, words) in reads.iter_mut() {
            let (now, rest) = bytes.split_at(size_of_val(&**words));
            bytemuck::cast_slice_mut(words).copy_from_slice(now);
            bytes = rest;
        }
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
        self.write_dims(dims)?;
        self.prepare(plan, program.iter().cloned().flatten())?;
        let gpu = &self.model.gpu;
        gpu.guarded("running the model", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                program.iter().cloned().flatten().for_each(|op| self.encode(&mut pass, plan, op, dims));
            }
            gpu.queue.submit([encoder.finish()]);
        })
    }

    fn rows_that_fill_tiles(&self) -> usize {
        HALF_OF_TILE
    }

    fn run_together(
        &mut self,
        plan: &Plan,
        program: &[Range<usize>],
        rows: &[Row],
        others: &mut dyn Others,
        chosen: &mut [u32],
    ) -> Result<()> {
        let n = rows.len() as u32;
        let dims = [0, 1, n, n - 1];
        let steps = || program.iter().cloned().flatten();
        let alone = || steps().filter_map(|op| plan.ops[op].alone);
        self.write_dims(&dims)?;
        self.prepare(plan, steps().filter(|&op| plan.ops[op].alone.is_none()))?;
        for row in rows {
            let session = if row.session == 0 { &mut *self } else { other(others, row) };
            session.write_row(plan, row)?;
            session.prepare(plan, alone())?;
        }
        let gpu = &self.model.gpu;
        gpu.guarded("running the model", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for op in steps() {
                if plan.ops[op].alone.is_some() {
                    self.encode_alone(&mut encoder, plan, op, rows, others);
                } else {
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    self.encode(&mut pass, plan, op, &dims);
                }
            }
            gpu.queue.submit([encoder.finish()]);
        })?;
        if !chosen.is_empty() {
            // Whether each chose one, and which.
            let mut words = vec![[0; 2]; rows.len()];
            let state = |row: &Row| {
                if row.session == 0 { self.state.clone() } else { other(others, row).state.clone() }
            };
            let states: Vec<_> = rows.iter().map(state).collect();
            let mut reads: Vec<_> = Vec::with_capacity(2 * rows.len());
            for ((state, row), words) in states.iter().zip(rows).zip(&mut words) {
                let [done, byte] = words;
                reads.push((state, state::CHOSEN, std::slice::from_mut(done)));
                reads.push((state, plan.bytes + row.first as usize + 1, std::slice::from_mut(byte)));
            }
            self.read(&mut reads)?;
            for (chosen, [done, byte]) in chosen.iter_mut().zip(words) {
                *chosen = if done == 1 { byte } else { u32::MAX };
            }
        }
        Ok(())
    }

    fn read_state(&mut self, reads: &mut [(usize, &mut [u32])]) -> Result<()> {
        self.read(&mut Vec::from_iter(reads.iter_mut().map(|(at, words)| (&self.state, *at, &mut **words))))
    }

    fn read_activations(&mut self, reads: &mut [(usize, &mut [f32])]) -> Result<()> {
        self.read(&mut Vec::from_iter(
            reads.iter_mut().map(|(at, words)| (&self.activations, *at, &mut **words)),
        ))
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
