//! Records by their time: extents by their latest time, then the index's running maximum, then headers, then the records
//! of one batch.
//!
//! Deleted records, below the log's start, and those at or behind `until` are not found, although they may lie in
//! extents that hold others.

use std::ops::Range;
use std::sync::Arc;

use model::batch::{Codec, HEADER_BYTES, Header};
use model::codec;
use model::record::Records;
use model::{Offset, WallMs};

use super::loading::{Held, offset_of};
use super::pins::Pin;
use super::walk::{Step, Walk};
use super::{Reach, ReadError, Stamped, Timed, View};
use crate::format::extent::{DATA_AT, IndexEntry};
use crate::format::row::Row;
use crate::{Io, PartIx};

/// Bytes of headers that a search may walk over where it must not wait: some of the first extent of a log whose start
/// lies within are covered by no maximum.
const WALK_MAX: u32 = 1 << 20;
/// A batch that is searched where nothing may wait is no larger, and not compressed.
const QUICK_BYTES: usize = 64 << 10;
/// Records of one batch once decompressed.
const PLAIN_BYTES_MAX: usize = 64 << 20;

/// What is searched.
#[derive(Clone, Copy)]
struct Span {
    part: PartIx,
    /// First offset there is.
    from: Offset,
    until: Offset,
}

impl<I: Io> View<I> {
    /// The first record before `until` whose time is `time` or later (COMPAT 24).
    pub fn first_at(
        self: &Arc<Self>,
        part: PartIx,
        time: WallMs,
        until: Offset,
        reach: Reach,
    ) -> Result<Timed, ReadError> {
        let mut span = self.span(part, until)?;
        while let Some(mut held) = self.next(&span, |row| row.max_ts >= time)? {
            match self.search(&span, &mut held, time, reach)? {
                Step::Cold => return Ok(Timed::Cold),
                Step::Done(Some(found)) => return Ok(Timed::Found(found)),
                // Its latest record is deleted, or not to be seen yet.
                Step::Done(None) => span.from = held.row.last.plus(1),
            }
        }
        Ok(Timed::Nothing)
    }

    /// The first of the records before `until` that have the latest time.
    pub fn latest_time(
        self: &Arc<Self>,
        part: PartIx,
        until: Offset,
        reach: Reach,
    ) -> Result<Timed, ReadError> {
        let mut span = self.span(part, until)?;
        let begin = span;
        let mut latest = WallMs(-1);
        loop {
            // An extent that holds no later record than one seen needs no look.
            let Some(mut held) = self.next(&span, |row| row.max_ts > latest)? else {
                break;
            };
            let row = held.row;
            if begin.from <= row.base && row.last < until {
                latest = latest.max(row.max_ts);
            } else {
                match self.latest_in(&begin, &mut held, reach)? {
                    Step::Cold => return Ok(Timed::Cold),
                    Step::Done(found) => latest = latest.max(found),
                }
            }
            span.from = row.last.plus(1);
        }
        match latest {
            WallMs(-1) => Ok(Timed::Nothing),
            latest => self.first_at(part, latest, until, reach),
        }
    }

    fn span(&self, part: PartIx, until: Offset) -> Result<Span, ReadError> {
        let from = self.lock().log(part)?.log_start;
        Ok(Span { part, from, until })
    }

    /// Pins the next extent of a span that is wanted.
    fn next(
        self: &Arc<Self>,
        span: &Span,
        wanted: impl Fn(&Row) -> bool,
    ) -> Result<Option<Held<I>>, ReadError> {
        let now = self.now();
        let mut state = self.lock();
        let log = state.log(span.part)?;
        let first = log.position_of(span.from);
        let mut extents = log.extents.iter().skip(first);
        let found = extents.find(|it| it.row.used > DATA_AT && wanted(&it.row));
        let Some(extent) = found.copied().filter(|it| it.row.base < span.until) else {
            return Ok(None);
        };
        let file = state.file(span.part, extent.life);
        let taken = state.pins.take(extent.life, now);
        drop(state);
        let pin = Pin::new(self, taken.ok_or(ReadError::Crowded)?);
        Ok(Some(Held {
            pin: Arc::new(pin),
            part: span.part,
            row: extent.row,
            file,
            start: None,
        }))
    }

    /// The first record of an extent that is in the span and not before `time`.
    fn search(
        &self,
        span: &Span,
        held: &mut Held<I>,
        time: WallMs,
        reach: Reach,
    ) -> Result<Step<Option<Stamped>>, ReadError> {
        let base = held.row.base;
        // Whatever lies before such an entry is too early, or deleted.
        let before = |it: &IndexEntry| it.max_ts < time || offset_of(base, it) <= span.from;
        self.each(span, held, before, reach, |walk, pos, header| {
            if header.max_timestamp < time {
                return Ok(Step::Done(None));
            }
            let mut found = None;
            let looked = times(walk, pos, header, reach, |offsets, at| {
                let first = offsets.start.max(span.from);
                if found.is_none() && at >= time && first < offsets.end.min(span.until) {
                    found = Some(Stamped {
                        offset: first,
                        timestamp: at,
                        epoch: header.leader_epoch,
                    });
                }
            })?;
            Ok(match looked {
                Step::Cold => Step::Cold,
                Step::Done(()) => Step::Done(found),
            })
        })
    }

    /// The latest time of an extent's records that are in the span.
    fn latest_in(
        &self,
        span: &Span,
        held: &mut Held<I>,
        reach: Reach,
    ) -> Result<Step<WallMs>, ReadError> {
        let base = held.row.base;
        let before = |it: &IndexEntry| {
            offset_of(base, it)
                <= if base < span.from {
                    span.from
                } else {
                    span.until
                }
        };
        let mut latest = WallMs(-1);
        if base >= span.from {
            match self.entry(held, reach, before)? {
                Step::Cold => return Ok(Step::Cold),
                Step::Done(entry) => latest = entry.map_or(latest, |it| it.max_ts),
            }
        }
        let walked = self.each(span, held, before, reach, |walk, pos, header| {
            if header.base_offset >= span.from && header.last_offset() < span.until {
                latest = latest.max(header.max_timestamp);
                return Ok(Step::Done(None::<()>));
            }
            let looked = times(walk, pos, header, reach, |offsets, at| {
                if offsets.start.max(span.from) < offsets.end.min(span.until) {
                    latest = latest.max(at);
                }
            })?;
            Ok(match looked {
                Step::Cold => Step::Cold,
                Step::Done(()) => Step::Done(None),
            })
        })?;
        Ok(match walked {
            Step::Cold => Step::Cold,
            Step::Done(_) => Step::Done(latest),
        })
    }

    /// Walks over an extent's batches from the last index entry for which `before` holds, as far as they are in the span,
    /// until `act` finds something.
    fn each<T>(
        &self,
        span: &Span,
        held: &mut Held<I>,
        before: impl Fn(&IndexEntry) -> bool,
        reach: Reach,
        mut act: impl FnMut(&Walk<'_, I>, u32, &Header) -> Result<Step<Option<T>>, ReadError>,
    ) -> Result<Step<Option<T>>, ReadError> {
        let Step::Done(file) = self.file(held, reach)? else {
            return Ok(Step::Cold);
        };
        let Step::Done(entry) = self.entry(held, reach, before)? else {
            return Ok(Step::Cold);
        };
        let used = held.row.used;
        let mut walk = Walk::new(&*self.io, &file, (held.life(), used), reach);
        let begin = entry.map_or(DATA_AT, |it| it.pos);
        let mut pos = begin;
        while pos < used {
            if reach == Reach::Memory && pos - begin > WALK_MAX {
                return Ok(Step::Cold);
            }
            let Step::Done(header) = walk.header(pos)? else {
                return Ok(Step::Cold);
            };
            if header.base_offset >= span.until {
                break;
            }
            if header.last_offset() >= span.from {
                match act(&walk, pos, &header)? {
                    Step::Done(None) => {}
                    found => return Ok(found),
                }
            }
            pos += header.bytes as u32;
        }
        Ok(Step::Done(None))
    }
}

/// Tells offsets of a batch and the time they share, in the order of the log. The header's count is the producer's word:
/// nothing here takes memory or time by it.
fn times<I: Io>(
    walk: &Walk<'_, I>,
    pos: u32,
    header: &Header,
    reach: Reach,
    mut each: impl FnMut(Range<Offset>, WallMs),
) -> Result<Step<()>, ReadError> {
    let all = header.base_offset..header.next_offset();
    let whole = header.records_count == header.last_offset_delta.saturating_add(1);
    if header.log_append_time() && whole {
        // Every record has the batch's time.
        each(all, header.max_timestamp);
        return Ok(Step::Done(()));
    }
    let codec = header.codec();
    let quick = header.bytes <= QUICK_BYTES && codec == Ok(Codec::None);
    if reach == Reach::Memory && !quick {
        return Ok(Step::Cold);
    }
    let Step::Done(batch) = walk.batch(pos, header)? else {
        return Ok(Step::Cold);
    };
    let records = &batch[HEADER_BYTES..];
    let read = match codec {
        Ok(Codec::None) => records_times(header, records, &mut each),
        Ok(codec) => codec::decompress(codec, records, PLAIN_BYTES_MAX)
            .is_ok_and(|plain| records_times(header, &plain, &mut each)),
        Err(_) => false,
    };
    if !read {
        // Records are their producer's affair: where they can't be read the batch's first offset is the answer that skips
        // none of them.
        each(all, header.max_timestamp);
    }
    Ok(Step::Done(()))
}

/// The same of every record; false, and none is told, if one can't be read.
fn records_times(
    header: &Header,
    plain: &[u8],
    each: &mut impl FnMut(Range<Offset>, WallMs),
) -> bool {
    let records = Records::new(plain, header.records_count);
    if records.clone().any(|record| record.is_err()) {
        return false;
    }
    for record in records.flatten() {
        let time = match header.log_append_time() {
            true => header.max_timestamp,
            // Also with a delete horizon in the base: the deltas count from whatever it holds (KIP-534).
            false => WallMs(
                header
                    .base_timestamp
                    .0
                    .saturating_add(record.timestamp_delta),
            ),
        };
        let offset = header.base_offset.plus(record.offset_delta.into());
        each(offset..offset.plus(1), time);
    }
    true
}
