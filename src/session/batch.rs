//! One step for several sessions of one model.

use super::Session;
use crate::error::{Error, Result};
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
pub fn next_batch(steps: &mut [Step<'_>], bytes: &mut [Result<u8>]) -> Result<()> {
    if steps.len() != bytes.len() {
        return Err(Error::invalid(format!("{} steps for {} results", steps.len(), bytes.len())));
    }
    if let Some(other) = steps.iter().position(|step| !step.session.model.is_same(&steps[0].session.model)) {
        return Err(Error::invalid(format!("session {other} is of another model than session 0")));
    }
    for (step, byte) in steps.iter_mut().zip(bytes) {
        *byte = match step.input {
            Some(input) => step.session.feed(&[input]).map(|()| input),
            None => step.session.next(step.sampler),
        };
    }
    Ok(())
}
