//! What a run will be, before it starts: the answer to `--dry-run`.

use std::fmt;

use grug::config::{Activation, ModelConfig, VOCAB};
use grug::error::Result;
use grug::manifest::{ModelTensors, Role, TensorSpec};

use super::{Table, flops::forward_flops, units};
use crate::config::{Objective, OptimizerKind, Precision, RunConfig, TrainingConfig};

/// Parameters by part, operations, memory and the size of the work.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name and parameters of each part of the model.
    pub parts: Vec<(String, u64)>,
    /// Parameters in all.
    pub parameters: u64,
    /// Operations to train on one window, forward and backward.
    pub flops_per_window: f64,
    /// Bytes of input in a window.
    pub window_bytes: u64,
    /// Windows of a step, over all ranks.
    pub batch_size: u64,
    /// Steps to train.
    pub total_steps: u64,
    /// Windows that one epoch has.
    pub windows_per_epoch: u64,
    /// Targets of a window.
    pub targets_per_window: u64,
    /// Memory of the weights, in bytes, on each rank.
    pub weight_bytes: u64,
    /// Memory of the average of the weights; 0 without one.
    pub average_bytes: u64,
    /// Memory of the gradients.
    pub gradient_bytes: u64,
    /// Memory of the optimizer's state.
    pub optimizer_bytes: u64,
    /// Estimated memory of what the forward pass keeps for the backward pass.
    pub activation_bytes: u64,
}

impl Plan {
    /// The plan of a run of `total_steps` steps over epochs of `windows_per_epoch` windows on `world_size` ranks.
    pub fn new(run: &RunConfig, total_steps: u64, windows_per_epoch: u64, world_size: usize) -> Result<Plan> {
        let model = &run.model;
        let objective = run.objective();
        let window_bytes = run.window_bytes();
        let specs = ModelTensors::specs(model).into_leaves();
        let count = |keep: &dyn Fn(&TensorSpec) -> bool| -> u64 {
            specs.iter().filter(|spec| keep(spec)).map(|spec| spec.len() as u64).sum()
        };
        let parameters = count(&|_| true);
        let mut parts: Vec<(String, u64)> = Vec::new();
        for spec in &specs {
            let name = part_of(&spec.name);
            match parts.iter_mut().find(|part| part.0 == name) {
                Some(part) => part.1 += spec.len() as u64,
                None => parts.push((name.to_owned(), spec.len() as u64)),
            }
        }
        let state_numbers = match run.optimizer.kind {
            OptimizerKind::Adam | OptimizerKind::Adamw => 2 * parameters,
            // Muon keeps one number for each of a matrix, Adam two for each of the rest.
            OptimizerKind::Muon => 2 * parameters - count(&|spec| spec.role == Role::Matrix),
        };
        let local_windows = run.micro_batch().div_ceil(world_size.max(1));
        let positions = model.check_input_len(window_bytes)?;
        Ok(Plan {
            parts,
            parameters,
            flops_per_window: 3.0 * forward_flops(model, objective, window_bytes)?,
            window_bytes: window_bytes as u64,
            batch_size: run.training.batch_size as u64,
            total_steps,
            windows_per_epoch,
            targets_per_window: match objective {
                Objective::Every => window_bytes as u64,
                Objective::Last => 1,
            },
            weight_bytes: 4 * parameters,
            average_bytes: if run.training.ema_decay > 0.0 { 4 * parameters } else { 0 },
            gradient_bytes: 4 * parameters,
            optimizer_bytes: 4 * state_numbers,
            activation_bytes: activation_bytes(model, objective, &run.training, positions)?
                * local_windows as u64,
        })
    }

    /// Operations to train on one byte of input.
    pub fn flops_per_byte(&self) -> f64 {
        self.flops_per_window / self.window_bytes as f64
    }

    /// Bytes of input that the whole run goes through.
    pub fn total_bytes(&self) -> u64 {
        self.total_steps.saturating_mul(self.batch_size).saturating_mul(self.window_bytes)
    }

    /// Operations of the whole run.
    pub fn total_flops(&self) -> f64 {
        self.total_steps as f64 * self.batch_size as f64 * self.flops_per_window
    }

    /// Memory of everything on one rank, as estimated.
    pub fn memory_bytes(&self) -> u64 {
        self.weight_bytes
            + self.average_bytes
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.activation_bytes
    }
}

/// The part of the model that a tensor belongs to, for a person.
fn part_of(name: &str) -> &str {
    let (first, _) = name.split_once('.').unwrap_or((name, ""));
    match first {
        "embedding" => "embedding",
        "cnn_frontend" => "convolutional frontend",
        "input_projection" | "byte_stream_projection" => "projection",
        "positional_encoder" | "byte_positional_encoder" | "agg_positional_encoder" => "positions",
        "transformer_encoder_layers" | "byte_stream_encoder" => "blocks",
        "aggregator_cnn" | "agg_stream_start" => "aggregator",
        "agg_stream_encoder" => "blocks of the aggregated stream",
        "final_norm" | "embedding_norm" => "norms around the blocks",
        "fc_out" => "output layer",
        other => other,
    }
}

/// Roughly what the forward pass over one window keeps for the backward pass, in bytes. Attention is taken to be one
/// fused operation that keeps no square of positions.
fn activation_bytes(
    model: &ModelConfig,
    objective: Objective,
    training: &TrainingConfig,
    positions: usize,
) -> Result<u64> {
    let number = match training.precision {
        Precision::F32 => 4,
        Precision::Bf16 | Precision::F16 => 2,
    };
    let block = |width: usize| {
        let kv = width / model.n_heads * model.kv_heads();
        let hidden = width * model.ffn_multiplier;
        // Two norms (in and out), queries, attention, both branches; twice the queries and keys where they change.
        let turned = if model.qk_norm { 2 * (width + kv) } else { 0 };
        let feed_forward = match model.ffn_activation {
            Activation::Gelu | Activation::Relu => 2 * hidden,
            Activation::Relu2 => 3 * hidden,
            Activation::Swiglu => 4 * hidden,
        };
        8 * width + 2 * kv + turned + feed_forward
    };
    // Blocks that are computed again keep their inputs, and one of them at a time all the rest.
    let blocks = |n: usize, width: usize| match training.recompute {
        true => n * width + block(width),
        false => n * block(width),
    };
    let mut numbers = positions * (blocks(model.n_layers, model.d_model) + 3 * model.embedding_dim);
    if let Some(conv) = &model.conv_frontend {
        numbers += positions * 3 * conv.channels.iter().sum::<usize>();
    }
    if let Some(stream) = &model.aggregated_stream {
        let coarse = model.aggregated_len(positions)?;
        numbers += coarse * (blocks(stream.n_layers, stream.d_model) + block(stream.d_model));
    }
    let predictions = match objective {
        Objective::Every => positions,
        Objective::Last => 1,
    };
    Ok((numbers * number + predictions * 3 * VOCAB * 4) as u64)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |n: u64| format!("{:.1} %", 100.0 * n as f64 / self.parameters.max(1) as f64);
        let mut table = Table::new();
        table.row(["part", "parameters", "share"]);
        for (name, n) in &self.parts {
            table.row([name.clone(), grouped(*n), share(*n)]);
        }
        table.row(["all".into(), grouped(self.parameters), share(self.parameters)]);
        writeln!(f, "{table}")?;

        let mut table = Table::new();
        let each = self.batch_size * self.window_bytes;
        table
            .row(["steps".into(), grouped(self.total_steps)])
            .row(["windows a step".into(), grouped(self.batch_size)])
            .row(["bytes a step".into(), grouped(each)])
            .row(["targets a step".into(), grouped(self.batch_size * self.targets_per_window)])
            .row(["bytes in all".into(), grouped(self.total_bytes())])
            .row([
                "epochs".into(),
                format!(
                    "{:.2}",
                    self.total_steps as f64 * self.batch_size as f64 / self.windows_per_epoch.max(1) as f64
                ),
            ])
            .row(["operations a byte".into(), format!("{}FLOP", units::count(self.flops_per_byte()))])
            .row(["operations in all".into(), format!("{}FLOP", units::count(self.total_flops()))]);
        writeln!(f, "{table}")?;

        let mut table = Table::new();
        for (name, bytes) in [
            ("weights", self.weight_bytes),
            ("their average", self.average_bytes),
            ("gradients", self.gradient_bytes),
            ("optimizer state", self.optimizer_bytes),
            ("activations, about", self.activation_bytes),
            ("memory, about", self.memory_bytes()),
        ] {
            if bytes > 0 {
                table.row([name.to_owned(), units::memory(bytes)]);
            }
        }
        write!(f, "{table}")
    }
}

/// `1234567` as "1,234,567".
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut shown = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PRESETS;

    #[test]
    fn plans_add_up_for_every_preset() {
        for preset in PRESETS {
            let run = RunConfig::from_toml(preset.toml).unwrap();
            let plan = Plan::new(&run, 100, 1000, 1).unwrap();
            assert_eq!(plan.parts.iter().map(|part| part.1).sum::<u64>(), plan.parameters, "{}", preset.name);
            assert!(plan.parts.iter().all(|part| !part.0.contains('_')), "{:?}", plan.parts);
            assert!(
                plan.optimizer_bytes >= 4 * plan.parameters && plan.optimizer_bytes <= 8 * plan.parameters
            );
            // What the preset's summary says.
            let millions = plan.parameters as f64 / 1e6;
            let said = if millions < 10.0 { format!("{millions:.1}M") } else { format!("{millions:.0}M") };
            assert!(preset.summary().contains(&format!("{said} parameters")), "{}: {said}", preset.name);
            let text = plan.to_string();
            assert!(text.contains(&grouped(plan.parameters)) && text.contains("output layer"), "{text}");
        }
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"].map(str::to_owned)
        );
    }

    #[test]
    fn ranks_and_passes_share_the_activations() {
        let plan = |set: &[&str], world| {
            let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
            Plan::new(&RunConfig::load("shakespeare", &set).unwrap(), 10, 10, world).unwrap()
        };
        let whole = plan(&["training.batch_size=8"], 1);
        let parted = plan(&["training.batch_size=8", "training.accumulation=2"], 2);
        assert_eq!(whole.activation_bytes, 4 * parted.activation_bytes);
        assert_eq!(whole.total_flops(), parted.total_flops());
        let averaged = plan(&["training.batch_size=8", "training.ema_decay=0.99"], 1);
        assert_eq!(averaged.memory_bytes(), whole.memory_bytes() + whole.weight_bytes);
        assert!(
            averaged.to_string().contains("their average") && !whole.to_string().contains("their average")
        );
        let again = plan(&["training.batch_size=8", "training.recompute=true"], 1);
        assert!(again.activation_bytes < whole.activation_bytes / 2);
    }
}
