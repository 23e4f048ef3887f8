//! [`Io`] on Linux: the data directory of one disk, its ring a file in it or a raw partition.
//!
//! Every call is one or a few system calls; nothing is cached, nothing retried but EINTR.

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use model::Instant;
use rustix::fs::{FallocateFlags, OFlags, fadvise, fallocate, fstatfs, statvfs};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwritev, pwritev2, retry_on_intr};
use rustix::ioctl::{Opcode, Updater, ioctl};
use rustix::time::{ClockId, clock_gettime};

use super::{Advice, FileSystem, Io, Mode, Name, Unwritten};

/// `FS_IOC_FIEMAP`: `_IOWR('f', 11, struct fiemap)`, whose fixed part has 32 bytes.
const FIEMAP: Opcode = 0xc020_660b as Opcode;
/// Write back first, so that delayed allocations have an address.
const FIEMAP_FLAG_SYNC: u32 = 1;
const FIEMAP_EXTENT_LAST: u32 = 0x1;
const FIEMAP_EXTENT_UNKNOWN: u32 = 0x2;
const FIEMAP_EXTENT_UNWRITTEN: u32 = 0x800;
/// Extents asked for in one call: 64 × 56 B.
const FIEMAP_EXTENTS: usize = 64;
const EXT4_MAGIC: u64 = 0xef53;
const XFS_MAGIC: u64 = 0x5846_5342;

/// See the module.
#[derive(Debug)]
pub struct LinuxIo {
    root: PathBuf,
    journal: PathBuf,
    file_system: FileSystem,
    journal_direct: AtomicBool,
}

/// An open file; `AsFd` for sendfile.
#[derive(Debug)]
pub struct File(OwnedFd);

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl LinuxIo {
    /// The disk in `root`, an existing directory, with its ring at `journal` (a raw partition), or in `root` if `None`.
    pub fn new(root: impl Into<PathBuf>, journal: Option<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        let directory = fs::File::open(&root)?;
        let file_system = match fstatfs(&directory)?.f_type as u64 {
            XFS_MAGIC => FileSystem::CommitsTogether,
            EXT4_MAGIC if ext4_has_journal(directory.metadata()?.dev()) => {
                FileSystem::CommitsTogether
            }
            _ => FileSystem::Other,
        };
        let journal = journal.unwrap_or_else(|| root.join(Name::Journal.to_string()));
        Ok(Self {
            root,
            journal,
            file_system,
            journal_direct: AtomicBool::new(true),
        })
    }

    /// Whether the ring is written past the page cache; false where the file system refuses O_DIRECT.
    #[must_use]
    pub fn journal_direct(&self) -> bool {
        self.journal_direct.load(Ordering::Relaxed)
    }

    /// Where the disk's files lie.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: Name) -> PathBuf {
        match name {
            Name::Journal => self.journal.clone(),
            _ => self.root.join(name.to_string()),
        }
    }
}

/// An ext4 without a journal has nothing that an fsync of one file could commit for the others. Where sysfs can't say,
/// the answer is no: then each extent is synced by itself, which is slower and as safe.
fn ext4_has_journal(device: u64) -> bool {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let name = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"));
    name.ok()
        .and_then(|path| path.file_name().map(PathBuf::from))
        .and_then(|name| {
            fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task")).ok()
        })
        .is_some_and(|task| task.trim().parse::<u32>().is_ok())
}

impl Io for LinuxIo {
    type File = File;

    fn now(&self) -> Instant {
        let now = clock_gettime(ClockId::MonotonicRaw);
        Instant(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn open(&self, name: Name, mode: Mode) -> io::Result<File> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        options.read(true).write(mode != Mode::Read);
        if mode == Mode::Create {
            let raw = fs::metadata(&path).is_ok_and(|it| it.file_type().is_block_device());
            if !raw {
                self.remove(name)?;
                options.create_new(true);
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
            }
        }
        Ok(File(options.open(path)?.into()))
    }

    fn open_journal(&self) -> io::Result<File> {
        let open = |flags: OFlags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            options
                .custom_flags(flags.bits() as i32)
                .open(&self.journal)
        };
        match open(OFlags::DIRECT) {
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.journal_direct.store(false, Ordering::Relaxed);
                Ok(File(open(OFlags::empty())?.into()))
            }
            opened => Ok(File(opened?.into())),
        }
    }

    fn open_journal_ahead(&self) -> io::Result<File> {
        use rustix::fs::Advice::{DontNeed, Sequential};
        let file = OpenOptions::new().read(true).open(&self.journal)?;
        fadvise(&file, 0, None, DontNeed)?;
        fadvise(&file, 0, None, Sequential)?;
        Ok(File(file.into()))
    }

    fn remove(&self, name: Name) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn sync_directory(&self, name: Name) -> io::Result<()> {
        let mut directory = self.path(name);
        while directory != self.root && directory.pop() {
            fs::File::open(&directory)?.sync_all()?;
        }
        Ok(())
    }

    fn pwritev(&self, file: &File, parts: &[&[u8]], mut at: u64) -> io::Result<()> {
        let mut slices: [IoSlice<'_>; 8] =
            std::array::from_fn(|at| IoSlice::new(parts.get(at).copied().unwrap_or(&[])));
        let mut left = &mut slices[..parts.len()];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = retry_on_intr(|| pwritev(file, left, at))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            at += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    fn pread(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match retry_on_intr(|| pread(file, &mut bytes[done..], at + done as u64))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn pread_nowait(&self, file: &File, bytes: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        let mut slices = [IoSliceMut::new(bytes)];
        match retry_on_intr(|| preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT)) {
            Err(Errno::AGAIN) => Ok(None),
            read => Ok(Some(read?)),
        }
    }

    fn advise(&self, file: &File, advice: Advice) -> io::Result<()> {
        use rustix::fs::Advice::{DontNeed, Random};
        match advice {
            // 0 bytes: the whole file.
            Advice::Random => Ok(fadvise(file, 0, None, Random)?),
            Advice::DontNeed { at, bytes } => match NonZeroU64::new(bytes) {
                Some(bytes) => Ok(fadvise(file, at, Some(bytes), DontNeed)?),
                None => Ok(()),
            },
        }
    }

    fn write_journal(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let slices = [IoSlice::new(&bytes[done..])];
            let at = at + done as u64;
            match retry_on_intr(|| pwritev2(file, &slices, at, ReadWriteFlags::DSYNC))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => done += written,
            }
        }
        Ok(())
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes)) {
            // No preallocation here: the file is as long, its blocks come with the writes.
            Err(Errno::OPNOTSUPP) => Ok(rustix::fs::ftruncate(file, bytes)?),
            done => Ok(done?),
        }
    }

    fn zero(&self, file: &File, bytes: u64) -> io::Result<()> {
        let zero = || fallocate(file, FallocateFlags::ZERO_RANGE, 0, bytes);
        match retry_on_intr(zero) {
            Err(Errno::OPNOTSUPP) => {
                rustix::fs::ftruncate(file, 0)?;
                Ok(rustix::fs::ftruncate(file, bytes)?)
            }
            done => Ok(done?),
        }
    }

    fn hand_over(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        sync_file_range(file, at, bytes, libc::SYNC_FILE_RANGE_WRITE)
    }

    fn settle(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        sync_file_range(file, at, bytes, all)
    }

    fn flush_device(&self, journal: &File) -> io::Result<()> {
        // Nothing of the ring is dirty, so this is the FLUSH alone.
        Ok(retry_on_intr(|| rustix::fs::fdatasync(journal))?)
    }

    fn touch(&self, file: &File) -> io::Result<()> {
        let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        Ok(retry_on_intr(|| rustix::fs::futimens(file, &times))?)
    }

    fn fsync(&self, file: &File) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fsync(file))?)
    }

    fn fdatasync(&self, file: &File) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fdatasync(file))?)
    }

    fn disk_address(&self, file: &File) -> io::Result<u64> {
        // Blocks have their address since they were reserved; to write back first could wait for megabytes.
        Ok(fiemap(file, 0, 0)?.map_or(0, |map| match map.mapped {
            0 => 0,
            _ if map.extents[0].flags & FIEMAP_EXTENT_UNKNOWN != 0 => 0,
            _ => map.extents[0].physical,
        }))
    }

    fn unwritten(&self, file: &File) -> io::Result<Unwritten> {
        let stat = rustix::fs::fstat(file)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_block_device() {
            // A raw partition has its blocks, whatever was written to them.
            return Ok(Unwritten::None);
        }
        let bytes = self.bytes(file)?;
        let mut at = 0;
        while at < bytes {
            let Some(map) = fiemap(file, at, FIEMAP_FLAG_SYNC)? else {
                return Ok(Unwritten::Unknown);
            };
            let extents = &map.extents[..(map.mapped as usize).min(FIEMAP_EXTENTS)];
            if extents.is_empty() {
                return Ok(Unwritten::Some);
            }
            for extent in extents {
                if extent.logical > at || extent.flags & FIEMAP_EXTENT_UNWRITTEN != 0 {
                    return Ok(Unwritten::Some);
                }
                at = extent.logical + extent.length;
                if extent.flags & FIEMAP_EXTENT_LAST != 0 && at < bytes {
                    return Ok(Unwritten::Some);
                }
            }
        }
        Ok(Unwritten::None)
    }

    fn bytes(&self, file: &File) -> io::Result<u64> {
        let stat = rustix::fs::fstat(file)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_block_device() {
            return Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?);
        }
        Ok(stat.st_size as u64)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn file_system(&self) -> FileSystem {
        self.file_system
    }
}

fn sync_file_range(file: &File, at: u64, bytes: u64, flags: libc::c_uint) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open for the call's time, no memory is passed. rustix has no such call.
        let done =
            unsafe { libc::sync_file_range(file.0.as_raw_fd(), at as i64, bytes as i64, flags) };
        match done {
            0 => return Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // tmpfs and FUSE have nothing to hand over; the fdatasync of FileSystem::Other does it.
                error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
                    return Ok(());
                }
                error => return Err(error),
            },
        }
    }
}

/// `struct fiemap_extent`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` with room for the extents behind it.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [FiemapExtent; FIEMAP_EXTENTS],
}

/// The extents from `start` on; `None` where the file system doesn't say, and for a block device.
fn fiemap(file: &File, start: u64, flags: u32) -> io::Result<Option<Fiemap>> {
    let mut map = Fiemap {
        start,
        length: u64::MAX - start,
        flags,
        mapped: 0,
        count: FIEMAP_EXTENTS as u32,
        reserved: 0,
        extents: [FiemapExtent::default(); FIEMAP_EXTENTS],
    };
    // SAFETY: FIEMAP is the opcode of FS_IOC_FIEMAP; the kernel writes the fixed part and at most `count` extents, which
    // is what `Fiemap` has room for, and every bit pattern is a value of it.
    match unsafe { ioctl(file, Updater::<FIEMAP, Fiemap>::new(&mut map)) } {
        Ok(()) => Ok(Some(map)),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
