//! Kafka's variable-length integers: base-128 groups, least first, zig-zag for the signed ones
//! (KIP-98's record format, as in Protocol Buffers).

use thiserror::Error;

/// A varint that ends too late, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VarintError {
    /// The bytes end inside the integer.
    #[error("the bytes end inside a varint")]
    Truncated,
    /// More than 5 (32-bit) or 10 (64-bit) bytes, or bits beyond the type.
    #[error("a varint is longer than its type allows")]
    TooLong,
}

/// Reads an unsigned 32-bit varint from the front of `bytes`, which then begins behind it.
pub fn read_u32(bytes: &mut &[u8]) -> Result<u32, VarintError> {
    u32::try_from(read(bytes, 5)?).map_err(|_| VarintError::TooLong)
}

/// Reads a zig-zag 32-bit varint from the front of `bytes`, which then begins behind it.
pub fn read_i32(bytes: &mut &[u8]) -> Result<i32, VarintError> {
    let raw = read_u32(bytes)?;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Reads a zig-zag 64-bit varint from the front of `bytes`, which then begins behind it.
pub fn read_i64(bytes: &mut &[u8]) -> Result<i64, VarintError> {
    let raw = read(bytes, 10)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// Appends an unsigned varint: 1 to 5 bytes for a 32-bit value, up to 10 for a 64-bit one.
pub fn write_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zig-zag varint; 32-bit values take the same bytes as in their own type.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Bytes that [`write_i64`] takes for it.
#[must_use]
pub const fn len_i64(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    // Seven bits a byte; zero takes one as well.
    (70 - (raw | 1).leading_zeros() as usize) / 7
}

fn read(bytes: &mut &[u8], bytes_max: usize) -> Result<u64, VarintError> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(bytes_max).enumerate() {
        let group = u64::from(byte & 0x7f);
        if at == 9 && group > 1 {
            return Err(VarintError::TooLong);
        }
        value |= group << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() < bytes_max {
        VarintError::Truncated
    } else {
        VarintError::TooLong
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for value in [
            0,
            1,
            -1,
            63,
            64,
            -64,
            -65,
            8191,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            i64::MAX,
            i64::MIN,
        ] {
            let mut out = Vec::new();
            write_i64(&mut out, value);
            assert_eq!(len_i64(value), out.len(), "{value}");
            let mut rest = &out[..];
            assert_eq!(read_i64(&mut rest), Ok(value));
            assert!(rest.is_empty());
            if let Ok(small) = i32::try_from(value) {
                assert_eq!(read_i32(&mut &out[..]), Ok(small));
            }
        }
    }

    #[test]
    fn bad_varints_are_named() {
        assert_eq!(
            read_u32(&mut &[0x80, 0x80][..]),
            Err(VarintError::Truncated)
        );
        assert_eq!(
            read_u32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]),
            Err(VarintError::TooLong)
        );
        assert_eq!(read_i32(&mut &[0x80; 6][..]), Err(VarintError::TooLong));
        assert_eq!(read_i64(&mut &[0xff; 11][..]), Err(VarintError::TooLong));
        assert_eq!(
            read_i64(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]),
            Err(VarintError::TooLong)
        );
    }
}
