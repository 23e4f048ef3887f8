//! The first root file system, as the kernel unpacks it into memory: cpio of the kind `newc`, packed with zstd.
//!
//! ```text
//!  /init                       board, PID 1
//!  /howdah                     the broker
//!  /sbin/e2fsck                static, from Debian
//!  /etc/os-release             what this image is
//!  /lib/modules/RELEASE/…      modules, unpacked, with modules.dep, .alias and .softdep for them
//!  /dev /etc /proc /run /sys /tmp
//! ```
//! Times are zero, owners root, the order that of the names: the same content gives the same bytes.

use std::collections::BTreeMap;
use std::io;

/// Mode bits of stat(2).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// Files and folders by path, without a leading slash.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Tree {
    /// Adds a folder and those above it.
    pub fn folder(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.entries
                .entry(path[..end].to_owned())
                .or_insert((DIRECTORY | 0o755, Vec::new()));
        }
    }

    /// Adds a file and the folders above it; `mode` is its permissions.
    pub fn file(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.entries
            .insert(path.to_owned(), (REGULAR | mode, bytes));
    }

    /// The archive (cpio(5), "New ASCII format"): thirteen numbers of eight hexadecimal digits, the name, the content,
    /// each padded to four bytes.
    #[must_use]
    pub fn cpio(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        let entries = self
            .entries
            .iter()
            .map(|(path, (mode, bytes))| (path.as_str(), *mode, bytes.as_slice()));
        for ((path, mode, bytes), inode) in entries
            .chain([("TRAILER!!!", 0, [].as_slice())])
            .zip(1u32..)
        {
            let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
            let numbers = [
                inode,
                mode,
                0,
                0,
                links,
                0,
                length(bytes.len()),
                0,
                0,
                0,
                0,
                length(path.len() + 1),
                0,
            ];
            archive.extend_from_slice(b"070701");
            for number in numbers {
                archive.extend_from_slice(format!("{number:08X}").as_bytes());
            }
            archive.extend_from_slice(path.as_bytes());
            archive.push(0);
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend_from_slice(bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
        archive
    }

    /// The archive packed. `level` 19 is 4 MB less than the default one and takes half a minute.
    pub fn packed(&self, level: i32) -> io::Result<Vec<u8>> {
        zstd::bulk::compress(&self.cpio(), level)
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("files of an image are far below 4 GiB")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.file("lib/modules/6.0/a.ko", 0o644, b"module".to_vec());
        tree.file("init", 0o755, b"#!".to_vec());
        tree.folder("dev");
        tree
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_order_of_adding() {
        let mut other = Tree::default();
        other.folder("dev");
        other.file("init", 0o755, b"#!".to_vec());
        other.file("lib/modules/6.0/a.ko", 0o644, b"module".to_vec());
        assert_eq!(tree().cpio(), other.cpio());
        assert_eq!(&tree().cpio()[..6], b"070701");
    }

    #[test]
    fn cpio_lists_what_was_added() {
        use std::io::Write;
        let spawned = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut cpio) = spawned else {
            println!("SKIPPED: cpio is missing");
            return;
        };
        cpio.stdin
            .take()
            .unwrap()
            .write_all(&tree().cpio())
            .unwrap();
        let output = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let listed: Vec<(&str, &str)> = output
            .lines()
            .map(|line| (&line[..10], line.rsplit(' ').next().unwrap()))
            .collect();
        let expected = [
            ("drwxr-xr-x", "dev"),
            ("-rwxr-xr-x", "init"),
            ("drwxr-xr-x", "lib"),
            ("drwxr-xr-x", "lib/modules"),
            ("drwxr-xr-x", "lib/modules/6.0"),
            ("-rw-r--r--", "lib/modules/6.0/a.ko"),
        ];
        assert_eq!(listed, expected);
    }
}
