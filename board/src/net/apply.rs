//! Performs a plan: one netlink request and one answer for each step.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::netdevice::name_to_index;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};
use site::Network;

use super::{Card, Plan, Step, netlink as wire, resolver};

/// The kernel answers while the request is sent; a second means that it never will.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Messages of others that are passed over for one answer.
const OTHERS_MAX: usize = 64;

struct Client {
    socket: OwnedFd,
    sequence: u32,
}

impl Client {
    fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_MAX))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.socket, name)?)
    }

    fn request(&mut self, message: impl FnOnce(u32) -> Vec<u8>) -> io::Result<()> {
        self.sequence += 1;
        send(&self.socket, &message(self.sequence), SendFlags::empty())?;
        let mut bytes = [0; 8192];
        for _ in 0..OTHERS_MAX {
            let (length, _) = recv(&self.socket, &mut bytes, RecvFlags::empty())?;
            match wire::answer(&bytes[..length], self.sequence) {
                Some(0) => return Ok(()),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn perform(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::MakeBond { name, mode } => self.request(|it| wire::make_bond(it, name, *mode)),
            Step::Enslave { card, bond } => {
                let (card, bond) = (self.index(card)?, self.index(bond)?);
                self.request(|it| wire::enslave(it, card, bond))
            }
            Step::MakeVlan { name, parent, tag } => {
                let parent = self.index(parent)?;
                self.request(|it| wire::make_vlan(it, name, parent, *tag))
            }
            Step::Up(name) | Step::Down(name) => {
                let (index, up) = (self.index(name)?, matches!(step, Step::Up(_)));
                self.request(|it| wire::set_up(it, index, up))
            }
            Step::Address {
                name,
                address,
                prefix,
            } => {
                let index = self.index(name)?;
                self.request(|it| wire::add_address(it, index, *address, *prefix))
            }
            Step::Gateway { name, gateway } => {
                let index = self.index(name)?;
                self.request(|it| wire::set_gateway(it, index, *gateway))
            }
        }
    }
}

/// Performs every step that can be: a missing gateway must not cost the address. The first fault is returned.
pub(crate) fn apply(plan: &Plan) -> Result<(), String> {
    let mut client = Client::open().map_err(|error| format!("netlink: {error}"))?;
    let mut first = Ok(());
    for step in &plan.steps {
        if let Err(error) = client.perform(step) {
            first = first.and(Err(format!("{step:?}: {error}")));
        }
    }
    first
}

/// Brings cards up, so that their links can be seen.
pub(crate) fn lift(cards: &[Card]) -> io::Result<()> {
    let mut client = Client::open()?;
    for card in cards {
        client.perform(&Step::Up(card.name.clone()))?;
    }
    Ok(())
}

/// The physical cards, by name.
pub(crate) fn cards() -> io::Result<Vec<Card>> {
    let mut cards = Vec::new();
    for entry in fs::read_dir("/sys/class/net")? {
        let path = entry?.path();
        // What has no device below it is made by software: lo, bonds, VLANs.
        if !path.join("device").exists() {
            continue;
        }
        let read = |name: &str| {
            fs::read_to_string(path.join(name)).map(|text| text.trim().to_ascii_lowercase())
        };
        cards.push(Card {
            name: path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            mac: read("address")?,
            carrier: read("carrier").ok().map(|text| text == "1"),
        });
    }
    cards.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(cards)
}

/// Whether an interface has its link.
pub(crate) fn has_carrier(interface: &str) -> bool {
    fs::read_to_string(Path::new("/sys/class/net").join(interface).join("carrier"))
        .is_ok_and(|text| text.trim() == "1")
}

/// Writes what the resolver reads.
pub(crate) fn write_resolver(network: &Network) -> io::Result<()> {
    fs::create_dir_all("/etc")?;
    fs::write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write("/etc/resolv.conf", resolver(network))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{IpAddr, TcpListener};
    use std::process::Command;

    use rustix::thread::{UnshareFlags, unshare_unsafe};
    use site::Bond;

    use super::*;

    /// Runs `test` in a thread with a network namespace of its own. Needs root, as the board has it.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            // SAFETY: a network namespace changes nothing that this thread has open, and no memory is shared with it.
            match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                Ok(()) => test(),
                Err(error) => println!("SKIPPED: no network namespace of our own ({error})"),
            }
        });
        thread.join().unwrap();
    }

    fn ip(arguments: &str) -> String {
        let output = Command::new("ip")
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn steps(steps: Vec<Step>) -> Plan {
        Plan {
            steps,
            interface: String::new(),
            link: String::new(),
        }
    }

    #[test]
    fn a_card_gets_its_address_and_gateway() {
        in_namespace(|| {
            ip("link add eth0 type veth peer name far");
            ip("link set far up");
            let address: IpAddr = "192.0.2.11".parse().unwrap();
            let six: IpAddr = "2001:db8::b".parse().unwrap();
            let name = "eth0".to_owned();
            let plan = steps(vec![
                Step::Up("lo".to_owned()),
                Step::Up(name.clone()),
                Step::Address {
                    name: name.clone(),
                    address,
                    prefix: 25,
                },
                Step::Address {
                    name: name.clone(),
                    address: six,
                    prefix: 64,
                },
                Step::Gateway {
                    name: name.clone(),
                    gateway: "192.0.2.1".parse().unwrap(),
                },
                Step::Gateway {
                    name,
                    gateway: "2001:db8::1".parse().unwrap(),
                },
            ]);
            apply(&plan).unwrap();
            apply(&plan).expect("to do it again is no fault");
            let shown = ip("-o addr show dev eth0");
            assert!(shown.contains("192.0.2.11/25"), "{shown}");
            assert!(shown.contains("2001:db8::b/64"), "{shown}");
            assert!(ip("route show default").contains("default via 192.0.2.1 dev eth0"));
            assert!(ip("-6 route show default").contains("default via 2001:db8::1 dev eth0"));
            // An address that is still checked for duplicates could not be bound.
            TcpListener::bind((six, 0)).unwrap();
            TcpListener::bind((address, 0)).unwrap();
        });
    }

    #[test]
    fn a_vlan_on_a_bond_carries_the_address() {
        in_namespace(|| {
            ip("link add eth0 type veth peer name far");
            let kinds = ["bond", "vlan"].map(|kind| {
                let made = Command::new("ip")
                    .args(["link", "add", "link", "eth0", "name", "probe", "type", kind])
                    .args(if kind == "vlan" {
                        &["id", "9"][..]
                    } else {
                        &[]
                    })
                    .output()
                    .unwrap();
                let _ = Command::new("ip").args(["link", "del", "probe"]).output();
                made.status.success()
            });
            if kinds != [true; 2] {
                println!("SKIPPED: this kernel makes no bonds or VLANs ({kinds:?})");
                return;
            }
            let name = "bond0.30".to_owned();
            let plan = steps(vec![
                Step::MakeBond {
                    name: "bond0".to_owned(),
                    mode: Bond::ActiveBackup,
                },
                Step::Down("eth0".to_owned()),
                Step::Enslave {
                    card: "eth0".to_owned(),
                    bond: "bond0".to_owned(),
                },
                Step::Up("bond0".to_owned()),
                Step::MakeVlan {
                    name: name.clone(),
                    parent: "bond0".to_owned(),
                    tag: 30,
                },
                Step::Up(name.clone()),
                Step::Address {
                    name,
                    address: "192.0.2.11".parse().unwrap(),
                    prefix: 24,
                },
            ]);
            apply(&plan).unwrap();
            let shown = ip("-d link show bond0.30");
            assert!(shown.contains("vlan protocol 802.1Q id 30"), "{shown}");
            assert!(ip("-d link show bond0").contains("active-backup"));
            assert!(ip("link show eth0").contains("master bond0"));
            assert!(ip("addr show dev bond0.30").contains("192.0.2.11/24"));
        });
    }

    #[test]
    fn what_can_be_done_is_done_and_the_first_fault_told() {
        in_namespace(|| {
            let plan = steps(vec![Step::Up("eth7".to_owned()), Step::Up("lo".to_owned())]);
            let fault = apply(&plan).unwrap_err();
            assert!(
                fault.contains("eth7") && fault.contains("No such device"),
                "{fault}"
            );
            assert!(ip("link show lo").contains("LOWER_UP"));
        });
    }
}
