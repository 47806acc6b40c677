//! An output layer's bias as a part of its input: x with W·x = b, of least length. Where the rows of W are independent
//! that is Wᵀ·y with (W·Wᵀ)·y = b, solved by Cholesky's decomposition.

/// What to add to the input of `weight`, (rows, cols), so that `bias`, (rows), is added to its output; `None` where there
/// is none, or none of reasonable size.
pub(super) fn as_input(weight: &[f32], bias: &[f32]) -> Option<Vec<f32>> {
    let n = bias.len();
    let rows: Vec<&[f32]> = weight.chunks_exact(weight.len() / n).collect();
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    // The lower triangle of W·Wᵀ becomes L with L·Lᵀ = W·Wᵀ, row by row.
    let mut l = vec![0.0f64; n * n];
    let largest = rows.iter().map(|row| dot(row, row)).fold(0.0, f64::max);
    for i in 0..n {
        for j in 0..=i {
            let (row, other) = (&l[i * n..i * n + j], &l[j * n..j * n + j]);
            let rest = dot(rows[i], rows[j]) - row.iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
            l[i * n + j] = if i > j {
                rest / l[j * n + j]
            } else if rest > 1e-9 * largest {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    let mut y: Vec<f64> = bias.iter().map(|b| f64::from(*b)).collect();
    for i in 0..n {
        let sum: f64 = (0..i).map(|j| l[i * n + j] * y[j]).sum();
        y[i] = (y[i] - sum) / l[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|j| l[j * n + i] * y[j]).sum();
        y[i] = (y[i] - sum) / l[i * n + i];
    }
    let mut x = vec![0.0f64; rows[0].len()];
    for (row, y) in rows.iter().zip(&y) {
        x.iter_mut().zip(*row).for_each(|(x, w)| *x += f64::from(*w) * y);
    }
    let x: Vec<f32> = x.into_iter().map(|v| v as f32).collect();
    // What rounding leaves of it.
    let error =
        rows.iter().zip(bias).map(|(row, b)| (dot(row, &x) - f64::from(*b)).abs()).fold(0.0, f64::max);
    let size = bias.iter().fold(0.0f32, |max, b| max.max(b.abs()));
    (error <= 1e-4 * f64::from(size.max(1e-3))).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_gives_the_bias_where_rows_are_independent() {
        let weight: Vec<f32> =
            (0..60).map(|i: i32| ((i * i * 31 + i * 7) % 101) as f32 / 50.0 - 1.0).collect();
        let bias = [0.3, -1.0, 0.0, 2.0, 0.5];
        let x = as_input(&weight, &bias).unwrap();
        for (row, b) in weight.chunks_exact(12).zip(bias) {
            let got: f32 = row.iter().zip(&x).map(|(w, x)| w * x).sum();
            assert!((got - b).abs() < 1e-5, "{got} for {b}");
        }
        // Fewer columns than rows, and rows that depend on each other.
        assert_eq!(as_input(&weight[..20], &bias), None);
        let twice = [&weight[..24], &weight[..24], &weight[..12]].concat();
        assert_eq!(as_input(&twice, &bias), None);
        assert_eq!(as_input(&weight, &[0.0; 5]), Some(vec![0.0; 12]));
    }
}
