//! How long a SATA drive tries to read a weak sector before it says that it can't: seven seconds instead of minutes.
//!
//! A desktop drive may retry one sector for two minutes, with every other command waiting. The broker holds copies, CRCs and
//! time-outs of its own, so an early error serves it better (SCT Error Recovery Control, ACS-3 §8.3.3, sent by SAT-3's ATA
//! PASS-THROUGH). A drive forgets it when it loses power, so each start sets it anew. One that can't is said so;
//! nothing depends on it.

use std::ffi::c_void;
use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Updater, ioctl};

/// Tenths of a second.
const LIMIT: u16 = 70;
const SECTOR_BYTES: usize = 512;
/// `SG_IO` (scsi/sg.h): an opcode older than their scheme.
const SG_IO: Opcode = 0x2285;
/// `SG_DXFER_TO_DEV`.
const TO_DEVICE: i32 = -2;
/// A drive that is there answers at once; in ms.
const ANSWER_MAX: u32 = 10_000;

/// Which errors the limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Reads = 1,
    Writes = 2,
}

/// ATA PASS-THROUGH (16) of SMART WRITE LOG to the SCT command log: one block out, by PIO.
const COMMAND: [u8; 16] = [
    0x85,   // ATA PASS-THROUGH (16)
    5 << 1, // protocol: PIO data-out
    0x06,   // to the device, counted in blocks, by the count field
    0,
    0xd6, // features: SMART WRITE LOG
    0,
    1, // count: one block
    0,
    0xe0, // LBA low: the SCT command log
    0,
    0x4f,
    0,
    0xc2, // LBA mid and high: SMART's signature
    0,
    0xb0, // command: SMART
    0,
];

/// The log's block: action 3, error recovery control; function 1, set; which; tenths of a second. All words are little-endian.
fn block(of: Of) -> [u8; SECTOR_BYTES] {
    let mut block = [0; SECTOR_BYTES];
    for (at, word) in [3, 1, of as u16, LIMIT].into_iter().enumerate() {
        block[2 * at..2 * at + 2].copy_from_slice(&word.to_le_bytes());
    }
    block
}

/// `struct sg_io_hdr` of scsi/sg.h.
#[repr(C)]
struct Request {
    interface: i32,
    direction: i32,
    command_bytes: u8,
    sense_bytes_max: u8,
    vectors: u16,
    data_bytes: u32,
    data: *mut c_void,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack_id: i32,
    user: *mut c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_bytes: u8,
    host_status: u16,
    driver_status: u16,
    residual: i32,
    duration_ms: u32,
    info: u32,
}

/// Sets the limit for reads and for writes.
pub(super) fn set(device: &File) -> io::Result<()> {
    send(device, Of::Reads)?;
    send(device, Of::Writes)
}

fn send(device: &File, of: Of) -> io::Result<()> {
    let (mut block, mut sense) = (block(of), [0u8; 32]);
    let mut request = Request {
        interface: i32::from(b'S'),
        direction: TO_DEVICE,
        command_bytes: COMMAND.len() as u8,
        sense_bytes_max: sense.len() as u8,
        vectors: 0,
        data_bytes: SECTOR_BYTES as u32,
        data: block.as_mut_ptr().cast(),
        command: COMMAND.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: ANSWER_MAX,
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_bytes: 0,
        host_status: 0,
        driver_status: 0,
        residual: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: SG_IO reads and writes a `sg_io_hdr`, whose layout `Request` has; the three buffers it points to are ours, as
    // long as it says, and live until the call returns.
    unsafe { ioctl(device, Updater::<SG_IO, Request>::new(&mut request)) }?;
    match (request.status, request.host_status) {
        (0, 0) => Ok(()),
        (status, host) => Err(io::Error::other(format!(
            "the drive refused it (SCSI status {status:#x}, host {host:#x})"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As `smartctl -l scterc,70,70` sends them.
    #[test]
    fn golden_bytes() {
        assert_eq!(
            COMMAND,
            [
                0x85, 0x0a, 0x06, 0, 0xd6, 0, 1, 0, 0xe0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0
            ]
        );
        assert_eq!(block(Of::Reads)[..10], [3, 0, 1, 0, 1, 0, 70, 0, 0, 0]);
        assert_eq!(block(Of::Writes)[..10], [3, 0, 1, 0, 2, 0, 70, 0, 0, 0]);
        assert_eq!(
            size_of::<Request>(),
            88,
            "sizeof(struct sg_io_hdr) on 64 bits"
        );
    }

    #[test]
    fn what_is_no_drive_says_so() {
        assert!(set(&File::open("/dev/null").unwrap()).is_err());
    }
}
