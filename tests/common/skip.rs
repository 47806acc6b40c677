//! How a test that lacks something says so.

use std::fmt::Display;
use std::io::Write;

/// Says what a test, or a part of it, needs and does not have: "skipped: needs valgrind". It is seen without
/// `--show-output`, for Rust holds back only what `println!` and its kin write.
pub fn skip(why: impl Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
