//! Random sequences of calls.

mod c_calls;
mod calls;
mod common;

use common::{BIDIRECTIONAL_PADDED, CAUSAL_MODERN, CAUSAL_PARALLEL, CAUSAL_PLAIN, write_random_model};
use grug::checkpoint::Checkpoint;
use grug::{Model, ModelConfig, ModelOptions};
use proptest::prelude::*;

fn portable_model(toml: &str) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_random_model(&path, &ModelConfig::from_toml(toml).unwrap(), 1);
    let options = ModelOptions { n_threads: 1, portable: true, ..Default::default() };
    Model::from_checkpoint(Checkpoint::open_copied(&path).unwrap(), &options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_calls_in_any_order_mean_what_they_say(data in prop::collection::vec(any::<u8>(), 0..400)) {
        thread_local!(static MODELS: [Model; 4] =
            [CAUSAL_PLAIN, CAUSAL_MODERN, CAUSAL_PARALLEL, BIDIRECTIONAL_PADDED].map(portable_model));
        MODELS.with(|models| calls::run(&models[data.len() % 4], &data));
    }
    #[test]
    fn any_calls_of_the_c_functions_keep_what_the_header_promises(data in prop::collection::vec(any::<u8>(), 0..600)) {
        c_calls::run(&data);
    }
}
