//! Saved sessions: the stream's last bytes, not its keys and values.
//!
//! A state is the bytes that the model sees and those it would see after going back; the rest is computed anew when the
//! restored session is asked for a prediction. So a state is small (twice the context and a little, where keys and
//! values are thousands of times that), the same on every device, precision, instruction set and thread count, and
//! cannot smuggle numbers into a model. The price is one prefill of at most the context after restoring. A restored
//! session continues bit by bit as the saved one did where the model is portable; elsewhere the last digits of its
//! logits may differ, as they may between two ways of feeding the same bytes.
//!
//! # Format
//! Little-endian, 64 bytes and the held ones:
//! ```text
//!   0  8  "GRUGSTAT"
//!   8  4  version, 1
//!  12  4  flags: 1 = the stream began with the implicit byte 0
//!  16  8  the model's fingerprint
//!  24  8  bytes of context of the session
//!  32  8  position
//!  40  8  how many of the last bytes were generated, of those held (for stop sequences)
//!  48  8  number of held bytes
//!  56  n  the held bytes
//!   …  8  XXH3-64 of everything before
//! ```

use xxhash_rust::xxh3::xxh3_64;

use super::{MAX_STOP_BYTES, Session};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"GRUGSTAT";
const VERSION: u32 = 1;
const FLAG_STARTED: u32 = 1;
const HEADER: usize = 56;
const CHECKSUM: usize = 8;

/// The most bytes that a saved session of this context has.
pub(crate) fn max_saved_bytes(context: usize) -> usize {
    // What a session holds at most; see `Context`.
    HEADER + 3 * context + MAX_STOP_BYTES + CHECKSUM
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

impl Session {
    /// This session as bytes, bound to its model: see the format in the source. At most
    /// [`Model::saved_session_bytes`](crate::Model::saved_session_bytes) of them.
    pub fn save(&self) -> Vec<u8> {
        let held = self.context.held();
        let mut out = Vec::with_capacity(HEADER + held.len() + CHECKSUM);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(if self.started { FLAG_STARTED } else { 0 }).to_le_bytes());
        for number in [
            self.model.fingerprint(),
            self.max_context as u64,
            self.position(),
            self.context.generated() as u64,
            held.len() as u64,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(held);
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out
    }

    /// Replaces this session's stream by a saved one. What the session was made with (overflow, cancellation) stays;
    /// its `max_context` must be that of the saved one. Nothing is computed before the next prediction.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for bytes that are no saved session, [`ErrorKind::Version`] for those of a newer library,
    /// [`ErrorKind::Mismatch`] for those of another model or context. The session is unchanged then.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        let bad = |what: &str| Error::format(format!("saved session: {what}"));
        if !state.starts_with(MAGIC) {
            return Err(bad("does not begin with \"GRUGSTAT\""));
        }
        if state.len() < HEADER + CHECKSUM {
            return Err(bad("is truncated"));
        }
        let version = u32_at(state, 8);
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Version,
                format!("saved session: version {version}; this library reads version {VERSION}"),
            ));
        }
        let (body, checksum) = state.split_at(state.len() - CHECKSUM);
        if xxh3_64(body) != u64_at(checksum, 0) {
            return Err(bad("its checksum is wrong: it is truncated or was changed"));
        }
        let flags = u32_at(body, 12);
        let [fingerprint, max_context, position, generated, held] =
            [16, 24, 32, 40, 48].map(|at| u64_at(body, at));
        if fingerprint != self.model.fingerprint() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "saved session: is of the model {fingerprint:016x}, this one is {:016x}",
                    self.model.fingerprint()
                ),
            ));
        }
        if max_context != self.max_context as u64 {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "saved session: has a context of {max_context} bytes, this session one of {}",
                    self.max_context
                ),
            ));
        }
        let started = match flags {
            0 => false,
            FLAG_STARTED => true,
            other => return Err(bad(&format!("has unknown flags {other:#x}"))),
        };
        if held != (body.len() - HEADER) as u64 {
            return Err(bad("its length is not what its header says"));
        }
        // No stream is so long, and so counting on from there does not overflow.
        if position > i64::MAX as u64 {
            return Err(bad("its position is impossible"));
        }
        let total = position + started as u64;
        if generated > position {
            return Err(bad("more bytes were generated than it has"));
        }
        if !self.context.set(total, &body[HEADER..], generated) {
            return Err(bad("holds a number of bytes that is impossible at its position"));
        }
        self.engine.clear();
        if let Some(drafter) = &mut self.drafter {
            drafter.rewind(0);
        }
        self.taken = 0;
        self.started = started;
        Ok(())
    }
}
