//! Sessions that step together get the bits that each would get alone.

mod common;

use common::{ALL, CAUSAL_MODERN, CAUSAL_PARALLEL, CAUSAL_PLAIN, random_models, some_bytes};
use grug::quantize::Target;
use grug::{
    Cancel, Error, ErrorKind, Grammar, GrammarKind, Model, Overflow, Sampler, SamplerOptions, Session,
    SessionOptions, Step, next_batch,
};

/// A causal model with sinusoidal positions, an activation of its own.
const CAUSAL_SINUSOIDAL: &str = "context_bytes = 24\nembedding_dim = 48\nd_model = 32\nn_heads = 2\nn_layers = 2\n\
     positions = \"sinusoidal\"\nnorm_first = true\nffn_activation = \"relu2\"\n";

/// The model in every kind of weights, on one and on two threads.
fn models(toml: &str) -> Vec<(String, Model)> {
    random_models(
        toml,
        &[(None, 1), (Some(Target::F16), 2), (Some(Target::Int8), 1), (Some(Target::Int4), 2)],
    )
}

/// Samplers of many kinds.
fn sampler(i: usize) -> Sampler {
    let seed = i as u64;
    let options = match i % 6 {
        0 => SamplerOptions::default(),
        1 => SamplerOptions { seed, temperature: 1.0, ..Default::default() },
        2 => SamplerOptions { seed, temperature: 0.8, top_k: 20, top_p: 0.9, ..Default::default() },
        3 => SamplerOptions {
            seed,
            temperature: 1.2,
            penalty_window: 16,
            repeat_penalty: 1.3,
            frequency_penalty: 0.1,
            ..Default::default()
        },
        4 => SamplerOptions { seed, temperature: 1.0, mirostat_tau: 5.0, ..Default::default() },
        _ => SamplerOptions {
            seed,
            temperature: 1.0,
            grammar: Some(Grammar::new(GrammarKind::Regex, "([a-z]+ ?)*").unwrap()),
            utf8: true,
            ..Default::default()
        },
    };
    Sampler::new(&options).unwrap()
}

fn bits(session: &mut Session) -> Vec<u32> {
    session.logits().unwrap().iter().map(|l| l.to_bits()).collect()
}

#[test]
fn a_batch_is_each_session_alone_bit_by_bit() {
    for (name, toml) in ALL.into_iter().chain([("causal sinusoidal", CAUSAL_SINUSOIDAL)]) {
        for (kind, model) in models(toml) {
            // More than the aggregated stream's scratch has rows for, at different positions, of different lengths.
            let mut together: Vec<(Session, Sampler)> = (0..11)
                .map(|i| {
                    let shorter = model.config().is_causal() && i % 3 == 1;
                    let max_context = if shorter { 17 } else { 0 };
                    let options = SessionOptions { max_context, ..Default::default() };
                    let mut session = Session::new(&model, &options).unwrap();
                    // The first begins with the implicit byte 0, where the model can.
                    let first = if name == "parallel" { 8 } else { 0 };
                    session.feed(&some_bytes(first + i * 3, i as u32)).unwrap();
                    (session, sampler(i))
                })
                .collect();
            let mut alone: Vec<(Session, Sampler)> = together
                .iter()
                .map(|(session, sampler)| (session.fork().unwrap(), sampler.clone()))
                .collect();
            // Long enough that every causal context slides.
            for step in 0..40usize {
                // Some come and go, and some are fed.
                let input = |i: usize| ((i + step).is_multiple_of(7)).then_some((step * 13 + i) as u8);
                let rests = |i: usize| (i * 5 + step).is_multiple_of(11);
                let mut steps: Vec<_> = together
                    .iter_mut()
                    .enumerate()
                    .filter(|(i, _)| !rests(*i))
                    .map(|(i, (session, sampler))| Step { session, sampler, input: input(i) })
                    .collect();
                let mut bytes = vec![Ok(0); steps.len()];
                next_batch(&mut steps, &mut bytes).unwrap();
                let mut bytes = bytes.into_iter();
                for (i, (session, sampler)) in alone.iter_mut().enumerate().filter(|(i, _)| !rests(*i)) {
                    let expected = match input(i) {
                        Some(input) => session.feed(&[input]).map(|()| input),
                        None => session.next(sampler),
                    };
                    assert_eq!(
                        bytes.next().unwrap().unwrap(),
                        expected.unwrap(),
                        "{name} {kind}: step {step}, session {i}"
                    );
                }
            }
            for (i, ((together, _), (alone, _))) in together.iter_mut().zip(&mut alone).enumerate() {
                assert_eq!(together.position(), alone.position());
                assert!(bits(together) == bits(alone), "{name} {kind}: session {i}");
                assert_eq!(together.embedding().unwrap(), alone.embedding().unwrap());
                // What is remembered beside the logits is the same too.
                alone.rewind(5).unwrap();
                together.rewind(5).unwrap();
                assert!(bits(together) == bits(alone), "{name} {kind}: session {i}, rewound");
            }
        }
    }
}

#[test]
fn what_goes_wrong_in_one_session_spoils_no_other() {
    for toml in [CAUSAL_PLAIN, CAUSAL_MODERN, CAUSAL_PARALLEL] {
        let model = common::random_model(toml);
        let cancel = Cancel::new();
        let full = SessionOptions { overflow: Overflow::Error, ..Default::default() };
        let stopped = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
        let all = [full, stopped, SessionOptions::default(), SessionOptions::default()];
        let mut sessions: Vec<Session> = all
            .iter()
            .enumerate()
            .map(|(i, options)| {
                let mut session = Session::new(&model, options).unwrap();
                session.feed(&some_bytes(if i == 0 { 24 } else { 5 + i }, i as u32)).unwrap();
                session
            })
            .collect();
        let mut samplers: Vec<Sampler> = (0..4).map(|_| Sampler::greedy()).collect();
        // The third may write nothing.
        let nothing = Grammar::new(GrammarKind::Regex, "a").unwrap();
        samplers[2] = Sampler::new(&SamplerOptions { grammar: Some(nothing), ..Default::default() }).unwrap();
        samplers[2].accept(b'a').unwrap();
        let mut alone = sessions[3].fork().unwrap();
        cancel.trigger();
        let run = |sessions: &mut [Session], samplers: &mut [Sampler]| -> Vec<Result<u8, Error>> {
            let mut steps: Vec<_> = sessions
                .iter_mut()
                .zip(samplers)
                .map(|(session, sampler)| Step { session, sampler, input: None })
                .collect();
            let mut bytes = vec![Ok(0); steps.len()];
            next_batch(&mut steps, &mut bytes).unwrap();
            bytes
        };
        for _ in 0..3 {
            let bytes = run(&mut sessions, &mut samplers);
            let kinds: Vec<_> = bytes[..3].iter().map(|byte| byte.as_ref().unwrap_err().kind()).collect();
            assert_eq!(kinds, [ErrorKind::ContextFull, ErrorKind::Canceled, ErrorKind::DeadEnd]);
            assert_eq!(*bytes[3].as_ref().unwrap(), alone.next(&mut Sampler::greedy()).unwrap());
        }
        let positions: Vec<_> = sessions.iter().map(Session::position).collect();
        assert_eq!(positions, [24, 6, 7, 11]);
        // Whoever was stopped goes on as if nothing had been.
        cancel.reset();
        let mut fresh = Session::new(&model, &SessionOptions::default()).unwrap();
        fresh.feed(&some_bytes(6, 1)).unwrap();
        let bytes = run(&mut sessions, &mut samplers);
        assert_eq!(*bytes[1].as_ref().unwrap(), fresh.next(&mut Sampler::greedy()).unwrap());
        assert!(bits(&mut sessions[1]) == bits(&mut fresh));
    }
}

#[test]
fn a_batch_is_of_one_model() {
    let (one, other) = (common::random_model(CAUSAL_PLAIN), common::random_model(CAUSAL_PLAIN));
    let mut sessions = [&one, &other].map(|m| Session::new(m, &SessionOptions::default()).unwrap());
    let mut samplers = [Sampler::greedy(), Sampler::greedy()];
    let mut steps: Vec<_> = sessions
        .iter_mut()
        .zip(&mut samplers)
        .map(|(session, sampler)| Step { session, sampler, input: None })
        .collect();
    let error = next_batch(&mut steps, &mut [Ok(0), Ok(0)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = next_batch(&mut steps, &mut [Ok(0)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(steps.iter().all(|step| step.session.position() == 0));
}
