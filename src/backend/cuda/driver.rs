//! NVIDIA's driver API: a table of functions that is filled from the driver's library when a device is asked for.
//!
//! A machine without the driver, or with one that lacks a function, gets an error that says so.

use std::ffi::{CStr, OsString, c_char, c_int, c_uint, c_void};
use std::sync::{Arc, Mutex};

use crate::device::{DeviceInfo, DeviceKind};
use crate::error::{Error, ErrorKind, Result};

/// Names another library than the system's driver: for tests.
const DRIVER: &str = "GRUG_CUDA_DRIVER";

/// A handle of the driver: context, module, function, stream or graph.
pub(super) type Handle = *mut c_void;
/// An address in the device's memory.
pub(super) type Address = u64;

macro_rules! functions {
    ($($name:ident = $symbol:literal ( $($argument:ty),* );)*) => {
        /// The driver's functions.
        pub(super) struct Driver {
            $($name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Driver {
            fn from_library(library: libloading::Library) -> Result<Driver> {
                $(
                    // SAFETY: the symbol is the function of this name and type in every version of the driver API;
                    // the library is never unloaded where this returns the pointer.
                    let $name = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) -> c_int>($symbol.as_bytes())
                    };
                    let $name = *$name.map_err(|_| {
                        failed(format!("the driver has no function {}: it is too old", $symbol.trim_end_matches('\0')))
                    })?;
                )*
                std::mem::forget(library);
                Ok(Driver { $($name,)* })
            }
        }
    };
}

functions! {
    init = "cuInit\0"(c_uint);
    device_count = "cuDeviceGetCount\0"(*mut c_int);
    device_get = "cuDeviceGet\0"(*mut c_int, c_int);
    device_attribute = "cuDeviceGetAttribute\0"(*mut c_int, c_int, c_int);
    device_name = "cuDeviceGetName\0"(*mut c_char, c_int, c_int);
    device_memory = "cuDeviceTotalMem_v2\0"(*mut usize, c_int);
    context_retain = "cuDevicePrimaryCtxRetain\0"(*mut Handle, c_int);
    context_release = "cuDevicePrimaryCtxRelease_v2\0"(c_int);
    context_push = "cuCtxPushCurrent_v2\0"(Handle);
    context_pop = "cuCtxPopCurrent_v2\0"(*mut Handle);
    module_load = "cuModuleLoadData\0"(*mut Handle, *const c_void);
    module_unload = "cuModuleUnload\0"(Handle);
    module_function = "cuModuleGetFunction\0"(*mut Handle, Handle, *const c_char);
    alloc = "cuMemAlloc_v2\0"(*mut Address, usize);
    free = "cuMemFree_v2\0"(Address);
    upload = "cuMemcpyHtoDAsync_v2\0"(Address, *const c_void, usize, Handle);
    download = "cuMemcpyDtoHAsync_v2\0"(*mut c_void, Address, usize, Handle);
    copy = "cuMemcpyDtoDAsync_v2\0"(Address, Address, usize, Handle);
    set = "cuMemsetD8Async\0"(Address, u8, usize, Handle);
    stream_create = "cuStreamCreate\0"(*mut Handle, c_uint);
    stream_destroy = "cuStreamDestroy_v2\0"(Handle);
    stream_wait = "cuStreamSynchronize\0"(Handle);
    launch = "cuLaunchKernel\0"(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void);
    launch_together = "cuLaunchCooperativeKernel\0"(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void);
    occupancy = "cuOccupancyMaxActiveBlocksPerMultiprocessor\0"(*mut c_int, Handle, c_int, usize);
    capture_begin = "cuStreamBeginCapture_v2\0"(Handle, c_int);
    capture_end = "cuStreamEndCapture\0"(Handle, *mut Handle);
    graph_instantiate = "cuGraphInstantiateWithFlags\0"(*mut Handle, Handle, u64);
    graph_launch = "cuGraphLaunch\0"(Handle, Handle);
    graph_destroy = "cuGraphDestroy\0"(Handle);
    graph_exec_destroy = "cuGraphExecDestroy\0"(Handle);
    error_name = "cuGetErrorName\0"(c_int, *mut *const c_char);
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Device, format!("CUDA: {what}"))
}

/// The drivers that were loaded, by the names of their libraries. They stay: a driver has threads of its own, and is not
/// made for being unloaded.
static LOADED: Mutex<Vec<(OsString, &'static Driver)>> = Mutex::new(Vec::new());

impl Driver {
    fn load() -> Result<&'static Driver> {
        let named = std::env::var_os(DRIVER);
        let usual: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };
        let names: Vec<OsString> = match named {
            Some(name) => vec![name],
            None => usual.iter().map(Into::into).collect(),
        };
        let mut loaded = LOADED.lock().unwrap_or_else(|e| e.into_inner());
        for name in &names {
            if let Some((_, driver)) = loaded.iter().find(|(known, _)| known == name) {
                return Ok(driver);
            }
            // SAFETY: what the driver's library does when it is loaded is NVIDIA's; that is how all programs use it.
            if let Ok(library) = unsafe { libloading::Library::new(name) } {
                let driver: &Driver = Box::leak(Box::new(Driver::from_library(library)?));
                loaded.push((name.clone(), driver));
                return Ok(driver);
            }
        }
        Err(failed(format!("the driver's library {:?} was not found", names[0])))
    }

    fn check(&self, code: c_int, doing: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: the function writes a pointer to a static text, or leaves NULL.
        let text = unsafe {
            if (self.error_name)(code, &mut name) == 0 && !name.is_null() {
                CStr::from_ptr(name).to_string_lossy().into_owned()
            } else {
                format!("error {code}")
            }
        };
        Err(match code {
            2 => Error::new(ErrorKind::OutOfMemory, format!("CUDA: {doing}: the device is out of memory")),
            222 => failed(format!("{doing}: {text}: driver 525 or newer is needed")),
            _ => failed(format!("{doing}: {text}")),
        })
    }
}

/// A device with its context.
pub(super) struct Gpu {
    driver: &'static Driver,
    device: c_int,
    context: Handle,
    /// Multiprocessors.
    pub processors: u32,
}

// SAFETY: the driver's functions may be called from any thread; `context` is only ever made current while one is, and the
// other handles belong to it.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("device", &self.device).finish_non_exhaustive()
    }
}

const MULTIPROCESSORS: c_int = 16;
const COMPUTE_MAJOR: c_int = 75;
const COMPUTE_MINOR: c_int = 76;
const COOPERATIVE_LAUNCH: c_int = 95;

fn attribute(driver: &Driver, device: c_int, which: c_int) -> Result<c_int> {
    let mut value = 0;
    // SAFETY: the function writes one int.
    let code = unsafe { (driver.device_attribute)(&mut value, which, device) };
    driver.check(code, "asking for an attribute")?;
    Ok(value)
}

fn count(driver: &Driver) -> Result<c_int> {
    let mut count = 0;
    // SAFETY: the function takes no pointer.
    driver.check(unsafe { (driver.init)(0) }, "starting the driver")?;
    // SAFETY: the function writes one int.
    driver.check(unsafe { (driver.device_count)(&mut count) }, "counting devices")?;
    Ok(count)
}

/// The devices of this machine; none where the driver is missing or does not start.
pub(crate) fn list() -> Vec<DeviceInfo> {
    let Ok(driver) = Driver::load() else { return Vec::new() };
    let count = count(driver).unwrap_or(0);
    (0..count).filter_map(|i| describe(driver, i).ok()).collect()
}

fn describe(driver: &Driver, index: c_int) -> Result<DeviceInfo> {
    let mut device = 0;
    let mut name = [0 as c_char; 128];
    let mut memory = 0;
    // SAFETY: the functions write one int, at most so many characters with a NUL, and one size.
    unsafe {
        driver.check((driver.device_get)(&mut device, index), "opening a device")?;
        driver.check((driver.device_name)(name.as_mut_ptr(), 127, device), "asking for a name")?;
        driver.check((driver.device_memory)(&mut memory, device), "asking for the memory")?;
    }
    let compute = [COMPUTE_MAJOR, COMPUTE_MINOR].map(|which| attribute(driver, device, which).unwrap_or(0));
    // SAFETY: the last character of the array was not written and is NUL.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Ok(DeviceInfo {
        kind: DeviceKind::Cuda,
        index: index as usize,
        description: name.to_string_lossy().into_owned(),
        features: format!("sm_{}{}", compute[0], compute[1]),
        memory_total: memory as u64,
        memory_free: 0,
    })
}

impl Gpu {
    /// Opens the device of this number.
    pub(super) fn open(index: usize) -> Result<Arc<Gpu>> {
        let driver = Driver::load()?;
        let count = count(driver)?;
        if index >= count.max(0) as usize {
            return Err(failed(format!("there is no device cuda:{index}: {count} found")));
        }
        let (mut device, mut context) = (0, std::ptr::null_mut());
        // SAFETY: the functions write one int and one handle.
        unsafe {
            driver.check((driver.device_get)(&mut device, index as c_int), "opening the device")?;
            driver.check((driver.context_retain)(&mut context, device), "opening the device")?;
        }
        let processors = attribute(driver, device, MULTIPROCESSORS).unwrap_or(1).max(1) as u32;
        Ok(Arc::new(Gpu { driver, device, context, processors }))
    }

    /// Calls driver functions with the device's context current on this thread. Whatever was current before, of a
    /// program that uses CUDA itself, is so again afterwards.
    fn call(&self, doing: &str, call: impl FnOnce(&Driver) -> c_int) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        self.driver.check(unsafe { (self.driver.context_push)(self.context) }, doing)?;
        let code = call(self.driver);
        self.driver.check([code, self.pop()].into_iter().find(|&code| code != 0).unwrap_or(0), doing)
    }

    /// [`call`](Gpu::call) of what gives something back: also where the device is lost and its context no longer current.
    fn give_back(&self, doing: &str, call: impl FnOnce(&Driver) -> c_int) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        let pushed = unsafe { (self.driver.context_push)(self.context) };
        let code = call(self.driver);
        let popped = if pushed == 0 { self.pop() } else { 0 };
        self.driver.check([pushed, code, popped].into_iter().find(|&code| code != 0).unwrap_or(0), doing)
    }

    /// Takes the context away that was pushed last.
    fn pop(&self) -> c_int {
        let mut context = std::ptr::null_mut();
        // SAFETY: the function writes one handle.
        unsafe { (self.driver.context_pop)(&mut context) }
    }

    /// Compiles PTX.
    pub(super) fn module(self: &Arc<Self>, ptx: &CStr) -> Result<Module> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the text ends in NUL; the function writes one handle.
        self.call("compiling the kernels", |d| unsafe { (d.module_load)(&mut handle, ptx.as_ptr().cast()) })?;
        Ok(Module { gpu: self.clone(), handle })
    }

    /// Blocks of this many threads that fit on a multiprocessor.
    pub(super) fn blocks_at_once(&self, function: Handle, threads: u32) -> Result<u32> {
        let mut blocks = 0;
        // SAFETY: the function belongs to a module of this context; one int is written.
        self.call("asking for the occupancy", |d| unsafe {
            (d.occupancy)(&mut blocks, function, threads as c_int, 0)
        })?;
        Ok(blocks.max(0) as u32)
    }

    /// Whether the blocks of a launch can wait for each other.
    pub(super) fn launches_together(&self) -> bool {
        attribute(self.driver, self.device, COOPERATIVE_LAUNCH).is_ok_and(|able| able != 0)
    }

    pub(super) fn stream(self: &Arc<Self>) -> Result<Stream> {
        const NON_BLOCKING: c_uint = 1;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the function writes one handle.
        self.call("making a stream", |d| unsafe { (d.stream_create)(&mut handle, NON_BLOCKING) })?;
        Ok(Stream { gpu: self.clone(), handle })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: everything that was made in the context is gone: it all holds an `Arc` of this.
        unsafe { (self.driver.context_release)(self.device) };
    }
}

/// Compiled kernels.
#[derive(Debug)]
pub(super) struct Module {
    gpu: Arc<Gpu>,
    handle: Handle,
}

impl Module {
    pub(super) fn function(&self, name: &CStr) -> Result<Handle> {
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded; the function writes one handle.
        self.gpu.call(&format!("looking for kernel {name:?}"), |d| unsafe {
            (d.module_function)(&mut function, self.handle, name.as_ptr())
        })?;
        Ok(function)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: nothing runs any more: every stream that could was waited for and dropped before its model.
        let _ = self.gpu.give_back("unloading the kernels", |d| unsafe { (d.module_unload)(self.handle) });
    }
}

/// Memory on the device.
#[derive(Debug)]
pub(super) struct Buffer {
    gpu: Arc<Gpu>,
    pub address: Address,
    pub bytes: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the address came from `alloc`; the driver waits for what still uses it.
        let _ = self.gpu.give_back("freeing memory", |d| unsafe { (d.free)(self.address) });
    }
}

/// A queue of work, done in order.
#[derive(Debug)]
pub(super) struct Stream {
    gpu: Arc<Gpu>,
    handle: Handle,
}

impl Stream {
    /// Memory of so many bytes, all zero.
    pub(super) fn zeros(&self, what: &str, bytes: usize) -> Result<Buffer> {
        let bytes = bytes.max(16);
        let mut address = 0;
        // SAFETY: the function writes one address.
        self.gpu.call(what, |d| unsafe { (d.alloc)(&mut address, bytes) })?;
        let buffer = Buffer { gpu: self.gpu.clone(), address, bytes };
        self.clear(&buffer)?;
        Ok(buffer)
    }

    /// Memory that holds these bytes, once this returns.
    pub(super) fn constant(&self, what: &str, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.zeros(what, bytes.len())?;
        self.upload(&buffer, 0, bytes)?;
        self.wait()?;
        Ok(buffer)
    }

    pub(super) fn clear(&self, buffer: &Buffer) -> Result<()> {
        // SAFETY: the buffer is of that size.
        self.gpu.call("clearing memory", |d| unsafe { (d.set)(buffer.address, 0, buffer.bytes, self.handle) })
    }

    /// Writes bytes from `at` on. They may be changed once this returns: the driver has a copy of what is not locked.
    pub(super) fn upload(&self, buffer: &Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        assert!(
            at + bytes.len() <= buffer.bytes,
            "writing {} bytes at {at} of {}",
            bytes.len(),
            buffer.bytes
        );
        // SAFETY: both ranges are whole, as checked; memory that is not page-locked is copied before the call returns.
        self.gpu.call("writing to the device", |d| unsafe {
            (d.upload)(buffer.address + at as u64, bytes.as_ptr().cast(), bytes.len(), self.handle)
        })
    }

    /// Reads bytes from `at` on. Waits for everything.
    pub(super) fn download(&self, buffer: &Buffer, at: usize, bytes: &mut [u8]) -> Result<()> {
        assert!(
            at + bytes.len() <= buffer.bytes,
            "reading {} bytes at {at} of {}",
            bytes.len(),
            buffer.bytes
        );
        // SAFETY: both ranges are whole, as checked, and `bytes` is borrowed until the stream was waited for.
        self.gpu.call("reading from the device", |d| unsafe {
            (d.download)(bytes.as_mut_ptr().cast(), buffer.address + at as u64, bytes.len(), self.handle)
        })?;
        self.wait()
    }

    pub(super) fn copy(&self, from: &Buffer, to: &Buffer) -> Result<()> {
        assert_eq!(from.bytes, to.bytes);
        // SAFETY: both buffers are of that size.
        self.gpu.call("copying on the device", |d| unsafe {
            (d.copy)(to.address, from.address, from.bytes, self.handle)
        })
    }

    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the stream lives.
        self.gpu.call("waiting for the device", |d| unsafe { (d.stream_wait)(self.handle) })
    }

    /// Launches `blocks` blocks of a kernel; `together`: all at once, so that they can wait for each other.
    ///
    /// # Safety
    /// `arguments` point to what the kernel takes, in order, and the addresses in them to memory that it may use.
    pub(super) unsafe fn launch(
        &self,
        function: Handle,
        blocks: u32,
        threads: u32,
        together: bool,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        let arguments = arguments.as_mut_ptr();
        // SAFETY: as promised by the caller.
        self.gpu.call("running a kernel", |d| unsafe {
            if together {
                (d.launch_together)(function, blocks, 1, 1, threads, 1, 1, 0, self.handle, arguments)
            } else {
                let no_extra = std::ptr::null_mut();
                (d.launch)(function, blocks, 1, 1, threads, 1, 1, 0, self.handle, arguments, no_extra)
            }
        })
    }

    /// Makes a graph of what `work` launches.
    pub(super) fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        const THREAD_LOCAL: c_int = 1;
        // SAFETY: the stream lives; the capture ends below, whatever `work` does.
        self.gpu.call("starting a graph", |d| unsafe { (d.capture_begin)(self.handle, THREAD_LOCAL) })?;
        let worked = work();
        let mut graph = std::ptr::null_mut();
        // SAFETY: the function writes one handle.
        let ended =
            self.gpu.give_back("ending a graph", |d| unsafe { (d.capture_end)(self.handle, &mut graph) });
        if let Err(error) = worked.and(ended) {
            if !graph.is_null() {
                // SAFETY: the graph was just made, and nothing else has its handle.
                let _ = self.gpu.give_back("dropping a graph", |d| unsafe { (d.graph_destroy)(graph) });
            }
            return Err(error);
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: the graph was just made; an executable graph does not need it afterwards.
        let made = self.gpu.call("preparing a graph", |d| unsafe {
            let code = (d.graph_instantiate)(&mut handle, graph, 0);
            (d.graph_destroy)(graph);
            code
        });
        made?;
        Ok(Graph { gpu: self.gpu.clone(), handle })
    }

    pub(super) fn replay(&self, graph: &Graph) -> Result<()> {
        // SAFETY: graph and stream live.
        self.gpu.call("running a graph", |d| unsafe { (d.graph_launch)(graph.handle, self.handle) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An error that waited until now has nobody left to hear it.
        let _ = self.wait();
        // SAFETY: the stream is idle and used no more.
        let _ = self.gpu.give_back("ending a stream", |d| unsafe { (d.stream_destroy)(self.handle) });
    }
}

/// Launches that are made together.
#[derive(Debug)]
pub(super) struct Graph {
    gpu: Arc<Gpu>,
    handle: Handle,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: its stream was waited for.
        let _ = self.gpu.give_back("dropping a graph", |d| unsafe { (d.graph_exec_destroy)(self.handle) });
    }
}
