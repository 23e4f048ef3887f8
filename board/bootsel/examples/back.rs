//! A payload that comes back with an error, as a kernel does that the firmware's memory does not suit.

#![no_main]
#![no_std]

mod payload;

use uefi::{Status, entry};

#[entry]
fn main() -> Status {
    payload::say("coming back");
    Status::LOAD_ERROR
}
