//! Any text as a published configuration: an error, or a value that survives being written and read.
#![no_main]

use grug::import::PublishedConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = PublishedConfig::from_json(text) {
        let map = serde_json::from_str(&config.to_json()).expect("what we write is JSON");
        assert_eq!(PublishedConfig::from_map(&map, Some(config.generation)).as_ref(), Ok(&config));
        if let Ok(model) = config.to_model_config() {
            model.validate().expect("a configuration that was made is valid");
        }
    }
});
