//! The loader: the one file in the firmware's file system, written when the disk is flashed and never again.
//!
//! It spends one try of the slot on trial, arms a watchdog and starts a slot's image from memory, so that Secure Boot
//! and measurement stay the firmware's. A slot that can't be loaded gives way to the other one in the same second.
//! When neither can, it resets the machine after five seconds: never a shell, never a question, never a halt. It has
//! no configuration and decides nothing: `slots` does, on the host, under tests.

#![no_main]
#![no_std]

extern crate alloc;

mod disk;
mod watchdog;

use core::time::Duration;

use slots::{BootState, Copy, LOADER_VARIABLE, LOADER_VENDOR, Slot, SlotHeader, Start, partition};
use uefi::boot::LoadImageSource;
use uefi::runtime::{ResetType, VariableAttributes, VariableVendor};
use uefi::{CString16, Guid, Handle, Status, boot, entry, println, runtime};

use crate::disk::{BootDisk, Extent};

/// How long a person at the console has for reading why nothing was started.
const BEFORE_RESET: Duration = Duration::from_secs(5);
/// The firmware's own timer, which ends with its boot services: a disk that never answers must not be the end.
const FIRMWARE_TIMER_SECONDS: usize = 120;
/// The firmware's timer reports this to its event log; codes up to 0xffff are its own.
const FIRMWARE_TIMER_CODE: u64 = 0x1_0000;

#[entry]
fn main() -> Status {
    let _ = boot::set_watchdog_timer(FIRMWARE_TIMER_SECONDS, FIRMWARE_TIMER_CODE, None);
    if let Err(trouble) = run() {
        println!("bootsel: {trouble}");
    }
    reset()
}

/// Why nothing was started, or one slot was not.
enum Trouble {
    /// The firmware does not say which disk this is, or the disk can't be read.
    Disk(&'static str, Status),
    /// Neither copy of the partition table is whole.
    NoTable,
    /// The table has no partition of this name.
    NoPartition(&'static str),
    /// The slot has no header, or a torn or rotten one.
    NoHeader,
    /// The payload is longer than its slot, or not what its header says.
    Payload,
    /// The firmware refuses the image.
    Refused(&'static str, Status),
}

impl core::fmt::Display for Trouble {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Disk(what, status) => write!(f, "{what}: {status}"),
            Self::NoTable => f.write_str("the boot disk has no partition table that is whole"),
            Self::NoPartition(name) => write!(f, "the boot disk has no partition {name}"),
            Self::NoHeader => f.write_str("the slot holds no image"),
            Self::Payload => f.write_str("the slot's image is damaged"),
            Self::Refused(what, status) => {
                write!(f, "the firmware does not {what} the image: {status}")
            }
        }
    }
}

fn run() -> Result<(), Trouble> {
    let mut disk = BootDisk::open()?;
    let place = disk.partition(partition::BOOTSTATE)?;
    let mut record = Record::read(&mut disk, place);
    let (mut start, next) = record.state.start();
    if let Some(next) = next
        && !record.write(&mut disk, next)
        && start.trial
    {
        // Its tries would never end.
        println!("bootsel: the try can't be counted");
        start = record.state.fallback();
    }
    for _ in Slot::ALL {
        match load(&mut disk, start.slot) {
            Ok((image, header)) => run_image(image, start, &header, record.state.watchdog_seconds),
            Err(trouble) => println!("bootsel: slot {}: {trouble}", start.slot),
        }
        // Whether the image could not be loaded or has come back: it is the other one's turn.
        let (other, next) = record.state.unloadable(start.slot);
        record.write(&mut disk, next);
        start = other;
    }
    println!("bootsel: neither slot can be started");
    Ok(())
}

/// The boot record and where its next version goes.
struct Record {
    place: Extent,
    state: BootState,
    free: Copy,
}

impl Record {
    /// Unreadable copies are like none: there is always something to start.
    fn read(disk: &mut BootDisk, place: Extent) -> Self {
        let mut copy = |copy: Copy| {
            let bytes = disk.read(place, copy.offset(), slots::RECORD_BYTES).ok();
            bytes.and_then(|bytes| bytes.first_chunk::<{ slots::RECORD_BYTES }>().copied())
        };
        let (first, second) = (copy(Copy::First), copy(Copy::Second));
        let bytes =
            |copy: &Option<[u8; slots::RECORD_BYTES]>| copy.unwrap_or([0; slots::RECORD_BYTES]);
        let newest = BootState::newest(&bytes(&first), &bytes(&second));
        if newest.is_none() {
            println!("bootsel: no boot record can be read; slot A is taken for good");
        }
        let (state, copy) = newest.unwrap_or((BootState::default(), Copy::Second));
        Self {
            place,
            state,
            free: copy.other(),
        }
    }

    /// Takes `next` for the state in any case; false if the disk did not take it.
    fn write(&mut self, disk: &mut BootDisk, next: BootState) -> bool {
        self.state = next;
        let written = disk.write(self.place, self.free.offset(), &next.encode());
        match written {
            Ok(()) => self.free = self.free.other(),
            Err(status) => println!("bootsel: the boot record can't be written: {status}"),
        }
        written.is_ok()
    }
}

fn load(disk: &mut BootDisk, slot: Slot) -> Result<(Handle, SlotHeader), Trouble> {
    let place = disk.partition(slot.partition())?;
    let unreadable = |status| Trouble::Disk("the slot can't be read", status);
    let header = disk
        .read(place, 0, slots::RECORD_BYTES)
        .map_err(unreadable)?;
    let header = SlotHeader::decode(&header).ok_or(Trouble::NoHeader)?;
    let room = place.bytes.saturating_sub(slots::BLOCK_BYTES as u64);
    if header.payload_bytes > room {
        return Err(Trouble::Payload);
    }
    let bytes = usize::try_from(header.payload_bytes).map_err(|_| Trouble::Payload)?;
    let payload = disk
        .read(place, slots::BLOCK_BYTES as u64, bytes)
        .map_err(unreadable)?;
    if !header.fits(&payload) {
        return Err(Trouble::Payload);
    }
    let source = LoadImageSource::FromBuffer {
        buffer: &payload,
        file_path: Some(disk.path()),
    };
    // The firmware copies the image and frees nothing of ours: `payload` goes with this call.
    boot::load_image(boot::image_handle(), source)
        .map(|image| (image, header))
        .map_err(|error| Trouble::Refused("load", error.status()))
}

/// Returns only if the image does.
fn run_image(image: Handle, start: Start, header: &SlotHeader, watchdog_seconds: u16) {
    let told = tell(start);
    let watchdog = watchdog::arm(watchdog_seconds);
    let (slot, release) = (start.slot, header.release());
    let why = if start.trial { "on trial" } else { "active" };
    println!(
        "bootsel: slot {slot}, {why}, {} tries left, release {release}",
        start.tries
    );
    println!("bootsel: watchdog {watchdog}, {watchdog_seconds} s; told={told}");
    if let Err(error) = boot::start_image(image) {
        println!(
            "bootsel: slot {slot}: {}",
            Trouble::Refused("start", error.status())
        );
    }
}

/// Leaves word for PID 1; without it PID 1 blesses nothing.
fn tell(start: Start) -> bool {
    const VENDOR: Guid = Guid::parse_or_panic(LOADER_VENDOR);
    let Ok(name) = CString16::try_from(LOADER_VARIABLE) else {
        return false;
    };
    let access = VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
    runtime::set_variable(&name, &VariableVendor(VENDOR), access, &start.to_bytes()).is_ok()
}

fn reset() -> ! {
    println!("bootsel: reset in {} s", BEFORE_RESET.as_secs());
    boot::stall(BEFORE_RESET);
    runtime::reset(ResetType::COLD, Status::ABORTED, None)
}

/// Nobody stands there to switch it on again, so a fault of this program is a reset too.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("bootsel: {info}");
    reset()
}
