//! What lies under the view's lock, and how a durable group's changes alter it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ReadError;
use super::cache::Lru;
use super::log::{Extent, Log, Open};
use super::pins::Pins;
use crate::format::extent::IndexEntry;
use crate::format::row::{Row, SlotState};
use crate::publish::Change;
use crate::{PartIx, SlotLife};

/// Files of sealed extents kept open.
const FILES_MAX: usize = 512;
/// Indexes of sealed extents kept: 4 MiB, some 256 of full large extents.
const INDEX_BYTES_MAX: usize = 4 << 20;
/// What an index costs beside its entries.
const INDEX_BYTES_EACH: usize = 128;

/// A sealed extent's index.
pub(super) type Index = Arc<[IndexEntry]>;

/// See the module.
#[derive(Debug)]
pub(super) struct State<F> {
    pub(super) logs: BTreeMap<PartIx, Log<F>>,
    pub(super) files: Lru<SlotLife, Arc<F>>,
    pub(super) indexes: Lru<SlotLife, Index>,
    pub(super) pins: Pins,
}

impl<F> Default for State<F> {
    fn default() -> Self {
        Self {
            logs: BTreeMap::new(),
            files: Lru::new(FILES_MAX),
            indexes: Lru::new(INDEX_BYTES_MAX),
            pins: Pins::default(),
        }
    }
}

impl<F> State<F> {
    /// Files that are let go go to `dropped`.
    pub(super) fn apply(&mut self, change: Change<F>, dropped: &mut Vec<Arc<F>>) {
        match change {
            Change::PartNew { part, id } => {
                self.logs.insert(part, Log::new(id, model::Offset::ZERO));
            }
            Change::PartDel { part } => {
                let log = self.logs.remove(&part);
                let open = log.into_iter().flat_map(|log| log.open);
                dropped.extend(open.map(|open| open.file));
            }
            Change::Recovered {
                part,
                id,
                log_start,
                extents,
                open,
            } => {
                let mut log = Log::new(id, log_start);
                let extents = extents.into_iter().map(|(slot, row)| named(slot, row));
                log.extents = extents.collect();
                let open = open.map(|(life, file, index)| Open { life, file, index });
                log.open = open.into_iter().collect();
                self.logs.insert(part, log);
            }
            Change::Opened {
                part,
                life,
                file,
                row,
            } => {
                let Some(log) = self.logs.get_mut(&part) else {
                    return;
                };
                log.extents.push_back(Extent { life, row });
                let index = Vec::new();
                log.open.push(Open { life, file, index });
            }
            Change::Appended {
                part,
                life,
                used,
                end,
                max_ts,
                epoch,
                appended_at,
                index,
            } => {
                let Some(log) = self.logs.get_mut(&part) else {
                    return;
                };
                if let Some(Extent { row, .. }) = log.extent(life) {
                    row.used = used;
                    row.last = model::Offset(end.0 - 1);
                    row.max_ts = row.max_ts.max(max_ts);
                    row.last_epoch = epoch;
                    row.appended_at = appended_at;
                }
                if let Some(open) = log.open.iter_mut().find(|it| it.life == life) {
                    open.index.extend_from_slice(&index);
                }
            }
            Change::Sealed {
                part,
                life,
                row,
                index,
            } => self.sealed(part, Extent { life, row }, index, dropped),
            Change::Truncated { part, end } => self.change(part, dropped, |log| log.truncate(end)),
            Change::LogStart { part, offset } => {
                self.change(part, dropped, |log| log.set_log_start(offset));
            }
            Change::Swapped { part, old, new } => {
                let new = new.map(|(life, row)| Extent { life, row });
                self.change(part, dropped, |log| log.swap(&old, new));
            }
            Change::Freed { part, life } => {
                // By what let it go: LOG_START, TRUNCATE, a swap, PART_DEL.
                debug_assert!(!self.knows(part, life), "freed while in its log");
                dropped.extend(self.files.remove(life));
                self.indexes.remove(life);
            }
            Change::Trusted { now } => self.logs.values_mut().for_each(|log| log.trust(now)),
        }
    }

    fn sealed(
        &mut self,
        part: PartIx,
        sealed: Extent,
        mut index: Vec<IndexEntry>,
        dropped: &mut Vec<Arc<F>>,
    ) {
        let Some(log) = self.logs.get_mut(&part) else {
            return;
        };
        let Some(extent) = log.extent(sealed.life) else {
            return;
        };
        extent.row = sealed.row;
        let open = log.open.iter().position(|it| it.life == sealed.life);
        if let Some(at) = open {
            let open = log.open.swap_remove(at);
            self.files.insert(sealed.life, open.file, 1, dropped);
        }
        // One that was cut in the group in which it was sealed comes twice, first with what was cut.
        index.truncate(index.partition_point(|it| it.pos < sealed.row.used));
        self.keep_index(sealed.life, index.into());
    }

    pub(super) fn keep_index(&mut self, life: SlotLife, index: Index) {
        let weight = INDEX_BYTES_EACH + index.len() * size_of::<IndexEntry>();
        // Memory only: dropping these frees no file.
        self.indexes.insert(life, index, weight, &mut Vec::new());
    }

    /// Alters a log; files of open extents that are gone from it are let go.
    fn change(&mut self, part: PartIx, dropped: &mut Vec<Arc<F>>, act: impl FnOnce(&mut Log<F>)) {
        let Some(log) = self.logs.get_mut(&part) else {
            return;
        };
        dropped.extend(log.open.iter().map(|open| open.file.clone()));
        act(log);
    }

    /// An extent's file, if it is open.
    pub(super) fn file(&mut self, part: PartIx, life: SlotLife) -> Option<Arc<F>> {
        let log = self.logs.get(&part);
        let open = log.and_then(|log| log.open.iter().find(|open| open.life == life));
        let file = open.map(|open| open.file.clone());
        file.or_else(|| self.files.get(life))
    }

    pub(super) fn log(&mut self, part: PartIx) -> Result<&mut Log<F>, ReadError> {
        self.logs.get_mut(&part).ok_or(ReadError::NoReplica(part))
    }

    /// Whether an extent is still one of its log's.
    pub(super) fn knows(&mut self, part: PartIx, life: SlotLife) -> bool {
        let log = self.logs.get_mut(&part);
        log.is_some_and(|log| log.extent(life).is_some())
    }
}

fn named(slot: u32, row: Row) -> Extent {
    debug_assert!(matches!(row.state, SlotState::Open | SlotState::Sealed));
    let life = SlotLife {
        slot,
        generation: row.generation,
    };
    Extent { life, row }
}
