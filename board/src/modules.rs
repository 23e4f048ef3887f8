//! Kernel modules: loaded by what the hardware calls itself, until nothing new appears.
//!
//! The initrd holds a part of `/lib/modules/RELEASE` in depmod's own layout: the modules, uncompressed, and
//! `modules.dep`, `modules.alias` and `modules.softdep` (modules.dep(5), depmod.d(5)). A device's `modalias` in sysfs is
//! compared with the aliases' globs; a driver that is loaded may bring further devices, hence the fixpoint. The kernel
//! itself would call modprobe for some of this, and there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::say;

/// Rounds of the fixpoint: a chain of buses is never so deep.
const ROUNDS_MAX: usize = 16;
/// Levels of `/sys/devices` that are looked at.
const DEPTH_MAX: usize = 32;

/// What depmod knows of the modules at hand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// Name to file, relative to the release's folder.
    files: BTreeMap<String, String>,
    /// What must be loaded before.
    needs: BTreeMap<String, Vec<String>>,
    /// What should be loaded before, and behind, if it is there.
    soft: BTreeMap<String, (Vec<String>, Vec<String>)>,
    /// Globs with the modules they call for.
    aliases: Vec<(String, String)>,
}

/// A module's name as the kernel has it.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    normal(base.split(".ko").next().unwrap_or(base))
}

impl Index {
    /// From the text of depmod's three files.
    pub(crate) fn parse(dep: &str, alias: &str, softdep: &str) -> Self {
        let mut index = Self::default();
        for (file, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            let name = name_of(file);
            // The file lists what is needed first at its end.
            let needs = needs.split_whitespace().rev().map(name_of).collect();
            index.needs.insert(name.clone(), needs);
            index.files.insert(name, file.to_owned());
        }
        for line in alias.lines() {
            if let ["alias", glob, name] = line.split_whitespace().collect::<Vec<_>>()[..] {
                let name = normal(name);
                if index.files.contains_key(&name) {
                    index.aliases.push((glob.to_owned(), name));
                }
            }
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next() else { continue };
            let (before, behind) = index.soft.entry(normal(name)).or_default();
            let mut list = before;
            let mut rest = Some(behind);
            for word in words {
                match word {
                    "pre:" => {}
                    "post:" => {
                        if let Some(behind) = rest.take() {
                            list = behind;
                        }
                    }
                    module => list.push(normal(module)),
                }
            }
        }
        index
    }

    /// Every module to load for `name`, in this order; empty if it is not at hand. Softdeps may point at each other, so
    /// what was met is not entered again.
    pub(crate) fn order(&self, name: &str) -> Vec<&str> {
        let mut met = BTreeSet::new();
        let mut order = Vec::new();
        self.visit(&normal(name), &mut met, &mut order);
        order
    }

    fn visit<'i>(&'i self, name: &str, met: &mut BTreeSet<&'i str>, order: &mut Vec<&'i str>) {
        let Some((name, _)) = self.files.get_key_value(name) else {
            return;
        };
        if !met.insert(name) {
            return;
        }
        let soft = self.soft.get(name);
        for before in soft.iter().flat_map(|(before, _)| before) {
            self.visit(before, met, order);
        }
        for need in self.needs.get(name).into_iter().flatten() {
            self.visit(need, met, order);
        }
        order.push(name);
        for behind in soft.iter().flat_map(|(_, behind)| behind) {
            self.visit(behind, met, order);
        }
    }

    /// The modules that a device of this `modalias` calls for.
    pub(crate) fn for_device<'i>(&'i self, modalias: &str) -> impl Iterator<Item = &'i str> {
        self.aliases
            .iter()
            .filter(move |(pattern, _)| matches(pattern.as_bytes(), modalias.as_bytes()))
            .map(|(_, name)| name.as_str())
    }
}

/// fnmatch(3) without flags and classes: `*`, `?`, `[a-z]`. Linear in the text for each star, and never recursive.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not fit: behind the star, one byte further in the text.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => set(&pattern[p..], text[t]),
            Some(byte) if *byte == text[t] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(step), _) => {
                p += step;
                t += 1;
            }
            (None, Some((behind, from))) => {
                star = Some((behind, from + 1));
                p = behind;
                t = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Bytes of the set `[…]` at the pattern's front, if `byte` is in it. One that is never closed holds nothing.
fn set(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|it| *it == b']')?;
    let mut members = &pattern[1..end];
    while let [first, rest @ ..] = members {
        let hit = match rest {
            [b'-', last, ..] => {
                members = &rest[2..];
                (*first..=*last).contains(&byte)
            }
            _ => {
                members = rest;
                *first == byte
            }
        };
        if hit {
            return Some(end + 1);
        }
    }
    None
}

/// Loads modules; remembers which.
#[derive(Debug)]
pub(crate) struct Loader {
    folder: PathBuf,
    index: Index,
    /// Loaded, or tried in vain: neither is tried again.
    done: BTreeSet<String>,
}

impl Loader {
    /// The modules of the kernel that runs.
    pub(crate) fn new() -> Self {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy().into_owned();
        let folder = Path::new("/lib/modules").join(release);
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let index = Index::parse(
            &read("modules.dep"),
            &read("modules.alias"),
            &read("modules.softdep"),
        );
        Self {
            folder,
            index,
            done: BTreeSet::new(),
        }
    }

    /// How many are loaded.
    pub(crate) fn count(&self) -> usize {
        self.done.len()
    }

    /// Loads a module and what it needs, if it is at hand.
    pub(crate) fn load(&mut self, name: &str) {
        for name in self.index.order(name) {
            if !self.done.insert(name.to_owned()) {
                continue;
            }
            let path = self.folder.join(&self.index.files[name]);
            let loaded = File::open(path)
                .and_then(|file| Ok(rustix::system::finit_module(&file, parameters(name), 0)?));
            match loaded {
                Ok(()) => {}
                // It is there, or this machine has no such device.
                Err(error) if is(&error, Errno::EXIST) || is(&error, Errno::NODEV) => {}
                Err(error) => say!("module {name}: {error}"),
            }
        }
    }

    /// Loads what the devices call for, until none is left.
    pub(crate) fn coldplug(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut found = Vec::new();
            modaliases(Path::new("/sys/devices"), DEPTH_MAX, &mut found);
            let wanted: BTreeSet<String> = found
                .iter()
                .flat_map(|modalias| self.index.for_device(modalias))
                .filter(|name| !self.done.contains(*name))
                .map(str::to_owned)
                .collect();
            if wanted.is_empty() {
                return;
            }
            for name in wanted {
                self.load(&name);
            }
        }
    }
}

/// What a module is loaded with.
fn parameters(name: &str) -> &'static CStr {
    match name {
        // Left alone it makes a bond0 of its own, in a mode that no switch likes.
        "bonding" => c"max_bonds=0",
        _ => c"",
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn modaliases(folder: &Path, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        // Symbolic links of sysfs lead in circles.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => {
                modaliases(&entry.path(), depth - 1, found);
            }
            Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    found.push(text.trim_end().to_owned());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn globs_as_depmod_writes_them() {
        let cases = [
            (
                "pci:v00008086d00002922sv*sd*bc*sc*i*",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i02",
                false,
            ),
            ("usb:v0BDAp8156d[1-3]*", "usb:v0BDAp8156d3104", true),
            ("usb:v0BDAp8156d[1-3]*", "usb:v0BDAp8156d4104", false),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip[56]0in*",
                "usb:v1p1d1dc0dsc0dp0ic08isc06ip50in00",
                true,
            ),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[", "[", false),
            ("x[]", "x", false),
            ("[a-", "a", false),
            ("[-a]", "-", true),
            ("[a-]", "-", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
        // Many stars against a text that fits none: bounded, not exponential.
        let (pattern, text) = ("*a".repeat(40), "b".repeat(4_000));
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko kernel/fs/mbcache.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/lib/crc16.ko:\nkernel/fs/mbcache.ko:\n\
        kernel/crypto/crc32c_generic.ko:\nkernel/a/one-two.ko:\nkernel/a/three.ko:\n";

    #[test]
    fn what_is_needed_comes_first() {
        let index = Index::parse(
            DEP,
            "",
            "softdep ext4 pre: crc32c_generic absent post: three\n",
        );
        assert_eq!(
            index.order("ext4"),
            [
                "crc32c_generic",
                "mbcache",
                "crc16",
                "jbd2",
                "ext4",
                "three"
            ]
        );
        assert_eq!(index.order("xfs"), Vec::<&str>::new(), "not at hand");
    }

    #[test]
    fn soft_dependencies_in_a_circle_end() {
        let index = Index::parse(
            DEP,
            "",
            "softdep one_two pre: three\nsoftdep three pre: one-two\n",
        );
        assert_eq!(index.order("one-two"), ["three", "one_two"]);
        assert_eq!(index.order("three"), ["one_two", "three"]);
    }

    #[test]
    fn a_device_calls_for_the_modules_at_hand() {
        let alias = "alias pci:v00008086d* one-two\nalias pci:v* absent\nalias fs-ext4 ext4\nalias broken\n";
        let index = Index::parse(DEP, alias, "softdep\nnonsense\n");
        let wanted: Vec<&str> = index.for_device("pci:v00008086d00002922").collect();
        assert_eq!(wanted, ["one_two"]);
    }
}
