//! The way in and out of a C call: nothing unwinds into C, nothing is printed, two threads never use one handle at
//! once, and what a panic left behind is not used again.
//!
//! # Panics
//! A panic is a fault of the library. It is caught at the edge of the call, becomes `GRUG_EPANIC` with the panic's text
//! as message, and poisons the handles that the call was using.
//!
//! Rust would also print it: that is what the panic *hook* does, and an embedded library must not write to its host's
//! stderr. There is one hook per copy of Rust's standard library. `libgrug.so` and `libgrug.a` carry a copy of their own,
//! which no other code sees; the first C call puts a hook into it that is silent on threads inside such a call and on the
//! library's workers, and asks the hook that was there before in all other cases. It owns no memory and lives in the
//! library's own image, so `dlclose` takes it along. A Rust program that uses this crate directly makes no C calls, and
//! its hook is left alone.

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Once, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::error::{grug_error, grug_status};

/// The name of the library's worker threads, or how it begins.
const WORKER_NAME: &str = "grug";

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

/// The hook that was there before ours.
static PREVIOUS: OnceLock<Hook> = OnceLock::new();

thread_local! {
    /// How many C calls this thread is in. No destructor, so that a thread keeps nothing of the library alive.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

fn hook(info: &PanicHookInfo<'_>) {
    let worker = || std::thread::current().name().is_some_and(|name| name.starts_with(WORKER_NAME));
    if DEPTH.get() == 0
        && !worker()
        && let Some(previous) = PREVIOUS.get()
    {
        previous(info);
    }
}

/// Puts our hook in place, once. Neither box holds anything, so neither is memory that would have to be freed.
fn silence_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once_force(|_| {
        // A thread that is unwinding may not change the hook; it cannot be in here in a program without Rust.
        if !std::thread::panicking() {
            let _ = PREVIOUS.set(take_hook());
            set_hook(Box::new(hook));
        }
    });
}

/// Counts a call for as long as it runs.
struct Inside;

impl Inside {
    fn enter() -> Inside {
        DEPTH.set(DEPTH.get() + 1);
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// What a panic is to the caller.
#[cold]
#[inline(never)]
fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = match payload.downcast::<&'static str>().map(|text| text.to_string()) {
        Ok(text) => text,
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => {
                // Dropping a value of a type that we do not know might panic again.
                std::mem::forget(payload);
                "of unknown cause".to_string()
            }
        },
    };
    Error::new(ErrorKind::Panic, format!("internal error: {text}"))
}

/// The status of an error, which is written to `err`.
#[cold]
#[inline(never)]
fn failed(error: Error, err: *mut grug_error) -> i32 {
    if !err.is_null() {
        // SAFETY: `err` is NULL or points to a grug_error of the caller (header, ERRORS).
        unsafe { err.write((&error).into()) };
    }
    error.kind() as grug_status
}

/// Runs the body of a C function: the value it returns, or the status of its error, which is written to `err`.
pub(super) fn call(err: *mut grug_error, body: impl FnOnce() -> Result<i32>) -> i32 {
    silence_panics();
    let _inside = Inside::enter();
    // What a panic may have left half done is behind a handle, and handles are poisoned.
    match catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(panicked(payload))) {
        Ok(value) => value,
        Err(error) => failed(error, err),
    }
}

/// Runs something that has no way to report an error: freeing, above all.
pub(super) fn quietly(body: impl FnOnce()) {
    call(std::ptr::null_mut(), || {
        body();
        Ok(0)
    });
}

/// Moves a value to the heap; no memory is an error, not an abort.
pub(super) fn try_box<T>(value: T) -> Result<Box<T>> {
    let layout = Layout::new::<T>();
    const { assert!(size_of::<T>() > 0) };
    // SAFETY: the layout's size is not zero.
    let pointer = unsafe { std::alloc::alloc(layout) }.cast::<T>();
    if pointer.is_null() {
        return Err(Error::new(ErrorKind::OutOfMemory, format!("no memory for {} bytes", layout.size())));
    }
    // SAFETY: `pointer` is fresh memory of T's layout from the global allocator, which is what a Box owns; it is written
    // before the Box exists.
    unsafe {
        pointer.write(value);
        Ok(Box::from_raw(pointer))
    }
}

fn poisoned() -> Error {
    Error::new(ErrorKind::Panic, "an earlier internal error left this handle unusable; free it")
}

/// A value that many threads may use at once, unless a panic passed through one of them.
#[derive(Debug)]
pub(super) struct Shared<T> {
    poisoned: AtomicBool,
    value: T,
}

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Shared<T> {
        Shared { poisoned: AtomicBool::new(false), value }
    }

    /// The value; `GRUG_EPANIC` if it is poisoned.
    pub(super) fn enter(&self) -> Result<Using<'_, T>> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(poisoned());
        }
        Ok(Using { cell: self, unwinding_before: std::thread::panicking() })
    }
}

/// Use of a [`Shared`] value. A panic that ends it poisons the handle.
pub(super) struct Using<'a, T> {
    cell: &'a Shared<T>,
    unwinding_before: bool,
}

impl<T> Deref for Using<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.cell.value
    }
}

impl<T> Drop for Using<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinding_before {
            self.cell.poisoned.store(true, Ordering::Release);
        }
    }
}

const FREE: u8 = 0;
const BUSY: u8 = 1;
const POISONED: u8 = 2;

/// A value that one thread at a time may use. The second is told so, and nobody waits.
#[derive(Debug, Default)]
pub(super) struct Exclusive<T> {
    state: AtomicU8,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through `enter` alone, which lets one thread in at a time, with acquire and release
// between one and the next; T: Send is all that handing it around needs.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    pub(super) fn new(value: T) -> Exclusive<T> {
        Exclusive { state: AtomicU8::new(FREE), value: UnsafeCell::new(value) }
    }

    /// The value, for as long as the result lives; `GRUG_EBUSY` if it is in use, `GRUG_EPANIC` if it is poisoned.
    pub(super) fn enter(&self) -> Result<Entered<'_, T>> {
        match self.state.compare_exchange(FREE, BUSY, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Entered { cell: self, unwinding_before: std::thread::panicking() }),
            Err(POISONED) => Err(poisoned()),
            Err(_) => Err(Error::new(ErrorKind::Busy, "another call is using this handle")),
        }
    }
}

/// Use of an [`Exclusive`] value. A panic that ends it poisons the handle.
pub(super) struct Entered<'a, T> {
    cell: &'a Exclusive<T>,
    unwinding_before: bool,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this is the only `Entered` of its cell while the state is BUSY, and it is borrowed.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only `Entered` of its cell while the state is BUSY, and it is borrowed mutably.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        let panicked = std::thread::panicking() && !self.unwinding_before;
        self.cell.state.store(if panicked { POISONED } else { FREE }, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(err: &grug_error) -> String {
        err.message.iter().map(|&c| c as u8 as char).take_while(|&c| c != '\0').collect()
    }

    fn fresh() -> grug_error {
        grug_error { status: 0, message: [0; 252] }
    }

    #[test]
    fn a_panic_becomes_a_status_and_poisons_its_handles_alone() {
        let (used, other) = (Exclusive::new(1), Exclusive::new(2));
        let (shared, unused) = (Shared::new(3), Shared::new(4));
        let mut err = fresh();
        let status = call(&mut err, || {
            let (mut value, _model) = (used.enter()?, shared.enter()?);
            *value += 1;
            panic!("broken {}", *value)
        });
        assert_eq!(status, ErrorKind::Panic as i32);
        assert_eq!((err.status, text(&err)), (status, "internal error: broken 2".to_string()));
        for status in [call(&mut err, || Ok(*used.enter()?)), call(&mut err, || Ok(*shared.enter()?))] {
            assert_eq!(status, ErrorKind::Panic as i32);
            assert!(text(&err).contains("unusable"), "{}", text(&err));
        }
        assert_eq!(call(&mut err, || Ok(*other.enter()?)), 2);
        assert_eq!(call(&mut err, || Ok(*unused.enter()?)), 4);
    }

    #[test]
    fn an_error_poisons_nothing_and_frees_the_handle() {
        let cell = Exclusive::new(5);
        let fails = || {
            let _entered = cell.enter()?;
            Err(Error::invalid("no"))
        };
        assert_eq!(call(std::ptr::null_mut(), fails), ErrorKind::InvalidArgument as i32);
        assert_eq!(call(std::ptr::null_mut(), || Ok(*cell.enter()?)), 5);
        let first = cell.enter().unwrap();
        assert_eq!(cell.enter().err().unwrap().kind(), ErrorKind::Busy);
        drop(first);
        assert!(cell.enter().is_ok());
    }

    #[test]
    fn a_value_that_is_no_text_can_be_thrown_too() {
        let mut err = fresh();
        let status = call(&mut err, || std::panic::panic_any(17));
        assert_eq!(
            (status, text(&err)),
            (ErrorKind::Panic as i32, "internal error: of unknown cause".into())
        );
        quietly(|| panic!("nobody is told"));
    }

    /// The standard error of a program in which a C call panics, and a thread outside of one does as well.
    #[test]
    fn only_panics_outside_a_call_are_printed() {
        const CHILD: &str = "GRUG_TEST_PANICS";
        if std::env::var_os(CHILD).is_some() {
            call(std::ptr::null_mut(), || panic!("inside a call"));
            call(std::ptr::null_mut(), || {
                crate::pool::Pool::new(3)?.run(64, |_| panic!("on a worker"));
                Ok(0)
            });
            assert!(std::thread::spawn(|| panic!("outside a call")).join().is_err());
            return;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["ffi::guard::tests::only_panics_outside_a_call_are_printed", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("outside a call"), "{stderr}");
        assert!(!stderr.contains("inside a call") && !stderr.contains("on a worker"), "{stderr}");
    }
}
