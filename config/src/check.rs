//! `howdah check`: what is wrong with a site file, or the plan; for people and, as JSON, for programs.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;
use thiserror::Error;

use crate::diagnostic::Diagnostic;
use crate::doors::{Door, DoorKind};
use crate::parse::{FILE_BYTES_MAX, parse};
use crate::plan::{Plan, plan};
use crate::quota::TopicQuota;
use crate::schema::{Keep, OnFull, Site, Topic};
use crate::units::{format_duration_ms, format_size};

/// A site file that can't be used.
#[derive(Debug, Error)]
pub enum LoadFault {
    /// It can't be read at all.
    #[error("cannot read {file}: {error}")]
    Read {
        /// As given.
        file: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is not legal: everything that is wrong, one a line.
    #[error("{}", lines(.0))]
    Wrong(Vec<Diagnostic>),
}

fn lines(faults: &[Diagnostic]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Reads and checks a site file.
pub fn load(path: &Path) -> Result<Site, LoadFault> {
    let file = path.display().to_string();
    let read = |error| LoadFault::Read {
        file: file.clone(),
        error,
    };
    // One byte more than is parsed, so that a longer file is refused and not cut.
    let mut bytes = Vec::new();
    let mut open = io::Read::take(
        fs::File::open(path).map_err(read)?,
        FILE_BYTES_MAX as u64 + 1,
    );
    io::Read::read_to_end(&mut open, &mut bytes).map_err(read)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        read(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("byte {at} is not UTF-8"),
        ))
    })?;
    parse(&text, &file).map_err(LoadFault::Wrong)
}

/// What `check` prints, and whether the site is legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The plan, or what is wrong; ends with a newline. For people it belongs on stdout if legal, else on stderr.
    pub text: String,
    /// The site may be run: exit code 0, else 2.
    pub legal: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Json<'a> {
    Faults(Vec<JsonFault<'a>>),
    #[serde(untagged)]
    Plan {
        site: &'a str,
        digest: String,
        voters: usize,
        warnings: Vec<String>,
        notes: Vec<String>,
        nodes: Vec<Plan>,
    },
}

#[derive(Serialize)]
struct JsonFault<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
}

/// Checks one file, and notes what stands beside it that it needs.
#[must_use]
pub fn check_file(path: &Path, json: bool) -> Report {
    match load(path) {
        Ok(site) => {
            let mut notes = notes(&site);
            notes.extend(missing_secrets(&site, path));
            let text = if json {
                plan_json(&site, notes)
            } else {
                plan_text(&site, &notes)
            };
            Report { text, legal: true }
        }
        Err(fault) if json => {
            let message = fault.to_string();
            let faults = match &fault {
                LoadFault::Read { file, .. } => vec![JsonFault {
                    file,
                    line: 0,
                    column: 0,
                    message: &message,
                }],
                LoadFault::Wrong(faults) => faults
                    .iter()
                    .map(|f| JsonFault {
                        file: &f.file,
                        line: f.line,
                        column: f.column,
                        message: &f.message,
                    })
                    .collect(),
            };
            Report {
                text: to_json(&Json::Faults(faults)),
                legal: false,
            }
        }
        Err(fault) => Report {
            text: format!("{fault}\n"),
            legal: false,
        },
    }
}

fn to_json(value: &Json<'_>) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain data, text keys");
    text.push('\n');
    text
}

/// The plan as JSON.
#[must_use]
pub fn plan_json(site: &Site, notes: Vec<String>) -> String {
    to_json(&Json::Plan {
        site: &site.name,
        digest: site.digest_hex(),
        voters: site.voters(),
        warnings: warnings(site),
        notes,
        nodes: plans(site),
    })
}

fn plans(site: &Site) -> Vec<Plan> {
    (0..site.nodes.len())
        .filter_map(|node| plan(site, node))
        .collect()
}

/// What it means that doors stand open, in words; one sentence for each.
#[must_use]
pub fn warnings(site: &Site) -> Vec<String> {
    let mut all = Vec::new();
    for (at, node) in site.nodes.iter().enumerate() {
        for warning in site.doors(at).iter().filter_map(Door::warning) {
            all.push(format!("node \"{}\": {warning}", node.name));
        }
    }
    if site.nodes.len() > 1 && site.nodes.iter().any(|node| !node.address.is_loopback()) {
        all.push("replicated data travels between nodes in clear: keep the peers on a network of their own".to_owned());
    }
    all
}

/// What is legal, but may not be what was meant.
#[must_use]
pub fn notes(site: &Site) -> Vec<String> {
    let mut notes = Vec::new();
    if site.nodes.len() == 2 && site.witness.is_none() {
        let (first, second) = (&site.nodes[0].name, &site.nodes[1].name);
        notes.push(format!("two nodes and no witness: only node \"{first}\" votes; if it is lost, node \"{second}\" serves after `howdah promote --node {second}`, by someone who has looked"));
    }
    for (at, node) in site.nodes.iter().enumerate() {
        let kafka = |door: &Door| door.kind == DoorKind::Kafka;
        if !node.address.is_loopback()
            && !site
                .doors(at)
                .iter()
                .filter(|door| kafka(door))
                .any(Door::off_loopback)
        {
            notes.push(format!(
                "node \"{}\": no Kafka listener off loopback, other machines can't reach it",
                node.name
            ));
        }
    }
    let alone = |topic: &&Topic| topic.min_insync == 1 && topic.replication > 1;
    for topic in site.topics.iter().filter(alone) {
        notes.push(format!("topic \"{}\": min_insync is 1, so a record may be acknowledged while only one disk has it", topic.name));
    }
    notes
}

/// Secret files that are not where the site file says.
fn missing_secrets(site: &Site, site_file: &Path) -> Vec<String> {
    let beside = site_file.parent().unwrap_or(Path::new(""));
    let missing = site
        .secret
        .iter()
        .filter(|secret| !beside.join(&secret.file).exists());
    missing
        .map(|secret| {
            let file = beside.join(&secret.file).display().to_string();
            format!("the secret {file} is not there yet; make it with: (umask 077; head -c 32 /dev/urandom > {file})")
        })
        .collect()
}

/// The plan for people.
#[must_use]
pub fn plan_text(site: &Site, notes: &[String]) -> String {
    let mut out = String::new();
    // Writing into a String never fails.
    let _ = write_plan(&mut out, site, notes);
    out
}

fn write_plan(out: &mut String, site: &Site, notes: &[String]) -> std::fmt::Result {
    let voters = site.voters();
    let witness = if site.witness.is_some() {
        " (one a witness)"
    } else {
        ""
    };
    writeln!(
        out,
        "site {}: {} node{}, {voters} voter{}{witness}, digest {}",
        site.name,
        site.nodes.len(),
        plural(site.nodes.len()),
        plural(voters),
        &site.digest_hex()[..16]
    )?;
    let plans = plans(site);
    if let Some(first) = plans.first().filter(|plan| !plan.topics.is_empty()) {
        write_topics(out, site, &first.topics)?;
    }
    writeln!(
        out,
        "\ntopics made at run time get {} partition{} × {} replica{}{}",
        site.defaults.partitions,
        plural(site.defaults.partitions as usize),
        site.defaults.replication,
        plural(site.defaults.replication.into()),
        match (site.defaults.create_topics, site.defaults.auto_create) {
            (false, _) => "; but this site lets clients make none",
            (true, true) => ", by CreateTopics or on first use",
            (true, false) => ", by CreateTopics only",
        }
    )?;
    for (at, plan) in plans.iter().enumerate() {
        write_node(out, site, at, plan)?;
    }
    for warning in warnings(site) {
        writeln!(out, "\nWARNING  {warning}")?;
    }
    for note in notes {
        writeln!(out, "\nnote  {note}")?;
    }
    Ok(())
}

fn write_topics(out: &mut String, site: &Site, quotas: &[TopicQuota]) -> std::fmt::Result {
    let width = quotas
        .iter()
        .map(|quota| quota.topic.len())
        .max()
        .unwrap_or_default()
        .max(5);
    writeln!(
        out,
        "\n{:width$}  partitions  replicas  min in sync  kept        quota a partition",
        "topic"
    )?;
    for (topic, quota) in site.topics.iter().zip(quotas) {
        let kept = match site.keep(topic) {
            Keep::Ms(ms) => format_duration_ms(ms),
            Keep::Forever => "forever".to_owned(),
        };
        let bytes = match quota.quota_bytes {
            Some(bytes) if quota.shared => format!("{} (a share)", format_size(bytes)),
            Some(bytes) => format_size(bytes),
            None => "a share, known on the machine".to_owned(),
        };
        let refuse = topic.own.on_full.unwrap_or(site.defaults.on_full) == OnFull::Refuse;
        let full = if refuse { ", then refuses" } else { "" };
        writeln!(
            out,
            "{:width$}  {:>10}  {:>8}  {:>11}  {kept:<10}  {bytes}{full}",
            topic.name, topic.partitions, topic.replication, topic.min_insync
        )?;
    }
    Ok(())
}

fn write_node(out: &mut String, site: &Site, at: usize, plan: &Plan) -> std::fmt::Result {
    let doors = site.doors(at);
    let doors: Vec<String> = doors
        .iter()
        .map(|door| format!("{} {}", door.kind.name(), door.address))
        .collect();
    writeln!(
        out,
        "\nnode {} ({}): {}",
        plan.node,
        site.nodes[at].address,
        doors.join(", ")
    )?;
    for disk in &plan.disks {
        let replicas: Vec<String> = disk
            .replicas
            .iter()
            .map(|topic| format!("{} × {}", topic.topic, topic.count))
            .collect();
        let replicas = if replicas.is_empty() {
            "no topic of the site file".to_owned()
        } else {
            replicas.join(", ")
        };
        match (disk.space, disk.left_bytes) {
            (Some(space), Some(left)) => {
                let share = if disk.of_free_percent < 100 {
                    format!(
                        ", or {} % of what is free if that is less",
                        disk.of_free_percent
                    )
                } else {
                    String::new()
                };
                writeln!(
                    out,
                    "  disk {}: {}{share}",
                    disk.place,
                    format_size(space.use_bytes)
                )?;
                writeln!(
                    out,
                    "    journal {}, checkpoints {}, internal {}, topics {}, left {}",
                    format_size(disk.journal_bytes),
                    format_size(space.checkpoint_bytes),
                    format_size(space.internal_bytes),
                    format_size(disk.reserved_bytes),
                    format_size(left)
                )?;
            }
            _ => {
                writeln!(
                    out,
                    "  disk {}: {} % of what is free there",
                    disk.place, disk.of_free_percent
                )?;
                writeln!(
                    out,
                    "    journal {}, topics with a quota of their own {}",
                    format_size(disk.journal_bytes),
                    format_size(disk.reserved_bytes)
                )?;
            }
        }
        writeln!(out, "    {replicas}")?;
    }
    writeln!(
        out,
        "  memory, all pools full: {} ({} connections, {} replicas); file descriptors: {}",
        format_size(plan.memory.bytes),
        site.limits.connections,
        site.limits.replicas,
        plan.descriptors.sum
    )
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
