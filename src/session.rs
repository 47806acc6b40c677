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

/// How a session is made.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Bytes of context; 0 = the model's. Less saves memory; a causal model alone can have less.
    pub max_context: usize,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// Stops the session's work when triggered.
    pub cancel: Option<Cancel>,
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
    /// The grammar is complete.
    Grammar,
}

/// The last bytes that were generated, for stop sequences that span calls.
struct Tail {
    bytes: [u8; MAX_STOP_BYTES],
    len: usize,
}

impl Tail {
    fn push(&mut self, byte: u8) {
        if self.len == MAX_STOP_BYTES {
            self.bytes.copy_within(1.., 0);
            self.len -= 1;
        }
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn ends_with(&self, stop: &[u8]) -> bool {
        self.bytes[..self.len].ends_with(stop)
    }
}

/// One byte stream: its context, its state on the device, and the logits of the next byte.
pub struct Session {
    model: Model,
    engine: Box<dyn Engine>,
    overflow: Overflow,
    cancel: Option<Cancel>,
    /// What the model sees, at most `max_context` bytes; the implicit byte 0 is one of them.
    context: Vec<u8>,
    /// How many of them the engine took in.
    taken: usize,
    max_context: usize,
    position: u64,
    /// Whether the session began with the implicit byte 0.
    started: bool,
    tail: Tail,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Session {
    /// An empty session. All the memory that it will use is taken here.
    pub fn new(model: &Model, options: &SessionOptions) -> Result<Session> {
        let window = model.config().window_bytes();
        let max_context = match options.max_context {
            0 => window,
            wanted if wanted > window => {
                return Err(Error::invalid(format!(
                    "max_context = {wanted}: the model's context is {window} bytes"
                )));
            }
            wanted if wanted < window && !model.config().is_causal() => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "max_context = {wanted}: this bidirectional model needs its window of {window} bytes"
                    ),
                ));
            }
            1 if model.config().is_causal() && window > 1 => {
                return Err(Error::invalid("max_context = 1: at least 2 bytes are needed"));
            }
            wanted => wanted,
        };
        Ok(Session {
            engine: model.new_engine(max_context)?,
            model: model.clone(),
            overflow: options.overflow,
            cancel: options.cancel.clone(),
            context: Vec::with_capacity(max_context),
            taken: 0,
            max_context,
            position: 0,
            started: false,
            tail: Tail { bytes: [0; MAX_STOP_BYTES], len: 0 },
        })
    }

    /// The model it runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Bytes consumed so far: fed, and generated.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of context.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// Bytes of the state on the device: keys, values and histories.
    pub fn state_bytes(&self) -> usize {
        self.engine.state_bytes()
    }

    /// Back to an empty session.
    pub fn reset(&mut self) {
        self.engine.clear();
        self.context.clear();
        self.taken = 0;
        self.position = 0;
        self.started = false;
        self.tail.len = 0;
    }

    /// Takes in bytes. On an error the session holds exactly [`position`](Self::position) bytes and stays usable.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.check_room(bytes.len())?;
        self.tail.len = 0;
        self.append(bytes);
        self.catch_up().inspect_err(|_| {
            // What of these bytes did not get in was not consumed.
            let lost = (self.context.len() - self.taken).min(bytes.len());
            self.context.truncate(self.context.len() - lost);
            self.position -= lost as u64;
        })
    }

    /// Logits of the next byte.
    pub fn logits(&mut self) -> Result<&[f32; VOCAB]> {
        self.start();
        self.catch_up()?;
        self.engine.logits(&self.context, self.cancel.as_ref())
    }

    /// Chooses the next byte and takes it in. On an error no draw is used up.
    pub fn next(&mut self, sampler: &mut Sampler) -> Result<u8> {
        self.check_room(1)?;
        self.cancel.as_ref().map_or(Ok(()), Cancel::check)?;
        let byte = sampler.pick(self.logits()?)?;
        // It passes through the model when the byte after it is asked for: a text's last byte costs nothing.
        self.append(&[byte]);
        self.tail.push(byte);
        Ok(byte)
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
        for slot in out {
            let byte = self.next(sampler)?;
            *slot = byte;
            *n += 1;
            if self.model.end_byte() == Some(byte) {
                return Ok(StopReason::EndByte);
            }
            if stops.iter().any(|stop| self.tail.ends_with(stop)) {
                return Ok(StopReason::Sequence);
            }
        }
        Ok(StopReason::Capacity)
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
        self.check_room(bytes.len())?;
        self.tail.len = 0;
        self.start();
        let mut total = 0.0;
        let mut done = 0;
        // Enough for any chunk that an engine takes, without allocating.
        let mut buffer = [0.0f32; 64];
        while done < bytes.len() {
            self.catch_up()?;
            let room = self.max_context - self.context.len();
            let n = (bytes.len() - done).min(room.max(1)).min(self.engine.max_feed()).min(buffer.len());
            let now = &bytes[done..done + n];
            if room == 0 {
                // This byte is predicted from the full context, and then makes it slide.
                buffer[0] = surprise(self.engine.logits(&self.context, self.cancel.as_ref())?, now[0]);
                self.append(now);
            } else {
                let before = self.context.len();
                self.context.extend_from_slice(now);
                self.engine
                    .score(&self.context, n, &mut buffer[..n], self.cancel.as_ref())
                    .inspect_err(|_| self.context.truncate(before))?;
                self.taken += n;
                self.position += n as u64;
            }
            total += buffer[..n].iter().map(|&v| v as f64).sum::<f64>();
            if let Some(nats) = &mut nats {
                nats[done..done + n].copy_from_slice(&buffer[..n]);
            }
            done += n;
        }
        Ok(total)
    }

    /// The implicit byte 0 of a session that is asked before it was fed.
    fn start(&mut self) {
        if self.context.is_empty() {
            self.context.push(0);
            self.started = true;
        }
    }

    /// Refuses bytes that would overflow, where that is an error.
    fn check_room(&self, bytes: usize) -> Result<()> {
        let held = self.position + self.started as u64;
        if self.overflow == Overflow::Error && held + bytes as u64 > self.max_context as u64 {
            return Err(Error::new(
                ErrorKind::ContextFull,
                format!("{bytes} more bytes do not fit: the context of {} holds {held}", self.max_context),
            ));
        }
        Ok(())
    }

    /// Makes room for at least one byte.
    fn make_room(&mut self) {
        if self.context.len() < self.max_context {
            return;
        }
        if self.engine.is_windowed() {
            self.context.remove(0);
            self.taken = self.taken.saturating_sub(1);
        } else {
            self.context.drain(..self.max_context - (self.max_context / 2).max(1));
            self.engine.clear();
            self.taken = 0;
        }
    }

    /// Adds bytes to the context, forgetting the oldest as they overflow. The engine gets them in
    /// [`catch_up`](Self::catch_up), so bytes that overflow again at once cost nothing.
    fn append(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.engine.is_windowed() {
            rest = &rest[rest.len().saturating_sub(self.max_context)..];
        }
        while !rest.is_empty() {
            self.make_room();
            let (now, later) = rest.split_at(rest.len().min(self.max_context - self.context.len()));
            self.context.extend_from_slice(now);
            rest = later;
        }
        self.position += bytes.len() as u64;
    }

    /// Brings the engine to the end of the context.
    fn catch_up(&mut self) -> Result<()> {
        while self.taken < self.context.len() {
            let n = (self.context.len() - self.taken).min(self.engine.max_feed());
            self.engine.feed(&self.context[..self.taken + n], n, self.cancel.as_ref())?;
            self.taken += n;
        }
        Ok(())
    }
}
