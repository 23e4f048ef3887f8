//! `howdah recover`: what a rotten journal lost, and a person's word that it is lost.

use std::path::Path;

use store::{Config, Held, Inspection, Note, inspect};

use super::{Stopped, describe, disk_fault, open, write_out};
use crate::exit;
use crate::run::{Refusal, refusal};

/// Lists what a rotten journal lost; with `accept`, what is left serves again.
pub(super) fn run(dir: &Path, accept: bool) -> Result<(), Refusal> {
    let Stopped {
        io,
        superblock,
        _lock,
    } = open(dir)?;
    let inspection = inspect(&io).map_err(|error| disk_fault(dir, &error))?;
    let lost: Vec<&Held> = inspection
        .replicas
        .iter()
        .filter(|held| held.lost().is_some())
        .collect();
    let notes = losses(&inspection);
    let mut text = format!("{}: {}\n", dir.display(), describe(&superblock));
    for held in &lost {
        let (count, from, to) = held.lost().expect("filtered above");
        text += &format!(
            "topic {} partition {}: {count} offsets lost, {} to {}; {} to {} and all behind are kept\n",
            held.replica.id.topic,
            held.replica.id.partition.0,
            from.0,
            to.0 - 1,
            held.replica.log_start.0,
            from.0 - 1,
        );
    }
    for note in &notes {
        text += &format!("{note}\n");
    }
    if lost.is_empty() && notes.is_empty() {
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
    write_out("accepted: the partitions go on behind what is lost\n")
}

/// What beside offsets a rotten journal lost.
fn losses(inspection: &Inspection) -> Vec<String> {
    let say = |note: &Note| match note {
        Note::Salvaged { seq, next, batches } => {
            let behind = next.map_or("nothing could be read behind it".to_owned(), |next| {
                format!("group {next} is the next one that can be read")
            });
            Some(format!(
                "the journal is rotten at group {seq}, {behind}; {batches} batches were found in extents"
            ))
        }
        Note::SiteHole(index) => Some(format!(
            "entries of the site log are lost from index {index} on: topics or configs made then may be missing"
        )),
        Note::UnknownReplicas(parts) => Some(format!(
            "{} replicas are named whose making was lost: {parts:?}",
            parts.len()
        )),
        Note::SyncsEachExtent | Note::JournalUnknown | Note::JournalUnwritten => None,
    };
    inspection.notes.iter().filter_map(say).collect()
}
