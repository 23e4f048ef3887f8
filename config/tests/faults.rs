//! Bad site files and exactly what is said of each: `faults.txt` holds file, `----`, messages, `====`, the next.
//!
//! `UPDATE=1 cargo test -p site` writes what is said now; read the difference before it is committed.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

#[test]
fn each_fault_is_named_where_it_stands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults.txt");
    let golden = std::fs::read_to_string(&path).unwrap();
    let mut said = String::new();
    for case in golden.split("====\n") {
        let (text, _) = case
            .split_once("----\n")
            .expect("a case has its line of dashes");
        if !said.is_empty() {
            said.push_str("====\n");
        }
        writeln!(said, "{text}----").unwrap();
        match site::parse(text, "s.toml") {
            Ok(_) => said.push_str("legal\n"),
            Err(faults) => faults
                .iter()
                .for_each(|fault| writeln!(said, "{fault}").unwrap()),
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, said).unwrap();
    } else {
        assert_eq!(said, golden);
    }
}
