//! What operations do to the disk: names and pages, the file system's log, the clock, and where the power goes.

use std::io;

use super::pages::{Inode, pieces};
use super::{CALL_NS, COMMIT_EVERY, Change, FLUSH_NS, Fuse, Inner, MemFile};
use crate::format::PAGE;

impl Inner {
    /// Counts an operation that changes something. `Ok(false)`: the power goes while it is done.
    pub(super) fn operate(&mut self) -> io::Result<bool> {
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

    pub(super) fn file(&mut self, file: MemFile) -> &mut Inode {
        self.files.entry(file.0).or_default()
    }

    pub(super) fn write(&mut self, file: MemFile, parts: &[&[u8]], mut at: u64) {
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
    pub(super) fn commit(&mut self) {
        self.transaction += 1;
        self.log.clear();
        for inode in self.files.values_mut() {
            for page in inode.pages.values_mut() {
                page.written |= std::mem::take(&mut page.converting);
                page.before = None;
            }
        }
    }

    pub(super) fn flush(&mut self) {
        self.counts.flushes += 1;
        self.clock += FLUSH_NS;
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        for inode in self.files.values_mut() {
            for page in inode.pages.values_mut() {
                page.flush();
            }
        }
    }

    pub(super) fn undo(&mut self, change: Change) {
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

    pub(super) fn check_bad(&self, file: MemFile, at: u64, bytes: usize) -> io::Result<()> {
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

    pub(super) fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[file].bytes).sum()
    }

    /// One file's size and blocks are in the file system's log.
    pub(super) fn commit_one(&mut self, file: MemFile) {
        self.log.retain(
            |change| !matches!(change, Change::Grown { file: grown, .. } if *grown == file.0),
        );
        for page in self.file(file).pages_in(0, u64::MAX) {
            page.written |= std::mem::take(&mut page.converting);
            page.before = None;
        }
    }
}
