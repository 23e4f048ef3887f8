//! From a site file, two programs, a loader and three packages to a disk image and the list of what is in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config;
use crate::deb;
use crate::disk::{Contents, Image};
use crate::fault::{At, Fault};
use crate::initrd::Tree;
use crate::kernel;
use crate::keys;
use crate::lock::{self, Role, Source};
use crate::output::{self, Format};
use crate::sbom::Manifest;
use crate::uki;

/// Where the stub lies in its package.
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Where the file system's repair lies in its package.
const E2FSCK: &str = "sbin/e2fsck.static";
/// A panic ends in a reset, or the loader never gets its turn to fall back. board says what it does at level 5 (notice),
/// and a console shows what lies below its own level.
const COMMAND_LINE: &str = "console=tty0 console=ttyS0,115200n8 panic=5 loglevel=6";

/// What to make.
#[derive(Clone, Debug, Args)]
pub struct Build {
    /// The site file; it needs a table [appliance]
    pub site: PathBuf,
    /// Where the image goes; SITE's name with the format's ending, if none is given
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// What it is written as
    #[arg(long, value_enum, default_value = "raw")]
    pub format: Format,
    /// The program that becomes PID 1, linked statically
    #[arg(long, value_name = "FILE")]
    pub init: PathBuf,
    /// The broker, linked statically
    #[arg(long, value_name = "FILE")]
    pub broker: PathBuf,
    /// The loader, for UEFI
    #[arg(long, value_name = "FILE")]
    pub loader: PathBuf,
    /// The release's name, which nodes show
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    pub release: String,
    /// A folder with the packages' files, instead of this machine's apt
    #[arg(long, value_name = "DIR")]
    pub packages: Option<PathBuf>,
    /// Where fetched packages are kept
    #[arg(long, value_name = "DIR", default_value = "target/images")]
    pub cache: PathBuf,
    /// Words added to the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub command_line: String,
    /// How hard the first root file system is packed, 1 to 19
    #[arg(long, value_name = "LEVEL", default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// Cargo.lock files of the programs, for the list of contents
    #[arg(long, value_name = "FILE")]
    pub crates: Vec<PathBuf>,
}

/// What a payload is made of, beside the packages.
#[derive(Debug)]
pub struct Programs {
    /// PID 1.
    pub init: Vec<u8>,
    /// The broker.
    pub broker: Vec<u8>,
}

impl Build {
    /// Makes the image and the list beside it. `step` hears what is done next.
    pub fn run(&self, mut step: impl FnMut(&str)) -> Result<String, Fault> {
        let read = |path: &Path| fs::read(path).at("read", path);
        // What can be wrong is looked at before anything slow is done.
        let site = config::site(&self.site)?;
        let keys = keys::load(&site, &self.site, &mut step)?.map(|keys| keys.encode());
        let programs = Programs {
            init: read(&self.init)?,
            broker: read(&self.broker)?,
        };
        let loader = read(&self.loader)?;
        let packages = lock::packages();
        fs::create_dir_all(&self.cache).at("make", &self.cache)?;
        let source = Source {
            folder: self.packages.clone(),
            cache: self.cache.clone(),
        };
        let mut files = BTreeMap::new();
        for package in &packages {
            step(&format!("package {} {}", package.name, package.version));
            files.insert(package.role, source.get(package)?);
        }
        step("unpacking the kernel");
        let kernel = kernel::Package::unpack(&files[&Role::Kernel])?;
        let modules = kernel.closure(kernel::wanted())?;
        let system = System {
            stub: one(&files[&Role::Stub], STUB)?,
            e2fsck: one(&files[&Role::E2fsck], E2FSCK)?,
            kernel,
            modules,
        };
        step(&format!(
            "packing {} modules and the programs",
            system.modules.len()
        ));
        let payload = system.payload(&programs, &self.release, &self.command_line, self.level)?;
        let watchdog_ms = site
            .appliance
            .as_ref()
            .map_or(0, |appliance| appliance.watchdog_ms);
        let contents = Contents {
            loader: &loader,
            payload: &payload,
            release: &self.release,
            watchdog_seconds: u16::try_from(watchdog_ms.div_ceil(1000)).unwrap_or(u16::MAX),
            site: &site.to_blob(),
            keys: keys.as_ref().map(<[u8; _]>::as_slice),
        };
        let image = Image::boot_disk(&contents)?;
        let output = self.output_path(&site.name);
        step(&format!("writing {}", output.display()));
        if let Some(folder) = output
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::create_dir_all(folder).at("make", folder)?;
        }
        output::write(&image, self.format, &output)?;
        let manifest = Manifest {
            release: &self.release,
            payload: &payload,
            packages: &packages,
            system: &system,
            programs: &programs,
            loader: &loader,
            crates: &self.crates,
        };
        let list = output.with_extension("sbom.json");
        fs::write(&list, manifest.to_json()?).at("write", &list)?;
        Ok(format!(
            "{}: site {}, release {}, system {:.1} MB of kernel {} with {} modules; contents in {}",
            output.display(),
            site.name,
            self.release,
            payload.len() as f64 / 1e6,
            system.kernel.release,
            system.modules.len(),
            list.display()
        ))
    }

    fn output_path(&self, site: &str) -> PathBuf {
        let default = || PathBuf::from(format!("{site}.{}", self.format.ending()));
        self.output.clone().unwrap_or_else(default)
    }
}

fn one(package: &[u8], path: &str) -> Result<Vec<u8>, Fault> {
    let mut files = deb::files(package, |found| found == path)?;
    files
        .remove(path)
        .ok_or_else(|| Fault::Other(format!("the package holds no {path}")))
}

/// What Debian gives to a payload.
#[derive(Debug)]
pub struct System {
    /// systemd's UEFI stub.
    pub stub: Vec<u8>,
    /// The file system's repair.
    pub e2fsck: Vec<u8>,
    /// The kernel.
    pub kernel: kernel::Package,
    /// That part of its modules that goes along.
    pub modules: BTreeMap<String, kernel::Module>,
}

impl System {
    /// One file that the firmware can start: kernel, first root file system, command line.
    pub fn payload(
        &self,
        programs: &Programs,
        release: &str,
        command_line: &str,
        level: i32,
    ) -> Result<Vec<u8>, Fault> {
        let os_release = format!(
            "ID=howdah\nNAME=Howdah\nPRETTY_NAME=\"Howdah {release}\"\nVERSION_ID={release}\nIMAGE_ID=howdah\nIMAGE_VERSION={release}\n"
        );
        let mut tree = Tree::default();
        for folder in ["dev", "etc", "proc", "run", "sys", "tmp"] {
            tree.folder(folder);
        }
        tree.file("init", 0o755, programs.init.clone());
        tree.file("howdah", 0o755, programs.broker.clone());
        tree.file("sbin/e2fsck", 0o755, self.e2fsck.clone());
        tree.file("etc/os-release", 0o644, os_release.clone().into_bytes());
        let folder = format!("lib/modules/{}", self.kernel.release);
        for module in self.modules.values() {
            tree.file(
                &format!("{folder}/{}", module.path),
                0o644,
                module.bytes.clone(),
            );
        }
        for (name, text) in kernel::indexes(&self.modules) {
            tree.file(&format!("{folder}/{name}"), 0o644, text.into_bytes());
        }
        let initrd = tree
            .packed(level)
            .map_err(|error| Fault::Other(format!("can't pack the initrd: {error}")))?;
        let command_line = format!("{COMMAND_LINE} {command_line}");
        uki::append(
            &self.stub,
            &[
                (".osrel", os_release.as_bytes()),
                (".cmdline", command_line.trim_end().as_bytes()),
                (".uname", self.kernel.release.as_bytes()),
                (".linux", &self.kernel.image),
                (".initrd", &initrd),
            ],
        )
    }
}
