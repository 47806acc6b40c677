//! Nonlinearities, elementwise.

use crate::config::Activation;

/// Exact GELU: x·Φ(x).
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// Applies a nonlinearity to each row of `x`, (rows, width), in place, and returns the width of the result: the same
/// width, or for SwiGLU half of it. Then the results are packed: the first `rows · width / 2` numbers of `x`.
pub(crate) fn activate(kind: Activation, x: &mut [f32], width: usize) -> usize {
    match kind {
        Activation::Gelu => x.iter_mut().for_each(|v| *v = gelu(*v)),
        Activation::Relu => x.iter_mut().for_each(|v| *v = v.max(0.0)),
        Activation::Relu2 => x.iter_mut().for_each(|v| {
            let positive = v.max(0.0);
            *v = positive * positive;
        }),
        Activation::Swiglu => {
            let half = width / 2;
            for row in 0..x.len() / width {
                for i in 0..half {
                    x[row * half + i] = silu(x[row * width + i]) * x[row * width + half + i];
                }
            }
            return half;
        }
    }
    width
}

/// The published curved GELU on each row of `x`, (rows, width): `gelu(h / (1 + γ·e))` with `e = ½·Σ h²` of the row.
pub(crate) fn curved_gelu(gamma: f32, x: &mut [f32], width: usize) {
    for row in x.chunks_exact_mut(width) {
        let energy = 0.5 * row.iter().map(|v| v * v).sum::<f32>();
        let scale = 1.0 + gamma * energy;
        row.iter_mut().for_each(|v| *v = gelu(*v / scale));
    }
}

/// c·tanh(x / c) on every number.
pub(crate) fn softcap(cap: f32, x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = cap * (*v / cap).tanh());
}
