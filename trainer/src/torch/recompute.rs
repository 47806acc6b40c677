//! Parts of a model that keep their input alone and are computed again in the backward pass: time for memory. Twin of
//! shim/recompute.cpp.

use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

use super::{adopt, check, ffi, pointer};

type Part = Box<dyn Fn(&Tensor) -> Tensor + Send>;

unsafe extern "C" {
    fn strndup(text: *const c_char, n: usize) -> *mut c_char;
}

/// Runs a part for the shim. A panic of `tch` comes back as a message, since nothing may unwind into C++.
extern "C" fn call(part: *mut c_void, x: ffi::TensorPtr, out: *mut ffi::TensorPtr) -> ffi::Message {
    // SAFETY: `part` is what `recompute` gave away, which lives until `free`; `x` is the caller's tensor, which is
    // looked at and not freed; `out` is a live place for one tensor.
    unsafe {
        let part = &*part.cast::<Part>();
        let x = ManuallyDrop::new(Tensor::from_ptr(x.cast()));
        match catch_unwind(AssertUnwindSafe(|| part(&x))) {
            Ok(y) => {
                *out = ManuallyDrop::new(y).as_ptr().cast_mut().cast();
                std::ptr::null_mut()
            }
            Err(payload) => {
                let error = super::error_of_panic(payload);
                let text = error.message().trim_start_matches("libtorch: ");
                strndup(text.as_ptr().cast(), text.len())
            }
        }
    }
}

extern "C" fn free(part: *mut c_void) {
    // SAFETY: what `recompute` gave away, given back once.
    drop(unsafe { Box::from_raw(part.cast::<Part>()) });
}

/// `part(x)`, of which the backward pass knows x alone and computes the rest again. The part must give the same every
/// time; `draws`: it draws random numbers, which will be the same too. Where x needs no gradient, nothing would ever
/// be computed again, so x must.
pub fn recompute(x: &Tensor, draws: bool, part: impl Fn(&Tensor) -> Tensor + Send + 'static) -> Tensor {
    assert!(x.requires_grad(), "a part to be computed again begins with something to learn");
    let part: Box<Part> = Box::new(Box::new(part));
    let mut out = std::ptr::null_mut();
    // SAFETY: a live tensor; the shim takes the part over, calls it in the forward and then in the backward pass, never
    // in two threads at once, and frees it once. On success `out` is a new tensor.
    let done = check(unsafe {
        ffi::grug_torch_recompute(pointer(x), Box::into_raw(part).cast(), call, free, draws as i32, &mut out)
    });
    match done {
        Ok(()) => adopt(out),
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tch::{Device, Kind};

    #[test]
    fn gradients_are_the_same_and_the_part_runs_twice() {
        let leaf = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (x, w) = (leaf(&[4, 6]), leaf(&[6, 6]));
        let calls = Arc::new(AtomicUsize::new(0));
        let part = |w: &Tensor, x: &Tensor| x.matmul(w).gelu("none").dropout(0.5, true);
        let grads = |again: bool| {
            tch::manual_seed(7);
            let y = if again {
                let (w, calls) = (w.shallow_clone(), calls.clone());
                recompute(&(&x * 2.0), true, move |x| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    part(&w, x)
                })
            } else {
                part(&w, &(&x * 2.0))
            };
            // Numbers drawn in between must not disturb what is drawn again.
            let noise = Tensor::rand([3], (Kind::Float, Device::Cpu));
            (y.square().sum(Kind::Float) * noise.sum(Kind::Float)).backward();
            let grads = [x.grad().copy(), w.grad().copy()];
            super::super::forget_gradients(&[x.shallow_clone(), w.shallow_clone()]).unwrap();
            (grads, Tensor::rand([2], (Kind::Float, Device::Cpu)))
        };
        assert_eq!(grads(true), grads(false));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_failure_in_the_part_is_an_error_of_libtorch() {
        let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let failed = catch_unwind(AssertUnwindSafe(|| recompute(&x, false, |x| x.view([7]))));
        let error = super::super::error_of_panic(failed.unwrap_err());
        assert!(error.message().contains("shape '[7]' is invalid"), "{error}");
    }
}
