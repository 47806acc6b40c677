//! Random rules against the definition of what rules mean, by sets of ends.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::expr::{Expr, Rules};
use super::super::program::Program;
use super::*;

/// For each rule and start, where its texts end: the least fixed point, which left recursion needs.
struct Definition<'a> {
    rules: &'a Rules,
    text: &'a [u8],
    ends: Vec<Vec<BTreeSet<usize>>>,
}

impl Definition<'_> {
    fn matches(rules: &Rules, text: &[u8]) -> bool {
        let empty = vec![vec![BTreeSet::new(); text.len() + 1]; rules.list.len()];
        let mut definition = Definition { rules, text, ends: empty };
        loop {
            let next: Vec<Vec<_>> = rules
                .list
                .iter()
                .map(|rule| (0..=text.len()).map(|start| definition.of(rule, start)).collect())
                .collect();
            if next == definition.ends {
                return definition.ends[definition.rules.root][0].contains(&text.len());
            }
            definition.ends = next;
        }
    }

    fn of(&self, expr: &Expr, start: usize) -> BTreeSet<usize> {
        let all = |expr: &Expr, starts: &BTreeSet<usize>| -> BTreeSet<usize> {
            starts.iter().flat_map(|s| self.of(expr, *s)).collect()
        };
        match expr {
            Expr::Empty => [start].into(),
            Expr::Bytes(bytes) if self.text[start..].starts_with(bytes) => [start + bytes.len()].into(),
            Expr::ByteClass(ranges) => match self.text.get(start) {
                Some(b) if ranges.iter().any(|(x, y)| (x..=y).contains(&b)) => [start + 1].into(),
                _ => [].into(),
            },
            Expr::Bytes(_) | Expr::CharClass(_) => [].into(),
            Expr::Concat(parts) => parts.iter().fold([start].into(), |at, part| all(part, &at)),
            Expr::Alt(parts) => parts.iter().flat_map(|part| self.of(part, start)).collect(),
            Expr::Rule(rule) => self.ends[*rule][start].clone(),
            Expr::Repeat { body, min, max } => {
                let mut at: BTreeSet<usize> = [start].into();
                (0..*min).for_each(|_| at = all(body, &at));
                let mut found = at.clone();
                // Without an end: as often as there are positions is enough.
                for _ in 0..max.map_or(self.text.len() as u32 + 1, |max| max - min) {
                    at = all(body, &at);
                    found.extend(&at);
                }
                found
            }
        }
    }
}

const RULES: usize = 3;

fn any_expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        1 => Just(Expr::Empty),
        3 => prop::sample::select(&["a", "b", "ab", "ba"][..]).prop_map(Expr::text),
        1 => Just(Expr::ByteClass(vec![(b'a', b'b')])),
        1 => Just(Expr::ByteClass(vec![])),
        4 => (0..RULES).prop_map(Expr::Rule),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::Concat),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::Alt),
            (inner, 0..3u32, prop::option::of(0..3u32))
                .prop_map(|(body, min, more)| body.repeat(min, more.map(|more| min + more))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn random_rules_match_as_defined_and_never_dead_end(
        list in prop::collection::vec(any_expr(), RULES)
    ) {
        let rules = Rules { list, root: 0 };
        let texts: Vec<Vec<u8>> = (0..6u32)
            .flat_map(|len| (0..1u32 << len).map(move |bits| {
                (0..len).map(|i| if bits >> i & 1 == 0 { b'a' } else { b'b' }).collect()
            }))
            .collect();
        let grammar = match Program::new(&rules) {
            Ok(program) => Grammar { program: Arc::new(program) },
            Err(error) => {
                prop_assert_eq!(error.message(), "grammar: no text matches it");
                for text in &texts {
                    prop_assert!(!Definition::matches(&rules, text), "{:?}", text);
                }
                return Ok(());
            }
        };
        for text in &texts {
            prop_assert_eq!(grammar.matches(text), Definition::matches(&rules, text), "{:?}", text);
        }
        // From every state near the start a complete text is reachable.
        let mut near = vec![grammar.cursor().unwrap()];
        for _ in 0..4 {
            let mut next = Vec::new();
            for cursor in &near {
                prop_assert!(completable(cursor), "stuck");
                for byte in allowed_bytes(cursor) {
                    let mut further = cursor.clone();
                    prop_assert!(further.advance(byte).unwrap());
                    next.push(further);
                }
            }
            near = next;
        }
    }
}

/// Whether a breadth-first search finds a complete text.
fn completable(start: &Cursor) -> bool {
    let mut queue = std::collections::VecDeque::from([start.clone()]);
    for _ in 0..3_000 {
        let Some(cursor) = queue.pop_front() else { return false };
        if cursor.is_complete() {
            return true;
        }
        for byte in allowed_bytes(&cursor) {
            let mut further = cursor.clone();
            assert!(further.advance(byte).unwrap());
            queue.push_back(further);
        }
    }
    // Not found so near: then the walk at least goes on.
    !queue.is_empty()
}
