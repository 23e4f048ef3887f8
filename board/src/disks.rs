//! The node's data disks: found by serial number or WWN, partitioned if they are blank and the site allows it, checked,
//! mounted, and handed to the broker.
//!
//! ```text
//!  drive:  GPT · "howdah-ring" raw, the journal of this disk · "howdah-data" ext4, the rest
//!  a drive that only bears journals of others:  GPT · one raw partition each, named by the other drive
//! ```
//! What is decided stands here and in `provision.rs`, from facts; `drives.rs` and `prepare.rs` read and do. A drive is
//! never chosen by its `/dev` name or its size, and one that holds anything at all is never written to.

pub(crate) mod drives;
mod erc;
mod ext4;
pub(crate) mod prepare;
mod provision;

use std::fmt;
use std::path::PathBuf;

use site::{Node, Place};

use drives::Drive;

/// GPT name of a disk's own ring.
const RING: &str = "howdah-ring";
/// GPT name of a disk's file system.
const DATA: &str = "howdah-data";

/// What became of one disk of the site file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is mounted, and the broker gets it.
    Ready {
        /// Its root.
        root: PathBuf,
        /// Its ring's device.
        ring: PathBuf,
    },
    /// The broker goes on without it.
    Away(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { root, ring } => {
                write!(f, "at {}, ring {}", root.display(), ring.display())
            }
            Self::Away(why) => write!(f, "AWAY: {why}"),
        }
    }
}

/// The one drive that a place names.
pub(crate) fn find<'d>(drives: &'d [Drive], place: &Place) -> Result<&'d Drive, String> {
    let mut matching = drives.iter().filter(|drive| match place {
        Place::Serial(serial) => drive.serial.as_deref() == Some(serial.trim()),
        Place::Wwn(wwn) => drive
            .wwn
            .as_deref()
            .is_some_and(|own| drives::plain_wwn(own) == drives::plain_wwn(wwn)),
        // The site's checks refuse a directory on an appliance.
        Place::Path(_) => false,
    });
    match (matching.next(), matching.next()) {
        (Some(drive), None) => Ok(drive),
        (None, _) => Err(format!("there is no drive with {place}")),
        (Some(one), Some(other)) => Err(format!(
            "{} and {} both say that they are {place}",
            one.name, other.name
        )),
    }
}

/// GPT name of the ring that lies on another drive than its disk.
fn ring_name(place: &Place) -> String {
    let name = match place {
        Place::Path(name) | Place::Serial(name) | Place::Wwn(name) => name,
    };
    // A GPT name has 36 units.
    format!("ring-{name}").chars().take(36).collect()
}

/// What `drive` is to bear for `node`: names and sizes of its partitions, `None` for the rest of it. Empty if the site
/// does not name it.
fn wanted(node: &Node, drives: &[Drive], drive: &Drive) -> Vec<(String, Option<u64>)> {
    let is = |place: &Place| find(drives, place).is_ok_and(|it| it.name == drive.name);
    let mut wanted = Vec::new();
    for disk in &node.disks {
        match &disk.journal.place {
            Some(place) if is(place) => {
                wanted.push((ring_name(&disk.place), Some(disk.journal.bytes)))
            }
            None if is(&disk.place) => wanted.push((RING.to_owned(), Some(disk.journal.bytes))),
            _ => {}
        }
    }
    if node.disks.iter().any(|disk| is(&disk.place)) {
        wanted.push((DATA.to_owned(), None));
    }
    wanted
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn drive(name: &str, serial: &str, wwn: Option<&str>) -> Drive {
        Drive {
            name: name.to_owned(),
            serial: (!serial.is_empty()).then(|| serial.to_owned()),
            wwn: wwn.map(str::to_owned),
            bytes: 4 << 40,
            sector_bytes: 512,
            limits_retries: None,
            zoned: false,
        }
    }

    #[test]
    fn a_drive_is_found_by_what_it_says_of_itself_or_not_at_all() {
        let drives = [
            drive("sda", "S1", Some("naa.5000C500A1B2C3D4")),
            drive("sdb", "S2", None),
            drive("sdc", "S2", Some("eui.0025385b71b00001")),
            drive("sdd", "", None),
        ];
        let found = |place| find(&drives, &place).map(|it| it.name.as_str());
        assert_eq!(found(Place::Serial("S1".to_owned())), Ok("sda"));
        assert_eq!(
            found(Place::Wwn("0x5000c500a1b2c3d4".to_owned())),
            Ok("sda")
        );
        assert_eq!(
            found(Place::Wwn("eui.0025385B71B00001".to_owned())),
            Ok("sdc")
        );
        let two = found(Place::Serial("S2".to_owned())).unwrap_err();
        assert!(two.contains("sdb and sdc both"), "{two}");
        assert!(found(Place::Serial("S".to_owned())).is_err(), "no prefix");
        assert!(
            found(Place::Serial(String::new())).is_err(),
            "nor an empty one"
        );
        assert!(
            found(Place::Path("/dev/sda".to_owned())).is_err(),
            "nor a name"
        );
    }

    #[test]
    fn what_each_drive_bears() {
        let text = "[site]\nname = \"x\"\nsecret = { file = \"x.key\" }\n[[node]]\naddress = \"192.0.2.11\"\n\
            disk = [{ serial = \"S1\", journal = { serial = \"SSD\", bytes = \"2GiB\" } }, { serial = \"S2\" },\n\
            { serial = \"S3\", journal = { serial = \"SSD\", bytes = \"1GiB\" } }]\n[appliance]\n";
        let site = site::parse(text, "s.toml").unwrap();
        let drives: Vec<Drive> = [
            ("sda", "S1"),
            ("sdb", "S2"),
            ("sdc", "SSD"),
            ("sdd", "other"),
        ]
        .map(|(name, serial)| drive(name, serial, None))
        .into();
        let wanted = |at: usize| wanted(&site.nodes[0], &drives, &drives[at]);
        assert_eq!(wanted(0), [(DATA.to_owned(), None)]);
        assert_eq!(
            wanted(1),
            [(RING.to_owned(), Some(1 << 30)), (DATA.to_owned(), None)]
        );
        assert_eq!(
            wanted(2),
            [
                ("ring-S1".to_owned(), Some(2 << 30)),
                ("ring-S3".to_owned(), Some(1 << 30))
            ]
        );
        assert_eq!(wanted(3), [], "not named, not touched");
    }
}
