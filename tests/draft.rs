//! Drafts change nothing but the time that it takes.

mod common;

use common::{ALL, CAUSAL_PARALLEL, random_models, some_bytes};
use grug::quantize::Target;
use grug::{
    Cancel, Drafts, ErrorKind, Grammar, GrammarKind, Model, Overflow, Sampler, SamplerOptions, Session,
    SessionOptions, Step, next_batch,
};

/// Wide enough that instruction sets use all their ways of taking rows together.
const WIDER: &str = "context_bytes = 96\nembedding_dim = 80\nd_model = 80\nn_heads = 4\nn_kv_heads = 2\nn_layers = 2\n\
     positions = \"rotary\"\nnorm_first = true\nattention_window = 40\nffn_activation = \"swiglu\"\n";

/// Two convolutions in front, and both of them remember.
const CONVOLVED: &str = "context_bytes = 80\nembedding_dim = 24\nd_model = 32\nn_heads = 2\nn_layers = 1\n\
     positions = \"rotary\"\nnorm_first = true\n\
     conv_frontend = { channels = [20, 28], kernels = [4, 3] }\n";

/// Parallel streams, of which the coarse one runs several times in a draft.
const PARALLEL_STREAMS: &str = "context_bytes = 80\nembedding_dim = 24\nd_model = 32\nn_heads = 2\nn_layers = 1\n\
     positions = \"sinusoidal\"\nnorm_first = true\nconv_frontend = { channels = [20], kernels = [2] }\n\
     aggregated_stream = { d_model = 24, n_layers = 2, kernel = 6, stride = 4 }\n";

/// GPT-2's shape.
const LEARNED: &str = "context_bytes = 64\nembedding_dim = 48\nd_model = 48\nn_heads = 3\nn_layers = 2\n\
     positions = \"learned\"\nmax_positions = 64\nnorm_first = true\n";

fn models(toml: &str) -> Vec<(String, Model)> {
    random_models(
        toml,
        &[(None, 1), (None, 2), (Some(Target::F16), 1), (Some(Target::Int8), 2), (Some(Target::Int4), 1)],
    )
}

fn session(model: &Model, drafts: Drafts) -> Session {
    Session::new(model, &SessionOptions { drafts, ..Default::default() }).unwrap()
}

/// Those with room for long drafts.
const LONGER: [(&str, &str); 4] = [
    ("wider", WIDER),
    ("learned", LEARNED),
    ("convolved", CONVOLVED),
    ("parallel streams", PARALLEL_STREAMS),
];

/// Samplers whose choices depend on all that came before.
fn samplers() -> Vec<SamplerOptions> {
    let warm = SamplerOptions { seed: 5, temperature: 0.7, ..Default::default() };
    // The letters of the text that is drafted from, so that drafts come true.
    let grammar = Some(Grammar::new(GrammarKind::Regex, "([a-e]|[ ,][a-e])*").unwrap());
    vec![
        SamplerOptions::default(),
        warm.clone(),
        SamplerOptions { top_k: 4, top_p: 0.95, min_p: 0.02, ..warm.clone() },
        SamplerOptions {
            penalty_window: 12,
            repeat_penalty: 1.2,
            frequency_penalty: 0.2,
            presence_penalty: 0.1,
            ..warm.clone()
        },
        SamplerOptions { mirostat_tau: 3.0, ..warm.clone() },
        SamplerOptions { grammar, utf8: true, ..warm },
    ]
}

/// A text that repeats itself, so that there is much to draft.
fn repetitive(n: usize) -> Vec<u8> {
    b"abcde, abcde, abcabc, eddie, ".iter().copied().cycle().take(n).collect()
}

fn bits(session: &mut Session) -> Vec<u32> {
    session.logits().unwrap().iter().map(|l| l.to_bits()).collect()
}

#[test]
fn the_same_seed_writes_the_same_with_and_without() {
    for (name, toml) in ALL.into_iter().chain(LONGER) {
        let is_longer = LONGER.contains(&(name, toml));
        for (kind, model) in models(toml).into_iter().take(if is_longer { 5 } else { 1 }) {
            for options in samplers() {
                let run = |drafts| {
                    let mut session = session(&model, drafts);
                    let mut sampler = Sampler::new(&options).unwrap();
                    session.feed(&repetitive(40)).unwrap();
                    // In pieces, beyond the end of the context.
                    let mut text = Vec::new();
                    for len in [1, 7, 40, 30] {
                        let (mut out, mut n) = (vec![0; len], 0);
                        let reason =
                            session.generate(&mut sampler, &[b"dde", b"aa"], &mut out, &mut n).unwrap();
                        text.push((reason, out[..n].to_vec()));
                    }
                    let logits = bits(&mut session);
                    (text, logits, session.embedding().unwrap().to_vec(), session.position(), session.save())
                };
                let (with, without) = (run(Drafts::Auto), run(Drafts::Off));
                assert!(with == without, "{name} {kind} {options:?}:\n{:?}\n{:?}", with.0, without.0);
            }
        }
    }
}

#[test]
fn drafts_come_true_where_text_repeats() {
    for (name, toml) in ALL.into_iter().chain(LONGER) {
        let model = common::random_model(toml);
        let mut session = session(&model, Drafts::Auto);
        session.feed(b"abcabcabc").unwrap();
        // A model that always repeats.
        for i in 0..300 {
            let byte = b"abc"[i % 3] as usize;
            let bias = Box::new(std::array::from_fn(|b| if b == byte { 0.0 } else { f32::NEG_INFINITY }));
            let options = SamplerOptions { bias: Some(bias), ..Default::default() };
            session.next(&mut Sampler::new(&options).unwrap()).unwrap();
        }
        let (drafted, came) = session.drafted();
        assert!(
            if model.config().is_causal() { came > 0 && came <= drafted } else { drafted == 0 },
            "{name}: {came} of {drafted}"
        );
    }
}

#[test]
fn whatever_comes_in_place_of_a_draft_is_right() {
    // Streams that follow the drafts for a while and then do something else: feed, score, go back, fork, batch.
    for (name, toml) in LONGER.into_iter().chain([("causal parallel", CAUSAL_PARALLEL)]) {
        for (kind, model) in models(toml) {
            let mut with = session(&model, Drafts::Auto);
            let mut without = session(&model, Drafts::Off);
            let text = repetitive(400);
            for session in [&mut with, &mut without] {
                session.feed(&text[..30]).unwrap();
            }
            let mut at = 30;
            for round in 0..60usize {
                // Every byte is asked for and then given, which is what a draft is for.
                for _ in 0..round % 7 {
                    let byte = text[at % text.len()];
                    at += 1;
                    let given = Sampler::new(&SamplerOptions {
                        bias: Some(Box::new(std::array::from_fn(|b| {
                            if b == byte as usize { 0.0 } else { f32::NEG_INFINITY }
                        }))),
                        ..Default::default()
                    })
                    .unwrap();
                    for session in [&mut with, &mut without] {
                        assert_eq!(session.next(&mut given.clone()).unwrap(), byte);
                    }
                }
                let (mut forked, mut nats) = (with.fork().unwrap(), ([0.0; 5], [0.0; 5]));
                match round % 6 {
                    0 => {
                        let bytes = some_bytes(round % 5, round as u32);
                        with.feed(&bytes).unwrap();
                        without.feed(&bytes).unwrap();
                    }
                    1 => {
                        with.score(b"cabde", Some(&mut nats.0)).unwrap();
                        without.score(b"cabde", Some(&mut nats.1)).unwrap();
                        assert_eq!(nats.0, nats.1);
                    }
                    2 => {
                        with.rewind(round as u64 % 9).unwrap();
                        without.rewind(round as u64 % 9).unwrap();
                    }
                    3 => assert!(bits(&mut forked) == bits(&mut without), "{name} {kind}: a fork"),
                    4 => {
                        let (mut a, mut b) = (Sampler::greedy(), Sampler::greedy());
                        let mut steps = [
                            Step { session: &mut with, sampler: &mut a, input: None },
                            Step { session: &mut without, sampler: &mut b, input: None },
                        ];
                        let mut bytes = [Ok(0), Ok(1)];
                        next_batch(&mut steps, &mut bytes).unwrap();
                        assert_eq!(bytes[0], bytes[1]);
                    }
                    _ => with = forked,
                }
                assert_eq!(with.position(), without.position());
                if round % 2 == 0 {
                    assert!(bits(&mut with) == bits(&mut without), "{name} {kind}: round {round}");
                    assert_eq!(with.embedding().unwrap(), without.embedding().unwrap());
                }
            }
        }
    }
}

#[test]
fn cancelling_and_full_contexts_are_as_without_drafts() {
    let (_, model) = models(LEARNED).swap_remove(0);
    for drafts in [Drafts::Auto, Drafts::Off] {
        let cancel = Cancel::new();
        let options = SessionOptions {
            drafts,
            overflow: Overflow::Error,
            cancel: Some(cancel.clone()),
            ..Default::default()
        };
        let mut session = Session::new(&model, &options).unwrap();
        session.feed(&repetitive(50)).unwrap();
        let mut sampler = Sampler::greedy();
        let (mut out, mut n) = ([0; 6], 0);
        session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
        cancel.trigger();
        let error = session.generate(&mut sampler, &[], &mut out, &mut n).unwrap_err();
        assert_eq!((error.kind(), n, session.position()), (ErrorKind::Canceled, 0, 56));
        cancel.reset();
        let (mut out, mut n) = ([0; 20], 0);
        let error = session.generate(&mut sampler, &[], &mut out, &mut n).unwrap_err();
        assert_eq!((error.kind(), n, session.position()), (ErrorKind::ContextFull, 8, 64));
    }
}
