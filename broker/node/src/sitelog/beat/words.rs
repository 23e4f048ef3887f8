//! Orders and facts as words, for the two threads' shared cells. Both are this process's own: what does not read is a
//! bug.

use model::{DiskUuid, Incarnation, Instant, Term, Uuid};

use super::{DISKS_MAX, DiskState, Disks, Facts, Office, Orders, Report, Seen};
use crate::sitelog::{Index, SEATS_MAX};

const REPORT_WORDS: usize = 4 + DISKS_MAX * 3;
/// Words of [`Orders`].
pub const ORDERS_WORDS: usize = 5 + SEATS_MAX * 5 + REPORT_WORDS;
/// Words of [`Facts`].
pub const FACTS_WORDS: usize = 9 + SEATS_MAX * (6 + REPORT_WORDS);

/// Writes words one behind the other.
struct Writer<'a>(core::slice::IterMut<'a, u64>);

impl Writer<'_> {
    fn put(&mut self, word: u64) {
        *self.0.next().expect("the constant counts every word") = word;
    }

    fn put_uuid(&mut self, uuid: Uuid) {
        let both = u128::from_le_bytes(uuid.0);
        self.put(both as u64);
        self.put((both >> 64) as u64);
    }

    fn put_report(&mut self, report: &Report) {
        self.put(report.applied.0);
        self.put(report.digest);
        self.put(report.blessed.into());
        self.put(report.clock_trusted.into());
        for (uuid, state) in &report.disks {
            self.put_uuid(uuid.0);
            self.put(*state as u64);
        }
    }
}

/// Reads them again.
struct Reader<'a>(core::slice::Iter<'a, u64>);

impl Reader<'_> {
    fn take(&mut self) -> u64 {
        *self.0.next().expect("the constant counts every word")
    }

    fn take_uuid(&mut self) -> Uuid {
        let low = u128::from(self.take());
        Uuid((low | u128::from(self.take()) << 64).to_le_bytes())
    }

    fn take_report(&mut self) -> Report {
        let (applied, digest) = (Index(self.take()), self.take());
        let blessed = u16::try_from(self.take()).expect("written by `put_report`");
        let clock_trusted = self.take() != 0;
        let mut disks = Disks::default();
        for disk in &mut disks {
            let uuid = DiskUuid(self.take_uuid());
            let state = u8::try_from(self.take()).ok().map(DiskState::read);
            *disk = (
                uuid,
                state.and_then(Result::ok).expect("written by `put_report`"),
            );
        }
        Report {
            applied,
            digest,
            blessed,
            clock_trusted,
            disks,
        }
    }
}

impl Orders {
    /// As words.
    #[must_use]
    pub fn to_words(&self) -> [u64; ORDERS_WORDS] {
        let mut words = [0; ORDERS_WORDS];
        let mut to = Writer(words.iter_mut());
        to.put(self.version);
        to.put(self.sleeps);
        to.put(self.term.0);
        to.put(self.office as u64);
        to.put(self.commit.0);
        for voter in &self.voters {
            to.put(voter.is_some().into());
            to.put_uuid(voter.unwrap_or_default().0);
        }
        for (returned, index) in &self.cleared {
            to.put(returned.0);
            to.put(index.0);
        }
        to.put_report(&self.report);
        words
    }

    /// From [`Orders::to_words`]' words.
    #[must_use]
    pub fn from_words(words: &[u64; ORDERS_WORDS]) -> Self {
        let mut from = Reader(words.iter());
        Self {
            version: from.take(),
            sleeps: from.take(),
            term: Term(from.take()),
            office: match from.take() {
                0 => Office::None,
                1 => Office::Elected,
                2 => Office::Controller,
                other => unreachable!("an office {other}"),
            },
            commit: Index(from.take()),
            voters: core::array::from_fn(|_| {
                let votes = from.take() != 0;
                let incarnation = Incarnation(from.take_uuid());
                votes.then_some(incarnation)
            }),
            cleared: core::array::from_fn(|_| (Instant(from.take()), Index(from.take()))),
            report: from.take_report(),
        }
    }
}

impl Facts {
    /// As words.
    #[must_use]
    pub fn to_words(&self) -> [u64; FACTS_WORDS] {
        let mut words = [0; FACTS_WORDS];
        let mut to = Writer(words.iter_mut());
        to.put(self.obeyed);
        for (term, number) in [
            (self.promise.0, self.promise.1.0),
            (self.commit.0, self.commit.1.0),
            (self.granted.0, self.granted.1.0),
            (self.office.0, self.office.1.0),
        ] {
            to.put(term.0);
            to.put(number);
        }
        for seen in &self.seats {
            to.put_uuid(seen.incarnation.0);
            to.put(seen.boot);
            to.put(seen.heard.0);
            to.put(seen.dead_from.0);
            to.put(seen.returned.0);
            to.put_report(&seen.report);
        }
        words
    }

    /// From [`Facts::to_words`]' words.
    #[must_use]
    pub fn from_words(words: &[u64; FACTS_WORDS]) -> Self {
        let mut from = Reader(words.iter());
        Self {
            obeyed: from.take(),
            promise: (Term(from.take()), Instant(from.take())),
            commit: (Term(from.take()), Index(from.take())),
            granted: (Term(from.take()), Instant(from.take())),
            office: (Term(from.take()), Instant(from.take())),
            seats: core::array::from_fn(|_| Seen {
                incarnation: Incarnation(from.take_uuid()),
                boot: from.take(),
                heard: Instant(from.take()),
                dead_from: Instant(from.take()),
                returned: Instant(from.take()),
                report: from.take_report(),
            }),
        }
    }
}
