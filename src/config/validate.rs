//! What a configuration may not be: values out of range, and settings that contradict each other.

use super::{Activation, Attention, ConvFrontend, ConvPadding, MAX_DIM, MAX_LAYERS, ModelConfig, Positions};
use crate::error::{Error, Result};

/// Refuses 0 and anything absurd.
fn check_dim(name: &str, value: usize) -> Result<()> {
    if value == 0 || value > MAX_DIM {
        return Err(Error::invalid(format!("{name} = {value}: must be between 1 and {MAX_DIM}")));
    }
    Ok(())
}

fn contradiction(text: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{text}"))
}

impl ConvFrontend {
    fn validate(&self, attention: Attention) -> Result<()> {
        if self.channels.is_empty() || self.channels.len() != self.kernels.len() {
            return Err(contradiction(format!(
                "conv_frontend: channels has {} entries and kernels {}; one of each is needed for every layer",
                self.channels.len(),
                self.kernels.len()
            )));
        }
        for (&channels, &kernel) in self.channels.iter().zip(&self.kernels) {
            check_dim("conv_frontend.channels", channels)?;
            check_dim("conv_frontend.kernels", kernel)?;
        }
        check_dim("conv_frontend.stride", self.stride)?;
        match self.activation {
            Activation::Gelu | Activation::Relu => {}
            Activation::Relu2 | Activation::Swiglu => {
                return Err(contradiction("conv_frontend.activation must be \"gelu\" or \"relu\""));
            }
        }
        if attention == Attention::Causal && (self.stride != 1 || self.padding != ConvPadding::Zeros) {
            return Err(contradiction(
                "conv_frontend: a causal model needs stride = 1 and padding = \"zeros\", or a byte would be \
                 skipped or see the future",
            ));
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Refuses values out of range and settings that contradict each other, naming them.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("context_bytes", self.context_bytes),
            ("embedding_dim", self.embedding_dim),
            ("d_model", self.d_model),
            ("n_heads", self.n_heads),
            ("n_layers", self.n_layers),
            ("ffn_multiplier", self.ffn_multiplier),
        ] {
            check_dim(name, value)?;
        }
        for (name, value) in [
            ("n_layers", self.n_layers),
            ("aggregated_stream.n_layers", self.aggregated_stream.as_ref().map_or(0, |agg| agg.n_layers)),
            ("conv_frontend.channels", self.conv_frontend.as_ref().map_or(0, |conv| conv.channels.len())),
        ] {
            if value > MAX_LAYERS {
                return Err(Error::invalid(format!(
                    "{name}: {value} layers, at most {MAX_LAYERS} are possible"
                )));
            }
        }
        for (name, value) in
            [("max_positions", self.max_positions), ("attention_window", self.attention_window)]
        {
            if value > MAX_DIM {
                return Err(Error::invalid(format!("{name} = {value}: must be at most {MAX_DIM}")));
            }
        }
        for (name, value) in [
            ("d_model", Some(self.d_model)),
            ("aggregated_stream.d_model", self.aggregated_stream.as_ref().map(|a| a.d_model)),
        ] {
            let Some(value) = value else { continue };
            check_dim(name, value)?;
            if !value.is_multiple_of(self.n_heads) {
                return Err(contradiction(format!(
                    "{name} = {value} is not a multiple of n_heads = {}",
                    self.n_heads
                )));
            }
            if self.positions == Positions::Rotary && !(value / self.n_heads).is_multiple_of(2) {
                return Err(contradiction(format!(
                    "positions = \"rotary\" turns pairs, but {name} / n_heads = {} is odd",
                    value / self.n_heads
                )));
            }
            if value.checked_mul(self.ffn_multiplier).is_none_or(|width| width > MAX_DIM) {
                return Err(contradiction(format!("{name} · ffn_multiplier is more than {MAX_DIM}")));
            }
        }
        if self.kv_heads() > self.n_heads || !self.n_heads.is_multiple_of(self.kv_heads()) {
            return Err(contradiction(format!(
                "n_heads = {} is not a multiple of n_kv_heads = {}",
                self.n_heads, self.n_kv_heads
            )));
        }
        if !self.ffn_gamma.is_finite() {
            return Err(Error::invalid(format!("ffn_gamma = {} is not a number", self.ffn_gamma)));
        }
        if self.ffn_gamma != 0.0 && self.ffn_activation != Activation::Gelu {
            return Err(contradiction(
                "ffn_gamma curves the GELU feed-forward; ffn_activation must be \"gelu\"",
            ));
        }
        if !(self.logit_softcap.is_finite() && self.logit_softcap >= 0.0) {
            return Err(Error::invalid(format!(
                "logit_softcap = {}: must be 0 or a positive number",
                self.logit_softcap
            )));
        }
        for (name, p) in [
            ("conv", self.dropout.conv),
            ("positions", self.dropout.positions),
            ("transformer", self.dropout.transformer),
            ("output", self.dropout.output),
        ] {
            if !(0.0..1.0).contains(&p) {
                return Err(Error::invalid(format!("dropout.{name} = {p}: must be at least 0 and below 1")));
            }
        }
        if let Some(conv) = &self.conv_frontend {
            conv.validate(self.attention).map_err(|e| e.at("model"))?;
        }
        if let Some(agg) = &self.aggregated_stream {
            check_dim("aggregated_stream.n_layers", agg.n_layers)?;
            check_dim("aggregated_stream.kernel", agg.kernel)?;
            check_dim("aggregated_stream.stride", agg.stride)?;
            if self.is_causal() && agg.kernel < agg.stride {
                return Err(contradiction(format!(
                    "aggregated_stream.kernel = {} is less than its stride of {}: bytes would be skipped",
                    agg.kernel, agg.stride
                )));
            }
        }
        if self.tied_head && (self.aggregated_stream.is_some() || self.embedding_dim != self.d_model) {
            return Err(contradiction("tied_head needs a single stream with embedding_dim equal to d_model"));
        }
        match self.attention {
            Attention::Causal => {
                if self.pad_short_input {
                    return Err(contradiction(
                        "pad_short_input is for bidirectional models; a causal one needs no padding",
                    ));
                }
                if self.positions == Positions::Learned && self.max_positions < self.context_bytes {
                    return Err(contradiction(format!(
                        "context_bytes = {} needs as many learned positions, but max_positions = {}",
                        self.context_bytes, self.max_positions
                    )));
                }
            }
            Attention::Bidirectional => {
                if self.attention_window != 0 {
                    return Err(contradiction("attention_window is for causal models"));
                }
            }
        }
        if self.positions == Positions::Learned && self.max_positions == 0 {
            return Err(contradiction("positions = \"learned\" needs max_positions"));
        }
        self.check_input_len(self.window_bytes())
            .map_err(|e| e.at(format!("context_bytes = {}", self.context_bytes)))?;
        Ok(())
    }
}
