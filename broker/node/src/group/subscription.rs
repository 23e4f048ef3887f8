//! The one look into a member's metadata: which topics a Kafka consumer is subscribed to, for OffsetDelete.
//!
//! ```text
//! version i16 · topics count i32, then strings of i16 length · user data and what later versions added
//! ```

use crate::coordinator::codec::{Reader, RecordFault};

/// Whether `metadata` names `topic`. What can't be read might: its offsets are then kept, as in Kafka.
pub(super) fn names(metadata: &[u8], topic: &str) -> bool {
    search(metadata, topic).unwrap_or(true)
}

fn search(metadata: &[u8], topic: &str) -> Result<bool, RecordFault> {
    let mut reader = Reader::new(metadata);
    // Later versions only add behind.
    let version = reader.i16()?;
    if version < 0 {
        return Err(RecordFault::Version(version));
    }
    for _ in 0..reader.count(false)? {
        if reader.string(false)? == topic {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_topic_and_keeps_what_it_cannot_read() {
        let subscription = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x03bcd\xff\xff\xff\xff";
        assert!(names(subscription, "bcd"));
        assert!(!names(subscription, "bc"));
        assert!(names(&subscription[..9], "x"), "cut");
        assert!(
            names(b"\x00\x00\x7f\xff\xff\xff", "x"),
            "a count without topics"
        );
        assert!(names(b"", "x"));
    }
}
