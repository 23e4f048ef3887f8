//! Reading the ring: record after record from a checkpoint on, and the search that tells a torn end from rot.
//!
//! A record counts at its place only, with exactly the next sequence, the ring's own identity in its checksum, and its
//! own address inside. Anything else there is the end of what can be read in order.

use std::io;

use model::Uuid;

use crate::format::PAGE;
use crate::format::journal::{GroupHeader, RECORD_BYTES_MAX, Record, WRAP};
use crate::format::superblock::{DiskState, Superblock};
use crate::io::{Advice, Io};
use crate::ring::Aligned;

/// Read ahead of what is asked for.
const AHEAD: usize = 1 << 20;

/// A window over the ring.
pub(super) struct RingReader<'a, I: Io> {
    io: &'a I,
    file: &'a I::File,
    /// The same through the page cache: the kernel reads on while records are checked, and where memory holds the ring the
    /// second pass finds it there.
    ahead: Option<I::File>,
    bytes: u64,
    uuid: Uuid,
    buffer: Aligned,
    /// Ring positions in the buffer.
    window: (u64, u64),
}

/// What stands at a place of the ring.
pub(super) enum At {
    /// The record that was asked for.
    Record(GroupHeader),
    /// Something else.
    Nothing,
    /// The place can't be read.
    Unreadable(io::Error),
}

impl<'a, I: Io> RingReader<'a, I> {
    pub(super) fn new(io: &'a I, file: &'a I::File, bytes: u64, uuid: Uuid) -> Self {
        Self {
            io,
            file,
            ahead: io.open_journal_ahead().ok(),
            bytes,
            uuid,
            buffer: Aligned::new(RECORD_BYTES_MAX.min(bytes as usize) + PAGE),
            window: (0, 0),
        }
    }

    /// `len` bytes at `at`, both whole pages, within the ring.
    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let end = at + len as u64;
        if at < self.window.0 || end > self.window.1 {
            self.fill(at, len)?;
        }
        let from = (at - self.window.0) as usize;
        Ok(&self.buffer.bytes()[from..from + len])
    }

    /// Moves the window to `at` and makes it at least `len` long. What it holds of that already is not read again: a record
    /// is longer than what is read ahead of its header.
    fn fill(&mut self, at: u64, len: usize) -> io::Result<()> {
        let (from, to) = std::mem::take(&mut self.window);
        let buffer = self.buffer.bytes_mut();
        let mut have = 0;
        if from <= at && at < to {
            buffer.copy_within((at - from) as usize..(to - from) as usize, 0);
            have = (to - at) as usize;
        }
        let most = buffer.len().min(len.max(have + AHEAD)) as u64;
        let most = most.min(self.bytes - at) as usize;
        let next = at + have as u64;
        let ahead = self.ahead.as_ref();
        let read = match ahead.map(|it| self.io.pread(it, &mut buffer[have..most], next)) {
            Some(Ok(read)) if have + read >= len => read,
            // A bad sector ahead, or in the same large page, says nothing about what was asked for.
            _ => self.io.pread(self.file, &mut buffer[have..len], next)?,
        };
        if have + read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.window = (at, next + read as u64);
        Ok(())
    }

    /// The record at `at`, if `wanted` takes its header.
    pub(super) fn record_at(&mut self, at: u64, wanted: impl FnOnce(&GroupHeader) -> bool) -> At {
        let (bytes, uuid) = (self.bytes, self.uuid);
        let header = match self.get(at, PAGE) {
            Ok(page) => GroupHeader::peek(page, at, bytes).filter(wanted),
            Err(error) => return At::Unreadable(error),
        };
        let Some(header) = header else {
            return At::Nothing;
        };
        match self.get(at, header.padded() as usize) {
            Ok(record) => match Record::check(header, uuid, record) {
                Some(_) => At::Record(header),
                None => At::Nothing,
            },
            Err(error) => At::Unreadable(error),
        }
    }

    /// The record whose header [`RingReader::record_at`] just returned.
    pub(super) fn record(&mut self, header: GroupHeader) -> io::Result<Record<'_>> {
        let uuid = self.uuid;
        let bytes = self.get(header.ring_pos, header.padded() as usize)?;
        Record::check(header, uuid, bytes).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a group changed between two reads",
            )
        })
    }

    /// Headers of all whole records with a sequence above `seq`, by sequence, anywhere in the ring but where `passed` says
    /// that records in order were found: from the first place to the second, over the ring's end if that comes first.
    fn later(&mut self, seq: u64, passed: (u64, u64)) -> Vec<GroupHeader> {
        let (begin, end) = passed;
        let ranges = if begin <= end {
            [(end, self.bytes), (0, begin)]
        } else {
            [(end, begin), (0, 0)]
        };
        let mut found = Vec::new();
        for (mut at, to) in ranges {
            while at < to {
                at += match self.record_at(at, |header| header.seq > seq) {
                    At::Record(header) => {
                        found.push(header);
                        header.padded()
                    }
                    At::Nothing | At::Unreadable(_) => PAGE as u64,
                };
            }
        }
        found.sort_by_key(|header| header.seq);
        found
    }
}

impl<I: Io> Drop for RingReader<'_, I> {
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            // Only advice: nothing depends on it.
            let whole = Advice::DontNeed {
                at: 0,
                bytes: self.bytes,
            };
            let _ = self.io.advise(ahead, whole);
        }
    }
}

/// A run of records in order.
#[derive(Clone, Copy, Debug)]
struct Segment {
    seq: u64,
    at: u64,
    count: u64,
}

/// What comes next on a walk.
pub(super) enum Step {
    /// A record.
    Record(GroupHeader),
    /// A torn end, or none: this sequence was never acknowledged.
    End,
    /// The record is missing although it must have been there.
    Rotten {
        why: String,
        /// The device gave an error.
        unreadable: bool,
    },
}

/// A walk from a checkpoint's boundary to the ring's end. What was found once can be walked again.
pub(super) struct Walk<'a, I: Io> {
    pub(super) reader: RingReader<'a, I>,
    /// Of the next record.
    pub(super) seq: u64,
    /// Where it is looked for first.
    pub(super) at: u64,
    /// Ring bytes passed, what was skipped before the ring's end included.
    pub(super) advance: u64,
    segments: Vec<Segment>,
    /// Records behind a hole, once the ring was searched.
    later: Option<Vec<GroupHeader>>,
}

impl<'a, I: Io> Walk<'a, I> {
    pub(super) fn new(reader: RingReader<'a, I>, seq: u64, at: u64) -> Self {
        Self {
            reader,
            seq,
            at,
            advance: 0,
            segments: vec![Segment { seq, at, count: 0 }],
            later: None,
        }
    }

    /// The next record in order.
    pub(super) fn step(&mut self) -> Step {
        let seq = self.seq;
        let (at, bytes) = (self.at, self.reader.bytes);
        let mut why = None;
        let mut found = None;
        // A turn's first record stands at 0 and says so; the place behind the last record comes first.
        for (place, wrap) in [(at, false), (0, true)] {
            if (place == bytes) || (wrap && at == 0) {
                continue;
            }
            match self.reader.record_at(place, |header| {
                header.seq == seq && (!wrap || header.flags & WRAP != 0)
            }) {
                At::Record(header) => {
                    found = Some(header);
                    break;
                }
                At::Nothing => {}
                // A new turn begins only where the longest record does not fit any more.
                At::Unreadable(_) if wrap && bytes - at >= RECORD_BYTES_MAX as u64 => {}
                At::Unreadable(error) => why = Some(format!("at {place}: {error}")),
            }
        }
        if let Some(header) = found {
            self.pass(&header);
            return Step::Record(header);
        }
        let later = match &self.later {
            Some(later) => later.iter().find(|header| header.seq > seq).copied(),
            None => {
                // Once only, so all that was passed is one run from the begin.
                let all = self.reader.later(seq, (self.segments[0].at, self.at));
                let first = all.first().copied();
                self.later = Some(all);
                first
            }
        };
        match (why, later) {
            (Some(why), _) => Step::Rotten {
                why,
                unreadable: true,
            },
            (None, Some(header)) => Step::Rotten {
                why: format!("group {} is there", header.seq),
                unreadable: false,
            },
            (None, None) => Step::End,
        }
    }

    /// Where no group was found in order there must be older ones, unless the disk was never used: they are written over,
    /// never erased.
    pub(super) fn of_this_disk(&mut self, superblock: &Superblock) -> Result<(), super::OpenError> {
        let began = self.segments[0];
        let unused = matches!(superblock.state, DiskState::Fresh | DiskState::Replacement);
        if self.seq != began.seq || (unused && began.seq == 1) {
            return Ok(());
        }
        match self.reader.later(0, (began.at, began.at)).is_empty() {
            true => Err(super::OpenError::StrangeJournal),
            false => Ok(()),
        }
    }

    fn pass(&mut self, header: &GroupHeader) {
        let skipped = match header.ring_pos {
            pos if pos == self.at => 0,
            // Behind a hole, or a new turn.
            pos if pos > self.at => pos - self.at,
            pos => self.reader.bytes - self.at + pos,
        };
        self.advance += skipped + header.padded();
        self.at = header.ring_pos + header.padded();
        self.seq = header.seq + 1;
        self.segments.last_mut().expect("one at least").count += 1;
    }

    /// Goes on behind a hole; says with which sequence, if there is anything.
    pub(super) fn skip(&mut self) -> Option<u64> {
        let seq = self.seq;
        let header = *self.later.as_ref()?.iter().find(|it| it.seq > seq)?;
        self.advance += (header.ring_pos + self.reader.bytes - self.at) % self.reader.bytes;
        (self.seq, self.at) = (header.seq, header.ring_pos);
        self.segments.push(Segment {
            seq: self.seq,
            at: self.at,
            count: 0,
        });
        Some(self.seq)
    }

    /// Every record found, once more, in order.
    pub(super) fn again(
        &mut self,
        mut each: impl FnMut(Record<'_>) -> Result<(), super::OpenError>,
    ) -> Result<(), super::OpenError> {
        for segment in self.segments.clone() {
            let (mut seq, mut at) = (segment.seq, segment.at);
            for _ in 0..segment.count {
                let here = |header: &GroupHeader| header.seq == seq;
                let header = match (at < self.reader.bytes).then(|| self.reader.record_at(at, here))
                {
                    Some(At::Record(header)) => header,
                    _ => match self.reader.record_at(0, |header| header.seq == seq) {
                        At::Record(header) => header,
                        _ => {
                            return Err(super::OpenError::Suspect {
                                seq,
                                why: "it was there a moment ago".into(),
                            });
                        }
                    },
                };
                each(super::say(
                    "reading the journal",
                    self.reader.record(header),
                )?)?;
                seq += 1;
                at = header.ring_pos + header.padded();
            }
        }
        Ok(())
    }
}
