//! The boot disk: which slot runs, whether it is on trial, and the records that say so (`slots`).
//!
//! A machine that was started without the loader (`-kernel`, a stick) has no slot: it counts as blessed, and there is
//! nothing to bless.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use slots::config::{self, Kind};
use slots::{
    BLOCK_BYTES, BootState, Copy, LOADER_VARIABLE, LOADER_VENDOR, RECORD_BYTES, Start, partition,
};

use crate::disks::drives;

const EFI_VARIABLES: &str = "/sys/firmware/efi/efivars";

/// Where the boot disk's records lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootDisk {
    /// The partition `bootstate`.
    pub(crate) state: PathBuf,
    /// The partition `config`.
    pub(crate) config: PathBuf,
}

impl BootDisk {
    /// The one drive that has both partitions; `None` if none has. Two are ambiguous, and neither is touched.
    pub(crate) fn find() -> Result<Option<Self>, String> {
        let drives = drives::all().map_err(|error| error.to_string())?;
        let mut found: Option<(String, Self)> = None;
        for drive in drives {
            let Ok(Some(parts)) = crate::disks::prepare::table(&drive) else {
                continue;
            };
            let number = |name: &str| {
                let part = parts.iter().find(|(_, own)| own == name);
                part.map(|(number, _)| drive.partition(*number))
            };
            let (Some(state), Some(config)) =
                (number(partition::BOOTSTATE), number(partition::CONFIG))
            else {
                continue;
            };
            if let Some((first, _)) = &found {
                return Err(format!(
                    "{first} and {} are both boot disks of this system; take one out",
                    drive.name
                ));
            }
            found = Some((drive.name.clone(), Self { state, config }));
        }
        Ok(found.map(|(_, disk)| disk))
    }

    /// The site's blob as the partition `config` has it.
    pub(crate) fn site(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; config::PARTITION_BYTES];
        File::open(&self.config)?.read_exact_at(&mut bytes, 0)?;
        Ok(config::newest(&bytes, Kind::Site).map(|found| found.body.to_vec()))
    }

    /// The boot record that counts.
    pub(crate) fn record(&self) -> io::Result<Option<(BootState, Copy)>> {
        newest(&File::open(&self.state)?)
    }

    /// Marks the slot good; false if it was known to be.
    pub(crate) fn bless(&self, start: Start) -> io::Result<bool> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.state)?;
        let (record, copy) = newest(&device)?.unwrap_or((BootState::default(), Copy::Second));
        let Some(next) = record.bless(start.slot) else {
            return Ok(false);
        };
        device.write_all_at(&next.encode(), copy.other().offset())?;
        device.sync_all()?;
        Ok(true)
    }

    /// Makes the site and then the keys unreadable; the slots stay as they are.
    pub(crate) fn forget_config(&self) -> io::Result<()> {
        let device = OpenOptions::new().write(true).open(&self.config)?;
        // The keys lie last, and go first.
        let zeros = vec![0; config::PARTITION_BYTES / 4];
        for quarter in (0..4u64).rev() {
            device.write_all_at(&zeros, quarter * zeros.len() as u64)?;
            device.sync_all()?;
        }
        Ok(())
    }
}

fn newest(device: &File) -> io::Result<Option<(BootState, Copy)>> {
    let mut bytes = [0; BLOCK_BYTES + RECORD_BYTES];
    device.read_exact_at(&mut bytes, 0)?;
    Ok(BootState::newest(&bytes, &bytes[BLOCK_BYTES..]))
}

/// What the loader says that it started; `None` without our loader.
pub(crate) fn started() -> Option<Start> {
    let path = Path::new(EFI_VARIABLES).join(format!("{LOADER_VARIABLE}-{LOADER_VENDOR}"));
    // efivarfs puts four bytes of attributes in front.
    Start::from_bytes(fs::read(path).ok()?.get(4..)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use slots::{Install, Slot};

    use super::*;

    fn disk(name: &str) -> (BootDisk, PathBuf) {
        let folder = std::env::temp_dir().join(format!("board-boot-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let disk = BootDisk {
            state: folder.join("state"),
            config: folder.join("config"),
        };
        fs::write(&disk.state, vec![0; 1 << 20]).unwrap();
        fs::write(&disk.config, vec![0; config::PARTITION_BYTES]).unwrap();
        (disk, folder)
    }

    #[test]
    fn a_trial_is_blessed_once_over_the_other_copy() {
        let (disk, folder) = disk("bless");
        let install = Install {
            slot: Slot::B,
            sha256: [7; 32],
            tries: 2,
            again: false,
        };
        let trial = BootState::default().install(install).unwrap();
        let mut bytes = fs::read(&disk.state).unwrap();
        bytes[..RECORD_BYTES].copy_from_slice(&trial.encode());
        fs::write(&disk.state, bytes).unwrap();
        let (start, spent) = trial.start();
        assert!(start.trial && spent.is_some());
        assert!(disk.bless(start).unwrap());
        let (record, copy) = disk.record().unwrap().unwrap();
        assert_eq!(
            (record.active, record.trial, copy),
            (Slot::B, None, Copy::Second)
        );
        assert!(!disk.bless(start).unwrap(), "known already");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_site_is_read_from_its_newest_copy_and_forgotten_on_demand() {
        let (disk, folder) = disk("config");
        assert_eq!(disk.site().unwrap(), None);
        for body in [&b"old"[..], b"new"] {
            let mut bytes = fs::read(&disk.config).unwrap();
            let change = config::change(&bytes, Kind::Site, body).unwrap();
            bytes[change.body_offset as usize..][..body.len()].copy_from_slice(body);
            bytes[change.header_offset as usize..][..RECORD_BYTES].copy_from_slice(&change.header);
            fs::write(&disk.config, bytes).unwrap();
        }
        assert_eq!(disk.site().unwrap().as_deref(), Some(&b"new"[..]));
        disk.forget_config().unwrap();
        assert_eq!(disk.site().unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
