//! A site as the bytes that an image carries: checked on the host, read on the node without parsing text.
//!
//! ```text
//!  0 magic "HOWDAHST" · 8 version u32 · 12 flags u32 (0; 1 will be a signature behind the CRC) · 16 body bytes u32
//! 20 zero u32 · 24 body: postcard of `Site` · then CRC-32C u32 over all before it
//! ```
//! Little-endian. What lies behind the CRC is not looked at: a partition is longer than its blob. Secrets are no part
//! of it, only the names of their files.

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::schema::Site;

const MAGIC: [u8; 8] = *b"HOWDAHST";
/// The format this release writes and reads.
pub const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const CRC_BYTES: usize = 4;
/// A body's bytes: the text it was made from has at most as many.
pub const BODY_BYTES_MAX: usize = crate::parse::FILE_BYTES_MAX;

/// A blob that can't be read, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlobFault {
    /// Too short, or another file.
    #[error("this is no site blob: make one from the site file")]
    NotABlob,
    /// Made by a newer release.
    #[error(
        "the site blob has format version {found}, this release reads up to {VERSION}: start the newer release again, or make the blob anew with this one's tools"
    )]
    Newer {
        /// What it says.
        found: u32,
    },
    /// Made by a newer release that relies on something this one does not know.
    #[error(
        "the site blob has flags {found:#x} that this release does not know: start the newer release again, or make the blob anew with this one's tools"
    )]
    Flags {
        /// What it says.
        found: u32,
    },
    /// Shorter than it says, or longer than any.
    #[error(
        "the site blob says it has {claimed} bytes, {have} are there: it was cut; write it again"
    )]
    Length {
        /// Bytes it claims.
        claimed: usize,
        /// Bytes at hand.
        have: usize,
    },
    /// Bytes changed.
    #[error(
        "the site blob is damaged (CRC-32C {found:08x}, it says {claimed:08x}): write it again"
    )]
    Crc {
        /// What it says.
        claimed: u32,
        /// What its bytes give.
        found: u32,
    },
    /// The CRC holds, but the body is none of ours.
    #[error("the site blob's body can't be read ({0}): make it anew with this release's tools")]
    Body(String),
}

/// SHA-256 over what the blob would hold, the digest itself taken as zero.
pub(crate) fn digest(site: &Site) -> [u8; 32] {
    let plain = Site {
        digest: [0; 32],
        ..site.clone()
    };
    Sha256::digest(body(&plain)).into()
}

fn body(site: &Site) -> Vec<u8> {
    postcard::to_stdvec(site).expect("plain data into memory, no length is unknown")
}

impl Site {
    /// SHA-256 of the site, as given when its text was checked. Nodes of one site show the same one.
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The digest in hexadecimal.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        self.digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The blob.
    #[must_use]
    pub fn to_blob(&self) -> Vec<u8> {
        let body = body(self);
        let length = u32::try_from(body.len()).expect("a site of a bounded file");
        let mut blob = Vec::with_capacity(HEADER_BYTES + body.len() + CRC_BYTES);
        blob.extend_from_slice(&MAGIC);
        blob.extend_from_slice(&VERSION.to_le_bytes());
        blob.extend_from_slice(&0u32.to_le_bytes());
        blob.extend_from_slice(&length.to_le_bytes());
        blob.extend_from_slice(&0u32.to_le_bytes());
        blob.extend_from_slice(&body);
        blob.extend_from_slice(&crc32c::crc32c(&blob).to_le_bytes());
        blob
    }

    /// Reads a blob from the front of `bytes`.
    pub fn from_blob(bytes: &[u8]) -> Result<Self, BlobFault> {
        if bytes.len() < HEADER_BYTES + CRC_BYTES || bytes[..8] != MAGIC {
            return Err(BlobFault::NotABlob);
        }
        let word = |at: usize| {
            let four = bytes[at..]
                .first_chunk()
                .expect("checked to be long enough");
            u32::from_le_bytes(*four)
        };
        // The version comes first: a newer format may lay out the rest in another way.
        if word(8) != VERSION {
            return Err(BlobFault::Newer { found: word(8) });
        }
        let length = usize::try_from(word(16)).unwrap_or(usize::MAX);
        let end = HEADER_BYTES + length.min(BODY_BYTES_MAX);
        if length > BODY_BYTES_MAX || bytes.len() < end + CRC_BYTES {
            return Err(BlobFault::Length {
                claimed: length,
                have: bytes.len() - HEADER_BYTES - CRC_BYTES,
            });
        }
        let (claimed, found) = (word(end), crc32c::crc32c(&bytes[..end]));
        if claimed != found {
            return Err(BlobFault::Crc { claimed, found });
        }
        if word(12) != 0 {
            return Err(BlobFault::Flags { found: word(12) });
        }
        let (site, rest) = postcard::take_from_bytes::<Self>(&bytes[HEADER_BYTES..end])
            .map_err(|error| BlobFault::Body(error.to_string()))?;
        if !rest.is_empty() {
            return Err(BlobFault::Body(format!("{} bytes too many", rest.len())));
        }
        if digest(&site) != site.digest {
            return Err(BlobFault::Body("its digest is not its own".to_owned()));
        }
        Ok(site)
    }
}
