//! The emulator under real file systems, where a machine has FUSE and may mount.

use std::io::Write;
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
        // Past the capture of a passing test's output: what was not run must be seen.
        let _ = std::io::stderr().write_all(said.as_bytes());
    }
    assert!(output.status.success());
}
