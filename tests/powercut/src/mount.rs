//! A disk as the broker sees it: an emulator in a process of its own, a loop device on its file, a file system on that.
//!
//! The trap of this arrangement: a loop device may come up, or stay from an earlier life, with its write cache called
//! `write through`; then the kernel sends no FLUSH at all and every cut would be harmless. So it is set, and read back.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::fuse::FILE;

/// What lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// How a disk is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Make {
    pub(crate) bytes: u64,
    pub(crate) timed: bool,
    pub(crate) seed: u64,
    pub(crate) flush_us: u64,
}

/// An emulated disk under a mounted file system.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) file_system: FileSystem,
    /// Where the file system is mounted.
    pub(crate) dir: PathBuf,
    pub(crate) control: Control,
    /// Times that a file system had to be repaired before it could be mounted.
    pub(crate) repairs: u64,
    base: PathBuf,
    emulator: Child,
    device: Option<PathBuf>,
    mounted: bool,
}

/// Why there can be no emulated disks here, or `None`.
pub(crate) fn missing() -> Option<String> {
    if !may_mount() {
        return Some("mounting needs root and CAP_SYS_ADMIN".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("{device} is missing"));
        }
    }
    let programs = [
        "losetup",
        "mount",
        "umount",
        "mkfs.ext4",
        "e2fsck",
        "mkfs.xfs",
        "filefrag",
    ];
    let lacks = programs.iter().find(|it| !installed(it))?;
    Some(format!(
        "{lacks} is missing (apt install e2fsprogs xfsprogs mount)"
    ))
}

/// Why the broker can't be run and read here, or `None`.
pub(crate) fn missing_for_broker() -> Option<String> {
    missing()
        .or_else(|| (!installed("kcat")).then(|| "kcat is missing (apt install kcat)".to_owned()))
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
}

/// Containers often have a root that may not mount.
fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|it| u64::from_str_radix(it.strip_prefix("CapEff:")?.trim(), 16).ok());
    rustix::process::geteuid().is_root() && mask.is_some_and(|it| it & (1 << CAP_SYS_ADMIN) != 0)
}

/// Runs a program; what it printed, or what went wrong.
pub(crate) fn run(program: &str, args: &[&str]) -> io::Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|it| io::Error::new(it.kind(), format!("{program}: {it}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {}: {}: {}",
        args.join(" "),
        output.status,
        said.trim()
    )))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the run's directory has a plain name")
}

impl Disk {
    /// A new disk named `name` below `base`, formatted and mounted.
    pub(crate) fn new(
        base: &Path,
        name: &str,
        file_system: FileSystem,
        make: Make,
    ) -> io::Result<Self> {
        let base = base.join(name);
        for sub in ["fuse", "fs"] {
            fs::create_dir_all(base.join(sub))?;
        }
        let socket = base.join("control");
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("disk")
            .arg(base.join("image"))
            .arg(base.join("fuse"))
            .arg(&socket);
        command.args([
            "--bytes",
            &make.bytes.to_string(),
            "--seed",
            &make.seed.to_string(),
        ]);
        command.args(["--flush-us", &make.flush_us.to_string()]);
        if make.timed {
            command.arg("--timed");
        }
        // It ends with us: its standard input closes.
        let mut emulator = command.stdin(Stdio::piped()).spawn()?;
        let control = patiently(Duration::from_secs(10), || {
            if let Some(status) = emulator.try_wait()? {
                return Err(io::Error::other(format!("the emulator ended: {status}")));
            }
            Control::connect(&socket).map(Some).or_else(|_| Ok(None))
        })?;
        let mut disk = Self {
            file_system,
            dir: base.join("fs"),
            control,
            repairs: 0,
            base,
            emulator,
            device: None,
            mounted: false,
        };
        disk.attach()?;
        disk.format()?;
        disk.mount()?;
        Ok(disk)
    }

    fn device(&self) -> &str {
        text(self.device.as_deref().expect("used only while attached"))
    }

    /// The loop device, with the write cache that hard disks have.
    fn attach(&mut self) -> io::Result<()> {
        let file = self.base.join("fuse").join(FILE);
        let said = run(
            "losetup",
            &["--find", "--show", "--direct-io=on", text(&file)],
        )?;
        let device = PathBuf::from(said.trim());
        let name = device.file_name().unwrap_or_default().to_owned();
        self.device = Some(device);
        let switch = Path::new("/sys/block").join(name).join("queue/write_cache");
        fs::write(&switch, "write back")?;
        let is = fs::read_to_string(&switch)?;
        if is.trim() != "write back" {
            return Err(io::Error::other(format!(
                "{}: `{}`: no FLUSH would come",
                switch.display(),
                is.trim()
            )));
        }
        Ok(())
    }

    fn format(&self) -> io::Result<()> {
        match self.file_system {
            // Without lazy initialisation: its thread would write beside the broker for minutes.
            FileSystem::Ext4 => run(
                "mkfs.ext4",
                &[
                    "-q",
                    "-F",
                    "-E",
                    "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                    self.device(),
                ],
            )?,
            FileSystem::Xfs => run("mkfs.xfs", &["-q", "-f", "-K", self.device()])?,
        };
        Ok(())
    }

    fn mount(&mut self) -> io::Result<()> {
        let (device, dir) = (self.device().to_owned(), text(&self.dir).to_owned());
        let mount = || {
            run(
                "mount",
                &[
                    "-t",
                    self.file_system.name(),
                    "-o",
                    "noatime",
                    &device,
                    &dir,
                ],
            )
        };
        if let Err(first) = mount() {
            if self.file_system != FileSystem::Ext4 {
                return Err(first);
            }
            // ext4's superblock is larger than a sector and can be torn; the backup copies are for that. Exit 1 says
            // that faults were corrected.
            eprintln!("  {first}; e2fsck");
            let repaired = run("e2fsck", &["-fy", &device]);
            if let Err(why) = repaired
                && !why.to_string().contains("exit status: 1:")
            {
                return Err(why);
            }
            self.repairs += 1;
            mount()?;
        }
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        if self.mounted {
            let dir = text(&self.dir).to_owned();
            // The killed broker's last descriptors may take a moment.
            patiently(Duration::from_secs(20), || Ok(run("umount", &[&dir]).ok()))?;
            self.mounted = false;
        }
        if let Some(device) = self.device.take() {
            run("losetup", &["-d", text(&device)])?;
            let name = device.file_name().unwrap_or_default().to_owned();
            let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
            patiently(Duration::from_secs(10), || {
                Ok((!backing.exists()).then_some(()))
            })?;
        }
        Ok(())
    }

    /// After a cut: lets the kernel drop the dead file system, and starts the disk again.
    pub(crate) fn power_cycle(&mut self) -> io::Result<()> {
        self.control.say("off")?;
        self.unmount()?;
        self.control.say("on")?;
        self.attach()?;
        self.mount()
    }

    /// In good order: unmounted, detached, attached, and mounted again; nothing is in the page cache afterwards.
    pub(crate) fn remount(&mut self) -> io::Result<()> {
        self.unmount()?;
        self.attach()?;
        self.mount()
    }

    /// Whether the file system itself gave up: it takes no new file.
    pub(crate) fn broken(&self) -> io::Result<bool> {
        let probe = self.dir.join("probe");
        let works =
            fs::write(&probe, b"works").is_ok() && fs::File::open(&probe)?.sync_all().is_ok();
        let _ = fs::remove_file(&probe);
        Ok(!works)
    }

    /// Another disk in the same place: blank.
    pub(crate) fn replace(&mut self) -> io::Result<()> {
        self.control.say("fragile none")?;
        self.unmount()?;
        self.attach()?;
        self.format()?;
        self.mount()
    }

    /// Cuts may tear single sectors of this file, whose blocks stay where they are.
    pub(crate) fn fragile(&mut self, file: &Path) -> io::Result<()> {
        for (offset, bytes) in self.places(file)? {
            self.control.say(&format!("fragile {offset} {bytes}"))?;
        }
        Ok(())
    }

    /// Where a file's bytes lie on the disk: (offset, length).
    pub(crate) fn places(&self, file: &Path) -> io::Result<Vec<(u64, u64)>> {
        // `   0:        0..    2047:      34816..     36863:   2048:             last,eof`
        let said = run("filefrag", &["-v", "-b512", text(file)])?;
        let mut places = Vec::new();
        for line in said.lines() {
            let fields: Vec<&str> = line.split(':').map(str::trim).collect();
            let [number, _, physical, length, ..] = fields[..] else {
                continue;
            };
            let start = physical
                .split("..")
                .next()
                .map(str::trim)
                .and_then(|it| it.parse::<u64>().ok());
            if let (Ok(_), Some(start), Ok(length)) =
                (number.parse::<u64>(), start, length.parse::<u64>())
            {
                places.push((start * 512, length * 512));
            }
        }
        if places.is_empty() {
            return Err(io::Error::other(format!(
                "{} has no extents: {said}",
                file.display()
            )));
        }
        Ok(places)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever state the run ended in: no process may wait for this disk for ever.
        let _ = self.control.say("heal");
        if let Err(why) = self.unmount() {
            eprintln!("{}: {why}", self.base.display());
        }
        drop(self.emulator.stdin.take());
        if let Err(why) = patiently(Duration::from_secs(5), || self.emulator.try_wait()) {
            eprintln!("the emulator of {}: {why}", self.base.display());
            let _ = self.emulator.kill();
            let _ = self.emulator.wait();
        }
    }
}

/// Tries until something comes, every few milliseconds.
pub(crate) fn patiently<T>(
    most: Duration,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<T> {
    let until = Instant::now() + most;
    loop {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        if Instant::now() > until {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nothing within {most:?}"),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until standard input closes, which the parent's end does.
pub(crate) fn until_parent_ends() {
    let mut sink = [0; 64];
    while matches!(io::stdin().read(&mut sink), Ok(1..)) {}
}

/// A directory for one run, removed afterwards.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

/// In `POWERCUT_DIR`, or where temporary files go. The disks' images are sparse files in it.
pub(crate) fn scratch() -> io::Result<Scratch> {
    let parent = std::env::var_os("POWERCUT_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = parent.join(format!("powercut-{}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(Scratch { path, keep: false })
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// It stays, to be looked at.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
        eprintln!("kept: {}", self.path.display());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // Left over where something is still mounted.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
