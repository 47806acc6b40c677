//! What may be written: well-formed UTF-8, and a grammar.

use crate::config::VOCAB;
use crate::error::Result;
use crate::grammar::Cursor;

/// Where in a character the text is: which byte must come next, and how many after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Utf8 {
    first: u8,
    last: u8,
    missing: u8,
}

impl Utf8 {
    /// Between two characters.
    pub(super) const START: Utf8 = Utf8 { first: 0, last: 0xFF, missing: 0 };

    pub(super) fn at_boundary(self) -> bool {
        self.missing == 0
    }

    /// Whether this byte extends the text to a beginning of well-formed UTF-8 (Unicode 16, table 3-7).
    pub(super) fn allows(self, byte: u8) -> bool {
        if self.at_boundary() {
            matches!(byte, 0x00..=0x7F | 0xC2..=0xF4)
        } else {
            (self.first..=self.last).contains(&byte)
        }
    }

    /// After an allowed byte.
    pub(super) fn after(self, byte: u8) -> Utf8 {
        if !self.at_boundary() {
            return Utf8 { first: 0x80, last: 0xBF, missing: self.missing - 1 };
        }
        let (first, last, missing) = match byte {
            0xC2..=0xDF => (0x80, 0xBF, 1),
            0xE0 => (0xA0, 0xBF, 2),
            0xED => (0x80, 0x9F, 2),
            0xE1..=0xEF => (0x80, 0xBF, 2),
            0xF0 => (0x90, 0xBF, 3),
            0xF4 => (0x80, 0x8F, 3),
            0xF1..=0xF3 => (0x80, 0xBF, 3),
            _ => return Utf8::START,
        };
        Utf8 { first, last, missing }
    }
}

/// The constraints of a sampler at its position.
#[derive(Debug, Clone)]
pub(super) struct Constraint {
    pub utf8: Option<Utf8>,
    pub cursor: Option<Cursor>,
}

impl Constraint {
    /// Whether any is there.
    pub(super) fn is_free(&self) -> bool {
        self.utf8.is_none() && self.cursor.is_none()
    }

    pub(super) fn allows(&self, byte: u8) -> bool {
        let by_grammar = |cursor: &Cursor| cursor.allowed()[byte as usize >> 6] >> (byte & 63) & 1 != 0;
        self.utf8.is_none_or(|utf8| utf8.allows(byte)) && self.cursor.as_ref().is_none_or(by_grammar)
    }

    /// Whether the text may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.utf8.is_none_or(Utf8::at_boundary) && self.cursor.as_ref().is_none_or(Cursor::is_complete)
    }

    /// Minus infinity for every byte that may not come next; `end_byte` may where the text may end, and elsewhere only
    /// where nothing else may.
    pub(super) fn mask(&self, end_byte: Option<u8>, logits: &mut [f32; VOCAB]) {
        if self.is_free() {
            return;
        }
        let end = end_byte.filter(|_| self.is_complete());
        for (byte, logit) in logits.iter_mut().enumerate() {
            if !self.allows(byte as u8) && end != Some(byte as u8) {
                *logit = f32::NEG_INFINITY;
            }
        }
        // Generation stops after the end byte, which a class such as [^"] holds too: the text would be cut off.
        if let Some(byte) = end_byte.filter(|_| end.is_none()) {
            let is_other =
                |(other, logit): (usize, &f32)| other != byte as usize && *logit != f32::NEG_INFINITY;
            if logits.iter().enumerate().any(is_other) {
                logits[byte as usize] = f32::NEG_INFINITY;
            }
        }
    }

    /// After a byte that the mask left. On an error nothing has changed.
    pub(super) fn advance(&mut self, byte: u8) -> Result<()> {
        if !self.allows(byte) {
            // The end byte, after which nothing comes; a new text would begin a character.
            if let Some(cursor) = &mut self.cursor {
                cursor.finish();
            }
            self.utf8 = self.utf8.map(|_| Utf8::START);
            return Ok(());
        }
        if let Some(cursor) = &mut self.cursor {
            cursor.advance(byte)?;
        }
        self.utf8 = self.utf8.map(|utf8| utf8.after(byte));
        Ok(())
    }

    /// Back to the beginning of a text.
    pub(super) fn restart(&mut self) {
        self.utf8 = self.utf8.map(|_| Utf8::START);
        if let Some(cursor) = &mut self.cursor {
            cursor.restart().expect("the same step was possible when the grammar was compiled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_what_the_standard_library_takes() {
        // Every text of up to four bytes from the values at which a rule changes: accepted byte by byte, and at a
        // boundary, exactly where it is valid.
        let edges = [
            0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED,
            0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF,
        ];
        let mut texts = vec![(Vec::new(), Some(Utf8::START))];
        for _ in 0..4 {
            let mut longer = Vec::new();
            for (text, state) in &texts {
                for byte in edges {
                    let text: Vec<u8> = [&text[..], &[byte]].concat();
                    let state: Option<Utf8> = state.filter(|s| s.allows(byte)).map(|s| s.after(byte));
                    let expected = match std::str::from_utf8(&text) {
                        Ok(_) => Some(true),
                        // A beginning of something valid?
                        Err(error) => error.error_len().is_none().then_some(false),
                    };
                    assert_eq!(state.map(Utf8::at_boundary), expected, "{text:X?}");
                    longer.push((text, state));
                }
            }
            texts = longer;
            texts.retain(|(_, state)| state.is_some());
        }
    }
}
