//! Debian's packages, each pinned by version and SHA-256 in `inputs.toml`, fetched by this machine's own apt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::fault::{At, Fault};

/// The lock file of this source tree.
const INPUTS: &str = include_str!("../inputs.toml");

/// Its package depends on that of the newest kernel of this line.
const KERNEL_LINE: &str = "linux-image-6.12-amd64";

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Linux and its modules.
    Kernel,
    /// The UEFI program that unpacks and starts the kernel.
    Stub,
    /// The file system's repair, as one static program.
    E2fsck,
}

/// A pinned package.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// What it is for.
    pub role: Role,
    /// Its name in Debian.
    pub name: String,
    /// Its version there.
    pub version: String,
    /// Of the package's file, in hexadecimal.
    pub sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    package: Vec<Package>,
}

/// The packages that this source tree pins.
///
/// # Panics
/// Never: a test reads them.
#[must_use]
pub fn packages() -> Vec<Package> {
    let inputs: Inputs = toml::from_str(INPUTS).expect("the lock file is part of the program");
    inputs.package
}

/// Where packages' files come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// A folder with the files, instead of apt.
    pub folder: Option<PathBuf>,
    /// Where files that apt fetched are kept for the next time, each under its hash.
    pub cache: PathBuf,
}

impl Source {
    /// The bytes of a package's file, with the right hash.
    pub fn get(&self, package: &Package) -> Result<Vec<u8>, Fault> {
        if let Some(folder) = &self.folder {
            return find(folder, package)?.ok_or_else(|| {
                Fault::Other(format!(
                    "no file in {} is {} {} with SHA-256 {}",
                    folder.display(),
                    package.name,
                    package.version,
                    package.sha256
                ))
            });
        }
        let kept = self.cache.join(format!("{}.deb", package.sha256));
        if let Ok(bytes) = fs::read(&kept)
            && hash(&bytes) == package.sha256
        {
            return Ok(bytes);
        }
        let bytes = self.fetch(package)?;
        let part = kept.with_extension("part");
        fs::write(&part, &bytes).at("write", &part)?;
        fs::rename(&part, &kept).at("write", &kept)?;
        Ok(bytes)
    }

    fn fetch(&self, package: &Package) -> Result<Vec<u8>, Fault> {
        let Package { name, version, .. } = package;
        let folder = self.cache.join("apt");
        // A folder of its own: apt names the file, and nothing else is in it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).at("make", &folder)?;
        let got = Command::new("apt-get")
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root"])
            .arg(format!("{name}={version}"))
            .current_dir(&folder)
            .output();
        let why = match got {
            Ok(output) if output.status.success() => match find(&folder, package)? {
                Some(bytes) => {
                    let _ = fs::remove_dir_all(&folder);
                    return Ok(bytes);
                }
                None => "what came has another SHA-256: don't use it".to_owned(),
            },
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => format!("apt-get does not start: {error}"),
        };
        Err(Fault::Other(format!(
            "can't fetch {name} {version} ({why})\nOn a machine without Debian's apt, give a folder with the packages' \
             files: --packages DIR. If Debian offers a newer one by now, `apt-get update` and `images lock` pin it."
        )))
    }
}

/// The lock file's text with what this machine's apt offers today, and what has changed, a line each.
///
/// Apt checks its lists' signatures, and the hashes come from those lists.
pub fn renewed() -> Result<(String, Vec<String>), Fault> {
    let (mut text, mut changes) = (INPUTS.to_owned(), Vec::new());
    for package in packages() {
        let name = match package.role {
            Role::Kernel => first_dependency(&apt_cache(KERNEL_LINE)?)
                .ok_or_else(|| Fault::Other(format!("apt's {KERNEL_LINE} depends on no kernel")))?,
            Role::Stub | Role::E2fsck => package.name.clone(),
        };
        let shown = apt_cache(&name)?;
        let field = |key| {
            field(&shown, key).ok_or_else(|| Fault::Other(format!("apt says no {key} of {name}")))
        };
        let (version, sha256) = (field("Version")?, field("SHA256")?);
        if version == package.version && sha256 == package.sha256 {
            continue;
        }
        changes.push(format!(
            "{} {} is now {name} {version}",
            package.name, package.version
        ));
        for (old, new) in [
            (&package.name, &name),
            (&package.version, &version),
            (&package.sha256, &sha256),
        ] {
            text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        }
    }
    Ok((text, changes))
}

/// The newest version of a package, as apt's lists describe it.
fn apt_cache(name: &str) -> Result<String, Fault> {
    let shown = Command::new("apt-cache")
        .args(["show", "--no-all-versions", name])
        .output();
    let shown =
        shown.map_err(|error| Fault::Other(format!("apt-cache does not start: {error}")))?;
    if !shown.status.success() {
        return Err(Fault::Other(format!(
            "apt knows no package {name}; apt-get update may help"
        )));
    }
    Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
}

/// A field of a package's description (deb822(5)).
fn field(shown: &str, key: &str) -> Option<String> {
    let line = shown
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn first_dependency(shown: &str) -> Option<String> {
    let depends = field(shown, "Depends")?;
    depends
        .split([' ', ','])
        .next()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// The file in a folder that has the package's hash, whatever its name.
fn find(folder: &Path, package: &Package) -> Result<Option<Vec<u8>>, Fault> {
    for entry in fs::read_dir(folder).at("read", folder)? {
        let path = entry.at("read", folder)?.path();
        let likely = path.file_name().and_then(|name| name.to_str());
        if likely.is_some_and(|name| name.starts_with(&package.name)) {
            let bytes = fs::read(&path).at("read", &path)?;
            if hash(&bytes) == package.sha256 {
                return Ok(Some(bytes));
            }
        }
    }
    Ok(None)
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_pins_one_package_of_each_role() {
        let mut roles: Vec<Role> = packages().iter().map(|package| package.role).collect();
        roles.sort();
        assert_eq!(roles, [Role::Kernel, Role::Stub, Role::E2fsck]);
        for package in packages() {
            assert!(
                package.sha256.len() == 64 && !package.version.is_empty(),
                "{package:?}"
            );
        }
    }

    #[test]
    fn a_description_is_read_as_apt_prints_it() {
        let shown = "Package: linux-image-6.12-amd64\nVersion: 6.12.117-1~deb12u1\n\
            Pre-Depends: x\nDepends: linux-image-6.12.117+deb12-amd64 (= 6.12.117-1~deb12u1), y\nSHA256: ab\n";
        assert_eq!(
            first_dependency(shown).as_deref(),
            Some("linux-image-6.12.117+deb12-amd64")
        );
        assert_eq!(
            field(shown, "Version").as_deref(),
            Some("6.12.117-1~deb12u1")
        );
        assert_eq!(field(shown, "SHA"), None);
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_file_with_another_hash_is_no_package() {
        let folder = std::env::temp_dir().join(format!("howdah-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let package = Package {
            role: Role::Stub,
            name: "stub".to_owned(),
            version: "1".to_owned(),
            sha256: hash(b"right"),
        };
        let source = Source {
            folder: Some(folder.clone()),
            cache: folder.clone(),
        };
        fs::write(folder.join("stub_1.deb"), b"wrong").unwrap();
        assert!(source.get(&package).is_err());
        fs::write(folder.join("stub_0.deb"), b"right").unwrap();
        assert_eq!(source.get(&package).unwrap(), b"right");
        fs::remove_dir_all(folder).unwrap();
    }
}
