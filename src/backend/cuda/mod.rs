//! The CUDA engine: NVIDIA's driver, found at run time, and kernels that it compiles from the committed PTX. Neither
//! building nor running it needs a toolkit or a CUDA library.
//!
//! Decoding is launched as one graph a byte, or as a single launch of a kernel that runs any number of steps and bytes
//! with barriers in between ([`DECODE`]).
#![allow(unsafe_code)] // the driver's functions are C

mod driver;
mod executor;
mod model;

pub(crate) use driver::list;
pub(crate) use model::CudaModel;

/// How a model decodes: `graph` or `persistent`, as this environment variable says when it is loaded. Unset: what is
/// faster then.
pub(crate) const DECODE: &str = "GRUG_CUDA_DECODE";
