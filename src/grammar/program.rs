//! Rules compiled to a program for the cursor: bytes, splits, calls and one return.
//!
//! # Never a dead end
//! After compiling, every instruction from which the end of its rule cannot be reached is cut off, so a thread that
//! exists can always be continued to a complete match. (A nondeterministic automaton with one stack; the cut is
//! co-reachability of accept, taken over calls.)

use std::collections::HashMap;

use super::expr::{Expr, Rules};
use super::utf8;
use crate::error::{Error, Result};

/// Instructions that a program has at most.
const MAX_CODE: usize = 1 << 18;
/// Expressions that are compiled at most, each repetition counted.
const MAX_WORK: usize = 1 << 20;
/// Bytes that are placed at most, each time that an expression is compiled: many alternatives may share their places.
const MAX_PLACED: usize = 1 << 23;

/// A set of bytes: bit b % 64 of word b / 64.
pub(super) type ByteSet = [u64; 4];

pub(super) fn contains(set: &ByteSet, byte: u8) -> bool {
    set[byte as usize >> 6] >> (byte & 63) & 1 != 0
}

/// The bytes `first..=last`.
pub(super) fn byte_range((first, last): (u8, u8)) -> ByteSet {
    let mut set = ByteSet::default();
    insert_range(&mut set, first, last);
    set
}

fn insert_range(set: &mut ByteSet, first: u8, last: u8) {
    (first..=last).for_each(|b| set[b as usize >> 6] |= 1 << (b & 63));
}

/// One step. Places are indices of the code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Instr {
    /// A byte of the set of this number, then the place.
    Byte { set: u32, next: u32 },
    /// All the places `targets[first..first + len]` at once.
    Split { first: u32, len: u32 },
    /// A rule, then the place.
    Call { rule: u32, next: u32 },
    /// The end of a rule.
    Return,
}

/// Where every rule ends.
pub(super) const RETURN: u32 = 0;

/// The compiled rules.
#[derive(Debug)]
pub(super) struct Program {
    pub code: Vec<Instr>,
    pub targets: Vec<u32>,
    pub sets: Vec<ByteSet>,
    /// Where each rule begins.
    pub entries: Vec<u32>,
    pub root: u32,
}

struct Compiler {
    code: Vec<Instr>,
    targets: Vec<u32>,
    sets: Vec<ByteSet>,
    set_numbers: HashMap<ByteSet, u32>,
    /// The place of each byte instruction, so that equal ends of characters are shared.
    byte_places: HashMap<(u32, u32), u32>,
    work: usize,
    placed: usize,
}

fn too_large() -> Error {
    Error::format(format!(
        "grammar: is too large: it needs more than {MAX_CODE} instructions (smaller repetition counts help)"
    ))
}

impl Compiler {
    fn emit(&mut self, instr: Instr) -> Result<u32> {
        if self.code.len() >= MAX_CODE {
            return Err(too_large());
        }
        self.code.push(instr);
        Ok(self.code.len() as u32 - 1)
    }

    fn byte(&mut self, set: ByteSet, next: u32) -> Result<u32> {
        self.placed += 1;
        if self.placed > MAX_PLACED {
            return Err(too_large());
        }
        let number = *self.set_numbers.entry(set).or_insert_with(|| {
            self.sets.push(set);
            self.sets.len() as u32 - 1
        });
        if let Some(place) = self.byte_places.get(&(number, next)) {
            return Ok(*place);
        }
        let place = self.emit(Instr::Byte { set: number, next })?;
        self.byte_places.insert((number, next), place);
        Ok(place)
    }

    fn split(&mut self, places: &[u32]) -> Result<u32> {
        if let [only] = places {
            return Ok(*only);
        }
        if self.targets.len() + places.len() > MAX_CODE {
            return Err(too_large());
        }
        let first = self.targets.len() as u32;
        self.targets.extend_from_slice(places);
        self.emit(Instr::Split { first, len: places.len() as u32 })
    }

    fn chars(&mut self, ranges: &[(char, char)], next: u32) -> Result<u32> {
        // What follows a first byte → the first bytes that it follows.
        let mut firsts: Vec<(u32, ByteSet)> = Vec::new();
        let mut index: HashMap<u32, usize> = HashMap::new();
        for &(first, last) in ranges {
            utf8::sequences(first, last, &mut |sequence| {
                let (head, tail) = sequence.split_first().expect("a character has bytes");
                let mut place = next;
                for &range in tail.iter().rev() {
                    place = self.byte(byte_range(range), place)?;
                }
                let at = *index.entry(place).or_insert_with(|| {
                    firsts.push((place, ByteSet::default()));
                    firsts.len() - 1
                });
                insert_range(&mut firsts[at].1, head.0, head.1);
                Ok(())
            })?;
        }
        let places =
            firsts.into_iter().map(|(next, set)| self.byte(set, next)).collect::<Result<Vec<_>>>()?;
        self.split(&places)
    }

    /// The place where `expr` begins if `next` follows it.
    fn compile(&mut self, expr: &Expr, next: u32) -> Result<u32> {
        self.work += 1;
        if self.work > MAX_WORK {
            return Err(too_large());
        }
        match expr {
            Expr::Empty => Ok(next),
            Expr::Bytes(bytes) => bytes.iter().rev().try_fold(next, |next, &byte| {
                let mut set = ByteSet::default();
                insert_range(&mut set, byte, byte);
                self.byte(set, next)
            }),
            Expr::ByteClass(ranges) => {
                let mut set = ByteSet::default();
                ranges.iter().for_each(|&(first, last)| insert_range(&mut set, first, last));
                self.byte(set, next)
            }
            Expr::CharClass(ranges) => self.chars(ranges, next),
            Expr::Concat(parts) => parts.iter().rev().try_fold(next, |next, part| self.compile(part, next)),
            Expr::Alt(parts) => {
                let places = parts.iter().map(|part| self.compile(part, next)).collect::<Result<Vec<_>>>()?;
                self.split(&places)
            }
            Expr::Rule(rule) => self.emit(Instr::Call { rule: *rule as u32, next }),
            Expr::Repeat { body, min, max } => {
                let mut place = next;
                match max {
                    None => {
                        let again = self.split(&[next, next])?;
                        let Instr::Split { first, .. } = self.code[again as usize] else {
                            unreachable!("two places make a split")
                        };
                        self.targets[first as usize] = self.compile(body, again)?;
                        place = again;
                    }
                    Some(max) => {
                        for _ in *min..*max {
                            let body = self.compile(body, place)?;
                            place = self.split(&[body, next])?;
                        }
                    }
                }
                for _ in 0..*min {
                    place = self.compile(body, place)?;
                }
                Ok(place)
            }
        }
    }
}

impl Program {
    /// Compiles rules, or says that they are too large or match nothing.
    pub(super) fn new(rules: &Rules) -> Result<Program> {
        let mut compiler = Compiler {
            code: vec![Instr::Return],
            targets: Vec::new(),
            sets: Vec::new(),
            set_numbers: HashMap::new(),
            byte_places: HashMap::new(),
            work: 0,
            placed: 0,
        };
        let entries =
            rules.list.iter().map(|rule| compiler.compile(rule, RETURN)).collect::<Result<Vec<_>>>()?;
        let Compiler { code, targets, sets, .. } = compiler;
        let mut program = Program { code, targets, sets, entries, root: rules.root as u32 };
        let live = program.productive();
        if !live[program.entries[rules.root] as usize] {
            return Err(Error::format("grammar: no text matches it"));
        }
        program.cut(&live);
        Ok(program)
    }

    /// Which places can reach the end of their rule.
    fn productive(&self) -> Vec<bool> {
        let mut needed_by: Vec<Vec<u32>> = vec![Vec::new(); self.code.len()];
        for (place, instr) in self.code.iter().enumerate() {
            let place = place as u32;
            match *instr {
                Instr::Byte { next, .. } => needed_by[next as usize].push(place),
                Instr::Split { first, len } => self.targets[first as usize..(first + len) as usize]
                    .iter()
                    .for_each(|target| needed_by[*target as usize].push(place)),
                Instr::Call { rule, next } => {
                    needed_by[next as usize].push(place);
                    needed_by[self.entries[rule as usize] as usize].push(place);
                }
                Instr::Return => {}
            }
        }
        let mut live = vec![false; self.code.len()];
        live[RETURN as usize] = true;
        let mut found = vec![RETURN];
        while let Some(place) = found.pop() {
            for &user in &needed_by[place as usize] {
                let lives = match self.code[user as usize] {
                    Instr::Byte { set, .. } => self.sets[set as usize] != ByteSet::default(),
                    Instr::Split { .. } => true,
                    Instr::Call { rule, next } => {
                        live[next as usize] && live[self.entries[rule as usize] as usize]
                    }
                    Instr::Return => unreachable!("a return needs nothing"),
                };
                if lives && !live[user as usize] {
                    live[user as usize] = true;
                    found.push(user);
                }
            }
        }
        live
    }

    /// Splits no longer lead to places that are not live. Nothing else can: what follows a live instruction lives.
    fn cut(&mut self, live: &[bool]) {
        for instr in &mut self.code {
            if let Instr::Split { first, len } = instr {
                let range = *first as usize..(*first + *len) as usize;
                let kept: Vec<u32> =
                    self.targets[range].iter().copied().filter(|t| live[*t as usize]).collect();
                self.targets[*first as usize..*first as usize + kept.len()].copy_from_slice(&kept);
                *len = kept.len() as u32;
            }
        }
    }
}
