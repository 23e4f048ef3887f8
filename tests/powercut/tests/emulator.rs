//! The emulator under real file systems, where a machine has FUSE and may mount.

use std::process::Command;

/// What was flushed survives, what was not is lost, a FLUSH arrives for each synced write, and a timed commit takes a turn.
#[test]
fn the_emulated_disk_loses_what_was_not_flushed_and_nothing_else() {
    let output = Command::new(env!("CARGO_BIN_EXE_powercut"))
        .args(["stand-in", "2"])
        .output()
        .expect("it was built");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    if said.starts_with("SKIPPED") {
        eprint!("{said}");
    }
    assert!(output.status.success());
}
