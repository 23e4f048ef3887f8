//! The loader under UEFI firmware in QEMU: every fault of a slot that a site may meet, and what the record says then.
//!
//! `scripts/loader-test` builds the loader and the payloads and runs this; without them it is skipped with one line. Each
//! scenario is a machine of its own with a disk of its own, and takes about ten seconds in QEMU's emulation.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use images::disk::{self, Contents, Image};
use images::output::{self, Format};
use sha2::{Digest, Sha256};
use slots::{BootState, Install, Slot, SlotHeader};

const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// A boot takes about five seconds where nothing else runs, the slowest scenario four boots.
const LIMIT: Duration = Duration::from_secs(240);

/// Where the loader and the payloads lie.
fn programs() -> Option<PathBuf> {
    let folder = std::env::var_os("HOWDAH_LOADER").map(PathBuf::from);
    if folder.is_none() {
        println!(
            "SKIPPED: HOWDAH_LOADER is not set; scripts/loader-test builds the loader and sets it"
        );
        return None;
    }
    if !Path::new(FIRMWARE).exists()
        || Command::new("qemu-system-x86_64")
            .arg("--version")
            .output()
            .is_err()
    {
        println!("SKIPPED: QEMU or its UEFI firmware is missing (Debian: qemu-system-x86 ovmf)");
        return None;
    }
    folder
}

/// A machine with a disk of our making.
struct Machine {
    folder: PathBuf,
    programs: PathBuf,
}

impl Machine {
    /// With `good` in slot A and nothing in slot B.
    fn new(name: &str, watchdog_seconds: u16) -> Option<Self> {
        let programs = programs()?;
        let folder =
            std::env::temp_dir().join(format!("howdah-loader-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(VARIABLES, folder.join("variables.fd")).unwrap();
        let machine = Self { folder, programs };
        let image = Image::boot_disk(&Contents {
            loader: &fs::read(machine.programs.join("bootsel.efi")).unwrap(),
            payload: &machine.payload("good"),
            release: "one",
            watchdog_seconds,
            site: b"",
            keys: None,
        })
        .unwrap();
        output::write(&image, Format::Raw, &machine.disk()).unwrap();
        Some(machine)
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    fn payload(&self, name: &str) -> Vec<u8> {
        fs::read(self.programs.join(format!("examples/{name}.efi"))).unwrap()
    }

    fn write(&self, partition: &str, at: u64, bytes: &[u8]) {
        let disk = File::options().write(true).open(self.disk()).unwrap();
        disk.write_all_at(bytes, disk::offset(partition).unwrap() + at)
            .unwrap();
    }

    fn state(&self) -> BootState {
        let mut copies = [0; 8192];
        let disk = File::open(self.disk()).unwrap();
        disk.read_exact_at(&mut copies, disk::offset("bootstate").unwrap())
            .unwrap();
        BootState::newest(&copies, &copies[4096..]).unwrap().0
    }

    /// Puts a payload on trial in slot B, as an update does.
    fn install(&self, payload: &[u8], tries: u8) {
        let sha256: [u8; 32] = Sha256::digest(payload).into();
        self.write("slot-b", 4096, payload);
        self.write(
            "slot-b",
            0,
            &SlotHeader::new(payload, sha256, "two").encode(),
        );
        let install = Install {
            slot: Slot::B,
            sha256,
            tries,
            again: false,
        };
        let next = self.state().install(install).unwrap();
        // The builder leaves the newer copy in the second place.
        self.write("bootstate", 0, &next.encode());
    }

    /// Runs until the machine switches itself off, or `enough` says so. Returns what the loader and the payloads said.
    fn run(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut qemu = Command::new("qemu-system-x86_64")
            .args([
                "-machine", "q35", "-accel", "tcg", "-m", "256", "-display", "none", "-nic", "none",
            ])
            .args([
                "-serial",
                "stdio",
                "-monitor",
                "none",
                "-device",
                "i6300esb",
                "-action",
                "watchdog=reset",
            ])
            .args([
                "-drive",
                &format!("if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"),
            ])
            .args([
                "-drive",
                &format!(
                    "if=pflash,format=raw,unit=1,file={}",
                    self.folder.join("variables.fd").display()
                ),
            ])
            .args([
                "-drive",
                &format!("id=boot,if=none,format=raw,file={}", self.disk().display()),
            ])
            .args(["-device", "ide-hd,drive=boot,bus=ide.0,bootindex=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = qemu.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let (begin, mut console, mut said) = (Instant::now(), Vec::new(), Vec::new());
        loop {
            let left = LIMIT.saturating_sub(begin.elapsed());
            match receive.recv_timeout(left) {
                Ok(bytes) => console.extend(bytes),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    said.push("TOO LONG".to_owned());
                    break;
                }
            }
            said = lines(&console);
            if enough(&said) {
                break;
            }
        }
        let _ = qemu.kill();
        qemu.wait().unwrap();
        println!("{}", said.join("\n"));
        said
    }

    fn run_to_the_end(&self) -> Vec<String> {
        self.run(|_| false)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The whole lines of ours; the firmware writes control sequences between them.
fn lines(console: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(console).into_owned();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let ours = whole.lines().filter_map(|line| {
        let at = line.find("bootsel: ").or_else(|| line.find("payload: "))?;
        Some(line[at..].trim_end().to_owned())
    });
    ours.collect()
}

/// The payloads' own words, in order.
fn payloads(said: &[String]) -> Vec<&str> {
    said.iter()
        .filter_map(|line| line.strip_prefix("payload: "))
        .collect()
}

#[test]
fn the_active_slot_starts_and_nothing_is_written() {
    let Some(machine) = Machine::new("active", 30) else {
        return;
    };
    let before = machine.state();
    let said = machine.run_to_the_end();
    assert_eq!(payloads(&said), ["good in A, trial=false, tries=0"]);
    assert!(said.contains(&"bootsel: watchdog i6300esb, 30 s; told=true".to_owned()));
    assert_eq!(machine.state(), before);
}

#[test]
fn a_trial_spends_a_try_before_it_starts() {
    let Some(machine) = Machine::new("trial", 30) else {
        return;
    };
    machine.install(&machine.payload("good"), 2);
    assert_eq!(
        payloads(&machine.run_to_the_end()),
        ["good in B, trial=true, tries=1"]
    );
    assert_eq!(
        (machine.state().trial, machine.state().tries),
        (Some(Slot::B), 1)
    );
}

#[test]
fn an_unhealthy_trial_gives_way_after_its_tries() {
    let Some(machine) = Machine::new("unhealthy", 30) else {
        return;
    };
    machine.install(&machine.payload("unhealthy"), 2);
    let said = machine.run_to_the_end();
    let expected = [
        "unhealthy in B, trial=true, tries=1",
        "unhealthy in B, trial=true, tries=0",
        "good in A, trial=false, tries=0",
    ];
    assert_eq!(payloads(&said), expected);
    let state = machine.state();
    assert_eq!((state.trial, state.has_failed(Slot::B)), (None, true));
    let sha256: [u8; 32] = Sha256::digest(machine.payload("unhealthy")).into();
    assert_eq!(state.failed_sha256, sha256);
}

#[test]
fn a_trial_that_hangs_is_reset_by_the_watchdog() {
    let Some(machine) = Machine::new("hang", 5) else {
        return;
    };
    machine.install(&machine.payload("hang"), 1);
    let said = machine.run_to_the_end();
    assert_eq!(
        payloads(&said),
        [
            "hanging in B, trial=true, tries=0",
            "good in A, trial=false, tries=0"
        ]
    );
    assert!(machine.state().has_failed(Slot::B));
}

/// A fault by which slot B can't be started gives A its turn at once, in the same boot.
fn gives_way_at_once(name: &str, damage: impl FnOnce(&Machine), expected: &str, spoken: &[&str]) {
    let Some(machine) = Machine::new(name, 30) else {
        return;
    };
    damage(&machine);
    let said = machine.run_to_the_end();
    assert!(
        said.iter().any(|line| line == expected),
        "{expected} is missing"
    );
    let mut all = spoken.to_vec();
    all.push("good in A, trial=false, tries=0");
    assert_eq!(payloads(&said), all);
    assert!(
        !said.iter().any(|line| line.contains("reset in")),
        "no reset is needed"
    );
    let state = machine.state();
    assert_eq!(
        (
            state.trial,
            state.has_failed(Slot::B),
            state.has_failed(Slot::A)
        ),
        (None, true, false)
    );
}

#[test]
fn a_rotten_trial_gives_way_at_once() {
    gives_way_at_once(
        "rotten",
        |machine| {
            machine.install(&machine.payload("good"), 2);
            machine.write("slot-b", 5000, b"rot");
        },
        "bootsel: slot B: the slot's image is damaged",
        &[],
    );
}

#[test]
fn a_trial_without_header_gives_way_at_once() {
    gives_way_at_once(
        "header",
        |machine| {
            machine.install(&machine.payload("good"), 2);
            machine.write("slot-b", 70, b"rot");
        },
        "bootsel: slot B: the slot holds no image",
        &[],
    );
}

#[test]
fn a_trial_longer_than_its_slot_gives_way_at_once() {
    gives_way_at_once(
        "long",
        |machine| {
            machine.install(&machine.payload("good"), 2);
            let mut header = SlotHeader::new(&machine.payload("good"), [1; 32], "two");
            header.payload_bytes = u64::MAX - 4096;
            machine.write("slot-b", 0, &header.encode());
        },
        "bootsel: slot B: the slot's image is damaged",
        &[],
    );
}

#[test]
fn a_trial_that_the_firmware_refuses_gives_way_at_once() {
    gives_way_at_once(
        "refused",
        |machine| machine.install(b"no PE image at all", 2),
        "bootsel: slot B: the firmware does not load the image: UNSUPPORTED",
        &[],
    );
}

#[test]
fn a_trial_that_comes_back_gives_way_at_once() {
    gives_way_at_once(
        "back",
        |machine| machine.install(&machine.payload("back"), 2),
        "bootsel: slot B: the firmware does not start the image: LOAD_ERROR",
        &["coming back in B, trial=true, tries=1"],
    );
}

#[test]
fn an_active_slot_that_rots_gives_way_to_the_other_one() {
    let Some(machine) = Machine::new("active-rots", 30) else {
        return;
    };
    machine.install(&machine.payload("good"), 1);
    let settled = machine.state().bless(Slot::B).unwrap();
    machine.write("bootstate", 4096, &settled.encode());
    machine.write("slot-b", 5000, b"rot");
    assert_eq!(
        payloads(&machine.run_to_the_end()),
        ["good in A, trial=true, tries=0"]
    );
    let state = machine.state();
    assert_eq!((state.active, state.has_failed(Slot::B)), (Slot::B, true));
}

#[test]
fn without_a_record_slot_a_starts() {
    let Some(machine) = Machine::new("no-record", 30) else {
        return;
    };
    machine.write("bootstate", 20, b"\xff");
    machine.write("bootstate", 4116, b"\xff");
    let said = machine.run_to_the_end();
    assert_eq!(payloads(&said), ["good in A, trial=false, tries=0"]);
    assert!(said[0].contains("no boot record can be read"), "{said:?}");
}

#[test]
fn with_neither_slot_the_machine_resets_and_tries_again() {
    let Some(machine) = Machine::new("neither", 30) else {
        return;
    };
    machine.write("slot-a", 0, &[0; 512]);
    let again = |said: &[String]| {
        said.iter()
            .filter(|line| line.contains("slot A: the slot holds no image"))
            .count()
            == 2
    };
    let said = machine.run(again);
    assert!(again(&said));
    assert!(said.contains(&"bootsel: neither slot can be started".to_owned()));
    assert!(said.contains(&"bootsel: reset in 5 s".to_owned()));
    // What was only unreadable is started once it can be read.
    machine.write(
        "slot-a",
        0,
        &SlotHeader::new(&machine.payload("good"), [0; 32], "one").encode(),
    );
    assert_eq!(
        payloads(&machine.run_to_the_end()),
        ["good in A, trial=false, tries=0"]
    );
}
