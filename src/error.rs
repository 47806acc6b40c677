//! One error type for the whole library: a kind a program can act on, and a sentence that names the file, tensor or
//! setting at fault. The kinds map one to one onto the status codes of `grug.h`; numbers are never reused.

use std::fmt;
use std::path::Path;

/// What went wrong, as a program sees it. The discriminant is the `grug_status` of the C API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is NULL, out of range or contradicts another one.
    InvalidArgument = -1,
    /// The system has no memory left for the request.
    OutOfMemory = -2,
    /// Reading or writing a file failed.
    Io = -3,
    /// The bytes are not a valid model, state, archive, grammar or configuration.
    Format = -4,
    /// The data needs a newer version of the library.
    Version = -5,
    /// The device is missing or failed.
    Device = -6,
    /// The caller's cancellation token was triggered.
    Canceled = -7,
    /// Another thread is using this handle.
    Busy = -8,
    /// The context is full and the session was told not to slide.
    ContextFull = -9,
    /// The session cannot go back that far.
    Rewind = -10,
    /// The output buffer is too small.
    Space = -11,
    /// The state or archive belongs to another model.
    Mismatch = -12,
    /// No byte may come next.
    DeadEnd = -13,
    /// There is nothing of that name or number.
    NotFound = -14,
    /// This model, device or build cannot do that.
    Unsupported = -15,
    /// The handle was made before a fork and its worker threads are gone.
    Fork = -16,
    /// The library itself failed; the handle is poisoned.
    Panic = -17,
}

impl ErrorKind {
    /// Every kind, in the order of its number.
    pub const ALL: [ErrorKind; 17] = [
        ErrorKind::InvalidArgument,
        ErrorKind::OutOfMemory,
        ErrorKind::Io,
        ErrorKind::Format,
        ErrorKind::Version,
        ErrorKind::Device,
        ErrorKind::Canceled,
        ErrorKind::Busy,
        ErrorKind::ContextFull,
        ErrorKind::Rewind,
        ErrorKind::Space,
        ErrorKind::Mismatch,
        ErrorKind::DeadEnd,
        ErrorKind::NotFound,
        ErrorKind::Unsupported,
        ErrorKind::Fork,
        ErrorKind::Panic,
    ];

    /// The name of the status code in C, such as `GRUG_EIO`.
    pub const fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            ErrorKind::InvalidArgument => c"GRUG_EINVAL",
            ErrorKind::OutOfMemory => c"GRUG_ENOMEM",
            ErrorKind::Io => c"GRUG_EIO",
            ErrorKind::Format => c"GRUG_EFORMAT",
            ErrorKind::Version => c"GRUG_EVERSION",
            ErrorKind::Device => c"GRUG_EDEVICE",
            ErrorKind::Canceled => c"GRUG_ECANCELED",
            ErrorKind::Busy => c"GRUG_EBUSY",
            ErrorKind::ContextFull => c"GRUG_EFULL",
            ErrorKind::Rewind => c"GRUG_EREWIND",
            ErrorKind::Space => c"GRUG_ESPACE",
            ErrorKind::Mismatch => c"GRUG_EMISMATCH",
            ErrorKind::DeadEnd => c"GRUG_EDEADEND",
            ErrorKind::NotFound => c"GRUG_ENOTFOUND",
            ErrorKind::Unsupported => c"GRUG_EUNSUPPORTED",
            ErrorKind::Fork => c"GRUG_EFORK",
            ErrorKind::Panic => c"GRUG_EPANIC",
        }
    }
}

/// A failure: its kind and one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind. The message starts in lower case and ends without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// A wrong argument or setting.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// Bytes that are not what they should be.
    pub fn format(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Format, message)
    }

    /// A failed file operation: `io("reading", path, e)` says "reading PATH: No such file or directory".
    pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Io, format!("{doing} {}: {error}", path.display()))
    }

    /// What a program acts on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What a person reads.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, saying where it happened: "PLACE: MESSAGE".
    pub fn at(mut self, place: impl fmt::Display) -> Error {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The same error, naming the file at fault.
    pub fn in_file(self, path: &Path) -> Error {
        self.at(path.display())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
