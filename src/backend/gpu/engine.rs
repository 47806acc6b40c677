//! The engine of every GPU: keeps track of what is on the device and says what is to run.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::plan::{MAX_AHEAD, Plan, dims, state};
use super::together::MAX_TOGETHER;
use super::{Executor, Parts};
use crate::backend::{DeviceSampling, Engine, Others, surprise};
use crate::cancel::Cancel;
use crate::config::{ModelConfig, VOCAB};
use crate::error::{Error, ErrorKind, Result};

/// One submission should take about this long: long enough to hide its cost, short enough for a prompt cancel and
/// for the watchdogs of desktop systems.
const SUBMISSION_SECONDS: f64 = 0.05;

pub(crate) struct GpuEngine {
    pub(super) plan: Arc<Plan>,
    pub(super) parts: Arc<Parts>,
    pub(super) executor: Box<dyn Executor>,
    causal: bool,
    pub(super) context: usize,
    /// Pad a window with zero bytes on the left to this length.
    pad_to: usize,
    /// Bytes taken in, of a causal model.
    pub(super) len: usize,
    /// Whether the device holds the state of the last byte taken in; whether `logits` are those after it.
    pub(super) states_ready: bool,
    pub(super) logits_ready: bool,
    pub(super) logits: [f32; VOCAB],
    /// The normalized state that they came from.
    pub(super) embedding: Vec<f32>,
    /// Bytes of the next submission of `generate`.
    ahead: usize,
    pub(super) beyond: Option<Beyond>,
}

/// What single bytes that follow each other have led to: bytes chosen beyond the one that was asked for.
#[derive(Clone)]
pub(super) struct Beyond {
    /// The call that is expected next,
    pub context: Vec<u8>,
    pub sampling: DeviceSampling,
    /// and its answer, if it was computed, and those of the calls after it.
    pub bytes: VecDeque<u8>,
    /// How many bytes to compute once there are no more.
    pub next: usize,
}

impl GpuEngine {
    /// An engine for a context of `context` bytes; `padded`: as the configuration says, a window is padded.
    pub(crate) fn new(
        parts: &Arc<Parts>,
        plan: Arc<Plan>,
        executor: Box<dyn Executor>,
        context: usize,
        padded: bool,
    ) -> GpuEngine {
        GpuEngine {
            causal: parts.config.is_causal(),
            pad_to: if padded && parts.config.pad_short_input { context } else { 0 },
            parts: parts.clone(),
            executor,
            context,
            len: 0,
            states_ready: false,
            logits_ready: false,
            logits: [0.0; VOCAB],
            embedding: vec![0.0; plan.states_width],
            ahead: 8,
            beyond: None,
            plan,
        }
    }

    /// Runs a program on so many rows at positions `first..`.
    fn run(&mut self, program: &[Range<usize>], first: usize, rows: usize) -> Result<()> {
        let dims = dims(&self.parts.config, first, rows)?;
        self.executor.run(&self.plan, program, &dims)
    }

    /// What takes in the byte at this position of a causal model.
    fn one_byte(&self, position: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let agg = self.parts.config.aggregated_stream.as_ref();
        let coarse =
            agg.filter(|agg| (position + 1).is_multiple_of(agg.stride)).map(|_| self.plan.coarse.clone());
        [Some(self.plan.step.clone()), coarse, Some(self.plan.join.clone())].into_iter().flatten()
    }

    fn write_bytes(&mut self, at: usize, bytes: impl Iterator<Item = u8>) -> Result<()> {
        let words: Vec<u32> = bytes.map(u32::from).collect();
        self.executor.write_state(self.plan.bytes + at, &words)
    }

    /// The pass that starts at this position, and with this one of the bytes on the device.
    fn write_position(&mut self, first: usize, base: usize) -> Result<()> {
        self.executor.write_state(state::FIRST, &[first as u32, base as u32])
    }

    /// Runs the last byte of `context`, already taken in, again at its place: its state is what the logits come from.
    fn revisit(&mut self, context: &[u8]) -> Result<()> {
        let last = context.len() - 1;
        self.write_bytes(last, context[last..].iter().copied())?;
        self.write_position(last, last)?;
        let program: Vec<_> = self.one_byte(last).collect();
        self.run(&program, last, 1)?;
        self.states_ready = true;
        Ok(())
    }

    /// Puts the window on the device and returns its length.
    fn write_window(&mut self, context: &[u8]) -> Result<usize> {
        let len = context.len().max(self.pad_to);
        self.parts.config.check_input_len(len)?;
        let zeros = std::iter::repeat_n(0, len - context.len());
        self.write_bytes(0, zeros.chain(context.iter().copied()))?;
        self.write_position(0, 0)?;
        Ok(len)
    }

    /// Answers a call from what was chosen beyond earlier ones; returns the number of bytes. Where it has none, the second
    /// number is how many bytes to compute for a call that wants one.
    fn recall(
        &mut self,
        context: &[u8],
        new: usize,
        sampling: &DeviceSampling,
        out: &mut [u8],
    ) -> (usize, usize) {
        let expected = |b: &Beyond| new <= 1 && b.sampling == *sampling && b.context == context;
        let Some(mut beyond) = self.beyond.take().filter(expected) else { return (0, 1) };
        let n = out.len().min(beyond.bytes.len());
        if n == 0 {
            return (0, beyond.next);
        }
        out.iter_mut().zip(beyond.bytes.drain(..n)).for_each(|(out, byte)| *out = byte);
        (self.states_ready, self.logits_ready) = (false, false);
        self.len = if self.causal { context.len() - 1 + n } else { 0 };
        self.expect(beyond, &out[..n]);
        (n, 0)
    }

    /// Remembers which call comes after one whose answer were these bytes.
    fn expect(&mut self, mut beyond: Beyond, answer: &[u8]) {
        beyond.context.extend_from_slice(answer);
        // A window slides; a causal context that is full starts anew, which is another call.
        let surplus = beyond.context.len().saturating_sub(self.context);
        beyond.context.drain(..surplus);
        beyond.sampling.draws = beyond.sampling.draws.wrapping_add(answer.len() as u64);
        self.beyond = Some(beyond);
    }

    /// [`generate`](Engine::generate), which puts `len` right after an error: at most `wanted` bytes, which are chosen; the
    /// first of them are written into `out`.
    fn choose(
        &mut self,
        context: &[u8],
        new: usize,
        sampling: &DeviceSampling,
        wanted: usize,
        out: &mut [u8],
        cancel: Option<&Cancel>,
    ) -> Result<usize> {
        let mut n = wanted.min(self.ahead).min(MAX_AHEAD);
        cancel.map_or(Ok(()), Cancel::check)?;
        let last = context.len() - 1;
        let choose = [self.plan.head.clone(), self.plan.sample.clone()];
        let (program, first, rows, at) = if self.causal {
            // A cache holds only so many; the byte after the last one may still be chosen.
            n = n.min(self.context - context.len() + 1);
            if new > 1 {
                self.feed(&context[..last], new - 1, cancel)?;
            }
            self.write_bytes(last, context[last..].iter().copied())?;
            self.write_position(last, last)?;
            let step = |i| self.one_byte(last + i).chain(choose.clone());
            ((0..n).flat_map(step).collect::<Vec<_>>(), last, 1, context.len())
        } else {
            let rows = self.write_window(context)?;
            if rows < self.context {
                n = n.min(1);
            }
            let pass = || [self.plan.feed.clone()].into_iter().chain(choose.clone());
            ((0..n).flat_map(|_| pass()).collect(), 0, rows, rows)
        };
        (self.states_ready, self.logits_ready) = (false, false);
        self.executor.write_state(state::DRAWS, &[&sampling_words(sampling)[..], &[0, 0]].concat())?;
        let start = Instant::now();
        self.run(&program, first, rows)?;
        let mut status = [0; 2];
        let mut words = vec![0; n];
        self.executor.read_state(&mut [(self.plan.bytes + at, &mut words), (state::FAILED, &mut status)])?;
        let seconds = start.elapsed().as_secs_f64() / n as f64;
        self.ahead = ((SUBMISSION_SECONDS / seconds) as usize).clamp(1, MAX_AHEAD);
        let chosen = status[1] as usize;
        if chosen > n || (status[0] == 0 && chosen < n) || words[..chosen].iter().any(|&w| w > 255) {
            return Err(Error::new(ErrorKind::Device, "the device returned something that is no byte"));
        }
        let mut bytes: VecDeque<u8> = words[..chosen].iter().map(|&word| word as u8).collect();
        let given = chosen.min(out.len());
        out.iter_mut().zip(bytes.drain(..given)).for_each(|(out, byte)| *out = byte);
        self.len = if self.causal { last + given.max(1) } else { 0 };
        if given == 1 && out.len() == 1 {
            let next = (2 * wanted).min(MAX_AHEAD);
            let beyond = Beyond { context: context.to_vec(), sampling: *sampling, bytes, next };
            self.expect(beyond, &out[..1]);
        }
        Ok(given)
    }
}

/// The words of the state from [`state::DRAWS`] on.
pub(super) fn sampling_words(sampling: &DeviceSampling) -> [u32; 8] {
    let (draws, seed) = (sampling.draws, sampling.seed);
    [
        draws as u32,
        (draws >> 32) as u32,
        seed as u32,
        (seed >> 32) as u32,
        sampling.temperature.to_bits(),
        sampling.top_k,
        sampling.top_p.to_bits(),
        sampling.min_p.to_bits(),
    ]
}

impl Engine for GpuEngine {
    fn feed(&mut self, context: &[u8], new: usize, cancel: Option<&Cancel>) -> Result<()> {
        self.logits_ready = false;
        self.beyond = None;
        if !self.causal || new == 0 {
            return Ok(());
        }
        self.states_ready = false;
        let bytes = &context[context.len() - new..];
        // An error may have left more here than the session counts.
        self.len = context.len() - new;
        self.write_bytes(self.len, bytes.iter().copied())?;
        let mut at = self.len;
        for (i, chunk) in bytes.chunks(self.plan.rows).enumerate() {
            cancel.map_or(Ok(()), Cancel::check)?;
            if i > 0 {
                self.executor.wait()?;
            }
            self.write_position(at, at)?;
            let program: Vec<_> =
                if chunk.len() == 1 { self.one_byte(at).collect() } else { vec![self.plan.feed.clone()] };
            self.run(&program, at, chunk.len())?;
            at += chunk.len();
        }
        self.len = at;
        self.states_ready = true;
        Ok(())
    }

    fn max_together(&self) -> usize {
        if self.causal { self.plan.rows.min(MAX_TOGETHER) } else { 1 }
    }

    fn feed_together(&mut self, context: &[u8], others: &mut dyn Others) -> Result<()> {
        self.step_together(context, others)
    }

    fn logits(&mut self, context: &[u8], cancel: Option<&Cancel>) -> Result<&[f32; VOCAB]> {
        if !self.logits_ready {
            cancel.map_or(Ok(()), Cancel::check)?;
            if !self.causal {
                let rows = self.write_window(context)?;
                let plan = &self.plan;
                let program = [plan.feed.clone(), plan.head.clone(), plan.embedding.clone()];
                self.run(&program, 0, rows)?;
            } else {
                if !self.states_ready {
                    self.revisit(context)?;
                }
                let program = [self.plan.head.clone(), self.plan.embedding.clone()];
                self.run(&program, context.len() - 1, 1)?;
            }
            let mut reads =
                [(self.plan.logits, &mut self.logits[..]), (self.plan.normed, &mut self.embedding[..])];
            self.executor.read_activations(&mut reads)?;
            self.logits_ready = true;
        }
        Ok(&self.logits)
    }

    fn score(&mut self, context: &[u8], new: usize, nats: &mut [f32], cancel: Option<&Cancel>) -> Result<()> {
        let old = context.len() - new;
        let bytes = &context[old..];
        self.beyond = None;
        if !self.causal {
            for i in 0..new {
                nats[i] = surprise(self.logits(&context[..old + i], cancel)?, bytes[i]);
                self.logits_ready = false;
            }
            return Ok(());
        }
        nats[0] = surprise(self.logits(&context[..old], cancel)?, bytes[0]);
        cancel.map_or(Ok(()), Cancel::check)?;
        (self.states_ready, self.logits_ready) = (false, false);
        self.write_bytes(self.len, bytes.iter().copied())?;
        self.write_position(self.len, self.len)?;
        let score = self.plan.score.clone();
        self.run(&[score], self.len, new)?;
        let mut rows = vec![0.0; new * VOCAB];
        let last = self.plan.normed + (new - 1) * self.plan.states_width;
        let mut reads = [(self.plan.logits, &mut rows[..]), (last, &mut self.embedding[..])];
        self.executor.read_activations(&mut reads)?;
        for (i, logits) in rows.chunks_exact(VOCAB).enumerate() {
            match bytes.get(i + 1) {
                Some(&byte) => nats[i + 1] = surprise(logits, byte),
                None => self.logits.copy_from_slice(logits),
            }
        }
        self.logits_ready = true;
        self.len += new;
        Ok(())
    }

    fn runs_ahead(&self) -> bool {
        true
    }

    fn generate(
        &mut self,
        context: &[u8],
        new: usize,
        sampling: &DeviceSampling,
        out: &mut [u8],
        cancel: Option<&Cancel>,
    ) -> Result<usize> {
        let (n, ahead) = self.recall(context, new, sampling, out);
        if n > 0 {
            return Ok(n);
        }
        let before = self.len;
        // Who asks for several bytes gets those and no more.
        let wanted = if out.len() == 1 { ahead } else { out.len() };
        self.choose(context, new, sampling, wanted, out, cancel).inspect_err(|_| self.len = before)
    }

    fn rewind(&mut self, kept: &[u8]) {
        // Everything on the device stands at its position: what lies behind is written over.
        self.len = if self.causal { kept.len() } else { 0 };
        self.beyond = None;
        (self.states_ready, self.logits_ready) = (false, false);
    }

    fn embedding(&self) -> &[f32] {
        &self.embedding
    }

    fn fork(&self) -> Result<Box<dyn Engine>> {
        Ok(Box::new(GpuEngine {
            plan: self.plan.clone(),
            parts: self.parts.clone(),
            executor: self.executor.fork(&self.plan)?,
            embedding: self.embedding.clone(),
            beyond: self.beyond.clone(),
            ..*self
        }))
    }

    fn clear(&mut self) {
        self.len = 0;
        self.beyond = None;
        self.states_ready = false;
        self.logits_ready = false;
    }

    fn max_feed(&self) -> usize {
        if self.causal { self.plan.rows } else { usize::MAX }
    }

    fn is_windowed(&self) -> bool {
        !self.causal
    }

    fn state_bytes(&self) -> usize {
        4 * self.plan.caches.iter().sum::<usize>()
    }
}

/// Bytes for [`self_check`]: few, but enough for every part of the model to do something.
pub(crate) fn check_bytes(config: &ModelConfig) -> Vec<u8> {
    let window = config.window_bytes();
    let enough = |len: &usize| config.check_input_len(*len).is_ok();
    let len = (16..=window).find(enough).unwrap_or(window);
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Runs a few bytes on the device and on the CPU, and fails where they disagree.
pub(crate) fn self_check(device: &mut GpuEngine, reference: &mut dyn Engine, bytes: &[u8]) -> Result<()> {
    let tolerance = device.parts.tolerance;
    let ours = logits_in_two_parts(device, bytes)?;
    let reference = logits_in_two_parts(reference, bytes)?;
    let largest = reference.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst = ours
        .iter()
        .zip(&reference)
        .fold(0.0f32, |m, (a, b)| if b.is_finite() { m.max(nan_is_large(a - b)) } else { m });
    if worst > tolerance * largest {
        return Err(Error::new(
            ErrorKind::Device,
            format!(
                "self-check: the device computes other logits than the CPU; they differ by {worst} where the largest is {largest}"
            ),
        ));
    }
    Ok(())
}

fn nan_is_large(difference: f32) -> f32 {
    if difference.is_nan() { f32::INFINITY } else { difference.abs() }
}

/// The logits after `bytes`: of all but the last together, then of the last one.
fn logits_in_two_parts(engine: &mut dyn Engine, bytes: &[u8]) -> Result<[f32; VOCAB]> {
    let first = bytes.len() - 1;
    engine.feed(&bytes[..first], first, None)?;
    engine.feed(bytes, 1, None)?;
    engine.logits(bytes, None).copied()
}
