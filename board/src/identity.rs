//! Which node of the site this box is: by the serial number of its SMBIOS or by the address of a network card.

use std::fs;

use site::{Node, Site};
use thiserror::Error;

/// What the box says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The system serial number of SMBIOS type 1.
    pub(crate) smbios: Option<String>,
    /// Its cards' addresses, lower case with colons.
    pub(crate) macs: Vec<String>,
}

impl Machine {
    /// Reads it from sysfs; `macs` are known already.
    pub(crate) fn read(macs: Vec<String>) -> Self {
        let smbios = fs::read_to_string("/sys/class/dmi/id/product_serial").ok();
        let smbios = smbios.map(|text| text.trim().to_owned());
        Self {
            smbios: smbios.filter(|text| !text.is_empty()),
            macs,
        }
    }

    fn is(&self, node: &Node) -> bool {
        let smbios = node.identity.smbios.as_ref();
        smbios.is_some() && smbios == self.smbios.as_ref()
            || node
                .identity
                .mac
                .as_ref()
                .is_some_and(|mac| self.macs.contains(mac))
    }

    fn describe(&self) -> String {
        format!(
            "SMBIOS serial {}, network cards {}",
            self.smbios.as_deref().unwrap_or("none"),
            match self.macs.is_empty() {
                true => "none".to_owned(),
                false => self.macs.join(" "),
            }
        )
    }
}

/// Why it is not known which node this is.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Unknown {
    #[error("no node of site {site} is this box: {machine}; correct `identity` in the site file")]
    None { site: String, machine: String },
    #[error(
        "nodes {first} and {second} of site {site} are both this box: {machine}; correct `identity` in the site file"
    )]
    Two {
        site: String,
        first: String,
        second: String,
        machine: String,
    },
}

/// The place of this box in the site's nodes. The only node of a site needs no identity.
pub(crate) fn choose(site: &Site, machine: &Machine) -> Result<usize, Unknown> {
    if let [node] = &site.nodes[..]
        && node.identity == site::Identity::default()
    {
        return Ok(0);
    }
    let mut matching = (0..site.nodes.len()).filter(|at| machine.is(&site.nodes[*at]));
    match (matching.next(), matching.next()) {
        (Some(node), None) => Ok(node),
        (None, _) => Err(Unknown::None {
            site: site.name.clone(),
            machine: machine.describe(),
        }),
        (Some(first), Some(second)) => Err(Unknown::Two {
            site: site.name.clone(),
            first: site.nodes[first].name.clone(),
            second: site.nodes[second].name.clone(),
            machine: machine.describe(),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn site(nodes: &[&str]) -> Site {
        let mut text =
            "[site]\nname = \"x\"\nsecret = { file = \"x.key\" }\n[appliance]\n".to_owned();
        for (at, identity) in nodes.iter().enumerate() {
            text.push_str(&format!(
                "[[node]]\naddress = \"192.0.2.{}\"\ndisk = [{{ serial = \"S{at}\" }}]\n{identity}\n",
                11 + at
            ));
        }
        site::parse(&text, "s.toml").unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn machine(smbios: &str, macs: &[&str]) -> Machine {
        Machine {
            smbios: (!smbios.is_empty()).then(|| smbios.to_owned()),
            macs: macs.iter().map(|mac| (*mac).to_owned()).collect(),
        }
    }

    const A: &str = "identity = { smbios = \"SA\", mac = \"00:00:5e:00:53:0a\" }";
    const B: &str = "identity = { smbios = \"SB\", mac = \"00:00:5E:00:53:0B\" }";

    #[test]
    fn one_match_is_enough() {
        let site = site(&[A, B]);
        let macs = ["00:00:5e:00:53:ff", "00:00:5e:00:53:0b"];
        assert_eq!(choose(&site, &machine("SA", &[])), Ok(0));
        assert_eq!(choose(&site, &machine("", &macs)), Ok(1));
        assert_eq!(choose(&site, &machine("SB", &macs)), Ok(1));
    }

    #[test]
    fn none_or_two_stop_and_name_what_was_read() {
        let site = site(&[A, B]);
        let none = choose(&site, &machine("", &[])).unwrap_err().to_string();
        assert!(
            none.contains("SMBIOS serial none, network cards none"),
            "{none}"
        );
        let none = choose(&site, &machine("SC", &["00:00:5e:00:53:0c"])).unwrap_err();
        assert!(
            none.to_string()
                .contains("SMBIOS serial SC, network cards 00:00:5e:00:53:0c")
        );
        // A card that moved to the other box.
        let two = choose(&site, &machine("SA", &["00:00:5e:00:53:0b"])).unwrap_err();
        assert!(matches!(two, Unknown::Two { .. }), "{two}");
    }

    #[test]
    fn the_only_node_needs_no_identity_but_obeys_the_one_it_has() {
        assert_eq!(choose(&site(&[""]), &machine("", &[])), Ok(0));
        assert!(choose(&site(&[A]), &machine("SB", &[])).is_err());
    }
}
