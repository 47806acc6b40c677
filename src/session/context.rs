//! The bytes of a stream that still matter: what the model sees, and what it would see after going back.
//!
//! Where a context begins is a function of how many bytes came before, never of how they came: that is what makes
//! sliding, going back, saving and restoring agree.

use super::MAX_STOP_BYTES;

/// The end of a stream. All its memory is taken when it is made.
#[derive(Debug)]
pub(super) struct Context {
    /// The last bytes, at least `keep` of them where there were so many; the context is the end of this.
    held: Vec<u8>,
    /// Of each of them, whether it was generated: stop sequences are looked for in those, across calls.
    generated: Vec<bool>,
    /// Bytes of the whole stream, the implicit byte 0 included.
    total: u64,
    /// What the model sees at most.
    max: usize,
    /// Whether the context slides byte by byte; else by half of it.
    windowed: bool,
}

impl Context {
    pub(super) fn new(max: usize, windowed: bool) -> Context {
        let most = Context::keep(max) + max;
        Context {
            held: Vec::with_capacity(most),
            generated: Vec::with_capacity(most),
            total: 0,
            max,
            windowed,
        }
    }

    /// How many bytes are held at least: going back `max` bytes leaves a whole context and any stop sequence.
    pub(super) fn keep(max: usize) -> usize {
        2 * max + MAX_STOP_BYTES
    }

    /// A copy with the same reserve.
    pub(super) fn fork(&self) -> Context {
        let mut copy = Context::new(self.max, self.windowed);
        copy.held.extend_from_slice(&self.held);
        copy.generated.extend_from_slice(&self.generated);
        copy.total = self.total;
        copy
    }

    /// Where the context begins after this many bytes.
    fn start_after(&self, total: u64) -> u64 {
        let overflow = total.saturating_sub(self.max as u64);
        // Each time that a byte does not fit, all but the latter half goes.
        let step = if self.windowed { 1 } else { (self.max - self.max / 2) as u64 };
        overflow.div_ceil(step).saturating_mul(step)
    }

    /// Where it begins now.
    pub(super) fn start(&self) -> u64 {
        self.start_after(self.total)
    }

    /// How many bytes the model sees.
    pub(super) fn len(&self) -> usize {
        (self.total - self.start()) as usize
    }

    /// What the model sees.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.held[self.held.len() - self.len()..]
    }

    /// The last bytes that are held, of which the context is the end.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// How many of the last bytes were generated, as far as they are held.
    pub(super) fn generated(&self) -> usize {
        self.generated.iter().rev().take_while(|generated| **generated).count()
    }

    /// Whether the last bytes are these, and were generated.
    pub(super) fn has_generated(&self, bytes: &[u8]) -> bool {
        self.held.ends_with(bytes) && self.generated[self.held.len() - bytes.len()..].iter().all(|g| *g)
    }

    /// Bytes of the whole stream.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many bytes can be added without forgetting any.
    pub(super) fn room(&self) -> usize {
        self.max - self.len()
    }

    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.generated.clear();
        self.total = 0;
    }

    /// Adds bytes, and forgets the oldest where they no longer matter.
    pub(super) fn push(&mut self, bytes: &[u8], generated: bool) {
        let keep = Context::keep(self.max);
        let most = keep + self.max;
        self.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(most)..];
        if self.held.len() + bytes.len() > most {
            // A call that fails takes back up to a context of these, which leaves `keep` as well.
            let old = (keep + bytes.len()).min(most) - bytes.len();
            let forgotten = self.held.len() - old.min(self.held.len());
            self.held.drain(..forgotten);
            self.generated.drain(..forgotten);
        }
        self.held.extend_from_slice(bytes);
        self.generated.resize(self.held.len(), generated);
    }

    /// Takes the last `n` bytes away. `false`, and nothing is changed, where the context before them is forgotten.
    pub(super) fn pop(&mut self, n: u64) -> bool {
        if n > self.total || n > self.held.len() as u64 {
            return false;
        }
        let total = self.total - n;
        let left = self.held.len() - n as usize;
        if ((total - self.start_after(total)) as usize) > left {
            return false;
        }
        self.total = total;
        self.held.truncate(left);
        self.generated.truncate(left);
        true
    }

    /// Replaces everything by the end of a stream of `total` bytes, the last `generated` of which were generated.
    /// `false`, and nothing is changed, where `held` is not what such a stream can hold.
    pub(super) fn set(&mut self, total: u64, held: &[u8], generated: u64) -> bool {
        let most = total.min((Context::keep(self.max) + self.max) as u64);
        if !(total - self.start_after(total)..=most).contains(&(held.len() as u64)) {
            return false;
        }
        self.total = total;
        self.held.clear();
        self.held.extend_from_slice(held);
        let fed = held.len() - generated.min(held.len() as u64) as usize;
        self.generated.clear();
        self.generated.resize(fed, false);
        self.generated.resize(held.len(), true);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the model sees, by the definition: byte after byte.
    fn by_definition(bytes: &[u8], max: usize, windowed: bool) -> Vec<u8> {
        let mut context = Vec::new();
        for &byte in bytes {
            if context.len() == max {
                context.drain(..if windowed { 1 } else { max - max / 2 });
            }
            context.push(byte);
        }
        context
    }

    #[test]
    fn any_way_to_a_position_gives_the_context_of_the_definition() {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for (max, windowed) in [(1, false), (1, true), (2, false), (7, false), (8, true), (100, false)] {
            for chunk in [1, 5, 300, 3000] {
                let mut context = Context::new(max, windowed);
                let mut n = 0;
                for part in bytes.chunks(chunk) {
                    context.push(part, n % 2 == 0);
                    n += part.len();
                    assert_eq!(
                        context.bytes(),
                        by_definition(&bytes[..n], max, windowed),
                        "{max} {chunk} {n}"
                    );
                    let back = (n * 31 % (max + 1)).min(n);
                    assert!(context.pop(back as u64));
                    assert_eq!(context.bytes(), by_definition(&bytes[..n - back], max, windowed));
                    context.push(&bytes[n - back..n], false);
                    assert_eq!(context.total(), n as u64);
                }
                assert!(context.held.capacity() <= Context::keep(max) + max + 8);
                assert!(!context.pop(2999));
                assert_eq!(context.bytes(), by_definition(&bytes, max, windowed));
            }
        }
    }
}
