//! Forking, going back, saving, embeddings and batches, for every kind of model.

mod common;

use common::{
    ALL, CAUSAL_MODERN, CAUSAL_PARALLEL, CAUSAL_PLAIN, random_model, relative_difference, some_bytes,
};
use grug::checkpoint::Checkpoint;
use grug::{
    Cancel, ErrorKind, Model, ModelConfig, ModelOptions, Overflow, Sampler, SamplerOptions, Session,
    SessionOptions, Step, StopReason, next_batch,
};
use proptest::prelude::*;

fn session_of(model: &Model) -> Session {
    Session::new(model, &SessionOptions::default()).unwrap()
}

fn logits(session: &mut Session) -> Vec<f32> {
    session.logits().unwrap().to_vec()
}

fn sampler(seed: u64) -> Sampler {
    Sampler::new(&SamplerOptions { seed, temperature: 1.0, ..Default::default() }).unwrap()
}

fn write(session: &mut Session, seed: u64, n: usize) -> Vec<u8> {
    let (mut out, mut written) = (vec![0; n], 0);
    session.generate(&mut sampler(seed), &[], &mut out, &mut written).unwrap();
    out
}

/// What a session does next, as one comparable value: logits, and bytes that it writes across slides.
fn future(session: &Session) -> (Vec<f32>, Vec<u8>) {
    let mut session = session.fork().unwrap();
    (logits(&mut session), write(&mut session, 5, 40))
}

fn assert_same_future(a: &Session, b: &Session, what: &str) {
    assert_eq!(a.position(), b.position(), "{what}");
    let ((a, a_text), (b, b_text)) = (future(a), future(b));
    let difference = relative_difference(&a, &b);
    assert!(difference < 1e-5, "{what}: {difference}");
    assert_eq!(a_text, b_text, "{what}");
}

#[test]
fn a_fork_is_independent() {
    for (name, toml) in ALL {
        let mut session = session_of(&random_model(toml));
        session.feed(&some_bytes(20, 1)).unwrap();
        write(&mut session, 1, 30);
        let before = logits(&mut session);
        let mut fork = session.fork().unwrap();
        assert_eq!(fork.position(), 50);
        assert_eq!(logits(&mut fork), before, "{name}");
        let text = write(&mut fork, 3, 30);
        assert_eq!(logits(&mut session), before, "{name}: the fork moved its origin");
        assert_eq!(write(&mut session, 3, 30), text, "{name}");
    }
}

#[test]
fn rewinding_is_never_having_been_fed() {
    for (name, toml) in ALL {
        let model = random_model(toml);
        let window = model.rewind_bytes() as usize;
        let bytes = some_bytes(140, 9);
        // From and to places before, at and after each slide; by chunks and after a prediction or not.
        for from in [9, window, window + 1, 61, 140] {
            for back in [1, 3, window / 2, window - 1, window].into_iter().filter(|b| b + 6 <= from) {
                let mut session = session_of(&model);
                session.feed(&bytes[..from - 3]).unwrap();
                if from % 2 == 0 {
                    session.logits().unwrap();
                }
                bytes[from - 3..from].iter().for_each(|b| session.feed(&[*b]).unwrap());
                session.rewind(back as u64).unwrap();
                let mut fresh = session_of(&model);
                fresh.feed(&bytes[..from - back]).unwrap();
                assert_same_future(&session, &fresh, &format!("{name}: from {from} back {back}"));
                // And other bytes go on from there.
                session.feed(&some_bytes(7, 77)).unwrap();
                fresh.feed(&some_bytes(7, 77)).unwrap();
                assert_same_future(&session, &fresh, &format!("{name}: from {from} back {back} and on"));
            }
        }
    }
}

#[test]
fn rewinding_further_than_remembered_is_an_error_and_no_change() {
    for (name, toml) in ALL {
        let mut session = session_of(&random_model(toml));
        session.feed(&some_bytes(10, 2)).unwrap();
        assert_eq!(session.rewind(11).unwrap_err().kind(), ErrorKind::Rewind);
        session.rewind(10).unwrap();
        assert_eq!(session.position(), 0);
        session.feed(&some_bytes(2000, 2)).unwrap();
        let before = future(&session);
        assert_eq!(session.rewind(1990).unwrap_err().kind(), ErrorKind::Rewind, "{name}");
        assert_eq!((session.position(), future(&session)), (2000, before), "{name}");
        session.rewind(session.model().rewind_bytes()).unwrap();
    }
}

#[test]
fn what_was_generated_is_undone_with_its_part_of_a_stop_sequence() {
    let mut session = session_of(&random_model(CAUSAL_PLAIN));
    session.feed(b"abcdef").unwrap();
    let text = write(&mut session, 1, 6);
    session.rewind(4).unwrap();
    // The stop begins in a byte that is still there, and one that was fed does not count.
    let stop = [text[1], text[2]];
    let (mut out, mut n) = ([0; 8], 0);
    let mut bias_to = sampler(1);
    (0..2).for_each(|_| drop(bias_to.pick(&[0.0; 256])));
    let reason = session.generate(&mut bias_to, &[&stop], &mut out, &mut n).unwrap();
    assert_eq!((reason, &out[..n]), (StopReason::Sequence, &text[2..3]));
}

#[test]
fn what_was_fed_and_undone_leaves_stop_sequences_as_they_were() {
    let model = random_model(CAUSAL_PLAIN);
    let cancel = Cancel::new();
    let options = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
    let text = {
        let mut session = session_of(&model);
        session.feed(b"abcdef").unwrap();
        write(&mut session, 1, 6)
    };
    let meanwhile: [fn(&mut Session, &Cancel); 5] = [
        |session, _| session.feed(b"").unwrap(),
        |session, _| {
            session.feed(b"xyz").unwrap();
            session.rewind(3).unwrap();
        },
        |session, _| {
            session.score(b"xyz", None).unwrap();
            let mut fork = session.fork().unwrap();
            fork.rewind(3).unwrap();
            *session = fork;
        },
        |session, cancel| {
            cancel.trigger();
            session.feed(b"xyz").unwrap_err();
            session.score(b"xyz", None).unwrap_err();
            cancel.reset();
        },
        |session, _| {
            let (state, model) = (session.save(), session.model().clone());
            *session = session_of(&model);
            session.restore(&state).unwrap();
        },
    ];
    for (i, meanwhile) in meanwhile.iter().enumerate() {
        let mut session = Session::new(&model, &options).unwrap();
        session.feed(b"abcdef").unwrap();
        let mut generator = sampler(1);
        let (mut out, mut n) = ([0; 8], 0);
        session.generate(&mut generator, &[], &mut out[..3], &mut n).unwrap();
        meanwhile(&mut session, &cancel);
        let reason = session.generate(&mut generator, &[&text[1..4]], &mut out, &mut n).unwrap();
        assert_eq!((reason, &out[..n]), (StopReason::Sequence, &text[3..4]), "{i}");
    }
    // What was fed and is still there does not count.
    let mut session = session_of(&model);
    session.feed(b"abcdef").unwrap();
    let mut generator = sampler(1);
    (0..3).for_each(|_| _ = session.next(&mut generator).unwrap());
    session.feed(b"x").unwrap();
    let byte = session.fork().unwrap().next(&mut generator.clone()).unwrap();
    let (mut out, mut n) = ([0; 1], 0);
    let reason = session.generate(&mut generator, &[&[b'x', byte]], &mut out, &mut n).unwrap();
    assert_eq!((reason, out), (StopReason::Capacity, [byte]));
}

#[test]
fn a_cancelled_feed_takes_nothing_from_how_far_rewinding_works() {
    let toml = "context_bytes = 1024\nembedding_dim = 4\nd_model = 4\nn_heads = 1\nn_layers = 1\n\
        positions = \"rotary\"\nffn_multiplier = 1\n";
    let model = random_model(toml);
    let cancel = Cancel::new();
    let options = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
    for first in (1000..5000).step_by(190) {
        for more in [1, 300, 1000, 1024, 4000] {
            let mut session = Session::new(&model, &options).unwrap();
            session.feed(&some_bytes(first, 1)).unwrap();
            session.feed(&some_bytes(1024, 2)).unwrap();
            cancel.trigger();
            assert_eq!(session.feed(&some_bytes(more, 3)).unwrap_err().kind(), ErrorKind::Canceled);
            cancel.reset();
            let position = session.position();
            session.rewind(1024).unwrap_or_else(|e| panic!("{first} {more}: {e}"));
            assert_eq!(session.position(), position - 1024);
        }
    }
}

#[test]
fn saving_and_restoring_continues_the_stream() {
    for (name, toml) in ALL {
        let model = random_model(toml);
        for n in [0, 1, 9, 24, 25, 60, 3000] {
            let mut session = session_of(&model);
            session.feed(&some_bytes(n, 3)).unwrap();
            if n > 8 {
                write(&mut session, 2, 9);
            }
            let saved = session.save();
            assert!(saved.len() as u64 <= model.saved_session_bytes());
            let mut restored = session_of(&model);
            restored.feed(b"something else entirely").unwrap();
            restored.restore(&saved).unwrap();
            assert_eq!(restored.save(), saved);
            if n > 8 || toml != common::PARALLEL {
                assert_same_future(&session, &restored, name);
            }
            let back = model.rewind_bytes().min(session.position());
            restored.rewind(back).unwrap();
            session.rewind(back).unwrap();
            if session.position() > 8 {
                assert_same_future(&session, &restored, name);
            }
        }
    }
}

#[test]
fn an_implicit_start_is_saved() {
    let model = random_model(CAUSAL_MODERN);
    let mut session = session_of(&model);
    write(&mut session, 2, 5);
    let mut restored = session_of(&model);
    restored.restore(&session.save()).unwrap();
    assert_same_future(&session, &restored, "started");
    session.rewind(5).unwrap();
    restored.rewind(5).unwrap();
    assert_same_future(&session, &restored, "rewound to the start");
}

#[test]
fn a_state_of_another_model_or_context_is_a_mismatch() {
    let model = random_model(CAUSAL_PLAIN);
    let mut session = session_of(&model);
    session.feed(b"hello").unwrap();
    let saved = session.save();
    let mut other = session_of(&random_model(CAUSAL_MODERN));
    assert_eq!(other.restore(&saved).unwrap_err().kind(), ErrorKind::Mismatch);
    let options = SessionOptions { max_context: 12, ..Default::default() };
    let mut small = Session::new(&model, &options).unwrap();
    assert_eq!(small.restore(&saved).unwrap_err().kind(), ErrorKind::Mismatch);
    // The same weights in another file are the same model.
    session_of(&random_model(CAUSAL_PLAIN)).restore(&saved).unwrap();
}

#[test]
fn no_stream_is_so_long_that_its_position_overflows() {
    let mut session = session_of(&random_model(CAUSAL_PLAIN));
    session.feed(&some_bytes(100, 1)).unwrap();
    let mut state = session.save();
    let mut restored_at = |position: u64| {
        let at = state.len() - 8;
        state[32..40].copy_from_slice(&position.to_le_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64(&state[..at]);
        state[at..].copy_from_slice(&checksum.to_le_bytes());
        session.restore(&state)
    };
    for position in [1 << 63, u64::MAX - 1, u64::MAX] {
        assert_eq!(restored_at(position).unwrap_err().kind(), ErrorKind::Format, "{position}");
    }
    // As the context slides, what is held at a position is the same again a little later.
    let largest =
        (0..1000).map(|i| i64::MAX as u64 - i).find(|&position| restored_at(position).is_ok()).unwrap();
    session.feed(&some_bytes(3000, 2)).unwrap();
    session.logits().unwrap();
    assert_eq!(session.position(), largest + 3000);
}

#[test]
fn a_newer_version_is_told_apart_from_garbage() {
    let model = random_model(CAUSAL_PLAIN);
    let mut saved = session_of(&model).save();
    saved[8] = 2;
    assert_eq!(session_of(&model).restore(&saved).unwrap_err().kind(), ErrorKind::Version);
    assert_eq!(session_of(&model).restore(b"").unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(session_of(&model).restore(b"GRUGSTAT").unwrap_err().kind(), ErrorKind::Format);
}

proptest! {
    #[test]
    fn a_changed_state_is_refused_and_changes_nothing(
        at in 0usize..400, bit in 0u8..8, cut in 0usize..400, fix_checksum: bool
    ) {
        thread_local!(static MODEL: Model = random_model(CAUSAL_PLAIN));
        MODEL.with(|model| {
            let mut session = session_of(model);
            session.feed(&some_bytes(40, 4)).unwrap();
            let position = session.position();
            let mut saved = session.save();
            let at = at % (saved.len() - 8);
            saved[at] ^= 1 << bit;
            saved.truncate(saved.len() - cut.saturating_sub(300).min(saved.len()));
            if fix_checksum && saved.len() > 8 {
                let body = saved.len() - 8;
                let sum = xxhash_rust::xxh3::xxh3_64(&saved[..body]);
                saved[body..].copy_from_slice(&sum.to_le_bytes());
            }
            match session.restore(&saved) {
                // With a right checksum a changed text, position or count may be a valid state of another stream.
                Ok(()) => {
                    assert!(fix_checksum);
                    session.logits().unwrap();
                    let n = session.position().min(3);
                    session.rewind(n).unwrap();
                    session.feed(b"x").unwrap();
                    session.logits().unwrap();
                }
                Err(_) => {
                    assert_eq!(session.position(), position);
                    session.logits().unwrap();
                }
            }
        });
    }
}

#[test]
fn a_fingerprint_is_of_what_the_model_computes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let fingerprint = |toml: &str, seed: u64| {
        common::write_random_model(&path, &ModelConfig::from_toml(toml).unwrap(), seed);
        let file = Checkpoint::open_copied(&path).unwrap();
        Model::from_checkpoint(file, &ModelOptions { n_threads: 1, ..Default::default() })
            .unwrap()
            .fingerprint()
    };
    let base = fingerprint(CAUSAL_PLAIN, 1);
    assert_eq!(fingerprint(CAUSAL_PLAIN, 1), base);
    assert_ne!(fingerprint(CAUSAL_PLAIN, 2), base);
    assert_eq!(fingerprint(&format!("{CAUSAL_PLAIN}[dropout]\nconv = 0.5\n"), 1), base);
    // The same tensors, another function of them.
    assert_ne!(fingerprint(&format!("{CAUSAL_PLAIN}attention_window = 5\n"), 1), base);
}

#[test]
fn the_embedding_is_what_the_logits_are_computed_from() {
    for (name, toml) in ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let config = ModelConfig::from_toml(toml).unwrap();
        common::write_random_model(&path, &config, 1);
        let file = Checkpoint::open(&path).unwrap();
        let specs = grug::manifest::ModelTensors::specs(&config);
        let weight = file.tensor(specs.head_weight.as_ref().unwrap()).unwrap().to_f32();
        let bias = specs.head_bias.as_ref().map_or(vec![0.0; 256], |s| file.tensor(s).unwrap().to_f32());
        let mut session = session_of(&random_model(toml));
        session.feed(&some_bytes(14, 3)).unwrap();
        for scored in [false, true] {
            if scored {
                session.score(&some_bytes(9, 4), None).unwrap();
            }
            let embedding = session.embedding().unwrap().to_vec();
            assert_eq!(embedding.len(), config.output_dim());
            let expected: Vec<f32> = (0..256)
                .map(|b| {
                    let row = &weight[b * embedding.len()..(b + 1) * embedding.len()];
                    let logit = row.iter().zip(&embedding).map(|(w, e)| w * e).sum::<f32>() + bias[b];
                    let cap = config.logit_softcap as f32;
                    if cap > 0.0 { cap * (logit / cap).tanh() } else { logit }
                })
                .collect();
            assert!(relative_difference(&logits(&mut session), &expected) < 1e-5, "{name} {scored}");
        }
    }
}

#[test]
fn a_batch_is_its_sessions_one_by_one() {
    for (name, toml) in ALL {
        let model = random_model(toml);
        let mut sessions: Vec<Session> = (0..3).map(|_| session_of(&model)).collect();
        let mut samplers: Vec<Sampler> = (0..3).map(sampler).collect();
        sessions.iter_mut().zip(0..).for_each(|(s, i)| s.feed(&some_bytes(9 + i, i as u32)).unwrap());
        let mut alone: Vec<_> = sessions.iter().map(|s| s.fork().unwrap()).zip(samplers.clone()).collect();
        for step in 0..30 {
            let input = |i: usize| (step % 5 == i).then_some(b'x');
            let mut steps: Vec<Step<'_>> = sessions
                .iter_mut()
                .zip(&mut samplers)
                .enumerate()
                .map(|(i, (session, sampler))| Step { session, sampler, input: input(i) })
                .collect();
            let mut bytes = vec![Ok(0); 3];
            next_batch(&mut steps, &mut bytes).unwrap();
            for (i, (session, sampler)) in alone.iter_mut().enumerate() {
                let expected = match input(i) {
                    Some(byte) => session.feed(&[byte]).map(|()| byte),
                    None => session.next(sampler),
                };
                assert_eq!(bytes[i], expected, "{name}");
            }
        }
    }
}

#[test]
fn a_batch_reports_each_failure_in_its_place() {
    let model = random_model(CAUSAL_PLAIN);
    let mut full =
        Session::new(&model, &SessionOptions { overflow: Overflow::Error, ..Default::default() }).unwrap();
    full.feed(&some_bytes(24, 1)).unwrap();
    let (mut fine, mut other) = (session_of(&model), session_of(&random_model(CAUSAL_MODERN)));
    let (mut a, mut b) = (sampler(1), sampler(2));
    let mut bytes = vec![Ok(0); 2];
    let mut steps = [
        Step { session: &mut full, sampler: &mut a, input: None },
        Step { session: &mut fine, sampler: &mut b, input: Some(7) },
    ];
    next_batch(&mut steps, &mut bytes).unwrap();
    assert_eq!(bytes[0].as_ref().unwrap_err().kind(), ErrorKind::ContextFull);
    assert_eq!(bytes[1], Ok(7));
    let mut steps = [
        Step { session: &mut fine, sampler: &mut a, input: None },
        Step { session: &mut other, sampler: &mut b, input: None },
    ];
    assert_eq!(next_batch(&mut steps, &mut bytes).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn cancelling_in_the_middle_of_anything_leaves_a_whole_session() {
    // Another thread cancels at any moment; whatever was reached, the session equals one that was fed as much.
    for toml in [CAUSAL_MODERN, CAUSAL_PARALLEL] {
        let model = random_model(toml);
        let bytes = some_bytes(4000, 8);
        let cancel = Cancel::new();
        let options = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
        let mut session = Session::new(&model, &options).unwrap();
        for round in 0..40 {
            let trigger = cancel.clone();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_micros(round * 37));
                trigger.trigger();
            });
            let at = session.position() as usize;
            let more = &bytes[at..at + 60];
            let result =
                if round % 2 == 0 { session.feed(more) } else { session.score(more, None).map(|_| ()) };
            thread.join().unwrap();
            cancel.reset();
            let now = session.position() as usize;
            assert!(now <= at + 60 && (result.is_err() || now == at + 60));
            let mut fresh = session_of(&model);
            if now == 0 {
                session.reset();
                continue;
            }
            fresh.feed(&bytes[..now]).unwrap();
            if round % 2 == 1 && at == 0 {
                // Scoring an empty session starts it with a byte 0.
                session.reset();
                continue;
            }
            assert_same_future(&session, &fresh, &format!("round {round}, {at} to {now}"));
        }
    }
}
