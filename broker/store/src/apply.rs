//! What each operation does to the disk's state, and which entries say so to a replay.
//!
//! Called while a group is put together: state runs ahead of the ring by one group. If the group then fails, the disk
//! has failed and the state with it. Nothing here writes to the ring; new extents get their file here.

use std::io;

use model::{Offset, WallMs};

use crate::PartIx;
use crate::disk::Disk;
use crate::format::journal::{self, Entry, EntryType};
use crate::io::Io;
use crate::ops::{Op, Outcome};
use crate::parts::Part;
use crate::publish::Change;

mod append;
mod cut;

pub(crate) use append::add_to_row;

impl<I: Io> Disk<I> {
    /// Whether an operation must be the first of its replica in a group: it looks at extents as they lie on the disk.
    pub(crate) fn is_barrier(op: &Op) -> bool {
        matches!(
            op,
            Op::Truncate { .. } | Op::PartDel { .. } | Op::LogStart { .. } | Op::Swap(_)
        )
    }

    /// Whether the group already holds appends of a replica.
    pub(crate) fn in_group(&self, part: PartIx) -> bool {
        self.parts
            .get(&part)
            .is_some_and(|it| it.entry.0 == self.group.number)
    }

    /// Does one operation; see the module.
    pub(crate) fn apply(&mut self, op: Op, trusted: Option<WallMs>) -> io::Result<Outcome> {
        match op {
            Op::Append(_) => {
                let number = self.group.keep(op);
                return self.append(number, trusted);
            }
            Op::PartNew { part, id } => self.part_new(part, id),
            Op::PartDel { part } => return Ok(self.part_del(part)),
            Op::Epoch {
                part,
                epoch,
                start,
                unclean,
            } => {
                let Some(it) = self.parts.get_mut(&part) else {
                    return Ok(Outcome::NoReplica);
                };
                assert!(
                    epoch >= it.accepted_epoch,
                    "{part:?} is in epoch {:?} and can't accept {epoch:?}",
                    it.accepted_epoch
                );
                if it.stalled && start.is_some_and(|start| start > it.end) {
                    // It counts on batches that were refused.
                    return Ok(Outcome::NoRoom);
                }
                it.accepted_epoch = epoch;
                if let Some(start) = start {
                    it.begin_epoch(epoch, start);
                }
                self.group.push(Entry {
                    part,
                    epoch,
                    flags: if unclean { journal::UNCLEAN } else { 0 },
                    base: start.unwrap_or(Offset(-1)),
                    ..Entry::new(EntryType::Epoch)
                });
            }
            Op::Truncate { part, to } => return self.truncate(part, to),
            Op::LogStart { part, offset } => return Ok(self.log_start(part, offset)),
            Op::HardState { term, vote } => {
                self.site.hard_state(term, vote);
                let mut entry = Entry::new(EntryType::HardState);
                entry.life.slot = vote.map_or(0, |node| node.0);
                entry.aux = term.0;
                self.group.push(entry);
            }
            Op::SiteEntry { index, term, bytes } => {
                assert!(
                    self.site.entry(index, term, &bytes),
                    "site-log entry {index} follows {}",
                    self.site.last()
                );
                let entry = Entry {
                    base: Offset(index as i64),
                    aux: term.0,
                    ..Entry::new(EntryType::SiteEntry)
                };
                self.group.push_with(entry, &bytes);
            }
            Op::SiteSnapshot { index, term, bytes } => self.site.snapshot(index, term, &bytes),
            Op::Settings { part, settings } => match self.parts.get_mut(&part) {
                Some(it) => it.settings = settings,
                None => return Ok(Outcome::NoReplica),
            },
            Op::Swap(swap) => return Ok(self.swap(&swap)),
            Op::Resume { part } => match self.parts.get_mut(&part) {
                Some(it) => it.stalled = false,
                None => return Ok(Outcome::NoReplica),
            },
            Op::Clean => {
                self.group.push(Entry::new(EntryType::Clean));
            }
        }
        Ok(Outcome::Done)
    }

    fn part_new(&mut self, part: PartIx, id: model::TopicPartition) {
        // A number used twice in the ring's window would give one replica's records to another.
        assert!(
            part.0 >= self.next_part,
            "{part:?} was used before on this disk, the next number is {}",
            self.next_part
        );
        self.next_part = part.0 + 1;
        self.parts.insert(part, Part::new(id));
        let mut payload = [0; 20];
        payload[..16].copy_from_slice(&id.topic.0.0);
        payload[16..].copy_from_slice(&id.partition.0.to_le_bytes());
        let entry = Entry {
            part,
            ..Entry::new(EntryType::PartNew)
        };
        self.group.push_with(entry, &payload);
        self.changes.push(Change::PartNew { part, id });
    }

    fn part_del(&mut self, part: PartIx) -> Outcome {
        let Some(it) = self.parts.remove(&part) else {
            return Outcome::NoReplica;
        };
        for slot in it.extents {
            self.let_go(slot);
        }
        self.windows.remove(part);
        self.group.push(Entry {
            part,
            ..Entry::new(EntryType::PartDel)
        });
        self.changes.push(Change::PartDel { part });
        Outcome::Done
    }
}
