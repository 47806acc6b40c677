//! The worker threads of a model. `Pool::new(1)` makes none: everything runs on the calling thread.
//!
//! A job is cut into numbered chunks. Every thread has a range of them that it works through first, so that the same
//! weights meet the same cache in every step, and then takes what is left of the others'; so a worker that the
//! operating system holds back delays nothing but the chunk that it is in. Each output number is computed within one
//! chunk, in one order, so results depend neither on the number of threads nor on who took what.
//!
//! Workers spin for some microseconds after a job, since the next one usually comes at once, and then sleep. Where
//! another program takes a core, waiting for a worker that is not running costs more than it brings: a wait that
//! lasts long makes the pool work on the calling thread alone for a while.
//!
//! The hand-over takes no lock and allocates nothing. A pool that is busy with another session's job, or that was
//! inherited through `fork` and so has lost its threads, runs everything on the calling thread.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// Most threads of a pool.
const MAX_THREADS: usize = 1024;
/// Rounds that a worker spins for the next job before it yields, and then before it sleeps.
const SPINS: u32 = 3000;
const YIELDS: u32 = 8;
/// Rounds that the caller spins for the last chunks before it yields.
const CALLER_SPINS: u32 = 2000;
/// A wait for the last chunks that takes longer than this means that a worker is held back.
const STALL: Duration = Duration::from_micros(400);
/// How long the pool does without its workers after that: at first, and when it happens again and again.
const MIN_PENALTY: Duration = Duration::from_millis(16);
const MAX_PENALTY: Duration = Duration::from_millis(256);

/// Keeps what different threads write in different cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// A job: a function of a chunk's number, behind a thin pointer.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize),
    data: *const (),
}

/// One thread's share of the job, and all that the thread looks at to find it: one cache line comes over.
struct Share {
    /// Counts jobs.
    epoch: AtomicU32,
    /// Whether the worker sleeps, or is about to.
    asleep: AtomicBool,
    /// Next chunk in the low half, end in the high half. Whoever moves `next` on owns that chunk.
    chunks: AtomicU64,
    /// Written by the thread that set `busy`, while no chunk can be claimed.
    job: UnsafeCell<Job>,
}

struct Shared {
    /// Whether a job is under way.
    busy: Padded<AtomicBool>,
    /// Chunks that are not finished.
    pending: Padded<AtomicUsize>,
    shares: Box<[Padded<Share>]>,
    /// Workers that run; a thread allocates while it starts.
    started: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// When the workers are used again after a stall, the present penalty and the last stall; ns since `made`.
    resume_at: AtomicU64,
    penalty: AtomicU64,
    stalled_at: AtomicU64,
    made: Instant,
}

// SAFETY: the job's pointer is shared on purpose; `run` keeps what it points to alive, and only a closure that is
// `Sync` gets there.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Share {
    fn claim(&self) -> Option<usize> {
        let mut now = self.chunks.load(Ordering::Acquire);
        loop {
            let (next, end) = (now & u32::MAX as u64, now >> 32);
            if next >= end {
                return None;
            }
            match self.chunks.compare_exchange_weak(now, now + 1, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(next as usize),
                Err(seen) => now = seen,
            }
        }
    }
}

impl Shared {
    /// Works on the present job, if any, beginning with the share of thread `me`.
    fn work(&self, me: usize) {
        let n = self.shares.len();
        let mut done = 0;
        for i in 0..n {
            let share = &self.shares[(me + i) % n].0;
            while let Some(chunk) = share.claim() {
                // SAFETY: the claim succeeded, so `pending` counts this chunk and the job stays in place until it is
                // subtracted; the claim acquired what the caller wrote before it published the share.
                let job = unsafe { *share.job.get() };
                // SAFETY: `data` is what `call` was made for, and `run` waits for this chunk.
                let result = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.data, chunk) }));
                if let Err(panic) = result {
                    self.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
                }
                done += 1;
            }
        }
        if done > 0 {
            self.pending.0.fetch_sub(done, Ordering::Release);
        }
    }

    fn worker(&self, me: usize) {
        let share = &self.shares[me].0;
        let mut seen = 0;
        self.started.fetch_add(1, Ordering::Release);
        loop {
            let mut rounds = 0;
            loop {
                let epoch = share.epoch.load(Ordering::Acquire);
                if epoch != seen {
                    seen = epoch;
                    break;
                }
                rounds += 1;
                if rounds < SPINS {
                    std::hint::spin_loop();
                } else if rounds < SPINS + YIELDS {
                    std::thread::yield_now();
                } else {
                    // Either this thread sees the new epoch, or whoever counted it up sees that it sleeps.
                    share.asleep.store(true, Ordering::SeqCst);
                    if share.epoch.load(Ordering::SeqCst) == seen {
                        std::thread::park();
                    }
                    share.asleep.store(false, Ordering::SeqCst);
                }
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            self.work(me);
        }
    }

    fn now(&self) -> u64 {
        self.made.elapsed().as_nanos() as u64
    }

    /// Whether the workers are left alone after a stall.
    fn is_penalized(&self) -> bool {
        let resume_at = self.resume_at.load(Ordering::Relaxed);
        if resume_at == 0 {
            return false;
        }
        if self.now() < resume_at {
            return true;
        }
        self.resume_at.store(0, Ordering::Relaxed);
        false
    }

    /// Waits until all chunks are finished.
    fn wait(&self) {
        let mut rounds = 0;
        let mut since = None;
        while self.pending.0.load(Ordering::Acquire) != 0 {
            rounds += 1;
            if rounds < CALLER_SPINS {
                std::hint::spin_loop();
            } else {
                since.get_or_insert_with(Instant::now);
                std::thread::yield_now();
            }
        }
        if let Some(since) = since
            && since.elapsed() > STALL
        {
            let now = self.now();
            let last = self.penalty.load(Ordering::Relaxed);
            let recent = now - self.stalled_at.load(Ordering::Relaxed).min(now) < 8 * last;
            let (min, max) = (MIN_PENALTY.as_nanos() as u64, MAX_PENALTY.as_nanos() as u64);
            let penalty = if recent { (2 * last).min(max) } else { min };
            self.penalty.store(penalty, Ordering::Relaxed);
            self.stalled_at.store(now, Ordering::Relaxed);
            self.resume_at.store(now + penalty, Ordering::Relaxed);
        }
    }
}

/// A set of threads that run one job at a time.
pub struct Pool {
    shared: Option<Arc<Shared>>,
    workers: Vec<JoinHandle<()>>,
    forks: u64,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.n_threads())
    }
}

/// How often this process is the child of a fork since the library was first used.
fn forks() -> u64 {
    static FORKS: AtomicU64 = AtomicU64::new(0);
    #[cfg(all(unix, not(miri)))] // Miri does not know the call.
    {
        static REGISTERED: std::sync::Once = std::sync::Once::new();
        extern "C" fn in_child() {
            FORKS.fetch_add(1, Ordering::Relaxed);
        }
        REGISTERED.call_once(|| {
            // SAFETY: the handler only adds to an atomic, which is allowed in a child of any process.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
    }
    FORKS.load(Ordering::Relaxed)
}

/// Cores that this process may run on, not counting a second hardware thread of the same core.
fn physical_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a cpu_set_t is plain bits, and the call writes at most its size.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0).then_some(set)
        };
        if let Some(set) = set {
            let cores: std::collections::HashSet<String> = (0..libc::CPU_SETSIZE as usize)
                // SAFETY: the number is below CPU_SETSIZE.
                .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
                .filter_map(|cpu| {
                    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
                    std::fs::read_to_string(path).ok()
                })
                .collect();
            if !cores.is_empty() {
                return cores.len().min(logical);
            }
        }
    }
    logical
}

impl Pool {
    /// A pool that computes on this many threads, the caller's included. 0 = one for each core. WebAssembly has but the
    /// caller's.
    pub fn new(n_threads: usize) -> Result<Pool> {
        let n_threads = match n_threads {
            0 => physical_cores().min(MAX_THREADS),
            n if n > MAX_THREADS => {
                return Err(Error::invalid(format!("{n} threads: at most {MAX_THREADS} are possible")));
            }
            _ if cfg!(target_family = "wasm") => 1,
            n => n,
        };
        let mut pool = Pool { shared: None, workers: Vec::new(), forks: forks() };
        if n_threads == 1 {
            return Ok(pool);
        }
        unsafe fn nothing(_: *const (), _: usize) {}
        let shared = Arc::new(Shared {
            busy: Padded(AtomicBool::new(false)),
            pending: Padded(AtomicUsize::new(0)),
            shares: (0..n_threads)
                .map(|_| {
                    Padded(Share {
                        epoch: AtomicU32::new(0),
                        asleep: AtomicBool::new(false),
                        chunks: AtomicU64::new(0),
                        job: UnsafeCell::new(Job { call: nothing, data: std::ptr::null() }),
                    })
                })
                .collect(),
            started: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            resume_at: AtomicU64::new(0),
            penalty: AtomicU64::new(0),
            stalled_at: AtomicU64::new(0),
            made: Instant::now(),
        });
        pool.shared = Some(shared.clone());
        for me in 1..n_threads {
            let shared = shared.clone();
            let worker = std::thread::Builder::new()
                .name(format!("grug-{me}"))
                .stack_size(256 << 10)
                .spawn(move || shared.worker(me))
                .map_err(|e| Error::new(ErrorKind::OutOfMemory, format!("starting thread {me}: {e}")))?;
            pool.workers.push(worker);
        }
        while shared.started.load(Ordering::Acquire) < n_threads - 1 {
            std::thread::yield_now();
        }
        Ok(pool)
    }

    /// How many threads compute, the caller's included.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Whether this process is a forked child that did not inherit the threads.
    fn is_forked(&self) -> bool {
        self.shared.is_some() && self.forks != forks()
    }

    /// Refuses work in a forked child whose threads are gone.
    pub fn check_fork(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::new(
                ErrorKind::Fork,
                "this model was loaded before a fork, and its threads are gone: load it anew, or with n_threads = 1",
            ));
        }
        Ok(())
    }

    /// Calls `f` once for each chunk `0..chunks`, on all threads, and returns when every call has.
    ///
    /// Panics if a call does, after the others are done.
    pub(crate) fn run<F: Fn(usize) + Sync>(&self, chunks: usize, f: F) {
        let free = |shared: &&Arc<Shared>| {
            chunks > 1
                && chunks <= u32::MAX as usize
                && !self.is_forked()
                && !shared.is_penalized()
                && shared.busy.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let Some(shared) = self.shared.as_ref().filter(free) else {
            return (0..chunks).for_each(f);
        };
        unsafe fn call<F: Fn(usize) + Sync>(data: *const (), chunk: usize) {
            // SAFETY: `run` made `data` of a reference to this type, which lives until it returns.
            unsafe { (*data.cast::<F>())(chunk) }
        }
        let job = Job { call: call::<F>, data: (&raw const f).cast() };
        shared.pending.0.store(chunks, Ordering::Relaxed);
        let n = shared.shares.len();
        for (i, Padded(share)) in shared.shares.iter().enumerate() {
            let (next, end) = ((chunks * i).div_ceil(n), (chunks * (i + 1)).div_ceil(n));
            if next == end {
                continue; // its worker need not wake
            }
            // SAFETY: `busy` is ours and no chunk of this share is pending or can be claimed, so nobody else looks at
            // its job.
            unsafe { *share.job.get() = job };
            share.chunks.store(next as u64 | (end as u64) << 32, Ordering::Release);
            share.epoch.fetch_add(1, Ordering::Release);
        }
        self.wake(shared);
        shared.work(0);
        shared.wait();
        let panic = std::mem::take(&mut *shared.panic.lock().unwrap_or_else(|e| e.into_inner()));
        shared.busy.0.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Wakes the workers that sleep, after their epochs were counted up.
    fn wake(&self, shared: &Shared) {
        // Either the worker sees the new epoch, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        for (worker, Padded(share)) in self.workers.iter().zip(&shared.shares[1..]) {
            if share.asleep.load(Ordering::SeqCst) && share.asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        if self.is_forked() {
            // There is nobody to join.
            self.workers.drain(..).for_each(std::mem::forget);
            return;
        }
        shared.stop.store(true, Ordering::Release);
        for Padded(share) in &shared.shares {
            share.epoch.fetch_add(1, Ordering::Release);
        }
        self.wake(shared);
        for worker in self.workers.drain(..) {
            // A worker catches what its jobs throw, so there is no panic to hand on.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every chunk is called exactly once.
    fn check(pool: &Pool, chunks: usize) {
        let calls: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
        pool.run(chunks, |chunk| {
            calls[chunk].fetch_add(1, Ordering::Relaxed);
        });
        assert!(calls.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{chunks} chunks on {pool:?}");
    }

    #[test]
    fn every_chunk_runs_once() {
        for n_threads in [1, 2, 3, 8] {
            let pool = Pool::new(n_threads).unwrap();
            assert_eq!(pool.n_threads(), n_threads);
            for chunks in [0, 1, 2, 3, 7, 8, 9, 100] {
                (0..50).for_each(|_| check(&pool, chunks));
            }
        }
        assert!(Pool::new(0).unwrap().n_threads() >= 1);
        assert!(Pool::new(MAX_THREADS + 1).is_err());
    }

    #[test]
    fn workers_wake_from_sleep() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            check(&pool, 6);
        }
    }

    #[test]
    fn several_threads_share_a_pool_while_the_machine_is_busy() {
        let pool = Pool::new(4).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let users: Vec<_> =
                (0..3).map(|_| scope.spawn(|| (0..2000).for_each(|i| check(&pool, i % 13)))).collect();
            users.into_iter().for_each(|user| user.join().unwrap());
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_job_inside_a_job_runs_on_its_thread() {
        let pool = Pool::new(2).unwrap();
        let calls = AtomicUsize::new(0);
        pool.run(4, |_| {
            pool.run(3, |_| {
                calls.fetch_add(1, Ordering::Relaxed);
            })
        });
        assert_eq!(calls.into_inner(), 12);
    }

    #[test]
    fn a_stall_is_followed_by_work_on_the_calling_thread() {
        let pool = Pool::new(2).unwrap();
        let caller = std::thread::current().id();
        let held_back = |chunk: usize| {
            if chunk == 1 && std::thread::current().id() != caller {
                std::thread::sleep(Duration::from_millis(20));
            }
            if chunk == 0 {
                // Long enough that the worker takes its chunk.
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        pool.run(2, held_back);
        let shared = pool.shared.as_ref().unwrap();
        if shared.stalled_at.load(Ordering::Relaxed) != 0 {
            assert!(shared.resume_at.load(Ordering::Relaxed) > shared.stalled_at.load(Ordering::Relaxed));
        }
        (0..200).for_each(|_| check(&pool, 5));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(9, |chunk| assert_ne!(chunk, 5))));
            assert!(result.is_err());
            check(&pool, 9);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_forked_child_is_told_and_does_not_hang() {
        let pool = Pool::new(2).unwrap();
        check(&pool, 8);
        // SAFETY: the child only computes and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let sum = AtomicUsize::new(0);
            pool.run(8, |chunk| {
                sum.fetch_add(chunk, Ordering::Relaxed);
            });
            let told = matches!(pool.check_fork(), Err(e) if e.kind() == ErrorKind::Fork);
            drop(pool);
            let code = if told && sum.into_inner() == 28 { 0 } else { 1 };
            // SAFETY: leaves without running anything that the parent's other threads were in the middle of.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `child` is our own child, and `status` is ours to write.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        assert!(pool.check_fork().is_ok());
    }
}
