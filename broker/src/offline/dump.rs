//! `howdah dump`: what lies on a stopped disk, or in one file of it, a line an item.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use model::Uuid;
use store::dump::{Item, Parts};
use store::{LinuxIo, read_superblock};

use super::{journal_named, take};
use crate::exit;
use crate::run::{Refusal, refusal};

/// Prints everything, however damaged. What can't be read is an item like others: whether that is wrong says `verify`.
pub(super) fn run(path: &Path, journal: Option<PathBuf>, json: bool) -> Result<(), Refusal> {
    let usage = |error: io::Error| refusal(exit::USAGE, format!("{}: {error}", path.display()));
    let mut printer = Printer::new(json);
    if fs::metadata(path).map_err(usage)?.is_dir() {
        let _lock = take(path)?;
        let named = journal.is_some();
        let io = LinuxIo::new(path, journal).map_err(usage)?;
        if let Ok((superblock, _)) = read_superblock(&io) {
            journal_named(&superblock, named).map_err(|why| usage(io::Error::other(why)))?;
        }
        store::dump::disk(&io, Parts::default(), &mut |item| printer.print(&item));
    } else {
        let file = File::open(path).map_err(usage)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        store::dump::file(&name, &file, journal_uuid(path), &mut |item| {
            printer.print(&item)
        });
    }
    printer.end()
}

/// What the groups of a ring are checked with: it stands in the superblock beside it, if there is one.
fn journal_uuid(file: &Path) -> Option<Uuid> {
    let directory = file
        .parent()
        .filter(|parent| parent.components().next().is_some());
    let io = LinuxIo::new(directory.unwrap_or(Path::new(".")), None).ok()?;
    read_superblock(&io)
        .ok()
        .map(|(superblock, _)| superblock.journal)
}

struct Printer {
    json: bool,
    out: BufWriter<io::Stdout>,
    bar: indicatif::ProgressBar,
    failed: Option<io::Error>,
}

impl Printer {
    fn new(json: bool) -> Self {
        // Where the items run over the screen a bar would only be in their way.
        let bar = if io::stdout().is_terminal() {
            indicatif::ProgressBar::hidden()
        } else {
            cli::progress::bar(None, "{spinner} {human_pos} items")
        };
        let out = BufWriter::with_capacity(256 * 1024, io::stdout());
        Self {
            json,
            out,
            bar,
            failed: None,
        }
    }

    fn print(&mut self, item: &Item) -> ControlFlow<()> {
        self.bar.inc(1);
        let written = if self.json {
            serde_json::to_writer(&mut self.out, item)
                .map_err(io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"))
        } else {
            writeln!(self.out, "{item}")
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn end(mut self) -> Result<(), Refusal> {
        self.bar.finish_and_clear();
        let failed = self.failed.take().or_else(|| self.out.flush().err());
        match failed {
            // A reader that has seen enough is no fault.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(error) => Err(refusal(exit::FAULT, format!("writing to stdout: {error}"))),
            None => Ok(()),
        }
    }
}
