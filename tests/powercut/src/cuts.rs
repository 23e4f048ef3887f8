//! The long run: load, cut, restart, compare; and where in the store each cut fell.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::mount::missing_for_broker;
use crate::phase::PARTS;
use crate::tally::{Hit, Tally, When};
use crate::world::{Plan, World};

/// Records acknowledged before each cut under load.
const RECORDS: u64 = 1_000;
/// Every so many cuts a clean stop and `verify`.
const VERIFY_EVERY: u64 = 10;
/// Every so many cuts both disks are replaced by blank ones and the power goes during the first format.
const FORMAT_EVERY: u64 = 20;
/// How long a cut waits for the part of the store that it is meant for: a turn of the ring takes seconds.
const AIM_MAX: Duration = Duration::from_secs(15);
/// The same at a start, which has no more of the part once it serves.
const START_AIM_MAX: Duration = Duration::from_secs(2);

/// How many requests of a part a trap may let pass: about as many as one visit makes.
fn passes(part: &str) -> u64 {
    match part {
        "group-write" | "seal-open" | "ext-swap" | "ring-wrap" => 1,
        "ext-free" => 3,
        "destage" | "checkpoint" => 6,
        "recovery" => 24,
        _ => 40,
    }
}

/// What was read and compared.
#[derive(Debug, Default)]
struct Audits {
    reverted: u64,
    audits: u64,
    read: u64,
    verified: u64,
    /// Acknowledged when the last audit began.
    acknowledged: u64,
}

/// `cuts` times; 0 if nothing was lost.
pub(crate) fn run(cuts: u64, seed: u64, ledger: Option<&Path>) -> io::Result<()> {
    println!("seed {seed}");
    if let Some(why) = missing_for_broker() {
        println!("SKIPPED: power cuts under the broker: {why}");
        return Ok(());
    }
    let began = Instant::now();
    let world = World::new(seed, &Plan::default())?;
    let mut run = Run {
        tally: Tally::open(seed, ledger)?,
        audits: Audits::default(),
        world,
    };
    let done = run.all(cuts);
    if let Err(why) = &done {
        eprintln!("FAILED after {} cuts:\n  {why}", run.tally.cuts());
        run.world.explain();
    }
    run.report(began.elapsed());
    println!("seed {seed}");
    done.map_err(|_| {
        io::Error::other("what was acknowledged is not there, or the broker is not; see above")
    })
}

struct Run {
    world: World,
    tally: Tally,
    audits: Audits,
}

impl Run {
    fn all(&mut self, cuts: u64) -> io::Result<()> {
        let mut formatted = false;
        while self.tally.cuts() < cuts {
            if !formatted || self.tally.cuts() % FORMAT_EVERY == FORMAT_EVERY - 1 {
                self.first_format(formatted)?;
                formatted = true;
                self.world.make_fragile()?;
                self.world.produce();
                continue;
            }
            self.one()?;
            let done = self.tally.cuts();
            if done.is_multiple_of(VERIFY_EVERY) || done >= cuts {
                self.world.stop()?;
                self.verify()?;
                self.world.start()?;
            }
            self.world.pause(false)?;
            if done.is_multiple_of(10) {
                println!(
                    "{done} cuts, {} records acknowledged, {} read",
                    self.world.acknowledged(),
                    self.audits.read,
                );
            }
        }
        Ok(())
    }

    fn verify(&mut self) -> io::Result<()> {
        self.world.verify()?;
        self.audits.verified += 1;
        Ok(())
    }

    /// Load, one cut (and perhaps more while it recovers), and the comparison. Producers are at rest afterwards.
    fn one(&mut self) -> io::Result<()> {
        self.world.disturb();
        let since = self.world.acknowledged();
        self.world.load(since, RECORDS, Duration::from_secs(60))?;
        // A quarter of the cuts come at a moment nobody chose, the others in the part of the store that was hit least.
        let aim = if self.world.rng.percent(25) {
            let ms = self.world.rng.below(400);
            std::thread::sleep(Duration::from_millis(ms));
            None
        } else {
            let part = self.tally.least(&PARTS[..7]);
            self.world.set_trap(part, passes(part))?;
            self.world.trapped(part, AIM_MAX)?;
            Some(part)
        };
        self.cut(When::Load, aim)?;
        // The producers go on knocking meanwhile; now they wait, so that the log stands still.
        self.world.pause(true)?;
        while self.world.rng.percent(25) {
            self.cut_start(When::Recovery, "recovery")?;
        }
        self.world.start()?;
        self.audits.acknowledged = self.world.acknowledged();
        let audit = self.world.audit()?;
        self.audits.audits += 1;
        self.audits.read += audit.read;
        Ok(())
    }

    /// Blank disks, and the power goes while they are made, perhaps again on what that left; then a start must succeed.
    fn first_format(&mut self, again: bool) -> io::Result<()> {
        if again {
            self.world.stop()?;
            self.verify()?;
            self.world.forget();
            for disk in &mut self.world.disks {
                disk.replace()?;
            }
        }
        self.cut_start(When::Format, "format")?;
        while self.world.rng.percent(50) {
            self.cut_start(When::Format, "format")?;
        }
        self.world.start()?;
        Ok(())
    }

    /// A start that the power does not live to see.
    fn cut_start(&mut self, when: When, part: &'static str) -> io::Result<()> {
        self.world.set_trap(part, passes(part))?;
        self.world.broker = Some(self.world.site.spawn()?);
        self.world.trapped(part, START_AIM_MAX)?;
        self.cut(when, Some(part))
    }

    fn cut(&mut self, when: When, aim: Option<&'static str>) -> io::Result<()> {
        let since = self.world.acknowledged() - self.audits.acknowledged;
        let (phases, reverted) = self.world.cut()?;
        self.audits.reverted += reverted;
        self.tally.count(&Hit {
            when,
            aim,
            phases,
            since,
            reverted,
        })
    }

    fn report(&self, took: Duration) {
        println!(
            "{} cuts in {:.0} s: {} records acknowledged, {} audits read {} records, {} batches sent again, {} refusals",
            self.tally.cuts(),
            took.as_secs_f64(),
            self.world.acknowledged(),
            self.audits.audits,
            self.audits.read,
            self.world.shared.resent.load(Ordering::Acquire),
            self.world.shared.refused.load(Ordering::Acquire),
        );
        println!(
            "{} sectors reverted, {} file systems repaired, {} times verified, slowest start {:.2} s",
            self.audits.reverted,
            self.world.disks.iter().map(|it| it.repairs).sum::<u64>(),
            self.audits.verified,
            self.world.slowest_start.as_secs_f64(),
        );
        print!("{}", self.tally.table());
    }
}
