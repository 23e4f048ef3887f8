//! The mechanics of a 7200 rpm drive in virtual time: when each request is answered.
//!
//! No bytes and no clock. [`Drive::submit`] takes a request at a time that the caller names; [`Drive::next`] says what
//! the drive does then and until when. The numbers are those of a common 3.5" SATA drive: one turn takes 8.33 ms and
//! passes 1.5 MiB, so 180 MiB/s; a seek takes 0.8 ms to the next track and 16 ms across; writes are answered from a cache
//! of 64 MiB; a FLUSH drains it; after a read the drive goes on reading. Of 32 requests the one that ends first is served
//! first, older ones with an advantage that grows, so that none starves.

use std::collections::BTreeMap;

const TURN: f64 = 60.0 / 7200.0;
const TRACK_BYTES: f64 = 1.5 * 1024.0 * 1024.0;
const SEEK_SHORTEST: f64 = 0.000_8;
const SEEK_LONGEST: f64 = 0.016;
/// Between two requests that follow one another on the platter: longer, and the sector has passed.
const GAPLESS: f64 = 0.000_2;
/// The controller's own time.
const COMMAND: f64 = 0.000_2;
const FLUSH: f64 = 0.000_1;
const CACHE_BYTES: u64 = 64 << 20;
const AHEAD_BYTES: u64 = 4 << 20;
const DRAIN_BYTES: u64 = 2 << 20;
const QUEUE: usize = 32;
/// A drive begins to write out what it has when nothing was asked for so long.
const IDLE: f64 = 0.010;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
}

/// Names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// What the drive does next. Seconds on the caller's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// This request is answered then.
    Answer(Ticket, f64),
    /// The heads are busy until then.
    Busy(f64),
    /// Nothing to do until then, or until a request comes.
    Wait(Option<f64>),
}

#[derive(Clone, Copy, Debug)]
struct Request {
    ticket: Ticket,
    kind: Kind,
    offset: u64,
    bytes: u64,
    came: f64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moves {
    /// Times that the heads had to find another place.
    pub(crate) seeks: u64,
    /// Seconds with the heads at work.
    pub(crate) busy: f64,
}

/// One drive.
#[derive(Debug)]
pub(crate) struct Drive {
    size: u64,
    /// In the order they came.
    queue: Vec<Request>,
    next_ticket: u64,
    /// Written and not on the platter: start → end, disjoint.
    cached: BTreeMap<u64, u64>,
    cached_bytes: u64,
    /// Where the head is, and since when.
    head: u64,
    head_at: f64,
    reading: bool,
    pub(crate) moves: Moves,
}

impl Drive {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            queue: Vec::new(),
            next_ticket: 0,
            cached: BTreeMap::new(),
            cached_bytes: 0,
            head: 0,
            head_at: 0.0,
            reading: false,
            moves: Moves::default(),
        }
    }

    pub(crate) fn submit(&mut self, now: f64, kind: Kind, offset: u64, bytes: u64) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.queue.push(Request {
            ticket,
            kind,
            offset,
            bytes,
            came: now,
        });
        ticket
    }

    /// What happens at `now`. Whoever calls waits until the time that is said before the next call; requests may come
    /// meanwhile.
    pub(crate) fn next(&mut self, now: f64) -> Step {
        // A FLUSH covers what came before it; what came after waits for it.
        let flush = self.queue.iter().position(|it| it.kind == Kind::Flush);
        let before = flush.unwrap_or(self.queue.len());
        let write = self.queue[..before]
            .iter()
            .position(|it| it.kind == Kind::Write);
        if let (Some(at), true) = (write, self.cached_bytes < CACHE_BYTES) {
            let write = self.queue.remove(at);
            self.hold(write.offset, write.offset + write.bytes);
            return Step::Answer(write.ticket, now);
        }
        if let Some(at) = self.best_read(now, before) {
            let read = self.queue.remove(at);
            let end = self.read_ends(now, read.offset, read.bytes);
            self.moved(now, end, read.offset, read.bytes, true);
            return Step::Answer(read.ticket, end);
        }
        match flush {
            Some(at) if at == 0 && self.cached.is_empty() => {
                let flush = self.queue.remove(at);
                Step::Answer(flush.ticket, now + FLUSH)
            }
            _ if self.cached.is_empty() => Step::Wait(None),
            None if self.cached_bytes <= CACHE_BYTES / 2 && now < self.head_at + IDLE => {
                Step::Wait(Some(self.head_at + IDLE))
            }
            _ => Step::Busy(self.drain(now)),
        }
    }

    /// Whether it would go on without being asked for more.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.cached.is_empty()
    }

    fn best_read(&self, now: f64, before: usize) -> Option<usize> {
        let reads = self.queue[..before].iter().enumerate();
        let reads = reads.filter(|(_, it)| it.kind == Kind::Read).take(QUEUE);
        let cost = |it: &Request| self.read_ends(now, it.offset, it.bytes) - (now - it.came) * 0.05;
        reads
            .min_by(|(_, a), (_, b)| cost(a).total_cmp(&cost(b)))
            .map(|(at, _)| at)
    }

    /// Puts one range on the platter, the nearest.
    fn drain(&mut self, now: f64) -> f64 {
        // Looking at all of a full cache would cost more than a seek saves: those around the head are the near ones.
        let behind = self.cached.range(self.head..).take(128);
        let nearby = behind.chain(self.cached.range(..self.head).rev().take(128));
        let nearest =
            nearby.min_by(|(a, _), (b, _)| self.access(now, **a).total_cmp(&self.access(now, **b)));
        let (&start, &end) = nearest.expect("drained only with something cached");
        let stop = end.min(start + DRAIN_BYTES);
        self.cached.remove(&start);
        if stop < end {
            self.cached.insert(stop, end);
        }
        self.cached_bytes -= stop - start;
        let done = self.access(now, start) + transfer(stop - start);
        self.moved(now, done, start, stop - start, false);
        done
    }

    fn hold(&mut self, mut start: u64, mut end: u64) {
        while let Some((&s, &e)) = self.cached.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.cached.remove(&s);
            self.cached_bytes -= e - s;
            (start, end) = (start.min(s), end.max(e));
        }
        self.cached.insert(start, end);
        self.cached_bytes += end - start;
    }

    fn moved(&mut self, from: f64, to: f64, offset: u64, bytes: u64, reading: bool) {
        self.moves.seeks += u64::from(offset != self.head);
        self.moves.busy += to - from;
        self.head = offset + bytes;
        self.head_at = to;
        self.reading = reading;
    }

    fn read_ends(&self, now: f64, offset: u64, bytes: u64) -> f64 {
        let ahead = offset.checked_sub(self.head).filter(|it| *it < AHEAD_BYTES);
        match ahead {
            Some(gap) if self.reading => now.max(self.head_at + transfer(gap + bytes)),
            _ => self.access(now, offset) + transfer(bytes),
        }
    }

    /// When `offset` passes under the head, if the drive turns to it now.
    fn access(&self, now: f64, offset: u64) -> f64 {
        if offset == self.head && now - self.head_at < GAPLESS {
            return now;
        }
        let there = now + COMMAND + self.seek(offset);
        let angle = (there / TURN).fract();
        let wanted = (offset as f64 / TRACK_BYTES).fract();
        let wait = if wanted < angle {
            wanted + 1.0 - angle
        } else {
            wanted - angle
        };
        there + wait * TURN
    }

    fn seek(&self, offset: u64) -> f64 {
        let distance = self.head.abs_diff(offset) as f64;
        if distance < TRACK_BYTES {
            return 0.0;
        }
        SEEK_SHORTEST + (SEEK_LONGEST - SEEK_SHORTEST) * (distance / self.size as f64).sqrt()
    }
}

fn transfer(bytes: u64) -> f64 {
    bytes as f64 / TRACK_BYTES * TURN
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SIZE: u64 = 24 << 30;

    /// Runs until `ticket` is answered; the time then.
    fn until(drive: &mut Drive, ticket: Ticket, mut now: f64) -> f64 {
        loop {
            match drive.next(now) {
                Step::Answer(it, at) if it == ticket => return at,
                Step::Answer(_, at) | Step::Busy(at) | Step::Wait(Some(at)) => now = at,
                Step::Wait(None) => panic!("the drive forgot {ticket:?}"),
            }
        }
    }

    /// Closed-loop commits of `bytes` at rising addresses; the mean.
    fn commits(bytes: u64) -> f64 {
        let (mut drive, mut now) = (Drive::new(SIZE), 0.0);
        for n in 0..100 {
            let write = drive.submit(now, Kind::Write, n * bytes, bytes);
            now = until(&mut drive, write, now) + 0.000_1;
            let flush = drive.submit(now, Kind::Flush, 0, 0);
            now = until(&mut drive, flush, now) + 0.000_2;
        }
        now / 100.0
    }

    #[test]
    fn a_commit_takes_a_turn_and_its_bytes() {
        for bytes in [4 << 10, 16 << 10, 1 << 20] {
            let (mean, least) = (commits(bytes), TURN + transfer(bytes));
            assert!((0.008..least * 1.35).contains(&mean), "{bytes} B: {mean} s");
        }
    }

    #[test]
    fn a_stream_passes_180_mib_a_second() {
        let (mut drive, mut now) = (Drive::new(SIZE), 0.0);
        for n in 0..400 {
            let read = drive.submit(now, Kind::Read, n << 20, 1 << 20);
            now = until(&mut drive, read, now) + 0.000_3;
        }
        let rate = 400.0 / now;
        assert!((170.0..181.0).contains(&rate), "{rate} MiB/s");
    }

    #[test]
    fn random_reads_wait_for_the_arm_and_a_queue_helps() {
        let seed = crate::rng::fresh_seed();
        println!("seed {seed}");
        let rate = |depth: usize| {
            let (mut drive, mut rng, mut now) = (Drive::new(SIZE), crate::rng::Rng::new(seed), 0.0);
            let mut done = 0;
            while done < 400 {
                while drive.queue.len() < depth {
                    drive.submit(now, Kind::Read, rng.below(SIZE / 4096) * 4096, 4096);
                }
                match drive.next(now) {
                    Step::Answer(_, at) => (done, now) = (done + 1, at),
                    Step::Busy(at) | Step::Wait(Some(at)) => now = at,
                    Step::Wait(None) => unreachable!("there are reads"),
                }
            }
            f64::from(done) / now
        };
        let (one, many) = (rate(1), rate(32));
        println!("{one:.0}/s alone, {many:.0}/s of 32");
        assert!((60.0..95.0).contains(&one), "{one}");
        assert!(many > 1.5 * one, "{many} against {one}");
    }

    #[test]
    fn a_flush_drains_all_that_came_before_it() {
        let mut drive = Drive::new(SIZE);
        for n in 0..20 {
            let write = drive.submit(0.0, Kind::Write, n * (SIZE / 20), 4096);
            assert_eq!(until(&mut drive, write, 0.0), 0.0);
        }
        let flush = drive.submit(0.0, Kind::Flush, 0, 0);
        let at = until(&mut drive, flush, 0.0);
        assert!(drive.cached.is_empty() && drive.moves.seeks >= 19);
        assert!(at > 20.0 * 0.003, "{at}");
    }

    #[test]
    fn writes_wait_for_a_full_cache() {
        let mut drive = Drive::new(SIZE);
        let fill = drive.submit(0.0, Kind::Write, 0, CACHE_BYTES);
        assert_eq!(until(&mut drive, fill, 0.0), 0.0);
        let more = drive.submit(0.0, Kind::Write, SIZE / 2, 4096);
        assert!(until(&mut drive, more, 0.0) > 0.005);
    }

    #[test]
    fn overlapping_writes_are_cached_once() {
        let mut drive = Drive::new(SIZE);
        drive.hold(0, 4096);
        drive.hold(8192, 12288);
        drive.hold(4096, 8192);
        drive.hold(1024, 2048);
        assert_eq!((drive.cached.len(), drive.cached_bytes), (1, 12288));
    }
}
