//! A node of a site as a virtual machine: its disks as files with the serials of the site file, its address in QEMU's
//! user network, its doors forwarded to this machine. No root, no bridge.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};
use site::{Appliance, Node, PREFIX_V4_DEFAULT, Place, Site};

use crate::config;
use crate::fault::{At, Fault};

/// Where Debian's package `ovmf` puts the firmware, and its empty variables.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Ports of an AHCI controller.
const PORTS: usize = 6;
/// A data disk of which the site does not say how much is ours.
const DISK_BYTES: u64 = 16 << 30;
const GIB: u64 = 1 << 30;

/// Who runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accelerator {
    /// KVM where the processor and the rights allow it, else TCG
    Auto,
    /// The processor itself
    Kvm,
    /// An emulation in software, some ten times slower
    Tcg,
}

/// What to start.
#[derive(Clone, Debug, Args)]
pub struct Boot {
    /// The site file
    pub site: PathBuf,
    /// Its image, raw; it is started in place, so that a second start finds what the first one left
    pub image: PathBuf,
    /// Which node; the first one, if none is named
    #[arg(long)]
    pub node: Option<String>,
    /// Where the machine's data disks and firmware variables lie
    #[arg(long, value_name = "DIR")]
    pub machine: PathBuf,
    /// The address of this machine at which the node's doors appear. Clients are told the node's own address: to reach
    /// it from here, give it to the loopback device (`ip address add ADDRESS/32 dev lo`) and name it here
    #[arg(long, default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    pub memory: u32,
    /// Who runs the guest
    #[arg(long, value_enum, default_value = "auto")]
    pub accelerator: Accelerator,
    /// UEFI firmware
    #[arg(long, value_name = "FILE", default_value = FIRMWARE)]
    pub firmware: PathBuf,
    /// Its empty variables, of which the machine gets a copy
    #[arg(long, value_name = "FILE", default_value = VARIABLES)]
    pub variables: PathBuf,
    /// Show the command instead of running it
    #[arg(long)]
    pub show: bool,
}

impl Boot {
    /// Becomes QEMU; returns only if that fails, or with the command if it is only to be shown.
    pub fn run(&self) -> Result<String, Fault> {
        let site = config::site(&self.site)?;
        let node = match &self.node {
            None => site
                .nodes
                .first()
                .ok_or_else(|| Fault::other("the site has no node"))?,
            Some(name) => {
                let found = site.node(name);
                found
                    .ok_or_else(|| Fault::Usage(format!("the site has no node {name}")))?
                    .1
            }
        };
        let arguments = self.arguments(&site, node)?;
        if self.show {
            return Ok(format!("qemu-system-x86_64 {}", arguments.join(" ")));
        }
        for needed in [&self.firmware, &self.variables, &self.image] {
            if !needed.exists() {
                return Err(Fault::Other(format!(
                    "{} is missing (Debian: qemu-system-x86 and ovmf; the image: scripts/image SITE)",
                    needed.display()
                )));
            }
        }
        fs::create_dir_all(&self.machine).at("make", &self.machine)?;
        let variables = self.machine.join("variables.fd");
        if !variables.exists() {
            fs::copy(&self.variables, &variables).at("write", &variables)?;
        }
        for (path, bytes) in self.drives(node) {
            if !path.exists() {
                let made = File::create(&path).and_then(|file| file.set_len(bytes));
                made.at("make", &path)?;
            }
        }
        let error = Command::new("qemu-system-x86_64").args(arguments).exec();
        Err(Fault::Other(format!(
            "qemu-system-x86_64 does not start: {error}"
        )))
    }

    /// The data disks' files, with their lengths.
    fn drives(&self, node: &Node) -> Vec<(PathBuf, u64)> {
        drives(node)
            .iter()
            .map(|drive| {
                (
                    self.machine.join(format!("{}.raw", drive.name)),
                    drive.bytes,
                )
            })
            .collect()
    }

    fn arguments(&self, site: &Site, node: &Node) -> Result<Vec<String>, Fault> {
        let appliance = site
            .appliance
            .as_ref()
            .ok_or_else(|| Fault::other("the site has no [appliance]"))?;
        let kvm = match self.accelerator {
            Accelerator::Kvm => true,
            Accelerator::Tcg => false,
            Accelerator::Auto => kvm_works(),
        };
        let (accelerator, processor) = if kvm {
            ("kvm", "host")
        } else {
            ("tcg,thread=multi", "max")
        };
        let path = |path: &Path| path.display().to_string().replace(',', ",,");
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend([format!("-{name}"), value]);
        add("machine", "q35".to_owned());
        add("accel", accelerator.to_owned());
        add("cpu", processor.to_owned());
        add("smp", "2".to_owned());
        add("m", self.memory.to_string());
        add("display", "none".to_owned());
        add("serial", "mon:stdio".to_owned());
        // The loader arms it, board feeds it: without it the way back from a hang is not there.
        add("device", "i6300esb".to_owned());
        add("action", "watchdog=reset".to_owned());
        add(
            "drive",
            format!(
                "if=pflash,format=raw,unit=0,readonly=on,file={}",
                path(&self.firmware)
            ),
        );
        add(
            "drive",
            format!(
                "if=pflash,format=raw,unit=1,file={}",
                path(&self.machine.join("variables.fd"))
            ),
        );
        add(
            "drive",
            format!("id=boot,if=none,format=raw,file={}", path(&self.image)),
        );
        add(
            "device",
            "ide-hd,drive=boot,bus=ide.0,bootindex=1".to_owned(),
        );
        for (at, (drive, (file, _))) in drives(node).iter().zip(self.drives(node)).enumerate() {
            if at % PORTS == 0 {
                add("device", format!("ahci,id=data{}", at / PORTS));
            }
            add(
                "drive",
                format!(
                    "id=drive{at},if=none,format=raw,discard=unmap,file={}",
                    path(&file)
                ),
            );
            let bus = format!("bus=data{}.{}", at / PORTS, at % PORTS);
            add(
                "device",
                format!("ide-hd,drive=drive{at},{bus},{}", drive.identity),
            );
        }
        if let Some(serial) = &node.identity.smbios {
            add(
                "smbios",
                format!("type=1,serial={}", serial.replace(',', ",,")),
            );
        }
        add("netdev", self.network(site, node, appliance)?);
        let mac = node
            .identity
            .mac
            .as_ref()
            .map_or(String::new(), |mac| format!(",mac={mac}"));
        add("device", format!("e1000e,netdev=net{mac}"));
        Ok(arguments)
    }

    /// QEMU's user network with the site's numbers: its gateway is where the site says.
    fn network(&self, site: &Site, node: &Node, appliance: &Appliance) -> Result<String, Fault> {
        let network = &appliance.network;
        let IpAddr::V4(address) = node.address else {
            return Err(Fault::Usage(
                "QEMU's user network is set up for IPv4 addresses here".to_owned(),
            ));
        };
        if network.vlan.is_some() {
            return Err(Fault::Usage(
                "QEMU's user network knows no VLANs: boot a site file without `vlan`".to_owned(),
            ));
        }
        let prefix = network.prefix.unwrap_or(PREFIX_V4_DEFAULT);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let base = u32::from(address) & mask;
        let taken = |candidate: u32| {
            site.nodes
                .iter()
                .any(|node| node.address == IpAddr::V4(candidate.into()))
        };
        let gateway = match network.gateway {
            Some(IpAddr::V4(gateway)) => u32::from(gateway),
            _ => (base + 1..base | !mask)
                .find(|candidate| !taken(*candidate))
                .unwrap_or(base + 1),
        };
        // QEMU answers names at a second address; it must be in the network and nobody's.
        let names =
            (base + 1..base | !mask).find(|candidate| *candidate != gateway && !taken(*candidate));
        let names = names.ok_or_else(|| {
            Fault::other("the node's network has no room for QEMU's own two addresses")
        })?;
        let ip = std::net::Ipv4Addr::from;
        let mut netdev = format!(
            "user,id=net,net={}/{prefix},host={},dns={}",
            ip(base),
            ip(gateway),
            ip(names)
        );
        // Addresses that DHCP would give are not asked for, but must lie in the network.
        netdev.push_str(&format!(",dhcpstart={address}"));
        let (at, _) = site
            .node(&node.name)
            .ok_or_else(|| Fault::other("the node is not the site's"))?;
        let mut ports: Vec<u16> = site
            .doors(at)
            .iter()
            .filter(|door| !door.address.ip().is_loopback())
            .map(|door| door.address.port())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            netdev.push_str(&format!(
                ",hostfwd=tcp:{}:{port}-{address}:{port}",
                self.bind
            ));
        }
        Ok(netdev)
    }
}

/// A drive of a node.
struct Drive {
    /// Of its file.
    name: String,
    /// As QEMU's property.
    identity: String,
    bytes: u64,
}

/// A node's drives, those of its journals too, each once.
fn drives(node: &Node) -> Vec<Drive> {
    let mut drives: Vec<Drive> = Vec::new();
    let mut add = |place: &Place, bytes: u64| {
        let identity = match place {
            Place::Serial(serial) => format!("serial={}", serial.replace(',', ",,")),
            Place::Wwn(wwn) => format!("wwn={}", wwn.replace("naa.", "0x")),
            Place::Path(_) => return,
        };
        let name = place
            .to_string()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        match drives.iter_mut().find(|drive| drive.name == name) {
            // Two journals on one drive: room for both.
            Some(drive) => drive.bytes += bytes,
            None => drives.push(Drive {
                name,
                identity,
                bytes,
            }),
        }
    };
    for disk in &node.disks {
        // A little more than is ours, so that the partitions' table and the file system's own fit.
        add(&disk.place, disk.usage.bytes.unwrap_or(DISK_BYTES) + GIB);
        if let Some(place) = &disk.journal.place {
            add(place, disk.journal.bytes + GIB);
        }
    }
    drives
}

/// The device may be there although the processor's own virtualisation is not.
fn kvm_works() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = processor
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    able && fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SITE: &str = r#"
[site]
name = "try"
secret = { file = "try.key" }
[listeners]
kafka = [{ bind = "loopback" }, { port = 9094, bind = "192.0.2.11", open = true }]
http = [{ bind = "192.0.2.11", open = true }]
[[node]]
name = "a"
address = "192.0.2.11"
identity = { smbios = "BOX-A", mac = "00:00:5e:00:53:01" }
[[node.disk]]
serial = "DISK-A"
use = "2GiB"
journal = { serial = "SSD", bytes = "64MiB" }
[appliance]
network = { gateway = "192.0.2.1" }
"#;

    fn boot(accelerator: Accelerator) -> Boot {
        Boot {
            site: "try.toml".into(),
            image: "try.raw".into(),
            node: None,
            machine: "m".into(),
            bind: "127.0.0.1".parse().unwrap(),
            memory: 512,
            accelerator,
            firmware: FIRMWARE.into(),
            variables: VARIABLES.into(),
            show: true,
        }
    }

    fn command(text: &str) -> Result<String, Fault> {
        let site = site::parse(text, "try.toml").unwrap();
        let arguments = boot(Accelerator::Tcg).arguments(&site, &site.nodes[0])?;
        Ok(arguments.join(" "))
    }

    #[test]
    fn the_machine_is_the_node_that_the_site_describes() {
        let command = command(SITE).unwrap();
        for expected in [
            "type=1,serial=BOX-A",
            "e1000e,netdev=net,mac=00:00:5e:00:53:01",
            "file=m/serial-DISK-A.raw -device ide-hd,drive=drive0,bus=data0.0,serial=DISK-A",
            "file=m/serial-SSD.raw -device ide-hd,drive=drive1,bus=data0.1,serial=SSD",
            "user,id=net,net=192.0.2.0/24,host=192.0.2.1,dns=192.0.2.2,dhcpstart=192.0.2.11,\
             hostfwd=tcp:127.0.0.1:9094-192.0.2.11:9094,hostfwd=tcp:127.0.0.1:9644-192.0.2.11:9644",
        ] {
            assert!(
                command.contains(expected),
                "{expected} is missing in {command}"
            );
        }
        assert!(
            !command.contains(":9092"),
            "a loopback door is not forwarded: {command}"
        );
    }

    #[test]
    fn what_the_user_network_cannot_do_is_said() {
        let vlan = SITE.replace("gateway = \"192.0.2.1\"", "vlan = 30");
        assert!(command(&vlan).unwrap_err().to_string().contains("VLAN"));
    }
}
