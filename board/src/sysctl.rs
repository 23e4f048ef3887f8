//! Kernel settings that the store's promises and the box's safety need. One that this kernel lacks is passed over.

use std::fs;
use std::path::Path;

use crate::say;

/// `vm.dirty_bytes` must be at least two pages; below this much memory nothing would run anyway.
const DIRTY_BYTES_MIN: u64 = 16 << 20;

/// Settings for a machine with so much memory.
pub(crate) fn settings(memory_bytes: u64) -> Vec<(&'static str, String)> {
    // The broker writes back by itself and keeps to a quarter of memory; the kernel steps in at half of it only
    // (storage chapter, §4.5).
    let dirty = (memory_bytes / 2).max(DIRTY_BYTES_MIN).to_string();
    let mut all = vec![
        ("vm/dirty_writeback_centisecs", "0".to_owned()),
        ("vm/dirty_expire_centisecs", "360000".to_owned()),
        ("vm/dirty_bytes", dirty.clone()),
        ("vm/dirty_background_bytes", dirty),
    ];
    let fixed = [
        // A panic restarts; the loader decides with which slot.
        ("kernel/panic", "5"),
        ("kernel/panic_on_oops", "1"),
        // One program serves clients, and it has no capability that low ports would ask for.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/tcp_syncookies", "1"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv6/conf/all/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/all/accept_redirects", "0"),
        ("kernel/kexec_load_disabled", "1"),
        ("kernel/unprivileged_bpf_disabled", "1"),
        ("kernel/io_uring_disabled", "2"),
        ("user/max_user_namespaces", "0"),
        ("kernel/core_pattern", ""),
        ("kernel/yama/ptrace_scope", "3"),
    ];
    all.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    all
}

/// Writes them; what could not be written is said.
pub(crate) fn apply() {
    let info = rustix::system::sysinfo();
    let memory = info.totalram * u64::from(info.mem_unit);
    for (name, value) in settings(memory) {
        let path = Path::new("/proc/sys").join(name);
        if !path.exists() {
            continue;
        }
        // A newline, since an empty write changes nothing.
        if let Err(error) = fs::write(&path, format!("{value}\n")) {
            say!("sysctl {name}: {error}");
        }
    }
}

/// No module is loaded from here on: whoever took the broker over finds that door closed.
pub(crate) fn close_modules() {
    if let Err(error) = fs::write("/proc/sys/kernel/modules_disabled", "1\n") {
        say!("sysctl kernel/modules_disabled: {error}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_of_memory_may_be_dirty_and_no_timer_writes_it_back() {
        let all = settings(2 << 30);
        let value = |name: &str| {
            let found = all.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("vm/dirty_bytes"), Some("1073741824"));
        assert_eq!(value("vm/dirty_background_bytes"), Some("1073741824"));
        assert_eq!(value("vm/dirty_writeback_centisecs"), Some("0"));
        assert_eq!(value("vm/dirty_expire_centisecs"), Some("360000"));
        let small = settings(0);
        assert_eq!(small[2], ("vm/dirty_bytes", DIRTY_BYTES_MIN.to_string()));
    }
}
