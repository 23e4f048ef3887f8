//! What the targets share with the store's own tests.

#[path = "../../src/tests/exercise.rs"]
mod exercise;

/// Every decoder of the format.
pub fn decoders(data: &[u8]) {
    exercise::decoders(data);
}

/// A ring with one group of these entries, or, by the first byte, of these bytes.
pub fn recover(data: &[u8]) {
    if let [first, rest @ ..] = data {
        exercise::recover(rest, first % 4 == 0);
    }
}

/// A disk with these bytes somewhere in its metadata: which file, where, then what.
pub fn damaged(data: &[u8]) {
    if let [which, low, high, rest @ ..] = data {
        let at = u64::from(u16::from_le_bytes([*low, *high])) * 16;
        exercise::damaged(*which, at, rest);
    }
}
