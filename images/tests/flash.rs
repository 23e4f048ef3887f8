//! Which devices are refused, and what a disk holds afterwards.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use images::disk::{Contents, Image};
use images::flash::{Device, Table};
use images::output::{self, Format};
use slots::gpt::Header;

const GIB: u64 = 1 << 30;

fn device() -> Device {
    Device {
        name: "sdb".to_owned(),
        model: "WDC WD40".to_owned(),
        serial: "WD-1".to_owned(),
        bytes: 4 * GIB,
        sector_bytes: 512,
        numbers: ["8:16", "8:17"].map(str::to_owned).into(),
        partitions: vec!["sdb1".to_owned()],
        ..Device::default()
    }
}

#[test]
fn only_a_disk_that_nobody_uses_is_written() {
    let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 8:33 / /data rw - ext4 /dev/sdc1 rw\n";
    let swaps = "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n";
    let refusal = |device: &Device| device.refusal(mounts, swaps, GIB);
    assert_eq!(refusal(&device()), None);

    type Change = fn(&mut Device);
    let cases: [(Change, &str); 8] = [
        (|device| device.partition = true, "it is a partition"),
        (
            |device| device.numbers.extend(["8:33".to_owned()]),
            "it is mounted at /data",
        ),
        (
            |device| device.numbers.extend(["8:1".to_owned()]),
            "it is mounted at /",
        ),
        (
            |device| device.partitions.push("sda2".to_owned()),
            "it holds swap space in use",
        ),
        (
            |device| device.holders.push("dm-0".to_owned()),
            "it is part of dm-0",
        ),
        (|device| device.read_only = true, "it can't be written"),
        (
            |device| device.sector_bytes = 4096,
            "its sectors have 4096 bytes",
        ),
        (|device| device.bytes = GIB - 1, "it has 1073741823 bytes"),
    ];
    for (change, expected) in cases {
        let mut device = device();
        change(&mut device);
        let refusal = refusal(&device).unwrap();
        assert!(refusal.starts_with(expected), "{refusal}");
    }
}

#[test]
fn a_person_proves_the_disk_by_its_serial_or_where_it_has_none_its_name() {
    assert_eq!(
        device().describe(),
        "sdb: model WDC WD40, serial WD-1, 4.3 GB, partitions sdb1"
    );
    assert_eq!(device().proof(), "WD-1");
    let nameless = Device {
        serial: String::new(),
        ..device()
    };
    assert_eq!(nameless.proof(), "sdb");
}

#[test]
fn sysfs_is_read_as_it_is_laid_out() {
    let sys = std::env::temp_dir().join(format!("howdah-flash-sys-{}", std::process::id()));
    let file = |path: &str, content: &[u8]| {
        let path = sys.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    file("sdb/dev", b"8:16\n");
    file("sdb/size", b"8388608\n");
    file("sdb/ro", b"0\n");
    file("sdb/queue/logical_block_size", b"512\n");
    file("sdb/device/model", b"WDC WD40        \n");
    file("sdb/device/vpd_pg80", b"\0\x80\0\x08    WD-1");
    file("sdb/sdb1/partition", b"1\n");
    file("sdb/sdb1/dev", b"8:17\n");
    file("sdb/sdb1/holders/dm-0", b"");
    let read = Device::read(&sys, "sdb").unwrap();
    fs::remove_dir_all(&sys).unwrap();
    assert_eq!(
        read,
        Device {
            holders: vec!["dm-0".to_owned()],
            ..device()
        }
    );
}

/// A file that plays a disk, gone at its end.
struct Disk(PathBuf, File);

impl Disk {
    fn new(name: &str, bytes: u64) -> Self {
        let path = std::env::temp_dir().join(format!("howdah-flash-{name}-{}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        file.set_len(bytes).unwrap();
        Self(path, file)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_longer_disk_gets_a_table_of_its_own() {
    let image = Image::boot_disk(&Contents {
        loader: b"loader",
        payload: &[7; 100_000],
        release: "1",
        watchdog_seconds: 30,
        site: b"site",
        keys: None,
    })
    .unwrap();
    let packed = Disk::new("image", 0);
    output::write(&image, Format::Raw, &packed.0).unwrap();
    // So little longer than the image that the second table lies across the image's end, and much longer.
    for bytes in [image.bytes + 8192, 2 * GIB] {
        check(&image, &packed.0, bytes);
    }
}

fn check(image: &Image, packed: &Path, disk_bytes: u64) {
    let disk = Disk::new("disk", disk_bytes);
    // What was there before, behind the image's last partition.
    disk.1
        .write_all_at(&[0xEE; 512], image.bytes - 40_448)
        .unwrap();
    let table = Table::of(packed).unwrap();
    assert_eq!(table.image_bytes, image.bytes);
    let mut steps = 0;
    table.write(&disk.1, disk_bytes, |_, _| steps += 1).unwrap();
    assert!(steps > 100);
    table.verify(&disk.1, disk_bytes, |_, _| {}).unwrap();

    let sector = |offset: u64| {
        let mut sector = [0; 512];
        disk.1.read_exact_at(&mut sector, offset).unwrap();
        sector
    };
    let (front, end) = (
        Header::decode(&sector(512)).unwrap(),
        Header::decode(&sector(disk_bytes - 512)).unwrap(),
    );
    assert_eq!(front.disk, end.disk);
    assert_ne!(
        front.disk,
        Header::decode(&image.pieces[&512]).unwrap().disk
    );
    assert_eq!(
        sector(image.bytes - 40_448),
        [0; 512],
        "nothing else is left behind the partitions"
    );
    if let Ok(output) = std::process::Command::new("/usr/sbin/sgdisk")
        .arg("-v")
        .arg(&disk.0)
        .output()
    {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("No problems found"), "{said}");
    } else {
        println!("SKIPPED: sgdisk is missing");
    }

    // One bit that the medium lost is noticed.
    let slot = images::disk::offset("slot-a").unwrap() + 4096;
    disk.1.write_all_at(&[6], slot).unwrap();
    assert!(table.verify(&disk.1, disk_bytes, |_, _| {}).is_err());
}

#[test]
fn what_is_no_image_is_refused() {
    let disk = Disk::new("other", 1 << 20);
    assert!(
        Table::of(&disk.0)
            .unwrap_err()
            .to_string()
            .contains("no disk image of ours")
    );
}
