//! Operations over a list of tensors in one call: one kernel for all of them on a GPU, and one crossing of the border
//! on the CPU. None of them waits for the device.

use grug::error::Result;
use tch::Tensor;

use super::{adopt, check, ffi, pointer, pointers};

/// Numbers of one Adam step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamSettings {
    /// AdamW: the weight decay shrinks the weights. Adam: it is added to the gradient.
    pub decoupled: bool,
    /// The learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients and of their squares.
    pub betas: (f64, f64),
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// One step of Adam or AdamW, as PyTorch defines them, in place. `step` is an f32 scalar on the tensors' device that
/// counts the steps, this one included. Where `found_inf`, an f32 scalar, is not 0, nothing changes.
pub fn adam(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    step: &Tensor,
    settings: &AdamSettings,
    found_inf: Option<&Tensor>,
) -> Result<()> {
    assert!(
        params.len() == grads.len() && params.len() == exp_avgs.len() && params.len() == exp_avg_sqs.len()
    );
    if params.is_empty() {
        return Ok(());
    }
    let (p, g, m, v) = (pointers(params), pointers(grads), pointers(exp_avgs), pointers(exp_avg_sqs));
    // SAFETY: four arrays of `n` tensors that live through the call; `found_inf` may be NULL.
    check(unsafe {
        ffi::grug_torch_adam(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            params.len(),
            pointer(step),
            settings.decoupled as i32,
            settings.lr,
            settings.betas.0,
            settings.betas.1,
            settings.weight_decay,
            settings.eps,
            found_inf.map_or(std::ptr::null_mut(), pointer),
        )
    })
}

/// The Euclidean norm over all tensors together, a scalar on their device.
pub fn norm(tensors: &[Tensor]) -> Result<Tensor> {
    let list = pointers(tensors);
    let mut out = std::ptr::null_mut();
    // SAFETY: an array of live tensors; on success `out` is a new tensor.
    check(unsafe { ffi::grug_torch_norm(list.as_ptr(), list.len(), &mut out) })?;
    Ok(adopt(out))
}

/// Multiplies all tensors by min(1, max_norm / (norm + 1e-6)).
pub fn clip(tensors: &[Tensor], norm: &Tensor, max_norm: f64) -> Result<()> {
    let list = pointers(tensors);
    // SAFETY: live tensors.
    check(unsafe { ffi::grug_torch_clip(list.as_ptr(), list.len(), pointer(norm), max_norm) })
}

/// Multiplies all tensors by a factor.
pub fn scale(tensors: &[Tensor], factor: f64) -> Result<()> {
    let list = pointers(tensors);
    // SAFETY: live tensors.
    check(unsafe { ffi::grug_torch_scale(list.as_ptr(), list.len(), factor) })
}

/// Adds to each tensor of `to` its partner in `from`.
pub fn add(to: &[Tensor], from: &[Tensor]) -> Result<()> {
    assert_eq!(to.len(), from.len());
    let (to, from) = (pointers(to), pointers(from));
    // SAFETY: two arrays of `n` live tensors.
    check(unsafe { ffi::grug_torch_add(to.as_ptr(), from.as_ptr(), to.len()) })
}

/// Moves each tensor of `to` towards its partner in `from` by this part of the way.
pub fn lerp(to: &[Tensor], from: &[Tensor], weight: f64) -> Result<()> {
    assert_eq!(to.len(), from.len());
    let (to, from) = (pointers(to), pointers(from));
    // SAFETY: two arrays of `n` live tensors.
    check(unsafe { ffi::grug_torch_lerp(to.as_ptr(), from.as_ptr(), to.len(), weight) })
}

/// Multiplies the gradients by `inverse_scale` and sets `found_inf` to 1 where one is not finite; both are f32
/// scalars on the device.
pub fn unscale(grads: &[Tensor], found_inf: &Tensor, inverse_scale: &Tensor) -> Result<()> {
    let list = pointers(grads);
    // SAFETY: live tensors.
    check(unsafe {
        ffi::grug_torch_unscale(list.as_ptr(), list.len(), pointer(found_inf), pointer(inverse_scale))
    })
}

/// PyTorch's rule for the loss scale: shrink after a step that overflowed, grow after `interval` good ones. `scale`
/// is f32, `growth_tracker` i32.
pub fn update_scale(
    scale: &Tensor,
    growth_tracker: &Tensor,
    found_inf: &Tensor,
    growth: f64,
    backoff: f64,
    interval: i64,
) -> Result<()> {
    // SAFETY: live tensors.
    check(unsafe {
        ffi::grug_torch_update_scale(
            pointer(scale),
            pointer(growth_tracker),
            pointer(found_inf),
            growth,
            backoff,
            interval,
        )
    })
}

/// Drops the gradients, so that the next backward pass writes instead of adding.
pub fn forget_gradients(params: &[Tensor]) -> Result<()> {
    let list = pointers(params);
    // SAFETY: live tensors.
    check(unsafe { ffi::grug_torch_forget_gradients(list.as_ptr(), list.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn norm_and_clip_over_a_list() {
        let tensors = [Tensor::from_slice(&[3f32, 0.0]), Tensor::from_slice(&[4f32])];
        let length = norm(&tensors).unwrap();
        assert_eq!(length.double_value(&[]), 5.0);
        clip(&tensors, &length, 1.0).unwrap();
        assert!((norm(&tensors).unwrap().double_value(&[]) - 1.0).abs() < 1e-5);
        clip(&tensors, &norm(&tensors).unwrap(), 10.0).unwrap();
        assert!((tensors[1].double_value(&[0]) - 0.8).abs() < 1e-5, "a short gradient is left alone");
    }

    #[test]
    fn an_exception_of_libtorch_is_an_error() {
        let (a, b) = ([Tensor::from_slice(&[1f32, 2.0])], [Tensor::from_slice(&[1f32, 2.0, 3.0])]);
        let error = lerp(&a, &b, 0.5).unwrap_err();
        assert!(error.message().starts_with("libtorch: "), "{error}");
        assert!(!error.message().contains("Exception raised"), "{error}");
    }

    #[test]
    fn the_loss_scale_backs_off_and_grows() {
        let scale = Tensor::from(8f32);
        let tracker = Tensor::zeros([], (Kind::Int, tch::Device::Cpu));
        let (fine, inf) = (Tensor::from(0f32), Tensor::from(1f32));
        let step = |found: &Tensor| {
            update_scale(&scale, &tracker, found, 2.0, 0.5, 2).unwrap();
            scale.double_value(&[])
        };
        assert_eq!(
            [step(&inf), step(&fine), step(&fine), step(&fine), step(&inf)],
            [4.0, 4.0, 8.0, 8.0, 4.0]
        );
    }
}
