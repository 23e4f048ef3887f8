//! A payload that is well: it switches the machine off, which ends the test.

#![no_main]
#![no_std]

mod payload;

use uefi::runtime::ResetType;
use uefi::{Status, entry};

#[entry]
fn main() -> Status {
    payload::say("good");
    payload::end(ResetType::SHUTDOWN)
}
