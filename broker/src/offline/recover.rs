//! `howdah recover`: what a rotten journal lost, and a person's word that it is lost.

use store::{Config, DiskState, Held, Inspection, inspect};

use super::{Stopped, describe, disk_fault, open, write_out};
use crate::run::{Refusal, refusal};
use crate::{DiskArgs, exit};

/// Lists what a rotten journal lost; with `accept`, what is left serves again.
pub(super) fn run(disk: &DiskArgs, accept: bool) -> Result<(), Refusal> {
    let dir = &disk.dir;
    let Stopped {
        io,
        superblock,
        _lock,
    } = open(dir, disk.journal.clone())?;
    let inspection = inspect(&io).map_err(|error| disk_fault(dir, &error))?;
    let lost: Vec<&Held> = inspection
        .replicas
        .iter()
        .filter(|held| held.lost().is_some())
        .collect();
    let notes = losses(&inspection);
    let mut text = format!("{}: {}\n", dir.display(), describe(&superblock));
    for held in &lost {
        let (from, to) = held.lost().expect("filtered above");
        let lost = match to {
            Some(to) => format!(
                "{} offsets lost, {} to {}",
                to.since(from),
                from.0,
                to.0 - 1
            ),
            None => format!("all from offset {} on is lost, if there was any", from.0),
        };
        let kept = match from.since(held.replica.log_start) {
            ..=0 => "nothing is kept".to_owned(),
            _ => format!("{} to {} are kept", held.replica.log_start.0, from.0 - 1),
        };
        text += &format!(
            "topic {} partition {}: {lost}; {kept}\n",
            held.replica.id.topic, held.replica.id.partition.0,
        );
    }
    for note in &notes {
        text += &format!("{note}\n");
    }
    if superblock.state == DiskState::Suspect && notes.is_empty() {
        text += "the journal was rotten at an earlier start: replicas that were made then may be missing\n";
    }
    if lost.is_empty() && notes.is_empty() && superblock.state != DiskState::Suspect {
        text += "nothing is lost\n";
        return write_out(&text);
    }
    write_out(&text)?;
    if !accept {
        let why = format!(
            "{}: these are lost; --accept takes that and lets the rest serve",
            dir.display()
        );
        return Err(refusal(exit::FAULT, why));
    }
    let bar = cli::progress::bar(None, "{spinner} {msg}");
    bar.set_message("making it durable");
    let accepted = store::accept(io, Config::default()).map_err(|error| disk_fault(dir, &error));
    bar.finish_and_clear();
    accepted?;
    write_out("accepted: the partitions go on where what is lost began\n")
}

/// What beside offsets a rotten journal lost.
fn losses(inspection: &Inspection) -> Vec<String> {
    let lost = inspection.notes.iter().filter(|note| note.loss());
    lost.map(ToString::to_string).collect()
}
