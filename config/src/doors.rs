//! Where clients come in: listeners as the site file writes them, doors as a node opens them, and what it means, in
//! words, that one stands open.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::schema::Node;

/// The doors of every node, as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// Kafka clients; at least one.
    pub kafka: Vec<Listener>,
    /// Status, metrics, health; none is allowed.
    pub http: Vec<Listener>,
}

impl Default for Listeners {
    /// Loopback open, everything else closed.
    fn default() -> Self {
        Self {
            kafka: vec![Listener::default()],
            http: vec![Listener::default()],
        }
    }
}

impl Listeners {
    /// All of them, in the order in which doors are listed.
    pub(crate) fn all(&self) -> impl Iterator<Item = (DoorKind, &Listener)> {
        let kafka = self
            .kafka
            .iter()
            .map(|listener| (DoorKind::Kafka, listener));
        kafka.chain(self.http.iter().map(|listener| (DoorKind::Http, listener)))
    }

    /// The doors of one node, each with its place in [`Self::all`]. In a site of `several` nodes a listener on an
    /// address is the door of the node that has it.
    pub(crate) fn doors(&self, node: &Node, several: bool) -> impl Iterator<Item = (usize, Door)> {
        self.all()
            .enumerate()
            .filter_map(move |(at, (kind, listener))| {
                let ip = match listener.bind {
                    Bind::Loopback => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    Bind::Node => node.address,
                    Bind::Any => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    Bind::Address(ip) if several && !ip.is_loopback() && ip != node.address => {
                        return None;
                    }
                    Bind::Address(ip) => ip,
                };
                let port = listener.port.unwrap_or(match kind {
                    DoorKind::Kafka => node.ports.kafka,
                    DoorKind::Http => node.ports.http,
                });
                let told = if ip.is_unspecified() {
                    node.address
                } else {
                    ip
                };
                Some((
                    at,
                    Door {
                        kind,
                        address: SocketAddr::new(ip, port),
                        advertised: SocketAddr::new(told, port),
                        open: listener.open,
                    },
                ))
            })
    }
}

/// One address on which a door opens. `tls` and `auth` will stand here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `None`: the node's port for this door.
    pub port: Option<u16>,
    /// Which address.
    pub bind: Bind,
    /// Opens off loopback although nobody has to say who they are.
    pub open: bool,
}

/// Which address a listener binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bind {
    /// 127.0.0.1.
    #[default]
    Loopback,
    /// The node's own address.
    Node,
    /// Every address of the machine.
    Any,
    /// This one; in a site of several nodes it is the door of the node that has it.
    Address(IpAddr),
}

/// What comes in through a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorKind {
    /// The Kafka protocol.
    Kafka,
    /// Status, metrics, health.
    Http,
}

/// A listener of one node, ready to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// What comes in.
    pub kind: DoorKind,
    /// Where to bind.
    pub address: SocketAddr,
    /// What clients are told (Metadata): the bound address, or the node's own if every address is bound.
    pub advertised: SocketAddr,
    /// Said `open = true`.
    pub open: bool,
}

impl DoorKind {
    /// As the site file names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Http => "http",
        }
    }
}

impl Door {
    /// Whether other machines reach it.
    #[must_use]
    pub const fn off_loopback(&self) -> bool {
        !self.address.ip().is_loopback()
    }

    /// What it means that this door stands open to other machines; `None` on loopback.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        if !self.off_loopback() {
            return None;
        }
        let place = if self.address.ip().is_unspecified() {
            format!("this machine at port {}", self.address.port())
        } else {
            self.address.to_string()
        };
        Some(match self.kind {
            DoorKind::Kafka => {
                format!("anyone who reaches {place} can read, write and delete every topic")
            }
            DoorKind::Http => format!(
                "anyone who reaches {place} can read this node's state and the names of its topics and groups"
            ),
        })
    }
}
