//! Reads and does what the neighbours decide: looks at drives, partitions, checks and mounts.
//!
//! Each drive has a thread of its own here, so that one that hangs holds up the others for a bounded time only; whoever is
//! not done by then is away for this boot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl, opcode};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use site::{Node, Provision};
use slots::gpt::Guid;

use super::drives::{self, Drive};
use super::provision::{self, END_BYTES, Holds, MARK, MARK_AT, Part, Placed, Verdict};
use super::{DATA, RING, Standing, erc, ext4, find, ring_name, wanted};
use crate::broker::USER;
use crate::say;

/// Where the disks' file systems are mounted.
pub(crate) const ROOT: &str = "/disk";
/// Looking at both ends of a drive, and partitioning it. One that answers at all needs a second, and a little more while
/// it spins up; a dead one shows here.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// Checking, mounting and growing: a file system that was cut is mended within minutes, and 16 TB grow in three.
const MOUNT_MAX: Duration = Duration::from_secs(600);
/// A partition's device appears once the kernel has read the table.
const NODE_MAX: Duration = Duration::from_secs(5);
const FSCK: &str = "/sbin/e2fsck";
/// storage chapter §4.8: data errors end the file system's journal, a commit each minute beside our own.
const OPTIONS: &std::ffi::CStr = c"commit=60,data_err=abort,errors=remount-ro";

/// `BLKRRPART`: read the partition table again.
const READ_TABLE: Opcode = opcode::none(0x12, 95);
/// `BLKZEROOUT`: start and length in bytes.
const ZERO_OUT: Opcode = opcode::none(0x12, 127);

/// What becomes of every disk of `node`, in the site's order.
pub(crate) fn prepare(node: &Node, provision: Provision) -> Vec<Standing> {
    let drives = match drives::all() {
        Ok(drives) => drives,
        Err(error) => {
            let why = format!("/sys/class/block: {error}");
            return node
                .disks
                .iter()
                .map(|_| Standing::Away(why.clone()))
                .collect();
        }
    };
    let (tell, told) = mpsc::channel();
    let mut under_way = 0;
    for (at, drive) in drives.iter().enumerate() {
        let wanted = wanted(node, &drives, drive);
        if wanted.is_empty() {
            continue;
        }
        let (tell, drive) = (tell.clone(), drive.clone());
        // Without a thread its disks are away: nothing else depends on it.
        let started = thread::Builder::new()
            .name(format!("disk-{}", drive.name))
            .spawn(move || {
                let parts = partitions(&drive, &wanted, provision);
                // The receiver is gone if we were too slow.
                let _ = tell.send((at, parts));
            });
        under_way += usize::from(started.is_ok());
    }
    let mut found: Vec<Option<Result<Vec<Part>, String>>> = drives.iter().map(|_| None).collect();
    let deadline = Instant::now() + LOOK_MAX;
    for _ in 0..under_way {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((at, parts)) => found[at] = Some(parts),
            Err(_) => break,
        }
    }
    let device = |place: &site::Place, name: &str| -> Result<PathBuf, String> {
        let drive = find(&drives, place)?;
        let at = drives.iter().position(|it| it.name == drive.name);
        match at.and_then(|at| found[at].as_ref()) {
            None => Err(format!("{} did not answer in time", drive.name)),
            Some(Err(why)) => Err(format!("{}: {why}", drive.name)),
            Some(Ok(parts)) => parts
                .iter()
                .find(|part| part.name == name)
                .map(|part| drive.partition(part.number))
                .ok_or_else(|| format!("{} has no partition \"{name}\"", drive.name)),
        }
    };
    let (tell, told) = mpsc::channel();
    let mut standings: Vec<Standing> = Vec::new();
    for (at, disk) in node.disks.iter().enumerate() {
        let ring = match &disk.journal.place {
            Some(place) => device(place, &ring_name(&disk.place)),
            None => device(&disk.place, RING),
        };
        let devices = device(&disk.place, DATA).and_then(|data| Ok((data, ring?)));
        standings.push(match devices {
            Err(why) => Standing::Away(why),
            Ok((data, ring)) => {
                let tell = tell.clone();
                thread::spawn(move || {
                    let root = Path::new(ROOT).join(at.to_string());
                    let ready = bring_up(&data, &ring, &root);
                    let _ = tell.send((at, ready.map(|()| Standing::Ready { root, ring })));
                });
                Standing::Away("it did not answer in time".to_owned())
            }
        });
    }
    drop(tell);
    let deadline = Instant::now() + MOUNT_MAX;
    while let Ok((at, ready)) =
        told.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        standings[at] = ready.unwrap_or_else(|error| Standing::Away(error.to_string()));
    }
    standings
}

/// The drive's partitions, made if they may be.
fn partitions(
    drive: &Drive,
    wanted: &[(String, Option<u64>)],
    provision: Provision,
) -> Result<Vec<Part>, String> {
    let say_io = |error: io::Error| error.to_string();
    match drive.limits_retries {
        Some(true) => {
            if let Err(error) = File::open(drive.device()).and_then(|device| erc::set(&device)) {
                say!("disk {}: its retries have no limit: {error}", drive.name);
            }
        }
        Some(false) => say!(
            "disk {}: it can't limit its retries, a weak sector may hold everything up for minutes",
            drive.name
        ),
        None => {}
    }
    if drive.zoned {
        say!(
            "disk {}: it has shingled zones, which makes it slow for this",
            drive.name
        );
    }
    let holds = read_ends(drive).map_err(say_io)?;
    match provision::decide(&holds, wanted, provision) {
        Verdict::Refuse(why) => Err(why),
        Verdict::Use => match holds {
            Holds::Table(parts) => Ok(parts),
            _ => Err("its table vanished".to_owned()),
        },
        Verdict::Make => {
            let placed = provision::lay_out(wanted, drive.bytes)?;
            say!(
                "disk {}: it is blank and the site names it: partitioning",
                drive.name
            );
            make(drive, &placed).map_err(say_io)?;
            match read_ends(drive).map_err(say_io)? {
                Holds::Table(parts) => Ok(parts),
                holds => Err(format!("after partitioning it holds {holds:?}")),
            }
        }
    }
}

/// Numbers and names of a drive's partitions; `None` if it has no partition table.
pub(crate) fn table(drive: &Drive) -> io::Result<Option<Vec<(u32, String)>>> {
    Ok(match read_ends(drive)? {
        Holds::Table(parts) => Some(parts.into_iter().map(|it| (it.number, it.name)).collect()),
        _ => None,
    })
}

fn read_ends(drive: &Drive) -> io::Result<Holds> {
    if drive.bytes < 2 * END_BYTES as u64 {
        return Ok(Holds::Foreign);
    }
    let device = File::open(drive.device())?;
    let (mut first, mut last) = (vec![0; END_BYTES], vec![0; END_BYTES]);
    device.read_exact_at(&mut first, 0)?;
    device.read_exact_at(&mut last, drive.bytes - END_BYTES as u64)?;
    Ok(provision::look(&first, &last, drive.sector_bytes as usize))
}

/// Mark, file system, table, mark away; a flush between each.
fn make(drive: &Drive, placed: &[Placed]) -> io::Result<()> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(drive.device())?;
    device.write_all_at(&MARK, MARK_AT)?;
    device.sync_all()?;
    for part in placed.iter().filter(|part| part.data) {
        zero_out(&device, part.at_bytes, ext4::SEED_BYTES)?;
        for (offset, block) in ext4::seed() {
            device.write_all_at(&block, part.at_bytes + offset)?;
        }
        device.sync_all()?;
    }
    let mut random = File::open("/dev/urandom")?;
    let mut failed = None;
    let guid = || {
        guid(&mut random).unwrap_or_else(|error| {
            failed = Some(error);
            Guid([0; 16])
        })
    };
    provision::write_table(
        placed,
        drive.bytes,
        drive.sector_bytes,
        guid,
        |at, bytes| device.write_all_at(bytes, at),
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    device.sync_all()?;
    device.write_all_at(&[0; MARK.len()], MARK_AT)?;
    device.sync_all()?;
    // SAFETY: BLKRRPART takes no argument.
    unsafe { ioctl(&device, NoArg::<READ_TABLE>::new()) }?;
    Ok(())
}

/// A GUID of version 4 (RFC 9562), its first fields little-endian.
fn guid(random: &mut File) -> io::Result<Guid> {
    let mut bytes = [0; 16];
    random.read_exact(&mut bytes)?;
    bytes[7] = bytes[7] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Guid(bytes))
}

/// By a command of the drive's where it has one, else the kernel writes zeros.
fn zero_out(device: &File, at: u64, bytes: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT reads two u64 and changes nothing of ours.
    unsafe { ioctl(device, Setter::<ZERO_OUT, [u64; 2]>::new([at, bytes])) }?;
    Ok(())
}

/// Checks and mounts a file system, makes it as large as its partition, and gives both to the broker.
fn bring_up(data: &Path, ring: &Path, root: &Path) -> io::Result<()> {
    await_node(data)?;
    await_node(ring)?;
    fsck(data)?;
    fs::create_dir_all(root)?;
    let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(data, root, "ext4", flags, OPTIONS)?;
    settle(data, ring, root).inspect_err(|_| {
        // Nobody will use it in this boot.
        let _ = unmount(root, UnmountFlags::empty());
    })
}

/// What is left to do once it is mounted.
fn settle(data: &Path, ring: &Path, root: &Path) -> io::Result<()> {
    let bytes = io::Seek::seek(&mut File::open(data)?, io::SeekFrom::End(0))?;
    if ext4::grow(root, data, bytes)? {
        say!(
            "{}: its file system has {} GiB now",
            root.display(),
            bytes >> 30
        );
    }
    if ext4::has_seeds_uuid(data)? {
        let mut random = File::open("/dev/urandom")?;
        let mut uuid = [0; 16];
        random.read_exact(&mut uuid)?;
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        ext4::set_uuid(root, uuid)?;
    }
    chown(root, Some(USER), Some(USER))?;
    chown(ring, Some(USER), Some(USER))?;
    Ok(())
}

fn await_node(device: &Path) -> io::Result<()> {
    let deadline = Instant::now() + NODE_MAX;
    while !device.exists() {
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} did not appear", device.display()),
            ));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Mends what is safe to mend (`-p`), the journal above all. What needs a decision is a person's: the disk stays away.
fn fsck(device: &Path) -> io::Result<()> {
    /// e2fsck(8): 1 corrected, 2 corrected and a mounted root would need a restart.
    const GOOD: [i32; 4] = [0, 1, 2, 3];
    let output = Command::new(FSCK)
        .arg("-p")
        .arg(device)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            say!(
                "{}: not checked, {FSCK} is not part of this image",
                device.display()
            );
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or("").to_owned();
    match output.status.code() {
        Some(code) if GOOD.contains(&code) => {
            if code != 0 {
                say!("{}: e2fsck mended it: {last}", device.display());
            }
            Ok(())
        }
        _ => Err(io::Error::other(format!(
            "e2fsck does not mend it by itself ({}): {last}",
            output.status
        ))),
    }
}

/// Writes everything out and unmounts; a disk that is busy or dead is left as it is, its journal is made for that.
pub(crate) fn release(standings: &[Standing]) {
    for standing in standings {
        let Standing::Ready { root, .. } = standing else {
            continue;
        };
        match unmount(root, UnmountFlags::empty()) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => say!("{}: {error}", root.display()),
        }
    }
}

/// Makes this node's drives blank again, those that bear our table and nothing else; says which.
pub(crate) fn erase(node: &Node) -> Vec<String> {
    let drives = drives::all().unwrap_or_default();
    let ours = drives.iter().filter(|drive| {
        let wanted = wanted(node, &drives, drive);
        !wanted.is_empty()
            && read_ends(drive).is_ok_and(|holds| {
                provision::decide(&holds, &wanted, Provision::Never) == Verdict::Use
            })
    });
    ours.map(|drive| match erase_ends(drive) {
        Ok(()) => format!("{} is blank", drive.name),
        Err(error) => format!("{}: {error}", drive.name),
    })
    .collect()
}

/// Both ends, and with them the table, become zero; provisioning clears the place of the file system anyway.
fn erase_ends(drive: &Drive) -> io::Result<()> {
    let device = OpenOptions::new().write(true).open(drive.device())?;
    let zeros = vec![0; END_BYTES];
    device.write_all_at(&zeros, 0)?;
    device.write_all_at(&zeros, drive.bytes.saturating_sub(END_BYTES as u64))?;
    device.sync_all()
}
