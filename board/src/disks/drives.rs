//! The drives of the machine, as sysfs tells of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A whole drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drive {
    /// Of this boot: `sda`, `nvme0n1`.
    pub(crate) name: String,
    /// Its serial number, without blanks around it.
    pub(crate) serial: Option<String>,
    /// Its World Wide Name, as the kernel writes it.
    pub(crate) wwn: Option<String>,
    /// Its size.
    pub(crate) bytes: u64,
    /// Bytes of a logical sector.
    pub(crate) sector_bytes: u32,
    /// For an ATA drive: whether its retries can be limited.
    pub(crate) limits_retries: Option<bool>,
    /// It has shingled zones and says so.
    pub(crate) zoned: bool,
}

impl Drive {
    /// Its device.
    pub(crate) fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// The device of its partition of this number.
    pub(crate) fn partition(&self, number: u32) -> PathBuf {
        // nvme0n1p1, but sda1.
        let digit = self.name.ends_with(|last: char| last.is_ascii_digit());
        let between = if digit { "p" } else { "" };
        Path::new("/dev").join(format!("{}{between}{number}", self.name))
    }
}

/// A WWN without its kind's prefix and in lower case: people write `0x5000…`, the kernel `naa.5000…`.
pub(crate) fn plain_wwn(wwn: &str) -> String {
    let lower = wwn.trim().to_ascii_lowercase();
    let bare = ["naa.", "eui.", "0x"]
        .iter()
        .find_map(|prefix| lower.strip_prefix(prefix));
    bare.unwrap_or(&lower).to_owned()
}

/// Every drive below `/sys/class/block`, by name.
pub(crate) fn all() -> io::Result<Vec<Drive>> {
    below(Path::new("/sys/class/block"))
}

fn below(folder: &Path) -> io::Result<Vec<Drive>> {
    let mut drives = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A partition has its number, and what has no device below it is made by software: loop, ram, dm.
        if path.join("partition").exists() || !path.join("device").exists() {
            continue;
        }
        let Some(name) = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            continue;
        };
        let text = |file: &str| {
            let text = fs::read_to_string(path.join(file)).ok()?;
            let text = text.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        // Sectors of 512 bytes whatever the drive's own are.
        let sectors = text("size").and_then(|text| text.parse::<u64>().ok());
        let sector_bytes = text("queue/logical_block_size").and_then(|text| text.parse().ok());
        drives.push(Drive {
            // virtio_blk; NVMe and MMC; then SCSI, which libata's disks are as well.
            serial: text("serial")
                .or_else(|| text("device/serial"))
                .or_else(|| page_80(&fs::read(path.join("device/vpd_pg80")).ok()?)),
            wwn: text("wwid").or_else(|| text("device/wwid")),
            bytes: sectors.unwrap_or(0) * 512,
            sector_bytes: sector_bytes.unwrap_or(512),
            limits_retries: fs::read(path.join("device/vpd_pg89"))
                .ok()
                .and_then(|page| limits_retries(&page)),
            zoned: text("queue/zoned").is_some_and(|zoned| zoned != "none"),
            name,
        });
    }
    drives.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(drives)
}

/// The unit serial number of a SCSI device (SPC-4, 7.8.17): length in bytes 2 and 3, text from byte 4.
fn page_80(page: &[u8]) -> Option<String> {
    let length = u16::from_be_bytes(*page.get(2..)?.first_chunk()?);
    let text = page.get(4..)?;
    let text = &text[..text.len().min(length.into())];
    let text = String::from_utf8_lossy(text);
    let text = text.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// From the ATA information page (SAT-3, 12.4.2): IDENTIFY DEVICE begins at byte 60, and its word 206 says whether there
/// is an SCT command transport (bit 0) with error recovery control (bit 3; ACS-3, 7.12.7.91).
fn limits_retries(page: &[u8]) -> Option<bool> {
    let word = page.get(60 + 2 * 206..)?.first_chunk()?;
    Some(u16::from_le_bytes(*word) & 0b1001 == 0b1001)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn drives_as_sysfs_shows_them() {
        let root = std::env::temp_dir().join(format!("board-drives-{}", std::process::id()));
        let put = |name: &str, bytes: &[u8]| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put("sda/size", b"2048\n");
        put("sda/device/vpd_pg80", b"\0\x80\0\x08  WD-A1 \0\0");
        put("sda/device/wwid", b"naa.5000c500a1b2c3d4\n");
        let mut page = [0; 572];
        page[60 + 2 * 206] = 0b1001;
        put("sda/device/vpd_pg89", &page);
        put("sda/queue/zoned", b"none\n");
        put("vda/queue/zoned", b"host-aware\n");
        put("sda1/partition", b"1\n");
        put("sda1/device/x", b"");
        put("vda/serial", b"S2\n");
        put("vda/size", b"8\n");
        put("vda/device/x", b"");
        put("nvme0n1/device/serial", b"S3   \n");
        put("nvme0n1/wwid", b"eui.0025385b71b00001\n");
        put("nvme0n1/queue/logical_block_size", b"4096\n");
        put("loop0/size", b"8\n");
        let drives = below(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let shown: Vec<_> = drives
            .iter()
            .map(|it| {
                (
                    it.name.as_str(),
                    it.serial.as_deref().unwrap(),
                    it.bytes,
                    it.sector_bytes,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("nvme0n1", "S3", 0, 4096),
                ("sda", "WD-A1", 1 << 20, 512),
                ("vda", "S2", 4096, 512)
            ]
        );
        assert_eq!(drives[1].wwn.as_deref(), Some("naa.5000c500a1b2c3d4"));
        let kinds: Vec<_> = drives
            .iter()
            .map(|it| (it.limits_retries, it.zoned))
            .collect();
        assert_eq!(kinds, [(None, false), (Some(true), false), (None, true)]);
        assert_eq!(limits_retries(&[0xff; 473]), None, "cut");
        assert_eq!(limits_retries(&[0xf7; 572]), Some(false), "no such control");
        assert_eq!(drives[0].partition(2), Path::new("/dev/nvme0n1p2"));
        assert_eq!(drives[1].partition(2), Path::new("/dev/sda2"));
    }

    #[test]
    fn a_serial_page_of_any_length() {
        assert_eq!(page_80(b""), None);
        assert_eq!(page_80(b"\0\x80\0"), None);
        assert_eq!(page_80(b"\0\x80\0\0"), None);
        assert_eq!(page_80(b"\0\x80\xff\xffS1"), Some("S1".to_owned()));
    }
}
