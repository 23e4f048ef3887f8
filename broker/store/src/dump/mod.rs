//! What a stopped disk holds, item by item, for a person or a program to look at.
//!
//! Nothing is interpreted: superblocks, checkpoints, the ring's groups in the order of their sequence, extents with their
//! batches, as they lie there. What can't be read becomes an item of its own and the dump goes on. Nothing is written,
//! and nothing here panics on what it reads.

use core::ops::ControlFlow;
use std::io;
use std::os::unix::fs::FileExt;

use model::Uuid;
use model::batch::{HEADER_BYTES, Header};

use crate::format::PAGE;
use crate::format::checkpoint::CheckpointHeader;
use crate::format::extent::{DATA_AT, ExtentHeader, FOOTER_BYTES, Footer};
use crate::format::journal::{GroupHeader, Record};
use crate::format::superblock::Superblock;
use crate::io::{Copy, Io, Mode, Name};
use crate::recover::{Stopped, read_checkpoint, read_superblock};

mod item;

pub use item::Item;
use item::{batch, checkpoint, entry, extent, footer, group, partition, slot, superblock};

/// Read at a time where the ring is searched.
const PIECE: usize = 1 << 20;
/// Larger batches are not checked: none that was accepted is.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Takes items as they come; `Break` ends the dump.
pub type Each<'a> = &'a mut dyn FnMut(Item) -> ControlFlow<()>;

/// What of a disk is dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Superblocks and checkpoints, with slots and partitions.
    pub metadata: bool,
    /// Groups and entries of the ring.
    pub journal: bool,
    /// Extents in use and their batches.
    pub extents: bool,
}

impl Default for Parts {
    /// All.
    fn default() -> Self {
        Self {
            metadata: true,
            journal: true,
            extents: true,
        }
    }
}

/// Something bytes are read from.
trait Source {
    fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
}

struct OfDisk<'a, I: Io>(&'a I, I::File);

impl<I: Io> Source for OfDisk<'_, I> {
    fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.pread(&self.1, bytes, at)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.bytes(&self.1)
    }
}

struct OfFile<'a>(&'a std::fs::File);

impl Source for OfFile<'_> {
    fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut have = 0;
        while have < bytes.len() {
            match self.0.read_at(&mut bytes[have..], at + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|it| it.len())
    }
}

/// Dumps a stopped disk.
pub fn disk<I: Io>(io: &I, parts: Parts, each: Each<'_>) {
    let _ = whole(io, parts, each);
}

/// Dumps one file: `file` says what it is by its first bytes. The ring's groups are checked only with the `journal_uuid`
/// of its superblock; without, they are shown as they claim to be.
pub fn file(name: &str, file: &std::fs::File, journal_uuid: Option<Uuid>, each: Each<'_>) {
    let source = OfFile(file);
    let mut page = [0; PAGE];
    let len = match source.read(&mut page, 0) {
        Ok(len) => len,
        Err(error) => {
            let _ = each(fault(name, 0, error));
            return;
        }
    };
    let page = &page[..len];
    let bytes = source.len().unwrap_or(0);
    let _ = if let Ok(it) = Superblock::decode(page) {
        each(superblock(name, &it))
    } else if let Ok(it) = CheckpointHeader::decode(page, bytes) {
        each(checkpoint(name, &it))
    } else if ExtentHeader::decode(page).is_ok() {
        one_extent(name, &source, each)
    } else {
        ring(name, &source, bytes, journal_uuid, each)
    };
}

fn whole<I: Io>(io: &I, parts: Parts, each: Each<'_>) -> ControlFlow<()> {
    if parts.metadata {
        for copy in Copy::BOTH {
            let name = Name::Super(copy);
            let mut page = [0; PAGE];
            let read = io
                .open(name, Mode::Read)
                .and_then(|file| io.pread(&file, &mut page, 0));
            match read.map(|len| Superblock::decode(&page[..len])) {
                Ok(Ok(it)) => each(superblock(&name.to_string(), &it))?,
                Ok(Err(what)) => each(fault(&name.to_string(), 0, what))?,
                Err(error) => each(fault(&name.to_string(), 0, error))?,
            }
        }
    }
    let it = match read_superblock(io) {
        Ok((it, _)) => it,
        Err(error) => return each(fault("SUPER", 0, error)),
    };
    if parts.metadata {
        for copy in Copy::BOTH {
            one_checkpoint(io, Name::Checkpoint(copy), &it, each)?;
        }
    }
    if parts.journal {
        let name = Name::Journal.to_string();
        match io.open(Name::Journal, Mode::Read) {
            Ok(file) => {
                let source = OfDisk(io, file);
                ring(&name, &source, it.journal_bytes, Some(it.journal), each)?;
            }
            Err(error) => each(fault(&name, 0, error))?,
        }
    }
    if parts.extents {
        for number in slots_in_use(io, it) {
            let name = Name::Extent(number);
            match io.open(name, Mode::Read) {
                Ok(file) => one_extent(&name.to_string(), &OfDisk(io, file), each)?,
                Err(error) => each(fault(&name.to_string(), 0, error))?,
            }
        }
    }
    ControlFlow::Continue(())
}

/// Slots in use at the ring's end, or at the checkpoint if the ring does not lead on from it.
fn slots_in_use<I: Io>(io: &I, superblock: Superblock) -> Vec<u32> {
    let Ok(mut stopped) = Stopped::load(io, superblock) else {
        return Vec::new();
    };
    let journal = io.open(Name::Journal, Mode::Read);
    let read = journal.as_ref().ok().map(|it| stopped.read(io, it));
    let rows = match &read {
        Some(Ok(read)) => &read.replay.table.rows,
        _ => &stopped.rows,
    };
    let rows = rows.iter().zip(0..);
    rows.filter(|(row, _)| row.in_use())
        .map(|(_, slot)| slot)
        .collect()
}

fn one_checkpoint<I: Io>(
    io: &I,
    name: Name,
    superblock: &Superblock,
    each: Each<'_>,
) -> ControlFlow<()> {
    let path = name.to_string();
    let file = match io.open(name, Mode::Read) {
        Ok(file) => file,
        Err(error) => return each(fault(&path, 0, error)),
    };
    let (header, rows, body) = match read_checkpoint(io, &file, superblock.disk) {
        Ok(read) => read,
        Err(Ok(what)) => return each(fault(&path, 0, what)),
        Err(Err(error)) => return each(fault(&path, 0, error)),
    };
    each(checkpoint(&path, &header))?;
    for (row, number) in rows.iter().zip(0..) {
        each(slot(number, row))?;
    }
    for it in &body.partitions {
        each(partition(it))?;
    }
    ControlFlow::Continue(())
}

/// Groups in the order of their sequence, old ones that a recovery needs no more included.
fn ring(
    name: &str,
    source: &dyn Source,
    bytes: u64,
    uuid: Option<Uuid>,
    each: Each<'_>,
) -> ControlFlow<()> {
    let mut found = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < bytes {
        let len = piece.len().min((bytes - at) as usize);
        let read = match source.read(&mut piece[..len], at) {
            Ok(read) => read,
            Err(error) => {
                each(fault(name, at, error))?;
                0
            }
        };
        for (page, place) in piece[..read].chunks_exact(PAGE).zip(0..) {
            let place = at + place * PAGE as u64;
            found.extend(GroupHeader::peek(page, place, bytes));
        }
        at += len as u64;
    }
    found.sort_by_key(|header| (header.seq, header.ring_pos));
    for header in found {
        let mut record = vec![0; header.total_len as usize];
        let checked = match source.read(&mut record, header.ring_pos) {
            Ok(_) => uuid.map(|uuid| Record::check(header, uuid, &record)),
            Err(error) => {
                each(fault(name, header.ring_pos, error))?;
                continue;
            }
        };
        let record = match checked {
            // A payload may hold what looks like a group, and an old group may be written over in part.
            Some(None) => continue,
            Some(Some(record)) => Some(record),
            None => None,
        };
        each(group(&header, record.is_some()))?;
        let Some(record) = record else {
            continue;
        };
        for (read, number) in record.entries().zip(0..) {
            match read {
                Ok(it) => each(entry(header.seq, number, &it))?,
                Err(what) => each(fault(name, header.ring_pos, what))?,
            }
        }
    }
    ControlFlow::Continue(())
}

fn one_extent(name: &str, source: &dyn Source, each: Each<'_>) -> ControlFlow<()> {
    let mut page = [0; PAGE];
    let header = match source.read(&mut page, 0) {
        Ok(len) => ExtentHeader::decode(&page[..len]),
        Err(error) => return each(fault(name, 0, error)),
    };
    let class = match header {
        Ok(header) => {
            each(extent(name, &header))?;
            header.class
        }
        Err(what) => return each(fault(name, 0, what)),
    };
    let mut tail = [0; FOOTER_BYTES];
    let at = class.bytes() - FOOTER_BYTES as u64;
    let end = match source.read(&mut tail, at) {
        Ok(len) => Footer::decode(class, &tail[..len]).ok(),
        Err(error) => {
            each(fault(name, at, error))?;
            None
        }
    };
    // Without a tail the journal says where it ends: what reads as batches is shown, and may lie behind that.
    let limit = end.map_or(class.bytes(), |footer| footer.used.into());
    let mut at = u64::from(DATA_AT);
    let mut bytes = Vec::new();
    while at < limit {
        let mut head = [0; HEADER_BYTES];
        let header = match source.read(&mut head, at) {
            Ok(len) => Header::read(&head[..len]),
            Err(error) => return each(fault(name, at, error)),
        };
        let header = match header {
            Ok(header) if header.bytes <= BATCH_BYTES_MAX && at + header.bytes as u64 <= limit => {
                header
            }
            _ if end.is_none() => break,
            Ok(header) => return each(fault(name, at, format!("a batch of {} B", header.bytes))),
            Err(what) => return each(fault(name, at, what)),
        };
        bytes.resize(header.bytes, 0);
        match source.read(&mut bytes, at) {
            Ok(_) => each(batch(name, at, &header, Header::check_stored(&bytes).err()))?,
            Err(error) => each(fault(name, at, error))?,
        }
        at += header.bytes as u64;
    }
    match end {
        Some(it) => each(footer(name, &it)),
        None => ControlFlow::Continue(()),
    }
}

fn fault(file: &str, at: u64, what: impl ToString) -> Item {
    Item::Fault {
        file: file.into(),
        at,
        what: what.to_string(),
    }
}
