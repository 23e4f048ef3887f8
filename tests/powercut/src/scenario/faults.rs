//! Faults of the disks and of the process.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{all_move, compare, load, restart};
use crate::broker::Fetched;
use crate::control::Control;
use crate::world::World;

/// The comparison is worth something only if it can fail: with disks that ignore FLUSH it must, or a file system is
/// beyond repair.
pub(super) fn lying_drives(world: &mut World) -> io::Result<String> {
    const CUTS_MAX: u32 = 10;
    for cut in 1..=CUTS_MAX {
        for disk in &mut world.disks {
            disk.control.say("lie")?;
        }
        load(world, 1_000)?;
        let after = world
            .cut()
            .and_then(|_| world.pause(true))
            .and_then(|()| world.start())
            .and_then(|_| held_back(world))
            .and_then(|()| world.audit());
        if let Err(why) = after {
            let why = why.to_string();
            let first = why.lines().next().unwrap_or_default();
            return Ok(format!("seen at cut {cut}: {first}"));
        }
        world.pause(false)?;
    }
    Err(io::Error::other(format!(
        "{CUTS_MAX} cuts on lying drives and nothing is missing: the comparison sees nothing"
    )))
}

/// A broker that serves less than all has seen by itself that something is missing; a reader would wait for it in vain.
fn held_back(world: &World) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while !world.site.status()?.contains("\"offline\":0") {
        if Instant::now() > until {
            return Err(io::Error::other("the broker holds partitions back"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// An error brings a disk back once, after 30 s; a loaded machine gets as much again.
const BACK_AFTER_ERROR: Duration = Duration::from_secs(75);

pub(super) fn kill(world: &mut World) -> io::Result<String> {
    const TIMES: u32 = 10;
    let mut read = 0;
    for _ in 0..TIMES {
        load(world, 500)?;
        let ms = world.rng.below(200);
        std::thread::sleep(Duration::from_millis(ms));
        if let Some(mut broker) = world.broker.take() {
            broker.kill()?;
            broker.wait()?;
        }
        world.start()?;
        read += compare(world)?;
    }
    Ok(format!(
        "{TIMES} times, {read} records read, slowest start {:?}",
        world.slowest_start
    ))
}

pub(super) fn write_error_data(world: &mut World) -> io::Result<String> {
    write_error(world, 1)
}

pub(super) fn write_error_meta(world: &mut World) -> io::Result<String> {
    write_error(world, 0)
}

/// The disk fails and is not written to again; it comes back by recovery, in process or by a restart. An error in the
/// file system's own blocks takes the file system down: then only mounting it anew helps.
fn write_error(world: &mut World, disk: usize) -> io::Result<String> {
    // A third time within an hour it would stay out.
    const TIMES: u32 = 2;
    let (mut in_process, mut ended, mut remounted) = (0, 0, 0);
    for _ in 0..TIMES {
        load(world, 500)?;
        let nth = 1 + world.rng.below(80);
        let errors = |world: &mut World| {
            let said = world.disks[disk].control.say("stats")?;
            Ok::<_, io::Error>(Control::number(&said, "errors"))
        };
        let before = errors(world)?;
        world.disks[disk].control.say(&format!("eio write {nth}"))?;
        let until = Instant::now() + Duration::from_secs(30);
        while errors(world)? == before {
            if Instant::now() > until {
                return Err(io::Error::other("nothing was written for 30 s"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        match all_move(world, BACK_AFTER_ERROR) {
            Ok(_) => in_process += 1,
            Err(_) if world.ended()?.is_some() => {
                ended += 1;
                restart(world)?;
            }
            Err(why) if why.kind() == io::ErrorKind::TimedOut && world.disks[disk].broken()? => {
                remounted += 1;
                restart(world)?;
            }
            Err(why) => return Err(why),
        }
        compare(world)?;
        all_move(world, Duration::from_secs(20))?;
    }
    Ok(format!(
        "back in process {in_process}, broker ended {ended}, file system had to be mounted anew {remounted}"
    ))
}

/// The site log places a topic's partitions on a disk that is failed: when it comes back they are made there.
pub(super) fn made_meanwhile(world: &mut World) -> io::Result<String> {
    const PARTITIONS: i32 = 4;
    load(world, 500)?;
    world.disks[1].control.say("eio write 1")?;
    let until = Instant::now() + Duration::from_secs(30);
    while !world.site.status()?.contains("\"recovering\"") {
        if Instant::now() > until {
            return Err(io::Error::other("the disk did not fail"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let code = world.site.create("made", PARTITIONS)?;
    if let Err(why) = all_move(world, BACK_AFTER_ERROR) {
        if why.kind() == io::ErrorKind::TimedOut && world.disks[1].broken()? {
            restart(world)?;
        } else {
            return Err(why);
        }
    }
    for partition in 0..PARTITIONS {
        if !world
            .site
            .produce_one("made", partition, Duration::from_secs(20))?
        {
            return Err(io::Error::other(format!(
                "made-{partition}, made while its disk was failed (error {code}), takes nothing"
            )));
        }
    }
    compare(world)?;
    restart(world)?;
    for partition in 0..PARTITIONS {
        let topic = &crate::ledger::Topic {
            name: "made",
            ..*crate::world::TOPICS[0]
        };
        let Fetched { code, bytes, .. } = world.site.fetch(topic, partition, 0)?;
        if code != 0 || bytes == 0 {
            return Err(io::Error::other(format!(
                "made-{partition} after a restart: error {code}, {bytes} B"
            )));
        }
    }
    Ok(format!(
        "CreateTopics got {code}; with the disk back all {PARTITIONS} partitions took a record and kept it"
    ))
}

/// Ranges of extents can't be read: fetches of them are told so, all else goes on, and with the ranges back all is there.
pub(super) fn read_error(world: &mut World) -> io::Result<String> {
    const KAFKA_STORAGE_ERROR: i16 = 56;
    /// A page holds fewer batches.
    const FETCHES_MAX: usize = 64;
    // What the ring still holds a start writes anew, and reads from memory: the first extents must lie behind checkpoints.
    let until = Instant::now() + Duration::from_secs(90);
    while checkpoints(&world.site.status()?) < 2 {
        if Instant::now() > until {
            return Err(io::Error::other("90 s of load and no two checkpoints"));
        }
        load(world, 1_000)?;
    }
    world.pause(true)?;
    world.stop()?;
    let mut bad = Vec::new();
    for disk in 0..world.disks.len() {
        for file in extents(world.dir(disk))? {
            // The second page behind the header: batches fill them from there on.
            let (offset, _) = world.disks[disk].places(&file)?[0];
            bad.push((disk, offset + 8192));
        }
        // Nothing of them is in memory any more.
        world.disks[disk].remount()?;
    }
    for (disk, at) in &bad {
        world.disks[*disk]
            .control
            .say(&format!("eio read {at} 4096"))?;
    }
    world.start()?;
    let (mut refused, mut ended, mut first) = (0, 0, Vec::new());
    for (topic, partition, starts) in world.starts() {
        let mut at = starts;
        // What lies before the bad place is answered; who goes on from there is told.
        for _ in 0..FETCHES_MAX {
            // An answer's head may have promised what then could not be read, which ends the connection.
            let fetched = match world.site.fetch(topic, partition, at) {
                Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => {
                    ended += 1;
                    world.site.fetch(topic, partition, at)?
                }
                answer => answer?,
            };
            let Fetched { code, bytes, next } = fetched;
            match code {
                KAFKA_STORAGE_ERROR => refused += 1,
                0 if bytes > 0 && next > at => {
                    at = next;
                    continue;
                }
                _ => first.push(format!(
                    "{}-{partition} at {at}: {code}, {bytes} B",
                    topic.name
                )),
            }
            break;
        }
    }
    if refused == 0 {
        let said = first.join("; ");
        return Err(io::Error::other(format!(
            "{} ranges are unreadable and no fetch was told so: {said}",
            bad.len()
        )));
    }
    let status = world.site.status()?;
    if !status.contains("\"read_errors\":") || status.matches("\"read_errors\":0").count() == 2 {
        return Err(io::Error::other(format!(
            "/status counts no read error: {status}"
        )));
    }
    world.pause(false)?;
    all_move(world, Duration::from_secs(20))
        .map_err(|why| io::Error::other(format!("with unreadable old records: {why}")))?;
    world.pause(true)?;
    restart(world)?;
    let read = world.audit()?.read;
    world.pause(false)?;
    all_move(world, Duration::from_secs(20))?;
    Ok(format!(
        "{} ranges unreadable, {refused} fetches refused for it ({ended} at the second try), all partitions took records; afterwards {read} records read",
        bad.len()
    ))
}

/// Checkpoints of the disk that made the fewest.
fn checkpoints(status: &str) -> u64 {
    let counts = status.split("\"checkpoints\":").skip(1);
    let counts = counts.filter_map(|it| {
        it.split(|it: char| !it.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    });
    counts.min().unwrap_or(0)
}

fn extents(dir: PathBuf) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.join("ext")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// No answer for 30 s: produce to it is refused within seconds, the other disk goes on, and the disk comes back without
/// anybody's help.
pub(super) fn stall(world: &mut World) -> io::Result<String> {
    load(world, 1_000)?;
    let ends = world.ends();
    let refused = world.shared.refused.load(Ordering::Acquire);
    world.disks[1].control.say("stall 30000")?;
    let began = Instant::now();
    while world.shared.refused.load(Ordering::Acquire) == refused {
        if began.elapsed() > Duration::from_secs(15) {
            return Err(io::Error::other(
                "15 s into the stall no produce was refused",
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let first = began.elapsed();
    std::thread::sleep(Duration::from_secs(10));
    let status = world.site.status()?;
    if !status.contains("\"stalled\"") {
        return Err(io::Error::other(format!(
            "12 s into the stall /status does not say so: {status}"
        )));
    }
    let during = ends.len() - world.standing(&ends).len();
    let left = Duration::from_secs(30).saturating_sub(began.elapsed());
    std::thread::sleep(left);
    let back = all_move(world, Duration::from_secs(60))?;
    let read = compare(world)?;
    Ok(format!(
        "first refusal after {first:.1?}, {during} of {} partitions went on, all again {back:.1?} after its end; {read} records read",
        ends.len()
    ))
}
