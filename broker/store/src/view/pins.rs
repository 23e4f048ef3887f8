//! Which extents readers hold: they are not zeroed, nor is their slot used again, until the last one lets go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::Instant;

use super::View;
use crate::{Io, SlotLife};

/// Extents that readers may hold at a time: 1,024 slow readers of a chunk each.
pub const PINNED_MAX: usize = 1024;

/// What readers hold of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// Extents held.
    pub extents: usize,
    /// Since when the oldest pin holds, on [`Io::now`]'s clock.
    pub oldest: Option<Instant>,
}

/// All pins of a disk.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// In the order in which they were taken.
    held: BTreeMap<u64, Held>,
    by_life: HashMap<SlotLife, u32>,
    next: u64,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    called_back: Arc<AtomicBool>,
}

/// One pin: names an extent that stays as it is. Given back by [`Pin`]'s drop.
#[derive(Debug)]
pub(super) struct Taken {
    number: u64,
    life: SlotLife,
    called_back: Arc<AtomicBool>,
}

impl Pins {
    /// Holds an extent; `None` if as many are held as may be. The oldest pin is then called back.
    pub(super) fn take(&mut self, life: SlotLife, now: Instant) -> Option<Taken> {
        if self.by_life.len() >= PINNED_MAX && !self.by_life.contains_key(&life) {
            let called = |held: &&Held| !held.called_back.load(Ordering::Relaxed);
            if let Some(oldest) = self.held.values().find(called) {
                oldest.called_back.store(true, Ordering::Relaxed);
            }
            return None;
        }
        let number = self.next;
        self.next += 1;
        let called_back = Arc::new(AtomicBool::new(false));
        let held = Held {
            since: now,
            called_back: called_back.clone(),
        };
        self.held.insert(number, held);
        *self.by_life.entry(life).or_default() += 1;
        Some(Taken {
            number,
            life,
            called_back,
        })
    }

    fn give_back(&mut self, taken: &Taken) {
        self.held.remove(&taken.number);
        if let Some(count) = self.by_life.get_mut(&taken.life) {
            *count -= 1;
            if *count == 0 {
                self.by_life.remove(&taken.life);
            }
        }
    }

    pub(super) fn holds(&self, life: SlotLife) -> bool {
        self.by_life.contains_key(&life)
    }

    pub(super) fn sum(&self) -> Pinned {
        Pinned {
            extents: self.by_life.len(),
            oldest: self.held.values().next().map(|held| held.since),
        }
    }
}

/// Holds an extent until it is dropped.
pub(super) struct Pin<I: Io> {
    view: Arc<View<I>>,
    taken: Taken,
}

impl<I: Io> Pin<I> {
    pub(super) fn new(view: &Arc<View<I>>, taken: Taken) -> Self {
        Self {
            view: view.clone(),
            taken,
        }
    }

    pub(super) fn life(&self) -> SlotLife {
        self.taken.life
    }

    pub(super) fn view(&self) -> &Arc<View<I>> {
        &self.view
    }

    pub(super) fn called_back(&self) -> bool {
        self.taken.called_back.load(Ordering::Relaxed)
    }
}

impl<I: Io> Drop for Pin<I> {
    fn drop(&mut self) {
        self.view.lock().pins.give_back(&self.taken);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn life(slot: u32) -> SlotLife {
        SlotLife {
            slot,
            generation: 1,
        }
    }

    #[test]
    fn beyond_the_bound_the_oldest_are_called_back_one_for_each_refusal() {
        let mut pins = Pins::default();
        let taken: Vec<_> = (0..PINNED_MAX as u32)
            .map(|slot| pins.take(life(slot), Instant(slot.into())).unwrap())
            .collect();
        // One that is held already costs nothing.
        let again = pins.take(life(7), Instant(5000)).unwrap();
        assert!(pins.take(life(9999), Instant(5000)).is_none());
        assert!(pins.take(life(9999), Instant(5000)).is_none());
        let called: Vec<_> = taken
            .iter()
            .filter(|it| it.called_back.load(Ordering::Relaxed))
            .map(|it| it.life.slot)
            .collect();
        assert_eq!(called, [0, 1]);
        pins.give_back(&taken[0]);
        assert!(pins.take(life(9999), Instant(5000)).is_some());
        pins.give_back(&taken[7]);
        assert!(pins.holds(life(7)));
        pins.give_back(&again);
        assert!(!pins.holds(life(7)));
        assert_eq!(pins.sum().oldest, Some(Instant(1)));
    }
}
