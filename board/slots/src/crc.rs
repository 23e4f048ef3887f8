//! CRC-32C for records and payloads, CRC-32 for the GPT: in tables, since the loader has no other.

/// CRC-32C (RFC 3720, reflected polynomial) by eight bytes a step: under an emulator the loader checks 20 MB with it,
/// where a byte a step is half a second more.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    static TABLES: [[u32; 256]; 8] = tables(0x82F6_3B78);
    let mut crc = !0u32;
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight) ^ u64::from(crc);
        // The first byte has the longest way to go: seven more bytes follow it.
        crc = (0..8).fold(0, |sum, place| {
            let byte = (word >> (8 * place)) as u8;
            sum ^ TABLES[7 - place][usize::from(byte)]
        });
    }
    for byte in rest {
        crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    !crc
}

/// CRC-32 (IEEE 802.3, reflected polynomial), with which a GPT seals its header and its entries.
#[must_use]
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    static TABLE: [u32; 256] = tables::<1>(0xEDB8_8320)[0];
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(!0, step)
}

/// Table `k` says what a byte does to the CRC when `k` zero bytes follow it.
const fn tables<const N: usize>(polynomial: u32) -> [[u32; 256]; N] {
    let mut tables = [[0u32; 256]; N];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ polynomial
            } else {
                crc >> 1
            };
            bit += 1;
        }
        let mut table = 0;
        while table < N {
            tables[table][byte] = crc;
            table += 1;
        }
        byte += 1;
    }
    let mut table = 1;
    while table < N {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            byte += 1;
        }
        table += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_values_of_both_polynomials() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    proptest! {
        #[test]
        fn as_the_processor_counts(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc32c(&bytes), ::crc32c::crc32c(&bytes));
        }
    }
}
