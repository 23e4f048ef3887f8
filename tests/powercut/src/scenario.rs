//! Single faults, each on a site of its own: what the broker must do, and that nothing acknowledged is lost by it.

use std::io;
use std::time::Duration;

use crate::mount::missing_for_broker;
use crate::rng::Rng;
use crate::world::{Plan, World};

mod faults;
mod limits;
mod rings;
mod swaps;

type Play = fn(&mut World) -> io::Result<String>;

/// Name, what it shows, how.
const ALL: [(&str, &str, Play); 15] = [
    (
        "lying-drives",
        "drives that ignore FLUSH lose records, and the comparison sees it",
        faults::lying_drives,
    ),
    ("kill", "kill -9 again and again", faults::kill),
    (
        "write-error-data",
        "EIO at the n-th write of the data disk",
        faults::write_error_data,
    ),
    (
        "write-error-meta",
        "EIO at the n-th write of the meta disk",
        faults::write_error_meta,
    ),
    (
        "made-meanwhile",
        "a topic is made while the data disk is failed",
        faults::made_meanwhile,
    ),
    ("read-error", "EIO on a cold read", faults::read_error),
    ("ring-error", "EIO in the ring at recovery", rings::anywhere),
    (
        "ring-end",
        "EIO in the ring's last group at recovery",
        rings::end,
    ),
    (
        "ring-rot",
        "a group in the middle of the ring is rotten",
        rings::rot,
    ),
    (
        "stall",
        "a disk answers nothing for 30 s and comes back by itself",
        faults::stall,
    ),
    (
        "blank-data",
        "the data disk is swapped for a blank one, and back",
        swaps::blank_data,
    ),
    (
        "blank-meta",
        "the meta disk is swapped for a blank one",
        swaps::blank_meta,
    ),
    (
        "clock",
        "a boot with an untrusted clock that is set later",
        limits::clock,
    ),
    (
        "quota",
        "a topic at its quota refuses, others go on, space returns",
        limits::quota,
    ),
    (
        "full",
        "something else fills the file system, and leaves",
        limits::full,
    ),
];

/// Plays all, or those named; fails if one does.
pub(crate) fn run(named: &[String], seed: u64) -> io::Result<()> {
    println!("seed {seed}");
    if let Some(unknown) = named
        .iter()
        .find(|it| ALL.iter().all(|(name, ..)| name != it))
    {
        let known: Vec<&str> = ALL.iter().map(|it| it.0).collect();
        return Err(io::Error::other(format!(
            "no scenario `{unknown}`; there are {}",
            known.join(", ")
        )));
    }
    if let Some(why) = missing_for_broker() {
        println!("SKIPPED: {} scenarios: {why}", ALL.len());
        return Ok(());
    }
    let mut rng = Rng::new(seed);
    let (mut passed, mut failed) = (0, 0);
    for (name, what, play) in ALL {
        let seed = rng.next();
        if !named.is_empty() && !named.iter().any(|it| it == name) {
            continue;
        }
        let began = std::time::Instant::now();
        match one(name, play, seed) {
            Ok(said) => {
                passed += 1;
                println!(
                    "ok {name} in {:.0} s ({what}): {said}",
                    began.elapsed().as_secs_f64()
                );
            }
            Err(why) => {
                failed += 1;
                println!("FAILED {name} ({what}):\n  {why}");
            }
        }
    }
    println!("seed {seed}");
    println!("{passed} passed, {failed} failed, 0 skipped");
    if failed > 0 {
        return Err(io::Error::other("a scenario failed"));
    }
    Ok(())
}

fn one(name: &str, play: Play, seed: u64) -> io::Result<String> {
    let plan = match name {
        "clock" => limits::CLOCK,
        "quota" => limits::QUOTA,
        _ => Plan::default(),
    };
    let mut world = World::new(seed, &plan)?;
    let done = world.start().and_then(|_| {
        world.produce();
        play(&mut world)
    });
    if done.is_err() {
        world.explain();
    }
    done
}

/// Some load that must be acknowledged.
fn load(world: &mut World, count: u64) -> io::Result<()> {
    world.load(world.acknowledged(), count, Duration::from_secs(60))
}

/// Producers at rest, everything compared, producers going again; what was read.
fn compare(world: &mut World) -> io::Result<u64> {
    world.pause(true)?;
    let audit = world.audit()?;
    world.pause(false)?;
    Ok(audit.read)
}

/// Kills the broker and starts it on file systems that were mounted anew.
fn restart(world: &mut World) -> io::Result<()> {
    if let Some(mut broker) = world.broker.take() {
        broker.kill()?;
        broker.wait()?;
    }
    for disk in &mut world.disks {
        disk.control.say("heal")?;
        disk.remount()?;
    }
    world.start()?;
    Ok(())
}

/// Waits until every partition took records again.
fn all_move(world: &mut World, most: Duration) -> io::Result<Duration> {
    let began = std::time::Instant::now();
    let before = world.ends();
    loop {
        let stands: Vec<String> = world.standing(&before);
        if stands.is_empty() {
            return Ok(began.elapsed());
        }
        if let Some(status) = world.ended()? {
            return Err(io::Error::other(format!("the broker ended: {status}")));
        }
        if began.elapsed() > most {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "after {most:?} nothing was acknowledged for {}",
                    stands.join(", ")
                ),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
