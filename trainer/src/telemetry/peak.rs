//! What a device can do at best, to compare with what a run does.
//!
//! The numbers are the vendors' for dense matrix products, in FLOP/s; the marketed ones with sparsity are twice as
//! high. A device that is not listed has no peak here: a utilization against a guess is worse than none, and
//! `telemetry.peak_tflops` can say it.

use crate::config::Precision;

/// Dense peaks of one device, in TFLOP/s.
struct Peak {
    /// Parts of the device's name that must all occur, in lower case.
    name: &'static [&'static str],
    /// bf16 and f16 products summed in f32.
    half: f64,
    /// TF32 products, where the device has them.
    tf32: Option<f64>,
    /// f32 products.
    single: f64,
}

/// More specific names first.
const PEAKS: &[Peak] = &[
    Peak { name: &["h100", "pcie"], half: 756.0, tf32: Some(378.0), single: 51.0 },
    Peak { name: &["h100"], half: 989.4, tf32: Some(494.7), single: 66.9 },
    Peak { name: &["h200"], half: 989.4, tf32: Some(494.7), single: 66.9 },
    Peak { name: &["a100"], half: 312.0, tf32: Some(156.0), single: 19.5 },
    Peak { name: &["l40s"], half: 362.0, tf32: Some(183.0), single: 91.6 },
    Peak { name: &["l4"], half: 121.0, tf32: Some(60.0), single: 30.3 },
    Peak { name: &["a10"], half: 125.0, tf32: Some(62.5), single: 31.2 },
    Peak { name: &["v100"], half: 125.0, tf32: None, single: 15.7 },
    Peak { name: &["t4"], half: 65.0, tf32: None, single: 8.1 },
    Peak { name: &["rtx", "4090"], half: 165.2, tf32: Some(82.6), single: 82.6 },
    Peak { name: &["rtx", "3090"], half: 71.0, tf32: Some(35.6), single: 35.6 },
];

/// The most FLOP/s that a device of this name can do at this precision, where it is known.
pub fn peak_flops(device: &str, precision: Precision, tf32: bool) -> Option<f64> {
    let device = device.to_lowercase();
    let words: Vec<&str> = device.split([' ', '-', '_']).collect();
    let peak = PEAKS.iter().find(|peak| peak.name.iter().all(|part| words.contains(part)))?;
    let tflops = match precision {
        Precision::Bf16 | Precision::F16 => peak.half,
        Precision::F32 if tf32 => peak.tf32.unwrap_or(peak.single),
        Precision::F32 => peak.single,
    };
    Some(tflops * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_words() {
        let tflops = |name: &str, precision, tf32| {
            peak_flops(name, precision, tf32).map(|flops| (flops / 1e11).round() / 10.0)
        };
        let at = |name: &str| tflops(name, Precision::Bf16, false);
        assert_eq!(at("NVIDIA H200"), Some(989.4));
        assert_eq!(at("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(at("NVIDIA H100 80GB HBM3"), Some(989.4));
        assert_eq!(at("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(at("NVIDIA L40S"), Some(362.0));
        assert_eq!(at("NVIDIA L4"), Some(121.0));
        assert_eq!(at("NVIDIA A1000 Laptop"), None);
        assert_eq!(at("cpu"), None);
        assert_eq!(tflops("NVIDIA H200", Precision::F32, false), Some(66.9));
        assert_eq!(tflops("NVIDIA H200", Precision::F32, true), Some(494.7));
        assert_eq!(tflops("Tesla T4", Precision::F32, true), Some(8.1));
    }
}
