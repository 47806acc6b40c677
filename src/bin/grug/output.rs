//! What the command says, and how it ends: shared by all subcommands.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use grug::{Cancel, Error, ErrorKind};

/// Why a subcommand stopped.
pub enum Failure {
    /// Something failed.
    Error(Error),
    /// The arguments contradict each other or are out of range.
    Usage(String),
    /// Nobody reads our output any more.
    OutputClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

/// The result of a subcommand.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A message as one line of printable text, whatever a file put into it.
pub fn one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Writes to standard output at once.
pub fn print(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Error::new(ErrorKind::Io, format!("writing standard output: {e}")).into(),
    })
}

/// Says on standard error what failed. Where nobody can be told, the exit status says it alone.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "grug: {}", one_line(text));
}

/// Refuses to write over the file that is read, when the one cannot be made again from the other.
pub fn refuse_overwriting(from: &Path, to: &Path) -> Outcome {
    match (from.canonicalize(), to.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => {
            Err(Error::invalid("would be overwritten by what is made of it").in_file(from).into())
        }
        _ => Ok(()),
    }
}

/// A number with commas: 1,234,567.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whether a path means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A token that Ctrl-C triggers, and whatever else asks a program to end.
pub fn cancel_on_interrupt() -> Cancel {
    let cancel = Cancel::new();
    let trigger = cancel.clone();
    // Without a handler the system's default is as good: it ends the program.
    let _ = ctrlc::set_handler(move || {
        trigger.trigger();
        // Who waits for input, or for a reader of the output, does not look at the token.
        std::thread::sleep(Duration::from_secs(1));
        std::process::exit(130);
    });
    cancel
}
