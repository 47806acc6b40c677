//! Muon (Keller Jordan and others, "Muon: an optimizer for hidden layers in neural networks", 2024): momentum whose
//! matrix is replaced by the nearest orthogonal one before it is applied. Newton and Schulz's iteration finds that
//! matrix with products alone, so matrices of one shape go through it together as a batch.

use grug::error::Result;
use grug::manifest::TensorSpec;
use tch::{Device, Kind, Tensor};

use crate::config::OptimizerConfig;
use crate::torch;

/// Coefficients of the iteration `X ← aX + (bA + cA²)X`, `A = XXᵀ`: steep at zero, so that five steps suffice.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
const ITERATIONS: usize = 5;

/// The packed projection of queries, keys and values is three matrices, each made orthogonal by itself.
const PACKED_PROJECTION: &str = "self_attn.in_proj_weight";

/// All matrices of one shape, the wide way round.
#[derive(Debug)]
struct Bucket {
    /// (rows, columns) with rows ≤ columns.
    shape: (i64, i64),
    /// Where each matrix comes from.
    parts: Vec<Part>,
    /// Tall parameters take larger steps: √(rows / columns) of the whole parameter, at least 1.
    lr_factors: Tensor, // (parts, 1, 1)
    momentum: Tensor, // (parts, rows, columns)
}

/// Some rows of a parameter.
#[derive(Debug)]
struct Part {
    /// The parameter's place in the model's list.
    index: usize,
    rows: (i64, i64), // first, count
    /// The parameter's rows themselves, laid out as the bucket has them.
    view: Tensor, // (rows, columns)
    transposed: bool,
    /// Its part of the bucket's `lr_factors`.
    lr_factor: f64,
}

impl Part {
    /// These rows of the parameter's gradient, the wide way round.
    fn of(&self, whole: &Tensor) -> Tensor {
        let rows = whole.narrow(0, self.rows.0, self.rows.1);
        if self.transposed { rows.transpose(0, 1) } else { rows }
    }
}

/// Muon over some of a model's parameters.
#[derive(Debug)]
pub struct Muon {
    config: OptimizerConfig,
    buckets: Vec<Bucket>,
    names: Vec<String>,
    /// What the iteration computes in.
    kind: Kind,
}

impl Muon {
    /// For the parameters at these places.
    pub fn new(
        config: &OptimizerConfig,
        specs: &[TensorSpec],
        params: &[Tensor],
        indices: Vec<usize>,
    ) -> Muon {
        let mut buckets: Vec<Bucket> = Vec::new();
        let device = params.first().map_or(Device::Cpu, Tensor::device);
        for index in indices {
            let (rows, columns) = params[index].size2().expect("a matrix");
            let lr_factor = (rows as f64 / columns as f64).max(1.0).sqrt();
            let parts = if specs[index].name.ends_with(PACKED_PROJECTION) {
                let kv_rows = (rows - columns) / 2;
                vec![(0, columns), (columns, kv_rows), (columns + kv_rows, kv_rows)]
            } else {
                vec![(0, rows)]
            };
            for (first, count) in parts {
                let shape = (count.min(columns), count.max(columns));
                let mut part = Part {
                    index,
                    rows: (first, count),
                    view: Tensor::new(),
                    transposed: count > columns,
                    lr_factor,
                };
                part.view = part.of(&params[index]);
                match buckets.iter_mut().find(|bucket| bucket.shape == shape) {
                    Some(bucket) => bucket.parts.push(part),
                    None => buckets.push(Bucket {
                        shape,
                        parts: vec![part],
                        lr_factors: Tensor::new(),
                        momentum: Tensor::new(),
                    }),
                }
            }
        }
        for bucket in &mut buckets {
            let size = [bucket.parts.len() as i64, bucket.shape.0, bucket.shape.1];
            bucket.momentum = Tensor::zeros(size, (Kind::Float, device));
            let factors: Vec<f32> = bucket.parts.iter().map(|part| part.lr_factor as f32).collect();
            bucket.lr_factors = Tensor::from_slice(&factors).to_device(device).view([-1, 1, 1]);
        }
        let kind = if device.is_cuda() { Kind::BFloat16 } else { Kind::Float };
        Muon {
            config: config.clone(),
            buckets,
            names: specs.iter().map(|spec| spec.name.clone()).collect(),
            kind,
        }
    }

    /// The momentum of step `step` (from 0).
    fn momentum(&self, step: u64) -> f64 {
        let (start, end) = (self.config.muon_momentum_start, self.config.muon_momentum);
        match self.config.muon_momentum_warmup_steps {
            0 => end,
            steps => start + (end - start) * (step as f64 / steps as f64).min(1.0),
        }
    }

    /// Step number `step` (from 0), with the gradient of each of the model's parameters. Where `found_inf`, a scalar
    /// on the device, is not 0, nothing changes.
    pub fn step(&mut self, step: u64, lr: f64, grads: &[Tensor], found_inf: Option<&Tensor>) -> Result<()> {
        let skip = found_inf.map(|found| found.not_equal(0.0));
        let momentum = self.momentum(step);
        for bucket in &mut self.buckets {
            let parts: Vec<Tensor> = bucket.parts.iter().map(|part| part.of(&grads[part.index])).collect();
            let grad = Tensor::stack(&parts, 0); // (parts, rows, columns)
            match &skip {
                None => drop(bucket.momentum.lerp_(&grad, 1.0 - momentum)),
                // The host does not know whether the step counts, and does not wait to hear it.
                Some(skip) => {
                    let moved = bucket.momentum.lerp(&grad, 1.0 - momentum);
                    bucket.momentum.copy_(&bucket.momentum.where_self(skip, &moved));
                }
            }
            // Nesterov: look ahead along the new momentum.
            let mut update = orthogonalize(&grad.lerp(&bucket.momentum, momentum), self.kind);
            if let Some(skip) = &skip {
                update = update.masked_fill(skip, 0.0);
            }
            let views: Vec<Tensor> = bucket.parts.iter().map(|part| part.view.shallow_clone()).collect();
            let decay = lr * self.config.weight_decay;
            match &skip {
                _ if decay == 0.0 => {}
                None => torch::scale(&views, 1.0 - decay)?,
                Some(skip) => {
                    let factor = skip.to_kind(Kind::Float) * decay + (1.0 - decay);
                    views.iter().for_each(|view| drop(view.shallow_clone().g_mul_(&factor)));
                }
            }
            torch::add(&views, &(update * (&bucket.lr_factors * -lr)).unbind(0))?;
        }
        Ok(())
    }

    /// The momentum of each parameter, in the parameter's own shape, with its name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for bucket in &self.buckets {
            for (i, part) in bucket.parts.iter().enumerate() {
                let name = format!("muon.momentum.{}.{}", part.rows.0, self.names[part.index]);
                state.push((name, bucket.momentum.get(i as i64)));
            }
        }
        state
    }
}

/// The nearest (semi-)orthogonal matrix of each of a batch, roughly: singular values end between 0.7 and 1.2.
fn orthogonalize(matrices: &Tensor, kind: Kind) -> Tensor {
    let (a, b, c) = COEFFICIENTS;
    let norms = matrices.norm_scalaropt_dim(2.0, [1i64, 2].as_slice(), true);
    let mut x = (matrices / (norms + 1e-7)).to_kind(kind);
    let (rows, columns) = (x.size()[1], x.size()[2]);
    let gram = x.bmm(&x.transpose(1, 2)); // (batch, rows, rows)
    // Every iterate is a polynomial of the first Gram matrix times the first matrix, so wide matrices need not take
    // part in the iteration. In bf16 the small singular values would drown in that matrix's rounding.
    if kind == Kind::Float && columns >= 2 * rows {
        return product_of_steps(gram, (a, b, c)).bmm(&x);
    }
    let mut gram = gram;
    for step in 0..ITERATIONS {
        if step > 0 {
            gram = x.bmm(&x.transpose(1, 2));
        }
        let polynomial = gram.baddbmm(&gram, &gram, b, c);
        x = x.baddbmm(&polynomial, &x, a, 1.0);
    }
    x.to_kind(Kind::Float)
}

/// The product of all steps' polynomials `aI + bA + cA²`, (batch, rows, rows), starting from this Gram matrix A.
fn product_of_steps(mut gram: Tensor, (a, b, c): (f64, f64, f64)) -> Tensor {
    let mut product = None;
    for step in 0..ITERATIONS {
        let polynomial = gram.baddbmm(&gram, &gram, b, c); // without its aI
        if step + 1 < ITERATIONS {
            let half = gram.baddbmm(&polynomial, &gram, a, 1.0);
            gram = half.baddbmm(&half, &polynomial, a, 1.0);
        }
        product = Some(match product {
            None => &polynomial + Tensor::eye(polynomial.size()[1], (Kind::Float, polynomial.device())) * a,
            Some(product) => {
                let product: Tensor = product;
                product.baddbmm(&polynomial, &product, a, 1.0)
            }
        });
    }
    product.expect("there are iterations")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_values_end_near_one() {
        tch::manual_seed(3);
        let matrices = Tensor::randn([3, 8, 20], (Kind::Float, Device::Cpu));
        let result = orthogonalize(&matrices, Kind::Float);
        let mut plain = &matrices / (matrices.norm_scalaropt_dim(2.0, [1i64, 2].as_slice(), true) + 1e-7);
        for _ in 0..ITERATIONS {
            let gram = plain.bmm(&plain.transpose(1, 2));
            plain = &plain * 3.4445 + (&gram * -4.7750 + gram.bmm(&gram) * 2.0315).bmm(&plain);
        }
        assert!((&result - plain).abs().max().double_value(&[]) < 1e-4, "the short way is the plain one");
        let values = result.bmm(&result.transpose(1, 2)).linalg_eigvalsh("L").sqrt();
        let (low, high) = (values.min().double_value(&[]), values.max().double_value(&[]));
        assert!(low > 0.6 && high < 1.3, "{low} {high}");
    }
}
