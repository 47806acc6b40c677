//! What `nohup` asks for: a program that it starts is not to end with its terminal.

#![allow(unsafe_code)]

/// Calls `install`, which handles signals, SIGHUP among them; where that was ignored, it is ignored again.
#[cfg(unix)]
pub fn kept<T>(install: impl FnOnce() -> T) -> T {
    // SAFETY: all zeros are a `sigaction`, which the call only writes to; SIGHUP is a signal.
    let ignored = unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut before) == 0
            && before.sa_sigaction == libc::SIG_IGN
    };
    let installed = install();
    if ignored {
        // SAFETY: a signal, and a disposition that runs no code.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
    installed
}

/// Calls `install`: there is no such signal here.
#[cfg(not(unix))]
pub fn kept<T>(install: impl FnOnce() -> T) -> T {
    install()
}
