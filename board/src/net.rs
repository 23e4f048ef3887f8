//! The static network of an appliance: which card, what is made of it, and in what order.
//!
//! [`plan`] decides from what was read and is tested as text; `apply` performs its steps over `netlink`. No DHCP, no
//! router advertisements: an address that changes by itself is none that clients were told.

mod apply;
mod netlink;

pub(crate) use apply::{apply, cards, has_carrier, lift, write_resolver};

use std::fmt;
use std::net::IpAddr;

use site::{Bond, Network, Node};
use thiserror::Error;

/// The bond's name.
const BOND: &str = "bond0";
/// The longest name that an interface has, IFNAMSIZ less the NUL.
const NAME_BYTES_MAX: usize = 15;
/// Cards of a bond: the design of no box has more ports.
const CARDS_MAX: usize = 8;

/// A physical network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// As the kernel named it.
    pub(crate) name: String,
    /// Its address, lower case with colons.
    pub(crate) mac: String,
    /// Whether there is a link; `None` while it can't be known.
    pub(crate) carrier: Option<bool>,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match self.carrier {
            Some(true) => "link",
            Some(false) => "no link",
            None => "down",
        };
        write!(f, "{} {} ({link})", self.name, self.mac)
    }
}

/// One thing to do; each is done once the one before it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Makes a bond without members.
    MakeBond {
        /// Its name.
        name: String,
        /// How it works.
        mode: Bond,
    },
    /// Puts a card, which must be down, into a bond.
    Enslave {
        /// The card.
        card: String,
        /// The bond.
        bond: String,
    },
    /// Makes an interface for one 802.1Q tag of `parent`.
    MakeVlan {
        /// Its name.
        name: String,
        /// Whose frames it takes.
        parent: String,
        /// The tag.
        tag: u16,
    },
    /// Takes an interface down.
    Down(String),
    /// Brings an interface up.
    Up(String),
    /// Gives an interface its address.
    Address {
        /// The interface.
        name: String,
        /// The address.
        address: IpAddr,
        /// Bits of its network's part.
        prefix: u8,
    },
    /// The default route.
    Gateway {
        /// The interface.
        name: String,
        /// The next hop.
        gateway: IpAddr,
    },
}

/// What to do, and which interface carries the address in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In this order.
    pub(crate) steps: Vec<Step>,
    /// The interface with the address.
    pub(crate) interface: String,
    /// The card or bond below it, whose link counts.
    pub(crate) link: String,
}

/// Why there is no network.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    #[error("no network card was found")]
    NoCard,
    #[error("no network card has the address {wanted} of the site file; there are {found}")]
    NotThere { wanted: String, found: String },
    #[error("{name} is too long for the name of an interface with a VLAN")]
    Name { name: String },
}

/// What makes `node` reachable with these cards, sorted by name.
///
/// Without a bond the card is the one whose address the site file gives as the node's identity; else the first with a
/// link; else the first. A bond takes all cards.
pub(crate) fn plan(cards: &[Card], node: &Node, network: &Network) -> Result<Plan, Fault> {
    let first = cards.first().ok_or(Fault::NoCard)?;
    let mut steps = vec![Step::Up("lo".to_owned())];
    let link = if let Some(mode) = network.bond {
        let bond = BOND.to_owned();
        steps.push(Step::MakeBond {
            name: bond.clone(),
            mode,
        });
        for card in cards.iter().take(CARDS_MAX) {
            // They were brought up to see their links.
            steps.push(Step::Down(card.name.clone()));
            steps.push(Step::Enslave {
                card: card.name.clone(),
                bond: bond.clone(),
            });
        }
        bond
    } else if let Some(mac) = &node.identity.mac {
        let card = cards.iter().find(|card| card.mac == *mac);
        let Some(card) = card.or((cards.len() == 1).then_some(first)) else {
            return Err(Fault::NotThere {
                wanted: mac.clone(),
                found: list(cards),
            });
        };
        card.name.clone()
    } else {
        let linked = cards.iter().find(|card| card.carrier == Some(true));
        linked.unwrap_or(first).name.clone()
    };
    steps.push(Step::Up(link.clone()));
    let interface = match network.vlan {
        Some(tag) => {
            let name = format!("{link}.{tag}");
            if name.len() > NAME_BYTES_MAX {
                return Err(Fault::Name { name });
            }
            steps.push(Step::MakeVlan {
                name: name.clone(),
                parent: link.clone(),
                tag,
            });
            steps.push(Step::Up(name.clone()));
            name
        }
        None => link.clone(),
    };
    steps.push(Step::Address {
        name: interface.clone(),
        address: node.address,
        prefix: network.prefix_of(node.address),
    });
    if let Some(gateway) = network.gateway {
        steps.push(Step::Gateway {
            name: interface.clone(),
            gateway,
        });
    }
    Ok(Plan {
        steps,
        interface,
        link,
    })
}

/// Cards, for people.
pub(crate) fn list(cards: &[Card]) -> String {
    let cards: Vec<String> = cards.iter().map(ToString::to_string).collect();
    match cards.is_empty() {
        true => "none".to_owned(),
        false => cards.join(", "),
    }
}

/// `/etc/resolv.conf` for the C library inside a static binary; short time-outs, since a dead server must not hold a
/// start (resolv.conf(5)).
pub(crate) fn resolver(network: &Network) -> String {
    /// MAXNS of resolv.conf(5).
    const SERVERS_MAX: usize = 3;
    let mut text = String::new();
    for server in network.dns.iter().take(SERVERS_MAX) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text.push_str("options timeout:2 attempts:2\n");
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn card(name: &str, last: u8, carrier: Option<bool>) -> Card {
        Card {
            name: name.to_owned(),
            mac: format!("00:00:5e:00:53:{last:02x}"),
            carrier,
        }
    }

    fn site(identity: &str, network: &str) -> site::Site {
        let text = format!(
            "[site]\nname = \"x\"\nsecret = {{ file = \"x.key\" }}\n[[node]]\naddress = \"192.0.2.11\"\n\
             identity = {{ {identity} }}\ndisk = [{{ serial = \"S1\" }}]\n[appliance]\nnetwork = {{ {network} }}\n"
        );
        site::parse(&text, "s.toml").unwrap()
    }

    fn planned(cards: &[Card], identity: &str, network: &str) -> Result<Plan, Fault> {
        let site = site(identity, network);
        plan(
            cards,
            &site.nodes[0],
            &site.appliance.as_ref().unwrap().network,
        )
    }

    fn shown(plan: &Plan) -> Vec<String> {
        plan.steps.iter().map(|step| format!("{step:?}")).collect()
    }

    #[test]
    fn the_card_is_the_named_one_then_the_linked_one_then_the_first() {
        let cards = [
            card("eth0", 1, Some(false)),
            card("eth1", 2, Some(true)),
            card("eth2", 3, Some(true)),
        ];
        let link = |identity: &str, cards: &[Card]| planned(cards, identity, "").map(|it| it.link);
        let mac = |last| format!("mac = \"00:00:5e:00:53:{last:02}\"");
        assert_eq!(link(&mac(3), &cards).unwrap(), "eth2");
        assert_eq!(link("smbios = \"S\"", &cards).unwrap(), "eth1");
        assert_eq!(link("smbios = \"S\"", &cards[..1]).unwrap(), "eth0");
        // A box known by its serial number whose only card was replaced is still reachable.
        let both = format!("smbios = \"S\", {}", mac(9));
        assert_eq!(link(&both, &cards[..1]).unwrap(), "eth0");
        let fault = link(&mac(9), &cards).unwrap_err();
        assert!(matches!(&fault, Fault::NotThere { .. }), "{fault}");
        assert!(
            fault.to_string().contains("eth1 00:00:5e:00:53:02 (link)"),
            "{fault}"
        );
        assert_eq!(link("smbios = \"S\"", &[]).unwrap_err(), Fault::NoCard);
    }

    #[test]
    fn a_plain_card() {
        let plan = planned(
            &[card("eth0", 1, None)],
            "smbios = \"S\"",
            "gateway = \"192.0.2.1\"",
        );
        let plan = plan.unwrap();
        assert_eq!(
            shown(&plan),
            [
                "Up(\"lo\")",
                "Up(\"eth0\")",
                "Address { name: \"eth0\", address: 192.0.2.11, prefix: 24 }",
                "Gateway { name: \"eth0\", gateway: 192.0.2.1 }",
            ]
        );
        assert_eq!(
            (plan.interface.as_str(), plan.link.as_str()),
            ("eth0", "eth0")
        );
    }

    #[test]
    fn a_vlan_on_a_bond_of_all_cards() {
        let cards = [card("eth0", 1, Some(true)), card("eth1", 2, Some(false))];
        let plan = planned(
            &cards,
            "smbios = \"S\"",
            "prefix = 25, vlan = 30, bond = \"active-backup\"",
        );
        let plan = plan.unwrap();
        assert_eq!(
            shown(&plan),
            [
                "Up(\"lo\")",
                "MakeBond { name: \"bond0\", mode: ActiveBackup }",
                "Down(\"eth0\")",
                "Enslave { card: \"eth0\", bond: \"bond0\" }",
                "Down(\"eth1\")",
                "Enslave { card: \"eth1\", bond: \"bond0\" }",
                "Up(\"bond0\")",
                "MakeVlan { name: \"bond0.30\", parent: \"bond0\", tag: 30 }",
                "Up(\"bond0.30\")",
                "Address { name: \"bond0.30\", address: 192.0.2.11, prefix: 25 }",
            ]
        );
        assert_eq!(
            (plan.interface.as_str(), plan.link.as_str()),
            ("bond0.30", "bond0")
        );
    }

    #[test]
    fn a_name_that_the_kernel_would_cut_is_refused() {
        let cards = [card("enp130s0f1np1", 1, Some(true))];
        let fault = planned(&cards, "smbios = \"S\"", "vlan = 4000").unwrap_err();
        assert!(matches!(fault, Fault::Name { .. }));
    }

    #[test]
    fn the_resolver_asks_three_servers() {
        let servers: Vec<String> = (1..=4).map(|at| format!("\"192.0.2.{at}\"")).collect();
        let site = site("smbios = \"S\"", &format!("dns = [{}]", servers.join(", ")));
        assert_eq!(
            resolver(&site.appliance.unwrap().network),
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions timeout:2 attempts:2\n"
        );
    }
}
