//! Our schedules against PyTorch's own, recorded by `generate/schedules.py`.

use grug_trainer::config::{ScheduleConfig, ScheduleKind};
use grug_trainer::schedule::Schedule;
use serde_json::Value;

/// Relative to the full learning rate. What is asked for is 1e-7; only rounding should differ.
const TOLERANCE: f64 = 1e-10;

fn cases(kind: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("data/schedules.json")).unwrap();
    let cases: Vec<Value> =
        file["cases"].as_array().unwrap().iter().filter(|case| case["type"] == kind).cloned().collect();
    assert!(cases.len() >= 2, "{kind}");
    cases
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{key} in {}", case["type"]))
}

fn count(case: &Value, key: &str) -> u64 {
    case[key].as_u64().unwrap_or_else(|| panic!("{key} in {}", case["type"]))
}

/// The recorded [step or loss, learning rate] pairs.
fn recorded(case: &Value) -> Vec<(Option<f64>, f64)> {
    case["recorded"].as_array().unwrap().iter().map(|p| (p[0].as_f64(), p[1].as_f64().unwrap())).collect()
}

/// Goes through a schedule and compares its learning rate before every recorded step.
fn compare(case: &Value, config: &ScheduleConfig, total_steps: u64) {
    let base = number(case, "lr");
    let mut schedule = Schedule::new(config, &[base], total_steps);
    let mut step = 0;
    for (at, expected) in recorded(case) {
        let at = at.unwrap() as u64;
        while step < at {
            schedule.advance();
            step += 1;
        }
        let lr = schedule.learning_rates()[0];
        assert!(
            (lr - expected).abs() <= TOLERANCE * base,
            "{} step {step}: {lr:e}, PyTorch {expected:e}",
            case["type"]
        );
    }
}

#[test]
fn cosine_after_warmup_and_beyond_its_end() {
    for case in cases("cosine") {
        let config = ScheduleConfig {
            kind: ScheduleKind::Cosine,
            warmup_steps: count(&case, "warmup_steps"),
            warmup_init_factor: number(&case, "warmup_init_factor"),
            t_max: Some(count(&case, "t_max")),
            eta_min: number(&case, "eta_min"),
            ..ScheduleConfig::default()
        };
        compare(&case, &config, 1);
    }
}

#[test]
fn warmup_is_a_straight_line() {
    for case in cases("warmup") {
        let config = ScheduleConfig {
            kind: ScheduleKind::Constant,
            warmup_steps: count(&case, "warmup_steps"),
            warmup_init_factor: number(&case, "warmup_init_factor"),
            ..ScheduleConfig::default()
        };
        compare(&case, &config, 1);
    }
}

#[test]
fn linear_decay_is_linear_lr() {
    for case in cases("linear") {
        let config = ScheduleConfig {
            kind: ScheduleKind::Linear,
            decay_fraction: number(&case, "decay_fraction"),
            final_factor: number(&case, "final_factor"),
            ..ScheduleConfig::default()
        };
        compare(&case, &config, count(&case, "total_steps"));
    }
}

#[test]
fn plateau_reduces_at_the_same_validations() {
    for case in cases("plateau") {
        let config = ScheduleConfig {
            kind: ScheduleKind::Plateau,
            factor: number(&case, "factor"),
            patience: count(&case, "patience"),
            min_learning_rate: number(&case, "min_lr"),
            ..ScheduleConfig::default()
        };
        let base = number(&case, "lr");
        let mut schedule = Schedule::new(&config, &[base], 1);
        let (mut before, mut reductions) = (base, 0);
        for (i, (loss, expected)) in recorded(&case).into_iter().enumerate() {
            let reduced = schedule.validated(loss.unwrap_or(f64::NAN));
            let lr = schedule.learning_rates()[0];
            assert_eq!(lr, expected, "validation {i}");
            assert!(reduced || lr == before, "validation {i}");
            reductions += usize::from(lr != before);
            before = lr;
        }
        assert!(reductions >= 2, "{reductions}");
    }
}
