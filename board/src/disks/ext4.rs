//! An empty ext4 without mkfs: a seed of 256 MiB is written out, and the kernel makes it as large as its partition.
//!
//! ```text
//!  seed.bin:  each block of 4 KiB that is not zero: its number u32 · runs of (count u16, byte u8) that make 4,096 bytes
//! ```
//! `scripts/seed` makes the file; why so stands in `decisions/0001`. The seed's UUID is that of all seeds, so a new file
//! system gets one of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

const SEED: &[u8] = include_bytes!("seed.bin");
const BLOCK_BYTES: usize = 4096;
/// Bytes of the file system that the seed describes; all of them but its blocks must be zero.
pub(super) const SEED_BYTES: u64 = 256 << 20;
/// Blocks of a group.
const GROUP_BYTES: u64 = 128 << 20;

/// `EXT4_IOC_RESIZE_FS`: the wanted size in blocks.
const RESIZE: Opcode = opcode::write::<u64>(b'f', 16);
/// `EXT4_IOC_SETFSUUID`: `struct fsuuid`, whose fixed part has 8 bytes (Linux 6.0).
const SET_UUID: Opcode = opcode::write::<u64>(b'f', 44);

/// The seed's blocks, with their offsets in bytes, the superblock last: without it nobody takes the rest for a file
/// system.
pub(super) fn seed() -> Vec<(u64, Vec<u8>)> {
    let mut blocks = Vec::new();
    let mut rest = SEED;
    while let Some((number, behind)) = rest.split_first_chunk() {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        rest = behind;
        while block.len() < BLOCK_BYTES {
            let (run, behind) = rest
                .split_first_chunk::<3>()
                .expect("seed.bin is part of the program, and a test reads all of it");
            let [low, high, byte] = *run;
            block.resize(
                block.len() + usize::from(u16::from_le_bytes([low, high])),
                byte,
            );
            rest = behind;
        }
        let offset = u64::from(u32::from_le_bytes(*number)) * BLOCK_BYTES as u64;
        blocks.push((offset, block));
    }
    blocks.reverse();
    blocks
}

/// `struct fsuuid` with its bytes.
#[repr(C)]
struct FsUuid {
    length: u32,
    flags: u32,
    uuid: [u8; 16],
}

/// Gives the file system mounted at `root` this UUID.
pub(super) fn set_uuid(root: &Path, uuid: [u8; 16]) -> io::Result<()> {
    let argument = FsUuid {
        length: 16,
        flags: 0,
        uuid,
    };
    // SAFETY: EXT4_IOC_SETFSUUID reads the fixed part and as many bytes behind it as that says, which are there.
    unsafe {
        ioctl(
            &File::open(root)?,
            Setter::<SET_UUID, FsUuid>::new(argument),
        )
    }?;
    Ok(())
}

/// Makes the file system of `device`, mounted at `root`, as large as its partition, if more than a group is missing. One
/// that was cut in between goes on from where it was. 4 TB took 41 s on an emulated machine.
pub(super) fn grow(root: &Path, device: &Path, partition_bytes: u64) -> io::Result<bool> {
    let superblock = superblock(device)?;
    let has = size_of(&superblock).ok_or(io::ErrorKind::InvalidData)?;
    if !lacks(has, partition_bytes) {
        return Ok(false);
    }
    let blocks = partition_bytes / BLOCK_BYTES as u64;
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64.
    unsafe { ioctl(&File::open(root)?, Setter::<RESIZE, u64>::new(blocks)) }?;
    Ok(true)
}

/// Whether the file system of `device` still has the UUID of all seeds.
pub(super) fn has_seeds_uuid(device: &Path) -> io::Result<bool> {
    let seeds = seed();
    let (_, first) = seeds.last().expect("a seed has blocks");
    Ok(superblock(device)?[UUID] == first[1024..2048][UUID])
}

/// Where a superblock has its UUID (`s_uuid`).
const UUID: std::ops::Range<usize> = 0x68..0x78;

/// A mounted file system's superblock is read through the page cache that the kernel itself changes.
fn superblock(device: &Path) -> io::Result<[u8; 1024]> {
    let mut bytes = [0; 1024];
    File::open(device)?.read_exact_at(&mut bytes, 1024)?;
    Ok(bytes)
}

const fn lacks(has: u64, partition_bytes: u64) -> bool {
    partition_bytes.saturating_sub(has) >= GROUP_BYTES
}

/// Bytes that a superblock says it has (ext4's `s_blocks_count_lo`, `_hi`, for blocks of 4 KiB).
fn size_of(superblock: &[u8; 1024]) -> Option<u64> {
    let word = |at: usize| {
        superblock[at..]
            .first_chunk()
            .map(|it| u32::from_le_bytes(*it))
    };
    let magic = u16::from_le_bytes([superblock[0x38], superblock[0x39]]);
    (magic == 0xef53).then_some(())?;
    let blocks = u64::from(word(0x4)?) | u64::from(word(0x150)?) << 32;
    blocks.checked_mul(BLOCK_BYTES as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_seed_is_an_empty_file_system_that_fsck_finds_clean() {
        let blocks = seed();
        let (offset, superblock) = blocks.last().unwrap();
        assert_eq!(*offset, 0, "the superblock comes last");
        assert_eq!(
            size_of(superblock[1024..2048].try_into().unwrap()),
            Some(SEED_BYTES)
        );
        let path = std::env::temp_dir().join(format!("board-seed-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        file.set_len(SEED_BYTES).unwrap();
        for (offset, block) in &blocks {
            assert_eq!(block.len(), BLOCK_BYTES);
            file.write_all_at(block, *offset).unwrap();
        }
        let checked = Command::new("e2fsck").arg("-fn").arg(&path).output();
        std::fs::remove_file(&path).unwrap();
        match checked {
            Ok(checked) => assert!(checked.status.success(), "{checked:?}"),
            Err(error) => println!("SKIPPED: e2fsck ({error})"),
        }
    }

    #[test]
    fn it_grows_if_a_group_or_more_is_missing() {
        assert!(lacks(SEED_BYTES, 4 << 40));
        assert!(lacks(SEED_BYTES, SEED_BYTES + GROUP_BYTES));
        assert!(!lacks(SEED_BYTES, SEED_BYTES + GROUP_BYTES - 1));
        assert!(!lacks(SEED_BYTES, SEED_BYTES));
        assert!(!lacks(SEED_BYTES, 0));
        assert_eq!(size_of(&[0; 1024]), None);
    }
}
