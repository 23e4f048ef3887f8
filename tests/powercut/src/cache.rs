//! What a disk forgets: every write since the last FLUSH, and what becomes of it when the power goes.
//!
//! The medium always shows the newest bytes, as a drive's cache does. Beside it lies a log of what each unflushed write
//! covered. A FLUSH empties the log. A cut walks it from the newest write to the oldest and gives each a fate:
//!
//! ```text
//! time ───────▶            w1          w2            w3        cut
//! sector 8     stable      aaaa        bbbb
//! fates                    kept        lost                     → aaaa
//! fates                    lost        kept                     → bbbb, while what w1 wrote elsewhere is gone
//! fates                    lost        lost                     → stable
//! ```
//!
//! Sectors have 512 B, but drives of today write 4 KiB at once, and file systems count on it: XFS does not come up again
//! with half a directory block. So a write is torn between 4 KiB blocks; and between sectors only in ranges that were
//! named fragile, among them blocks whose first sector came through and whose rest did not, which a checksum over a header
//! alone would not see.

use std::collections::{HashSet, VecDeque};
use std::io;

use crate::rng::Rng;

/// What is never torn.
pub(crate) const SECTOR: u64 = 512;
const BLOCK_SECTORS: u64 = 8;
/// Writes that wait for a FLUSH; beyond it the oldest reach the platter by themselves. A common drive has as much.
pub(crate) const CACHE_BYTES: u64 = 64 << 20;

/// Where the newest bytes lie.
pub(crate) trait Medium {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// A write that no FLUSH has covered, and what was there before it.
#[derive(Debug)]
struct Unflushed {
    offset: u64,
    before: Vec<u8>,
}

/// What becomes of one write in a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// Each sector by itself.
    Torn,
    /// The first sectors, as a head writes them.
    TornBehind(u64),
    /// Of some 4 KiB blocks only the first sector.
    TornBlocks,
}

/// What a cut did, in sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Writes that no FLUSH had covered.
    pub(crate) writes: u64,
    /// Of these, writes of which some sectors came through and some did not.
    pub(crate) torn: u64,
    /// Sectors that went back to what they held before.
    pub(crate) reverted: u64,
    /// Sectors that came through.
    pub(crate) kept: u64,
}

/// The volatile cache of one disk.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    log: VecDeque<Unflushed>,
    bytes: u64,
    /// Where single sectors are torn: from and to, in bytes.
    fragile: Vec<(u64, u64)>,
}

impl Cache {
    /// Writes and remembers what was there. Offset and length are whole sectors.
    pub(crate) fn write(
        &mut self,
        medium: &mut impl Medium,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(SECTOR) && (bytes.len() as u64).is_multiple_of(SECTOR),
            "a block device writes whole sectors"
        );
        let mut before = vec![0; bytes.len()];
        medium.read(offset, &mut before)?;
        medium.write(offset, bytes)?;
        self.bytes += before.len() as u64;
        self.log.push_back(Unflushed { offset, before });
        while self.bytes > CACHE_BYTES {
            let Some(oldest) = self.log.pop_front() else {
                break;
            };
            self.bytes -= oldest.before.len() as u64;
        }
        Ok(())
    }

    /// All that was written is stable.
    pub(crate) fn flush(&mut self) {
        self.log.clear();
        self.bytes = 0;
    }

    /// In this range a write is torn between any two sectors.
    pub(crate) fn add_fragile(&mut self, offset: u64, bytes: u64) {
        self.fragile.push((offset, offset.saturating_add(bytes)));
    }

    /// No range is fragile.
    pub(crate) fn clear_fragile(&mut self) {
        self.fragile.clear();
    }

    /// Bytes that a cut may take.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The power goes: what stands on the medium afterwards is what a drive might show.
    pub(crate) fn cut(&mut self, medium: &mut impl Medium, rng: &mut Rng) -> io::Result<Cut> {
        // Some cuts take all, some nearly nothing: in between, few writes in a row share a fate.
        let keep_percent = *rng.pick(&[0, 0, 10, 50, 50, 50, 90, 100]);
        let tear_percent = *rng.pick(&[0, 20, 60]);
        let mut done = Cut::default();
        // Sectors whose newest surviving write was found.
        let mut settled = HashSet::new();
        while let Some(Unflushed { offset, before }) = self.log.pop_back() {
            let sectors = before.len() as u64 / SECTOR;
            let fate = fate(rng, keep_percent, tear_percent, sectors);
            let (mut kept, mut lost) = (0, 0);
            // What holds for the block that the sector lies in, as far as this write covers it.
            let mut block = true;
            for index in 0..sectors {
                let sector = offset / SECTOR + index;
                let begins = index == 0 || sector.is_multiple_of(BLOCK_SECTORS);
                if begins {
                    block = match fate {
                        Fate::Kept => true,
                        Fate::Lost => false,
                        Fate::TornBehind(first) => index < first,
                        Fate::Torn | Fate::TornBlocks => rng.percent(50),
                    };
                }
                let at = sector * SECTOR;
                let fragile = self
                    .fragile
                    .iter()
                    .any(|(from, to)| (*from..*to).contains(&at));
                let keep = match fate {
                    Fate::Torn if fragile => rng.percent(50),
                    Fate::TornBehind(first) if fragile => index < first,
                    Fate::TornBlocks if fragile => block || sector.is_multiple_of(BLOCK_SECTORS),
                    _ => block,
                };
                if keep {
                    kept += 1;
                    settled.insert(sector);
                } else {
                    lost += 1;
                    if !settled.contains(&sector) {
                        let at = (index * SECTOR) as usize;
                        medium.write(sector * SECTOR, &before[at..at + SECTOR as usize])?;
                    }
                }
            }
            done.writes += 1;
            done.torn += u64::from(kept > 0 && lost > 0);
            done.kept += kept;
            done.reverted += lost;
        }
        self.bytes = 0;
        Ok(done)
    }
}

fn fate(rng: &mut Rng, keep_percent: u64, tear_percent: u64, sectors: u64) -> Fate {
    if sectors > 1 && rng.percent(tear_percent) {
        return match rng.below(3) {
            0 => Fate::Torn,
            1 => Fate::TornBehind(1 + rng.below(sectors - 1)),
            _ => Fate::TornBlocks,
        };
    }
    if rng.percent(keep_percent) {
        Fate::Kept
    } else {
        Fate::Lost
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rng::fresh_seed;

    /// A medium in memory.
    struct Ram(Vec<u8>);

    impl Medium for Ram {
        fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            let at = offset as usize;
            into.copy_from_slice(&self.0[at..at + into.len()]);
            Ok(())
        }
        fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let at = offset as usize;
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
    }

    const SECTORS: u64 = 64;

    fn sector(ram: &Ram, index: u64) -> u8 {
        let at = (index * SECTOR) as usize;
        let bytes = &ram.0[at..at + SECTOR as usize];
        assert!(bytes.iter().all(|it| *it == bytes[0]), "a sector is torn");
        bytes[0]
    }

    /// Random writes and flushes beside a list, for each sector, of all that it may hold after a cut.
    fn random_run(seed: u64) -> Cut {
        let mut rng = Rng::new(seed);
        let (mut ram, mut cache) = (Ram(vec![0; (SECTORS * SECTOR) as usize]), Cache::default());
        let mut may_hold = vec![vec![0u8]; SECTORS as usize];
        for version in 1..=200u8 {
            if rng.percent(10) {
                cache.flush();
                for held in &mut may_hold {
                    held.drain(..held.len() - 1);
                }
            }
            let first = rng.below(SECTORS);
            let count = 1 + rng.below((SECTORS - first).min(20));
            let bytes = vec![version; (count * SECTOR) as usize];
            cache.write(&mut ram, first * SECTOR, &bytes).unwrap();
            for held in &mut may_hold[first as usize..(first + count) as usize] {
                held.push(version);
            }
        }
        let cut = cache.cut(&mut ram, &mut rng).unwrap();
        for (index, held) in may_hold.iter().enumerate() {
            let shows = sector(&ram, index as u64);
            assert!(
                held.contains(&shows),
                "seed {seed}: sector {index} shows {shows}, it may hold {held:?}"
            );
        }
        assert_eq!(cache.bytes(), 0);
        cut
    }

    #[test]
    fn a_sector_shows_its_stable_content_or_one_that_was_written_since() {
        let seed = fresh_seed();
        println!("seed {seed}");
        let mut all = Cut::default();
        for n in 0..500 {
            let cut = random_run(seed.wrapping_add(n));
            all.torn += cut.torn;
            all.kept += cut.kept;
            all.reverted += cut.reverted;
        }
        println!("{all:?}");
        assert!(
            all.torn > 100 && all.kept > 1_000 && all.reverted > 1_000,
            "{all:?}"
        );
    }

    #[test]
    fn what_a_flush_covered_is_never_lost() {
        let seed = fresh_seed();
        println!("seed {seed}");
        for n in 0..200 {
            let mut rng = Rng::new(seed.wrapping_add(n));
            let (mut ram, mut cache) = (Ram(vec![0; 8 * 512]), Cache::default());
            cache.write(&mut ram, 0, &[1; 8 * 512]).unwrap();
            cache.flush();
            let cut = cache.cut(&mut ram, &mut rng).unwrap();
            assert_eq!(cut, Cut::default());
            assert!(ram.0.iter().all(|it| *it == 1));
        }
    }

    #[test]
    fn a_later_write_may_stay_while_an_earlier_one_is_lost() {
        let seed = fresh_seed();
        println!("seed {seed}");
        let turned = (0..500).filter(|n| {
            let mut rng = Rng::new(seed.wrapping_add(*n));
            let (mut ram, mut cache) = (Ram(vec![0; 2 * 512]), Cache::default());
            cache.write(&mut ram, 0, &[1; 512]).unwrap();
            cache.write(&mut ram, 512, &[2; 512]).unwrap();
            cache.cut(&mut ram, &mut rng).unwrap();
            ram.0[0] == 0 && ram.0[512] == 2
        });
        assert!(turned.count() > 20);
    }

    /// What two blocks show after one write of both and a cut, 500 times.
    fn two_blocks(fragile: bool) -> Vec<Vec<u8>> {
        let seed = fresh_seed();
        println!("seed {seed}");
        let one = |n| {
            let mut rng = Rng::new(seed.wrapping_add(n));
            let (mut ram, mut cache) = (Ram(vec![0; 16 * 512]), Cache::default());
            if fragile {
                cache.add_fragile(0, 16 * 512);
            }
            cache.write(&mut ram, 0, &[1; 16 * 512]).unwrap();
            cache.cut(&mut ram, &mut rng).unwrap();
            (0..16).map(|it| sector(&ram, it)).collect()
        };
        (0..500).map(one).collect()
    }

    #[test]
    fn a_fragile_block_may_show_its_first_sector_alone() {
        let torn = two_blocks(true);
        let alone = |it: &&Vec<u8>| it[8] == 1 && it[9..].iter().all(|it| *it == 0);
        assert!(torn.iter().filter(alone).count() > 5);
    }

    #[test]
    fn other_blocks_are_whole() {
        let shown = two_blocks(false);
        for blocks in &shown {
            assert!(
                blocks
                    .chunks(8)
                    .all(|block| block.iter().all(|it| *it == block[0])),
                "{blocks:?}"
            );
        }
        assert!(
            shown.iter().filter(|it| it[0] != it[8]).count() > 20,
            "none is torn between two blocks"
        );
    }

    #[test]
    fn the_oldest_writes_leave_a_full_cache_first() {
        let mut rng = Rng::new(1);
        let size = CACHE_BYTES as usize + (2 << 20);
        let (mut ram, mut cache) = (Ram(vec![0; size]), Cache::default());
        for at in (0..size).step_by(1 << 20) {
            cache.write(&mut ram, at as u64, &[1; 1 << 20]).unwrap();
        }
        assert_eq!(cache.bytes(), CACHE_BYTES);
        cache.cut(&mut ram, &mut rng).unwrap();
        assert!(ram.0[..2 << 20].iter().all(|it| *it == 1));
    }

    #[test]
    fn the_same_seed_cuts_the_same_way() {
        let seed = fresh_seed();
        println!("seed {seed}");
        assert_eq!(random_run(seed), random_run(seed));
    }
}
