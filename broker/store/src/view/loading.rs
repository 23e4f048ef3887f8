//! Files and indexes of sealed extents that memory does not hold any more.

use std::sync::Arc;

use model::{Offset, WallMs};

use super::pins::Pin;
use super::state::Index;
use super::walk::{Step, Walk};
use super::{Reach, ReadError, View};
use crate::extent_io::read_exact;
use crate::format::Fault;
use crate::format::extent::{DATA_AT, FOOTER_BYTES, Footer, INDEX_EVERY, IndexEntry, Tail};
use crate::format::row::Row;
use crate::io::{Advice, Io, Mode, Name};
use crate::parts::feed_index;
use crate::{PartIx, SlotLife};

/// An extent that a question looks at, as it was when it was asked.
pub(super) struct Held<I: Io> {
    pub(super) pin: Arc<Pin<I>>,
    pub(super) part: PartIx,
    pub(super) row: Row,
    pub(super) file: Option<Arc<I::File>>,
    /// Where the first batch that is asked for begins, if a reader was there.
    pub(super) start: Option<u32>,
}

impl<I: Io> Held<I> {
    pub(super) fn life(&self) -> SlotLife {
        self.pin.life()
    }
}

/// First offset of the batch that an index entry of an extent stands for.
pub(super) fn offset_of(base: Offset, entry: &IndexEntry) -> Offset {
    base.plus(entry.rel_offset.into())
}

impl<I: Io> View<I> {
    /// The extent's file. What is opened here is kept for others.
    pub(super) fn file(
        &self,
        held: &mut Held<I>,
        reach: Reach,
    ) -> Result<Step<Arc<I::File>>, ReadError> {
        if let Some(file) = &held.file {
            return Ok(Step::Done(file.clone()));
        }
        if reach == Reach::Memory {
            return Ok(Step::Cold);
        }
        let life = held.life();
        // The pin keeps the slot in this life, so the name leads to this file.
        let file = self.io.open(Name::Extent(life.slot), Mode::Read);
        let file = Arc::new(file.map_err(|source| ReadError::Io { life, source })?);
        // Only advice: nothing depends on it.
        let _ = self.io.advise(&file, Advice::Random);
        let mut dropped = Vec::new();
        let mut state = self.lock();
        // One that was freed meanwhile is not kept: an open file holds a removed one's blocks.
        if state.knows(held.part, life) {
            state.files.insert(life, file.clone(), 1, &mut dropped);
        }
        drop(state);
        held.file = Some(file.clone());
        Ok(Step::Done(file))
    }

    /// The last index entry for which `before` holds; it holds for a part of the index from its begin on. `None`: the
    /// extent's begin.
    pub(super) fn entry(
        &self,
        held: &mut Held<I>,
        reach: Reach,
        before: impl Fn(&IndexEntry) -> bool,
    ) -> Result<Step<Option<IndexEntry>>, ReadError> {
        if held.row.used - DATA_AT <= INDEX_EVERY {
            return Ok(Step::Done(None));
        }
        let last = |index: &[IndexEntry]| {
            let count = index.partition_point(&before);
            count.checked_sub(1).map(|at| index[at])
        };
        let life = held.life();
        let mut state = self.lock();
        let log = state.logs.get(&held.part);
        let open = log.and_then(|log| log.open.iter().find(|open| open.life == life));
        if let Some(open) = open {
            return Ok(Step::Done(last(&open.index)));
        }
        let index = state.indexes.get(life);
        drop(state);
        if let Some(index) = index {
            return Ok(Step::Done(last(&index)));
        }
        match self.file(held, reach)? {
            // The tail's pages are seldom in memory when its index is not.
            _ if reach == Reach::Memory => Ok(Step::Cold),
            Step::Cold => Ok(Step::Cold),
            Step::Done(file) => Ok(Step::Done(last(&self.load_index(held, &file)?))),
        }
    }

    /// Reads a sealed extent's index from its tail; from the headers of its batches if the tail is damaged.
    fn load_index(&self, held: &Held<I>, file: &I::File) -> Result<Index, ReadError> {
        let life = held.life();
        let tail = self.read_tail(held, file);
        let tail = tail.map_err(|source| ReadError::Io { life, source })?;
        let (index, of_now) = match tail {
            // Another tail than this row's is of the moment: the extent is being cut. Its entries hold where there are
            // batches, and for what lies behind the last one there is the walk.
            Ok(tail) => {
                let mut index = tail.index;
                index.truncate(index.partition_point(|it| it.pos < held.row.used));
                (index, tail.footer.used == held.row.used)
            }
            Err(fault) => {
                tracing::warn!(slot = life.slot, %fault, "index made again from the batches");
                (self.index_of(held, file)?, true)
            }
        };
        let index: Index = index.into();
        let mut state = self.lock();
        if of_now && state.knows(held.part, life) {
            state.keep_index(life, index.clone());
        }
        Ok(index)
    }

    pub(super) fn read_tail(
        &self,
        held: &Held<I>,
        file: &I::File,
    ) -> std::io::Result<Result<Tail, Fault>> {
        let class = held.row.class;
        let mut footer = [0; FOOTER_BYTES];
        let at = class.bytes() - FOOTER_BYTES as u64;
        read_exact(&*self.io, file, &mut footer, at)?;
        let footer = match Footer::decode(class, &footer) {
            Ok(footer) => footer,
            Err(fault) => return Ok(Err(fault)),
        };
        // A footer whose length holds lies within its class.
        let mut tail = vec![0; footer.tail_bytes as usize];
        let at = class.bytes() - u64::from(footer.tail_bytes);
        read_exact(&*self.io, file, &mut tail, at)?;
        Ok(Tail::decode(class, &tail))
    }

    fn index_of(&self, held: &Held<I>, file: &I::File) -> Result<Vec<IndexEntry>, ReadError> {
        let Row { used, base, .. } = held.row;
        let mut walk = Walk::new(&*self.io, file, (held.life(), used), Reach::Disk);
        let mut index = Vec::new();
        let (mut pos, mut max_ts) = (DATA_AT, WallMs(-1));
        while pos < used {
            let Step::Done(header) = walk.header(pos)? else {
                unreachable!("a walk with the disk in reach is never cold")
            };
            let rel = header.base_offset.since(base) as u32;
            feed_index(&mut index, rel, pos, max_ts);
            max_ts = max_ts.max(header.max_timestamp);
            pos += header.bytes as u32;
        }
        Ok(index)
    }
}
