//! Which slot an extent gets, and its file.
//!
//! Next-fit, so that extents opened together lie together. A disk of its own keeps files ready (`preallocate`) and zeroes
//! freed ones; a path disk makes a file when it needs one and removes it when it is freed. Rows are only read here: the
//! caller writes them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::format::extent::SlotLife;
use crate::format::row::{Row, SlotState};
use crate::io::{FileSystem, Io, Mode, Name};
use crate::{Class, Config};

/// Files kept ready of 1, 8 and 64 MiB: 256 MiB, 512 MiB and 2 GiB.
pub(crate) const SPARE: [usize; 3] = [256, 64, 32];
/// Slots that a ring may name beyond those that are known: what is kept ready and what a hole may have opened; 4 MiB of rows.
const SLOTS_AHEAD_MAX: u64 = 64 * 1024;

/// A slot ready for its next life.
#[derive(Debug)]
pub(crate) struct Allocated<F> {
    pub(crate) life: SlotLife,
    pub(crate) file: Arc<F>,
    pub(crate) address: u64,
}

/// Rows of a disk's slots, and what of them is free.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    /// Whether a free slot's file is there and reads as zeros.
    ready: Vec<bool>,
    cursor: usize,
    /// On [`FileSystem::Other`]: directories, by the low byte of their slots, with files whose names may not be durable. The
    /// ring covers them until a checkpoint counts: a replay makes a missing file anew.
    nameless: BTreeSet<u8>,
    /// Those that the checkpoint under way waits for.
    owed: BTreeSet<u8>,
}

impl Table {
    pub(crate) fn new(rows: Vec<Row>) -> Self {
        Self {
            ready: vec![false; rows.len()],
            rows,
            cursor: 0,
            nameless: BTreeSet::new(),
            owed: BTreeSet::new(),
        }
    }

    pub(crate) fn row(&self, slot: u32) -> &Row {
        &self.rows[slot as usize]
    }

    pub(crate) fn row_mut(&mut self, slot: u32) -> &mut Row {
        &mut self.rows[slot as usize]
    }

    /// The row, if the slot is in this life.
    pub(crate) fn alive(&self, life: SlotLife) -> Option<&Row> {
        self.rows
            .get(life.slot as usize)
            .filter(|row| row.generation == life.generation && row.state != SlotState::Free)
    }

    /// Whether an entry of the ring may name this slot. A new one is the next behind the last; others may have been taken
    /// between, ahead of their extents or for a compaction that was lost, but never so many: rows are memory, 64 B each.
    pub(crate) fn may_name(&self, slot: u32) -> bool {
        let slots = self.rows.len() as u64;
        u64::from(slot) < slots + SLOTS_AHEAD_MAX
    }

    /// Puts a row at a slot that may lie behind the last one.
    pub(crate) fn place(&mut self, slot: u32, row: Row) {
        while self.rows.len() <= slot as usize {
            self.rows.push(Row::free(Class::Small, 1));
            self.ready.push(false);
        }
        self.rows[slot as usize] = row;
    }

    /// The slot is free again, in its next life. `ready`: its file is there and zeroed.
    pub(crate) fn release(&mut self, slot: u32, ready: bool) {
        let row = &mut self.rows[slot as usize];
        *row = Row::free(row.class, row.generation.wrapping_add(1).max(1));
        self.ready[slot as usize] = ready;
    }

    /// Bytes of all files that exist, or may.
    pub(crate) fn bytes(&self) -> u64 {
        let rows = self.rows.iter().zip(&self.ready);
        rows.filter(|(row, ready)| row.state != SlotState::Free || **ready)
            .map(|(row, _)| row.class.bytes())
            .sum()
    }

    /// Free files kept ready of a class.
    pub(crate) fn spare(&self, class: Class) -> usize {
        let rows = self.rows.iter().zip(&self.ready);
        rows.filter(|(row, ready)| row.state == SlotState::Free && **ready && row.class == class)
            .count()
    }

    fn find(&self, wanted: impl Fn(&Row, bool) -> bool) -> Option<usize> {
        let count = self.rows.len();
        (0..count)
            .map(|step| (self.cursor + step) % count)
            .find(|at| {
                self.rows[*at].state == SlotState::Free && wanted(&self.rows[*at], self.ready[*at])
            })
    }

    /// A slot of `class` with its file; `None` where there is no room.
    pub(crate) fn allocate<I: Io>(
        &mut self,
        io: &I,
        config: &Config,
        class: Class,
    ) -> io::Result<Option<Allocated<I::File>>> {
        if let Some(at) = self.find(|row, ready| ready && row.class == class) {
            match io.open(Name::Extent(at as u32), Mode::Write) {
                Ok(file) => return self.take(io, at, file).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.ready[at] = false,
                Err(error) => return Err(error),
            }
        }
        while self.bytes() + class.bytes() > config.use_bytes {
            // A class that runs short takes free files of another.
            let Some(other) = self.find(|_, ready| ready) else {
                return Ok(None);
            };
            io.remove(Name::Extent(other as u32))?;
            self.release(other as u32, false);
        }
        let at = self.find(|_, ready| !ready).unwrap_or_else(|| {
            self.rows.push(Row::free(class, 1));
            self.ready.push(false);
            self.rows.len() - 1
        });
        match self.make(io, at as u32, class)? {
            Some(file) => self.take(io, at, file).map(Some),
            None => Ok(None),
        }
    }

    fn make<I: Io>(&mut self, io: &I, slot: u32, class: Class) -> io::Result<Option<I::File>> {
        self.named(io, slot);
        make(io, slot, class)
    }

    /// A file got its name, or was found by one that may not be durable.
    pub(crate) fn named<I: Io>(&mut self, io: &I, slot: u32) {
        if io.file_system() == FileSystem::Other {
            self.nameless.insert((slot & 0xff) as u8);
        }
    }

    /// The checkpoint begun now counts only once all names are durable.
    pub(crate) fn owe_names(&mut self) {
        self.owed.append(&mut self.nameless);
    }

    /// Makes names in one directory durable for it; false when none is owed.
    pub(crate) fn sync_names<I: Io>(&mut self, io: &I) -> io::Result<bool> {
        let Some(low) = self.owed.pop_first() else {
            return Ok(false);
        };
        io.sync_directory(Name::Extent(low.into()))?;
        Ok(true)
    }

    /// Makes one file ahead if a class has too few; false when there is nothing to make, or no room.
    pub(crate) fn spare_one<I: Io>(&mut self, io: &I, config: &Config) -> io::Result<bool> {
        for class in Class::ALL {
            let short = self.spare(class) < SPARE[class as usize];
            if !short || self.bytes() + class.bytes() > config.use_bytes {
                continue;
            }
            let at = self.find(|_, ready| !ready).unwrap_or_else(|| {
                self.rows.push(Row::free(class, 1));
                self.ready.push(false);
                self.rows.len() - 1
            });
            if self.make(io, at as u32, class)?.is_some() {
                self.rows[at].class = class;
                self.ready[at] = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take<I: Io>(&mut self, io: &I, at: usize, file: I::File) -> io::Result<Allocated<I::File>> {
        self.cursor = at + 1;
        self.ready[at] = false;
        Ok(Allocated {
            life: SlotLife {
                slot: at as u32,
                generation: self.rows[at].generation,
            },
            address: io.disk_address(&file)?,
            file: Arc::new(file),
        })
    }
}

/// A new file with its blocks reserved; `None` where the file system is full. Its name need not be durable yet.
pub(crate) fn make<I: Io>(io: &I, slot: u32, class: Class) -> io::Result<Option<I::File>> {
    let name = Name::Extent(slot);
    let made = io.open(name, Mode::Create).and_then(|file| {
        io.allocate(&file, class.bytes())?;
        Ok(file)
    });
    match made {
        Ok(file) => Ok(Some(file)),
        Err(error) if full(&error) => {
            io.remove(name)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the file system, or the quota in it, has no room: not a fault of the disk.
pub(crate) fn full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
