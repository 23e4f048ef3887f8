//! The extents of a disk against its table, and the table against the partitions.

use model::{Offset, WallMs};

use super::{Fault, PIECE, Verifier};
use crate::batches::{BatchError, BatchReader};
use crate::format::PAGE;
use crate::format::extent::{
    COMPACTED, DATA_AT, ExtentHeader, FOOTER_BYTES, Footer, SlotLife, Tail,
};
use crate::format::row::{Row, SlotState};
use crate::io::{Io, Mode, Name};
use crate::parts::feed_index;
use crate::recover::{Replay, Stopped};

/// What of an extent must lie in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Covered {
    /// Batches up to this position; 0: not even the header.
    to: u32,
    tail: bool,
    /// A TRUNCATE behind the checkpoint cut it: a recovery makes row and tail anew.
    cut: bool,
}

impl<I: Io> Verifier<'_, I> {
    pub(super) fn extents(&mut self, stopped: &Stopped, replay: &Replay<I::File>) {
        self.report.replicas = replay.parts.len() as u64;
        let table = Name::Checkpoint(stopped.at);
        for (part, it) in &replay.parts {
            let mut next: Option<Offset> = None;
            for slot in &it.extents {
                let row = replay.table.row(*slot);
                let follows = match next {
                    None => row.base <= it.log_start || it.log_start == it.end,
                    Some(next) if row.flags & COMPACTED != 0 => row.base >= next,
                    Some(next) => row.base == next,
                };
                if !follows {
                    let found = format!("extent {slot} of {part:?} at offset {}", row.base.0);
                    let expected = format!("one at {}", next.unwrap_or(it.log_start).0);
                    self.fault(table, 0, found, expected);
                }
                next = Some(row.last.plus(1));
            }
            let ends = next.is_none_or(|next| next == it.end)
                && (next.is_some() || it.log_start == it.end);
            if !ends && it.hole.is_none() {
                let found = format!("extents of {part:?} up to offset {:?}", next.map(|it| it.0));
                self.fault(table, 0, found, format!("up to {}", it.end.0));
            }
        }
        for (slot, row) in replay.table.rows.iter().enumerate() {
            let slot = slot as u32;
            if !row.in_use() {
                continue;
            }
            self.report.extents += 1;
            let owner = replay.parts.get(&row.part);
            if owner.is_none_or(|it| !it.extents.contains(&slot)) {
                let found = format!("extent {slot} of {:?}, which knows nothing of it", row.part);
                self.fault(table, 0, found, "extents of the disk's partitions");
            }
            let life = SlotLife {
                slot,
                generation: row.generation,
            };
            let id = owner.map(|it| it.id);
            let header = ExtentHeader {
                class: row.class,
                disk: stopped.superblock.disk,
                slot,
                generation: row.generation,
                id: id.unwrap_or_default(),
                epoch: row.first_epoch,
                base: row.base,
            };
            let covered = covered(stopped, replay, life, row);
            let read = self.extent(life, row, &header, covered);
            if let Err(error) = read {
                self.fault(Name::Extent(slot), 0, error, "a file that can be read");
                self.progress(row.class.bytes());
            }
        }
    }

    fn extent(
        &mut self,
        life: SlotLife,
        row: &Row,
        want: &ExtentHeader,
        covered: Covered,
    ) -> std::io::Result<()> {
        let (io, name) = (self.io, Name::Extent(life.slot));
        let file = match io.open(name, Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && covered.to == 0 => {
                // All of it lies in the ring.
                self.progress(row.class.bytes());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let bytes = io.bytes(&file)?;
        if covered.to > 0 && bytes != row.class.bytes() {
            let expected = format!("{} B", row.class.bytes());
            self.fault(name, 0, format!("{bytes} B"), expected);
        }
        if covered.to > 0 {
            self.header(&file, name, want)?;
            let index = self.batches(&file, name, row, covered)?;
            if covered.tail {
                self.tail(&file, name, row, &index)?;
            }
        }
        self.progress(u64::from(covered.to));
        self.rest(&file, name, u64::from(covered.to), row.class.bytes());
        Ok(())
    }

    fn header(&mut self, file: &I::File, name: Name, want: &ExtentHeader) -> std::io::Result<()> {
        let mut page = [0; PAGE];
        let len = self.io.pread(file, &mut page, 0)?;
        match ExtentHeader::decode(&page[..len]) {
            // The epoch it was opened in says nothing that the batches don't.
            Ok(header)
                if ExtentHeader {
                    epoch: want.epoch,
                    ..header
                } == *want => {}
            Ok(header) => self.fault(name, 0, format!("{header:?}"), format!("{want:?}")),
            Err(fault) => self.format_fault(name, 0, &fault),
        }
        Ok(())
    }

    /// Walks the batches; gives what the tail must say of them.
    fn batches(
        &mut self,
        file: &I::File,
        name: Name,
        row: &Row,
        covered: Covered,
    ) -> std::io::Result<Found> {
        let compacted = row.flags & COMPACTED != 0;
        let mut found = Found::default();
        let mut reader = BatchReader::new(DATA_AT, covered.to, PIECE);
        let (mut next, mut epoch) = (row.base, row.first_epoch);
        loop {
            let (at, header, bytes) = match reader.next(self.io, file) {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(BatchError::Io(error)) => {
                    self.fault(name, reader.at.into(), error, "readable batches");
                    found.whole = false;
                    return Ok(found);
                }
                Err(error) => {
                    self.fault(name, reader.at.into(), error, "a whole batch");
                    found.whole = false;
                    return Ok(found);
                }
            };
            found.crc = crc32c::crc32c_append(found.crc, bytes);
            let follows = header.base_offset == next || (compacted && header.base_offset > next);
            if !follows || header.last_offset() > row.last {
                let what = format!(
                    "a batch of offsets {} to {}",
                    header.base_offset.0,
                    header.last_offset().0
                );
                let expected = format!("one at {}, up to {} at most", next.0, row.last.0);
                self.fault(name, at.into(), what, expected);
            }
            if header.leader_epoch < epoch || header.leader_epoch > row.last_epoch {
                let what = format!("leader epoch {}", header.leader_epoch.0);
                let expected = format!("{} to {}", epoch.0, row.last_epoch.0);
                self.fault(name, u64::from(at) + 12, what, expected);
            }
            let rel = header.base_offset.since(row.base);
            if let Ok(rel) = u32::try_from(rel) {
                feed_index(&mut found.index, rel, at, found.max_ts);
            }
            found.max_ts = found.max_ts.max(header.max_timestamp);
            (next, epoch) = (header.next_offset(), header.leader_epoch);
            self.report.batches += 1;
            self.report.bytes += header.bytes as u64;
        }
        if covered.to == row.used {
            let last = if compacted {
                row.last.max(next.plus(-1))
            } else {
                next.plus(-1)
            };
            if last != row.last {
                let what = format!("batches up to offset {}", next.0 - 1);
                self.fault(name, row.used.into(), what, format!("up to {}", row.last.0));
            }
            if found.max_ts != row.max_ts && !covered.cut {
                let what = format!("a latest time of {}", found.max_ts.0);
                self.fault(name, row.used.into(), what, row.max_ts.0);
            }
        }
        Ok(found)
    }

    fn tail(
        &mut self,
        file: &I::File,
        name: Name,
        row: &Row,
        found: &Found,
    ) -> std::io::Result<()> {
        let end = row.class.bytes();
        let at = end - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        let len = self.io.pread(file, &mut footer, at)?;
        let bytes = match Footer::decode(row.class, &footer[..len]) {
            Ok(footer) => footer.tail_bytes,
            Err(fault) => {
                self.format_fault(name, at, &fault);
                return Ok(());
            }
        };
        let at = end - u64::from(bytes);
        let mut tail = vec![0; bytes as usize];
        let len = self.io.pread(file, &mut tail, at)?;
        let tail = match Tail::decode(row.class, &tail[..len]) {
            Ok(tail) => tail,
            Err(fault) => {
                self.format_fault(name, at, &fault);
                return Ok(());
            }
        };
        let footer = tail.footer;
        let says = (footer.flags, footer.used, footer.last, footer.max_ts);
        let wants = (row.flags, row.used, row.last, row.max_ts);
        if says != wants {
            let found = format!("flags, used, last, max_ts {says:?}");
            self.fault(name, at, found, format!("{wants:?}"));
        }
        if !found.whole {
            return Ok(());
        }
        if footer.data_crc != found.crc {
            let what = format!("batches with CRC-32C {:08x}", found.crc);
            self.fault(
                name,
                DATA_AT.into(),
                what,
                format!("{:08x}", footer.data_crc),
            );
        }
        if tail.index != found.index {
            let what = format!("an index of {} entries", tail.index.len());
            let expected = format!("the {} that the batches give", found.index.len());
            self.fault(name, at, what, expected);
        }
        Ok(())
    }

    /// What is left of a file can be read.
    fn rest(&mut self, file: &I::File, name: Name, mut at: u64, to: u64) {
        let mut piece = vec![0; PIECE];
        while at < to {
            let len = piece.len().min((to - at) as usize);
            match self.io.pread(file, &mut piece[..len], at) {
                Ok(_) => {}
                Err(error) => {
                    self.report.faults += 1;
                    (self.each)(super::Event::Fault(Fault {
                        file: name,
                        at,
                        found: error.to_string(),
                        expected: "readable blocks".into(),
                    }));
                }
            }
            at += len as u64;
            self.progress(len as u64);
        }
    }
}

/// What the batches of an extent give.
struct Found {
    index: Vec<crate::format::extent::IndexEntry>,
    crc: u32,
    max_ts: WallMs,
    /// The walk came to its end.
    whole: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            index: Vec::new(),
            crc: 0,
            max_ts: WallMs(-1),
            whole: true,
        }
    }
}

/// What the checkpoint's sweep, or a compactor's sync, put on the medium.
fn covered<F: Send + Sync + 'static>(
    stopped: &Stopped,
    replay: &Replay<F>,
    life: SlotLife,
    row: &Row,
) -> Covered {
    let was_cut = replay.was_cut(life);
    match stopped.row_at_boundary(life.slot, life.generation) {
        Some(then) => Covered {
            to: then.used.min(row.used),
            tail: !was_cut
                && then.state == SlotState::Sealed
                && row.state == SlotState::Sealed
                && then.used == row.used,
            cut: was_cut,
        },
        None if replay.was_swapped_in(life) => Covered {
            to: row.used,
            tail: !was_cut,
            cut: was_cut,
        },
        None => Covered {
            to: 0,
            tail: false,
            cut: was_cut,
        },
    }
}
