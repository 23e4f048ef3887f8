//! What the appliance's first process hands over: the site's blob on standard input, and where each disk lies.
//!
//! The two never link; `board/src/broker.rs` has the other half of this contract. On an appliance disks are named by
//! serial number, which only board looks up; a disk that it does not hand over is away, and the others serve without it.

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use site::{ClockSource, Site};

use crate::exit;
use crate::run::{Refusal, refusal};

/// A blob's bytes with all around its body.
const BLOB_BYTES_MAX: u64 = site::BODY_BYTES_MAX as u64 + 4096;

/// One disk that is there: `N=ROOT,RING`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandedDisk {
    /// Its place among the node's disks in the site file, from 0.
    pub(crate) at: usize,
    /// Where its file system is mounted.
    pub(crate) root: PathBuf,
    /// The device of its journal ring.
    pub(crate) ring: PathBuf,
}

impl FromStr for HandedDisk {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RIGHT: &str = "write it like 0=/disk/0,/dev/sda1";
        let (at, paths) = text.split_once('=').ok_or(RIGHT)?;
        let (root, ring) = paths.split_once(',').ok_or(RIGHT)?;
        let at = at.parse().map_err(|_| RIGHT)?;
        if at >= site::DISKS_MAX || root.is_empty() || ring.is_empty() {
            return Err(RIGHT);
        }
        Ok(Self {
            at,
            root: root.into(),
            ring: ring.into(),
        })
    }
}

/// The site whose blob `from` holds. Wall time is trusted while the kernel says that it is kept right: board sees to that.
pub(crate) fn read_site(from: impl Read) -> Result<Site, Refusal> {
    let mut bytes = Vec::new();
    from.take(BLOB_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| refusal(exit::FAULT, format!("the site on standard input: {error}")))?;
    let mut site = Site::from_blob(&bytes).map_err(|fault| refusal(exit::USAGE, fault))?;
    site.clock = ClockSource::Kernel;
    Ok(site)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_handed_over() {
        let disk: HandedDisk = "11=/disk/11,/dev/nvme0n1p1".parse().unwrap();
        assert_eq!(disk.at, 11);
        assert_eq!(disk.root.to_str(), Some("/disk/11"));
        assert_eq!(disk.ring.to_str(), Some("/dev/nvme0n1p1"));
        for wrong in [
            "",
            "0",
            "0=",
            "0=/disk/0",
            "0=/disk/0,",
            "0=,/dev/sda1",
            "x=/d,/r",
            "-1=/d,/r",
            "12=/d,/r",
        ] {
            assert!(wrong.parse::<HandedDisk>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_site_comes_as_its_blob_and_its_clock_is_the_kernels() {
        let site = site::laptop();
        assert_eq!(site.clock, ClockSource::Trusted);
        let blob = site.to_blob();
        let read = read_site(&blob[..]).unwrap_or_else(|refusal| panic!("{}", refusal.why));
        assert_eq!(
            (read.clock, read.digest()),
            (ClockSource::Kernel, site.digest())
        );
        let refused = |bytes: &[u8]| read_site(bytes).err().map(|refusal| refusal.code);
        assert_eq!(refused(b""), Some(exit::USAGE));
        assert_eq!(refused(&blob[..blob.len() - 1]), Some(exit::USAGE));
        assert_eq!(
            refused(site::LAPTOP.as_bytes()),
            Some(exit::USAGE),
            "no text is parsed"
        );
    }
}
