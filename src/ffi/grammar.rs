//! Grammars: what a sampler may write.

use std::ffi::c_char;

use crate::error::{Error, Result};
use crate::ffi::error::{GRUG_OK, grug_error, grug_status};
use crate::ffi::guard;
use crate::ffi::pointer;
use crate::grammar::{Grammar, GrammarKind};

/// A regular expression, in the syntax of Rust's regex crate.
pub const GRUG_GRAMMAR_REGEX: u32 = 1;
/// GBNF, the notation of llama.cpp; the rule `root` is the text.
pub const GRUG_GRAMMAR_GBNF: u32 = 2;
/// A JSON Schema: the text is one JSON value that is valid under it.
pub const GRUG_GRAMMAR_JSON_SCHEMA: u32 = 3;

/// A compiled grammar: immutable, for any number of samplers in any threads, which keep what they need of it.
pub struct grug_grammar(Grammar);

/// The grammar behind a pointer; NULL is none.
///
/// # Safety
/// `pointer` is NULL or a grammar that is not freed during the call.
pub(super) unsafe fn grammar(pointer: *const grug_grammar) -> Option<Grammar> {
    // SAFETY: by contract.
    unsafe { pointer.as_ref() }.map(|grammar| grammar.0.clone())
}

/// Compiles a grammar from a source, which is UTF-8. The whole output is matched, from the first byte that a sampler
/// picks to the last. Any source compiles in bounded time and memory; GRUG_EFORMAT says where it is malformed,
/// GRUG_EUNSUPPORTED what of its notation this library has not.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn grug_grammar_new(
    kind: u32,
    source: *const c_char,
    len: usize,
    out: *mut *mut grug_grammar,
    err: *mut grug_error,
) -> grug_status {
    // SAFETY: the caller keeps the contract of the header for each argument.
    guard::call(err, || unsafe {
        let out = pointer::output(out, "out")?;
        let kind = match kind {
            GRUG_GRAMMAR_REGEX => GrammarKind::Regex,
            GRUG_GRAMMAR_GBNF => GrammarKind::Gbnf,
            GRUG_GRAMMAR_JSON_SCHEMA => GrammarKind::JsonSchema,
            other => return Err(Error::invalid(format!("kind {other} is not a GRUG_GRAMMAR_ kind"))),
        };
        let source = compile(kind, pointer::slice(source.cast::<u8>(), len, "source")?)?;
        out.write(Box::into_raw(guard::try_box(grug_grammar(source))?));
        Ok(GRUG_OK)
    })
}

fn compile(kind: GrammarKind, source: &[u8]) -> Result<Grammar> {
    let text = std::str::from_utf8(source).map_err(|e| {
        Error::format(format!("grammar: the source is not UTF-8 from byte {} on", e.valid_up_to()))
    })?;
    Grammar::new(kind, text)
}

/// Frees the handle; samplers that have the grammar go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn grug_grammar_free(g: *mut grug_grammar) {
    if !g.is_null() {
        // SAFETY: `g` came from this library and is freed once (header, OWNERSHIP).
        guard::quietly(|| drop(unsafe { Box::from_raw(g) }));
    }
}
