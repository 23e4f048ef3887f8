//! From offsets to ranges of files: a snapshot of the extents in question, an index entry, a short walk over headers.

use std::sync::Arc;

use super::loading::{Held, offset_of};
use super::log::Cursor;
use super::pins::Pin;
use super::range::Range;
use super::walk::{Step, Walk};
use super::{Locate, Located, Reach, ReadError, View};
use crate::Io;
use crate::format::extent::{DATA_AT, IndexEntry};

/// Ranges of one answer, each in an extent of its own that stays pinned until it is sent: 16 MiB of the smallest.
const RANGES_MAX: usize = 16;

/// What of an extent is asked for.
enum Cut<I: Io> {
    /// From here, and the extent goes on or more extents may follow.
    Range { range: Range<I>, whole: bool },
    /// No batch of it is at or behind the offset.
    Skip,
    /// The limits allow no batch of it.
    Over,
}

impl<I: Io> View<I> {
    /// Where whole batches lie; see [`Locate`].
    pub fn locate(self: &Arc<Self>, ask: &Locate, reach: Reach) -> Result<Located<I>, ReadError> {
        let mut ranges = Vec::new();
        let mut left = ask.bytes_max;
        for mut held in self.plan(ask)? {
            let first = ranges.is_empty();
            if left == 0 && !(first && ask.at_least_one) {
                break;
            }
            let cut = match self.cut(ask, &mut held, left, first, reach) {
                // What lies before is answered; who asks on from there is told.
                Err(_) if !first => break,
                cut => cut?,
            };
            match cut {
                Step::Cold if first => return Ok(Located::Cold),
                Step::Cold | Step::Done(Cut::Over) => break,
                Step::Done(Cut::Skip) => {}
                Step::Done(Cut::Range { range, whole }) => {
                    left = left.saturating_sub(range.len() as u64);
                    ranges.push(range);
                    if !whole {
                        break;
                    }
                }
            }
        }
        Ok(Located::Ranges(ranges))
    }

    /// Pins the extents that may be needed, as they are now.
    fn plan(self: &Arc<Self>, ask: &Locate) -> Result<Vec<Held<I>>, ReadError> {
        let now = self.now();
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut state = self.lock();
        let log = state.log(ask.part)?;
        let first = log.position_of(ask.from);
        let begins = log.extents.get(first).map(|it| it.row.base);
        if ask.from < log.log_start && begins.is_none_or(|base| ask.from < base) {
            return Err(ReadError::Deleted {
                from: ask.from,
                log_start: log.log_start,
            });
        }
        let mut at = first;
        while let Some(extent) = state.log(ask.part)?.extents.get(at).copied() {
            at += 1;
            if extent.row.used == DATA_AT {
                continue;
            }
            let enough = !taken.is_empty() && bytes >= ask.bytes_max;
            if extent.row.base >= ask.until || enough || taken.len() == RANGES_MAX {
                break;
            }
            let start = if ask.from <= extent.row.base {
                Some(DATA_AT)
            } else {
                state.log(ask.part)?.cursor_at(ask.from, &extent)
            };
            let Some(pin) = state.pins.take(extent.life, now) else {
                if taken.is_empty() {
                    return Err(ReadError::Crowded);
                }
                break;
            };
            bytes += start.map_or(0, |start| u64::from(extent.row.used - start));
            taken.push((pin, extent.row, state.file(ask.part, extent.life), start));
        }
        drop(state);
        // Pins take the lock when they are dropped, so none is made under it.
        let held = taken.into_iter().map(|(pin, row, file, start)| Held {
            pin: Arc::new(Pin::new(self, pin)),
            part: ask.part,
            row,
            file,
            start,
        });
        Ok(held.collect())
    }

    fn cut(
        &self,
        ask: &Locate,
        held: &mut Held<I>,
        left: u64,
        first: bool,
        reach: Reach,
    ) -> Result<Step<Cut<I>>, ReadError> {
        let Step::Done(file) = self.file(held, reach)? else {
            return Ok(Step::Cold);
        };
        let Step::Done(start) = self.start(ask, held, &file, reach)? else {
            return Ok(Step::Cold);
        };
        if start == held.row.used {
            return Ok(Step::Done(Cut::Skip));
        }
        let one = first && ask.at_least_one;
        let Step::Done((end, next)) = self.end(ask, held, &file, (start, left, one), reach)? else {
            return Ok(Step::Cold);
        };
        if end == start {
            return Ok(Step::Done(Cut::Over));
        }
        if let Some(offset) = next {
            let (life, pos) = (held.life(), end);
            let mut state = self.lock();
            if let Ok(log) = state.log(held.part) {
                log.remember(ask.from, Cursor { offset, life, pos });
            }
        }
        let whole = end == held.row.used;
        let range = Range::new(
            held.pin.clone(),
            file,
            held.part,
            (start, end),
            held.row.used,
        );
        Ok(Step::Done(Cut::Range { range, whole }))
    }

    /// File position of the first batch with an offset at or behind the one asked for.
    fn start(
        &self,
        ask: &Locate,
        held: &mut Held<I>,
        file: &I::File,
        reach: Reach,
    ) -> Result<Step<u32>, ReadError> {
        if let Some(start) = held.start {
            return Ok(Step::Done(start));
        }
        let base = held.row.base;
        let before = |it: &IndexEntry| offset_of(base, it) <= ask.from;
        let Step::Done(entry) = self.entry(held, reach, before)? else {
            return Ok(Step::Cold);
        };
        let used = held.row.used;
        let mut walk = Walk::new(&*self.io, file, (held.life(), used), reach);
        let mut pos = entry.map_or(DATA_AT, |it| it.pos);
        while pos < used {
            let Step::Done(header) = walk.header(pos)? else {
                return Ok(Step::Cold);
            };
            if header.last_offset() >= ask.from {
                break;
            }
            pos += header.bytes as u32;
        }
        Ok(Step::Done(pos))
    }

    /// File position behind the last batch that the limits allow, and an offset that leads there.
    fn end(
        &self,
        ask: &Locate,
        held: &mut Held<I>,
        file: &I::File,
        (start, left, one): (u32, u64, bool),
        reach: Reach,
    ) -> Result<Step<(u32, Option<model::Offset>)>, ReadError> {
        let (base, used) = (held.row.base, held.row.used);
        let most = u64::from(start).saturating_add(left);
        if held.row.last < ask.until && u64::from(used) <= most {
            return Ok(Step::Done((used, Some(held.row.last.plus(1)))));
        }
        // All batches before such an entry begin before `until` and end within the limit.
        let before =
            |it: &IndexEntry| u64::from(it.pos) <= most && offset_of(base, it) <= ask.until;
        let Step::Done(entry) = self.entry(held, reach, before)? else {
            return Ok(Step::Cold);
        };
        let entry = entry.filter(|it| it.pos > start);
        let mut end = entry.map_or(start, |it| it.pos);
        let mut next = entry.map(|it| offset_of(base, &it));
        let mut walk = Walk::new(&*self.io, file, (held.life(), used), reach);
        while end < used {
            let Step::Done(header) = walk.header(end)? else {
                return Ok(Step::Cold);
            };
            let fits = u64::from(end) + header.bytes as u64 <= most || (one && end == start);
            if header.base_offset >= ask.until || !fits {
                break;
            }
            end += header.bytes as u32;
            next = Some(header.next_offset());
        }
        Ok(Step::Done((end, next)))
    }
}
