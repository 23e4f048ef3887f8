//! The long run: load, cut, restart, compare; and where in the store each cut fell.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use crate::mount::missing_for_broker;
use crate::world::{Plan, World};

/// Records acknowledged before each cut.
const RECORDS: u64 = 1_000;
/// Every so many cuts a clean stop and `verify`.
const VERIFY_EVERY: u64 = 10;
/// Every so many cuts both disks are replaced by blank ones and the power goes during the first format.
const FORMAT_EVERY: u64 = 20;
/// How long a cut waits for the part of the store that it is meant for.
const AIM_MAX: Duration = Duration::from_millis(4_000);

/// What the store calls its parts: each should be hit.
const PARTS: [&str; 9] = [
    "group-write",
    "destage",
    "checkpoint",
    "seal-open",
    "ext-free",
    "ext-swap",
    "ring-wrap",
    "recovery",
    "format",
];

#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    hits: BTreeMap<String, u64>,
    between: u64,
    reverted: u64,
    harmless: u64,
    audits: u64,
    read: u64,
    verified: u64,
}

impl Tally {
    fn count(&mut self, phases: &[String], reverted: u64) {
        self.cuts += 1;
        self.reverted += reverted;
        self.harmless += u64::from(reverted == 0);
        self.between += u64::from(phases.is_empty());
        for phase in phases {
            *self.hits.entry(phase.clone()).or_default() += 1;
        }
    }

    fn hits(&self, part: &str) -> u64 {
        self.hits.get(part).copied().unwrap_or(0)
    }

    fn inside(&self) -> String {
        let inside: Vec<String> = PARTS
            .iter()
            .map(|it| format!("{it} {}", self.hits(it)))
            .collect();
        format!("inside: {}, between {}", inside.join(", "), self.between)
    }
}

/// `cuts` times; 0 if nothing was lost.
pub(crate) fn run(cuts: u64, seed: u64) -> io::Result<()> {
    println!("seed {seed}");
    if let Some(why) = missing_for_broker() {
        println!("SKIPPED: power cuts under the broker: {why}");
        return Ok(());
    }
    let began = Instant::now();
    let mut world = World::new(seed, &Plan::default())?;
    let mut tally = Tally::default();
    let done = all(&mut world, &mut tally, cuts);
    if let Err(why) = &done {
        eprintln!("FAILED after {} cuts:\n  {why}", tally.cuts);
        world.explain();
    }
    report(&world, &tally, began.elapsed());
    println!("seed {seed}");
    done.map_err(|_| {
        io::Error::other("what was acknowledged is not there, or the broker is not; see above")
    })
}

fn all(world: &mut World, tally: &mut Tally, cuts: u64) -> io::Result<()> {
    let mut formatted = false;
    while tally.cuts < cuts {
        if !formatted || tally.cuts % FORMAT_EVERY == FORMAT_EVERY - 1 {
            first_format(world, tally, formatted)?;
            formatted = true;
            world.make_fragile()?;
            world.produce();
            continue;
        }
        one(world, tally)?;
        if tally.cuts.is_multiple_of(VERIFY_EVERY) || tally.cuts == cuts {
            world.stop()?;
            world.verify()?;
            tally.verified += 1;
            world.start()?;
            world.pause(false)?;
        } else {
            world.pause(false)?;
        }
        if tally.cuts.is_multiple_of(10) {
            println!(
                "{} cuts, {} records acknowledged, {} read; {}",
                tally.cuts,
                world.acknowledged(),
                tally.read,
                tally.inside()
            );
        }
    }
    Ok(())
}

/// Load, one cut (and perhaps more while it recovers), and the comparison. Producers are at rest afterwards.
fn one(world: &mut World, tally: &mut Tally) -> io::Result<()> {
    world.disturb();
    world.load(world.acknowledged(), RECORDS, Duration::from_secs(60))?;
    // A third of the cuts come at a moment nobody chose, the others in a part of the store: the one that was hit least,
    // every other time.
    if world.rng.percent(33) {
        let ms = world.rng.below(400);
        std::thread::sleep(Duration::from_millis(ms));
    } else {
        let aims = &PARTS[..7];
        let least = aims.iter().min_by_key(|it| tally.hits(it));
        let part = match least {
            Some(least) if world.rng.percent(50) => *least,
            _ => *world.rng.pick(aims),
        };
        aim(world, part, AIM_MAX);
    }
    let (phases, reverted) = world.cut()?;
    tally.count(&phases, reverted);
    // The producers go on knocking meanwhile; now they wait, so that the log stands still.
    world.pause(true)?;
    while world.rng.percent(25) {
        world.broker = Some(world.site.spawn()?);
        aim(world, "recovery", Duration::from_millis(300));
        let within = world.rng.below(30_000);
        std::thread::sleep(Duration::from_micros(within));
        let (phases, reverted) = world.cut()?;
        tally.count(&phases, reverted);
    }
    world.start()?;
    let audit = world.audit()?;
    tally.audits += 1;
    tally.read += audit.read;
    Ok(())
}

/// Blank disks, and the power goes while they are made; then a start must succeed.
fn first_format(world: &mut World, tally: &mut Tally, again: bool) -> io::Result<()> {
    if again {
        world.stop()?;
        world.verify()?;
        tally.verified += 1;
        world.forget();
        for disk in &mut world.disks {
            disk.replace()?;
        }
    }
    world.broker = Some(world.site.spawn()?);
    aim(world, "format", Duration::from_millis(300));
    let within = world.rng.below(60_000);
    std::thread::sleep(Duration::from_micros(within));
    let (phases, reverted) = world.cut()?;
    tally.count(&phases, reverted);
    world.start()?;
    Ok(())
}

/// Waits until the store says that it is in `part`.
fn aim(world: &World, part: &str, most: Duration) {
    let until = Instant::now() + most;
    let Some(broker) = &world.broker else { return };
    while Instant::now() < until && !broker.phases().iter().any(|it| it == part) {
        std::thread::sleep(Duration::from_micros(30));
    }
}

fn report(world: &World, tally: &Tally, took: Duration) {
    println!(
        "{} cuts in {:.0} s: {} records acknowledged, {} audits read {} records, {} batches sent again, {} refusals",
        tally.cuts,
        took.as_secs_f64(),
        world.acknowledged(),
        tally.audits,
        tally.read,
        world
            .shared
            .resent
            .load(std::sync::atomic::Ordering::Acquire),
        world
            .shared
            .refused
            .load(std::sync::atomic::Ordering::Acquire),
    );
    println!(
        "{} sectors reverted, {} cuts reverted nothing, {} file systems repaired, {} times verified, slowest start {:.2} s",
        tally.reverted,
        tally.harmless,
        world.disks.iter().map(|it| it.repairs).sum::<u64>(),
        tally.verified,
        world.slowest_start.as_secs_f64(),
    );
    println!("{}", tally.inside());
}
