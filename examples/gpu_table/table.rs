//! The measurements of all ways side by side.

use std::path::Path;

use grug::{Error, ErrorKind, Result};

/// What [`Row::cells`] shows: microseconds a byte, and bytes a second.
pub const HEADINGS: &str =
    "us a byte: few before      many before       8 sessions      64 sessions  prefill bytes/s";

/// Ways whose names begin so are compared with.
const REFERENCE: &str = "PyTorch";
/// The first number of a row is to be at most so many microseconds,
const AIMS: [(&str, f64); 2] = [("d512 L8", 100.0), ("d1024 L12", 200.0)];
/// and the last one at least so much of PyTorch's.
const PREFILL_AIM: f64 = 0.5;

/// One way of running one model.
#[derive(Debug)]
pub struct Row {
    pub shape: String,
    pub way: String,
    pub weights: String,
    /// Bytes of the weights, which each byte of a single session has to read.
    pub bytes: f64,
    /// Microseconds a byte: one session after few bytes, after many; 8 sessions; 64. Bytes a second of prefill.
    pub numbers: [f64; 5],
}

impl Row {
    /// How many times as fast each number is as another's.
    fn faster(&self, than: &[f64; 5]) -> [f64; 5] {
        std::array::from_fn(|i| if i < 4 { than[i] / self.numbers[i] } else { self.numbers[i] / than[i] })
    }

    /// The numbers, under [`HEADINGS`]; with a reference, how many times as fast in brackets.
    pub fn cells(&self, reference: Option<&[f64; 5]>) -> String {
        let ratios = reference.map(|reference| self.faster(reference));
        let cell = |(i, number): (usize, &f64)| {
            let text = format!("{number:.*}", if i < 4 { 1 } else { 0 });
            match ratios {
                Some(ratios) => format!("{:>17}", format!("{text} ({:.2}x)", ratios[i])),
                None => format!("{text:>17}"),
            }
        };
        self.numbers.iter().enumerate().map(cell).collect()
    }

    /// As a line of the file, which [`parse`](Row::parse) and torch-table.py know.
    pub fn line(&self) -> String {
        let words = [&self.shape, &self.way, &self.weights].map(String::as_str).join("\t");
        let numbers = [self.bytes].iter().chain(&self.numbers).map(f64::to_string).collect::<Vec<_>>();
        format!("row\t{words}\t{}", numbers.join("\t"))
    }

    fn parse(line: &str) -> Option<Row> {
        let words: Vec<&str> = line.split('\t').collect();
        let ["row", shape, way, weights, numbers @ ..] = &words[..] else { return None };
        let numbers = numbers.iter().map(|n| n.parse().ok()).collect::<Option<Vec<f64>>>()?;
        let [bytes, numbers @ ..] = &numbers[..] else { return None };
        Some(Row {
            shape: shape.to_string(),
            way: way.to_string(),
            weights: weights.to_string(),
            bytes: *bytes,
            numbers: numbers.try_into().ok()?,
        })
    }
}

/// The best of PyTorch's ways, number by number.
fn best_reference(rows: &[&Row]) -> Option<[f64; 5]> {
    let mut rows = rows.iter().filter(|row| row.way.starts_with(REFERENCE)).map(|row| row.numbers);
    let first = rows.next()?;
    Some(rows.fold(first, |best, row| {
        std::array::from_fn(|i| if i < 4 { best[i].min(row[i]) } else { best[i].max(row[i]) })
    }))
}

/// Prints the rows of one shape.
fn print_shape(shape: &str, rows: &[&Row], bandwidth: Option<f64>) {
    let reference = best_reference(rows);
    println!(
        "\n{shape}{}",
        if reference.is_some() { "; in brackets: times as fast as PyTorch's faster way" } else { "" }
    );
    println!("  {:18} {:7} {HEADINGS}  weights read", "", "weights");
    for row in rows {
        let speed = row.bytes / row.numbers[0] / 1e3;
        let share = bandwidth.map_or(String::new(), |most| format!(" ({:.0} %)", 100.0 * speed / most));
        println!(
            "  {:18} {:7} {}  {speed:7.1} GB/s{share}",
            row.way,
            row.weights,
            row.cells(reference.as_ref())
        );
    }
    let ours = || rows.iter().filter(|row| !row.way.starts_with(REFERENCE) && !row.way.starts_with("wgpu"));
    let Some((_, aim)) = AIMS.iter().find(|(name, _)| *name == shape) else { return };
    let fastest = |numbers: &mut dyn Iterator<Item = f64>| numbers.reduce(f64::min);
    if let Some(us) = fastest(&mut ours().filter(|row| row.weights == "bf16").map(|row| row.numbers[0])) {
        let said = if us < *aim { "reached" } else { "NOT reached" };
        println!("  aim: under {aim} us a byte with bf16 weights, one session: {us:.1}, {said}");
    }
    let prefill = ours().filter(|row| row.weights == "bf16").map(|row| row.numbers[4]).reduce(f64::max);
    if let (Some(prefill), Some(reference)) = (prefill, reference) {
        let share = prefill / reference[4];
        let said = if share > PREFILL_AIM { "reached" } else { "NOT reached" };
        println!("  aim: prefill above {PREFILL_AIM} of PyTorch's: {share:.2}, {said}");
    }
}

/// Prints what stands in a file of rows.
pub fn print(path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("reading", path, e))?;
    let (mut rows, mut bandwidth) = (Vec::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("bandwidth\t").map(str::parse), Row::parse(line)) {
            (Some(Ok(most)), _) => bandwidth = Some(most),
            (_, Some(row)) => rows.push(row),
            _ => {
                return Err(
                    Error::new(ErrorKind::Format, format!("a line that is no row: {line:?}")).in_file(path)
                );
            }
        }
    }
    let mut shapes: Vec<&str> = rows.iter().map(|row| row.shape.as_str()).collect();
    let mut seen = Vec::new();
    shapes.retain(|shape| {
        !seen.contains(shape) && {
            seen.push(*shape);
            true
        }
    });
    for shape in shapes {
        print_shape(shape, &rows.iter().filter(|row| row.shape == shape).collect::<Vec<_>>(), bandwidth);
    }
    println!("\nus a byte: the time divided by the bytes of all sessions");
    match bandwidth {
        Some(most) => println!(
            "weights read: by one session after few bytes; in brackets: of the {most:.0} GB/s that PyTorch copies memory\n\
             at here. Weights that fit into the device's cache may be read faster than that."
        ),
        None => println!("weights read: by one session after few bytes"),
    }
    if !rows.iter().any(|row| row.way.starts_with(REFERENCE)) {
        println!("PyTorch was not measured, so there is nothing to compare with.");
    }
    Ok(())
}
