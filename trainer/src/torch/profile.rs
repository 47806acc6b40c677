//! libtorch's profiler: what ran when, as a trace that Perfetto and `chrome://tracing` show. Twin of shim/profile.cpp.

use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use grug::error::{Error, Result};
use tch::Device;

use super::{check, ffi};

/// The profiler, which a process has one of. Dropping it ends it and keeps nothing.
#[derive(Debug)]
pub struct Profiler {
    cuda: i32,
    running: bool,
}

impl Profiler {
    /// Warms it up: it runs and keeps nothing.
    pub fn prepare(device: Device) -> Result<Profiler> {
        let cuda = device.is_cuda() as i32;
        // SAFETY: plain numbers.
        check(unsafe { ffi::grug_torch_profiler_prepare(cuda) })?;
        Ok(Profiler { cuda, running: false })
    }

    /// From now on, keeps what this thread and its backward passes do.
    pub fn start(&mut self) -> Result<()> {
        // SAFETY: plain numbers.
        check(unsafe { ffi::grug_torch_profiler_start(self.cuda) })?;
        self.running = true;
        Ok(())
    }

    /// Ends it, and writes what it kept, as JSON.
    pub fn stop(mut self, path: &Path) -> Result<()> {
        self.running = false;
        let text = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::invalid(format!("{}: has a NUL byte in it", path.display())))?;
        // SAFETY: a NUL-terminated path.
        check(unsafe { ffi::grug_torch_profiler_stop(text.as_ptr()) })?;
        match path.exists() {
            true => Ok(()),
            // The profiler reports this nowhere.
            false => Err(Error::new(
                grug::error::ErrorKind::Io,
                format!("writing the trace {}: failed", path.display()),
            )),
        }
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        if self.running {
            // SAFETY: a NUL-terminated path. What could not be written is not missed.
            let _ = check(unsafe { ffi::grug_torch_profiler_stop(c"/dev/null".as_ptr()) });
        }
    }
}

/// A named span of time in the trace, for as long as the value lives. Costs next to nothing where no profiler runs.
#[derive(Debug)]
pub struct Span(*mut c_void);

impl Span {
    /// Begins one.
    pub fn begin(name: &str) -> Span {
        let mut raw = std::ptr::null_mut();
        // SAFETY: bytes with their length; on success `raw` is a span of ours. A failure leaves it NULL.
        let _ = check(unsafe { ffi::grug_torch_span_begin(name.as_ptr().cast(), name.len(), &mut raw) });
        Span(raw)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: made by `begin`, or NULL, which may be deleted; freed once.
        unsafe { ffi::grug_torch_span_end(self.0) }
    }
}
