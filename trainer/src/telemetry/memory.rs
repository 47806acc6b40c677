//! How much memory this process holds.

/// Bytes resident now and at most so far; none where the system does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Bytes resident now.
    pub now: u64,
    /// The most that were resident at any time.
    pub peak: u64,
}

/// Asks the system; Linux only.
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(Resident { now: field("VmRSS")?, peak: field("VmHWM")? })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_seen() {
        let before = resident().unwrap();
        let block = vec![1u8; 64 << 20];
        let with = resident().unwrap();
        assert!(with.now >= before.now + (48 << 20), "{before:?} {with:?}");
        assert_eq!(block[block.len() - 1], 1);
        drop(block);
        // The system counts pages in batches.
        assert!(resident().unwrap().peak + (16 << 20) >= with.now);
    }
}
