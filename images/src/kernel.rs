//! The kernel and that part of its modules which an image carries: those named, and what they need.
//!
//! A module says itself what it needs (`depends`), what it would like to have loaded before (`softdep`) and which
//! devices it is for (`alias`), in the section `.modinfo` of its ELF file. depmod(8) is therefore not needed; its three
//! text files are written here, for the modules at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::deb;
use crate::fault::Fault;

/// The names of this source tree.
const WANTED: &str = include_str!("../modules.txt");

/// What a kernel's package holds.
#[derive(Debug, Default)]
pub struct Package {
    /// As `uname -r` says.
    pub release: String,
    /// The bootable image.
    pub image: Vec<u8>,
    /// Modules by name: path below `lib/modules/RELEASE`, and the file as packed.
    modules: BTreeMap<String, (String, Vec<u8>)>,
    /// What is no module in this kernel.
    builtin: BTreeSet<String>,
}

/// A module that an image carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Below `lib/modules/RELEASE`, unpacked.
    pub path: String,
    /// The ELF file, with the signature at its end untouched.
    pub bytes: Vec<u8>,
    info: Info,
}

/// What a module says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    /// As they stand in the module: `pre: a b post: c`.
    softdeps: Vec<String>,
    aliases: Vec<String>,
}

/// A module's name as the kernel has it.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split(".ko").next().unwrap_or(file))
}

/// The names in `modules.txt`.
pub fn wanted() -> impl Iterator<Item = &'static str> {
    let lines = WANTED.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace)
}

impl Package {
    /// Unpacks a kernel's package.
    pub fn unpack(package: &[u8]) -> Result<Self, Fault> {
        let files = deb::files(package, |path| {
            path.starts_with("boot/vmlinuz-") || path.contains("lib/modules/")
        })?;
        let mut kernel = Self::default();
        for (path, bytes) in files {
            if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
                kernel.release = release.to_owned();
                kernel.image = bytes;
                continue;
            }
            let below = path
                .split_once("lib/modules/")
                .and_then(|(_, path)| path.split_once('/'));
            let Some((_, path)) = below else { continue };
            if path == "modules.builtin" {
                let text = String::from_utf8_lossy(&bytes);
                kernel.builtin = text.lines().map(name_of).collect();
            } else if path.ends_with(".ko") || path.ends_with(".ko.xz") {
                kernel
                    .modules
                    .insert(name_of(path), (path.to_owned(), bytes));
            }
        }
        if kernel.image.is_empty() || kernel.modules.is_empty() {
            return Err(Fault::other(
                "the kernel's package holds no kernel, or no modules",
            ));
        }
        Ok(kernel)
    }

    /// The modules named and all that they need, in the order of their names.
    pub fn closure<'n>(
        &self,
        wanted: impl IntoIterator<Item = &'n str>,
    ) -> Result<BTreeMap<String, Module>, Fault> {
        let mut closure = BTreeMap::new();
        let mut todo: Vec<String> = wanted.into_iter().map(normal).collect();
        // Seen, not finished: soft dependencies may run in circles.
        let mut seen: BTreeSet<String> = todo.iter().cloned().collect();
        while let Some(name) = todo.pop() {
            if self.builtin.contains(&name) {
                continue;
            }
            let Some((path, packed)) = self.modules.get(&name) else {
                return Err(Fault::Other(format!(
                    "kernel {} has no module {name}: correct images/modules.txt",
                    self.release
                )));
            };
            let broken =
                |why: &dyn std::fmt::Display| Fault::Other(format!("module {name}: {why}"));
            let (path, bytes) = match path.strip_suffix(".xz") {
                Some(path) => (path, deb::unxz(packed).map_err(|error| broken(&error))?),
                None => (path.as_str(), packed.clone()),
            };
            let info = Info::read(&bytes).ok_or_else(|| broken(&"it has no .modinfo"))?;
            // A soft dependency that is no module's name is an alias, such as a cipher's: which of those are needed
            // stands in the list of modules.
            let soft = info
                .soft_names()
                .filter(|soft| self.modules.contains_key(soft));
            for need in info.depends.iter().cloned().chain(soft) {
                if seen.insert(need.clone()) {
                    todo.push(need);
                }
            }
            let path = path.to_owned();
            closure.insert(name, Module { path, bytes, info });
        }
        Ok(closure)
    }
}

impl Info {
    /// From the section `.modinfo`: `key=value`, each with a zero behind it. `None` if there is none.
    fn read(elf: &[u8]) -> Option<Self> {
        let mut info = Self::default();
        for line in section(elf, b".modinfo")?.split(|byte| *byte == 0) {
            let line = String::from_utf8_lossy(line);
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match key {
                "depends" => {
                    let names = value.split(',').filter(|name| !name.is_empty());
                    info.depends.extend(names.map(normal));
                }
                "softdep" => info.softdeps.push(value.to_owned()),
                "alias" => info.aliases.push(value.to_owned()),
                _ => {}
            }
        }
        Some(info)
    }

    fn soft_names(&self) -> impl Iterator<Item = String> + '_ {
        let words = self
            .softdeps
            .iter()
            .flat_map(|line| line.split_whitespace());
        words.filter(|word| !word.ends_with(':')).map(normal)
    }
}

/// A section of an ELF file of 64 bits, little-endian (elf(5)).
fn section<'e>(elf: &'e [u8], wanted: &[u8]) -> Option<&'e [u8]> {
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let mut eight = [0; 8];
        eight[..bytes].copy_from_slice(elf.get(at..at.checked_add(bytes)?)?);
        usize::try_from(u64::from_le_bytes(eight)).ok()
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, entry, count, names) = (
        number(40, 8)?,
        number(58, 2)?,
        number(60, 2)?,
        number(62, 2)?,
    );
    let header = |index: usize| table.checked_add(index.checked_mul(entry)?);
    let content = |header: usize| {
        let (offset, bytes) = (
            number(header.checked_add(24)?, 8)?,
            number(header.checked_add(32)?, 8)?,
        );
        elf.get(offset..offset.checked_add(bytes)?)
    };
    let strings = content(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = strings.get(number(header, 4)?..)?;
        let matches = name.strip_prefix(wanted)?.first() == Some(&0);
        matches.then(|| content(header)).flatten()
    })
}

/// depmod's text files for these modules: (name, content).
#[must_use]
pub fn indexes(closure: &BTreeMap<String, Module>) -> [(&'static str, String); 3] {
    let (mut dep, mut alias, mut softdep) = (String::new(), String::new(), String::new());
    for (name, module) in closure {
        let mut needs = Vec::new();
        needed(closure, module, &mut needs);
        let needs: String = needs
            .iter()
            .map(|need| format!(" {}", closure[*need].path))
            .collect();
        // Writing to a string never fails.
        let _ = writeln!(dep, "{}:{needs}", module.path);
        for glob in &module.info.aliases {
            let _ = writeln!(alias, "alias {glob} {name}");
        }
        for line in &module.info.softdeps {
            let _ = writeln!(softdep, "softdep {name} {line}");
        }
    }
    [
        ("modules.dep", dep),
        ("modules.alias", alias),
        ("modules.softdep", softdep),
    ]
}

/// All that a module needs, each before what it needs itself: the last one is loaded first (modules.dep(5)).
fn needed<'c>(closure: &'c BTreeMap<String, Module>, module: &'c Module, needs: &mut Vec<&'c str>) {
    for need in &module.info.depends {
        // What is built into the kernel is not among them. Hard dependencies have no circles: symbols could not be
        // resolved.
        if let Some(further) = closure.get(need) {
            // Behind whatever needs it.
            needs.retain(|earlier| earlier != need);
            needs.push(need);
            needed(closure, further, needs);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An ELF file whose sections are null, `.modinfo` and the names.
    fn elf(info: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let info = info.replace('\n', "\0");
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let table = 64 + names.len() + info.len();
        elf[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        elf[58..64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        elf.extend_from_slice(names);
        elf.extend_from_slice(info.as_bytes());
        let mut header = |name: u32, offset: usize, bytes: usize| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(bytes as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        };
        header(0, 0, 0);
        header(1, 64 + names.len(), info.len());
        header(10, 64, names.len());
        elf
    }

    fn kernel(modules: &[(&str, &str)]) -> Package {
        let modules = modules.iter().map(|(name, info)| {
            let path = format!("kernel/{name}.ko");
            (name_of(&path), (path, elf(info)))
        });
        Package {
            release: "6.0-test".to_owned(),
            image: vec![1],
            modules: modules.collect(),
            builtin: BTreeSet::from(["libata".to_owned()]),
        }
    }

    #[test]
    fn what_is_named_and_needed_and_nothing_else() {
        let kernel = kernel(&[
            (
                "ext4",
                "license=GPL\ndepends=jbd2,crc16,mb-cache\nalias=fs-ext4\nsoftdep=pre: crc32c\n",
            ),
            ("jbd2", "depends=crc16\n"),
            ("crc16", "depends=\n"),
            ("mb-cache", "depends=\n"),
            ("xfs", "depends=crc16\n"),
        ]);
        let closure = kernel.closure(["ext4", "libata"]).unwrap();
        let names: Vec<&String> = closure.keys().collect();
        assert_eq!(names, ["crc16", "ext4", "jbd2", "mb_cache"]);
        let [(_, dep), (_, alias), (_, softdep)] = indexes(&closure);
        assert_eq!(
            dep,
            "kernel/crc16.ko:\nkernel/ext4.ko: kernel/jbd2.ko kernel/crc16.ko kernel/mb-cache.ko\n\
             kernel/jbd2.ko: kernel/crc16.ko\nkernel/mb-cache.ko:\n"
        );
        assert_eq!(
            (alias.as_str(), softdep.as_str()),
            ("alias fs-ext4 ext4\n", "softdep ext4 pre: crc32c\n")
        );
    }

    #[test]
    fn soft_dependencies_in_a_circle_end() {
        let kernel = kernel(&[
            ("a", "softdep=pre: b\n"),
            ("b", "softdep=pre: c post: a\n"),
            ("c", "depends=\n"),
        ]);
        assert_eq!(kernel.closure(["a"]).unwrap().len(), 3);
    }

    #[test]
    fn a_name_that_the_kernel_lacks_is_a_fault() {
        let missing = kernel(&[("a", "depends=b\n")]).closure(["a"]).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "kernel 6.0-test has no module b: correct images/modules.txt"
        );
    }

    #[test]
    fn no_name_stands_in_the_list_twice() {
        let mut names: Vec<&str> = wanted().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200, value: u8) {
            let _ = Info::read(&bytes);
            if bytes.len() >= 6 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
                let _ = Info::read(&bytes);
            }
            let mut near = elf("depends=a\n");
            if let Some(byte) = near.get_mut(at) {
                *byte = value;
            }
            let _ = Info::read(&near);
        }
    }
}
