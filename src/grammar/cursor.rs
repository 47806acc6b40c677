//! A walk through a grammar: every parse of the bytes so far, followed at once.
//!
//! A thread is a place in the program and a node of the stack; stacks share their lower parts (a graph-structured
//! stack: Tomita, 1985; Scott and Johnstone, "GLL parsing", 2010). A node stands for a rule that was called at one
//! position, its edges for the places to return to. A call at the very end of a rule returns to where that rule would,
//! so a list that recurses at its end needs no more stack however long it grows; left recursion is a node that returns
//! to itself. Nodes that no thread can return to any more are collected, so memory grows with the depth of nesting,
//! not with the length of the text. Parses that an absurdly ambiguous grammar would multiply without bound are an
//! error, never a wrong answer.

use std::sync::Arc;

use super::program::{ByteSet, Instr, Program, RETURN, contains};
use crate::error::{Error, ErrorKind, Result};

/// Steps that one byte takes at most.
const MAX_STEPS: usize = 1 << 20;
/// Nodes of the stack that are reachable at most: how deep a text can nest.
const MAX_NODES: usize = 1 << 18;
/// Nodes before they are collected for the first time.
const FIRST_COLLECTION: usize = 1024;

/// The bottom of every stack.
const ROOT: u32 = 0;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Thread {
    place: u32,
    node: u32,
}

/// A rule that was called: where it returns to, `edges[first..first + len]`.
#[derive(Debug, Clone, Copy)]
struct Node {
    first: u32,
    len: u32,
}

/// Where a rule returns to: a place, on top of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Edge {
    place: u32,
    node: u32,
}

/// A node of the current position, whose edges may still become more.
#[derive(Debug, Clone, Copy)]
struct Fresh {
    /// The newest of its edges in `fresh_edges`, plus one; 0 = none.
    edges: u32,
    /// Whether the rule has ended already at this position, having matched nothing.
    ended: bool,
    /// Marks of `flatten`.
    visited: u32,
}

/// What was met in a step: (place, node, 0) of a thread, or (node, place, node + 1) of an edge.
type Key = (u32, u32, u32);

/// A set that is emptied often: open addressing, a stamp for each filling.
#[derive(Debug, Clone)]
struct Seen {
    slots: Vec<(Key, u32)>,
    stamp: u32,
    len: usize,
}

impl Seen {
    fn new() -> Seen {
        Seen { slots: vec![Default::default(); 256], stamp: 1, len: 0 }
    }

    fn clear(&mut self) {
        self.len = 0;
        self.stamp = self.stamp.checked_add(1).unwrap_or_else(|| {
            self.slots.fill(Default::default());
            1
        });
    }

    /// Whether it was not there before.
    fn insert(&mut self, key: Key) -> bool {
        if 2 * self.len >= self.slots.len() {
            let larger = vec![Default::default(); 2 * self.slots.len()];
            for (key, stamp) in std::mem::replace(&mut self.slots, larger) {
                if stamp == self.stamp {
                    let slot = self.slot(key);
                    self.slots[slot] = (key, stamp);
                }
            }
        }
        let slot = self.slot(key);
        if self.slots[slot].1 == self.stamp {
            return false;
        }
        self.slots[slot] = (key, self.stamp);
        self.len += 1;
        true
    }

    /// Where the key is, or the free slot where it belongs.
    fn slot(&self, key: Key) -> usize {
        let mask = self.slots.len() - 1;
        let mixed = ((key.0 as u64) << 32 | key.1 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ (key.2 as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        let mut slot = (mixed >> 32) as usize & mask;
        while self.slots[slot].1 == self.stamp && self.slots[slot].0 != key {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// The state of a walk.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    program: Arc<Program>,
    /// All at byte instructions.
    threads: Vec<Thread>,
    allowed: ByteSet,
    complete: bool,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    collect_at: usize,

    // Memory of a step, kept between steps.
    next: Vec<Thread>,
    work: Vec<Thread>,
    seen: Seen,
    fresh: Vec<Fresh>,
    fresh_edges: Vec<(Edge, u32)>, // an edge, and the one before it of the same node, plus one
    /// For each rule its node of this position, plus one; 0 = none.
    called: Vec<u32>,
    calls: Vec<u32>, // the rules that have one
    flattened: u32,
    stack: Vec<u32>,
    moved: Vec<u32>,
}

/// What a step finds, before it is accepted.
struct Found {
    allowed: ByteSet,
    complete: bool,
}

impl Cursor {
    /// The walk before the first byte.
    pub(super) fn new(program: &Arc<Program>) -> Result<Cursor> {
        let mut cursor = Cursor {
            threads: Vec::new(),
            allowed: ByteSet::default(),
            complete: false,
            nodes: vec![Node { first: 0, len: 0 }],
            edges: Vec::new(),
            collect_at: FIRST_COLLECTION,
            next: Vec::new(),
            work: Vec::new(),
            seen: Seen::new(),
            fresh: Vec::new(),
            fresh_edges: Vec::new(),
            called: vec![0; program.entries.len()],
            calls: Vec::new(),
            flattened: 0,
            stack: Vec::new(),
            moved: Vec::new(),
            program: program.clone(),
        };
        cursor.restart()?;
        Ok(cursor)
    }

    /// Back to before the first byte.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.nodes.truncate(1);
        self.edges.clear();
        self.seen.clear();
        let entry = self.program.entries[self.program.root as usize];
        self.push(entry, ROOT);
        self.step()
    }

    /// Bytes that may come next.
    pub(crate) fn allowed(&self) -> &ByteSet {
        &self.allowed
    }

    /// Whether the text so far is a whole match.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes a byte. `false`, and no change, where it is not allowed; an error, and no change, where that is too much
    /// work.
    pub(crate) fn advance(&mut self, byte: u8) -> Result<bool> {
        if !contains(&self.allowed, byte) {
            return Ok(false);
        }
        self.seen.clear();
        for i in 0..self.threads.len() {
            let thread = self.threads[i];
            let Instr::Byte { set, next } = self.program.code[thread.place as usize] else {
                unreachable!("threads wait at bytes")
            };
            if contains(&self.program.sets[set as usize], byte) {
                self.push(next, thread.node);
            }
        }
        self.step().map(|()| true)
    }

    /// Nothing more may follow: the text ended outside of the grammar.
    pub(crate) fn finish(&mut self) {
        self.threads.clear();
        self.allowed = ByteSet::default();
    }

    fn push(&mut self, place: u32, node: u32) {
        if self.seen.insert((place, node, 0)) {
            self.work.push(Thread { place, node });
        }
    }

    /// Runs what is pushed up to the next bytes, and accepts the result.
    fn step(&mut self) -> Result<()> {
        let (nodes, edges) = (self.nodes.len(), self.edges.len());
        let found = self.run(nodes);
        self.work.clear();
        self.fresh.clear();
        self.fresh_edges.clear();
        for rule in self.calls.drain(..) {
            self.called[rule as usize] = 0;
        }
        match found {
            Ok(Found { allowed, complete }) => {
                std::mem::swap(&mut self.threads, &mut self.next);
                self.next.clear();
                (self.allowed, self.complete) = (allowed, complete);
                if self.nodes.len() >= self.collect_at {
                    self.collect();
                }
                Ok(())
            }
            Err(error) => {
                self.nodes.truncate(nodes);
                self.edges.truncate(edges);
                self.next.clear();
                Err(error)
            }
        }
    }

    /// The closure: nodes from `base` on are of this position.
    fn run(&mut self, base: usize) -> Result<Found> {
        let program = self.program.clone();
        let mut found = Found { allowed: ByteSet::default(), complete: false };
        let mut steps = 0;
        while let Some(Thread { place, node }) = self.work.pop() {
            steps += 1;
            check_steps(steps)?;
            match program.code[place as usize] {
                Instr::Byte { set, .. } => {
                    let set = &program.sets[set as usize];
                    found.allowed.iter_mut().zip(set).for_each(|(a, s)| *a |= s);
                    self.next.push(Thread { place, node });
                }
                Instr::Split { first, len } => {
                    for &target in &program.targets[first as usize..(first + len) as usize] {
                        self.push(target, node);
                    }
                }
                Instr::Call { rule, next } => {
                    let callee = self.node_of(rule, base);
                    if next == RETURN && node != ROOT && (node as usize) < base {
                        // A call at the end returns to where its rule returns.
                        let Node { first, len } = self.nodes[node as usize];
                        for i in first..first + len {
                            steps += 1;
                            self.add_edge(callee, self.edges[i as usize], base);
                        }
                    } else {
                        self.add_edge(callee, Edge { place: next, node }, base);
                    }
                    self.push(program.entries[rule as usize], callee);
                }
                Instr::Return if node == ROOT => found.complete = true,
                Instr::Return if (node as usize) < base => {
                    let Node { first, len } = self.nodes[node as usize];
                    for i in first..first + len {
                        steps += 1;
                        let Edge { place, node } = self.edges[i as usize];
                        self.push(place, node);
                    }
                }
                Instr::Return => {
                    self.fresh[node as usize - base].ended = true;
                    let mut at = self.fresh[node as usize - base].edges;
                    while at != 0 {
                        steps += 1;
                        let (Edge { place, node }, before) = self.fresh_edges[at as usize - 1];
                        self.push(place, node);
                        at = before;
                    }
                }
            }
        }
        self.flatten(base, steps)?;
        Ok(found)
    }

    /// The node of a rule at this position.
    fn node_of(&mut self, rule: u32, base: usize) -> u32 {
        if self.called[rule as usize] == 0 {
            self.nodes.push(Node { first: 0, len: 0 });
            self.fresh.push(Fresh { edges: 0, ended: false, visited: 0 });
            self.calls.push(rule);
            self.called[rule as usize] = self.nodes.len() as u32;
            debug_assert_eq!(self.nodes.len(), base + self.fresh.len());
        }
        self.called[rule as usize] - 1
    }

    fn add_edge(&mut self, node: u32, edge: Edge, base: usize) {
        if !self.seen.insert((node, edge.place, edge.node + 1)) {
            return;
        }
        let fresh = &mut self.fresh[node as usize - base];
        self.fresh_edges.push((edge, fresh.edges));
        fresh.edges = self.fresh_edges.len() as u32;
        if fresh.ended {
            self.push(edge.place, edge.node);
        }
    }

    /// Gives the nodes of this position their final edges: a rule that returns to the end of another one of the same
    /// position returns where that one does.
    fn flatten(&mut self, base: usize, mut steps: usize) -> Result<()> {
        self.seen.clear();
        self.flattened = 0;
        for i in 0..self.fresh.len() {
            let first = self.edges.len() as u32;
            self.flattened += 1;
            self.stack.clear();
            self.stack.push(i as u32);
            self.fresh[i].visited = self.flattened;
            while let Some(fresh) = self.stack.pop() {
                let mut at = self.fresh[fresh as usize].edges;
                while at != 0 {
                    steps += 1;
                    check_steps(steps)?;
                    let (edge, before) = self.fresh_edges[at as usize - 1];
                    at = before;
                    if edge.place != RETURN || edge.node == ROOT {
                        if self.seen.insert((i as u32, edge.place, edge.node + 1)) {
                            self.edges.push(edge);
                        }
                        continue;
                    }
                    // Edges to the end of an older rule were resolved when they were added.
                    let other = edge.node as usize - base;
                    if self.fresh[other].visited != self.flattened {
                        self.fresh[other].visited = self.flattened;
                        self.stack.push(other as u32);
                    }
                }
            }
            self.nodes[base + i] = Node { first, len: self.edges.len() as u32 - first };
        }
        if self.nodes.len() > 2 * MAX_NODES || self.edges.len() > 8 * MAX_NODES {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("grammar: the text nests too deeply: more than {MAX_NODES} open rules"),
            ));
        }
        Ok(())
    }

    /// Keeps the nodes that threads can return to, and packs them.
    fn collect(&mut self) {
        self.moved.clear();
        self.moved.resize(self.nodes.len(), u32::MAX);
        self.moved[ROOT as usize] = ROOT;
        self.stack.clear();
        for i in 0..self.threads.len() {
            self.mark(self.threads[i].node);
        }
        while let Some(node) = self.stack.pop() {
            let Node { first, len } = self.nodes[node as usize];
            for i in first..first + len {
                self.mark(self.edges[i as usize].node);
            }
        }
        // Nodes and their edges lie in the same order, so both move down in place.
        let (mut nodes, mut edges) = (1, 0);
        for old in 1..self.nodes.len() {
            if self.moved[old] == u32::MAX {
                continue;
            }
            let Node { first, len } = self.nodes[old];
            self.edges.copy_within(first as usize..(first + len) as usize, edges);
            self.nodes[nodes] = Node { first: edges as u32, len };
            self.moved[old] = nodes as u32;
            nodes += 1;
            edges += len as usize;
        }
        self.nodes.truncate(nodes);
        self.edges.truncate(edges);
        self.edges.iter_mut().for_each(|edge| edge.node = self.moved[edge.node as usize]);
        self.threads.iter_mut().for_each(|thread| thread.node = self.moved[thread.node as usize]);
        self.collect_at = FIRST_COLLECTION.max(2 * nodes).min(2 * MAX_NODES);
    }

    fn mark(&mut self, node: u32) {
        if self.moved[node as usize] == u32::MAX {
            self.moved[node as usize] = 0;
            self.stack.push(node);
        }
    }

    #[cfg(test)]
    pub(super) fn live_nodes(&mut self) -> usize {
        self.collect();
        self.nodes.len()
    }
}

fn check_steps(steps: usize) -> Result<()> {
    if steps > MAX_STEPS {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("grammar: is too ambiguous here: one byte takes more than {MAX_STEPS} steps"),
        ));
    }
    Ok(())
}
