//! [`Io`] in memory: a disk with a volatile cache whose power can be cut, for tests and for the simulator.
//!
//! What a write left behind when the power goes is decided page by page from a seed: any version since the last flush
//! may be on the medium, whole or torn at 512 B, a later write may be there and an earlier one lost. A page in a block
//! that was never written reads as zeros unless the file system's log was committed. New, removed and grown files come
//! back in the order of that log, which is committed by itself now and then if [`MemIo::commit_by_itself`] says so; an
//! fsync commits it only if the file's own last change is not in it yet. The same seed gives the same disk. It never lies
//! about a flush unless told to.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Instant;

use super::{Advice, FileSystem, Io, Mode, Name, Unwritten};
use crate::format::PAGE;
use crate::phase::Phase;

/// Versions of a page that may be found after a cut: the medium's and so many later ones.
const VERSIONS_MAX: usize = 4;
const SECTOR: usize = 512;
/// A system call's time on the virtual clock.
const CALL_NS: u64 = 2_000;
/// A flush's time: a turn of a 7200 rpm disk.
const FLUSH_NS: u64 = 8_330_000;

/// One in so many operations finds the file system's log committed.
const COMMIT_EVERY: u64 = 12;

type Page = Box<[u8; PAGE]>;

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

#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: u64,
    /// The transaction of its last change.
    changed: u64,
    pages: BTreeMap<u64, Cached>,
}

#[derive(Clone, Debug, Default)]
struct Cached {
    /// `None` reads as zeros.
    medium: Option<Page>,
    /// Since the medium's, oldest first; the last is what a read sees.
    later: Vec<Page>,
    /// How many of `later` the device has.
    handed: usize,
    /// The file system's log knows that the block is written.
    written: bool,
    /// It will, with the next commit.
    converting: bool,
    /// A failed write-back: clean for the kernel, never written.
    lost: bool,
    /// What was there before a zeroing that is not committed.
    before: Option<(Option<Page>, bool)>,
}

impl Cached {
    fn seen(&self) -> Option<&Page> {
        self.later.last().or(self.medium.as_ref())
    }

    fn write(&mut self, page: Page) {
        self.lost = false;
        if self.later.len() == VERSIONS_MAX {
            let forget = usize::from(self.handed == 1);
            self.later.remove(forget);
            self.handed = self
                .handed
                .saturating_sub(usize::from(forget < self.handed));
        }
        self.later.push(page);
    }

    fn hand(&mut self) {
        if !self.lost {
            self.handed = self.later.len();
            self.converting |= self.handed > 0;
        }
    }

    fn flush(&mut self) {
        if self.handed > 0 {
            self.medium = self.later.drain(..self.handed).next_back();
            self.handed = 0;
        }
    }
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

impl Cached {
    fn cut(&mut self, random: &mut Random) {
        if let Some((medium, written)) = self.before.take()
            && random.below(2) == 0
        {
            *self = Self {
                medium,
                written,
                ..Self::default()
            };
            return;
        }
        let later = std::mem::take(&mut self.later);
        let pick = |random: &mut Random| match random.below(later.len() as u64 + 1) as usize {
            0 => None,
            n => Some(&later[n - 1]),
        };
        if !later.is_empty() {
            let mut page = self.medium.take().unwrap_or_else(|| Box::new([0; PAGE]));
            match random.below(4) {
                // Torn: each sector of its own time.
                0 => {
                    for sector in 0..PAGE / SECTOR {
                        let range = sector * SECTOR..(sector + 1) * SECTOR;
                        if let Some(version) = pick(random) {
                            page[range.clone()].copy_from_slice(&version[range]);
                        }
                    }
                }
                // Torn: only the first sector of one version.
                1 => {
                    if let Some(version) = pick(random) {
                        page[..SECTOR].copy_from_slice(&version[..SECTOR]);
                    }
                }
                _ => {
                    if let Some(version) = pick(random) {
                        page = version.clone();
                    }
                }
            }
            self.medium = Some(page);
        }
        self.handed = 0;
        self.lost = false;
        if !self.written {
            // The log's commit comes by itself now and then.
            if random.below(2) == 0 {
                self.medium = None;
            } else {
                self.written = self.medium.is_some();
            }
        }
        self.converting = false;
    }
}

impl Inode {
    fn read(&self, bytes: &mut [u8], at: u64) {
        for (number, chunk) in pieces(at, bytes.len()) {
            let (from, to) = (chunk.page_from, chunk.page_from + chunk.len);
            let out = &mut bytes[chunk.from..chunk.from + chunk.len];
            match self.pages.get(&number).and_then(Cached::seen) {
                Some(page) => out.copy_from_slice(&page[from..to]),
                None => out.fill(0),
            }
        }
    }

    fn pages_in(&mut self, at: u64, bytes: u64) -> impl Iterator<Item = &mut Cached> {
        let end = at.saturating_add(bytes).div_ceil(PAGE as u64);
        self.pages
            .range_mut(at / PAGE as u64..end)
            .map(|(_, page)| page)
    }
}

struct Piece {
    from: usize,
    page_from: usize,
    len: usize,
}

/// Cuts a range at page boundaries.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, Piece)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let here = at + from as u64;
        let page_from = (here % PAGE as u64) as usize;
        let piece = Piece {
            from,
            page_from,
            len: (PAGE - page_from).min(len - from),
        };
        from += piece.len;
        (piece.len > 0).then_some((here / PAGE as u64, piece))
    })
}

impl Inner {
    /// Counts an operation that changes something. `Ok(false)`: the power goes while it is done.
    fn operate(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(io::Error::other("the power is off"));
        }
        self.clock += CALL_NS;
        if self
            .committer
            .as_mut()
            .is_some_and(|random| random.below(COMMIT_EVERY) == 0)
        {
            // A commit flushes the device, or it would come before what it speaks of.
            self.drain();
            self.commit();
        }
        let number = self.operations;
        self.operations += 1;
        let phase = crate::phase::current();
        match &mut self.cut_when {
            Some((wanted, 0)) if *wanted == phase => self.fuse = Some((number, Fuse::Cut)),
            Some((wanted, left)) if *wanted == phase => *left -= 1,
            _ => {}
        }
        match self.fuse {
            Some((at, fuse)) if at <= number => {
                self.fuse = None;
                match fuse {
                    Fuse::Cut => {
                        self.dead = true;
                        self.cut_in = Some(phase);
                        Ok(false)
                    }
                    Fuse::Error => Err(io::Error::from_raw_os_error(libc::EIO)),
                }
            }
            _ => Ok(true),
        }
    }

    fn file(&mut self, file: MemFile) -> &mut Inode {
        self.files.entry(file.0).or_default()
    }

    fn write(&mut self, file: MemFile, parts: &[&[u8]], mut at: u64) {
        for part in parts {
            let inode = self.files.entry(file.0).or_default();
            inode.changed = self.transaction;
            let end = at + part.len() as u64;
            if end > inode.bytes {
                let from = std::mem::replace(&mut inode.bytes, end);
                self.log.push(Change::Grown { file: file.0, from });
            }
            for (number, piece) in pieces(at, part.len()) {
                let page = inode.pages.entry(number).or_default();
                let mut bytes = page.seen().cloned().unwrap_or_else(|| Box::new([0; PAGE]));
                bytes[piece.page_from..piece.page_from + piece.len]
                    .copy_from_slice(&part[piece.from..piece.from + piece.len]);
                page.write(bytes);
            }
            at = end;
        }
    }

    /// The file system's log is committed.
    fn commit(&mut self) {
        self.transaction += 1;
        self.log.clear();
        for inode in self.files.values_mut() {
            for page in inode.pages.values_mut() {
                page.written |= std::mem::take(&mut page.converting);
                page.before = None;
            }
        }
    }

    fn flush(&mut self) {
        self.counts.flushes += 1;
        self.clock += FLUSH_NS;
        self.drain();
    }

    fn drain(&mut self) {
        for inode in self.files.values_mut() {
            for page in inode.pages.values_mut() {
                page.flush();
            }
        }
    }

    fn undo(&mut self, change: Change) {
        match change {
            Change::Created {
                name,
                replaced: Some(file),
            } => {
                self.names.insert(name, file);
            }
            Change::Created {
                name,
                replaced: None,
            } => {
                self.names.remove(&name);
            }
            Change::Removed { name, file } => {
                self.names.insert(name, file);
            }
            Change::Grown { file, from } => {
                if let Some(inode) = self.files.get_mut(&file) {
                    inode.bytes = from;
                }
            }
        }
    }

    fn check_bad(&self, file: MemFile, at: u64, bytes: usize) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the power is off"));
        }
        let end = at + bytes as u64;
        let bad = self.bad.iter().any(|(name, from, to)| {
            self.names.get(name) == Some(&file.0) && at < *to && *from < end
        });
        if bad {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[file].bytes).sum()
    }
}

impl Io for MemIo {
    type File = MemFile;

    fn now(&self) -> Instant {
        let mut inner = self.inner();
        inner.clock += CALL_NS;
        Instant(inner.clock)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut inner = self.inner();
        let mut random = Random(inner.random);
        let (low, high) = (random.next(), random.next());
        inner.random = random.0;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&low.to_le_bytes());
        bytes[8..].copy_from_slice(&high.to_le_bytes());
        Ok(bytes)
    }

    fn open(&self, name: Name, mode: Mode) -> io::Result<MemFile> {
        let mut inner = self.inner();
        if mode == Mode::Create {
            if !inner.operate()? {
                return Err(io::Error::other("the power went"));
            }
            let file = inner.next_file;
            inner.next_file += 1;
            let changed = inner.transaction;
            let inode = Inode {
                changed,
                ..Inode::default()
            };
            inner.files.insert(file, inode);
            let replaced = inner.names.insert(name, file);
            inner.log.push(Change::Created { name, replaced });
            return Ok(MemFile(file));
        }
        if inner.dead {
            return Err(io::Error::other("the power is off"));
        }
        let file = inner.names.get(&name).copied();
        Ok(MemFile(file.ok_or(io::ErrorKind::NotFound)?))
    }

    fn open_journal(&self) -> io::Result<MemFile> {
        self.open(Name::Journal, Mode::Write)
    }

    fn open_journal_ahead(&self) -> io::Result<MemFile> {
        self.open(Name::Journal, Mode::Read)
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        let mut inner = self.inner();
        let on = inner.operate()?;
        if let Some(file) = inner.names.remove(&name) {
            inner.log.push(Change::Removed { name, file });
        }
        if on {
            Ok(())
        } else {
            Err(io::Error::other("the power went"))
        }
    }

    fn sync_directory(&self, _name: Name) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.operate()? {
            return Err(io::Error::other("the power went"));
        }
        inner.counts.syncs += 1;
        match inner.file_system {
            FileSystem::CommitsTogether => inner.commit(),
            FileSystem::Other => inner
                .log
                .retain(|change| matches!(change, Change::Grown { .. })),
        }
        Ok(())
    }

    fn pwritev(&self, file: &MemFile, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let on = inner.operate()?;
        inner.write(*file, parts, at);
        inner.counts.cache_writes += 1;
        inner.counts.cache_bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if on {
            Ok(())
        } else {
            Err(io::Error::other("the power went"))
        }
    }

    fn pread(&self, file: &MemFile, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut inner = self.inner();
        inner.check_bad(*file, at, bytes.len())?;
        let Some(inode) = inner.files.get(&file.0) else {
            return Ok(0);
        };
        let len = inode.bytes.saturating_sub(at).min(bytes.len() as u64) as usize;
        inode.read(&mut bytes[..len], at);
        if inner.names.get(&Name::Journal) == Some(&file.0) {
            inner.counts.journal_read_bytes += len as u64;
        }
        Ok(len)
    }

    fn pread_nowait(&self, file: &MemFile, bytes: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        if self.inner().cold {
            return Ok(None);
        }
        self.pread(file, bytes, at).map(Some)
    }

    fn advise(&self, _file: &MemFile, _advice: Advice) -> io::Result<()> {
        Ok(())
    }

    fn write_journal(&self, file: &MemFile, bytes: &[u8], at: u64) -> io::Result<()> {
        assert!(
            (bytes.len() as u64 | at).is_multiple_of(PAGE as u64),
            "O_DIRECT refuses {} B at {at}",
            bytes.len()
        );
        let mut inner = self.inner();
        let on = inner.operate()?;
        inner.write(*file, &[bytes], at);
        if !on {
            return Err(io::Error::other("the power went"));
        }
        inner.counts.journal_writes += 1;
        inner.clock += FLUSH_NS;
        let (from, to) = (at, at + bytes.len() as u64);
        for page in inner.file(*file).pages_in(from, to - from) {
            page.hand();
            page.flush();
        }
        let name = inner.names.iter().find(|(_, it)| **it == file.0);
        let name = name.map(|(name, _)| *name);
        inner
            .bad
            .retain(|(bad, low, high)| Some(*bad) != name || *low < from || *high > to);
        Ok(())
    }

    fn allocate(&self, file: &MemFile, bytes: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.operate()? {
            return Err(io::Error::other("the power went"));
        }
        let have = inner.file(*file).bytes;
        if bytes > have {
            if inner.used() + bytes - have > inner.capacity {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            let transaction = inner.transaction;
            let inode = inner.file(*file);
            (inode.bytes, inode.changed) = (bytes, transaction);
            inner.log.push(Change::Grown {
                file: file.0,
                from: have,
            });
        }
        Ok(())
    }

    fn zero(&self, file: &MemFile, bytes: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.operate()? {
            return Err(io::Error::other("the power went"));
        }
        for page in inner.file(*file).pages_in(0, bytes) {
            let before = (page.medium.take(), page.written);
            *page = Cached {
                before: Some(page.before.take().unwrap_or(before)),
                ..Cached::default()
            };
        }
        Ok(())
    }

    /// WRITE alone promises nothing: it may skip a page that is under write-back.
    fn hand_over(&self, _file: &MemFile, _at: u64, _bytes: u64) -> io::Result<()> {
        if self.inner().operate()? {
            Ok(())
        } else {
            Err(io::Error::other("the power went"))
        }
    }

    fn settle(&self, file: &MemFile, at: u64, bytes: u64) -> io::Result<()> {
        let mut inner = self.inner();
        match inner.operate() {
            Ok(true) => {}
            Ok(false) => return Err(io::Error::other("the power went")),
            Err(error) => {
                for page in inner.file(*file).pages_in(at, bytes) {
                    page.lost = !page.later.is_empty();
                }
                return Err(error);
            }
        }
        inner.counts.settles += 1;
        for page in inner.file(*file).pages_in(at, bytes) {
            page.hand();
        }
        Ok(())
    }

    fn flush_device(&self, _journal: &MemFile) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.operate()? {
            return Err(io::Error::other("the power went"));
        }
        inner.flush();
        Ok(())
    }

    fn touch(&self, file: &MemFile) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.dead {
            return Err(io::Error::other("the power is off"));
        }
        let transaction = inner.transaction;
        inner.file(*file).changed = transaction;
        Ok(())
    }

    fn fsync(&self, file: &MemFile) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.operate()? {
            return Err(io::Error::other("the power went"));
        }
        inner.counts.syncs += 1;
        let transaction = inner.transaction;
        let inode = inner.file(*file);
        let mut changed = inode.changed == transaction;
        for page in inode.pages_in(0, u64::MAX) {
            page.hand();
            changed |= page.converting && !page.written || page.before.is_some();
        }
        inner.flush();
        match inner.file_system {
            // Its last change stands in the log already: nothing makes the file system commit what came later.
            FileSystem::CommitsTogether if !changed => {}
            FileSystem::CommitsTogether => inner.commit(),
            FileSystem::Other => inner.commit_one(*file),
        }
        Ok(())
    }

    fn fdatasync(&self, file: &MemFile) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.operate()? {
            return Err(io::Error::other("the power went"));
        }
        inner.counts.syncs += 1;
        for page in inner.file(*file).pages_in(0, u64::MAX) {
            page.hand();
        }
        inner.flush();
        inner.commit_one(*file);
        Ok(())
    }

    fn disk_address(&self, file: &MemFile) -> io::Result<u64> {
        // Files lie where they were made, but not in the order of their numbers.
        Ok(Random(file.0).next() >> 20)
    }

    fn unwritten(&self, file: &MemFile) -> io::Result<Unwritten> {
        let inner = self.inner();
        let inode = &inner.files[&file.0];
        let whole = inode.pages.len() as u64 * PAGE as u64 == inode.bytes
            && inode.pages.values().all(|page| page.written);
        Ok(if whole {
            Unwritten::None
        } else {
            Unwritten::Some
        })
    }

    fn bytes(&self, file: &MemFile) -> io::Result<u64> {
        Ok(self.inner().file(*file).bytes)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.inner();
        Ok(inner.capacity.saturating_sub(inner.used()))
    }

    fn file_system(&self) -> FileSystem {
        self.inner().file_system
    }
}

impl Inner {
    /// One file's size and blocks are in the file system's log.
    fn commit_one(&mut self, file: MemFile) {
        self.log.retain(
            |change| !matches!(change, Change::Grown { file: grown, .. } if *grown == file.0),
        );
        for page in self.file(file).pages_in(0, u64::MAX) {
            page.written |= std::mem::take(&mut page.converting);
            page.before = None;
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
