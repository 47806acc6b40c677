//! Processes that train together: where they meet, and what they exchange. Twin of shim/parallel.cpp.

use std::ffi::{CString, c_char};
use std::time::Duration;

use grug::error::{Error, Result};
use tch::{Device, Tensor};

use super::device::cuda_index;
use super::{check, ffi, pointers};

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("{text:?} has a NUL byte in it")))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Keys and values that all processes see: c10d's `TCPStore`. Its methods wait for the server at most as long as the
/// store's timeout.
#[derive(Debug)]
pub struct Store {
    raw: ffi::StorePtr,
}

// SAFETY: c10d's stores lock themselves for every operation.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects to the store at `host`:`port`, which `server` says that this process keeps itself; `prefix` comes
    /// before every key. Waits for the server.
    pub fn connect(host: &str, port: u16, server: bool, prefix: &str, timeout: Duration) -> Result<Store> {
        let (host, prefix) = (c_string(host)?, c_string(prefix)?);
        let mut raw = std::ptr::null_mut();
        // SAFETY: NUL-terminated strings; on success `raw` is a store of ours.
        check(unsafe {
            ffi::grug_torch_store_new(
                host.as_ptr(),
                port,
                server as i32,
                prefix.as_ptr(),
                millis(timeout),
                &mut raw,
            )
        })?;
        Ok(Store { raw })
    }

    /// Sets a key.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let (name, len) = (key.as_ptr().cast::<c_char>(), key.len());
        // SAFETY: a live store, and bytes with their lengths.
        check(unsafe { ffi::grug_torch_store_set(self.raw, name, len, value.as_ptr(), value.len()) })
    }

    /// The value of a key, waiting until it is there.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let (mut out, mut n) = (std::ptr::null_mut(), 0);
        // SAFETY: a live store; on success `out` holds `n` bytes that are ours to free.
        unsafe {
            check(ffi::grug_torch_store_get(self.raw, key.as_ptr().cast(), key.len(), &mut out, &mut n))?;
            let value = std::slice::from_raw_parts(out, n).to_vec();
            ffi::grug_torch_free_message(out.cast());
            Ok(value)
        }
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> Result<bool> {
        let mut found = 0;
        // SAFETY: a live store; `found` is a live i32.
        check(unsafe { ffi::grug_torch_store_check(self.raw, key.as_ptr().cast(), key.len(), &mut found) })?;
        Ok(found != 0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `connect` and freed once.
        unsafe { ffi::grug_torch_store_free(self.raw) }
    }
}

/// This process among those that train together. All ranks must call the same methods in the same order.
#[derive(Debug)]
pub struct Group {
    raw: ffi::GroupPtr,
}

impl Group {
    /// Joins as `rank` of `size`. Tensors travel by NCCL where `device` is a GPU and by Gloo where it is the CPU;
    /// numbers on the host always by Gloo. An exchange that takes longer than `timeout` is an error.
    pub fn join(
        store: &Store,
        host: &str,
        rank: usize,
        size: usize,
        device: Device,
        timeout: Duration,
    ) -> Result<Group> {
        let host = c_string(host)?;
        let mut raw = std::ptr::null_mut();
        let (rank, size, cuda) = (rank as i32, size as i32, cuda_index(device));
        // SAFETY: a live store and a NUL-terminated string; on success `raw` is a group of ours, which keeps the
        // store alive itself.
        check(unsafe {
            ffi::grug_torch_group_new(store.raw, host.as_ptr(), rank, size, cuda, millis(timeout), &mut raw)
        })?;
        Ok(Group { raw })
    }

    /// Replaces tensors by rank 0's.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<()> {
        let list = pointers(tensors);
        // SAFETY: a live group and live tensors.
        check(unsafe { ffi::grug_torch_group_broadcast(self.raw, list.as_ptr(), list.len()) })
    }

    /// Replaces numbers by their sums over all ranks.
    pub fn sum(&self, values: &mut [f64]) -> Result<()> {
        // SAFETY: a live group and a live slice.
        check(unsafe { ffi::grug_torch_group_sum(self.raw, values.as_mut_ptr(), values.len()) })
    }

    /// From now on, averages the gradients of these f32 parameters, in buckets of this many bytes or more. Once.
    pub fn watch(&self, params: &[Tensor], bucket_bytes: usize) -> Result<()> {
        let list = pointers(params);
        // SAFETY: a live group and live tensors, to which the group keeps references of its own.
        check(unsafe {
            ffi::grug_torch_group_watch(self.raw, list.as_ptr(), list.len(), bucket_bytes as i64)
        })
    }

    /// Comes before the backward pass that completes the gradients of a step.
    pub fn expect(&self, raised: bool) -> Result<()> {
        // SAFETY: a live group.
        check(unsafe { ffi::grug_torch_group_expect(self.raw, raised as i32 as f64) })
    }

    /// Comes after that pass; the gradients are then their means over all ranks. Whether a rank had `raised` set.
    pub fn finish(&self) -> Result<bool> {
        let mut raised = 0.0;
        // SAFETY: a live group; `raised` is a live f64.
        check(unsafe { ffi::grug_torch_group_finish(self.raw, &mut raised) })?;
        Ok(raised > 0.0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by `join` and freed once.
        unsafe { ffi::grug_torch_group_free(self.raw) }
    }
}

/// Ends the process at once, without destructors: those of a group would wait for ranks that are gone.
pub fn leave(status: i32) -> ! {
    // SAFETY: does not return.
    unsafe { ffi::grug_torch_leave(status) };
    unreachable!("the process has ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// What each of two ranks, threads here, makes of a function.
    fn two_ranks<T: Send>(body: impl Fn(usize, Group) -> T + Sync) -> [T; 2] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let rank = |rank: usize| {
            let time = Duration::from_secs(60);
            let store = Store::connect("127.0.0.1", port, rank == 0, "test", time).unwrap();
            let group = Group::join(&store, "127.0.0.1", rank, 2, Device::Cpu, time).unwrap();
            (body(rank, group), store)
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| rank(1));
            // Whoever keeps the store keeps it until the other is done.
            let ((first, _store), (second, _)) = (rank(0), other.join().unwrap());
            [first, second]
        })
    }

    #[test]
    fn gradients_become_their_means_in_every_bucket() {
        let values = |t: &Tensor| Vec::<f32>::try_from(t.view([-1])).unwrap();
        let results = two_ranks(|rank, group| {
            let leaf = |n: i64| Tensor::ones([n], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let params = [leaf(3), leaf(5), leaf(2), leaf(4)];
            group.watch(&params, 24).unwrap();
            let mut seen = Vec::new();
            for step in 0..3 {
                let factor = (rank + 1) as f64 * (step + 1) as f64;
                // The first pass is not the last of its step; parameter 2 takes no part at all.
                for pass in 0..2 {
                    let loss = (&params[0] + 0.0).sum(Kind::Float) * factor
                        + (&params[1] * &params[1]).sum(Kind::Float) * factor
                        + (&params[3] * 2.0).sum(Kind::Float);
                    if pass == 1 {
                        group.expect(rank == 1 && step == 2).unwrap();
                    }
                    loss.backward();
                }
                let raised = group.finish().unwrap();
                seen.push((params.iter().map(|p| values(&p.grad())).collect::<Vec<_>>(), raised));
                super::super::forget_gradients(&params).unwrap();
            }
            let mut numbers = [rank as f64, 2.5];
            group.sum(&mut numbers).unwrap();
            assert_eq!(numbers, [1.0, 5.0]);
            let shared = Tensor::full([2, 2], rank as f64 + 7.0, (Kind::Int64, Device::Cpu));
            group.broadcast(&[shared.shallow_clone()]).unwrap();
            assert_eq!(shared, Tensor::full([2, 2], 7, (Kind::Int64, Device::Cpu)));
            seen
        });
        assert_eq!(results[0], results[1]);
        for (step, (grads, raised)) in results[0].iter().enumerate() {
            let mean = 2.0 * 1.5 * (step + 1) as f32; // two passes, ranks with factors 1 and 2
            assert_eq!(grads[0], [mean; 3]);
            assert_eq!(grads[1], [2.0 * mean; 5]);
            assert_eq!(grads[2], [0.0; 2]);
            assert_eq!(grads[3], [4.0; 4]);
            assert_eq!(*raised, step == 2);
        }
    }
}
