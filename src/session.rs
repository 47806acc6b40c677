//! One stream of bytes through a model: feed it, ask what comes next, let it write.
//!
//! # Start
//! A model predicts from at least one byte. Asking an empty session for a prediction (`logits`, `next`, `generate`,
//! `score`) starts it with an implicit byte 0, as the published code does; that byte counts as context, but not in
//! [`Session::position`]. Feeding first means that there is none.
//!
//! # A full context
//! A bidirectional model sees the last bytes of its window and slides by one byte at no extra cost. A causal model's
//! positions cannot be moved, so when its context is full and another byte comes, [`Overflow::Slide`] starts it anew
//! from the latter half of its bytes (one prefill, every half context); [`Overflow::Error`] refuses the byte. What the
//! model sees after n bytes depends on n and the bytes alone, not on how they were divided into calls.
//!
//! # Going back
//! [`Session::rewind`] gives exactly the session that never got the bytes: the bytes of two contexts are kept, keys and
//! values of earlier positions are still there, and the short memories of convolutions are computed anew from the
//! bytes. It costs no memory beside those bytes and, at the next prediction, one step of decoding; going back over a
//! place where a causal context slid costs a prefill of the context that was left there.

mod batch;
mod context;
mod draft;
mod state;

pub use batch::{Step, next_batch};
pub(crate) use state::max_saved_bytes;

use context::Context;
use draft::{Drafter, Timer};

use crate::backend::{Engine, surprise};
use crate::cancel::Cancel;
use crate::config::VOCAB;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Model;
use crate::sampler::Sampler;

/// Longest sequence that generation can stop at, in bytes.
pub const MAX_STOP_BYTES: usize = 256;

/// What happens to the byte that no longer fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Forget the oldest bytes.
    #[default]
    Slide,
    /// Refuse it with [`ErrorKind::ContextFull`].
    Error,
}

/// Whether a session guesses what comes next from what came before, and computes it along where that saves time. What is
/// predicted and chosen is the same bit by bit; only the time differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drafts {
    /// Where it pays, as measured in this session.
    #[default]
    Auto,
    /// Never: a byte at a time.
    Off,
}

/// How a session is made.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Bytes of context; 0 = the model's. Less saves memory; a causal model alone can have less.
    pub max_context: usize,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// Stops the session's work when triggered.
    pub cancel: Option<Cancel>,
    /// Whether it computes several bytes at once where the text repeats itself.
    pub drafts: Drafts,
}

/// Why `generate` returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The buffer is full.
    Capacity,
    /// The model wrote the byte that ends a document.
    EndByte,
    /// One of the stop sequences is complete.
    Sequence,
    /// The text is complete by its grammar, and nothing more may come.
    Grammar,
}

/// One byte stream: its context, its state on the device, and the logits of the next byte.
pub struct Session {
    model: Model,
    engine: Box<dyn Engine>,
    overflow: Overflow,
    cancel: Option<Cancel>,
    /// What the model sees, at most `max_context` bytes; the implicit byte 0 is one of them.
    context: Context,
    /// What may come next, where guessing is possible.
    drafter: Option<Drafter>,
    /// How many of them the engine took in.
    taken: usize,
    max_context: usize,
    /// Whether the session began with the implicit byte 0.
    started: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("position", &self.position()).finish_non_exhaustive()
    }
}

/// The bytes of context of a session of which so many are wanted; 0 = the model's.
pub(crate) fn context_of(model: &Model, wanted: usize) -> Result<usize> {
    let window = model.config().window_bytes();
    match wanted {
        0 => Ok(window),
        wanted if wanted > window => {
            Err(Error::invalid(format!("max_context = {wanted}: the model's context is {window} bytes")))
        }
        wanted if wanted < window && !model.config().is_causal() => Err(Error::new(
            ErrorKind::Unsupported,
            format!("max_context = {wanted}: this bidirectional model needs its window of {window} bytes"),
        )),
        1 if model.config().is_causal() && window > 1 => {
            Err(Error::invalid("max_context = 1: at least 2 bytes are needed"))
        }
        wanted => Ok(wanted),
    }
}

impl Session {
    /// An empty session. All the memory that it will use is taken here.
    pub fn new(model: &Model, options: &SessionOptions) -> Result<Session> {
        let max_context = context_of(model, options.max_context)?;
        let engine = model.new_engine(max_context)?;
        Ok(Session {
            context: Context::new(max_context, engine.is_windowed()),
            drafter: (options.drafts == Drafts::Auto && engine.max_draft() > 0)
                .then(|| Drafter::new(max_context, engine.max_draft())),
            engine,
            model: model.clone(),
            overflow: options.overflow,
            cancel: options.cancel.clone(),
            taken: 0,
            max_context,
            started: false,
        })
    }

    /// An independent session at this position, with the same options (the cancellation token is shared). It copies
    /// the state, and shares the weights.
    pub fn fork(&self) -> Result<Session> {
        Ok(Session {
            model: self.model.clone(),
            engine: self.engine.fork()?,
            overflow: self.overflow,
            cancel: self.cancel.clone(),
            context: self.context.fork(),
            drafter: self.drafter.clone(),
            taken: self.taken,
            max_context: self.max_context,
            started: self.started,
        })
    }

    /// From now on this token stops the session's work; `None` is no token. A fork shares the token of its origin until
    /// it gets one of its own.
    pub fn set_cancel(&mut self, cancel: Option<Cancel>) {
        self.cancel = cancel;
    }

    /// The model it runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Bytes consumed so far: fed, and generated.
    pub fn position(&self) -> u64 {
        self.context.total() - self.started as u64
    }

    /// Bytes of context.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// Bytes of the state on the device: keys, values and histories.
    pub fn state_bytes(&self) -> usize {
        self.engine.state_bytes()
    }

    /// How many bytes passed through the model as drafts, and how many of them came; see [`Drafts`].
    pub fn drafted(&self) -> (u64, u64) {
        self.drafter.as_ref().map_or((0, 0), |drafter| (drafter.drafted, drafter.came))
    }

    /// Whether the bytes so far are enough to predict from: one is for most models, but a parallel bidirectional one
    /// that does not pad needs those of its aggregated stream's kernel.
    pub fn can_predict(&self) -> bool {
        let config = self.model.config();
        let len = if config.pad_short_input { self.max_context } else { self.context.len().max(1) };
        config.is_causal() || config.check_input_len(len).is_ok()
    }

    /// Back to an empty session.
    pub fn reset(&mut self) {
        self.engine.clear();
        self.context.clear();
        if let Some(drafter) = &mut self.drafter {
            drafter.rewind(0);
        }
        self.taken = 0;
        self.started = false;
    }

    /// Takes in bytes. On an error the session holds exactly [`position`](Self::position) bytes and stays usable.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_room(bytes.len())?;
        self.append(bytes, false);
        let result = self.catch_up();
        if result.is_err() {
            // What of these bytes did not get in was not consumed.
            let lost = (self.context.len() - self.taken).min(bytes.len());
            self.take_back(lost as u64);
        }
        result
    }

    /// Undoes the last `n` bytes, fed or generated: the session is then what it would be had it never got them.
    ///
    /// Going back `max_context` bytes from the furthest position always works ([`Model::rewind_bytes`]), and often
    /// further. Where it does not, the error is [`ErrorKind::Rewind`] and nothing has changed.
    pub fn rewind(&mut self, n: u64) -> Result<()> {
        let position = self.position();
        if n > position {
            return Err(Error::new(
                ErrorKind::Rewind,
                format!("{n} bytes cannot be undone: the session is at position {position}"),
            ));
        }
        if n > 0 && !self.take_back(n) {
            return Err(Error::new(
                ErrorKind::Rewind,
                format!(
                    "{n} bytes cannot be undone: the bytes before them are forgotten; at least the last {} can be",
                    self.max_context
                ),
            ));
        }
        Ok(())
    }

    /// Logits of the next byte.
    pub fn logits(&mut self) -> Result<&[f32; VOCAB]> {
        self.start()?;
        match &mut self.drafter {
            // One byte is to pass, and did not pass in a draft.
            Some(drafter)
                if self.taken + 1 == self.context.len()
                    && self.engine.ahead().first() != self.context.bytes().last() =>
            {
                let draft = drafter.draft(&self.context);
                let timer = Timer::start();
                self.engine.feed_draft(self.context.bytes(), draft.bytes(), self.cancel.as_ref())?;
                self.taken += 1;
                self.engine.logits(self.context.bytes(), self.cancel.as_ref())?;
                drafter.took(draft.bytes().len(), timer.seconds());
            }
            _ => self.catch_up()?,
        }
        self.engine.logits(self.context.bytes(), self.cancel.as_ref())
    }

    /// The vector that the next byte's logits are a linear function of (up to a softcap): the state of the last
    /// position after the final normalization, `output_dim` numbers of the model's configuration.
    pub fn embedding(&mut self) -> Result<&[f32]> {
        self.logits()?;
        Ok(self.engine.embedding())
    }

    /// Chooses the next byte and takes it in. Where the sampler's constraints let the text end, the model's end byte may
    /// come too. On an error no draw is used up.
    pub fn next(&mut self, sampler: &mut Sampler) -> Result<u8> {
        self.check_room_to_predict(1)?;
        let mut byte = [0];
        if self.run_ahead(sampler, &mut byte)? == 1 {
            sampler.count_draws(1);
        } else {
            let end_byte = self.model.end_byte();
            byte[0] = sampler.choose(self.logits()?, end_byte)?;
        }
        // It passes through the model when the byte after it is asked for: a text's last byte costs nothing.
        self.append(&byte, true);
        Ok(byte[0])
    }

    /// Writes bytes into `out` until it is full or something ends the text; a stop sequence is part of what is
    /// written, and may have begun in an earlier call. `n` is set to the bytes written, on an error too; they are part
    /// of the session then.
    pub fn generate(
        &mut self,
        sampler: &mut Sampler,
        stops: &[&[u8]],
        out: &mut [u8],
        n: &mut usize,
    ) -> Result<StopReason> {
        *n = 0;
        if let Some(stop) = stops.iter().find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            return Err(Error::invalid(format!(
                "a stop sequence has {} bytes: 1 to {MAX_STOP_BYTES} are possible",
                stop.len()
            )));
        }
        while *n < out.len() {
            if sampler.is_finished() {
                return Ok(StopReason::Grammar);
            }
            let ahead = self.run_ahead(sampler, &mut out[*n..])?;
            for i in 0..ahead.max(1) {
                if ahead > 0 {
                    self.append(&[out[*n]], true);
                    sampler.count_draws(1);
                } else {
                    out[*n] = self.next(sampler)?;
                }
                let byte = out[*n];
                *n += 1;
                let reason = if self.model.end_byte() == Some(byte) {
                    StopReason::EndByte
                } else if stops.iter().any(|stop| self.context.has_generated(stop)) {
                    StopReason::Sequence
                } else {
                    continue;
                };
                if i + 1 < ahead {
                    // What was chosen beyond never happened.
                    self.taken = self.context.len() - 1;
                    self.engine.rewind(&self.context.bytes()[..self.taken]);
                }
                return Ok(reason);
            }
        }
        Ok(if sampler.is_finished() { StopReason::Grammar } else { StopReason::Capacity })
    }

    /// Lets a device that can choose bytes write the next ones into `out`, and returns how many it wrote; 0 where it
    /// cannot. They are not part of the context yet; all but the last are taken in.
    fn run_ahead(&mut self, sampler: &Sampler, out: &mut [u8]) -> Result<usize> {
        let Some(sampling) = sampler.on_device().filter(|_| self.engine.runs_ahead()) else { return Ok(0) };
        self.check_room_to_predict(1)?;
        self.start()?;
        // A causal context that is full predicts one more byte before it starts anew.
        let room = self.context.room().max(1);
        let slides = self.engine.is_windowed() && self.overflow == Overflow::Slide;
        let most = if slides { out.len() } else { out.len().min(room) };
        let new = self.context.len() - self.taken;
        let n = self.engine.generate(
            self.context.bytes(),
            new,
            &sampling,
            &mut out[..most],
            self.cancel.as_ref(),
        )?;
        self.taken = self.context.len() + n.saturating_sub(1);
        Ok(n)
    }

    /// Takes in bytes while measuring how surprising they are: returns the sum of -ln p over them, in nats, and writes
    /// each one's into `nats` where that is given (of the same length). On an error, as [`feed`](Self::feed).
    pub fn score(&mut self, bytes: &[u8], mut nats: Option<&mut [f32]>) -> Result<f64> {
        if let Some(nats) = &nats
            && nats.len() != bytes.len()
        {
            return Err(Error::invalid(format!(
                "{} bytes are to be scored into {} numbers",
                bytes.len(),
                nats.len()
            )));
        }
        if bytes.is_empty() {
            return Ok(0.0);
        }
        self.check_room_to_predict(bytes.len())?;
        self.start()?;
        let mut total = 0.0;
        let mut done = 0;
        // Enough for any chunk that an engine takes, without allocating.
        let mut buffer = [0.0f32; 64];
        while done < bytes.len() {
            self.catch_up()?;
            let room = self.context.room();
            let n = (bytes.len() - done).min(room.max(1)).min(self.engine.max_feed()).min(buffer.len());
            let now = &bytes[done..done + n];
            if room == 0 {
                // This byte is predicted from the full context, and then makes it slide.
                buffer[0] = surprise(self.engine.logits(self.context.bytes(), self.cancel.as_ref())?, now[0]);
                self.append(now, false);
            } else {
                self.context.push(now, false);
                let scores = &mut buffer[..n];
                if let Err(error) = self.engine.score(self.context.bytes(), n, scores, self.cancel.as_ref()) {
                    self.take_back(n as u64);
                    return Err(error);
                }
                self.taken += n;
            }
            total += buffer[..n].iter().map(|&v| v as f64).sum::<f64>();
            if let Some(nats) = &mut nats {
                nats[done..done + n].copy_from_slice(&buffer[..n]);
            }
            done += n;
        }
        Ok(total)
    }

    /// Begins what asks for predictions, unless the session is canceled: an empty one gets its implicit byte 0.
    fn start(&mut self) -> Result<()> {
        self.cancel.as_ref().map_or(Ok(()), Cancel::check)?;
        if self.context.total() == 0 {
            self.context.push(&[0], false);
            self.started = true;
        }
        Ok(())
    }

    /// As [`check_room`](Self::check_room), before a call that starts an empty session.
    fn check_room_to_predict(&self, bytes: usize) -> Result<()> {
        let starts = usize::from(self.context.total() == 0);
        self.check_room(bytes.saturating_add(starts)).map_err(|e| match starts {
            0 => e,
            _ => e.at("with the byte 0 that an empty session begins with"),
        })
    }

    /// Refuses bytes that would overflow, where that is an error.
    fn check_room(&self, bytes: usize) -> Result<()> {
        let held = self.context.total();
        if self.overflow == Overflow::Error && bytes as u64 > (self.max_context as u64).saturating_sub(held) {
            return Err(Error::new(
                ErrorKind::ContextFull,
                format!("{bytes} more bytes do not fit: the context of {} holds {held}", self.max_context),
            ));
        }
        Ok(())
    }

    /// Adds bytes to the context, forgetting the oldest as they overflow. The engine gets them in
    /// [`catch_up`](Self::catch_up), so bytes that overflow again at once cost nothing.
    fn append(&mut self, bytes: &[u8], generated: bool) {
        let start = self.context.start();
        self.context.push(bytes, generated);
        self.follow(start);
    }

    /// Takes the last bytes away, and the engine with them. `false`, and nothing is changed, where that is impossible.
    fn take_back(&mut self, n: u64) -> bool {
        let start = self.context.start();
        if !self.context.pop(n) {
            return false;
        }
        self.follow(start);
        if let Some(drafter) = &mut self.drafter {
            drafter.rewind(self.context.total());
        }
        // The last byte is taken in again when a prediction is asked for, which makes the state of its position anew.
        let keep = self.taken.min(self.context.len().saturating_sub(1));
        if keep < self.taken || keep == 0 {
            self.engine.rewind(&self.context.bytes()[..keep]);
            self.taken = keep;
        }
        true
    }

    /// After the context changed, which began at `start` before: forgets what the engine took in from elsewhere.
    fn follow(&mut self, start: u64) {
        if self.context.start() != start {
            self.engine.clear();
            self.taken = 0;
        }
    }

    /// Whether there are bytes that the engine did not take in yet.
    fn has_pending(&self) -> bool {
        self.taken < self.context.len()
    }

    /// Brings the engine to the end of the context.
    fn catch_up(&mut self) -> Result<()> {
        self.catch_up_to(self.context.len())
    }

    /// Brings the engine to at least this length of the context.
    fn catch_up_to(&mut self, len: usize) -> Result<()> {
        while self.taken < len {
            let n = (len - self.taken).min(self.engine.max_feed());
            self.engine.feed(&self.context.bytes()[..self.taken + n], n, self.cancel.as_ref())?;
            self.taken += n;
        }
        Ok(())
    }
}
