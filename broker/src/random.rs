//! Random identities.

use model::Uuid;

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> Uuid {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // The kernel's generator is seeded long before a disk is mounted; only a signal interrupts it.
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("getrandom: {error}"),
        }
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid(bytes)
}

/// A number for one life of a process, never zero.
pub(crate) fn boot() -> u64 {
    let Uuid(bytes) = uuid();
    let (number, _) = bytes.split_first_chunk().expect("eight of sixteen bytes");
    u64::from_le_bytes(*number).max(1)
}
