//! Every published key does what the table says.

use serde_json::{Value, json};

use super::*;
use crate::config::preset;

/// A run to change keys of, in which as many keys as possible count.
fn rich(generation: Generation, parallel: bool) -> PublishedConfig {
    let mut config = PublishedConfig::defaults(generation);
    config.use_cnn_frontend = true;
    config.use_parallel_stream_model = parallel;
    config.use_curved_ffn = true;
    config.ffn_gamma = Some(0.5);
    config
}

/// Another valid value of the same kind.
fn changed(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("optimizer_type", _) => "Adam".into(),
        ("scheduler_type", Value::String(s)) if s == "CosineAnnealingLR" => "ReduceLROnPlateau".into(),
        ("scheduler_type", _) => "CosineAnnealingLR".into(),
        ("cnn_padding_mode", _) => "reflect".into(),
        ("cnn_activation", _) => "RELU".into(),
        ("cnn_out_channels_list", _) => json!([64, 128]),
        ("cnn_kernel_sizes", _) => json!([5, 5]),
        ("attention_num_heads", _) => 4.into(),
        ("vocab_size", _) => value.clone(),
        ("model_name" | "resume_from_checkpoint", _) => "other".into(),
        (_, Value::Bool(b)) => (!b).into(),
        (_, Value::Number(n)) => match n.as_u64() {
            Some(0) => 2.into(),
            Some(n) => (2 * n).into(),
            None => (n.as_f64().unwrap() / 2.0).into(),
        },
        (_, Value::String(s)) => format!("{s}2").into(),
        (_, other) => panic!("{key} = {other}"),
    }
}

#[test]
fn the_table_has_every_key_once() {
    let keys: Vec<&str> = COUNTERPARTS.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, PublishedConfig::KEYS);
}

#[test]
fn a_key_changes_the_run_exactly_where_it_has_a_counterpart() {
    let bases =
        [rich(Generation::Learned, false), rich(Generation::Later, false), rich(Generation::Later, true)];
    for (key, counterpart) in COUNTERPARTS {
        let mut changes = 0;
        for base in &bases {
            let mut other = base.clone();
            other.set(key, &changed(key, &base.to_map()[*key])).unwrap();
            let before = from_published(base).unwrap().run;
            let after = from_published(&other).unwrap_or_else(|e| panic!("{key}: {e}")).run;
            changes += usize::from(before != after);
            if before == after {
                continue;
            }
            // The tables that differ are those that the counterpart names.
            let To(settings) = counterpart else { panic!("{key} has no counterpart, but changes the run") };
            let table = |run: &RunConfig| serde_json::to_value(run).unwrap();
            let (before, after) = (table(&before), table(&after));
            for (name, value) in after.as_object().unwrap() {
                assert!(
                    before[name] == *value || settings.split('.').next() == Some(name),
                    "{key} changes {name}, not {settings}"
                );
            }
        }
        assert_eq!(changes > 0, matches!(counterpart, To(_)), "{key}");
    }
}

#[test]
fn the_published_presets_are_the_published_defaults() {
    for (name, generation, parallel) in [
        ("published-1", Generation::Learned, false),
        ("published-2a", Generation::Sinusoidal, false),
        ("published-2b", Generation::Later, false),
        ("published-3", Generation::Later, true),
    ] {
        let mut config = PublishedConfig::defaults(generation);
        config.use_parallel_stream_model = parallel;
        config.model_name = Some(name.into());
        let run = RunConfig::from_toml(preset(name).unwrap().toml).unwrap();
        assert_eq!(run, from_published(&config).unwrap().run, "{name}");
    }
}

#[test]
fn what_is_left_out_is_said() {
    let mut config = PublishedConfig::defaults(Generation::Later);
    config.num_workers = 4;
    config.set("my_own_key", &json!([1, 2])).unwrap();
    let imported = from_published(&config).unwrap();
    let text = imported.to_toml();
    for part in ["# num_workers = 4 has no counterpart", "# my_own_key = [1,2]", "legacy_split"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("vocab_size"));
    assert_eq!(RunConfig::from_toml(&text).unwrap(), imported.run);
    config.optimizer_type = "SGD".into();
    assert!(from_published(&config).unwrap_err().message().contains("optimizer_type"));
}

#[test]
fn a_json_file_is_read_and_a_broken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let config = PublishedConfig::defaults(Generation::Later);
    std::fs::write(&path, config.to_json()).unwrap();
    assert_eq!(import(&path).unwrap().run, from_published(&config).unwrap().run);
    std::fs::write(&path, "{\"batch_size\": -1}").unwrap();
    let error = import(&path).unwrap_err();
    assert!(error.message().contains("config.json") && error.message().contains("batch_size"), "{error}");
    assert!(import(&dir.path().join("none.pth")).unwrap_err().message().contains("none.pth"));
}

/// The checkpoints that the published trainer saved; their `_` keys are not the project's.
#[test]
fn published_checkpoints_become_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/published");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap().path();
        let Some(name) = entry.file_name().and_then(|name| name.to_str()).filter(|_| entry.is_dir()) else {
            continue;
        };
        let imported = import(&entry.join(format!("{name}_best.pth"))).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(imported.run.name, name);
        assert_eq!(RunConfig::from_toml(&imported.to_toml()).unwrap(), imported.run);
        let config: Value =
            serde_json::from_slice(&std::fs::read(entry.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["sequence_length"], imported.run.model.context_bytes);
        assert_eq!(config["learning_rate"], imported.run.optimizer.learning_rate);
        assert_eq!(config["num_epochs"], imported.run.training.epochs.unwrap());
        seen += 1;
    }
    assert_eq!(seen, 7);
}
