//! The disk that this program came from, by partition name, in whole sectors.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use slots::gpt::{Header, Partition};
use uefi::boot::{
    self, AllocateType, MemoryType, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol,
};
use uefi::proto::ProtocolPointer;
use uefi::proto::device_path::build::DevicePathBuilder;
use uefi::proto::device_path::{DevicePath, DeviceSubType, DeviceType};
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::block::BlockIO;
use uefi::{Handle, Status};

use crate::Trouble;

/// A partition, in bytes from the start of the disk.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    offset: u64,
    /// Its length.
    pub(crate) bytes: u64,
}

/// The whole disk, not the partition that the firmware shows as one.
pub(crate) struct BootDisk {
    io: ScopedProtocol<BlockIO>,
    media: u32,
    sector_bytes: u64,
    path: Box<DevicePath>,
    partitions: Vec<Partition>,
}

impl BootDisk {
    /// Finds the disk and reads its table.
    pub(crate) fn open() -> Result<Self, Trouble> {
        let lost = |status| Trouble::Disk("the boot disk can't be found", status);
        let (io, path) = find().map_err(lost)?;
        let media = io.media();
        let mut disk = Self {
            media: media.media_id(),
            sector_bytes: u64::from(media.block_size()),
            path,
            partitions: Vec::new(),
            io,
        };
        let last = disk.io.media().last_block();
        disk.partitions = [1, last]
            .into_iter()
            .find_map(|lba| disk.table(lba))
            .ok_or(Trouble::NoTable)?;
        Ok(disk)
    }

    fn table(&mut self, lba: u64) -> Option<Vec<Partition>> {
        let sector = self
            .read_at(lba.checked_mul(self.sector_bytes)?, 512)
            .ok()?;
        let header = Header::decode(&sector)?;
        let offset = header.entries_lba.checked_mul(self.sector_bytes)?;
        let entries = self.read_at(offset, header.entries_bytes()).ok()?;
        Some(header.partitions(&entries)?.collect())
    }

    /// Where this partition lies.
    pub(crate) fn partition(&self, name: &'static str) -> Result<Extent, Trouble> {
        let found = self
            .partitions
            .iter()
            .find(|partition| partition.is_named(name));
        let extent = found.and_then(|partition| {
            let end = (partition.last_lba + 1).checked_mul(self.sector_bytes)?;
            let offset = partition.first_lba * self.sector_bytes;
            Some(Extent {
                offset,
                bytes: end - offset,
            })
        });
        extent.ok_or(Trouble::NoPartition(name))
    }

    /// The path of the firmware's file system on this disk, for the image that is started from it.
    pub(crate) fn path(&self) -> &DevicePath {
        &self.path
    }

    /// `bytes` bytes at `offset`, which is a multiple of every sector size, of a partition.
    pub(crate) fn read(
        &mut self,
        place: Extent,
        offset: u64,
        bytes: usize,
    ) -> Result<Pages, Status> {
        self.read_at(place.offset + offset, bytes)
    }

    fn read_at(&mut self, offset: u64, bytes: usize) -> Result<Pages, Status> {
        let mut pages = Pages::new(self.whole_sectors(bytes), bytes)?;
        let lba = offset / self.sector_bytes;
        self.io
            .read_blocks(self.media, lba, pages.sectors())
            .map_err(|error| error.status())?;
        Ok(pages)
    }

    /// Writes a record and flushes the drive. What stands behind the record in its sector becomes zero.
    pub(crate) fn write(
        &mut self,
        place: Extent,
        offset: u64,
        record: &[u8],
    ) -> Result<(), Status> {
        let mut pages = Pages::new(self.whole_sectors(record.len()), record.len())?;
        pages.copy_from_slice(record);
        let lba = (place.offset + offset) / self.sector_bytes;
        let written = self.io.write_blocks(self.media, lba, pages.sectors());
        written
            .and_then(|()| self.io.flush_blocks())
            .map_err(|error| error.status())
    }

    fn whole_sectors(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.sector_bytes as usize)
    }
}

fn find() -> Result<(ScopedProtocol<BlockIO>, Box<DevicePath>), Status> {
    let image = open::<LoadedImage>(boot::image_handle())?;
    let volume = image.device().ok_or(Status::NOT_FOUND)?;
    let path = open::<DevicePath>(volume)?;
    // Up to the node that names the partition: what is left is the disk's.
    let mut bytes = Vec::new();
    let mut parent = DevicePathBuilder::with_vec(&mut bytes);
    let partition = (DeviceType::MEDIA, DeviceSubType::MEDIA_HARD_DRIVE);
    for node in path
        .node_iter()
        .take_while(|node| node.full_type() != partition)
    {
        parent = parent.push(&node).map_err(|_| Status::INVALID_PARAMETER)?;
    }
    let mut parent = parent.finalize().map_err(|_| Status::INVALID_PARAMETER)?;
    let disk = boot::locate_device_path::<BlockIO>(&mut parent).map_err(|error| error.status())?;
    Ok((open::<BlockIO>(disk)?, path.to_boxed()))
}

/// Opens a protocol beside the firmware's own driver, which goes on using it.
pub(crate) fn open<P: ProtocolPointer + ?Sized>(
    handle: Handle,
) -> Result<ScopedProtocol<P>, Status> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: an exclusive open would take the disk from the file system's driver. Nothing else runs between our calls
    // on this one processor, and we neither close nor reset what we share.
    unsafe { boot::open_protocol::<P>(params, OpenProtocolAttributes::GetProtocol) }
        .map_err(|error| error.status())
}

/// Memory at a multiple of 4096, as the strictest driver asks for, freed with its owner.
pub(crate) struct Pages {
    start: NonNull<u8>,
    pages: usize,
    sectors: usize,
    bytes: usize,
}

impl Pages {
    /// Zeroed memory for `sectors` bytes to be transferred, of which `bytes` are shown.
    fn new(sectors: usize, bytes: usize) -> Result<Self, Status> {
        let pages = sectors.div_ceil(boot::PAGE_SIZE).max(1);
        let start = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, pages);
        let start = start.map_err(|error| error.status())?;
        // SAFETY: the firmware gave us this many bytes, and nobody else has them.
        unsafe { start.write_bytes(0, pages * boot::PAGE_SIZE) };
        Ok(Self {
            start,
            pages,
            sectors,
            bytes,
        })
    }

    fn sectors(&mut self) -> &mut [u8] {
        // SAFETY: zeroed at the start, and never longer than the pages.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.sectors) }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in `sectors`, and `bytes` ≤ `sectors`.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes = self.bytes;
        &mut self.sectors()[..bytes]
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: ours alone, and no reference outlives its owner.
        let _ = unsafe { boot::free_pages(self.start, self.pages) };
    }
}
