//! The kernel's own file systems, and the machine's end.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use crate::say;
use crate::supervise::Ending;

/// Mounts what every other part reads.
pub(crate) fn mount_all() {
    let quiet = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_one("proc", "/proc", "proc", quiet, c"hidepid=2");
    // Before the first line is said: the kernel drops what a program says faster than ten lines in five seconds.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    mount_one("sysfs", "/sys", "sysfs", quiet, c"");
    let no_exec = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_one("devtmpfs", "/dev", "devtmpfs", no_exec, c"mode=0755");
    mount_one("tmpfs", "/run", "tmpfs", quiet, c"mode=0755,size=16m");
}

/// The firmware's variables, once their module is loaded; a machine without UEFI has none.
pub(crate) fn mount_efi_variables() {
    if Path::new("/sys/firmware/efi").exists() {
        let quiet = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        mount_one(
            "efivarfs",
            "/sys/firmware/efi/efivars",
            "efivarfs",
            quiet,
            c"",
        );
    }
}

fn mount_one(source: &str, target: &str, kind: &str, flags: MountFlags, options: &CStr) {
    // It is there in most images; mount says what is wrong if it can't be made.
    let _ = fs::create_dir_all(target);
    if let Err(error) = mount(source, target, kind, flags, options) {
        say!("mount {target}: {error}");
    }
}

/// Ctrl-Alt-Del asks us, instead of restarting at once.
pub(crate) fn take_ctrl_alt_del() {
    if let Err(error) = reboot(RebootCommand::CadOff) {
        say!("ctrl-alt-del: {error}");
    }
}

/// The machine ends. What was in memory has gone to the disks before.
pub(crate) fn end(ending: Ending) -> ! {
    now(match ending {
        Ending::Reboot => RebootCommand::Restart,
        Ending::PowerOff => RebootCommand::PowerOff,
    })
}

/// Nothing is synced: a disk does not answer.
pub(crate) fn reset() -> ! {
    now(RebootCommand::Restart)
}

fn now(command: RebootCommand) -> ! {
    loop {
        if let Err(error) = reboot(command) {
            say!("the machine does not end: {error}");
        }
        // The watchdog is not fed any more.
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
