//! The presets that travel inside the program.

/// A configuration that is found by its name.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// The name to ask for.
    pub name: &'static str,
    /// The run's configuration, in TOML.
    pub toml: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(Preset { name: $name, toml: include_str!(concat!("../../configs/", $name, ".toml")) }),*]
    };
}

/// Every preset, the default one first.
pub const PRESETS: &[Preset] = presets![
    "shakespeare",
    "shakespeare-single",
    "shakespeare-conv",
    "shakespeare-parallel",
    "published-1",
    "published-2a",
    "published-2b",
    "published-3",
];

/// The preset of this name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

impl Preset {
    /// What it is, in one line: the first comment of its file.
    pub fn summary(&self) -> &'static str {
        self.toml.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }
}
