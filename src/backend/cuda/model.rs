//! A model's weights and kernels on a device.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::driver::{Buffer, Gpu, Handle, Module, Stream};
use super::executor::CudaExecutor;
use crate::backend::gpu::args::WEIGHT_F32;
use crate::backend::gpu::{GpuEngine, Kernel, Parts, Plan};
use crate::backend::{DeviceSampling, Engine};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};

/// The kernels, compiled from kernels.cu by scripts/build-ptx.
const PTX: &[u8] = concat!(include_str!("kernels.ptx"), "\0").as_bytes();
/// Numbers in an attention head at most: MAX_HEAD of kernels.cu.
const MAX_HEAD: usize = 1024;
/// Threads of a block of every kernel.
pub(super) const THREADS: u32 = 256;

/// Sessions from which products in tiles pay. A tile costs the same however many of its rows are there, and a single
/// row's kernel costs that much a row: tiles pay about from where half of their rows are there, of the 16 that the
/// matrix units take, or of the 64 of the tiles that f32 weights pass through.
const HALF_OF_MATRIX_TILE: usize = 8;
const HALF_OF_PLAIN_TILE: usize = 32;

/// How single bytes are run. The kernels do the same arithmetic either way, so the results have the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decode {
    /// One graph a byte.
    Graph,
    /// One kernel for all steps of all bytes, on so many blocks.
    Persistent { blocks: u32 },
}

#[derive(Debug)]
pub(crate) struct CudaModel {
    // In the order in which they must go.
    pub(super) matrices: Vec<Buffer>,
    pub(super) constants: Buffer,
    functions: [Handle; Kernel::ALL.len()],
    pub(super) run_program: Handle,
    /// Blocks of the persistent kernel where that decodes; 0: graphs do.
    persistent_blocks: AtomicU32,
    pub(super) rows_that_fill_tiles: usize,
    _module: Module,
    parts: Arc<Parts>,
    pub(super) gpu: Arc<Gpu>,
}

/// Blocks of the persistent kernel where that may be used; 0: it may not, by what is wanted or by what the device can.
fn persistent_blocks(gpu: &Gpu, run_program: Handle, wanted: &str) -> Result<u32> {
    let variable = super::DECODE;
    if !["", "graph", "persistent"].contains(&wanted) {
        return Err(Error::invalid(format!("{variable}={wanted}: must be \"graph\" or \"persistent\"")));
    }
    // All blocks must be there at once, to wait for each other.
    let blocks = match wanted != "graph" && gpu.launches_together() {
        true => gpu.blocks_at_once(run_program, THREADS)?.min(1) * gpu.processors,
        false => 0,
    };
    if wanted == "persistent" && blocks == 0 {
        let text = "this device cannot launch a kernel that waits for itself";
        return Err(Error::new(ErrorKind::Device, format!("CUDA: {variable}=persistent: {text}")));
    }
    Ok(blocks)
}

// SAFETY: the handles of functions are only passed to the driver, which may be called from any thread.
unsafe impl Send for CudaModel {}
// SAFETY: as above.
unsafe impl Sync for CudaModel {}

impl CudaModel {
    /// Puts a model on device number `index`.
    pub(crate) fn load(file: &Checkpoint, index: usize) -> Result<Arc<CudaModel>> {
        let gpu = Gpu::open(index)?;
        let module = gpu.module(CStr::from_bytes_with_nul(PTX).expect("PTX is text"))?;
        let mut functions = [std::ptr::null_mut(); Kernel::ALL.len()];
        for (kernel, function) in Kernel::ALL.into_iter().zip(&mut functions) {
            *function = module.function(&CString::new(kernel.name()).expect("a name is text"))?;
        }
        let run_program = module.function(c"run_program")?;
        let wanted = std::env::var(super::DECODE).unwrap_or_default();
        let blocks = persistent_blocks(&gpu, run_program, &wanted)?;
        let parts = Arc::new(Parts::new(file)?);
        let stream = gpu.stream()?;
        let matrices = (0..parts.shapes.len())
            .map(|i| {
                let packed = parts.pack(file, i)?;
                stream.constant(&format!("tensor {:?}", packed.name), &packed.bytes)
            })
            .collect::<Result<_>>()?;
        let constants =
            stream.constant("the model's vectors and tables", bytemuck::cast_slice(&parts.constants))?;
        let model = Arc::new(CudaModel {
            matrices,
            constants,
            functions,
            run_program,
            persistent_blocks: AtomicU32::new(if wanted == "persistent" { blocks } else { 0 }),
            rows_that_fill_tiles: if parts.shapes.iter().any(|shape| shape.kind == WEIGHT_F32) {
                HALF_OF_PLAIN_TILE
            } else {
                HALF_OF_MATRIX_TILE
            },
            _module: module,
            parts,
            gpu,
        });
        if wanted.is_empty() && blocks > 0 && model.parts.config.is_causal() {
            model.choose_decode(blocks)?;
        }
        Ok(model)
    }

    /// Decodes a few bytes with graphs and with the persistent kernel, and stays with what was faster.
    fn choose_decode(self: &Arc<Self>, blocks: u32) -> Result<()> {
        const BYTES: usize = 8;
        const ROUNDS: usize = 4;
        let context = self.parts.config.window_bytes().min(BYTES + 1);
        let mut engine = self.new_engine(context, false)?;
        let greedy = DeviceSampling { seed: 0, draws: 0, temperature: 0.0, top_k: 0, top_p: 0.0, min_p: 0.0 };
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            for (way, fastest) in [0, blocks].into_iter().zip(&mut fastest) {
                self.persistent_blocks.store(way, Ordering::Relaxed);
                engine.clear();
                let start = Instant::now();
                let result = engine.generate(&[0], 1, &greedy, &mut [0; BYTES], None);
                // A device may refuse the persistent kernel still.
                if way == 0 || result.is_ok() {
                    result?;
                    *fastest = start.elapsed().min(*fastest);
                }
            }
        }
        let chosen = if fastest[1] < fastest[0] { blocks } else { 0 };
        self.persistent_blocks.store(chosen, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn decode(&self) -> Decode {
        match self.persistent_blocks.load(Ordering::Relaxed) {
            0 => Decode::Graph,
            blocks => Decode::Persistent { blocks },
        }
    }

    /// A new state for a context of `context` bytes; `padded`: as the configuration says, a window is padded.
    pub(crate) fn new_engine(self: &Arc<Self>, context: usize, padded: bool) -> Result<GpuEngine> {
        let plan = Arc::new(Plan::new(&self.parts, context)?);
        if plan.head_dim > MAX_HEAD {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "CUDA: attention heads of {} numbers; at most {MAX_HEAD} are possible",
                    plan.head_dim
                ),
            ));
        }
        let executor = Box::new(CudaExecutor::new(self, &plan)?);
        Ok(GpuEngine::new(&self.parts, plan, executor, context, padded))
    }

    pub(super) fn function(&self, kernel: Kernel) -> Handle {
        self.functions[kernel as usize]
    }

    pub(super) fn stream(&self) -> Result<Stream> {
        self.gpu.stream()
    }
}
