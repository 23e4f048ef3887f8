//! The compactor's memory of keys: for each, by a hash of 128 bits, the last offset at which it was seen.
//!
//! Two keys that share a hash would cost an acknowledged record, so the hash is a cryptographic one: with 2¹⁸ keys the
//! chance is 2⁻⁹³. The table is of fixed size; a full one ends the map's range, and what lies behind stays untouched.

use model::Offset;
use sha2::{Digest, Sha256};

/// Bytes of the table: 349,525 places, of which nine in ten are used.
pub const KEY_MAP_BYTES: usize = 8 << 20;

#[derive(Clone, Copy, Debug)]
struct Place {
    hash: [u8; 16],
    /// −1: not used.
    offset: i64,
}

const EMPTY: Place = Place {
    hash: [0; 16],
    offset: -1,
};

/// See the module. One serves all compactions of a node, one after the other.
#[derive(Debug)]
pub struct KeyMap {
    places: Vec<Place>,
    used: usize,
}

impl Default for KeyMap {
    fn default() -> Self {
        Self::with_bytes(KEY_MAP_BYTES)
    }
}

impl KeyMap {
    /// A table of `bytes`.
    #[must_use]
    pub fn with_bytes(bytes: usize) -> Self {
        let count = (bytes / size_of::<Place>()).max(2);
        Self {
            places: vec![EMPTY; count],
            used: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.places.fill(EMPTY);
        self.used = 0;
    }

    /// Keys in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Where a hash lies, or would.
    fn place(&self, hash: [u8; 16]) -> usize {
        let (count, low) = (self.places.len(), hash.first_chunk().expect("16 bytes"));
        let mut at = (u64::from_le_bytes(*low) % count as u64) as usize;
        // One place in ten is free, so this ends.
        while self.places[at].offset >= 0 && self.places[at].hash != hash {
            at = (at + 1) % count;
        }
        at
    }

    /// Takes note of `key` at `offset`; false if the table is full and does not know it.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = hash(key);
        let at = self.place(hash);
        if self.places[at].offset < 0 {
            if (self.used + 1) * 10 > self.places.len() * 9 {
                return false;
            }
            self.used += 1;
        }
        let place = &mut self.places[at];
        (place.hash, place.offset) = (hash, place.offset.max(offset.0));
        true
    }

    /// Last offset at which `key` was seen.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Offset> {
        let place = &self.places[self.place(hash(key))];
        (place.offset >= 0).then_some(Offset(place.offset))
    }
}

fn hash(key: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(key);
    *digest.first_chunk().expect("32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_takes_known_keys_only() {
        let mut keys = KeyMap::with_bytes(24 * 100);
        let mut taken = 0;
        while keys.put(&[taken], Offset(taken.into())) {
            taken += 1;
        }
        assert_eq!((taken, keys.len()), (90, 90));
        assert!(keys.put(&[3], Offset(500)) && keys.put(&[4], Offset(1)));
        for key in 0..taken {
            let want = if key == 3 { 500 } else { key.into() };
            assert_eq!(keys.get(&[key]), Some(Offset(want)), "{key}");
        }
        assert_eq!(keys.get(&[taken]), None);
        keys.clear();
        assert!(keys.is_empty() && keys.get(&[3]).is_none());
    }
}
