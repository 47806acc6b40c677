//! Operators that the shim fuses for the CPU, forward and backward: one pass over memory where libtorch makes many.
//! Each gives `None` for tensors that it is not made for (another device, another kind); the caller has the plain
//! operators for those.

use grug::error::Result;
use tch::{Device, Kind, Tensor};

use super::{adopt, check, ffi, pointer};

fn fits(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float
}

/// A new tensor, or the panic with which `tch` answers a failure of libtorch.
fn expect(result: Result<Tensor>) -> Tensor {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// RMSNorm over the last dimension with a gain, (width).
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Option<Tensor> {
    if !fits(x) || !fits(weight) {
        return None;
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: f32 tensors on the CPU; on success `out` is a new tensor.
    let done = check(unsafe { ffi::grug_torch_rms_norm(pointer(x), pointer(weight), eps, &mut out) });
    Some(expect(done.map(|()| adopt(out))))
}

/// max(x, 0)².
pub fn relu2(x: &Tensor) -> Option<Tensor> {
    if !fits(x) {
        return None;
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: an f32 tensor on the CPU; on success `out` is a new tensor.
    let done = check(unsafe { ffi::grug_torch_relu2(pointer(x), &mut out) });
    Some(expect(done.map(|()| adopt(out))))
}

/// What becomes of queries and keys on the way.
#[derive(Debug, Clone, Copy)]
pub struct HeadSplit<'a> {
    /// Query heads.
    pub heads: i64,
    /// Heads of keys and of values.
    pub kv_heads: i64,
    /// Bring queries and keys to unit mean square, with this added to it.
    pub normalize: Option<f64>,
    /// Cosines and sines to turn them by, each (at least length, width / 2), contiguous.
    pub angles: Option<(&'a Tensor, &'a Tensor)>,
}

/// Splits packed projections, (batch, length, (heads + 2·kv_heads)·width), into queries, keys and values, each
/// (batch, heads or kv_heads, length, width).
pub fn split_heads(packed: &Tensor, split: &HeadSplit<'_>) -> Option<[Tensor; 3]> {
    if !fits(packed) {
        return None;
    }
    let (_, length, packed_width) = packed.size3().ok()?;
    let width = packed_width / (split.heads + 2 * split.kv_heads);
    if let Some((cos, sin)) = split.angles {
        let long_enough = |table: &Tensor| {
            fits(table) && table.size2().is_ok_and(|(rows, half)| rows >= length && half == width / 2)
        };
        assert!(long_enough(cos) && long_enough(sin), "rotary tables that fit the heads");
    }
    let table = |table: Option<&Tensor>| table.map_or(std::ptr::null_mut(), pointer);
    let mut out = [std::ptr::null_mut(); 3];
    // SAFETY: f32 tensors on the CPU, and tables that reach as far as the positions; on success `out` holds three new
    // tensors.
    let done = check(unsafe {
        ffi::grug_torch_split_heads(
            pointer(packed),
            table(split.angles.map(|(cos, _)| cos)),
            table(split.angles.map(|(_, sin)| sin)),
            split.heads,
            split.kv_heads,
            split.normalize.is_some() as i32,
            split.normalize.unwrap_or_default(),
            out.as_mut_ptr(),
        )
    });
    if let Err(error) = done {
        panic!("{error}");
    }
    Some(out.map(adopt))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares values and gradients of two ways to compute something from the same leaves.
    fn same(leaves: &[Tensor], fused: impl Fn() -> Vec<Tensor>, plain: impl Fn() -> Vec<Tensor>) {
        let run = |outputs: Vec<Tensor>| {
            // Every output number gets another weight, so that no mistake cancels out.
            let sum: Tensor = outputs
                .iter()
                .map(|y| {
                    (y * Tensor::arange(y.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(y))
                        .sum(None)
                })
                .sum();
            let grads = Tensor::run_backward(&[sum], leaves, false, false);
            outputs.into_iter().chain(grads).collect::<Vec<_>>()
        };
        for (ours, theirs) in run(fused()).iter().zip(run(plain())) {
            let (difference, scale) = ((ours - &theirs).abs().max(), theirs.abs().max());
            assert!(
                difference.double_value(&[]) <= 2e-6 * scale.double_value(&[]).max(1.0),
                "{difference:?}"
            );
        }
    }

    fn leaf(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    #[test]
    fn rms_norm_and_relu2_are_their_definitions() {
        for width in [1, 3, 8, 31, 128] {
            let (x, w) = (leaf(&[5, 7, width]), leaf(&[width]));
            let leaves = [x.shallow_clone(), w.shallow_clone()];
            same(
                &leaves,
                || vec![rms_norm(&x, &w, 1e-5).unwrap()],
                || vec![&x * (x.square().mean_dim(-1, true, None) + 1e-5).rsqrt() * &w],
            );
            same(&leaves[..1], || vec![relu2(&x).unwrap()], || vec![x.relu().square()]);
        }
        let half = leaf(&[2, 4]).to_kind(Kind::BFloat16);
        assert!(relu2(&half).is_none());
    }

    #[test]
    fn split_heads_is_its_definition() {
        for (heads, kv_heads, width, length) in [(4, 4, 8, 9), (4, 2, 6, 5), (2, 1, 2, 1), (1, 1, 32, 33)] {
            let packed = leaf(&[3, length, (heads + 2 * kv_heads) * width]);
            let angles = Tensor::randn([length + 2, width / 2], (Kind::Float, Device::Cpu));
            let (cos, sin) = (angles.cos(), angles.sin());
            for (normalize, turned) in [(None, true), (Some(1e-5), true), (Some(1e-3), false), (None, false)]
            {
                let split = HeadSplit { heads, kv_heads, normalize, angles: turned.then_some((&cos, &sin)) };
                let plain = || {
                    let all = packed.view([3, length, heads + 2 * kv_heads, width]).transpose(1, 2);
                    let mut qk = all.narrow(1, 0, heads + kv_heads);
                    if let Some(eps) = normalize {
                        qk = &qk * (qk.square().mean_dim(-1, true, None) + eps).rsqrt();
                    }
                    if turned {
                        let (c, s) = (cos.narrow(0, 0, length), sin.narrow(0, 0, length));
                        let halves = qk.chunk(2, -1);
                        let (a, b) = (&halves[0], &halves[1]);
                        qk = Tensor::cat(&[a * &c - b * &s, a * &s + b * &c], -1);
                    }
                    vec![
                        qk.narrow(1, 0, heads),
                        qk.narrow(1, heads, kv_heads),
                        all.narrow(1, heads + kv_heads, kv_heads),
                    ]
                };
                let leaves = [packed.shallow_clone()];
                same(&leaves, || split_heads(&packed, &split).unwrap().into(), plain);
            }
        }
    }
}
