//! Whether a trained model is worth the same on every engine.

use std::path::Path;

use grug::{Error, ErrorKind, Model, ModelOptions, Result, Session, SessionOptions};

/// How far bits a byte may be from the CPU's.
const TOLERANCE: f64 = 0.005;

/// Prints bits a byte on the last `last` bytes of a text, on the CPU and on these devices, and says whether all are
/// within [`TOLERANCE`] of the CPU's.
pub fn every_device(model: &Path, text: &Path, last: usize, devices: &[String]) -> Result<bool> {
    let text = std::fs::read(text).map_err(|e| Error::io("reading", text, e))?;
    let held_out = &text[text.len().saturating_sub(last)..];
    if held_out.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "there is no text to score"));
    }
    println!("bits a byte on the last {} bytes of the text, and how far from the CPU's:", held_out.len());
    let (mut reference, mut good) = (None, true);
    for device in std::iter::once("cpu").chain(devices.iter().map(String::as_str)) {
        let options = ModelOptions { device: device.into(), ..Default::default() };
        let model = Model::load(model, &options)?;
        let nats = Session::new(&model, &SessionOptions::default())?.score(held_out, None)?;
        let bits = nats / std::f64::consts::LN_2 / held_out.len() as f64;
        let apart = bits / *reference.get_or_insert(bits) - 1.0;
        let near = apart.abs() <= TOLERANCE;
        println!("  {bits:8.5}  {:+9.5} %  {device}{}", 100.0 * apart, if near { "" } else { "   TOO FAR" });
        good &= near;
    }
    Ok(good)
}
