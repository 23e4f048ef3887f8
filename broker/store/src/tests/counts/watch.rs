//! A disk in memory that remembers which memory was written to it, and how much was read of it.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use model::Instant;

use crate::io::{Advice, FileSystem, Mode, Name, Unwritten};
use crate::{Io, MemIo};

/// See the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    mem: MemIo,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    written: Vec<Written>,
    read_bytes: usize,
}

/// One part of one write.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) name: Name,
    /// Addresses of the bytes that were handed over.
    pub(super) memory: Range<usize>,
}

/// An open file and its name.
#[derive(Debug)]
pub(super) struct File(<MemIo as Io>::File, Name);

impl Watch {
    pub(super) fn new(mem: MemIo) -> Self {
        Self {
            mem,
            seen: Arc::default(),
        }
    }

    pub(super) fn mem(&self) -> &MemIo {
        &self.mem
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub(super) fn forget(&self) {
        *self.lock() = Seen::default();
    }

    pub(super) fn seen(&self) -> Vec<Written> {
        self.lock().written.clone()
    }

    /// Bytes of extents.
    pub(super) fn read_bytes(&self) -> usize {
        self.lock().read_bytes
    }

    fn note(&self, file: &File, bytes: &[u8]) {
        let at = bytes.as_ptr() as usize;
        self.lock().written.push(Written {
            name: file.1,
            memory: at..at + bytes.len(),
        });
    }

    fn note_read(&self, file: &File, read: usize) {
        if matches!(file.1, Name::Extent(_)) {
            self.lock().read_bytes += read;
        }
    }
}

impl Io for Watch {
    type File = File;

    fn now(&self) -> Instant {
        self.mem.now()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.mem.random()
    }

    fn open(&self, name: Name, mode: Mode) -> io::Result<File> {
        self.mem.open(name, mode).map(|file| File(file, name))
    }

    fn open_journal(&self) -> io::Result<File> {
        self.mem.open_journal().map(|it| File(it, Name::Journal))
    }

    fn open_journal_ahead(&self) -> io::Result<File> {
        let file = self.mem.open_journal_ahead();
        file.map(|it| File(it, Name::Journal))
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        self.mem.remove(name)
    }

    fn sync_directory(&self, name: Name) -> io::Result<()> {
        self.mem.sync_directory(name)
    }

    fn pwritev(&self, file: &File, parts: &[&[u8]], at: u64) -> io::Result<()> {
        for part in parts {
            self.note(file, part);
        }
        self.mem.pwritev(&file.0, parts, at)
    }

    fn pread(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let read = self.mem.pread(&file.0, bytes, at)?;
        self.note_read(file, read);
        Ok(read)
    }

    fn pread_nowait(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        let read = self.mem.pread_nowait(&file.0, bytes, at)?;
        self.note_read(file, read.unwrap_or(0));
        Ok(read)
    }

    fn advise(&self, file: &File, advice: Advice) -> io::Result<()> {
        self.mem.advise(&file.0, advice)
    }

    fn write_journal(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.note(file, bytes);
        self.mem.write_journal(&file.0, bytes, at)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.mem.allocate(&file.0, bytes)
    }

    fn zero(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.mem.zero(&file.0, bytes)
    }

    fn hand_over(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        self.mem.hand_over(&file.0, at, bytes)
    }

    fn settle(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        self.mem.settle(&file.0, at, bytes)
    }

    fn flush_device(&self, journal: &File) -> io::Result<()> {
        self.mem.flush_device(&journal.0)
    }

    fn touch(&self, file: &File) -> io::Result<()> {
        self.mem.touch(&file.0)
    }

    fn fsync(&self, file: &File) -> io::Result<()> {
        self.mem.fsync(&file.0)
    }

    fn fdatasync(&self, file: &File) -> io::Result<()> {
        self.mem.fdatasync(&file.0)
    }

    fn disk_address(&self, file: &File) -> io::Result<u64> {
        self.mem.disk_address(&file.0)
    }

    fn unwritten(&self, file: &File) -> io::Result<Unwritten> {
        self.mem.unwritten(&file.0)
    }

    fn bytes(&self, file: &File) -> io::Result<u64> {
        self.mem.bytes(&file.0)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.mem.free_bytes()
    }

    fn file_system(&self) -> FileSystem {
        self.mem.file_system()
    }
}
