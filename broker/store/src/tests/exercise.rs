//! Does with bytes all that the store does with what it finds on a disk. The fuzz targets share this file.

use core::ops::ControlFlow;

use store::format::checkpoint::{Body, CheckpointHeader};
use store::format::extent::{ExtentHeader, FOOTER_BYTES, Footer, Tail};
use store::format::journal::{GroupHeader, Record};
use store::format::row::{ROW_BYTES, Row};
use store::format::superblock::Superblock;
use store::io::{Copy, Io, Mode, Name};
use store::{Class, Config, Disk, FormatConfig, MemIo, dump, inspect, verify};

/// Every decoder of the format on the same bytes.
pub(crate) fn decoders(bytes: &[u8]) {
    if let Ok(it) = Superblock::decode(bytes) {
        assert_eq!(Superblock::decode(&it.encode()).as_ref(), Ok(&it));
    }
    let _ = CheckpointHeader::decode(bytes, bytes.len() as u64);
    let _ = Body::decode(bytes);
    let _ = ExtentHeader::decode(bytes);
    if bytes.len() >= ROW_BYTES {
        let _ = Row::decode(bytes);
    }
    for class in Class::ALL {
        let from = bytes.len().saturating_sub(FOOTER_BYTES);
        let _ = Footer::decode(class, &bytes[from..]);
        let _ = Tail::decode(class, bytes);
    }
    if let Some(header) = GroupHeader::peek(bytes, 0, 1 << 20) {
        let uuid = model::Uuid::ZERO;
        let mut sealed = bytes.to_vec();
        sealed.resize(header.total_len as usize, 0);
        // The checksum would keep a fuzzer out: with it set right, the entries are what is tested.
        header.seal(uuid, &mut sealed);
        let record = Record::check(header, uuid, &sealed).expect("sealed just now");
        for entry in record.entries().flatten() {
            assert!(record.payload(&entry).len() <= sealed.len());
        }
    }
}

const FORMAT: FormatConfig = FormatConfig {
    node: model::NodeId(1),
    incarnation: None,
    site: model::SiteUuid(model::Uuid::ZERO),
    meta: true,
    replacement: false,
    journal_bytes: 256 << 10,
    journal_apart: false,
};

/// A disk whose ring holds one group with `entries` as its entries and `rest` as payload, its checksum right, or, if `raw`,
/// `entries` in the place of the group. It is opened, read, dumped and verified; nothing may panic.
pub(crate) fn recover(entries: &[u8], raw: bool) {
    let io = MemIo::new(7, 1 << 30);
    let made = Disk::format(&io, &FORMAT).expect("a disk in memory is made");
    let journal = io.open(Name::Journal, Mode::Write).expect("made");
    let mut record = vec![0; 64];
    record.extend_from_slice(&entries[..entries.len().min(100_000)]);
    if raw {
        record.drain(..64);
    } else {
        let count = (entries.len() / 64).min(40) as u16;
        GroupHeader {
            seq: 1,
            keep_seq: 1,
            total_len: record.len() as u32,
            entries: count,
            flags: 0,
            ring_pos: 0,
            wall: model::WallMs(1),
            boot_nonce: 1,
        }
        .seal(made.journal, &mut record);
    }
    io.pwrite(&journal, &record, 0).expect("memory");
    look(&io);
}

/// A disk whose file `which` holds `bytes` at `at`.
pub(crate) fn damaged(which: u8, at: u64, bytes: &[u8]) {
    let io = MemIo::new(7, 1 << 30);
    Disk::format(&io, &FORMAT).expect("a disk in memory is made");
    let copy = [Copy::A, Copy::B][usize::from(which >> 4 & 1)];
    let name = match which % 3 {
        0 => Name::Super(copy),
        1 => Name::Checkpoint(copy),
        _ => Name::Journal,
    };
    let file = io.open(name, Mode::Write).expect("made");
    io.pwrite(&file, bytes, at % (256 << 10)).expect("memory");
    look(&io);
}

fn look(io: &MemIo) {
    verify::verify(io, &mut |event| assert!(!format!("{event:?}").is_empty()));
    let _ = inspect(io);
    dump::disk(io, dump::Parts::default(), &mut |item| {
        assert!(!item.to_string().is_empty());
        ControlFlow::Continue(())
    });
    for alone in [true, false] {
        let config = Config {
            alone,
            ..Config::default()
        };
        if let Ok((mut disk, _)) = Disk::open(io.clone(), config) {
            let _ = disk.work(false, None);
        }
    }
}
