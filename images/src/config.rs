//! The configuration on an image or on a boot disk, changed in place: no rebuild, no mount, no root for a file.
//!
//! What was there stays whole until the new one is on the medium (`slots::config`): a cut half way leaves the old site.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use site::Site;
use slots::config::{self, Keys, Kind};
use slots::gpt::Header;
use slots::partition;

use crate::disk::{SECTOR_BYTES, changes};
use crate::fault::{At, Fault};
use crate::keys;

/// The configuration's partition on a disk.
#[derive(Debug)]
struct Place {
    file: File,
    offset: u64,
    bytes: Vec<u8>,
}

impl Place {
    fn open(disk: &Path, write: bool) -> Result<Self, Fault> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .open(disk)
            .at("open", disk)?;
        let offset = find(&file).at("read", disk)?.ok_or_else(|| {
            Fault::Other(format!(
                "{} is no boot disk of ours: it has no partition `{}` (an image must be raw here, not packed and not qcow2)",
                disk.display(),
                partition::CONFIG
            ))
        })?;
        let mut bytes = vec![0; config::PARTITION_BYTES];
        file.read_exact_at(&mut bytes, offset).at("read", disk)?;
        Ok(Self {
            file,
            offset,
            bytes,
        })
    }

    /// Makes `body` the newest of its kind: on the medium when this returns.
    fn set(&mut self, kind: Kind, body: &[u8]) -> Result<u64, Fault> {
        for (at, bytes) in changes(&self.bytes, kind, body)? {
            let written = self.file.write_all_at(&bytes, self.offset + at);
            written
                .and_then(|()| self.file.sync_all())
                .map_err(|error| {
                    Fault::Other(format!(
                        "can't write the configuration: {error}; the one before still counts"
                    ))
                })?;
        }
        let mut bytes = vec![0; config::PARTITION_BYTES];
        let read = self.file.read_exact_at(&mut bytes, self.offset);
        read.map_err(|error| Fault::Other(format!("can't read the configuration back: {error}")))?;
        self.bytes = bytes;
        match config::newest(&self.bytes, kind) {
            Some(found) if found.body == body => Ok(found.seq),
            _ => Err(Fault::other(
                "what was written does not read back: the medium is broken",
            )),
        }
    }
}

/// Offset of the configuration, from whichever of the two tables is whole.
fn find(file: &File) -> io::Result<Option<u64>> {
    let end = {
        use std::io::{Seek, SeekFrom};
        let mut file = file;
        file.seek(SeekFrom::End(0))?
    };
    for at in [SECTOR_BYTES, end.saturating_sub(SECTOR_BYTES)] {
        let mut sector = [0; SECTOR_BYTES as usize];
        if file.read_exact_at(&mut sector, at).is_err() {
            continue;
        }
        let Some(header) = Header::decode(&sector) else {
            continue;
        };
        let mut entries = vec![0; header.entries_bytes()];
        let Some(offset) = header.entries_lba.checked_mul(SECTOR_BYTES) else {
            continue;
        };
        if file.read_exact_at(&mut entries, offset).is_err() {
            continue;
        }
        let mut partitions = header.partitions(&entries).into_iter().flatten();
        let found = partitions.find(|partition| {
            partition.is_named(partition::CONFIG)
                && partition.sectors() >= config::PARTITION_BYTES as u64 / SECTOR_BYTES
        });
        if let Some(found) = found {
            return Ok(found.first_lba.checked_mul(SECTOR_BYTES));
        }
    }
    Ok(None)
}

/// Reads a site file for an appliance.
pub fn site(path: &Path) -> Result<Site, Fault> {
    let site = site::load(path).map_err(|fault| match fault {
        site::LoadFault::Wrong(faults) => Fault::Site(faults),
        other => Fault::Usage(other.to_string()),
    })?;
    if site.appliance.is_none() {
        return Err(Fault::Usage(format!(
            "{}: an image needs the table [appliance], by which the site says that its nodes are appliances",
            path.display()
        )));
    }
    Ok(site)
}

/// Makes the site of this file, and its keys, the configuration of a disk. Returns what to tell the person.
pub fn set(disk: &Path, site_file: &Path, say: impl FnMut(&str)) -> Result<String, Fault> {
    let site = site(site_file)?;
    let keys = keys::load(&site, site_file, say)?;
    let mut place = Place::open(disk, true)?;
    // The keys first: a site must not come without the secret that it names.
    if let Some(keys) = keys {
        place.set(Kind::Keys, &keys.encode())?;
    }
    let seq = place.set(Kind::Site, &site.to_blob())?;
    Ok(format!(
        "site {} ({}) is configuration {seq} of {}",
        site.name,
        site.digest_hex(),
        disk.display()
    ))
}

/// What the configuration of a disk says, without its secrets.
pub fn show(disk: &Path) -> Result<String, Fault> {
    let place = Place::open(disk, false)?;
    let Some(found) = config::newest(&place.bytes, Kind::Site) else {
        return Err(Fault::Other(format!(
            "{} holds no site that can be read",
            disk.display()
        )));
    };
    let site = Site::from_blob(found.body).map_err(Fault::other)?;
    let mut lines = vec![format!(
        "configuration {}: site {} ({})",
        found.seq,
        site.name,
        site.digest_hex()
    )];
    for node in &site.nodes {
        let disks: Vec<String> = node
            .disks
            .iter()
            .map(|disk| disk.place.to_string())
            .collect();
        lines.push(format!(
            "node {} {} at {}: {}",
            node.id,
            node.name,
            node.address,
            disks.join(", ")
        ));
    }
    lines.push(
        match config::newest(&place.bytes, Kind::Keys).map(|found| Keys::decode(found.body)) {
            None => "no keys".to_owned(),
            Some(None) => "keys of another release".to_owned(),
            Some(Some(keys)) => {
                let ids: Vec<String> = keys
                    .secrets
                    .iter()
                    .flatten()
                    .map(|secret| format!("{secret:?}"))
                    .collect();
                format!("keys: {}", ids.join(", "))
            }
        },
    );
    Ok(lines.join("\n"))
}
