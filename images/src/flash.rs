//! An image onto a real disk, and only onto the one that is meant.
//!
//! Nothing is written to a device that is mounted, swapped on, part of another device, too small, or whose serial number
//! the person does not type. Behind the image the disk gets a table of its own length with GUIDs of its own, since two
//! disks of one image in one box would be the same disk to its firmware. What was written is read back from the medium.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{major, minor};
use rustix::ioctl::{NoArg, ioctl, opcode};
use slots::gpt::{Guid, Header, NewPartition, NewTable, Partition};

use crate::disk::SECTOR_BYTES;
use crate::fault::{At, Fault};

/// Bytes of one write: long enough for a drive to run at its speed, short enough for a bar that moves.
const CHUNK_BYTES: usize = 4 << 20;
/// The longest list of partitions that is carried over.
const PARTITIONS_MAX: usize = 16;

/// What to write where.
#[derive(Clone, Debug, Args)]
pub struct Flash {
    /// The image, raw or raw.zst
    pub image: PathBuf,
    /// The disk, such as /dev/sdb
    pub device: PathBuf,
    /// The disk's serial number, for scripts; without it a person is asked to type it
    #[arg(long)]
    pub serial: Option<String>,
}

/// What sysfs says of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// As the kernel calls it.
    pub name: String,
    /// Its maker's words.
    pub model: String,
    /// What tells it from others of its kind; empty if it has none.
    pub serial: String,
    /// Its length.
    pub bytes: u64,
    /// Of a sector.
    pub sector_bytes: u64,
    /// `major:minor` of the device and its partitions.
    pub numbers: BTreeSet<String>,
    /// Its partitions' names.
    pub partitions: Vec<String>,
    /// Devices that are built from it or its partitions.
    pub holders: Vec<String>,
    /// It is a partition, no disk.
    pub partition: bool,
    /// It can't be written.
    pub read_only: bool,
}

impl Device {
    /// Reads `/sys/class/block/NAME`.
    pub fn read(sys: &Path, name: &str) -> io::Result<Self> {
        let folder = fs::canonicalize(sys.join(name))?;
        let text = |path: &Path| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let number = |path: &Path| text(path).parse().unwrap_or(0);
        let listed = |folder: &Path| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        };
        let mut device = Self {
            name: name.to_owned(),
            model: text(&folder.join("device/model")),
            serial: text(&folder.join("serial")),
            // Always counted in 512 bytes, whatever the sectors are.
            bytes: number(&folder.join("size")) * 512,
            sector_bytes: number(&folder.join("queue/logical_block_size")),
            numbers: BTreeSet::from([text(&folder.join("dev"))]),
            holders: listed(&folder.join("holders")),
            partition: folder.join("partition").exists(),
            read_only: text(&folder.join("ro")) == "1",
            partitions: Vec::new(),
        };
        if device.serial.is_empty() {
            device.serial = text(&folder.join("device/serial"));
        }
        if device.serial.is_empty() {
            device.serial = fs::read(folder.join("device/vpd_pg80"))
                .map(|page| unit_serial(&page))
                .unwrap_or_default();
        }
        for name in listed(&folder) {
            let below = folder.join(&name);
            if below.join("partition").exists() {
                device.numbers.insert(text(&below.join("dev")));
                device.holders.extend(listed(&below.join("holders")));
                device.partitions.push(name);
            }
        }
        device.partitions.sort();
        Ok(device)
    }

    /// Why nothing may be written to it, if so. `mounts` is `/proc/self/mountinfo`, `swaps` `/proc/swaps`.
    #[must_use]
    pub fn refusal(&self, mounts: &str, swaps: &str, image_bytes: u64) -> Option<String> {
        let mounted = mounts.lines().find_map(|line| {
            // proc_pid_mountinfo(5): 3 is the device's number, 5 where it is mounted.
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, number, _, place, ..] = fields[..] else {
                return None;
            };
            self.numbers.contains(number).then(|| place.to_owned())
        });
        let own = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or(path);
            name == self.name || self.partitions.iter().any(|partition| partition == name)
        };
        let swapped = swaps
            .lines()
            .skip(1)
            .any(|line| line.split_whitespace().next().is_some_and(own));
        Some(if self.partition {
            "it is a partition; an image is a whole disk".to_owned()
        } else if let Some(place) = mounted {
            format!("it is mounted at {place}")
        } else if swapped {
            "it holds swap space in use".to_owned()
        } else if !self.holders.is_empty() {
            format!("it is part of {}", self.holders.join(", "))
        } else if self.read_only {
            "it can't be written".to_owned()
        } else if self.sector_bytes != SECTOR_BYTES {
            format!(
                "its sectors have {} bytes; a boot disk's have {SECTOR_BYTES}",
                self.sector_bytes
            )
        } else if self.bytes < image_bytes {
            format!("it has {} bytes, the image {image_bytes}", self.bytes)
        } else {
            return None;
        })
    }

    /// For the person who is asked.
    #[must_use]
    pub fn describe(&self) -> String {
        let known = |text: &str| {
            if text.is_empty() {
                "unknown".to_owned()
            } else {
                text.to_owned()
            }
        };
        let partitions = if self.partitions.is_empty() {
            "no partitions".to_owned()
        } else {
            format!("partitions {}", self.partitions.join(", "))
        };
        format!(
            "{}: model {}, serial {}, {:.1} GB, {partitions}",
            self.name,
            known(&self.model),
            known(&self.serial),
            self.bytes as f64 / 1e9
        )
    }

    /// What the person must type: the serial number, or the name of a disk without one.
    #[must_use]
    pub fn proof(&self) -> &str {
        if self.serial.is_empty() {
            &self.name
        } else {
            &self.serial
        }
    }
}

/// The unit serial number page of a SCSI device (SPC-4, 7.8.17).
fn unit_serial(page: &[u8]) -> String {
    let bytes = page.get(3).map_or(0, |length| usize::from(*length));
    let text = page.get(4..4 + bytes).unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

impl Flash {
    /// Writes the image. `ask` shows a question and returns what was typed; `progress` hears what is done, and bytes
    /// done of all.
    pub fn run(
        &self,
        ask: impl FnOnce(&str) -> io::Result<String>,
        mut progress: impl FnMut(&str, u64, u64),
    ) -> Result<String, Fault> {
        let kind = fs::metadata(&self.device).at("look at", &self.device)?;
        if !kind.file_type().is_block_device() {
            return Err(Fault::Refused(format!(
                "{} is no block device",
                self.device.display()
            )));
        }
        // By number, since a name may be a link of udev's.
        let number = format!("{}:{}", major(kind.rdev()), minor(kind.rdev()));
        let sys = Path::new("/sys/dev/block").join(&number);
        let name = fs::canonicalize(&sys).at("read", &sys)?;
        let name = name
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let class = Path::new("/sys/class/block");
        let device = Device::read(class, &name).at("read", &class.join(&name))?;
        let table = Table::of(&self.image)?;

        let text = |path: &str| fs::read_to_string(path).at("read", Path::new(path));
        let refusal = device.refusal(
            &text("/proc/self/mountinfo")?,
            &text("/proc/swaps")?,
            table.image_bytes,
        );
        if let Some(why) = refusal {
            return Err(Fault::Refused(format!("{}: {why}", device.describe())));
        }
        let typed = match &self.serial {
            Some(serial) => serial.clone(),
            None => ask(&format!(
                "{}\nEverything on it will be lost. Type {} to go on: ",
                device.describe(),
                if device.serial.is_empty() {
                    "its name"
                } else {
                    "its serial number"
                }
            ))
            .map_err(Fault::other)?,
        };
        if typed.trim() != device.proof() {
            return Err(Fault::Refused(format!(
                "`{}` is not {}: nothing was written",
                typed.trim(),
                device.proof()
            )));
        }
        // Exclusive: the kernel refuses what got mounted meanwhile (open(2), O_EXCL without O_CREAT on a device).
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
            .open(&self.device)
            .at("open", &self.device)?;
        table
            .write(&file, device.bytes, |done, all| {
                progress("writing", done, all)
            })
            .at("write", &self.device)?;
        drop_cache(&file).at("flush", &self.device)?;
        table
            .verify(&file, device.bytes, |done, all| {
                progress("reading back", done, all)
            })
            .at("verify", &self.device)?;
        Ok(format!(
            "{} is on {}: written, flushed and read back",
            self.image.display(),
            device.describe()
        ))
    }
}

/// BLKFLSBUF: what is read from now on comes from the medium.
fn drop_cache(file: &File) -> io::Result<()> {
    // SAFETY: this request takes no argument and touches no memory of ours.
    let flush = unsafe { NoArg::<{ opcode::none(0x12, 97) }>::new() };
    // SAFETY: as above; on what is no block device it fails.
    unsafe { ioctl(file, flush) }?;
    Ok(())
}

/// An image's own table, and what is made of it on another disk.
#[derive(Debug)]
pub struct Table {
    image: PathBuf,
    /// The image's length.
    pub image_bytes: u64,
    partitions: Vec<Partition>,
    /// Of the disk, then of each partition.
    guids: Vec<Guid>,
}

impl Table {
    /// Reads an image, and draws the GUIDs that a disk with it shall have.
    pub fn of(image: &Path) -> Result<Self, Fault> {
        let strange = || Fault::Refused(format!("{} is no disk image of ours", image.display()));
        let mut front = vec![0; 2 * SECTOR_BYTES as usize + slots::gpt::ENTRIES_BYTES];
        let mut reader = open(image).at("read", image)?;
        reader.read_exact(&mut front).map_err(|_| strange())?;
        let header = Header::decode(&front[SECTOR_BYTES as usize..]).ok_or_else(strange)?;
        let partitions = header
            .partitions(&front[2 * SECTOR_BYTES as usize..])
            .ok_or_else(strange)?;
        let partitions: Vec<Partition> = partitions.take(PARTITIONS_MAX).collect();
        if !partitions
            .iter()
            .any(|partition| partition.is_named(slots::partition::BOOTSTATE))
        {
            return Err(strange());
        }
        let rest = io::copy(&mut reader, &mut io::sink()).at("read", image)?;
        let guids = (0..=partitions.len())
            .map(|_| random_guid())
            .collect::<io::Result<Vec<Guid>>>();
        Ok(Self {
            image: image.to_owned(),
            image_bytes: front.len() as u64 + rest,
            partitions,
            guids: guids.map_err(Fault::other)?,
        })
    }

    /// The pieces of the disk's own table.
    fn pieces(&self, disk_bytes: u64) -> Vec<(u64, Vec<u8>)> {
        let names: Vec<String> = self
            .partitions
            .iter()
            .map(|partition| partition.name().collect())
            .collect();
        let partitions: Vec<NewPartition<'_>> = self
            .partitions
            .iter()
            .zip(&names)
            .zip(&self.guids[1..])
            .map(|((partition, name), guid)| NewPartition {
                kind: partition.kind,
                guid: *guid,
                first_lba: partition.first_lba,
                last_lba: partition.last_lba,
                name,
            })
            .collect();
        let table = NewTable {
            sectors: disk_bytes / SECTOR_BYTES,
            sector_bytes: SECTOR_BYTES as usize,
            disk: self.guids[0],
            partitions: &partitions,
        };
        let mut pieces = Vec::new();
        let Ok(()) = table.write(|offset, bytes| {
            pieces.push((offset, bytes.to_vec()));
            Ok::<_, std::convert::Infallible>(())
        });
        pieces
    }

    /// The image in chunks, each with what the disk's own table puts into it, and zero where the image's second table
    /// would lie in the middle of the disk.
    fn chunks(
        &self,
        disk_bytes: u64,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let last_used = self
            .partitions
            .iter()
            .map(|partition| (partition.last_lba + 1) * SECTOR_BYTES)
            .max();
        let last_used = last_used.unwrap_or(0);
        let pieces = self.pieces(disk_bytes);
        let mut reader = open(&self.image)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < self.image_bytes {
            let length = usize::try_from(self.image_bytes - at)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            let bytes = &mut chunk[..length];
            reader.read_exact(bytes)?;
            if let Some(behind) = last_used.checked_sub(at) {
                let from = usize::try_from(behind).unwrap_or(usize::MAX).min(length);
                bytes[from..].fill(0);
            } else {
                bytes.fill(0);
            }
            for (offset, piece) in &pieces {
                overlay(bytes, at, piece, *offset);
            }
            each(at, bytes)?;
            at += length as u64;
        }
        // The table at the end of a longer disk, or what of it lies behind the image's end.
        for (offset, piece) in &pieces {
            let behind = self.image_bytes.saturating_sub(*offset);
            let behind = usize::try_from(behind)
                .unwrap_or(usize::MAX)
                .min(piece.len());
            if behind < piece.len() {
                each(offset + behind as u64, &piece[behind..])?;
            }
        }
        Ok(())
    }

    /// Writes the disk, flushed at the end.
    pub fn write(
        &self,
        disk: &File,
        disk_bytes: u64,
        mut progress: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        self.chunks(disk_bytes, |offset, bytes| {
            progress(offset, self.image_bytes);
            disk.write_all_at(bytes, offset)
        })?;
        disk.sync_all()
    }

    /// Compares the disk with what was written.
    pub fn verify(
        &self,
        disk: &File,
        disk_bytes: u64,
        mut progress: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        let mut found = vec![0; CHUNK_BYTES];
        self.chunks(disk_bytes, |offset, bytes| {
            progress(offset, self.image_bytes);
            let found = &mut found[..bytes.len()];
            disk.read_exact_at(found, offset)?;
            if found == bytes {
                return Ok(());
            }
            Err(io::Error::other(format!(
                "what lies near byte {offset} is not what was written: the medium is broken"
            )))
        })
    }
}

/// Puts what of `piece`, which begins at `piece_at`, falls into `bytes`, which begin at `at`.
fn overlay(bytes: &mut [u8], at: u64, piece: &[u8], piece_at: u64) {
    let (end, piece_end) = (at + bytes.len() as u64, piece_at + piece.len() as u64);
    let (from, to) = (at.max(piece_at), end.min(piece_end));
    if from < to {
        // Both are inside of both, so each difference is below a length in memory.
        let (place, source) = ((from - at) as usize, (from - piece_at) as usize);
        let count = (to - from) as usize;
        bytes[place..place + count].copy_from_slice(&piece[source..source + count]);
    }
}

/// An image's bytes, unpacked if they are packed.
fn open(image: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(image)?;
    let mut magic = [0; 4];
    let packed = file.read_exact(&mut magic).is_ok() && magic == [0x28, 0xB5, 0x2F, 0xFD];
    file.seek(SeekFrom::Start(0))?;
    Ok(if packed {
        Box::new(zstd::Decoder::new(file)?)
    } else {
        Box::new(file)
    })
}

fn random_guid() -> io::Result<Guid> {
    let mut guid = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut guid)?;
    // Version 4, in the variant of RFC 9562.
    guid[7] = (guid[7] & 0x0f) | 0x40;
    guid[8] = (guid[8] & 0x3f) | 0x80;
    Ok(Guid(guid))
}

/// Asks a person on the terminal.
pub fn ask(question: &str) -> io::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "{question}")?;
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(terminal), &mut line)?;
    Ok(line)
}
