//! What may come next: where the last bytes stood before, what followed them there. Several bytes of such a draft pass
//! through the model in one pass, which costs much less than a pass each, because weights are read once; each byte is
//! still chosen from its own logits, so a draft that is wrong costs time alone, and what is written is the same bit by
//! bit (the idea: Leviathan, Kalman and Matias, "Fast inference from transformers via speculative decoding", 2023;
//! drafts from the prompt: Saxena, "Prompt lookup decoding", 2023).
//!
//! How long a draft is worth it follows from two things that a session measures: how often a guess was right after a
//! match of this length, and how long passes of so many rows take. All memory is taken when it is made.

use super::context::Context;
use crate::backend::MAX_DRAFT;

/// Bytes that a match has at least.
const SHORTEST: usize = 4;
/// Bytes of a match that are compared.
const LONGEST: usize = 32;
/// Earlier places that are compared for each byte.
const CANDIDATES: usize = 8;
/// Entries of the index at most: how many bytes back a match may lie.
const MAX_ENTRIES: usize = 1 << 16;
/// Rows that a pass may have. In between, kernels gain little.
const ROWS: [usize; 6] = [1, 2, 4, 8, 12, 16];
/// What they cost, in passes of one row, before that is measured.
const ASSUMED: [f32; ROWS.len()] = [1.0, 1.4, 1.8, 2.6, 3.6, 4.6];
/// How often a guess is right, by the length of the match, before that is measured.
const ASSUMED_ODDS: [f32; 9] = [0.35, 0.45, 0.5, 0.55, 0.6, 0.65, 0.75, 0.85, 0.9];
/// What a draft must promise, in bytes for the time of a pass of one row: enough more than one that it is no error of the
/// measurements, of which the most promising is taken.
const WORTH_IT: f32 = 1.2;

/// The class of a match of this many bytes.
fn class(len: usize) -> usize {
    match len {
        0..=7 => len.max(SHORTEST) - SHORTEST,
        8..=9 => 4,
        10..=12 => 5,
        13..=16 => 6,
        17..=24 => 7,
        _ => 8,
    }
}

/// Bytes that may come next; may be empty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Draft {
    bytes: [u8; MAX_DRAFT],
    len: usize,
}

impl Draft {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Guesses, and learns how well.
#[derive(Debug, Clone)]
pub(super) struct Drafter {
    index: Index,
    max_draft: usize,
    /// What was guessed last, at which position, after a match of how many bytes.
    guess: Draft,
    guessed_at: u64,
    match_len: usize,
    odds: [f32; ASSUMED_ODDS.len()],
    /// Seconds that passes take, by their rows; 0 where that is not known yet.
    seconds: [f32; ROWS.len()],
    /// Whether a pass was measured; the first one reads the weights from the file.
    warm: bool,
    /// How many of the guessed bytes passed as a draft.
    passed: usize,
    /// Bytes that passed as drafts, and those of them that came.
    pub drafted: u64,
    pub came: u64,
}

impl Drafter {
    pub(super) fn new(max_context: usize, max_draft: usize) -> Drafter {
        Drafter {
            index: Index::new(max_context),
            max_draft,
            guess: Draft::default(),
            guessed_at: 0,
            match_len: 0,
            odds: ASSUMED_ODDS,
            seconds: [0.0; ROWS.len()],
            warm: false,
            passed: 0,
            drafted: 0,
            came: 0,
        }
    }

    /// Follows a stream that went back to, or became another at, this position.
    pub(super) fn rewind(&mut self, total: u64) {
        self.index.end = self.index.end.min(total);
        self.guess.len = 0;
    }

    /// What to let pass along with the last byte of the context.
    pub(super) fn draft(&mut self, context: &Context) -> Draft {
        self.learn(context);
        let held = context.held();
        self.index.add(held, context.total());
        (self.guess, self.passed) = (Draft::default(), 0);
        let Some((at, match_len)) = self.index.find(held, context.total()) else { return Draft::default() };
        self.match_len = match_len;
        self.guessed_at = context.total();
        self.guess.len = MAX_DRAFT;
        for i in 0..MAX_DRAFT {
            // Beyond the end, what was guessed repeats.
            self.guess.bytes[i] =
                held.get(at + i).copied().unwrap_or_else(|| self.guess.bytes[at + i - held.len()]);
        }
        let mut draft = self.guess;
        draft.len = self.best_len(context.room().min(self.max_draft));
        self.passed = draft.len;
        self.drafted += draft.len as u64;
        draft
    }

    /// Learns from what came where something was guessed.
    fn learn(&mut self, context: &Context) {
        let came = context.total().saturating_sub(self.guessed_at) as usize;
        let came = &context.held()[context.held().len().saturating_sub(came)..];
        for (i, (guess, byte)) in self.guess.bytes().iter().zip(came).enumerate() {
            let odds = &mut self.odds[class(self.match_len + i)];
            *odds += (f32::from(u8::from(guess == byte)) - *odds) / 24.0;
            if guess != byte {
                break;
            }
            self.came += u64::from(i < self.passed);
        }
    }

    /// The length of a draft that promises most bytes a second; 0 where a pass of one row does.
    fn best_len(&self, most: usize) -> usize {
        if Timer::IS_ONE && self.seconds[0] == 0.0 {
            return 0;
        }
        let (mut best, mut best_rate) = (0, WORTH_IT);
        let (mut odds, mut bytes) = (1.0, 1.0);
        for len in 1..=most {
            odds *= self.odds[class(self.match_len + len - 1)];
            bytes += odds;
            if let Some(i) = ROWS.iter().position(|rows| *rows == len + 1)
                && bytes / self.cost(i) > best_rate
            {
                (best, best_rate) = (len, bytes / self.cost(i));
            }
        }
        best
    }

    /// What a pass costs, in passes of one row.
    fn cost(&self, i: usize) -> f32 {
        if self.seconds[i] > 0.0 { self.seconds[i] / self.seconds[0] } else { ASSUMED[i] }
    }

    /// How long the pass took with a draft of this length.
    pub(super) fn took(&mut self, draft: usize, seconds: f32) {
        let Some(measured) = ROWS.iter().position(|rows| *rows == draft + 1) else { return };
        if !std::mem::replace(&mut self.warm, true) {
            return;
        }
        // A pass that was interrupted says little.
        let likely = ASSUMED[measured] * self.seconds[0];
        let now = &mut self.seconds[measured];
        *now = match *now {
            0.0 if measured == 0 => seconds,
            0.0 => seconds.min(2.0 * likely),
            before => before + (seconds.min(2.0 * before) - before) / 5.0,
        };
        // What is not tried is forgotten by and by, so that it is tried again.
        for i in (1..ROWS.len()).filter(|i| *i != measured) {
            let likely = ASSUMED[i] * self.seconds[0];
            if self.seconds[i] > 0.0 {
                self.seconds[i] += (likely - self.seconds[i]) / 4096.0;
            }
        }
    }
}

/// Where each group of [`SHORTEST`] bytes ended, the latest place first.
#[derive(Debug, Clone)]
struct Index {
    /// By hash, the last position, as the low half of the stream's.
    last: Box<[u32]>,
    /// By position, the position before it with the same hash.
    before: Box<[u32]>,
    /// How far the stream is in it.
    end: u64,
}

impl Index {
    fn new(max_context: usize) -> Index {
        let entries = (2 * max_context).next_power_of_two().clamp(256, MAX_ENTRIES);
        let table = || vec![0; entries].into_boxed_slice();
        Index { last: table(), before: table(), end: 0 }
    }

    fn hash(&self, bytes: [u8; SHORTEST]) -> usize {
        let bits = self.last.len().trailing_zeros();
        (u32::from_le_bytes(bytes).wrapping_mul(2_654_435_761) >> (32 - bits)) as usize
    }

    /// Takes in the stream up to `total`, of which `held` are the last bytes.
    fn add(&mut self, held: &[u8], total: u64) {
        let new = total.saturating_sub(self.end).min(self.last.len() as u64) as usize;
        let groups = held.windows(SHORTEST).enumerate().skip((held.len() + 1).saturating_sub(SHORTEST + new));
        for (i, group) in groups {
            let position = (total - (held.len() - i - SHORTEST) as u64) as u32;
            let hash = self.hash(group.try_into().expect("a window has its length"));
            self.before[position as usize % self.last.len()] = self.last[hash];
            self.last[hash] = position;
        }
        self.end = total;
    }

    /// Where in `held` something follows that the end of it, at position `total`, may be followed by too: after the
    /// longest match among the latest ones, and how long that is.
    fn find(&self, held: &[u8], total: u64) -> Option<(usize, usize)> {
        let mut best = None;
        let mut position = total as u32;
        for _ in 0..CANDIDATES {
            position = self.before[position as usize % self.last.len()];
            let distance = (total as u32).wrapping_sub(position) as usize;
            if distance == 0 || distance >= held.len() {
                // Forgotten, or from before the stream went back.
                continue;
            }
            let at = held.len() - distance;
            let pairs = held[..at].iter().rev().zip(held.iter().rev());
            let len = pairs.take(LONGEST).take_while(|(a, b)| a == b).count();
            if len >= SHORTEST && best.is_none_or(|(_, longest)| len > longest) {
                best = Some((at, len));
            }
        }
        best
    }
}

/// Measures how long a pass takes, where there is a clock.
pub(super) struct Timer(#[cfg(not(target_family = "wasm"))] std::time::Instant);

impl Timer {
    /// Whether there is a clock.
    const IS_ONE: bool = cfg!(not(target_family = "wasm"));

    pub(super) fn start() -> Timer {
        Timer(
            #[cfg(not(target_family = "wasm"))]
            std::time::Instant::now(),
        )
    }

    /// Since the start; 0 where there is no clock.
    pub(super) fn seconds(&self) -> f32 {
        #[cfg(not(target_family = "wasm"))]
        return self.0.elapsed().as_secs_f32();
        #[cfg(target_family = "wasm")]
        return 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of these bytes.
    fn stream(bytes: &[u8]) -> Context {
        let mut context = Context::new(1000, false);
        context.push(bytes, false);
        context
    }

    /// A drafter that found a pass of a row to take this long.
    fn drafter(row_seconds: f32) -> Drafter {
        let mut drafter = Drafter::new(1000, MAX_DRAFT);
        drafter.took(0, 1000.0);
        drafter.took(0, row_seconds);
        drafter
    }

    #[test]
    fn the_longest_match_among_the_latest_is_followed() {
        let context = stream(b"abcdef-1 bcdef-2 xxcdef-3 abcdef");
        let mut index = Index::new(1000);
        index.add(context.held(), context.total());
        assert_eq!(index.find(context.held(), context.total()), Some((6, 6)));
        // By parts it is the same index.
        let mut parts = Index::new(1000);
        for end in [1, 3, 10, 11, 29, 32] {
            parts.add(&context.held()[..end], end as u64);
        }
        assert_eq!((parts.last, parts.before), (index.last, index.before));
        assert_eq!(drafter(1.0).draft(&stream(b"nothing here does.")).bytes(), b"");
    }

    #[test]
    fn a_draft_goes_on_beyond_the_end_of_what_repeats() {
        let mut drafter = drafter(1.0);
        drafter.odds = [1.0; 9];
        assert_eq!(drafter.draft(&stream(b"abcabcabcabc")).bytes(), b"abcabcabcabcabc");
        // No longer than there is room for, in lengths that passes have.
        let mut full = Context::new(20, false);
        full.push(b"abcabcabcabc", false);
        assert_eq!(drafter.draft(&full).bytes(), b"abcabca");
    }

    #[test]
    fn drafts_are_as_long_as_pays() {
        let text = b"the quick brown fox, the quick brown fox".as_slice();
        // Every guess is wrong: soon there are none.
        let mut wrong = drafter(1.0);
        let lengths: Vec<usize> = (0..200)
            .map(|i| {
                wrong.rewind(0);
                let len = wrong.draft(&stream(text)).bytes().len();
                wrong.learn(&stream(&[text, &[b'#' + i as u8 % 2]].concat()));
                len
            })
            .collect();
        assert!(lengths[0] > 0 && lengths[199] == 0, "{lengths:?}");
        // Every guess is right: more and more, unless rows cost too much.
        let mut right = drafter(1.0);
        for _ in 0..200 {
            right.draft(&stream(text));
            right.learn(&stream(&[text, b", the quick bro"].concat()));
        }
        assert_eq!(right.draft(&stream(text)).bytes(), b", the quick bro");
        for rows in &ROWS[1..] {
            (0..40).for_each(|_| right.took(rows - 1, 2.0 * *rows as f32));
        }
        assert_eq!(right.draft(&stream(text)).bytes(), b"");
    }

    #[test]
    fn going_back_leaves_nothing_wrong_behind() {
        let mut drafter = drafter(1.0);
        drafter.odds = [1.0; 9];
        drafter.draft(&stream(b"one two three four five six one two"));
        drafter.rewind(4);
        // Entries of the other text may be there, but what they point at is compared.
        let other = stream(b"one 11 22 33 44 55 66 11 2");
        assert_eq!(drafter.draft(&other).bytes(), b"2 33 44 55 66 1");
    }
}
