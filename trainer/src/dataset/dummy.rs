//! Made-up text, for a first run without any: five files of 10,000 varied lines, some of them not ASCII. The same
//! seed makes the same files.

use std::io::{Result, Write};

use grug::rng::{Stream, words};

/// How many files are made.
pub const FILES: u32 = 5;
/// Lines of each.
pub const LINES: u64 = 10_000;

const SUBJECTS: [&str; 12] = [
    "the old grug",
    "a small bird",
    "my neighbour",
    "der Bär",
    "la señora Peña",
    "el niño",
    "Zoë",
    "the river",
    "Łukasz",
    "一只猫",
    "кошка",
    "ο γάτος",
];
const VERBS: [&str; 12] = [
    "sees",
    "carries",
    "forgets",
    "paints",
    "hört",
    "mange",
    "encuentra",
    "follows",
    "keeps",
    "любит",
    "看见",
    "counts",
];
const OBJECTS: [&str; 12] = [
    "a round stone",
    "the fire",
    "seven apples",
    "ein Lied",
    "du café crème",
    "mañana",
    "the naïve plan",
    "two bytes",
    "the moon ☾",
    "чай",
    "一本书",
    "a façade",
];
const PLACES: [&str; 8] = [
    "by the sea",
    "in the cave",
    "über dem Tal",
    "at noon",
    "près d'ici",
    "for 3 €",
    "again and again",
    "🙂",
];

/// The file name of file `number`.
pub fn file_name(number: u32) -> String {
    format!("dummy_{number}.txt")
}

/// Writes file `number`.
pub fn write(out: &mut impl Write, seed: u64, number: u32) -> Result<()> {
    for line in 0..LINES {
        let [a, b, c, d] = words(seed, Stream::Dummy, number, line);
        let pick = |list: &'static [&'static str], word: u32| list[word as usize % list.len()];
        let subject = pick(&SUBJECTS, a >> 8);
        let verb = pick(&VERBS, b >> 8);
        let object = pick(&OBJECTS, c >> 8);
        match a & 7 {
            0 => writeln!(out, "Line {line} of file {number}: {subject} {verb} {object}.")?,
            1 => writeln!(out, "{} + {} = {}", b & 255, c & 255, (b & 255) + (c & 255))?,
            2 => writeln!(out, "“{object}?” {subject} asked. “{object}!”")?,
            3 => writeln!(
                out,
                "{subject} {verb} {object} {}; {} {verb} {object} too.",
                pick(&PLACES, d),
                pick(&SUBJECTS, d >> 8)
            )?,
            _ => writeln!(out, "{subject} {verb} {object} {}.", pick(&PLACES, d))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_varied_and_the_same_every_time() {
        let make = |seed, number| {
            let mut text = Vec::new();
            write(&mut text, seed, number).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = make(1, 0);
        assert_eq!(text, make(1, 0));
        assert_ne!(text, make(2, 0));
        assert_ne!(text, make(1, 1));
        assert_eq!(text.lines().count() as u64, LINES);
        let distinct = text.lines().collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct > 7000, "{distinct}");
        assert!(text.chars().filter(|c| !c.is_ascii()).count() > 1000);
    }
}
