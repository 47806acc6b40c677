//! Any text as a model's configuration: an error, or a value that survives being written and read.
#![no_main]

use grug::ModelConfig;
use grug::manifest::ModelTensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = ModelConfig::from_toml(text) {
        assert_eq!(ModelConfig::from_toml(&config.to_toml()).as_ref(), Ok(&config));
        assert!(ModelTensors::count_parameters(&config) > 0);
    }
});
