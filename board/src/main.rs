//! PID 1 of the appliance: mounts, modules, watchdog, network, clock, disks, and one broker that it looks after.
//!
//! One loop takes facts and performs what `supervise.rs` decides; whatever may wait runs in a thread of its own and tells
//! the loop. Nothing here knows Kafka, and nothing listens but the notify socket (`broker.rs` says what the two agree on).
//! What the initrd holds: this program as `/init`, `/howdah`, `/sbin/e2fsck` (static) and `/lib/modules/RELEASE`.

mod board;
mod boot;
mod broker;
mod button;
mod clock;
mod console;
mod disks;
mod identity;
mod log;
mod modules;
mod mounts;
mod net;
mod reasons;
mod start;
mod supervise;
mod sysctl;
mod time;
mod watchdog;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "board {}: runs as the first process of an appliance only",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::from(2);
    }
    mounts::mount_all();
    board::run()
}
