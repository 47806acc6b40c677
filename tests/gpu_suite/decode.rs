//! Decoding: what differs between the ways in which an engine can run single bytes.

use grug::{Cancel, ErrorKind, SamplerOptions, Session, SessionOptions, StopReason};

use crate::DEVICE;
use crate::common::{ALL, relative_difference, some_bytes};
use crate::gpu_suite::{every_kind, models, sampler, session};

#[test]
fn logits_are_the_cpus_for_every_kind_of_model() {
    for (name, toml) in every_kind() {
        let [mut cpu, mut gpu] = models(toml, "F32").map(|model| session(&model));
        let window = cpu.model().config().window_bytes();
        assert_eq!(gpu.model().device(), DEVICE);
        let bytes = some_bytes(window + 5, 3);
        for part in [&bytes[..7], &bytes[7..8], &bytes[8..window], &bytes[window..]] {
            let [a, b] = [&mut cpu, &mut gpu].map(|session| {
                session.feed(part).unwrap();
                session.logits().map(|logits| logits.to_vec())
            });
            let (a, b) = (a.unwrap(), b.unwrap());
            let difference = relative_difference(&b, &a);
            assert!(difference < 1e-4, "{name}, {} bytes: {difference}", cpu.position());
        }
    }
}

#[test]
fn the_device_chooses_the_bytes_that_the_cpu_chooses() {
    let base = SamplerOptions { temperature: 1.0, seed: 5, ..Default::default() };
    let ways = [
        SamplerOptions::default(),
        base.clone(),
        SamplerOptions { temperature: 0.6, seed: u64::MAX - 1, ..base.clone() },
        SamplerOptions { top_k: 7, ..base.clone() },
        SamplerOptions { top_p: 0.7, ..base.clone() },
        SamplerOptions { min_p: 0.3, ..base.clone() },
        SamplerOptions { temperature: 1.4, top_k: 40, top_p: 0.9, min_p: 0.02, ..base },
    ];
    for (i, (name, toml)) in every_kind().enumerate() {
        let models = models(toml, "F32");
        let prompt = some_bytes(9, 2);
        // Past the end of the context, so that it slides.
        let n = (models[0].config().context_bytes - 9 + 14).min(32);
        // All of them for the first model; the others share them out.
        let some = if i == 0 { &ways[..] } else { &ways[i % ways.len()..][..1] };
        for options in some {
            let [a, b] = models.each_ref().map(|model| {
                let mut session = session(model);
                session.feed(&prompt).unwrap();
                let (mut text, mut written) = (vec![0; n], 0);
                let mut sampler = sampler(options.clone());
                let reason = session.generate(&mut sampler, &[], &mut text, &mut written).unwrap();
                assert_eq!((reason, written), (StopReason::Capacity, n));
                text
            });
            assert_eq!(a, b, "{name}: {options:?}");
        }
    }
}

#[test]
fn running_ahead_is_the_same_as_one_byte_at_a_time() {
    for (name, toml) in [ALL[0], ALL[1], ALL[2], ALL[3], ALL[4]] {
        let [_, model] = models(toml, "F32");
        let options = SamplerOptions { temperature: 1.0, seed: 11, ..Default::default() };
        let (mut whole, mut parts) = (session(&model), session(&model));
        let (mut a, mut b) = (sampler(options.clone()), sampler(options));
        for session in [&mut whole, &mut parts] {
            session.feed(&some_bytes(7, 4)).unwrap();
        }
        let (mut text, mut n) = ([0; 40], 0);
        whole.generate(&mut a, &[], &mut text, &mut n).unwrap();
        let singly: Vec<u8> = (0..40).map(|_| parts.next(&mut b).unwrap()).collect();
        assert_eq!(text[..], singly, "{name}");
        assert_eq!(whole.position(), parts.position());
        let difference = relative_difference(whole.logits().unwrap(), parts.logits().unwrap());
        assert!(difference < 1e-5, "{name}: {difference}");
    }
}

/// Single bytes are computed ahead; whatever comes between them, nothing is to be seen of that.
#[test]
fn bytes_chosen_ahead_do_not_show() {
    for (name, toml) in [ALL[0], ALL[2], ALL[3]] {
        let [mut cpu, mut gpu] = models(toml, "F32").map(|model| session(&model));
        let draw = || sampler(SamplerOptions { temperature: 1.0, seed: 2, ..Default::default() });
        let mut samplers = [draw(), draw()];
        for step in 0..8 {
            let mut seen = [&mut cpu, &mut gpu].into_iter().zip(&mut samplers).map(|(session, sampler)| {
                // Enough for some to be chosen ahead.
                let mut text: Vec<u8> = (0..3 + step % 2).map(|_| session.next(sampler).unwrap()).collect();
                match step % 4 {
                    0 => session.feed(&text[1..]).unwrap(),
                    1 => session.rewind(2).unwrap(),
                    2 => {
                        session.score(b"ab", None).unwrap();
                        session.rewind(1).unwrap();
                    }
                    _ => {
                        let mut fork = session.fork().unwrap();
                        let mut again = sampler.clone();
                        text.extend((0..3).map(|_| fork.next(&mut again).unwrap()));
                        sampler.reset(step);
                    }
                }
                text.push(session.next(sampler).unwrap());
                (text, session.position(), session.logits().unwrap().to_vec())
            });
            let (a, b) = (seen.next().unwrap(), seen.next().unwrap());
            assert_eq!((a.0, a.1), (b.0, b.1), "{name}, step {step}");
            let difference = relative_difference(&b.2, &a.2);
            assert!(difference < 1e-4, "{name}, step {step}: {difference}");
        }
    }
}

/// Nothing is computed to hand them out, and yet a canceled session does not.
#[test]
fn bytes_chosen_ahead_are_not_given_out_once_canceled() {
    let [_, model] = models(ALL[0].1, "F32");
    let cancel = Cancel::new();
    let options = SessionOptions { cancel: Some(cancel.clone()), ..Default::default() };
    let mut session = Session::new(&model, &options).unwrap();
    let mut sampler = sampler(SamplerOptions::default());
    let (mut byte, mut n) = ([0], 0);
    // Enough for some to be chosen ahead.
    for _ in 0..4 {
        session.next(&mut sampler).unwrap();
    }
    cancel.trigger();
    let result = session.generate(&mut sampler, &[], &mut byte, &mut n).map_err(|error| error.kind());
    assert_eq!((result, n, session.position()), (Err(ErrorKind::Canceled), 0, 4));
}

#[test]
fn what_was_chosen_beyond_a_stop_never_happened() {
    for (name, toml) in [ALL[0], ALL[1], ALL[2], ALL[3]] {
        let [_, model] = models(toml, "F32");
        let options = SamplerOptions { temperature: 1.0, seed: 3, ..Default::default() };
        let mut session = session(&model);
        let mut sampler = sampler(options);
        session.feed(b"a beginning").unwrap();
        let mut text = [0; 11];
        let mut n = 0;
        session.generate(&mut sampler, &[], &mut text, &mut n).unwrap();
        // Stop where two bytes of that text stand, then go on: the text must be the same.
        for at in [0, 1, 4, 9] {
            session.reset();
            sampler.reset(3);
            session.feed(b"a beginning").unwrap();
            let mut again = [0; 11];
            let stop = &text[at..at + 2];
            let reason = session.generate(&mut sampler, &[stop], &mut again, &mut n).unwrap();
            assert_eq!(reason, StopReason::Sequence, "{name}");
            assert!(again[..n].ends_with(stop) && again[..n] == text[..n], "{name}");
            assert_eq!(session.position(), 11 + n as u64);
            let mut rest = n;
            session.generate(&mut sampler, &[], &mut again[n..], &mut rest).unwrap();
            assert_eq!(again, text, "{name}, stopped after {n}");
        }
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    for (name, toml) in [ALL[0], ALL[1], ALL[2], ALL[3]] {
        let [cpu, gpu] = models(toml, "F32");
        let (mut original, mut expected) = (session(&gpu), session(&cpu));
        for session in [&mut original, &mut expected] {
            session.feed(&some_bytes(11, 6)).unwrap();
        }
        let (mut fork, mut expected_fork) = (original.fork().unwrap(), expected.fork().unwrap());
        for (session, bytes) in [(&mut original, b"this"), (&mut expected, b"this")] {
            session.feed(bytes).unwrap();
        }
        for (session, bytes) in [(&mut fork, b"that"), (&mut expected_fork, b"that")] {
            session.feed(bytes).unwrap();
        }
        for (ours, reference) in [(&mut original, &mut expected), (&mut fork, &mut expected_fork)] {
            let difference = relative_difference(ours.logits().unwrap(), reference.logits().unwrap());
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}
