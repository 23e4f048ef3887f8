//! The disk as others see it: sgdisk and fsck.fat check it, mtools and qemu-img read it back.
//!
//! What a machine lacks is skipped with one loud line.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use images::disk::{self, Contents, Image};
use images::fault::Fault;
use images::output::{self, Format};
use images::{config, keys};
use slots::config::{Keys, Kind};
use slots::{BootState, Copy, SlotHeader};

/// A folder of this test alone, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("howdah-images-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program that a machine may lack; `None` if it does.
fn tool(name: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let folders = ["", "/usr/sbin/", "/sbin/"];
    let found = folders.iter().find_map(|folder| {
        Command::new(format!("{folder}{name}"))
            .args(arguments)
            .output()
            .ok()
    });
    let Some(output) = found else {
        println!("SKIPPED: {name} is missing");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

fn loader() -> Vec<u8> {
    (0..39_936u32).map(|at| (at % 251) as u8).collect()
}

fn image(site: &[u8]) -> Image {
    let keys = Keys::default().encode();
    Image::boot_disk(&Contents {
        loader: &loader(),
        payload: &vec![0x5A; 3 << 20],
        release: "1.2.3",
        watchdog_seconds: 30,
        site,
        keys: Some(&keys),
    })
    .unwrap()
}

fn raw(folder: &Folder, site: &[u8]) -> PathBuf {
    let path = folder.file("disk.raw");
    output::write(&image(site), Format::Raw, &path).unwrap();
    path
}

/// The first bytes of a partition.
fn part(disk: &Path, name: &str, bytes: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut part = vec![0; bytes];
    let offset = disk::offset(name).unwrap();
    File::open(disk)
        .unwrap()
        .read_exact_at(&mut part, offset)
        .unwrap();
    part
}

#[test]
fn the_partition_table_is_without_fault() {
    let folder = Folder::new("table");
    let path = raw(&folder, b"site");
    let Some((ok, said)) = tool("sgdisk", &["-v", path.to_str().unwrap()]) else {
        return;
    };
    // sgdisk's status is 0 for some faults too.
    assert!(ok && said.contains("No problems found"), "{said}");
    let (_, said) = tool("sgdisk", &["-p", path.to_str().unwrap()]).unwrap();
    for place in disk::LAYOUT {
        assert!(said.contains(place.name), "{said}");
    }
}

#[test]
fn the_file_system_is_without_fault_and_holds_the_loader() {
    let folder = Folder::new("fat");
    let esp = folder.file("esp");
    for bytes in [0, 1, 511, 512, 513, 39_936, 5 << 20] {
        let loader = vec![0xA5; bytes];
        let file_system = images::fat::with_loader(98_304, 2_048, &loader).unwrap();
        fs::write(&esp, file_system).unwrap();
        File::options()
            .write(true)
            .open(&esp)
            .unwrap()
            .set_len(48 << 20)
            .unwrap();
        if bytes == 0 {
            // A file without clusters has none to begin at; no loader is empty.
            continue;
        }
        let Some((ok, said)) = tool("fsck.fat", &["-n", esp.to_str().unwrap()]) else {
            return;
        };
        assert!(ok && said.contains("files"), "{bytes} bytes: {said}");
        let copy = folder.file("copy");
        let arguments = [
            "-n",
            "-i",
            esp.to_str().unwrap(),
            "::/EFI/BOOT/BOOTX64.EFI",
            copy.to_str().unwrap(),
        ];
        let Some((ok, said)) = tool("mcopy", &arguments) else {
            return;
        };
        assert!(ok, "{said}");
        assert!(fs::read(&copy).unwrap() == loader);
        fs::remove_file(copy).unwrap();
    }
    assert!(images::fat::with_loader(98_304, 2_048, &vec![0; 49 << 20]).is_err());
}

#[test]
fn what_the_loader_reads_is_where_it_looks() {
    let folder = Folder::new("records");
    let path = raw(&folder, b"site");
    let state = part(&path, "bootstate", 8192);
    let (state, copy) = BootState::newest(&state, &state[4096..]).unwrap();
    assert_eq!(
        (copy, state.seq, state.watchdog_seconds),
        (Copy::Second, 2, 30)
    );
    let slot = part(&path, "slot-a", 4 << 20);
    let header = SlotHeader::decode(&slot).unwrap();
    assert!(header.fits(&slot[4096..][..3 << 20]));
    assert_eq!(header.release(), "1.2.3");
    assert_eq!(SlotHeader::decode(&part(&path, "slot-b", 4096)), None);
    let config = part(&path, "config", 4 << 20);
    for kind in [Kind::Site, Kind::Keys] {
        let found = slots::config::newest(&config, kind).unwrap();
        assert_eq!((found.seq, found.copy), (2, Copy::Second));
    }
}

#[test]
fn every_format_holds_the_same_disk() {
    let folder = Folder::new("formats");
    // Pieces that begin, end and meet inside of a cluster, and one at either end of the disk.
    let piece = |offset: u64, bytes: usize| (offset, vec![(offset % 255) as u8 + 1; bytes]);
    let pieces = [
        piece(0, 70_000),
        piece(70_000, 10),
        (200_001, vec![3; 1]),
        piece(9_000_000, 131_072),
        piece((20 << 20) - 512, 512),
    ];
    let image = Image {
        bytes: 20 << 20,
        pieces: pieces.into(),
    };
    let [plain, packed, virtual_] = [Format::Raw, Format::RawZst, Format::Qcow2].map(|format| {
        let path = folder.file(format.ending());
        output::write(&image, format, &path).unwrap();
        path
    });
    let disk = fs::read(&plain).unwrap();
    assert_eq!(disk.len() as u64, image.bytes);
    assert!(disk[9_000_000..].starts_with(&image.pieces[&9_000_000]));
    assert!(zstd::decode_all(File::open(&packed).unwrap()).unwrap() == disk);
    let (plain, virtual_) = (plain.to_str().unwrap(), virtual_.to_str().unwrap());
    let Some((ok, said)) = tool("qemu-img", &["check", "-f", "qcow2", virtual_]) else {
        return;
    };
    assert!(ok && said.contains("No errors"), "{said}");
    let (ok, said) = tool(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "qcow2", plain, virtual_],
    )
    .unwrap();
    assert!(ok, "{said}");
}

#[test]
fn the_same_content_gives_the_same_bytes_and_another_one_other_guids() {
    let one = image(b"site");
    assert!(one == image(b"site"));
    let other = Image::boot_disk(&Contents {
        loader: &loader(),
        payload: b"another",
        release: "1.2.3",
        watchdog_seconds: 30,
        site: b"site",
        keys: None,
    })
    .unwrap();
    assert_ne!(one.pieces[&512], other.pieces[&512]);
}

const SITE: &str = r#"
[site]
name = "try"
secret = { file = "try.key" }
[[node]]
name = "a"
address = "192.0.2.11"
identity = { smbios = "BOX-A" }
[[node.disk]]
serial = "DISK-A"
use = "2TB"
[appliance]
"#;

#[test]
fn a_site_is_changed_in_place_with_its_key() {
    let folder = Folder::new("config");
    let path = raw(&folder, b"no site that can be read");
    let site = folder.file("try.toml");
    fs::write(&site, SITE).unwrap();
    let mut said = Vec::new();
    let done = config::set(&path, &site, |line| said.push(line.to_owned())).unwrap();
    assert!(done.starts_with("site try"), "{done}");
    assert!(
        said.len() == 1 && said[0].contains("try.key"),
        "a key is made once and that is said: {said:?}"
    );
    let shown = config::show(&path).unwrap();
    assert!(
        shown.contains("node 1 a at 192.0.2.11: serial DISK-A")
            && shown.contains("keys: site secret"),
        "{shown}"
    );

    fs::write(&site, SITE.replace("192.0.2.11", "192.0.2.99")).unwrap();
    said.clear();
    config::set(&path, &site, |line| said.push(line.to_owned())).unwrap();
    assert_eq!(said, Vec::<String>::new());
    assert!(config::show(&path).unwrap().contains("192.0.2.99"));
    // The one before is whole: it would come back if the newer one rots.
    let mut partition = part(&path, "config", 4 << 20);
    let newest = slots::config::newest(&partition, Kind::Site).unwrap();
    let (seq, body) = (
        newest.seq,
        if newest.copy == Copy::First {
            4096
        } else {
            (3 << 19) + 4096
        },
    );
    partition[body] ^= 1;
    assert_eq!(
        slots::config::newest(&partition, Kind::Site).unwrap().seq,
        seq - 1
    );
}

#[test]
fn what_is_no_boot_disk_or_no_appliance_is_refused_untouched() {
    let folder = Folder::new("refused");
    let path = raw(&folder, b"site");
    let before = part(&path, "config", 4 << 20);
    let site = folder.file("try.toml");
    for (text, expected) in [
        (SITE.replace("[appliance]", ""), "[appliance]"),
        (SITE.replace("name = \"try\"", "name = 7"), "try.toml:3:"),
    ] {
        fs::write(&site, text).unwrap();
        let fault = config::set(&path, &site, |_| {}).unwrap_err();
        assert!(
            matches!(fault, Fault::Usage(_) | Fault::Site(_))
                && fault.to_string().contains(expected),
            "{fault}"
        );
    }
    assert!(part(&path, "config", 4 << 20) == before);
    fs::write(&site, SITE).unwrap();
    let other = folder.file("other");
    fs::write(&other, vec![7; 1 << 20]).unwrap();
    assert!(
        config::set(&other, &site, |_| {})
            .unwrap_err()
            .to_string()
            .contains("no boot disk")
    );
    assert!(fs::read(&other).unwrap() == vec![7; 1 << 20]);
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("secret");
    let path = folder.file("try.toml");
    fs::write(&path, SITE).unwrap();
    let site = config::site(&path).unwrap();
    let made = keys::load(&site, &path, |_| {}).unwrap().unwrap();
    let again = keys::load(&site, &path, |_| {}).unwrap().unwrap();
    assert!(made == again && made.secrets[0].is_some_and(|secret| secret.bytes != [0; 32]));
    let key = folder.file("try.key");
    let mode = |key: &Path| fs::metadata(key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&key), 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        keys::load(&site, &path, |_| {}),
        Err(Fault::Refused(_))
    ));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, [1; 31]).unwrap();
    assert!(keys::load(&site, &path, |_| {}).is_err());
}
