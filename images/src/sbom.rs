//! What is in an image, as JSON that tools for vulnerabilities read: CycloneDX 1.5.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::build::{Programs, System};
use crate::fault::{At, Fault};
use crate::lock::{Package, hash};

/// What an image was made of.
#[derive(Debug)]
pub struct Manifest<'m> {
    /// The release's name.
    pub release: &'m str,
    /// What lies in the slot.
    pub payload: &'m [u8],
    /// Debian's part, as pinned.
    pub packages: &'m [Package],
    /// Debian's part, as unpacked.
    pub system: &'m System,
    /// Our part.
    pub programs: &'m Programs,
    /// The loader.
    pub loader: &'m [u8],
    /// Cargo.lock files of our part.
    pub crates: &'m [PathBuf],
}

/// Of a Cargo.lock, what is listed.
#[derive(Deserialize)]
struct CargoLock {
    #[serde(default)]
    package: Vec<Crate>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    /// Absent for what is our own.
    source: Option<String>,
    checksum: Option<String>,
}

impl Manifest<'_> {
    /// The document, with a newline at its end. It holds no time: the same image has the same list.
    pub fn to_json(&self) -> Result<String, Fault> {
        let mut components: Vec<Value> = self.packages.iter().map(debian).collect();
        for (name, bytes) in [
            ("board", &self.programs.init[..]),
            ("howdah", &self.programs.broker),
            ("bootsel", self.loader),
        ] {
            components.push(json!({
                "type": "application", "name": name, "version": self.release,
                "hashes": [{ "alg": "SHA-256", "content": hash(bytes) }],
            }));
        }
        components.extend(self.crates()?);
        let modules = self.system.modules.values().map(|module| {
            json!({
                "type": "file", "name": module.path, "version": self.system.kernel.release,
                "hashes": [{ "alg": "SHA-256", "content": hash(&module.bytes) }],
            })
        });
        components.extend(modules);
        let document = json!({
            "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": { "component": {
                "type": "operating-system", "name": "howdah-image", "version": self.release,
                "hashes": [{ "alg": "SHA-256", "content": hash(self.payload) }],
                "properties": [{ "name": "howdah:kernel", "value": self.system.kernel.release }],
            }},
            "components": components,
        });
        let text = serde_json::to_string_pretty(&document).map_err(Fault::other)?;
        Ok(text + "\n")
    }

    /// Every crate that the lock files name, tests' own ones included: the list is rather too long than too short.
    fn crates(&self) -> Result<Vec<Value>, Fault> {
        let mut crates = Vec::new();
        for path in self.crates {
            let text = fs::read_to_string(path).at("read", path)?;
            let lock: CargoLock = toml::from_str(&text).map_err(|error| {
                Fault::Other(format!("{} is no Cargo.lock: {error}", path.display()))
            })?;
            crates.extend(
                lock.package
                    .into_iter()
                    .filter(|found| found.source.is_some()),
            );
        }
        crates.sort();
        crates.dedup();
        let listed = crates.into_iter().map(|found| {
            let Crate {
                name,
                version,
                checksum,
                ..
            } = found;
            let hashes: Vec<Value> = checksum
                .iter()
                .map(|sum| json!({ "alg": "SHA-256", "content": sum }))
                .collect();
            json!({
                "type": "library", "name": name, "version": version,
                "purl": format!("pkg:cargo/{name}@{version}"), "hashes": hashes,
            })
        });
        Ok(listed.collect())
    }
}

fn debian(package: &Package) -> Value {
    let Package {
        name,
        version,
        sha256,
        ..
    } = package;
    // A plus sign in a package URL means itself only when it is escaped.
    let (name_escaped, version_escaped) = (name.replace('+', "%2B"), version.replace('+', "%2B"));
    json!({
        "type": "operating-system", "name": name, "version": version,
        "purl": format!("pkg:deb/debian/{name_escaped}@{version_escaped}?arch=amd64"),
        "hashes": [{ "alg": "SHA-256", "content": sha256 }],
    })
}
