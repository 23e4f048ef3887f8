//! Site files and blobs with bytes changed at random: refused or read, never a panic; the seed is printed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// xorshift64: no dependency, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

fn seed() -> u64 {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(0x5eed_0001);
    println!("SEED={seed}");
    seed
}

/// Every example and every bad file of the golden table.
fn texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = fs::read_to_string(root.join("tests/faults.txt")).unwrap();
    let examples = fs::read_dir(root.join("sites"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let bad = golden
        .split("====\n")
        .map(|case| case.split_once("----\n").unwrap().0.to_owned());
    examples.chain(bad).collect()
}

#[test]
fn changed_text_is_read_or_refused_at_a_place_that_is_there() {
    const PIECES: [&str; 16] = [
        "\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        "0",
        "-1",
        "99999999999999999999",
        "é",
        "\"4TB\"",
        "true",
        "[[node]]\n",
        ".",
        ",",
    ];
    let mut random = Random(seed());
    for text in texts() {
        for _ in 0..200 {
            let mut changed: Vec<char> = text.chars().collect();
            for _ in 0..=random.below(3) {
                let at = random.below(changed.len() + 1);
                let end = (at + random.below(4)).min(changed.len());
                let piece = PIECES[random.below(PIECES.len())];
                changed.splice(at..end, piece.chars());
            }
            let changed: String = changed.into_iter().collect();
            if let Err(faults) = site::parse(&changed, "s.toml") {
                assert!(!faults.is_empty());
                for fault in faults {
                    let line = changed
                        .split('\n')
                        .nth(fault.line - 1)
                        .unwrap_or_else(|| panic!("{fault}\n{changed}"));
                    assert!(
                        fault.column <= line.chars().count() + 1,
                        "{fault}\n{changed}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_blob_with_any_byte_changed_or_cut_is_refused() {
    let blob = site::laptop().to_blob();
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut changed = blob.clone();
            changed[at] ^= 1 << bit;
            assert!(
                site::Site::from_blob(&changed).is_err(),
                "byte {at} bit {bit}"
            );
        }
        assert!(site::Site::from_blob(&blob[..at]).is_err(), "cut at {at}");
    }
    let mut longer = blob.clone();
    longer.extend_from_slice(&[0xff; 512]);
    assert_eq!(
        site::Site::from_blob(&longer),
        Ok(site::laptop()),
        "a partition is longer than its blob"
    );
}

#[test]
fn refusals_of_a_blob_say_what_to_do() {
    let blob = site::laptop().to_blob();
    let with = |at: usize, byte: u8| {
        let mut changed = blob.clone();
        changed[at] = byte;
        // A newer release signs its own bytes.
        let end = changed.len() - 4;
        let crc = crc32c::crc32c(&changed[..end]).to_le_bytes();
        changed[end..].copy_from_slice(&crc);
        site::Site::from_blob(&changed).unwrap_err().to_string()
    };
    assert_eq!(
        with(8, 2),
        "the site blob has format version 2, this release reads up to 1: start the newer release again, or make the blob anew with this one's tools"
    );
    assert_eq!(
        with(12, 1),
        "the site blob has flags 0x1 that this release does not know: start the newer release again, or make the blob anew with this one's tools"
    );
    assert_eq!(
        with(0, b'X'),
        "this is no site blob: make one from the site file"
    );
    assert_eq!(
        with(25, b'X'),
        "the site blob's body can't be read (its digest is not its own): make it anew with this release's tools"
    );
}
