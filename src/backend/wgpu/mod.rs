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
    use super::*;
    use crate::backend::Engine;
    use crate::checkpoint::Checkpoint;
    use crate::config::ModelConfig;
    use crate::error::ErrorKind;
    use crate::init::write_initial_model;

    #[test]
    fn a_lost_device_is_an_error_from_then_on() {
        if list().is_empty() {
            println!("skipped: needs a Vulkan device, or {}=1 and Mesa's lavapipe", device::ALLOW_CPU);
            return;
        }
        let config = ModelConfig::from_toml(
            "context_bytes = 16\nembedding_dim = 8\nd_model = 8\nn_heads = 2\nn_layers = 1\n\
             positions = \"rotary\"\n",
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_initial_model(&path, &config, 1).unwrap();
        let model = WgpuModel::load(&Checkpoint::open_copied(&path).unwrap(), 0).unwrap();
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
