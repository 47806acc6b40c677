//! From a file or a preset's name, and `--set` overrides, to a configuration.

use std::path::Path;

use grug::error::{Error, Result};
use toml::{Table, Value};

use super::{PRESETS, RunConfig, preset};

impl RunConfig {
    /// Reads a configuration file, or the preset of that name where there is no such file, applies overrides of the
    /// form `training.steps=100`, and validates the result.
    pub fn load(file_or_preset: &str, overrides: &[String]) -> Result<RunConfig> {
        let path = Path::new(file_or_preset);
        if path.is_file() {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io("reading", path, e))?;
            return RunConfig::parse(&text, overrides).map_err(|e| e.in_file(path));
        }
        match preset(file_or_preset) {
            Some(preset) => {
                RunConfig::parse(preset.toml, overrides).map_err(|e| e.at(format!("preset {}", preset.name)))
            }
            None => {
                let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
                Err(Error::invalid(format!(
                    "{file_or_preset}: neither a file nor a preset{}; the presets are {}",
                    suggestion(file_or_preset, names.iter().copied()),
                    names.join(", ")
                )))
            }
        }
    }

    /// Reads and validates a configuration from TOML text.
    pub fn from_toml(text: &str) -> Result<RunConfig> {
        RunConfig::parse(text, &[])
    }

    /// Reads TOML text, applies overrides, validates.
    pub fn parse(text: &str, overrides: &[String]) -> Result<RunConfig> {
        // Without overrides the text itself is read, so that an error points at its line.
        let parsed = if overrides.is_empty() {
            toml::from_str::<RunConfig>(text)
        } else {
            let mut table: Table = toml::from_str(text).map_err(|e| explain(&e))?;
            for text in overrides {
                apply(&mut table, text)?;
            }
            table.try_into()
        };
        let run = parsed.map_err(|e| explain(&e))?;
        run.validate()?;
        Ok(run)
    }

    /// The configuration as TOML text, which [`from_toml`](Self::from_toml) reads back to an equal value.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration has only numbers, words, lists and tables of them")
    }
}

/// Sets one value: `a.b=c`, where c is TOML, or a word that needs no quotes.
fn apply(table: &mut Table, text: &str) -> Result<()> {
    let bad = |why: &str| Error::invalid(format!("--set {text}: {why}"));
    let (key, value) =
        text.split_once('=').ok_or_else(|| bad("expected KEY=VALUE, such as training.steps=100"))?;
    let value = value.trim();
    let value = match toml::from_str::<Table>(&format!("value = {value}")) {
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value").expect("the only key"),
        Ok(_) | Err(_) => Value::String(value.to_owned()),
    };
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().expect("split gives one part at least");
    if last.is_empty() || parts.iter().any(|part| part.is_empty()) {
        return Err(bad("a part of the key is empty"));
    }
    let mut table = table;
    for part in parts {
        let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| bad(&format!("{part} is a value and has no keys")))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

/// The parser's message, with the nearest known key where a key is unknown.
fn explain(error: &toml::de::Error) -> Error {
    let shown = error.to_string();
    let shown = shown.trim_end();
    // serde says: unknown field `x`, expected one of `a`, `b` (or: expected `a` or `b`).
    let message = error.message();
    let mut names = message.split('`').skip(1).step_by(2);
    let hint = match names.next() {
        Some(unknown) if message.starts_with("unknown field") || message.starts_with("unknown variant") => {
            suggestion(unknown, names)
        }
        Some(_) | None => String::new(),
    };
    Error::format(format!("{shown}{hint}"))
}

/// " (did you mean …?)" where a known name is near.
fn suggestion<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.75);
    nearest.map_or_else(String::new, |(_, name)| format!(" (did you mean \"{name}\"?)"))
}
