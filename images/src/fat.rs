//! A FAT32 file system with one file in it, made once and never changed: `EFI/BOOT/BOOTX64.EFI`.
//!
//! ```text
//!  sector 0 boot sector · 1 free counts · 6, 7 copies of both · 32 two tables of clusters · data from cluster 2
//!  cluster 2 root · 3 EFI · 4 EFI/BOOT · 5… the file, in one run
//! ```
//! (Microsoft FAT specification, 2005.) A cluster is one sector of 512 bytes: 48 MiB then have enough clusters for FAT32,
//! which a reader tells from FAT16 by their number alone. Names are in 8.3, dates fixed, and nothing needs a long name.

use crate::fault::Fault;

const SECTOR: usize = 512;
const RESERVED_SECTORS: usize = 32;
const TABLES: usize = 2;
/// Fewer clusters would make it FAT16.
const CLUSTERS_MIN: usize = 65_525;
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;
const ROOT: u32 = 2;
const EFI: u32 = 3;
const BOOT: u32 = 4;
const FILE: u32 = 5;
/// 2025-01-01, as FAT packs a date.
const DATE: u16 = (2025 - 1980) << 9 | 1 << 5 | 1;

/// The bytes of a file system of `sectors` sectors from its start to the last one in use; the rest is zero.
///
/// `hidden` is how many sectors lie before it on the disk.
pub fn with_loader(sectors: u32, hidden: u32, loader: &[u8]) -> Result<Vec<u8>, Fault> {
    let all = sectors as usize;
    // Each sector of a table serves 128 clusters; a table that serves what is left beside it is long enough.
    let table_sectors = (all - RESERVED_SECTORS).div_ceil(SECTOR / 4);
    let data = RESERVED_SECTORS + TABLES * table_sectors;
    let clusters = all - data;
    assert!(
        clusters >= CLUSTERS_MIN,
        "the layout's file system is large enough"
    );
    let used = loader.len().div_ceil(SECTOR);
    if FILE as usize - 2 + used > clusters {
        return Err(Fault::other("the loader is larger than its file system"));
    }
    let mut image = vec![0; (data + FILE as usize - 2 + used) * SECTOR];

    let boot = boot_sector(sectors, hidden, table_sectors as u32);
    let free = free_counts(
        (clusters - (FILE as usize - 2) - used) as u32,
        FILE + used as u32,
    );
    for (sector, bytes) in [(0, &boot), (1, &free), (6, &boot), (7, &free)] {
        image[sector * SECTOR..][..SECTOR].copy_from_slice(bytes);
    }
    let mut chain = vec![
        0x0FFF_FFF8,
        END_OF_CHAIN,
        END_OF_CHAIN,
        END_OF_CHAIN,
        END_OF_CHAIN,
    ];
    chain.extend((0..used as u32).map(|index| {
        if index as usize + 1 == used {
            END_OF_CHAIN
        } else {
            FILE + index + 1
        }
    }));
    let chain: Vec<u8> = chain.into_iter().flat_map(u32::to_le_bytes).collect();
    for table in 0..TABLES {
        let at = (RESERVED_SECTORS + table * table_sectors) * SECTOR;
        image[at..at + chain.len()].copy_from_slice(&chain);
    }
    let mut cluster = |cluster: u32, bytes: &[u8]| {
        let at = (data + cluster as usize - 2) * SECTOR;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    const VOLUME: u8 = 0x08;
    const FOLDER: u8 = 0x10;
    const ARCHIVE: u8 = 0x20;
    let root = [
        entry(b"HOWDAH     ", VOLUME, 0, 0),
        entry(b"EFI        ", FOLDER, EFI, 0),
    ];
    cluster(ROOT, root.as_flattened());
    // The root's number is 0 where it is a folder's parent.
    let efi = [
        entry(b".          ", FOLDER, EFI, 0),
        entry(b"..         ", FOLDER, 0, 0),
        entry(b"BOOT       ", FOLDER, BOOT, 0),
    ];
    cluster(EFI, efi.as_flattened());
    let file = entry(b"BOOTX64 EFI", ARCHIVE, FILE, loader.len() as u32);
    let boot = [
        entry(b".          ", FOLDER, BOOT, 0),
        entry(b"..         ", FOLDER, EFI, 0),
        file,
    ];
    cluster(BOOT, boot.as_flattened());
    cluster(FILE, loader);
    Ok(image)
}

fn boot_sector(sectors: u32, hidden: u32, table_sectors: u32) -> [u8; SECTOR] {
    let mut boot = [0; SECTOR];
    boot[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
    boot[3..11].copy_from_slice(b"MSWIN4.1");
    boot[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
    boot[13] = 1; // sectors of a cluster
    boot[14..16].copy_from_slice(&(RESERVED_SECTORS as u16).to_le_bytes());
    boot[16] = TABLES as u8;
    boot[21] = 0xF8; // a fixed disk
    boot[24] = 63; // geometry, which nobody asks for
    boot[26] = 255;
    boot[28..32].copy_from_slice(&hidden.to_le_bytes());
    boot[32..36].copy_from_slice(&sectors.to_le_bytes());
    boot[36..40].copy_from_slice(&table_sectors.to_le_bytes());
    boot[44..48].copy_from_slice(&ROOT.to_le_bytes());
    boot[48] = 1; // the sector of the free counts
    boot[50] = 6; // that of the copies
    boot[64] = 0x80;
    boot[66] = 0x29; // number, label and type follow
    boot[67..71].copy_from_slice(b"hwdh");
    boot[71..82].copy_from_slice(b"HOWDAH     ");
    boot[82..90].copy_from_slice(b"FAT32   ");
    boot[510..].copy_from_slice(&[0x55, 0xAA]);
    boot
}

fn free_counts(free: u32, next: u32) -> [u8; SECTOR] {
    let mut counts = [0; SECTOR];
    counts[..4].copy_from_slice(b"RRaA");
    counts[484..488].copy_from_slice(b"rrAa");
    counts[488..492].copy_from_slice(&free.to_le_bytes());
    counts[492..496].copy_from_slice(&next.to_le_bytes());
    counts[510..].copy_from_slice(&[0x55, 0xAA]);
    counts
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u32, bytes: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    for date in [16, 18, 24] {
        entry[date..date + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    let [low0, low1, high0, high1] = cluster.to_le_bytes();
    entry[20..22].copy_from_slice(&[high0, high1]);
    entry[26..28].copy_from_slice(&[low0, low1]);
    entry[28..].copy_from_slice(&bytes.to_le_bytes());
    entry
}
