//! The few rtnetlink messages that a static network needs (rtnetlink(7), linux/rtnetlink.h, linux/if_link.h).
//!
//! ```text
//!  header:    0 length u32 · 4 type u16 · 6 flags u16 · 8 sequence u32 · 12 port u32 (0)
//!  link:     16 family u8 (0) · 17 zero · 18 type u16 (0) · 20 index i32 · 24 flags u32 · 28 change u32
//!  address:  16 family u8 · 17 prefix u8 · 18 flags u8 · 19 scope u8 · 20 index u32
//!  route:    16 family u8 · 17 dst bits · 18 src bits · 19 tos · 20 table · 21 protocol · 22 scope · 23 type · 24 flags u32
//!  then attributes: length u16 with these four bytes · type u16 · bytes · zeros up to a multiple of 4
//!  answer:   header with type 2 · 16 error i32: 0, or a negative errno
//! ```
//! All numbers are in the machine's own order.

use std::net::IpAddr;

use site::Bond;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// NLM_F_REQUEST | NLM_F_ACK.
const REQUEST: u16 = 0x1 | 0x4;
/// NLM_F_CREATE | NLM_F_EXCL: an interface of that name is not ours.
const CREATE: u16 = 0x400 | 0x200;
/// NLM_F_CREATE | NLM_F_REPLACE: to do it again is no fault.
const REPLACE: u16 = 0x400 | 0x100;
const ERROR: u16 = 2;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_MIIMON: u16 = 3;
/// Links are looked at this often, in ms.
const MIIMON: u32 = 100;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// An IPv6 address without the second of duplicate detection: a listener could not bind to it in that time.
const IFA_F_NODAD: u32 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

/// A message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        Self(bytes)
    }

    fn link(flags: u16, sequence: u32, index: u32, up: Option<bool>) -> Self {
        let mut message = Self::new(NEW_LINK, flags, sequence);
        message.0.extend([0; 4]);
        message.0.extend(index.to_ne_bytes());
        let (state, change) = match up {
            Some(true) => (IFF_UP, IFF_UP),
            Some(false) => (0, IFF_UP),
            None => (0, 0),
        };
        message.0.extend(state.to_ne_bytes());
        message.0.extend(change.to_ne_bytes());
        message
    }

    fn attribute(mut self, kind: u16, bytes: &[u8]) -> Self {
        put(&mut self.0, kind, bytes);
        self
    }

    fn done(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a few hundred bytes");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn put(out: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    let length = u16::try_from(4 + bytes.len()).expect("a few dozen bytes");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// `IFLA_LINKINFO` of an interface that is made: its kind, and what the kind needs.
fn link_info(kind: &str, data: &[(u16, &[u8])]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (kind, bytes) in data {
        put(&mut inner, *kind, bytes);
    }
    let mut info = Vec::new();
    put(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    put(&mut info, IFLA_INFO_DATA, &inner);
    info
}

fn nul(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn address_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

/// Brings an interface up, or takes it down.
pub(super) fn set_up(sequence: u32, index: u32, up: bool) -> Vec<u8> {
    Message::link(0, sequence, index, Some(up)).done()
}

/// Makes a bond.
pub(super) fn make_bond(sequence: u32, name: &str, mode: Bond) -> Vec<u8> {
    // BOND_MODE_ACTIVEBACKUP and BOND_MODE_8023AD of linux/if_bonding.h.
    let mode = match mode {
        Bond::ActiveBackup => 1,
        Bond::Lacp => 4,
    };
    let data: [(u16, &[u8]); 2] = [
        (IFLA_BOND_MODE, &[mode]),
        (IFLA_BOND_MIIMON, &MIIMON.to_ne_bytes()),
    ];
    Message::link(CREATE, sequence, 0, None)
        .attribute(IFLA_IFNAME, &nul(name))
        .attribute(IFLA_LINKINFO, &link_info("bond", &data))
        .done()
}

/// Puts an interface into a bond.
pub(super) fn enslave(sequence: u32, index: u32, master: u32) -> Vec<u8> {
    Message::link(0, sequence, index, None)
        .attribute(IFLA_MASTER, &master.to_ne_bytes())
        .done()
}

/// Makes an interface for one 802.1Q tag.
pub(super) fn make_vlan(sequence: u32, name: &str, parent: u32, tag: u16) -> Vec<u8> {
    let data: [(u16, &[u8]); 1] = [(IFLA_VLAN_ID, &tag.to_ne_bytes())];
    Message::link(CREATE, sequence, 0, None)
        .attribute(IFLA_IFNAME, &nul(name))
        .attribute(IFLA_LINK, &parent.to_ne_bytes())
        .attribute(IFLA_LINKINFO, &link_info("vlan", &data))
        .done()
}

/// Gives an interface an address.
pub(super) fn add_address(sequence: u32, index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = address_bytes(address);
    let mut message = Message::new(NEW_ADDRESS, REPLACE, sequence);
    message.0.extend([family, prefix, 0, 0]);
    message.0.extend(index.to_ne_bytes());
    let message = message
        .attribute(IFA_LOCAL, &bytes)
        .attribute(IFA_ADDRESS, &bytes);
    match family {
        AF_INET6 => message
            .attribute(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes())
            .done(),
        _ => message.done(),
    }
}

/// Sets the default route.
pub(super) fn set_gateway(sequence: u32, index: u32, gateway: IpAddr) -> Vec<u8> {
    let (family, bytes) = address_bytes(gateway);
    let mut message = Message::new(NEW_ROUTE, REPLACE, sequence);
    let fields = [
        family,
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        0,
        RTN_UNICAST,
    ];
    message.0.extend(fields);
    message.0.extend([0; 4]);
    message
        .attribute(RTA_GATEWAY, &bytes)
        .attribute(RTA_OIF, &index.to_ne_bytes())
        .done()
}

/// The kernel's answer to the message of this sequence number: 0, or an errno; `None` for any other message.
pub(super) fn answer(bytes: &[u8], sequence: u32) -> Option<i32> {
    let word = |at: usize| {
        bytes
            .get(at..)?
            .first_chunk()
            .map(|four| u32::from_ne_bytes(*four))
    };
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    (kind == ERROR && word(8)? == sequence)
        .then(|| word(16).map(|error| (error as i32).wrapping_neg()))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        let words: Vec<String> = bytes
            .chunks(4)
            .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        words.join(" ")
    }

    /// Byte for byte what `ip -4 addr add`, `ip link add` and `ip route replace` of iproute2 mean by the same words.
    #[test]
    fn golden_bytes() {
        assert_eq!(
            hex(&set_up(7, 2, true)),
            "20000000 10000500 07000000 00000000 00000000 02000000 01000000 01000000"
        );
        assert_eq!(
            hex(&set_up(7, 2, false)),
            "20000000 10000500 07000000 00000000 00000000 02000000 00000000 01000000"
        );
        assert_eq!(
            hex(&add_address(8, 2, "192.0.2.11".parse().unwrap(), 24)),
            "28000000 14000505 08000000 00000000 02180000 02000000 08000200 c000020b 08000100 c000020b"
        );
        assert_eq!(
            hex(&add_address(8, 2, "2001:db8::b".parse().unwrap(), 64)),
            "48000000 14000505 08000000 00000000 0a400000 02000000 14000200 20010db8 00000000 00000000 0000000b \
             14000100 20010db8 00000000 00000000 0000000b 08000800 02000000"
        );
        assert_eq!(
            hex(&set_gateway(9, 2, "192.0.2.1".parse().unwrap())),
            "2c000000 18000505 09000000 00000000 02000000 fe040001 00000000 08000500 c0000201 08000400 02000000"
        );
        assert_eq!(
            hex(&make_vlan(1, "eth0.30", 2, 30)),
            "4c000000 10000506 01000000 00000000 00000000 00000000 00000000 00000000 0c000300 65746830 2e333000 \
             08000500 02000000 18001200 08000100 766c616e 0c000200 06000100 1e000000"
        );
        assert_eq!(
            hex(&make_bond(1, "bond0", Bond::Lacp)),
            "4c000000 10000506 01000000 00000000 00000000 00000000 00000000 00000000 0a000300 626f6e64 30000000 \
             20001200 08000100 626f6e64 14000200 05000100 04000000 08000300 64000000"
        );
        assert_eq!(
            hex(&enslave(3, 2, 5)),
            "28000000 10000500 03000000 00000000 00000000 02000000 00000000 00000000 08000a00 05000000"
        );
    }

    #[test]
    fn answers_are_read_and_others_passed_over() {
        let mut bytes = Vec::new();
        for word in [36u32, 2, 9, 0, (-17i32) as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        assert_eq!(answer(&bytes, 9), Some(17));
        assert_eq!(answer(&bytes, 8), None, "of another message");
        bytes[16..20].fill(0);
        assert_eq!(answer(&bytes, 9), Some(0));
        for cut in 0..20 {
            assert_eq!(answer(&bytes[..cut], 9), None, "cut at {cut}");
        }
        bytes[4] = 3;
        assert_eq!(answer(&bytes, 9), None, "no error message");
    }
}
