//! Ranges of a disk's logs that are not what was written, or can't be read: what the scrubber and readers found.
//!
//! On a site of one nobody else has a copy: a partition goes on being served where its batches check, and only a damaged
//! batch is refused. A range is forgotten when its extent goes, or when it reads well again.

use std::collections::BTreeMap;

use model::Offset;
use store::{LinuxIo, PartIx, SlotLife, Suspect, Verdict, View};

/// Extents with such ranges that are remembered, at most 16 ranges each; beyond them reads still fail, and are counted.
const EXTENTS_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    by_life: BTreeMap<SlotLife, Vec<Suspect>>,
}

/// A batch that is asked for is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl Suspects {
    /// Takes what the scrubber says of an extent in place of what was known; gives what is news.
    pub(crate) fn judge(&mut self, verdict: Verdict) -> Vec<Suspect> {
        let Verdict { life, suspects } = verdict;
        let before = self.by_life.remove(&life).unwrap_or_default();
        let known = |it: &Suspect| {
            let same = |before: &Suspect| (before.first, before.last) == (it.first, it.last);
            before.iter().any(same)
        };
        let news = suspects.iter().filter(|it| !known(it)).cloned().collect();
        self.keep(life, suspects);
        news
    }

    /// A read of the extent failed: that is said of all of it, and nothing of it is refused for that alone.
    pub(crate) fn unreadable(&mut self, view: &View<LinuxIo>, life: SlotLife, why: String) {
        if self.by_life.contains_key(&life) {
            return;
        }
        let Some((part, id, first, last)) = view.find(life) else {
            return;
        };
        let damaged = false;
        self.keep(
            life,
            vec![Suspect {
                part,
                id,
                life,
                first,
                last,
                damaged,
                why,
            }],
        );
    }

    fn keep(&mut self, life: SlotLife, suspects: Vec<Suspect>) {
        if !suspects.is_empty() && self.by_life.len() < EXTENTS_MAX {
            self.by_life.insert(life, suspects);
        }
    }

    /// Up to where a reader that asks for `[from, until)` may be served.
    pub(crate) fn bound(
        &self,
        part: PartIx,
        from: Offset,
        until: Offset,
    ) -> Result<Offset, Damaged> {
        let damaged = self.all().filter(|it| it.damaged && it.part == part);
        let ahead = damaged.filter(|it| it.last >= from);
        match ahead.map(|it| it.first).min() {
            Some(first) if first <= from => Err(Damaged),
            Some(first) => Ok(first.min(until)),
            None => Ok(until),
        }
    }

    /// All of them, and nothing of extents that went meanwhile.
    pub(crate) fn current(&mut self, view: &View<LinuxIo>) -> impl Iterator<Item = &Suspect> {
        self.by_life
            .retain(|life, ranges| ranges.iter().any(|it| view.knows(it.part, *life)));
        self.all()
    }

    fn all(&self) -> impl Iterator<Item = &Suspect> {
        self.by_life.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(slot: u32, first: i64, last: i64, damaged: bool) -> Suspect {
        Suspect {
            part: PartIx(7),
            id: model::TopicPartition::default(),
            life: SlotLife {
                slot,
                generation: 1,
            },
            first: Offset(first),
            last: Offset(last),
            damaged,
            why: String::new(),
        }
    }

    fn verdict(slot: u32, suspects: Vec<Suspect>) -> Verdict {
        Verdict {
            life: SlotLife {
                slot,
                generation: 1,
            },
            suspects,
        }
    }

    #[test]
    fn readers_are_served_up_to_a_damaged_batch_and_behind_it() {
        let mut suspects = Suspects::default();
        suspects.judge(verdict(
            1,
            vec![range(1, 10, 12, true), range(1, 40, 49, true)],
        ));
        suspects.judge(verdict(2, vec![range(2, 100, 199, false)]));
        let bound = |part, from| suspects.bound(PartIx(part), Offset(from), Offset(300));
        assert_eq!(bound(7, 0), Ok(Offset(10)));
        assert_eq!([bound(7, 10), bound(7, 12)], [Err(Damaged); 2]);
        assert_eq!(bound(7, 13), Ok(Offset(40)));
        assert_eq!(bound(7, 45), Err(Damaged));
        assert_eq!(
            bound(7, 50),
            Ok(Offset(300)),
            "the other extent's batches check"
        );
        assert_eq!(bound(8, 11), Ok(Offset(300)), "another replica's");
        assert_eq!(
            suspects.bound(PartIx(7), Offset(0), Offset(5)),
            Ok(Offset(5))
        );
    }

    #[test]
    fn a_range_is_news_once_and_gone_when_it_reads_well() {
        let mut suspects = Suspects::default();
        let found = || verdict(1, vec![range(1, 10, 12, true)]);
        assert_eq!(suspects.judge(found()).len(), 1);
        assert_eq!(suspects.judge(found()).len(), 0);
        assert_eq!(suspects.judge(verdict(1, Vec::new())).len(), 0);
        assert_eq!(suspects.all().count(), 0);
        assert_eq!(suspects.judge(found()).len(), 1);
    }
}
