//! `howdah cluster`: what a running node says of itself, asked at its HTTP door; and the one thing a person may tell it there.
//!
//! For people the few lines that matter when something is wrong; `--json` gives the same values as [`crate::status`] has
//! them.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use cli::exit;
use serde_json::{Value, json};

use crate::ClusterArgs;
use crate::http::{CONFIRM_CLOCK, OPERATE_HEADER};

/// A node that serves answers at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Status of 2,000 topics is some 300 KiB.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why it can't be shown, with its exit code.
struct Failure(u8, String);

pub(crate) fn run(args: &ClusterArgs) -> ExitCode {
    let done = match args.confirm_clock {
        true => confirm_clock(args),
        false => show(args),
    };
    // A reader of our output that has seen enough is no fault.
    let done = done.map(|text| drop(io::stdout().lock().write_all(text.as_bytes())));
    match done {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(Failure(code, why)) => {
            eprintln!("howdah cluster: {why}");
            ExitCode::from(code)
        }
    }
}

fn show(args: &ClusterArgs) -> Result<String, Failure> {
    let (status, body) = ask(&args.http, "GET", "/status")?;
    let told: Option<Value> = serde_json::from_slice(&body).ok();
    let Some(told) = told.filter(|it| status == 200 && it["product"] == "howdah") else {
        let why = format!("{} is no node of Howdah's: HTTP {status}", args.http);
        return Err(Failure(exit::FAULT, why));
    };
    let shown = nodes(&told);
    match args.json {
        true => Ok(format!("{shown:#}\n")),
        false => Ok(text(&shown)),
    }
}

fn confirm_clock(args: &ClusterArgs) -> Result<String, Failure> {
    let (status, body) = ask(&args.http, "POST", CONFIRM_CLOCK)?;
    let said = String::from_utf8_lossy(&body).into_owned();
    match status {
        200 if args.json => Ok(format!("{:#}\n", json!({ "told": said.trim() }))),
        200 => Ok(said),
        403 => Err(Failure(exit::REFUSED, said.trim().to_owned())),
        _ => Err(Failure(exit::FAULT, format!("HTTP {status}: {said}"))),
    }
}

/// What of a node's status is shown, as a site: a site of one has one node.
fn nodes(status: &Value) -> Value {
    let (site, node) = (&status["site"], &status["node"]);
    let disks = status["disks"].as_array().into_iter().flatten();
    let disks = disks.map(|disk| {
        let keys = [
            "path",
            "uuid",
            "state",
            "suspect",
            "suspect_ranges",
            "use_bytes",
            "reserved_bytes",
            "failures",
            "read_errors",
            "scrubbed_bytes",
            "scrub_rounds",
        ];
        keys.into_iter()
            .map(|key| (key.to_owned(), disk[key].clone()))
            .collect::<Value>()
    });
    json!({
        "site": site["name"],
        "cluster_id": site["cluster_id"],
        "digest": site["digest"],
        "nodes": [{
            "id": node["id"],
            "name": node["name"],
            "ready": node["ready"],
            "not_ready": node["not_ready"],
            "version": status["version"],
            "uptime_s": node["uptime_s"],
            "role": node["role"],
            "term": node["term"],
            "lease_ms": node["lease_ms"],
            "clock": node["clock"],
            "partitions": status["partitions"],
            "disks": disks.collect::<Vec<_>>(),
        }],
    })
}

/// The same for a person.
fn text(shown: &Value) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_text(&mut out, shown);
    out
}

fn write_text(out: &mut String, shown: &Value) -> std::fmt::Result {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    writeln!(
        out,
        "site {}, cluster {}",
        text(&shown["site"]),
        text(&shown["cluster_id"])
    )?;
    for node in list(&shown["nodes"]) {
        let ready = match node["ready"] == true {
            true => "serving".to_owned(),
            false => {
                let why: Vec<String> = list(&node["not_ready"]).iter().map(text).collect();
                format!("NOT READY ({})", why.join("; "))
            }
        };
        writeln!(
            out,
            "node {} ({}): {ready}, {}, term {}, lease {:.1} s, up {} s, version {}",
            text(&node["name"]),
            number(&node["id"]),
            text(&node["role"]),
            number(&node["term"]),
            number(&node["lease_ms"]) as f64 / 1e3,
            number(&node["uptime_s"]),
            text(&node["version"]),
        )?;
        let clock = &node["clock"];
        match text(&clock["quality"]).as_str() {
            "stepped" => writeln!(
                out,
                "  clock STEPPED forward by {:.1} days: nothing is deleted by age; believed by itself in {:.1} h, or now with --confirm-clock",
                number(&clock["stepped_s"]) as f64 / 86_400.0,
                number(&clock["believed_in_s"]) as f64 / 3_600.0,
            )?,
            "unsynchronised" => writeln!(
                out,
                "  clock UNSYNCHRONISED: nothing is deleted by age until something keeps it right"
            )?,
            quality => writeln!(out, "  clock {quality}")?,
        }
        let partitions = &node["partitions"];
        writeln!(
            out,
            "  {} partitions, {} of them offline",
            number(&partitions["count"]),
            number(&partitions["offline"])
        )?;
        for disk in list(&node["disks"]) {
            let state = match text(&disk["state"]) {
                state if state == "serving" => state,
                other => other.to_uppercase(),
            };
            writeln!(
                out,
                "  disk {}: {state}, {:.1} of {:.1} GiB promised, {} read errors, {:.1} GiB scrubbed",
                text(&disk["path"]),
                gib(number(&disk["reserved_bytes"])),
                gib(number(&disk["use_bytes"])),
                number(&disk["read_errors"]),
                gib(number(&disk["scrubbed_bytes"])),
            )?;
            for range in list(&disk["suspect_ranges"]) {
                writeln!(
                    out,
                    "    SUSPECT {} {}, offsets {} to {}, {}: {}",
                    text(&range["topic"]),
                    number(&range["partition"]),
                    range["first_offset"],
                    range["last_offset"],
                    match range["damaged"] == true {
                        true => "refused to readers",
                        false => "still served",
                    },
                    text(&range["why"]),
                )?;
            }
        }
    }
    Ok(())
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// One request, whole: HTTP status and body.
fn ask(address: &str, method: &str, path: &str) -> Result<(u16, Vec<u8>), Failure> {
    exchange(address, method, path).map_err(|error| {
        Failure(
            exit::UNREACHABLE,
            format!("can't reach {address}: {error}; --http names the node's HTTP address"),
        )
    })
}

fn exchange(address: &str, method: &str, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&resolved, PATIENCE) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        // By its address, whatever name a person typed: the door answers to few names.
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {resolved}\r\nConnection: close\r\nContent-Length: 0\r\n{OPERATE_HEADER}: 1\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        return parse(&answer)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"));
    }
    Err(last)
}

/// Status and body of an answer that ends with its connection. The door sends whole bodies, never in chunks.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head = answer.windows(4).position(|it| it == b"\r\n\r\n")?;
    let line = std::str::from_utf8(&answer[..head]).ok()?.lines().next()?;
    let status = line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, answer[head + 4..].to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn status(clock: &Value, disks: &Value) -> Value {
        json!({
            "product": "howdah", "version": "0.1.0",
            "site": { "name": "plant-7", "cluster_id": "x7", "digest": "ab" },
            "node": {
                "id": 1, "name": "a", "ready": true, "not_ready": [], "uptime_s": 7, "role": "controller", "term": 3,
                "lease_ms": 9_500, "clock": clock,
            },
            "partitions": { "count": 4, "offline": 1 },
            "disks": disks,
        })
    }

    #[test]
    fn what_is_wrong_stands_in_capitals() {
        let clock =
            json!({ "quality": "stepped", "stepped_s": 4_838_400, "believed_in_s": 82_800 });
        let range = json!({
            "topic": "t", "partition": 2, "first_offset": 10, "last_offset": 12, "damaged": true, "why": "batch at 7157: CRC",
        });
        let disks = json!([
            { "path": "d1", "state": "failed", "use_bytes": 1_u64 << 40, "reserved_bytes": 1_u64 << 30, "read_errors": 3,
              "suspect_ranges": [range], "scrubbed_bytes": 0 },
            { "path": "d2", "state": "serving", "use_bytes": 0, "reserved_bytes": 0, "read_errors": 0, "suspect_ranges": [],
              "scrubbed_bytes": 3_u64 << 30 },
        ]);
        assert_eq!(
            text(&nodes(&status(&clock, &disks))),
            "site plant-7, cluster x7\n\
             node a (1): serving, controller, term 3, lease 9.5 s, up 7 s, version 0.1.0\n  \
             clock STEPPED forward by 56.0 days: nothing is deleted by age; believed by itself in 23.0 h, or now with --confirm-clock\n  \
             4 partitions, 1 of them offline\n  \
             disk d1: FAILED, 1.0 of 1024.0 GiB promised, 3 read errors, 0.0 GiB scrubbed\n    \
             SUSPECT t 2, offsets 10 to 12, refused to readers: batch at 7157: CRC\n  \
             disk d2: serving, 0.0 of 0.0 GiB promised, 0 read errors, 3.0 GiB scrubbed\n"
        );
    }

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\n\r\nno\n";
        assert_eq!(parse(answer), Some((403, b"no\n".to_vec())));
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n"), None);
    }
}
