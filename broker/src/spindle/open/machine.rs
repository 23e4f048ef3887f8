//! What the machine has: room in a file system, memory, and whether a disk turns.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{DiskPlace, Fault};

/// Bytes of the ring that lie in the disk's own file system.
pub(crate) const fn journal_on_disk(place: &DiskPlace) -> u64 {
    if place.journal.is_some() {
        0
    } else {
        place.journal_bytes
    }
}

pub(super) struct FsBytes {
    /// What an unprivileged writer may still take.
    pub(super) free: u64,
    /// What the disk's directory holds already, if that matters: to count it takes seconds on a disk that turns.
    pub(super) held: u64,
    /// The file system's size.
    pub(super) all: u64,
}

pub(super) fn fs_bytes(path: &Path, usage: &site::Usage) -> Result<FsBytes, Fault> {
    let fault = |source: io::Error| Fault::Io {
        path: path.to_owned(),
        source,
    };
    let stat = rustix::fs::statvfs(path).map_err(|errno| fault(errno.into()))?;
    let free = stat.f_bavail * stat.f_frsize;
    let held = match usage.known() == Some(usage.resolve(free, 0)) {
        true => 0,
        false => held_bytes(path).map_err(fault)?,
    };
    Ok(FsBytes {
        free,
        held,
        all: stat.f_blocks * stat.f_frsize,
    })
}

/// Bytes of blocks below `path`; two levels of directories are all that a disk has.
pub(super) fn held_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // st_blocks counts 512 B whatever the file system's own blocks are (stat(2)).
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() && entry.file_name() != "lost+found" {
            bytes += held_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// Memory of the machine, or what a control group leaves of it is not asked: the kernel's write-back knows neither.
pub(super) fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// Whether `path` lies on a device that says it turns.
pub(super) fn turns(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(device) = fs::metadata(path).map(|it| it.dev()) else {
        return false;
    };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition's queue is its disk's.
    [
        block.join("queue/rotational"),
        block.join("../queue/rotational"),
    ]
    .iter()
    .any(|it| fs::read_to_string(it).is_ok_and(|it| it.trim() == "1"))
}

/// Extents are written out in the sweep's order, settled before the next group. The timer knows only files: it writes all
/// that is dirty of one whose first dirty page is old, and nothing waits for it but the next groups' flushes (64
/// partitions: p99 565 ms, without it 193).
pub(super) fn timed_write_back() -> bool {
    fs::read_to_string("/proc/sys/vm/dirty_writeback_centisecs").is_ok_and(|it| it.trim() != "0")
}
