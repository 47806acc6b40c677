//! The buffers of one session, and the steps of its plan as launches.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use super::driver::{Address, Buffer, Graph, Stream};
use super::model::{CudaModel, Decode, THREADS};
use crate::backend::gpu::args::{Args, WEIGHT_F32};
use crate::backend::gpu::{Executor, Kernel, MAX_TOGETHER, Op, Others, Plan, Row, state};
use crate::error::Result;

/// `struct Step` of kernels.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Step {
    /// w, consts, act, kv, st, bytes, members.
    buffers: [Address; 7],
    args: [u32; Args::NAMES.len()],
    kernel: u32,
    cache: u32,
}

/// Words of `struct Member` of kernels.cu.
const MEMBER: usize = 18;
/// Which of them says what was chosen.
const MEMBER_CHOSEN: usize = 9;

impl Step {
    /// Its bytes, those between the last word and the end included.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = bytemuck::bytes_of(&self.buffers).to_vec();
        bytes.extend_from_slice(bytemuck::cast_slice(&self.args));
        bytes.extend_from_slice(bytemuck::cast_slice(&[self.kernel, self.cache]));
        bytes.resize(size_of::<Step>(), 0);
        bytes
    }
}

pub(super) struct CudaExecutor {
    // In the order in which they must go: the stream waits for what still runs.
    graphs: HashMap<Vec<u32>, Graph>,
    stream: Stream,
    steps: Vec<Step>,
    activations: Buffer,
    caches: Vec<Buffer>,
    state: Buffer,
    /// The addresses of the caches, and the sessions of a pass that this one leads.
    caches_on_device: Buffer,
    members: Buffer,
    /// Whether something runs that was not waited for.
    busy: bool,
    /// What `run_program` reads: the steps, the program, and its barrier.
    on_device: Buffer,
    program: Option<Buffer>,
    barrier: Buffer,
    dims: Vec<u32>,
    model: Arc<CudaModel>,
}

// SAFETY: the handles are only passed to the driver, which may be called from any thread.
unsafe impl Send for CudaExecutor {}

/// Blocks that have work in a step. The numbers are those of kernels.cu.
fn blocks(op: &Op, dims: &[u32]) -> u32 {
    let args = &op.args;
    let rows = dims[args.rows as usize];
    match op.kernel {
        Kernel::Embed | Kernel::Join | Kernel::CopyRows => (rows * args.outputs).div_ceil(THREADS),
        Kernel::Pad => (2 * args.pad * args.inputs).div_ceil(THREADS),
        Kernel::Linear => args.outputs.div_ceil(8) * rows,
        Kernel::Matmul if rows <= 64 && args.w_kind != WEIGHT_F32 => {
            args.outputs.div_ceil(8) * rows.div_ceil(16)
        }
        Kernel::Matmul => args.outputs.div_ceil(64) * rows.div_ceil(64),
        Kernel::Norm | Kernel::Activate => rows,
        Kernel::StoreKv => rows * (args.heads + args.kv_heads),
        Kernel::Attention => (rows - dims[args.skip as usize]) * args.heads,
        Kernel::Sample => {
            if op.alone.is_some() {
                rows
            } else {
                1
            }
        }
    }
}

impl CudaExecutor {
    pub(super) fn new(model: &Arc<CudaModel>, plan: &Plan) -> Result<CudaExecutor> {
        let stream = model.stream()?;
        let activations = stream.zeros("a session's activations", 4 * plan.activations)?;
        let caches = plan
            .caches
            .iter()
            .map(|&numbers| stream.zeros("a layer's keys and values", 4 * numbers))
            .collect::<Result<Vec<_>>>()?;
        let state = stream.zeros("a session's state", 4 * plan.state_words())?;
        let addresses: Vec<Address> = caches.iter().map(|cache| cache.address).collect();
        let caches_on_device = stream.constant("the caches' addresses", bytemuck::cast_slice(&addresses))?;
        let members = stream.zeros("the sessions of a pass", 4 * MEMBER * MAX_TOGETHER)?;
        let step = |op: &Op| {
            let mut args = [0; Args::NAMES.len()];
            args.copy_from_slice(&op.args.words());
            Step {
                buffers: [
                    op.weights.map_or(0, |index| model.matrices[index].address),
                    model.constants.address,
                    activations.address,
                    op.cache.map_or(0, |index| caches[index].address),
                    state.address,
                    state.address + 4 * plan.bytes as u64,
                    if op.alone.is_some() { members.address } else { 0 },
                ],
                args,
                kernel: op.kernel as u32,
                cache: op.cache.unwrap_or(0) as u32,
            }
        };
        let steps: Vec<Step> = plan.ops.iter().map(step).collect();
        let bytes: Vec<u8> = steps.iter().flat_map(Step::bytes).collect();
        Ok(CudaExecutor {
            graphs: HashMap::new(),
            on_device: stream.constant("a session's steps", &bytes)?,
            program: None,
            barrier: stream.zeros("a barrier", 4)?,
            stream,
            steps,
            activations,
            caches,
            state,
            caches_on_device,
            members,
            busy: true,
            dims: Vec::new(),
            model: model.clone(),
        })
    }

    /// Launches one step.
    fn launch(&self, op: &Op, step: usize, dims: &[u32]) -> Result<()> {
        let blocks = blocks(op, dims);
        if blocks == 0 {
            return Ok(());
        }
        let mut step = self.steps[step];
        let arguments = &mut [(&raw mut step).cast::<c_void>()];
        // SAFETY: every kernel of a step takes one Step; its addresses are those of this session's and model's
        // buffers, and the plan keeps within them.
        unsafe { self.stream.launch(self.model.function(op.kernel), blocks, THREADS, false, arguments) }
    }

    /// Runs steps as a graph, which is made when it is first asked for. `dims` are part of what it does.
    fn replay(&mut self, plan: &Plan, ops: Vec<u32>, dims: &[u32]) -> Result<()> {
        let key = [&ops[..], &[u32::MAX], dims].concat();
        if !self.graphs.contains_key(&key) {
            let launch = |i: &u32| self.launch(&plan.ops[*i as usize], *i as usize, dims);
            let graph = self.stream.capture(|| ops.iter().try_for_each(launch))?;
            self.graphs.insert(key.clone(), graph);
        }
        self.stream.replay(&self.graphs[&key])
    }

    fn write_dims(&mut self, dims: &[u32]) -> Result<()> {
        if self.dims != dims {
            self.write_state(state::DIMS, dims)?;
            self.dims = dims.to_vec();
        }
        Ok(())
    }

    /// This session as the kernels see it where it is one of several.
    fn member(&self, plan: &Plan, row: &Row) -> [u32; MEMBER] {
        let mut words = [0; MEMBER];
        let bytes = self.state.address + 4 * plan.bytes as u64;
        let addresses = [self.activations.address, bytes, self.caches_on_device.address];
        for (pair, address) in words.chunks_exact_mut(2).zip(addresses) {
            pair.copy_from_slice(&[address as u32, (address >> 32) as u32]);
        }
        words[6..10].copy_from_slice(&[row.first, row.byte, row.sampling.is_some() as u32, u32::MAX]);
        words[10..].copy_from_slice(&row.sampling.unwrap_or_default());
        words
    }

    /// Launches single-row steps as one kernel.
    fn launch_program(&mut self, ops: &[u32], blocks: u32) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(ops);
        if self.program.as_ref().is_none_or(|program| program.bytes < bytes.len()) {
            self.program = Some(self.stream.zeros("a program", bytes.len().next_power_of_two())?);
        }
        let program = self.program.as_ref().expect("made above");
        self.stream.upload(program, 0, bytes)?;
        self.stream.clear(&self.barrier)?;
        let (mut steps, mut program, mut n) = (self.on_device.address, program.address, ops.len() as u32);
        let mut barrier = self.barrier.address;
        let arguments = &mut [
            (&raw mut steps).cast::<c_void>(),
            (&raw mut program).cast(),
            (&raw mut n).cast(),
            (&raw mut barrier).cast(),
        ];
        // SAFETY: these are what run_program takes; the program names steps of this session; all blocks fit at once.
        unsafe { self.stream.launch(self.model.run_program, blocks, THREADS, true, arguments) }
    }
}

impl Drop for CudaExecutor {
    fn drop(&mut self) {
        // Graphs and buffers may still be in use. An error that waited until now has nobody left to hear it.
        let _ = self.stream.wait();
    }
}

impl Executor for CudaExecutor {
    fn write_state(&mut self, at: usize, words: &[u32]) -> Result<()> {
        self.busy = true;
        self.stream.upload(&self.state, 4 * at, bytemuck::cast_slice(words))
    }

    fn run(&mut self, plan: &Plan, program: &[Range<usize>], dims: &[u32]) -> Result<()> {
        self.busy = true;
        self.write_dims(dims)?;
        // Steps of a single row are the same launches whatever the dimensions are.
        let fixed = |range: &Range<usize>| {
            *range != plan.feed && *range != plan.score && plan.step.end > plan.step.start
        };
        if !program.iter().all(fixed) {
            return program.iter().cloned().flatten().try_for_each(|i| self.launch(&plan.ops[i], i, dims));
        }
        let ops = |part: &[Range<usize>]| part.iter().cloned().flatten().map(|i| i as u32).collect();
        match self.model.decode() {
            Decode::Persistent { blocks } => self.launch_program(&Vec::from_iter(ops(program)), blocks),
            Decode::Graph => program
                .split_inclusive(|range| *range == plan.sample)
                .try_for_each(|part| self.replay(plan, ops(part), &[0, 1])),
        }
    }

    fn rows_that_fill_tiles(&self) -> usize {
        self.model.rows_that_fill_tiles
    }

    fn run_together(
        &mut self,
        plan: &Plan,
        program: &[Range<usize>],
        rows: &[Row],
        others: &mut dyn Others,
        chosen: &mut [u32],
    ) -> Result<()> {
        let mut table = Vec::with_capacity(rows.len() * MEMBER);
        for row in rows {
            if row.session == 0 {
                table.extend(self.member(plan, row));
                continue;
            }
            let other: &mut dyn Any = others.get(row.session);
            let other: &mut CudaExecutor =
                other.downcast_mut().expect("executors of one model are of one kind");
            // This session's stream knows nothing of the other's.
            if other.busy {
                other.wait()?;
            }
            table.extend(other.member(plan, row));
        }
        self.busy = true;
        let n = rows.len() as u32;
        let dims = [0, 1, n, n - 1];
        self.write_dims(&dims)?;
        self.stream.upload(&self.members, 0, bytemuck::cast_slice(&table))?;
        self.replay(plan, program.iter().cloned().flatten().map(|i| i as u32).collect(), &dims)?;
        if !chosen.is_empty() {
            self.stream.download(&self.members, 0, bytemuck::cast_slice_mut(&mut table))?;
            self.busy = false;
            let members = table.chunks_exact(MEMBER);
            chosen.iter_mut().zip(members).for_each(|(chosen, member)| *chosen = member[MEMBER_CHOSEN]);
        }
        Ok(())
    }

    fn read_state(&mut self, reads: &mut [(usize, &mut [u32])]) -> Result<()> {
        reads.iter_mut().try_for_each(|(at, words)| {
            self.stream.download(&self.state, 4 * *at, bytemuck::cast_slice_mut(words))
        })?;
        self.busy = false;
        Ok(())
    }

    fn read_activations(&mut self, reads: &mut [(usize, &mut [f32])]) -> Result<()> {
        reads.iter_mut().try_for_each(|(at, numbers)| {
            self.stream.download(&self.activations, 4 * *at, bytemuck::cast_slice_mut(numbers))
        })?;
        self.busy = false;
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        self.stream.wait()?;
        self.busy = false;
        Ok(())
    }

    fn fork(&self, plan: &Plan) -> Result<Box<dyn Executor>> {
        let mut copy = CudaExecutor::new(&self.model, plan)?;
        // The other stream must see all that was started on this one.
        self.stream.wait()?;
        let from = self.caches.iter().chain([&self.activations, &self.state]);
        let to = copy.caches.iter().chain([&copy.activations, &copy.state]);
        from.zip(to).try_for_each(|(from, to)| copy.stream.copy(from, to))?;
        copy.stream.wait()?;
        copy.dims = self.dims.clone();
        Ok(Box::new(copy))
    }
}
