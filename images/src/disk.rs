//! A disk image as the pieces that are not zero, and how a boot disk is laid out in it.
//!
//! The partitions are those that the crate `slots` describes. Which GUIDs they have follows from what the slot holds: the
//! same content gives the same bytes, and another release another disk.

use std::collections::BTreeMap;
use std::convert::Infallible;

use sha2::{Digest, Sha256};
use slots::config::{self, Kind};
use slots::gpt::{Guid, NewPartition, NewTable, TYPE_ESP, TYPE_RAW};
use slots::{BLOCK_BYTES, BootState, Copy, RECORD_BYTES, Slot, SlotHeader, partition};

use crate::fat;
use crate::fault::Fault;

const MIB: u64 = 1 << 20;
/// Sectors of the table; a drive with sectors of 4096 bytes and no emulation of these is no boot disk.
pub const SECTOR_BYTES: u64 = 512;
/// Where the first partition begins: at what every drive counts as a boundary.
const FIRST_OFFSET: u64 = MIB;

/// A partition of the boot disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name in the table.
    pub name: &'static str,
    /// Its length.
    pub bytes: u64,
}

/// The boot disk, in order. A slot has 256 MiB, ten times today's payload: boot partitions that are full after years are
/// what users of other systems complain of.
pub const LAYOUT: [Place; 5] = [
    Place {
        name: partition::ESP,
        bytes: 48 * MIB,
    },
    Place {
        name: partition::BOOTSTATE,
        bytes: MIB,
    },
    Place {
        name: partition::CONFIG,
        bytes: config::PARTITION_BYTES as u64,
    },
    Place {
        name: Slot::A.partition(),
        bytes: 256 * MIB,
    },
    Place {
        name: Slot::B.partition(),
        bytes: 256 * MIB,
    },
];

/// Bytes of an image: the partitions, and 1 MiB at each end for the two tables.
#[must_use]
pub fn image_bytes() -> u64 {
    FIRST_OFFSET + LAYOUT.iter().map(|place| place.bytes).sum::<u64>() + MIB
}

/// Where a partition begins, in bytes, if the layout has one of this name.
#[must_use]
pub fn offset(name: &str) -> Option<u64> {
    let mut offset = FIRST_OFFSET;
    for place in LAYOUT {
        if place.name == name {
            return Some(offset);
        }
        offset += place.bytes;
    }
    None
}

/// What a disk is made of.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'c> {
    /// `BOOTX64.EFI`.
    pub loader: &'c [u8],
    /// The image for slot A.
    pub payload: &'c [u8],
    /// Its name.
    pub release: &'c str,
    /// Seconds from the loader to PID 1.
    pub watchdog_seconds: u16,
    /// The site's blob.
    pub site: &'c [u8],
    /// The keys' record, if there are keys.
    pub keys: Option<&'c [u8]>,
}

/// Bytes of a disk from offset 0 to `bytes`: the pieces, and zero between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Length of the disk.
    pub bytes: u64,
    /// By offset; none overlaps another.
    pub pieces: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    /// A boot disk with these contents; slot B is empty.
    pub fn boot_disk(contents: &Contents<'_>) -> Result<Self, Fault> {
        let mut image = Self {
            bytes: image_bytes(),
            pieces: BTreeMap::new(),
        };
        let sha256: [u8; 32] = Sha256::digest(contents.payload).into();
        image.table(&sha256);
        let sectors = |bytes: u64| {
            u32::try_from(bytes / SECTOR_BYTES).expect("the layout is far below 2 TiB")
        };
        let [esp, _, _, slot_a, _] = LAYOUT;
        let file_system =
            fat::with_loader(sectors(esp.bytes), sectors(FIRST_OFFSET), contents.loader)?;
        image.put(partition::ESP, 0, file_system);

        let mut state = BootState {
            watchdog_seconds: contents.watchdog_seconds,
            ..BootState::default()
        };
        for copy in [Copy::First, Copy::Second] {
            state.seq += 1;
            image.put(partition::BOOTSTATE, copy.offset(), state.encode().to_vec());
        }

        let mut config = vec![0; config::PARTITION_BYTES];
        let bodies = [
            (Kind::Site, Some(contents.site)),
            (Kind::Keys, contents.keys),
        ];
        for (kind, body) in bodies
            .into_iter()
            .filter_map(|(kind, body)| Some((kind, body?)))
        {
            // Twice, so that a sector that rots before the first change costs nothing.
            for _ in 0..2 {
                for (offset, bytes) in changes(&config, kind, body)? {
                    let at = usize::try_from(offset).expect("inside of the partition");
                    config[at..at + bytes.len()].copy_from_slice(&bytes);
                    image.put(partition::CONFIG, offset, bytes);
                }
            }
        }

        if contents.payload.len() as u64 + BLOCK_BYTES as u64 > slot_a.bytes {
            return Err(Fault::Other(format!(
                "the system has {} bytes, a slot holds {}",
                contents.payload.len(),
                slot_a.bytes - BLOCK_BYTES as u64
            )));
        }
        let header = SlotHeader::new(contents.payload, sha256, contents.release);
        image.put(slot_a.name, 0, header.encode().to_vec());
        image.put(slot_a.name, BLOCK_BYTES as u64, contents.payload.to_vec());
        Ok(image)
    }

    fn table(&mut self, payload_sha256: &[u8; 32]) {
        let guid = |name: &str| {
            let digest = Sha256::new()
                .chain_update(payload_sha256)
                .chain_update(name)
                .finalize();
            let mut guid: [u8; 16] = *digest.first_chunk().expect("32 bytes");
            // Version 8, "of the maker's own", in the variant of RFC 9562.
            guid[7] = guid[7] & 0x0f | 0x80;
            guid[8] = guid[8] & 0x3f | 0x80;
            Guid(guid)
        };
        let partitions = LAYOUT.map(|place| {
            let first_lba = offset(place.name).expect("it is in the layout") / SECTOR_BYTES;
            NewPartition {
                kind: if place.name == partition::ESP {
                    TYPE_ESP
                } else {
                    TYPE_RAW
                },
                guid: guid(place.name),
                first_lba,
                last_lba: first_lba + place.bytes / SECTOR_BYTES - 1,
                name: place.name,
            }
        });
        let table = NewTable {
            sectors: self.bytes / SECTOR_BYTES,
            sector_bytes: SECTOR_BYTES as usize,
            disk: guid("disk"),
            partitions: &partitions,
        };
        let Ok(()) = table.write(|offset, bytes| {
            self.pieces.insert(offset, bytes.to_vec());
            Ok::<_, Infallible>(())
        });
    }

    fn put(&mut self, partition: &str, at: u64, bytes: Vec<u8>) {
        let start = offset(partition).expect("it is in the layout");
        self.pieces.insert(start + at, bytes);
    }

    /// Hands out the disk from its start to its end, as `(bytes, zeros)`: a piece, and how many zeros follow it.
    pub fn runs(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let starts = self.pieces.keys().copied().skip(1).chain([self.bytes]);
        let first = self.pieces.keys().next().copied().unwrap_or(self.bytes);
        let lead = [(&[] as &[u8], first)];
        let pieces = self.pieces.iter().zip(starts);
        lead.into_iter().chain(
            pieces.map(|((offset, bytes), next)| {
                (bytes.as_slice(), next - offset - bytes.len() as u64)
            }),
        )
    }
}

/// What to write into the configuration's partition, as it is now, to make `body` the newest of its kind: offset and
/// bytes, each to be flushed before the next.
pub(crate) fn changes(
    partition: &[u8],
    kind: Kind,
    body: &[u8],
) -> Result<[(u64, Vec<u8>); 2], Fault> {
    let change = config::change(partition, kind, body).ok_or_else(|| {
        Fault::Other(format!(
            "the configuration has {} bytes, {} fit",
            body.len(),
            kind.body_bytes_max()
        ))
    })?;
    let header: [u8; RECORD_BYTES] = change.header;
    Ok([
        (change.body_offset, body.to_vec()),
        (change.header_offset, header.to_vec()),
    ])
}
