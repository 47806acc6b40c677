//! What the calls are made with: memory, numbers and structs that the input asks for, handles, and what the header promises
//! of errors and outputs.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::CStr;
use std::ptr::null_mut;

use grug::ffi::error::*;
use grug::ffi::library::*;

/// What outputs are filled with, to see what a call writes.
pub(super) const UNTOUCHED: u8 = 0xa5;

/// Memory of exactly so many bytes.
pub(super) struct Exact {
    start: *mut u8,
    layout: Layout,
}

impl Exact {
    pub(super) fn new(bytes: &[u8]) -> Exact {
        let layout = Layout::from_size_align(bytes.len(), 16).unwrap();
        // No bytes: an address that nothing may be read from.
        let start = if bytes.is_empty() {
            std::ptr::without_provenance_mut(layout.align())
        } else {
            // SAFETY: the layout has bytes.
            unsafe { alloc(layout) }
        };
        // SAFETY: `start` is new memory for as many bytes.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Exact { start, layout }
    }

    pub(super) fn untouched(len: usize) -> Exact {
        Exact::new(&vec![UNTOUCHED; len])
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` has as many bytes, all of them written by `new`.
        unsafe { std::slice::from_raw_parts(self.start, self.layout.size()) }
    }

    pub(super) fn at<T>(&self) -> *mut T {
        self.start.cast()
    }

    pub(super) fn is_untouched_from(&self, start: usize) -> bool {
        self.bytes()[start..].iter().all(|byte| *byte == UNTOUCHED)
    }
}

impl Drop for Exact {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated by `new` with this layout.
            unsafe { dealloc(self.start, self.layout) };
        }
    }
}

/// Reads arguments from the bytes; zeros follow the end.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub(super) fn word(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let n = self.below(most + 1).min(self.0.len());
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    /// Memory with bytes of the input, and how long to say it is.
    pub(super) fn source(&mut self, most: usize) -> Exact {
        Exact::new(self.bytes(most))
    }

    pub(super) fn text(&mut self, known: &[&CStr]) -> Exact {
        match known.get(self.below(known.len() + 1)) {
            Some(text) => Exact::new(text.to_bytes_with_nul()),
            None => Exact::new(&[self.bytes(9), &[0]].concat()),
        }
    }

    pub(super) fn float(&mut self) -> f32 {
        match self.below(8) {
            0..=3 => 0.0,
            4 => f32::from(self.byte()) / 200.0,
            5 => 1.0,
            6 => f32::from(self.byte()),
            _ => f32::from_bits(self.word()),
        }
    }

    /// A struct of the header, mostly as it should be: or NULL, cut off, longer with something in what is new or without, of
    /// a size that cannot be, at an odd address.
    pub(super) fn options<T: Copy>(&mut self, value: T) -> Options {
        // SAFETY: the structs of the header have no padding.
        let value = unsafe { std::slice::from_raw_parts((&raw const value).cast::<u8>(), size_of::<T>()) };
        let right = value.len();
        let (claimed, tail, skew) = match self.below(16) {
            0..=8 => (right, 0, 0),
            9 => return Options(None),
            10 => (self.below(right), 0, 0),
            11 => (right + self.below(60), 0, 0),
            12 => (right + 1 + self.below(60), 1, 0),
            13 => (self.word() as usize, 0, 0),
            14 => (usize::MAX - self.below(9), 0, 0),
            _ => (right, 0, 1 + self.below(7)),
        };
        // A size that cannot be is not believed: nothing but the size itself may be read.
        let present = if claimed < right || claimed > 4096 { size_of::<usize>() } else { claimed };
        let mut bytes = vec![0; skew];
        bytes.extend_from_slice(&value[..right.min(present)]);
        bytes.resize(skew + present, 0);
        bytes[skew..skew + size_of::<usize>()].copy_from_slice(&claimed.to_ne_bytes());
        if tail > 0 {
            *bytes.last_mut().unwrap() = tail;
        }
        Options(Some((Exact::new(&bytes), skew)))
    }
}

/// A struct in memory of the caller.
pub(super) struct Options(Option<(Exact, usize)>);

impl Options {
    pub(super) fn at<T>(&self) -> *mut T {
        match &self.0 {
            // SAFETY: the struct begins there.
            Some((memory, skew)) => unsafe { memory.at::<u8>().add(*skew).cast() },
            None => null_mut(),
        }
    }
}

/// Memory for the error of a call, given or not.
pub(super) struct Report {
    memory: Exact,
    wanted: bool,
}

impl Report {
    pub(super) fn new(input: &mut Input<'_>) -> Report {
        Report { memory: Exact::untouched(size_of::<grug_error>()), wanted: !input.one_in(4) }
    }

    pub(super) fn at(&self) -> *mut grug_error {
        if self.wanted { self.memory.at() } else { null_mut() }
    }

    /// The status is one that a call may return here, and the error says the same.
    pub(super) fn check(&self, status: i32) -> i32 {
        // SAFETY: the library returns texts that live as long as it does.
        let name = unsafe { CStr::from_ptr(grug_status_name(status)) }.to_str().unwrap();
        assert!((GRUG_EUNSUPPORTED..=255).contains(&status) && name != "GRUG_E?", "{status}: {name}");
        if status >= 0 || !self.wanted {
            assert!(self.memory.is_untouched_from(0));
        } else {
            let (said, message) = self.memory.bytes().split_first_chunk().unwrap();
            assert_eq!(i32::from_ne_bytes(*said), status);
            assert!(!CStr::from_bytes_until_nul(message).expect("ends").to_str().expect("UTF-8").is_empty());
        }
        status
    }
}

/// Handles of one kind, and how they are freed.
pub(super) struct Handles<T> {
    pub(super) list: Vec<*mut T>,
    most: usize,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Handles<T> {
    pub(super) fn new(most: usize, free: unsafe extern "C" fn(*mut T)) -> Handles<T> {
        Handles { list: Vec::new(), most, free }
    }

    /// One of them, or NULL.
    pub(super) fn any(&self, input: &mut Input<'_>) -> *mut T {
        self.list.get(input.below(self.list.len() + 1)).copied().unwrap_or(null_mut())
    }

    pub(super) fn free_any(&mut self, input: &mut Input<'_>) {
        let i = input.below(self.list.len() + 1);
        let gone = if i < self.list.len() { self.list.swap_remove(i) } else { null_mut() };
        // SAFETY: a handle of the library, taken from the list, so that it is freed once; or NULL.
        unsafe { (self.free)(gone) };
    }

    /// Takes what a call made, or nothing where it failed; in place of another one where there are many.
    pub(super) fn made(&mut self, status: i32, handle: *mut T, input: &mut Input<'_>) {
        assert_eq!(status == GRUG_OK, !handle.is_null());
        if !handle.is_null() {
            if self.list.len() == self.most {
                let last = self.list.len() - 1;
                let i = input.below(last + 1);
                self.list.swap(i, last);
                let gone = self.list.pop().unwrap();
                // SAFETY: as above.
                unsafe { (self.free)(gone) };
            }
            self.list.push(handle);
        }
    }
}

impl<T> Drop for Handles<T> {
    fn drop(&mut self) {
        for handle in &self.list {
            // SAFETY: each handle in the list is freed here alone.
            unsafe { (self.free)(*handle) };
        }
    }
}

/// Room for an output whose length is in and out.
pub(super) struct Room {
    memory: Exact,
    len: usize,
    absent: bool,
}

impl Room {
    pub(super) fn new(input: &mut Input<'_>, most: usize) -> Room {
        let len = match input.below(4) {
            0 => 0,
            1 => input.byte() as usize,
            _ => most,
        };
        Room { memory: Exact::untouched(len), len, absent: input.one_in(9) }
    }

    pub(super) fn memory<T>(&self) -> *mut T {
        if self.absent { null_mut() } else { self.memory.at() }
    }

    pub(super) fn len(&mut self) -> *mut usize {
        &mut self.len
    }

    /// What was written: nothing but for a success, and then no more than the length says.
    pub(super) fn check(&self, status: i32) -> Option<&[u8]> {
        let room = self.memory.bytes().len();
        if status != GRUG_OK {
            assert!(self.memory.is_untouched_from(0));
            assert!(if status == GRUG_ESPACE { self.len > room } else { self.len == room });
            return None;
        }
        assert!(self.memory.is_untouched_from(self.len));
        (!self.absent).then(|| &self.memory.bytes()[..self.len])
    }
}
