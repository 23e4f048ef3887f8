//! Whether a drive may be partitioned, and how it is laid out.
//!
//! A drive is *blank* if its first and its last MiB read as zeros: there every partition table, file system, RAID and
//! LVM label has its place. The first thing written to a blank drive is a mark, and the last thing is to take it away; as
//! long as it stands, whatever else is there is ours, half made, and gone over again.

use site::Provision;
use slots::gpt::{self, Guid, NewPartition, NewTable};

/// What is looked at on each end.
pub(super) const END_BYTES: usize = 1 << 20;
/// Partitions begin and end at a multiple of this.
const ALIGN_BYTES: u64 = 1 << 20;
/// Where the mark lies: behind any table, in one sector of any drive.
pub(super) const MARK_AT: u64 = 512 << 10;
/// The mark.
pub(super) const MARK: [u8; 64] =
    *b"HOWDAH: being partitioned, nothing here is of any value yet.\0\0\0\0";
/// The smallest file system: the seed, and room to grow by a group.
const DATA_BYTES_MIN: u64 = 512 << 20;

/// What lies on a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Nothing.
    Blank,
    /// Our mark: it was blank when we began.
    HalfMade,
    /// A partition table.
    Table(Vec<Part>),
    /// Anything else.
    Foreign,
}

/// A partition that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// As Linux numbers it.
    pub(super) number: u32,
    /// Its GPT name.
    pub(super) name: String,
    /// Whether its type is one that we write.
    pub(super) ours: bool,
}

/// What to do with a drive that the site names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has its partitions.
    Use,
    /// Partition it.
    Make,
    /// Leave it alone.
    Refuse(String),
}

/// Looks at the first and the last MiB of a drive.
pub(super) fn look(first: &[u8], last: &[u8], sector_bytes: usize) -> Holds {
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if zero(first) && zero(last) {
        return Holds::Blank;
    }
    let mark = first.get(MARK_AT as usize..);
    if mark.is_some_and(|bytes| bytes.starts_with(&MARK)) {
        return Holds::HalfMade;
    }
    match table(first, sector_bytes) {
        Some(parts) => Holds::Table(parts),
        None => Holds::Foreign,
    }
}

/// The table whose header is the second sector of `first`, its entries directly behind it.
fn table(first: &[u8], sector_bytes: usize) -> Option<Vec<Part>> {
    let header = gpt::Header::decode(first.get(sector_bytes..)?)?;
    (header.entries_lba == 2).then_some(())?;
    parts(&header, first.get(2 * sector_bytes..)?)
}

fn parts(header: &gpt::Header, entries: &[u8]) -> Option<Vec<Part>> {
    let parts = header.partitions(entries)?.map(|part| Part {
        number: part.number,
        name: part.name().collect(),
        ours: [gpt::TYPE_RAW, gpt::TYPE_LINUX].contains(&part.kind),
    });
    Some(parts.collect())
}

/// Whether the drive is used, made or left alone. `wanted`: what it is to bear.
pub(super) fn decide(
    holds: &Holds,
    wanted: &[(String, Option<u64>)],
    provision: Provision,
) -> Verdict {
    match holds {
        Holds::Table(parts) => {
            let lacks = wanted
                .iter()
                .find(|(name, _)| !parts.iter().any(|part| part.ours && part.name == *name));
            match lacks {
                None => Verdict::Use,
                Some((name, _)) => Verdict::Refuse(format!(
                    "it holds a partition table without \"{name}\"; it is left alone. To use it, zero its first and last MiB elsewhere"
                )),
            }
        }
        Holds::Foreign => Verdict::Refuse(
            "it is not blank and holds nothing of ours; it is left alone. To use it, zero its first and last MiB elsewhere"
                .to_owned(),
        ),
        Holds::Blank | Holds::HalfMade if provision == Provision::IfBlank => Verdict::Make,
        Holds::Blank | Holds::HalfMade => Verdict::Refuse(
            "it is blank; provision = \"if-blank\" in the site file's [appliance] lets it be partitioned"
                .to_owned(),
        ),
    }
}

/// Where a partition will lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) name: String,
    /// A file system, or raw.
    pub(super) data: bool,
    pub(super) at_bytes: u64,
    pub(super) bytes: u64,
}

/// Lays the partitions out, each behind the one before it; the last MiB stays the table's.
pub(super) fn lay_out(
    wanted: &[(String, Option<u64>)],
    drive_bytes: u64,
) -> Result<Vec<Placed>, String> {
    let end = (drive_bytes / ALIGN_BYTES * ALIGN_BYTES).saturating_sub(ALIGN_BYTES);
    let mut at = ALIGN_BYTES;
    let mut placed = Vec::new();
    for (name, bytes) in wanted {
        let left = end.saturating_sub(at);
        let bytes = match bytes {
            Some(bytes) => bytes.next_multiple_of(ALIGN_BYTES),
            None => left,
        };
        let data = name == super::DATA;
        if bytes > left || bytes == 0 || (data && bytes < DATA_BYTES_MIN) {
            return Err(format!(
                "it has {drive_bytes} bytes, too few for what the site wants on it"
            ));
        }
        placed.push(Placed {
            name: name.clone(),
            data,
            at_bytes: at,
            bytes,
        });
        at += bytes;
    }
    Ok(placed)
}

/// Hands the table of these partitions to `put`, piece by piece, with offsets in bytes.
pub(super) fn write_table<E>(
    placed: &[Placed],
    drive_bytes: u64,
    sector_bytes: u32,
    mut guid: impl FnMut() -> Guid,
    put: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let sector = u64::from(sector_bytes);
    let disk = guid();
    let partitions: Vec<NewPartition<'_>> = placed
        .iter()
        .map(|part| NewPartition {
            kind: match part.data {
                true => gpt::TYPE_LINUX,
                false => gpt::TYPE_RAW,
            },
            guid: guid(),
            first_lba: part.at_bytes / sector,
            last_lba: (part.at_bytes + part.bytes) / sector - 1,
            name: &part.name,
        })
        .collect();
    let table = NewTable {
        sectors: drive_bytes / sector,
        sector_bytes: sector_bytes as usize,
        disk,
        partitions: &partitions,
    };
    table.write(put)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DRIVE: u64 = 4 << 30;

    fn wanted() -> Vec<(String, Option<u64>)> {
        vec![
            (super::super::RING.to_owned(), Some(1 << 30)),
            (super::super::DATA.to_owned(), None),
        ]
    }

    /// The drive's first and last MiB after the mark and the first `writes` of the table's five writes.
    fn written(writes: usize, sector_bytes: u32) -> (Vec<u8>, Vec<u8>) {
        let placed = lay_out(&wanted(), DRIVE).unwrap();
        let (mut first, mut last) = (vec![0; END_BYTES], vec![0; END_BYTES]);
        first[MARK_AT as usize..][..MARK.len()].copy_from_slice(&MARK);
        let (mut done, mut next) = (0, 0);
        let guid = || {
            next += 1;
            Guid([next; 16])
        };
        let all = write_table(&placed, DRIVE, sector_bytes, guid, |at, bytes| {
            if done == writes {
                return Err(());
            }
            done += 1;
            let behind = DRIVE - END_BYTES as u64;
            let (end, at) = match at >= behind {
                true => (&mut last, at - behind),
                false => (&mut first, at),
            };
            end[at as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        });
        assert_eq!(all.is_ok(), writes == 5, "the table has five pieces");
        (first, last)
    }

    fn whole(sector_bytes: u32) -> (Vec<u8>, Vec<u8>) {
        let (mut first, last) = written(5, sector_bytes);
        first[MARK_AT as usize..][..MARK.len()].fill(0);
        (first, last)
    }

    #[test]
    fn a_table_that_was_written_is_used_and_any_cut_of_it_is_gone_over_again() {
        for sector_bytes in [512, 4096] {
            for writes in 0..=5 {
                let (first, last) = written(writes, sector_bytes);
                let holds = look(&first, &last, sector_bytes as usize);
                let verdict = decide(&holds, &wanted(), Provision::IfBlank);
                assert_eq!(
                    (holds, verdict),
                    (Holds::HalfMade, Verdict::Make),
                    "{writes}"
                );
            }
            let (first, last) = whole(sector_bytes);
            let holds = look(&first, &last, sector_bytes as usize);
            assert_eq!(decide(&holds, &wanted(), Provision::IfBlank), Verdict::Use);
            let Holds::Table(parts) = holds else {
                panic!("{holds:?}");
            };
            let shown: Vec<_> = parts
                .iter()
                .map(|it| (it.number, it.name.as_str()))
                .collect();
            assert_eq!(shown, [(1, "howdah-ring"), (2, "howdah-data")]);
        }
    }

    #[test]
    fn whatever_else_is_there_is_left_alone() {
        let blank = || (vec![0; END_BYTES], vec![0; END_BYTES]);
        let refused = |first: &[u8], last: &[u8]| {
            let holds = look(first, last, 512);
            matches!(
                decide(&holds, &wanted(), Provision::IfBlank),
                Verdict::Refuse(_)
            )
        };
        // One byte anywhere: a boot sector, an ext4 superblock, an MD or ZFS label at the end.
        for at in [0, 446, 510, 1024 + 56, END_BYTES - 1] {
            let (mut first, last) = blank();
            first[at] = 1;
            assert!(refused(&first, &last), "byte {at} of the first MiB");
            let (first, mut last) = blank();
            last[at] = 1;
            assert!(refused(&first, &last), "byte {at} of the last MiB");
        }
        // A table of somebody else's.
        let (first, last) = whole(512);
        let other = [("esp".to_owned(), None)];
        assert!(matches!(
            decide(&look(&first, &last, 512), &other, Provision::IfBlank),
            Verdict::Refuse(why) if why.contains("\"esp\"")
        ));
    }

    #[test]
    fn a_blank_drive_is_left_alone_unless_the_site_says_so() {
        let never = decide(&Holds::Blank, &wanted(), Provision::Never);
        assert!(matches!(never, Verdict::Refuse(why) if why.contains("if-blank")));
        assert_eq!(
            decide(&Holds::Blank, &wanted(), Provision::IfBlank),
            Verdict::Make
        );
        // One that is made needs no permission.
        let (first, last) = whole(512);
        let whole = look(&first, &last, 512);
        assert_eq!(decide(&whole, &wanted(), Provision::Never), Verdict::Use);
    }

    #[test]
    fn partitions_lie_one_behind_the_other_on_whole_mib() {
        let placed = lay_out(&wanted(), DRIVE + 12_345).unwrap();
        let shown: Vec<_> = placed
            .iter()
            .map(|it| (it.data, it.at_bytes >> 20, it.bytes >> 20))
            .collect();
        assert_eq!(shown, [(false, 1, 1024), (true, 1025, 4096 - 1025 - 1)]);
        assert!(lay_out(&wanted(), 1 << 30).is_err(), "no room");
        assert!(
            lay_out(&wanted(), (1 << 30) + (256 << 20)).is_err(),
            "none for the seed"
        );
        assert!(lay_out(&wanted(), 0).is_err());
    }
}
