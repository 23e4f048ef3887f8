//! What lies in a disk's directory, before anything is written there.

use std::fs;
use std::io;
use std::path::Path;

use model::SiteUuid;
use store::{DiskState, LinuxIo, OpenError, Superblock, read_superblock};

use super::{DiskPlace, Fault};

/// Files of a disk whose making was cut short; superblocks come last.
const OWN_NAMES: [&str; 5] = ["SUPER.a", "SUPER.b", "journal", "ckpt.a", "ckpt.b"];

/// What lies in a disk's directory.
pub(crate) enum Held {
    /// Nothing, or a making that was cut short.
    Blank,
    Formatted(Box<Superblock>),
}

pub(crate) fn look(place: &DiskPlace) -> Result<Held, Fault> {
    let fault = |source| Fault::Io {
        path: place.path.clone(),
        source,
    };
    let mut names = match fs::read_dir(&place.path) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fault)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Held::Blank),
        Err(error) => return Err(fault(error)),
    };
    names.sort();
    // A file system's own, in a directory that is its root.
    names.retain(|name| name != "lost+found");
    if names.is_empty() {
        return Ok(Held::Blank);
    }
    let superblock = LinuxIo::new(&place.path, place.journal.clone())
        .map_err(fault)
        .map(|io| read_superblock(&io))?;
    match superblock {
        Ok((superblock, _)) => Ok(Held::Formatted(Box::new(superblock))),
        Err(OpenError::NoSuperblock { .. }) if half_made(&place.path, &names).map_err(fault)? => {
            Ok(Held::Blank)
        }
        Err(OpenError::NoSuperblock { a, b }) => match names.iter().find(|name| !ours(name)) {
            Some(foreign) => Err(Fault::Foreign {
                path: place.path.clone(),
                found: format!("'{foreign}'"),
            }),
            None => Err(Fault::Disk {
                path: place.path.clone(),
                source: OpenError::NoSuperblock { a, b },
            }),
        },
        Err(source) => Err(Fault::Disk {
            path: place.path.clone(),
            source,
        }),
    }
}

fn ours(name: &str) -> bool {
    name == "ext" || OWN_NAMES.contains(&name)
}

/// Whether this is what a format that was cut short leaves: our names only, no extent, no byte in a superblock.
fn half_made(path: &Path, names: &[String]) -> io::Result<bool> {
    if !names.iter().all(|name| ours(name)) {
        return Ok(false);
    }
    if names.iter().any(|name| name == "ext") {
        for directory in fs::read_dir(path.join("ext"))? {
            if fs::read_dir(directory?.path())?.next().is_some() {
                return Ok(false);
            }
        }
    }
    for name in ["SUPER.a", "SUPER.b"] {
        match fs::read(path.join(name)) {
            Ok(bytes) if bytes.iter().any(|byte| *byte != 0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether the disk was never part of a site.
pub(crate) fn fresh(superblock: &Superblock) -> bool {
    superblock.state == DiskState::Fresh && superblock.site == SiteUuid::default()
}
