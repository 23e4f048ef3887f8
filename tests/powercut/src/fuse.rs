//! The door of an emulated disk: a mount with one file, `disk.img`, that a loop device stands on.
//!
//! The kernel's block layer turns into FUSE like this, which the counters show and a test holds: a request of the loop
//! device is a read or write of the file, past the page cache; REQ_PREFLUSH, and what stands in for FUA, is FUSE_FSYNC.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, SessionACL,
    TimeOrNow, WriteFlags,
};

use crate::emulator::{Emulator, Request};

/// The one file.
pub(crate) const FILE: &str = "disk.img";
const FILE_INODE: INodeNo = INodeNo(2);
/// Nothing about the file ever changes.
const TTL: Duration = Duration::from_secs(1 << 20);
/// Requests that the kernel may have under way.
const BACKGROUND: u16 = 256;
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// Serves `emulator` at `mountpoint` until the session is dropped.
pub(crate) fn mount(emulator: Arc<Emulator>, mountpoint: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("powercut".to_owned())];
    // The loop device reads and writes on a kernel thread, as root; nobody else has any business here.
    config.acl = SessionACL::All;
    config.n_threads = Some(2);
    fuser::spawn_mount(Door(emulator), mountpoint, &config)
}

struct Door(Arc<Emulator>);

impl Door {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let file = inode == FILE_INODE;
        let size = if file { self.0.size() } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if file { 0o600 } else { 0o700 },
            nlink: if file { 1 } else { 2 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn inside(&self, offset: u64, bytes: u64) -> bool {
        offset
            .checked_add(bytes)
            .is_some_and(|end| end <= self.0.size())
    }
}

impl Filesystem for Door {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        // Refusals name the nearest value that would do; the defaults do too, only slower.
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND);
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == OsStr::new(FILE) {
            reply.entry(&TTL, &self.attributes(FILE_INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &fuser::Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    // Times are set by whoever writes; they are nobody's here.
    fn setattr(
        &self,
        _: &fuser::Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The handle is the disk's life: what a cut killed stays dead although the power comes back.
        reply.opened(FileHandle(self.0.life()), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = u64::from(size).min(self.0.size().saturating_sub(offset)) as usize;
        self.0.submit(
            handle.0,
            Request::Read {
                offset,
                bytes,
                reply,
            },
        );
    }

    fn write(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if !self.inside(offset, data.len() as u64) {
            return reply.error(Errno::ENOSPC);
        }
        self.0.submit(
            handle.0,
            Request::Write {
                offset,
                data: data.to_vec(),
                reply,
            },
        );
    }

    fn flush(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        // close(2), which says nothing of the medium.
        reply.ok();
    }

    fn fsync(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        handle: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.submit(handle.0, Request::Flush { reply });
    }

    fn statfs(&self, _: &fuser::Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(self.0.size() / 4096, 0, 0, 1, 0, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &fuser::Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        // A hard disk knows no discard; the block layer writes zeros itself.
        reply.error(Errno::EOPNOTSUPP);
    }
}
