//! Random calls, the same on the CPU and on the GPU: whatever comes after whatever, a session is the same on both.

use grug::rng::{Stream, words};
use grug::{
    Cancel, Error, ErrorKind, Model, Overflow, Sampler, SamplerOptions, Session, SessionOptions, Step,
    next_batch,
};

use crate::common::relative_difference;
use crate::gpu_suite::{every_kind, models, sampler};

/// Decides what is called.
struct Random {
    seed: u64,
    count: u64,
}

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.count += 1;
        words(self.seed, Stream::Dummy, 0, self.count)[0] as usize % n
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let n = self.below(most + 1);
        // Few different ones: so stop sequences come.
        (0..n).map(|_| b'a' + self.below(8) as u8).collect()
    }

    fn sampling(&mut self) -> SamplerOptions {
        let seed = self.below(1000) as u64;
        let base = SamplerOptions { temperature: 1.0, seed, ..Default::default() };
        match self.below(6) {
            0 => SamplerOptions { temperature: 0.0, ..base },
            1 => SamplerOptions { temperature: 0.5, top_k: 20, ..base },
            // No top_p: where the sums end is within rounding too often, and then other bytes are chosen.
            2 => SamplerOptions { min_p: 0.3, ..base },
            3 => SamplerOptions { repeat_penalty: 1.2, penalty_window: 9, ..base },
            _ => base,
        }
    }
}

/// A session with its sampler and what stops it.
struct One {
    session: Session,
    sampler: Sampler,
    cancel: Cancel,
}

/// The same on the CPU and on the GPU.
struct Pair([One; 2]);

impl Pair {
    fn new(models: &[Model; 2], random: &mut Random) -> Pair {
        let window = models[0].config().context_bytes;
        let shorter = models[0].config().is_causal() && random.below(3) == 0;
        let max_context = if shorter { 2 + random.below(window - 1) } else { 0 };
        let overflow = if random.below(6) == 0 { Overflow::Error } else { Overflow::Slide };
        let sampling = random.sampling();
        Pair(models.each_ref().map(|model| {
            let cancel = Cancel::new();
            let options =
                SessionOptions { max_context, overflow, cancel: Some(cancel.clone()), ..Default::default() };
            let session = Session::new(model, &options).unwrap();
            One { session, sampler: sampler(sampling.clone()), cancel }
        }))
    }

    fn fork(&self) -> Pair {
        Pair(self.0.each_ref().map(|one| {
            let cancel = Cancel::new();
            let mut session = one.session.fork().unwrap();
            session.set_cancel(Some(cancel.clone()));
            One { session, sampler: one.sampler.clone(), cancel }
        }))
    }

    /// Makes a call on both: what it returns is the same, up to the rounding of numbers, and so is what is left behind.
    fn both<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        mut call: impl FnMut(&mut One) -> (Result<T, Error>, Vec<f32>),
    ) {
        let [cpu, gpu] = self.0.each_mut().map(|one| {
            let (result, numbers) = call(one);
            let canceled = one.cancel.is_triggered();
            // Which is said where there are two errors is left open.
            (result.map_err(|error| if canceled { ErrorKind::Canceled } else { error.kind() }), numbers)
        });
        assert_eq!(gpu.0, cpu.0, "{what}");
        assert_eq!(gpu.1.len(), cpu.1.len(), "{what}");
        if !cpu.1.is_empty() {
            let difference = relative_difference(&gpu.1, &cpu.1);
            assert!(difference < 1e-4, "{what}: {difference}");
        }
        self.same(what);
    }

    fn same(&self, what: &str) {
        let [cpu, gpu] = &self.0;
        assert_eq!(gpu.session.position(), cpu.session.position(), "{what}");
        assert!(gpu.session.save() == cpu.session.save(), "{what}: another state");
    }

    fn call(&mut self, random: &mut Random, what: &str, saved: &mut Option<Vec<u8>>) {
        let op = random.below(14);
        let what = format!("{what}, kind {op}");
        match op {
            0 | 1 => {
                let bytes = random.bytes(if op == 0 { 2 } else { 70 });
                self.both(&what, |one| (one.session.feed(&bytes), Vec::new()));
            }
            2 => {
                let bytes = random.bytes(40);
                self.both(&what, |one| {
                    let mut nats = vec![0.0; bytes.len()];
                    let result = one.session.score(&bytes, Some(&mut nats)).map(|_| ());
                    let nats = if result.is_ok() { nats } else { Vec::new() };
                    (result, nats)
                });
            }
            3..=5 => {
                let n = 1 + random.below(5);
                for _ in 0..n {
                    self.both(&what, |one| (one.session.next(&mut one.sampler), Vec::new()));
                }
            }
            6 => {
                let (len, stop) = (random.below(40), random.bytes(1));
                let stops = if stop.is_empty() { vec![] } else { vec![&stop[..]] };
                self.both(&what, |one| {
                    let (mut text, mut n) = (vec![0; len], 0);
                    let reason = one.session.generate(&mut one.sampler, &stops, &mut text, &mut n);
                    let text = text[..n].iter().map(|&byte| byte.into()).collect();
                    (reason, text)
                });
            }
            7 => {
                let n = random.below(30) as u64;
                self.both(&what, |one| (one.session.rewind(n), Vec::new()));
            }
            8 => *saved = Some(self.0[random.below(2)].session.save()),
            9 => {
                let Some(state) = &*saved else { return };
                self.both(&what, |one| (one.session.restore(state), Vec::new()));
            }
            10 => self.both(&what, |one| match one.session.embedding() {
                Ok(numbers) => (Ok(()), numbers.to_vec()),
                Err(error) => (Err(error), Vec::new()),
            }),
            11 => {
                if random.below(3) == 0 {
                    self.0.iter_mut().for_each(|one| one.session.reset());
                }
                let sampling = random.sampling();
                self.0.iter_mut().for_each(|one| one.sampler = sampler(sampling.clone()));
            }
            _ => self.both(&what, |one| match one.session.logits() {
                Ok(numbers) => (Ok(()), numbers.to_vec()),
                Err(error) => (Err(error), Vec::new()),
            }),
        }
    }
}

/// Lets all take a step together.
fn step(pairs: &mut [Pair], inputs: &[Option<u8>], what: &str) {
    let [cpu, gpu] = [0, 1].map(|device| {
        let mut bytes = Vec::from_iter(pairs.iter().map(|_| Ok(0)));
        let ones = pairs.iter_mut().map(|pair| &mut pair.0[device]);
        let mut steps = Vec::from_iter(ones.zip(inputs).map(|(one, &input)| Step {
            session: &mut one.session,
            sampler: &mut one.sampler,
            input,
        }));
        next_batch(&mut steps, &mut bytes).unwrap();
        Vec::from_iter(bytes.into_iter().map(|byte| byte.map_err(|error| error.kind())))
    });
    assert_eq!(gpu, cpu, "{what}");
    pairs.iter().for_each(|pair| pair.same(what));
}

#[test]
fn any_calls_do_what_they_do_on_the_cpu() {
    for (seed, (name, toml)) in (0..).zip(every_kind()) {
        let models = models(toml, "F32");
        let mut random = Random { seed, count: 0 };
        let mut pairs = Vec::from_iter((0..3).map(|_| Pair::new(&models, &mut random)));
        let mut saved = None;
        for i in 0..60 {
            let which = random.below(pairs.len());
            let what = format!("{name}, seed {seed}, call {i} on session {which}");
            match random.below(12) {
                0 => {
                    let fork = pairs[which].fork();
                    let at = random.below(pairs.len());
                    if pairs.len() < 5 { pairs.push(fork) } else { pairs[at] = fork }
                }
                1..=3 => {
                    let inputs: Vec<_> = pairs
                        .iter()
                        .map(|_| (random.below(4) == 0).then(|| b'a' + random.below(8) as u8))
                        .collect();
                    step(&mut pairs, &inputs, &format!("{what}, step"));
                }
                4 => {
                    pairs[which].0.iter().for_each(|one| one.cancel.trigger());
                    pairs[which].call(&mut random, &format!("{what}, canceled"), &mut saved);
                    pairs[which].0.iter().for_each(|one| one.cancel.reset());
                }
                _ => pairs[which].call(&mut random, &what, &mut saved),
            }
        }
        for (i, pair) in pairs.iter_mut().enumerate() {
            let what = format!("{name}, seed {seed}, session {i} at the end");
            pair.both(&what, |one| match one.session.logits() {
                Ok(numbers) => (Ok(()), numbers.to_vec()),
                Err(error) => (Err(error), Vec::new()),
            });
        }
    }
}
