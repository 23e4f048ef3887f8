//! The one door between the store and a disk: every file operation of this crate goes through [`Io`].
//!
//! [`linux`] speaks to the kernel; [`mem`] is a disk in memory with a volatile cache, whose power can be cut.
//! Nothing here knows what the bytes mean. An operation either does all of its work or returns an error; nothing is
//! retried here but an interrupted system call.

use std::fmt;
use std::io;

use model::Instant;

pub mod linux;
pub mod mem;

pub use linux::LinuxIo;
pub use mem::MemIo;

/// A file of a disk, by what it is. Extents lie in 256 directories by the low byte of their slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// `SUPER.a` or `SUPER.b`.
    Super(Copy),
    /// The ring: `journal`, or a raw partition.
    Journal,
    /// `ckpt.a` or `ckpt.b`.
    Checkpoint(Copy),
    /// `ext/XX/XXXXXXXX.e`.
    Extent(u32),
}

/// One of two files that are written in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Copy {
    /// `….a`
    A,
    /// `….b`
    B,
}

impl Copy {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that is written next.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// Path from the disk's directory.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Super(copy) => write!(f, "SUPER.{}", copy.letter()),
            Self::Journal => write!(f, "journal"),
            Self::Checkpoint(copy) => write!(f, "ckpt.{}", copy.letter()),
            Self::Extent(slot) => write!(f, "ext/{:02x}/{slot:08x}.e", slot & 0xff),
        }
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An existing file, for reading.
    Read,
    /// An existing file.
    Write,
    /// A new, empty file; one of that name goes first. Its directory is made if it is missing.
    Create,
}

/// What kind of file system holds the files, as far as the checkpoint's rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 or XFS: `fsync` of one file whose times were just changed commits the file system's log, and with it every
    /// conversion of unwritten blocks (50 of 50 cuts; `fdatasync` 0 of 50; `fsync` of a file whose times the log held
    /// already 0 of 12).
    CommitsTogether,
    /// Any other: each extent is synced by itself.
    Other,
}

/// Whether a page-cache range has been written out by the device already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// Every block of the file is written: a later overwrite changes no metadata.
    None,
    /// Some are not, or there are holes.
    Some,
    /// The file system can't say.
    Unknown,
}

/// What will be done with a file's pages. A hint: nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// They are read here and there: nothing is to be read ahead.
    Random,
    /// Those of this range are not needed any more; `bytes` is above 0.
    DontNeed {
        /// From here.
        at: u64,
        /// So many.
        bytes: u64,
    },
}

/// All that the store asks of an operating system. Offsets and lengths are bytes.
pub trait Io: Send + Sync + 'static {
    /// An open file; closed when dropped.
    type File: Send + Sync + 'static;

    /// Now, on the clock that `Work::at` is told in.
    fn now(&self) -> Instant;

    /// Random bytes for identities and nonces.
    fn random(&self) -> io::Result<[u8; 16]>;

    /// Opens a file; NotFound is an ordinary answer.
    fn open(&self, name: Name, mode: Mode) -> io::Result<Self::File>;

    /// Opens the journal for [`Io::write_journal`] and [`Io::pread`].
    fn open_journal(&self) -> io::Result<Self::File>;

    /// Opens the journal for [`Io::pread`] from its begin to its end, read ahead by the kernel. What an earlier reader left
    /// of it in the page cache is dropped.
    fn open_journal_ahead(&self) -> io::Result<Self::File>;

    /// Removes a file; it may be gone already.
    fn remove(&self, name: Name) -> io::Result<()>;

    /// Makes the directory entries that lead to `name` durable.
    fn sync_directory(&self, name: Name) -> io::Result<()>;

    /// Writes all of `bytes` into the page cache.
    fn pwrite(&self, file: &Self::File, bytes: &[u8], at: u64) -> io::Result<()> {
        self.pwritev(file, &[bytes], at)
    }

    /// Writes all of `parts`, one behind the other, into the page cache; at most 8 of them.
    fn pwritev(&self, file: &Self::File, parts: &[&[u8]], at: u64) -> io::Result<()>;

    /// Reads until `bytes` is full or the file ends; says how much.
    fn pread(&self, file: &Self::File, bytes: &mut [u8], at: u64) -> io::Result<usize>;

    /// Reads what lies in memory, without waiting for the disk: `None` if the first byte doesn't. Unsupported where the
    /// file system can't tell.
    fn pread_nowait(
        &self,
        file: &Self::File,
        bytes: &mut [u8],
        at: u64,
    ) -> io::Result<Option<usize>>;

    /// Tells the page cache what to expect (`posix_fadvise`).
    fn advise(&self, file: &Self::File, advice: Advice) -> io::Result<()>;

    /// Writes `bytes` (address, length and `at` are multiples of 4 KiB) to the journal; on the medium when it returns.
    fn write_journal(&self, file: &Self::File, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Reserves blocks for `[0, bytes)` and makes the file that long.
    fn allocate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Makes `[0, bytes)` read as zeros and detaches its pages: what a socket still holds of them stays as it was.
    fn zero(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Hands dirty pages to the device without waiting (`sync_file_range(WRITE)`).
    fn hand_over(&self, file: &Self::File, at: u64, bytes: u64) -> io::Result<()>;

    /// Waits until the device has every page of the range (`sync_file_range` with all three flags); says if one failed.
    fn settle(&self, file: &Self::File, at: u64, bytes: u64) -> io::Result<()>;

    /// Drains the device's cache. `journal` is the open journal.
    fn flush_device(&self, journal: &Self::File) -> io::Result<()>;

    /// Sets the file's times to now (`futimens`), so that its last change is in the running transaction of the file
    /// system's log. Nothing of it is durable yet.
    fn touch(&self, file: &Self::File) -> io::Result<()>;

    /// `fsync`: data, metadata, and on [`FileSystem::CommitsTogether`] the file system's log as far as the file's own last
    /// change. A file that was last changed before the log's last commit (the file system's timer, another program's
    /// fsync) commits nothing: whoever needs what others changed since calls [`Io::touch`] first.
    fn fsync(&self, file: &Self::File) -> io::Result<()>;

    /// `fdatasync`: data, and what is needed to read it back.
    fn fdatasync(&self, file: &Self::File) -> io::Result<()>;

    /// Where the file's first block lies on the device (FIEMAP); 0 where the file system can't say.
    fn disk_address(&self, file: &Self::File) -> io::Result<u64>;

    /// Whether the file still has unwritten blocks (FIEMAP).
    fn unwritten(&self, file: &Self::File) -> io::Result<Unwritten>;

    /// Length of the file or block device.
    fn bytes(&self, file: &Self::File) -> io::Result<u64>;

    /// Bytes an unprivileged writer may still take from the file system.
    fn free_bytes(&self) -> io::Result<u64>;

    /// What the checkpoint may rely on.
    fn file_system(&self) -> FileSystem;
}
