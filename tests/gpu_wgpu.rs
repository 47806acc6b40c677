//! The wgpu engine, on the first Vulkan device there is: also on one that the CPU emulates (Mesa's lavapipe, in Debian's
//! `mesa-vulkan-drivers`). Without any, these tests fail and say so.
#![cfg(feature = "wgpu")]

#[path = "gpu_suite/batch.rs"]
mod batch;
mod common;
#[path = "gpu_suite/decode.rs"]
mod decode;
mod gpu_suite;
#[cfg(feature = "import")]
mod pth;
#[path = "gpu_suite/random.rs"]
mod random;
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
            common::skip("refusing an emulated GPU needs a machine without a real one");
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

/// Set, it says that this program was started again with less memory.
#[cfg(target_os = "linux")]
const LIMITED: &str = "GRUG_TESTS_LIMITED_MEMORY";

/// Under a limit of the address space, which is a device's memory where the CPU emulates it.
#[cfg(target_os = "linux")]
#[test]
fn a_session_that_does_not_fit_is_an_error_and_others_go_on() {
    prepare();
    let devices = grug::device::devices();
    let ours = devices.iter().find(|device| device.name() == DEVICE).expect(NEEDS);
    if !ours.features.ends_with("cpu") {
        common::skip(format_args!(
            "filling a device's memory needs one that the CPU emulates; {} is none",
            ours.description
        ));
        return;
    }
    if std::env::var_os(LIMITED).is_none() {
        let program = std::env::current_exe().unwrap();
        let name = "a_session_that_does_not_fit_is_an_error_and_others_go_on";
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -v 4000000 && exec \"$0\" \"$@\""])
            .arg(program)
            .args(["--exact", name, "--nocapture"])
            .env(LIMITED, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    // 64 MiB of keys and values in each of 64 layers.
    let toml = "context_bytes = 131072\nembedding_dim = 64\nd_model = 64\nn_heads = 2\nn_layers = 64\n\
                ffn_multiplier = 1\npositions = \"rotary\"\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    common::write_random_model(&path, &grug::ModelConfig::from_toml(toml).unwrap(), 1);
    let options = grug::ModelOptions { device: DEVICE.into(), n_threads: 1, ..Default::default() };
    let model = grug::Model::load(&path, &options).unwrap();
    let error = grug::Session::new(&model, &grug::SessionOptions::default()).unwrap_err();
    assert_eq!(error.kind(), grug::ErrorKind::OutOfMemory, "{error}");
    // A smaller one fits, on the same device.
    let options = grug::SessionOptions { max_context: 64, ..Default::default() };
    let mut session = grug::Session::new(&model, &options).unwrap();
    session.feed(b"some bytes").unwrap();
    assert!(session.logits().unwrap().iter().all(|logit| logit.is_finite()));
}
