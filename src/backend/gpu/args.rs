//! The arguments of a step: the same words, and the same codes in them, for every kernel in WGSL and in CUDA.

/// Stands for "there is none" where an offset is asked for.
pub(crate) const NONE: u32 = u32::MAX;

macro_rules! args {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Arguments of one step. Offsets and strides count numbers, not bytes.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub(crate) struct Args { $($(#[$doc])* pub $name: u32,)* }

        impl Args {
            /// The names of the words, in order.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The words, in order.
            pub(crate) fn words(&self) -> Vec<u32> {
                vec![$(self.$name),*]
            }

            const ZERO: Args = Args { $($name: 0),* };
        }
    };
}

args! {
    /// Which dimension holds the number of rows.
    rows,
    /// Attention: which dimension holds the number of rows that ask nothing. Copying rows: from which on.
    skip,
    /// Numbers in a row of the input.
    inputs,
    /// Numbers in a row of the result.
    outputs,
    /// Where the input starts in the activations.
    x,
    /// From row to row.
    x_stride,
    /// 1: row i of the input stands at position `first + i`.
    x_shift,
    /// Where the result starts in the activations.
    y,
    /// From row to row.
    y_stride,
    /// 1: row i of the result stands at position `first + i`.
    y_shift,
    /// Weights: vectors of 16 bytes from row to row.
    w_stride,
    /// How the weights are stored.
    w_kind,
    /// Offset in the constants of the scales of the weights' rows, where they are integers.
    scales,
    /// Offset in the constants of the result's bias.
    bias,
    /// What happens to the input on its way in.
    prologue,
    /// Offset in the constants of the norm's gain.
    gain,
    /// Offset in the constants of the norm's bias.
    gain_bias,
    /// 1: RMSNorm; 0: LayerNorm.
    rms,
    /// The nonlinearity of the result.
    epilogue,
    /// Curvature, or the bound of the logits, as the bits of an f32.
    scalar,
    /// 1: the result is added to what stands there.
    add,
    /// Offset in the constants of the positions that are added to the result, by position.
    positions,
    /// Attention: heads of queries.
    heads,
    /// Attention: heads of keys and values.
    kv_heads,
    /// Attention: numbers in a head.
    head_dim,
    /// Attention: positions that the cache holds.
    capacity,
    /// Attention: 1 = causal.
    causal,
    /// Attention: how many positions are seen; 0 = all.
    window,
    /// Attention: 1 = queries and keys are normalized.
    qk_norm,
    /// Offset in the constants of the cosines of the angles, by position.
    cos,
    /// Offset in the constants of the sines of the angles, by position.
    sin,
    /// Attention of a single row: 1 = it also does the work of `StoreKv`.
    store,
    /// Bytes a position: 0 or 1, and more in the aggregated stream of a causal model.
    divide,
    /// Joining streams: where the coarse states start in the activations.
    coarse,
    /// Joining streams: offset in the constants of what stands for the coarse state before there is one.
    start,
    /// Rows to fill on each side of a convolution's input.
    pad,
    /// What they are filled with.
    padding,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            scales: NONE,
            bias: NONE,
            gain: NONE,
            gain_bias: NONE,
            positions: NONE,
            cos: NONE,
            sin: NONE,
            ..Args::ZERO
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        $($(#[$doc])* pub(crate) const $name: u32 = $value;)*

        /// Every code by name, for the kernels' sources.
        pub(crate) const CODES: &[(&str, u32)] = &[$((stringify!($name), $value)),*];
    };
}

codes! {
    /// Weights of 32 bits.
    WEIGHT_F32 = 0,
    /// Weights of 16 bits, 5 of them exponent.
    WEIGHT_F16 = 1,
    /// Weights of 16 bits, 8 of them exponent.
    WEIGHT_BF16 = 2,
    /// Weights of 8 bits, times a scale for each row.
    WEIGHT_INT8 = 3,
    /// The input as it is.
    PROLOGUE_NONE = 0,
    /// The input normalized.
    PROLOGUE_NORM = 1,
    /// silu(gate) · value, of an input twice as wide.
    PROLOGUE_SWIGLU = 2,
    /// The curved GELU of the input.
    PROLOGUE_CURVED = 3,
    /// The result as it is.
    EPILOGUE_NONE = 0,
    /// Exact GELU.
    EPILOGUE_GELU = 1,
    /// max(x, 0).
    EPILOGUE_RELU = 2,
    /// max(x, 0)².
    EPILOGUE_RELU2 = 3,
    /// c·tanh(x / c).
    EPILOGUE_SOFTCAP = 4,
    /// Zeros beyond the ends.
    PADDING_ZEROS = 0,
    /// Mirrored at the first and last row.
    PADDING_REFLECT = 1,
    /// The first and last row repeated.
    PADDING_REPLICATE = 2,
    /// Wrapped around.
    PADDING_CIRCULAR = 3,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CUDA's kernels are compiled ahead of time, so they repeat what stands here.
    #[test]
    fn the_cuda_kernels_agree() {
        let source = include_str!("../cuda/kernels.cu");
        let fields = source.split_once("struct Args {").unwrap().1.split_once("};").unwrap().0;
        let names: Vec<&str> =
            fields.trim().trim_start_matches("u32").trim_end_matches(';').split(',').map(str::trim).collect();
        assert_eq!(names, Args::NAMES);
        let mut constants: Vec<(&str, u32)> = CODES.to_vec();
        use crate::backend::gpu::{Kernel, state};
        constants.extend([
            ("STATE_FIRST", state::FIRST as u32),
            ("STATE_BASE", state::BASE as u32),
            ("STATE_DRAWS", state::DRAWS as u32),
            ("STATE_TEMPERATURE", state::TEMPERATURE as u32),
            ("STATE_FAILED", state::FAILED as u32),
            ("STATE_CHOSEN", state::CHOSEN as u32),
            ("STATE_DIMS", state::DIMS as u32),
            ("EMBED", Kernel::Embed as u32),
            ("LINEAR", Kernel::Linear as u32),
            ("NORM", Kernel::Norm as u32),
            ("ATTENTION", Kernel::Attention as u32),
            ("ACTIVATE", Kernel::Activate as u32),
            ("COPY_ROWS", Kernel::CopyRows as u32),
            ("JOIN", Kernel::Join as u32),
            ("SAMPLE", Kernel::Sample as u32),
        ]);
        for (name, value) in constants {
            let said = format!(" {name} = {value}");
            assert!(
                source.contains(&format!("{said},")) || source.contains(&format!("{said} }}")),
                "kernels.cu does not say{said}"
            );
        }
        for kernel in Kernel::ALL {
            assert!(source.contains(&format!("STEP_KERNEL({})", kernel.name())), "{kernel:?}");
        }
    }
}
