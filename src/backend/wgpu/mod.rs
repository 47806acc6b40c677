//! The portable GPU engine: Vulkan, Metal and DirectX 12 through wgpu, kernels in WGSL.
//!
//! Nothing here panics on a bad device: what wgpu reports through error scopes, lost devices and failed maps becomes an
//! [`ErrorKind::Device`](crate::ErrorKind::Device) that says so.

mod device;
mod executor;
mod model;

pub(crate) use device::list;
pub(crate) use model::WgpuModel;

#[cfg(test)]
mod tests {
    use super::executor::WgpuExecutor;
    use super::*;
    use crate::backend::Engine;
    use crate::backend::gpu::{Executor, Plan, state};
    use crate::checkpoint::Checkpoint;
    use crate::config::ModelConfig;
    use crate::error::ErrorKind;
    use crate::init::write_initial_model;

    /// A small model on the first device; `None`, and a line that says so, where there is none.
    fn small_model() -> Option<std::sync::Arc<WgpuModel>> {
        if list().is_empty() {
            let why =
                format!("skipped: needs a Vulkan device, or {}=1 and Mesa's lavapipe\n", device::ALLOW_CPU);
            // Seen without --show-output.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes());
            return None;
        }
        let config = ModelConfig::from_toml(
            "context_bytes = 16\nembedding_dim = 8\nd_model = 8\nn_heads = 2\nn_layers = 1\n\
             positions = \"rotary\"\n",
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_initial_model(&path, &config, 1).unwrap();
        Some(WgpuModel::load(&Checkpoint::open_copied(&path).unwrap(), 0).unwrap())
    }

    #[test]
    fn a_read_that_failed_does_not_spoil_the_next() {
        let Some(model) = small_model() else { return };
        let plan = Plan::new(model.parts(), 16).unwrap();
        let mut executor = WgpuExecutor::new(&model, &plan).unwrap();
        executor.write_state(state::DRAWS, &[7]).unwrap();
        for _ in 0..2 {
            let mut words = [0];
            // More than the buffer has, and more than can be brought over.
            let error = executor.read_state(&mut [(1 << 20, &mut words)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Device);
            let error = executor.read_state(&mut [(0, &mut vec![0; 1 << 20])]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Device);
            executor.read_state(&mut [(state::DRAWS, &mut words)]).unwrap();
            assert_eq!(words, [7]);
        }
    }

    #[test]
    fn a_lost_device_is_an_error_from_then_on() {
        let Some(model) = small_model() else { return };
        let mut engine = model.new_engine(16, false).unwrap();
        let mut work = |context: &[u8], new| {
            engine.feed(context, new, None)?;
            engine.logits(context, None).copied()
        };
        work(b"abc", 3).unwrap();
        model.gpu.device.destroy();
        for _ in 0..2 {
            assert_eq!(work(b"abcd", 1).unwrap_err().kind(), ErrorKind::Device);
        }
        assert_eq!(model.new_engine(16, false).err().map(|e| e.kind()), Some(ErrorKind::Device));
    }
}
