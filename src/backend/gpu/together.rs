//! Several sessions of one model that take in a byte each, in one pass with a row for each.

use std::any::Any;

use super::Executor;
use super::engine::{Beyond, GpuEngine, sampling_words};
use crate::backend::{DeviceSampling, Engine, Others as OtherEngines};
use crate::config::VOCAB;
use crate::error::{Error, ErrorKind, Result};

/// Most sessions of a pass: four tiles of a product on CUDA's matrix units.
pub(crate) const MAX_TOGETHER: usize = 64;

/// One session's row of a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Which of the sessions: 0 is the one that leads the pass, and then this is the first row.
    pub session: usize,
    /// Where it stands,
    pub first: u32,
    /// and the byte that it takes in.
    pub byte: u32,
    /// The words of the state from [`state::DRAWS`](super::state::DRAWS) on, where a byte is to be chosen.
    pub sampling: Option<[u32; 8]>,
}

/// The executors of the sessions after the first.
pub(crate) trait Others {
    /// That of session `session`, which is not 0.
    fn get(&mut self, session: usize) -> &mut dyn Executor;
}

/// The sessions of a pass after the first, counted from 1: some of those that were to go together.
struct Members<'a> {
    all: &'a mut dyn OtherEngines,
    chosen: Vec<usize>,
}

impl Members<'_> {
    fn engine(&mut self, session: usize) -> (&mut GpuEngine, &[u8]) {
        let (engine, context) = self.all.get(self.chosen[session - 1]);
        (gpu(engine), context)
    }
}

impl Others for Members<'_> {
    fn get(&mut self, session: usize) -> &mut dyn Executor {
        &mut *self.engine(session).0.executor
    }
}

fn gpu(engine: &mut dyn Engine) -> &mut GpuEngine {
    let engine: &mut dyn Any = engine;
    engine.downcast_mut().expect("engines of one model are of one kind")
}

impl GpuEngine {
    /// [`Engine::feed_together`]. What a device can choose it has chosen then; the others have their logits.
    pub(super) fn step_together(&mut self, context: &[u8], others: &mut dyn OtherEngines) -> Result<()> {
        let mut members = Members { chosen: Vec::new(), all: others };
        for i in 0..members.all.len() {
            let (engine, theirs) = members.all.get(i);
            // The steps of another context have other places.
            if gpu(engine).context == self.context && self.max_together() > 1 {
                members.chosen.push(i);
            } else {
                engine.feed(theirs, 1, None)?;
            }
        }
        if members.chosen.is_empty() {
            return self.feed(context, 1, None);
        }
        let mut samplings = vec![members.all.sampling(0)];
        samplings.extend(members.chosen.iter().map(|i| members.all.sampling(i + 1)));
        let result = self.pass_together(context, &samplings, &mut members);
        if result.is_err() {
            // No session's memory may still be in use when it is gone. What waiting says is said already.
            let _ = self.executor.wait();
        }
        result
    }

    fn pass_together(
        &mut self,
        context: &[u8],
        samplings: &[Option<DeviceSampling>],
        members: &mut Members<'_>,
    ) -> Result<()> {
        let row = |session, context: &[u8], sampling: &Option<DeviceSampling>| Row {
            session,
            first: context.len() as u32 - 1,
            byte: context[context.len() - 1].into(),
            sampling: sampling.as_ref().map(sampling_words),
        };
        let mut rows = vec![row(0, context, &samplings[0])];
        self.forget_prediction(context.len() - 1);
        for (session, sampling) in samplings.iter().enumerate().skip(1) {
            let (engine, context) = members.engine(session);
            engine.forget_prediction(context.len() - 1);
            rows.push(row(session, context, sampling));
        }

        let all_choose = samplings.iter().all(Option::is_some);
        let chosen = self.run_rows(&rows, !all_choose, members)?;
        if chosen.iter().zip(samplings).any(|(&byte, s)| s.is_some() && byte > 255 && byte != u32::MAX) {
            return Err(Error::new(ErrorKind::Device, "the device returned something that is no byte"));
        }
        let plan = self.plan.clone();
        let (mut logits, mut states) = (Vec::new(), Vec::new());
        let width = plan.states_width;
        if !all_choose {
            logits.resize(rows.len() * VOCAB, 0.0);
            states.resize(rows.len() * width, 0.0);
            let mut reads = [(plan.logits, &mut logits[..]), (plan.normed, &mut states[..])];
            self.executor.read_activations(&mut reads)?;
        }
        for (i, sampling) in samplings.iter().enumerate() {
            let (engine, context) = if i == 0 { (&mut *self, context) } else { members.engine(i) };
            engine.len = context.len();
            match sampling {
                // What it could not choose from, `generate` sees again.
                Some(_) if chosen[i] > 255 => {}
                Some(sampling) => {
                    let bytes = [chosen[i] as u8].into();
                    engine.beyond =
                        Some(Beyond { context: context.to_vec(), sampling: *sampling, bytes, next: 1 });
                }
                None => {
                    engine.logits.copy_from_slice(&logits[i * VOCAB..][..VOCAB]);
                    engine.embedding.copy_from_slice(&states[i * width..][..width]);
                    engine.logits_ready = true;
                }
            }
        }
        Ok(())
    }

    /// Runs the rows up to the bytes that are chosen, which it returns; with `embed`, up to the normalized states, too.
    fn run_rows(&mut self, rows: &[Row], embed: bool, members: &mut Members<'_>) -> Result<Vec<u32>> {
        let plan = self.plan.clone();
        let tiles = self.executor.rows_that_fill_tiles();
        let steps_for = |n| if n < tiles { &plan.few } else { &plan.many };
        let steps = steps_for(rows.len());
        let mut rest = vec![steps.join.clone(), steps.head.clone()];
        if embed {
            rest.push(steps.embedding.clone());
        }
        rest.push(steps.sample.clone());
        // Of some sessions, the byte completes a row of the aggregated stream.
        let stride = self.parts.config.aggregated_stream.as_ref().map(|agg| agg.stride as u32);
        let coarse = |row: &&Row| stride.is_some_and(|stride| (row.first + 1).is_multiple_of(stride));
        let complete: Vec<Row> = rows.iter().filter(coarse).copied().collect();
        if complete.is_empty() {
            rest.insert(0, steps.step.clone());
        } else {
            let executor = &mut self.executor;
            executor.run_together(&plan, std::slice::from_ref(&steps.step), rows, members, &mut [])?;
            let coarse = &steps_for(complete.len()).coarse;
            executor.run_together(&plan, std::slice::from_ref(coarse), &complete, members, &mut [])?;
        }
        let mut chosen = vec![u32::MAX; rows.len()];
        self.executor.run_together(&plan, &rest, rows, members, &mut chosen)?;
        Ok(chosen)
    }

    /// A byte is to be taken in at this position.
    fn forget_prediction(&mut self, len: usize) {
        self.len = len;
        self.beyond = None;
        (self.states_ready, self.logits_ready) = (false, false);
    }
}
