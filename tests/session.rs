//! What a session promises, for every kind of model.

mod common;

use common::{
    ALL, CAUSAL_MODERN, CAUSAL_PARALLEL, CAUSAL_PLAIN, random_model, random_model_on, relative_difference,
    some_bytes,
};
use grug::{
    Cancel, Error, ErrorKind, Grammar, GrammarKind, Overflow, Sampler, SamplerOptions, Session,
    SessionOptions, StopReason,
};

fn session(toml: &str) -> Session {
    Session::new(&random_model(toml), &SessionOptions::default()).unwrap()
}

fn logits_after(session: &mut Session, bytes: &[u8]) -> Vec<f32> {
    session.reset();
    session.feed(bytes).unwrap();
    session.logits().unwrap().to_vec()
}

fn sampler(seed: u64) -> Sampler {
    Sampler::new(&SamplerOptions { seed, temperature: 1.0, ..Default::default() }).unwrap()
}

#[test]
fn a_session_is_the_model_applied_to_its_context() {
    for (name, toml) in ALL {
        let mut session = session(toml);
        let window = session.model().config().window_bytes();
        for len in [8, window / 2, window] {
            let bytes = some_bytes(len, 3);
            let padded = if session.model().config().pad_short_input {
                [vec![0; window - len], bytes.clone()].concat()
            } else {
                bytes.clone()
            };
            let raw = session.model().raw_logits(&padded).unwrap();
            let difference = relative_difference(&logits_after(&mut session, &bytes), &raw);
            assert!(difference < 1e-5, "{name}, {len} bytes: {difference}");
        }
    }
}

#[test]
fn how_bytes_are_divided_into_calls_does_not_matter() {
    for (name, toml) in ALL {
        let mut session = session(toml);
        // Enough to slide a causal context three times.
        let bytes = some_bytes(60, 5);
        for end in [10, 24, 25, 37, 60] {
            let whole = logits_after(&mut session, &bytes[..end]);
            for chunk in [1, 7] {
                session.reset();
                for part in bytes[..end].chunks(chunk) {
                    session.feed(part).unwrap();
                }
                assert_eq!(session.position(), end as u64);
                let difference = relative_difference(session.logits().unwrap(), &whole);
                assert!(difference < 1e-5, "{name}, {end} bytes by {chunk}: {difference}");
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for (name, toml) in ALL {
        let bytes = some_bytes(20, 8);
        let mut results = [1, 2, 3].map(|threads| {
            let model = random_model_on(toml, threads);
            let mut session = Session::new(&model, &SessionOptions::default()).unwrap();
            logits_after(&mut session, &bytes)
        });
        let first = results[0].clone();
        assert!(results.iter_mut().all(|r| *r == first), "{name}");
    }
}

#[test]
fn a_causal_model_does_not_see_the_future() {
    for toml in [CAUSAL_PLAIN, CAUSAL_MODERN, CAUSAL_PARALLEL] {
        let mut session = session(toml);
        let bytes = some_bytes(20, 1);
        let mut nats = [0.0; 20];
        session.feed(&bytes[..1]).unwrap();
        session.score(&bytes[1..], Some(&mut nats[1..])).unwrap();
        let mut changed = bytes.clone();
        changed[12] ^= 255;
        let mut others = [0.0; 20];
        session.reset();
        session.feed(&changed[..1]).unwrap();
        session.score(&changed[1..], Some(&mut others[1..])).unwrap();
        assert_eq!(nats[..12], others[..12]);
        assert_ne!(nats[12..], others[12..]);
    }
}

#[test]
fn a_full_causal_context_starts_anew_from_its_latter_half() {
    let mut session = session(CAUSAL_PLAIN);
    let bytes = some_bytes(25, 2);
    let slid = logits_after(&mut session, &bytes);
    // 24 fit; for the 25th the context keeps 12 and takes in one more.
    let fresh = logits_after(&mut session, &bytes[12..]);
    assert!(relative_difference(&slid, &fresh) < 1e-5);
}

#[test]
fn a_full_context_is_an_error_where_asked_for() {
    for (name, toml) in ALL {
        let model = random_model(toml);
        let options = SessionOptions { overflow: Overflow::Error, ..Default::default() };
        let mut session = Session::new(&model, &options).unwrap();
        let window = model.config().window_bytes();
        session.feed(&some_bytes(window - 1, 1)).unwrap();
        assert_eq!(session.feed(b"ab").unwrap_err().kind(), ErrorKind::ContextFull, "{name}");
        assert_eq!(session.position(), window as u64 - 1);
        session.next(&mut Sampler::greedy()).unwrap();
        assert_eq!(
            session.next(&mut Sampler::greedy()).unwrap_err().kind(),
            ErrorKind::ContextFull,
            "{name}"
        );
        let (mut out, mut n) = ([0; 4], 9);
        let error = session.generate(&mut Sampler::greedy(), &[], &mut out, &mut n).unwrap_err();
        assert_eq!((error.kind(), n), (ErrorKind::ContextFull, 0));
    }
}

#[test]
fn the_implicit_zero_of_an_empty_session_takes_its_place_in_the_context() {
    for toml in [CAUSAL_PLAIN, common::BIDIRECTIONAL_PADDED] {
        let model = random_model(toml);
        let options = SessionOptions { overflow: Overflow::Error, ..Default::default() };
        let mut session = Session::new(&model, &options).unwrap();
        let bytes = some_bytes(model.config().window_bytes(), 1);
        assert_eq!(session.score(&bytes, None).unwrap_err().kind(), ErrorKind::ContextFull);
        assert_eq!(session.position(), 0);
        // The refused call has not begun a stream: all of them fit where they are fed.
        session.fork().unwrap().feed(&bytes).unwrap();
        session.score(&bytes[1..], None).unwrap();
        assert_eq!(session.next(&mut Sampler::greedy()).unwrap_err().kind(), ErrorKind::ContextFull);
    }
    let tiny = CAUSAL_PLAIN.replace("24", "1");
    let options = SessionOptions { overflow: Overflow::Error, ..Default::default() };
    let mut session = Session::new(&random_model(&tiny), &options).unwrap();
    assert_eq!(session.next(&mut Sampler::greedy()).unwrap_err().kind(), ErrorKind::ContextFull);
    session.logits().unwrap();
}

#[test]
fn score_is_what_the_logits_say() {
    for (name, toml) in ALL {
        let mut session = session(toml);
        let bytes = some_bytes(70, 4);
        let mut nats = vec![0.0; 60];
        session.feed(&bytes[..10]).unwrap();
        let total = session.score(&bytes[10..], Some(&mut nats)).unwrap();
        assert!((total - nats.iter().map(|&v| v as f64).sum::<f64>()).abs() < 1e-6);
        assert_eq!(session.position(), 70);
        let after = session.logits().unwrap().to_vec();
        session.reset();
        session.feed(&bytes[..10]).unwrap();
        for (i, &byte) in bytes[10..].iter().enumerate() {
            let logits = session.logits().unwrap();
            let sum: f64 = logits.iter().map(|&l| (l as f64).exp()).sum();
            let expected = sum.ln() - logits[byte as usize] as f64;
            assert!((nats[i] as f64 - expected).abs() < 1e-4, "{name}, byte {i}: {} {expected}", nats[i]);
            session.feed(&[byte]).unwrap();
        }
        assert!(relative_difference(session.logits().unwrap(), &after) < 1e-5, "{name}");
    }
}

#[test]
fn an_empty_session_starts_with_an_implicit_zero() {
    for (name, toml) in ALL {
        if name == "parallel" {
            // One byte is less than its aggregated stream can take: a clear error, and nothing changes.
            let error = session(toml).logits().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            continue;
        }
        let mut session = session(toml);
        let asked = session.logits().unwrap().to_vec();
        assert_eq!(session.position(), 0);
        let byte = session.next(&mut Sampler::greedy()).unwrap();
        let next = session.logits().unwrap().to_vec();
        assert_eq!(session.position(), 1);
        assert_eq!(logits_after(&mut session, &[0]), asked, "{name}");
        assert!(relative_difference(&logits_after(&mut session, &[0, byte]), &next) < 1e-5, "{name}");
    }
}

#[test]
fn generate_is_next_in_a_loop_and_the_seed_decides() {
    for (name, toml) in ALL {
        let mut session = session(toml);
        let run = |session: &mut Session, seed: u64, parts: usize| {
            session.reset();
            session.feed(b"some text").unwrap();
            let mut sampler = sampler(seed);
            let mut out = vec![0; 60];
            for part in out.chunks_mut(parts) {
                let mut n = 0;
                let reason = session.generate(&mut sampler, &[], part, &mut n).unwrap();
                assert_eq!((reason, n), (StopReason::Capacity, part.len()));
            }
            out
        };
        let whole = run(&mut session, 1, 60);
        assert_eq!(run(&mut session, 1, 7), whole, "{name}");
        assert_ne!(run(&mut session, 2, 60), whole, "{name}");
        session.reset();
        session.feed(b"some text").unwrap();
        let mut sampler = sampler(1);
        let single: Vec<u8> = (0..60).map(|_| session.next(&mut sampler).unwrap()).collect();
        assert_eq!(single, whole, "{name}");
    }
}

#[test]
fn a_stop_sequence_may_span_calls_and_is_included() {
    let mut session = session(CAUSAL_MODERN);
    let generate = |session: &mut Session, stops: &[&[u8]], capacity: usize| {
        let (mut out, mut n) = (vec![0; capacity], 0);
        let mut text = Vec::new();
        let mut sampler = sampler(9);
        session.reset();
        session.feed(b"abcdefgh").unwrap();
        loop {
            let reason = session.generate(&mut sampler, stops, &mut out, &mut n).unwrap();
            text.extend_from_slice(&out[..n]);
            if reason == StopReason::Sequence || text.len() >= 40 {
                return (reason, text);
            }
        }
    };
    let (_, text) = generate(&mut session, &[], 40);
    let stop = &text[20..24];
    let expected = text.windows(4).position(|w| w == stop).unwrap() + 4;
    for capacity in [1, 3, 40] {
        let (reason, stopped) = generate(&mut session, &[b"not there", stop], capacity);
        assert_eq!((reason, &stopped[..]), (StopReason::Sequence, &text[..expected]), "capacity {capacity}");
    }
    let (mut out, mut n) = ([0; 4], 0);
    let error = session.generate(&mut sampler(1), &[b""], &mut out, &mut n).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn cancelling_keeps_the_session_usable() {
    for (name, toml) in ALL {
        let model = random_model(toml);
        let cancel = Cancel::new();
        let options = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
        let mut session = Session::new(&model, &options).unwrap();
        session.feed(&some_bytes(10, 1)).unwrap();
        let mut generator = sampler(4);
        session.next(&mut generator).unwrap();
        let mut reference = generator.clone();
        cancel.trigger();
        assert_eq!(session.next(&mut generator).unwrap_err().kind(), ErrorKind::Canceled, "{name}");
        assert_eq!(session.position(), 11);
        cancel.reset();
        // The cancelled call used up no draw.
        let byte = session.next(&mut generator).unwrap();
        let logits = session.logits().unwrap().to_vec();
        assert_eq!(session.position(), 12);
        session.reset();
        session.feed(&some_bytes(10, 1)).unwrap();
        session.next(&mut sampler(4)).unwrap();
        assert_eq!(session.next(&mut reference).unwrap(), byte, "{name}");
        assert!(relative_difference(session.logits().unwrap(), &logits) < 1e-5);
    }
}

#[test]
fn a_cancelled_feed_holds_what_position_says() {
    let model = random_model(CAUSAL_PLAIN);
    let cancel = Cancel::new();
    let options = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
    let mut session = Session::new(&model, &options).unwrap();
    session.feed(b"abc").unwrap();
    cancel.trigger();
    assert_eq!(session.feed(b"defg").unwrap_err().kind(), ErrorKind::Canceled);
    assert_eq!(session.position(), 3);
    cancel.reset();
    session.feed(b"x").unwrap();
    let logits = session.logits().unwrap().to_vec();
    assert!(relative_difference(&logits_after(&mut session, b"abcx"), &logits) < 1e-5);
}

#[test]
fn a_cancelled_session_starts_nothing() {
    let model = random_model(CAUSAL_PLAIN);
    let cancel = Cancel::new();
    let options = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
    let canceled = |result: Result<(), Error>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Canceled);
    for fed in ["", "abc"] {
        let mut session = Session::new(&model, &options).unwrap();
        session.feed(fed.as_bytes()).unwrap();
        if !fed.is_empty() {
            // They are there already.
            session.logits().unwrap();
        }
        let before = session.save();
        cancel.trigger();
        canceled(session.logits().map(|_| ()));
        canceled(session.embedding().map(|_| ()));
        canceled(session.next(&mut sampler(1)).map(|_| ()));
        canceled(session.score(b"x", None).map(|_| ()));
        cancel.reset();
        assert!(session.save() == before, "after {fed:?}");
    }
}

#[test]
fn a_smaller_context_is_for_causal_models() {
    let options = SessionOptions { max_context: 10, ..Default::default() };
    let mut small = Session::new(&random_model(CAUSAL_PLAIN), &options).unwrap();
    let mut full = session(CAUSAL_PLAIN);
    let bytes = some_bytes(10, 6);
    assert!(relative_difference(&logits_after(&mut small, &bytes), &logits_after(&mut full, &bytes)) < 1e-5);
    let error = Session::new(&random_model(common::PARALLEL), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let too_much = SessionOptions { max_context: 25, ..Default::default() };
    let error = Session::new(&random_model(CAUSAL_PLAIN), &too_much).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// Options of a sampler that keeps to a grammar.
fn constrained(kind: GrammarKind, source: &str, seed: u64) -> SamplerOptions {
    let grammar = Some(Grammar::new(kind, source).unwrap());
    SamplerOptions { seed, temperature: 1.0, grammar, ..Default::default() }
}

#[test]
fn generation_stops_where_a_grammar_is_complete() {
    for (name, toml) in ALL {
        let mut session = session(toml);
        session.feed(b"some text").unwrap();
        let options = constrained(GrammarKind::Regex, "[0-9]{3}-(é|x){2}", 3);
        for capacity in [1, 4, 100] {
            let mut sampler = Sampler::new(&options).unwrap();
            let mut text = Vec::new();
            loop {
                let (mut out, mut n) = (vec![0; capacity], 0);
                let reason = session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
                text.extend_from_slice(&out[..n]);
                if reason == StopReason::Grammar {
                    break;
                }
                assert_eq!((reason, n), (StopReason::Capacity, capacity));
            }
            assert!(options.grammar.as_ref().unwrap().matches(&text), "{name}: {text:?}");
            let (mut out, mut n) = ([0; 3], 9);
            let again = session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
            assert_eq!((again, n), (StopReason::Grammar, 0));
            assert_eq!(session.next(&mut sampler).unwrap_err().kind(), ErrorKind::DeadEnd);
        }
    }
}

#[test]
fn an_untrained_model_writes_valid_json_under_a_schema() {
    let schema = r#"{"type": "object", "required": ["name", "tags"], "properties": {
        "name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "b", null]}, "maxItems": 3}}}"#;
    let mut session = session(CAUSAL_MODERN);
    for seed in 0..8 {
        session.reset();
        let mut sampler = Sampler::new(&constrained(GrammarKind::JsonSchema, schema, seed)).unwrap();
        let (mut out, mut n) = ([0; 1000], 0);
        let reason = session.generate(&mut sampler, &[], &mut out, &mut n).unwrap();
        assert_eq!(reason, StopReason::Grammar);
        let value: serde_json::Value = serde_json::from_slice(&out[..n]).unwrap();
        assert!(value["name"].as_str().unwrap().chars().count() <= 8);
        assert!(value["tags"].as_array().unwrap().len() <= 3);
    }
}
