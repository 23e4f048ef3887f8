//! Which internal partition holds a group: Kafka's hash, so that its tools look where we write.

/// The partition of `__consumer_offsets` for `group` out of `partitions`: `Utils.abs(groupId.hashCode) % partitions`.
///
/// # Panics
/// If `partitions` is 0.
#[must_use]
pub fn partition_of(group: &str, partitions: u32) -> u32 {
    // java.lang.String.hashCode: over UTF-16 code units, wrapping.
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // Utils.abs: 0 for the one value that has no positive counterpart.
    let abs = if hash == i32::MIN {
        0
    } else {
        hash.unsigned_abs()
    };
    abs % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_java() {
        // "foo".hashCode() = 101574, "polygenelubricants".hashCode() = Integer.MIN_VALUE,
        // "hello world, consumer".hashCode() is negative.
        assert_eq!(partition_of("foo", 1_000_000), 101_574);
        assert_eq!(partition_of("foo", 8), 6);
        assert_eq!(partition_of("polygenelubricants", 8), 0);
        assert_eq!(partition_of("", 8), 0);
        // "😀" is two code units: 0xd83d × 31 + 0xde00 = 1,772,899.
        assert_eq!(partition_of("😀", u32::MAX), 1_772_899);
    }
}
