//! A file system that others have filled: only what is there already can be written.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Instant, Offset};

use super::oracle::{TODAY, batch};
use super::world::FORMAT;
use crate::io::mem::MemFile;
use crate::io::{Advice, FileSystem, Mode, Name, Unwritten};
use crate::{Append, Config, Disk, Io, MemIo, Op, PartIx, Queue};

/// A disk whose files do not grow while `full` is set.
struct Full {
    io: MemIo,
    full: Arc<AtomicBool>,
}

impl Io for Full {
    type File = MemFile;

    fn pwritev(&self, file: &MemFile, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let end = at + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if self.full.load(Ordering::Relaxed) && end > self.io.bytes(file)? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.io.pwritev(file, parts, at)
    }
    fn allocate(&self, file: &MemFile, bytes: u64) -> io::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => self.io.allocate(file, bytes),
        }
    }

    fn now(&self) -> Instant {
        self.io.now()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.io.random()
    }
    fn open(&self, name: Name, mode: Mode) -> io::Result<MemFile> {
        self.io.open(name, mode)
    }
    fn open_journal(&self) -> io::Result<MemFile> {
        self.io.open_journal()
    }
    fn open_journal_ahead(&self) -> io::Result<MemFile> {
        self.io.open_journal_ahead()
    }
    fn remove(&self, name: Name) -> io::Result<()> {
        self.io.remove(name)
    }
    fn sync_directory(&self, name: Name) -> io::Result<()> {
        self.io.sync_directory(name)
    }
    fn pread(&self, file: &MemFile, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.io.pread(file, bytes, at)
    }
    fn pread_nowait(&self, file: &MemFile, bytes: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        self.io.pread_nowait(file, bytes, at)
    }
    fn advise(&self, file: &MemFile, advice: Advice) -> io::Result<()> {
        self.io.advise(file, advice)
    }
    fn write_journal(&self, file: &MemFile, bytes: &[u8], at: u64) -> io::Result<()> {
        self.io.write_journal(file, bytes, at)
    }
    fn zero(&self, file: &MemFile, bytes: u64) -> io::Result<()> {
        self.io.zero(file, bytes)
    }
    fn hand_over(&self, file: &MemFile, at: u64, bytes: u64) -> io::Result<()> {
        self.io.hand_over(file, at, bytes)
    }
    fn settle(&self, file: &MemFile, at: u64, bytes: u64) -> io::Result<()> {
        self.io.settle(file, at, bytes)
    }
    fn flush_device(&self, journal: &MemFile) -> io::Result<()> {
        self.io.flush_device(journal)
    }
    fn touch(&self, file: &MemFile) -> io::Result<()> {
        self.io.touch(file)
    }
    fn fsync(&self, file: &MemFile) -> io::Result<()> {
        self.io.fsync(file)
    }
    fn fdatasync(&self, file: &MemFile) -> io::Result<()> {
        self.io.fdatasync(file)
    }
    fn disk_address(&self, file: &MemFile) -> io::Result<u64> {
        self.io.disk_address(file)
    }
    fn unwritten(&self, file: &MemFile) -> io::Result<Unwritten> {
        self.io.unwritten(file)
    }
    fn bytes(&self, file: &MemFile) -> io::Result<u64> {
        self.io.bytes(file)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.io.free_bytes()
    }
    fn file_system(&self) -> FileSystem {
        self.io.file_system()
    }
}

#[test]
fn a_checkpoint_waits_for_room_and_the_disk_does_not_fail() {
    let (io, full) = (MemIo::new(1, 1 << 32), Arc::new(AtomicBool::new(false)));
    Disk::format(&io, &FORMAT).unwrap();
    let open = || {
        let io = Full {
            io: io.clone(),
            full: full.clone(),
        };
        Disk::open(io, Config::default()).unwrap()
    };
    let (mut disk, _) = open();
    let run = |disk: &mut Disk<Full>, op| {
        let mut queue = Queue::default();
        queue.push(op, ());
        let mut done = Vec::new();
        disk.commit(&mut queue, Some(TODAY), &mut done).unwrap();
        queue.is_empty()
    };
    let part = PartIx(0);
    let id = Default::default();
    assert!(run(&mut disk, Op::PartNew { part, id }));
    let mut end = 0;
    let mut append = |disk: &mut Disk<Full>| {
        // Each of a producer of its own: the checkpoint grows with them, beyond what was made for it.
        let taken = run(
            disk,
            Op::Append(Append {
                part,
                base_offset: Offset(end),
                leader_epoch: model::LeaderEpoch(0),
                hw: Offset(end),
                gap: false,
                append_time: None,
                batch: batch(1, 7, TODAY.0, Some((end, 0)), 0).into(),
            }),
        );
        end += i64::from(taken);
        taken
    };
    assert!(append(&mut disk));
    full.store(true, Ordering::Relaxed);
    while append(&mut disk) {
        disk.work(true, Some(TODAY)).unwrap();
        io.advance(core::time::Duration::from_millis(100));
    }
    let stats = disk.stats();
    assert!(stats.checkpoints_no_room > 0 && stats.ring_used > stats.ring_bytes * 9 / 10);
    assert!(!disk.work(true, Some(TODAY)).unwrap().did, "nothing helps");
    full.store(false, Ordering::Relaxed);
    io.advance(core::time::Duration::from_secs(2));
    while !append(&mut disk) {
        assert!(disk.work(true, Some(TODAY)).unwrap().did);
    }
    drop((append, disk));
    io.power_cut(1);
    let (disk, recovered) = open();
    assert_eq!(recovered.replicas[0].end, Offset(end));
    assert!(disk.stats().ring_used < stats.ring_used);
}
