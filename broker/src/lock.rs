//! One process at a time has a disk: a lock on its directory, gone with the process however that ends.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The lock, as long as it lives.
#[derive(Debug)]
pub(crate) struct DiskLock(
    #[expect(dead_code, reason = "open, so that the kernel keeps the lock")] File,
);

impl DiskLock {
    /// Takes the disk in `directory`; [`io::ErrorKind::WouldBlock`] if another process has it.
    pub(crate) fn take(directory: &Path) -> io::Result<Self> {
        let open = File::open(directory)?;
        flock(&open, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(open))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_and_the_next_one_is_not() {
        let directory = std::env::temp_dir().join(format!("howdah-lock-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let first = DiskLock::take(&directory).unwrap();
        let second = DiskLock::take(&directory).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(DiskLock::take(&directory).is_ok());
        std::fs::remove_dir(&directory).unwrap();
    }
}
