//! Any text as a grammar of any kind: an error, or an automaton whose walks are never stuck.
#![no_main]

use grug::{Grammar, GrammarKind, Sampler, SamplerOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, u64, &str)| {
    let (kind, mut random, source) = data;
    let kind = [GrammarKind::Regex, GrammarKind::Gbnf, GrammarKind::JsonSchema][kind as usize % 3];
    let Ok(grammar) = Grammar::new(kind, source) else { return };
    let options = SamplerOptions { grammar: Some(grammar.clone()), ..Default::default() };
    let Ok(mut sampler) = Sampler::new(&options) else { panic!("what compiled has a walk") };
    let mut text = Vec::new();
    for _ in 0..100 {
        let (mask, complete) = sampler.allowed();
        let allowed: Vec<u8> = (0..=255).filter(|b| mask[*b as usize / 8] >> (b % 8) & 1 != 0).collect();
        if complete {
            assert!(grammar.matches(&text));
        }
        let Some(&byte) = allowed.get(random as usize % allowed.len().max(1)) else {
            assert!(complete, "stuck");
            return;
        };
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407).rotate_left(17);
        // Too ambiguous, or too deep: an error, and no change.
        if sampler.accept(byte).is_err() {
            assert_eq!(sampler.allowed(), (mask, complete));
            return;
        }
        text.push(byte);
    }
});
