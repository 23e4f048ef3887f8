//! Commands that need no running broker: a site file checked, disks made, read and repaired.
//!
//! Each takes the disk's lock first, so that none works on a disk that a broker serves from. What is printed for
//! programs goes to stdout as JSON lines; why something was not done goes to stderr.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use model::SiteUuid;
use serde_json::{Value, json};
use store::verify::Event;
use store::{DiskState, LinuxIo, OpenError, Superblock, read_superblock};

use crate::lock::DiskLock;
use crate::run::{Refusal, refusal};
use crate::{AdoptArgs, DiskArgs, FormatArgs, exit};

mod adopt;
mod dump;
mod format;
mod recover;

/// `howdah check`: the plan on stdout, or what is wrong: for people on stderr, for programs on stdout.
pub(crate) fn check(file: &Path, json: bool) -> ExitCode {
    let report = site::check::check_file(file, json);
    let done = if report.legal || json {
        write_out(&report.text)
    } else {
        eprint!("{}", report.text);
        Ok(())
    };
    if report.legal {
        end("check", done)
    } else {
        exit::code(exit::USAGE)
    }
}

/// `howdah format`.
pub(crate) fn format(args: &FormatArgs) -> ExitCode {
    end("format", format::run(args))
}

/// `howdah verify`.
pub(crate) fn verify(disk: &DiskArgs, json: bool) -> ExitCode {
    end("verify", verify_disk(disk, json))
}

/// `howdah dump`.
pub(crate) fn dump(path: &Path, journal: Option<PathBuf>, json: bool) -> ExitCode {
    end("dump", dump::run(path, journal, json))
}

/// `howdah recover`.
pub(crate) fn recover(disk: &DiskArgs, accept: bool) -> ExitCode {
    end("recover", recover::run(disk, accept))
}

/// `howdah adopt`.
pub(crate) fn adopt(args: &AdoptArgs) -> ExitCode {
    end("adopt", adopt::run(args))
}

fn end(verb: &str, done: Result<(), Refusal>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal { code, why }) => {
            eprintln!("howdah {verb}: {why}");
            exit::code(code)
        }
    }
}

/// Writes to stdout. A reader that has seen enough is no fault.
fn write_out(text: &str) -> Result<(), Refusal> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(refusal(exit::FAULT, format!("writing to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// A stopped node's disk.
struct Stopped {
    io: LinuxIo,
    superblock: Superblock,
    _lock: DiskLock,
}

/// Takes the disk in `dir`, which must be one of ours and not in use; its ring lies at `journal` if that is a device of its
/// own. That it is this disk's ring shows when it is read.
fn open(dir: &Path, journal: Option<PathBuf>) -> Result<Stopped, Refusal> {
    let lock = take(dir)?;
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    let named = journal.is_some();
    let io = LinuxIo::new(dir, journal).map_err(|error| refusal(exit::USAGE, at(&error)))?;
    let (superblock, _) = read_superblock(&io).map_err(|error| refusal(exit::FAULT, at(&error)))?;
    journal_named(&superblock, named).map_err(|why| refusal(exit::USAGE, at(&why)))?;
    Ok(Stopped {
        io,
        superblock,
        _lock: lock,
    })
}

/// A ring that is a device of its own must be named, and no other.
fn journal_named(superblock: &Superblock, named: bool) -> Result<(), &'static str> {
    match (superblock.journal_apart, named) {
        (true, false) => Err(
            "its journal is a device of its own: name it with --journal, or the site file that does with --site",
        ),
        (false, true) => Err("its journal lies in its directory: leave --journal out"),
        _ => Ok(()),
    }
}

fn take(dir: &Path) -> Result<DiskLock, Refusal> {
    DiskLock::take(dir).map_err(|error| {
        let (code, why) = match error.kind() {
            io::ErrorKind::WouldBlock => (
                exit::REFUSED,
                "in use by a running howdah: stop it first".to_owned(),
            ),
            _ => (exit::USAGE, error.to_string()),
        };
        refusal(code, format!("{}: {why}", dir.display()))
    })
}

/// A disk in a few words.
fn describe(superblock: &Superblock) -> String {
    let role = if superblock.meta {
        "meta disk"
    } else {
        "data disk"
    };
    let state = match superblock.state {
        DiskState::Fresh => ", of no site yet",
        DiskState::Member => "",
        DiskState::Replacement => ", a replacement that has not caught up",
        DiskState::Failed => ", failed",
        DiskState::Suspect => ", SUSPECT: its journal is rotten",
    };
    let site = if superblock.site == SiteUuid::default() {
        String::new()
    } else {
        format!(", site {}", superblock.site)
    };
    format!(
        "{role} {} of node {}{site}{state}",
        superblock.disk, superblock.node.0
    )
}

/// Reads everything. Damage found is exit code 1.
fn verify_disk(disk: &DiskArgs, json: bool) -> Result<(), Refusal> {
    let dir = &disk.dir;
    let stopped = open(dir, disk.journal.clone())?;
    let bar = cli::progress::bar(
        Some(0),
        "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
    );
    let mut told = Ok(());
    let report = store::verify::verify(&stopped.io, &mut |event| {
        let line = match event {
            Event::Progress { done, total } => {
                bar.set_length(total);
                bar.set_position(done);
                return;
            }
            Event::Fault(fault) if json => fault_json("fault", &fault),
            Event::Spare(fault) if json => fault_json("spare", &fault),
            Event::Fault(fault) => format!("FAULT  {fault}\n"),
            Event::Spare(fault) => format!("one of two copies, the other one counts: {fault}\n"),
        };
        if told.is_ok() {
            told = bar.suspend(|| write_out(&line));
        }
    });
    bar.finish_and_clear();
    told?;
    let summary = if json {
        let summary = json!({
            "kind": "summary",
            "disk": stopped.superblock.disk.to_string(),
            "faults": report.faults,
            "replicas": report.replicas,
            "extents": report.extents,
            "batches": report.batches,
            "bytes": report.bytes,
            "groups": report.groups,
        });
        format!("{summary}\n")
    } else {
        format!(
            "{}: {}; {} replicas, {} extents, {} batches of {}, {} groups in the journal: {}\n",
            dir.display(),
            describe(&stopped.superblock),
            report.replicas,
            report.extents,
            report.batches,
            site::units::format_size(report.bytes),
            report.groups,
            match report.faults {
                0 => "no fault".to_owned(),
                1 => "1 fault".to_owned(),
                faults => format!("{faults} faults"),
            }
        )
    };
    write_out(&summary)?;
    match report.faults {
        0 => Ok(()),
        _ => Err(refusal(
            exit::FAULT,
            format!("{} is damaged", dir.display()),
        )),
    }
}

fn fault_json(kind: &str, fault: &store::verify::Fault) -> String {
    let line: Value = json!({
        "kind": kind,
        "file": fault.file.to_string(),
        "at": fault.at,
        "found": fault.found,
        "expected": fault.expected,
    });
    format!("{line}\n")
}

/// What went wrong with the disk in `dir`.
fn disk_fault(dir: &Path, error: &OpenError) -> Refusal {
    refusal(exit::FAULT, format!("{}: {error}", dir.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing {
    use std::fs;
    use std::path::PathBuf;

    use site::Site;

    use crate::NodeArgs;
    use crate::spindle::open::{Opened, open_all, places};

    /// A node with two disks in a directory that goes when this does.
    pub(super) struct Node {
        pub(super) directory: PathBuf,
        pub(super) file: PathBuf,
        pub(super) data: PathBuf,
        pub(super) site: Site,
    }

    impl Node {
        /// Each disk's journal lies in its directory.
        pub(super) fn new(name: &str) -> Self {
            let inside = |_: &str| "\"32MiB\"".to_owned();
            Self::with_journals(name, inside)
        }

        /// Each disk's journal is a place of its own, a file named like the disk.
        pub(super) fn with_journals_apart(name: &str) -> Self {
            let apart = |disk: &str| format!("{{ path = \"{disk}.ring\", bytes = \"32MiB\" }}");
            Self::with_journals(name, apart)
        }

        fn with_journals(name: &str, journal: impl Fn(&str) -> String) -> Self {
            let own = format!("howdah-offline-{name}-{}", std::process::id());
            let directory = std::env::temp_dir().join(own);
            fs::create_dir(&directory).unwrap();
            let file = directory.join("site.toml");
            let disk = |name| {
                let journal = journal(name);
                format!("[[node.disk]]\npath = \"{name}\"\nuse = \"2GiB\"\njournal = {journal}\n")
            };
            let text = format!(
                "[site]\nname = \"t\"\n[[node]]\nname = \"a\"\naddress = \"127.0.0.1\"\n{}{}",
                disk("d1"),
                disk("d2")
            );
            fs::write(&file, text).unwrap();
            let site = site::load(&file).unwrap();
            let data = directory.join("data");
            Self {
                directory,
                file,
                data,
                site,
            }
        }

        /// What names the node on a command line.
        pub(super) fn own(&self) -> NodeArgs {
            NodeArgs {
                node: None,
                data: self.data.clone(),
            }
        }

        /// Opens the disks as a start of the node does; meta disk first.
        pub(super) fn open(&self) -> Result<Vec<Opened>, String> {
            places(&self.site.nodes[0], &self.data, &[])
                .and_then(|places| open_all(&self.site, 0, places))
                .map(|(opened, _)| opened)
                .map_err(|fault| fault.to_string())
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
