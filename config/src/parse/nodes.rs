//! `[[node]]`, its disks, and the witness.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::check_plain_name;
use crate::diagnostic::{Faults, Span};
use crate::reader::{Item, Located, Reader};
use crate::schema::*;
use crate::units::{MIB, format_size};

/// The smallest use of a disk: a ring, the checkpoints, and room for a first topic of many small extents.
const USE_BYTES_MIN: u64 = 256 * MIB;
/// The largest: slot numbers and the extent table are counted for 64 TB a disk.
const USE_BYTES_MAX: u64 = 64_000_000_000_000;
/// A directory shares its file system with others: half of what they leave is theirs.
const PATH_FREE_PERCENT: u8 = 50;

/// A node and where the parts of it stand that others are compared with.
pub(super) struct ReadNode {
    pub(super) node: Node,
    pub(super) span: Span,
}

pub(super) fn read<'a, 't>(
    tables: Vec<Reader<'a, 't>>,
    appliance: bool,
    faults: &Faults<'t>,
) -> Vec<ReadNode> {
    let count = tables.len();
    if let Some(extra) = tables.get(NODES_MAX) {
        faults.add(&extra.span, format!("a site has at most {NODES_MAX} nodes, this is one of {count}; make another site of the rest"));
    }
    let mut unique = Unique::default();
    let mut nodes = Vec::new();
    for (at, table) in tables.into_iter().enumerate() {
        let span = table.span.clone();
        let node = read_node(table, at, count, appliance, &mut unique, faults);
        nodes.push(ReadNode { node, span });
    }
    nodes
}

/// What may be there only once in a site: each with the place that has it.
#[derive(Default)]
struct Unique(BTreeMap<(&'static str, String), Span>);

impl Unique {
    fn check(&mut self, what: &'static str, value: String, span: &Span, faults: &Faults<'_>) {
        let found = faults.found(span);
        self.check_as(&found, what, value, span, faults);
    }

    /// The same for a value that messages show as `shown`.
    fn check_as(
        &mut self,
        shown: &str,
        what: &'static str,
        value: String,
        span: &Span,
        faults: &Faults<'_>,
    ) {
        let first = self.0.entry((what, value)).or_insert_with(|| span.clone());
        if first != span {
            let line = faults.line(first);
            faults.add(
                span,
                format!("{shown} is the {what} of line {line} already; each needs its own"),
            );
        }
    }
}

fn read_node(
    mut table: Reader<'_, '_>,
    at: usize,
    count: usize,
    appliance: bool,
    unique: &mut Unique,
    faults: &Faults<'_>,
) -> Node {
    let id = u32::try_from(at + 1).unwrap_or(u32::MAX);
    let name = table
        .item("name")
        .and_then(|item| item.string("a name such as \"a\" would be right"));
    let span = table.span.clone();
    let name = match name {
        Some(name) => {
            check_plain_name(&name, "a node's name", faults);
            unique.check("name", name.value.clone(), &name.span, faults);
            name.value
        }
        None => {
            // The first letters of the alphabet, as in the examples.
            let letter = ((b'a' + (at % 26) as u8) as char).to_string();
            unique.check_as(
                &format!("\"{letter}\", this node's name if it has none,"),
                "name",
                letter.clone(),
                &span,
                faults,
            );
            letter
        }
    };
    let address = match table.item("address") {
        Some(item) => item.address(),
        None => {
            if count > 1 {
                faults.add(&span, format!("`{}` is missing; in a site of {count} nodes each says where the others reach it", table.name("address")));
            }
            None
        }
    };
    if let Some(address) = &address
        && address.is_unspecified()
    {
        faults.add(
            &address.span,
            format!(
                "{} is no address that anyone can reach; write this node's own",
                faults.found(&address.span)
            ),
        );
    }
    let ports = table
        .item("ports")
        .and_then(|item| item.table("write ports = { kafka = 9092 }"))
        .map(read_ports)
        .unwrap_or_default();
    let identity = match table
        .item("identity")
        .and_then(|item| item.table("write identity = { smbios = \"CZC1234XYZ\" }"))
    {
        Some(identity) => read_identity(identity, unique, faults),
        None => {
            if appliance && count > 1 {
                faults.add(
                    &span,
                    format!(
                        "`{}` is missing; an appliance finds out by it which node it is",
                        table.name("identity")
                    ),
                );
            }
            Identity::default()
        }
    };
    let address = address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.value);
    let disk_tables = table.item("disk").map(|item| {
        (
            item.span(),
            item.tables("write [[node.disk]] or disk = [{ path = \"d1\" }]"),
        )
    });
    let disks = match disk_tables {
        Some((span, tables)) => {
            if tables.is_empty() {
                faults.add(&span, "`node.disk` is empty; a node needs a disk, or leave the key out for one directory");
            }
            if let Some(extra) = tables.get(DISKS_MAX) {
                faults.add(
                    &extra.span,
                    format!(
                        "a node has at most {DISKS_MAX} disks, this is one of {}",
                        tables.len()
                    ),
                );
            }
            // Nodes on one machine share its directories, so a path is compared with those of the same address.
            tables
                .into_iter()
                .map(|disk| read_disk(disk, address, appliance, unique, faults))
                .collect()
        }
        None => {
            if appliance {
                faults.add(
                    &span,
                    format!(
                        "`{}` is missing; an appliance names its disks by serial or wwn",
                        table.name("disk")
                    ),
                );
            }
            vec![Disk {
                place: Place::Path(name.clone()),
                usage: Usage {
                    bytes: None,
                    of_free_percent: PATH_FREE_PERCENT,
                },
                journal: Journal {
                    place: None,
                    bytes: JOURNAL_BYTES_DEFAULT,
                },
            }]
        }
    };
    table.end();
    Node {
        id,
        name,
        address,
        ports,
        identity,
        disks,
    }
}

fn read_ports(mut table: Reader<'_, '_>) -> Ports {
    let mut ports = Ports::default();
    for (key, port) in [
        ("kafka", &mut ports.kafka),
        ("http", &mut ports.http),
        ("peer", &mut ports.peer),
        ("mqtt", &mut ports.mqtt),
    ] {
        if let Some(found) = table.item(key).and_then(|item| item.port()) {
            *port = found.value;
        }
    }
    table.end();
    ports
}

fn read_identity(mut table: Reader<'_, '_>, unique: &mut Unique, faults: &Faults<'_>) -> Identity {
    let smbios = table
        .item("smbios")
        .and_then(|item| item.string("a serial number in quotes would be right"));
    if let Some(smbios) = &smbios {
        unique.check("smbios serial", smbios.value.clone(), &smbios.span, faults);
    }
    let mac = table
        .item("mac")
        .and_then(|item| item.string("write it like \"00:00:5e:00:53:01\""));
    let mac = mac.map(|mac| mac.map(|text| text.to_ascii_lowercase()));
    if let Some(mac) = &mac {
        let parts: Vec<&str> = mac.split(':').collect();
        let legal = parts.len() == 6
            && parts
                .iter()
                .all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()));
        if legal {
            unique.check("mac", mac.value.clone(), &mac.span, faults);
        } else {
            faults.add(&mac.span, format!("`node.identity.mac` is {}, which is not a MAC address; write it like \"00:00:5e:00:53:01\"", faults.found(&mac.span)));
        }
    }
    if smbios.is_none() && mac.is_none() {
        faults.add(
            &table.span,
            "`node.identity` names nothing that can match; give `smbios`, `mac` or both",
        );
    }
    table.end();
    Identity {
        smbios: smbios.map(|v| v.value),
        mac: mac.map(|v| v.value),
    }
}

fn read_disk(
    mut table: Reader<'_, '_>,
    address: IpAddr,
    appliance: bool,
    unique: &mut Unique,
    faults: &Faults<'_>,
) -> Disk {
    let span = table.span.clone();
    let place = read_place(&mut table, address, unique, faults);
    if place.is_none() {
        faults.add(
            &span,
            "a disk needs one of `path` (a directory), `serial` or `wwn` (a drive of an appliance)",
        );
    }
    if let Some(place) = &place
        && appliance
        && matches!(place.value, Place::Path(_))
    {
        faults.add(&place.span, "a directory is no disk of an appliance, what it holds is gone at the next boot; name the drive by `serial` or `wwn`");
    }
    let path = place
        .as_ref()
        .is_none_or(|place| matches!(place.value, Place::Path(_)));
    let bytes = table
        .item("use")
        .and_then(|item| item.size(USE_BYTES_MIN..=USE_BYTES_MAX));
    let percent = table
        .item("use_of_free")
        .and_then(|item| read_percent(&item, faults));
    // Who names a size means it; who does not leaves others on the same file system their half.
    let unsaid = if path && bytes.is_none() {
        PATH_FREE_PERCENT
    } else {
        100
    };
    let journal = read_journal(&mut table, address, unique, faults);
    // A ring of more than half would be a mistake; what is left must also hold the checkpoints.
    if let Some(bytes) = &bytes
        && journal.place.is_none()
        && journal.bytes > bytes.value / 2
    {
        faults.add(
            &bytes.span,
            format!("a disk of which {} are used has no room for a journal of {}; use more, or make `journal` smaller ({} is the least)", format_size(bytes.value), format_size(journal.bytes), format_size(JOURNAL_BYTES_MIN)),
        );
    }
    table.end();
    Disk {
        place: place.map_or(Place::Path(String::new()), |place| place.value),
        usage: Usage {
            bytes: bytes.map(|bytes| bytes.value),
            of_free_percent: percent.unwrap_or(unsaid),
        },
        journal,
    }
}

/// `"50%"`.
fn read_percent(item: &Item<'_, '_>, faults: &Faults<'_>) -> Option<u8> {
    let text = item.string("write it like \"50%\"")?;
    let percent = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .filter(|percent| (1..=100).contains(percent));
    if percent.is_none() {
        faults.add(
            &text.span,
            format!(
                "`node.disk.use_of_free` is {}, which is not a share; write it like \"50%\"",
                faults.found(&text.span)
            ),
        );
    }
    percent
}

/// The one key of a disk or a journal that says where it is.
fn read_place(
    table: &mut Reader<'_, '_>,
    address: IpAddr,
    unique: &mut Unique,
    faults: &Faults<'_>,
) -> Option<Located<Place>> {
    let mut found: Option<Located<Place>> = None;
    for (key, make) in [
        ("path", Place::Path as fn(String) -> Place),
        ("serial", Place::Serial),
        ("wwn", Place::Wwn),
    ] {
        let Some(text) = table
            .item(key)
            .and_then(|item| item.string("a text in quotes would be right"))
        else {
            continue;
        };
        if text.is_empty() || text.contains('\0') {
            faults.add(
                &text.span,
                format!(
                    "`{}` is empty; name a directory or a drive",
                    table.name(key)
                ),
            );
            continue;
        }
        if found.is_some() {
            faults.add(
                &text.span,
                format!(
                    "`{}` is one place too many; a disk has one of `path`, `serial` and `wwn`",
                    table.name(key)
                ),
            );
            continue;
        }
        match key {
            "path" => {
                if text.split('/').any(|part| part == "..") {
                    faults.add(
                        &text.span,
                        format!(
                            "{} leads upwards; write an absolute path, or one below --data",
                            faults.found(&text.span)
                        ),
                    );
                }
                unique.check(
                    "path",
                    format!("{address} {}", clean(&text)),
                    &text.span,
                    faults,
                );
            }
            "serial" => unique.check("serial", text.value.clone(), &text.span, faults),
            _ => unique.check("wwn", text.value.clone(), &text.span, faults),
        }
        found = Some(text.map(make));
    }
    found
}

/// A path without what does not change it, to compare.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    format!(
        "{}{}",
        if path.starts_with('/') { "/" } else { "" },
        parts.join("/")
    )
}

/// `"1GiB"`, or `{ serial = "…", bytes = "…" }` for a device of its own.
fn read_journal(
    table: &mut Reader<'_, '_>,
    address: IpAddr,
    unique: &mut Unique,
    faults: &Faults<'_>,
) -> Journal {
    let mut journal = Journal {
        place: None,
        bytes: JOURNAL_BYTES_DEFAULT,
    };
    let Some(item) = table.item("journal") else {
        return journal;
    };
    let range = JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX;
    if !item.is_table() {
        if let Some(bytes) = item.size(range) {
            journal.bytes = bytes.value;
        }
        return round_journal(journal);
    }
    let Some(mut own) = item.table("write journal = \"1GiB\"") else {
        return journal;
    };
    // Several disks may have their rings on one SSD, each in a partition of its own: only a path must be unique.
    let mut of_drives = Unique::default();
    let is_path = own.key_span("path").is_some();
    let place = read_place(
        &mut own,
        address,
        if is_path { unique } else { &mut of_drives },
        faults,
    );
    if place.is_none() {
        faults.add(&own.span, "a journal on a device of its own needs one of `path`, `serial` or `wwn`; for one on the disk itself write journal = \"1GiB\"");
    }
    journal.place = place.map(|place| place.value);
    if let Some(bytes) = own.item("bytes").and_then(|item| item.size(range)) {
        journal.bytes = bytes.value;
    }
    own.end();
    round_journal(journal)
}

/// A ring is counted in whole MiB, downwards, so that a decimal size is as good as a binary one.
fn round_journal(mut journal: Journal) -> Journal {
    journal.bytes = journal.bytes / MIB * MIB;
    journal
}

pub(super) fn read_witness(
    mut table: Reader<'_, '_>,
    span: Span,
    nodes: &[ReadNode],
    faults: &Faults<'_>,
) -> Option<Witness> {
    if nodes.len() != 2 {
        faults.add(
            &span,
            format!(
                "a witness is the third vote of a site of two nodes, this one has {}; take it out",
                nodes.len()
            ),
        );
    }
    if let Some(node) = nodes.iter().find(|node| node.node.name == "witness") {
        faults.add(
            &node.span,
            "a node can't be called \"witness\" in a site that has one; give it another name",
        );
    }
    let address = table
        .need("address", "say where the nodes reach the witness")
        .and_then(|item| item.address());
    let mut ports = Ports::default();
    if let Some(mut own) = table
        .item("ports")
        .and_then(|item| item.table("write ports = { peer = 9192 }"))
    {
        for (key, port) in [("peer", &mut ports.peer), ("http", &mut ports.http)] {
            if let Some(found) = own.item(key).and_then(|item| item.port()) {
                *port = found.value;
            }
        }
        own.end();
    }
    table.end();
    let address = address?;
    for ReadNode { node, .. } in nodes {
        let doors = [
            node.ports.kafka,
            node.ports.http,
            node.ports.peer,
            node.ports.mqtt,
        ];
        if node.address == address.value
            && (doors.contains(&ports.peer) || doors.contains(&ports.http))
        {
            faults.add(
                &address.span,
                format!("the witness has a port of node \"{}\" at the same address; on a machine of its own it survives that node, else give it others with ports = {{ peer = …, http = … }}", node.name),
            );
        }
    }
    let id = u32::try_from(nodes.len() + 1).unwrap_or(u32::MAX);
    Some(Witness {
        id,
        address: address.value,
        peer_port: ports.peer,
        http_port: ports.http,
    })
}
