//! `grug devices`: what this machine has to compute with.

use clap::Args;
use grug::device::devices;

use crate::output::{Outcome, one_line, print};

/// List the devices that models can run on, by the names that --device takes.
#[derive(Args)]
pub struct Arguments {
    /// As a JSON list.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let devices = devices();
    if arguments.json {
        let list: Vec<_> = devices
            .iter()
            .map(|device| {
                serde_json::json!({
                    "name": device.name(),
                    "description": device.description,
                    "features": device.features,
                    "memory_total": device.memory_total,
                    "memory_free": device.memory_free,
                })
            })
            .collect();
        return print(format!("{}\n", serde_json::Value::from(list)).as_bytes());
    }
    let mut text = String::new();
    for device in &devices {
        text += &format!("{:8} {}", device.name(), one_line(&device.description));
        if !device.features.is_empty() {
            text += &format!(" ({})", one_line(&device.features));
        }
        if device.memory_total > 0 {
            text += &format!(", {} MiB", device.memory_total >> 20);
        }
        text.push('\n');
    }
    for (built, feature) in [(cfg!(feature = "cuda"), "cuda"), (cfg!(feature = "wgpu"), "wgpu")] {
        if !built {
            text += &format!("{feature:8} not in this build (Cargo feature {feature:?})\n");
        }
    }
    print(text.as_bytes())
}
