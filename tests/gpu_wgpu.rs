//! The wgpu engine, on the first Vulkan device there is: also on one that the CPU emulates (Mesa's lavapipe, in Debian's
//! `mesa-vulkan-drivers`). Without any, these tests fail and say so.
#![cfg(feature = "wgpu")]

mod common;
#[path = "gpu_suite/decode.rs"]
mod decode;
mod gpu_suite;
#[cfg(feature = "import")]
mod pth;
#[path = "gpu_suite/rest.rs"]
mod rest;

const DEVICE: &str = "wgpu:0";
const NEEDS: &str = "a Vulkan device, be it Mesa's lavapipe (Debian: mesa-vulkan-drivers)";

/// Lets an emulated device count.
fn prepare() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: every test calls this before anything else, and others wait here until it is done.
    ONCE.call_once(|| unsafe { std::env::set_var("GRUG_WGPU_ALLOW_CPU", "1") });
}

/// What `grug` says, with these variables set.
#[cfg(feature = "cli")]
fn grug(arguments: &[&str], variables: &[(&str, &str)]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_grug"))
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

#[cfg(feature = "cli")]
#[test]
fn without_a_driver_there_is_the_cpu_and_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let config = grug::ModelConfig::from_toml(common::CAUSAL_PLAIN).unwrap();
    common::write_random_model(&path, &config, 1);
    let allowed = ("GRUG_WGPU_ALLOW_CPU", "1");
    let no_driver = [("VK_DRIVER_FILES", "/nowhere.json"), ("VK_ICD_FILENAMES", "/nowhere.json"), allowed];
    let listed =
        |variables: &[(&str, &str)]| String::from_utf8(grug(&["devices"], variables).stdout).unwrap();
    assert!(listed(&[allowed]).contains("wgpu:0"));
    for variables in [&no_driver[..], &[("GRUG_WGPU_ALLOW_CPU", "0")]] {
        // A machine with a real GPU has that one still.
        if variables.len() == 1 && listed(variables).contains("wgpu:0") {
            println!("skipped: refusing an emulated GPU needs a machine without a real one");
            continue;
        }
        let text = listed(variables);
        assert!(text.starts_with("cpu ") && !text.contains("wgpu:0"), "{text}");
        let model = path.to_str().unwrap();
        let write = ["generate", model, "-n", "3", "--prompt", "a", "--device"];
        let output = grug(&[&write[..], &["wgpu:0"]].concat(), variables);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains("Vulkan"), "{error}");
        let output = grug(&[&write[..], &["auto"]].concat(), variables);
        assert!(output.status.success() && output.stdout.len() == 3);
    }
}

#[test]
fn a_context_too_long_for_a_device_is_an_error() {
    prepare();
    let toml = "context_bytes = 1048576\nembedding_dim = 64\nd_model = 64\nn_heads = 2\nn_layers = 1\n\
                positions = \"rotary\"\nattention_window = 8\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    common::write_random_model(&path, &grug::ModelConfig::from_toml(toml).unwrap(), 1);
    let options = grug::ModelOptions { device: DEVICE.into(), ..Default::default() };
    let error = grug::Model::load(&path, &options).unwrap_err();
    assert_eq!(error.kind(), grug::ErrorKind::Unsupported, "{error}");
    // Others go on.
    gpu_suite::models(common::CAUSAL_PLAIN, "F32");
}
