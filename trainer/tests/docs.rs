//! `docs/training.md` says what is true: every setting with its default, every preset, every published key.

use std::collections::{BTreeMap, BTreeSet};

use grug_trainer::config::published::{COUNTERPARTS, Counterpart};
use grug_trainer::config::{Objective, PRESETS, RunConfig};
use serde_json::Value;

/// A run with every optional table.
const BASE: &str = r#"
name = "t"
[training]
steps = 10
[model]
context_bytes = 32
embedding_dim = 16
d_model = 16
n_heads = 2
n_layers = 1
positions = "rotary"
[model.conv_frontend]
channels = [16]
kernels = [3]
[model.aggregated_stream]
d_model = 16
n_layers = 1
kernel = 4
stride = 4
"#;

fn guide() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/training.md")).unwrap()
}

/// The rows of the tables after this heading: (name in backquotes, last cell).
fn rows(text: &str, heading: &str) -> BTreeMap<String, String> {
    let (_, after) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = after.split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in section.lines() {
        let Some(rest) = line.strip_prefix("| `") else { continue };
        let (name, cells) = rest.split_once("` | ").unwrap();
        let last = cells.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(rows.insert(name.to_owned(), last.to_owned()).is_none(), "{name} is there twice");
    }
    rows
}

/// Names of all settings, `table.key`. Nothing may be at a default that is left out when written.
fn all_settings() -> BTreeSet<String> {
    let mut run = RunConfig::from_toml(BASE).unwrap().resolved();
    run.training.objective = Some(Objective::Every);
    run.training.epochs = Some(1);
    run.schedule.t_max = Some(1);
    run.data.on_device = Some(true);
    // Each of these is left out at its default.
    let model = &mut run.model;
    model.ffn_activation = grug::config::Activation::Relu;
    model.ffn_gamma = 1.0;
    model.max_positions = 1;
    model.pad_short_input = true;
    model.norm = grug::config::Norm::Rms;
    model.bias = false;
    model.qk_norm = true;
    model.n_kv_heads = 1;
    model.attention_window = 1;
    model.embedding_norm = true;
    model.tied_head = true;
    model.logit_softcap = 1.0;
    model.dropout.output = 0.5;
    let mut names = BTreeSet::new();
    let mut walk = vec![(String::new(), serde_json::to_value(&run).unwrap())];
    while let Some((prefix, value)) = walk.pop() {
        match value {
            Value::Object(table) => {
                let dot = if prefix.is_empty() { "" } else { "." };
                walk.extend(table.into_iter().map(|(key, value)| (format!("{prefix}{dot}{key}"), value)));
            }
            _ => drop(names.insert(prefix)),
        }
    }
    names
}

#[test]
fn every_setting_is_there_and_no_other() {
    let documented: BTreeSet<String> = rows(&guide(), "Every setting").into_keys().collect();
    assert_eq!(documented, all_settings());
}

#[test]
fn every_default_is_the_default() {
    let base = RunConfig::from_toml(BASE).unwrap();
    for (name, default) in rows(&guide(), "Every setting") {
        match default.as_str() {
            "unset" | "required" => {}
            value => {
                let set = format!("{name}={}", value.trim_matches('`'));
                let run = RunConfig::parse(BASE, std::slice::from_ref(&set))
                    .unwrap_or_else(|e| panic!("{set}: {e}"));
                assert_eq!(run, base, "{set}");
            }
        }
    }
}

#[test]
fn every_preset_is_there() {
    let documented = rows(&guide(), "Presets");
    let names: BTreeSet<String> = PRESETS.iter().map(|preset| preset.name.to_owned()).collect();
    assert_eq!(documented.into_keys().collect::<BTreeSet<_>>(), names);
}

#[test]
fn every_published_key_is_there_with_its_counterpart() {
    let documented = rows(&guide(), "Settings of the published project");
    assert_eq!(documented.len(), COUNTERPARTS.len());
    let settings = all_settings();
    for (key, counterpart) in COUNTERPARTS {
        let cell = documented[*key].replace('`', "");
        match counterpart {
            Counterpart::Setting(name) => {
                assert_eq!(cell, *name, "{key}");
                let name = name.split(' ').next().unwrap();
                let is_table = settings.iter().any(|setting| setting.starts_with(&format!("{name}.")));
                assert!(settings.contains(name) || is_table, "{key}: there is no setting {name}");
            }
            Counterpart::None(why) => assert_eq!(cell, format!("– {why}"), "{key}"),
        }
    }
}
