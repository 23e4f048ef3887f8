//! A payload that hangs before anything of its own could reset the machine.

#![no_main]
#![no_std]

mod payload;

use core::time::Duration;

use uefi::{Status, boot, entry};

#[entry]
fn main() -> Status {
    payload::say("hanging");
    loop {
        boot::stall(Duration::from_secs(1));
    }
}
