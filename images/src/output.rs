//! An image as a file: raw with holes, raw packed with zstd, or QEMU's qcow2.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use clap::ValueEnum;

use crate::disk::Image;
use crate::fault::{At, Fault};

/// What an image is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The disk byte for byte, with holes where it is zero: for `images flash` and `images config`
    Raw,
    /// The same, packed: for sending
    #[value(name = "raw.zst")]
    RawZst,
    /// For virtual machines
    Qcow2,
}

impl Format {
    /// The file name's ending.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawZst => "raw.zst",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Writes the whole file, or leaves what is there: it takes its name last.
pub fn write(image: &Image, format: Format, path: &Path) -> Result<(), Fault> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let file = File::create(part).at("write", part)?;
    let written = match format {
        Format::Raw => raw(image, &file),
        Format::RawZst => packed(image, &file),
        Format::Qcow2 => qcow2(image, &file),
    };
    written.and_then(|()| file.sync_all()).at("write", part)?;
    std::fs::rename(part, path).at("write", path)
}

fn raw(image: &Image, file: &File) -> io::Result<()> {
    file.set_len(image.bytes)?;
    for (offset, bytes) in &image.pieces {
        file.write_all_at(bytes, *offset)?;
    }
    Ok(())
}

fn packed(image: &Image, file: &File) -> io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut encoder = zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    encoder.set_pledged_src_size(Some(image.bytes))?;
    encoder.include_checksum(true)?;
    for (bytes, mut zeros) in image.runs() {
        encoder.write_all(bytes)?;
        while zeros > 0 {
            let now = usize::try_from(zeros)
                .unwrap_or(usize::MAX)
                .min(ZEROS.len());
            encoder.write_all(&ZEROS[..now])?;
            zeros -= now as u64;
        }
    }
    encoder.finish()?;
    Ok(())
}

/// qcow2 of version 2 (QEMU, docs/interop/qcow2.txt): clusters of 64 KiB, all numbers big-endian.
///
/// ```text
///  cluster 0 header · 1 table of reference blocks · 2 the one reference block · 3 L1 · 4… L2 tables · then data
/// ```
fn qcow2(image: &Image, file: &File) -> io::Result<()> {
    const BITS: u32 = 16;
    const CLUSTER: u64 = 1 << BITS;
    /// Entries of an L2 table; each table so describes 512 MiB.
    const L2_ENTRIES: u64 = CLUSTER / 8;
    /// Set where a cluster has one reference and may be written in place.
    const COPIED: u64 = 1 << 63;
    const L1: u64 = 3;
    const L2: u64 = 4;

    let clusters = image.bytes.div_ceil(CLUSTER);
    let tables = clusters.div_ceil(L2_ENTRIES);
    let mut map = vec![0u64; usize::try_from(tables * L2_ENTRIES).expect("a small image")];
    let mut used = L2 + tables;
    for (offset, bytes) in &image.pieces {
        let (mut offset, mut bytes) = (*offset, bytes.as_slice());
        while !bytes.is_empty() {
            let entry = &mut map[usize::try_from(offset / CLUSTER).expect("a small image")];
            if *entry == 0 {
                *entry = (used * CLUSTER) | COPIED;
                used += 1;
            }
            let within = offset % CLUSTER;
            let (now, rest) = bytes.split_at(bytes.len().min((CLUSTER - within) as usize));
            file.write_all_at(now, (*entry & !COPIED) + within)?;
            offset += now.len() as u64;
            bytes = rest;
        }
    }
    // One block counts 32,768 clusters, 2 GiB of them; a larger image is not made.
    assert!(used <= CLUSTER / 2, "an image of less than 2 GiB");
    file.set_len(used * CLUSTER)?;
    let big = |numbers: &[u64]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect()
    };

    let mut header = Vec::new();
    header.extend_from_slice(b"QFI\xfb");
    header.extend_from_slice(&2u32.to_be_bytes());
    header.extend_from_slice(&[0; 12]); // no backing file
    header.extend_from_slice(&BITS.to_be_bytes());
    header.extend_from_slice(&image.bytes.to_be_bytes());
    header.extend_from_slice(&0u32.to_be_bytes()); // not encrypted
    header.extend_from_slice(&(tables as u32).to_be_bytes());
    header.extend_from_slice(&big(&[L1 * CLUSTER, CLUSTER]));
    header.extend_from_slice(&1u32.to_be_bytes());
    header.extend_from_slice(&[0; 12]); // no snapshots
    file.write_all_at(&header, 0)?;
    file.write_all_at(&big(&[2 * CLUSTER]), CLUSTER)?;
    let references: Vec<u8> = (0..used).flat_map(|_| 1u16.to_be_bytes()).collect();
    file.write_all_at(&references, 2 * CLUSTER)?;
    let l1: Vec<u64> = (0..tables)
        .map(|table| ((L2 + table) * CLUSTER) | COPIED)
        .collect();
    file.write_all_at(&big(&l1), L1 * CLUSTER)?;
    file.write_all_at(&big(&map), L2 * CLUSTER)
}
