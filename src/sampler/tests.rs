//! The sampler against straightforward definitions.

use proptest::prelude::*;

use super::*;
use crate::grammar::GrammarKind;

/// Logits whose softmax gives byte b the probability `p[b]`, and nothing to bytes beyond.
fn logits(p: &[f32]) -> [f32; VOCAB] {
    std::array::from_fn(|b| p.get(b).map_or(f32::NEG_INFINITY, |p| p.ln()))
}

fn frequencies(options: &SamplerOptions, logits: &[f32; VOCAB], draws: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(options).unwrap();
    let mut counts = vec![0.0; VOCAB];
    for _ in 0..draws {
        counts[sampler.pick(logits).unwrap() as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn draws_follow_the_distribution_that_the_filters_leave() {
    let p = [0.4, 0.3, 0.2, 0.1];
    let base = SamplerOptions { temperature: 1.0, seed: 5, ..Default::default() };
    let cases = [
        (base.clone(), [0.4, 0.3, 0.2, 0.1]),
        (SamplerOptions { top_k: 2, ..base.clone() }, [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]),
        (SamplerOptions { top_p: 0.65, ..base.clone() }, [4.0 / 7.0, 3.0 / 7.0, 0.0, 0.0]),
        (SamplerOptions { top_p: 1.0, ..base.clone() }, [0.4, 0.3, 0.2, 0.1]),
        (SamplerOptions { min_p: 0.45, ..base.clone() }, [4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0, 0.0]),
        // At temperature ½ the probabilities are squared.
        (
            SamplerOptions { temperature: 0.5, ..base.clone() },
            [0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3, 0.01 / 0.3],
        ),
    ];
    let n = 20_000;
    for (options, expected) in cases {
        let seen = frequencies(&options, &logits(&p), n);
        for (byte, &q) in expected.iter().enumerate() {
            // Five standard deviations of a fraction.
            let bound = 5.0 * (q * (1.0 - q) / n as f64).sqrt();
            assert!(
                (seen[byte] - q).abs() <= bound + 1e-9,
                "{options:?}: byte {byte}: {} for {q}",
                seen[byte]
            );
        }
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let mut logits = [0.0; VOCAB];
    logits[7] = 1.0;
    logits[9] = 1.0;
    assert_eq!(Sampler::greedy().pick(&logits).unwrap(), 7);
    let top_1 = SamplerOptions { temperature: 2.0, top_k: 1, ..Default::default() };
    assert_eq!(Sampler::new(&top_1).unwrap().pick(&logits).unwrap(), 7);
}

#[test]
fn the_same_seed_draws_the_same_bytes() {
    let options = SamplerOptions { temperature: 1.0, seed: 3, ..Default::default() };
    let logits = [0.0; VOCAB];
    let mut sampler = Sampler::new(&options).unwrap();
    let first: Vec<u8> = (0..32).map(|_| sampler.pick(&logits).unwrap()).collect();
    sampler.reset(3);
    let again: Vec<u8> = (0..32).map(|_| sampler.pick(&logits).unwrap()).collect();
    assert_eq!(first, again);
    sampler.reset(4);
    assert_ne!(first, (0..32).map(|_| sampler.pick(&logits).unwrap()).collect::<Vec<_>>());
}

#[test]
fn bad_options_and_logits_are_named() {
    for (name, options) in [
        ("temperature", SamplerOptions { temperature: -1.0, ..Default::default() }),
        ("top_p", SamplerOptions { top_p: 1.5, ..Default::default() }),
        ("min_p", SamplerOptions { min_p: f32::NAN, ..Default::default() }),
        ("typical_p", SamplerOptions { typical_p: -0.5, ..Default::default() }),
        ("repeat_penalty", SamplerOptions { repeat_penalty: -1.0, ..Default::default() }),
        ("frequency_penalty", SamplerOptions { frequency_penalty: f32::INFINITY, ..Default::default() }),
        ("presence_penalty", SamplerOptions { presence_penalty: f32::NAN, ..Default::default() }),
        ("mirostat_tau", SamplerOptions { mirostat_tau: f32::NAN, ..Default::default() }),
        ("mirostat_eta", SamplerOptions { mirostat_eta: -0.1, ..Default::default() }),
        ("penalty_window", SamplerOptions { penalty_window: usize::MAX, ..Default::default() }),
        ("bias of byte 3", SamplerOptions { bias: Some(bias(&[(3, f32::NAN)])), ..Default::default() }),
    ] {
        assert!(Sampler::new(&options).unwrap_err().message().contains(name));
    }
    let mut logits = [0.0; VOCAB];
    logits[65] = f32::NAN;
    assert!(Sampler::greedy().pick(&logits).unwrap_err().message().contains("byte 65"));
    let error = Sampler::greedy().pick(&[f32::NEG_INFINITY; VOCAB]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadEnd);
}

fn bias(values: &[(usize, f32)]) -> Box<[f32; VOCAB]> {
    let mut bias = Box::new([0.0; VOCAB]);
    values.iter().for_each(|&(byte, value)| bias[byte] = value);
    bias
}

fn with_grammar(kind: GrammarKind, source: &str) -> SamplerOptions {
    SamplerOptions {
        temperature: 1.0,
        grammar: Some(Grammar::new(kind, source).unwrap()),
        ..Default::default()
    }
}

/// The whole chain from its description, in f64 and with no thought of speed: each byte's probability. `None` where a
/// comparison is too near to be decided alike in f32.
fn by_definition(options: &SamplerOptions, logits: &[f32; VOCAB], past: &[u8]) -> Option<Vec<f64>> {
    let mut logits: Vec<f64> = logits.iter().map(|l| *l as f64).collect();
    if let Some(bias) = &options.bias {
        logits.iter_mut().zip(&bias[..]).for_each(|(l, b)| *l += *b as f64);
    }
    let window = &past[past.len().saturating_sub(options.penalty_window)..];
    for (byte, logit) in logits.iter_mut().enumerate() {
        let count = window.iter().filter(|b| **b as usize == byte).count() as f64;
        if count > 0.0 {
            let repeat = if options.repeat_penalty == 0.0 { 1.0 } else { options.repeat_penalty as f64 };
            *logit = if *logit > 0.0 { *logit / repeat } else { *logit * repeat };
            *logit -= count * options.frequency_penalty as f64 + options.presence_penalty as f64;
        }
    }
    let normalized = |p: Vec<f64>| {
        let sum: f64 = p.iter().sum();
        p.into_iter().map(|v| v / sum).collect::<Vec<f64>>()
    };
    let mut p = normalized(logits.iter().map(|l| (l / options.temperature as f64).exp()).collect());
    let mut near = false;
    let mut keep = |p: Vec<f64>, order: Vec<usize>, keys: &dyn Fn(usize) -> f64, reach: f64, most: usize| {
        let (mut sum, mut out) = (0.0, vec![0.0; VOCAB]);
        for (i, &byte) in order.iter().enumerate() {
            if i >= most || sum >= reach {
                near |= (keys(byte) - keys(order[i - 1])).abs() < 1e-4 && p[byte] > 0.0;
                near |= i < most && (sum - reach).abs() < 1e-5;
                break;
            }
            near |= i < most && (sum - reach).abs() < 1e-5;
            sum += p[byte];
            out[byte] = p[byte];
        }
        normalized(out)
    };
    let sorted = |key: &dyn Fn(usize) -> f64| {
        let mut order: Vec<usize> = (0..VOCAB).collect();
        order.sort_by(|a, b| key(*a).total_cmp(&key(*b)).then(a.cmp(b)));
        order
    };
    let on = |v: f32| v != 0.0 && v != 1.0;
    if options.top_k > 0 {
        let before = p.clone();
        let key = |b: usize| -before[b].ln();
        p = keep(p, sorted(&key), &key, 2.0, options.top_k as usize);
    }
    if on(options.typical_p) {
        let before = p.clone();
        let entropy: f64 = p.iter().filter(|v| **v > 0.0).map(|v| -v * v.ln()).sum();
        let key = |b: usize| if before[b] > 0.0 { (-before[b].ln() - entropy).abs() } else { f64::MAX };
        p = keep(p, sorted(&key), &key, options.typical_p as f64, VOCAB);
    }
    if on(options.top_p) {
        let before = p.clone();
        let key = |b: usize| -before[b].ln();
        p = keep(p, sorted(&key), &key, options.top_p as f64, VOCAB);
    }
    if options.min_p > 0.0 {
        let least = options.min_p as f64 * p.iter().copied().fold(0.0, f64::max);
        near |= p.iter().any(|v| *v > 0.0 && (v / least - 1.0).abs() < 1e-4);
        p = normalized(p.into_iter().map(|v| if v < least { 0.0 } else { v }).collect());
    }
    (!near).then_some(p)
}

proptest! {
    #[test]
    fn every_draw_is_the_one_of_the_definition(
        raw in prop::collection::vec(-6.0f32..3.0, VOCAB),
        past in prop::collection::vec(any::<u8>(), 0..600),
        seed: u64,
        temperature in 0.2f32..2.0,
        top_k in prop_oneof![Just(0u32), 1u32..300],
        (typical_p, top_p, min_p) in (
            prop_oneof![Just(0.0f32), 0.05f32..1.0],
            prop_oneof![Just(0.0f32), 0.05f32..1.0],
            prop_oneof![Just(0.0f32), 0.001f32..0.9],
        ),
        (penalty_window, repeat_penalty) in (0usize..700, prop_oneof![Just(0.0f32), 0.5f32..2.0]),
        (frequency_penalty, presence_penalty) in (-0.5f32..0.5, -1.0f32..1.0),
        banned in prop::collection::vec(0usize..256, 0..40),
    ) {
        let mut bias = bias(&[(1, 2.0), (2, -1.0)]);
        banned.iter().for_each(|b| bias[*b] = f32::NEG_INFINITY);
        let options = SamplerOptions {
            seed, temperature, top_k, typical_p, top_p, min_p, penalty_window, repeat_penalty,
            frequency_penalty, presence_penalty, bias: Some(bias), ..Default::default()
        };
        let logits: [f32; VOCAB] = raw.try_into().unwrap();
        let mut sampler = Sampler::new(&options).unwrap();
        past.iter().for_each(|b| sampler.accept(*b).unwrap());
        let mut past = past;
        for draw in 0..4 {
            let byte = sampler.pick(&logits).unwrap();
            if let Some(p) = by_definition(&options, &logits, &past) {
                let unit = unit_f32(words(seed, Stream::Sample, 0, draw)[0]) as f64;
                let before: f64 = p[..byte as usize].iter().sum();
                prop_assert!(
                    p[byte as usize] > 0.0 && before <= unit + 1e-4 && unit <= before + p[byte as usize] + 1e-4,
                    "draw {} of byte {}: {} at {} of {}", draw, byte, p[byte as usize], unit, before
                );
            }
            past.push(byte);
        }
    }

    #[test]
    fn utf8_walks_are_well_formed(seed: u64, n in 1usize..200) {
        let options = SamplerOptions { seed, temperature: 1.0, utf8: true, ..Default::default() };
        let mut sampler = Sampler::new(&options).unwrap();
        let mut text = Vec::new();
        for _ in 0..n {
            let (mask, complete) = sampler.allowed();
            prop_assert_eq!(complete, std::str::from_utf8(&text).is_ok());
            let byte = sampler.pick(&[0.0; VOCAB]).unwrap();
            prop_assert!(mask[byte as usize / 8] >> (byte % 8) & 1 != 0);
            text.push(byte);
            if let Err(error) = std::str::from_utf8(&text) {
                prop_assert_eq!(error.error_len(), None);
            }
        }
    }
}

#[test]
fn mirostat_keeps_the_surprise_where_it_is_told() {
    // A long-tailed distribution of 6.2 bits; each target is met on average.
    let p: Vec<f32> = (0..256).map(|b| 1.0 / (b as f32 + 3.0)).collect();
    let sum: f32 = p.iter().sum();
    let logits = logits(&p);
    for tau in [1.5f32, 3.0, 4.5] {
        let options = SamplerOptions {
            seed: 11,
            temperature: 1.0,
            mirostat_tau: tau,
            // Mirostat stands in place of this.
            top_k: 1,
            ..Default::default()
        };
        let mut sampler = Sampler::new(&options).unwrap();
        let n = 4000;
        let bits: f32 = (0..n).map(|_| -(p[sampler.pick(&logits).unwrap() as usize] / sum).log2()).sum();
        // The least that is possible is the surprise of the first byte.
        let target = tau.max(-(p[0] / sum).log2());
        assert!((bits / n as f32 - target).abs() < 0.1, "{tau}: {}", bits / n as f32);
    }
}

#[test]
fn mirostat_leaves_out_what_is_more_surprising_than_its_limit() {
    // The first limit is twice the target: 2 bits here, so that a quarter is the least probability.
    let options = SamplerOptions { temperature: 1.0, mirostat_tau: 1.0, ..Default::default() };
    let logits = logits(&[0.45, 0.3, 0.2, 0.05]);
    for seed in 0..200 {
        let mut sampler = Sampler::new(&SamplerOptions { seed, ..options.clone() }).unwrap();
        assert!(sampler.pick(&logits).unwrap() < 2);
    }
}

#[test]
fn a_grammar_and_a_bias_mask_what_may_come() {
    let mut options = with_grammar(GrammarKind::Regex, "[ab]c?");
    let mut sampler = Sampler::new(&options).unwrap();
    let bytes = |sampler: &Sampler| {
        let (mask, complete) = sampler.allowed();
        let set: Vec<u8> = (0..=255).filter(|b| mask[*b as usize / 8] >> (b % 8) & 1 != 0).collect();
        (set, complete)
    };
    assert_eq!(bytes(&sampler), (b"ab".to_vec(), false));
    assert!(b"ab".contains(&sampler.pick(&[0.0; VOCAB]).unwrap()));
    assert_eq!(bytes(&sampler), (b"c".to_vec(), true));
    assert!(!sampler.is_finished());
    assert_eq!(sampler.pick(&[0.0; VOCAB]).unwrap(), b'c');
    assert!(sampler.is_finished());
    let error = sampler.pick(&[0.0; VOCAB]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadEnd);
    assert!(error.message().contains("complete"));
    sampler.reset(0);
    assert_eq!(bytes(&sampler), (b"ab".to_vec(), false));
    options.bias = Some(bias(&[(b'a' as usize, f32::NEG_INFINITY)]));
    let mut sampler = Sampler::new(&options).unwrap();
    assert_eq!(bytes(&sampler).0, b"b");
    assert_eq!(sampler.accept(b'x').unwrap_err().kind(), ErrorKind::DeadEnd);
    assert_eq!(sampler.pick(&[0.0; VOCAB]).unwrap(), b'b');
    let mut none = [0.0; VOCAB];
    none[b'c' as usize] = f32::NEG_INFINITY;
    assert_eq!(sampler.pick(&none).unwrap_err().kind(), ErrorKind::DeadEnd);
    assert_eq!(sampler.pick(&[0.0; VOCAB]).unwrap(), b'c', "the failed pick changed nothing");
}

#[test]
fn a_failed_pick_changes_nothing() {
    let options = SamplerOptions {
        penalty_window: 4,
        repeat_penalty: 2.0,
        mirostat_tau: 3.0,
        utf8: true,
        ..with_grammar(GrammarKind::Regex, "(é|a)*")
    };
    let mut sampler = Sampler::new(&options).unwrap();
    for _ in 0..5 {
        sampler.pick(&[0.5; VOCAB]).unwrap();
    }
    let mut twin = sampler.clone();
    assert!(sampler.pick(&[f32::NAN; VOCAB]).is_err());
    assert!(sampler.pick(&[f32::NEG_INFINITY; VOCAB]).is_err());
    for _ in 0..50 {
        assert_eq!(sampler.pick(&[0.5; VOCAB]), twin.pick(&[0.5; VOCAB]));
    }
}

#[test]
fn the_end_byte_may_come_where_the_text_may_end() {
    let options = SamplerOptions { utf8: true, ..with_grammar(GrammarKind::Regex, "é+") };
    let mut sampler = Sampler::new(&options).unwrap();
    let mut logits = [0.0; VOCAB];
    // The model wants to end at once, with a byte that is no UTF-8.
    logits[0xFF] = 100.0;
    assert_eq!(sampler.choose(&logits, Some(0xFF)).unwrap(), 0xC3);
    assert_eq!(sampler.choose(&logits, Some(0xFF)).unwrap(), 0xA9);
    assert_eq!(sampler.clone().choose(&logits, None).unwrap(), 0xC3);
    assert_eq!(sampler.choose(&logits, Some(0xFF)).unwrap(), 0xFF);
    assert!(sampler.is_finished());
}

#[test]
fn the_end_byte_cuts_no_text_off() {
    let mut logits = [0.0; VOCAB];
    logits[0] = 100.0;
    logits[usize::from(b'x')] = 50.0;
    let mut sampler = Sampler::new(&with_grammar(GrammarKind::Regex, "\"[^\"]\"|\0a")).unwrap();
    assert_eq!(sampler.choose(&logits, Some(0)).unwrap(), b'"');
    // The class holds it, but the text would end in the midst.
    assert_eq!(sampler.clone().choose(&logits, None).unwrap(), 0);
    assert_eq!(sampler.choose(&logits, Some(0)).unwrap(), b'x');
    assert_eq!(sampler.choose(&logits, Some(0)).unwrap(), b'"');
    assert_eq!(sampler.choose(&logits, Some(0)).unwrap(), 0);
    // Where nothing else may come, it may.
    logits[usize::from(b'"')] = f32::NEG_INFINITY;
    sampler.reset(0);
    assert_eq!(sampler.choose(&logits, Some(0)).unwrap(), 0);
    assert_eq!(sampler.choose(&logits, Some(0)).unwrap(), b'a');
}

#[test]
fn the_tiniest_parts_keep_an_allowed_byte() {
    let tiny = f32::from_bits(1);
    // The likeliest byte is less typical than the many others, each of which has a little of the whole.
    let logits = std::array::from_fn(|b| match b {
        0..2 => f32::NEG_INFINITY,
        2 => 5.0,
        _ => 0.0,
    });
    let options = SamplerOptions { temperature: 1.0, typical_p: tiny, top_p: tiny, ..Default::default() };
    for options in [options.clone(), SamplerOptions { min_p: 1.0, ..options }] {
        for seed in 0..20 {
            let mut sampler = Sampler::new(&SamplerOptions { seed, ..options.clone() }).unwrap();
            assert!(sampler.pick(&logits).unwrap() >= 2);
        }
    }
}

#[test]
fn absurd_numbers_still_choose_an_allowed_byte() {
    let mut options = SamplerOptions {
        temperature: 1e-30,
        repeat_penalty: f32::MAX,
        frequency_penalty: f32::MAX,
        presence_penalty: f32::MAX,
        penalty_window: 3,
        bias: Some(bias(&[(5, f32::MAX)])),
        ..Default::default()
    };
    for (temperature, sign) in [(0.0, 1.0), (1e-30, 1.0), (f32::MAX, -1.0), (0.0, -1.0)] {
        options.temperature = temperature;
        options.frequency_penalty = sign * f32::MAX;
        let mut sampler = Sampler::new(&options).unwrap();
        let mut logits = [f32::NEG_INFINITY; VOCAB];
        [3, 5, 9].iter().for_each(|b| logits[*b] = if *b == 9 { f32::MIN } else { f32::MAX });
        for _ in 0..20 {
            assert!([3, 5, 9].contains(&sampler.pick(&logits).unwrap()));
        }
    }
}
