//! The ring can't be read at recovery. That is rot and no torn end: nothing may be cut off for it, so with the sectors back
//! everything must be there, and without them a person decides.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::{all_move, load, restart};
use crate::world::World;

const PAGE: u64 = 4096;
/// What the broker says of a start that it refuses to protect data.
const REFUSED: i32 = 3;

/// Pieces all over the ring: whatever the broker makes of them, nothing is lost when they read again.
pub(super) fn anywhere(world: &mut World) -> io::Result<String> {
    const TIMES: u32 = 6;
    let (mut served, mut refused) = (0, 0);
    for turn in 0..TIMES {
        let disk = (turn % 2) as usize;
        load(world, 1_500)?;
        end_now(world)?;
        world.pause(true)?;
        let places = world.disks[disk].places(&world.dir(disk).join("journal"))?;
        for it in &mut world.disks {
            it.remount()?;
        }
        for _ in 0..12 {
            let (offset, bytes) = *world.rng.pick(&places);
            let at = offset + world.rng.below(bytes / PAGE) * PAGE;
            fail(world, disk, at)?;
        }
        match starts(world)? {
            true => served += 1,
            false => refused += 1,
        }
        end_now(world)?;
        restart(world)?;
        world.audit()?;
        world.pause(false)?;
        all_move(world, Duration::from_secs(20))?;
    }
    Ok(format!(
        "with the holes {served} served and {refused} refused; without them all was there"
    ))
}

/// The last group: a data disk stays out and the other one serves, a meta disk keeps the node from starting; with the
/// sectors back all is there. Then the sectors stay bad, and a person accepts: what lies in extents is taken from there.
pub(super) fn end(world: &mut World) -> io::Result<String> {
    let mut told = Vec::new();
    for (disk, accept) in [(1, false), (0, false), (1, true)] {
        load(world, 1_500)?;
        end_now(world)?;
        world.pause(true)?;
        let at = last_group(world, disk)?;
        for it in &mut world.disks {
            it.remount()?;
        }
        fail(world, disk, at)?;
        let served = starts(world)?;
        if served != (disk == 1) {
            return Err(io::Error::other(format!(
                "disk {disk} without its ring's end: served {served}"
            )));
        }
        if served {
            let before = world.ends();
            world.pause(false)?;
            std::thread::sleep(Duration::from_secs(3));
            let stands = world.standing(&before).len();
            if stands == 0 || stands == before.len() {
                return Err(io::Error::other(format!(
                    "{stands} of {} partitions stand while one of two disks is out",
                    before.len()
                )));
            }
            end_now(world)?;
            world.pause(true)?;
        }
        let listed = recover(world, disk, &[])?;
        for wanted in ["byte ", "power cycle", "from offset"] {
            if !listed.contains(wanted) {
                return Err(io::Error::other(format!(
                    "`howdah recover` does not say `{wanted}`: {listed}"
                )));
            }
        }
        if accept {
            told.push(recover(world, disk, &["--accept"])?.lines().count());
            world.start()?;
        } else {
            restart(world)?;
        }
        world.audit()?;
        world.pause(false)?;
        all_move(world, Duration::from_secs(20))?;
    }
    Ok(format!(
        "a data disk waited, a meta disk kept the node from starting, both came back whole; accepted in {told:?} lines, all from extents"
    ))
}

/// A group whose bytes can be read and are wrong: who has written since goes on, who may have lost something waits, also at
/// the next start, and with a person's word all is there, since extents hold it.
pub(super) fn rot(world: &mut World) -> io::Result<String> {
    load(world, 1_500)?;
    end_now(world)?;
    world.pause(true)?;
    let path = world.dir(1).join("journal");
    let groups = groups(&path)?;
    let (_, at) = groups[groups.len() - groups.len().min(12)];
    let journal = File::options().read(true).write(true).open(&path)?;
    let mut bytes = [0; 64];
    journal.read_exact_at(&mut bytes, at + 128)?;
    journal.write_all_at(&bytes.map(|it| !it), at + 128)?;
    drop(journal);
    for it in &mut world.disks {
        it.remount()?;
    }
    let mut offline = Vec::new();
    for _ in 0..2 {
        world.start()?;
        std::thread::sleep(Duration::from_secs(2));
        offline.push(number(&world.site.status()?, "\"offline\":"));
        let before = world.ends();
        world.pause(false)?;
        std::thread::sleep(Duration::from_secs(3));
        let moved = before.len() - world.standing(&before).len();
        if moved < before.len() / 2 {
            return Err(io::Error::other(format!(
                "only {moved} of {} partitions go on beside a rotten group",
                before.len()
            )));
        }
        end_now(world)?;
        world.pause(true)?;
    }
    if offline[0] == 0 || offline[0] != offline[1] {
        return Err(io::Error::other(format!(
            "partitions that wait, at the first start and the next: {offline:?}"
        )));
    }
    recover(world, 1, &[])?;
    recover(world, 1, &["--accept"])?;
    world.start()?;
    let read = world.audit()?.read;
    world.pause(false)?;
    all_move(world, Duration::from_secs(20))?;
    Ok(format!(
        "{} partitions waited, the others went on; accepted, and {read} records read",
        offline[0]
    ))
}

fn number(text: &str, name: &str) -> u64 {
    let digits = text.split(name).nth(1).unwrap_or_default();
    let digits = digits.split(|it: char| !it.is_ascii_digit()).next();
    digits.and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn end_now(world: &mut World) -> io::Result<()> {
    if let Some(mut broker) = world.broker.take() {
        broker.kill()?;
        broker.wait()?;
    }
    Ok(())
}

/// Whether it serves; a start that is refused must say that it protects data.
fn starts(world: &mut World) -> io::Result<bool> {
    let mut broker = world.site.spawn()?;
    if broker.ready().is_ok() {
        world.broker = Some(broker);
        return Ok(true);
    }
    let status = broker.wait()?;
    if status.code() != Some(REFUSED) {
        return Err(io::Error::other(format!(
            "with a rotten ring the broker ended with {status}"
        )));
    }
    Ok(false)
}

fn fail(world: &mut World, disk: usize, at: u64) -> io::Result<()> {
    let control = &mut world.disks[disk].control;
    control.say(&format!("eio read {at} {PAGE}")).map(|_| ())
}

fn recover(world: &World, disk: usize, args: &[&str]) -> io::Result<String> {
    let output = world
        .site
        .command(&["recover"])
        .args(args)
        .arg(world.dir(disk))
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    // Without a person's word it changes nothing and fails.
    if output.status.success() == args.is_empty() {
        return Err(io::Error::other(format!(
            "`howdah recover` {args:?}: {}: {said}",
            output.status
        )));
    }
    Ok(said)
}

/// Where on the disk the group with the highest number of all that the ring holds begins.
fn last_group(world: &World, disk: usize) -> io::Result<u64> {
    let path = world.dir(disk).join("journal");
    let mut left = groups(&path)?.last().map_or(0, |it| it.1);
    for (offset, bytes) in world.disks[disk].places(&path)? {
        if left < bytes {
            return Ok(offset + left);
        }
        left -= bytes;
    }
    Err(io::Error::other("the journal has fewer blocks than bytes"))
}

/// All groups that the ring holds, by number, and where each begins in the file.
fn groups(path: &Path) -> io::Result<Vec<(u64, u64)>> {
    let journal = File::open(path)?;
    let mut found = Vec::new();
    let mut page = [0; PAGE as usize];
    let mut at = 0;
    while journal.read_at(&mut page, at)? == page.len() {
        let word = |from: usize| u64::from_le_bytes(std::array::from_fn(|it| page[from + it]));
        // Magic, sequence, and its own place, as the ring's format has them.
        if page.starts_with(b"HJRN") && word(32) == at {
            found.push((word(8), at));
        }
        at += PAGE;
    }
    found.sort_unstable();
    Ok(found)
}
