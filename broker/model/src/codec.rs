//! Compresses and decompresses the records of a batch, with the four codecs that Kafka's clients write.
//!
//! Output is bounded by the caller. Nothing here allocates by what the bytes claim: where a format announces its length,
//! the announcement is held against the bound and against what the format can hold at most.

use std::io::{self, Read, Write};

use thiserror::Error;
use zstd::zstd_safe;

use crate::batch::Codec;

/// Xerial's framing of Snappy, which Java clients write: a magic, version 1, compatible from 1; then blocks, each
/// behind its length (u32).
const XERIAL: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// The part of it that is the same in every version.
const XERIAL_MAGIC_BYTES: usize = 8;
/// Bytes in a block of it before compression, as Xerial's own default.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Snappy's best element is a copy of 64 bytes told in 3: a raw block holds less than 22 times its length.
const SNAPPY_RATIO_MAX: usize = 22;
/// The first guess of what a Zstandard body decompresses to; a wrong guess is made again, four times as large.
const ZSTD_GUESS_BYTES: usize = 64 * 1024;
const ZSTD_GUESS_GROWTH: usize = 4;
/// `ZSTD_error_dstSize_tooSmall`, as the functions return it.
const ZSTD_OUTPUT_TOO_SMALL: zstd_safe::ErrorCode = 0_usize.wrapping_sub(70);

/// Records that could not be compressed or decompressed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecFault {
    /// More than the caller takes.
    #[error("the records decompress to more than {bytes_max} bytes")]
    TooLarge {
        /// The caller's bound.
        bytes_max: usize,
    },
    /// The bytes are not the codec's.
    #[error("{codec:?}: {reason}")]
    Malformed {
        /// What the header calls them.
        codec: Codec,
        /// What the codec says.
        reason: String,
    },
}

/// Compresses the records of a batch at the codec's default level: Snappy in Xerial's framing, LZ4 in independent
/// blocks, both as Java clients demand.
///
/// # Errors
/// If the codec's library fails, which memory aside it does not.
pub fn compress(codec: Codec, records: &[u8]) -> Result<Vec<u8>, CodecFault> {
    let packed = match codec {
        Codec::None => Ok(records.to_vec()),
        Codec::Gzip => {
            let level = flate2::Compression::default();
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
            writer.write_all(records).and_then(|()| writer.finish())
        }
        Codec::Snappy => compress_xerial(records),
        Codec::Lz4 => {
            let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
            writer
                .write_all(records)
                .and_then(|()| writer.finish().map_err(io::Error::other))
        }
        Codec::Zstd => zstd::bulk::compress(records, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    packed.map_err(|error| malformed(codec, error))
}

/// Decompresses the records of a batch to at most `bytes_max` bytes; memory stays below twice that and a few MiB.
///
/// # Errors
/// [`CodecFault::TooLarge`] as soon as there are more, [`CodecFault::Malformed`] if the codec can't read them.
pub fn decompress(codec: Codec, packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodecFault> {
    match codec {
        Codec::None => {
            bound(packed.len(), bytes_max)?;
            Ok(packed.to_vec())
        }
        Codec::Gzip => read_bounded(codec, flate2::read::MultiGzDecoder::new(packed), bytes_max),
        Codec::Snappy => decompress_snappy(packed, bytes_max),
        Codec::Lz4 => {
            let reader = lz4_flex::frame::FrameDecoder::new(packed);
            read_bounded(codec, reader, bytes_max)
        }
        Codec::Zstd => decompress_zstd(packed, bytes_max),
    }
}

fn malformed(codec: Codec, reason: impl ToString) -> CodecFault {
    CodecFault::Malformed {
        codec,
        reason: reason.to_string(),
    }
}

fn bound(bytes: usize, bytes_max: usize) -> Result<(), CodecFault> {
    if bytes > bytes_max {
        return Err(CodecFault::TooLarge { bytes_max });
    }
    Ok(())
}

fn read_bounded(codec: Codec, reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, CodecFault> {
    let mut out = Vec::new();
    // One byte beyond the bound tells "exactly so many" from "more".
    reader
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|error| malformed(codec, error))?;
    bound(out.len(), bytes_max)?;
    Ok(out)
}

fn compress_xerial(records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
        let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

/// Raw, as librdkafka writes it, or in Xerial's framing. The framing may begin again between blocks, where a writer
/// joined two streams; as a length its magic would be above 2 GiB.
fn decompress_snappy(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodecFault> {
    let mut out = Vec::new();
    let magic = &XERIAL[..XERIAL_MAGIC_BYTES];
    if !packed.starts_with(magic) {
        decompress_block(packed, bytes_max, &mut out)?;
        return Ok(out);
    }
    let cut = || malformed(Codec::Snappy, "the bytes end inside Xerial's framing");
    let mut rest = packed;
    while !rest.is_empty() {
        if rest.starts_with(magic) {
            rest = rest.get(XERIAL.len()..).ok_or_else(cut)?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, behind) = behind.split_at_checked(length).ok_or_else(cut)?;
        decompress_block(block, bytes_max, &mut out)?;
        rest = behind;
    }
    Ok(out)
}

fn decompress_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), CodecFault> {
    let fault = |error: snap::Error| malformed(Codec::Snappy, error);
    let claimed = snap::raw::decompress_len(block).map_err(fault)?;
    bound(out.len().saturating_add(claimed), bytes_max)?;
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        let reason = format!(
            "{} bytes can not hold the {claimed} they claim",
            block.len()
        );
        return Err(malformed(Codec::Snappy, reason));
    }
    let begin = out.len();
    out.resize(begin + claimed, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[begin..])
        .map_err(fault)?;
    out.truncate(begin + written);
    Ok(())
}

/// In one piece, where the output is the window: a stream would allocate the window that the frame claims.
fn decompress_zstd(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodecFault> {
    let mut guess = packed
        .len()
        .saturating_mul(ZSTD_GUESS_GROWTH)
        .max(ZSTD_GUESS_BYTES)
        .min(bytes_max);
    let mut context = zstd_safe::DCtx::create();
    loop {
        let mut out = Vec::with_capacity(guess);
        match context.decompress(&mut out, packed) {
            Ok(_) => {
                // A vector may hold more than was asked for.
                bound(out.len(), bytes_max)?;
                return Ok(out);
            }
            Err(ZSTD_OUTPUT_TOO_SMALL) if guess == bytes_max => {
                return Err(CodecFault::TooLarge { bytes_max });
            }
            Err(ZSTD_OUTPUT_TOO_SMALL) => {
                guess = guess.saturating_mul(ZSTD_GUESS_GROWTH).min(bytes_max);
            }
            Err(code) => return Err(malformed(Codec::Zstd, zstd_safe::get_error_name(code))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    fn repetitive() -> Vec<u8> {
        (0..100_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_took_and_is_smaller() {
        let records = repetitive();
        for codec in PACKED {
            let packed = compress(codec, &records).unwrap();
            assert!(packed.len() < records.len(), "{codec:?}");
            assert!(
                decompress(codec, &packed, records.len()).unwrap() == records,
                "{codec:?}"
            );
            let fault = decompress(codec, &packed, records.len() - 1).unwrap_err();
            let bytes_max = records.len() - 1;
            assert_eq!(fault, CodecFault::TooLarge { bytes_max }, "{codec:?}");
            let cut = decompress(codec, &packed[..packed.len() / 2], records.len());
            assert!(
                cut.is_err_and(|fault| matches!(fault, CodecFault::Malformed { .. })),
                "{codec:?} cut"
            );
        }
    }

    #[test]
    fn snappy_is_read_raw_and_joined() {
        let records = repetitive();
        let raw = snap::raw::Encoder::new().compress_vec(&records).unwrap();
        assert!(decompress(Codec::Snappy, &raw, records.len()).unwrap() == records);
        let framed = compress(Codec::Snappy, &records).unwrap();
        let joined = decompress(Codec::Snappy, &framed.repeat(2), 2 * records.len()).unwrap();
        assert!(joined == records.repeat(2));
    }

    #[test]
    fn a_bomb_is_refused_within_the_bound() {
        let bytes_max = 1 << 20;
        let zeros = vec![0; 8 << 20];
        for codec in PACKED {
            let packed = compress(codec, &zeros).unwrap();
            assert_eq!(
                decompress(codec, &packed, bytes_max),
                Err(CodecFault::TooLarge { bytes_max }),
                "{codec:?}"
            );
        }
    }

    #[test]
    fn a_claim_that_no_block_can_keep_is_not_allocated() {
        // A raw block of one literal byte that claims 16 MiB.
        let lie = [0x80, 0x80, 0x80, 0x08, 0x00, b'x'];
        let fault = decompress(Codec::Snappy, &lie, 64 << 20).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "Snappy: 6 bytes can not hold the 16777216 they claim"
        );
        // The densest block there is stays below the ratio: one literal, then copies of 64 bytes in 3.
        let mut dense = vec![];
        crate::varint::write_u64(&mut dense, 1 + 64 * 1_000);
        dense.extend_from_slice(&[0x00, b'x']);
        dense.extend(std::iter::repeat_n([0xfe, 0x01, 0x00], 1_000).flatten());
        let plain = decompress(Codec::Snappy, &dense, 1 << 20).unwrap();
        assert!(plain.len() == 64_001 && plain.iter().all(|byte| *byte == b'x'));
    }

    proptest! {
        #[test]
        fn decompress_undoes_compress(
            records in proptest::collection::vec(0_u8..4, 0..70_000),
            which in 0..PACKED.len(),
        ) {
            let codec = PACKED[which];
            let packed = compress(codec, &records).unwrap();
            prop_assert!(decompress(codec, &packed, records.len()).unwrap() == records);
        }

        #[test]
        fn hostile_bytes_stay_within_the_bound(
            noise in proptest::collection::vec(any::<u8>(), 0..2_000),
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            which in 0..PACKED.len(),
            bytes_max in 0_usize..100_000,
        ) {
            let codec = PACKED[which];
            let mut bent = compress(codec, &noise.repeat(10)).unwrap();
            for (at, byte) in flips {
                let at = at.index(bent.len());
                bent[at] = byte;
            }
            for bytes in [&noise, &bent] {
                if let Ok(plain) = decompress(codec, bytes, bytes_max) {
                    prop_assert!(plain.len() <= bytes_max);
                    prop_assert!(plain.capacity() <= 2 * bytes_max + 64);
                }
            }
        }
    }
}
