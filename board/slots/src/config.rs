//! The partition `config`: the site and the keys, each in two copies, changed without a rebuild and without a mount.
//!
//! ```text
//!  partition, 4 MiB:  0 site, first copy · 1.5 MiB site, second · 3 MiB keys, first · 3.5 MiB keys, second
//!  copy:  0 magic "HOWDAHCF" · 8 version u16 (1) · 10 kind u16 (1 site, 2 keys) · 12 CRC-32C of the body u32
//!        16 seq u64 · 24 body bytes u32 · 28 zero · 508 CRC-32C u32 over 0..508
//!      4096 body: the site's blob as the crate `site` makes it, or the keys below
//!  keys:  0 version u16 (1) · 2 secrets u16 (0 to 2) · 4 node u32, 0: any of the site
//!         8 two places of 40 bytes: id u8, 7 zero, 32 bytes of the site's secret
//! ```
//! The valid copy of the higher `seq` counts. A change goes over the other one, body first, then a flush, then the
//! header: a cut at any point leaves the older copy. Slots hold no secret, so that one image serves every node and may
//! be public; all secrets lie in the keys' copies, which are never printed.

use crate::{BLOCK_BYTES, Copy, RECORD_BYTES, crc32c, seal, sealed, take};

const MAGIC: [u8; 8] = *b"HOWDAHCF";
const VERSION: u16 = 1;
/// Bytes of the whole partition.
pub const PARTITION_BYTES: usize = 4 << 20;

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The site's blob.
    Site,
    /// The secrets of one node or of all.
    Keys,
}

impl Kind {
    const fn number(self) -> u16 {
        match self {
            Self::Site => 1,
            Self::Keys => 2,
        }
    }

    /// Bytes from the start of the partition.
    const fn offset(self, copy: Copy) -> usize {
        match (self, copy) {
            (Self::Site, Copy::First) => 0,
            (Self::Site, Copy::Second) => 3 << 19,
            (Self::Keys, Copy::First) => 6 << 19,
            (Self::Keys, Copy::Second) => 7 << 19,
        }
    }

    /// Bytes that a body may have: what lies between two copies, less the header.
    #[must_use]
    pub const fn body_bytes_max(self) -> usize {
        self.offset(Copy::Second) - self.offset(Copy::First) - BLOCK_BYTES
    }
}

/// A body that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'p> {
    /// Rises with each change.
    pub seq: u64,
    /// Where it lies.
    pub copy: Copy,
    /// What it says.
    pub body: &'p [u8],
}

/// What to write, in this order: the body, a flush, the header, a flush. Offsets are from the start of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where the body goes.
    pub body_offset: u64,
    /// Where the header goes.
    pub header_offset: u64,
    /// The header.
    pub header: [u8; RECORD_BYTES],
}

/// The newer of two copies in the whole partition's bytes; `None` if neither can be read.
#[must_use]
pub fn newest(partition: &[u8], kind: Kind) -> Option<Found<'_>> {
    let first = read(partition, kind, Copy::First);
    let second = read(partition, kind, Copy::Second);
    match (first, second) {
        (Some(first), Some(second)) if first.seq < second.seq => Some(second),
        (first, second) => first.or(second),
    }
}

/// How to make `body` the newest of its kind; `None` if it is longer than [`Kind::body_bytes_max`].
#[must_use]
pub fn change(partition: &[u8], kind: Kind, body: &[u8]) -> Option<Change> {
    if body.len() > kind.body_bytes_max() {
        return None;
    }
    let (copy, seq) = match newest(partition, kind) {
        Some(found) => (found.copy.other(), found.seq.saturating_add(1)),
        None => (Copy::First, 1),
    };
    let mut header = [0; RECORD_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&kind.number().to_le_bytes());
    header[12..16].copy_from_slice(&crc32c(body).to_le_bytes());
    header[16..24].copy_from_slice(&seq.to_le_bytes());
    header[24..28].copy_from_slice(&(body.len() as u32).to_le_bytes());
    seal(&mut header);
    let header_offset = kind.offset(copy) as u64;
    Some(Change {
        body_offset: header_offset + BLOCK_BYTES as u64,
        header_offset,
        header,
    })
}

fn read(partition: &[u8], kind: Kind, copy: Copy) -> Option<Found<'_>> {
    let bytes = partition.get(kind.offset(copy)..)?;
    let header: &[u8; RECORD_BYTES] = bytes.first_chunk()?;
    let kind_found = u16::from_le_bytes(take(header, 10));
    // A later version of the container may lay its body out in another way.
    let version = u16::from_le_bytes(take(header, 8));
    if header[..8] != MAGIC || version != VERSION || kind_found != kind.number() || !sealed(header)
    {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(take(header, 24))).ok()?;
    if length > kind.body_bytes_max() {
        return None;
    }
    let body = bytes.get(BLOCK_BYTES..BLOCK_BYTES + length)?;
    (crc32c(body) == u32::from_le_bytes(take(header, 12))).then_some(Found {
        seq: u64::from_le_bytes(take(header, 16)),
        copy,
        body,
    })
}

/// Bytes of a keys' body.
pub const KEYS_BYTES: usize = 8 + SECRETS_MAX * SECRET_BYTES;
/// Secrets of a site: two, while one replaces the other.
pub const SECRETS_MAX: usize = 2;
const SECRET_BYTES: usize = 40;

/// A site's secret, with the number by which its nodes name it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret {
    /// Which of two.
    pub id: u8,
    /// 32 random bytes.
    pub bytes: [u8; 32],
}

/// What a node must not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The id of the node whose keys these are; 0: of any node of the site.
    pub node: u32,
    /// The site's secrets, newest first, without a gap.
    pub secrets: [Option<Secret>; SECRETS_MAX],
}

impl Keys {
    /// Reads a body; `None` if it is none that this release knows.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let body: &[u8; KEYS_BYTES] = body.first_chunk()?;
        let count = usize::from(u16::from_le_bytes(take(body, 2)));
        if u16::from_le_bytes(take(body, 0)) != VERSION || count > SECRETS_MAX {
            return None;
        }
        let mut secrets = [None; SECRETS_MAX];
        for (place, secret) in secrets.iter_mut().enumerate().take(count) {
            let at = 8 + place * SECRET_BYTES;
            *secret = Some(Secret {
                id: body[at],
                bytes: take(body, at + 8),
            });
        }
        Some(Self {
            node: u32::from_le_bytes(take(body, 4)),
            secrets,
        })
    }

    /// The body as it is written.
    #[must_use]
    pub fn encode(&self) -> [u8; KEYS_BYTES] {
        let mut body = [0; KEYS_BYTES];
        let present = self.secrets.iter().flatten();
        for (place, secret) in present.clone().enumerate() {
            let at = 8 + place * SECRET_BYTES;
            body[at] = secret.id;
            body[at + 8..at + SECRET_BYTES].copy_from_slice(&secret.bytes);
        }
        body[..2].copy_from_slice(&VERSION.to_le_bytes());
        body[2..4].copy_from_slice(&(present.count() as u16).to_le_bytes());
        body[4..8].copy_from_slice(&self.node.to_le_bytes());
        body
    }
}

/// The kind only: a log must not hold a key.
impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "site secret {}", self.id)
    }
}
