//! `howdah format`: makes a node's disks, and never one that holds something unless its name was given.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use model::{Incarnation, NodeId, SiteUuid};
use site::Place;

use super::{describe, take, write_out};
use crate::run::{Refusal, choose, refusal};
use crate::spindle::open::{
    DiskPlace, Fault, Held, found_meta, fresh, look, make, open_io, places,
};
use crate::{FormatArgs, exit};

/// What is to be done with a disk.
enum Plan {
    /// Holds a disk of this node, which stays.
    Keep(Box<store::Superblock>),
    Make,
    /// Holds something, and was named.
    Erase,
}

/// Looks at every disk before it touches one.
pub(super) fn run(args: &FormatArgs) -> Result<(), Refusal> {
    let site = site::load(&args.site).map_err(|fault| refusal(exit::USAGE, fault))?;
    let node = choose(&site, args.own.node.as_deref())?;
    let own = &site.nodes[node];
    let id = NodeId(own.id);
    let usage = |fault: Fault| refusal(exit::USAGE, fault);
    let places = places(own, &args.own.data, &[]).map_err(usage)?.here;
    let names: Vec<&str> = own.disks.iter().map(|disk| name(&disk.place)).collect();
    if let Some(unknown) = args
        .erase
        .iter()
        .find(|erase| !names.contains(&erase.as_str()))
    {
        let why = format!(
            "--erase {unknown}: node {} has no such disk, only {}",
            own.name,
            names.join(", ")
        );
        return Err(refusal(exit::USAGE, why));
    }
    let mut locks = Vec::new();
    for place in places.iter().filter(|place| place.path.exists()) {
        locks.push(take(&place.path)?);
    }
    let mut plans = Vec::new();
    let mut refused = Vec::new();
    for (place, name) in places.iter().zip(&names) {
        match plan(place, id, args.erase.iter().any(|erase| erase == name)) {
            Ok(plan) => plans.push(plan),
            Err(why) => refused.push(format!("{why}; --erase {name} makes a new disk of it")),
        }
    }
    if !refused.is_empty() {
        return Err(refusal(exit::REFUSED, refused.join("\n")));
    }
    make_all(&places, &plans, id)
}

fn name(place: &Place) -> &str {
    let (Place::Path(name) | Place::Serial(name) | Place::Wwn(name)) = place;
    name
}

/// Says what to do with a disk, or what it holds.
fn plan(place: &DiskPlace, node: NodeId, named: bool) -> Result<Plan, String> {
    match look(place) {
        Ok(Held::Blank) => Ok(Plan::Make),
        _ if named => Ok(Plan::Erase),
        // A disk of the node's that is in use stays beside one that is made anew.
        Ok(Held::Formatted(superblock)) if superblock.node == node && !fresh(&superblock) => {
            Ok(Plan::Keep(superblock))
        }
        Ok(Held::Formatted(superblock)) => Err(format!(
            "{} holds the {}",
            place.path.display(),
            describe(&superblock)
        )),
        Err(Fault::Foreign { path, found }) => Err(format!(
            "{} holds {found}, which is not Howdah's and would stay",
            path.display()
        )),
        Err(fault) => Err(fault.to_string()),
    }
}

fn make_all(places: &[DiskPlace], plans: &[Plan], node: NodeId) -> Result<(), Refusal> {
    let held: Vec<Held> = plans
        .iter()
        .map(|plan| match plan {
            Plan::Keep(superblock) => Held::Formatted(superblock.clone()),
            Plan::Make | Plan::Erase => Held::Blank,
        })
        .collect();
    if !held.iter().any(|held| matches!(held, Held::Blank)) {
        let disks: Vec<String> = places
            .iter()
            .map(|place| place.path.display().to_string())
            .collect();
        let why = format!(
            "{}: no disk of the node is blank; --erase NAME makes a new one of it, and what it holds is lost",
            disks.join(", ")
        );
        return Err(refusal(exit::REFUSED, why));
    }
    // A blank meta disk beside disks that hold data is refused here.
    let meta = found_meta(places, &held, node).map_err(|fault| refusal(exit::REFUSED, fault))?;
    let mut identity: Option<(Incarnation, SiteUuid)> = match &held[meta] {
        Held::Formatted(superblock) => Some((superblock.incarnation, superblock.site)),
        Held::Blank => None,
    };
    // The meta disk first: what is made beside it belongs to its incarnation.
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|at| *at != meta);
    let bar = cli::progress::bar(None, "{spinner} {msg}");
    for at in order {
        let place = &places[at];
        let fault =
            |source: io::Error| refusal(exit::FAULT, format!("{}: {source}", place.path.display()));
        match &plans[at] {
            Plan::Keep(_) => {
                write_out(&format!("{}: kept as it is\n", place.path.display()))?;
                continue;
            }
            Plan::Make => {}
            Plan::Erase => erase(&place.path).map_err(fault)?,
        }
        bar.set_message(format!("{}: zeroing its journal", place.path.display()));
        let io = open_io(place).map_err(|fault| refusal(exit::FAULT, fault))?;
        let made = make(place, &io, node, at == meta, identity)
            .map_err(|fault| refusal(exit::FAULT, fault))?;
        identity = identity.or(Some((made.incarnation, made.site)));
        let line = format!("{}: {}\n", place.path.display(), describe(&made));
        bar.suspend(|| write_out(&line))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Makes the directory hold no disk any more; files that are not a disk's stay.
fn erase(directory: &Path) -> io::Result<()> {
    // The superblocks first and for good: a cut leaves no disk, not one that misses extents.
    for name in ["SUPER.a", "SUPER.b"] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(directory)?.sync_all()?;
    let extents = match fs::read_dir(directory.join("ext")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        extents => extents?,
    };
    for group in extents {
        let group = group?;
        if !(group.file_type()?.is_dir() && hexadecimal(&group.file_name().to_string_lossy(), 2)) {
            continue;
        }
        for file in fs::read_dir(group.path())? {
            let file = file?;
            let name = file.file_name();
            if name
                .to_string_lossy()
                .strip_suffix(".e")
                .is_some_and(|slot| hexadecimal(slot, 8))
            {
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

fn hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::Node;
    use super::*;

    fn format(node: &Node, erase: &[&str]) -> Result<(), (u8, String)> {
        let args = FormatArgs {
            site: node.file.clone(),
            own: node.own(),
            erase: erase.iter().map(|erase| (*erase).to_owned()).collect(),
        };
        run(&args).map_err(|refusal| (refusal.code, refusal.why))
    }

    fn uuids(node: &Node) -> Vec<String> {
        let opened = node.open().unwrap();
        opened
            .iter()
            .map(|disk| disk.recovered.superblock.disk.to_string())
            .collect()
    }

    #[test]
    fn only_what_is_blank_or_named_is_made() {
        let node = Node::new("format");
        format(&node, &[]).unwrap();
        let (code, why) = format(&node, &[]).unwrap_err();
        assert!(
            code == exit::REFUSED && why.contains("--erase d1") && why.contains("--erase d2"),
            "{why}"
        );
        assert_eq!(format(&node, &["d3"]).unwrap_err().0, exit::USAGE);
        let before = uuids(&node);
        assert_eq!(format(&node, &[]).unwrap_err().0, exit::REFUSED);
        assert_eq!(uuids(&node), before, "in use, and still the same");

        // A data disk goes without the meta disk; what lies there and is no disk's stays.
        let d2 = node.data.join("d2");
        fs::create_dir_all(d2.join("ext/07")).unwrap();
        fs::write(d2.join("ext/07/00000007.e"), "old").unwrap();
        fs::write(d2.join("ext/notes"), "a person's").unwrap();
        format(&node, &["d2"]).unwrap();
        assert!(!d2.join("ext/07/00000007.e").exists() && d2.join("ext/notes").exists());
        let after = uuids(&node);
        assert!(after[0] == before[0] && after[1] != before[1]);

        // The meta disk does not go while the other one holds data.
        let (code, why) = format(&node, &["d1"]).unwrap_err();
        assert!(
            code == exit::REFUSED && why.contains("howdah adopt"),
            "{why}"
        );
        assert_eq!(uuids(&node), after);
        format(&node, &["d1", "d2"]).unwrap();
        assert_ne!(uuids(&node)[0], before[0]);
    }

    #[test]
    fn a_disk_in_use_and_a_strangers_files_are_refused() {
        let node = Node::new("format-refusals");
        let opened = node.open().unwrap();
        let (code, why) = format(&node, &["d1", "d2"]).unwrap_err();
        assert!(code == exit::REFUSED && why.contains("in use"), "{why}");
        drop(opened);
        fs::remove_dir_all(&node.data).unwrap();
        fs::create_dir_all(node.data.join("d1")).unwrap();
        fs::write(node.data.join("d1/notes"), "a person's").unwrap();
        let (code, why) = format(&node, &[]).unwrap_err();
        assert!(code == exit::REFUSED && why.contains("notes"), "{why}");
        assert!(!node.data.join("d2").exists(), "nothing was begun");
        format(&node, &["d1"]).unwrap();
        assert!(node.data.join("d1/notes").exists());
    }
}
