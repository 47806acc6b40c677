//! Several sessions of one model that take in a byte each: one pass over the weights, with the scratch of the first.

use super::{CpuEngine, Scratch};
use crate::backend::{Engine, Others};
use crate::config::VOCAB;
use crate::error::Result;
use crate::model::{ByteRows, MAX_TOGETHER, Members, Memory};

/// The engine of one of the others.
fn cpu(engine: &mut dyn Engine) -> &mut CpuEngine {
    let engine: &mut dyn std::any::Any = engine;
    engine.downcast_mut().expect("engines of one model are of one kind")
}

/// As [`cpu`], to read.
fn seen(engine: &dyn Engine) -> &CpuEngine {
    let engine: &dyn std::any::Any = engine;
    engine.downcast_ref().expect("engines of one model are of one kind")
}

/// What the sessions remember: the first one's, then the others'.
struct All<'a> {
    first: &'a mut Memory,
    others: &'a mut dyn Others,
}

impl Members for All<'_> {
    fn len(&self) -> usize {
        1 + self.others.len()
    }

    fn memory(&mut self, row: usize) -> &mut Memory {
        match row {
            0 => self.first,
            _ => &mut cpu(self.others.get(row - 1).0).memory,
        }
    }

    fn seen(&self, row: usize) -> &Memory {
        match row {
            0 => self.first,
            _ => &seen(self.others.seen(row - 1)).memory,
        }
    }
}

impl CpuEngine {
    /// [`Engine::feed_together`] for at most [`Engine::max_together`] sessions. All have their logits afterwards.
    pub(super) fn step_together(&mut self, context: &[u8], others: &mut dyn Others) -> Result<()> {
        self.scratch.compute.check_fork()?;
        let graph = self.graph.clone();
        let streams = &graph.streams;
        let n = 1 + others.len();
        let mut bytes = [0; MAX_TOGETHER];
        self.drop_ahead();
        for (row, byte) in bytes[..n].iter_mut().enumerate() {
            let context = match row.checked_sub(1).map(|i| others.get(i)) {
                Some((engine, context)) => {
                    cpu(engine).drop_ahead();
                    context
                }
                None => context,
            };
            *byte = *context.last().expect("there is a byte to take in");
        }

        let width = self.config.output_dim();
        let Scratch { compute, arriving, frontend, x, blocks, coarse, states, logits } = &mut self.scratch;
        let mut members = All { first: &mut self.memory, others };
        graph.embedding.forward(bytes[..n].iter().copied(), &mut arriving[..n * graph.embedding.dim()]);
        if let Some(conv) = &graph.conv_frontend {
            conv.step(compute, &mut members, arriving, frontend);
        }
        let arriving = &arriving[..n * streams.arriving_width()];
        let x = &mut x[..n * streams.bytes.width];
        streams.project(compute, arriving, x);
        streams
            .bytes
            .forward(compute, blocks, &ByteRows(&mut members), false, None, x)
            .expect("nothing cancels this");
        for (state, x) in states.chunks_exact_mut(width).zip(x.chunks_exact(streams.bytes.width)) {
            state[..streams.bytes.width].copy_from_slice(x);
        }
        if let (Some(agg), Some(coarse)) = (&streams.aggregated, coarse) {
            agg.step(compute, coarse, &mut members, arriving, |row, coarse| {
                states[row * width + streams.bytes.width..(row + 1) * width].copy_from_slice(coarse);
            });
        }
        let (states, logits) = (&mut states[..n * width], &mut logits[..n * VOCAB]);
        graph.head.forward(compute, &graph.embedding.table, states, logits);

        for row in 1..n {
            let other = cpu(others.get(row - 1).0);
            other.scratch.states[..width].copy_from_slice(&states[row * width..(row + 1) * width]);
            other.scratch.logits[..VOCAB].copy_from_slice(&logits[row * VOCAB..(row + 1) * VOCAB]);
            other.took_in_together();
        }
        self.took_in_together();
        Ok(())
    }

    fn took_in_together(&mut self) {
        self.memory.len += 1;
        self.states_ready = false;
        self.logits_ready = true;
    }
}
