//! The entries as this node holds them: behind a snapshot, without a hole, durable up to a mark.

use std::collections::VecDeque;

use model::Term;

use super::{Entry, Index, LogEntry, Record, Recovered, Voters};

/// The log. Which entries name voters is kept beside, since a voter set counts from the moment its entry is appended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log {
    /// The last entry that is only in the snapshot.
    pub(super) snapshot: (Index, Term),
    /// Entries behind the snapshot.
    pub(super) entries: VecDeque<LogEntry>,
    /// Bytes in them.
    pub(super) bytes: usize,
    /// So far the medium holds it.
    pub(super) durable: Index,
    /// Voters by the index of the entry that names them, rising. The first stands for the snapshot, or for the site file.
    voters: VecDeque<(Index, Voters)>,
}

/// The voters that an entry names, if it does.
pub(super) fn voters_of(bytes: &[u8]) -> Option<Voters> {
    match Record::decode(bytes).ok()?.entry? {
        Entry::Voters(voters) => Some(voters),
        _ => None,
    }
}

impl Log {
    pub(super) fn new(recovered: Recovered, configured: Voters) -> Self {
        let Recovered {
            hard_state,
            snapshot,
            voters,
            entries,
        } = recovered;
        let first = voters.unwrap_or(configured);
        let mut log = Self {
            snapshot,
            entries: VecDeque::new(),
            bytes: 0,
            durable: snapshot.0,
            voters: VecDeque::from([(snapshot.0, first)]),
        };
        for entry in entries {
            // What falls in term behind a snapshot is what another controller's snapshot took the place of: of a longer
            // log that was never committed. Its terms are lower, since every later controller had the snapshot's entry.
            if entry.index <= snapshot.0 || entry.term < snapshot.1 {
                continue;
            }
            let before = log.last();
            assert_eq!(
                entry.index.0,
                before.0.0 + 1,
                "the site log recovered has a hole"
            );
            assert!(
                before.1 <= entry.term && entry.term <= hard_state.term,
                "the site log recovered falls in term"
            );
            log.durable = entry.index;
            log.push(entry);
        }
        log
    }

    pub(super) fn last(&self) -> (Index, Term) {
        self.entries
            .back()
            .map_or(self.snapshot, |entry| (entry.index, entry.term))
    }

    pub(super) fn entry(&self, index: Index) -> Option<&LogEntry> {
        let place = index.0.checked_sub(self.snapshot.0.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The term of the entry there; `None` below the snapshot's last and behind the end.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.snapshot.0 {
            return Some(self.snapshot.1);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Behind the last.
    pub(super) fn push(&mut self, entry: LogEntry) {
        assert_eq!(entry.index.0, self.last().0.0 + 1, "an entry leaves a hole");
        if let Some(voters) = voters_of(&entry.bytes) {
            self.voters.push_back((entry.index, voters));
        }
        self.bytes += entry.bytes.len();
        self.entries.push_back(entry);
    }

    /// Cuts off `from` and all behind it.
    pub(super) fn cut(&mut self, from: Index) {
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.index >= from) {
            self.bytes -= entry.bytes.len();
        }
        while self.voters.len() > 1 && self.voters.pop_back_if(|(at, _)| *at >= from).is_some() {}
        self.durable = self.durable.min(self.last().0);
    }

    /// Lets go of what a snapshot holds.
    pub(super) fn compact(&mut self, snapshot: (Index, Term)) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= snapshot.0) {
            self.bytes -= entry.bytes.len();
        }
        self.snapshot = snapshot;
        while self.voters.get(1).is_some_and(|(at, _)| *at <= snapshot.0) {
            self.voters.pop_front();
        }
    }

    /// Takes another controller's snapshot instead of all that is here.
    pub(super) fn replace(&mut self, snapshot: (Index, Term), voters: Voters) {
        self.entries.clear();
        self.bytes = 0;
        self.snapshot = snapshot;
        self.durable = snapshot.0;
        self.voters = VecDeque::from([(snapshot.0, voters)]);
    }

    /// Who votes: what the last entry about it says, committed or not (Raft §6).
    pub(super) fn voters(&self) -> &Voters {
        &self.voters.back().expect("the first one stays").1
    }

    /// Where that was said.
    pub(super) fn voters_since(&self) -> Index {
        self.voters.back().expect("the first one stays").0
    }

    /// Who voted as of an entry.
    pub(super) fn voters_at(&self, index: Index) -> &Voters {
        let known = self.voters.iter().rev().find(|(at, _)| *at <= index);
        &known
            .unwrap_or_else(|| self.voters.front().expect("the first one stays"))
            .1
    }

    /// The last entry at or before `index` whose term is not above `term`: where two logs may still agree.
    pub(super) fn may_agree(&self, index: Index, term: Term) -> (Index, Term) {
        let fits = |entry: &&LogEntry| entry.index <= index && entry.term <= term;
        let found = self.entries.iter().rev().find(fits);
        found.map_or(self.snapshot, |entry| (entry.index, entry.term))
    }
}
