//! One step for several sessions of one model.
//!
//! A byte passes through the model when the byte after it is asked for. So a step begins with the bytes of the step
//! before: all sessions that have exactly one take it in together, with one pass over the weights, and then each
//! chooses its next byte by itself. A session that has more to take in (a prompt, or a context that slid) does that
//! first, alone. What comes out is bit by bit what each session would have got alone on the CPU, and on a GPU within what its sums
//! are rounded by.

use super::Session;
use crate::backend::{DeviceSampling, Engine, Others};
use crate::error::{Error, Result};
use crate::model::MAX_TOGETHER;
use crate::sampler::Sampler;

/// One session's part of a batch.
#[derive(Debug)]
pub struct Step<'a> {
    /// The session that takes the step.
    pub session: &'a mut Session,
    /// What chooses its byte. Unused where `input` is given.
    pub sampler: &'a mut Sampler,
    /// Fed instead of a chosen byte; the sampler does not see it.
    pub input: Option<u8>,
}

/// Lets each session choose and take in its next byte, or take in its `input`; `bytes[i]` is the byte of `steps[i]`, or
/// what went wrong there, which stops no other session. All must be sessions of one model.
///
/// Where an error is about the engine as a whole (a forked process), it is every session's.
pub fn next_batch(steps: &mut [Step<'_>], bytes: &mut [Result<u8>]) -> Result<()> {
    if steps.len() != bytes.len() {
        return Err(Error::invalid(format!("{} steps for {} results", steps.len(), bytes.len())));
    }
    if let Some(other) = steps.iter().position(|step| !step.session.model.is_same(&steps[0].session.model)) {
        return Err(Error::invalid(format!("session {other} is of another model than session 0")));
    }
    for (step, byte) in steps.iter_mut().zip(bytes.iter_mut()) {
        *byte = step.prepare().map(|()| 0);
    }
    take_in_together(steps, bytes);
    for (step, byte) in steps.iter_mut().zip(bytes).filter(|(_, byte)| byte.is_ok()) {
        *byte = match step.input {
            Some(input) => {
                step.session.append(&[input], false);
                Ok(input)
            }
            None => step.session.next(step.sampler),
        };
    }
    Ok(())
}

impl Step<'_> {
    /// How a device may choose this step's byte.
    fn sampling(&self) -> Option<DeviceSampling> {
        self.sampler.on_device().filter(|_| self.input.is_none())
    }

    /// Everything that comes before the pass: afterwards the session has at most one byte to take in.
    fn prepare(&mut self) -> Result<()> {
        let session = &mut *self.session;
        if self.input.is_some() { session.check_room(1) } else { session.check_room_to_predict(1) }?;
        session.cancel.as_ref().map_or(Ok(()), |cancel| cancel.check())?;
        if self.input.is_none() {
            session.start()?;
        }
        session.catch_up_to(session.context.len().saturating_sub(1))?;
        if session.has_pending() && session.engine.ahead().first() == session.context.bytes().last() {
            // It passed already, in a draft.
            session.catch_up()?;
        }
        Ok(())
    }
}

/// Lets all sessions that have a byte to take in do that, as many at once as their engine can.
fn take_in_together(steps: &mut [Step<'_>], bytes: &mut [Result<u8>]) {
    loop {
        let waits = |(i, step): &(usize, &Step<'_>)| bytes[*i].is_ok() && step.session.has_pending();
        // The one with the longest context has room for the others.
        let first = steps.iter().enumerate().filter(waits).max_by_key(|(_, step)| step.session.max_context);
        let Some((first, _)) = first else { return };
        let most = steps[first].session.engine.max_together().min(MAX_TOGETHER) - 1;
        let mut chosen = [0; MAX_TOGETHER];
        let mut n = 0;
        for (i, _) in steps.iter().enumerate().filter(waits).filter(|(i, _)| *i != first).take(most) {
            chosen[n] = i;
            n += 1;
        }
        if n == 0 && steps[first].session.engine.runs_ahead() {
            // Alone it takes in this byte when it chooses the next one.
            return;
        }
        let sampling = steps[first].sampling();
        let (before, rest) = steps.split_at_mut(first);
        let (leader, after) = rest.split_first_mut().expect("the first is one of them");
        let mut others = Chosen { before, after, chosen: &chosen[..n], sampling };
        let session = &mut *leader.session;
        let result = session.engine.feed_together(session.context.bytes(), &mut others);
        for &i in chosen[..n].iter().chain([&first]) {
            match &result {
                Ok(()) => steps[i].session.taken += 1,
                Err(error) => bytes[i] = Err(error.clone()),
            }
        }
    }
}

/// Some of the steps, without the one that stands between `before` and `after`.
struct Chosen<'a, 'b> {
    before: &'a mut [Step<'b>],
    after: &'a mut [Step<'b>],
    /// Numbers among all steps.
    chosen: &'a [usize],
    /// How a device may choose the byte of the one between them.
    sampling: Option<DeviceSampling>,
}

impl<'b> Chosen<'_, 'b> {
    fn step(&mut self, i: usize) -> &mut Step<'b> {
        let at = self.chosen[i];
        match at.checked_sub(self.before.len() + 1) {
            Some(at) => &mut self.after[at],
            None => &mut self.before[at],
        }
    }
}

impl Others for Chosen<'_, '_> {
    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn get(&mut self, i: usize) -> (&mut dyn Engine, &[u8]) {
        let session = &mut *self.step(i).session;
        (&mut *session.engine, session.context.bytes())
    }

    fn sampling(&mut self, i: usize) -> Option<DeviceSampling> {
        match i.checked_sub(1) {
            None => self.sampling,
            Some(i) => self.step(i).sampling(),
        }
    }

    fn seen(&self, i: usize) -> &dyn Engine {
        let at = self.chosen[i];
        let step = match at.checked_sub(self.before.len() + 1) {
            Some(at) => &self.after[at],
            None => &self.before[at],
        };
        &*step.session.engine
    }
}
