//! The `grug` command.
fn main() {}
