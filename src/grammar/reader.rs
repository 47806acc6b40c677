//! A notation's text while it is read.

/// A place in a text: looks at what comes, and takes it.
pub(super) struct Reader<'a> {
    pub source: &'a str,
    /// The next byte, at the start of a character.
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a str) -> Reader<'a> {
        Reader { source, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Takes this text, if it comes next.
    pub(super) fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Goes on to the first character that is none of these.
    pub(super) fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        self.at += self.rest().len() - self.rest().trim_start_matches(skipped).len();
    }

    /// Skips such characters and comments, each from a `#` to the end of its line.
    pub(super) fn skip_with_comments(&mut self, skipped: impl Fn(char) -> bool + Copy) {
        loop {
            self.skip(skipped);
            if self.peek() != Some('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }
}
