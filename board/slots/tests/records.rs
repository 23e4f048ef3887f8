//! Records under torn writes, rot, cuts and any bytes at all.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use slots::config::{self, Keys, Kind, Secret};
use slots::gpt::{self, Guid, Header, NewPartition, NewTable};
use slots::{BootState, Copy, Install, RECORD_BYTES, Slot, SlotHeader, Start};

#[test]
fn the_records_bytes_are_where_the_pictures_say() {
    let install = Install {
        slot: Slot::B,
        sha256: [0xAB; 32],
        tries: 3,
        again: false,
    };
    let state = BootState {
        security_floor: 5,
        key_set: 6,
        ..BootState::default()
    }
    .install(install)
    .unwrap();
    let bytes = state.encode();
    assert_eq!(&bytes[..12], b"HOWDAHBS\x01\0\x1e\0");
    assert_eq!(bytes[12..20], 1u64.to_le_bytes());
    assert_eq!(&bytes[20..24], &[0, 1, 3, 0]);
    assert_eq!(&bytes[24..32], &[5, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(bytes[32..64], [0xAB; 32]);
    assert_eq!(bytes[508..], crc32c::crc32c(&bytes[..508]).to_le_bytes());

    let header = SlotHeader::new(b"payload", [0xCD; 32], "1.2.3");
    let bytes = header.encode();
    assert_eq!(&bytes[..12], b"HOWDAHSL\x01\0\0\0");
    assert_eq!(bytes[12..16], crc32c::crc32c(b"payload").to_le_bytes());
    assert_eq!(bytes[16..24], 7u64.to_le_bytes());
    assert_eq!(bytes[32..64], [0xCD; 32]);
    assert_eq!(&bytes[64..70], b"1.2.3\0");
    assert!(header.fits(b"payload") && !header.fits(b"payloaD") && !header.fits(b"payload\0"));
}

#[test]
fn bytes_that_a_later_version_added_are_kept() {
    let mut bytes = BootState::default().encode();
    bytes[8] = 2;
    bytes[300] = 77;
    let crc = crc32c::crc32c(&bytes[..508]).to_le_bytes();
    bytes[508..].copy_from_slice(&crc);
    let state = BootState::decode(&bytes).expect("a later version is read");
    let (_, next) = state.unloadable(Slot::A);
    assert_eq!(next.encode()[300], 77);
}

#[test]
fn any_changed_bit_of_a_record_is_noticed() {
    let state = BootState::default().encode();
    let header = SlotHeader::new(b"payload", [1; 32], "release").encode();
    for bit in 0..RECORD_BYTES * 8 {
        let flip = |record: &[u8; RECORD_BYTES]| {
            let mut record = *record;
            record[bit / 8] ^= 1 << (bit % 8);
            record
        };
        assert_eq!(BootState::decode(&flip(&state)), None, "bit {bit}");
        assert_eq!(SlotHeader::decode(&flip(&header)), None, "bit {bit}");
    }
}

#[test]
fn the_newer_copy_counts_and_a_torn_one_never_does() {
    let old = BootState {
        seq: 4,
        ..BootState::default()
    };
    let new = BootState {
        seq: 5,
        active: Slot::B,
        ..old
    };
    assert_eq!(
        BootState::newest(&old.encode(), &new.encode()),
        Some((new, Copy::Second))
    );
    assert_eq!(
        BootState::newest(&new.encode(), &old.encode()),
        Some((new, Copy::First))
    );
    for torn in 0..RECORD_BYTES {
        let mut bytes = BootState { seq: 3, ..old }.encode();
        bytes[..torn].copy_from_slice(&new.encode()[..torn]);
        assert_eq!(
            BootState::newest(&old.encode(), &bytes),
            Some((old, Copy::First)),
            "torn at {torn}"
        );
    }
    assert_eq!(BootState::newest(&[], &[0; 512]), None);
}

/// Applies a change to a partition as far as a cut lets it: `body` bytes of the body, then perhaps `header` of it.
fn cut(partition: &[u8], change: &config::Change, body: &[u8], upto: usize) -> Vec<u8> {
    let mut after = partition.to_vec();
    let at = usize::try_from(change.body_offset).unwrap();
    let written = upto.min(body.len());
    after[at..at + written].copy_from_slice(&body[..written]);
    let at = usize::try_from(change.header_offset).unwrap();
    let written = upto - written;
    after[at..at + written].copy_from_slice(&change.header[..written]);
    after
}

#[test]
fn a_cut_in_a_change_of_the_configuration_leaves_the_old_one() {
    let mut partition = vec![0; config::PARTITION_BYTES];
    let bodies = [b"first".as_slice(), b"the second one", b"third", b""];
    let mut before: Option<&[u8]> = None;
    for body in bodies {
        let change = config::change(&partition, Kind::Site, body).unwrap();
        let all = body.len() + RECORD_BYTES;
        for upto in 0..all {
            let after = cut(&partition, &change, body, upto);
            let found = config::newest(&after, Kind::Site).map(|found| found.body);
            assert_eq!(found, before, "{body:?} cut at {upto}");
        }
        partition = cut(&partition, &change, body, all);
        let found = config::newest(&partition, Kind::Site).unwrap();
        assert_eq!(found.body, body);
        assert_eq!(config::newest(&partition, Kind::Keys), None);
        before = Some(body);
    }
    assert_eq!(config::newest(&partition, Kind::Site).unwrap().seq, 4);
}

#[test]
fn a_rotten_body_gives_way_to_the_older_copy() {
    let mut partition = vec![0; config::PARTITION_BYTES];
    for body in [b"older", b"newer"] {
        let change = config::change(&partition, Kind::Site, body).unwrap();
        partition = cut(&partition, &change, body, body.len() + RECORD_BYTES);
    }
    let newest = config::newest(&partition, Kind::Site).unwrap();
    assert_eq!(
        (newest.body, newest.copy),
        (b"newer".as_slice(), Copy::Second)
    );
    let at = (3 << 19) + 4096;
    partition[at] ^= 1;
    assert_eq!(
        config::newest(&partition, Kind::Site).unwrap().body,
        b"older"
    );
}

#[test]
fn the_longest_bodies_fit_side_by_side() {
    let mut partition = vec![0; config::PARTITION_BYTES];
    let mut bodies = Vec::new();
    for round in 0..2u8 {
        for kind in [Kind::Site, Kind::Keys] {
            let body = vec![round + 1; kind.body_bytes_max()];
            let change = config::change(&partition, kind, &body).unwrap();
            partition = cut(&partition, &change, &body, body.len() + RECORD_BYTES);
            bodies.push((kind, body));
        }
    }
    for (kind, body) in &bodies[2..] {
        assert_eq!(config::newest(&partition, *kind).unwrap().body, body);
    }
    // The older copies are whole as well.
    for (kind, body) in &bodies[..2] {
        let found = config::newest(&partition, *kind).unwrap();
        let at = usize::try_from(
            config::change(&partition, *kind, &[])
                .unwrap()
                .header_offset,
        )
        .unwrap();
        assert_ne!(found.copy, Copy::First);
        assert_eq!(&partition[at + 4096..at + 4096 + body.len()], body);
    }
    assert!(
        config::change(
            &partition,
            Kind::Keys,
            &vec![0; Kind::Keys.body_bytes_max() + 1]
        )
        .is_none()
    );
}

#[test]
fn keys_come_back_and_are_never_shown() {
    let secret = |id| {
        Some(Secret {
            id,
            bytes: [id ^ 0x5A; 32],
        })
    };
    for secrets in [[None, None], [secret(1), None], [secret(2), secret(1)]] {
        let keys = Keys { node: 3, secrets };
        assert_eq!(Keys::decode(&keys.encode()), Some(keys));
        assert!(!format!("{keys:?}").contains("bytes"));
    }
    let keys = Keys {
        node: 1,
        secrets: [secret(1), None],
    };
    assert_eq!(
        format!("{keys:?}"),
        "Keys { node: 1, secrets: [Some(site secret 1), None] }"
    );
}

fn table(sectors: u64, sector_bytes: usize) -> Vec<u8> {
    let partitions = [
        NewPartition {
            kind: gpt::TYPE_ESP,
            guid: Guid([7; 16]),
            first_lba: 64,
            last_lba: 99,
            name: "esp",
        },
        NewPartition {
            kind: gpt::TYPE_RAW,
            guid: Guid([8; 16]),
            first_lba: 100,
            last_lba: 120,
            name: "slot-a",
        },
    ];
    let table = NewTable {
        sectors,
        sector_bytes,
        disk: Guid([9; 16]),
        partitions: &partitions,
    };
    let mut disk = vec![0; usize::try_from(sectors).unwrap() * sector_bytes];
    table
        .write(|offset, bytes| {
            let offset = usize::try_from(offset).unwrap();
            disk[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok::<_, ()>(())
        })
        .unwrap();
    disk
}

#[test]
fn a_table_is_found_by_name_from_either_end() {
    for (sectors, sector_bytes) in [(200u64, 512usize), (200, 4096)] {
        let disk = table(sectors, sector_bytes);
        for lba in [1, 199] {
            let header = Header::decode(&disk[lba * sector_bytes..]).unwrap();
            let entries = &disk[usize::try_from(header.entries_lba).unwrap() * sector_bytes..];
            let found: Vec<_> = header.partitions(entries).unwrap().collect();
            assert_eq!(found.len(), 2);
            assert!(
                found[1].is_named("slot-a")
                    && !found[1].is_named("slot-")
                    && !found[1].is_named("slot-aa")
            );
            assert_eq!(
                (found[1].first_lba, found[1].sectors(), found[1].number),
                (100, 21, 2)
            );
        }
        let mut rotten = disk.clone();
        rotten[2 * sector_bytes + 56] ^= 1;
        let header = Header::decode(&rotten[sector_bytes..]).unwrap();
        assert!(header.partitions(&rotten[2 * sector_bytes..]).is_none());
        rotten[sector_bytes + 60] ^= 1;
        assert!(Header::decode(&rotten[sector_bytes..]).is_none());
    }
}

#[test]
fn a_guid_reads_as_its_text() {
    assert_eq!(
        gpt::TYPE_ESP.to_string(),
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    );
    assert_eq!(gpt::TYPE_ESP.0[..4], [0x28, 0x73, 0x2a, 0xc1]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..1200), sealed: bool) {
        // With a good magic and CRC the fields themselves are what is wrong.
        for magic in [*b"HOWDAHBS", *b"HOWDAHSL", *b"HOWDAHCF", *b"EFI PART"] {
            if sealed && bytes.len() >= RECORD_BYTES {
                bytes[..8].copy_from_slice(&magic);
                bytes[8..10].copy_from_slice(&[1, 0]);
                let crc = crc32c::crc32c(&bytes[..508]).to_le_bytes();
                bytes[508..512].copy_from_slice(&crc);
            }
            if let Some(state) = BootState::decode(&bytes) {
                prop_assert_eq!(BootState::decode(&state.encode()), Some(state));
                let _ = (state.start(), state.unloadable(Slot::A), state.bless(Slot::B));
            }
            if let Some(header) = SlotHeader::decode(&bytes) {
                let _ = (header.release(), header.fits(&bytes));
                prop_assert_eq!(SlotHeader::decode(&header.encode()), Some(header));
            }
            let _ = Keys::decode(&bytes);
            let _ = config::newest(&bytes, Kind::Site);
            let _ = config::change(&bytes, Kind::Keys, &bytes);
            if let Some(header) = Header::decode(&bytes) {
                prop_assert!(header.entries_bytes() <= gpt::ENTRIES_BYTES);
            }
            let _ = Start::from_bytes(&bytes);
        }
    }
}
