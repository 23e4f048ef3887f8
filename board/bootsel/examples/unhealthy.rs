//! A payload that finds itself unhealthy: it starts again without a blessing.

#![no_main]
#![no_std]

mod payload;

use uefi::runtime::ResetType;
use uefi::{Status, entry};

#[entry]
fn main() -> Status {
    payload::say("unhealthy");
    payload::end(ResetType::COLD)
}
