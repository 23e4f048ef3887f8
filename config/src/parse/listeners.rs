//! `[listeners]`: which doors open where, and what has to be said for one that others reach.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::nodes::ReadNode;
use crate::diagnostic::{Faults, Span};
use crate::doors::{Bind, DoorKind, Listener, Listeners};
use crate::reader::Reader;

/// Listeners of one door.
const LISTENERS_MAX: usize = 8;

/// The listeners and where each stands, in the order of [`Listeners::all`]. Without a table: loopback open,
/// everything else closed.
pub(super) fn read(
    table: Option<Reader<'_, '_>>,
    nodes: &[ReadNode],
    faults: &Faults<'_>,
) -> (Listeners, Vec<Span>) {
    table
        .map(|table| read_table(table, nodes, faults))
        .unwrap_or_default()
}

fn read_table(
    mut table: Reader<'_, '_>,
    nodes: &[ReadNode],
    faults: &Faults<'_>,
) -> (Listeners, Vec<Span>) {
    let mut listeners = Listeners::default();
    let mut spans = Vec::new();
    for (key, kind) in [("kafka", DoorKind::Kafka), ("http", DoorKind::Http)] {
        let Some(item) = table.item(key) else {
            spans.push(table.span.clone());
            continue;
        };
        let tables = item.tables(&format!("write {key} = [{{ bind = \"loopback\" }}]"));
        if tables.is_empty() && kind == DoorKind::Kafka && item.is_array() {
            faults.add(&item.span(), "`listeners.kafka` is empty; a node needs a door for its clients, or leave the key out for one on loopback");
        }
        if let Some(extra) = tables.get(LISTENERS_MAX) {
            faults.add(
                &extra.span,
                format!("a door has at most {LISTENERS_MAX} listeners"),
            );
        }
        let mut own = Vec::new();
        for table in tables.into_iter().take(LISTENERS_MAX) {
            spans.push(table.span.clone());
            own.push(read_one(table, nodes, faults));
        }
        match kind {
            DoorKind::Kafka => listeners.kafka = own,
            DoorKind::Http => listeners.http = own,
        }
    }
    if let Some(item) = table.item("mqtt") {
        faults.add(&item.span(), "`listeners.mqtt` is not built yet: this release takes nothing from MQTT devices; take it out for now");
    }
    if let Some(item) = table.item("operators") {
        faults.add(&item.span(), "`listeners.operators` is not built yet: this release keeps no reserve for operators; take it out for now");
    }
    table.end();
    (listeners, spans)
}

fn read_one(mut table: Reader<'_, '_>, nodes: &[ReadNode], faults: &Faults<'_>) -> Listener {
    let span = table.span.clone();
    let port = table.item("port").and_then(|item| item.port());
    let open = table
        .item("open")
        .and_then(|item| item.boolean())
        .unwrap_or(false);
    let bind = table.item("bind").and_then(|item| {
        let text = item.string("write \"loopback\", \"node\", \"any\" or an address")?;
        let bind = match text.as_str() {
            "loopback" => Some(Bind::Loopback),
            "node" => Some(Bind::Node),
            "any" => Some(Bind::Any),
            other => other.parse::<IpAddr>().ok().map(|ip| if ip.is_unspecified() { Bind::Any } else { Bind::Address(ip) }),
        };
        if bind.is_none() {
            faults.add(&text.span, format!("`{}` is {}, which is no place to listen; write \"loopback\", \"node\" (this node's address), \"any\" or an address", table.name("bind"), faults.found(&text.span)));
        }
        Some((bind?, text.span))
    });
    let mut unbuilt = false;
    for (key, what) in [
        ("tls", "this release speaks no TLS"),
        ("auth", "this release asks nobody who they are"),
    ] {
        if let Some(item) = table.item(key) {
            unbuilt = true;
            faults.add(&item.span(), format!("`{}` is not built yet: {what}; bind to \"loopback\", or say open = true and mean it", table.name(key)));
        }
    }
    let place = table.name("open");
    table.end();
    let (bind, bind_span) = bind.unwrap_or((Bind::Loopback, span.clone()));
    if let Bind::Address(ip) = bind
        && nodes.len() > 1
        && !ip.is_loopback()
        && nodes.iter().all(|node| node.node.address != ip)
    {
        faults.add(&bind_span, format!("{} is no node's address; in a site of several nodes write bind = \"node\" for each one's own", faults.found(&bind_span)));
    }
    let reached = match bind {
        Bind::Loopback => false,
        Bind::Any => true,
        Bind::Node => nodes.iter().any(|node| !node.node.address.is_loopback()),
        Bind::Address(ip) => !ip.is_loopback(),
    };
    if reached && !open && !unbuilt {
        faults.add(&bind_span, format!("this listener is reached from other machines and asks nobody who they are; bind it to \"loopback\", or say `{place} = true` if everyone there may read, write and delete everything"));
    }
    Listener {
        port: port.map(|port| port.value),
        bind,
        open,
    }
}

/// No two doors on one port of one machine, also not where one of them takes every address. Nodes are on one machine
/// if they have one address.
pub(super) fn check_taken(
    listeners: &Listeners,
    spans: &[Span],
    nodes: &[ReadNode],
    faults: &Faults<'_>,
) {
    let several = nodes.len() > 1;
    let mut taken: BTreeMap<(IpAddr, u16), Vec<(IpAddr, String)>> = BTreeMap::new();
    for ReadNode { node, span } in nodes {
        let mut take = |ip: IpAddr, port: u16, what: &str, span: &Span| {
            let others = taken.entry((node.address, port)).or_default();
            let meets =
                |other: &IpAddr| *other == ip || other.is_unspecified() || ip.is_unspecified();
            if let Some((_, whose)) = others.iter().find(|(other, _)| meets(other)) {
                faults.add(span, format!("node \"{}\" would open its {what} door at {}, which is {whose} already; give it another port", node.name, SocketAddr::new(ip, port)));
            }
            others.push((ip, format!("node \"{}\"'s {what} door", node.name)));
        };
        if several {
            take(node.address, node.ports.peer, "peer", span);
        }
        for (at, door) in listeners.doors(node, several) {
            // A listener that names no port has the node's.
            let own_port = listeners
                .all()
                .nth(at)
                .is_some_and(|(_, listener)| listener.port.is_some());
            let place = if own_port {
                spans.get(at).unwrap_or(span)
            } else {
                span
            };
            take(
                door.address.ip(),
                door.address.port(),
                door.kind.name(),
                place,
            );
        }
    }
}
