//! [`MemIo`] as an [`Io`].

use std::io;

use model::Instant;

use super::pages::{Cached, Inode};
use super::{CALL_NS, Change, FLUSH_NS, MemFile, MemIo, Random};
use crate::format::PAGE;
use crate::io::{Advice, FileSystem, Io, Mode, Name, Unwritten};

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
