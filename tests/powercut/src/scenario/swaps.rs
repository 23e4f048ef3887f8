//! Disks that are swapped for blank ones. What the broker knows a disk by lies in its directory, so a directory that is
//! moved away is a disk that was pulled, and the original can come back.

use std::fs;
use std::io;
use std::time::Duration;

use super::{all_move, load};
use crate::world::World;

fn pull(world: &World, disk: usize) -> io::Result<()> {
    fs::rename(world.dir(disk), world.disks[disk].dir.join("pulled"))
}

fn put_back(world: &World, disk: usize) -> io::Result<()> {
    let blank = world.dir(disk);
    if blank.exists() {
        fs::remove_dir_all(&blank)?;
    }
    fs::rename(world.disks[disk].dir.join("pulled"), blank)
}

/// The node runs on its meta disk, what lay on the data disk waits for it and is not begun anew, and is there when the
/// disk is back.
pub(super) fn blank_data(world: &mut World) -> io::Result<String> {
    load(world, 2_000)?;
    world.pause(true)?;
    world.stop()?;
    pull(world, 1)?;
    world.start()?;
    let before = world.ends();
    world.pause(false)?;
    std::thread::sleep(Duration::from_secs(5));
    let waiting = world.standing(&before);
    let moving = before.len() - waiting.len();
    if waiting.is_empty() || moving == 0 {
        return Err(io::Error::other(format!(
            "with a blank data disk {moving} of {} partitions take records",
            before.len()
        )));
    }
    world.pause(true)?;
    world.stop()?;
    put_back(world, 1)?;
    world.start()?;
    let read = world.audit()?.read;
    world.pause(false)?;
    all_move(world, Duration::from_secs(30))?;
    Ok(format!(
        "{moving} partitions went on, {} waited; with the disk back {read} records read",
        waiting.len()
    ))
}

/// Beside a full data disk a blank meta disk founds nothing: the broker stops with its own exit status, changes nothing,
/// and all is there when the disk is back.
pub(super) fn blank_meta(world: &mut World) -> io::Result<String> {
    load(world, 2_000)?;
    world.pause(true)?;
    world.stop()?;
    pull(world, 0)?;
    let mut broker = world.site.spawn()?;
    let status = match broker.ready() {
        Ok(_) => {
            return Err(io::Error::other(
                "a blank meta disk beside a full data disk was taken for a new site",
            ));
        }
        Err(_) => broker.wait()?,
    };
    if status.code() != Some(3) {
        return Err(io::Error::other(format!(
            "it ended with {status}, where 3 says: refused to protect data"
        )));
    }
    let output = world.site.command(&["adopt"]).arg(world.dir(1)).output()?;
    let shows = [output.stdout, output.stderr].concat();
    let shows = String::from_utf8_lossy(&shows).lines().count();
    put_back(world, 0)?;
    world.start()?;
    let read = world.audit()?.read;
    world.pause(false)?;
    all_move(world, Duration::from_secs(30))?;
    Ok(format!(
        "refused with 3, `adopt` shows {shows} lines ({}); with the disk back {read} records read",
        output.status
    ))
}
