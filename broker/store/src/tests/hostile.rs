//! Bytes that no release wrote: nothing panics on them, whatever they are.

use super::exercise::{damaged, decoders, recover};
use crate::format::journal::{Entry, EntryType};
use crate::io::mem::Random;

fn random(random: &mut Random, len: u64) -> Vec<u8> {
    let len = random.below(len + 1);
    (0..len).map(|_| (random.next() >> 24) as u8).collect()
}

/// Entries that could be: right types, small numbers.
fn entries(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let count = 1 + random.below(12);
    for number in 0..count {
        let kind = EntryType::from_u8(1 + random.below(15) as u8).unwrap();
        let mut entry = Entry::new(kind);
        entry.flags = random.below(8) as u8;
        entry.part.0 = [0, 0, 0, 1][random.below(4) as usize];
        entry.life.slot = [0, 0, 0, 1][random.below(4) as usize];
        entry.life.generation = [1, 1, 1, 0, 2][random.below(5) as usize];
        entry.ext_off = [4096, 4096, 4200, 0, u32::MAX][random.below(5) as usize];
        entry.base.0 = [0, 0, 1, 5, -1, i64::MAX][random.below(6) as usize];
        entry.epoch.0 = [0, 1, -1, i32::MAX][random.below(4) as usize];
        entry.span = [0, 1, 5, u32::MAX][random.below(4) as usize];
        entry.aux = [0, 1, 2, u64::MAX][random.below(4) as usize];
        if random.below(2) == 0 {
            entry.len = [20, 72, 61, 100][random.below(4) as usize];
            entry.payload_off = 64 + 64 * count as u32;
        }
        // Mostly there is a replica with an extent, so that what follows has something to break.
        if number < 2 && random.below(8) > 0 {
            entry = match number {
                0 => Entry::new(EntryType::PartNew),
                _ => Entry::new(EntryType::ExtOpen),
            };
            if number == 0 {
                (entry.len, entry.payload_off) = (20, 64 + 64 * count as u32);
            } else {
                entry.life.generation = 1;
            }
        }
        let mut bytes = [0; 64];
        entry.encode(&mut bytes);
        out.extend_from_slice(&bytes);
    }
    out.extend(self::random(random, 200));
    out.resize(64 * count as usize + 200, 0);
    out
}

fn seed() -> u64 {
    let seed = std::env::var("STORE_SEED").ok();
    let seed = seed.and_then(|it| it.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    });
    println!("STORE_SEED={seed}");
    seed
}

#[test]
fn no_decoder_panics() {
    let mut rng = Random(seed());
    for _ in 0..20_000 {
        let bytes = random(&mut rng, 300);
        decoders(&bytes);
    }
}

#[test]
fn no_ring_makes_a_recovery_panic() {
    let mut rng = Random(seed());
    for _ in 0..400 {
        let bytes = entries(&mut rng);
        recover(&bytes, false);
        let raw = random(&mut rng, 5000);
        recover(&raw, true);
    }
}

#[test]
fn no_damage_makes_a_reader_panic() {
    let mut rng = Random(seed());
    for _ in 0..300 {
        let bytes = random(&mut rng, 5000);
        let (which, at) = (rng.next() as u8, rng.next());
        damaged(which, at, &bytes);
    }
}
