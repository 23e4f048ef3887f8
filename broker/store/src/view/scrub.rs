//! The scrubber: reads sealed extents again, long before anyone asks for them, and says where they are not what was
//! written.
//!
//! An extent is read once, piece by piece, against the checksums of its batches and the sum in its footer. Nothing is held
//! between two pieces: an extent that is cut or freed meanwhile is given up. Nothing is mended or decided here; a
//! [`Verdict`] names offsets.

use std::ops::Bound;
use std::sync::Arc;

use model::{Offset, TopicPartition};

use super::loading::{Held, offset_of};
use super::pins::Pin;
use super::walk::Step;
use super::{Reach, View};
use crate::batches::{BatchError, BatchReader};
use crate::format::extent::{COMPACTED, DATA_AT, IndexEntry, Tail};
use crate::format::row::{Row, SlotState};
use crate::{Io, PartIx, SlotLife};

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;
/// Bad places of one extent that are told apart; what lies behind the last of them counts as bad with it. A place that a
/// disk can't read costs it seconds.
const PLACES_MAX: usize = 16;

/// Where the scrubber of a disk is: after the last extent there is it begins again.
#[derive(Debug, Default)]
pub struct Scrubber {
    /// The last extent that was begun.
    place: Option<(PartIx, Offset)>,
    under: Option<Under>,
}

/// What one turn did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes read.
    pub bytes: u64,
    /// What became of the extent that was read to its end.
    pub verdict: Option<Verdict>,
    /// Every extent has had its turn; nothing was read.
    pub round: bool,
}

/// An extent that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which one.
    pub life: SlotLife,
    /// Nothing if all of it is as it was written.
    pub suspects: Vec<Suspect>,
}

/// A range of a log that is SUSPECT: not what was written, or not to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Whose.
    pub part: PartIx,
    /// Which partition it is.
    pub id: TopicPartition,
    /// Where it lies.
    pub life: SlotLife,
    /// First offset.
    pub first: Offset,
    /// Last offset.
    pub last: Offset,
    /// Its batches fail their own checksums, or can't be read: they are not to be sent.
    pub damaged: bool,
    /// What was found.
    pub why: String,
}

/// The extent that is being read.
#[derive(Debug)]
struct Under {
    part: PartIx,
    id: TopicPartition,
    life: SlotLife,
    row: Row,
    tail: Result<Tail, String>,
    reader: BatchReader,
    /// Offset that comes next.
    next: Offset,
    crc: u32,
    suspects: Vec<Suspect>,
}

impl<I: Io> View<I> {
    /// Reads some `bytes` more. For the disk's one reader thread: it waits for the disk.
    pub fn scrub(self: &Arc<Self>, scrubber: &mut Scrubber, bytes: usize) -> Scrubbed {
        let Some((part, life, row)) = scrubber.extent(self) else {
            scrubber.place = None;
            return Scrubbed {
                round: true,
                ..Scrubbed::default()
            };
        };
        let Some(mut held) = self.hold(part, life, row) else {
            // It went, or readers hold all they may: its turn comes in the next round.
            scrubber.under = None;
            return Scrubbed::default();
        };
        let file = match self.file(&mut held, Reach::Disk) {
            Ok(Step::Done(file)) => file,
            Ok(Step::Cold) => unreachable!("with the disk in reach nothing is cold"),
            Err(error) => return scrubber.give_up(part, &held, error.to_string()),
        };
        let mut under = match scrubber.under.take() {
            Some(under) => under,
            None => match self.begin(part, &held, &file) {
                Some(under) => under,
                None => return Scrubbed::default(),
            },
        };
        let from = under.reader.at;
        // What memory holds is in use; the rest is not to push out what others read.
        let cold = matches!(self.io.pread_nowait(&file, &mut [0], from.into()), Ok(None));
        let (before, bad) = (under.reader.read, under.suspects.len());
        let mut ended = false;
        // A place that can't be read takes long enough: readers have their turn behind it.
        while !ended && under.reader.read - before < bytes as u64 && under.suspects.len() == bad {
            ended = !under.step(&*self.io, &file);
        }
        let read = under.reader.read - before;
        if cold && let Some(pages) = super::range::whole_pages(from, under.reader.at - from) {
            // Only advice: nothing depends on it.
            let _ = self.io.advise(&file, pages);
        }
        let verdict = if ended {
            Some(under.verdict())
        } else {
            scrubber.under = Some(under);
            None
        };
        Scrubbed {
            bytes: read,
            verdict,
            round: false,
        }
    }

    /// Whether an extent is still one of the disk's logs.
    #[must_use]
    pub fn knows(&self, part: PartIx, life: SlotLife) -> bool {
        self.lock().knows(part, life)
    }

    /// Whose an extent is, and which offsets lie in it; `None` if it was freed.
    #[must_use]
    pub fn find(&self, life: SlotLife) -> Option<(PartIx, TopicPartition, Offset, Offset)> {
        let state = self.lock();
        let mut logs = state.logs.iter();
        logs.find_map(|(part, log)| {
            let extent = log.extents.iter().find(|it| it.life == life)?;
            Some((*part, log.id, extent.row.base, extent.row.last))
        })
    }

    /// The sealed extent behind `place`, in the order of the replicas' numbers and of their logs.
    fn sealed_after(&self, place: Option<(PartIx, Offset)>) -> Option<(PartIx, SlotLife, Row)> {
        let state = self.lock();
        let from = place.map_or(Bound::Unbounded, |(part, _)| Bound::Included(part));
        let mut logs = state.logs.range((from, Bound::Unbounded));
        logs.find_map(|(part, log)| {
            let extent = log.extents.iter().find(|it| {
                it.row.state == SlotState::Sealed
                    && it.row.used > DATA_AT
                    && place.is_none_or(|place| (*part, it.row.base) > place)
            })?;
            Some((*part, extent.life, extent.row))
        })
    }

    /// Pins an extent if it is still as it was.
    fn hold(self: &Arc<Self>, part: PartIx, life: SlotLife, row: Row) -> Option<Held<I>> {
        let now = self.now();
        let mut state = self.lock();
        let extent = state.logs.get_mut(&part)?.extent(life)?;
        if extent.row.used != row.used || extent.row.last != row.last {
            return None;
        }
        let file = state.file(part, life);
        let pin = state.pins.take(life, now)?;
        drop(state);
        // Pins take the lock when they are dropped, so none is made under it.
        Some(Held {
            pin: Arc::new(Pin::new(self, pin)),
            part,
            row,
            file,
            start: None,
        })
    }

    /// Reads the tail. `None`: it speaks of more than there is, since the extent is being cut.
    fn begin(&self, part: PartIx, held: &Held<I>, file: &I::File) -> Option<Under> {
        let id = self.lock().logs.get(&part)?.id;
        let tail = match self.read_tail(held, file) {
            Ok(Ok(tail)) if tail.footer.used != held.row.used => return None,
            Ok(tail) => tail.map_err(|fault| fault.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Some(Under {
            part,
            id,
            life: held.life(),
            row: held.row,
            tail,
            reader: BatchReader::new(DATA_AT, held.row.used, PIECE),
            next: held.row.base,
            crc: 0,
            suspects: Vec::new(),
        })
    }
}

impl Scrubber {
    /// The extent that is being read, or the next one.
    fn extent<I: Io>(&mut self, view: &View<I>) -> Option<(PartIx, SlotLife, Row)> {
        if let Some(under) = &self.under {
            return Some((under.part, under.life, under.row));
        }
        let next = view.sealed_after(self.place)?;
        let (part, _, row) = next;
        self.place = Some((part, row.base));
        Some(next)
    }

    /// A file that can't even be opened.
    fn give_up<I: Io>(&mut self, part: PartIx, held: &Held<I>, why: String) -> Scrubbed {
        self.under = None;
        let id = held.pin.view().lock().logs.get(&part).map(|log| log.id);
        let suspect = id.map(|id| Suspect {
            part,
            id,
            life: held.life(),
            first: held.row.base,
            last: held.row.last,
            damaged: true,
            why,
        });
        Scrubbed {
            verdict: suspect.map(|suspect| Verdict {
                life: held.life(),
                suspects: vec![suspect],
            }),
            ..Scrubbed::default()
        }
    }
}

impl Under {
    /// Reads one batch; false at the end.
    fn step<I: Io>(&mut self, io: &I, file: &I::File) -> bool {
        let compacted = self.row.flags & COMPACTED != 0;
        let at = self.reader.at;
        let (why, unreadable) = match self.reader.next(io, file) {
            Ok(None) => return false,
            Ok(Some((_, header, bytes))) => {
                let follows = header.base_offset == self.next
                    || (compacted && header.base_offset > self.next);
                if follows && header.last_offset() <= self.row.last {
                    self.crc = crc32c::crc32c_append(self.crc, bytes);
                    self.next = header.next_offset();
                    return true;
                }
                let offsets = (header.base_offset.0, header.last_offset().0);
                (format!("offsets {} to {}", offsets.0, offsets.1), false)
            }
            Err(error) => (error.to_string(), matches!(error, BatchError::Io(_))),
        };
        // Batch by batch, to know which one it is.
        if unreadable && self.reader.narrow() {
            return true;
        }
        // Its header may be whole all the same; the batch behind shows that.
        let header = self.reader.peek().filter(|_| self.reader.at == at);
        let header = header.filter(|it| {
            let ends = u64::from(at) + it.bytes as u64;
            it.base_offset == self.next
                && it.last_offset_delta >= 0
                && it.last_offset() <= self.row.last
                && ends <= u64::from(self.row.used)
        });
        let (next, to) = match header.filter(|_| self.suspects.len() + 1 < PLACES_MAX) {
            Some(header) => (header.next_offset(), at + header.bytes as u32),
            None => self.resume_behind(at),
        };
        self.suspects.push(Suspect {
            part: self.part,
            id: self.id,
            life: self.life,
            first: self.next,
            last: next.plus(-1),
            damaged: true,
            why: format!("batch at {at} of extent {}: {why}", self.life.slot),
        });
        self.next = next;
        self.reader.skip_to(to, PIECE);
        to < self.row.used
    }

    /// The next batch that the index knows behind `at`, by offset and position; else the extent's end.
    fn resume_behind(&self, at: u32) -> (Offset, u32) {
        let index: &[IndexEntry] = match &self.tail {
            Ok(tail) if self.suspects.len() + 1 < PLACES_MAX => &tail.index,
            _ => &[],
        };
        let entry = index.iter().find(|it| it.pos > at);
        entry.map_or((self.row.last.plus(1), self.row.used), |entry| {
            (offset_of(self.row.base, entry), entry.pos)
        })
    }

    /// What was found. Where each batch is whole and the sum does not hold, it is what no batch's checksum covers, offsets
    /// and epochs, or the footer itself.
    fn verdict(mut self) -> Verdict {
        let why = match &self.tail {
            Err(fault) => Some(format!("tail of extent {}: {fault}", self.life.slot)),
            Ok(tail) if self.suspects.is_empty() && tail.footer.data_crc != self.crc => {
                Some(format!(
                    "extent {}: its batches have CRC-32C {:08x}, its footer says {:08x}",
                    self.life.slot, self.crc, tail.footer.data_crc
                ))
            }
            Ok(_) => None,
        };
        if let Some(why) = why {
            self.suspects.push(Suspect {
                part: self.part,
                id: self.id,
                life: self.life,
                first: self.row.base,
                last: self.row.last,
                damaged: false,
                why,
            });
        }
        Verdict {
            life: self.life,
            suspects: self.suspects,
        }
    }
}
