//! What the cuts hit, over several runs: a file with a line a cut, which is only ever added to, and the table of its sums.
//!
//! ```text
//! seed=7 cut=12 when=load aim=ext-swap in=group-write,ext-swap since=1043 reverted=31
//! ```
//! `aim=none` is a moment that nobody chose, `in=none` one between the parts of the store. `since` counts the records
//! acknowledged since the audit before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::phase::PARTS;

/// What went on when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Producers wrote, and had got their thousand acknowledgements since the last audit.
    Load,
    /// A start after a cut.
    Recovery,
    /// The first start on blank disks.
    Format,
}

impl When {
    const ALL: [Self; 3] = [Self::Load, Self::Recovery, Self::Format];

    const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Recovery => "recovery",
            Self::Format => "format",
        }
    }
}

/// One cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) when: When,
    pub(crate) aim: Option<&'static str>,
    pub(crate) phases: Vec<String>,
    pub(crate) since: u64,
    pub(crate) reverted: u64,
}

impl Hit {
    fn line(&self, seed: u64, cut: u64) -> String {
        let mut phases: Vec<_> = self.phases.iter().map(String::as_str).collect();
        // Two disks in one part are one hit.
        phases.sort_unstable();
        phases.dedup();
        let phases = match &phases[..] {
            [] => "none".to_owned(),
            some => some.join(","),
        };
        format!(
            "seed={seed} cut={cut} when={} aim={} in={phases} since={} reverted={}\n",
            self.when.name(),
            self.aim.unwrap_or("none"),
            self.since,
            self.reverted
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut words = line.split_whitespace();
            words.find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
        };
        let when = field("when")?;
        let aim = field("aim")?;
        let phases = field("in")?;
        Some(Self {
            when: *When::ALL.iter().find(|it| it.name() == when)?,
            aim: PARTS.into_iter().find(|it| *it == aim),
            phases: match phases {
                "none" => Vec::new(),
                some => some.split(',').map(str::to_owned).collect(),
            },
            since: field("since")?.parse().ok()?,
            reverted: field("reverted")?.parse().ok()?,
        })
    }
}

/// Sums of cuts.
#[derive(Debug, Default)]
struct Sums {
    cuts: u64,
    when: BTreeMap<&'static str, u64>,
    aimed: BTreeMap<&'static str, u64>,
    hits: BTreeMap<&'static str, u64>,
    between: u64,
    harmless: u64,
    /// The least that was acknowledged before a cut under load.
    since_least: Option<u64>,
}

impl Sums {
    fn add(&mut self, hit: &Hit) {
        self.cuts += 1;
        *self.when.entry(hit.when.name()).or_default() += 1;
        if let Some(part) = hit.aim {
            *self.aimed.entry(part).or_default() += 1;
        }
        for part in PARTS {
            if hit.phases.iter().any(|it| it == part) {
                *self.hits.entry(part).or_default() += 1;
            }
        }
        self.between += u64::from(hit.phases.is_empty());
        self.harmless += u64::from(hit.reverted == 0);
        if hit.when == When::Load {
            let least = self.since_least.unwrap_or(u64::MAX);
            self.since_least = Some(least.min(hit.since));
        }
    }

    fn of(map: &BTreeMap<&'static str, u64>, name: &str) -> u64 {
        map.get(name).copied().unwrap_or(0)
    }
}

/// This run and those before it.
#[derive(Debug)]
pub(crate) struct Tally {
    seed: u64,
    ledger: Option<File>,
    run: Sums,
    all: Sums,
}

impl Tally {
    /// With the lines that `ledger` has already; what is cut is added to it.
    pub(crate) fn open(seed: u64, ledger: Option<&Path>) -> io::Result<Self> {
        let mut all = Sums::default();
        let mut file = None;
        if let Some(path) = ledger {
            file = Some(File::options().append(true).create(true).open(path)?);
            for (at, line) in fs::read_to_string(path)?.lines().enumerate() {
                let hit = Hit::parse(line).ok_or_else(|| {
                    let place = format!("{}:{}", path.display(), at + 1);
                    io::Error::other(format!("{place}: `{line}` is no line of a ledger"))
                })?;
                all.add(&hit);
            }
        }
        Ok(Self {
            seed,
            ledger: file,
            run: Sums::default(),
            all,
        })
    }

    pub(crate) fn count(&mut self, hit: &Hit) -> io::Result<()> {
        self.run.add(hit);
        self.all.add(hit);
        match &mut self.ledger {
            Some(file) => file.write_all(hit.line(self.seed, self.run.cuts).as_bytes()),
            None => Ok(()),
        }
    }

    /// Cuts of this run.
    pub(crate) fn cuts(&self) -> u64 {
        self.run.cuts
    }

    /// The part among `parts` that was hit least, by all runs.
    pub(crate) fn least(&self, parts: &[&'static str]) -> &'static str {
        let least = parts.iter().min_by_key(|it| Sums::of(&self.all.hits, it));
        least.expect("somebody asks about some part")
    }

    /// Whole lines.
    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "{:<24} {:>8} {:>8} {:>9}\n",
            "cuts", "aimed", "hit", "all runs"
        );
        let mut row = |name: &str, aimed: Option<u64>, hit: u64, all: u64| {
            let aimed = aimed.map_or_else(String::new, |it| it.to_string());
            // Writing to a String can't fail.
            let _ = writeln!(out, "{name:<24} {aimed:>8} {hit:>8} {all:>9}");
        };
        let (run, all) = (&self.run, &self.all);
        for part in PARTS {
            let aimed = Sums::of(&run.aimed, part);
            let (hit, all) = (Sums::of(&run.hits, part), Sums::of(&all.hits, part));
            row(part, Some(aimed), hit, all);
        }
        row("between parts", None, run.between, all.between);
        row("that reverted nothing", None, run.harmless, all.harmless);
        for when in When::ALL {
            let (run, all) = (&run.when, &all.when);
            let name = format!("all during {}", when.name());
            row(
                &name,
                None,
                Sums::of(run, when.name()),
                Sums::of(all, when.name()),
            );
        }
        row("all", None, run.cuts, all.cuts);
        if let Some(least) = all.since_least {
            out += &format!("at least {least} records acknowledged before each cut under load\n");
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hit(aim: Option<&'static str>, phases: &[&str], since: u64) -> Hit {
        Hit {
            when: When::Load,
            aim,
            phases: phases.iter().map(|it| (*it).to_owned()).collect(),
            since,
            reverted: 5,
        }
    }

    #[test]
    fn a_line_comes_back_and_two_disks_in_one_part_are_one_hit() {
        let two = hit(
            Some("ext-swap"),
            &["ext-swap", "destage", "ext-swap"],
            1_001,
        );
        let line = two.line(7, 1);
        assert_eq!(
            line,
            "seed=7 cut=1 when=load aim=ext-swap in=destage,ext-swap since=1001 reverted=5\n"
        );
        let once = hit(Some("ext-swap"), &["destage", "ext-swap"], 1_001);
        assert_eq!(Hit::parse(&line), Some(once));
        let none = hit(None, &[], 1_000);
        assert_eq!(Hit::parse(&none.line(7, 2)), Some(none));
        assert_eq!(Hit::parse("seed=7 cut=1 when=lunch"), None);
    }

    #[test]
    fn runs_add_up_in_the_ledger_and_the_least_hit_part_is_known() {
        let path = std::env::temp_dir().join(format!("powercut-ledger-{}", std::process::id()));
        for seed in 1..=2 {
            let mut tally = Tally::open(seed, Some(&path)).unwrap();
            tally
                .count(&hit(Some("destage"), &["destage"], 1_000 + seed))
                .unwrap();
            tally.count(&hit(None, &[], 1_100)).unwrap();
            assert_eq!(tally.cuts(), 2);
            assert_eq!(tally.all.cuts, 2 * seed);
            assert_eq!(tally.least(&["destage", "ext-free"]), "ext-free");
            assert_eq!(tally.all.hits.get("destage"), Some(&seed));
            assert_eq!(tally.all.since_least, Some(1_001));
        }
        fs::write(&path, "not a ledger\n").unwrap();
        assert!(Tally::open(3, Some(&path)).is_err());
        fs::remove_file(path).unwrap();
    }
}
