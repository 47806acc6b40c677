//! A model's weights and kernels on a device.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::driver::{Buffer, Gpu, Handle, Module, Stream};
use super::executor::CudaExecutor;
use crate::backend::gpu::{GpuEngine, Kernel, Parts, Plan};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};

/// The kernels, compiled from kernels.cu by scripts/build-ptx.
const PTX: &[u8] = concat!(include_str!("kernels.ptx"), "\0").as_bytes();
/// Numbers in an attention head at most: MAX_HEAD of kernels.cu.
const MAX_HEAD: usize = 1024;
/// Threads of a block of every kernel.
pub(super) const THREADS: u32 = 256;

/// How single bytes are run.
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
    pub(super) decode: Decode,
    _module: Module,
    parts: Arc<Parts>,
    pub(super) gpu: Arc<Gpu>,
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
        let decode = match std::env::var(super::DECODE).as_deref() {
            Err(_) | Ok("" | "graph") => Decode::Graph,
            Ok("persistent") => {
                let fit = gpu.blocks_at_once(run_program, THREADS)?.min(1);
                Decode::Persistent { blocks: (fit * gpu.processors).max(1) }
            }
            Ok(other) => {
                return Err(Error::invalid(format!(
                    "{}={other}: must be \"graph\" or \"persistent\"",
                    super::DECODE
                )));
            }
        };
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
        stream.wait()?;
        Ok(Arc::new(CudaModel {
            matrices,
            constants,
            functions,
            run_program,
            decode,
            _module: module,
            parts,
            gpu,
        }))
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
