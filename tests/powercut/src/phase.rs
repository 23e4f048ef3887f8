//! What the store's threads do, as they write it down, and the trap that stops a disk while they do it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the store calls its parts. A cut should hit each.
pub(crate) const PARTS: [&str; 9] = [
    "group-write",
    "destage",
    "checkpoint",
    "seal-open",
    "ext-free",
    "ext-swap",
    "ring-wrap",
    "recovery",
    "format",
];

/// Each thread of the store that says where it is has so many bytes of the phase file.
const PLACE_BYTES: usize = 16;
const PLACES_MAX: usize = 64;

/// Names the broker's phase file for it, with no thread in any part.
pub(crate) fn blank(path: &Path) -> io::Result<()> {
    std::fs::write(path, " ".repeat(PLACE_BYTES * PLACES_MAX))
}

/// The parts in which threads are at this moment.
pub(crate) fn now(file: &File) -> Vec<String> {
    let mut bytes = [0; PLACE_BYTES * PLACES_MAX];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    let names = bytes[..read]
        .chunks_exact(PLACE_BYTES)
        .map(|it| String::from_utf8_lossy(it).trim().to_owned());
    names.filter(|it| !it.is_empty() && it != "idle").collect()
}

/// Springs at a request that comes while a thread is in one part of the store. The disk then answers nothing, so the
/// thread stays in that part until the cut: no cut comes too late for a group that takes half a millisecond.
#[derive(Debug)]
pub(crate) struct Trap {
    phases: File,
    part: String,
    /// Requests in the part that are still let through.
    passes: u64,
    sprung: bool,
}

impl Trap {
    /// At the request behind the first `passes` that come while some thread is in `part`.
    pub(crate) fn set(phases: &Path, part: &str, passes: u64) -> io::Result<Self> {
        Ok(Self {
            phases: File::open(phases)?,
            part: part.to_owned(),
            passes,
            sprung: false,
        })
    }

    pub(crate) const fn sprung(&self) -> bool {
        self.sprung
    }

    /// A request is about to be served; true if it must not be.
    pub(crate) fn step(&mut self) -> bool {
        if !self.sprung && now(&self.phases).contains(&self.part) {
            match self.passes.checked_sub(1) {
                Some(left) => self.passes = left,
                None => self.sprung = true,
            }
        }
        self.sprung
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_springs_at_the_nth_request_in_its_part_and_stays() {
        let path = std::env::temp_dir().join(format!("powercut-phases-{}", std::process::id()));
        blank(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let say = |place: u64, part: &str| {
            file.write_all_at(format!("{part:<15}\n").as_bytes(), place * 16)
                .unwrap();
        };
        let mut trap = Trap::set(&path, "destage", 1).unwrap();
        say(0, "group-write");
        assert!(!trap.step());
        say(3, "destage");
        assert_eq!(now(&trap.phases), ["group-write", "destage"]);
        assert!(!trap.step(), "one passes");
        say(3, "idle");
        assert!(!trap.step());
        say(3, "destage");
        assert!(trap.step());
        say(3, "idle");
        assert!(trap.step() && trap.sprung());
        std::fs::remove_file(path).unwrap();
    }
}
