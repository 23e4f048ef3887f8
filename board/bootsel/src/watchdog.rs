//! A hardware watchdog, armed before the kernel starts: one that hangs before its own driver is reset all the same.
//!
//! The Intel 6300ESB's timer, which emulators offer too (Intel 6300ESB datasheet, chapter 13). PID 1 takes it over.

use uefi::boot;
use uefi::proto::pci::PciIoAddress;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;

use crate::disk::open;

/// Vendor 8086, device 25ab.
const I6300ESB: u32 = 0x25ab_8086;
/// The two stages of the timer have 20 bits each, of half a second in 256.
const SECONDS_MAX: u16 = 2046;

/// What was armed, for the console.
pub(crate) fn arm(seconds: u16) -> &'static str {
    if seconds == 0 {
        return "off";
    }
    let bridges = boot::find_handles::<PciRootBridgeIo>().unwrap_or_default();
    let armed = bridges.into_iter().any(|handle| {
        open::<PciRootBridgeIo>(handle)
            .ok()
            .and_then(|mut bridge| i6300esb(&mut bridge, seconds.min(SECONDS_MAX)))
            .is_some()
    });
    if armed { "i6300esb" } else { "none found" }
}

/// `None` if this bridge has none on its first bus, where the chipset's devices are, or it does not answer.
fn i6300esb(bridge: &mut PciRootBridgeIo, seconds: u16) -> Option<()> {
    let device = (0..32)
        .map(|device| PciIoAddress::new(0, device, 0))
        .find(|address| bridge.pci().read_one::<u32>(*address) == Ok(I6300ESB))?;
    let config = |register| device.with_register(register);
    // Memory space on; without an address given by the firmware there is nothing to write to.
    let command: u16 = bridge.pci().read_one(config(0x04)).ok()?;
    bridge.pci().write_one(config(0x04), command | 2).ok()?;
    let base: u32 = bridge.pci().read_one(config(0x10)).ok()?;
    let base = u64::from(base & !0xf);
    if base == 0 {
        return None;
    }
    // Stopped, no interrupt at the first stage, reset at the second, a tick of about a millisecond.
    bridge.pci().write_one(config(0x68), 0u8).ok()?;
    bridge.pci().write_one(config(0x60), 0x0003u16).ok()?;
    // Each register opens for one write after 0x80, 0x86 to the reload register at 0x0c.
    let mut unlocked = |register: u64, value: u32| {
        let memory = bridge.memory();
        memory.write_one(base + 0x0c, 0x80u16).ok()?;
        memory.write_one(base + 0x0c, 0x86u16).ok()?;
        match register {
            0x0c => memory.write_one(base + register, value as u16).ok(),
            _ => memory.write_one(base + register, value).ok(),
        }
    };
    // Both stages together last as long as asked: half of 1024 ticks a second each.
    let half = u32::from(seconds) << 9;
    unlocked(0x00, half)?;
    unlocked(0x04, half)?;
    // Reload, so that the first stage starts from its new value.
    unlocked(0x0c, 0x100)?;
    bridge.pci().write_one(config(0x68), 2u8).ok()
}
