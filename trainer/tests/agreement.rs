//! The model is written twice, here with autograd and in the runtime: over random configurations of the whole family
//! both give the same logits.

use grug::checkpoint::Checkpoint;
use grug::config::{
    Activation, AggregatedStream, Attention, ConvFrontend, ConvPadding, Dropout, ModelConfig, Norm, Positions,
};
use grug::rng::{Stream, words};
use grug_trainer::model::{Model, Pass, Rows, to_f32};
use tch::{Device, Kind, Tensor};

/// Random choices that are the same on every machine.
struct Choices {
    seed: u64,
    count: u64,
}

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.count += 1;
        words(self.seed, Stream::Dummy, 7, self.count)[0] as usize % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Configuration number `seed`, whether or not it is valid.
fn draw(seed: u64) -> (ModelConfig, Choices) {
    let mut c = Choices { seed, count: 0 };
    let attention = c.of(&[Attention::Causal, Attention::Bidirectional]);
    let causal = attention == Attention::Causal;
    let n_heads = c.of(&[1, 2, 4]);
    let d_model = n_heads * c.of(&[4, 6, 8, 5]);
    let embedding_dim = if c.chance(50) { d_model } else { c.of(&[6, 12, 20]) };
    let context_bytes = 4 + c.below(28);
    let positions = c.of(&[Positions::Learned, Positions::Sinusoidal, Positions::Rotary]);
    let n_layers = 1 + c.below(3);
    let conv_frontend = c.chance(45).then(|| {
        let layers = 1 + c.below(2);
        ConvFrontend {
            channels: (0..layers).map(|_| c.of(&[6, 10, 16])).collect(),
            kernels: (0..layers).map(|_| 1 + c.below(5)).collect(),
            stride: if causal { 1 } else { 1 + c.below(2) },
            padding: if causal {
                ConvPadding::Zeros
            } else {
                c.of(&[
                    ConvPadding::Zeros,
                    ConvPadding::Reflect,
                    ConvPadding::Replicate,
                    ConvPadding::Circular,
                ])
            },
            activation: c.of(&[Activation::Gelu, Activation::Relu]),
            layer_norm: c.chance(60),
        }
    });
    let aggregated_stream = c.chance(40).then(|| AggregatedStream {
        d_model: n_heads * c.of(&[4, 8, 6]),
        n_layers: 1 + c.below(2),
        kernel: 1 + c.below(5),
        stride: 1 + c.below(4),
    });
    let ffn_activation = c.of(&[Activation::Gelu, Activation::Relu, Activation::Relu2, Activation::Swiglu]);
    let config = ModelConfig {
        context_bytes,
        attention,
        embedding_dim,
        d_model,
        n_heads,
        n_layers,
        ffn_multiplier: 1 + c.below(4),
        ffn_activation,
        ffn_gamma: if ffn_activation == Activation::Gelu && c.chance(40) {
            c.of(&[-0.02, 0.05])
        } else {
            0.0
        },
        norm_first: c.chance(50),
        positions,
        max_positions: if positions == Positions::Learned { context_bytes + c.below(5) } else { 0 },
        pad_short_input: !causal && c.chance(50),
        norm: c.of(&[Norm::Layer, Norm::Rms]),
        bias: c.chance(60),
        qk_norm: c.chance(40),
        n_kv_heads: if c.chance(40) { c.of(&[1, n_heads]) } else { 0 },
        attention_window: if causal && c.chance(40) { 1 + c.below(context_bytes + 2) } else { 0 },
        embedding_norm: c.chance(40),
        tied_head: c.chance(30),
        logit_softcap: if c.chance(30) { 5.0 } else { 0.0 },
        conv_frontend,
        aggregated_stream,
        dropout: Dropout::default(),
    };
    (config, c)
}

/// A model with its first weights, moved so that no gain is one and no bias zero.
fn perturbed(config: &ModelConfig, seed: u64) -> Model {
    tch::manual_seed(seed as i64);
    let mut model = Model::new(config, seed, Device::Cpu).unwrap();
    let moved: Vec<Tensor> =
        model.parameters().iter().map(|p| p.detach() + p.detach().randn_like() * 0.1).collect();
    model.set_parameters(&moved).unwrap();
    model
}

/// (positions asked for, 256)
fn forward(model: &Model, input: &[u8], rows: Rows) -> Tensor {
    let _guard = tch::no_grad_guard();
    let tensor = Tensor::from_data_size(input, &[1, input.len() as i64], Kind::Uint8);
    model.forward(&tensor, Pass { rows, train: false }).unwrap().view([-1, 256])
}

/// Logits of the last position, 256 numbers.
fn trainer_logits(model: &Model, input: &[u8], rows: Rows) -> Vec<f32> {
    to_f32(&forward(model, input, rows).select(0, -1))
}

/// Logits of every position, (positions, 256).
fn all_logits(model: &Model, input: &[u8]) -> Vec<f32> {
    to_f32(&forward(model, input, Rows::All))
}

fn worst(ours: &[f32], theirs: &[f32]) -> f32 {
    let scale = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn both_sides_give_the_same_logits() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (mut checked, mut seed, mut most) = (0, 0, 0f32);
    // How often each kind of model came up: the family must be covered, not one corner of it.
    let mut kinds = std::collections::BTreeMap::new();
    while checked < 120 {
        seed += 1;
        let (config, mut c) = draw(seed);
        if config.validate().is_err() {
            continue;
        }
        checked += 1;
        for (name, present) in [
            ("causal", config.is_causal()),
            ("bidirectional", !config.is_causal()),
            ("parallel", config.aggregated_stream.is_some() && !config.is_causal()),
            ("causal parallel", config.aggregated_stream.is_some() && config.is_causal()),
            ("convolutional", config.conv_frontend.is_some()),
            ("windowed", config.attention_window > 0),
            ("grouped", config.kv_heads() < config.n_heads),
            ("curved", config.ffn_gamma != 0.0),
            ("tied", config.tied_head),
        ] {
            *kinds.entry(name).or_insert(0) += present as u32;
        }
        let model = perturbed(&config, seed);
        model.save(&path, &Default::default()).unwrap();
        let file = Checkpoint::open(&path).unwrap();
        let runtime = grug::Model::from_checkpoint(file, &grug::ModelOptions::default()).unwrap();
        let window = config.window_bytes();
        let mut input: Vec<u8> = (0..window).map(|_| c.below(256) as u8).collect();
        if config.is_causal() || !config.pad_short_input {
            let shorter = 1 + c.below(window);
            if config.check_input_len(shorter).is_ok() {
                input.truncate(shorter);
            }
        }
        let theirs = runtime.raw_logits(&input).unwrap();
        for rows in [Rows::Last, Rows::All] {
            let difference = worst(&trainer_logits(&model, &input, rows), &theirs);
            assert!(
                difference < 1e-4,
                "configuration {seed} ({rows:?}) differs by {difference} for {} bytes:\n{}",
                input.len(),
                config.to_toml()
            );
            most = most.max(difference);
        }
        // Byte by byte, as sessions decode: each row of the batch pass is what a session says that has seen no more than
        // the bytes up to there. So no row sees the future, and streaming equals the batch pass.
        if config.is_causal() {
            let mut session = grug::Session::new(&runtime, &grug::SessionOptions::default()).unwrap();
            let rows = all_logits(&model, &input);
            for (t, row) in rows.chunks_exact(256).enumerate() {
                session.feed(&input[t..=t]).unwrap();
                let difference = worst(row, session.logits().unwrap());
                assert!(
                    difference < 1e-4,
                    "configuration {seed} decodes differently at byte {t}: {difference}\n{}",
                    config.to_toml()
                );
            }
        }
    }
    println!("{checked} configurations, at most {most:e} of max|logit| apart: {kinds:?}");
    assert!(kinds.values().all(|&n| n >= 5), "{kinds:?}");
}
