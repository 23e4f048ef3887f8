//! [`Io`] in memory: a disk with a volatile cache whose power can be cut, for tests and for the simulator.
//!
//! What a write left behind when the power goes is decided page by page from a seed: any version since the last flush
//! may be on the medium, whole or torn at 512 B, a later write may be there and an earlier one lost. A page in a block
//! that was never written reads as zeros unless the file system's log was committed. New, removed and grown files come
//! back in the order of that log, which is committed by itself now and then if [`MemIo::commit_by_itself`] says so; an
//! fsync commits it only if the file's own last change is not in it yet. The same seed gives the same disk. It never lies
//! about a flush unless told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FileSystem, Name};
use crate::format::PAGE;
use crate::phase::Phase;

mod door;
mod inner;
mod pages;

use pages::Inode;

/// A system call's time on the virtual clock.
const CALL_NS: u64 = 2_000;
/// A flush's time: a turn of a 7200 rpm disk.
const FLUSH_NS: u64 = 8_330_000;

/// One in so many operations finds the file system's log committed.
const COMMIT_EVERY: u64 = 12;

/// What was asked of a disk since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Groups written to the journal, each on the medium.
    pub journal_writes: u64,
    /// Calls that wrote into the page cache.
    pub cache_writes: u64,
    /// Bytes of these.
    pub cache_bytes: u64,
    /// Pieces settled.
    pub settles: u64,
    /// FLUSHes of the device.
    pub flushes: u64,
    /// fsync and fdatasync calls.
    pub syncs: u64,
    /// Bytes read from the journal.
    pub journal_read_bytes: u64,
}

/// Where the power goes: in the middle of an operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fuse {
    Cut,
    Error,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemIo(Arc<Mutex<Inner>>);

/// An open file of a [`MemIo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemFile(u64);

/// See [`MemIo::snapshot`].
#[derive(Clone, Debug)]
pub struct Image(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    names: BTreeMap<Name, u64>,
    files: BTreeMap<u64, Inode>,
    next_file: u64,
    /// Changes of names and sizes that the file system's log does not hold yet.
    log: Vec<Change>,
    /// Number of the transaction that the log's next commit ends.
    transaction: u64,
    /// Decides when the log is committed by itself.
    committer: Option<Random>,
    file_system: FileSystem,
    clock: u64,
    random: u64,
    capacity: u64,
    counts: Counts,
    /// Operations that change something, since the disk was made.
    operations: u64,
    fuse: Option<(u64, Fuse)>,
    dead: bool,
    bad: Vec<(Name, u64, u64)>,
    cold: bool,
    cut_in: Option<Phase>,
    cut_when: Option<(Phase, u64)>,
}

#[derive(Clone, Debug)]
enum Change {
    Created { name: Name, replaced: Option<u64> },
    Removed { name: Name, file: u64 },
    Grown { file: u64, from: u64 },
}

impl MemIo {
    /// An empty disk of `capacity` bytes; `seed` decides its random numbers.
    #[must_use]
    pub fn new(seed: u64, capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 1,
            log: Vec::new(),
            transaction: 1,
            committer: None,
            file_system: FileSystem::CommitsTogether,
            clock: 1,
            random: seed,
            capacity,
            counts: Counts::default(),
            operations: 0,
            fuse: None,
            dead: false,
            bad: Vec::new(),
            cold: false,
            cut_in: None,
            cut_when: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`Io::file_system`] says from now on.
    pub fn set_file_system(&self, file_system: FileSystem) {
        self.inner().file_system = file_system;
    }

    /// From now on the file system's log is committed at moments of its own, as by a timer or by another program's fsync.
    pub fn commit_by_itself(&self, seed: u64) {
        self.inner().committer = Some(Random(seed));
    }

    /// The size of the file system from now on.
    pub fn set_capacity(&self, bytes: u64) {
        self.inner().capacity = bytes;
    }

    /// Whether [`Io::pread_nowait`] finds nothing in memory from now on.
    pub fn set_cold(&self, cold: bool) {
        self.inner().cold = cold;
    }

    /// Moves the clock.
    pub fn advance(&self, time: core::time::Duration) {
        self.inner().clock += time.as_nanos() as u64;
    }

    /// What was asked so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// Operations so far that changed something: the unit of [`MemIo::cut_after`] and [`MemIo::fail_after`].
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// The power goes during the operation that follows `operations` more. Everything fails from then on, until
    /// [`MemIo::power_cut`].
    pub fn cut_after(&self, operations: u64) {
        let mut inner = self.inner();
        inner.fuse = Some((inner.operations + operations, Fuse::Cut));
    }

    /// The operation that follows `operations` more fails once with EIO; what it should have written is lost.
    pub fn fail_after(&self, operations: u64) {
        let mut inner = self.inner();
        inner.fuse = Some((inner.operations + operations, Fuse::Error));
    }

    /// Reads that touch `[from, to)` of a file fail with EIO from now on, until a write covers the place.
    pub fn fail_reads(&self, name: Name, from: u64, to: u64) {
        self.inner().bad.push((name, from, to));
    }

    /// The disk as it is, to be put back by [`MemIo::restore`].
    #[must_use]
    pub fn snapshot(&self) -> Image {
        Image(Box::new(self.inner().clone()))
    }

    /// Puts a disk back; files opened before mean nothing afterwards.
    pub fn restore(&self, image: &Image) {
        *self.inner() = (*image.0).clone();
    }

    /// The power goes during the operation that follows `operations` more of those that `phase` asks for.
    pub fn cut_when(&self, phase: Phase, operations: u64) {
        self.inner().cut_when = Some((phase, operations));
    }

    /// What the store was doing when the power went; told once.
    pub fn cut_in(&self) -> Option<Phase> {
        self.inner().cut_in.take()
    }

    /// All places can be read again.
    pub fn heal_reads(&self) {
        self.inner().bad.clear();
    }

    /// Two files change places, as after a mix-up by the file system.
    pub fn swap_names(&self, one: Name, two: Name) {
        let mut inner = self.inner();
        if let (Some(a), Some(b)) = (
            inner.names.get(&one).copied(),
            inner.names.get(&two).copied(),
        ) {
            inner.names.insert(one, b);
            inner.names.insert(two, a);
        }
    }

    /// Flips bits on the medium and in memory, as rot does. Says whether the file holds the byte.
    pub fn rot(&self, name: Name, at: u64, mask: u8) -> bool {
        let mut inner = self.inner();
        let Some(file) = inner.names.get(&name).copied() else {
            return false;
        };
        let inode = inner.files.get_mut(&file).expect("named files exist");
        let Some(page) = inode.pages.get_mut(&(at / PAGE as u64)) else {
            return false;
        };
        let byte = (at % PAGE as u64) as usize;
        for version in page.medium.iter_mut().chain(&mut page.later) {
            version[byte] ^= mask;
        }
        true
    }

    /// The bytes of a file as a read sees them, if it exists.
    #[must_use]
    pub fn contents(&self, name: Name) -> Option<Vec<u8>> {
        let inner = self.inner();
        let inode = &inner.files[inner.names.get(&name)?];
        let mut out = vec![0; inode.bytes as usize];
        inode.read(&mut out, 0);
        Some(out)
    }

    /// The power goes and comes back: unflushed writes are kept, torn, reverted or reordered as `seed` says.
    pub fn power_cut(&self, seed: u64) {
        let mut inner = self.inner();
        let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
        inner.dead = false;
        inner.fuse = None;
        inner.cut_when = None;
        let kept = random.below(inner.log.len() as u64 + 1) as usize;
        for change in inner.log.split_off(kept).into_iter().rev() {
            inner.undo(change);
        }
        inner.log.clear();
        let named: Vec<u64> = inner.names.values().copied().collect();
        inner.files.retain(|file, _| named.contains(file));
        for inode in inner.files.values_mut() {
            let end = inode.bytes.div_ceil(PAGE as u64);
            inode.pages.retain(|at, _| *at < end);
            for page in inode.pages.values_mut() {
                page.cut(&mut random);
            }
        }
    }
}

/// SplitMix64: enough to decide what a cut leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
