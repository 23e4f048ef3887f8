//! From the site file's text to a [`Site`]: every key of the schema, every rule, and all faults at once.
//!
//! A fault never stops the reading: what can't be understood is left at its default so that the rest is still checked.
//! The result counts only if there was none.

mod listeners;
mod nodes;
mod topics;

use toml::de::DeTable;

use crate::blob;
use crate::diagnostic::{Diagnostic, Faults, Span};
use crate::names::{NAME_CHARS_MAX, is_plain_name};
use crate::reader::{Item, Located, Reader};
use crate::schema::*;

/// A site file's bytes: five nodes and a thousand topics fit many times.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// A minute and a year, the shortest and the longest time that most settings take.
const MINUTE_MS: u64 = 60_000;

/// Reads a site file. `file` is only its name in the messages.
///
/// On failure every fault that was found, in the order of the text; there is at least one.
pub fn parse(text: &str, file: &str) -> Result<Site, Vec<Diagnostic>> {
    let faults = Faults::new(file, text);
    if text.len() > FILE_BYTES_MAX {
        faults.add(
            &(0..0),
            format!(
                "{} bytes are more than any site needs; {FILE_BYTES_MAX} are read",
                text.len()
            ),
        );
        return Err(faults.into_sorted());
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // The message may have several lines; the place is ours to say.
        let message = error.message().trim_end().replace('\n', "; ");
        faults.add(
            &error.span().unwrap_or_default(),
            format!("not TOML: {message}"),
        );
    }
    if !errors.is_empty() {
        // What the parser made of the rest would only give faults that are not there.
        return Err(faults.into_sorted());
    }
    let whole = Reader::new(&faults, document.get_ref(), "", 0..0);
    let site = read(whole, &faults);
    match site {
        Some(mut site) if faults.is_empty() => {
            site.digest = blob::digest(&site);
            Ok(site)
        }
        _ => Err(faults.into_sorted()),
    }
}

/// Whether the fault is there or not, all of the file is read. `None` only after a fault.
fn read<'t>(mut file: Reader<'_, 't>, faults: &Faults<'t>) -> Option<Site> {
    let head = file.need(
        "site",
        "the smallest site file is `[site]` with a `name`, and one `[[node]]`",
    );
    let head = head
        .and_then(|item| item.table("write [site]"))
        .map(|table| read_head(table, faults));
    let limits = file
        .item("limits")
        .and_then(|item| item.table("write [limits]"))
        .map(read_limits)
        .unwrap_or_default();
    let appliance = file
        .item("appliance")
        .and_then(|item| item.table("write [appliance]"))
        .map(|table| read_appliance(table, faults));

    let nodes_item = file.need("node", "write [[node]] once for each box");
    let node_tables = nodes_item
        .map(|item| item.tables("write [[node]]"))
        .unwrap_or_default();
    let before = faults.count();
    let nodes = nodes::read(node_tables, appliance.is_some(), faults);
    if let Some(appliance) = appliance.as_ref().filter(|_| faults.count() == before) {
        check_network(&appliance.network, &nodes, faults);
    }
    let listeners_table = file
        .item("listeners")
        .and_then(|item| item.table("write [listeners]"));
    let (listeners, spans) = listeners::read(listeners_table, &nodes, faults);
    // What was not understood stands at its default, where it would only meet others by accident.
    if faults.count() == before {
        listeners::check_taken(&listeners, &spans, &nodes, faults);
    }
    let witness = file.item("witness").and_then(|item| {
        let span = item.span();
        nodes::read_witness(item.table("write [witness]")?, span, &nodes, faults)
    });
    if let Some(head) = &head {
        let voters = nodes.len() + usize::from(witness.is_some());
        if head.secret.is_empty() && (nodes.len() > 1 || appliance.is_some()) {
            let who = if nodes.len() > 1 {
                format!("a site of {voters} voters")
            } else {
                "an appliance".to_owned()
            };
            faults.add(
                &head.span,
                format!("`site.secret` is missing; {who} needs a key for its peers' messages, such as secret = {{ file = \"{}.key\" }} with 32 random bytes in the file", head.name),
            );
        }
    }

    let defaults_item = file
        .item("defaults")
        .and_then(|item| item.table("write [defaults]"));
    let defaults = topics::read_defaults(defaults_item, nodes.len(), faults);
    let topic_tables = file
        .item("topic")
        .map(|item| item.tables("write [[topic]]"))
        .unwrap_or_default();
    let topics = topics::read(topic_tables, &defaults, nodes.len(), faults);
    refuse_unbuilt(&mut file, faults);
    file.end();

    let head = head?;
    let site = Site {
        name: head.name,
        preset: head.preset,
        clock: head.clock,
        secret: head.secret,
        limits,
        defaults,
        nodes: nodes.into_iter().map(|node| node.node).collect(),
        witness,
        topics: topics.iter().map(|topic| topic.topic.clone()).collect(),
        listeners,
        appliance,
        digest: [0; 32],
    };
    if faults.is_empty() {
        topics::check_fit(&site, &topics, faults);
    }
    Some(site)
}

/// The fields of `[site]`.
struct Head {
    name: String,
    preset: Preset,
    clock: ClockSource,
    secret: Vec<SecretFile>,
    span: Span,
}

fn read_head(mut table: Reader<'_, '_>, faults: &Faults<'_>) -> Head {
    let name = table
        .need("name", "a name for people, such as \"plant-7\"")
        .and_then(|item| {
            let name = item.string("a name such as \"plant-7\" would be right")?;
            check_plain_name(&name, "a site's name", faults);
            Some(name.value)
        });
    let preset = table
        .item("preset")
        .and_then(|item| item.choice(&[("lan", Preset::Lan), ("slow", Preset::Slow)]));
    let clock = table.item("clock").and_then(|item| {
        item.choice(&[
            ("trusted", ClockSource::Trusted),
            ("kernel", ClockSource::Kernel),
        ])
    });
    let secret = table
        .item("secret")
        .map(|item| read_secret(&item, faults))
        .unwrap_or_default();
    let span = table.span.clone();
    table.end();
    Head {
        name: name.unwrap_or_else(|| "site".to_owned()),
        preset: preset.map(|preset| preset.value).unwrap_or_default(),
        clock: clock.map(|clock| clock.value).unwrap_or_default(),
        secret,
        span,
    }
}

/// `{ file = "…" }`, or two of them with ids while one key replaces the other.
fn read_secret(item: &Item<'_, '_>, faults: &Faults<'_>) -> Vec<SecretFile> {
    const RIGHT: &str = "name a file, such as secret = { file = \"plant-7.key\" }; a secret never stands here in clear";
    if !item.is_array() && !item.is_table() {
        // The value is not shown: it may be the secret itself.
        faults.add(&item.span(), format!("`site.secret` is no table; {RIGHT}"));
        return Vec::new();
    }
    let tables = if item.is_array() {
        item.tables(RIGHT)
    } else {
        item.table(RIGHT).into_iter().collect()
    };
    if tables.len() > 2 {
        faults.add(
            &item.span(),
            "`site.secret` has more than two keys; two are enough while one replaces the other",
        );
    }
    let mut secrets: Vec<SecretFile> = Vec::new();
    for (at, mut table) in tables.into_iter().enumerate() {
        let file = table
            .need("file", RIGHT)
            .and_then(|item| item.string(RIGHT));
        let id = table.item("id").and_then(|item| item.integer(0..=255));
        if let Some(id) = &id
            && secrets.iter().any(|other| u32::from(other.id) == id.value)
        {
            faults.add(
                &id.span,
                format!(
                    "`site.secret.id` {} is there twice; give each key its own",
                    id.value
                ),
            );
        }
        table.end();
        if let Some(file) = file {
            let id = id.map_or(at, |id| id.value as usize);
            secrets.push(SecretFile {
                id: u8::try_from(id).unwrap_or(u8::MAX),
                file: file.value,
            });
        }
    }
    secrets
}

fn read_limits(mut table: Reader<'_, '_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(connections) = table
        .item("connections")
        .and_then(|item| item.integer(16..=65_536))
    {
        limits.connections = connections.value;
    }
    if let Some(replicas) = table
        .item("replicas")
        .and_then(|item| item.integer(16..=REPLICAS_MAX))
    {
        limits.replicas = replicas.value;
    }
    table.end();
    limits
}

fn read_appliance(mut table: Reader<'_, '_>, faults: &Faults<'_>) -> Appliance {
    /// Most boards' watchdogs count seconds in a byte or a little more.
    const WATCHDOG_MS_MAX: u64 = 10 * MINUTE_MS;
    let network = table
        .item("network")
        .and_then(|item| item.table("write network = { gateway = \"192.0.2.1\" }"));
    let network = network
        .map(|table| read_network(table, faults))
        .unwrap_or_default();
    let watchdog = table
        .item("watchdog")
        .and_then(|item| item.duration_ms(5_000..=WATCHDOG_MS_MAX));
    let provision = table.item("provision").and_then(|item| {
        item.choice(&[
            ("never", Provision::Never),
            ("if-blank", Provision::IfBlank),
        ])
    });
    table.end();
    let watchdog_ms = watchdog.map_or(30_000, |ms| ms.value);
    Appliance {
        network,
        watchdog_ms: u32::try_from(watchdog_ms).expect("the range above fits"),
        provision: provision.map(|it| it.value).unwrap_or_default(),
    }
}

fn read_network(mut table: Reader<'_, '_>, faults: &Faults<'_>) -> Network {
    let prefix = table.item("prefix").and_then(|item| item.integer(1..=127));
    let vlan = table.item("vlan").and_then(|item| item.integer(1..=4094));
    let bond = table.item("bond").and_then(|item| {
        item.choice(&[("active-backup", Bond::ActiveBackup), ("lacp", Bond::Lacp)])
    });
    let gateway = table.item("gateway").and_then(|item| item.address());
    let mut servers = |key: &'static str| {
        /// resolv.conf and most clients read three; more are never asked.
        const SERVERS_MAX: usize = 8;
        let Some(item) = table.item(key) else {
            return Vec::new();
        };
        let elements = item.array("write a list of addresses").unwrap_or_default();
        if elements.len() > SERVERS_MAX {
            faults.add(
                &item.span(),
                format!(
                    "`{key}` names {} servers; {SERVERS_MAX} are enough",
                    elements.len()
                ),
            );
        }
        elements
            .iter()
            .filter_map(|element| Some(element.address()?.value))
            .collect()
    };
    let dns = servers("dns");
    let ntp = servers("ntp");
    table.end();
    Network {
        prefix: prefix.map(|it| u8::try_from(it.value).expect("the range above fits")),
        bond: bond.map(|it| it.value),
        vlan: vlan.map(|vlan| u16::try_from(vlan.value).expect("the range above fits")),
        gateway: gateway.map(|gateway| gateway.value),
        dns,
        ntp,
    }
}

/// A node that can't use the network's prefix or reach its gateway directly would be alone on the wire.
fn check_network(network: &Network, nodes: &[nodes::ReadNode], faults: &Faults<'_>) {
    for nodes::ReadNode { node, span } in nodes {
        if node.address.is_ipv4() && network.prefix.is_some_and(|prefix| prefix > 31) {
            faults.add(
                span,
                format!(
                    "`appliance.network.prefix` leaves {} no neighbour; an IPv4 network has at most 31 bits",
                    node.address
                ),
            );
            continue;
        }
        if let Some(gateway) = network.gateway
            && !network.same(node.address, gateway)
        {
            faults.add(
                span,
                format!(
                    "the gateway {gateway} is not in the network of {}/{}; give another gateway, or `prefix` in `appliance.network`",
                    node.address,
                    network.prefix_of(node.address)
                ),
            );
        }
    }
}

/// What has its place in the schema but does nothing yet is refused, so that nobody relies on it.
fn refuse_unbuilt(file: &mut Reader<'_, '_>, faults: &Faults<'_>) {
    let refuse = |reader: &mut Reader<'_, '_>, key: &'static str, title: &str, what: &str| {
        let Some(item) = reader.item(key) else {
            return;
        };
        let elements = if item.is_array() {
            item.array("").unwrap_or_default()
        } else {
            Vec::new()
        };
        let places = if elements.is_empty() {
            vec![item.span()]
        } else {
            elements.iter().map(Item::span).collect()
        };
        for place in places {
            faults.add(
                &place,
                format!("{title} is not built yet: {what}; take it out for now"),
            );
        }
    };
    refuse(
        file,
        "uplink",
        "`[[uplink]]`",
        "this release forwards nothing to another Kafka",
    );
    refuse(
        file,
        "user",
        "`[[user]]`",
        "this release knows no users, every client may do everything",
    );
    refuse(
        file,
        "acl",
        "`[[acl]]`",
        "this release checks no rights, every client may do everything",
    );
    refuse(file, "tls", "`[tls]`", "this release speaks no TLS");
    if let Some(item) = file.item("mqtt") {
        match item.is_table().then(|| item.table("")).flatten() {
            Some(mut mqtt) => {
                refuse(&mut mqtt, "rule", "`[[mqtt.rule]]`", "this release takes nothing from MQTT devices");
                mqtt.end();
            }
            None => faults.add(&item.span(), "`mqtt` is not built yet: this release takes nothing from MQTT devices; take it out for now"),
        }
    }
}

fn check_plain_name(name: &Located<String>, what: &str, faults: &Faults<'_>) {
    if !is_plain_name(name) {
        faults.add(
            &name.span,
            format!("{} can't be {what}; 1 to {NAME_CHARS_MAX} letters, digits, '-', '_' and '.', beginning with a letter or digit, would be right", faults.found(&name.span)),
        );
    }
}
