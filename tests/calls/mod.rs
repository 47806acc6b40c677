//! Any bytes as a sequence of calls on sessions and samplers, checked against the simplest account of what they mean.
//! Shared by the property test and the fuzz target.

use grug::{Grammar, GrammarKind, Model, Sampler, SamplerOptions, Session, SessionOptions, StopReason};

/// Reads arguments from the bytes; zeros follow the end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let n = (self.byte() as usize % (most + 1)).min(self.0.len());
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }
}

/// A session, and what it must be: the bytes that it was given, and whether it began with the implicit byte 0.
struct Checked {
    session: Session,
    bytes: Vec<u8>,
    started: bool,
}

impl Checked {
    /// Asked for a prediction.
    fn asked(&mut self) {
        self.started |= self.bytes.is_empty();
    }

    /// The logits are those of a session that was given the same bytes at once. Bit by bit: the model is portable.
    fn check(&mut self, model: &Model) {
        assert_eq!(self.session.position(), self.bytes.len() as u64);
        let mut fresh = Session::new(model, &SessionOptions::default()).unwrap();
        if self.started {
            fresh.logits().unwrap();
        }
        fresh.feed(&self.bytes).unwrap();
        let bits = |session: &mut Session| session.logits().unwrap().map(f32::to_bits);
        assert!(bits(&mut self.session) == bits(&mut fresh), "after {} bytes", self.bytes.len());
        self.asked();
    }
}

fn sampler(input: &mut Input<'_>) -> Sampler {
    let grammars = ["", "[a-f]+", "(é|x){2,5}", ".*", "a"];
    let pattern = grammars[input.byte() as usize % grammars.len()];
    let grammar = (!pattern.is_empty()).then(|| Grammar::new(GrammarKind::Regex, pattern).unwrap());
    let part = |byte: u8| f32::from(byte % 101) / 100.0;
    Sampler::new(&SamplerOptions {
        seed: u64::from(input.byte()),
        temperature: part(input.byte()) * 2.0,
        top_k: u32::from(input.byte() % 8),
        typical_p: part(input.byte()),
        top_p: part(input.byte()),
        min_p: part(input.byte()),
        penalty_window: input.byte() as usize,
        repeat_penalty: 1.0 + part(input.byte()),
        mirostat_tau: part(input.byte()) * 5.0,
        utf8: input.byte().is_multiple_of(2),
        grammar,
        ..Default::default()
    })
    .unwrap()
}

/// Makes the calls. The model must be portable, and predict from one byte.
pub fn run(model: &Model, data: &[u8]) {
    let mut input = Input(data);
    let new = || Checked {
        session: Session::new(model, &SessionOptions::default()).unwrap(),
        bytes: Vec::new(),
        started: false,
    };
    let mut sessions = vec![new(), new()];
    let mut chooser = sampler(&mut input);
    let mut saved: Option<(Vec<u8>, Vec<u8>, bool)> = None;
    for _ in 0..200 {
        if input.0.is_empty() {
            break;
        }
        let (op, which) = (input.byte(), input.byte() as usize % sessions.len());
        let one = &mut sessions[which];
        match op % 14 {
            0 => {
                let bytes = input.bytes(80);
                one.session.feed(bytes).unwrap();
                one.bytes.extend_from_slice(bytes);
            }
            1 => {
                let bytes = input.bytes(40);
                let mut nats = vec![0.0; bytes.len()];
                let total = one.session.score(bytes, Some(&mut nats)).unwrap();
                assert!(nats.iter().all(|n| *n >= -1e-5) && total >= -1e-3);
                if !bytes.is_empty() {
                    one.asked();
                }
                one.bytes.extend_from_slice(bytes);
            }
            2 => {
                one.asked();
                if let Ok(byte) = one.session.next(&mut chooser) {
                    one.bytes.push(byte);
                }
            }
            3 => {
                let (mut out, mut n) = (vec![0; input.byte() as usize % 40], 0);
                let finished = chooser.is_finished();
                let stops: &[&[u8]] = &[b"\n", b"ab"];
                let result = one.session.generate(&mut chooser, stops, &mut out, &mut n);
                if !out.is_empty() && !finished {
                    one.asked();
                }
                one.bytes.extend_from_slice(&out[..n]);
                match result {
                    Ok(StopReason::Capacity) => assert_eq!(n, out.len()),
                    Ok(StopReason::Sequence) => {
                        assert!(stops.iter().any(|stop| one.bytes.ends_with(stop)));
                    }
                    Ok(StopReason::Grammar) => assert!(chooser.is_finished()),
                    Ok(StopReason::EndByte) => panic!("the model has none"),
                    Err(_) => {}
                }
            }
            4 => {
                let n = u64::from(input.byte());
                let held = one.bytes.len() as u64;
                match one.session.rewind(n) {
                    Ok(()) => one.bytes.truncate((held - n) as usize),
                    // What was rewound before counts against what can be.
                    Err(error) => assert!(n > held || n > 0, "{error}"),
                }
            }
            5 => {
                let copy = Checked {
                    session: one.session.fork().unwrap(),
                    bytes: one.bytes.clone(),
                    started: one.started,
                };
                if sessions.len() < 4 {
                    sessions.push(copy);
                } else {
                    sessions[(which + 1) % 4] = copy;
                }
            }
            6 => saved = Some((one.session.save(), one.bytes.clone(), one.started)),
            7 => {
                if let Some((state, bytes, started)) = &saved {
                    one.session.restore(state).unwrap();
                    (one.bytes, one.started) = (bytes.clone(), *started);
                }
            }
            8 => {
                one.session.reset();
                (one.bytes, one.started) = (Vec::new(), false);
            }
            9 => {
                let norm: f32 = one.session.embedding().unwrap().iter().map(|v| v * v).sum();
                assert!(norm.is_finite());
                one.asked();
            }
            10 => one.check(model),
            11 => chooser = sampler(&mut input),
            12 => chooser.reset(u64::from(input.byte())),
            _ => {
                let mut junk = one.session.save();
                let at = input.byte() as usize % junk.len();
                junk[at] ^= input.byte() | 1;
                assert!(one.session.restore(&junk).is_err());
            }
        }
        assert_eq!(sessions[which].session.position(), sessions[which].bytes.len() as u64);
    }
    sessions.iter_mut().for_each(|one| one.check(model));
}
